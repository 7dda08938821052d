//! Transforms of the elementwise operators.

mod transforms;

use transforms::runner::{assert_close, random, run};
use transforms::{derivatives_match, interpreted, traced, vmap_and_derivatives, vmap_matches};
use xlann::{Array, DType, Direction, Function, Shape, Tensor, grad, vjp, vmap};

type Apply = fn(&Tensor) -> xlann::Result<Tensor>;

/// A function of a vector of f64.
fn unary(apply: Apply) -> Function {
    Function::trace("f", &[Shape::new(DType::F64, [3])], |x| apply(&x[0])).unwrap()
}

#[test]
fn unary_operators() {
    let cases: &[(Apply, [f64; 3])] = &[
        (Tensor::abs, [-1.5, 0.5, 2.0]),
        (Tensor::cbrt, [-1.5, 0.5, 2.0]),
        (Tensor::ceil, [-1.5, 0.5, 2.2]),
        (Tensor::cos, [-1.5, 0.5, 2.0]),
        (Tensor::erf, [-1.5, 0.5, 2.0]),
        (Tensor::exp, [-1.5, 0.5, 2.0]),
        (Tensor::expm1, [-1.5, 0.5, 2.0]),
        (Tensor::floor, [-1.5, 0.5, 2.2]),
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
    for (apply, at) in cases {
        let f = unary(*apply);
        derivatives_match(&f, &[Array::new([3], at).unwrap()], &[0]);
        vmap_matches(&f, |seed| vec![random(Shape::new(DType::F64, [3]), seed)]);
    }
}

type Apply2 = fn(&Tensor, &Tensor) -> xlann::Result<Tensor>;

fn f64s(values: &[f64]) -> Array {
    Array::new([values.len()], values).unwrap()
}

#[test]
fn binary_operators() {
    let cases: &[(Apply2, [f64; 3], [f64; 3])] = &[
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
    for (apply, x, y) in cases {
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
    let numbers: &[Apply2] = &[
        |x, y| x + y,
        |x, y| x - y,
        |x, y| x * y,
        |x, y| x / y,
        |x, y| x % y,
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
        |x, y| x.clamp(y, y),
        |x, _| !x,
        |x, _| x.convert(DType::F32),
        |x, _| x.convert(DType::Pred),
    ];
    interpreted(|| {
        for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_integer()) {
            for apply in numbers {
                let (f, arguments) = traced(dtype, &[&[2, 1], &[2, 1]], |x| apply(&x[0], &x[1]));
                vmap_matches(&f, arguments);
            }
        }
        let preds: &[Apply2] = &[
            |x, y| x & y,
            |x, y| x | y,
            |x, y| x ^ y,
            |x, y| x.maximum(y),
            |x, y| x.not_equal(y),
            |x, y| x.select(y, x),
        ];
        for apply in preds {
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
