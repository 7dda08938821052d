//! The host interpreter: plain, slow, and the oracle of the tests.

use crate::graph::Function;
use crate::{Array, Result};

impl Function {
    /// Evaluates it on the host, operator by operator.
    ///
    /// Floats are computed in f64 and rounded to their dtype after each operator; integers wrap.
    ///
    /// # Errors
    /// Where the arguments' number or shapes are not the parameters', or an operator has no host form (a custom
    /// call of a target's own).
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
        self.interpret(arguments.iter().cloned(), |equation, inputs| {
            let outputs = equation.op.rules().eval(inputs)?;
            for (&var, output) in equation.outputs.iter().zip(&outputs) {
                if output.shape() != self.shape(var) {
                    let (operator, expected, got) = (equation.operator(), self.shape(var), output.shape());
                    return Err(self.invalid(format!("{operator} gives {got} where {expected} was inferred")));
                }
            }
            Ok(outputs)
        })
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
