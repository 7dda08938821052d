//! Approximate top-k: recall, the forms and which is chosen, what is refused.

use crate::runner::{self, FLOATS, FORMS, assert_valid, in_form, random, session, top_k};
use prost::Message;
use xlann::ann::max_inner_product;
use xlann::ann::recall::{recall_by_index, reduction_output_size};
use xlann::hlo::HloModuleProto;
use xlann::lower::{Capabilities, Form, Options, lower};
use xlann::target::cpu::PLAIN_CAPABILITIES as CAPABILITIES;
use xlann::{ApproxTopKOptions, Array, Builder, DType, Error, Function, Shape};

fn asked(form: Form) -> Options {
    Options { approx_top_k: Some(form), ..Default::default() }
}

fn aim(recall_target: f32) -> ApproxTopKOptions {
    ApproxTopKOptions { recall_target, ..ApproxTopKOptions::default() }
}

fn f32s(dims: &[usize]) -> Shape {
    Shape::new(DType::F32, dims)
}

#[test]
fn exact_forms_agree_with_the_interpreter() {
    let options = ApproxTopKOptions::default();
    for dtype in FLOATS {
        for (dims, k) in [(vec![7], 1), (vec![3, 1000], 10), (vec![2, 2, 333], 5), (vec![1, 100], 100)] {
            let shape = Shape::new(dtype, dims);
            let operand = vec![random(shape.clone(), 1)];
            for min in [false, true] {
                let function = top_k(&shape, k, min, &options);
                let expected = function.eval(&operand).unwrap();
                for form in [Form::Sort, Form::Blocks] {
                    for got in in_form(&function, Some(form), std::slice::from_ref(&operand)).concat() {
                        let context = format!("{form} of {shape}, min {min}");
                        assert_eq!(got[0], expected[0], "{context}");
                        // Of equal values, targets differ in which comes first.
                        assert_valid(&operand[0], &got, min, true, &context);
                    }
                }
            }
        }
    }
}

/// A part of JAX's `ann_test`: the recall of scores against those sorted whole.
fn jax_ann_test(queries: usize, rows: usize, min: bool) {
    const TARGET: f32 = 0.95;
    for dtype in FLOATS {
        let shapes = [Shape::new(dtype, [queries, 128]), Shape::new(dtype, [128, rows])];
        let arguments = vec![random(shapes[0].clone(), 3), random(shapes[1].clone(), 4)];
        for k in [1, 10] {
            let scores = |target| {
                Function::trace("mips", &shapes, |x| {
                    let scores = x[0].dot_general(&x[1], (&[1], &[0]), (&[], &[]))?;
                    match min {
                        false => scores.approx_max_k(k, &aim(target)),
                        true => scores.approx_min_k(k, &aim(target)),
                    }
                })
                .unwrap()
            };
            let truth = in_form(&scores(1.0), Some(Form::Sort), std::slice::from_ref(&arguments)).remove(0);
            for form in FORMS {
                let found = in_form(&scores(TARGET), form, std::slice::from_ref(&arguments)).remove(0);
                for (backend, (found, truth)) in ["cpu", "interpreter"].iter().zip(found.iter().zip(&truth)) {
                    let recall = recall_by_index(&found[1], &truth[1]).unwrap();
                    let enough = f64::from(TARGET) * 0.9;
                    assert!(recall >= enough, "{recall} of {dtype} k={k} min {min}, {form:?} on {backend}");
                }
            }
        }
    }
}

#[test]
fn approx_max_k_of_500_has_the_recall_that_jax_asks_for() {
    jax_ann_test(200, 500, false);
}

#[test]
fn approx_min_k_of_500_has_the_recall_that_jax_asks_for() {
    jax_ann_test(200, 500, true);
}

#[test]
fn approx_max_k_of_3000_has_the_recall_that_jax_asks_for() {
    jax_ann_test(128, 3000, false);
}

#[test]
fn approx_min_k_of_3000_has_the_recall_that_jax_asks_for() {
    jax_ann_test(128, 3000, true);
}

#[test]
fn max_inner_product_has_the_recall_in_every_form() {
    let shapes = [f32s(&[64, 16]), f32s(&[2000, 16])];
    let arguments = vec![random(shapes[0].clone(), 5), random(shapes[1].clone(), 6)];
    let mips = |target| {
        Function::trace("mips", &shapes, |x| max_inner_product(&x[0], &x[1], 10, &aim(target))).unwrap()
    };
    let truth = in_form(&mips(1.0), Some(Form::Sort), std::slice::from_ref(&arguments)).remove(0);
    for form in FORMS {
        for found in in_form(&mips(0.9), form, std::slice::from_ref(&arguments)).remove(0) {
            let recall = recall_by_index(&found[1], &truth[1][1]).unwrap();
            assert!(recall >= 0.9, "{recall}, {form:?}");
        }
    }
}

/// The recall of the two-stage form, measured on the CPU or else the interpreter, of results that are valid.
fn two_stage_recall(operand: &Array, k: usize, min: bool, target: f32) -> f64 {
    let function = top_k(operand.shape(), k, min, &aim(target));
    let found = in_form(&function, Some(Form::TwoStage), &[vec![operand.clone()]]).remove(0);
    let truth = function.eval(std::slice::from_ref(operand)).unwrap();
    for results in &found {
        assert_valid(operand, results, min, true, &format!("{function}"));
    }
    recall_by_index(&found[0][1], &truth[1]).unwrap()
}

#[test]
fn the_two_stage_form_meets_its_recall_target() {
    // 2997 and 4099 have no divisor near the bucket count: the last bucket row is filled up.
    for (rows, size, k, target) in
        [(50, 4096, 10, 0.95), (50, 2997, 20, 0.8), (50, 4099, 50, 0.9), (50, 2048, 100, 0.5)]
    {
        for min in [false, true] {
            let seeds = 1..=3;
            let recall = seeds
                .map(|seed| two_stage_recall(&random(f32s(&[rows, size]), seed), k, min, target))
                .sum::<f64>()
                / 3.0;
            // The buckets are the least that meet the target: the mean of 150 rows or more is near it.
            let deviation = (f64::from(target) * (1.0 - f64::from(target)) / (3 * rows * k) as f64).sqrt();
            assert!(
                recall >= f64::from(target) - 4.0 * deviation,
                "{recall} of [{rows},{size}] k={k} target {target} min {min}"
            );
        }
    }
}

#[test]
fn neighbours_stored_side_by_side_are_found_by_the_two_stage_form() {
    let (rows, size, k) = (8, 6000, 20);
    // A smooth bump in each row, at another place: its k best are k adjacent elements.
    let values: Vec<f64> = (0..rows * size)
        .map(|position| {
            let (row, index) = (position / size, position % size);
            // Off the middle, as of equal values targets differ in which comes first.
            -(index as f64 - (row * 700 + 350) as f64 - 0.25).abs()
        })
        .collect();
    for (min, sign) in [(false, 1.0), (true, -1.0)] {
        let values: Vec<f64> = values.iter().map(|value| value * sign).collect();
        let operand = Array::from_f64(f32s(&[rows, size]), &values).unwrap();
        // 20 adjacent elements are in 20 different buckets.
        assert_eq!(two_stage_recall(&operand, k, min, 0.9), 1.0);
    }
    for ascending in [false, true] {
        let values: Vec<f64> =
            (0..size).map(|index| if ascending { index as f64 } else { -(index as f64) }).collect();
        let operand = Array::from_f64(f32s(&[size]), &values).unwrap();
        assert_eq!(two_stage_recall(&operand, k, false, 0.9), 1.0);
        assert_eq!(two_stage_recall(&operand, k, true, 0.9), 1.0);
    }
}

#[test]
fn shards_together_have_the_recall_of_the_whole() {
    let (rows, shards, size, k) = (50, 4, 3000, 20);
    let whole = shards * size;
    for (min, target) in [(false, 0.9), (true, 0.95)] {
        let operand = random(f32s(&[rows, shards, size]), 9);
        let options = ApproxTopKOptions { reduction_input_size_override: Some(whole), ..aim(target) };
        let function = Function::trace("shards", &[f32s(&[rows, shards, size])], |x| {
            let (values, indices) = match min {
                false => x[0].approx_max_k(k, &options)?,
                true => x[0].approx_min_k(k, &options)?,
            };
            let shard = x[0].builder().iota(indices.shape().clone(), 1)?;
            let indices = (indices + (shard * size as i32)?)?.reshape(&[rows, shards * k])?;
            let values = values.reshape(&[rows, shards * k])?;
            let (values, position) = match min {
                false => values.approx_max_k(k, &aim(1.0))?,
                true => values.approx_min_k(k, &aim(1.0))?,
            };
            Ok((values, indices.take_along_axis(&position, 1)?))
        })
        .unwrap();
        let flat = operand.reshape([rows, whole]).unwrap();
        let truth = top_k(flat.shape(), k, min, &aim(1.0)).eval(std::slice::from_ref(&flat)).unwrap();
        let found = in_form(&function, Some(Form::TwoStage), &[vec![operand]]).remove(0);
        for results in &found {
            assert_valid(&flat, results, min, true, "shards");
            let recall = recall_by_index(&results[1], &truth[1]).unwrap();
            assert!(recall >= f64::from(target) - 0.03, "{recall}");
        }
    }
}

#[test]
fn unaggregated_results_have_xlas_size_and_hold_the_winners() {
    for (dims, k, target, whole) in [
        (vec![4, 3000], 10, 0.95, None),
        (vec![20_000], 10, 0.95, None),
        (vec![2, 1000], 1, 0.95, None),
        (vec![2, 1000], 10, 0.95, Some(1_000_000)),
        (vec![2, 100], 10, 0.95, None),
        (vec![2, 1000], 10, 1.0, None),
        // XLA's formula has 256 for these 200, and XLA leaves them as they are.
        (vec![2, 200], 10, 0.95, Some(1_000_000)),
    ] {
        let size = dims[dims.len() - 1];
        let expected =
            reduction_output_size(size, dims.len(), k, target, false, whole).unwrap().size.min(size);
        let options = ApproxTopKOptions {
            aggregate_to_topk: false,
            reduction_input_size_override: whole,
            ..aim(target)
        };
        for dtype in FLOATS {
            let shape = Shape::new(dtype, dims.as_slice());
            let operand = random(shape.clone(), 11);
            for min in [false, true] {
                let function = top_k(&shape, k, min, &options);
                assert_eq!(function.result_shapes()[0].dims().last(), Some(&expected));
                let best = top_k(&shape, 1, min, &aim(1.0)).eval(std::slice::from_ref(&operand)).unwrap();
                for form in FORMS {
                    for results in in_form(&function, form, &[vec![operand.clone()]]).remove(0) {
                        let context = format!("{form:?} of {function}");
                        assert_eq!(results[0].shape(), &function.result_shapes()[0]);
                        assert_valid(&operand, &results, min, false, &context);
                        assert_eq!(
                            recall_by_index(&results[1], &best[1]).unwrap(),
                            1.0,
                            "the best: {context}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn unaggregated_results_of_the_two_stage_form_are_the_best_of_buckets() {
    let (size, k) = (1000, 10);
    let options = ApproxTopKOptions { aggregate_to_topk: false, ..aim(0.95) };
    let operand = random(f32s(&[1, size]), 12);
    let function = top_k(operand.shape(), k, false, &options);
    let buckets = function.result_shapes()[0].dims()[1];
    let values = operand.to_f64();
    for results in in_form(&function, Some(Form::TwoStage), &[vec![operand]]).remove(0) {
        let descending = |values: &[f64]| {
            let mut values = values.to_vec();
            values.sort_by(|a, b| b.total_cmp(a));
            values
        };
        let found = descending(&results[0].to_f64());
        // A bucket has one element of each run of so many: its best is no worse.
        for run in values.chunks(buckets) {
            let best = descending(run);
            assert!(found.iter().zip(&best).all(|(found, best)| found >= best), "{found:?} and {best:?}");
        }
    }
}

/// The sizes along their dimension of the sorts of a compiled function.
fn sorts(function: &Function, options: &Options) -> Vec<i64> {
    let (executable, _) = runner::common::cpu().unwrap().compile_with(function, options).unwrap();
    let optimized = executable.compiled().optimized_program().unwrap();
    // Field 1 of HloModuleProtoWithConfig is the module.
    let mut rest = &optimized.bytes[1..];
    let size = prost::decode_length_delimiter(&mut rest).unwrap();
    let module = HloModuleProto::decode(&rest[..size]).unwrap();
    let instructions = module.computations.iter().flat_map(|computation| &computation.instructions);
    instructions
        .filter(|instruction| instruction.opcode == "sort")
        .map(|sort| {
            let shape = sort.shape.as_ref().unwrap();
            let first = shape.tuple_shapes.first().unwrap_or(shape);
            first.dimensions[sort.dimensions[0] as usize]
        })
        .collect()
}

#[test]
fn no_compiled_program_sorts_whole_rows() {
    if runner::common::cpu().is_none() {
        return;
    }
    for dtype in FLOATS {
        for min in [false, true] {
            for k in [1, 10, 100] {
                let shape = Shape::new(dtype, [128, 100_000]);
                let sorts = sorts(&top_k(&shape, k, min, &aim(0.95)), &Options::default());
                assert!(sorts.iter().all(|&size| size <= 1000), "{sorts:?} of {shape} k={k} min {min}");
            }
        }
    }
    // The detection works.
    let function = top_k(&Shape::new(DType::F64, [2, 100_000]), 10, false, &aim(0.95));
    assert!(sorts(&function, &asked(Form::Sort)).contains(&100_000));
}

fn refusal(shape: Shape, k: usize, options: &ApproxTopKOptions) -> String {
    let messages = [false, true].map(|min| {
        let problem = Function::trace("f", std::slice::from_ref(&shape), |x| match min {
            false => x[0].approx_max_k(k, options),
            true => x[0].approx_min_k(k, options),
        })
        .unwrap_err();
        assert!(matches!(problem, Error::Argument { .. }));
        problem.to_string()
    });
    assert_eq!(messages[0], messages[1].replace("approx_min_k", "approx_max_k"));
    messages[0].clone()
}

#[test]
fn unfit_operands_are_refused() {
    let options = ApproxTopKOptions::default();
    assert_eq!(
        refusal(f32s(&[]), 1, &options),
        "approx_max_k: reduction_dimension must be a dimension, and a scalar has none, got -1"
    );
    for dtype in DType::ALL {
        if !FLOATS.contains(&dtype) {
            assert_eq!(
                refusal(Shape::new(dtype, [5]), 1, &options),
                format!("approx_max_k: operand's dtype must be floating, got {dtype}")
            );
        }
    }
    assert_eq!(
        refusal(f32s(&[1 << 31]), 1, &options),
        "approx_max_k: reduction dimension must be of at most 2147483647 elements, as indices are s32, got 2147483648"
    );
}

#[test]
fn unfit_options_are_refused() {
    let options = ApproxTopKOptions::default();
    let shape = f32s(&[3, 500]);
    assert_eq!(refusal(shape.clone(), 0, &options), "approx_max_k: k must be 1 or more, got 0");
    assert_eq!(
        refusal(shape.clone(), 600, &options),
        "approx_max_k: k must be at most the size of the reduction dimension (500), got 600"
    );
    assert_eq!(
        refusal(f32s(&[3, 0]), 1, &options),
        "approx_max_k: k must be at most the size of the reduction dimension (0), got 1"
    );
    for dimension in [2, -3, isize::MAX, isize::MIN] {
        let options = ApproxTopKOptions { reduction_dimension: dimension, ..options.clone() };
        assert_eq!(
            refusal(shape.clone(), 1, &options),
            format!("approx_max_k: reduction_dimension must be in -2..2 for f32[3,500], got {dimension}")
        );
    }
    for target in [0.0, -0.5, 1.0001, f32::NAN, f32::INFINITY] {
        assert_eq!(
            refusal(shape.clone(), 10, &aim(target)),
            format!("approx_max_k: recall_target must be in (0, 1], got {target}")
        );
    }
    for whole in [0, 499] {
        let options = ApproxTopKOptions { reduction_input_size_override: Some(whole), ..options.clone() };
        assert_eq!(
            refusal(shape.clone(), 10, &options),
            format!(
                "approx_max_k: reduction_input_size_override must be at least the size of the reduction \
                 dimension (500), got {whole}"
            )
        );
    }
}

#[test]
fn an_enormous_override_is_planned_for_in_time() {
    let start = std::time::Instant::now();
    for whole in [usize::MAX, 1 << 40] {
        let options = ApproxTopKOptions { reduction_input_size_override: Some(whole), ..aim(0.95) };
        let function = top_k(&f32s(&[2, 5000]), 100, false, &options);
        let operand = random(f32s(&[2, 5000]), 13);
        for form in FORMS {
            for results in in_form(&function, form, &[vec![operand.clone()]]).remove(0) {
                assert_valid(&operand, &results, false, true, &format!("{form:?}, override {whole}"));
            }
        }
    }
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn a_form_that_the_target_lacks_is_refused() {
    let capabilities = Capabilities { target: "small", forms: &[Form::Sort], ..CAPABILITIES };
    let function = top_k(&f32s(&[3, 5000]), 2, true, &aim(0.95));
    for form in [Form::TwoStage, Form::Blocks] {
        let problem = lower(&function, &capabilities, &asked(form)).unwrap_err();
        assert!(matches!(problem, Error::Unsupported { .. }));
        assert_eq!(
            problem.to_string(),
            format!("approx_min_k: not available on target small: it has no form {form}")
        );
    }
    let lowered = lower(&function, &capabilities, &Options::default()).unwrap();
    assert_eq!(lowered.choices[0].form, Form::Sort);
}

#[test]
fn the_policy_looks_at_shape_dtype_k_and_recall() {
    let choice = |dtype, dims: &[usize], k, target| {
        let function = top_k(&Shape::new(dtype, dims), k, true, &aim(target));
        let mut choices = lower(&function, &CAPABILITIES, &Options::default()).unwrap().choices;
        assert_eq!(choices.len(), 1);
        choices.remove(0)
    };
    assert_eq!(
        choice(DType::F32, &[128, 1000], 20, 0.9).to_string(),
        "approx_min_k f32[128,1000] k=20: two-stage (128 buckets of 7 elements meet the recall target)"
    );
    for (dtype, dims, k, target, form) in [
        // Many elements for each result.
        (DType::F32, &[128, 100_000][..], 10, 0.95, Form::Blocks),
        // Few, and none may be lost.
        (DType::F32, &[128, 1000], 20, 1.0, Form::Sort),
        // As few, but f64 would be sorted whole.
        (DType::F64, &[1000], 20, 1.0, Form::Blocks),
        // All.
        (DType::F64, &[1000], 1000, 0.5, Form::Sort),
    ] {
        let choice = choice(dtype, dims, k, target);
        assert_eq!(choice.form, form, "{choice}");
        assert_eq!(choice.operator, format!("approx_min_k {} k={k}", Shape::new(dtype, dims)));
        assert!(
            choice.reason.contains("elements for each result") && choice.reason.ends_with("exact"),
            "{choice}"
        );
    }
    let function = top_k(&f32s(&[9]), 2, false, &aim(0.5));
    let asked_for = lower(&function, &CAPABILITIES, &asked(Form::Sort)).unwrap();
    assert_eq!(asked_for.choices[0].to_string(), "approx_max_k f32[9] k=2: sort (asked for)");
}

#[test]
fn a_session_says_what_was_chosen() {
    let Some(session) = session() else { return };
    let function = top_k(&f32s(&[4, 5000]), 3, false, &aim(0.95));
    let (executable, choices) = session.compile_with(&function, &Options::default()).unwrap();
    let chosen = choices[0].form;
    assert!(session.platform().name() != "cpu" || chosen == Form::Kernel, "{chosen}");
    let (again, _) = session.compile_with(&function, &asked(chosen)).unwrap();
    assert_eq!(again, executable, "what was chosen is what can be asked for");
}

#[test]
fn top_k_in_loops_and_branches_is_expanded() {
    let shape = f32s(&[3, 300]);
    let builder = Builder::new("loop");
    let x = builder.parameter("x", shape.clone()).unwrap();
    // Four times: the two best of each row, their sum taken off the row.
    let looped = builder
        .fori_loop(4, &[&x], |_, x| {
            let (values, _) = x[0].approx_max_k(2, &aim(0.95))?;
            Ok([(&x[0] - values.reduce_sum(&[1])?.expand_dims(1)?)?])
        })
        .unwrap();
    let branch = |min: bool| top_k(&shape, 3, min, &aim(0.95));
    let positive = looped[0].reduce_sum(&[0, 1]).unwrap().greater(0f32).unwrap();
    let results = positive.cond(&[&looped[0]], branch(true), branch(false)).unwrap();
    let function = builder.finish(results).unwrap();
    for &form in CAPABILITIES.forms {
        let lowered = lower(&function, &CAPABILITIES, &asked(form)).unwrap();
        let operators: Vec<_> = lowered.choices.iter().map(|choice| choice.operator.as_str()).collect();
        assert_eq!(
            operators,
            ["approx_max_k f32[3,300] k=2", "approx_min_k f32[3,300] k=3", "approx_max_k f32[3,300] k=3"]
        );
        assert!(!lowered.function.to_string().contains("approx_"), "{}", lowered.function);
    }
    for seed in [1, 2] {
        runner::run(&function, &[random(shape.clone(), seed)]);
    }
}
