//! Transforms: functions from functions.
//!
//! A transform walks the equations of a [`Function`] and writes those of another. It knows no operator by name:
//! what batching, the derivative or the transpose of an operator is, stands in the operator's own file, and the
//! walk asks for it.
//!
//! # Which operator has which rule
//!
//! Each transform goes through an operator with its rule (`yes`); with none, as its derivative is `zero` or nothing
//! in it floats; or not at all, for the reason that stands here and in [`Error::NoRule`]. Where there are several
//! entries, the operator's parameters decide.
//!
#![doc = include_str!("rules.md")]

mod jvp;
#[cfg(test)]
mod table;
mod transpose;
mod vjp;
mod vmap;

pub(crate) use jvp::{Dual, Jvp, flatten, join, jvp_body, push_jvp};
pub(crate) use transpose::{Part, Partial, Tape, Transposition, known_part, transposed};
pub(crate) use vmap::{Batched, Vmap, push_vmap, vmap_body};

pub use jvp::jvp;
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
fn parameters(builder: &Builder, function: &Function) -> Result<Vec<Tensor>> {
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
