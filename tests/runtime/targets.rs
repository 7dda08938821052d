//! Targets: their names, and compiling ahead of time for described ones.

use crate::common;
use xlann::data::Libraries;
use xlann::pjrt::{CompileOptions, PluginSpec, Program, Signature, Value};
use xlann::target::{Platform, Target, compile_for, cpu, gpu};
use xlann::{ApproxTopKOptions, DType, Error, Function, Shape, lower};

fn refusal(text: &str) -> String {
    Target::parse(text).unwrap_err().to_string()
}

#[test]
fn what_is_no_target_is_refused() {
    assert!(refusal("abacus").contains("one of cpu, gpu, tpu"), "{}", refusal("abacus"));
    assert!(refusal("cpu:2x2").contains("compiles only for what is attached"), "{}", refusal("cpu:2x2"));
    assert!(refusal("tpu:").contains("topology"), "{}", refusal("tpu:"));
    assert!(refusal("gpu:h1000").contains("h100, h200, a100"), "{}", refusal("gpu:h1000"));
    assert!(refusal("gpu:.").contains('.'), "{}", refusal("gpu:."));
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mine.txt");
    std::fs::write(&config, "gpu_device_info { core_count: 1 }").unwrap();
    let problem = refusal(&format!("gpu:{}", config.display()));
    assert!(problem.contains("threads_per_warp") && problem.contains("mine.txt"), "{problem}");
}

#[test]
fn nothing_is_compiled_ahead_for_an_attached_target() {
    let f = double();
    let error = compile_for(&f, &Target::parse("tpu").unwrap(), &lower::Options::default()).unwrap_err();
    assert!(error.to_string().contains("tpu:v5e:2x2"), "{error}");
}

fn double() -> Function {
    Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0]).unwrap()
}

/// A described target, unless its plugin is missing: then the test is over.
fn compiler(text: &str) -> Option<xlann::target::Compiler> {
    common::compiler(&Target::parse(text).unwrap())
}

#[test]
fn functions_compile_for_tpus() {
    for (topology, devices) in
        [("v4:2x2x1", 8), ("v5e:2x2", 4), ("v5p:2x2x1", 4), ("v6e:2x2", 4), ("v5e:16x16", 256)]
    {
        let Some(compiler) = compiler(&format!("tpu:{topology}")) else { return };
        assert_eq!(compiler.topology().device_count(), devices, "{topology}");
        let (compiled, _) = compiler.compile(&double(), &lower::Options::default(), devices).unwrap();
        assert_eq!(compiled.result_shapes().unwrap(), double().result_shapes());
        let costs = compiled.cost_analysis().unwrap();
        assert!(costs.iter().any(|(name, _)| name == "optimal_seconds"), "{costs:?}");
        assert!(compiled.memory().unwrap().arguments >= 12);
        assert!(!compiled.optimized_program().unwrap().bytes.is_empty());
        assert!(!compiled.serialize().unwrap().is_empty());
    }
}

#[test]
fn functions_compile_for_gpus() {
    for gpu in ["h100", "h200", "a100"] {
        let Some(compiler) = compiler(&format!("gpu:{gpu}")) else { return };
        let f = Function::trace("best", &[Shape::new(DType::F32, [8, 1000])], |x| {
            x[0].exp()?.approx_max_k(3, &ApproxTopKOptions::default())
        })
        .unwrap();
        let (compiled, choices) = compiler.compile(&f, &lower::Options::default(), 1).unwrap();
        assert_eq!(choices.len(), 1);
        assert!(!compiled.optimized_program().unwrap().bytes.is_empty());
    }
}

#[test]
fn libraries_that_programs_need_are_missed_only_where_there_is_a_device() {
    const NONE: &[Libraries] = &[Libraries {
        folder: "no/such/lib",
        files: &["libnone.so.1", "libnil.so"],
        ..gpu::PLATFORM.plugin.libraries[0]
    }];
    const OPTIONAL: &[Libraries] = &[Libraries { required: false, ..NONE[0] }];
    if common::cpu().is_none() {
        return;
    }
    let with = |device_files, libraries| {
        let plugin = PluginSpec { device_files, libraries, ..cpu::PLATFORM.plugin };
        Platform { plugin, ..cpu::PLATFORM }.session().map(drop)
    };
    with(&["/no/such/device"], NONE).unwrap();
    with(&["/dev/null"], OPTIONAL).unwrap();
    let error = with(&["/no/such/device", "/dev/null"], NONE).unwrap_err();
    assert!(matches!(error, Error::Plugin { .. }));
    let error = error.to_string();
    assert!(error.contains("it needs libnone.so.1, libnil.so,"), "{error}");
    assert!(error.ends_with("run xlann plugin install cpu --libraries"), "{error}");
}

#[test]
fn the_gpus_plugin_is_given_its_libraries_or_they_are_asked_for() {
    let plugin = PluginSpec { device_files: &["/dev/null"], ..gpu::PLATFORM.plugin };
    match (Platform { plugin, ..gpu::PLATFORM }).session() {
        Err(Error::Plugin { problem, .. }) => {
            assert!(problem.ends_with("run xlann plugin install cuda13 --libraries"), "{problem}");
        }
        // Where they are, there is no GPU all the same, or one.
        Err(Error::Pjrt { .. }) => (),
        other => drop(common::found("gpu", other)),
    }
}

#[test]
fn unknown_topologies_are_refused() {
    if compiler("tpu:v5e:2x2").is_none() {
        return;
    }
    for text in ["tpu:nonsense", "tpu:v5e:", "tpu:v5e:32x32", "tpu:v5e:0x0"] {
        assert!(refusal(text).contains("such as v5e:2x2"), "{text}: {}", refusal(text));
    }
    for text in ["tpu:v99:2x2", "tpu:v5e:3x7"] {
        let error = Target::parse(text).unwrap().describe().unwrap_err();
        assert!(matches!(error, Error::Pjrt { .. }), "{text}: {error}");
    }
}

#[test]
fn more_replicas_than_devices_are_refused() {
    let Some(compiler) = compiler("tpu:v5e:2x2") else { return };
    let error = compiler.compile(&double(), &lower::Options::default(), 5).unwrap_err().to_string();
    assert!(error.contains("num_replicas") && error.contains("at most 4") && error.contains('5'), "{error}");
}

#[test]
fn programs_that_are_none_are_refused() {
    let Some(compiler) = compiler("tpu:v5e:2x2") else { return };
    let shape = Shape::new(DType::F32, [3]);
    let signature =
        || Signature { name: "f".into(), parameters: vec![shape.clone()], results: vec![shape.clone()] };
    let topology = compiler.topology();
    let options = CompileOptions::default();
    assert!(topology.compile(Program::Hlo(b"garbage"), signature(), &options).is_err());
    assert!(topology.compile(Program::StableHlo("garbage"), signature(), &options).is_err());
    let mut options = CompileOptions::default();
    options.overrides.push(("xla_no_such_option".into(), Value::Bool(true)));
    let program = "func.func @main(%x: tensor<3xf32>) -> tensor<3xf32> { return %x : tensor<3xf32> }";
    let error = topology.compile(Program::StableHlo(program), signature(), &options).unwrap_err().to_string();
    assert!(error.contains("xla_no_such_option"), "{error}");
}
