//! Transforms of sorts and of top-k.

use crate::required::{derivatives_match, vmap_matches};
use crate::runner::{random, run};
use proptest::prelude::*;
use xlann::{Array, DType, Function, Shape, jvp, vjp, vmap};

fn f64s(dims: &[usize]) -> Shape {
    Shape::new(DType::F64, dims)
}

/// Values with many ties, of any dtype.
fn tied(shape: Shape, seed: u64) -> Array {
    let values: Vec<f64> = random(shape.with_dtype(DType::F64), seed).to_f64();
    Array::from_f64(shape, &values.iter().map(|value| (value * 2.0).abs().floor()).collect::<Vec<_>>())
        .unwrap()
}

/// Sorts by the second of three operands, descending, then by the first; the third moves along.
fn by_two_keys(dtypes: [DType; 3], dims: &[usize], axis: isize, stable: bool) -> Function {
    let scalars: Vec<Shape> = dtypes.iter().flat_map(|&dtype| vec![Shape::scalar(dtype); 2]).collect();
    let comparator = Function::trace("comparator", &scalars, |x| {
        let tie = (x[2].equal(&x[3])? & x[0].less(&x[1]))?;
        x[2].greater(&x[3])? | tie
    });
    let shapes = dtypes.map(|dtype| Shape::new(dtype, dims));
    Function::trace("f", &shapes, |x| {
        x[0].builder().sort_by(&[&x[0], &x[1], &x[2]], axis, stable, comparator.unwrap())
    })
    .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn sorts_are_batched(
        dims in prop::collection::vec(0usize..5, 1..4),
        axis in 0isize..3,
        dtypes in prop::sample::select(vec![
            [DType::S32, DType::BF16, DType::Pred],
            [DType::U8, DType::F64, DType::F32],
            [DType::F16, DType::S64, DType::U16],
        ]),
    ) {
        let axis = axis % dims.len() as isize;
        let f = by_two_keys(dtypes, &dims, axis, true);
        let place = |(number, shape): (u64, Shape), seed| tied(shape, 3 * seed + number);
        vmap_matches(&f, |seed| (0..).zip(f.parameter_shapes()).map(|pair| place(pair, seed)).collect());
    }

    #[test]
    fn sorts_have_derivatives(
        dims in prop::collection::vec(0usize..5, 1..4),
        axis in 0isize..3,
        wrt in prop::sample::select(vec![vec![0], vec![1], vec![2], vec![0, 1], vec![2, 0], vec![0, 1, 2]]),
        stable in any::<bool>(),
    ) {
        let axis = axis % dims.len() as isize;
        let f = by_two_keys([DType::F64; 3], &dims, axis, stable);
        let arguments = [1, 2, 3].map(|seed| random(f64s(&dims), seed));
        derivatives_match(&f, &arguments, &wrt);
    }

    #[test]
    fn top_k_is_batched_and_has_derivatives(
        dims in prop::collection::vec(0usize..5, 1..4),
        k in 0usize..5,
        dtype in prop::sample::select(vec![DType::S32, DType::BF16, DType::F32, DType::U8]),
    ) {
        let k = k.min(dims[dims.len() - 1]);
        let top_k = |shape: Shape| Function::trace("f", &[shape], |x| x[0].top_k(k)).unwrap();
        let shape = Shape::new(dtype, dims.as_slice());
        vmap_matches(&top_k(shape.clone()), |seed| vec![tied(shape.clone(), seed)]);
        derivatives_match(&top_k(f64s(&dims)), &[random(f64s(&dims), 1)], &[0]);
    }
}

#[test]
fn sorts_of_one_operand() {
    let shape = f64s(&[3, 4]);
    for axis in 0..2 {
        let f = Function::trace("f", std::slice::from_ref(&shape), |x| {
            Ok((x[0].sort(axis)?, x[0].argsort(axis)?, (&x[0] * &x[0])?.sort(axis)?))
        });
        let f = f.unwrap();
        vmap_matches(&f, |seed| vec![random(shape.clone(), seed)]);
        derivatives_match(&f, &[random(shape.clone(), 1)], &[0]);
    }
}

/// The operators of a function, in order.
fn operators(function: &Function) -> Vec<&'static str> {
    function.equations().iter().map(|equation| equation.operator()).collect()
}

#[test]
fn tangents_are_carried_by_the_sort() {
    let f = Function::trace("f", &[f64s(&[4])], |x| x[0].sort(0)).unwrap();
    assert_eq!(operators(&jvp(&f, &[0]).unwrap()), ["sort"]);
    let reverse = operators(&vjp(&f, &[0]).unwrap());
    assert_eq!(reverse.iter().filter(|operator| **operator == "sort").count(), 1, "{reverse:?}");
}

#[test]
fn equal_elements_keep_their_tangents() {
    let f = Function::trace("f", &[Shape::new(DType::F32, [5])], |x| x[0].sort(0)).unwrap();
    let x = Array::new([5], &[2f32, 1.0, f32::NAN, 1.0, 0.0]).unwrap();
    let tangent = Array::new([5], &[1f32, 2.0, 3.0, 4.0, 5.0]).unwrap();
    let results = run(&jvp(&f, &[0]).unwrap(), &[x.clone(), tangent.clone()]);
    assert_eq!(results[1], Array::new([5], &[5f32, 2.0, 4.0, 1.0, 3.0]).unwrap());
    let results = run(&vjp(&f, &[0]).unwrap(), &[x, tangent]);
    assert_eq!(results[1], Array::new([5], &[4f32, 2.0, 5.0, 3.0, 1.0]).unwrap());
}

#[test]
fn a_key_without_derivative_moves_the_values() {
    // Values by integer keys: only the values have a derivative.
    let shapes = [Shape::new(DType::S32, [4]), f64s(&[4])];
    let scalars = [DType::S32, DType::S32, DType::F64, DType::F64].map(Shape::scalar);
    let comparator = Function::trace("less", &scalars, |x| x[0].less(&x[1])).unwrap();
    let f = Function::trace("f", &shapes, |x| {
        x[0].builder().sort_by(&[&x[0], &(&x[1] * &x[1])?], 0, true, comparator)
    });
    let keys = Array::new([4], &[3, 1, 3, 0]).unwrap();
    derivatives_match(&f.unwrap(), &[keys, random(f64s(&[4]), 1)], &[1]);
}

#[test]
fn equal_leaders_of_top_k_keep_their_order() {
    let f = Function::trace("f", &[Shape::new(DType::F32, [2, 3])], |x| x[0].top_k(2)).unwrap();
    let x = Array::new([2, 3], &[1f32, 2.0, 2.0, 5.0, 5.0, 5.0]).unwrap();
    let cotangent = Array::new([2, 2], &[1f32, 2.0, 3.0, 4.0]).unwrap();
    let results = run(&vjp(&f, &[0]).unwrap(), &[x, cotangent]);
    assert_eq!(results[2], Array::new([2, 3], &[0f32, 1.0, 2.0, 3.0, 4.0, 0.0]).unwrap());
}

#[test]
fn an_operand_that_is_shared_is_repeated_only_beside_a_batch() {
    let f = Function::trace("f", &[f64s(&[4]), f64s(&[4])], |x| {
        let [shared, own] = [x[0].sort(0)?, x[1].sort(0)?];
        shared + own
    });
    let batched = vmap(&f.unwrap(), [None, Some(1)], 0, 3).unwrap();
    let sorts: Vec<&Shape> = batched
        .equations()
        .iter()
        .filter(|equation| equation.operator() == "sort")
        .map(|equation| batched.shape(equation.outputs()[0]))
        .collect();
    assert_eq!(sorts, [&f64s(&[4]), &f64s(&[4, 3])]);
}

#[test]
fn tangents_that_nothing_reads_are_not_sorted() {
    let f = Function::trace("f", &[Shape::new(DType::F32, [8])], |x| {
        let order = x[0].argsort(0)?;
        x[0].sin()?.take_along_axis(&order, 0)
    })
    .unwrap();
    let derivative = jvp(&f, &[0]).unwrap().to_string();
    let sorts: Vec<&str> = derivative.lines().filter(|line| line.contains("= sort")).collect();
    assert_eq!(sorts.len(), 1, "{derivative}");
    assert_eq!(sorts[0].matches("f32[8]").count() + sorts[0].matches("s32[8]").count(), 2, "{derivative}");
}
