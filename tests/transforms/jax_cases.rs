//! Cases that JAX computed, as scripts/jax_cases.py records them.

use crate::runner;

use std::collections::BTreeMap;

use serde_json::Value;
use xlann::{Array, DType, Function, Result, Shape, Tensor, grad, jvp, vjp};

pub type Results = Result<Vec<Tensor>>;

/// What is recorded of a case: arrays by field.
pub type Record = BTreeMap<String, Vec<Array>>;

/// An array from its text, such as `f64[2] 0.5 -inf`.
pub fn parse(text: &str) -> Array {
    let mut words = text.split(' ');
    let (dtype, dims) = words.next().unwrap().trim_end_matches(']').split_once('[').unwrap();
    let dims: Vec<usize> = dims.split_terminator(',').map(|dim| dim.parse().unwrap()).collect();
    let elements: Vec<f64> = words.map(|word| word.parse().unwrap()).collect();
    Array::from_f64(Shape::new(dtype.parse().unwrap(), dims), &elements).unwrap()
}

/// The cases of a file of fixtures by name.
pub fn fixtures(file: &str) -> BTreeMap<String, Record> {
    let mut file: Value = serde_json::from_str(file).unwrap();
    let fields: BTreeMap<String, BTreeMap<String, Vec<String>>> =
        serde_json::from_value(file["cases"].take()).unwrap();
    let arrays = |texts: Vec<String>| texts.iter().map(|text| parse(text)).collect();
    let record = |fields: BTreeMap<String, Vec<String>>| {
        fields.into_iter().map(|(field, texts)| (field, arrays(texts))).collect()
    };
    fields.into_iter().map(|(name, fields)| (name, record(fields))).collect()
}

/// How arrays differ by more than rounding, where they do; a NaN equals any NaN.
fn difference(got: &[Array], expected: &[Array]) -> Option<String> {
    let equal = |got: &Array, expected: &Array| {
        let close = |(got, expected): (f64, f64)| {
            got == expected
                || got.is_nan() && expected.is_nan()
                || (got - expected).abs() <= 1e-12 * expected.abs().max(1.0)
        };
        got.shape() == expected.shape() && got.to_f64().into_iter().zip(expected.to_f64()).all(close)
    };
    let same =
        got.len() == expected.len() && got.iter().zip(expected).all(|(got, expected)| equal(got, expected));
    let list = |arrays: &[Array]| arrays.iter().map(Array::to_string).collect::<Vec<_>>().join("; ");
    (!same).then(|| format!("got {}, JAX gives {}", list(got), list(expected)))
}

/// The results of a function, which are those of its compiled form too where it is compiled.
fn run(function: &Function, arguments: &[Array], compiled: bool) -> Result<Vec<Array>> {
    function.check()?;
    if compiled { Ok(runner::run(function, arguments)) } else { function.eval(arguments) }
}

/// How a function differs from what is recorded of it, compiled or not.
pub fn differences(
    name: &str,
    record: &Record,
    compiled: bool,
    build: impl Fn(&str, &[Tensor]) -> Results,
) -> Result<Vec<String>> {
    let arguments = &record["arguments"];
    let shapes: Vec<Shape> = arguments.iter().map(|argument| argument.shape().clone()).collect();
    let function = Function::trace(name, &shapes, |x| build(name, x))?;
    let wrt: Vec<usize> = (0..shapes.len()).filter(|&index| shapes[index].dtype().is_float()).collect();
    let mut found = Vec::new();
    let mut compare = |field: &str, got: &[Array]| {
        found.extend(difference(got, &record[field]).map(|text| format!("{name}: {field}: {text}")));
    };

    let forward = jvp(&function, &wrt)?;
    let results = run(&forward, &[arguments.as_slice(), &record["tangents"]].concat(), compiled)?;
    let (values, tangents) = results.split_at(function.results().len());
    compare("results", values);
    compare("jvp", tangents);
    if !record.contains_key("vjp") {
        return Ok(found);
    }

    let reverse = vjp(&function, &wrt)?;
    let at = [arguments.as_slice(), &record["cotangents"]].concat();
    let results = run(&reverse, &at, compiled)?;
    compare("results", &results[..values.len()]);
    compare("vjp", &results[values.len()..]);
    // Of the function's results with their gradient, the gradient only.
    let gradient = Function::trace("gradient", &reverse.parameter_shapes(), |x| {
        let all = x[0].builder().call(&reverse, &x.iter().collect::<Vec<_>>())?;
        Ok(all[values.len()..].to_vec())
    })?;
    let at_tangents = [at.as_slice(), &record["tangents"]].concat();
    compare("hvp", &run(&jvp(&gradient, &wrt)?, &at_tangents, compiled)?[wrt.len()..]);
    compare("vhp", &run(&vjp(&gradient, &wrt)?, &at_tangents, compiled)?[wrt.len()..]);

    if function.result_shapes() == [Shape::scalar(DType::F64)] {
        let gradient = grad(&function, &wrt)?;
        compare("vjp", &run(&gradient, arguments, compiled)?);
        let at_tangents = [arguments.as_slice(), &record["tangents"]].concat();
        compare("hvp", &run(&jvp(&gradient, &wrt)?, &at_tangents, compiled)?[wrt.len()..]);
        compare("vhp", &run(&vjp(&gradient, &wrt)?, &at_tangents, compiled)?[wrt.len()..]);
    }
    Ok(found)
}

/// Requires that no case differs from what is recorded of it.
pub fn require_equal(
    cases: &BTreeMap<String, Record>,
    differences: impl Fn(&str, &Record) -> Result<Vec<String>>,
) {
    let mut failures = Vec::new();
    for (name, record) in cases {
        match differences(name, record) {
            Ok(found) => failures.extend(found),
            Err(problem) => failures.push(format!("{name}: {problem}")),
        }
    }
    assert!(!cases.is_empty() && failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn arrays_are_read_exactly() {
    let array = parse("f64[1,3] 0.1 -inf -0");
    assert_eq!(array, Array::new([1, 3], &[0.1, f64::NEG_INFINITY, -0.0]).unwrap());
    assert_eq!(array.to_f64()[2].to_bits(), (-0.0f64).to_bits());
    assert_eq!(parse("s32[] 7"), Array::scalar(7));
    assert_eq!(parse("pred[2] 1 0"), Array::new([2], &[true, false]).unwrap());
}
