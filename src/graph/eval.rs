//! The host interpreter: plain, slow, and the oracle of the tests.

use crate::graph::{Equation, Function};
use crate::{Array, Result};

impl Function {
    /// Evaluates it on the host, operator by operator.
    ///
    /// Floats are computed in f64 and rounded to their dtype after each operator; integers wrap.
    ///
    /// # Errors
    /// Where the arguments' number or shapes are not the parameters', or an operator has no host form (a custom
    /// call of a target's own) or is one of several replicas'.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let double = Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0])?;
    /// let results = double.eval(&[Array::new([3], &[1f32, 2.0, 3.0])?])?;
    /// assert_eq!(results, [Array::new([3], &[2f32, 4.0, 6.0])?]);
    ///
    /// let refused = double.eval(&[Array::scalar(1f32)]).unwrap_err();
    /// assert_eq!(refused.to_string(), "double: argument 0 must be f32[3], got f32[]");
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn eval(&self, arguments: &[Array]) -> Result<Vec<Array>> {
        self.check_arguments(arguments.iter().map(Array::shape))?;
        self.check_replicas(1)?;
        self.interpret(arguments.iter().cloned(), |equation, inputs| {
            let outputs = equation.op.rules().eval(inputs)?;
            self.check_outputs(equation, &outputs)?;
            Ok(outputs)
        })
    }

    /// Evaluates replicas of it together, each on arguments of its own: equation by equation, so that an operator
    /// such as [`all_gather`](crate::Tensor::all_gather) reads what all have computed.
    ///
    /// # Errors
    /// As [`eval`](Function::eval), and where the replicas are not as many as such an operator works with.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("sum", &[Shape::new(DType::F32, [1])], |x| {
    ///     x[0].all_gather(0, 3)?.reduce_sum(&[0])
    /// })?;
    /// let arguments = [1f32, 2.0, 3.0].map(|x| vec![Array::new([1], &[x]).unwrap()]);
    /// assert_eq!(f.eval_replicas(&arguments)?, vec![vec![Array::scalar(6f32)]; 3]);
    ///
    /// let refused = f.eval_replicas(&arguments[..2]).unwrap_err();
    /// assert_eq!(refused.to_string(), "function sum: replicas must be 3, as in its all_gather, got 2");
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn eval_replicas(&self, arguments: &[Vec<Array>]) -> Result<Vec<Vec<Array>>> {
        for arguments in arguments {
            self.check_arguments(arguments.iter().map(Array::shape))?;
        }
        self.check_replicas(arguments.len())?;
        let replicas = |values: &[Vec<Array>]| -> Vec<Vec<Array>> {
            let of = |replica: usize| values.iter().map(|value| value[replica].clone()).collect();
            (0..arguments.len()).map(of).collect()
        };
        // A value is an array of each replica.
        let of_parameter =
            |index: usize| arguments.iter().map(|arguments| arguments[index].clone()).collect();
        let parameters: Vec<Vec<Array>> = (0..self.parameters.len()).map(of_parameter).collect();
        let results = self.interpret(parameters, |equation, inputs| {
            let outputs = equation.op.rules().eval_replicas(&replicas(inputs))?;
            for outputs in &outputs {
                self.check_outputs(equation, outputs)?;
            }
            let of_output = |index: usize| outputs.iter().map(|outputs| outputs[index].clone()).collect();
            Ok((0..outputs.first().map_or(0, Vec::len)).map(of_output).collect())
        })?;
        Ok(replicas(&results))
    }

    fn check_outputs(&self, equation: &Equation, outputs: &[Array]) -> Result<()> {
        for (&var, output) in equation.outputs.iter().zip(outputs) {
            if output.shape() != self.shape(var) {
                let (operator, expected, got) = (equation.operator(), self.shape(var), output.shape());
                return Err(self.invalid(format!("{operator} gives {got} where {expected} was inferred")));
            }
        }
        Ok(())
    }

    /// Evaluates a function of scalars for each position of arrays of sizes `dims`: reducers and comparators.
    ///
    /// A body of elementwise operators is evaluated once, on whole arrays; any other once for each position.
    pub(crate) fn eval_each(&self, dims: &[usize], arguments: &[Array]) -> Result<Vec<Array>> {
        let spread = |array: Array| match array.shape().rank() {
            0 => array.rearranged(dims, None, |_| Some(0)),
            _ => array,
        };
        if self.equations.iter().all(|equation| equation.op.rules().elementwise()) {
            return self.interpret(arguments.iter().cloned(), |equation, inputs| {
                Ok(equation.op.rules().eval(inputs)?.into_iter().map(spread).collect())
            });
        }
        let shapes: Vec<_> = self.result_shapes().iter().map(|shape| shape.with_dims(dims)).collect();
        let mut bytes = vec![Vec::new(); shapes.len()];
        for position in 0..dims.iter().product() {
            let scalars: Vec<_> =
                arguments.iter().map(|array| array.rearranged(&[], None, |_| Some(position))).collect();
            for (bytes, result) in bytes.iter_mut().zip(self.eval(&scalars)?) {
                bytes.extend_from_slice(result.as_bytes());
            }
        }
        shapes.into_iter().zip(&bytes).map(|(shape, bytes)| Array::from_bytes(shape, bytes)).collect()
    }
}
