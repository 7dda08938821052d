//! What the tests share: the plugin that they run on.
#![allow(dead_code, reason = "no test uses all of it")]

use std::sync::LazyLock;

use xlann::pjrt::{Client, CompileOptions, Executable, Plugin, PluginSpec, Program, Signature};
use xlann::{Error, Result, Shape};

/// The CPU plugins that package registries serve.
const CPU: PluginSpec = PluginSpec {
    name: "cpu",
    members: &["lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so", "fastatomstruct_xla_cpu/libpjrt_cpu.so"],
};

/// A client of the CPU plugin, one for all tests of a file.
///
/// Where no plugin is found it prints that the test is skipped and gives `None`; where the environment variable
/// `XLANN_REQUIRE` contains `cpu` it panics instead. A plugin that is found and does not work is a failure.
pub fn cpu_client() -> Option<Client> {
    static CLIENT: LazyLock<Option<Client>> = LazyLock::new(|| {
        let plugin = match Plugin::find(&CPU) {
            Ok(plugin) => plugin,
            Err(problem @ Error::PluginNotFound { .. }) => {
                let required = std::env::var("XLANN_REQUIRE").unwrap_or_default();
                assert!(!required.contains("cpu"), "XLANN_REQUIRE asks for cpu: {problem}");
                return None;
            }
            Err(problem) => panic!("{problem}"),
        };
        Some(Client::new(plugin, &[]).unwrap())
    });
    if CLIENT.is_none() {
        println!("skipped: no cpu plugin found; set XLANN_CPU_PLUGIN to the path of one");
    }
    CLIENT.clone()
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
