//! Transforms of contractions and reductions.

use crate::required::{
    derivatives_match, dims, interpreted, traced, vjp_matches, vmap_and_derivatives, vmap_matches,
};
use crate::runner::{random, run};
use proptest::prelude::*;
use xlann::{Array, DType, Function, Result, Shape, Tensor, grad, jvp, vjp, vmap};

type Reduction = fn(&Tensor, &[isize]) -> Result<Tensor>;

const REDUCTIONS: [Reduction; 4] =
    [Tensor::reduce_sum, Tensor::reduce_prod, Tensor::reduce_max, Tensor::reduce_min];

fn reduction(reduce: Reduction, shape: Shape, dimensions: &[isize]) -> Function {
    Function::trace("reduction", &[shape], |x| reduce(&x[0], dimensions)).unwrap()
}

fn f64s(dims: &[usize], values: &[f64]) -> Array {
    Array::from_f64(Shape::new(DType::F64, dims), values).unwrap()
}

fn operators(function: &Function) -> Vec<&'static str> {
    function.equations().iter().map(|equation| equation.operator()).collect()
}

#[test]
fn dot_and_matmul() {
    vmap_and_derivatives(&[&[3], &[3]], |x| x[0].dot(&x[1]));
    vmap_and_derivatives(&[&[2, 3], &[3]], |x| x[0].dot(&x[1]));
    vmap_and_derivatives(&[&[3], &[3, 2]], |x| x[0].dot(&x[1]));
    vmap_and_derivatives(&[&[2, 3], &[3, 4]], |x| x[0].dot(&x[1]));
    vmap_and_derivatives(&[&[2, 1, 2, 3], &[4, 3, 2]], |x| x[0].matmul(&x[1]));
    vmap_and_derivatives(&[&[2, 4, 3], &[3]], |x| x[0].matmul(&x[1]));
    // An operand with itself.
    vmap_and_derivatives(&[&[2, 3]], |x| x[0].dot(&x[0].transpose(&[1, 0])?));
    // Nothing to sum, and nothing to give.
    vmap_and_derivatives(&[&[2, 0], &[0, 3]], |x| x[0].dot(&x[1]));
    vmap_and_derivatives(&[&[0, 2], &[2, 3]], |x| x[0].dot(&x[1]));
}

#[test]
fn dot_general() {
    // Two contracting dimensions in orders that differ between the operands, batch dimensions not in front.
    vmap_and_derivatives(&[&[3, 2, 4, 5], &[5, 4, 3, 2]], |x| {
        x[0].dot_general(&x[1], (&[2, 0], &[1, 2]), (&[1], &[3]))
    });
    vmap_and_derivatives(&[&[2, 3, 4], &[3, 2]], |x| x[0].dot_general(&x[1], (&[], &[]), (&[1, 0], &[0, 1])));
    vmap_and_derivatives(&[&[2], &[3]], |x| x[0].dot_general(&x[1], (&[], &[]), (&[], &[])));
    vmap_and_derivatives(&[&[], &[]], |x| x[0].dot_general(&x[1], (&[], &[]), (&[], &[])));
    for dtype in DType::ALL.into_iter().filter(|&dtype| dtype != DType::Pred) {
        let (function, arguments) =
            traced(dtype, &[&[2, 3], &[3, 2]], |x| x[0].dot_general(&x[1], (&[1], &[0]), (&[0], &[1])));
        interpreted(|| vmap_matches(&function, arguments));
    }
}

#[test]
fn one_batched_operand_gives_one_dot() {
    let (dot, _) = traced(DType::F32, &[&[2, 3], &[3, 4]], |x| x[0].dot(&x[1]));
    for in_axes in [[Some(0), None], [Some(1), None], [Some(2), None], [None, Some(0)]] {
        let batched = vmap(&dot, in_axes, 0, 5).unwrap();
        let dots = operators(&batched).iter().filter(|&&operator| operator == "dot_general").count();
        assert_eq!(dots, 1, "{batched}");
        assert!(!operators(&batched).contains(&"broadcast_in_dim"), "{batched}");
    }
    // The batch stands where the free dimensions are: there is nothing to move.
    let rows = vmap(&dot, [Some(0), None], 0, 5).unwrap();
    assert_eq!(operators(&rows), ["dot_general"], "{rows}");
    let columns = vmap(&dot, [None, Some(2)], 2, 5).unwrap();
    assert_eq!(operators(&columns), ["dot_general"], "{columns}");
    let both = vmap(&dot, [Some(2), Some(1)], 0, 5).unwrap();
    assert_eq!(operators(&both), ["dot_general"], "{both}");
}

#[test]
fn gradients_of_a_product_are_products() {
    let (loss, _) = traced(DType::F32, &[&[2, 3], &[3, 4]], |x| x[0].dot(&x[1])?.reduce_sum(&[0, 1]));
    let gradient = grad(&loss, &[0, 1]).unwrap();
    assert_eq!(
        operators(&gradient),
        ["constant", "broadcast_in_dim", "dot_general", "dot_general"],
        "{gradient}"
    );
}

/// The operands' dimensions of a random dot_general, its contracting dimensions and its batch dimensions.
type Contraction = ([Vec<usize>; 2], [Vec<usize>; 2], [Vec<usize>; 2]);

fn contraction() -> impl Strategy<Value = Contraction> {
    let sizes = || prop::collection::vec(prop_oneof![1 => Just(0usize), 2 => Just(1), 9 => 2usize..4], 0..3);
    (sizes(), sizes(), sizes(), sizes()).prop_flat_map(|(contracting, batch, lhs_free, rhs_free)| {
        // Each dimension with its number: the contracting ones come first, then the batch ones.
        let shuffled = |free: &[usize]| {
            let named = contracting.iter().chain(&batch).chain(free).copied();
            Just(named.enumerate().collect::<Vec<_>>()).prop_shuffle()
        };
        let (end, all) = (contracting.len(), contracting.len() + batch.len());
        [shuffled(&lhs_free), shuffled(&rhs_free)].prop_map(move |operands| {
            let places = |from: usize, to: usize| {
                operands.each_ref().map(|axes| {
                    let place = |number| axes.iter().position(|axis| axis.0 == number).unwrap();
                    (from..to).map(place).collect::<Vec<_>>()
                })
            };
            let dims = operands.each_ref().map(|axes| axes.iter().map(|axis| axis.1).collect());
            (dims, places(0, end), places(end, all))
        })
    })
}

/// Dimensions, and some of their axes.
fn reduced() -> impl Strategy<Value = (Vec<usize>, Vec<isize>)> {
    dims().prop_flat_map(|dims| {
        let axes: Vec<isize> = (0..dims.len() as isize).collect();
        let count = axes.len();
        (Just(dims), prop::sample::subsequence(axes, 0..=count))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_contraction((dims, contracting, batch) in contraction()) {
        interpreted(|| vmap_and_derivatives(&[&dims[0], &dims[1]], |x| {
            x[0].dot_general(
                &x[1],
                (&contracting[0], &contracting[1]),
                (&batch[0], &batch[1]),
            )
        }));
    }

    #[test]
    fn any_reduction((dims, axes) in reduced(), kind in 0..REDUCTIONS.len()) {
        // The differences between infinities are none.
        let empty = axes.iter().any(|&axis| dims[axis as usize] == 0);
        let reduce = REDUCTIONS[if empty { kind % 2 } else { kind }];
        interpreted(|| vmap_and_derivatives(&[&dims], |x| reduce(&x[0], &axes)));
    }
}

#[test]
fn reductions() {
    for reduce in REDUCTIONS {
        vmap_and_derivatives(&[&[2, 3, 4]], |x| reduce(&x[0], &[0, 2]));
        vmap_and_derivatives(&[&[5]], |x| reduce(&x[0], &[0]));
        vmap_and_derivatives(&[&[2, 3]], |x| reduce(&x[0], &[]));
        vmap_and_derivatives(&[&[]], |x| reduce(&x[0], &[]));
        // Nothing to reduce, and nothing to give.
        vmap_and_derivatives(&[&[0, 2]], |x| reduce(&x[0], &[1]));
        let (empty, arguments) = traced(DType::F64, &[&[2, 0]], |x| reduce(&x[0], &[1]));
        vmap_matches(&empty, &arguments);
        vjp_matches(&empty, &arguments(0), &[0]);
        for dtype in DType::ALL.into_iter().filter(|&dtype| dtype != DType::Pred) {
            let (function, arguments) = traced(dtype, &[&[2, 3]], |x| reduce(&x[0], &[0]));
            interpreted(|| vmap_matches(&function, arguments));
        }
    }
    vmap_and_derivatives(&[&[2, 3]], |x| x[0].mean(&[1]));
    for reduce in [Tensor::reduce_all, Tensor::reduce_any, Tensor::reduce_max, Tensor::reduce_min] {
        let shape = Shape::new(DType::Pred, [2, 3]);
        let function = reduction(reduce, shape.clone(), &[1]);
        let preds = |seed| {
            let values = random(shape.with_dtype(DType::F64), seed).to_f64();
            let values: Vec<bool> = values.iter().map(|&value| value > -0.3).collect();
            vec![Array::new([2, 3], &values).unwrap()]
        };
        vmap_matches(&function, preds);
    }
}

#[test]
fn a_product_with_zeros_has_its_derivatives() {
    for values in [[2.0, 0.0, 3.0, -1.0, 0.5], [2.0, 0.0, 3.0, 0.0, 0.5], [0.0; 5]] {
        let product = reduction(Tensor::reduce_prod, Shape::new(DType::F64, [5]), &[0]);
        derivatives_match(&product, &[f64s(&[5], &values)], &[0]);
    }
    let product = reduction(Tensor::reduce_prod, Shape::new(DType::F64, [3, 3]), &[0, 1]);
    let values = [2.0, 3.0, 0.0, 5.0, 1.5, -1.0, 1.0, -2.0, 0.5];
    derivatives_match(&product, &[f64s(&[3, 3], &values)], &[0]);

    let gradient = grad(&reduction(Tensor::reduce_prod, Shape::new(DType::F64, [3]), &[0]), &[0]).unwrap();
    assert_eq!(run(&gradient, &[f64s(&[3], &[2.0, 0.0, 5.0])]), [f64s(&[3], &[0.0, 10.0, 0.0])]);
    assert_eq!(run(&gradient, &[f64s(&[3], &[2.0, 0.0, 0.0])]), [f64s(&[3], &[0.0, 0.0, 0.0])]);
    // The Hessian of xyz has the third factor off its diagonal.
    let row = Function::trace("row", &[Shape::new(DType::F64, [3])], |x| {
        let slopes = x[0].builder().call(&gradient, &[&x[0]])?;
        slopes[0].slice(&[0], &[1], &[1])?.reshape(&[])
    });
    let second = grad(&row.unwrap(), &[0]).unwrap();
    assert_eq!(run(&second, &[f64s(&[3], &[2.0, 0.0, 0.0])]), [f64s(&[3], &[0.0, 0.0, 0.0])]);
    assert_eq!(run(&second, &[f64s(&[3], &[0.0, 3.0, 5.0])]), [f64s(&[3], &[0.0, 5.0, 3.0])]);
}

#[test]
fn a_long_product_takes_few_equations() {
    let product = reduction(Tensor::reduce_prod, Shape::new(DType::F32, [1 << 16]), &[0]);
    let derivative = jvp(&product, &[0]).unwrap();
    assert!(derivative.equations().len() < 16 * 10, "{derivative}");
}

#[test]
fn ties_share_the_derivative_of_an_extremum() {
    let values = f64s(&[2, 3], &[1.0, 3.0, 3.0, 2.0, 2.0, 2.0]);
    let cases: [(Reduction, [f64; 6]); 2] = [
        (Tensor::reduce_max, [0.0, 0.5, 0.5, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0]),
        (Tensor::reduce_min, [1.0, 0.0, 0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0]),
    ];
    for (reduce, expected) in cases {
        let rows =
            Function::trace("rows", &[values.shape().clone()], |x| reduce(&x[0], &[1])?.reduce_sum(&[0]));
        let gradient = grad(&rows.unwrap(), &[0]).unwrap();
        assert_eq!(run(&gradient, std::slice::from_ref(&values)), [f64s(&[2, 3], &expected)]);
    }
    // More ties than f16 counts.
    let many = Array::from_f64(Shape::new(DType::F16, [5000]), &[1.0; 5000]).unwrap();
    let maximum = reduction(Tensor::reduce_max, many.shape().clone(), &[0]);
    let share = run(&grad(&maximum, &[0]).unwrap(), &[many]).remove(0).to_f64()[0];
    assert!((share * 5000.0 - 1.0).abs() < 2e-3, "{share}");
}

#[test]
fn a_reducer_that_is_an_extremum_shares_between_ties() {
    let shape = Shape::new(DType::F64, [2, 4]);
    for (init, sign) in [(f64::NEG_INFINITY, 1.0), (f64::INFINITY, -1.0)] {
        let scalar = Shape::scalar(DType::F64);
        let extremum = |x: &[Tensor]| if sign > 0.0 { x[0].maximum(&x[1]) } else { x[0].minimum(&x[1]) };
        let reducer = Function::trace("extremum", &[scalar.clone(), scalar], extremum).unwrap();
        let f = Function::trace("f", std::slice::from_ref(&shape), |x| {
            let init = x[0].builder().scalar(init)?;
            x[0].builder().reduce(&[&x[0]], &[&init], &[1], reducer.clone())
        })
        .unwrap();
        let x = Array::new([2, 4], &[0.0, 5.0, 5.0, 5.0, 1.0, 7.0, 2.0, 3.0].map(|x: f64| sign * x)).unwrap();
        let tangent = Array::new([2, 4], &[0.0, 1.0, 2.0, 6.0, 1.0, 2.0, 3.0, 4.0]).unwrap();
        let forward = jvp(&f, &[0]).unwrap().eval(&[x.clone(), tangent]).unwrap();
        assert_eq!(forward[1], Array::new([2], &[3.0, 2.0]).unwrap());
        let ones = Array::new([2], &[1.0, 1.0]).unwrap();
        let reverse = vjp(&f, &[0]).unwrap().eval(&[x, ones]).unwrap().pop().unwrap();
        let third = 1.0 / 3.0;
        let expected = Array::new([2, 4], &[0.0, third, third, third, 0.0, 1.0, 0.0, 0.0]).unwrap();
        assert_eq!(reverse, expected);
    }
}
