//! Functions that are put together from operators: shape rule, HLO, batching and derivatives follow from those.
//!
//! Of f16 and bf16, those that add, multiply or take exponentials compute in f32 and round their result once: a sum of
//! ones in bf16 would stop at 256.

mod arrange;
mod cumulative;
mod einsum;
mod elementwise;
mod masks;
mod softmax;
mod statistics;

use crate::ops::others;
use crate::{DType, Error, Result, Tensor};

/// What `compute` makes of a tensor, f16 and bf16 in f32.
fn in_f32(x: &Tensor, compute: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    match x.dtype() {
        DType::F16 | DType::BF16 => compute(&x.convert(DType::F32)?)?.convert(x.dtype()),
        _ => compute(x),
    }
}

/// Requires a floating operand.
fn floating(operator: &'static str, x: &Tensor) -> Result<()> {
    match x.dtype().is_float() {
        true => Ok(()),
        false => Err(Error::argument(operator, "operand's dtype", "floating", x.dtype())),
    }
}

/// Requires an operand of numbers.
fn number(operator: &'static str, x: &Tensor) -> Result<()> {
    match x.dtype() {
        DType::Pred => Err(Error::argument(operator, "operand's dtype", "a number", x.dtype())),
        _ => Ok(()),
    }
}

/// What was reduced along the dimensions `axes` of `x`, repeated along them.
fn repeated(reduced: &Tensor, x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    reduced.broadcast_in_dim(x.dims(), &others(x.rank(), &[axes]))
}
