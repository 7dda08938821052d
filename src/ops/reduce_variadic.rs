//! Reductions of several operands at once by a function.

use std::sync::Arc;

use crate::graph::{Builder, Convention, Function, Tensor};
use crate::hlo;
use crate::ops::reduce::{Kind, walk};
use crate::ops::{Operator, i64s, increasing, others, signature};
use crate::shape::Dims;
use crate::{Array, DType, Error, Result, Shape};

/// Combines the elements of several operands along some dimensions by a function of scalars.
///
/// The inputs are the operands, then for each its initial value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReduceVariadic {
    /// Increasing.
    pub(crate) dimensions: Vec<usize>,
    pub(crate) reducer: Arc<Function>,
}

impl Builder {
    /// Reduces operands of equal sizes together over `dimensions` (negative: from the end).
    ///
    /// For n operands, `inits` are n scalars of their dtypes, and `reducer` takes n accumulated scalars, then
    /// n elements, and gives n accumulated ones. Elements are combined in any order and grouping, and an init
    /// with any number of the groups: the reducer must be associative and commutative, and the inits its
    /// identity.
    ///
    /// # Errors
    /// Where there is no operand, their sizes differ, a dimension is out of range or named twice, or the inits
    /// or the reducer do not fit.
    ///
    /// ```
    /// use xlann::{Array, Builder, DType, Function, Shape};
    ///
    /// // The sum and the sum of squares at once: of each element, its value and its square are added up.
    /// let scalar = Shape::scalar(DType::F32);
    /// let add = Function::trace("add", &vec![scalar; 4], |x| Ok([(&x[0] + &x[2])?, (&x[1] + &x[3])?]))?;
    ///
    /// let builder = Builder::new("moments");
    /// let x = builder.parameter("x", Shape::new(DType::F32, [2, 3]))?;
    /// let (squares, zero) = ((&x * &x)?, builder.scalar(0f32)?);
    /// let moments = builder.reduce(&[&x, &squares], &[&zero, &zero], &[1], add)?;
    /// let function = builder.finish(moments)?;
    /// let results = function.eval(&[Array::new([2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0])?])?;
    /// assert_eq!(results, [Array::new([2], &[6f32, 15.0])?, Array::new([2], &[14f32, 77.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn reduce(
        &self,
        operands: &[&Tensor],
        inits: &[&Tensor],
        dimensions: &[isize],
        reducer: Function,
    ) -> Result<Vec<Tensor>> {
        let Some(first) = operands.first() else {
            return Err(Error::argument("reduce", "operands", "one at least", "none"));
        };
        if operands.len() != inits.len() {
            let expected = format!("{}, one for each operand", operands.len());
            return Err(Error::argument("reduce", "inits", expected, inits.len()));
        }
        let dimensions = first.shape().axes("reduce", "dimensions", dimensions)?;
        let op = ReduceVariadic { dimensions, reducer: Arc::new(reducer) };
        self.push(op, &[operands, inits].concat())
    }
}

impl Tensor {
    /// The s32 index of the greatest element along `axis` (negative: from the end), which the output lacks: the
    /// first of equal ones, or the first NaN where there is one.
    ///
    /// # Errors
    /// Where there is no such axis, or its size is 0 or does not fit an s32.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [2, 3])], |x| x[0].argmax(1))?;
    /// let results = f.eval(&[Array::new([2, 3], &[1f32, 2.0, 3.0, 9.0, 5.0, 6.0])?])?;
    /// assert_eq!(results, [Array::new([2], &[2, 0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn argmax(&self, axis: isize) -> Result<Tensor> {
        self.index_of("argmax", Kind::Max, axis, |lhs, rhs| lhs.greater(rhs))
    }

    /// The s32 index of the least element along `axis` (negative: from the end), which the output lacks: the
    /// first of equal ones, or the first NaN where there is one.
    ///
    /// # Errors
    /// Where there is no such axis, or its size is 0 or does not fit an s32.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [2, 3])], |x| x[0].argmin(1))?;
    /// let results = f.eval(&[Array::new([2, 3], &[1f32, 2.0, 3.0, 9.0, 5.0, 6.0])?])?;
    /// assert_eq!(results, [Array::new([2], &[0, 1])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn argmin(&self, axis: isize) -> Result<Tensor> {
        self.index_of("argmin", Kind::Min, axis, |lhs, rhs| lhs.less(rhs))
    }

    fn index_of(
        &self,
        operator: &'static str,
        kind: Kind,
        axis: isize,
        better: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let dimension = self.shape().axis(operator, "axis", axis)?;
        if !(1..=i32::MAX as usize).contains(&self.dims()[dimension]) {
            let expected = format!("one of size 1 to {}", i32::MAX);
            return Err(Error::argument(operator, "axis", expected, self.shape()));
        }
        let scalars = [Shape::scalar(self.dtype()), Shape::scalar(DType::S32)];
        let scalars = [scalars.as_slice(), &scalars].concat();
        let reducer = Function::trace(operator, &scalars, |x| {
            let [lhs, lhs_index, rhs, rhs_index] = [&x[0], &x[1], &x[2], &x[3]];
            let wins = |lhs: &Tensor, rhs: &Tensor| match lhs.dtype().is_float() {
                true => better(lhs, rhs)? | (lhs.not_equal(lhs)? & rhs.equal(rhs)),
                false => better(lhs, rhs),
            };
            let first = ((!wins(rhs, lhs)?)? & lhs_index.less(rhs_index))?;
            let left = (wins(lhs, rhs)? | first)?;
            Ok((left.select(lhs, rhs)?, left.select(lhs_index, rhs_index)?))
        })?;
        let indices = self.builder().iota(self.shape().with_dtype(DType::S32), axis)?;
        let inits =
            [self.builder().constant(kind.identity(self.dtype())?)?, self.builder().scalar(0i32)?];
        let mut outputs =
            self.builder().reduce(&[self, &indices], &[&inits[0], &inits[1]], &[axis], reducer)?;
        Ok(outputs.remove(1))
    }
}

impl Operator for ReduceVariadic {
    fn name(&self) -> &'static str {
        "reduce"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![("dimensions", Dims(&self.dimensions).to_string())]
    }

    fn functions(&self) -> Vec<(&'static str, &Arc<Function>)> {
        vec![("reducer", &self.reducer)]
    }

    fn functions_mut(&mut self) -> Vec<&mut Arc<Function>> {
        vec![&mut self.reducer]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let name = self.name();
        if inputs.is_empty() || inputs.len() % 2 == 1 {
            return Err(Error::argument(name, "operands", "some, and as many inits", inputs.len()));
        }
        let (operands, inits) = inputs.split_at(inputs.len() / 2);
        let first = operands[0];
        increasing(name, "dimensions", &self.dimensions, first.rank())?;
        for (index, (&operand, &init)) in operands.iter().zip(inits).enumerate() {
            if operand.dims() != first.dims() {
                let expected = format!("of sizes {}, as operand 0", Dims(first.dims()));
                return Err(Error::argument(name, format!("operand {index}"), expected, operand));
            }
            let scalar = operand.with_dims([]);
            if *init != scalar {
                return Err(Error::argument(name, format!("init {index}"), scalar.to_string(), init));
            }
        }
        let scalars: Vec<Shape> = inits.iter().map(|&init| init.clone()).collect();
        signature(name, "reducer", &self.reducer, &[scalars.as_slice(), &scalars].concat(), &scalars)?;
        let kept = others(first.rank(), &[&self.dimensions]);
        let dims = first.part(&kept).0;
        Ok(scalars.iter().map(|scalar| scalar.with_dims(dims.as_slice())).collect())
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let shapes: Vec<&Shape> = inputs.iter().map(Array::shape).collect();
        let outputs = self.infer(&shapes)?;
        let dims = outputs[0].dims();
        let (operands, inits) = inputs.split_at(inputs.len() / 2);
        let (kept, reduced) = walk(shapes[0], &self.dimensions);
        // Positions of the output are independent, so each step of the reduction is taken for all at once.
        let mut state: Vec<Array> =
            inits.iter().map(|init| init.rearranged(dims, None, |_| Some(0))).collect();
        for offset in reduced {
            let elements =
                operands.iter().map(|operand| operand.rearranged(dims, None, |p| Some(kept[p] + offset)));
            state.extend(elements);
            state = self.reducer.eval_each(dims, &state)?;
        }
        Ok(state)
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let outputs = self.infer(&inputs.iter().map(hlo::Value::shape).collect::<Vec<_>>())?;
        let reducer = self.reducer.emit(module, Convention::Flat)?;
        let operands: Vec<&hlo::Value> = inputs.iter().collect();
        Ok(module.add_variadic("reduce", &outputs, &operands, |instruction| {
            instruction.dimensions = i64s(&self.dimensions);
            instruction.called_computation_ids = vec![reducer.id()];
        }))
    }
}
