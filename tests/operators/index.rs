//! Gathers and scatters.

use crate::runner::{assert_close, indices, run};
use crate::windows::{at, case, position};
use proptest::prelude::*;
use xlann::{Array, DType, Error, Function, GatherDims, ScatterDims, ScatterKind, Shape, Tensor};

const KINDS: [ScatterKind; 4] = [ScatterKind::Set, ScatterKind::Add, ScatterKind::Max, ScatterKind::Min];

fn apply(arguments: &[Array], body: impl FnOnce(&[Tensor]) -> Result<Tensor, Error>) -> Array {
    let shapes: Vec<Shape> = arguments.iter().map(|array| array.shape().clone()).collect();
    run(&Function::trace("f", &shapes, body).unwrap(), arguments).remove(0)
}

fn refusal(shapes: &[Shape], body: impl FnOnce(&[Tensor]) -> Result<Tensor, Error>) -> String {
    Function::trace("f", shapes, body).unwrap_err().to_string()
}

fn f32s(dims: &[usize]) -> Shape {
    Shape::new(DType::F32, dims)
}

fn s32s(dims: &[usize]) -> Shape {
    Shape::new(DType::S32, dims)
}

/// 0, 1, 2, ... from `first` on, as far as the dtype goes.
fn count(dtype: DType, dims: &[usize], first: usize) -> Array {
    let shape = Shape::new(dtype, dims);
    let values: Vec<f64> = (first..first + shape.element_count()).map(|value| value as f64).collect();
    Array::from_f64(shape, &values).unwrap()
}

#[test]
fn take_of_every_dtype() {
    for dtype in DType::ALL {
        let operand = count(dtype, &[3, 4], 0);
        let rows = Array::new([2, 2], &[2, 0, 0, 1]).unwrap();
        let got = apply(&[operand.clone(), rows.clone()], |x| x[0].take(&x[1], 0));
        assert_eq!(got.shape(), &Shape::new(dtype, [2, 2, 4]));
        for index in indices(&[2, 2, 4]) {
            let row = at(&rows, &index[..2]) as usize;
            assert_eq!(at(&got, &index), at(&operand, &[row, index[2]]), "{dtype}");
        }
    }
}

#[test]
fn take_along_each_axis() {
    let operand = count(DType::F32, &[2, 3, 4], 0);
    let chosen = Array::new([2], &[1, 0]).unwrap();
    for axis in 0..3 {
        let got = apply(&[operand.clone(), chosen.clone()], |x| x[0].take(&x[1], axis as isize - 3));
        for index in indices(got.shape().dims()) {
            let mut source = index.clone();
            source[axis] = 1 - index[axis];
            assert_eq!(at(&got, &index), at(&operand, &source));
        }
    }
    let got = apply(&[operand, Array::scalar(2)], |x| x[0].take(&x[1], 2));
    assert_eq!(got, Array::new([2, 3], &[2f32, 6.0, 10.0, 14.0, 18.0, 22.0]).unwrap());
}

#[test]
fn indices_of_every_integer_are_clamped() {
    let operand = count(DType::F32, &[5], 0);
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_integer()) {
        let chosen = Array::from_f64(Shape::new(dtype, [4]), &[4.0, 100.0, -100.0, 5.0]).unwrap();
        let got = apply(&[operand.clone(), chosen], |x| x[0].take(&x[1], 0));
        assert_eq!(got, Array::new([4], &[4f32, 4.0, 0.0, 4.0]).unwrap(), "{dtype}");
    }
    let chosen = Array::new([3], &[u32::MAX, 1 << 31, 2]).unwrap();
    let got = apply(&[operand, chosen], |x| x[0].take(&x[1], 0));
    assert_eq!(got, Array::new([3], &[4f32, 4.0, 2.0]).unwrap());
}

#[test]
fn taking_nothing_gives_nothing() {
    for (operand, chosen, axis, expected) in [
        (vec![3, 2], vec![0], 0, vec![0, 2]),
        (vec![3, 0], vec![4], 0, vec![4, 0]),
        (vec![3, 2], vec![0, 5], 1, vec![3, 0, 5]),
    ] {
        let got = apply(&[count(DType::F32, &operand, 0), count(DType::S32, &chosen, 0)], |x| {
            x[0].take(&x[1], axis)
        });
        assert_eq!(got.shape().dims(), expected);
    }
    for (operand, chosen, axis) in [([3, 2], [0, 2], 0), ([0, 3], [0, 2], 1), ([3, 2], [3, 0], 1)] {
        let got = apply(&[count(DType::F32, &operand, 0), count(DType::S32, &chosen, 0)], |x| {
            x[0].take_along_axis(&x[1], axis)
        });
        assert_eq!(got.shape().dims(), chosen);
    }
}

#[test]
fn slices_start_where_they_fit() {
    // Windows of 2 by 2 out of 3 by 4; the last two would reach over an edge.
    let operand = count(DType::F32, &[3, 4], 0);
    let starts = Array::new([3, 2], &[1, 1, 2, 3, -1, 2]).unwrap();
    let dims = GatherDims {
        offset_dims: vec![1, 2],
        start_index_map: vec![0, 1],
        index_vector_dim: 1,
        ..GatherDims::default()
    };
    let got = apply(&[operand, starts], |x| x[0].gather(&x[1], dims, &[2, 2]));
    let expected = [5f32, 6.0, 9.0, 10.0, 6.0, 7.0, 10.0, 11.0, 2.0, 3.0, 6.0, 7.0];
    assert_eq!(got, Array::new([3, 2, 2], &expected).unwrap());
}

#[test]
fn gathers_that_do_not_fit_are_refused() {
    let shapes = [f32s(&[3, 4]), s32s(&[2, 2])];
    let fit = || GatherDims {
        offset_dims: vec![1],
        collapsed_slice_dims: vec![0],
        start_index_map: vec![0, 1],
        index_vector_dim: 1,
        ..GatherDims::default()
    };
    let refuse = |dims: GatherDims, sizes: &[usize]| refusal(&shapes, |x| x[0].gather(&x[1], dims, sizes));
    for (dims, sizes, message) in [
        (fit(), vec![1, 5], "slice_sizes must be at most the sizes of f32[3,4], got [1,5]"),
        (fit(), vec![1], "slice_sizes must be at most the sizes of f32[3,4], got [1]"),
        (
            fit(),
            vec![2, 4],
            "slice_sizes must be 1 at dimension 0, which is collapsed or batching, got [2,4]",
        ),
        (
            GatherDims { index_vector_dim: 3, ..fit() },
            vec![1, 4],
            "index_vector_dim must be at most the rank of s32[2,2], got 3",
        ),
        (
            GatherDims { start_index_map: vec![0], ..fit() },
            vec![1, 4],
            "start_index_map must be 2 dimensions, one for each component of an index, got [0]",
        ),
        (
            GatherDims { start_index_map: vec![0, 0], ..fit() },
            vec![1, 4],
            "start_index_map and operand_batching_dims must be distinct dimensions below 2, got [0,0]",
        ),
        (
            GatherDims { collapsed_slice_dims: vec![2], ..fit() },
            vec![1, 4],
            "collapsed_slice_dims must be increasing dimensions below 2, got [2]",
        ),
        (
            GatherDims { offset_dims: vec![2], ..fit() },
            vec![1, 4],
            "offset_dims must be increasing dimensions below 2, got [2]",
        ),
        (
            GatherDims { offset_dims: vec![], ..fit() },
            vec![1, 4],
            "offset_dims must be 1 dimensions, those of a slice, got []",
        ),
        (
            GatherDims { operand_batching_dims: vec![0], ..fit() },
            vec![1, 4],
            "collapsed_slice_dims and operand_batching_dims must be distinct dimensions below 2, got [0,0]",
        ),
        (
            GatherDims {
                collapsed_slice_dims: vec![],
                operand_batching_dims: vec![0],
                start_index_map: vec![1],
                index_vector_dim: 2,
                start_indices_batching_dims: vec![0],
                ..fit()
            },
            vec![1, 4],
            "start_indices_batching_dims must be batch dimensions of s32[2,2] of the sizes of \
             operand_batching_dims, got [0]",
        ),
    ] {
        assert_eq!(refuse(dims, &sizes), format!("gather: {message}"));
    }
    let take = |indices: Shape, axis| refusal(&[f32s(&[3, 0]), indices], |x| x[0].take(&x[1], axis));
    assert_eq!(take(f32s(&[2]), 0), "gather: indices' dtype must be an integer, got f32");
    assert_eq!(take(s32s(&[2]), 2), "take: axis must be in -2..2 for f32[3,0], got 2");
    assert_eq!(take(s32s(&[2]), 1), "take: axis must be one of size 1 at least, got f32[3,0]");
    assert_eq!(
        refusal(&[f32s(&[3, 4]), s32s(&[2, 2])], |x| x[0].take_along_axis(&x[1], 1)),
        "take_along_axis: indices must be of the sizes of f32[3,4] but for dimension 1, got s32[2,2]"
    );
    assert_eq!(
        refusal(&[f32s(&[3, 4]), s32s(&[3])], |x| x[0].take_along_axis(&x[1], 1)),
        "take_along_axis: indices must be of the sizes of f32[3,4] but for dimension 1, got s32[3]"
    );
}

#[test]
fn scatter_of_every_dtype_and_kind() {
    for dtype in DType::ALL {
        for kind in KINDS {
            if dtype == DType::Pred && kind == ScatterKind::Add {
                continue;
            }
            let operand =
                Array::from_f64(Shape::new(dtype, [2, 3]), &[5.0, 0.0, 2.0, 1.0, 7.0, 3.0]).unwrap();
            let chosen = Array::new([2, 2], &[2, 0, 1, 3]).unwrap();
            let updates = Array::from_f64(Shape::new(dtype, [2, 2]), &[4.0, 1.0, 6.0, 9.0]).unwrap();
            let got = apply(&[operand.clone(), chosen, updates.clone()], |x| {
                x[0].scatter_along_axis(&x[1], &x[2], 1, kind)
            });
            let (before, new) = (operand.to_f64(), updates.to_f64());
            let combine = |old: f64, new: f64| match kind {
                ScatterKind::Set => new,
                ScatterKind::Add => old + new,
                ScatterKind::Max => old.max(new),
                ScatterKind::Min => old.min(new),
            };
            let mut expected = before.clone();
            expected[0] = combine(before[0], new[1]);
            expected[2] = combine(before[2], new[0]);
            expected[4] = combine(before[4], new[2]);
            assert_eq!(
                got,
                Array::from_f64(Shape::new(dtype, [2, 3]), &expected).unwrap(),
                "{dtype} {kind:?}"
            );
        }
    }
}

#[test]
fn updates_of_one_element_add_up() {
    let operand = Array::new([3], &[0f32; 3]).unwrap();
    let chosen = Array::new([5], &[1i64, 1, 0, 1, -1]).unwrap();
    let updates = Array::new([5], &[1f32, 2.0, 3.0, 4.0, 5.0]).unwrap();
    let got =
        apply(&[operand, chosen, updates], |x| x[0].scatter_along_axis(&x[1], &x[2], 0, ScatterKind::Add));
    assert_eq!(got, Array::new([3], &[3f32, 7.0, 0.0]).unwrap());
}

#[test]
fn windows_over_an_edge_are_dropped_whole() {
    let operand = Array::new([3, 3], &[0f32; 9]).unwrap();
    let starts = Array::new([3, 2], &[0, 0, 2, 1, 1, 1]).unwrap();
    let updates =
        Array::new([3, 2, 2], &[1f32, 2.0, 3.0, 4.0, 9.0, 9.0, 9.0, 9.0, 5.0, 6.0, 7.0, 8.0]).unwrap();
    let dims = ScatterDims {
        update_window_dims: vec![1, 2],
        scatter_dims_to_operand_dims: vec![0, 1],
        index_vector_dim: 1,
        ..ScatterDims::default()
    };
    let got = apply(&[operand, starts, updates], |x| x[0].scatter(&x[1], &x[2], ScatterKind::Add, dims));
    assert_eq!(got, Array::new([3, 3], &[1f32, 2.0, 0.0, 3.0, 9.0, 6.0, 0.0, 7.0, 8.0]).unwrap());
}

#[test]
fn scattering_nothing_changes_nothing() {
    let operand = count(DType::F32, &[3, 2], 1);
    let got = apply(&[operand.clone(), count(DType::S32, &[0, 2], 0), count(DType::F32, &[0, 2], 0)], |x| {
        x[0].scatter_along_axis(&x[1], &x[2], 0, ScatterKind::Set)
    });
    assert_eq!(got, operand);
    let none = count(DType::F32, &[0, 2], 0);
    let got = apply(&[none.clone(), count(DType::S32, &[3, 2], 0), count(DType::F32, &[3, 2], 0)], |x| {
        x[0].scatter_along_axis(&x[1], &x[2], 0, ScatterKind::Add)
    });
    assert_eq!(got, none);
}

#[test]
fn scatters_that_do_not_fit_are_refused() {
    let fit = || ScatterDims {
        update_window_dims: vec![1],
        inserted_window_dims: vec![0],
        scatter_dims_to_operand_dims: vec![0],
        index_vector_dim: 1,
        ..ScatterDims::default()
    };
    let refuse = |updates: Shape, dims: ScatterDims| {
        refusal(&[f32s(&[3, 4]), s32s(&[2]), updates], |x| x[0].scatter(&x[1], &x[2], ScatterKind::Set, dims))
    };
    for (updates, dims, message) in [
        (f32s(&[2, 5]), fit(), "updates must be of size 4 at most at dimension 1, got f32[2,5]"),
        (f32s(&[3, 4]), fit(), "updates must be of size 2 at dimension 0, as indices s32[2], got f32[3,4]"),
        (f32s(&[2]), fit(), "updates must be of rank 2, got f32[2]"),
        (s32s(&[2, 4]), fit(), "updates must be of dtype f32, as the other operand f32[3,4], got s32[2,4]"),
        (
            f32s(&[2, 4]),
            ScatterDims { update_window_dims: vec![0, 1], ..fit() },
            "update_window_dims must be 1 dimensions, those of a window, got [0,1]",
        ),
        (
            f32s(&[2, 4]),
            ScatterDims { scatter_dims_to_operand_dims: vec![2], ..fit() },
            "scatter_dims_to_operand_dims and input_batching_dims must be distinct dimensions below 2, got [2]",
        ),
    ] {
        assert_eq!(refuse(updates, dims), format!("scatter_set: {message}"));
    }
    assert_eq!(
        refusal(&[f32s(&[]), s32s(&[2, 0]), f32s(&[2])], |x| {
            let dims = ScatterDims { index_vector_dim: 1, ..ScatterDims::default() };
            x[0].scatter(&x[1], &x[2], ScatterKind::Add, dims)
        }),
        "scatter_add: scatter_dims_to_operand_dims must be one dimension at least, where there are no batching \
         dimensions, got none"
    );
    let preds = Shape::new(DType::Pred, [3]);
    assert_eq!(
        refusal(&[preds.clone(), s32s(&[3]), preds], |x| {
            x[0].scatter_along_axis(&x[1], &x[2], 0, ScatterKind::Add)
        }),
        "scatter_add: operand's dtype must be a number, got pred"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn gather_reads_clamped_windows(case in case()) {
        let operand = count(DType::F32, &case.operand, 1);
        let got = apply(&[operand.clone(), case.starts.clone()], |x| {
            x[0].gather(&x[1], case.dims.clone(), &case.windows)
        });
        prop_assert_eq!(got.shape().dims(), case.outside.as_slice());
        for index in indices(&case.outside) {
            let (start, within) = case.place(&index);
            let source: Vec<usize> = (0..start.len())
                .map(|axis| {
                    let last = case.operand[axis] - case.windows[axis];
                    start[axis].clamp(0, last as i64) as usize + within[axis]
                })
                .collect();
            prop_assert_eq!(at(&got, &index), at(&operand, &source));
        }
    }

    #[test]
    fn scatter_combines_whole_windows(case in case(), kind in prop::sample::select(KINDS[1..].to_vec())) {
        prop_assume!(case.places_something());
        let operand = count(DType::F32, &case.operand, 3);
        let updates = count(DType::F32, &case.outside, 1);
        let dims = case.scatter_dims();
        let got = apply(&[operand.clone(), case.starts.clone(), updates.clone()], |x| {
            x[0].scatter(&x[1], &x[2], kind, dims)
        });
        let mut expected = operand.to_f64();
        for index in indices(&case.outside) {
            let (start, within) = case.place(&index);
            let inside = (0..start.len())
                .all(|axis| start[axis] >= 0 && start[axis] as usize + case.windows[axis] <= case.operand[axis]);
            if inside {
                let target: Vec<usize> =
                    start.iter().zip(&within).map(|(&start, within)| start as usize + within).collect();
                let (old, new) = (&mut expected[position(&case.operand, &target)], at(&updates, &index));
                *old = match kind {
                    ScatterKind::Set => unreachable!("its result is open where updates meet"),
                    ScatterKind::Add => *old + new,
                    ScatterKind::Max => old.max(new),
                    ScatterKind::Min => old.min(new),
                };
            }
        }
        assert_close(&got, &Array::from_f64(operand.shape().clone(), &expected).unwrap(), &"naive");
    }
}
