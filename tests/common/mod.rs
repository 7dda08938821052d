//! What the tests share: the plugin that they run on.
//!
//! Tests of what functions compute run on the platform that the environment variable `XLANN_TEST_PLATFORM` names, one of
//! `cpu`, `gpu` and `tpu`, by default the CPU. What is about the CPU, or about one plugin, runs on that.
#![allow(dead_code, reason = "no test uses all of it")]

use std::ffi::{OsStr, OsString};
use std::process::Command;
use std::sync::LazyLock;

use xlann::pjrt::{Buffer, Client, CompileOptions, Device, Executable, Program, Signature};
use xlann::target::{Compiler, Platform, Target};
use xlann::{Array, Error, Function, Result, Session, Shape, lower};

/// What needs a plugin, such as a session.
///
/// Where none is found it prints that the test is skipped and gives `None`; where the environment variable
/// `XLANN_REQUIRE` lists the platform (`cpu,tpu,gpu`) it panics instead. A plugin that is found and does not work
/// is a failure.
pub fn found<T>(platform: &str, result: Result<T>) -> Option<T> {
    match result {
        Ok(found) => Some(found),
        Err(problem @ Error::PluginNotFound { .. }) => {
            skip(platform, &problem);
            None
        }
        Err(problem) => panic!("{problem}"),
    }
}

/// Prints that a test is skipped without a platform, and panics where `XLANN_REQUIRE` lists that.
pub fn skip(platform: &str, problem: &dyn std::fmt::Display) {
    let required = std::env::var("XLANN_REQUIRE").unwrap_or_default();
    let required = required.split(',').any(|required| required.trim() == platform);
    assert!(!required, "XLANN_REQUIRE asks for {platform}: {problem}");
    println!("skipped without {platform}: {problem}");
}

/// The environment that this process was started with. The plugin for TPUs changes it as it is loaded, and a process
/// that another thread starts meanwhile would fail.
static ENVIRONMENT: LazyLock<Vec<(OsString, OsString)>> = LazyLock::new(|| std::env::vars_os().collect());

/// A command to run, in the environment that this process was started with.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(ENVIRONMENT.iter().map(|(name, value)| (name, value)));
    command
}

/// A described target, unless its plugin is missing; see [`found`].
pub fn compiler(target: &Target) -> Option<Compiler> {
    LazyLock::force(&ENVIRONMENT);
    found(target.platform().name(), target.describe())
}

/// The platform that is tested.
pub fn platform() -> &'static Platform {
    let name = std::env::var("XLANN_TEST_PLATFORM").unwrap_or("cpu".into());
    Platform::named(&name).unwrap_or_else(|problem| panic!("XLANN_TEST_PLATFORM: {problem}"))
}

/// A session on the platform that is tested, one for all tests of a file; see [`found`].
pub fn session() -> Option<&'static Session> {
    static SESSION: LazyLock<Option<Session>> =
        LazyLock::new(|| found(platform().name(), platform().session()));
    SESSION.as_ref()
}

/// A session with 4 devices on the platform that is tested, one for all tests of a file. Where it has fewer, it prints
/// that the test is skipped.
pub fn devices() -> Option<&'static Session> {
    static SESSION: LazyLock<Option<Session>> = LazyLock::new(|| match platform().session_with_devices(4) {
        Err(problem @ Error::Argument { .. }) => {
            println!("skipped on the {}: {problem}", platform().name());
            None
        }
        session => found(platform().name(), session),
    });
    SESSION.as_ref()
}

/// A session on the CPU, one for all tests of a file, for what is about the CPU; see [`found`].
pub fn cpu() -> Option<&'static Session> {
    static SESSION: LazyLock<Option<Session>> = LazyLock::new(|| found("cpu", Session::cpu()));
    SESSION.as_ref()
}

/// Runs a function on as many devices as there are lists of arguments, and gives what each has for results.
pub fn run_replicas(
    session: &Session,
    function: &Function,
    arguments: &[Vec<Array>],
) -> Result<Vec<Vec<Array>>> {
    let options = lower::Options::default();
    let (executable, _) = session.compile_replicas(function, &options, arguments.len())?;
    let upload = |(arguments, device): (&Vec<Array>, &Device)| {
        let upload = |array| session.client().buffer_from_array(array, device);
        arguments.iter().map(upload).collect::<Result<Vec<_>>>()
    };
    let buffers = arguments.iter().zip(executable.devices()).map(upload).collect::<Result<Vec<_>>>()?;
    let arguments: Vec<Vec<&Buffer>> = buffers.iter().map(|buffers| buffers.iter().collect()).collect();
    let results = executable.run_replicas(&arguments)?;
    results.iter().map(|results| results.iter().map(Buffer::to_array).collect()).collect()
}

/// The client of a session on the CPU.
pub fn cpu_client() -> Option<Client> {
    cpu().map(|session| session.client().clone())
}

/// MLIR's spelling of a shape, such as `tensor<2x3xf32>`.
pub fn tensor(shape: &Shape) -> String {
    let dims: String = shape.dims().iter().map(|dim| format!("{dim}x")).collect();
    let dtype = match shape.dtype().name() {
        "pred" => "i1".into(),
        name if shape.dtype().is_signed_integer() => name.replace('s', "i"),
        name if shape.dtype().is_unsigned_integer() => name.replace('u', "ui"),
        name => name.to_string(),
    };
    format!("tensor<{dims}{dtype}>")
}

/// Compiles a function of parameters `%arg0`, `%arg1`, ... whose body sets and returns `%r`.
pub fn compile(client: &Client, parameters: &[Shape], result: &Shape, body: &str) -> Result<Executable> {
    let arguments: Vec<_> = parameters
        .iter()
        .enumerate()
        .map(|(index, shape)| format!("%arg{index}: {}", tensor(shape)))
        .collect();
    let result_type = tensor(result);
    let text = format!(
        "func.func @main({}) -> {result_type} {{\n{body}\nreturn %r : {result_type}\n}}",
        arguments.join(", ")
    );
    let signature =
        Signature { name: "test".into(), parameters: parameters.to_vec(), results: vec![result.clone()] };
    client.compile(Program::StableHlo(&text), signature, &CompileOptions::default())
}

/// Compiles `%arg0 + %arg1` for operands of one shape.
pub fn compile_add(client: &Client, shape: &Shape) -> Executable {
    let body = format!("%r = stablehlo.add %arg0, %arg1 : {}", tensor(shape));
    compile(client, &[shape.clone(), shape.clone()], shape, &body).unwrap()
}

/// The resident memory of this process in bytes.
pub fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
