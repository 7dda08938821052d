//! Forward derivatives.

use crate::graph::{Var, chosen, placed};
use crate::ops::Op;
use crate::ops::custom_derivative::no_forward;
use crate::transform::{check_wrt, parameters};
use crate::{Builder, Function, Result, Tensor};

/// A value of the function that is being differentiated, with its tangent; none where that is zero.
#[derive(Clone, Debug)]
pub(crate) struct Dual {
    pub(crate) primal: Tensor,
    pub(crate) tangent: Option<Tensor>,
}

/// What the jvp rule of an operator works with.
pub(crate) struct Jvp<'a> {
    pub(crate) builder: &'a Builder,
    /// The operator.
    pub(crate) op: &'a Op,
}

impl Dual {
    /// The tangent, zeros where it is none.
    pub(crate) fn tangent(&self) -> Result<Tensor> {
        match &self.tangent {
            Some(tangent) => Ok(tangent.clone()),
            None => self.primal.full_like(0),
        }
    }
}

impl Jvp<'_> {
    /// The operator's outputs.
    pub(crate) fn primal(&self, inputs: &[Dual]) -> Result<Vec<Tensor>> {
        self.builder.push(self.op.clone(), &inputs.iter().map(|input| &input.primal).collect::<Vec<_>>())
    }

    /// The rule of an operator of one output that is linear in all its floating operands together, and has no
    /// derivative by the others: it is applied to the tangents as it is to the values.
    pub(crate) fn linear(&self, inputs: &[Dual]) -> Result<Vec<Dual>> {
        let primal = self.primal(inputs)?;
        let tangents = inputs
            .iter()
            .map(|input| match input.primal.dtype().is_float() {
                true => input.tangent(),
                false => Ok(input.primal.clone()),
            })
            .collect::<Result<Vec<_>>>()?;
        let tangents = self.builder.push(self.op.clone(), &tangents.iter().collect::<Vec<_>>())?;
        let pairs = primal.into_iter().zip(tangents);
        Ok(pairs.map(|(primal, tangent)| Dual { primal, tangent: Some(tangent) }).collect())
    }
}

/// The values, then the tangents of those that are active, zeros where there is none.
pub(crate) fn flatten(duals: &[Dual], active: &[bool]) -> Result<Vec<Tensor>> {
    let primals = duals.iter().map(|dual| Ok(dual.primal.clone()));
    primals.chain(chosen(duals, active).iter().map(Dual::tangent)).collect()
}

/// What [`flatten`] took apart.
pub(crate) fn join(tensors: &[Tensor], active: &[bool]) -> Vec<Dual> {
    let (primals, tangents) = tensors.split_at(active.len());
    let pairs = primals.iter().cloned().zip(placed(tangents.to_vec(), active));
    pairs.map(|(primal, tangent)| Dual { primal, tangent }).collect()
}

/// Appends the equations of `function` and of its derivative, and gives its results with their tangents.
pub(crate) fn push_jvp(builder: &Builder, function: &Function, arguments: Vec<Dual>) -> Result<Vec<Dual>> {
    let is_float = |&var: &Var| function.shape(var).dtype().is_float();
    function.interpret(arguments, |equation, inputs| {
        let rule = Jvp { builder, op: &equation.op };
        let constant = inputs.iter().all(|input| input.tangent.is_none());
        if constant || !equation.outputs().iter().any(is_float) {
            let outputs = rule.primal(inputs)?;
            return Ok(outputs.into_iter().map(|primal| Dual { primal, tangent: None }).collect());
        }
        equation.op.rules().jvp(&rule, inputs)
    })
}

/// A sub-function with its derivative, and which of its results then have tangents: those that must, and those
/// that come out of parameters that have one. Tangents stand behind all values.
pub(crate) fn jvp_body(
    function: &Function,
    active: &[bool],
    required: &[bool],
) -> Result<(Function, Vec<bool>)> {
    let builder = Builder::new(function.name());
    let positions: Vec<usize> = (0..active.len()).filter(|&index| active[index]).collect();
    let arguments = dual_parameters(&builder, function, &positions)?;
    let results = push_jvp(&builder, function, arguments)?;
    let active: Vec<bool> = results
        .iter()
        .zip(required)
        .map(|(result, &required)| required || result.tangent.is_some())
        .collect();
    Ok((builder.finish(flatten(&results, &active)?)?.pruned(), active))
}

/// The parameters of `function` in a new builder, and behind them tangents of those at the positions `active`.
fn dual_parameters(builder: &Builder, function: &Function, active: &[usize]) -> Result<Vec<Dual>> {
    let primals = parameters(builder, function)?;
    let mut duals: Vec<Dual> = primals.into_iter().map(|primal| Dual { primal, tangent: None }).collect();
    let names: Vec<&str> = function.parameters().map(|(name, _)| name).collect();
    for &index in active {
        let name = if names[index].is_empty() { String::new() } else { format!("{}_tangent", names[index]) };
        let tangent = builder.parameter(&name, duals[index].primal.shape().clone())?;
        duals[index].tangent = Some(tangent);
    }
    Ok(duals)
}

/// The function with its directional derivative (the Jacobian times a vector).
///
/// It takes the function's parameters, then a tangent for each of `wrt`, which are positions of floating
/// parameters; it gives the function's results, then the tangent of each floating one. What a result does not
/// depend on through floats (comparisons, indices, rounding) has no part in its tangent.
///
/// # Errors
/// Where `wrt` names a position twice, or one that is not that of a floating parameter, or an operator on the
/// way has no derivative ([`Error::NoRule`](crate::Error::NoRule)).
///
/// ```
/// use xlann::{Array, DType, Function, Shape, jvp};
///
/// let f = Function::trace("square", &[Shape::scalar(DType::F32)], |x| &x[0] * &x[0])?;
/// let derivative = jvp(&f, &[0])?;
/// // At 3, in the direction 1: the value 9, and the derivative 2 * 3.
/// let results = derivative.eval(&[Array::scalar(3f32), Array::scalar(1f32)])?;
/// assert_eq!(results, [Array::scalar(9f32), Array::scalar(6f32)]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn jvp(function: &Function, wrt: &[usize]) -> Result<Function> {
    check_wrt("jvp", function, wrt)?;
    let builder = Builder::new(&format!("jvp_{}", function.name()));
    let arguments = dual_parameters(&builder, function, wrt)?;
    let results = push_jvp(&builder, function, arguments)?;
    let floats = results.iter().filter(|result| result.primal.dtype().is_float());
    let tangents = floats.map(Dual::tangent).collect::<Result<Vec<_>>>()?;
    let primals = results.iter().map(|result| result.primal.clone());
    let derivative = builder.finish(primals.chain(tangents).collect::<Vec<_>>())?.pruned();
    match derivative.equations().iter().any(|equation| equation.op.rules().reverse_only()) {
        true => no_forward(),
        false => Ok(derivative),
    }
}
