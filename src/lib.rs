//! XLA nearest neighbours: tensor functions and approximate top-k on TPU, GPU and CPU.

pub use array::Array;
pub use dtype::{DType, Element};
pub use error::{Error, PjrtCode, Result};
pub use shape::Shape;

pub mod pjrt;

mod array;
mod dtype;
mod error;
mod shape;
