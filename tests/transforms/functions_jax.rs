//! Functions of several operators against JAX's, with derivatives, at chosen points and in several dtypes:
//! scripts/make-function-fixtures.py wrote them.

use crate::jax_cases::{self, Record, Results};
use crate::runner;
use xlann::{Array, DType, Function, Result, Shape, Tensor};

/// Those whose derivatives are compiled too.
const COMPILED: &[&str] = &[
    "clip_by_rows",
    "cummax_of_ties",
    "cumprod_with_zeros",
    "cumsum_of_5",
    "einsum ...ij,...jk->...ik",
    "einsum ab,bc,cd,da->",
    "einsum iijj->ji",
    "gelu",
    "gelu_tanh",
    "logsumexp_with_infinity",
    "norm_rows",
    "relu",
    "roll_both",
    "softmax_rows",
    "sort_descending_of_ties",
    "stop_gradient",
    "tril_0",
    "var_columns_1",
];

/// The case of a name, as the script makes it.
fn build(name: &str, x: &[Tensor]) -> Results {
    if let Some(formula) = name.strip_prefix("einsum ") {
        return Ok(vec![Tensor::einsum(formula, &x.iter().collect::<Vec<_>>())?]);
    }
    if let Some(results) = by_kind(name, &x[0]) {
        return results.map(|result| vec![result]);
    }
    let one = match name {
        "logsumexp_of_all" => x[0].logsumexp(&[0, 1]),
        "sigmoid" => x[0].logistic(),
        "relu" => x[0].relu(),
        "gelu" | "gelu_of_infinities" => x[0].gelu(),
        "gelu_tanh" => x[0].gelu_tanh(),
        "clip" => x[0].clip(-1, 1),
        "clip_by_rows" => x[0].clip(&x[1], &x[2]),
        "clip_to_empty_range" => x[0].clip(1, -1),
        "stop_gradient" => &x[0] * x[0].sin()?.stop_gradient(),

        "mean_rows" => square(&x[0])?.mean(&[1]),
        "mean_of_all" => x[0].mean(&[0, 1]),
        "var_rows" => x[0].var(&[1], 0),
        "var_columns_1" => square(&x[0])?.var(&[0], 1),
        "var_of_all" => x[0].var(&[-1, 0], 0),
        "var_far" => x[0].var(&[0], 1),
        "norm_rows" => x[0].norm(&[1]),
        "norm_of_all" => x[0].norm(&[0, 1]),
        "norm_of_one" => x[0].norm(&[0]),

        "stack_first" => Tensor::stack(&[&x[0], &square(&x[1])?], 0),
        "stack_middle" => Tensor::stack(&[&x[0], &square(&x[1])?], 1),
        "stack_last" => Tensor::stack(&[&x[0], &square(&x[1])?], -1),
        "split" => return square(&x[0])?.split(&[1, 0, x[0].dims()[1] - 1], 1),
        "split_evenly" => return square(&x[0])?.split_evenly(2, -1),
        "roll" => square(&x[0])?.roll(&[1], &[1]),
        "roll_back" => square(&x[0])?.roll(&[-2], &[-2]),
        "roll_far" => square(&x[0])?.roll(&[11], &[0]),
        "roll_both" => square(&x[0])?.roll(&[-5, 6, 1], &[0, 1, 0]),
        "tril_of_batch" => square(&x[0])?.tril(0),
        "tril_hides_infinities" => x[0].tril(0),
        "sort_descending" => square(&x[0])?.sort_descending(1),
        "sort_descending_of_ties" => x[0].sort_descending(0),
        "argsort_descending" => x[0].argsort_descending(-1),
        "one_hot" => x[0].one_hot(6, x[0].dtype()),
        _ => panic!("no function is of this name: {name}"),
    };
    Ok(vec![one?])
}

/// A function of one tensor whose name tells along what it goes.
fn by_kind(name: &str, x: &Tensor) -> Option<Result<Tensor>> {
    let (function, along) = name.split_once('_')?;
    if let ("tril" | "triu", Ok(diagonal)) = (function, along.parse()) {
        let triangle = if function == "tril" { Tensor::tril } else { Tensor::triu };
        return Some(square(x).and_then(|x| triangle(&x, diagonal)));
    }
    // The size of a case that begins with a square.
    let squared = along.strip_prefix("of_").is_some_and(|size| size.parse::<usize>().is_ok());
    let (function, along) = match name.strip_prefix("log_softmax_") {
        Some(along) => ("log_softmax", along),
        None => (function, along),
    };
    let axis = if along == "rows" { 1 } else { 0 };
    let method = match function {
        "softmax" => Tensor::softmax,
        "log_softmax" => Tensor::log_softmax,
        "cumsum" => Tensor::cumsum,
        "cumprod" => Tensor::cumprod,
        "cummax" => Tensor::cummax,
        "cummin" => Tensor::cummin,
        "logsumexp" if along != "of_all" => |x: &Tensor, axis| x.logsumexp(&[axis]),
        _ => return None,
    };
    Some(if squared { square(x).and_then(|x| method(&x, axis)) } else { method(x, axis) })
}

fn square(x: &Tensor) -> Result<Tensor> {
    x * x
}

/// How a function's values in other dtypes differ from what is recorded of it, on the interpreter and compiled.
fn values(name: &str, dtype: DType, record: &Record) -> Result<Vec<String>> {
    let shapes: Vec<Shape> = record["arguments"].iter().map(|argument| argument.shape().clone()).collect();
    assert!(shapes.iter().all(|shape| shape.dtype() == dtype), "{name}");
    let base = name.strip_suffix(" of special").unwrap_or(name);
    let function = Function::trace(base, &shapes, |x| build(base, x))?;
    let [device, interpreter] = runner::in_form(&function, None, &[record["arguments"].clone()]).remove(0);
    let found =
        [("compiled", device), ("interpreted", interpreter)].into_iter().filter_map(|(how, results)| {
            difference(&results, &record["results"]).map(|text| format!("{name}, {dtype}, {how}: {text}"))
        });
    Ok(found.collect())
}

/// How arrays differ from JAX's in f64, rounded to their dtype: by more than one unit in the last place of f16 and
/// bf16, whose results are computed in f32 and rounded once, or by more than rounding of f32 on the way.
fn difference(got: &[Array], expected: &[Array]) -> Option<String> {
    let equal = |got: &Array, expected: &Array| {
        let (tolerance, least) = match expected.shape().dtype() {
            // Logarithms of sums near 1 are near 0, and their error is that of the sum.
            DType::F32 => (2e-6, 0.1),
            DType::F16 => (2f64.powi(-10), 1e-2),
            DType::BF16 => (2f64.powi(-7), 1e-2),
            _ => return got == expected,
        };
        let close = |(got, expected): (f64, f64)| {
            got == expected
                || got.is_nan() && expected.is_nan()
                || (got - expected).abs() <= tolerance * expected.abs().max(least)
        };
        got.shape() == expected.shape() && got.to_f64().into_iter().zip(expected.to_f64()).all(close)
    };
    let same =
        got.len() == expected.len() && got.iter().zip(expected).all(|(got, expected)| equal(got, expected));
    let list = |arrays: &[Array]| arrays.iter().map(Array::to_string).collect::<Vec<_>>().join("; ");
    (!same).then(|| format!("got {}, JAX gives {}", list(got), list(expected)))
}

#[test]
fn values_and_derivatives_are_those_of_jax() {
    let cases = jax_cases::fixtures(include_str!("../fixtures/functions.json"));
    jax_cases::require_equal(&cases, |name, record| match name.rsplit_once(' ') {
        Some((name, dtype)) if dtype.parse::<DType>().is_ok() => {
            values(name, dtype.parse::<DType>()?, record)
        }
        _ => jax_cases::differences(name, record, COMPILED.contains(&name), build),
    });
}

#[test]
fn every_case_that_is_compiled_is_there() {
    let cases = jax_cases::fixtures(include_str!("../fixtures/functions.json"));
    let missing: Vec<_> = COMPILED.iter().filter(|&&name| !cases.contains_key(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
