//! Branches.

use std::sync::Arc;

use crate::graph::{Convention, Function, Tensor, placed};
use crate::hlo;
use crate::ops::{Narrowed, Operator, either, signature};
use crate::transform::{
    Batched, Dual, Jvp, Part, Partial, Transposition, Vmap, flatten, join, jvp_body, known_part, no_rule,
    push_vmap, settle, transposed, vmap_body,
};
use crate::{Array, DType, Error, Result, Shape};

/// Applies one of several functions to its operands.
///
/// The first input is the predicate or the index that chooses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conditional {
    /// Of a predicate, the branch where it is true, then the other.
    pub(crate) branches: Vec<Arc<Function>>,
}

impl Tensor {
    /// The results of `on_true` or of `on_false` for `operands`, by the value of this scalar pred.
    ///
    /// Only the chosen function runs. Batched by [`vmap`](crate::vmap()) with a pred that differs between the elements
    /// of the batch, both run, for all of the batch, and of each element the chosen results are taken.
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
    #[doc(alias = "if")]
    pub fn cond(&self, operands: &[&Tensor], on_true: Function, on_false: Function) -> Result<Vec<Tensor>> {
        if *self.shape() != Shape::scalar(DType::Pred) {
            return Err(Error::argument("conditional", "predicate", "pred[]", self.shape()));
        }
        self.choose(operands, vec![on_true, on_false])
    }

    /// The results for `operands` of the branch whose number is this scalar s32; any number out of range stands
    /// for the last branch.
    ///
    /// Only the chosen function runs. Batched by [`vmap`](crate::vmap()) with a number that differs between the
    /// elements of the batch, all run, for all of the batch, and of each element the chosen results are taken.
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
    #[doc(alias = "case")]
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
        let operands = rule.leading_where(operands, &batched)?;
        let inputs: Vec<&Tensor> = std::iter::once(&index.tensor).chain(&operands).collect();
        Ok(Batched::list(rule.builder.push(op, &inputs)?, &results))
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
        if self.has_side_effect() {
            let reason = "a branch has a side effect, and the elements of the batch choose for themselves";
            return no_rule(self.name(), "vmap", reason);
        }
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
                .map(|(result, other)| this.broadcast_in_dim(result.dims(), &[0])?.select(result, other))
                .collect::<Result<_>>()?;
        }
        let every = vec![true; chosen.len()];
        Ok(Batched::list(chosen, &every))
    }
}
