//! What a compiler made of a program.
#![allow(unsafe_code)]

use super::abi::*;
use super::api::{Api, Value, dtype_of, read_named_values, slice, text};
use super::executable::Signature;
use super::plugin::Plugin;
use crate::hlo::HloModuleProto;
use crate::hlo::proto::HloModuleProtoWithConfig;
use crate::{Error, PjrtCode, Result, Shape};
use prost::Message;

/// A compiled program, apart from the devices that it may be loaded on.
///
/// ```
/// use xlann::{DType, Function, Session, Shape};
///
/// if let Ok(session) = Session::cpu() {
///     let f = Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0])?;
///     let double = session.compile(&f)?;
///     let compiled = double.compiled();
///     assert_eq!(compiled.result_shapes()?, f.result_shapes());
///     println!("a run takes {} bytes beside its arguments and results", compiled.memory()?.temporaries);
///     // Not every plugin tells.
///     for (name, value) in compiled.cost_analysis().unwrap_or_default() {
///         println!("{name}: {value}");
///     }
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
pub struct Compiled {
    raw: *mut PJRT_Executable,
    origin: Origin,
}

/// What an executable was compiled from, and by what.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) plugin: Plugin,
    pub(crate) platform_name: String,
    pub(crate) platform_version: String,
    pub(crate) signature: Signature,
    /// The SHA-256 of the program; `None` where it was not compiled here, but loaded.
    pub(crate) program: Option<[u8; 32]>,
}

// SAFETY: PJRT executables may be used from any thread.
unsafe impl Send for Compiled {}
// SAFETY: PJRT executables may be used from several threads at once.
unsafe impl Sync for Compiled {}

/// A program as the compiler's passes left it.
///
/// ```
/// use xlann::{DType, Function, Session, Shape};
///
/// if let Ok(session) = Session::cpu() {
///     let f = Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0])?;
///     let program = session.compile(&f)?.compiled().optimized_program()?;
///     println!("{} bytes of {}", program.bytes.len(), program.format);
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptimizedProgram {
    /// What the bytes are: `hlo`, `hlo_with_config` (a serialized `HloModuleProtoWithConfig`) or `mlir`.
    pub format: String,
    /// The program.
    pub bytes: Vec<u8>,
}

impl OptimizedProgram {
    /// The program as an HLO module, whose `Display` prints it.
    ///
    /// Backends' own attributes, such as the tiles of layouts and the configurations of kernels, are left out.
    ///
    /// # Errors
    /// Where it is in another format, or not what it says that it is.
    ///
    /// ```
    /// use xlann::{DType, Function, Session, Shape};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     let f = Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0])?;
    ///     println!("{}", session.compile(&f)?.compiled().optimized_program()?.module()?);
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn module(&self) -> Result<HloModuleProto> {
        let refused =
            |got: &str| Error::argument("optimized program", "format", "an HLO module", got.to_owned());
        let decoded = match self.format.as_str() {
            "hlo" => HloModuleProto::decode(self.bytes.as_slice()).map(Some),
            "hlo_with_config" => {
                HloModuleProtoWithConfig::decode(self.bytes.as_slice()).map(|module| module.hlo_module)
            }
            other => return Err(refused(other)),
        };
        decoded
            .map_err(|problem| refused(&problem.to_string()))?
            .ok_or_else(|| refused(&format!("{} without one", self.format)))
    }
}

/// The memory that a run needs on a device, in bytes.
///
/// ```
/// use xlann::{DType, Function, Session, Shape};
///
/// if let Ok(session) = Session::cpu() {
///     let f = Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0])?;
///     let memory = session.compile(&f)?.compiled().memory()?;
///     assert_eq!((memory.arguments, memory.results), (12, 12));
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompiledMemory {
    /// The machine code.
    pub generated_code: i64,
    /// The arguments.
    pub arguments: i64,
    /// The results.
    pub results: i64,
    /// What of the results takes the place of arguments.
    pub aliased: i64,
    /// What is needed in between.
    pub temporaries: i64,
}

impl Compiled {
    /// Takes an executable that the plugin gave, and checks the signature against it.
    ///
    /// # Safety
    /// `raw` must be an executable of this plugin that nothing else destroys.
    pub(super) unsafe fn new(raw: *mut PJRT_Executable, origin: Origin) -> Result<Compiled> {
        let compiled = Compiled { raw, origin };
        let signature = compiled.signature();
        for shape in signature.parameters.iter().chain(&signature.results) {
            shape.checked_byte_count("executable")?;
        }
        let results = compiled.result_shapes()?;
        if results != signature.results {
            let list = |shapes: &[Shape]| {
                format!("[{}]", shapes.iter().map(Shape::to_string).collect::<Vec<_>>().join(", "))
            };
            let argument = format!("results of {}", signature.name);
            return Err(Error::argument("executable", argument, list(&results), list(&signature.results)));
        }
        Ok(compiled)
    }

    /// What it takes and gives.
    pub fn signature(&self) -> &Signature {
        &self.origin.signature
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The SHA-256 of the program that it was compiled from.
    pub(crate) fn program(&self) -> Result<[u8; 32]> {
        self.origin.program.ok_or_else(|| {
            let (argument, expected) =
                (format!("executable of {}", self.signature().name), "one that was compiled");
            Error::argument(
                "serialize",
                argument,
                expected,
                "one that was loaded; copy what it was loaded from",
            )
        })
    }

    fn api(&self) -> &'static Api {
        self.origin.plugin.api()
    }

    /// The shape of each result.
    ///
    /// # Errors
    /// Where the plugin cannot tell, or a result is of a dtype that this crate does not have.
    pub fn result_shapes(&self) -> Result<Vec<Shape>> {
        let executable = self.raw;
        let mut count =
            PJRT_Executable_NumOutputs_Args { executable, ..PJRT_Executable_NumOutputs_Args::new() };
        let mut types = PJRT_Executable_OutputElementTypes_Args {
            executable,
            ..PJRT_Executable_OutputElementTypes_Args::new()
        };
        let mut dims = PJRT_Executable_OutputDimensions_Args {
            executable,
            ..PJRT_Executable_OutputDimensions_Args::new()
        };
        // SAFETY: the executable is alive, and the lists as long as it.
        let (types, ranks) = unsafe {
            self.api().call(&mut count)?;
            self.api().call(&mut types)?;
            dims.num_outputs = count.num_outputs;
            self.api().call(&mut dims)?;
            (slice(types.output_types, types.num_output_types), slice(dims.dim_sizes, count.num_outputs))
        };
        // SAFETY: the sizes of all results' dimensions stand one after the other.
        let mut sizes = unsafe { slice(dims.dims, ranks.iter().sum()) };
        let shape = |(&number, &rank): (&i32, &usize)| {
            let dtype = dtype_of(number).ok_or_else(|| Error::Pjrt {
                call: PJRT_Executable_OutputElementTypes_Args::CALL,
                code: PjrtCode::Unimplemented,
                message: format!(
                    "a result is of element type {number}, which is not one of this crate's dtypes"
                ),
            })?;
            let (own, rest) = sizes.split_at(rank);
            sizes = rest;
            Ok(Shape::new(dtype, own.iter().map(|&size| size as usize).collect::<Vec<_>>()))
        };
        types.iter().zip(ranks).map(shape).collect()
    }

    /// The program as the compiler's passes left it.
    ///
    /// # Errors
    /// Where the plugin does not keep it.
    pub fn optimized_program(&self) -> Result<OptimizedProgram> {
        let mut program = PJRT_Program::new();
        let mut args = PJRT_Executable_OptimizedProgram_Args {
            executable: self.raw,
            program: &mut program,
            ..PJRT_Executable_OptimizedProgram_Args::new()
        };
        // SAFETY: the executable is alive; with a null code, only the size is asked for.
        unsafe { self.api().call(&mut args)? };
        // SAFETY: the plugin wrote the size through the pointer it was given.
        let size = unsafe { (*args.program).code_size };
        let mut bytes = vec![0u8; size];
        // SAFETY: the program is alive; it now has room for its code.
        let format = unsafe {
            (*args.program).code = bytes.as_mut_ptr().cast();
            self.api().call(&mut args)?;
            text((*args.program).format, (*args.program).format_size)
        };
        Ok(OptimizedProgram { format, bytes })
    }

    /// The compiler's estimates of what a run costs, such as `flops` and `bytes accessed`.
    ///
    /// # Errors
    /// Where the plugin makes none.
    pub fn cost_analysis(&self) -> Result<Vec<(String, Value)>> {
        let mut args = PJRT_Executable_GetCostAnalysis_Args {
            executable: self.raw,
            ..PJRT_Executable_GetCostAnalysis_Args::new()
        };
        // SAFETY: the executable is alive, and the properties as long as it.
        unsafe {
            self.api().call(&mut args)?;
            Ok(read_named_values(args.properties, args.num_properties))
        }
    }

    /// The memory that a run needs.
    ///
    /// # Errors
    /// Where the plugin does not know.
    pub fn memory(&self) -> Result<CompiledMemory> {
        let mut args = PJRT_Executable_GetCompiledMemoryStats_Args {
            executable: self.raw,
            ..PJRT_Executable_GetCompiledMemoryStats_Args::new()
        };
        // SAFETY: the executable is alive.
        unsafe { self.api().call(&mut args)? };
        Ok(CompiledMemory {
            generated_code: args.generated_code_size_in_bytes,
            arguments: args.argument_size_in_bytes,
            results: args.output_size_in_bytes,
            aliased: args.alias_size_in_bytes,
            temporaries: args.temp_size_in_bytes,
        })
    }

    /// The size of the machine code in bytes.
    ///
    /// # Errors
    /// Where the plugin does not know.
    pub fn generated_code_size(&self) -> Result<i64> {
        let mut args = PJRT_Executable_SizeOfGeneratedCodeInBytes_Args {
            executable: self.raw,
            ..PJRT_Executable_SizeOfGeneratedCodeInBytes_Args::new()
        };
        // SAFETY: the executable is alive.
        unsafe { self.api().call(&mut args)? };
        Ok(args.size_in_bytes)
    }

    /// The executable as bytes, which the same build of the plugin can [load](super::Client::load) again.
    ///
    /// # Errors
    /// Where the plugin cannot, and where the executable was loaded from bytes itself: XLA:CPU would give such
    /// without its code, which shows only when it is run.
    pub fn serialize(&self) -> Result<Vec<u8>> {
        self.program()?;
        let mut args =
            PJRT_Executable_Serialize_Args { executable: self.raw, ..PJRT_Executable_Serialize_Args::new() };
        // SAFETY: the executable is alive; the bytes live until the deleter is called, once.
        unsafe {
            self.api().call(&mut args)?;
            let bytes = slice(args.serialized_bytes.cast::<u8>(), args.serialized_bytes_size).to_vec();
            if let Some(delete) = args.serialized_executable_deleter {
                delete(args.serialized_executable);
            }
            Ok(bytes)
        }
    }
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiled").field("results", &self.result_shapes()).finish_non_exhaustive()
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        let mut args =
            PJRT_Executable_Destroy_Args { executable: self.raw, ..PJRT_Executable_Destroy_Args::new() };
        // SAFETY: the executable is alive and ours. A failure to destroy it leaves nothing to be done.
        let _ = unsafe { self.api().call(&mut args) };
    }
}
