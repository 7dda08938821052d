//! Transforms of approximate top-k.

use crate::required::{derivatives_match, interpreted, jvp_matches, stack, vmap_matches};
use crate::runner::{FLOATS, FORMS, assert_close, assert_valid, awkward, in_form, random, top_k};
use proptest::prelude::*;
use xlann::ann::max_inner_product;
use xlann::ann::recall::recall_by_index;
use xlann::lower::{Form, Options, lower};
use xlann::target::cpu::PLAIN_CAPABILITIES as CAPABILITIES;
use xlann::{
    ApproxTopKOptions, Array, DType, Error, Function, ScatterKind, Shape, Tangent, grad, jvp, vjp, vmap,
};

const TANGENTS: [Tangent; 2] = [Tangent::Gather, Tangent::Carried];

/// The forms that can carry operands along, and the lowering's own choice.
const CARRYING: [Option<Form>; 3] = [None, Some(Form::Sort), Some(Form::TwoStage)];

fn options(tangent: Tangent) -> ApproxTopKOptions {
    ApproxTopKOptions { tangent, ..ApproxTopKOptions::default() }
}

fn f64s(dims: &[usize]) -> Shape {
    Shape::new(DType::F64, dims)
}

/// Values at a distance from one another, in no order.
fn distinct(shape: Shape) -> Array {
    let count = shape.element_count();
    let values: Vec<f64> =
        (0..count).map(|index| (index * 7 % 11 * count + index) as f64 * 0.1 - 1.0).collect();
    Array::from_f64(shape, &values).unwrap()
}

#[test]
fn derivatives_are_those_of_the_elements_that_are_found() {
    // The shapes of JAX's `test_autodiff`, along every dimension.
    for dims in [&[4][..], &[5, 5], &[2, 1, 4]] {
        for k in [1, 3] {
            for dimension in (0..dims.len()).filter(|&dimension| dims[dimension] >= k) {
                for (tangent, cases) in [
                    (Tangent::Gather, [(false, true), (true, false)]),
                    (Tangent::Carried, [(true, true), (false, false)]),
                ] {
                    for (min, aggregate_to_topk) in cases {
                        let options = ApproxTopKOptions {
                            reduction_dimension: dimension as isize - dims.len() as isize,
                            aggregate_to_topk,
                            ..options(tangent)
                        };
                        let argument = [distinct(f64s(dims))];
                        derivatives_match(&top_k(argument[0].shape(), k, min, &options), &argument, &[0]);
                    }
                }
            }
        }
    }
}

#[test]
fn second_derivatives_of_what_is_searched_and_made_of_it() {
    for tangent in TANGENTS {
        let shapes = [f64s(&[2, 6]), f64s(&[2, 1])];
        let f = Function::trace("f", &shapes, |x| {
            let scores = (&x[0] * x[0].sin()?)?;
            let (values, indices) = (&scores + &x[1])?.approx_max_k(3, &options(tangent))?;
            let exps = values.exp()?;
            Ok((exps.reduce_sum(&[0, 1])?, exps, indices))
        })
        .unwrap();
        let arguments = [random(shapes[0].clone(), 5), random(shapes[1].clone(), 6)];
        for wrt in [&[0][..], &[1], &[0, 1]] {
            derivatives_match(&f, &arguments, wrt);
        }
        // Forward over forward, in the values and in the first direction.
        let once = jvp(&f, &[0]).unwrap();
        let all = [&arguments[..], &[random(shapes[0].clone(), 7)]].concat();
        for wrt in [&[0][..], &[2], &[0, 1, 2]] {
            jvp_matches(&once, &all, wrt);
        }
        derivatives_match(&once, &all, &[0, 2]);
    }
}

#[test]
fn the_gradient_of_the_sum_marks_the_elements_that_are_found() {
    for tangent in TANGENTS {
        let f = Function::trace("sum", &[Shape::new(DType::F32, [5])], |x| {
            x[0].approx_min_k(2, &options(tangent))?.0.reduce_sum(&[0])
        });
        let gradient = grad(&f.unwrap(), &[0]).unwrap();
        let argument = Array::new([5], &[3f32, -9.0, f32::NAN, 2.0, 2.5]).unwrap();
        let expected = Array::new([5], &[0f32, 1.0, 0.0, 1.0, 0.0]).unwrap();
        for results in in_form(&gradient, None, &[vec![argument]]).concat() {
            assert_eq!(results, std::slice::from_ref(&expected));
        }
    }
}

#[test]
fn reverse_derivatives_carry_nothing() {
    let f = top_k(&Shape::new(DType::F32, [3, 300]), 4, false, &options(Tangent::Carried));
    let reverse = vjp(&f, &[0]).unwrap().to_string();
    assert!(reverse.contains("tangent=carried] %0\n") && !reverse.contains("= gather"), "{reverse}");
}

/// The tangents at the indices.
fn at(tangents: &Array, indices: &Array) -> Array {
    let shapes = [tangents.shape().clone(), indices.shape().clone()];
    let take = Function::trace("take", &shapes, |x| x[0].take_along_axis(&x[1], -1)).unwrap();
    take.eval(&[tangents.clone(), indices.clone()]).unwrap().remove(0)
}

/// Requires that carried tangents are those at the indices, in every form that carries, of each operand on its
/// own; and that nothing else differs from gathered ones.
fn carried_are_gathered(operands: &[Array], k: usize, min: bool, aggregate_to_topk: bool) {
    let shape = operands[0].shape();
    let [gathered, carried] = TANGENTS.map(|tangent| {
        let options = ApproxTopKOptions { aggregate_to_topk, ..options(tangent) };
        jvp(&top_k(shape, k, min, &options), &[0]).unwrap()
    });
    let tangents = random(shape.clone(), 77);
    let arguments: Vec<_> = operands.iter().map(|operand| vec![operand.clone(), tangents.clone()]).collect();
    for form in CARRYING {
        let runs = in_form(&carried, form, &arguments);
        for (operand, results) in operands.iter().zip(&runs) {
            for results in results {
                let context = format!("{form:?} of {carried}\n{operand}");
                let sorted = aggregate_to_topk || form == Some(Form::Sort);
                assert_valid(operand, results, min, sorted, &context);
                assert_eq!(results[2], at(&tangents, &results[1]), "{context}");
            }
        }
        // Without a form that is asked for, gathered tangents can come with another one.
        if form.is_some() {
            for (got, expected) in
                runs.iter().flatten().zip(in_form(&gathered, form, &arguments).iter().flatten())
            {
                assert_eq!(got[1..], expected[1..], "{form:?} of {carried}");
                // The sign and the payload of a NaN are left open.
                assert_close(&got[0], &expected[0], &carried);
            }
        }
    }
}

fn carried_are_gathered_in_awkward_rows(dtype: DType, size: usize) {
    let shape = Shape::new(dtype, [1, size]);
    let operands: Vec<_> =
        awkward(size).iter().map(|(_, row)| Array::from_f64(shape.clone(), row).unwrap()).collect();
    for min in [false, true] {
        for k in [1, 7, size] {
            carried_are_gathered(&operands, k, min, true);
        }
        carried_are_gathered(&operands, 7, min, false);
    }
}

#[test]
fn carried_tangents_are_those_at_the_indices_in_awkward_rows_of_f32() {
    carried_are_gathered_in_awkward_rows(DType::F32, 257);
}

#[test]
fn carried_tangents_are_those_at_the_indices_in_awkward_rows_of_f64() {
    carried_are_gathered_in_awkward_rows(DType::F64, 129);
}

#[test]
fn carried_tangents_are_those_at_the_indices_in_awkward_rows_of_f16() {
    carried_are_gathered_in_awkward_rows(DType::F16, 130);
}

#[test]
fn carried_tangents_are_those_at_the_indices_in_awkward_rows_of_bf16() {
    carried_are_gathered_in_awkward_rows(DType::BF16, 131);
}

#[test]
fn carried_tangents_are_those_at_the_indices_in_many_rows() {
    for dtype in FLOATS {
        for aggregate_to_topk in [true, false] {
            let operands = [random(Shape::new(dtype, [2, 3, 1500]), 3)];
            carried_are_gathered(&operands, 10, dtype == DType::F32, aggregate_to_topk);
        }
    }
}

#[test]
fn no_rows_have_no_tangents() {
    let shape = Shape::new(DType::F32, [3, 0, 50]);
    for tangent in TANGENTS {
        let derivative = jvp(&top_k(&shape, 5, false, &options(tangent)), &[0]).unwrap();
        let empty = Array::zeros(shape.clone()).unwrap();
        for form in CARRYING {
            for results in in_form(&derivative, form, &[vec![empty.clone(), empty.clone()]]).concat() {
                assert_eq!(results[2].shape().dims(), [3, 0, 5]);
            }
        }
    }
}

/// Whether a function gathers as many elements as it has results.
fn gathers_results(function: &Function, form: Option<Form>) -> bool {
    let module =
        lower(function, &CAPABILITIES, &Options { approx_top_k: form, ..Default::default() }).unwrap().module;
    let count = function.result_shapes()[0].element_count() as i64;
    let mut instructions = module.computations.iter().flat_map(|computation| &computation.instructions);
    instructions.any(|instruction| {
        let gathered = || instruction.shape.as_ref().unwrap().dimensions.iter().product::<i64>();
        instruction.opcode == "gather" && gathered() == count
    })
}

#[test]
fn carried_tangents_need_no_gather() {
    for dtype in FLOATS {
        for (dims, k, aggregate_to_topk) in
            [(&[8, 5000][..], 10, true), (&[8, 5000], 10, false), (&[3000], 1, true), (&[90, 4], 3, true)]
        {
            for form in CARRYING {
                let [gathered, carried] = TANGENTS.map(|tangent| {
                    let options =
                        ApproxTopKOptions { reduction_dimension: 0, aggregate_to_topk, ..options(tangent) };
                    let f = top_k(&Shape::new(dtype, dims), dims[0].min(k), true, &options);
                    let once = jvp(&f, &[0]).unwrap();
                    let twice = jvp(&once, &[0, 1]).unwrap();
                    [once, twice].map(|derivative| gathers_results(&derivative, form))
                });
                assert_eq!(gathered, [true; 2], "{dims:?} {form:?}");
                assert_eq!(carried, [false; 2], "{dims:?} {form:?}");
            }
        }
    }
}

#[test]
fn the_policy_chooses_among_the_forms_that_carry() {
    let choice = |dims: &[usize], k, recall_target, aggregate_to_topk| {
        let options = ApproxTopKOptions { recall_target, aggregate_to_topk, ..options(Tangent::Carried) };
        let derivative = jvp(&top_k(&Shape::new(DType::F32, dims), k, false, &options), &[0]).unwrap();
        let lowered = lower(&derivative, &CAPABILITIES, &Options::default()).unwrap();
        lowered.choices[0].to_string()
    };
    assert_eq!(
        choice(&[128, 100_000], 10, 0.95, true),
        "approx_max_k f32[128,100000] k=10 carrying 1: two-stage (128 buckets of 781 elements meet the recall target)"
    );
    assert_eq!(
        choice(&[128, 100_000], 10, 0.95, false),
        "approx_max_k f32[128,100000] k=10 carrying 1: two-stage (256 buckets of 390 elements meet the recall target)"
    );
    assert_eq!(
        choice(&[128, 100_000], 10, 1.0, true),
        "approx_max_k f32[128,100000] k=10 carrying 1: sort (exact, and the only such form that carries operands along)"
    );
    assert_eq!(
        choice(&[128, 100], 100, 0.95, true),
        "approx_max_k f32[128,100] k=100 carrying 1: sort (exact, and the only such form that carries operands along)"
    );
}

#[test]
fn a_form_that_cannot_carry_is_refused() {
    let f = top_k(&Shape::new(DType::F32, [3, 500]), 5, false, &options(Tangent::Carried));
    let blocks = Options { approx_top_k: Some(Form::Blocks), ..Default::default() };
    let problem = lower(&jvp(&f, &[0]).unwrap(), &CAPABILITIES, &blocks).unwrap_err();
    assert!(matches!(problem, Error::Unsupported { .. }));
    assert_eq!(
        problem.to_string(),
        "approx_max_k: not available on target cpu: the form blocks cannot carry operands along"
    );
    // The function itself carries none, nor does its reverse derivative.
    lower(&f, &CAPABILITIES, &blocks).unwrap();
    lower(&vjp(&f, &[0]).unwrap(), &CAPABILITIES, &blocks).unwrap();
}

#[test]
fn batches_are_searched_where_they_stand() {
    let shape = Shape::new(DType::F32, [4, 50]);
    for (axis, negative, dims, dimension) in
        [(0, -3, [6, 4, 50], 2), (1, -2, [4, 6, 50], 2), (2, -1, [4, 50, 6], 1)]
    {
        let f = top_k(&shape, 3, false, &ApproxTopKOptions::default());
        let batched = vmap(&f, axis, axis, 6).unwrap();
        assert_eq!(batched, vmap(&f, negative, negative, 6).unwrap());
        assert_eq!(batched.parameter_shapes()[0].dims(), dims);
        let operators: Vec<_> = batched.equations().iter().map(|equation| equation.operator()).collect();
        assert_eq!(operators, ["approx_max_k"]);
        assert!(batched.to_string().contains(&format!("reduction_dimension={dimension},")), "{batched}");
    }
}

#[test]
fn batches_give_what_their_elements_give() {
    for (dims, k, dimension) in
        [(&[7][..], 3, 0), (&[4, 6], 2, 0), (&[4, 6], 6, -1), (&[2, 5, 3], 4, 1), (&[1, 1, 9], 1, -1)]
    {
        for (number, dtype) in (0..).zip(FLOATS) {
            for (min, aggregate_to_topk) in [(false, true), (true, false)] {
                let options = ApproxTopKOptions {
                    reduction_dimension: dimension,
                    aggregate_to_topk,
                    ..options(TANGENTS[number % 2])
                };
                let shape = Shape::new(dtype, dims);
                vmap_matches(&top_k(&shape, k, min, &options), |seed| vec![random(shape.clone(), seed)]);
            }
        }
    }
}

#[test]
fn derivatives_are_batched() {
    // Tangents alone too: one search for all of them.
    for tangent in TANGENTS {
        for (dims, dimension) in [(&[9][..], 0), (&[2, 7], 1), (&[6, 2], 0)] {
            let options = ApproxTopKOptions { reduction_dimension: dimension, ..options(tangent) };
            let shape = f64s(dims);
            let once = jvp(&top_k(&shape, 3, true, &options), &[0]).unwrap();
            vmap_matches(&once, |seed| vec![random(shape.clone(), seed), random(shape.clone(), seed + 9)]);
            let twice = jvp(&once, &[0, 1]).unwrap();
            vmap_matches(&twice, |seed| (0..4).map(|n| random(shape.clone(), seed + 10 * n)).collect());
        }
    }
}

#[test]
fn many_tangents_of_one_operand_take_one_search() {
    let shape = Shape::new(DType::F32, [5, 40]);
    for tangent in TANGENTS {
        let derivative = jvp(&top_k(&shape, 3, false, &options(tangent)), &[0]).unwrap();
        let jacobian = vmap(&derivative, [None, Some(0)], [None, None, Some(0)], 8).unwrap();
        assert!(jacobian.to_string().contains("%2: f32[5,3], %3: s32[5,3] = approx_max_k"), "{jacobian}");
    }
}

#[test]
fn batched_functions_have_derivatives() {
    for tangent in TANGENTS {
        for axis in [0, 1, 2] {
            let options = ApproxTopKOptions { reduction_dimension: 0, ..options(tangent) };
            let batched = vmap(&top_k(&f64s(&[5, 2]), 2, false, &options), axis, -1, 3).unwrap();
            let argument = [distinct(batched.parameter_shapes()[0].clone())];
            derivatives_match(&batched, &argument, &[0]);
        }
    }
}

#[test]
fn batches_of_batches() {
    let shape = Shape::new(DType::F32, [2, 30]);
    for (tangent, aggregate_to_topk) in [(Tangent::Gather, true), (Tangent::Carried, false)] {
        let options = ApproxTopKOptions { aggregate_to_topk, ..options(tangent) };
        for derivative in
            [top_k(&shape, 4, false, &options), jvp(&top_k(&shape, 4, true, &options), &[0]).unwrap()]
        {
            for axis in [0, 1, 2] {
                let inner = vmap(&derivative, axis, axis, 2).unwrap();
                let shapes = inner.parameter_shapes();
                vmap_matches(&inner, |seed| {
                    shapes.iter().zip(0..).map(|(shape, n)| random(shape.clone(), seed + 10 * n)).collect()
                });
            }
        }
    }
}

#[test]
fn unaggregated_vectors_keep_their_result_size_in_a_batch() {
    for (size, k, whole) in
        [(3000, 10, None), (20_000, 10, None), (1500, 1, None), (1000, 10, Some(1_000_000))]
    {
        let options = ApproxTopKOptions {
            aggregate_to_topk: false,
            reduction_input_size_override: whole,
            ..ApproxTopKOptions::default()
        };
        for min in [false, true] {
            let shape = Shape::new(DType::F32, [size]);
            let f = top_k(&shape, k, min, &options);
            let count = f.result_shapes()[0].dims()[0];
            // The formula has fewer for matrices.
            let matrix = top_k(&shape.with_dims([3, size]), k, min, &options);
            assert!(matrix.result_shapes()[0].dims()[1] < count);
            let rows: Vec<_> = (0..3).map(|seed| random(shape.clone(), seed)).collect();
            for axis in [0, 1] {
                let batched = vmap(&f, axis, 0, 3).unwrap();
                assert_eq!(batched.result_shapes()[0].dims(), [3, count]);
                let operand = stack(&rows, axis as usize);
                let best = top_k(&shape.with_dims([3, size]), 1, min, &ApproxTopKOptions::default());
                let best = best.eval(&[stack(&rows, 0)]).unwrap();
                for form in FORMS {
                    for results in in_form(&batched, form, &[vec![operand.clone()]]).concat() {
                        let context = format!("{form:?} of {batched}");
                        assert_valid(&stack(&rows, 0), &results, min, true, &context);
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
fn every_form_searches_batches() {
    let shape = Shape::new(DType::F32, [2, 900]);
    let rows: Vec<_> = (0..3).map(|seed| random(shape.clone(), seed)).collect();
    for (aggregate_to_topk, min) in [(true, false), (false, true)] {
        let options = ApproxTopKOptions { aggregate_to_topk, ..ApproxTopKOptions::default() };
        let f = top_k(&shape, 5, min, &options);
        for axis in 0..=2 {
            let batched = vmap(&f, axis, 0, 3).unwrap();
            for form in FORMS {
                let arguments = vec![stack(&rows, axis as usize)];
                for results in in_form(&batched, form, &[arguments]).concat() {
                    let context = format!("{form:?} of {batched}");
                    let sorted = aggregate_to_topk || matches!(form, Some(Form::Sort | Form::Blocks));
                    assert_valid(&stack(&rows, 0), &results, min, sorted, &context);
                }
            }
        }
    }
}

#[test]
fn batches_of_searches_have_the_recall_that_jax_asks_for() {
    const BATCH: usize = 3;
    const K: usize = 10;
    let shapes = [Shape::new(DType::F32, [8, 16]), Shape::new(DType::F32, [1000, 16])];
    let mips = |recall_target| {
        let options = ApproxTopKOptions { recall_target, ..ApproxTopKOptions::default() };
        Function::trace("mips", &shapes, |x| max_inner_product(&x[0], &x[1], K, &options)).unwrap()
    };
    let elements: Vec<Vec<Array>> = (0..BATCH as u64)
        .map(|seed| vec![random(shapes[0].clone(), 20 + seed), random(shapes[1].clone(), 30 + seed)])
        .collect();
    // Over queries, over databases and over both; batch axis first, last and between.
    for axes in [
        [Some(0), None],
        [Some(2), None],
        [None, Some(0)],
        [None, Some(-1)],
        [Some(0), Some(0)],
        [Some(-1), Some(1)],
        [Some(1), Some(-1)],
    ] {
        let place = |index: usize| axes[index].map(|axis: isize| axis.rem_euclid(3) as usize);
        let arguments: Vec<Array> = (0..2)
            .map(|index| match place(index) {
                Some(axis) => {
                    stack(&elements.iter().map(|element| element[index].clone()).collect::<Vec<_>>(), axis)
                }
                None => elements[0][index].clone(),
            })
            .collect();
        let exact: Vec<Vec<Array>> = (0..BATCH)
            .map(|element| {
                let own =
                    |index: usize| elements[if axes[index].is_some() { element } else { 0 }][index].clone();
                mips(1.0).eval(&[own(0), own(1)]).unwrap()
            })
            .collect();
        let [values, indices] = [0, 1]
            .map(|result| stack(&exact.iter().map(|results| results[result].clone()).collect::<Vec<_>>(), 0));
        let expected = [values, indices];
        let batched = vmap(&mips(0.95), axes, 0, BATCH).unwrap();
        for form in FORMS {
            for results in in_form(&batched, form, std::slice::from_ref(&arguments)).concat() {
                let recall = recall_by_index(&results[1], &expected[1]).unwrap();
                assert!(recall >= 0.9 * 0.95, "{recall}, {form:?} over {axes:?}");
                if matches!(form, Some(Form::Sort | Form::Blocks)) {
                    assert_eq!(results[1], expected[1], "{form:?} over {axes:?}");
                    assert_close(&results[0], &expected[0], &batched);
                }
            }
        }
    }
}

#[test]
fn a_search_is_differentiated_by_queries_and_database() {
    for tangent in TANGENTS {
        let shapes = [f64s(&[2, 3]), f64s(&[6, 3])];
        let mips =
            Function::trace("mips", &shapes, |x| max_inner_product(&x[0], &x[1], 2, &options(tangent)))
                .unwrap();
        let arguments = [random(shapes[0].clone(), 1), random(shapes[1].clone(), 2)];
        derivatives_match(&mips, &arguments, &[0, 1]);
    }
}

#[test]
fn derivatives_of_ties_go_to_the_element_that_is_returned() {
    let operand = Array::new([6], &[1f32, 5.0, 5.0, 5.0, 0.0, 5.0]).unwrap();
    let tangents = Array::new([6], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    for tangent in TANGENTS {
        let derivative = jvp(&top_k(operand.shape(), 2, false, &options(tangent)), &[0]).unwrap();
        for form in [None, Some(Form::Sort)] {
            for results in in_form(&derivative, form, &[vec![operand.clone(), tangents.clone()]]).concat() {
                assert_eq!(results[1], Array::new([2], &[1, 2]).unwrap());
                assert_eq!(results[2], Array::new([2], &[2f32, 3.0]).unwrap());
            }
        }
    }
}

#[test]
fn cotangents_of_unaggregated_results_are_scattered_from_every_form() {
    let shape = Shape::new(DType::F32, [2, 600]);
    for tangent in TANGENTS {
        let options = ApproxTopKOptions { aggregate_to_topk: false, ..options(tangent) };
        let reverse = vjp(&top_k(&shape, 5, false, &options), &[0]).unwrap();
        let arguments: Vec<_> = reverse
            .parameter_shapes()
            .into_iter()
            .zip(1..)
            .map(|(shape, seed)| random(shape, seed))
            .collect();
        for form in FORMS {
            for results in in_form(&reverse, form, std::slice::from_ref(&arguments)).concat() {
                let shapes = [shape.clone(), results[1].shape().clone(), arguments[1].shape().clone()];
                let scatter = Function::trace("scatter", &shapes, |x| {
                    x[0].scatter_along_axis(&x[1], &x[2], 1, ScatterKind::Set)
                });
                let zeros = Array::zeros(shape.clone()).unwrap();
                let expected =
                    scatter.unwrap().eval(&[zeros, results[1].clone(), arguments[1].clone()]).unwrap();
                assert_eq!(results[2], expected[0], "{form:?}");
            }
        }
    }
}

/// Values at a distance from one another, in any order.
fn shuffled(shape: &Shape, seed: u64) -> Array {
    let noise = random(shape.clone(), seed).to_f64();
    let mut order: Vec<usize> = (0..noise.len()).collect();
    order.sort_by(|&a, &b| noise[a].total_cmp(&noise[b]));
    let mut values = noise;
    for (rank, index) in order.into_iter().enumerate() {
        values[index] = rank as f64 * 0.01 - 0.5;
    }
    Array::from_f64(shape.clone(), &values).unwrap()
}

/// Dimensions, one of them, which is sometimes too large for a partial reduction to keep all of it, and how many
/// are sought along it.
fn searched() -> impl Strategy<Value = (Vec<usize>, usize, usize)> {
    let size = prop_oneof![3 => 1usize..7, 1 => 140usize..300];
    (prop::collection::vec(0usize..4, 0..3), size, any::<prop::sample::Index>(), 1usize..5).prop_map(
        |(mut dims, size, place, k)| {
            let place = place.index(dims.len() + 1);
            dims.insert(place, size);
            (dims, place, k.min(size))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_search(
        (dims, dimension, k) in searched(),
        from_end: bool,
        min: bool,
        aggregate_to_topk: bool,
        tangent in prop::sample::select(TANGENTS.to_vec()),
        recall_target in prop::sample::select(vec![0.5, 0.95, 1.0]),
        whole in prop::option::of(0usize..2000),
        seed: u32,
    ) {
        let options = ApproxTopKOptions {
            reduction_dimension: dimension as isize - if from_end { dims.len() as isize } else { 0 },
            recall_target,
            reduction_input_size_override: whole.map(|more| dims[dimension] + more),
            aggregate_to_topk,
            tangent,
        };
        let shape = f64s(&dims);
        let f = top_k(&shape, k, min, &options);
        let arguments = |number| vec![shuffled(&shape, u64::from(seed) + number)];
        interpreted(|| {
            vmap_matches(&f, arguments);
            derivatives_match(&f, &arguments(0), &[0]);
            // One more operand, whose batch dimension is its own.
            let derivative = jvp(&f, &[0]).unwrap();
            vmap_matches(&derivative, |number| {
                let tangent = random(shape.clone(), u64::from(seed) + 7 * number);
                [arguments(number), vec![tangent]].concat()
            });
        });
    }
}

#[test]
fn tangents_that_nothing_reads_are_not_carried() {
    let options = ApproxTopKOptions { tangent: Tangent::Carried, ..ApproxTopKOptions::default() };
    let f = Function::trace("f", &[Shape::new(DType::F32, [8])], |x| {
        let indices = x[0].approx_max_k(2, &options)?.1;
        x[0].sin()?.take_along_axis(&indices, 0)
    })
    .unwrap();
    let derivative = jvp(&f, &[0]).unwrap().to_string();
    let search = derivative.lines().find(|line| line.contains("approx_max_k[")).unwrap();
    assert!(search.ends_with("%0"), "{derivative}");
}
