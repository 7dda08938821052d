//! Approximate top-k of awkward rows: NaNs, infinities, zeros, ties, and sizes about block boundaries.

use crate::runner::{FLOATS, FORMS, assert_valid, awkward, in_form, random, top_k};
use proptest::prelude::*;
use xlann::lower::Form;
use xlann::{ApproxTopKOptions, Array, DType, Function, Shape};

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

/// Checks results along the last dimension; those of an exact form are the interpreter's best, but for the
/// order of equal values.
fn check(operand: &Array, results: &[Array], best: &[Array], form: Option<Form>, min: bool, context: &str) {
    assert_valid(operand, results, min, true, context);
    if matches!(form, Some(Form::Sort | Form::Blocks)) {
        for (index, (value, best)) in results[0].to_f64().iter().zip(best[0].to_f64()).enumerate() {
            assert!(
                *value == best || value.is_nan() && best.is_nan(),
                "{value}, not {best} at {index}: {context}"
            );
        }
    }
}

fn awkward_rows(dtype: DType, sizes: &[usize]) {
    for &size in sizes {
        let (names, rows): (Vec<_>, Vec<_>) = awkward(size).into_iter().unzip();
        let shape = Shape::new(dtype, [1, size]);
        // Each row on its own, as one NaN among the results has all rows searched again.
        let operands: Vec<_> =
            rows.iter().map(|row| vec![Array::from_f64(shape.clone(), row).unwrap()]).collect();
        let mut counts = vec![1, 7.min(size), size];
        counts.dedup();
        for k in counts {
            for min in [false, true] {
                let function = top_k(&shape, k, min, &ApproxTopKOptions::default());
                let best: Vec<_> = operands.iter().map(|operand| function.eval(operand).unwrap()).collect();
                for form in [Form::Sort, Form::TwoStage, Form::Blocks] {
                    let results = in_form(&function, Some(form), &operands);
                    for (((name, operand), best), results) in
                        names.iter().zip(&operands).zip(&best).zip(results)
                    {
                        for (backend, results) in ["cpu", "interpreter"].iter().zip(results) {
                            let context = format!("{name}, {form} of {shape} k={k} min {min} on {backend}");
                            check(&operand[0], &results, best, Some(form), min, &context);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn awkward_rows_of_f32() {
    awkward_rows(DType::F32, &[1, 2, 31, 32, 33, 127, 128, 129, 1023, 1025]);
}

#[test]
fn awkward_rows_of_f64() {
    awkward_rows(DType::F64, &[1, 33, 129, 1024, 2003]);
}

#[test]
fn awkward_rows_of_f16() {
    awkward_rows(DType::F16, &[1, 32, 997]);
}

#[test]
fn awkward_rows_of_bf16() {
    awkward_rows(DType::BF16, &[1, 31, 1025]);
}

#[test]
fn long_rows_with_nans() {
    // Blocks of several windows, and of f64 blocks of blocks.
    let size = 40_003;
    let keep =
        ["a positive NaN", "two numbers among NaNs", "-∞ among NaNs", "infinities, numbers and NaNs", "ties"];
    for dtype in [DType::F32, DType::F64] {
        let shape = Shape::new(dtype, [1, size]);
        let operands: Vec<_> = awkward(size)
            .into_iter()
            .filter(|(name, _)| keep.contains(name))
            .map(|(_, row)| vec![Array::from_f64(shape.clone(), &row).unwrap()])
            .collect();
        for min in [false, true] {
            let function = top_k(&shape, 5, min, &ApproxTopKOptions::default());
            for form in [Form::TwoStage, Form::Blocks] {
                for (operand, results) in operands.iter().zip(in_form(&function, Some(form), &operands)) {
                    let best = function.eval(operand).unwrap();
                    for results in results {
                        check(&operand[0], &results, &best, Some(form), min, &format!("{form} of {shape}"));
                    }
                }
            }
        }
    }
}

#[test]
fn awkward_rows_together() {
    for dtype in FLOATS {
        let size = 300;
        let rows: Vec<Vec<f64>> = awkward(size).into_iter().map(|(_, row)| row).collect();
        let shape = Shape::new(dtype, [2, rows.len() / 2, size]);
        let operand = Array::from_f64(shape.clone(), &rows.concat()).unwrap();
        for min in [false, true] {
            let function = top_k(&shape, 9, min, &ApproxTopKOptions::default());
            let best = function.eval(std::slice::from_ref(&operand)).unwrap();
            for form in FORMS {
                for results in in_form(&function, form, &[vec![operand.clone()]]).concat() {
                    check(&operand, &results, &best, form, min, &format!("{form:?} of {shape} min {min}"));
                }
            }
        }
    }
}

#[test]
fn unaggregated_awkward_rows() {
    let options = ApproxTopKOptions { aggregate_to_topk: false, ..ApproxTopKOptions::default() };
    for dtype in FLOATS {
        let shape = Shape::new(dtype, [1, 3001]);
        let (names, operands): (Vec<_>, Vec<_>) = awkward(3001)
            .into_iter()
            .map(|(name, row)| (name, vec![Array::from_f64(shape.clone(), &row).unwrap()]))
            .unzip();
        for min in [false, true] {
            let function = top_k(&shape, 10, min, &options);
            let best = top_k(&shape, 1, min, &ApproxTopKOptions::default());
            for form in [Form::TwoStage, Form::Blocks] {
                for (index, results) in in_form(&function, Some(form), &operands).into_iter().enumerate() {
                    let operand = &operands[index];
                    let best = best.eval(operand).unwrap()[0].to_f64()[0];
                    for results in results {
                        let context = format!("{}, {form} of {function}", names[index]);
                        assert_valid(&operand[0], &results, min, form == Form::Blocks, &context);
                        let found = results[0].to_f64();
                        assert!(best.is_nan() || found.contains(&best), "no {best}: {context}");
                    }
                }
            }
        }
    }
}

#[test]
fn nan_never_wins_where_a_block_has_nothing_else() {
    // The blocks with the best maxima are blocks of NaNs but for their first element.
    let mut row = vec![NAN; 1000];
    (0..1000).step_by(40).for_each(|index| row[index] = 100.0 + index as f64);
    (1..20).for_each(|index| row[index] = index as f64);
    let operand = Array::from_f64(Shape::new(DType::F32, [1, 1000]), &row).unwrap();
    let function = top_k(operand.shape(), 30, false, &ApproxTopKOptions::default());
    let best = function.eval(std::slice::from_ref(&operand)).unwrap();
    for form in FORMS {
        for results in in_form(&function, form, &[vec![operand.clone()]]).concat() {
            check(&operand, &results, &best, form, false, &format!("{form:?}"));
        }
    }
}

#[test]
fn no_rows_give_no_results() {
    for dtype in FLOATS {
        for (dims, dimension) in
            [(vec![0, 50], -1), (vec![3, 0, 500], 2), (vec![50, 0], 0), (vec![2, 3000, 0, 1], 1)]
        {
            let shape = Shape::new(dtype, dims);
            for aggregate_to_topk in [true, false] {
                let options = ApproxTopKOptions {
                    reduction_dimension: dimension,
                    aggregate_to_topk,
                    ..ApproxTopKOptions::default()
                };
                for min in [false, true] {
                    let function = top_k(&shape, 5, min, &options);
                    let empty = Array::zeros(shape.clone()).unwrap();
                    for form in FORMS {
                        for results in in_form(&function, form, &[vec![empty.clone()]]).concat() {
                            let shapes: Vec<_> = results.iter().map(|array| array.shape().clone()).collect();
                            assert_eq!(shapes, function.result_shapes(), "{form:?} of {shape}");
                        }
                    }
                }
            }
        }
    }
}

/// An array with that dimension last.
fn moved(array: &Array, dimension: isize) -> Array {
    let function =
        Function::trace("moved", std::slice::from_ref(array.shape()), |x| x[0].move_axis(dimension, -1))
            .unwrap();
    function.eval(std::slice::from_ref(array)).unwrap().remove(0)
}

#[test]
fn every_dimension_can_be_searched() {
    for dims in [vec![150], vec![150, 3], vec![2, 140, 3], vec![1, 3, 1, 130], vec![129, 2, 1, 3]] {
        let rank = dims.len() as isize;
        for dimension in -rank..rank {
            let size = dims[dimension.rem_euclid(rank) as usize];
            let k = size.min(4);
            let options =
                ApproxTopKOptions { reduction_dimension: dimension, ..ApproxTopKOptions::default() };
            let operand = random(Shape::new(DType::F32, dims.as_slice()), 2);
            let function = top_k(operand.shape(), k, dimension % 2 == 0, &options);
            let best = function.eval(std::slice::from_ref(&operand)).unwrap();
            for form in FORMS {
                for results in in_form(&function, form, &[vec![operand.clone()]]).concat() {
                    if matches!(form, Some(Form::Sort | Form::Blocks)) {
                        assert_eq!(results, best, "{form:?} of {function}");
                    }
                    let results = [moved(&results[0], dimension), moved(&results[1], dimension)];
                    let context = format!("{form:?} of {function}");
                    assert_valid(&moved(&operand, dimension), &results, dimension % 2 == 0, true, &context);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_shape_k_and_dimension_give_the_best(
        batch in prop::collection::vec(1usize..4, 0..4),
        place in any::<prop::sample::Index>(),
        size in 1usize..400,
        k in any::<prop::sample::Index>(),
        negative in any::<bool>(),
        dtype in prop::sample::select(FLOATS.to_vec()),
        form in prop::sample::select(FORMS.to_vec()),
        min in any::<bool>(),
        target in prop::sample::select(vec![0.5f32, 0.95, 1.0]),
        seed in any::<u64>(),
        specials in prop::collection::vec(prop::sample::select(vec![NAN, -NAN, INF, -INF, 0.0, -0.0, 1.0]), 0..20),
    ) {
        let mut dims = batch;
        let dimension = place.index(dims.len() + 1);
        dims.insert(dimension, size);
        let dimension = dimension as isize - if negative { dims.len() as isize } else { 0 };
        let options =
            ApproxTopKOptions { reduction_dimension: dimension, recall_target: target, ..ApproxTopKOptions::default() };
        let shape = Shape::new(dtype, dims);
        let mut values = random(shape.clone(), seed).to_f64();
        let count = values.len();
        for (index, special) in specials.into_iter().enumerate() {
            values[seed.wrapping_mul(index as u64 + 1) as usize % count] = special;
        }
        let operand = Array::from_f64(shape.clone(), &values).unwrap();
        let function = top_k(&shape, k.index(size) + 1, min, &options);
        let best = function.eval(std::slice::from_ref(&operand)).unwrap();
        let best = [moved(&best[0], dimension), moved(&best[1], dimension)];
        for results in in_form(&function, form, &[vec![operand.clone()]]).concat() {
            let results = [moved(&results[0], dimension), moved(&results[1], dimension)];
            // With a target of 1, nothing is lost in any form.
            let form = if target == 1.0 { Some(Form::Sort) } else { form };
            check(&moved(&operand, dimension), &results, &best, form, min, &format!("{form:?} of {function}"));
        }
    }
}

#[test]
fn denormals_are_told_from_zeros_and_from_each_other() {
    let size = 3000;
    for (dtype, least) in
        [(DType::F32, 1e-40), (DType::BF16, 1e-39), (DType::F16, 1.2e-7), (DType::F64, 1e-310)]
    {
        for min in [false, true] {
            let sign = if min { -1.0 } else { 1.0 };
            let ordinary = |index: usize| -sign * (index % 7) as f64;
            let row = |value: &dyn Fn(usize) -> f64| (0..size).map(value).collect::<Vec<_>>();
            let placed = |index: usize| match index {
                1234 => Some(3.0 * sign * least),
                2221 => Some(4.0 * sign * least),
                7 => Some(2.0 * sign * least),
                _ => None,
            };
            let rows = [
                row(&|index| placed(index).unwrap_or(0.0)),
                row(&|index| placed(index).unwrap_or(ordinary(index))),
                // All are denormals, and two are zeros.
                row(&|index| placed(index).unwrap_or(if index % 1000 == 5 { 0.0 } else { -sign * least })),
                row(&|index| placed(index).unwrap_or(if index % 3 == 0 { f64::NAN } else { 0.0 })),
            ];
            for aggregate_to_topk in [true, false] {
                let options = ApproxTopKOptions { aggregate_to_topk, ..ApproxTopKOptions::default() };
                let operands: Vec<_> = rows
                    .iter()
                    .map(|row| vec![Array::from_f64(Shape::new(dtype, [1, size]), row).unwrap()])
                    .collect();
                let function = top_k(operands[0][0].shape(), 3, min, &options);
                for form in [None, Some(Form::Sort), Some(Form::TwoStage), Some(Form::Blocks)] {
                    for (operand, found) in operands.iter().zip(in_form(&function, form, &operands)) {
                        let context =
                            format!("{form:?} of {dtype}, min {min}, aggregated {aggregate_to_topk}");
                        for results in found {
                            assert_valid(&operand[0], &results, min, aggregate_to_topk, &context);
                            let indices = results[1].to_vec::<i32>().unwrap();
                            let best = [2221, 1234, 7];
                            match aggregate_to_topk {
                                true => assert_eq!(indices, best, "{context}"),
                                false => assert!(best.iter().all(|best| indices.contains(best)), "{context}"),
                            }
                        }
                    }
                }
            }
        }
    }
}
