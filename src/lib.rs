//! XLA nearest neighbours: tensor functions and approximate top-k, compiled through PJRT plugins.
//!
//! A program describes a tensor function as a graph, and the crate lowers it to HLO, the language of the XLA
//! compiler, has a PJRT plugin compile it for a device, and runs it there. Approximate top-k
//! ([`Tensor::approx_max_k`], [`Tensor::approx_min_k`]) is an operator of the graph, as it is in JAX and on
//! a TPU; nearest-neighbour search ([`ann`]) is a function built from it.
//!
//! ```text
//! Function ── lower::lower ──▶ Function of plain operators, HLO module ── pjrt ──▶ Executable ──▶ arrays
//!    │                         (printable, with the choices made)                  on a device
//!    └── Function::eval ──▶ arrays, on the host, without a plugin
//! ```
//!
//! # A function
//!
//! [`Function::trace`] calls a closure once with a [`Tensor`] for each parameter and records what it does.
//! Shapes and dtypes are checked there; nothing is computed yet. A function prints as its equations, and
//! [`eval`](Function::eval) interprets it on the host, slowly: it is what results of compiled functions are
//! compared with.
//!
//! ```
//! use xlann::{ApproxTopKOptions, Array, DType, Function, Shape};
//!
//! // Two of four vectors, by their inner product with the query.
//! let shapes = [Shape::new(DType::F32, [1, 2]), Shape::new(DType::F32, [4, 2])];
//! let nearest = Function::trace("nearest", &shapes, |x| {
//!     let (queries, database) = (&x[0], &x[1]);
//!     let scores = queries.dot(&database.transpose(&[1, 0])?)?;
//!     scores.approx_max_k(2, &ApproxTopKOptions::default())
//! })?;
//! assert_eq!(
//!     nearest.to_string(),
//!     "nearest(%0: f32[1,2], %1: f32[4,2]) {
//!   %2: f32[2,4] = transpose[permutation=[1,0]] %1
//!   %3: f32[1,4] = dot_general[lhs_contracting=[1], rhs_contracting=[0]] %0 %2
//!   %4: f32[1,2], %5: s32[1,2] = approx_max_k[k=2, reduction_dimension=1, recall_target=0.95] %3
//!   return %4, %5
//! }"
//! );
//!
//! let queries = Array::new([1, 2], &[0f32, 1.0])?;
//! let database = Array::new([4, 2], &[1f32, 0.0, 0.0, 1.0, 2.0, 2.0, -1.0, -1.0])?;
//! let results = nearest.eval(&[queries, database])?;
//! assert_eq!(results, [Array::new([1, 2], &[2f32, 1.0])?, Array::new([1, 2], &[2, 1])?]);
//! # Ok::<(), xlann::Error>(())
//! ```
//!
//! # The same on a device
//!
//! A [`Session`] is a target with a plugin attached. `xlann plugin install cpu` on the command line, or
//! [`Platform::install`](target::Platform::install), fetches a plugin for the CPU; where else one is looked for
//! is told by [`pjrt::search_order`]. The graph does not change with the target. Which form each approximate
//! top-k took, and why, comes with the executable.
//!
//! ```
//! use xlann::{ApproxTopKOptions, Array, DType, Function, Session, Shape, lower};
//!
//! let best = Function::trace("best", &[Shape::new(DType::F32, [8, 100_000])], |x| {
//!     x[0].approx_max_k(10, &ApproxTopKOptions::default())
//! })?;
//! // Without a plugin, there is an Error::PluginNotFound that says how to get one.
//! if let Ok(session) = Session::cpu() {
//!     let (executable, choices) = session.compile_with(&best, &lower::Options::default())?;
//!     // Such as: approx_max_k f32[8,100000] k=10: kernel (one read of the operand; exact; ...)
//!     println!("{}", choices[0]);
//!
//!     let scores: Vec<f32> = (0..800_000).map(|i| (i % 100_000) as f32).collect();
//!     let results = executable.run_arrays(&[Array::new([8, 100_000], &scores)?])?;
//!     assert_eq!(results[0].shape().dims(), [8, 10]);
//!     assert_eq!(results[1].as_slice::<i32>()?[..3], [99_999, 99_998, 99_997]);
//! }
//! # Ok::<(), xlann::Error>(())
//! ```
//!
//! The choice needs no plugin: [`lower::lower`] gives it, the lowered function and its HLO for any target.
//! [`lower::Options`] overrides it.
//!
//! # Batches and derivatives
//!
//! [`vmap`] makes of a function one for a batch, [`auto_vmap`] chooses the batch dimensions by the ranks that the
//! function is written for; [`jvp`], [`vjp`] and [`grad`] give derivatives, through searches too. Each gives a
//! function that can be transformed again. [`custom_jvp`] and [`custom_vjp`] give a function derivatives of its own. How
//! they work is told in [`transform`].
//!
//! ```
//! use xlann::{Array, DType, Function, Shape, grad, vmap};
//!
//! let norm = Function::trace("norm", &[Shape::new(DType::F32, [2])], |x| {
//!     (&x[0] * &x[0])?.reduce_sum(&[0])?.sqrt()
//! })?;
//! let directions = vmap(&grad(&norm, &[0])?, 0, 0, 2)?;
//! let points = Array::new([2, 2], &[3f32, 4.0, 0.0, 2.0])?;
//! assert_eq!(directions.eval(&[points])?, [Array::new([2, 2], &[0.6f32, 0.8, 0.0, 1.0])?]);
//! # Ok::<(), xlann::Error>(())
//! ```
//!
//! # Nearest neighbours
//!
//! An [`ann::Searcher`] keeps a database on a device, compiles the search once for each of a few batch
//! sizes, and answers queries. A .npy file of f32 or f64 that [`data::open`] mapped is searched in place on
//! a CPU.
//!
//! ```
//! use xlann::ann::{self, Metric, SearchOptions, Searcher};
//! use xlann::{Array, Session};
//!
//! // 1000 points on a circle, and the neighbours of two of them.
//! let angles = (0..1000).map(|i| i as f32 * 0.006);
//! let points: Vec<f32> = angles.flat_map(|angle| [angle.cos(), angle.sin()]).collect();
//! let database = Array::new([1000, 2], &points)?;
//! if let Ok(session) = Session::cpu() {
//!     let options = SearchOptions { recall_target: 0.99, ..SearchOptions::new(3) };
//!     let searcher = Searcher::new(&session, database.clone(), Metric::L2, options)?;
//!     let queries = Array::new([2, 2], &[&points[20..22], &points[800..802]].concat())?;
//!     let found = searcher.search(&queries)?;
//!     // Row by row, nearest first; distances are squared.
//!     assert_eq!(found.indices.shape().dims(), [2, 3]);
//!     assert_eq!(found.distances.as_slice::<f32>()?[0], 0.0);
//!     let truth = ann::true_neighbors(Metric::L2, &queries, database.clone(), 3)?;
//!     let recall = ann::recall(Metric::L2, &queries, database, &found.indices, &truth.indices)?;
//!     assert!(recall >= 0.99);
//! }
//! # Ok::<(), xlann::Error>(())
//! ```
//!
//! # Several devices
//!
//! [`ann::Searcher::over`] splits the database over devices of one client, whose findings are put together on the
//! devices or on the host. Its function is one of the graph like any other, of which a replica runs on each device:
//! [`Tensor::all_gather`] and [`Builder::replica_id`] are operators, [`Session::compile_replicas`] compiles it and
//! [`Executable::run_replicas`](pjrt::Executable::run_replicas) runs it. On the host,
//! [`Function::eval_replicas`] interprets replicas together.
//!
//! ```
//! use xlann::ann::{Metric, SearchOptions, Searcher};
//! use xlann::{Array, target};
//!
//! let points: Vec<f32> = (0..1001).map(|i| i as f32).collect();
//! if let Ok(session) = target::cpu::PLATFORM.session_with_devices(4) {
//!     let database = Array::new([1001, 1], &points)?;
//!     let searcher = Searcher::over(&session, 4, database, Metric::L2, SearchOptions::new(3))?;
//!     let found = searcher.search(&Array::new([1, 1], &[500.25f32])?)?;
//!     assert_eq!(found.indices, Array::new([1, 3], &[500, 501, 499])?);
//! }
//! # Ok::<(), xlann::Error>(())
//! ```
//!
//! # Modules
//!
//! | module | what is in it |
//! |---|---|
//! | the root | the graph's types ([`Function`], [`Tensor`], [`Builder`]), values ([`Array`], [`Shape`], [`DType`]), [`Session`], [`Error`] |
//! | [`lower`] | from a function to HLO for a target, and the form that approximate top-k takes |
//! | [`transform`] | batching and derivatives |
//! | [`optim`] | optimisers: how parameters change by gradients |
//! | [`random`] | random numbers by a key, those of JAX |
//! | [`hlo`] | HLO modules as messages and as text |
//! | [`pjrt`] | plugins, and their clients, buffers and executables |
//! | [`target`] | kinds of devices: where their plugins come from and what can be lowered for them |
//! | [`ann`] | metrics, search, and recall: planned and measured |
//! | [`data`] | .npy, .fvecs, .bvecs, .ivecs, .fbin, .u8bin and .ibin files, and the packages of plugins |
//!
//! The operators are methods of [`Tensor`]; those without a tensor to start from ([`Builder::constant`],
//! [`Builder::iota`]) or with several results (such as [`Builder::sort_by`], [`Builder::reduce`],
//! [`Builder::while_loop`]) are methods of [`Builder`], which [`Tensor::builder`] gives too. Functions that are put
//! together from them, such as [`Tensor::softmax`], [`Tensor::var`], [`Tensor::cumsum`] and [`Tensor::einsum`], are
//! methods as well. Names are mostly JAX's; the search of these pages knows those of NumPy and torch too.
//!
//! Everything that can fail gives an [`Error`], whose variants have fields: the argument, what was expected
//! and what came. Nothing is repaired silently, and a graph converts dtypes only where [`Tensor::convert`]
//! stands, and within functions that compute in f32 what they round to f16 or bf16.
//!
//! # Limits of this version
//!
//! - The plugins that are fetched are for Linux on x86-64. With [`pjrt::Plugin::load`] and [`pjrt::Client`], any PJRT
//!   plugin runs HLO or StableHLO.
//! - What is chosen for GPUs and TPUs follows from their compilers' output and estimates: it was not run on any.
//! - Shapes are static. Dtypes are those of [`DType`]: no complex numbers, no floats of 8 bits or less.
//! - A program runs on the devices of one client: there are no collectives between processes.
//! - Indices of top-k are s32: a searched dimension has less than 2^31 elements.
//! - It builds on Unix only.

pub use array::Array;
pub use dtype::{DType, Element};
pub use error::{Error, PjrtCode, Result};
#[doc(inline)]
pub use graph::{Builder, Equation, Function, Operand, Results, Tensor, Var};
pub use ops::approx_top_k::{ApproxTopKOptions, Tangent};
pub use ops::compare::Direction;
pub use ops::custom_call::{ApiVersion, CustomCall, VmapMethod};
pub use ops::custom_derivative::{custom_jvp, custom_vjp};
pub use ops::gather::GatherDims;
pub use ops::scatter::{ScatterDims, ScatterKind};
pub use shape::Shape;
#[doc(inline)]
pub use target::Session;
pub use transform::{Tree, auto_vmap, grad, jvp, value_and_grad, vjp, vmap};

pub mod ann;
mod array;
pub mod data;
mod dtype;
mod error;
mod functions;
mod graph;
pub mod hlo;
pub mod kernels;
pub mod lower;
mod ops;
pub mod optim;
pub mod pjrt;
pub mod random;
mod recall;
mod sha256;
mod shape;
pub mod target;
pub mod transform;

/// The examples of the README are tests too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
