//! Transforms: functions from functions.
//!
//! | transform | gives a function that |
//! |---|---|
//! | [`vmap`] | does for each element of a batch what the function does for one |
//! | [`auto_vmap`](auto_vmap()) | the same, choosing the batch dimensions by the ranks that it is written for |
//! | [`jvp`] | also gives the derivative in a direction |
//! | [`vjp`] | also takes derivatives of something by the results to those by the parameters |
//! | [`grad`], [`value_and_grad`] | gives the gradient of a function of one scalar |
//! | [`custom_jvp`](crate::custom_jvp()), [`custom_vjp`](crate::custom_vjp()) | does the same, with a derivative that is computed by other functions |
//!
//! Each takes a [`Function`] and gives a [`Function`], to be printed, evaluated, compiled, called from another or
//! transformed again.
//!
//! # How a transform works
//!
//! A function is a list of equations. To run it is to walk the list and to compute, for each equation, the values
//! of its outputs from those of its inputs. What a *value* is, the walk does not care: for
//! [`Function::eval`] it is an array; for the HLO of a function, an instruction. A transform is the same walk with
//! other values:
//!
//! - for **vmap**, a value is a tensor of the new function and the dimension of it that is the batch, or none where
//!   all of the batch share it;
//! - for **jvp**, it is a tensor and its *tangent*, by which it changes, or none where it does not change;
//! - for **vjp**, it is either known or linear in the tangents, as below.
//!
//! Where no input of an equation is batched (or has a tangent), the equation is copied. Otherwise the walk asks the
//! operator for its rule, which appends what is needed to the new function. The walk knows no operator by name.
//!
//! Here is `sin(x) x`:
//!
//! ```
//! use xlann::{DType, Function, Shape, jvp, vjp, vmap};
//!
//! let f = Function::trace("f", &[Shape::scalar(DType::F32)], |x| x[0].sin()? * &x[0])?;
//! assert_eq!(
//!     f.to_string(),
//!     "f(%0: f32[]) {
//!   %1: f32[] = sin %0
//!   %2: f32[] = mul %1 %0
//!   return %2
//! }"
//! );
//!
//! // A batch of five. The rule of an elementwise operator is to apply it to what has the batch dimension.
//! assert_eq!(
//!     vmap(&f, 0, 0, 5)?.to_string(),
//!     "vmap_f(%0: f32[5]) {
//!   %1: f32[5] = sin %0
//!   %2: f32[5] = mul %1 %0
//!   return %2
//! }"
//! );
//!
//! // The tangent of the parameter is a parameter more, %1. The rule of sin is `%1 cos(%0)`, that of mul the sum of
//! // two products.
//! assert_eq!(
//!     jvp(&f, &[0])?.to_string(),
//!     "jvp_f(%0: f32[], %1: f32[]) {
//!   %2: f32[] = sin %0
//!   %3: f32[] = cos %0
//!   %4: f32[] = mul %1 %3
//!   %5: f32[] = mul %2 %0
//!   %6: f32[] = mul %4 %0
//!   %7: f32[] = mul %1 %2
//!   %8: f32[] = add %6 %7
//!   return %5, %8
//! }"
//! );
//! # Ok::<(), xlann::Error>(())
//! ```
//!
//! In that function, the tangents `%4`, `%6`, `%7` and `%8` are linear in `%1`, and all else does not depend on it.
//! So it is with every jvp, and it is all that reverse mode needs: evaluate what is known, then walk the linear
//! equations *backwards*. Each turns the cotangents of its outputs into those of its linear inputs, by its
//! operator's transpose rule, and where a value is read twice they are added up. The transpose of `%6 = mul %4 %0`
//! is the cotangent of `%6` times `%0`; that of `%8 = add %6 %7` hands its cotangent to both:
//!
//! ```
//! # use xlann::{DType, Function, Shape, vjp};
//! # let f = Function::trace("f", &[Shape::scalar(DType::F32)], |x| x[0].sin()? * &x[0])?;
//! assert_eq!(
//!     vjp(&f, &[0])?.to_string(),
//!     "vjp_f(%0: f32[], cotangent %1: f32[]) {
//!   %2: f32[] = sin %0
//!   %3: f32[] = cos %0
//!   %4: f32[] = mul %2 %0
//!   %5: f32[] = mul %1 %2
//!   %6: f32[] = mul %1 %0
//!   %7: f32[] = mul %6 %3
//!   %8: f32[] = add %5 %7
//!   return %4, %8
//! }"
//! );
//! # Ok::<(), xlann::Error>(())
//! ```
//!
//! Only operators that rules apply to tangents (`add`, `mul`, `reshape`, `gather` and the like) need a transpose
//! rule; `sin` needs none.
//!
//! # Transforms of transforms
//!
//! What comes out is made of the same operators, so transforms compose: gradients for each element of a batch,
//! or a Hessian times a vector, the derivative of a gradient in a direction.
//!
//! ```
//! use xlann::{Array, DType, Function, Shape, grad, jvp, vmap};
//!
//! let f = Function::trace("f", &[Shape::scalar(DType::F64)], |x| x[0].sin()? * &x[0])?;
//! let slopes = vmap(&grad(&f, &[0])?, 0, 0, 3)?;
//! let second = jvp(&grad(&f, &[0])?, &[0])?;
//!
//! let at = [0.5f64, 1.0, 2.0];
//! let results = slopes.eval(&[Array::new([3], &at)?])?;
//! for (slope, x) in results[0].to_f64().iter().zip(at) {
//!     assert!((slope - (x.cos() * x + x.sin())).abs() < 1e-15);
//! }
//! let results = second.eval(&[Array::scalar(0.5f64), Array::scalar(1f64)])?;
//! assert!((results[1].to_f64()[0] - (2.0 * 0.5f64.cos() - 0.5f64.sin() * 0.5)).abs() < 1e-15);
//! # Ok::<(), xlann::Error>(())
//! ```
//!
//! Sub-functions (loop bodies, branches, reducers) are transformed with their operator.
//!
//! # Which operator has which rule
//!
//! A rule stands in the operator's own file. With `yes`, the transform goes through; with `zero`, it does as well,
//! and there is no derivative, since the operator rounds, compares, or takes or gives no floats. Anything else is
//! why it does not, as [`Error::NoRule`] tells. Where there are several entries, the operator's parameters decide.
//!
#![doc = include_str!("rules.md")]

mod auto_vmap;
mod jvp;
#[cfg(test)]
pub(crate) mod table;
mod transpose;
mod tree;
mod vjp;
mod vmap;

pub(crate) use jvp::{Dual, Jvp, flatten, join, jvp_body, push_jvp};
pub(crate) use transpose::{Part, Partial, Tape, Transposition, known_part, transposed};
pub(crate) use vmap::{Batched, Vmap, push_vmap, vmap_body};

pub use auto_vmap::{AutoVmap, auto_vmap};
pub use jvp::jvp;
pub use tree::{Key, Tree};
pub use vjp::{grad, value_and_grad, vjp};
pub use vmap::{Axes, vmap};

use crate::{Array, Builder, Error, Function, Result, Shape, Tensor};

/// The error of an operator that a transform cannot go through.
pub(crate) fn no_rule<T>(
    operator: &'static str,
    transform: &'static str,
    reason: impl Into<String>,
) -> Result<T> {
    Err(Error::NoRule { operator, transform, reason: reason.into() })
}

/// Zeros.
pub(crate) fn zeros(builder: &Builder, shape: &Shape) -> Result<Tensor> {
    builder.constant(Array::zeros(shape.with_dims([]))?)?.broadcast_to(shape.dims())
}

/// The sum of those that are there.
pub(crate) fn add_some(x: Option<Tensor>, y: Option<Tensor>) -> Result<Option<Tensor>> {
    match (x, y) {
        (Some(x), Some(y)) => (x + y).map(Some),
        (x, y) => Ok(x.or(y)),
    }
}

/// Repeats `step`, which may set flags and never clears one, until the flags stay as they are, and gives them with
/// what it made of them: which values of a loop have a batch dimension or a tangent.
pub(crate) fn settle<T>(
    mut flags: Vec<bool>,
    mut step: impl FnMut(&[bool]) -> Result<(T, Vec<bool>)>,
) -> Result<(T, Vec<bool>)> {
    loop {
        let (made, next) = step(&flags)?;
        if next == flags {
            return Ok((made, flags));
        }
        flags = next;
    }
}

/// The parameters of `function` in a new builder.
pub(crate) fn parameters(builder: &Builder, function: &Function) -> Result<Vec<Tensor>> {
    function.parameters().map(|(name, shape)| builder.parameter(name, shape.clone())).collect()
}

/// Requires distinct floating parameters.
fn check_wrt(transform: &'static str, function: &Function, wrt: &[usize]) -> Result<()> {
    let shapes = function.parameter_shapes();
    for (position, &index) in wrt.iter().enumerate() {
        let expected = format!("positions of parameters, of which {} has {}", function.name(), shapes.len());
        let shape = shapes.get(index).ok_or_else(|| Error::argument(transform, "wrt", expected, index))?;
        if !shape.dtype().is_float() {
            let expected = "positions of floating parameters";
            return Err(Error::argument(transform, "wrt", expected, format!("{index}, which is {shape}")));
        }
        if wrt[..position].contains(&index) {
            return Err(Error::argument(transform, "wrt", "each position once", format!("{index} twice")));
        }
    }
    Ok(())
}
