//! The lowerings of approximate top-k for every target, as far as this machine can run them: on the CPU and on the
//! interpreter, which evaluates what a TPU does by its reference.

use crate::runner::{FLOATS, assert_valid, awkward, in_form_of, random, top_k};
use xlann::ann::recall::{recall_by_index, reduction_output_size, tight_reduction_output_size};
use xlann::hlo::proto::HloInstructionProto;
use xlann::lower::{Capabilities, Choice, Form, Options, lower};
use xlann::target::{cpu, gpu, tpu};
use xlann::{ApproxTopKOptions, Array, DType, Error, Function, Shape, Tangent, jvp};

const TARGETS: [&Capabilities; 3] = [&cpu::CAPABILITIES, &gpu::CAPABILITIES, &tpu::CAPABILITIES];

fn aim(recall_target: f32) -> ApproxTopKOptions {
    ApproxTopKOptions { recall_target, ..ApproxTopKOptions::default() }
}

fn asked(form: Form) -> Options {
    Options { approx_top_k: Some(form), ..Default::default() }
}

fn is_native(form: Form) -> bool {
    matches!(form, Form::Native | Form::NativeTight)
}

fn choice(capabilities: &Capabilities, function: &Function, options: &Options) -> Choice {
    lower(function, capabilities, options).unwrap().choices.remove(0)
}

#[test]
fn every_lowering_has_the_recall_that_it_expects_of_random_rows() {
    let (rows, size) = (96, 8192);
    let operands: Vec<_> = [1, 2].map(|seed| vec![random(Shape::new(DType::F32, [rows, size]), seed)]).into();
    println!("target form k recall_target expected measured (min, max)");
    for (k, target) in [(1, 0.95), (10, 0.95), (10, 0.99), (100, 0.9), (100, 0.95)] {
        let functions = [true, false].map(|min| top_k(operands[0][0].shape(), k, min, &aim(target)));
        let truths = functions.each_ref().map(|function| {
            let eval = |operand: &Vec<Array>| function.eval(operand).unwrap().remove(1);
            operands.iter().map(eval).collect::<Vec<_>>()
        });
        for capabilities in TARGETS {
            for &form in capabilities.forms {
                let mut measured = [0.0; 2];
                for ((function, truth), measured) in functions.iter().zip(&truths).zip(&mut measured) {
                    let found = in_form_of(capabilities, function, Some(form), &operands);
                    for (([found, _], truth), operand) in found.iter().zip(truth).zip(&operands) {
                        if !is_native(form) {
                            let min = function.to_string().contains("min");
                            assert_valid(&operand[0], found, min, true, &format!("{form} of {function}"));
                        }
                        *measured += recall_by_index(&found[1], truth).unwrap() / operands.len() as f64;
                    }
                }
                let expected = choice(capabilities, &functions[0], &asked(form)).expected_recall;
                println!("{} {form} {k} {target} {expected:.4} {measured:.4?}", capabilities.target);
                let target = f64::from(target);
                assert!(expected >= target, "{expected} of {form}");
                // Of so many neighbours; that those of a row are not independent makes the deviation smaller.
                let neighbours = (operands.len() * rows * k) as f64;
                let deviation = (expected * (1.0 - expected) / neighbours).sqrt();
                for measured in measured {
                    assert!(
                        (measured - expected).abs() <= 4.0 * deviation,
                        "{measured} of {form}, {expected}"
                    );
                    assert!(
                        measured >= target,
                        "{measured} of {form} for {} k={k} {target}",
                        capabilities.target
                    );
                }
            }
        }
    }
}

#[test]
fn every_lowering_finds_neighbours_that_are_stored_side_by_side() {
    let (rows, size) = (6, 6000);
    let bump = |position: usize| {
        let (row, index) = (position / size, position % size);
        -(index as f64 - (row * 900 + 350) as f64 - 0.25).abs()
    };
    let ascending = |position: usize| (position % size) as f64;
    let orders: [(&str, &dyn Fn(usize) -> f64); 3] =
        [("bump", &bump), ("ascending", &ascending), ("descending", &|position| -ascending(position))];
    for (name, order) in orders {
        for min in [false, true] {
            let sign = if min { -1.0 } else { 1.0 };
            let values: Vec<f64> = (0..rows * size).map(|position| sign * order(position)).collect();
            let operand = vec![Array::from_f64(Shape::new(DType::F32, [rows, size]), &values).unwrap()];
            for (k, target) in [(1, 0.95), (20, 0.9), (100, 0.95)] {
                let function = top_k(operand[0].shape(), k, min, &aim(target));
                let truth = function.eval(&operand).unwrap();
                for capabilities in TARGETS {
                    for &form in capabilities.forms {
                        let [found, _] =
                            in_form_of(capabilities, &function, Some(form), std::slice::from_ref(&operand))
                                .remove(0);
                        let context = format!("{name}, {form} for {}: {function}", capabilities.target);
                        assert_valid(&operand[0], &found, min, true, &context);
                        // They are in as many buckets.
                        assert_eq!(recall_by_index(&found[1], &truth[1]).unwrap(), 1.0, "{context}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_native_forms_find_many_neighbours_in_random_order() {
    let shape = Shape::new(DType::F32, [2, 200_000]);
    let operands = [vec![random(shape.clone(), 7)]];
    for (k, target) in [(200, 0.95), (1000, 0.95)] {
        let function = top_k(&shape, k, true, &aim(target));
        let truth = function.eval(&operands[0]).unwrap().remove(1);
        for form in [Form::Native, Form::NativeTight] {
            let [found, _] = in_form_of(&tpu::CAPABILITIES, &function, Some(form), &operands).remove(0);
            let measured = recall_by_index(&found[1], &truth).unwrap();
            let expected = choice(&tpu::CAPABILITIES, &function, &asked(form)).expected_recall;
            println!("{form} k={k}: expected {expected:.4}, measured {measured:.4}");
            assert!(expected >= f64::from(target));
            let deviation = (expected * (1.0 - expected) / (2 * k) as f64).sqrt();
            assert!((measured - expected).abs() <= 4.0 * deviation, "{measured} of {form}, {expected}");
        }
    }
}

#[test]
fn the_native_forms_lose_what_passes_128_neighbours_side_by_side() {
    let shape = Shape::new(DType::F32, [1, 1_000_000]);
    let values: Vec<f64> = (0..1_000_000).map(|index| (f64::from(index) - 420_000.25).abs()).collect();
    let operands = [vec![Array::from_f64(shape.clone(), &values).unwrap()]];
    // As the documentation of the forms says.
    for (k, documented) in [(128, 1.0), (200, 0.64), (300, 0.43), (1000, 0.13)] {
        let function = top_k(&shape, k, true, &aim(0.95));
        let truth = function.eval(&operands[0]).unwrap().remove(1);
        for (capabilities, form) in LOSING.into_iter().chain([(&gpu::CAPABILITIES, Form::TwoStage)]) {
            let [found, _] = in_form_of(capabilities, &function, Some(form), &operands).remove(0);
            let measured = recall_by_index(&found[1], &truth).unwrap();
            println!("{form} k={k}: {measured:.4}");
            let expected = if form == Form::TwoStage { 1.0 } else { documented };
            assert!((measured - expected).abs() < 0.005, "{measured} of {form}, k={k}");
        }
    }
}

const LOSING: [(&Capabilities, Form); 2] =
    [(&tpu::CAPABILITIES, Form::Native), (&tpu::CAPABILITIES, Form::NativeTight)];

/// Rows whose best elements are `k` at a distance of each other, from another place on in each, among noise.
fn periodic(rows: usize, size: usize, k: usize, period: usize) -> Array {
    let noise = random(Shape::new(DType::F64, [rows, size]), period as u64).to_f64();
    let places = size - (k - 1) * period;
    let value = |position: usize| {
        let (row, index) = (position / size, position % size);
        let first = row * places / rows + row % period.min(places / rows);
        let best = index >= first && (index - first).is_multiple_of(period) && (index - first) / period < k;
        noise[position] + if best { 10.0 } else { 0.0 }
    };
    let values: Vec<f64> = (0..rows * size).map(value).collect();
    Array::from_f64(Shape::new(DType::F32, [rows, size]), &values).unwrap()
}

#[test]
fn the_two_stage_form_finds_neighbours_at_any_period() {
    let (rows, size) = (100, 37_000);
    println!("k period: recall on the interpreter and, for the CPU, on a device");
    for (k, target, periods) in [(10, 0.95, &[1, 64, 128, 256, 4096][..]), (5, 0.9, &[3, 128])] {
        let function = top_k(&Shape::new(DType::F32, [rows, size]), k, false, &aim(target));
        for &period in periods {
            let operand = vec![periodic(rows, size, k, period)];
            let truth = function.eval(&operand).unwrap().remove(1);
            // The interpreter evaluates the GPU's; what the CPU's gives is run, where there is a plugin.
            for capabilities in [&cpu::CAPABILITIES, &gpu::CAPABILITIES] {
                let found =
                    in_form_of(capabilities, &function, Some(Form::TwoStage), std::slice::from_ref(&operand));
                for [found, _] in found {
                    let measured = recall_by_index(&found[1], &truth).unwrap();
                    println!("{k} {period}: {measured:.4}");
                    assert!(measured >= f64::from(target) - 0.01, "{measured} for k={k} at period {period}");
                    assert!(period > 1 || measured == 1.0, "{measured} of {k} side by side");
                }
            }
        }
    }
}

#[test]
fn the_native_forms_lose_neighbours_at_periods_that_a_power_of_two_divides() {
    let size = 1_000_000;
    let function = top_k(&Shape::new(DType::F32, [1, size]), 10, false, &aim(0.95));
    // As the documentation of the forms says.
    for (period, documented) in [(128, 0.1), (256, 0.1), (64, 0.2), (1, 1.0)] {
        let operands = [vec![periodic(1, size, 10, period)]];
        let truth = function.eval(&operands[0]).unwrap().remove(1);
        for (capabilities, form) in LOSING {
            let [found, _] = in_form_of(capabilities, &function, Some(form), &operands).remove(0);
            let measured = recall_by_index(&found[1], &truth).unwrap();
            assert!((measured - documented).abs() < 1e-9, "{measured} of {form} at period {period}");
        }
    }
}

#[test]
fn awkward_rows_of_the_gpus_forms() {
    for (dtype, sizes) in [
        (DType::F32, &[1, 2, 33, 129, 1025, 2100][..]),
        (DType::F64, &[33, 1024]),
        (DType::F16, &[997]),
        (DType::BF16, &[1025]),
    ] {
        for &size in sizes {
            let (names, rows): (Vec<_>, Vec<_>) = awkward(size).into_iter().unzip();
            let shape = Shape::new(dtype, [1, size]);
            let operands: Vec<_> =
                rows.iter().map(|row| vec![Array::from_f64(shape.clone(), row).unwrap()]).collect();
            for k in [1, 7.min(size)] {
                for min in [false, true] {
                    let function = top_k(&shape, k, min, &ApproxTopKOptions::default());
                    for &form in gpu::CAPABILITIES.forms {
                        let found = in_form_of(&gpu::CAPABILITIES, &function, Some(form), &operands);
                        for ((name, operand), found) in names.iter().zip(&operands).zip(found) {
                            for found in found {
                                let context = format!("{name}, {form} of {shape} k={k} min {min}");
                                assert_valid(&operand[0], &found, min, true, &context);
                                if form != Form::TwoStage {
                                    let best = function.eval(operand).unwrap()[0].to_f64();
                                    let same = |(a, b): (&f64, &f64)| a == b || a.is_nan() && b.is_nan();
                                    assert!(found[0].to_f64().iter().zip(&best).all(same), "{context}");
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn strided_blocks_are_exact() {
    for dtype in FLOATS {
        for (dims, k) in [(vec![3, 1000], 10), (vec![2, 2, 333], 5), (vec![4999], 70), (vec![1, 100], 100)] {
            let shape = Shape::new(dtype, dims);
            let operand = vec![random(shape.clone(), 5)];
            for min in [false, true] {
                let function = top_k(&shape, k, min, &aim(0.95));
                let expected = function.eval(&operand).unwrap();
                let found = in_form_of(
                    &gpu::CAPABILITIES,
                    &function,
                    Some(Form::Blocks),
                    std::slice::from_ref(&operand),
                );
                for found in found.concat() {
                    let context = format!("{shape} k={k} min {min}");
                    assert_valid(&operand[0], &found, min, true, &context);
                    // Of equal values, another one can be found.
                    assert_eq!(found[0], expected[0], "{context}");
                }
            }
        }
    }
}

/// The instructions of a function as lowered for a TPU, by their opcodes.
fn instructions(function: &Function, form: Form, opcode: &str) -> Vec<HloInstructionProto> {
    let module = lower(function, &tpu::CAPABILITIES, &asked(form)).unwrap().module;
    let all = module.computations.into_iter().flat_map(|computation| computation.instructions);
    all.filter(|instruction| instruction.opcode == opcode).collect()
}

#[test]
fn the_native_form_is_xlas_expansion() {
    let function = top_k(&Shape::new(DType::F32, [128, 1_000_000]), 10, false, &aim(0.95));
    let module = lower(&function, &tpu::CAPABILITIES, &asked(Form::Native)).unwrap().module;
    let calls = instructions(&function, Form::Native, "custom-call");
    let [call] = &calls[..] else { panic!("{module}") };
    assert_eq!(call.custom_call_target, "PartialReduce");
    // As XLA writes it for JAX.
    let config = r#"{"log2_reduction": 12, "reduction_dim": 1, "to_apply_type": "comparator", "top_k": 10, "recall_target": 0.950000}"#;
    assert_eq!(call.backend_config, config.as_bytes());
    assert_eq!(call.custom_call_api_version, 1, "the original one");
    // With a layout it is not fused, and libtpu crashes.
    assert!(!call.constrain_layout);
    let sizes: Vec<_> =
        call.shape.as_ref().unwrap().tuple_shapes.iter().map(|shape| shape.dimensions.clone()).collect();
    assert_eq!(sizes, [[128, 256], [128, 256]]);
    let comparator = module.computations.iter().find(|c| c.id == call.called_computation_ids[0]).unwrap();
    let parameters = &comparator.program_shape.as_ref().unwrap().parameters;
    assert_eq!(parameters.len(), 4);
    let compare = comparator.instructions.iter().find(|i| i.opcode == "compare").unwrap();
    assert_eq!((compare.comparison_direction.as_str(), compare.comparison_type.as_str()), ("GT", "FLOAT"));
    let sort = &instructions(&function, Form::Native, "sort")[0];
    assert!(!sort.is_stable);
    assert_eq!(sort.dimensions, [1]);

    let tight = &instructions(&function, Form::NativeTight, "custom-call")[0];
    assert!(String::from_utf8_lossy(&tight.backend_config).starts_with(r#"{"log2_reduction": 13, "#));

    // The best one is reduced to, and what XLA does not reduce is sorted.
    let best = top_k(
        &Shape::new(DType::BF16, [4, 70_000, 3]),
        1,
        true,
        &ApproxTopKOptions { reduction_dimension: 1, ..aim(0.95) },
    );
    assert_eq!(instructions(&best, Form::Native, "sort").len(), 0);
    assert_eq!(instructions(&best, Form::Native, "reduce")[0].dimensions, [1]);
    let exact = top_k(&Shape::new(DType::F32, [2, 5000]), 5, true, &aim(1.0));
    assert_eq!(instructions(&exact, Form::Native, "custom-call").len(), 0);
    assert_eq!(instructions(&exact, Form::Native, "sort").len(), 1);
}

#[test]
fn the_native_form_searches_along_any_dimension() {
    for (dims, dimension) in
        [(vec![3000, 4], 0), (vec![2, 2999, 3], 1), (vec![2, 3, 2100], 2), (vec![20_001], 0)]
    {
        for k in [1, 9] {
            for (min, dtype) in [(false, DType::F32), (true, DType::BF16), (true, DType::F16)] {
                let shape = Shape::new(dtype, dims.as_slice());
                let operand = vec![random(shape.clone(), 6)];
                let options = ApproxTopKOptions { reduction_dimension: dimension as isize, ..aim(0.5) };
                let function = top_k(&shape, k, min, &options);
                let truth = function.eval(&operand).unwrap();
                for form in [Form::Native, Form::NativeTight] {
                    let lowered = lower(&function, &tpu::CAPABILITIES, &asked(form)).unwrap();
                    assert!(lowered.function.to_string().contains("PartialReduce"));
                    let found = lowered.function.eval(&operand).unwrap();
                    assert_eq!(found[0].shape(), truth[0].shape());
                    // The best one is always found.
                    let slice = |array: &Array| {
                        let first = Function::trace("first", &[array.shape().clone()], |x| {
                            x[0].slice_in_dim(0, 1, 1, dimension as isize)
                        });
                        first.unwrap().eval(std::slice::from_ref(array)).unwrap().remove(0)
                    };
                    assert_eq!(slice(&found[0]), slice(&truth[0]), "{form} of {function}");
                }
            }
        }
    }
}

#[test]
fn unaggregated_results_of_every_lowering_have_xlas_size_and_hold_the_best() {
    for (dims, k, whole) in [
        (vec![4, 3000], 10, None),
        (vec![20_000], 10, None),
        (vec![2, 3000], 1, None),
        (vec![2, 200], 10, Some(1_000_000)),
        (vec![2, 100], 10, None),
    ] {
        let options =
            ApproxTopKOptions { aggregate_to_topk: false, reduction_input_size_override: whole, ..aim(0.95) };
        let size = *dims.last().unwrap();
        let expected = reduction_output_size(size, dims.len(), k, 0.95, false, whole).unwrap().size.min(size);
        let operand = vec![random(Shape::new(DType::F32, dims.as_slice()), 3)];
        for min in [false, true] {
            let function = top_k(operand[0].shape(), k, min, &options);
            let best = top_k(operand[0].shape(), 1, min, &aim(1.0)).eval(&operand).unwrap();
            for capabilities in TARGETS {
                for form in capabilities.forms.iter().copied().map(Some).chain([None]) {
                    let found = in_form_of(capabilities, &function, form, std::slice::from_ref(&operand));
                    let found = found.into_iter().flatten().next().unwrap();
                    let context = format!("{form:?} for {}: {function}", capabilities.target);
                    assert_eq!(found[0].shape().dims().last(), Some(&expected), "{context}");
                    assert_valid(&operand[0], &found, min, false, &context);
                    assert_eq!(recall_by_index(&found[1], &best[1]).unwrap(), 1.0, "{context}");
                }
            }
        }
    }
}

#[test]
fn tangents_are_carried_in_the_native_form() {
    for k in [1, 8] {
        let options = ApproxTopKOptions { tangent: Tangent::Carried, ..aim(0.9) };
        let function = top_k(&Shape::new(DType::F32, [3, 4000]), k, true, &options);
        let carried = jvp(&function, &[0]).unwrap();
        let shape = &carried.parameter_shapes()[0];
        let arguments = vec![random(shape.clone(), 1), random(shape.clone(), 2)];
        let lowered = lower(&carried, &tpu::CAPABILITIES, &Options::default()).unwrap();
        let text = lowered.function.to_string();
        assert!(text.contains("PartialReduce") && !text.contains("gather"), "{text}");
        let found = lowered.function.eval(&arguments).unwrap();
        let (indices, tangents) = (found[1].to_vec::<i32>().unwrap(), arguments[1].to_f64());
        for (position, tangent) in found[2].to_f64().into_iter().enumerate() {
            assert_eq!(tangent, tangents[position / k * 4000 + indices[position] as usize]);
        }
    }
}

#[test]
fn the_policy_of_each_target() {
    use Form::*;
    let of = |capabilities, dtype, dims: &[usize], k, target| {
        let [max, min] = [false, true].map(|min| {
            let function = top_k(&Shape::new(dtype, dims), k, min, &aim(target));
            choice(capabilities, &function, &Options::default())
        });
        assert_eq!(max.form, min.form);
        max
    };
    for (capabilities, dtype, dims, k, target, form) in [
        (TARGETS[1], DType::F32, &[128, 100_000][..], 10, 0.95, TwoStage),
        (TARGETS[1], DType::F32, &[128, 100_000], 1, 1.0, TwoStage),
        (TARGETS[1], DType::BF16, &[128, 1_000_000], 1000, 0.95, TwoStage),
        (TARGETS[1], DType::F32, &[128, 100_000], 10, 1.0, Blocks),
        (TARGETS[1], DType::F32, &[128, 100_000], 1000, 0.999, Blocks),
        (TARGETS[1], DType::F32, &[128, 2048], 10, 0.95, Sort),
        (TARGETS[1], DType::F32, &[128, 4096], 4000, 0.95, Sort),
        (TARGETS[2], DType::F32, &[128, 1_000_000], 10, 0.95, NativeTight),
        (TARGETS[2], DType::BF16, &[100_000], 1, 0.95, Native),
        (TARGETS[2], DType::BF16, &[2, 131_072], 2048, 0.99, NativeTight),
        (TARGETS[2], DType::F32, &[128, 100_000], 10, 1.0, Sort),
        (TARGETS[2], DType::F64, &[128, 100_000], 10, 0.95, Blocks),
    ] {
        let choice = of(capabilities, dtype, dims, k, target);
        assert_eq!(choice.form, form, "{} {choice}", capabilities.target);
        assert!(choice.expected_recall >= f64::from(target), "{choice}");
    }
    let choice = of(TARGETS[2], DType::F32, &[128, 1_000_000], 10, 0.95);
    assert_eq!(
        choice.to_string(),
        "approx_max_k f32[128,1000000] k=10: native-tight (PartialReduce to 128 meets the recall target, where XLA's \
         formula leaves 256)"
    );
    assert!((choice.expected_recall - 0.9656).abs() < 1e-4);
}

#[test]
fn many_results_that_are_not_aggregated_are_not_sorted() {
    let of = |capabilities, size: usize, k, recall_target, aggregate_to_topk| {
        let options = ApproxTopKOptions { aggregate_to_topk, ..aim(recall_target) };
        choice(
            capabilities,
            &top_k(&Shape::new(DType::F32, [16, size]), k, true, &options),
            &Options::default(),
        )
    };
    let choice = of(&cpu::CAPABILITIES, 100_000, 10, 0.999, false);
    assert_eq!(
        choice.to_string(),
        "approx_min_k f32[16,100000] k=10: two-stage (7 elements for each result, none of which is sorted)"
    );
    assert!(choice.expected_recall >= 0.999, "{choice}");
    let of_one_row = |recall_target| {
        let options = ApproxTopKOptions { aggregate_to_topk: false, ..aim(recall_target) };
        let function = top_k(&Shape::new(DType::F32, [1, 1_000_000]), 10, true, &options);
        self::choice(&cpu::CAPABILITIES, &function, &Options::default()).form
    };
    // 15744 results, and 3968.
    assert_eq!(of_one_row(0.9993), Form::TwoStage);
    assert_eq!(of_one_row(0.997), Form::Kernel);
    for (capabilities, size, k, target, aggregated, form) in [
        // 12544 results, 6272, and all.
        (&cpu::CAPABILITIES, 100_000, 10, 0.999, true, Form::Kernel),
        (&cpu::CAPABILITIES, 100_000, 10, 0.998, false, Form::Kernel),
        (&cpu::CAPABILITIES, 100_000, 10, 0.95, false, Form::Kernel),
        (&cpu::CAPABILITIES, 2000, 10, 1.0, false, Form::TwoStage),
        (&cpu::CAPABILITIES, 1000, 10, 1.0, false, Form::Kernel),
        (&cpu::PLAIN_CAPABILITIES, 100_000, 10, 0.99, false, Form::TwoStage),
        (&cpu::PLAIN_CAPABILITIES, 100_000, 10, 0.95, false, Form::Blocks),
        (TARGETS[2], 100_000, 10, 0.999, false, Form::Native),
    ] {
        let choice = of(capabilities, size, k, target, aggregated);
        assert_eq!(choice.form, form, "{choice}");
        assert!(choice.expected_recall >= f64::from(target), "{choice}");
    }
}

#[test]
fn the_policy_takes_no_form_that_the_target_lacks() {
    let of = |forms, dims: &[usize], dtype, target| {
        let function = top_k(&Shape::new(dtype, dims), 5, true, &aim(target));
        let capabilities = Capabilities { forms, ..gpu::CAPABILITIES };
        lower(&function, &capabilities, &Options::default()).map(|lowered| lowered.choices[0].clone())
    };
    // Rows that would be sorted in one go, and rows with few elements for each result.
    for dims in [&[2, 1000][..], &[2, 6]] {
        let choice = of(&[Form::Blocks], dims, DType::F32, 1.0).unwrap();
        assert_eq!(choice.form, Form::Blocks, "{choice}");
    }
    let choice = of(&[Form::TwoStage], &[2, 6], DType::F32, 0.95).unwrap();
    assert!(choice.to_string().ends_with("two-stage (the only form that is left)"), "{choice}");
    for forms in [&[][..], &[Form::Native]] {
        assert_eq!(
            of(forms, &[2, 1000], DType::F64, 0.95).unwrap_err().to_string(),
            "approx_min_k: not available on target gpu: it has no form that takes approx_min_k f64[2,1000] k=5"
        );
    }
}

#[test]
fn the_reason_for_a_sort_is_the_targets() {
    let reason = |capabilities, dims: &[usize]| {
        choice(capabilities, &top_k(&Shape::new(DType::F32, dims), 10, true, &aim(1.0)), &Options::default())
            .reason
    };
    assert_eq!(reason(TARGETS[2], &[128, 100_000]), "exact; no other such form pays on this target");
    assert_eq!(
        reason(&cpu::PLAIN_CAPABILITIES, &[128, 500]),
        "50 elements for each result, too few for another form; exact"
    );
}

#[test]
fn a_form_that_the_target_or_the_dtype_lacks_is_refused() {
    let refusal = |capabilities, dtype, form| {
        let function = top_k(&Shape::new(dtype, [3, 5000]), 2, true, &aim(0.95));
        let problem = lower(&function, capabilities, &asked(form)).unwrap_err();
        assert!(matches!(problem, Error::Unsupported { .. }));
        problem.to_string()
    };
    for form in [Form::Native, Form::NativeTight] {
        for capabilities in &TARGETS[..2] {
            let name = capabilities.target;
            assert_eq!(
                refusal(capabilities, DType::F32, form),
                format!("approx_min_k: not available on target {name}: it has no form {form}")
            );
        }
        assert_eq!(
            refusal(&tpu::CAPABILITIES, DType::F64, form),
            format!("approx_min_k: not available on target tpu: the form {form} takes no f64")
        );
    }
}

#[test]
fn an_override_that_leaves_xla_less_than_k_still_lowers() {
    let options = ApproxTopKOptions { reduction_input_size_override: Some(1 << 20), ..aim(0.95) };
    let operand = vec![random(Shape::new(DType::F32, [2, 1000]), 4)];
    assert!(reduction_output_size(1000, 2, 500, 0.95, true, Some(1 << 20)).unwrap().size < 500);
    let tight = tight_reduction_output_size(1000, 2, 500, 0.95, Some(1 << 20)).unwrap();
    let function = top_k(operand[0].shape(), 500, false, &options);
    for form in [Form::Native, Form::NativeTight] {
        let lowered = lower(&function, &tpu::CAPABILITIES, &asked(form)).unwrap();
        assert!(
            lowered.function.to_string().contains(&format!("f32[2,{}]", tight.size)),
            "{}",
            lowered.function
        );
        assert_valid(&operand[0], &lowered.function.eval(&operand).unwrap(), false, true, "native");
    }
}
