//! HLO modules: their messages and their text.
//!
//! HLO is what XLA compiles. [`lower`](crate::lower::lower) makes modules, [`HloModuleProto::to_bytes`] serializes
//! them as [`Program::Hlo`](crate::pjrt::Program::Hlo) takes them, and `Display` prints them in the syntax that
//! XLA's tools read: there, the elements of a constant of more than 256 are left out, and XLA reads zeros.
//!
//! ```
//! use xlann::{DType, Function, Shape, lower, target};
//!
//! let f = Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0])?;
//! let module = lower::lower(&f, &target::cpu::CAPABILITIES, &lower::Options::default())?.module;
//! assert_eq!(
//!     module.to_string(),
//!     "HloModule double, entry_computation_layout={(f32[3]{0})->f32[3]{0}}
//!
//! ENTRY %double (parameter: f32[3]) -> f32[3] {
//!   %parameter = f32[3]{0} parameter(0)
//!   ROOT %add = f32[3]{0} add(%parameter, %parameter)
//! }
//! "
//! );
//! # Ok::<(), xlann::Error>(())
//! ```

pub use proto::HloModuleProto;

mod builder;
mod mlir;
mod print;
pub mod proto;
mod stablehlo;
#[cfg(feature = "xla-rs")]
mod xla_rs;

pub(crate) use builder::{Builder, Computation, Value};
pub(crate) use mlir::float;
pub(crate) use stablehlo::APPROX_TOP_K;

use crate::{DType, Shape};

/// The number of a dtype in XLA's `PrimitiveType`, and the dtype of such a number.
const PRIMITIVE_TYPES: [(DType, i32); 13] = [
    (DType::Pred, PRED),
    (DType::S8, 2),
    (DType::S16, 3),
    (DType::S32, 4),
    (DType::S64, 5),
    (DType::U8, 6),
    (DType::U16, 7),
    (DType::U32, 8),
    (DType::U64, 9),
    (DType::F16, 10),
    (DType::F32, 11),
    (DType::F64, 12),
    (DType::BF16, 16),
];

impl HloModuleProto {
    /// The serialized module: what PJRT compiles as a program of format "hlo".
    ///
    /// ```
    /// use xlann::{DType, Function, Shape, lower, target};
    ///
    /// let f = Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0])?;
    /// let lowered = lower::lower(&f, &target::cpu::CAPABILITIES, &lower::Options::default())?;
    /// let bytes = lowered.module.to_bytes();
    /// assert!(!bytes.is_empty());
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn to_bytes(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(self)
    }
}

/// XLA's `PrimitiveType` of pred.
const PRED: i32 = 1;

/// XLA's `PrimitiveType` of a tuple.
const TUPLE: i32 = 13;

/// XLA's `PrimitiveType` of a token, which orders effects.
const TOKEN: i32 = 17;

impl From<&Shape> for proto::ShapeProto {
    fn from(shape: &Shape) -> proto::ShapeProto {
        let element_type = PRIMITIVE_TYPES
            .iter()
            .find(|(dtype, _)| *dtype == shape.dtype())
            .map_or(0, |&(_, number)| number);
        proto::ShapeProto {
            element_type,
            dimensions: shape.dims().iter().map(|&dim| dim as i64).collect(),
            tuple_shapes: Vec::new(),
            layout: Some(proto::LayoutProto { minor_to_major: (0..shape.rank() as i64).rev().collect() }),
            is_dynamic_dimension: vec![false; shape.rank()],
        }
    }
}

impl proto::ShapeProto {
    fn tuple(shapes: Vec<proto::ShapeProto>) -> proto::ShapeProto {
        proto::ShapeProto { element_type: TUPLE, tuple_shapes: shapes, ..Default::default() }
    }

    /// The shape of an array; `None` where it is no array's, or of a dtype that this crate does not have.
    pub(crate) fn to_shape(&self) -> Option<Shape> {
        let (dtype, _) = PRIMITIVE_TYPES.iter().find(|(_, number)| *number == self.element_type)?;
        let dims: Option<Vec<usize>> = self.dimensions.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        Some(Shape::new(*dtype, dims?))
    }
}
