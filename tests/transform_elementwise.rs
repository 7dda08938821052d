//! Transforms of the elementwise operators.

mod transforms;

use transforms::runner::random;
use transforms::{derivatives_match, vmap_matches};
use xlann::{Array, DType, Function, Shape, Tensor};

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
