//! Loops and branches.

use std::sync::Arc;

use crate::graph::{Builder, Convention, Function, Results, Tensor};
use crate::hlo;
use crate::ops::{Operator, signature};
use crate::{Array, DType, Error, Result, Shape};

/// Applies `body` to its state for as long as `condition` holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct While {
    pub(crate) condition: Arc<Function>,
    pub(crate) body: Arc<Function>,
}

/// Applies one of several functions to its operands.
///
/// The first input is the predicate or the index that chooses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conditional {
    /// Of a predicate, the branch where it is true, then the other.
    pub(crate) branches: Vec<Arc<Function>>,
}

impl Builder {
    /// Applies `body` to the state, from `state` on, for as long as `condition` of it is true, and gives the
    /// last state.
    ///
    /// `condition` takes the state and gives a scalar pred, `body` takes and gives it. They see nothing else:
    /// what they read of the outside must be in the state.
    ///
    /// # Errors
    /// Where the functions do not fit the state or each other.
    ///
    /// ```
    /// use xlann::{Array, Builder, DType, Function, Shape};
    ///
    /// // Doubles until the limit is passed.
    /// let state = [Shape::scalar(DType::S32), Shape::scalar(DType::S32)];
    /// let below = Function::trace("below", &state, |x| x[0].less(&x[1]))?;
    /// let double = Function::trace("double", &state, |x| Ok(((&x[0] * 2)?, x[1].clone())))?;
    ///
    /// let builder = Builder::new("next_power_of_two");
    /// let (one, limit) = (builder.scalar(1)?, builder.parameter("limit", Shape::scalar(DType::S32))?);
    /// let last = builder.while_loop(&[&one, &limit], below, double)?;
    /// let function = builder.finish(last[0].clone())?;
    /// assert_eq!(function.eval(&[Array::scalar(100)])?, [Array::scalar(128)]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn while_loop(&self, state: &[&Tensor], condition: Function, body: Function) -> Result<Vec<Tensor>> {
        self.push(While { condition: Arc::new(condition), body: Arc::new(body) }, state)
    }

    /// Applies `body` to the number of the iteration, an s32 from 0, and the state, `trip_count` times from
    /// `state` on, and gives the last state. `body` is called once, to be traced.
    ///
    /// # Errors
    /// Those of `body`, and where its results are not of the state's shapes.
    ///
    /// ```
    /// use xlann::{Array, Builder};
    ///
    /// let builder = Builder::new("power");
    /// let base = builder.scalar(3f32)?;
    /// let one = builder.scalar(1f32)?;
    /// let power = builder.fori_loop(4, &[&one, &base], |_, x| Ok([(&x[0] * &x[1])?, x[1].clone()]))?;
    /// let function = builder.finish(power)?;
    /// assert_eq!(function.eval(&[])?[0], Array::scalar(81f32));
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn fori_loop<R: Results>(
        &self,
        trip_count: i32,
        state: &[&Tensor],
        body: impl FnOnce(&Tensor, &[Tensor]) -> Result<R>,
    ) -> Result<Vec<Tensor>> {
        let counter = self.scalar(0i32)?;
        let state = [&[&counter], state].concat();
        let shapes: Vec<Shape> = state.iter().map(|tensor| tensor.shape().clone()).collect();
        let condition = Function::trace("condition", &shapes, |x| x[0].less(trip_count))?;
        let body = Function::trace("body", &shapes, |x| {
            let mut next = vec![(&x[0] + 1)?];
            next.extend(body(&x[0], &x[1..])?.into_tensors());
            Ok(next)
        })?;
        let mut last = self.while_loop(&state, condition, body)?;
        last.remove(0);
        Ok(last)
    }
}

impl Tensor {
    /// The results of `on_true` or of `on_false` for `operands`, by the value of this scalar pred. Only the
    /// chosen function runs.
    ///
    /// # Errors
    /// Where this tensor is not a scalar pred, or a function does not take the operands, or they differ in their
    /// results.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let scalar = Shape::scalar(DType::F32);
    /// let double = Function::trace("double", std::slice::from_ref(&scalar), |x| &x[0] * 2)?;
    /// let negate = Function::trace("negate", std::slice::from_ref(&scalar), |x| -&x[0])?;
    /// let f = Function::trace("f", &[Shape::scalar(DType::Pred), scalar], |x| {
    ///     x[0].cond(&[&x[1]], double, negate)
    /// })?;
    /// assert_eq!(f.eval(&[Array::scalar(true), Array::scalar(3f32)])?, [Array::scalar(6f32)]);
    /// assert_eq!(f.eval(&[Array::scalar(false), Array::scalar(3f32)])?, [Array::scalar(-3f32)]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn cond(&self, operands: &[&Tensor], on_true: Function, on_false: Function) -> Result<Vec<Tensor>> {
        if *self.shape() != Shape::scalar(DType::Pred) {
            return Err(Error::argument("conditional", "predicate", "pred[]", self.shape()));
        }
        self.choose(operands, vec![on_true, on_false])
    }

    /// The results for `operands` of the branch whose number is this scalar s32; any number out of range stands
    /// for the last branch. Only the chosen function runs.
    ///
    /// # Errors
    /// Where this tensor is not a scalar s32, there is no branch, a branch does not take the operands, or they
    /// differ in their results.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let scalar = Shape::scalar(DType::F32);
    /// let mut powers = Vec::new();
    /// for power in 1..=3 {
    ///     powers.push(Function::trace("power", std::slice::from_ref(&scalar), |x| x[0].pow(power))?);
    /// }
    /// let f = Function::trace("f", &[Shape::scalar(DType::S32), scalar], |x| {
    ///     x[0].switch(&[&x[1]], powers)
    /// })?;
    /// assert_eq!(f.eval(&[Array::scalar(0), Array::scalar(2f32)])?, [Array::scalar(2f32)]);
    /// assert_eq!(f.eval(&[Array::scalar(2), Array::scalar(2f32)])?, [Array::scalar(8f32)]);
    /// assert_eq!(f.eval(&[Array::scalar(-1), Array::scalar(2f32)])?, [Array::scalar(8f32)]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn switch(&self, operands: &[&Tensor], branches: Vec<Function>) -> Result<Vec<Tensor>> {
        if *self.shape() != Shape::scalar(DType::S32) {
            return Err(Error::argument("conditional", "index", "s32[]", self.shape()));
        }
        self.choose(operands, branches)
    }

    fn choose(&self, operands: &[&Tensor], branches: Vec<Function>) -> Result<Vec<Tensor>> {
        let op = Conditional { branches: branches.into_iter().map(Arc::new).collect() };
        self.builder().push(op, &[&[self], operands].concat())
    }
}

impl Operator for While {
    fn name(&self) -> &'static str {
        "while"
    }

    fn functions(&self) -> Vec<(&'static str, &Arc<Function>)> {
        vec![("condition", &self.condition), ("body", &self.body)]
    }

    fn functions_mut(&mut self) -> Vec<&mut Arc<Function>> {
        vec![&mut self.condition, &mut self.body]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let state: Vec<Shape> = inputs.iter().map(|&shape| shape.clone()).collect();
        signature(self.name(), "condition", &self.condition, &state, &[Shape::scalar(DType::Pred)])?;
        signature(self.name(), "body", &self.body, &state, &state)?;
        Ok(state)
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let mut state = inputs.to_vec();
        while self.condition.eval(&state)?[0].as_bytes() == [1] {
            state = self.body.eval(&state)?;
        }
        Ok(state)
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let condition = self.condition.emit(module, Convention::Condition)?;
        let body = self.body.emit(module, Convention::Tuple)?;
        let shapes: Vec<Shape> = inputs.iter().map(|input| input.shape().clone()).collect();
        Ok(module.add_control("while", &shapes, None, &[inputs], &[body, condition]))
    }
}

impl Operator for Conditional {
    fn name(&self) -> &'static str {
        "conditional"
    }

    fn functions(&self) -> Vec<(&'static str, &Arc<Function>)> {
        self.branches.iter().map(|branch| ("branch", branch)).collect()
    }

    fn functions_mut(&mut self) -> Vec<&mut Arc<Function>> {
        self.branches.iter_mut().collect()
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let name = self.name();
        let Some((&chooser, operands)) = inputs.split_first() else {
            return Err(Error::argument(name, "operands", "one at least", "none"));
        };
        let (allowed, expected) = match chooser.dtype() {
            DType::Pred => (self.branches.len() == 2, "two, for a pred"),
            DType::S32 => (!self.branches.is_empty(), "one at least"),
            _ => return Err(Error::argument(name, "index", "pred[] or s32[]", chooser)),
        };
        if chooser.rank() != 0 {
            return Err(Error::argument(name, "index", "pred[] or s32[]", chooser));
        }
        if !allowed {
            return Err(Error::argument(name, "branches", expected, self.branches.len()));
        }
        let operands: Vec<Shape> = operands.iter().map(|&shape| shape.clone()).collect();
        let results = self.branches[0].result_shapes();
        for (index, branch) in self.branches.iter().enumerate() {
            signature(name, &format!("branch {index}"), branch, &operands, &results)?;
        }
        Ok(results)
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let chooser = inputs[0].to_i128()[0];
        let last = self.branches.len() - 1;
        let branch = match inputs[0].shape().dtype() {
            DType::Pred => usize::from(chooser == 0),
            _ => usize::try_from(chooser).map_or(last, |index| index.min(last)),
        };
        self.branches[branch].eval(&inputs[1..])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let shapes = self.branches[0].result_shapes();
        let branches = self
            .branches
            .iter()
            .map(|branch| branch.emit(module, Convention::Tuple))
            .collect::<Result<Vec<_>>>()?;
        let operands = vec![&inputs[1..]; branches.len()];
        Ok(module.add_control("conditional", &shapes, Some(&inputs[0]), &operands, &branches))
    }
}
