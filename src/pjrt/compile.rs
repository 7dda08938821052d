//! What is compiled, with which options, and the cache of what was.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use prost::Message;

use super::abi::{PJRT_Program, Struct};
use super::api::Value;
use super::executable::{Loaded, Signature};
use crate::hlo::HloModuleProto;
use crate::hlo::proto::ShapeProto;
use crate::{Error, Result, sha256};

/// A program in one of the forms that plugins compile.
///
/// ```
/// use xlann::{DType, Function, Shape, lower, target};
/// use xlann::pjrt::Program;
///
/// let f = Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0])?;
/// let lowered = lower::lower(&f, &target::cpu::CAPABILITIES, &lower::Options::default())?;
/// let bytes = lowered.module.to_bytes();
/// let program = Program::Hlo(&bytes);
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Program<'a> {
    /// A serialized `HloModuleProto`.
    Hlo(&'a [u8]),
    /// A StableHLO module as text.
    StableHlo(&'a str),
}

impl<'a> Program<'a> {
    /// The SHA-256 of the program's bytes, or of its text.
    ///
    /// ```
    /// use xlann::pjrt::Program;
    ///
    /// assert_eq!(Program::StableHlo("module {}").sha256()[..4], [0xfd, 0x22, 0x4b, 0x31]);
    /// ```
    pub fn sha256(&self) -> [u8; 32] {
        sha256::of_parts(&[self.content().1])
    }

    /// PJRT's name of the form, and the program's bytes.
    fn content(self) -> (&'static str, &'a [u8]) {
        match self {
            Program::Hlo(bytes) => ("hlo", bytes),
            Program::StableHlo(text) => ("mlir", text.as_bytes()),
        }
    }
}

/// On how many devices a program runs, and how it is compiled for them.
///
/// ```
/// use xlann::pjrt::{CompileOptions, Value};
///
/// let mut options = CompileOptions::default();
/// options.overrides.push(("xla_cpu_enable_fast_math".into(), Value::Bool(false)));
/// assert_eq!((options.num_replicas, options.num_partitions), (1, 1));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CompileOptions {
    /// How many copies of the program run, each with its own arguments.
    pub num_replicas: usize,
    /// Over how many devices each copy is partitioned.
    pub num_partitions: usize,
    /// The [ids](super::Device::id) of the devices: those of the first replica's partitions, then those of the
    /// second's, and so on. Where there are none, the plugin chooses.
    pub devices: Vec<i32>,
    /// Options of XLA's own by their names, such as `xla_cpu_enable_fast_math`; XLA refuses those that it does
    /// not know. None is a list of integers.
    pub overrides: Vec<(String, Value)>,
}

impl Default for CompileOptions {
    /// One device, and XLA's own options as they are.
    fn default() -> CompileOptions {
        CompileOptions { num_replicas: 1, num_partitions: 1, devices: Vec::new(), overrides: Vec::new() }
    }
}

impl CompileOptions {
    /// Requires that the program runs on at least one of the devices of these ids, and on each at most once:
    /// plugins end the process where it would not.
    pub(super) fn check(&self, ids: &[i32]) -> Result<()> {
        let devices = ids.len();
        let refused = |argument: &str, got: usize| {
            let expected = format!("from 1 on, with replicas times partitions at most {devices}");
            Err(Error::argument("compile", argument, expected, got))
        };
        match self.num_replicas.checked_mul(self.num_partitions) {
            Some(0) if self.num_replicas == 0 => refused("num_replicas", 0),
            Some(0) => refused("num_partitions", 0),
            Some(product) if product <= devices => self.check_devices(ids, product),
            _ => refused("num_replicas", self.num_replicas),
        }
    }

    fn check_devices(&self, ids: &[i32], count: usize) -> Result<()> {
        let mut left = ids.to_vec();
        let mut take = |id: &i32| left.iter().position(|known| known == id).map(|index| left.remove(index));
        if self.devices.is_empty()
            || self.devices.len() == count && self.devices.iter().all(|id| take(id).is_some())
        {
            return Ok(());
        }
        let expected = format!("none, or {count} distinct ones of {ids:?}");
        Err(Error::argument("compile", "devices", expected, format!("{:?}", self.devices)))
    }

    /// On how many devices the program runs; the options must have been checked.
    pub(super) fn device_count(&self) -> usize {
        self.num_replicas * self.num_partitions
    }

    /// The options as a serialized `CompileOptionsProto`.
    pub(super) fn to_proto(&self) -> Vec<u8> {
        CompileOptionsProto {
            executable_build_options: Some(ExecutableBuildOptionsProto {
                device_ordinal: -1,
                num_replicas: self.num_replicas as i64,
                num_partitions: self.num_partitions as i64,
                use_spmd_partitioning: self.num_partitions > 1,
                device_assignment: self.device_assignment(),
            }),
            env_option_overrides: self
                .overrides
                .iter()
                .map(|(name, value)| (name.clone(), OptionOverrideProto::from(value)))
                .collect(),
        }
        .encode_to_vec()
    }

    fn device_assignment(&self) -> Option<DeviceAssignmentProto> {
        let of_partition = |partition: usize| {
            let devices = self.devices.iter().skip(partition).step_by(self.num_partitions);
            ComputationDevice { replica_device_ids: devices.map(|&id| id.into()).collect() }
        };
        (!self.devices.is_empty()).then(|| DeviceAssignmentProto {
            replica_count: self.num_replicas as i32,
            computation_count: self.num_partitions as i32,
            computation_devices: (0..self.num_partitions).map(of_partition).collect(),
        })
    }
}

#[derive(Clone, PartialEq, Message)]
struct CompileOptionsProto {
    #[prost(message, optional, tag = "3")]
    executable_build_options: Option<ExecutableBuildOptionsProto>,
    #[prost(btree_map = "string, message", tag = "7")]
    env_option_overrides: BTreeMap<String, OptionOverrideProto>,
}

/// One of the fields is set.
#[derive(Clone, PartialEq, Message)]
struct OptionOverrideProto {
    #[prost(string, optional, tag = "1")]
    string_field: Option<String>,
    #[prost(bool, optional, tag = "2")]
    bool_field: Option<bool>,
    #[prost(int64, optional, tag = "3")]
    int_field: Option<i64>,
    #[prost(double, optional, tag = "4")]
    double_field: Option<f64>,
}

impl From<&Value> for OptionOverrideProto {
    fn from(value: &Value) -> OptionOverrideProto {
        let mut field = OptionOverrideProto::default();
        match value {
            Value::String(text) => field.string_field = Some(text.clone()),
            Value::Bool(truth) => field.bool_field = Some(*truth),
            Value::Int(number) => field.int_field = Some(*number),
            Value::Float(number) => field.double_field = Some((*number).into()),
            // Left unset, XLA refuses it by the option's name.
            Value::IntList(_) => (),
        }
        field
    }
}

#[derive(Clone, PartialEq, Message)]
struct ExecutableBuildOptionsProto {
    /// -1 stands for not set.
    #[prost(int64, tag = "1")]
    device_ordinal: i64,
    #[prost(int64, tag = "4")]
    num_replicas: i64,
    #[prost(int64, tag = "5")]
    num_partitions: i64,
    #[prost(bool, tag = "6")]
    use_spmd_partitioning: bool,
    #[prost(message, optional, tag = "9")]
    device_assignment: Option<DeviceAssignmentProto>,
}

#[derive(Clone, PartialEq, Message)]
struct DeviceAssignmentProto {
    #[prost(int32, tag = "1")]
    replica_count: i32,
    #[prost(int32, tag = "2")]
    computation_count: i32,
    /// One for each partition.
    #[prost(message, repeated, tag = "3")]
    computation_devices: Vec<ComputationDevice>,
}

#[derive(Clone, PartialEq, Message)]
struct ComputationDevice {
    #[prost(int64, repeated, tag = "1")]
    replica_device_ids: Vec<i64>,
}

/// A program as the C API takes it: pointers to `code` and `format`, which must outlive their use.
pub(super) fn raw_program(code: &mut [u8], format: &str) -> PJRT_Program {
    PJRT_Program {
        code: code.as_mut_ptr().cast(),
        code_size: code.len(),
        format: format.as_ptr().cast(),
        format_size: format.len(),
        ..PJRT_Program::new()
    }
}

/// How many executables a client's cache holds.
const CAPACITY: usize = 64;

/// All that a compilation depends on.
pub(super) struct Key {
    hash: u64,
    format: &'static str,
    program: Vec<u8>,
    signature: Signature,
    options: CompileOptions,
}

impl Key {
    pub fn new(program: Program<'_>, signature: Signature, options: &CompileOptions) -> Key {
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let (format, program) = program.content();
        Key {
            hash: HASHER.hash_one(program),
            format,
            program: program.to_vec(),
            signature,
            options: options.clone(),
        }
    }

    /// Requires that an HLO module takes and gives what the signature says. A program that is no such module is
    /// left for the plugin to refuse.
    pub fn check_signature(&self) -> Result<()> {
        let Some(shape) = (self.format == "hlo")
            .then(|| HloModuleProto::decode(self.program.as_slice()).ok())
            .flatten()
            .and_then(|module| module.host_program_shape)
        else {
            return Ok(());
        };
        let Signature { name, parameters, .. } = &self.signature;
        if shape.parameters.len() != parameters.len() {
            let (expected, got) = (shape.parameters.len(), parameters.len());
            return Err(Error::ArgumentCount { function: name.clone(), expected, got });
        }
        for (index, (theirs, ours)) in shape.parameters.iter().zip(parameters).enumerate() {
            let ours_proto = ShapeProto::from(ours);
            if (theirs.element_type, &theirs.dimensions) != (ours_proto.element_type, &ours_proto.dimensions)
            {
                let expected = format!("that of the program's parameter {index}");
                return Err(Error::argument("compile", format!("signature of {name}"), expected, ours));
            }
        }
        Ok(())
    }

    pub fn format(&self) -> &'static str {
        self.format
    }

    pub fn program(&self) -> &[u8] {
        &self.program
    }

    /// As [`Program::sha256`].
    pub fn sha256(&self) -> [u8; 32] {
        sha256::of_parts(&[&self.program])
    }

    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    pub fn options(&self) -> &CompileOptions {
        &self.options
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        // The hash decides almost always; equal hashes of different programs must not.
        self.hash == other.hash
            && self.format == other.format
            && self.options == other.options
            && self.signature == other.signature
            && self.program == other.program
    }
}

/// One key and, once it is compiled, its executable; locked while it is being compiled.
struct Entry {
    key: Key,
    executable: Mutex<Option<Arc<Loaded>>>,
}

/// The executables that were last asked for, the latest last.
#[derive(Default)]
pub(super) struct Cache {
    entries: Mutex<Vec<Arc<Entry>>>,
}

impl Cache {
    /// The key's executable, by `compile` where it is not there yet.
    pub fn get(&self, key: Key, compile: impl FnOnce(&Key) -> Result<Loaded>) -> Result<Arc<Loaded>> {
        let entry = self.entry(key);
        let mut executable = entry.executable.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = &*executable {
            return Ok(Arc::clone(loaded));
        }
        match compile(&entry.key) {
            Ok(loaded) => Ok(Arc::clone(executable.insert(Arc::new(loaded)))),
            Err(problem) => {
                let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
                entries.retain(|known| !Arc::ptr_eq(known, &entry));
                Err(problem)
            }
        }
    }

    /// The key's entry, which becomes the latest.
    fn entry(&self, key: Key) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match entries.iter().position(|entry| entry.key == key) {
            Some(position) => entries.remove(position),
            None => Arc::new(Entry { key, executable: Mutex::new(None) }),
        };
        let oldest = (entries.len() == CAPACITY).then(|| entries.remove(0));
        entries.push(Arc::clone(&entry));
        // What goes is dropped after the lock: an executable may take its time.
        drop(entries);
        drop(oldest);
        entry
    }
}
