//! Values and derivatives against JAX's, at chosen points: scripts/make-derivative-fixtures.py wrote them.

use crate::jax_cases::{self, Results};
use xlann::{
    ApproxTopKOptions, Array, DType, Function, GatherDims, Result, ScatterDims, ScatterKind, Shape, Tensor,
};

/// Those that are compiled too.
const COMPILED: &[&str] = &[
    "approx_max_k_5x5_k3",
    "cond_true",
    "cross_entropy",
    "dot_general",
    "fori_loop_rows",
    "gather_windows",
    "max",
    "nearest_loss",
    "pad",
    "perceptron",
    "pow_of_0",
    "reduce_prod_with_zeros",
    "reduce_window_max_of_inner_ties",
    "reduce_window_max_of_ties",
    "scatter_add",
    "scatter_max_of_ties",
    "sort_operands",
    "while_loop",
];

/// The case of a name, as the script makes it.
fn build(name: &str, x: &[Tensor]) -> Results {
    if let Some(kinds) = name.strip_prefix("approx_") {
        return approx(kinds, &x[0]);
    }
    let one = match name {
        "abs" => x[0].abs(),
        "cbrt" | "cbrt_at_0" => x[0].cbrt(),
        "ceil" => x[0].ceil(),
        "cos" => x[0].cos(),
        "erf" => x[0].erf(),
        "exp" => x[0].exp(),
        "expm1" => x[0].expm1(),
        "floor" => x[0].floor(),
        "log" | "log_outside" => x[0].log(),
        "log1p" | "log1p_outside" => x[0].log1p(),
        "logistic" => x[0].logistic(),
        "neg" => -&x[0],
        "round" => x[0].round(),
        "round_ties_even" => x[0].round_ties_even(),
        "rsqrt" | "rsqrt_at_0" => x[0].rsqrt(),
        "sign" => x[0].sign(),
        "sin" => x[0].sin(),
        "sqrt" | "sqrt_at_0" => x[0].sqrt(),
        "tan" => x[0].tan(),
        "tanh" => x[0].tanh(),

        "add" => &x[0] + &x[1],
        "sub" => &x[0] - &x[1],
        "mul" => &x[0] * &x[1],
        "div" | "div_by_0" => &x[0] / &x[1],
        "atan2" | "atan2_on_axes" | "atan2_at_0" => x[0].atan2(&x[1]),
        "max" | "max_of_signed_zeros" | "max_of_nan" => x[0].maximum(&x[1]),
        "min" => x[0].minimum(&x[1]),
        "rem" | "rem_at_multiples" => &x[0] % &x[1],
        "pow" | "pow_of_negative" | "pow_of_0" | "pow_0_of_0" | "pow_negative_of_0" => x[0].pow(&x[1]),
        "power_0" => x[0].pow(0),
        "power_1" => x[0].pow(1),
        "power_2" => x[0].pow(2),
        "power_3" => x[0].pow(3),
        "power_minus_2" => x[0].pow(-2),

        "clamp" | "clamp_elementwise" | "clamp_empty_range" => x[1].clamp(&x[0], &x[2]),
        "select" => x[0].select(&x[1], &x[2]),
        "where_of_sqrt" => {
            let positive = x[0].greater(0)?;
            positive.select(&positive.select(&x[0], x[0].full_like(1)?)?.sqrt()?, 0)
        }

        "convert" => x[0].convert(DType::F32)?.convert(DType::F64),
        "reshape" => x[0].sin()?.reshape(&[2, 6]),
        "transpose" => x[0].sin()?.transpose(&[2, 0, 1]),
        "reverse" => square(&x[0])?.reverse(&[0]),
        "broadcast_in_dim" => square(&x[0])?.broadcast_in_dim(&[2, 3, 4], &[1, 2]),
        "concatenate" => {
            let first = x[1].slice_in_dim(0, 1, 1, 1)?;
            Tensor::concatenate(&[&(&x[0] * first)?, &x[1], &x[0]], 1)
        }
        "slice" => square(&x[0])?.slice(&[0, 1], &[3, 4], &[2, 2]),
        "pad" => square(&x[0])?.pad(square(&x[1])?, &[1, -1], &[-1, 2], &[1, 0]),
        "pad_all_negative" => (&x[0] * &x[1])?.pad(&x[1], &[-2], &[-1], &[2]),
        "dynamic_slice" => square(&x[0])?.dynamic_slice(&[&x[1], &x[2]], &[2, 2]),
        "dynamic_slice_clamped" => square(&x[0])?.dynamic_slice(&[&x[1]], &[3]),
        "dynamic_update_slice" | "dynamic_update_slice_clamped" => {
            square(&x[0])?.dynamic_update_slice(&square(&x[1])?, &[&x[2]])
        }

        "dot" => x[0].dot(&x[1]),
        "matmul" => x[0].matmul(&x[1]),
        "dot_general" => x[0].dot_general(&x[1], (&[1, 3], &[0, 2]), (&[2], &[3])),
        "outer" => x[0].dot_general(&x[1], (&[], &[]), (&[], &[])),

        "reduce_sum" => square(&x[0])?.reduce_sum(&[1]),
        "mean" => square(&x[0])?.mean(&[0, 1]),
        "reduce_prod" | "reduce_prod_with_zeros" => x[0].reduce_prod(&[1]),
        "reduce_prod_of_all" => x[0].reduce_prod(&[0, 1]),
        "reduce_max" => square(&x[0])?.reduce_max(&[1]),
        "reduce_min" => square(&x[0])?.reduce_min(&[1]),
        "reduce_max_of_all" => x[0].reduce_max(&[0, 1]),
        "argmax" => return Ok(vec![x[0].argmax(1)?, x[0].clone()]),
        "logsumexp" => logsumexp(&x[0])?.squeeze(&[1]),
        "reduce_window_sum" => {
            let add = scalars(|x| &x[0] + &x[1])?;
            square(&x[0])?.reduce_window(0, &[2, 3], &[1, 2], &[(1, 0), (0, 1)], add)
        }
        "reduce" => {
            let turn = Function::trace("turn", &vec![Shape::scalar(DType::F64); 4], |x| {
                let real = ((&x[0] * &x[2])? - (&x[1] * &x[3])?)?;
                Ok([real, ((&x[0] * &x[3])? + (&x[1] * &x[2])?)?])
            })?;
            let [one, zero] = [1.0, 0.0].map(|init| x[0].builder().scalar(init));
            return x[0].builder().reduce(&[&x[0], &x[1]], &[&one?, &zero?], &[1], turn);
        }
        "reduce_window_max_of_ties" => {
            let max = scalars(|x| x[0].maximum(&x[1]))?;
            square(&x[0])?.reduce_window(f64::NEG_INFINITY, &[3], &[1], &[(0, 0)], max)
        }
        "reduce_window_max_of_inner_ties" => {
            let max = scalars(|x| x[0].maximum(&x[1]))?;
            square(&x[0])?.reduce_window(f64::NEG_INFINITY, &[4], &[1], &[(0, 0)], max)
        }
        "reduce_window_max_of_tied_squares" => {
            let max = scalars(|x| x[0].maximum(&x[1]))?;
            square(&x[0])?.reduce_window(f64::NEG_INFINITY, &[2, 2], &[1, 1], &[(0, 0), (0, 0)], max)
        }
        "reduce_window_min_of_ties" => {
            let min = scalars(|x| x[0].minimum(&x[1]))?;
            square(&x[0])?.reduce_window(f64::INFINITY, &[3], &[1], &[(0, 0)], min)
        }
        "reduce_window_max" => {
            let max = scalars(|x| x[0].maximum(&x[1]))?;
            square(&x[0])?.reduce_window(f64::NEG_INFINITY, &[2, 2], &[1, 2], &[(0, 0), (0, 0)], max)
        }
        "cumsum" => {
            let add = scalars(|x| &x[0] + &x[1])?;
            square(&x[0])?.reduce_window(0, &[1, 4], &[1, 1], &[(0, 0), (3, 0)], add)
        }
        "cumprod" => x[0].reduce_window(1, &[4], &[1], &[(3, 0)], scalars(|x| &x[0] * &x[1])?),
        "cummax" => {
            x[0].reduce_window(f64::NEG_INFINITY, &[4], &[1], &[(3, 0)], scalars(|x| x[0].maximum(&x[1]))?)
        }
        "cumlogsumexp" => {
            let log_add = scalars(|x| {
                let distance = (-(&x[0] - &x[1])?.abs()?)?;
                x[0].maximum(&x[1])? + distance.exp()?.log1p()
            })?;
            x[0].reduce_window(-1e30, &[4], &[1], &[(3, 0)], log_add)
        }

        "sort" => square(&x[0])?.sort(1),
        "sort_operands" => return sort_by_first(&[&x[0], &(&x[1] * &x[0])?, &x[2]], 1),
        "sort_columns" => return sort_by_first(&[&x[0], &x[1]], 0),
        "top_k" => return pair(square(&x[0])?.top_k(2)),

        "gather" | "gather_clamped" => {
            let dims = GatherDims {
                offset_dims: vec![1],
                collapsed_slice_dims: vec![0],
                start_index_map: vec![0],
                index_vector_dim: 1,
                ..GatherDims::default()
            };
            square(&x[0])?.gather(&x[1], dims, &[1, 2])
        }
        "gather_windows" => {
            let dims = GatherDims {
                offset_dims: vec![0, 2],
                start_index_map: vec![1, 0],
                index_vector_dim: 1,
                ..GatherDims::default()
            };
            square(&x[0])?.gather(&x[1], dims, &[2, 2])
        }
        "take_along_axis" => square(&x[0])?.take_along_axis(&x[1], 1),
        "scatter_add" | "scatter_add_dropped" => scatter(x, ScatterKind::Add),
        "scatter_max" | "scatter_max_of_ties" => scatter(x, ScatterKind::Max),
        "scatter_min_of_ties" => scatter(x, ScatterKind::Min),
        "scatter_set" | "scatter_set_dropped" => scatter(x, ScatterKind::Set),

        "while_loop" => {
            let state = vec![Shape::scalar(DType::F64); 2];
            let condition = Function::trace("condition", &state, |x| {
                (square(&x[0])? - &x[1])?.abs()?.greater(&x[1] * 1e-14)
            })?;
            let body = Function::trace("body", &state, |x| Ok([newton_step(&x[0], &x[1])?, x[1].clone()]))?;
            return Ok(vec![x[0].builder().while_loop(&[&x[0], &x[0]], condition, body)?.remove(0)]);
        }
        "while_loop_without_iterations" => {
            let state = [Shape::scalar(DType::F64)];
            let condition = Function::trace("condition", &state, |x| x[0].greater(1e9))?;
            let body = Function::trace("body", &state, |x| square(&x[0]))?;
            return x[0].builder().while_loop(&[&square(&x[0])?], condition, body);
        }
        "fori_loop" => {
            let last = x[0].builder().fori_loop(5, &[&x[0], &x[1]], |i, x| {
                Ok([((x[0].sin()? * &x[1])? + i.convert(DType::F64))?, x[1].clone()])
            })?;
            Ok(last[0].clone())
        }
        "fori_loop_rows" => {
            let builder = x[0].builder();
            let zeros = builder.constant(Array::zeros(Shape::new(DType::F64, [2]))?)?;
            let last = builder.fori_loop(3, &[&zeros, &x[0], &x[1]], |i, x| {
                let row = x[1].dynamic_slice(&[i, &i.builder().scalar(0)?], &[1, 2])?.squeeze(&[0])?;
                Ok([(x[0].dot(&x[2])? + row)?.tanh()?, x[1].clone(), x[2].clone()])
            })?;
            Ok(last[0].clone())
        }
        "fori_loop_without_iterations" => {
            return x[0].builder().fori_loop(0, &[&square(&x[0])?], |_, x| square(&x[0]));
        }
        "cond_true" | "cond_false" => {
            let shapes = vec![x[1].shape().clone(); 2];
            let on_true = Function::trace("product", &shapes, |x| Ok(((&x[0] * &x[1])?, x[0].clone())))?;
            let on_false = Function::trace("sine", &shapes, |x| Ok((x[0].sin()?, x[1].clone())))?;
            return x[0].cond(&[&x[1], &x[2]], on_true, on_false);
        }
        "switch_0" | "switch_1" | "switch_2" => {
            let shape = [x[1].shape().clone()];
            let branches = vec![
                Function::trace("square", &shape, |x| square(&x[0]))?,
                Function::trace("exp", &shape, |x| x[0].exp())?,
                Function::trace("ones", &shape, |x| x[0].full_like(1))?,
            ];
            return x[0].switch(&[&x[1]], branches);
        }

        "softmax" => (&x[0] - logsumexp(&x[0])?)?.exp(),
        "cross_entropy" => {
            let log_softmax = (&x[0] - logsumexp(&x[0])?)?;
            -log_softmax.take_along_axis(&x[1].expand_dims(1)?, 1)?.mean(&[0, 1])?
        }
        "l2_distances" => l2_distances(&x[0], &x[1]),
        "l2_distances_by_products" => {
            let products = (x[0].matmul(&x[1].transpose(&[1, 0])?)? * 2)?;
            let [x, y] = [&x[0], &x[1]].map(|x| square(x)?.reduce_sum(&[1]));
            (x?.expand_dims(1)? - products)? + y?.expand_dims(0)
        }
        "nearest_loss" => {
            let (nearest, _) = l2_distances(&x[0], &x[1])?.approx_min_k(2, &ApproxTopKOptions::default())?;
            nearest.sqrt()?.reduce_sum(&[0, 1])
        }
        "newton_steps" => {
            let last = x[0]
                .builder()
                .fori_loop(6, &[&x[0], &x[0]], |_, x| Ok([newton_step(&x[0], &x[1])?, x[1].clone()]))?;
            Ok(last[0].clone())
        }
        "normalized" => {
            let centred = (&x[0] - x[0].mean(&[0])?)?;
            &centred / (square(&centred)?.mean(&[0])? + 1e-5)?.sqrt()
        }
        "perceptron" => (x[0].matmul(&x[1])? + &x[2])?.tanh()?.dot(&x[3])?.reduce_sum(&[0]),
        "rosenbrock" => {
            let [before, after] = [x[0].slice_in_dim(0, 3, 1, 0)?, x[0].slice_in_dim(1, 4, 1, 0)?];
            let curve = (square(&(after - square(&before)?)?)? * 100)?;
            (curve + square(&(1 - &before)?)?)?.reduce_sum(&[0])
        }
        _ => panic!("no function is of this name: {name}"),
    };
    Ok(vec![one?])
}

fn pair(tensors: Result<(Tensor, Tensor)>) -> Results {
    tensors.map(|(values, indices)| vec![values, indices])
}

fn square(x: &Tensor) -> Result<Tensor> {
    x * x
}

/// A function of two scalars.
fn scalars(combine: impl FnOnce(&[Tensor]) -> Result<Tensor>) -> Result<Function> {
    Function::trace("combine", &vec![Shape::scalar(DType::F64); 2], combine)
}

fn newton_step(x: &Tensor, a: &Tensor) -> Result<Tensor> {
    (x + a / x)? / 2
}

/// Along dimension 1, which is kept with size 1.
fn logsumexp(x: &Tensor) -> Result<Tensor> {
    let max = x.reduce_max(&[1])?.expand_dims(1)?;
    (x - &max)?.exp()?.reduce_sum(&[1])?.expand_dims(1)?.log()? + max
}

fn l2_distances(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    square(&(x.expand_dims(1)? - y.expand_dims(0)?)?)?.reduce_sum(&[2])
}

fn sort_by_first(operands: &[&Tensor], axis: isize) -> Results {
    let pairs: Vec<Shape> =
        operands.iter().flat_map(|operand| vec![Shape::scalar(operand.dtype()); 2]).collect();
    let ascending = Function::trace("ascending", &pairs, |x| x[0].less(&x[1]))?;
    operands[0].builder().sort_by(operands, axis, true, ascending)
}

fn scatter(x: &[Tensor], kind: ScatterKind) -> Result<Tensor> {
    let dims = ScatterDims {
        update_window_dims: vec![1],
        inserted_window_dims: vec![0],
        scatter_dims_to_operand_dims: vec![0],
        index_vector_dim: 1,
        ..ScatterDims::default()
    };
    square(&x[0])?.scatter(&x[1], &square(&x[2])?, kind, dims)
}

/// Approximate top-k by what follows `approx_` in its name: the end, and how many or along what.
fn approx(kinds: &str, x: &Tensor) -> Results {
    let options = ApproxTopKOptions::default();
    pair(match kinds.split_at(6) {
        ("max_k_", "columns") => {
            x.sin()?.approx_max_k(2, &ApproxTopKOptions { reduction_dimension: 0, ..options })
        }
        ("max_k_", size) => x.approx_max_k(size[size.len() - 1..].parse().unwrap(), &options),
        ("min_k_", size) => x.approx_min_k(size[size.len() - 1..].parse().unwrap(), &options),
        _ => panic!("no function is of this name: approx_{kinds}"),
    })
}

#[test]
fn values_and_derivatives_are_those_of_jax() {
    let cases = jax_cases::fixtures(include_str!("../fixtures/derivatives.json"));
    jax_cases::require_equal(&cases, |name, record| {
        jax_cases::differences(name, record, COMPILED.contains(&name), build)
    });
}
