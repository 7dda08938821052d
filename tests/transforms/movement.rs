//! Transforms of data movement operators.

use crate::required::{dims, interpreted, traced, vmap_and_derivatives, vmap_matches};
use crate::runner::run;
use proptest::prelude::*;
use xlann::{Array, DType, Error, Function, Result, Shape, Tensor, jvp, vjp, vmap};

fn operators(function: &Function) -> Vec<&'static str> {
    function.equations().iter().map(|equation| equation.operator()).collect()
}

/// vmap of every dtype, on the interpreter.
fn vmap_of_all_dtypes(dims: &[&[usize]], body: impl Fn(&[Tensor]) -> Result<Tensor>) {
    for dtype in DType::ALL {
        let (function, arguments) = traced(dtype, dims, &body);
        interpreted(|| vmap_matches(&function, arguments));
    }
}

#[test]
fn the_same_elements_in_other_places() {
    vmap_and_derivatives(&[&[2, 3]], |x| x[0].reshape(&[3, 1, 2]));
    vmap_and_derivatives(&[&[1]], |x| x[0].reshape(&[]));
    vmap_and_derivatives(&[&[2, 0]], |x| x[0].reshape(&[0, 5]));
    vmap_and_derivatives(&[&[2, 3, 4]], |x| x[0].transpose(&[2, 0, 1]));
    vmap_and_derivatives(&[&[]], |x| x[0].transpose(&[]));
    vmap_and_derivatives(&[&[2, 3, 4]], |x| x[0].reverse(&[2, 0]));
    vmap_and_derivatives(&[&[2, 3]], |x| x[0].reverse(&[]));
    vmap_and_derivatives(&[&[1, 3]], |x| x[0].broadcast_in_dim(&[2, 4, 3], &[1, 2]));
    vmap_of_all_dtypes(&[&[2, 3]], |x| {
        x[0].reshape(&[6])?.broadcast_to(&[2, 6])?.transpose(&[1, 0])?.reverse(&[0])
    });
}

#[test]
fn slices() {
    vmap_and_derivatives(&[&[4, 7]], |x| x[0].slice(&[1, 1], &[3, 7], &[1, 2]));
    // The stride passes the limit, and nothing is taken.
    vmap_and_derivatives(&[&[4, 7]], |x| x[0].slice(&[3, 2], &[4, 5], &[usize::MAX, 100]));
    vmap_and_derivatives(&[&[4, 7]], |x| x[0].slice(&[4, 2], &[4, 5], &[1, 2]));
    vmap_and_derivatives(&[&[]], |x| x[0].slice(&[], &[], &[]));
    vmap_of_all_dtypes(&[&[3, 5]], |x| x[0].slice(&[1, 0], &[3, 5], &[1, 3]));
}

#[test]
fn pads() {
    vmap_and_derivatives(&[&[2, 3], &[]], |x| x[0].pad(&x[1], &[1, 0], &[0, 2], &[0, 1]));
    // Cut off: elements, interior padding, whole dimensions.
    vmap_and_derivatives(&[&[4, 3], &[]], |x| x[0].pad(&x[1], &[-1, -2], &[-2, 3], &[0, 1]));
    vmap_and_derivatives(&[&[4, 3], &[]], |x| x[0].pad(&x[1], &[-4, 1], &[2, -4], &[0, 2]));
    vmap_and_derivatives(&[&[2], &[]], |x| x[0].pad(&x[1], &[-1], &[-1], &[3]));
    vmap_and_derivatives(&[&[2], &[]], |x| {
        x[0].pad(&x[1], &[-3], &[isize::MIN + 1_000], &[isize::MAX as usize - 998])
    });
    vmap_and_derivatives(&[&[0, 2], &[]], |x| x[0].pad(&x[1], &[1, 0], &[2, 0], &[5, 0]));
    vmap_and_derivatives(&[&[], &[]], |x| x[0].pad(&x[1], &[], &[], &[]));
    vmap_and_derivatives(&[&[3]], |x| x[0].pad(0, &[2], &[1], &[1]));
    vmap_of_all_dtypes(&[&[2, 3], &[]], |x| x[0].pad(&x[1], &[1, -1], &[0, 2], &[0, 1]));
}

#[test]
fn a_padding_keeps_infinities_out_of_its_cotangent() {
    let shapes = [Shape::new(DType::F64, [2]), Shape::scalar(DType::F64)];
    let pad = Function::trace("pad", &shapes, |x| x[0].pad(&x[1], &[1], &[1], &[0])).unwrap();
    let reverse = vjp(&pad, &[0, 1]).unwrap();
    let cotangent = Array::new([4], &[1.0, f64::INFINITY, 2.0, 3.0]).unwrap();
    let results = run(&reverse, &[Array::new([2], &[1.0, 2.0]).unwrap(), Array::scalar(0.0), cotangent]);
    assert_eq!(results[1..], [Array::new([2], &[f64::INFINITY, 2.0]).unwrap(), Array::scalar(4.0)]);
}

#[test]
fn concatenations() {
    let joined = |axis: isize| move |x: &[Tensor]| Tensor::concatenate(&x.iter().collect::<Vec<_>>(), axis);
    vmap_and_derivatives(&[&[2, 3], &[1, 3], &[0, 3]], joined(0));
    vmap_and_derivatives(&[&[2, 3], &[2, 1]], joined(1));
    vmap_and_derivatives(&[&[3]], joined(0));
    vmap_and_derivatives(&[&[2]], |x| Tensor::concatenate(&[&x[0], &x[0].exp()?, &x[0].full_like(1)?], 0));
    vmap_of_all_dtypes(&[&[2, 3], &[2, 1]], joined(1));
}

#[test]
fn bits_move_with_the_batch_and_have_no_derivative() {
    let cases: [(DType, &[usize], DType); 7] = [
        (DType::F32, &[2, 3], DType::S32),
        (DType::F32, &[], DType::U32),
        (DType::F32, &[2, 3], DType::U16),
        (DType::F64, &[3], DType::U8),
        (DType::U16, &[3, 2], DType::F32),
        (DType::U8, &[8], DType::U64),
        (DType::S16, &[4], DType::S64),
    ];
    for (from, dims, to) in cases {
        let (function, arguments) = traced(from, &[dims], |x| x[0].bitcast_convert(to));
        vmap_matches(&function, arguments);
    }
    let halves = Function::trace("halves", &[Shape::new(DType::F32, [2])], |x| {
        Ok((x[0].bitcast_convert(DType::BF16)?, (&x[0] * 2)?))
    });
    let derivative = jvp(&halves.unwrap(), &[0]).unwrap();
    let x = Array::new([2], &[1f32, 2.0]).unwrap();
    let tangents = run(&derivative, &[x.clone(), x]).split_off(2);
    assert_eq!(tangents[0], Array::zeros(Shape::new(DType::BF16, [2, 2])).unwrap());
    assert_eq!(tangents[1], Array::new([2], &[2f32, 4.0]).unwrap());
}

#[test]
fn batches_stay_where_they_are() {
    let moves: [fn(&Tensor) -> Result<Tensor>; 5] = [
        |x| x.reverse(&[1]),
        |x| x.slice(&[0, 1], &[2, 3], &[1, 1]),
        |x| x.pad(0.5, &[0, 1], &[0, 0], &[0, 0]),
        |x| Tensor::concatenate(&[x, x], 0),
        |x| x.reduce_sum(&[]),
    ];
    for body in moves {
        let (function, _) = traced(DType::F32, &[&[2, 3]], |x| body(&x[0]));
        for axis in 0..3 {
            let batched = vmap(&function, axis, axis, 4).unwrap();
            assert_eq!(operators(&batched), operators(&function), "{batched}");
        }
    }
    // A permutation takes the batch along.
    let (function, _) = traced(DType::F32, &[&[2, 3]], |x| x[0].transpose(&[1, 0]));
    assert_eq!(operators(&vmap(&function, 1, 0, 4).unwrap()), ["transpose"]);
    // A shared operand of a concatenation alone is repeated.
    let (function, _) = traced(DType::F32, &[&[2], &[3]], |x| Tensor::concatenate(&[&x[0], &x[1]], 0));
    let batched = vmap(&function, [Some(1), None], 1, 4).unwrap();
    assert_eq!(operators(&batched), ["broadcast_in_dim", "concatenate"], "{batched}");
}

#[test]
fn a_padding_too_large_is_an_error_in_a_batch_too() {
    // With a batch in front of it the output passes the address space.
    let (function, _) =
        traced(DType::U8, &[&[1]], |x| x[0].pad(&x[0].reshape(&[])?, &[isize::MAX - 1], &[0], &[0]));
    assert!(matches!(vmap(&function, 0, 0, 4), Err(Error::Argument { .. })));
}

/// Dimensions, and as many numbers of a strategy.
fn with_numbers<S: Strategy + Clone>(numbers: S) -> impl Strategy<Value = (Vec<usize>, Vec<S::Value>)>
where
    S::Value: Clone,
{
    dims().prop_flat_map(move |dims| {
        let count = dims.len();
        (Just(dims), prop::collection::vec(numbers.clone(), count))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_reshape_and_permutation(
        (dims, permutation) in dims().prop_flat_map(|dims| {
            let axes: Vec<isize> = (0..dims.len() as isize).collect();
            (Just(dims), Just(axes).prop_shuffle())
        }),
        merge in any::<bool>(),
    ) {
        let count: usize = dims.iter().product();
        let target = if merge { vec![count] } else { [&[1], dims.as_slice(), &[1]].concat() };
        interpreted(|| vmap_and_derivatives(&[&dims], |x| {
            x[0].transpose(&permutation)?.reverse(&permutation[..dims.len() / 2])?.reshape(&target)
        }));
    }

    #[test]
    fn any_slice((dims, numbers) in with_numbers((0usize..5, 0usize..5, 1usize..4))) {
        let bounds = dims.iter().zip(&numbers);
        let limit: Vec<usize> = bounds.map(|(&size, numbers)| numbers.0.min(size)).collect();
        let start: Vec<usize> = limit.iter().zip(&numbers).map(|(&limit, numbers)| numbers.1.min(limit)).collect();
        let stride: Vec<usize> = numbers.iter().map(|numbers| numbers.2).collect();
        interpreted(|| vmap_and_derivatives(&[&dims], |x| x[0].slice(&start, &limit, &stride)));
    }

    #[test]
    fn any_pad((dims, numbers) in with_numbers((-3isize..4, -3isize..4, 0usize..3))) {
        let low: Vec<isize> = numbers.iter().map(|numbers| numbers.0).collect();
        let interior: Vec<usize> = numbers.iter().map(|numbers| numbers.2).collect();
        // As much is cut off as there is at most.
        let high: Vec<isize> = dims.iter().zip(&numbers).map(|(&size, numbers)| {
            let spread = size as isize + (size.saturating_sub(1) * numbers.2) as isize;
            numbers.1.max(-(numbers.0 + spread))
        }).collect();
        interpreted(|| vmap_and_derivatives(&[&dims, &[]], |x| x[0].pad(&x[1], &low, &high, &interior)));
    }

    #[test]
    fn any_concatenation(
        (dims, axis) in dims().prop_filter("a dimension", |dims| !dims.is_empty())
            .prop_flat_map(|dims| { let rank = dims.len(); (Just(dims), 0..rank) }),
        sizes in prop::collection::vec(0usize..3, 1..4),
    ) {
        let all: Vec<Vec<usize>> = sizes.iter().map(|&size| {
            let mut dims = dims.clone();
            dims[axis] = size;
            dims
        }).collect();
        let all: Vec<&[usize]> = all.iter().map(Vec::as_slice).collect();
        interpreted(|| vmap_and_derivatives(&all, |x| {
            Tensor::concatenate(&x.iter().collect::<Vec<_>>(), axis as isize)
        }));
    }
}
