//! Loops and branches.

use std::sync::Arc;

use crate::graph::{Builder, Convention, Function, Results, Tensor, chosen, placed};
use crate::hlo;
use crate::ops::{Narrowed, Operator, signature};
use crate::transform::{
    Batched, Dual, Jvp, Part, Partial, Transposition, Vmap, flatten, join, jvp_body, known_part, no_rule,
    push_vmap, settle, transposed, vmap_body, zeros,
};
use crate::{Array, DType, Error, Result, Shape};

/// Applies `body` to its state for as long as `condition` holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct While {
    pub(crate) condition: Arc<Function>,
    pub(crate) body: Arc<Function>,
    /// How often the body runs, from whatever state, where that is known.
    pub(crate) trip_count: Option<usize>,
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
    /// The loop has a forward derivative ([`jvp`](crate::jvp)); a reverse one only
    /// [`fori_loop`](Builder::fori_loop) has. Batched by [`vmap`](crate::vmap()) with a condition that differs
    /// between the elements of the batch, it runs until none of them goes on, and those that do not stay as they
    /// are.
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
        self.push(While::new(condition, body, None), state)
    }

    /// Applies `body` to the number of the iteration, an s32 from 0, and the state, `trip_count` times from
    /// `state` on, and gives the last state; a negative `trip_count` stands for 0. `body` is called once, to be
    /// traced.
    ///
    /// Its number of iterations being static, this loop has a reverse derivative ([`vjp`](crate::vjp)), which a
    /// [`while_loop`](Builder::while_loop) has not. For that the state before each iteration is kept, but for
    /// tensors that `body` gives as it takes them.
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
        let trip_count = usize::try_from(trip_count).unwrap_or(0);
        let mut last = self.push(While::new(condition, body, Some(trip_count)), &state)?;
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

/// The row of a tensor at a computed index.
pub(crate) fn row(rows: &Tensor, index: &Tensor) -> Result<Tensor> {
    let mut sizes = rows.dims().to_vec();
    sizes[0] = 1;
    rows.dynamic_slice(&starts(rows, index)?.iter().collect::<Vec<_>>(), &sizes)?.reshape(&sizes[1..])
}

/// The tensor with the row at a computed index replaced.
pub(crate) fn with_row(rows: &Tensor, index: &Tensor, row: &Tensor) -> Result<Tensor> {
    let row = row.reshape(&[&[1], row.dims()].concat())?;
    rows.dynamic_update_slice(&row, &starts(rows, index)?.iter().collect::<Vec<_>>())
}

fn starts(rows: &Tensor, index: &Tensor) -> Result<Vec<Tensor>> {
    let zero = index.full_like(0)?;
    Ok((0..rows.rank()).map(|axis| if axis == 0 { index.clone() } else { zero.clone() }).collect())
}

/// The pred of each element of a batch, in front, as a chooser between tensors of these sizes.
fn spread(pred: &Tensor, dims: &[usize]) -> Result<Tensor> {
    pred.broadcast_in_dim(dims, &[0])
}

fn either(x: &[bool], y: &[bool]) -> Vec<bool> {
    x.iter().zip(y).map(|(x, y)| x | y).collect()
}

/// Which results of a function of a state are not what it takes.
fn changed(body: &Function) -> Vec<bool> {
    body.results.iter().zip(&body.parameters).map(|(&result, parameter)| result != parameter.var).collect()
}

/// A state with batch dimensions where they must be, in front.
fn batched_state(rule: &Vmap, state: &[Batched], batched: &[bool]) -> Result<Vec<Tensor>> {
    let place = |(value, &batched): (&Batched, &bool)| match batched {
        true => rule.leading(value),
        false => Ok(value.tensor.clone()),
    };
    state.iter().zip(batched).map(place).collect()
}

/// Results that have batch dimensions in front where `batched` says.
fn batched_results(results: Vec<Tensor>, batched: &[bool]) -> Vec<Batched> {
    let results = results.into_iter().zip(batched);
    results.map(|(tensor, batched)| Batched { tensor, axis: batched.then_some(0) }).collect()
}

impl While {
    fn new(condition: Function, body: Function, trip_count: Option<usize>) -> While {
        While { condition: Arc::new(condition), body: Arc::new(body), trip_count }
    }

    /// The body for a batch, and which values of the state then have a batch dimension.
    fn batched_body(&self, size: usize, batched: Vec<bool>) -> Result<(Function, Vec<bool>)> {
        settle(batched, |batched| vmap_body(&self.body, size, batched, batched))
    }

    /// The part of the body that does not depend on linear values of the state, and which these are.
    fn known_body(&self, inputs: &[Part]) -> Result<(Function, Vec<bool>)> {
        let linear = inputs.iter().map(Part::is_linear).collect();
        settle(linear, |linear| known_part(&self.body, linear, linear))
    }

    /// The last state of the loop of what is known, and of each value, stacked, what it was at the start of each
    /// of `count` iterations; of those that the body does not change, the value itself.
    fn recorded(
        &self,
        builder: &Builder,
        count: usize,
        body: &Function,
        state: &[Tensor],
    ) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let changed = changed(body);
        let records = chosen(state, &changed).into_iter().map(|value| {
            let dims = [&[count], value.dims()].concat();
            zeros(builder, &value.shape().with_dims(dims))
        });
        let records = records.collect::<Result<Vec<_>>>()?;
        let all: Vec<&Tensor> = state.iter().chain(&records).collect();
        let mut last = builder.fori_loop(count as i32, &all, |index, x| {
            let (state, records) = x.split_at(state.len());
            let recorded = records.iter().zip(chosen(state, &changed));
            let recorded = recorded.map(|(record, value)| with_row(record, index, &value));
            let next = index.builder().call(body, &state.iter().collect::<Vec<_>>())?;
            next.into_iter().map(Ok).chain(recorded).collect::<Result<Vec<_>>>()
        })?;
        let records = placed(last.split_off(state.len()), &changed);
        let residuals = records.into_iter().zip(state);
        let residuals = residuals.map(|(record, value)| record.unwrap_or_else(|| value.clone())).collect();
        Ok((last, residuals))
    }
}

impl Operator for While {
    fn name(&self) -> &'static str {
        "while"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        self.trip_count.iter().map(|count| ("trip_count", count.to_string())).collect()
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

    /// Where the condition differs between the elements of the batch, those for which it does not hold keep their
    /// state.
    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let batched = inputs.iter().map(|input| input.axis.is_some()).collect();
        let (body, batched) = self.batched_body(rule.size, batched)?;
        let (condition, differs) = vmap_body(&self.condition, rule.size, &batched, &[false])?;
        if differs == [false] {
            let op = While::new(condition, body, self.trip_count);
            let state = batched_state(rule, inputs, &batched)?;
            let last = rule.builder.push(op, &state.iter().collect::<Vec<_>>())?;
            return Ok(batched_results(last, &batched));
        }
        let (body, batched) = self.batched_body(rule.size, either(&batched, &changed(&self.body)))?;
        let (goes_on, _) = vmap_body(&self.condition, rule.size, &batched, &[true])?;
        let condition = Function::trace(goes_on.name(), &body.parameter_shapes(), |x| {
            x[0].builder().call(&goes_on, &x.iter().collect::<Vec<_>>())?[0].reduce_any(&[0])
        })?;
        let changed = changed(&body);
        let body = Function::trace(body.name(), &body.parameter_shapes(), |x| {
            let state: Vec<&Tensor> = x.iter().collect();
            let goes_on = x[0].builder().call(&goes_on, &state)?.remove(0);
            let next = x[0].builder().call(&body, &state)?;
            let next = next.iter().zip(x).zip(&changed).map(|((next, last), changed)| match changed {
                true => spread(&goes_on, next.dims())?.select(next, last),
                false => Ok(next.clone()),
            });
            next.collect::<Result<Vec<_>>>()
        })?;
        let state = batched_state(rule, inputs, &batched)?;
        let op = While::new(condition, body, None);
        Ok(batched_results(rule.builder.push(op, &state.iter().collect::<Vec<_>>())?, &batched))
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        let active = inputs.iter().map(|input| input.tangent.is_some()).collect();
        let (body, active) = settle(active, |active| jvp_body(&self.body, active, active))?;
        let condition = Function::trace(self.condition.name(), &body.parameter_shapes(), |x| {
            let values: Vec<&Tensor> = x[..inputs.len()].iter().collect();
            x[0].builder().call(&self.condition, &values)
        })?;
        let state = flatten(inputs, &active)?;
        let op = While::new(condition, body, self.trip_count);
        Ok(join(&rule.builder.push(op, &state.iter().collect::<Vec<_>>())?, &active))
    }

    /// The loop of what is known. Its states are recorded for the way back, where their number is static.
    fn partial(&self, rule: &Transposition, inputs: &[Part]) -> Result<Partial> {
        let (body, linear) = self.known_body(inputs)?;
        let known = chosen(inputs, &linear.iter().map(|linear| !linear).collect::<Vec<_>>());
        let known: Vec<Tensor> = known.iter().filter_map(Part::known).cloned().collect();
        let (last, residuals) = match self.trip_count {
            Some(0) => (known, Vec::new()),
            Some(count) => self.recorded(rule.builder, count, &body, &known)?,
            None => {
                let (condition, depends) = known_part(&self.condition, &linear, &[false])?;
                if depends == [true] {
                    return no_rule(self.name(), "vjp", "its condition depends on a tangent");
                }
                let op = While::new(condition, body, None);
                (rule.builder.push(op, &known.iter().collect::<Vec<_>>())?, Vec::new())
            }
        };
        Ok(Partial { outputs: Part::list(&rule.outputs, &linear, last), residuals })
    }

    /// The transposed body, from the last iteration to the first.
    fn transpose(
        &self,
        rule: &Transposition,
        inputs: &[Part],
        residuals: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(count) = self.trip_count else {
            let reason = "its number of iterations is not static; \
                          Builder::fori_loop builds loops for which it is";
            return no_rule(self.name(), "vjp", reason);
        };
        if count == 0 {
            return Ok(cotangents.to_vec());
        }
        let (known_body, linear) = self.known_body(inputs)?;
        let (body, _) = transposed(&self.body, &linear, &linear, &linear)?;
        let seeds = cotangents.iter().zip(&rule.outputs);
        let seeds = seeds.map(|(cotangent, shape)| match cotangent {
            Some(cotangent) => Ok(cotangent.clone()),
            None => zeros(rule.builder, shape),
        });
        let seeds = chosen(&seeds.collect::<Result<Vec<_>>>()?, &linear);
        let changed = changed(&known_body);
        let state: Vec<&Tensor> = seeds.iter().chain(residuals).collect();
        let mut last = rule.builder.fori_loop(count as i32, &state, |index, x| {
            let (cotangents, residuals) = x.split_at(seeds.len());
            let iteration = ((count - 1) as i32 - index)?;
            let known = residuals.iter().zip(&changed).map(|(residual, changed)| match changed {
                true => row(residual, &iteration),
                false => Ok(residual.clone()),
            });
            let arguments = known.chain(cotangents.iter().cloned().map(Ok)).collect::<Result<Vec<_>>>()?;
            let next = index.builder().call(&body, &arguments.iter().collect::<Vec<_>>())?;
            Ok([next.as_slice(), residuals].concat())
        })?;
        last.truncate(seeds.len());
        Ok(placed(last, &linear))
    }

    /// Without the state that neither the used outputs nor the condition need.
    fn narrowed(&self, used: &[bool], effects: bool) -> Option<Narrowed> {
        if !used.contains(&false) {
            return None;
        }
        let all = vec![true; used.len()];
        let mut live = either(used, &self.condition.parameters_read());
        loop {
            let read = either(&live, &self.body.restricted(&all, &live, effects).parameters_read());
            if read == live {
                break;
            }
            live = read;
        }
        if live == all {
            return None;
        }
        let condition = self.condition.restricted(&live, &[true], effects);
        let op = While::new(condition, self.body.restricted(&live, &live, effects), self.trip_count);
        Some(Narrowed { op: op.into(), inputs: live.clone(), outputs: live })
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

    /// Where the index differs between the elements of the batch, all branches run and each element's is chosen.
    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let (index, operands) = (&inputs[0], &inputs[1..]);
        if index.axis.is_some() {
            return self.choose(rule, &index.tensor, operands);
        }
        let batched: Vec<bool> = operands.iter().map(|operand| operand.axis.is_some()).collect();
        let (op, results) =
            self.rewritten(|branch, required| vmap_body(branch, rule.size, &batched, required))?;
        let operands = batched_state(rule, operands, &batched)?;
        let inputs: Vec<&Tensor> = std::iter::once(&index.tensor).chain(&operands).collect();
        Ok(batched_results(rule.builder.push(op, &inputs)?, &results))
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        let (index, operands) = (&inputs[0].primal, &inputs[1..]);
        let active: Vec<bool> = operands.iter().map(|operand| operand.tangent.is_some()).collect();
        let (op, results) = self.rewritten(|branch, required| jvp_body(branch, &active, required))?;
        let operands = flatten(operands, &active)?;
        let inputs: Vec<&Tensor> = std::iter::once(index).chain(&operands).collect();
        Ok(join(&rule.builder.push(op, &inputs)?, &results))
    }

    fn partial(&self, rule: &Transposition, inputs: &[Part]) -> Result<Partial> {
        let linear: Vec<bool> = inputs[1..].iter().map(Part::is_linear).collect();
        let (op, results) = self.rewritten(|branch, required| known_part(branch, &linear, required))?;
        let known: Vec<&Tensor> = inputs.iter().filter_map(Part::known).collect();
        let known = match op.has_side_effect() || results.contains(&false) {
            true => rule.builder.push(op, &known)?,
            false => Vec::new(),
        };
        Ok(Partial { outputs: Part::list(&rule.outputs, &results, known), residuals: Vec::new() })
    }

    /// The transpose of the branch that is chosen, which computes again what it needs.
    fn transpose(
        &self,
        rule: &Transposition,
        inputs: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let linear: Vec<bool> = inputs[1..].iter().map(Part::is_linear).collect();
        let seeded: Vec<bool> = cotangents.iter().map(Option::is_some).collect();
        let none = vec![false; linear.len()];
        let (op, given) =
            self.rewritten_from(none, |branch, required| transposed(branch, &linear, &seeded, required))?;
        if !given.contains(&true) {
            return Ok(vec![None; inputs.len()]);
        }
        let inputs: Vec<&Tensor> =
            inputs.iter().filter_map(Part::known).chain(cotangents.iter().flatten()).collect();
        let given = [&[false], given.as_slice()].concat();
        Ok(placed(rule.builder.push(op, &inputs)?, &given))
    }

    /// Without the results that are not used, and the operands that no branch reads for the others.
    fn narrowed(&self, used: &[bool], effects: bool) -> Option<Narrowed> {
        if !used.contains(&false) {
            return None;
        }
        let all = vec![true; self.branches[0].parameters().len()];
        let branches: Vec<Function> =
            self.branches.iter().map(|branch| branch.restricted(&all, used, effects)).collect();
        let none = vec![false; all.len()];
        let read = branches.iter().fold(none, |read, branch| either(&read, &branch.parameters_read()));
        let every = vec![true; used.iter().filter(|used| **used).count()];
        let branches =
            branches.iter().map(|branch| Arc::new(branch.restricted(&read, &every, effects))).collect();
        let inputs = [&[true], read.as_slice()].concat();
        Some(Narrowed { op: Conditional { branches }.into(), inputs, outputs: used.to_vec() })
    }
}

impl Conditional {
    /// The operator of rewritten branches, and which results they have in common: `rewrite` takes those that it
    /// must give at least, and tells those that it gives.
    fn rewritten(
        &self,
        rewrite: impl Fn(&Function, &[bool]) -> Result<(Function, Vec<bool>)>,
    ) -> Result<(Conditional, Vec<bool>)> {
        let results = self.branches.first().map_or(0, |branch| branch.results().len());
        self.rewritten_from(vec![false; results], rewrite)
    }

    fn rewritten_from(
        &self,
        none: Vec<bool>,
        rewrite: impl Fn(&Function, &[bool]) -> Result<(Function, Vec<bool>)>,
    ) -> Result<(Conditional, Vec<bool>)> {
        settle(none, |required| {
            let mut union = required.to_vec();
            let mut branches = Vec::new();
            for branch in &self.branches {
                let (branch, given) = rewrite(branch, required)?;
                union = either(&union, &given);
                branches.push(Arc::new(branch));
            }
            Ok((Conditional { branches }, union))
        })
    }

    /// The results of all branches, chosen by an index for each element of the batch.
    fn choose(&self, rule: &Vmap, index: &Tensor, operands: &[Batched]) -> Result<Vec<Batched>> {
        let mut chosen = Vec::new();
        for (number, branch) in self.branches.iter().enumerate().rev() {
            let results = push_vmap(rule.builder, rule.size, branch, operands.to_vec())?;
            let results = results.iter().map(|result| rule.leading(result)).collect::<Result<Vec<_>>>()?;
            if chosen.is_empty() {
                // Whatever is out of range stands for the last branch.
                chosen = results;
                continue;
            }
            let this = match index.dtype() {
                DType::Pred => index.clone(),
                _ => index.equal(number as i32)?,
            };
            let pairs = results.iter().zip(&chosen);
            chosen = pairs
                .map(|(result, other)| spread(&this, result.dims())?.select(result, other))
                .collect::<Result<_>>()?;
        }
        let every = vec![true; chosen.len()];
        Ok(batched_results(chosen, &every))
    }
}
