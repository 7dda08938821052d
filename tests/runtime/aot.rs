//! The lowerings of approximate top-k, compiled ahead of time for TPUs and a GPU that are described: what their compilers
//! make of them.

use std::collections::HashMap;

use crate::common;
use xlann::ann::{Metric, SearchOptions, max_inner_product, search_function, search_function_for};
use xlann::hlo::HloModuleProto;
use xlann::hlo::proto::{HloComputationProto, HloInstructionProto};
use xlann::lower::{Choice, Form, Options, lower};
use xlann::pjrt::Compiled;
use xlann::target::{Compiler, Target, gpu, tpu};
use xlann::{ApproxTopKOptions, DType, Function, Shape};

const TPUS: [&str; 4] = ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"];

/// A described target, unless its plugin is missing: then the test is over.
fn compiler(text: &str) -> Option<Compiler> {
    common::compiler(&Target::parse(text).unwrap())
}

fn asked(form: Form) -> Options {
    Options { approx_top_k: Some(form), ..Default::default() }
}

fn aim(recall_target: f32) -> ApproxTopKOptions {
    ApproxTopKOptions { recall_target, ..ApproxTopKOptions::default() }
}

fn top_k(dtype: DType, dims: &[usize], k: usize, min: bool, options: &ApproxTopKOptions) -> Function {
    Function::trace("top_k", &[Shape::new(dtype, dims)], |x| match min {
        false => x[0].approx_max_k(k, options),
        true => x[0].approx_min_k(k, options),
    })
    .unwrap()
}

/// The search for the 10 best inner products.
fn mips(dtype: DType, queries: usize, rows: usize) -> Function {
    let shapes = [Shape::new(dtype, [queries, 128]), Shape::new(dtype, [rows, 128])];
    Function::trace("mips", &shapes, |x| max_inner_product(&x[0], &x[1], 10, &aim(0.95))).unwrap()
}

/// The module that the compiler's passes leave, with what was chosen.
fn optimized(compiler: &Compiler, function: &Function, options: &Options) -> (HloModuleProto, Choice) {
    let (compiled, mut choices) = compiler
        .compile(function, options, 1)
        .unwrap_or_else(|problem| panic!("{problem}\n{options:?} of {function}"));
    (compiled.optimized_program().unwrap().module().unwrap(), choices.remove(0))
}

fn optimal_seconds(compiler: &Compiler, function: &Function, options: &Options) -> f64 {
    estimate(&compiler.compile(function, options, 1).unwrap().0)
}

fn estimate(compiled: &Compiled) -> f64 {
    let costs = compiled.cost_analysis().unwrap();
    let (_, seconds) = costs.iter().find(|(name, _)| name == "optimal_seconds").unwrap();
    seconds.to_string().parse().unwrap()
}

/// The opcodes in a computation and in those that it calls.
fn opcodes(computations: &HashMap<i64, &HloComputationProto>, id: i64) -> Vec<String> {
    let instructions = &computations[&id].instructions;
    let called = instructions.iter().flat_map(|instruction| &instruction.called_computation_ids);
    let inner = called.flat_map(|&id| opcodes(computations, id));
    inner.chain(instructions.iter().map(|instruction| instruction.opcode.clone())).collect()
}

/// The computation with a partial reduction, if there is one.
fn partial_reduction(module: &HloModuleProto) -> Option<&HloComputationProto> {
    let reduces = |i: &HloInstructionProto| i.custom_call_target == "PartialReduce";
    let mut found = module.computations.iter().filter(|c| c.instructions.iter().any(reduces));
    let computation = found.next()?;
    assert!(found.next().is_none(), "{module}");
    Some(computation)
}

/// Whether the partial reduction is in one fusion with the matrix product.
fn is_fused(module: &HloModuleProto) -> bool {
    let computations: HashMap<i64, _> = module.computations.iter().map(|c| (c.id, c)).collect();
    let Some(reduction) = partial_reduction(module) else { panic!("{module}") };
    let product = |opcode: &String| opcode == "convolution" || opcode == "dot";
    // The entry calls all there is.
    reduction.id != module.entry_computation_id && opcodes(&computations, reduction.id).iter().any(product)
}

/// How many elements each sort of a module sorts at a time, and each custom call that sorts.
fn sorts(module: &HloModuleProto) -> Vec<i64> {
    let instructions = module.computations.iter().flat_map(|computation| &computation.instructions);
    let sorts = instructions.filter(|instruction| {
        instruction.opcode == "sort" || instruction.custom_call_target.to_lowercase().contains("sort")
    });
    let mut sizes: Vec<i64> = sorts
        .map(|sort| {
            let shape = sort.shape.as_ref().unwrap();
            let first = shape.tuple_shapes.first().unwrap_or(shape);
            first.dimensions
                [*sort.dimensions.first().unwrap_or(&(first.dimensions.len() as i64 - 1)) as usize]
        })
        .collect();
    sizes.sort_unstable();
    sizes
}

#[test]
fn partial_reductions_are_fused_with_the_matrix_product_on_every_tpu() {
    for tpu in TPUS {
        let Some(compiler) = compiler(&format!("tpu:{tpu}")) else { return };
        for dtype in [DType::F32, DType::BF16] {
            let inner_products = mips(dtype, 64, 100_000);
            let options = SearchOptions { squared_distances: false, ..SearchOptions::new(10) };
            let database = Shape::new(dtype, [100_000, 128]);
            let distances = search_function(Metric::L2, &database, 64, &options).unwrap();
            for function in [&inner_products, &distances] {
                let (module, choice) = optimized(&compiler, function, &Options::default());
                assert_eq!(choice.form, Form::NativeTight);
                assert!(is_fused(&module), "{dtype} for {tpu}: {module}");
                assert_eq!(sorts(&module), [128], "{dtype} for {tpu}");
            }
        }
    }
}

#[test]
fn partial_reductions_beside_a_matrix_product_are_told_from_fused_ones() {
    let before = lower(&mips(DType::F32, 64, 100_000), &tpu::CAPABILITIES, &Options::default()).unwrap();
    assert!(!is_fused(&before.module));
    let shapes = [[64, 100_000], [64, 128], [128, 256]].map(|dims| Shape::new(DType::F32, dims));
    let beside = Function::trace("beside", &shapes, |x| {
        let (values, indices) = x[0].approx_max_k(10, &aim(0.95))?;
        Ok((values, indices, x[1].dot(&x[2])?))
    });
    let Some(compiler) = compiler("tpu:v5e:2x2") else { return };
    let (module, choice) = optimized(&compiler, &beside.unwrap(), &Options::default());
    assert_eq!(choice.form, Form::NativeTight);
    assert!(!is_fused(&module), "{module}");
}

#[test]
fn no_search_copies_the_database() {
    println!("TPU metric dtype width: estimate in seconds, temporaries and arguments in MiB");
    for tpu in TPUS {
        let Some(compiler) = compiler(&format!("tpu:{tpu}")) else { return };
        for (dtype, width) in [
            (DType::F32, 96),
            (DType::F32, 128),
            (DType::F32, 200),
            (DType::BF16, 64),
            (DType::BF16, 100),
            (DType::BF16, 768),
        ] {
            for metric in [Metric::InnerProduct, Metric::L2] {
                let database = Shape::new(dtype, [1_000_000, width]);
                let options = SearchOptions::new(10);
                let search =
                    search_function_for(&tpu::CAPABILITIES, metric, &database, 128, 1, &options).unwrap();
                let (compiled, _) = compiler.compile(&search, &Options::default(), 1).unwrap();
                let memory = compiled.memory().unwrap();
                let mib = [memory.temporaries, memory.arguments].map(|bytes| bytes as f64 / (1 << 20) as f64);
                let seconds = estimate(&compiled);
                println!("{tpu} {metric} {dtype} {width}: {seconds:.6e} {mib:.1?}");
                assert!(memory.temporaries < database.byte_count() as i64 / 20, "{memory:?} of {search}");
            }
        }
    }
    // The memory tells.
    let Some(compiler) = compiler("tpu:v6e:2x2") else { return };
    let database = Shape::new(DType::F32, [1_000_000, 96]);
    let search = search_function(Metric::L2, &database, 128, &SearchOptions::new(10)).unwrap();
    let (compiled, _) = compiler.compile(&search, &Options::default(), 1).unwrap();
    assert!(compiled.memory().unwrap().temporaries > database.byte_count() as i64);
}

#[test]
fn every_lowering_compiles_for_every_tpu() {
    for tpu in TPUS {
        let Some(compiler) = compiler(&format!("tpu:{tpu}")) else { return };
        let function = mips(DType::BF16, 16, 20_000);
        for &form in tpu::CAPABILITIES.forms {
            let (module, choice) = optimized(&compiler, &function, &asked(form));
            assert_eq!(choice.form, form);
            let native = matches!(form, Form::Native | Form::NativeTight);
            assert_eq!(partial_reduction(&module).is_some(), native, "{form} for {tpu}: {module}");
            assert!(sorts(&module).iter().all(|&size| size < 10_000), "{form} for {tpu}: {module}");
        }
    }
}

#[test]
fn native_forms_compile_for_any_shape_direction_and_dimension() {
    let Some(compiler) = compiler("tpu:v5e:2x2") else { return };
    let along = |dimension, aggregate_to_topk| ApproxTopKOptions {
        reduction_dimension: dimension,
        aggregate_to_topk,
        ..aim(0.95)
    };
    for (dims, k, options) in [
        (vec![100_003], 10, along(0, true)),
        (vec![100_000], 10, along(0, false)),
        (vec![100_000], 1, along(0, true)),
        (vec![20_000, 7], 10, along(0, true)),
        (vec![3, 20_000, 5], 10, along(1, true)),
        (vec![3, 20_000, 5], 1, along(1, true)),
        (vec![2, 3, 4, 5000], 10, along(-1, false)),
        (vec![1, 1_000_001], 100, along(-1, true)),
        // XLA's formula reduces nothing here, the exact one does.
        (vec![2, 16_384], 500, along(-1, true)),
        (
            vec![8, 100_000],
            10,
            ApproxTopKOptions { reduction_input_size_override: Some(100_000_000), ..aim(0.95) },
        ),
    ] {
        for (min, dtype) in [(false, DType::F32), (true, DType::BF16), (true, DType::F16)] {
            let function = top_k(dtype, &dims, k, min, &options);
            for form in [Form::Native, Form::NativeTight] {
                let (compiled, choices) = compiler.compile(&function, &asked(form), 1).unwrap();
                assert_eq!(compiled.result_shapes().unwrap(), function.result_shapes(), "{}", choices[0]);
            }
        }
    }
}

#[test]
fn the_tighter_reduction_pays_by_the_estimates() {
    println!("TPU function: XLA's size, the tighter one");
    let search = |dtype, queries, rows, k, target| {
        let shapes = [Shape::new(dtype, [queries, 128]), Shape::new(dtype, [rows, 128])];
        Function::trace("mips", &shapes, |x| max_inner_product(&x[0], &x[1], k, &aim(target))).unwrap()
    };
    let functions = [
        search(DType::F32, 128, 1_000_000, 10, 0.95),
        search(DType::BF16, 1024, 1_000_000, 10, 0.95),
        search(DType::F32, 16, 1_000_000, 10, 0.95),
        search(DType::BF16, 128, 1_000_000, 100, 0.95),
        search(DType::BF16, 128, 1_000_000, 300, 0.95),
        search(DType::F32, 64, 1_000_000, 1000, 0.9),
        search(DType::F32, 128, 100_000, 10, 0.95),
        search(DType::BF16, 32, 10_000_000, 10, 0.95),
        top_k(DType::F32, &[128, 100_000], 100, true, &aim(0.95)),
        // Of a vector, each chunk has 1024 elements.
        top_k(DType::F32, &[1_000_000], 100, false, &aim(0.95)),
        top_k(DType::BF16, &[10_000_000], 200, true, &aim(0.95)),
    ];
    for tpu in TPUS {
        let Some(compiler) = compiler(&format!("tpu:{tpu}")) else { return };
        for function in &functions {
            let [xla, tight] = [Form::Native, Form::NativeTight]
                .map(|form| optimal_seconds(&compiler, function, &asked(form)));
            let choice = lower(function, &tpu::CAPABILITIES, &Options::default()).unwrap().choices.remove(0);
            println!("{tpu} {choice}: {xla:.6e} {tight:.6e} {:.1} %", (1.0 - tight / xla) * 100.0);
            assert_eq!(choice.form, Form::NativeTight, "{choice}");
            assert!(tight > 0.0 && tight < xla, "{tight} and {xla} on {tpu}: {choice}");
        }
    }
}

#[test]
fn estimates_are_no_more_than_jaxs() {
    let fixture = include_str!("../fixtures/jax_estimates.csv");
    let libtpu = fixture.lines().find_map(|line| line.strip_prefix("# libtpu ")).unwrap();
    println!(
        "TPU metric dtype queries: JAX's estimate with its scores' dtype, ours with scores in f32, in seconds"
    );
    let (mut compilers, mut estimates, mut compared) = (HashMap::new(), HashMap::new(), 0);
    for line in fixture.lines().filter(|line| line.starts_with('v')) {
        let fields: Vec<&str> = line.split(',').collect();
        let [tpu, metric, dtype, scores, queries, seconds] = fields[..] else { panic!("{line}") };
        if !compilers.contains_key(tpu) {
            let Some(compiler) = compiler(&format!("tpu:{tpu}")) else { return };
            let version = compiler.topology().platform_version();
            if !version.contains(libtpu) {
                let problem = format!("the estimates are those of libtpu {libtpu}, and this is {version}");
                return common::skip("tpu", &problem);
            }
            compilers.insert(tpu, compiler);
        }
        let metric = Metric::ALL.into_iter().find(|each| each.name() == metric).unwrap();
        let options = SearchOptions { squared_distances: false, ..SearchOptions::new(10) };
        let database = Shape::new(dtype.parse().unwrap(), [1_000_000, 128]);
        let queries = queries.parse().unwrap();
        let search = search_function(metric, &database, queries, &options).unwrap();
        let jax: f64 = seconds.parse().unwrap();
        // Of JAX there are two for scores of bf16 and f32, of one program here.
        let ours = *estimates
            .entry((tpu, metric, dtype, queries))
            .or_insert_with(|| optimal_seconds(&compilers[tpu], &search, &Options::default()));
        println!("{tpu} {metric} {dtype} {queries}: {jax:.6e} {scores} {ours:.6e}");
        // Scores in bf16 are less work, and have fewer digits.
        if search.result_shapes()[0].dtype().name() == scores {
            assert!(ours > 0.0 && ours <= jax, "{ours}, JAX {jax}: {line}");
            compared += 1;
        }
        if metric == Metric::L2 && scores == "f32" {
            let options = SearchOptions::new(10);
            let search =
                search_function_for(&tpu::CAPABILITIES, metric, &database, queries, 1, &options).unwrap();
            let ours = optimal_seconds(&compilers[tpu], &search, &Options::default());
            println!("{tpu} {metric} {dtype} {queries}: with true squared distances {ours:.6e}");
        }
    }
    assert_eq!(compared, 32);
}

/// Requires of the lowerings for an H100, of rows of that size, that nothing as long as a quarter of it is sorted.
fn nothing_long_is_sorted(size: usize) {
    let Some(compiler) = compiler("gpu:h100") else { return };
    println!("dtype size k direction: lowering, sorted sizes");
    for dtype in [DType::F32, DType::BF16] {
        for k in [1, 10, 100, 1000] {
            for min in [false, true] {
                let function = top_k(dtype, &[128, size], k, min, &aim(0.95));
                let (module, choice) = optimized(&compiler, &function, &Options::default());
                let direction = if min { "min" } else { "max" };
                println!("{dtype} {size} {k} {direction}: {} {:?}", choice.form, sorts(&module));
                assert!(sorts(&module).iter().all(|&sorted| sorted < size as i64 / 4), "{choice}: {module}");
            }
        }
    }
}

#[test]
fn no_gpu_sorts_all_of_100_000() {
    nothing_long_is_sorted(100_000);
}

#[test]
fn no_gpu_sorts_all_of_1_000_000() {
    nothing_long_is_sorted(1_000_000);
}

#[test]
fn no_gpu_sorts_all_for_exact_results() {
    let Some(compiler) = compiler("gpu:h100") else { return };
    for (dtype, k, min) in [(DType::F32, 10, true), (DType::BF16, 100, false), (DType::F16, 1, false)] {
        let function = top_k(dtype, &[128, 100_000], k, min, &aim(1.0));
        let (module, choice) = optimized(&compiler, &function, &Options::default());
        assert_eq!(choice.expected_recall, 1.0);
        assert!(sorts(&module).iter().all(|&sorted| sorted < 25_000), "{choice}: {module}");
    }
    // The detection works.
    let (module, _) =
        optimized(&compiler, &top_k(DType::F32, &[128, 100_000], 100, true, &aim(1.0)), &asked(Form::Sort));
    assert!(sorts(&module).contains(&100_000));
}

#[test]
fn every_lowering_compiles_for_every_gpu() {
    for gpu in ["h100", "h200", "a100"] {
        let Some(compiler) = compiler(&format!("gpu:{gpu}")) else { return };
        for (dtype, min) in [
            (DType::F16, true),
            (DType::BF16, false),
            (DType::F32, false),
            (DType::F32, true),
            (DType::F64, true),
        ] {
            let function = top_k(dtype, &[16, 20_000], 10, min, &aim(0.95));
            for form in [Form::Sort, Form::TwoStage, Form::Blocks] {
                let (_, choice) = optimized(&compiler, &function, &asked(form));
                assert_eq!(choice.form, form);
            }
        }
    }
}

#[test]
fn no_gpu_sorts_all_for_a_search() {
    let Some(compiler) = compiler("gpu:h100") else { return };
    println!("metric dtype k: lowering, sorted sizes");
    for metric in Metric::ALL {
        for (dtype, k) in [(DType::F32, 10), (DType::F32, 100), (DType::BF16, 100)] {
            let database = Shape::new(dtype, [100_000, 96]);
            let options = SearchOptions::new(k);
            let search =
                search_function_for(&gpu::CAPABILITIES, metric, &database, 128, 1, &options).unwrap();
            let (module, choice) = optimized(&compiler, &search, &Options::default());
            println!("{metric} {dtype} {k}: {} {:?}", choice.form, sorts(&module));
            assert!(sorts(&module).iter().all(|&sorted| sorted < 25_000), "{choice}: {module}");
        }
    }
}

#[test]
fn the_operand_is_read_by_one_reduction_on_a_gpu() {
    let Some(compiler) = compiler("gpu:h100") else { return };
    for (target, form) in [(0.95, Form::TwoStage), (1.0, Form::Blocks)] {
        let function = top_k(DType::F32, &[128, 100_000], 100, true, &aim(target));
        let (module, choice) = optimized(&compiler, &function, &Options::default());
        assert_eq!(choice.form, form);
        let entry = module.computations.iter().find(|c| c.id == module.entry_computation_id).unwrap();
        let operand = entry.instructions.iter().find(|i| i.opcode == "parameter").unwrap().id;
        let reads = entry.instructions.iter().filter(|i| i.operand_ids.contains(&operand));
        let reads: Vec<_> = reads.map(|i| (i.opcode.as_str(), i.fusion_kind.as_str())).collect();
        match form {
            // The tuple goes to the branch that is taken where there are NaNs among the results.
            Form::TwoStage => {
                assert_eq!(reads.len(), 2, "{module}");
                assert!(reads.contains(&("fusion", "kInput")) && reads.contains(&("tuple", "")), "{reads:?}");
            }
            // The other gathers the elements of the best blocks.
            _ => {
                assert_eq!(reads.len(), 2, "{module}");
                assert!(
                    reads.contains(&("fusion", "kInput")) && reads.contains(&("fusion", "kLoop")),
                    "{reads:?}"
                );
            }
        }
    }
}
