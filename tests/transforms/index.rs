//! Transforms of gathers, scatters and dynamic slices.

use crate::required::{derivatives_match, vmap_matches};
use crate::runner::{assert_close, random, run};
use crate::windows::{Case, case};
use proptest::prelude::*;
use xlann::{Array, DType, Function, GatherDims, ScatterKind, Shape, Tensor, jvp, vjp, vmap};

const KINDS: [ScatterKind; 4] = [ScatterKind::Set, ScatterKind::Add, ScatterKind::Max, ScatterKind::Min];

fn f64s(dims: &[usize]) -> Shape {
    Shape::new(DType::F64, dims)
}

fn trace(arguments: &[Array], body: impl FnOnce(&[Tensor]) -> xlann::Result<Tensor>) -> Function {
    let shapes: Vec<Shape> = arguments.iter().map(|array| array.shape().clone()).collect();
    Function::trace("f", &shapes, body).unwrap()
}

/// Integers from `low` on, below `high`.
fn integers(shape: Shape, low: i32, high: i32, seed: u64) -> Array {
    let values = random(shape.with_dtype(DType::F64), seed).to_f64();
    let spread = |value: &f64| (f64::from(low) + (value + 1.0) / 2.0 * f64::from(high - low)).floor();
    Array::from_f64(shape, &values.iter().map(spread).collect::<Vec<_>>()).unwrap()
}

fn gather(case: &Case, dtype: DType) -> Function {
    let operand = Shape::new(dtype, case.operand.as_slice());
    Function::trace("f", &[operand, case.starts.shape().clone()], |x| {
        x[0].gather(&x[1], case.dims.clone(), &case.windows)
    })
    .unwrap()
}

fn scatter(case: &Case, dtype: DType, kind: ScatterKind) -> Function {
    let [operand, updates] = [&case.operand, &case.outside].map(|dims| Shape::new(dtype, dims.as_slice()));
    Function::trace("f", &[operand, case.starts.shape().clone(), updates], |x| {
        x[0].scatter(&x[1], &x[2], kind, case.scatter_dims())
    })
    .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn gathers_are_batched(case in case()) {
        vmap_matches(&gather(&case, DType::S32), |seed| {
            let operand = integers(Shape::new(DType::S32, case.operand.as_slice()), -99, 99, seed);
            vec![operand, integers(case.starts.shape().clone(), -1, 4, seed)]
        });
    }

    #[test]
    fn gathers_have_derivatives(case in case()) {
        let operand = random(f64s(&case.operand), 1);
        derivatives_match(&gather(&case, DType::F64), &[operand, case.starts.clone()], &[0]);
    }

    #[test]
    fn scatters_are_batched(case in case(), kind in prop::sample::select(KINDS.to_vec())) {
        prop_assume!(case.places_something());
        vmap_matches(&scatter(&case, DType::S32, kind), |seed| {
            let [operand, updates] = [&case.operand, &case.outside]
                .map(|dims| integers(Shape::new(DType::S32, dims.as_slice()), -99, 99, seed));
            vec![operand, integers(case.starts.shape().clone(), -1, 4, seed), updates]
        });
    }

    #[test]
    fn scatters_have_derivatives(
        case in case(),
        kind in prop::sample::select(KINDS.to_vec()),
        wrt in prop::sample::select(vec![vec![0, 2], vec![0], vec![2]]),
    ) {
        prop_assume!(case.places_something());
        let arguments = [random(f64s(&case.operand), 1), case.starts.clone(), random(f64s(&case.outside), 2)];
        derivatives_match(&scatter(&case, DType::F64, kind), &arguments, &wrt);
    }

    #[test]
    fn dynamic_slices_are_batched_and_have_derivatives(
        axes in prop::collection::vec((0usize..4, 0usize..4, -1i32..4), 0..4),
        update in any::<bool>(),
    ) {
        let dims: Vec<usize> = axes.iter().map(|axis| axis.0).collect();
        let sizes: Vec<usize> = axes.iter().map(|axis| axis.1.min(axis.0)).collect();
        let function = |dtype| {
            let operands = [&dims, &sizes].map(|dims| Shape::new(dtype, dims.as_slice()));
            let operands = operands.into_iter().take(1 + usize::from(update));
            let starts = axes.iter().map(|_| Shape::scalar(DType::S32));
            Function::trace("f", &operands.chain(starts).collect::<Vec<_>>(), |x| match update {
                false => x[0].dynamic_slice(&x[1..].iter().collect::<Vec<_>>(), &sizes),
                true => x[0].dynamic_update_slice(&x[1], &x[2..].iter().collect::<Vec<_>>()),
            })
            .unwrap()
        };
        let operands = 1 + usize::from(update);
        let f = function(DType::S16);
        vmap_matches(&f, |seed| {
            let shapes = f.parameter_shapes().into_iter().enumerate();
            shapes.map(|(index, shape)| match index < operands {
                true => integers(shape, -99, 99, seed),
                false => integers(shape, -1, 4, seed + index as u64),
            })
            .collect()
        });
        let f = function(DType::F64);
        let starts = axes.iter().map(|axis| Array::scalar(axis.2));
        let floats = [&dims, &sizes].map(|dims| random(f64s(dims), dims.len() as u64));
        let arguments: Vec<Array> = floats.into_iter().take(operands).chain(starts).collect();
        derivatives_match(&f, &arguments, &(0..operands).collect::<Vec<_>>());
    }
}

/// The gradient of the sum of squares of what is taken, by the operand.
fn taken_squared(operand: &Array, indices: &Array) -> Array {
    let f = trace(&[operand.clone(), indices.clone()], |x| {
        let taken = x[0].take(&x[1], 0)?;
        (&taken * &taken)?.reduce_sum(&[0])
    });
    run(&xlann::grad(&f, &[0]).unwrap(), &[operand.clone(), indices.clone()]).remove(0)
}

#[test]
fn gradients_go_to_where_clamped_indices_read() {
    let operand = Array::new([3], &[1f32, 2.0, 3.0]).unwrap();
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_integer()) {
        // The largest of each dtype, and -100 or 0.
        let indices = Array::from_f64(Shape::new(dtype, [4]), &[f64::INFINITY, 1.0, -100.0, 2.0]).unwrap();
        let expected = Array::new([3], &[2f32, 4.0, 12.0]).unwrap();
        assert_eq!(taken_squared(&operand, &indices), expected, "{dtype}");
    }
}

#[test]
fn narrow_indices_reach_no_further_than_they_go() {
    let operand = random(Shape::new(DType::F32, [300]), 1);
    for (dtype, last) in [(DType::U8, 255), (DType::S8, 127)] {
        let indices = Array::from_f64(Shape::new(dtype, [2]), &[f64::INFINITY, 3.0]).unwrap();
        let mut expected = vec![0f32; 300];
        for index in [last, 3] {
            expected[index] = 2.0 * operand.as_slice::<f32>().unwrap()[index];
        }
        let f = trace(&[operand.clone(), indices.clone()], |x| {
            let taken = x[0].take(&x[1], 0)?;
            (&taken * &taken)?.reduce_sum(&[0])
        });
        let gradient = xlann::grad(&f, &[0]).unwrap().eval(&[operand.clone(), indices]).unwrap().remove(0);
        assert_close(&gradient, &Array::new([300], &expected).unwrap(), &dtype);
    }
}

#[test]
fn batches_larger_than_the_indices_dtype_holds() {
    for dtype in [DType::U8, DType::S8, DType::S32] {
        let operand = random(Shape::new(DType::F32, [300, 4]), 1);
        let indices = integers(Shape::new(dtype, [300, 2]), 0, 4, 2);
        let [row, starts] = [Shape::new(DType::F32, [4]), Shape::new(dtype, [2])];
        let take = Function::trace("take", &[row.clone(), starts.clone()], |x| x[0].take(&x[1], 0)).unwrap();
        let batched = vmap(&take, 0, 0, 300).unwrap();
        run(&batched, &[operand.clone(), indices.clone()]);
        let gradient = vmap(&vjp(&take, &[0]).unwrap(), 0, 0, 300).unwrap();
        let cotangents = random(Shape::new(DType::F32, [300, 2]), 3);
        run(&gradient, &[operand.clone(), indices, cotangents]);

        let scalar = Shape::scalar(dtype);
        let window =
            Function::trace("window", &[row, scalar], |x| x[0].dynamic_slice(&[&x[1]], &[2])).unwrap();
        let batched = vmap(&window, 0, 0, 300).unwrap();
        run(&batched, &[operand, integers(Shape::new(dtype, [300]), 0, 9, 4)]);
    }
}

#[test]
fn starts_in_a_batch_are_clamped_in_dimensions_that_their_dtype_does_not_hold() {
    let operand = random(Shape::new(DType::F32, [1000]), 1);
    let starts = Array::new([3], &[0u8, 200, 255]).unwrap();
    let shapes = [operand.shape().clone(), Shape::scalar(DType::U8)];
    let slice = Function::trace("slice", &shapes, |x| x[0].dynamic_slice(&[&x[1]], &[2])).unwrap();
    let results = run(&vmap(&slice, [None, Some(0)], 0, 3).unwrap(), &[operand.clone(), starts.clone()]);
    let values = operand.as_slice::<f32>().unwrap();
    let expected: Vec<f32> =
        [0, 200, 255].iter().flat_map(|&start| values[start..start + 2].to_vec()).collect();
    assert_eq!(results[0], Array::new([3, 2], &expected).unwrap());

    let shapes = [operand.shape().clone(), Shape::new(DType::F32, [2]), Shape::scalar(DType::U8)];
    let update = Function::trace("update", &shapes, |x| x[0].dynamic_update_slice(&x[1], &[&x[2]])).unwrap();
    let zeros = Array::new([2], &[0f32; 2]).unwrap();
    let batched = vmap(&update, [None, None, Some(0)], 0, 3).unwrap();
    let results = run(&batched, &[operand.clone(), zeros, starts]);
    let mut expected = values.repeat(3);
    for (row, start) in [0, 200, 255].into_iter().enumerate() {
        expected[row * 1000 + start..][..2].fill(0.0);
    }
    assert_eq!(results[0], Array::new([3, 1000], &expected).unwrap());
}

#[test]
fn slices_that_nothing_indexes_add_up() {
    let dims = GatherDims {
        offset_dims: vec![0, 2],
        collapsed_slice_dims: vec![1],
        index_vector_dim: 1,
        ..GatherDims::default()
    };
    let starts = Array::new([4, 0], &[0i32; 0]).unwrap();
    let operand = random(f64s(&[2, 3, 3]), 1);
    let f = trace(&[operand.clone(), starts.clone()], |x| x[0].gather(&x[1], dims, &[2, 1, 2]));
    assert_eq!(f.result_shapes()[0].dims(), [2, 4, 2]);
    derivatives_match(&f, &[operand, starts], &[0]);
}

#[test]
fn an_update_that_is_overwritten_has_no_derivative() {
    let operand = Array::new([4], &[1.0, 2.0, 3.0, 4.0]).unwrap();
    let indices = Array::new([5], &[2, 0, 2, 9, -1]).unwrap();
    let updates = Array::new([5], &[5.0, 6.0, 7.0, 8.0, 9.0]).unwrap();
    let arguments = [operand, indices, updates];
    let f = trace(&arguments, |x| x[0].scatter_along_axis(&x[1], &x[2], 0, ScatterKind::Set));
    let value = f.eval(&arguments).unwrap().remove(0).to_f64();
    assert_eq!(value[2], 7.0, "the last one is left");
    let cotangent = Array::new([4], &[1.0, 10.0, 100.0, 1000.0]).unwrap();
    let results = run(&vjp(&f, &[0, 2]).unwrap(), &[&arguments[..], &[cotangent]].concat());
    assert_eq!(results[1], Array::new([4], &[0.0, 10.0, 0.0, 1000.0]).unwrap());
    assert_eq!(results[2], Array::new([5], &[0.0, 1.0, 100.0, 0.0, 0.0]).unwrap());
    derivatives_match(&f, &arguments, &[0, 2]);
    // The zeros of a value keep their sign.
    let zeros = [Array::new([1], &[-0.0]).unwrap(), Array::new([2], &[0, 5]).unwrap()];
    let arguments = [zeros[0].clone(), zeros[1].clone(), Array::new([2], &[-0.0, 1.0]).unwrap()];
    let f = trace(&arguments, |x| x[0].scatter_along_axis(&x[1], &x[2], 0, ScatterKind::Set));
    let tangents = [Array::new([1], &[1.0]).unwrap()];
    let results = run(&jvp(&f, &[0]).unwrap(), &[&arguments[..], &tangents].concat());
    assert!(results[0].to_f64()[0].is_sign_negative());
}

#[test]
fn a_window_alone_is_set_without_asking_which_update_is_left() {
    let shapes = [f64s(&[3, 4]), Shape::new(DType::S32, [3]), f64s(&[3])];
    let row = [f64s(&[4]), Shape::scalar(DType::S32), Shape::scalar(DType::F64)];
    let set = Function::trace("set", &row, |x| x[0].dynamic_update_slice(&x[2].reshape(&[1])?, &[&x[1]]));
    let batched = vmap(&set.unwrap(), 0, 0, 3).unwrap();
    assert_eq!(batched.parameter_shapes(), shapes);
    let derivative = vjp(&batched, &[0, 2]).unwrap();
    let scatters = derivative.equations().iter().filter(|equation| equation.operator() == "scatter_set");
    assert_eq!(scatters.count(), 2, "the value's and its transpose\n{derivative}");
    let starts = Array::new([3], &[1, 7, -2]).unwrap();
    derivatives_match(
        &batched,
        &[random(shapes[0].clone(), 1), starts, random(shapes[2].clone(), 2)],
        &[0, 2],
    );
}

#[test]
fn equal_extremes_share_the_derivative() {
    for (kind, away) in [(ScatterKind::Max, 0.0), (ScatterKind::Min, 2.0)] {
        let operand = Array::new([3], &[1.0, away, 1.0]).unwrap();
        let indices = Array::new([5], &[0, 0, 1, 1, 7]).unwrap();
        let updates = Array::new([5], &[1.0, away, 1.0, 1.0, 1.0]).unwrap();
        let arguments = [operand, indices, updates];
        let f = trace(&arguments, |x| x[0].scatter_along_axis(&x[1], &x[2], 0, kind));
        let cotangent = Array::new([3], &[1.0, 10.0, 100.0]).unwrap();
        let results = run(&vjp(&f, &[0, 2]).unwrap(), &[&arguments[..], &[cotangent]].concat());
        assert_eq!(results[1], Array::new([3], &[0.5, 0.0, 100.0]).unwrap(), "{kind:?}");
        assert_eq!(results[2], Array::new([5], &[0.5, 0.0, 5.0, 5.0, 0.0]).unwrap(), "{kind:?}");
        // More ties than f16 or bf16 counts.
        for dtype in [DType::F16, DType::BF16] {
            let ones = Array::from_f64(Shape::new(dtype, [5000]), &[1.0; 5000]).unwrap();
            let one = Array::from_f64(Shape::new(dtype, [1]), &[1.0]).unwrap();
            let arguments = [one.clone(), Array::new([5000], &[0; 5000]).unwrap(), ones];
            let f = trace(&arguments, |x| x[0].scatter_along_axis(&x[1], &x[2], 0, kind));
            let results = run(&vjp(&f, &[0, 2]).unwrap(), &[&arguments[..], &[one]].concat());
            for share in [&results[1], &results[2]] {
                let share = share.to_f64()[0];
                assert!((share * 5001.0 - 1.0).abs() < 4e-3, "{kind:?} of {dtype}: {share}");
            }
        }
    }
}

#[test]
fn nothing_to_read_or_to_update() {
    for kind in KINDS {
        for (operand, indices) in [([0, 2], [3, 2]), ([3, 2], [0, 2]), ([3, 0], [2, 0])] {
            let arguments = [f64s(&operand), Shape::new(DType::S32, indices), f64s(&indices)];
            let f =
                Function::trace("f", &arguments, |x| x[0].scatter_along_axis(&x[1], &x[2], 0, kind)).unwrap();
            let make = |seed| {
                let starts = integers(Shape::new(DType::S32, indices), -1, 4, seed);
                vec![random(f64s(&operand), seed), starts, random(f64s(&indices), seed + 9)]
            };
            vmap_matches(&f, make);
            derivatives_match(&f, &make(0), &[0, 2]);
        }
    }
    for (operand, indices, axis) in [([3, 0], vec![2], 0), ([3, 2], vec![0], 0), ([3, 2], vec![2, 0], 1)] {
        let shapes = [f64s(&operand), Shape::new(DType::S32, indices.as_slice())];
        let f = Function::trace("f", &shapes, |x| x[0].take(&x[1], axis)).unwrap();
        let make = |seed| vec![random(f64s(&operand), seed), integers(shapes[1].clone(), -1, 4, seed)];
        vmap_matches(&f, make);
        derivatives_match(&f, &make(0), &[0]);
    }
}
