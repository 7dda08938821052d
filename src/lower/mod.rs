//! From a function to an HLO module for a target.
//!
//! Lowering has two steps. Operators that a target has no HLO for, or better than one form of, are *expanded*
//! into plain ones; that gives a [`Function`] again, which can be printed, checked and evaluated. What is left
//! is one HLO instruction or a few for each equation.

mod approx_top_k;
mod blocks;
mod buckets;
mod fused;
mod kernel;
mod native;
mod nearest;
mod policy;
mod precision;
mod stablehlo;
mod two_stage;

use std::collections::HashMap;
use std::num::NonZeroUsize;

use crate::graph::{Convention, Equation, Function, Tensor, Var};
use crate::hlo::{self, HloModuleProto};
use crate::lower::fused::{Search, Uses};
use crate::lower::policy::{Fusion, Plan};
use crate::ops::Op;
use crate::ops::approx_top_k::ApproxTopK;
use crate::ops::custom_derivative::{CustomJvp, CustomVjp};
use crate::{Builder, CustomCall, Result};

pub(crate) use approx_top_k::best_with;
pub(crate) use nearest::{Nearest, Plan as NearestPlan, Stored};
pub use policy::{Capabilities, Choice, Form};
pub use precision::Precision;
pub(crate) use precision::{Reduced, candidates, recall_of_part};
pub use stablehlo::stablehlo;

/// What the caller decides of the lowering.
///
/// ```
/// use xlann::{ApproxTopKOptions, DType, Function, Shape, lower, target};
///
/// let f = Function::trace("best", &[Shape::new(DType::F32, [128, 1000])], |x| {
///     x[0].approx_max_k(10, &ApproxTopKOptions::default())
/// })?;
/// let options = lower::Options { approx_top_k: Some(lower::Form::Sort), ..Default::default() };
/// let lowered = lower::lower(&f, &target::cpu::CAPABILITIES, &options)?;
/// assert_eq!(lowered.choices[0].to_string(), "approx_max_k f32[128,1000] k=10: sort (asked for)");
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Options {
    /// The form of every approximate top-k; by default the target's policy chooses for each.
    pub approx_top_k: Option<Form>,
    /// The precision of the scores of searches of f32 vectors that the [kernel](Form::Kernel) computes. The program
    /// rounds the database in every run; a [`Searcher`](crate::ann::Searcher) does so once.
    pub precision: Precision,
    /// How many of XLA's threads a kernel takes, at most; by default all. Results do not depend on it.
    pub threads: Option<NonZeroUsize>,
}

/// A function lowered for a target.
///
/// ```
/// use xlann::{ApproxTopKOptions, DType, Function, Shape, lower, target};
///
/// let f = Function::trace("best", &[Shape::new(DType::F32, [128, 1000])], |x| {
///     x[0].approx_max_k(10, &ApproxTopKOptions::default())
/// })?;
/// let lowered = lower::lower(&f, &target::cpu::CAPABILITIES, &lower::Options::default())?;
/// for choice in &lowered.choices {
///     println!("{choice}");
/// }
/// println!("{}\n{}", lowered.function, lowered.module);
/// // It is a function like any other, of the same parameters and results.
/// lowered.function.check()?;
/// assert_eq!(lowered.function.result_shapes(), f.result_shapes());
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The function in plain operators.
    pub function: Function,
    /// Its HLO.
    pub module: HloModuleProto,
    /// The form that each approximate top-k took, in the order of the equations, and why.
    pub choices: Vec<Choice>,
}

/// Lowers a function for a target of the given capabilities.
///
/// ```
/// use xlann::{ApproxTopKOptions, DType, Function, Shape, lower, target};
///
/// let f = Function::trace("best", &[Shape::new(DType::F32, [128, 100_000])], |x| {
///     x[0].approx_min_k(10, &ApproxTopKOptions::default())
/// })?;
/// let lowered = lower::lower(&f, &target::cpu::CAPABILITIES, &lower::Options::default())?;
/// assert_eq!(lowered.choices[0].form, lower::Form::Kernel);
/// # Ok::<(), xlann::Error>(())
/// ```
///
/// # Errors
/// Where an operator has no form on the target, or not the one that the options ask for.
pub fn lower(function: &Function, capabilities: &Capabilities, options: &Options) -> Result<Lowered> {
    let (function, choices) = plain(function, capabilities, options)?;
    let module = module(&function)?;
    Ok(Lowered { function, module, choices })
}

/// The form that each approximate top-k takes, in the order of the equations, and why: what [`lower()`] chooses, without
/// the HLO.
///
/// # Errors
/// As [`lower()`].
///
/// ```
/// use xlann::{ApproxTopKOptions, DType, Function, Shape, lower, target};
///
/// let f = Function::trace("best", &[Shape::new(DType::F32, [128, 100_000])], |x| {
///     x[0].approx_max_k(10, &ApproxTopKOptions::default())
/// })?;
/// for choice in lower::explain(&f, &target::tpu::CAPABILITIES, &lower::Options::default())? {
///     println!("{choice}; expected recall {:.4}", choice.expected_recall);
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn explain(function: &Function, capabilities: &Capabilities, options: &Options) -> Result<Vec<Choice>> {
    Ok(plain(function, capabilities, options)?.1)
}

/// The function in plain operators, and what was chosen for it.
fn plain(
    function: &Function,
    capabilities: &Capabilities,
    options: &Options,
) -> Result<(Function, Vec<Choice>)> {
    let mut forms = Forms { capabilities, options, choices: Vec::new() };
    let function = expand(function, &mut forms)?;
    // Scores that a kernel does not need.
    Ok((function.pruned(), forms.choices))
}

/// Puts the forms that a target has in the place of approximate top-k.
struct Forms<'a> {
    capabilities: &'a Capabilities,
    options: &'a Options,
    choices: Vec<Choice>,
}

impl Rewrite for Forms<'_> {
    fn approx_top_k(&mut self, op: &ApproxTopK, inputs: &[Tensor], site: &Site<'_>) -> Result<Vec<Tensor>> {
        let Forms { capabilities, options, choices } = self;
        let carried = inputs.len() - 1;
        let search = match capabilities.forms.contains(&Form::Kernel) {
            true => site.search(op)?,
            false => Err("the target has no kernels"),
        };
        let fusion = search.as_ref().map(Fusion::of).map_err(|&why_not| why_not);
        let (plan, choice) = policy::choose(op, inputs[0].shape(), carried, fusion, capabilities, options)?;
        choices.push(choice);
        match (plan, search) {
            (Plan::Kernel { threads, reduction }, Ok(search)) => {
                kernel::fused_search(&search, op.output_size(inputs[0].shape())?, reduction, threads)
            }
            _ => approx_top_k::expand(op, inputs, plan, capabilities),
        }
    }

    fn nearest(&mut self, call: &CustomCall, inputs: &[Tensor]) -> Result<Option<Vec<Tensor>>> {
        let kernel = nearest::kernel(call, inputs, self.capabilities, self.options)?;
        Ok(kernel.map(|(results, choice)| {
            self.choices.push(choice);
            results
        }))
    }
}

/// Where an approximate top-k stands.
struct Site<'a> {
    equation: &'a Equation,
    uses: &'a Uses<'a>,
    /// What the equations before it have read.
    values: &'a HashMap<Var, Tensor>,
}

impl Site<'_> {
    /// The search that it is a part of, or why it is none.
    fn search(&self, op: &ApproxTopK) -> Result<std::result::Result<Search, &'static str>> {
        fused::search(op, self.equation, self.uses, &|var| self.values.get(&var).cloned())
    }
}

/// Makes something else of what no target has.
trait Rewrite {
    /// The results of an approximate top-k, from its inputs.
    fn approx_top_k(&mut self, op: &ApproxTopK, inputs: &[Tensor], site: &Site<'_>) -> Result<Vec<Tensor>>;

    /// Those of a search by true squared distances, unless it is to be in plain operators.
    fn nearest(&mut self, _call: &CustomCall, _inputs: &[Tensor]) -> Result<Option<Vec<Tensor>>> {
        Ok(None)
    }
}

/// The function with its approximate top-k, and those of its sub-functions, rewritten.
fn expand(function: &Function, rewrite: &mut dyn Rewrite) -> Result<Function> {
    let builder = Builder::new(function.name());
    let arguments: Vec<Tensor> = function
        .parameters()
        .map(|(name, shape)| builder.parameter(name, shape.clone()))
        .collect::<Result<_>>()?;
    let uses = Uses::of(function);
    let mut values = HashMap::new();
    let results = function.interpret(arguments, |equation, inputs| {
        values.extend(equation.inputs().iter().copied().zip(inputs.iter().cloned()));
        if let Op::ApproxTopK(op) = &equation.op {
            return rewrite.approx_top_k(op, inputs, &Site { equation, uses: &uses, values: &values });
        }
        if let Some((call, reference)) = nearest::reference(equation) {
            return match rewrite.nearest(call, inputs)? {
                Some(results) => Ok(results),
                None => {
                    let plain = expand(reference, rewrite)?;
                    builder.call(&plain, &inputs.iter().collect::<Vec<_>>())
                }
            };
        }
        if let Op::CustomJvp(CustomJvp { function, .. }) | Op::CustomVjp(CustomVjp { function, .. }) =
            &equation.op
        {
            let plain = expand(function, rewrite)?;
            return builder.call(&plain, &inputs.iter().collect::<Vec<_>>());
        }
        // What only derivatives are made of is pruned.
        if matches!(equation.op, Op::WithDerivativeOf(_)) || precision::is_reducible(equation) {
            return Ok(inputs[..1].to_vec());
        }
        let op = equation.op.map_functions(&mut |function| expand(function, rewrite))?;
        builder.push(op, &inputs.iter().collect::<Vec<_>>())
    })?;
    builder.finish(results)
}

/// The HLO of a function of plain operators.
fn module(function: &Function) -> Result<HloModuleProto> {
    let mut module = hlo::Builder::default();
    function.emit(&mut module, Convention::Flat)?;
    Ok(module.finish(function.name()))
}
