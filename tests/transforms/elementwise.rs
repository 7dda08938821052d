//! Transforms of the elementwise operators.

use crate::required::{derivatives_match, dims, interpreted, traced, vmap_and_derivatives, vmap_matches};
use crate::runner::{assert_close, random, run};
use proptest::prelude::*;
use xlann::{Array, DType, Direction, Function, Shape, Tensor, grad, vjp, vmap};

type Apply = fn(&Tensor) -> xlann::Result<Tensor>;

/// A function of a vector of f64.
fn unary(apply: Apply) -> Function {
    Function::trace("f", &[Shape::new(DType::F64, [3])], |x| apply(&x[0])).unwrap()
}

/// The operators of one float, and where they are differentiated: at positive floats alone, where they take no others.
const UNARY: &[(Apply, [f64; 3])] = &[
    (Tensor::abs, [-1.5, 0.5, 2.0]),
    (Tensor::cbrt, [-1.5, 0.5, 2.0]),
    (Tensor::ceil, [-1.5, 0.5, 2.2]),
    (Tensor::cos, [-1.5, 0.5, 2.0]),
    (Tensor::erf, [-1.5, 0.5, 2.0]),
    (Tensor::exp, [-1.5, 0.5, 2.0]),
    (Tensor::expm1, [-1.5, 0.5, 2.0]),
    (Tensor::floor, [-1.5, 0.5, 2.2]),
    // Chooses, for it has no derivative itself.
    (|x| x.is_finite()?.select(x.sin()?, x), [-1.5, 0.5, 2.0]),
    (Tensor::log, [1.5, 0.5, 2.0]),
    (Tensor::log1p, [1.5, 0.5, 2.0]),
    (Tensor::logistic, [-1.5, 0.5, 2.0]),
    (|x| -x, [-1.5, 0.5, 2.0]),
    (Tensor::round, [-1.4, 0.4, 2.2]),
    (Tensor::round_ties_even, [-1.4, 0.4, 2.2]),
    (Tensor::rsqrt, [1.5, 0.5, 2.0]),
    (Tensor::sign, [-1.5, 0.5, 2.0]),
    (Tensor::sin, [-1.5, 0.5, 2.0]),
    (Tensor::sqrt, [1.5, 0.5, 2.0]),
    (Tensor::tan, [-1.4, 0.5, 2.0]),
    (Tensor::tanh, [-1.5, 0.5, 2.0]),
];

#[test]
fn unary_operators() {
    for (apply, at) in UNARY {
        let f = unary(*apply);
        derivatives_match(&f, &[Array::new([3], at).unwrap()], &[0]);
        vmap_matches(&f, |seed| vec![random(Shape::new(DType::F64, [3]), seed)]);
    }
}

type Apply2 = fn(&Tensor, &Tensor) -> xlann::Result<Tensor>;

fn f64s(values: &[f64]) -> Array {
    Array::new([values.len()], values).unwrap()
}

/// The operators of two floats, and where they are differentiated: at positive floats alone, where they take no others.
const BINARY: &[(Apply2, [f64; 3], [f64; 3])] = &[
    (|x, y| x + y, [-1.5, 0.5, 2.0], [1.0, 0.5, -2.0]),
    (|x, y| x - y, [-1.5, 0.5, 2.0], [1.0, 0.5, -2.0]),
    (|x, y| x * y, [-1.5, 0.0, 2.0], [1.0, 0.5, 0.0]),
    (|x, y| x / y, [-1.5, 0.0, 2.0], [1.0, 0.5, -2.0]),
    (|x, y| x % y, [-1.5, 0.5, 7.0], [1.0, 2.5, -2.0]),
    (|x, y| x.atan2(y), [-1.5, 0.5, 2.0], [1.0, -0.5, -2.0]),
    (|x, y| x.maximum(y), [-1.5, 0.5, 2.0], [1.0, -0.5, -2.0]),
    (|x, y| x.minimum(y), [-1.5, 0.5, 2.0], [1.0, -0.5, -2.0]),
    (|x, y| x.pow(y), [1.5, 0.5, 2.0], [1.0, -0.5, 3.0]),
];

#[test]
fn binary_operators() {
    for (apply, x, y) in BINARY {
        let shape = Shape::new(DType::F64, [3]);
        let f = Function::trace("f", &[shape.clone(), shape], |x| apply(&x[0], &x[1])).unwrap();
        derivatives_match(&f, &[f64s(x), f64s(y)], &[0, 1]);
        // An operand that is held has no part.
        derivatives_match(&f, &[f64s(x), f64s(y)], &[1]);
        interpreted(|| vmap_and_derivatives(&[&[2, 1], &[3]], |x| apply(&x[0].exp()?, &(x[1].exp()? + 3)?)));
    }
}

#[test]
fn ties_are_shared_by_halves() {
    let shape = Shape::new(DType::F64, [2]);
    for apply in [(|x, y| x.maximum(y)) as Apply2, |x, y| x.minimum(y)] {
        let f = Function::trace("f", &[shape.clone(), shape.clone()], |x| apply(&x[0], &x[1])).unwrap();
        let results =
            run(&vjp(&f, &[0, 1]).unwrap(), &[f64s(&[1.0, -0.0]), f64s(&[1.0, 0.0]), f64s(&[4.0, 6.0])]);
        assert_eq!(results[1..], [f64s(&[2.0, 3.0]), f64s(&[2.0, 3.0])]);
    }
}

/// Operators of integers.
const NUMBERS: &[Apply2] = &[
    |x, y| x + y,
    |x, y| x - y,
    |x, y| x * y,
    |x, y| x / y,
    |x, y| x % y,
    |x, y| x.pow(y),
    |x, y| x & y,
    |x, y| x | y,
    |x, y| x ^ y,
    |x, y| x.maximum(y),
    |x, y| x.minimum(y),
    |x, y| x.shift_left(y),
    |x, y| x.shift_right_arithmetic(y),
    |x, y| x.shift_right_logical(y),
    |x, y| x.equal(y),
    |x, y| x.less(y),
    |x, y| x.greater_equal(y)?.select(x, y),
    |x, _| !x,
    |x, _| x.convert(DType::F32),
    |x, _| x.convert(DType::Pred),
];

/// Operators of signed integers.
const SIGNED: &[Apply2] = &[|x, _| x.abs(), |x, _| -x, |x, _| x.sign()];

/// Operators of preds.
const PREDS: &[Apply2] = &[
    |x, y| x & y,
    |x, y| x | y,
    |x, y| x ^ y,
    |x, _| !x,
    |x, y| x.maximum(y),
    |x, y| x.minimum(y),
    |x, y| x.not_equal(y),
    |x, y| x.select(y, x),
];

#[test]
fn the_slope_of_a_power_depends_on_the_exponent() {
    let scalar = Shape::scalar(DType::F64);
    let power = Function::trace("power", &[scalar.clone(), scalar], |x| x[0].pow(&x[1])).unwrap();
    let by_x = grad(&power, &[0]).unwrap();
    let mixed = [grad(&by_x, &[1]).unwrap(), grad(&grad(&power, &[1]).unwrap(), &[0]).unwrap()];
    for (x, y) in [(2f64, 0f64), (2.0, 3.0), (0.5, 1.0), (3.0, -1.5)] {
        let expected = x.powf(y - 1.0) * (1.0 + y * x.ln());
        for mixed in &mixed {
            let got = run(mixed, &[Array::scalar(x), Array::scalar(y)]).remove(0);
            assert_close(&got, &Array::scalar(expected), &format!("at {x}^{y}"));
        }
    }
    // A power of 0 is 1 whatever the base is, also where one by it is not finite.
    let second = grad(&by_x, &[0]).unwrap();
    for x in [0.0, 1e-320, -3.0, f64::INFINITY] {
        for derivative in [&by_x, &second] {
            assert_eq!(run(derivative, &[Array::scalar(x), Array::scalar(0.0)])[0].to_f64(), [0.0], "{x}^0");
        }
    }
}

#[test]
fn integers_and_preds_in_batches() {
    interpreted(|| {
        for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_integer()) {
            for apply in NUMBERS {
                let (f, arguments) = traced(dtype, &[&[2, 1], &[2, 1]], |x| apply(&x[0], &x[1]));
                vmap_matches(&f, arguments);
            }
        }
        for apply in PREDS {
            let (f, arguments) = traced(DType::Pred, &[&[2, 3], &[2, 3]], |x| apply(&x[0], &x[1]));
            vmap_matches(&f, arguments);
        }
    });
}

#[test]
fn comparisons_hold_what_they_choose() {
    for total_order in [false, true] {
        vmap_and_derivatives(&[&[2, 3], &[3]], |x| {
            let greater = match total_order {
                true => x[0].compare_total_order(Direction::Gt, &x[1])?,
                false => x[0].greater(&x[1])?,
            };
            greater.select(x[0].exp()?, (&x[1] * &x[1])?)
        });
    }
    // One of the choices is a constant, or not differentiated.
    vmap_and_derivatives(&[&[4]], |x| x[0].greater(0)?.select(&x[0], 0));
    vmap_and_derivatives(&[&[4]], |x| x[0].greater(0)?.select(x[0].full_like(1)?, x[0].sin()?));
}

#[test]
fn select_batches_each_of_its_operands() {
    let shapes = [DType::Pred, DType::BF16, DType::BF16].map(|dtype| Shape::new(dtype, [2, 3]));
    let select = Function::trace("select", &shapes, |x| x[0].select(&x[1], &x[2])).unwrap();
    vmap_matches(&select, |seed| {
        let random =
            |index: usize| random(shapes[1].with_dtype(DType::F64), 10 * seed + index as u64).to_f64();
        let pred: Vec<bool> = random(0).iter().map(|&value| value > 0.0).collect();
        let float = |index: usize| Array::from_f64(shapes[index].clone(), &random(index)).unwrap();
        vec![Array::new([2, 3], &pred).unwrap(), float(1), float(2)]
    });
}

#[test]
fn clamp() {
    let clamp = |x: &[Tensor]| x[1].clamp(&x[0], &x[2]);
    // The values of a seed lie below, between and above the bounds, whose order is either.
    let shapes: [[&[usize]; 3]; 5] = [
        [&[], &[2, 3], &[]],
        [&[2, 3], &[2, 3], &[]],
        [&[], &[8], &[8]],
        [&[4], &[4], &[4]],
        [&[], &[], &[]],
    ];
    for dims in shapes {
        vmap_and_derivatives(&dims, clamp);
    }
    vmap_and_derivatives(&[&[8]], |x| (&x[0] * 3)?.clamp(-1, 1));
    let (mixed, arguments) = traced(DType::S8, &[&[], &[2, 3], &[2, 3]], clamp);
    vmap_matches(&mixed, arguments);

    let scalar = Shape::scalar(DType::F64);
    let f = Function::trace("f", &[scalar.clone(), scalar.clone(), scalar], clamp).unwrap();
    let derivative = vjp(&f, &[0, 1, 2]).unwrap();
    // Operands below, between, above and at the bounds; and of bounds in the wrong order, the upper one holds.
    let cases = [
        ([1.0, 0.0, 2.0], [1.0, 0.0, 0.0]),
        ([1.0, 1.5, 2.0], [0.0, 1.0, 0.0]),
        ([1.0, 3.0, 2.0], [0.0, 0.0, 1.0]),
        ([1.0, 1.0, 2.0], [0.0, 0.0, 0.0]),
        ([1.0, 2.0, 2.0], [0.0, 0.0, 0.0]),
        ([2.0, 0.0, 1.0], [0.0, 0.0, 1.0]),
        ([2.0, 1.5, 1.0], [0.0, 0.0, 1.0]),
        ([2.0, 3.0, 1.0], [0.0, 0.0, 1.0]),
    ];
    for (at, expected) in cases {
        let arguments = at.iter().chain(&[1.0]).map(|&value| Array::scalar(value)).collect::<Vec<_>>();
        assert_eq!(run(&derivative, &arguments)[1..], expected.map(Array::scalar), "at {at:?}");
    }
    // A scalar bound that all of the batch share stays one.
    let shapes = [Shape::scalar(DType::F32), Shape::new(DType::F32, [3]), Shape::scalar(DType::F32)];
    let f = Function::trace("f", &shapes, clamp).unwrap();
    let batched = vmap(&f, [None, Some(0), None], 0, 2).unwrap();
    assert_eq!(batched.equations().len(), 1, "{batched}");
}

#[test]
fn conversions() {
    vmap_and_derivatives(&[&[3]], |x| x[0].convert(DType::S32)?.convert(DType::F64));
    // Each cotangent is of its parameter's dtype.
    for (from, to) in [(DType::F32, DType::F64), (DType::F64, DType::BF16), (DType::F16, DType::F32)] {
        let f = Function::trace("f", &[Shape::new(from, [2])], |x| x[0].convert(to)?.exp()).unwrap();
        let reverse = vjp(&f, &[0]).unwrap();
        let cotangent = Array::from_f64(Shape::new(to, [2]), &[1.0, 2.0]).unwrap();
        let results = run(&reverse, &[Array::zeros(Shape::new(from, [2])).unwrap(), cotangent]);
        assert_eq!(results[1], Array::from_f64(Shape::new(from, [2]), &[1.0, 2.0]).unwrap());
        vmap_matches(&f, |seed| vec![random(Shape::new(from, [2]), seed)]);
    }
}

/// Values at a distance from 0, where some operators have no derivative.
fn away_from_zero(shape: &Shape, seed: u64, positive: bool) -> Array {
    let away = |value: f64| if positive { value.abs() + 0.3 } else { value + 0.3f64.copysign(value) };
    let values: Vec<f64> = random(shape.clone(), seed).to_f64().into_iter().map(away).collect();
    Array::from_f64(shape.clone(), &values).unwrap()
}

fn is_positive(values: &[f64]) -> bool {
    values.iter().all(|&value| value > 0.0)
}

/// Dimensions of two operands, of which one is broadcast to the other, if to nothing more.
fn broadcast() -> impl Strategy<Value = [Vec<usize>; 2]> {
    (dims(), prop::collection::vec(any::<bool>(), 3), 0usize..6, any::<bool>()).prop_map(
        |(dims, stretched, missing, first)| {
            let sizes = dims.iter().zip(stretched);
            let mut smaller: Vec<usize> =
                sizes.map(|(&size, stretched)| if stretched { 1 } else { size }).collect();
            // None, as often as not.
            smaller.drain(..missing.saturating_sub(3).min(dims.len()));
            if first { [smaller, dims] } else { [dims, smaller] }
        },
    )
}

fn dtype(of: fn(DType) -> bool) -> impl Strategy<Value = DType> {
    prop::sample::select(DType::ALL.into_iter().filter(|&dtype| of(dtype)).collect::<Vec<_>>())
}

/// Each of a list of operators, for a batch, of operands of these dimensions.
fn all_in_batches(all: &[Apply2], dtype: DType, dims: &[Vec<usize>; 2], seed: u32) {
    for apply in all {
        let (f, arguments) = traced(dtype, &[&dims[0], &dims[1]], |x| apply(&x[0], &x[1]));
        vmap_matches(&f, |number| arguments(u64::from(seed) + number));
    }
}

const COMPARISONS: &[Apply2] = &[
    |x, y| x.equal(y),
    |x, y| x.not_equal(y),
    |x, y| x.less(y),
    |x, y| x.less_equal(y),
    |x, y| x.greater(y),
    |x, y| x.greater_equal(y),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_shape_of_a_float(dims in dims(), seed: u32) {
        let shape = Shape::new(DType::F64, dims);
        let seed = u64::from(seed);
        interpreted(|| {
            for (apply, at) in UNARY {
                let f = Function::trace("f", std::slice::from_ref(&shape), |x| apply(&x[0])).unwrap();
                let arguments = |number| vec![away_from_zero(&shape, seed + number, is_positive(at))];
                vmap_matches(&f, arguments);
                derivatives_match(&f, &arguments(0), &[0]);
            }
            let f = Function::trace("f", std::slice::from_ref(&shape), |x| x[0].is_finite()).unwrap();
            vmap_matches(&f, |number| {
                let value = |value: f64| match value {
                    ..-0.5 => f64::NAN,
                    0.5.. => f64::INFINITY,
                    value => value,
                };
                let values = random(shape.clone(), seed + number).to_f64().into_iter().map(value);
                vec![Array::from_f64(shape.clone(), &values.collect::<Vec<_>>()).unwrap()]
            });
        });
    }

    #[test]
    fn any_shapes_of_two_floats(dims in broadcast(), seed: u32) {
        let shapes = dims.map(|dims| Shape::new(DType::F64, dims));
        let seed = u64::from(seed);
        interpreted(|| {
            for (apply, x, y) in BINARY {
                let f = Function::trace("f", &shapes, |x| apply(&x[0], &x[1])).unwrap();
                let arguments = |number| vec![
                    away_from_zero(&shapes[0], seed + number, is_positive(x)),
                    away_from_zero(&shapes[1], seed + 50 + number, is_positive(y)),
                ];
                vmap_matches(&f, arguments);
                derivatives_match(&f, &arguments(0), &[0, 1]);
            }
        });
    }

    #[test]
    fn any_shapes_of_integers_and_preds(
        dims in broadcast(),
        integer in dtype(DType::is_integer),
        signed in dtype(DType::is_signed_integer),
        any in dtype(|_| true),
        seed: u32,
    ) {
        interpreted(|| {
            all_in_batches(NUMBERS, integer, &dims, seed);
            all_in_batches(SIGNED, signed, &dims, seed);
            all_in_batches(PREDS, DType::Pred, &dims, seed);
            all_in_batches(COMPARISONS, any, &dims, seed);
        });
    }

    #[test]
    fn any_shapes_of_choices(dims in broadcast(), seed: u32) {
        let [x, y] = dims.each_ref().map(Vec::as_slice);
        let total: Apply2 = |x, y| x.compare_total_order(Direction::Lt, y);
        interpreted(|| {
            for compare in COMPARISONS.iter().chain([&total]) {
                let (f, arguments) = traced(DType::F64, &[x, y], |x| {
                    compare(&x[0], &x[1])?.select(x[0].sin()?, (&x[0] * &x[1])?)
                });
                vmap_matches(&f, |number| arguments(u64::from(seed) + number));
                derivatives_match(&f, &arguments(u64::from(seed)), &[0, 1]);
            }
        });
    }

    #[test]
    fn any_bounds(
        dims in dims(),
        scalars: [bool; 2],
        number in dtype(|dtype| dtype != DType::Pred),
        seed: u32,
    ) {
        let [min, max] = scalars.map(|scalar| if scalar { &[][..] } else { &dims });
        let (f, arguments) = traced(DType::F64, &[min, &dims, max], |x| x[1].clamp(&x[0], &x[2]));
        interpreted(|| {
            vmap_matches(&f, |number| arguments(u64::from(seed) + number));
            derivatives_match(&f, &arguments(u64::from(seed)), &[0, 1, 2]);
            let (f, arguments) = traced(number, &[min, &dims, max], |x| x[1].clamp(&x[0], &x[2]));
            vmap_matches(&f, |number| arguments(u64::from(seed) + number));
        });
    }

    #[test]
    fn any_conversion(dims in dims(), from in dtype(|_| true), seed: u32) {
        interpreted(|| {
            for to in DType::ALL {
                let (f, arguments) = traced(from, &[&dims], |x| x[0].convert(to));
                vmap_matches(&f, |number| arguments(u64::from(seed) + number));
                // To larger elements, a dimension would have to be of as many as make one.
                if from != DType::Pred && to != DType::Pred && from.size() >= to.size() {
                    let (f, arguments) = traced(from, &[&dims], |x| x[0].bitcast_convert(to));
                    vmap_matches(&f, |number| arguments(u64::from(seed) + number));
                }
            }
            derivatives_match(
                &Function::trace("f", &[Shape::new(DType::F64, dims.as_slice())], |x| {
                    x[0].convert(DType::S16)?.convert(DType::F64)? + x[0].convert(DType::F64)?.sin()
                }).unwrap(),
                &[random(Shape::new(DType::F64, dims.as_slice()), u64::from(seed))],
                &[0],
            );
        });
    }
}
