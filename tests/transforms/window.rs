//! Transforms of reductions by functions, over dimensions and over windows.

use crate::required::{derivatives_match, interpreted, jvp_matches, vjp_matches, vmap_matches};
use crate::runner::random;
use proptest::prelude::*;
use xlann::{Array, DType, Function, Operand, Shape, Tensor, jvp};

type Combine = fn(&Tensor, &Tensor) -> xlann::Result<Tensor>;

fn f64s(dims: &[usize]) -> Shape {
    Shape::new(DType::F64, dims)
}

fn reducer(dtype: DType, combine: Combine) -> Function {
    Function::trace("reducer", &[Shape::scalar(dtype), Shape::scalar(dtype)], |x| combine(&x[0], &x[1]))
        .unwrap()
}

fn add(x: &Tensor, y: &Tensor) -> xlann::Result<Tensor> {
    x + y
}

/// Associative and commutative, with 0 as its identity, and neither linear nor elementwise in one operator.
fn add_and_multiply(x: &Tensor, y: &Tensor) -> xlann::Result<Tensor> {
    (x + y)? + (x * y)?
}

/// Windows of an operand and an init.
fn windows(
    shape: &Shape,
    window: &[usize],
    strides: &[usize],
    padding: &[(usize, usize)],
    combine: Combine,
) -> Function {
    Function::trace("windows", &[shape.clone(), shape.with_dims([])], |x| {
        x[0].reduce_window(&x[1], window, strides, padding, reducer(shape.dtype(), combine))
    })
    .unwrap()
}

/// The product of complex numbers, each a pair of arrays, over some dimensions.
fn complex_product(shape: &Shape, dimensions: &[isize]) -> Function {
    let scalar = shape.with_dims([]);
    let product = Function::trace("product", &vec![scalar.clone(); 4], |x| {
        Ok([((&x[0] * &x[2])? - (&x[1] * &x[3]))?, ((&x[0] * &x[3])? + (&x[1] * &x[2]))?])
    })
    .unwrap();
    Function::trace("f", &[shape.clone(), shape.clone(), scalar.clone(), scalar], |x| {
        x[0].builder().reduce(&[&x[0], &x[1]], &[&x[2], &x[3]], dimensions, product)
    })
    .unwrap()
}

/// Random operands, and the inits: compiled reductions may leave those out that are an identity.
fn arguments(function: &Function, seed: u64, inits: &[f64]) -> Vec<Array> {
    let mut shapes = function.parameter_shapes();
    shapes.truncate(shapes.len() - inits.len());
    let operands = shapes.into_iter().zip(seed * 10..).map(|(shape, seed)| random(shape, seed));
    operands.chain(inits.iter().map(|&init| Array::scalar(init))).collect()
}

/// One of the reducers above, and its identity for values in -1..1.
const COMBINES: [(Combine, f64); 3] = [(add, 0.0), (add_and_multiply, 0.0), (|x, y| x.maximum(y), -2.0)];

#[test]
fn reductions_of_several_operands_batch() {
    for (dims, dimensions) in [
        (&[3, 2, 5][..], &[1isize][..]),
        (&[3, 2, 5], &[0, 2]),
        (&[4], &[0]),
        (&[2, 0], &[1]),
        (&[0, 2], &[1]),
        (&[2], &[]),
    ] {
        let f = complex_product(&f64s(dims), dimensions);
        vmap_matches(&f, |seed| arguments(&f, seed, &[1.0, 0.0]));
    }
}

#[test]
fn arguments_of_extremes_batch() {
    for dtype in [DType::F32, DType::S8, DType::U16] {
        let f =
            Function::trace("f", &[Shape::new(dtype, [3, 5])], |x| Ok((x[0].argmax(1)?, x[0].argmin(0)?)));
        let f = f.unwrap();
        vmap_matches(&f, |seed| {
            let values: Vec<f64> = (0..15).map(|i| ((i * 7 + seed * 5) % 11) as f64).collect();
            vec![Array::from_f64(Shape::new(dtype, [3, 5]), &values).unwrap()]
        });
    }
}

#[test]
fn reductions_of_several_operands_have_derivatives() {
    for (dims, dimensions) in [
        (&[3, 2, 5][..], &[1isize][..]),
        (&[3, 2, 5], &[0, 2]),
        (&[7], &[0]),
        (&[8, 1], &[0]),
        (&[1, 2], &[0]),
        (&[2], &[]),
    ] {
        let f = complex_product(&f64s(dims), dimensions);
        let arguments = arguments(&f, 3, &[1.0, 0.0]);
        derivatives_match(&f, &arguments, &[0, 1]);
        derivatives_match(&f, &arguments, &[1]);
    }
}

#[test]
fn inits_have_derivatives() {
    let f = complex_product(&f64s(&[3, 2]), &[0]);
    derivatives_match(&f, &arguments(&f, 3, &[1.0, 0.0]), &[0, 1, 2, 3]);
    derivatives_match(&f, &arguments(&f, 3, &[1.0, 0.0]), &[3]);
    // Of nothing, the inits are the result.
    let f = complex_product(&f64s(&[0, 2]), &[0]);
    derivatives_match(&f, &arguments(&f, 3, &[1.0, 0.0]), &[0, 2, 3]);
}

#[test]
fn an_index_beside_a_value_has_no_tangent() {
    // The value at the greatest key, and the key's index.
    let scalars = [Shape::scalar(DType::F64), Shape::scalar(DType::S32), Shape::scalar(DType::F64)];
    let best = Function::trace("best", &[scalars.as_slice(), &scalars].concat(), |x| {
        let left = x[0].greater(&x[3])?;
        Ok((left.select(&x[0], &x[3])?, left.select(&x[1], &x[4])?, left.select(&x[2], &x[5])?))
    })
    .unwrap();
    let f = Function::trace("f", &[f64s(&[2, 5]), f64s(&[2, 5])], |x| {
        let builder = x[0].builder();
        let indices = builder.iota(Shape::new(DType::S32, [2, 5]), 1)?;
        let inits = [builder.scalar(f64::NEG_INFINITY)?, builder.scalar(-1i32)?, builder.scalar(0f64)?];
        builder.reduce(&[&x[0], &indices, &x[1]], &inits.each_ref(), &[1], best)
    })
    .unwrap();
    vmap_matches(&f, |seed| arguments(&f, seed, &[]));
    for wrt in [&[0][..], &[1], &[0, 1]] {
        derivatives_match(&f, &arguments(&f, 3, &[]), wrt);
    }
}

#[test]
fn a_reducer_of_any_operators_has_derivatives() {
    // x + y + x y, of matrices of one element.
    let scalar = Shape::scalar(DType::F64);
    let combine = Function::trace("combine", &[scalar.clone(), scalar.clone()], |x| {
        let product = x[0].reshape(&[1, 1])?.dot(&x[1].reshape(&[1, 1])?)?.reshape(&[])?;
        (&x[0] + &x[1])? + product
    })
    .unwrap();
    let f = Function::trace("f", &[f64s(&[2, 5])], |x| {
        x[0].builder().reduce(&[&x[0]], &[&0f64.tensor(&x[0])?], &[1], combine)
    })
    .unwrap();
    vmap_matches(&f, |seed| arguments(&f, seed, &[]));
    derivatives_match(&f, &arguments(&f, 3, &[]), &[0]);
}

#[test]
fn windows_batch() {
    for (combine, init) in COMBINES {
        let f = windows(&f64s(&[5]), &[3], &[2], &[(1, 2)], combine);
        vmap_matches(&f, |seed| arguments(&f, seed, &[init]));
        let f = windows(&f64s(&[3, 4]), &[2, 1], &[1, 2], &[(0, 1), (0, 0)], combine);
        vmap_matches(&f, |seed| arguments(&f, seed, &[init]));
    }
    let shape = Shape::new(DType::S16, [2, 3]);
    let f = windows(&shape, &[1, 2], &[1, 1], &[(0, 0), (1, 0)], |x, y| x.minimum(y));
    vmap_matches(&f, |seed| {
        let values: Vec<f64> = (0..6).map(|i| ((i * 7 + seed * 5) % 11) as f64).collect();
        vec![Array::from_f64(shape.clone(), &values).unwrap(), Array::scalar(seed as i16 + 11)]
    });
}

#[test]
fn windows_have_derivatives() {
    for (combine, init) in COMBINES {
        for (dims, window, strides, padding) in [
            (&[5][..], &[2][..], &[2][..], &[(0, 0)][..]),
            (&[5], &[2], &[3], &[(0, 0)]),
            (&[5], &[3], &[2], &[(2, 1)]),
            (&[2], &[1], &[1], &[(3, 2)]),
            (&[2, 3, 4], &[2, 1, 3], &[1, 2, 1], &[(0, 1), (0, 0), (1, 1)]),
        ] {
            let f = windows(&f64s(dims), window, strides, padding, combine);
            derivatives_match(&f, &arguments(&f, 3, &[init]), &[0]);
        }
    }
}

/// Associative and not commutative, with 0 as its identity.
fn first_that_is_not_0(x: &Tensor, y: &Tensor) -> xlann::Result<Tensor> {
    x.not_equal(0)?.select(x, y)
}

/// Values with ties at both ends and inside of windows.
fn tied(dims: &[usize], seed: u64) -> Array {
    let values: Vec<f64> = (0..f64s(dims).element_count() as u64)
        .map(|i| [0.0, 5.0, 5.0, 0.0, 5.0][((i + seed) % 5) as usize])
        .collect();
    Array::new(dims, &values).unwrap()
}

#[test]
fn elements_are_combined_in_order_both_ways() {
    let first_greatest: Combine = |x, y| x.greater_equal(y)?.select(x, y);
    for (combine, init) in [
        (first_that_is_not_0 as Combine, 0.0),
        (first_greatest, -9.0),
        (|x, y| x.maximum(y), -9.0),
        (|x, y| x.minimum(y), 9.0),
    ] {
        for (dims, window, strides) in [
            (&[4][..], &[4][..], &[1][..]),
            (&[2, 2], &[2, 2], &[1, 1]),
            (&[4, 5], &[2, 3], &[1, 2]),
            (&[9], &[7], &[1]),
        ] {
            let padding = vec![(0, 0); dims.len()];
            let f = windows(&f64s(dims), window, strides, &padding, combine);
            let arguments = |seed: u64| vec![tied(dims, seed), Array::scalar(init + 0.5 * seed as f64)];
            vjp_matches(&f, &arguments(0), &[0]);
            interpreted(|| {
                (1..5).for_each(|seed| vjp_matches(&f, &arguments(seed), &[0]));
                vmap_matches(&f, arguments);
            });
        }
    }
}

#[test]
fn ties_that_position_breaks_are_broken_alike_in_every_transform() {
    // The greatest key and its value, of equal keys the first.
    let best = Function::trace("best", &vec![Shape::scalar(DType::F64); 4], |x| {
        let left = x[0].greater_equal(&x[2])?;
        Ok((left.select(&x[0], &x[2])?, left.select(&x[1], &x[3])?))
    })
    .unwrap();
    for (dims, dimensions) in
        [(&[4][..], &[0isize][..]), (&[2, 2], &[0, 1]), (&[3, 2, 3], &[0, 2]), (&[7, 1], &[0])]
    {
        let scalar = f64s(&[]);
        let f = Function::trace("f", &[f64s(dims), f64s(dims), scalar.clone(), scalar], |x| {
            x[0].builder().reduce(&[&x[0], &x[1]], &[&x[2], &x[3]], dimensions, best.clone())
        })
        .unwrap();
        let arguments = |seed: u64| {
            let init = [Array::scalar(-9.0), Array::scalar(seed as f64)];
            vec![tied(dims, seed), random(f64s(dims), seed), init[0].clone(), init[1].clone()]
        };
        vmap_matches(&f, arguments);
        interpreted(|| (0..5).for_each(|seed| vjp_matches(&f, &arguments(seed), &[0, 1])));
    }
}

#[test]
fn windows_of_nothing_have_derivatives() {
    let f = windows(&f64s(&[0, 3]), &[1, 2], &[1, 1], &[(1, 1), (0, 0)], add);
    derivatives_match(&f, &[random(f64s(&[0, 3]), 0), Array::scalar(0f64)], &[0]);
    let f = windows(&f64s(&[0, 3]), &[1, 2], &[1, 1], &[(1, 1), (0, 0)], add_and_multiply);
    derivatives_match(&f, &[random(f64s(&[0, 3]), 0), Array::scalar(0f64)], &[0]);
}

#[test]
fn the_init_of_windows_has_a_derivative() {
    for combine in [add as Combine, add_and_multiply] {
        let f = windows(&f64s(&[4]), &[2], &[1], &[(1, 0)], combine);
        for wrt in [&[1][..], &[0, 1]] {
            derivatives_match(&f, &arguments(&f, 3, &[0.0]), wrt);
        }
    }
}

#[test]
fn the_tangent_of_a_sum_over_windows_is_one() {
    let f = windows(&f64s(&[64]), &[3], &[1], &[(0, 0)], add);
    let operators: Vec<_> = jvp(&f, &[0]).unwrap().equations().iter().map(|e| e.operator()).collect();
    assert_eq!(operators, ["reduce_window", "constant", "reduce_window"]);
    // An addition of something else is none.
    let f = windows(&f64s(&[5]), &[3], &[1], &[(0, 0)], |x, _| x + x);
    jvp_matches(&f, &[random(f64s(&[5]), 0), Array::scalar(0.5)], &[0, 1]);
}

/// Of a dimension, its size, window and stride, and the padding before and after it.
fn windowed() -> impl Strategy<Value = (usize, usize, usize, (usize, usize))> {
    (0usize..5, 1usize..4, 1usize..4, (0usize..3, 0usize..3)).prop_map(|(size, window, stride, padding)| {
        // A window has something to stand on.
        let padding = if size + padding.0 + padding.1 == 0 { (1, 0) } else { padding };
        (size, window.min(size + padding.0 + padding.1), stride, padding)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_windows(
        axes in prop::collection::vec(windowed(), 0..3),
        combine in 0..COMBINES.len(),
        integers: bool,
        seed: u32,
    ) {
        let dims: Vec<usize> = axes.iter().map(|axis| axis.0).collect();
        let window: Vec<usize> = axes.iter().map(|axis| axis.1).collect();
        let strides: Vec<usize> = axes.iter().map(|axis| axis.2).collect();
        let padding: Vec<(usize, usize)> = axes.iter().map(|axis| axis.3).collect();
        let of = |shape: &Shape, combine| windows(shape, &window, &strides, &padding, combine);
        let f = of(&f64s(&dims), COMBINES[combine].0);
        // Any init will do on the interpreter, so that the elements of a batch can differ in it.
        let arguments = |number: u64| arguments(&f, u64::from(seed) + number, &[]);
        interpreted(|| {
            vmap_matches(&f, arguments);
            derivatives_match(&f, &arguments(0), &[0]);
            derivatives_match(&f, &arguments(0), &[0, 1]);
            if integers {
                let shape = Shape::new(DType::S16, dims.as_slice());
                let f = of(&shape, |x, y| x.minimum(y));
                vmap_matches(&f, |number| {
                    let numbers = |shape: Shape, number| {
                        let values = random(shape.with_dtype(DType::F64), number).to_f64();
                        let values: Vec<f64> = values.iter().map(|value| (9.0 * value).floor()).collect();
                        Array::from_f64(shape, &values).unwrap()
                    };
                    let number = 2 * (u64::from(seed) + number);
                    vec![numbers(shape.clone(), number), numbers(shape.with_dims([]), number + 1)]
                });
            }
        });
    }
}
