//! Transforms: functions from functions.
//!
//! A transform walks the equations of a [`Function`] and writes those of another. It knows no operator by name:
//! what batching, the derivative or the transpose of an operator is, stands in the operator's own file, and the
//! walk asks for it.

mod auto_vmap;
mod jvp;
mod transpose;
mod tree;
mod vjp;
mod vmap;

pub(crate) use jvp::{Dual, Jvp, jvp_body, push_jvp};
pub(crate) use transpose::{Part, Partial, Tape, Transposition};
pub(crate) use vmap::{Batched, Vmap, push_vmap, vmap_body};

pub use auto_vmap::{AutoVmap, auto_vmap};
pub use jvp::jvp;
pub use tree::{Key, Tree};
pub use vjp::{grad, value_and_grad, vjp};
pub use vmap::{Axes, vmap};

use crate::{Builder, Error, Function, Result, Tensor};

/// The error of an operator that a transform cannot go through.
pub(crate) fn no_rule<T>(
    operator: &'static str,
    transform: &'static str,
    reason: impl Into<String>,
) -> Result<T> {
    Err(Error::NoRule { operator, transform, reason: reason.into() })
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
