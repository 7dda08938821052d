//! Loops.

use std::sync::Arc;

use crate::graph::{Builder, Convention, Function, Results, Tensor, chosen, placed};
use crate::hlo;
use crate::ops::dynamic_slice::{row, with_row};
use crate::ops::{Narrowed, Operator, either, signature};
use crate::transform::{
    Batched, Dual, Jvp, Part, Partial, Transposition, Vmap, flatten, join, jvp_body, known_part, no_rule,
    settle, transposed, vmap_body, zeros,
};
use crate::{Array, DType, Result, Shape};

/// Applies `body` to its state for as long as `condition` holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct While {
    pub(crate) condition: Arc<Function>,
    pub(crate) body: Arc<Function>,
    /// How often the body runs, from whatever state, where that is known.
    pub(crate) trip_count: Option<usize>,
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
    #[doc(alias = "while")]
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
    #[doc(alias = "for")]
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

/// Which results of a function of a state are not what it takes.
fn changed(body: &Function) -> Vec<bool> {
    body.results.iter().zip(&body.parameters).map(|(&result, parameter)| result != parameter.var).collect()
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
            let state = rule.leading_where(inputs, &batched)?;
            let last = rule.builder.push(op, &state.iter().collect::<Vec<_>>())?;
            return Ok(Batched::list(last, &batched));
        }
        if self.has_side_effect() {
            let reason = "it has a side effect, and the elements of the batch go on for themselves";
            return no_rule(self.name(), "vmap", reason);
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
                true => goes_on.broadcast_in_dim(next.dims(), &[0])?.select(next, last),
                false => Ok(next.clone()),
            });
            next.collect::<Result<Vec<_>>>()
        })?;
        let state = rule.leading_where(inputs, &batched)?;
        let op = While::new(condition, body, None);
        Ok(Batched::list(rule.builder.push(op, &state.iter().collect::<Vec<_>>())?, &batched))
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
