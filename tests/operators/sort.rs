//! Sorts and top-k.

use crate::runner::run;
use proptest::prelude::*;
use xlann::{Array, DType, Direction, Error, Function, Shape, Tensor};

fn apply<const N: usize>(
    arguments: &[Array],
    body: impl FnOnce(&[Tensor]) -> Result<[Tensor; N], Error>,
) -> [Array; N] {
    let shapes: Vec<Shape> = arguments.iter().map(|array| array.shape().clone()).collect();
    run(&Function::trace("f", &shapes, body).unwrap(), arguments).try_into().unwrap()
}

fn refusal(shape: Shape, body: impl FnOnce(&Tensor) -> Result<Tensor, Error>) -> String {
    Function::trace("f", &[shape], |x| body(&x[0])).unwrap_err().to_string()
}

/// Values with many ties, in a scrambled order.
fn scrambled(dtype: DType, dims: &[usize]) -> Array {
    let shape = Shape::new(dtype, dims);
    let values: Vec<f64> = (0..shape.element_count()).map(|index| (index * 37 % 101 % 23) as f64).collect();
    Array::from_f64(shape, &values).unwrap()
}

fn top_k(operand: &Array, k: usize) -> [Array; 2] {
    apply(std::slice::from_ref(operand), |x| x[0].top_k(k).map(<[Tensor; 2]>::from))
}

/// What a top-k must give, by sorting each line of (value, index) pairs.
fn expected_top_k(operand: &Array, k: usize) -> [Array; 2] {
    let dims = operand.shape().dims();
    let (&size, leading) = dims.split_last().unwrap();
    let (mut values, mut indices) = (Vec::new(), Vec::new());
    for line in operand.to_f64().chunks(size.max(1)) {
        let mut pairs: Vec<(f64, i32)> = line.iter().copied().zip(0..).collect();
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        values.extend(pairs[..k].iter().map(|pair| pair.0));
        indices.extend(pairs[..k].iter().map(|pair| pair.1));
    }
    let dims = [leading, &[k]].concat();
    let values = Array::from_f64(operand.shape().with_dims(dims.as_slice()), &values).unwrap();
    [values, Array::new(dims, &indices).unwrap()]
}

#[test]
fn top_k_of_every_dtype() {
    for dtype in DType::ALL {
        if dtype == DType::Pred {
            continue;
        }
        for (dims, k) in
            [(vec![3, 50], 7), (vec![40], 40), (vec![2, 2, 30], 1), (vec![1], 1), (vec![2, 1, 2, 9], 4)]
        {
            let operand = scrambled(dtype, &dims);
            assert_eq!(top_k(&operand, k), expected_top_k(&operand, k), "{dtype} {dims:?}");
        }
    }
}

#[test]
fn top_k_of_nothing_is_empty() {
    for (dims, k) in [(vec![3, 5], 0), (vec![0, 5], 2), (vec![3, 0], 0), (vec![0], 0)] {
        let got = top_k(&scrambled(DType::F32, &dims), k);
        assert_eq!(got.map(|array| array.shape().element_count()), [0, 0]);
    }
}

#[test]
fn top_k_is_in_the_total_order() {
    for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
        let values = [1.0, f64::NAN, -0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -f64::NAN, -0.0];
        // The sign of a NaN is that of the constant.
        let values = values.map(|value: f64| if value.is_nan() { value.copysign(1.0) } else { value });
        let operand = Array::from_f64(Shape::new(dtype, [9]), &values).unwrap();
        let [_, indices] = top_k(&operand, 9);
        assert_eq!(indices.to_vec::<i32>().unwrap(), [1, 6, 7, 4, 0, 3, 2, 8, 5], "{dtype}");
    }
    let operand = Array::new([3], &[-f32::INFINITY, -f32::NAN.copysign(1.0), 0.0]).unwrap();
    assert_eq!(top_k(&operand, 3)[1].to_vec::<i32>().unwrap(), [2, 0, 1]);
}

#[test]
fn top_k_of_wide_integers_is_exact() {
    let operand = Array::new([3], &[u64::MAX - 1, u64::MAX, 0]).unwrap();
    assert_eq!(top_k(&operand, 2)[0].to_vec::<u64>().unwrap(), [u64::MAX, u64::MAX - 1]);
    let operand = Array::new([3], &[i32::MAX - 1, i32::MAX, i32::MIN]).unwrap();
    assert_eq!(top_k(&operand, 3)[1].to_vec::<i32>().unwrap(), [1, 0, 2]);
}

#[test]
fn top_k_that_does_not_fit_is_refused() {
    let of = |dtype: DType, dims: &[usize], k: usize| {
        refusal(Shape::new(dtype, dims), |x| x.top_k(k).map(|(values, _)| values))
    };
    assert_eq!(
        of(DType::F32, &[2, 500], 600),
        "top_k: k must be at most the size of dimension 1 (500), got 600"
    );
    assert_eq!(of(DType::F32, &[], 1), "top_k: operand must be of rank 1 at least, got f32[]");
    assert_eq!(of(DType::Pred, &[3], 1), "top_k: operand's dtype must be a number, got pred");
    assert_eq!(
        of(DType::S8, &[1 << 31], 1),
        "top_k: operand must be of at most 2147483647 elements along dimension 0, got s8[2147483648]"
    );
}

/// Each line of `operand` along `axis`, sorted as NumPy does, and the indices that bring it there.
fn expected_sort(operand: &Array, axis: usize) -> [Array; 2] {
    let dims = operand.shape().dims();
    let stride: usize = dims[axis + 1..].iter().product();
    let values = operand.to_f64();
    let (mut sorted, mut indices) = (values.clone(), vec![0i32; values.len()]);
    for start in (0..values.len()).filter(|position| (position / stride).is_multiple_of(dims[axis])) {
        let mut line: Vec<usize> = (0..dims[axis]).collect();
        let value = |index: usize| values[start + index * stride];
        line.sort_by(|&a, &b| {
            let (a, b) = (value(a), value(b));
            a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
        });
        for (place, index) in line.into_iter().enumerate() {
            sorted[start + place * stride] = value(index);
            indices[start + place * stride] = index as i32;
        }
    }
    [Array::from_f64(operand.shape().clone(), &sorted).unwrap(), Array::new(dims, &indices).unwrap()]
}

#[test]
fn sort_and_argsort_of_every_dtype() {
    for dtype in DType::ALL {
        for (dims, axis) in
            [(vec![3, 17], 1), (vec![17, 3], 0), (vec![2, 5, 3], 1), (vec![1], 0), (vec![33], 0)]
        {
            let operand = scrambled(dtype, &dims);
            let got = apply(std::slice::from_ref(&operand), |x| {
                Ok([x[0].sort(axis)?, x[0].argsort(axis - dims.len() as isize)?])
            });
            assert_eq!(got, expected_sort(&operand, axis as usize), "{dtype} {dims:?}");
        }
    }
}

#[test]
fn sorting_nothing_gives_nothing() {
    for dims in [[0, 3], [3, 0]] {
        let operand = scrambled(DType::F32, &dims);
        let [sorted] = apply(std::slice::from_ref(&operand), |x| Ok([x[0].sort(1)?]));
        assert_eq!(sorted, operand);
    }
}

#[test]
fn nans_come_last() {
    let operand = Array::new([5], &[f32::NAN, 1.0, f32::INFINITY, -f32::NAN, -1.0]).unwrap();
    let [indices] = apply(&[operand], |x| Ok([x[0].argsort(0)?]));
    assert_eq!(indices.to_vec::<i32>().unwrap(), [4, 1, 2, 0, 3]);
}

#[test]
fn sorts_that_do_not_fit_are_refused() {
    assert_eq!(
        refusal(Shape::scalar(DType::F32), |x| x.sort(0)),
        "sort: axis must be a dimension, and a scalar has none, got 0"
    );
    let comparator = |dtype: DType| {
        Function::trace("less", &[Shape::scalar(dtype), Shape::scalar(dtype)], |x| x[0].less(&x[1])).unwrap()
    };
    let shape = Shape::new(DType::F32, [2, 3]);
    assert_eq!(
        refusal(shape.clone(), |x| Ok(x.builder().sort_by(&[x], 0, true, comparator(DType::S32))?.remove(0))),
        "sort: comparator must be a function (f32[], f32[]) -> (pred[]), got (s32[], s32[]) -> (pred[])"
    );
    assert_eq!(
        refusal(shape.clone(), |x| {
            let other = x.reduce_sum(&[0])?;
            Ok(x.builder().sort_by(&[x, &other], 0, true, comparator(DType::F32))?.remove(0))
        }),
        "sort: operand 1 must be of sizes [2,3], as operand 0, got f32[3]"
    );
    assert_eq!(
        refusal(shape, |x| Ok(x.builder().sort_by(&[], 0, true, comparator(DType::F32))?.remove(0))),
        "sort: operands must be one at least, got none"
    );
}

#[test]
fn keys_of_several_operands_are_sorted_together() {
    // By the second operand, descending, then by the first.
    let keys = Array::new([6], &[3f32, 1.0, 2.0, 1.0, 3.0, 2.0]).unwrap();
    let ranks = Array::new([6], &[0i32, 1, 0, 1, 1, 0]).unwrap();
    let (f, s) = (Shape::scalar(DType::F32), Shape::scalar(DType::S32));
    let comparator = Function::trace("by_rank", &[f.clone(), f, s.clone(), s], |x| {
        let (above, level) = (x[2].greater(&x[3])?, x[2].equal(&x[3])?);
        above | (level & x[0].compare_total_order(Direction::Lt, &x[1]))
    })
    .unwrap();
    let got = apply(&[keys, ranks], |x| {
        let sorted = x[0].builder().sort_by(&[&x[0], &x[1]], 0, true, comparator)?;
        Ok(<[Tensor; 2]>::try_from(sorted).unwrap())
    });
    assert_eq!(got[0].to_vec::<f32>().unwrap(), [1.0, 1.0, 3.0, 2.0, 2.0, 3.0]);
    assert_eq!(got[1].to_vec::<i32>().unwrap(), [1, 1, 1, 0, 0, 0]);
}

#[test]
fn any_comparator_gives_a_permutation() {
    let values: Vec<f32> =
        (0..200).map(|index| if index % 3 == 0 { f32::NAN } else { (index * 37 % 101) as f32 }).collect();
    let operand = Array::new([200], &values).unwrap();
    let scalar = Shape::scalar(DType::F32);
    for odd in [0, 1] {
        let comparator = Function::trace("odd", &[scalar.clone(), scalar.clone()], |x| {
            if odd == 0 { x[0].less(&x[1]) } else { x[0].greater_equal(&x[1])? | x[0].not_equal(&x[0]) }
        })
        .unwrap();
        let function = Function::trace("f", std::slice::from_ref(operand.shape()), |x| {
            x[0].builder().sort_by(&[&x[0]], 0, true, comparator)
        })
        .unwrap();
        let mut sorted = function.eval(std::slice::from_ref(&operand)).unwrap()[0].to_f64();
        let mut all = operand.to_f64();
        sorted.sort_by(f64::total_cmp);
        all.sort_by(f64::total_cmp);
        assert_eq!(format!("{sorted:?}"), format!("{all:?}"));
    }
}

#[test]
fn a_hundred_thousand_elements_are_sorted_in_time() {
    let operand = scrambled(DType::F32, &[100_000]);
    let function = Function::trace("f", std::slice::from_ref(operand.shape()), |x| x[0].argsort(0)).unwrap();
    let start = std::time::Instant::now();
    let indices = function.eval(std::slice::from_ref(&operand)).unwrap();
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
    assert_eq!(indices[0], expected_sort(&operand, 0)[1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn sorting_is_numpys(
        dims in prop::collection::vec(1usize..9, 1..4),
        axis in any::<prop::sample::Index>(),
        values in prop::collection::vec(prop::sample::select(vec![0.0, -0.0, 1.0, 2.5, -3.0, f64::NAN, f64::INFINITY]), 600),
    ) {
        let shape = Shape::new(DType::F32, dims.as_slice());
        let operand = Array::from_f64(shape.clone(), &values[..shape.element_count()]).unwrap();
        let axis = axis.index(dims.len());
        let got = apply(std::slice::from_ref(&operand), |x| {
            Ok([x[0].sort(axis as isize)?, x[0].argsort(axis as isize)?])
        });
        prop_assert_eq!(format!("{got:?}"), format!("{:?}", expected_sort(&operand, axis)));
    }
}
