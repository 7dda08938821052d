//! The one error type of the crate.

use std::path::PathBuf;

use crate::Shape;

/// A result whose error is [`Error`].
///
/// ```
/// use xlann::Tensor;
///
/// fn double(x: &Tensor) -> xlann::Result<Tensor> {
///     x * 2
/// }
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong; each variant says what was expected and what came.
///
/// ```
/// use xlann::{Array, Error, Session};
///
/// // The text is for people,
/// let error = Array::new([2, 2], &[1f32; 3]).unwrap_err();
/// assert_eq!(error.to_string(), "array: elements must be 4 elements (16 bytes) for f32[2,2], got 12 bytes");
/// // the fields are for programs.
/// match &error {
///     Error::Argument { operator, argument, .. } => {
///         assert_eq!((*operator, argument.as_str()), ("array", "elements"));
///     }
///     other => panic!("{other}"),
/// }
///
/// // Without a plugin, a program can go on with the interpreter.
/// match Session::cpu() {
///     Ok(session) => println!("runs on {:?}", session.client().devices()),
///     Err(Error::PluginNotFound { advice, .. }) => println!("no plugin: {advice}"),
///     Err(other) => return Err(other),
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument of an operator, or of a function of this crate, is not of the kind that it takes.
    #[error("{operator}: {argument} must be {expected}, got {got}")]
    Argument {
        /// The operator or function that refused the argument.
        operator: &'static str,
        /// The argument, by the name it has in the operator's signature.
        argument: String,
        /// What would have been accepted.
        expected: String,
        /// What came.
        got: String,
    },
    /// A [`Function`](crate::Function) does not hold together: an equation reads a variable that is not yet
    /// defined, or its output is not what the operator's shape rule gives.
    #[error("function {function}: {problem}")]
    InvalidFunction {
        /// The name of the function.
        function: String,
        /// What is wrong, and where.
        problem: String,
    },
    /// A function, or an executable made from it, was called with other arguments than it has parameters.
    #[error("{function}: argument {index} must be {expected}, got {got}")]
    Call {
        /// The name of the function.
        function: String,
        /// The position of the argument.
        index: usize,
        /// The parameter's shape.
        expected: Shape,
        /// The argument's shape.
        got: Shape,
    },
    /// A function, or an executable made from it, was called with too many or too few arguments.
    #[error("{function}: takes {expected} arguments, got {got}")]
    ArgumentCount {
        /// The name of the function.
        function: String,
        /// How many parameters it has.
        expected: usize,
        /// How many arguments came.
        got: usize,
    },
    /// The target cannot run an operator, or not in the form that was asked for.
    #[error("{operator}: not available on target {target}: {reason}")]
    Unsupported {
        /// The operator.
        operator: &'static str,
        /// The target's name.
        target: String,
        /// Why.
        reason: String,
    },
    /// A transform cannot go through an operator.
    #[error("{operator}: {transform} cannot go through it: {reason}")]
    NoRule {
        /// The operator.
        operator: &'static str,
        /// The transform.
        transform: &'static str,
        /// Why.
        reason: String,
    },
    /// A call into a PJRT plugin failed.
    #[error("{call}: {message} ({code})")]
    Pjrt {
        /// The function of the PJRT C API.
        call: &'static str,
        /// The status code.
        code: PjrtCode,
        /// The plugin's own message.
        message: String,
    },
    /// A file that was loaded as a PJRT plugin is not one, or not one that this crate can use.
    #[error("plugin {path}: {problem}")]
    Plugin {
        /// The shared library.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No plugin of that name was found.
    #[error("no {name} plugin found; looked at {}; {advice}", places(looked_at))]
    PluginNotFound {
        /// The target's name, such as `cpu`.
        name: String,
        /// The places that were looked at, in order.
        looked_at: Vec<String>,
        /// How to get one.
        advice: String,
    },
    /// A file is damaged, cut short, or of another format than expected.
    #[error("{path}: expected {expected}, got {got}")]
    File {
        /// The file.
        path: PathBuf,
        /// What its content should have been.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// Fetching a package failed.
    #[error("fetching {package}: {problem}")]
    Fetch {
        /// The package, as `name==version`.
        package: String,
        /// What went wrong.
        problem: String,
    },
}

/// The places that were looked at.
fn places(looked_at: &[String]) -> String {
    match looked_at {
        [] => "nothing, as none of XLANN_CACHE, XDG_CACHE_HOME and HOME is set".to_owned(),
        _ => looked_at.join(", "),
    }
}

impl Error {
    /// An [`Error::Argument`].
    pub(crate) fn argument(
        operator: &'static str,
        argument: impl Into<String>,
        expected: impl Into<String>,
        got: impl std::fmt::Display,
    ) -> Error {
        Error::Argument {
            operator,
            argument: argument.into(),
            expected: expected.into(),
            got: got.to_string(),
        }
    }

    /// An [`Error::Io`] at `path`; for `map_err`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { path, source }
    }
}

/// The status codes of PJRT, which are those of absl.
///
/// ```
/// use xlann::{Error, PjrtCode};
///
/// /// Whether the same call may succeed later or with less.
/// fn is_temporary(error: &Error) -> bool {
///     use PjrtCode::{Aborted, ResourceExhausted, Unavailable};
///     matches!(error, Error::Pjrt { code: Aborted | ResourceExhausted | Unavailable, .. })
/// }
/// assert_eq!(PjrtCode::from(8), PjrtCode::ResourceExhausted);
/// assert_eq!(PjrtCode::from(99).to_string(), "code 99");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are absl's and say all there is")]
pub enum PjrtCode {
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
    /// A code that this crate does not know.
    Other(i32),
}

impl From<i32> for PjrtCode {
    fn from(code: i32) -> Self {
        match code {
            1 => Self::Cancelled,
            2 => Self::Unknown,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            10 => Self::Aborted,
            11 => Self::OutOfRange,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            15 => Self::DataLoss,
            16 => Self::Unauthenticated,
            other => Self::Other(other),
        }
    }
}

impl std::fmt::Display for PjrtCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Other(code) => write!(f, "code {code}"),
            known => write!(f, "{known:?}"),
        }
    }
}
