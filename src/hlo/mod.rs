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
//!
//! # Leaving the crate
//!
//! A function can be compiled and run by other systems than this crate. There are four forms of it, all made of what
//! the crate itself compiles:
//!
//! | form | made by | read by |
//! |---|---|---|
//! | serialized HLO | [`HloModuleProto::to_bytes`] | PJRT plugins (program format `hlo`), XLA's tools |
//! | HLO text | `Display` of [`HloModuleProto`] | XLA's tools, people; constants of more than 256 elements are lost |
//! | StableHLO text | [`lower::stablehlo`](crate::lower::stablehlo), [`HloModuleProto::to_stablehlo`] | PJRT plugins (program format `mlir`), JAX, other MLIR compilers |
//! | `xla::XlaComputation` | `HloModuleProto::to_xla_computation`, with the Cargo feature `xla-rs` | the crate `xla` |
//!
//! HLO is of one target: [`lower`](crate::lower::lower) has chosen the form of each approximate top-k. Whoever
//! compiles it should set XLA's options as [`Platform::xla_options`](crate::target::Platform::xla_options) says.
//!
//! ```
//! use xlann::{ApproxTopKOptions, DType, Function, Shape, lower, target};
//! # let folder = tempfile::tempdir().unwrap();
//!
//! let best = Function::trace("best", &[Shape::new(DType::F32, [128, 100_000])], |x| {
//!     x[0].approx_max_k(10, &ApproxTopKOptions::default())
//! })?;
//! let lowered = lower::lower(&best, &target::cpu::CAPABILITIES, &lower::Options::default())?;
//! std::fs::write(folder.path().join("best.pb"), lowered.module.to_bytes()).unwrap();
//! std::fs::write(folder.path().join("best.hlo"), lowered.module.to_string()).unwrap();
//! # Ok::<(), xlann::Error>(())
//! ```
//!
//! StableHLO comes in two ways. [`lower::stablehlo`](crate::lower::stablehlo) keeps approximate top-k as the operator
//! `stablehlo.custom_call @ApproxTopK`, as JAX writes it: XLA chooses its form, and has its own opinion of NaNs.
//! [`to_stablehlo`](HloModuleProto::to_stablehlo) writes the lowered module, in which that operator is none any more.
//! A PJRT plugin compiles both; here, through this crate:
//!
//! ```
//! use xlann::pjrt::{Program, Signature};
//! use xlann::{ApproxTopKOptions, Array, DType, Function, Session, Shape, lower, target};
//!
//! let best = Function::trace("best", &[Shape::new(DType::F32, [2, 3])], |x| {
//!     x[0].approx_min_k(1, &ApproxTopKOptions::default())
//! })?;
//! let operator = lower::stablehlo(&best, &target::cpu::CAPABILITIES)?;
//! assert!(operator.contains("stablehlo.custom_call @ApproxTopK(%arg0, "));
//! let lowered = lower::lower(&best, &target::cpu::CAPABILITIES, &lower::Options::default())?;
//! let plain = lowered.module.to_stablehlo()?;
//! assert!(!plain.contains("ApproxTopK"));
//!
//! if let Ok(session) = Session::cpu() {
//!     let distances = Array::new([2, 3], &[3f32, 9.0, 7.0, 4.0, 8.0, 2.0])?;
//!     for text in [&operator, &plain] {
//!         let (program, options) = (Program::StableHlo(text), session.compile_options());
//!         let executable = session.client().compile(program, Signature::of(&best), &options)?;
//!         let results = executable.run_arrays(std::slice::from_ref(&distances))?;
//!         assert_eq!(results, [Array::new([2, 1], &[3f32, 2.0])?, Array::new([2, 1], &[0, 2])?]);
//!     }
//! }
//! # Ok::<(), xlann::Error>(())
//! ```
//!
//! The crate `xla` (xla-rs) is handed a module without a detour through a file:
//! `client.compile(&lowered.module.to_xla_computation()?)` compiles it. To link, it needs XLA's C++ library in the
//! folder `XLA_EXTENSION_DIR`; hence a Cargo feature, `xla-rs`, which is off by default.
//!
//! What a plugin made of a module leaves as a file, for another process with the same plugin:
//! [`ExecutableFile`](crate::data::ExecutableFile).

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
