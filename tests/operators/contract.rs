//! Contractions and reductions.

use crate::runner::{assert_close, indices, run};
use proptest::prelude::*;
use xlann::{Array, DType, Error, Function, Shape, Tensor};

/// Every dtype of numbers.
fn number_dtypes() -> Vec<DType> {
    DType::ALL.into_iter().filter(|dtype| *dtype != DType::Pred).collect()
}

/// Small integers of either sign, which every dtype but the unsigned ones holds.
fn numbers(dtype: DType, dims: &[usize], seed: usize) -> Array {
    let shape = Shape::new(dtype, dims);
    let least = if dtype.is_unsigned_integer() { 0 } else { -2 };
    let value = |index: usize| ((index * 7 + seed * 3 + index / 5) % 5) as f64 + f64::from(least);
    let values: Vec<f64> = (0..shape.element_count()).map(value).collect();
    Array::from_f64(shape, &values).unwrap()
}

fn trace(shapes: &[Shape], body: impl FnOnce(&[Tensor]) -> Result<Tensor, Error>) -> Result<Function, Error> {
    Function::trace("f", shapes, body)
}

fn apply(arguments: &[Array], body: impl FnOnce(&[Tensor]) -> Result<Tensor, Error>) -> Array {
    let shapes: Vec<Shape> = arguments.iter().map(|array| array.shape().clone()).collect();
    run(&trace(&shapes, body).unwrap(), arguments).remove(0)
}

fn refusal(shapes: &[Shape], body: impl FnOnce(&[Tensor]) -> Result<Tensor, Error>) -> String {
    trace(shapes, body).unwrap_err().to_string()
}

fn f32s(dims: &[usize]) -> Shape {
    Shape::new(DType::F32, dims)
}

fn at(array: &Array, index: &[usize]) -> f64 {
    let position =
        index.iter().zip(array.shape().dims()).fold(0, |position, (index, dim)| position * dim + index);
    array.to_f64()[position]
}

#[test]
fn a_matrix_product_of_every_dtype() {
    for dtype in number_dtypes() {
        let (lhs, rhs) = (numbers(dtype, &[3, 4], 1), numbers(dtype, &[4, 2], 2));
        let got = apply(&[lhs.clone(), rhs.clone()], |x| x[0].dot(&x[1]));
        let expected: Vec<f64> = indices(&[3, 2])
            .iter()
            .map(|index| (0..4).map(|k| at(&lhs, &[index[0], k]) * at(&rhs, &[k, index[1]])).sum())
            .collect();
        assert_eq!(got, Array::from_f64(Shape::new(dtype, [3, 2]), &expected).unwrap(), "{dtype}");
    }
}

#[test]
fn integer_products_wrap() {
    let x = Array::new([2], &[100i8, 100]).unwrap();
    assert_eq!(apply(&[x.clone(), x], |x| x[0].dot(&x[1])), Array::scalar((20000 % 256) as u8 as i8));
    let x = Array::new([1], &[u64::MAX]).unwrap();
    assert_eq!(apply(&[x.clone(), x], |x| x[0].dot(&x[1])), Array::scalar(1u64));
}

#[test]
fn dot_of_vectors_and_matrices() {
    for (lhs, rhs, expected) in [
        (vec![3], vec![3], vec![]),
        (vec![2, 3], vec![3], vec![2]),
        (vec![3], vec![3, 4], vec![4]),
        (vec![2, 3], vec![3, 4], vec![2, 4]),
        (vec![2, 0], vec![0, 4], vec![2, 4]),
        (vec![0, 3], vec![3, 4], vec![0, 4]),
        (vec![1, 1], vec![1, 1], vec![1, 1]),
    ] {
        let (x, y) = (numbers(DType::F32, &lhs, 1), numbers(DType::F32, &rhs, 2));
        assert_eq!(apply(&[x, y], |x| x[0].dot(&x[1])).shape().dims(), expected);
    }
}

#[test]
fn an_outer_product_contracts_nothing() {
    let (x, y) = (Array::new([2], &[2f32, 3.0]).unwrap(), Array::new([2], &[5f32, 7.0]).unwrap());
    let got = apply(&[x, y], |x| x[0].dot_general(&x[1], (&[], &[]), (&[], &[])));
    assert_eq!(got, Array::new([2, 2], &[10f32, 14.0, 15.0, 21.0]).unwrap());
    let (x, y) = (Array::scalar(2f32), Array::scalar(3f32));
    assert_eq!(apply(&[x, y], |x| x[0].dot_general(&x[1], (&[], &[]), (&[], &[]))), Array::scalar(6f32));
}

#[test]
fn matmul_broadcasts_as_numpy() {
    for (lhs, rhs, expected) in [
        (vec![3], vec![3], vec![]),
        (vec![3], vec![3, 4], vec![4]),
        (vec![2, 3], vec![3], vec![2]),
        (vec![3], vec![5, 3, 4], vec![5, 4]),
        (vec![5, 2, 3], vec![3], vec![5, 2]),
        (vec![5, 2, 3], vec![3, 4], vec![5, 2, 4]),
        (vec![2, 3], vec![5, 3, 4], vec![5, 2, 4]),
        (vec![5, 1, 2, 3], vec![6, 3, 4], vec![5, 6, 2, 4]),
        (vec![1, 2, 3], vec![0, 3, 4], vec![0, 2, 4]),
    ] {
        let (x, y) = (numbers(DType::F32, &lhs, 1), numbers(DType::F32, &rhs, 2));
        let got = apply(&[x.clone(), y.clone()], |x| x[0].matmul(&x[1]));
        assert_eq!(got.shape().dims(), expected, "{lhs:?} {rhs:?}");
        // A vector stands for a matrix of one row or one column; batch indices are those from the right.
        let (row, column) = (lhs.len() == 1, rhs.len() == 1);
        for index in indices(&expected) {
            let matrix = index.len() - usize::from(!row) - usize::from(!column);
            let batch = &index[..matrix];
            let part = |dims: &[usize], is_vector: bool| -> Vec<usize> {
                let rank = dims.len() - if is_vector { 1 } else { 2 };
                let skipped = batch.len().saturating_sub(rank);
                batch[skipped..].iter().zip(dims).map(|(index, dim)| index % dim).collect()
            };
            let sum: f64 = (0..3)
                .map(|k| {
                    let (mut l, mut r) = (part(&lhs, row), part(&rhs, column));
                    if !row {
                        l.push(index[matrix]);
                    }
                    l.push(k);
                    r.push(k);
                    if !column {
                        r.push(index[index.len() - 1]);
                    }
                    at(&x, &l) * at(&y, &r)
                })
                .sum();
            assert_eq!(at(&got, &index), sum, "{lhs:?} {rhs:?} {index:?}");
        }
    }
}

#[test]
fn contractions_that_do_not_fit_are_refused() {
    let dot = |lhs: &[usize], rhs: &[usize]| refusal(&[f32s(lhs), f32s(rhs)], |x| x[0].dot(&x[1]));
    assert_eq!(
        dot(&[2, 3], &[4, 5]),
        "dot_general: contracting dimensions must be of equal sizes in both operands, \
         got [1] for f32[2,3] and [0] for f32[4,5]"
    );
    assert_eq!(dot(&[2, 3, 4], &[4]), "dot: lhs must be a vector or a matrix, got f32[2,3,4]");
    assert_eq!(dot(&[3], &[]), "dot: rhs must be a vector or a matrix, got f32[]");
    assert_eq!(
        refusal(&[f32s(&[]), f32s(&[3])], |x| x[0].matmul(&x[1])),
        "matmul: lhs must be of rank 1 at least, got f32[]"
    );
    assert_eq!(
        refusal(&[f32s(&[2, 1, 3]), f32s(&[4, 3, 1])], |x| x[0].matmul(&x[1])),
        "matmul: operands must be of sizes that are equal or 1, right-aligned, got [2] and [4]"
    );
    assert_eq!(
        refusal(&[f32s(&[3]), Shape::new(DType::F16, [3])], |x| x[0].dot(&x[1])),
        "dot_general: rhs must be of dtype f32, as the other operand f32[3], got f16[3]"
    );
    let pred = Shape::new(DType::Pred, [3]);
    assert_eq!(
        refusal(&[pred.clone(), pred], |x| x[0].dot(&x[1])),
        "dot_general: operands' dtype must be a number, got pred"
    );
    let general = |contracting: (&[usize], &[usize]), batch: (&[usize], &[usize])| {
        refusal(&[f32s(&[2, 2]), f32s(&[2, 2])], |x| x[0].dot_general(&x[1], contracting, batch))
    };
    assert_eq!(
        general((&[1], &[1]), (&[1], &[0])),
        "dot_general: batch and contracting dimensions of lhs must be distinct dimensions below 2, got [1,1]"
    );
    assert_eq!(
        general((&[1], &[2]), (&[], &[])),
        "dot_general: batch and contracting dimensions of rhs must be distinct dimensions below 2, got [2]"
    );
    assert_eq!(
        general((&[1], &[]), (&[], &[])),
        "dot_general: contracting dimensions must be of equal sizes in both operands, \
         got [1] for f32[2,2] and [] for f32[2,2]"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn dot_general_is_the_sum_of_products(
        batch in prop::collection::vec(0usize..3, 0..3),
        contracting in prop::collection::vec(0usize..4, 0..3),
        free in prop::collection::vec(0usize..3, 0..4),
        split in any::<prop::sample::Index>(),
        orders in (any::<u64>(), any::<u64>()),
        half in any::<bool>(),
    ) {
        let (lhs_free, rhs_free) = free.split_at(split.index(free.len() + 1));
        // An operand: its sizes, and where its batch and contracting dimensions have gone in a random order.
        let operand = |free: &[usize], order: u64| {
            let sizes = [batch.as_slice(), &contracting, free].concat();
            let mut places: Vec<usize> = (0..sizes.len()).collect();
            places.sort_by_key(|&place| (place as u64 + 1).wrapping_mul(order | 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            // The dimension at `place` is the original one `places[place]`; free ones stay in order.
            let mut frees = batch.len() + contracting.len()..sizes.len();
            let places: Vec<usize> = places
                .iter()
                .map(|&original| if original < batch.len() + contracting.len() { original } else { frees.next().unwrap() })
                .collect();
            let dims: Vec<usize> = places.iter().map(|&original| sizes[original]).collect();
            let place = |original: usize| places.iter().position(|&other| other == original).unwrap();
            let batch_places: Vec<usize> = (0..batch.len()).map(place).collect();
            let contracting_places: Vec<usize> = (batch.len()..batch.len() + contracting.len()).map(place).collect();
            (dims, places.clone(), batch_places, contracting_places)
        };
        let (lhs_dims, lhs_places, lhs_batch, lhs_contracting) = operand(lhs_free, orders.0);
        let (rhs_dims, rhs_places, rhs_batch, rhs_contracting) = operand(rhs_free, orders.1);
        let dtype = if half { DType::BF16 } else { DType::F32 };
        let (lhs, rhs) = (numbers(dtype, &lhs_dims, 1), numbers(dtype, &rhs_dims, 2));
        let got = apply(&[lhs.clone(), rhs.clone()], |x| {
            x[0].dot_general(&x[1], (&lhs_contracting, &rhs_contracting), (&lhs_batch, &rhs_batch))
        });
        let dims = [batch.as_slice(), lhs_free, rhs_free].concat();
        let expected: Vec<f64> = indices(&dims)
            .iter()
            .map(|index| {
                let (b, rest) = index.split_at(batch.len());
                let (l, r) = rest.split_at(lhs_free.len());
                let sum = indices(&contracting)
                    .iter()
                    .map(|c| {
                        let read = |array: &Array, places: &[usize], free: &[usize]| {
                            let all = [b, c, free].concat();
                            at(array, &places.iter().map(|&place| all[place]).collect::<Vec<_>>())
                        };
                        read(&lhs, &lhs_places, l) * read(&rhs, &rhs_places, r)
                    })
                    .sum::<f64>();
                sum + 0.0
            })
            .collect();
        assert_close(&got, &Array::from_f64(Shape::new(dtype, dims), &expected).unwrap(), &"naive");
    }

    #[test]
    fn reductions_are_those_of_the_elements(
        dims in prop::collection::vec(0usize..4, 0..4),
        mask in any::<u8>(),
        kind in 0usize..4,
        dtype in prop::sample::select(number_dtypes()),
    ) {
        let axes: Vec<usize> = (0..dims.len()).filter(|axis| mask >> axis & 1 == 1).collect();
        // Half of them counted from the end, and in descending order.
        let named: Vec<isize> = axes
            .iter()
            .rev()
            .map(|&axis| axis as isize - if mask & 16 == 0 { 0 } else { dims.len() as isize })
            .collect();
        let operand = numbers(dtype, &dims, 3);
        let got = apply(std::slice::from_ref(&operand), |x| match kind {
            0 => x[0].reduce_sum(&named),
            1 => x[0].reduce_prod(&named),
            2 => x[0].reduce_max(&named),
            _ => x[0].reduce_min(&named),
        });
        let part = |index: &[usize], kept: bool| -> Vec<usize> {
            index.iter().enumerate().filter(|(axis, _)| axes.contains(axis) != kept).map(|(_, &i)| i).collect()
        };
        let kept = part(&dims, true);
        let expected: Vec<f64> = indices(&kept)
            .iter()
            .map(|output| {
                let elements = indices(&dims).into_iter().filter(|index| part(index, true) == *output);
                let elements = elements.map(|index| at(&operand, &index));
                match kind {
                    0 => elements.sum::<f64>() + 0.0,
                    1 => elements.product(),
                    2 => elements.fold(f64::NEG_INFINITY, f64::max),
                    _ => elements.fold(f64::INFINITY, f64::min),
                }
            })
            .collect();
        // Products of up to 27 small integers wrap: those are compared modulo the width.
        let shape = Shape::new(dtype, kept);
        if kind != 1 || dtype.is_float() {
            assert_close(&got, &Array::from_f64(shape, &expected).unwrap(), &dtype);
        }
    }
}

#[test]
fn reductions_of_extreme_values() {
    let x = Array::new([3], &[f32::NAN, 1.0, f32::INFINITY]).unwrap();
    assert!(apply(std::slice::from_ref(&x), |x| x[0].reduce_max(&[0])).to_f64()[0].is_nan());
    assert!(apply(&[x], |x| x[0].reduce_min(&[0])).to_f64()[0].is_nan());
    let x = Array::new([2], &[i8::MAX, 1]).unwrap();
    assert_eq!(apply(std::slice::from_ref(&x), |x| x[0].reduce_sum(&[0])), Array::scalar(i8::MIN));
    let x = Array::new([3], &[u64::MAX, u64::MAX, 3]).unwrap();
    assert_eq!(apply(std::slice::from_ref(&x), |x| x[0].reduce_prod(&[0])), Array::scalar(3u64));
    assert_eq!(apply(&[x], |x| x[0].reduce_min(&[0])), Array::scalar(3u64));
}

#[test]
fn reducing_nothing_gives_the_identity() {
    for dtype in number_dtypes() {
        let empty = Array::zeros(Shape::new(dtype, [2, 0])).unwrap();
        let reduce =
            |body: fn(&Tensor) -> Result<Tensor, Error>| apply(std::slice::from_ref(&empty), |x| body(&x[0]));
        let filled = |value: f64| Array::from_f64(Shape::new(dtype, [2]), &[value; 2]).unwrap();
        assert_eq!(reduce(|x| x.reduce_sum(&[1])), filled(0.0));
        assert_eq!(reduce(|x| x.reduce_prod(&[1])), filled(1.0));
        assert_eq!(reduce(|x| x.reduce_max(&[1])), filled(f64::NEG_INFINITY));
        assert_eq!(reduce(|x| x.reduce_min(&[1])), filled(f64::INFINITY));
        assert_eq!(reduce(|x| x.reduce_min(&[0])).shape().dims(), [0]);
    }
}

#[test]
fn preds_are_reduced() {
    let x = Array::new([3, 2], &[true, false, true, true, true, false]).unwrap();
    let reduce =
        |body: fn(&Tensor) -> Result<Tensor, Error>| apply(std::slice::from_ref(&x), |x| body(&x[0]));
    assert_eq!(reduce(|x| x.reduce_all(&[0])), Array::new([2], &[true, false]).unwrap());
    assert_eq!(reduce(|x| x.reduce_max(&[0])), Array::new([2], &[true, true]).unwrap());
    assert_eq!(reduce(|x| x.reduce_min(&[-1])), Array::new([3], &[false, true, false]).unwrap());
    assert_eq!(reduce(|x| x.reduce_any(&[0, 1])), Array::scalar(true));
    assert_eq!(reduce(|x| x.reduce_all(&[])), x);
    let none = Array::new([0], &[true; 0]).unwrap();
    assert_eq!(apply(std::slice::from_ref(&none), |x| x[0].reduce_all(&[0])), Array::scalar(true));
    assert_eq!(apply(std::slice::from_ref(&none), |x| x[0].reduce_any(&[0])), Array::scalar(false));
    assert_eq!(apply(std::slice::from_ref(&none), |x| x[0].reduce_max(&[0])), Array::scalar(false));
    assert_eq!(apply(&[none], |x| x[0].reduce_min(&[0])), Array::scalar(true));
}

#[test]
fn the_mean_is_the_sum_by_the_count() {
    let x = Array::new([2, 2], &[1f32, 2.0, 3.0, 6.0]).unwrap();
    assert_eq!(apply(std::slice::from_ref(&x), |x| x[0].mean(&[0])), Array::new([2], &[2f32, 4.0]).unwrap());
    assert_eq!(apply(&[x], |x| x[0].mean(&[0, -1])), Array::scalar(3f32));
    let none = Array::zeros(f32s(&[0])).unwrap();
    assert!(apply(&[none], |x| x[0].mean(&[0])).to_f64()[0].is_nan());
}

#[test]
fn reductions_that_do_not_fit_are_refused() {
    let of = |dtype: DType, body: fn(&Tensor) -> Result<Tensor, Error>| {
        refusal(&[Shape::new(dtype, [2, 3])], |x| body(&x[0]))
    };
    assert_eq!(
        of(DType::F32, |x| x.reduce_sum(&[2])),
        "reduce_sum: dimensions must be in -2..2 for f32[2,3], got 2"
    );
    assert_eq!(
        of(DType::F32, |x| x.reduce_max(&[0, -2])),
        "reduce_max: dimensions must be each named once, got 0 twice"
    );
    assert_eq!(
        of(DType::Pred, |x| x.reduce_sum(&[0])),
        "reduce_sum: operand's dtype must be a number, got pred"
    );
    assert_eq!(of(DType::S32, |x| x.reduce_any(&[0])), "reduce_any: operand's dtype must be pred, got s32");
    assert_eq!(of(DType::S32, |x| x.mean(&[0])), "mean: operand's dtype must be floating, got s32");
}

#[test]
fn argmax_and_argmin_take_the_first_of_equals() {
    for dtype in number_dtypes() {
        let x =
            Array::from_f64(Shape::new(dtype, [2, 4]), &[1.0, 3.0, 3.0, 1.0, 2.0, 0.0, 0.0, 2.0]).unwrap();
        let got = apply(std::slice::from_ref(&x), |x| x[0].argmax(1));
        assert_eq!(got, Array::new([2], &[1i32, 0]).unwrap(), "{dtype}");
        assert_eq!(
            apply(std::slice::from_ref(&x), |x| x[0].argmin(-1)),
            Array::new([2], &[0i32, 1]).unwrap()
        );
        assert_eq!(apply(&[x], |x| x[0].argmax(0)), Array::new([4], &[1i32, 0, 0, 1]).unwrap());
    }
    let x = Array::new([3], &[false, true, true]).unwrap();
    assert_eq!(apply(std::slice::from_ref(&x), |x| x[0].argmax(0)), Array::scalar(1i32));
    assert_eq!(apply(&[x], |x| x[0].argmin(0)), Array::scalar(0i32));
}

#[test]
fn argmax_of_nans_and_identities() {
    let least = f32::NEG_INFINITY;
    for (values, greatest, smallest) in [
        ([1.0, f32::NAN, 3.0, f32::NAN], 1, 1),
        ([least; 4], 0, 0),
        ([f32::INFINITY; 4], 0, 0),
        ([-0.0, 0.0, -0.0, 0.0], 0, 0),
        ([least, least, 5.0, least], 2, 0),
    ] {
        let x = Array::new([4], &values).unwrap();
        assert_eq!(
            apply(std::slice::from_ref(&x), |x| x[0].argmax(0)),
            Array::scalar(greatest),
            "{values:?}"
        );
        assert_eq!(apply(&[x], |x| x[0].argmin(0)), Array::scalar(smallest), "{values:?}");
    }
    assert_eq!(
        refusal(&[f32s(&[2, 0])], |x| x[0].argmax(1)),
        "argmax: axis must be one of size 1 to 2147483647, got f32[2,0]"
    );
    assert_eq!(apply(&[Array::zeros(f32s(&[2, 0])).unwrap()], |x| x[0].argmax(0)).shape().dims(), [0]);
}

/// The sum of the first operand and the count of the second where that is odd, in one reduction.
fn sum_and_odd() -> Function {
    let (f, s) = (Shape::scalar(DType::F32), Shape::scalar(DType::S32));
    Function::trace("sum_and_odd", &[f.clone(), s.clone(), f, s], |x| {
        Ok(((&x[0] + &x[2])?, (&x[1] ^ &x[3])?))
    })
    .unwrap()
}

#[test]
fn operands_of_several_dtypes_are_reduced_together() {
    for (dims, axes) in
        [(vec![2, 3], vec![1isize]), (vec![2, 3], vec![0, 1]), (vec![4], vec![]), (vec![0, 2], vec![0])]
    {
        let (x, y) = (numbers(DType::F32, &dims, 1), numbers(DType::S32, &dims, 2));
        let f = Function::trace("f", &[x.shape().clone(), y.shape().clone()], |t| {
            let (zero, none) = (t[0].builder().scalar(0f32)?, t[0].builder().scalar(0i32)?);
            let mut outputs =
                t[0].builder().reduce(&[&t[0], &t[1]], &[&zero, &none], &axes, sum_and_odd())?;
            outputs.push(t[0].reduce_sum(&axes)?);
            Ok(outputs)
        })
        .unwrap();
        let got = run(&f, &[x, y]);
        assert_eq!(got[0].to_f64(), got[2].to_f64());
        assert_eq!(got[1].shape().dims(), got[0].shape().dims());
    }
}

#[test]
fn a_reducer_of_any_operators_is_evaluated() {
    // The sum through a product of vectors, which is not an elementwise operator.
    let scalar = Shape::scalar(DType::F32);
    let reducer = Function::trace("dotted", &[scalar.clone(), scalar], |x| {
        let one = x[0].builder().constant(Array::new([1], &[1f32])?)?;
        &x[0] + x[1].broadcast_to(&[1])?.dot(&one)
    })
    .unwrap();
    let x = numbers(DType::F32, &[3, 4], 1);
    let f = Function::trace("f", &[x.shape().clone()], |t| {
        let zero = t[0].builder().scalar(0f32)?;
        t[0].builder().reduce(&[&t[0]], &[&zero], &[1], reducer)
    })
    .unwrap();
    let expected = apply(std::slice::from_ref(&x), |x| x[0].reduce_sum(&[1]));
    assert_eq!(f.eval(&[x]).unwrap(), [expected]);
}

#[test]
fn reducers_that_do_not_fit_are_refused() {
    let refuse = |dtype: DType, inits: usize| {
        refusal(&[f32s(&[3]), Shape::new(dtype, [3])], |t| {
            let (zero, none) = (t[0].builder().scalar(0f32)?, t[0].builder().scalar(0i32)?);
            let inits = &[&zero, &none][..inits];
            t[0].builder()
                .reduce(&[&t[0], &t[1]], inits, &[0], sum_and_odd())
                .map(|mut outputs| outputs.remove(0))
        })
    };
    assert_eq!(refuse(DType::S32, 1), "reduce: inits must be 2, one for each operand, got 1");
    assert_eq!(refuse(DType::S64, 2), "reduce: init 1 must be s64[], got s32[]");
    let shapes = [f32s(&[3]), f32s(&[2])];
    let of = |count: usize| {
        refusal(&shapes, |t| {
            let zero = t[0].builder().scalar(0f32)?;
            let outputs = t[0].builder().reduce(
                &[&t[0], &t[1]][..count],
                &[&zero, &zero][..count],
                &[0],
                sum_and_odd(),
            );
            outputs.map(|mut outputs| outputs.remove(0))
        })
    };
    assert_eq!(of(2), "reduce: operand 1 must be of sizes [3], as operand 0, got f32[2]");
    assert_eq!(
        of(1),
        "reduce: reducer must be a function (f32[], f32[]) -> (f32[]), \
         got (f32[], s32[], f32[], s32[]) -> (f32[], s32[])"
    );
    assert_eq!(of(0), "reduce: operands must be one at least, got none");
}

#[test]
fn sizes_of_a_search_are_evaluated_at_once() {
    let (x, y) = (numbers(DType::F32, &[128, 128], 1), numbers(DType::F32, &[128, 3000], 2));
    let f = trace(&[x.shape().clone(), y.shape().clone()], |x| x[0].dot(&x[1])?.argmax(1)).unwrap();
    let start = std::time::Instant::now();
    f.eval(&[x, y]).unwrap();
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}
