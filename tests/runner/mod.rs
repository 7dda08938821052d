//! Runs a function on every backend at hand and compares with the interpreter.
#![allow(dead_code, reason = "no test file uses all of it")]

#[path = "../common/mod.rs"]
mod common;

pub use common::session;
use xlann::{Array, DType, Function};

/// Checks and evaluates `function`, runs it on the backends, and gives the interpreter's results.
///
/// # Panics
/// Where the function does not hold, or a backend's results differ by more than rounding.
pub fn run(function: &Function, arguments: &[Array]) -> Vec<Array> {
    function.check().unwrap_or_else(|problem| panic!("{problem}\n{function}"));
    assert_eq!(function.to_string(), function.clone().to_string(), "printing is deterministic");
    let expected = function.eval(arguments).unwrap_or_else(|problem| panic!("{problem}\n{function}"));
    if let Some(session) = session() {
        let executable = session.compile(function).unwrap_or_else(|problem| panic!("{problem}\n{function}"));
        let got = executable.run_arrays(arguments).unwrap_or_else(|problem| panic!("{problem}\n{function}"));
        for (got, expected) in got.iter().zip(&expected) {
            assert_close(got, expected, function);
        }
    }
    expected
}

/// Requires that arrays are equal but for rounding; a NaN equals any NaN.
#[allow(dead_code, reason = "not every test file compares")]
pub fn assert_close(got: &Array, expected: &Array, context: &dyn std::fmt::Display) {
    assert_eq!(got.shape(), expected.shape(), "{context}");
    let tolerance = match got.shape().dtype() {
        DType::F64 => 1e-12,
        DType::F32 => 1e-5,
        DType::F16 => 2e-3,
        DType::BF16 => 1.6e-2,
        _ => 0.0,
    };
    for (index, (g, e)) in got.to_f64().into_iter().zip(expected.to_f64()).enumerate() {
        let close = g == e || (g.is_nan() && e.is_nan()) || (g - e).abs() <= tolerance * e.abs().max(1.0);
        assert!(close, "element {index}: got {g}, expected {e}\ngot {got}\nexpected {expected}\n{context}");
    }
}
