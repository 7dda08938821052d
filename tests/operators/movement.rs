//! Data movement operators, against loops over indices.

use crate::runner::run;
use proptest::prelude::*;
use xlann::{Array, Builder, DType, Function, Result, Shape, Tensor};

fn apply(arguments: &[Array], body: impl FnOnce(&[Tensor]) -> Result<Tensor>) -> Array {
    let shapes: Vec<Shape> = arguments.iter().map(|array| array.shape().clone()).collect();
    run(&Function::trace("test", &shapes, body).unwrap(), arguments).remove(0)
}

fn refusal(dims: &[&[usize]], body: impl FnOnce(&[Tensor]) -> Result<Tensor>) -> String {
    let shapes: Vec<_> = dims.iter().map(|&dims| Shape::new(DType::S32, dims)).collect();
    Function::trace("test", &shapes, body).unwrap_err().to_string()
}

/// All indices of an array of these dimensions, in row-major order.
fn indices(dims: &[usize]) -> Vec<Vec<usize>> {
    dims.iter().fold(vec![Vec::new()], |prefixes, &size| {
        let extended = |prefix: Vec<usize>| (0..size).map(move |index| [&prefix[..], &[index]].concat());
        prefixes.into_iter().flat_map(extended).collect()
    })
}

/// An array of the dtype whose elements count up, wrapping.
fn counting(dtype: DType, dims: &[usize]) -> Array {
    let shape = Shape::new(dtype, dims);
    let values: Vec<f64> = (0..shape.element_count()).map(|position| (position % 100) as f64).collect();
    Array::from_f64(shape, &values).unwrap()
}

/// The element at an index, by Horner's rule.
fn at(array: &Array, index: &[usize]) -> f64 {
    let position = index.iter().zip(array.shape().dims()).fold(0, |position, (i, size)| position * size + i);
    array.to_f64()[position]
}

/// An array of these dimensions whose elements `element` gives.
fn built(dtype: DType, dims: &[usize], element: impl FnMut(Vec<usize>) -> f64) -> Array {
    let values: Vec<f64> = indices(dims).into_iter().map(element).collect();
    Array::from_f64(Shape::new(dtype, dims), &values).unwrap()
}

fn dims() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1 => Just(0usize), 2 => Just(1), 9 => 2usize..5], 0..4)
}

fn dtype() -> impl Strategy<Value = DType> {
    prop::sample::select(&DType::ALL[..])
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
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn transpose_permutes(
        (dims, order) in dims().prop_flat_map(|dims| {
            let order: Vec<isize> = (0..dims.len() as isize).collect();
            (Just(dims), Just(order).prop_shuffle())
        }),
        dtype in dtype(),
    ) {
        let operand = counting(dtype, &dims);
        let output: Vec<usize> = order.iter().map(|&axis| dims[axis as usize]).collect();
        let expected = built(dtype, &output, |index| {
            let mut from = vec![0; dims.len()];
            for (&axis, i) in order.iter().zip(index) {
                from[axis as usize] = i;
            }
            at(&operand, &from)
        });
        prop_assert_eq!(apply(&[operand], |x| x[0].transpose(&order)), expected);
    }

    #[test]
    fn reverse_reverses((dims, reversed) in with_numbers(any::<bool>()), dtype in dtype()) {
        let operand = counting(dtype, &dims);
        let axes: Vec<isize> = (0..dims.len()).filter(|&axis| reversed[axis]).map(|axis| axis as isize).collect();
        let expected = built(dtype, &dims, |mut index| {
            for axis in 0..dims.len() {
                if reversed[axis] {
                    index[axis] = dims[axis] - 1 - index[axis];
                }
            }
            at(&operand, &index)
        });
        prop_assert_eq!(apply(&[operand], |x| x[0].reverse(&axes)), expected);
    }

    #[test]
    fn reshape_keeps_the_order(dims in dims(), dtype in dtype()) {
        let operand = counting(dtype, &dims);
        let count = operand.shape().element_count();
        let flat = built(dtype, &[count], |index| (index[0] % 100) as f64);
        prop_assert_eq!(apply(std::slice::from_ref(&operand), |x| x[0].reshape(&[count])), flat.clone());
        prop_assert_eq!(apply(&[flat], |x| x[0].reshape(&dims)), operand);
    }

    #[test]
    fn slice_takes_every_stride_th(
        (dims, bounds) in with_numbers((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1usize..4)),
        dtype in dtype(),
    ) {
        let operand = counting(dtype, &dims);
        let (mut start, mut limit, mut stride) = (vec![], vec![], vec![]);
        for (size, (a, b, step)) in dims.iter().zip(bounds) {
            let (a, b) = (a.index(size + 1), b.index(size + 1));
            start.push(a.min(b));
            limit.push(a.max(b));
            stride.push(step);
        }
        let kept: Vec<Vec<usize>> =
            (0..dims.len()).map(|axis| (start[axis]..limit[axis]).step_by(stride[axis]).collect()).collect();
        let output: Vec<usize> = kept.iter().map(Vec::len).collect();
        let expected = built(dtype, &output, |index| {
            at(&operand, &index.iter().zip(&kept).map(|(&i, kept)| kept[i]).collect::<Vec<_>>())
        });
        prop_assert_eq!(apply(&[operand], |x| x[0].slice(&start, &limit, &stride)), expected);
    }

    #[test]
    fn dynamic_slice_moves_starts_inside(
        (dims, windows) in with_numbers((any::<prop::sample::Index>(), -3i32..8)),
        dtype in dtype(),
    ) {
        let operand = counting(dtype, &dims);
        let sizes: Vec<usize> = dims.iter().zip(&windows).map(|(size, (i, _))| i.index(size + 1)).collect();
        let starts: Vec<Array> = windows.iter().map(|&(_, start)| Array::scalar(start)).collect();
        let places: Vec<usize> = (0..dims.len())
            .map(|axis| (windows[axis].1.max(0) as usize).min(dims[axis] - sizes[axis]))
            .collect();
        let expected = built(dtype, &sizes, |index| {
            at(&operand, &index.iter().zip(&places).map(|(i, place)| i + place).collect::<Vec<_>>())
        });
        let arguments = [std::slice::from_ref(&operand), &starts[..]].concat();
        let got = apply(&arguments, |x| x[0].dynamic_slice(&x[1..].iter().collect::<Vec<_>>(), &sizes));
        prop_assert_eq!(got, expected);

        let update = built(dtype, &sizes, |_| 1.0);
        let expected = built(dtype, &dims, |index| {
            let inside = (0..dims.len())
                .all(|axis| (places[axis]..places[axis] + sizes[axis]).contains(&index[axis]));
            if inside { 1.0 } else { at(&operand, &index) }
        });
        let arguments = [&[operand, update], &starts[..]].concat();
        let got =
            apply(&arguments, |x| x[0].dynamic_update_slice(&x[1], &x[2..].iter().collect::<Vec<_>>()));
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn pad_puts_values_around_and_between(
        (dims, padding) in with_numbers((-2isize..4, -2isize..4, 0usize..3)),
        dtype in dtype(),
    ) {
        let operand = counting(dtype, &dims);
        let low: Vec<isize> = padding.iter().map(|&(low, _, _)| low).collect();
        let high: Vec<isize> = padding.iter().map(|&(_, high, _)| high).collect();
        let interior: Vec<usize> = padding.iter().map(|&(_, _, interior)| interior).collect();
        // Along each dimension: which element, or none, lies at each place.
        let rows: Option<Vec<Vec<Option<usize>>>> = (0..dims.len())
            .map(|axis| {
                let mut row = Vec::new();
                for index in 0..dims[axis] {
                    if index > 0 {
                        row.extend(vec![None; interior[axis]]);
                    }
                    row.push(Some(index));
                }
                let mut row = [vec![None; low[axis].max(0) as usize], row, vec![None; high[axis].max(0) as usize]].concat();
                let (front, back) = ((-low[axis]).max(0) as usize, (-high[axis]).max(0) as usize);
                (front + back <= row.len()).then(|| {
                    row.truncate(row.len() - back);
                    row.split_off(front)
                })
            })
            .collect();
        let value = built(dtype, &[], |_| 1.0);
        match rows {
            Some(rows) => {
                let output: Vec<usize> = rows.iter().map(Vec::len).collect();
                let expected = built(dtype, &output, |index| {
                    let from: Option<Vec<usize>> = index.iter().zip(&rows).map(|(&i, row)| row[i]).collect();
                    from.map_or(1.0, |from| at(&operand, &from))
                });
                let got = apply(&[operand, value], |x| x[0].pad(&x[1], &low, &high, &interior));
                prop_assert_eq!(got, expected);
            }
            None => {
                let shapes = [operand.shape().clone(), value.shape().clone()];
                let traced = Function::trace("test", &shapes, |x| x[0].pad(&x[1], &low, &high, &interior));
                prop_assert!(traced.unwrap_err().to_string().starts_with("pad: padding must be such that"));
            }
        }
    }

    #[test]
    fn concatenate_joins(
        (dims, axis) in dims().prop_filter("of rank 1 at least", |dims| !dims.is_empty())
            .prop_flat_map(|dims| { let rank = dims.len(); (Just(dims), 0..rank) }),
        sizes in prop::collection::vec(0usize..4, 1..5),
        dtype in dtype(),
    ) {
        let mut operands = Vec::new();
        for &size in &sizes {
            let mut dims = dims.clone();
            dims[axis] = size;
            operands.push(counting(dtype, &dims));
        }
        let owners: Vec<(usize, usize)> =
            sizes.iter().enumerate().flat_map(|(owner, &size)| (0..size).map(move |i| (owner, i))).collect();
        let mut output = dims.clone();
        output[axis] = owners.len();
        let expected = built(dtype, &output, |mut index| {
            let (owner, i) = owners[index[axis]];
            index[axis] = i;
            at(&operands[owner], &index)
        });
        let got = apply(&operands, |x| Tensor::concatenate(&x.iter().collect::<Vec<_>>(), axis as isize));
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn broadcast_in_dim_repeats(
        (dims, kept) in with_numbers((any::<bool>(), any::<bool>())),
        dtype in dtype(),
    ) {
        let places: Vec<usize> = (0..dims.len()).filter(|&axis| kept[axis].0).collect();
        let from: Vec<usize> = places.iter().map(|&axis| if kept[axis].1 { dims[axis] } else { 1 }).collect();
        let operand = counting(dtype, &from);
        let expected = built(dtype, &dims, |index| {
            let of = |(&axis, &size): (&usize, &usize)| if size == 1 { 0 } else { index[axis] };
            at(&operand, &places.iter().zip(&from).map(of).collect::<Vec<_>>())
        });
        prop_assert_eq!(apply(&[operand], |x| x[0].broadcast_in_dim(&dims, &places)), expected);
    }

    #[test]
    fn iota_counts(
        (dims, axis) in dims().prop_filter("of rank 1 at least", |dims| !dims.is_empty())
            .prop_flat_map(|dims| { let rank = dims.len(); (Just(dims), 0..rank) }),
        dtype in dtype().prop_filter("a number", |&dtype| dtype != DType::Pred),
    ) {
        let builder = Builder::new("iota");
        let iota = builder.iota(Shape::new(dtype, dims.as_slice()), axis as isize).unwrap();
        let got = run(&builder.finish(iota).unwrap(), &[]).remove(0);
        prop_assert_eq!(got, built(dtype, &dims, |index| index[axis] as f64));
    }
}

#[test]
fn conveniences_are_reshapes_and_transposes() {
    let x = counting(DType::F32, &[2, 1, 3]);
    let dims = |body: fn(&Tensor) -> Result<Tensor>| {
        apply(std::slice::from_ref(&x), |x| body(&x[0])).shape().dims().to_vec()
    };
    assert_eq!(dims(|x| x.expand_dims(0)), [1, 2, 1, 3]);
    assert_eq!(dims(|x| x.expand_dims(-1)), [2, 1, 3, 1]);
    assert_eq!(dims(|x| x.expand_dims(-4)), [1, 2, 1, 3]);
    assert_eq!(dims(|x| x.squeeze(&[1])), [2, 3]);
    assert_eq!(dims(|x| x.squeeze(&[])), [2, 1, 3]);
    assert_eq!(dims(|x| x.expand_dims(0)?.squeeze(&[-2, 0])), [2, 3]);
    assert_eq!(dims(|x| x.swap_axes(0, -1)), [3, 1, 2]);
    assert_eq!(dims(|x| x.move_axis(0, -1)), [1, 3, 2]);
    assert_eq!(dims(|x| x.move_axis(-1, 0)), [3, 2, 1]);
    assert_eq!(dims(|x| x.slice_in_dim(1, 3, 2, -1)), [2, 1, 1]);
    let swapped = apply(std::slice::from_ref(&x), |x| x[0].swap_axes(0, 2));
    assert_eq!(swapped.to_f64(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
}

#[test]
fn starts_are_of_any_integer_dtype() {
    let operand = counting(DType::S32, &[300]);
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_integer()) {
        for (start, expected) in [(0.0, 0), (100.0, 100), (1e30, 298), (-1.0, 0), (200.0, 200)] {
            // The conversion saturates.
            let start = Array::from_f64(Shape::scalar(dtype), &[start]).unwrap();
            let expected = expected.min(start.to_f64()[0].max(0.0) as i32);
            let got = apply(&[operand.clone(), start], |x| x[0].dynamic_slice(&[&x[1]], &[2]));
            assert_eq!(got.to_f64()[0] as i32, expected % 100, "{dtype}");
        }
    }
}

#[test]
fn a_stride_past_the_end_takes_the_first() {
    let x = counting(DType::S32, &[5]);
    assert_eq!(apply(&[x], |x| x[0].slice(&[3], &[5], &[usize::MAX])), Array::new([1], &[3]).unwrap());
}

#[test]
fn reshape_refuses() {
    let of = |dims: &[usize]| refusal(&[&[2, 3]], |x| x[0].reshape(dims));
    assert_eq!(of(&[7]), "reshape: dims must be of 6 elements, as s32[2,3], got [7]");
    assert_eq!(of(&[0]), "reshape: dims must be of 6 elements, as s32[2,3], got [0]");
    assert!(of(&[usize::MAX, 2]).starts_with("reshape: shape must be of at most"));
    assert_eq!(
        refusal(&[&[2, 1]], |x| x[0].squeeze(&[0])),
        "squeeze: axes must be dimensions of size 1 of s32[2,1], got 0"
    );
    assert_eq!(
        refusal(&[&[2, 1]], |x| x[0].squeeze(&[1, -1])),
        "squeeze: axes must be each named once, got 1 twice"
    );
    assert_eq!(
        refusal(&[&[2]], |x| x[0].expand_dims(2)),
        "expand_dims: axis must be in -2..2 for s32[2,1], got 2"
    );
}

#[test]
fn transpose_and_reverse_refuse() {
    let of = |order: &[isize]| refusal(&[&[2, 3]], |x| x[0].transpose(order));
    assert_eq!(of(&[0]), "transpose: permutation must be each dimension of s32[2,3] once, got [0]");
    assert_eq!(of(&[1, 1]), "transpose: permutation must be each dimension of s32[2,3] once, got [1,1]");
    assert_eq!(of(&[0, 2]), "transpose: permutation must be in -2..2 for s32[2,3], got 2");
    assert_eq!(
        refusal(&[&[2, 3]], |x| x[0].reverse(&[0, -2])),
        "reverse: dimensions must be each named once, got 0 twice"
    );
    assert_eq!(
        refusal(&[&[]], |x| x[0].reverse(&[0])),
        "reverse: dimensions must be a dimension, and a scalar has none, got 0"
    );
}

#[test]
fn slice_refuses() {
    let of = |start: &[usize], limit: &[usize], stride: &[usize]| {
        refusal(&[&[4]], |x| x[0].slice(start, limit, stride))
    };
    assert_eq!(of(&[], &[1], &[1]), "slice: start must be a number for each dimension of s32[4], got []");
    assert_eq!(of(&[0], &[5], &[1]), "slice: limit must be at most the size of dimension 0 (4), got 5");
    assert_eq!(of(&[3], &[2], &[1]), "slice: start must be at most the limit of dimension 0 (2), got 3");
    assert_eq!(of(&[0], &[2], &[0]), "slice: stride must be at least 1, got 0");
}

#[test]
fn dynamic_slice_refuses() {
    assert_eq!(
        refusal(&[&[4], &[]], |x| x[0].dynamic_slice(&[&x[1]], &[5])),
        "dynamic_slice: sizes must be at most the size of each dimension of s32[4], got [5]"
    );
    assert_eq!(
        refusal(&[&[4]], |x| x[0].dynamic_slice(&[], &[1])),
        "dynamic_slice: starts must be one for each dimension of s32[4], got 0"
    );
    assert_eq!(
        refusal(&[&[4], &[1]], |x| x[0].dynamic_slice(&[&x[1]], &[1])),
        "dynamic_slice: starts must be scalars of one integer dtype, got s32[1] for dimension 0"
    );
    assert_eq!(
        refusal(&[&[4], &[]], |x| x[0].dynamic_slice(&[&x[1].convert(DType::F32)?], &[1])),
        "dynamic_slice: starts must be scalars of one integer dtype, got f32[] for dimension 0"
    );
    assert_eq!(
        refusal(&[&[4], &[5], &[]], |x| x[0].dynamic_update_slice(&x[1], &[&x[2]])),
        "dynamic_update_slice: update's dimensions must be at most the size of each dimension of s32[4], got [5]"
    );
    assert_eq!(
        refusal(&[&[4], &[]], |x| x[0].dynamic_update_slice(&x[0].convert(DType::F32)?, &[&x[1]])),
        "dynamic_update_slice: update must be of dtype s32, as the other operand s32[4], got f32[4]"
    );
}

#[test]
fn pad_refuses() {
    let of = |low: isize, high: isize, interior: usize| {
        refusal(&[&[3]], |x| x[0].pad(0, &[low], &[high], &[interior]))
    };
    let expected = |size: i128| {
        format!(
            "pad: padding must be such that dimension 0 of s32[3] has a size in 0..=9223372036854775807, got {size}"
        )
    };
    assert_eq!(of(-2, -2, 0), expected(-1));
    assert_eq!(
        of(isize::MAX, isize::MAX, usize::MAX),
        expected(3 + 2 * (i64::MAX as i128) + 2 * u64::MAX as i128)
    );
    assert_eq!(of(isize::MIN, isize::MIN, 0), expected(3 + 2 * i64::MIN as i128));
    assert!(of(isize::MAX - 3, 0, 0).starts_with("pad: shape must be of at most"));
    assert_eq!(
        refusal(&[&[3]], |x| x[0].pad(0, &[1, 1], &[0], &[0])),
        "pad: low must be a number for each dimension of s32[3], got 2 numbers"
    );
    assert_eq!(
        refusal(&[&[3]], |x| x[0].pad(&x[0], &[1], &[0], &[0])),
        "pad: value must be a scalar, got s32[3]"
    );
}

#[test]
fn concatenate_refuses() {
    assert_eq!(
        Tensor::concatenate(&[], 0).unwrap_err().to_string(),
        "concatenate: operands must be at least 1, got 0"
    );
    assert_eq!(
        refusal(&[&[2, 3], &[2, 4]], |x| Tensor::concatenate(&[&x[0], &x[1]], 0)),
        "concatenate: operand 1 must be as operand 0, s32[2,3], but for dimension 0, got s32[2,4]"
    );
    assert_eq!(
        refusal(&[&[2], &[]], |x| Tensor::concatenate(&[&x[0], &x[1]], 0)),
        "concatenate: operand 1 must be as operand 0, s32[2], but for dimension 0, got s32[]"
    );
    assert_eq!(
        refusal(&[&[2]], |x| Tensor::concatenate(&[&x[0], &x[0].convert(DType::U8)?], 0)),
        "concatenate: operand 1 must be of dtype s32, as the other operand s32[2], got u8[2]"
    );
    assert_eq!(
        refusal(&[&[]], |x| Tensor::concatenate(&[&x[0]], 0)),
        "concatenate: axis must be a dimension, and a scalar has none, got 0"
    );
    let huge = [usize::MAX / 8, 0];
    assert_eq!(
        refusal(&[&huge], |x| Tensor::concatenate(&[&x[0]; 9], 0)),
        "concatenate: operands must be of sizes whose sum is a usize, got operand 8"
    );
}

#[test]
fn broadcast_and_iota_refuse() {
    assert_eq!(
        refusal(&[&[2]], |x| x[0].broadcast_to(&[3])),
        "broadcast_in_dim: dims must be of size 1 or 2 at dimension 0, for operand s32[2], got [3]"
    );
    assert_eq!(
        refusal(&[&[2, 3]], |x| x[0].broadcast_to(&[3])),
        "broadcast_to: dims must be of rank 2 at least, that of s32[2,3], got [3]"
    );
    let builder = Builder::new("iota");
    assert_eq!(
        builder.iota(Shape::new(DType::Pred, [2]), 0).unwrap_err().to_string(),
        "iota: dtype must be a number, got pred[2]"
    );
    assert_eq!(
        builder.iota(Shape::new(DType::S32, [2]), 1).unwrap_err().to_string(),
        "iota: dimension must be in -1..1 for s32[2], got 1"
    );
}
