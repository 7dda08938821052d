//! XLA nearest neighbours: tensor functions and approximate top-k on TPU, GPU and CPU.

pub use array::Array;
pub use dtype::{DType, Element};
pub use error::{Error, PjrtCode, Result};
pub use graph::{Builder, Equation, Function, Operand, Results, Tensor, Var};
pub use ops::compare::Direction;
pub use ops::custom_call::{ApiVersion, CustomCall};
pub use ops::gather::GatherDims;
pub use ops::scatter::{ScatterDims, ScatterKind};
pub use shape::Shape;

mod array;
mod dtype;
mod error;
pub mod graph;
pub mod hlo;
mod ops;
mod shape;
