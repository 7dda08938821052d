//! Executables as files.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use prost::Message;

use super::{atomic, damaged, open_regular};
use crate::hlo::proto::ShapeProto;
use crate::pjrt::{Client, Compiled, Executable, Plugin, Program, Signature};
use crate::{Error, Result, Shape, sha256};

/// What the file of an executable starts with.
const MAGIC: &[u8; 8] = b"xlannexe";

/// The version of the format.
const VERSION: u32 = 1;

/// The size of what comes before the header.
const PREFIX: usize = 24;

/// The size of what comes after the executable.
const CHECKSUM: usize = 32;

/// The most that a header may take: what it is decoded into is larger.
const MAX_HEADER: usize = 1 << 20;

/// The header, as a protocol buffer.
#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(string, tag = "1")]
    platform_name: String,
    #[prost(string, tag = "2")]
    platform_version: String,
    #[prost(int32, tag = "3")]
    api_major: i32,
    #[prost(int32, tag = "4")]
    api_minor: i32,
    #[prost(bytes = "vec", tag = "5")]
    plugin: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    program: Vec<u8>,
    #[prost(string, tag = "7")]
    name: String,
    #[prost(message, repeated, tag = "8")]
    parameters: Vec<ShapeProto>,
    #[prost(message, repeated, tag = "9")]
    results: Vec<ShapeProto>,
}

/// An executable in a file: what [`Compiled::save`] writes and [`Session::load`](crate::Session::load) loads.
///
/// A plugin checks little of the bytes that it is given, and executables of another build of it can crash the
/// process. The file says which plugin its executable is for, and which program's it is; it has a checksum, so that
/// damage is found. That is no protection against malice: an executable is machine code, and only files from a
/// place that is trusted should be loaded.
///
/// | bytes | what |
/// |---|---|
/// | 8 | `xlannexe` |
/// | 4 | the version of the format, 1; numbers are little-endian |
/// | 4 | the size of the header, at most 1 MiB |
/// | 8 | the size of the executable |
/// | | the header, a protocol buffer: 1 the platform's name, 2 its version, 3 and 4 the version of the PJRT C API, 5 the SHA-256 of the plugin's shared library, 6 that of the program, 7 its name, 8 its parameters' and 9 its results' shapes, as XLA's `ShapeProto` |
/// | | the executable, as the plugin serialized it |
/// | 32 | the SHA-256 of all before |
///
/// ```
/// use xlann::data::ExecutableFile;
/// use xlann::{Array, DType, Function, Session, Shape};
///
/// if let Ok(session) = Session::cpu() {
///     # let folder = tempfile::tempdir().unwrap();
///     let path = folder.path().join("double.exe");
///     let f = Function::trace("double", &[Shape::new(DType::F32, [2])], |x| &x[0] + &x[0])?;
///     session.compile(&f)?.compiled().save(&path)?;
///
///     let file = ExecutableFile::read(&path)?;
///     assert_eq!((file.signature().name.as_str(), file.platform_name()), ("double", "cpu"));
///     let double = session.client().load_file(&file)?;
///     assert_eq!(double.run_arrays(&[Array::new([2], &[1f32, 2.0])?])?, [Array::new([2], &[2f32, 4.0])?]);
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone)]
pub struct ExecutableFile {
    path: PathBuf,
    header: Header,
    signature: Signature,
    /// As the plugin serialized it.
    executable: Vec<u8>,
}

impl ExecutableFile {
    /// Reads a file whole, and checks it against its checksum.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read, [`Error::File`] where it is not a file of an executable, of another
    /// version of the format, cut short or damaged.
    ///
    /// ```
    /// use xlann::{Error, data::ExecutableFile};
    ///
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("notes.txt");
    /// # std::fs::write(&path, "Ten nearest neighbours, please.").unwrap();
    /// let refused = ExecutableFile::read(&path).err().unwrap();
    /// assert!(matches!(refused, Error::File { .. }), "{refused}");
    /// ```
    pub fn read(path: impl AsRef<Path>) -> Result<ExecutableFile> {
        let path = path.as_ref();
        let (file, size) = open_regular(path)?;
        let mut prefix = Vec::with_capacity(PREFIX);
        (&file).take(PREFIX as u64).read_to_end(&mut prefix).map_err(Error::io(path))?;
        let (header_size, payload_size) = check_prefix(path, &prefix, size)?;
        let rest = header_size + payload_size + CHECKSUM;
        let mut content = Vec::new();
        content
            .try_reserve_exact(rest)
            .map_err(|_| damaged(path, "a file that fits in memory", format!("{size} bytes")))?;
        file.take(rest as u64).read_to_end(&mut content).map_err(Error::io(path))?;
        if content.len() != rest {
            let got = format!("{}, which it had become while it was read", PREFIX + content.len());
            return Err(damaged(path, format!("{size} bytes"), got));
        }
        let checksum = content.split_off(rest - CHECKSUM);
        let found = sha256::of_parts(&[&prefix, &content]);
        if found != *checksum {
            let (expected, got) = (sha256::text(&checksum), sha256::text(&found));
            return Err(damaged(
                path,
                format!("content of SHA-256 {expected}"),
                format!("{got}: it is damaged"),
            ));
        }
        let header = Header::decode(&content[..header_size])
            .map_err(|problem| damaged(path, "the header of an executable", problem.to_string()))?;
        for (name, hash) in [("plugin's", &header.plugin), ("program's", &header.program)] {
            if hash.len() != CHECKSUM {
                let expected = format!("the {name} SHA-256, of {CHECKSUM} bytes");
                return Err(damaged(path, expected, format!("{} bytes", hash.len())));
            }
        }
        let shapes = |protos: &[ShapeProto]| -> Result<Vec<Shape>> {
            let unknown = || damaged(path, "shapes of arrays of this crate's dtypes", "another shape");
            protos.iter().map(|proto| proto.to_shape().ok_or_else(unknown)).collect()
        };
        content.drain(..header_size);
        let signature = Signature {
            name: header.name.clone(),
            parameters: shapes(&header.parameters)?,
            results: shapes(&header.results)?,
        };
        Ok(ExecutableFile { path: path.to_owned(), header, signature, executable: content })
    }

    /// What the executable takes and gives.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The name of the platform that it runs on, such as `cpu`, `cuda` or `tpu`.
    pub fn platform_name(&self) -> &str {
        &self.header.platform_name
    }

    /// What the plugin that it was compiled by said of the platform's version.
    pub fn platform_version(&self) -> &str {
        &self.header.platform_version
    }

    /// The major and minor version of the PJRT C API of the plugin that it was compiled by.
    pub fn api_version(&self) -> (i32, i32) {
        (self.header.api_major, self.header.api_minor)
    }

    /// Requires that the executable was compiled from this program.
    ///
    /// # Errors
    /// [`Error::File`] where it is another one's.
    ///
    /// ```
    /// use xlann::data::ExecutableFile;
    /// use xlann::pjrt::{Program, Signature};
    /// use xlann::{DType, Function, Session, Shape, lower};
    ///
    /// if let Ok(session) = Session::cpu() {
    ///     # let folder = tempfile::tempdir().unwrap();
    ///     let path = folder.path().join("double.exe");
    ///     let f = Function::trace("double", &[Shape::new(DType::F32, [2])], |x| &x[0] + &x[0])?;
    ///     let text = lower::stablehlo(&f, session.platform().capabilities)?;
    ///     let (program, options) = (Program::StableHlo(&text), session.compile_options());
    ///     session.client().compile(program, Signature::of(&f), &options)?.compiled().save(&path)?;
    ///
    ///     let file = ExecutableFile::read(&path)?;
    ///     file.check_program(program)?;
    ///     assert!(file.check_program(Program::StableHlo("module {}")).is_err());
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn check_program(&self, program: Program<'_>) -> Result<()> {
        let expected = program.sha256();
        if self.header.program == expected {
            return Ok(());
        }
        let expected = format!("the executable of a program of SHA-256 {}", sha256::text(&expected));
        let got = format!("that of one of SHA-256 {}", sha256::text(&self.header.program));
        Err(damaged(&self.path, expected, got))
    }

    /// Requires that the executable was compiled by this plugin.
    fn check_plugin(&self, plugin: Plugin, platform_name: &str) -> Result<()> {
        let refused = |expected: String, got: String| Err(damaged(&self.path, expected, got));
        if self.platform_name() != platform_name {
            let expected = format!("an executable for the platform {platform_name}");
            return refused(expected, format!("one for {}", self.platform_name()));
        }
        let version = |(major, minor): (i32, i32)| format!("version {major}.{minor} of the PJRT C API");
        if self.api_version() != plugin.api_version() {
            let expected = format!("an executable by a plugin of {}", version(plugin.api_version()));
            return refused(expected, format!("one by a plugin of {}", version(self.api_version())));
        }
        let hash = plugin.sha256()?;
        if self.header.plugin != hash {
            let expected = format!(
                "an executable by the plugin {}, of SHA-256 {}",
                plugin.path().display(),
                sha256::text(&hash)
            );
            return refused(
                expected,
                format!("one by a plugin of SHA-256 {}", sha256::text(&self.header.plugin)),
            );
        }
        Ok(())
    }
}

impl std::fmt::Debug for ExecutableFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecutableFile")
            .field("path", &self.path)
            .field("platform_name", &self.platform_name())
            .field("platform_version", &self.platform_version())
            .field("api_version", &self.api_version())
            .field("signature", &self.signature)
            .finish_non_exhaustive()
    }
}

/// The sizes of the header and of the executable, which the size of the file must be made up of.
fn check_prefix(path: &Path, prefix: &[u8], size: u64) -> Result<(usize, usize)> {
    let cut_short = || damaged(path, "the file of an executable", format!("{size} bytes: it is cut short"));
    let start = &prefix[..prefix.len().min(MAGIC.len())];
    if !MAGIC.starts_with(start) {
        let expected =
            format!("the file of an executable, which starts with {}", String::from_utf8_lossy(MAGIC));
        return Err(damaged(path, expected, format!("{:?}", String::from_utf8_lossy(start))));
    }
    let [_, _, version, header, low, high] = prefix
        .chunks_exact(4)
        .filter_map(|word| Some(u32::from_le_bytes(word.try_into().ok()?)))
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| cut_short())?;
    if version != VERSION {
        return Err(damaged(path, format!("version {VERSION} of the format"), format!("version {version}")));
    }
    if header as usize > MAX_HEADER {
        return Err(damaged(path, format!("a header of at most {MAX_HEADER} bytes"), format!("{header}")));
    }
    let payload = u64::from(low) | u64::from(high) << 32;
    let expected = payload.checked_add((PREFIX + CHECKSUM) as u64 + u64::from(header));
    if expected != Some(size) {
        let expected =
            expected.map_or("a size below 2^64".to_owned(), |expected| format!("{expected} bytes"));
        return Err(damaged(path, expected, format!("{size} bytes")));
    }
    // No larger than the file, which fits.
    let payload = usize::try_from(payload).map_err(|_| cut_short())?;
    Ok((header as usize, payload))
}

impl Compiled {
    /// Writes the executable to a file, which takes the place of one that is there when all is written. What is in
    /// it is told at [`ExecutableFile`].
    ///
    /// Of an executable that was compiled ahead of time, too: it can be loaded where its devices are. The first time
    /// that a plugin's executable is saved or loaded, its shared library is read for its SHA-256.
    ///
    /// # Errors
    /// Where the plugin cannot serialize it, it was [loaded](Client::load) itself, the file cannot be written, or
    /// the function has so many parameters and results, or so long a name, that they take more than 1 MiB.
    ///
    /// ```
    /// use xlann::target::Target;
    /// use xlann::{DType, Error, Function, Shape, data::ExecutableFile, lower, target};
    ///
    /// # let folder = tempfile::tempdir().unwrap();
    /// let path = folder.path().join("double.tpu");
    /// let f = Function::trace("double", &[Shape::new(DType::F32, [2])], |x| &x[0] + &x[0])?;
    /// match target::compile_for(&f, &Target::parse("tpu:v5e:2x2")?, &lower::Options::default()) {
    ///     Ok((compiled, _)) => {
    ///         compiled.save(&path)?;
    ///         assert_eq!(ExecutableFile::read(&path)?.platform_name(), "tpu");
    ///     }
    ///     Err(Error::PluginNotFound { advice, .. }) => println!("{advice}"),
    ///     Err(other) => return Err(other),
    /// }
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let origin = self.origin();
        let (api_major, api_minor) = origin.plugin.api_version();
        let shapes = |shapes: &[Shape]| shapes.iter().map(ShapeProto::from).collect();
        let header = Header {
            platform_name: origin.platform_name.clone(),
            platform_version: origin.platform_version.clone(),
            api_major,
            api_minor,
            plugin: origin.plugin.sha256()?.to_vec(),
            program: self.program()?.to_vec(),
            name: origin.signature.name.clone(),
            parameters: shapes(&origin.signature.parameters),
            results: shapes(&origin.signature.results),
        };
        let header = header.encode_to_vec();
        if header.len() > MAX_HEADER {
            let expected = format!("one that takes at most {MAX_HEADER} bytes");
            return Err(Error::argument("save", "signature", expected, format!("{} bytes", header.len())));
        }
        let payload = self.serialize()?;
        let mut start = MAGIC.to_vec();
        start.extend(VERSION.to_le_bytes());
        start.extend((header.len() as u32).to_le_bytes());
        start.extend((payload.len() as u64).to_le_bytes());
        start.extend(header);
        let checksum = sha256::of_parts(&[&start, &payload]);
        atomic::write(path, |file| {
            for part in [&start, &payload, &checksum[..]] {
                file.write_all(part).map_err(Error::io(path))?;
            }
            Ok(())
        })
    }
}

impl Client {
    /// Loads the executable of a file. [`Session::load`](crate::Session::load) does it in one step.
    ///
    /// # Errors
    /// [`Error::File`] where the executable is for another platform or by another build of a plugin than this
    /// client's, or the plugin refuses it.
    pub fn load_file(&self, file: &ExecutableFile) -> Result<Executable> {
        file.check_plugin(self.plugin(), self.platform_name())?;
        self.load(&file.executable, file.signature.clone()).map_err(|problem| {
            damaged(&file.path, "an executable that the plugin loads", problem.to_string())
        })
    }
}
