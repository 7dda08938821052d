//! Runs a function on every backend at hand and compares with the interpreter.
#![allow(dead_code, reason = "no test file uses all of it")]

#[path = "../common/mod.rs"]
pub mod common;

pub use common::{devices, session};
use xlann::hlo::proto::PrecisionConfig;
use xlann::lower::{self, Capabilities, Form, Options, lower};
use xlann::pjrt::{Executable, Program, Signature};
use xlann::{ApproxTopKOptions, Array, DType, Function, Result, Session, Shape};

/// The dtypes that approximate top-k takes.
pub const FLOATS: [DType; 4] = [DType::F16, DType::BF16, DType::F32, DType::F64];

/// What the lowering can be asked for: its own choice, and every form.
pub const FORMS: [Option<Form>; 4] = [None, Some(Form::Sort), Some(Form::TwoStage), Some(Form::Blocks)];

/// Pseudo-random values in -1..1, by a fixed linear congruential generator.
pub fn random(shape: Shape, seed: u64) -> Array {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values: Vec<f64> = (0..shape.element_count())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect();
    Array::from_f64(shape, &values).unwrap()
}

/// Rows of a size, by what is awkward about them.
pub fn awkward(size: usize) -> Vec<(&'static str, Vec<f64>)> {
    const NAN: f64 = f64::NAN;
    const INF: f64 = f64::INFINITY;
    let noise = random(Shape::new(DType::F64, [size]), size as u64).to_f64();
    let row = |value: &dyn Fn(usize) -> f64| (0..size).map(value).collect::<Vec<f64>>();
    let nan = |index: usize| if index.is_multiple_of(2) { NAN } else { -NAN };
    vec![
        ("random", noise.clone()),
        ("a third NaNs of both signs", row(&|i| if i % 3 == 1 { nan(i) } else { noise[i] })),
        ("a positive NaN", row(&|i| if i == size / 2 { NAN } else { noise[i] })),
        ("a negative NaN", row(&|i| if i == size / 2 { -NAN } else { noise[i] })),
        ("all NaN", row(&|_| NAN)),
        ("all NaN, negative", row(&|_| -NAN)),
        ("two numbers among NaNs", row(&|i| if i == size / 3 || i + 1 == size { noise[i] } else { nan(i) })),
        ("numbers in the first block only", row(&|i| if i < 12 { noise[i] } else { nan(i) })),
        ("numbers in the last block only", row(&|i| if i + 12 >= size { noise[i] } else { nan(i) })),
        ("numbers in strided positions only", row(&|i| if i % 64 == 3 { noise[i] } else { nan(i) })),
        ("-∞ among NaNs", row(&|i| if i % 100 == 7 { -INF } else { nan(i) })),
        ("∞ among NaNs", row(&|i| if i % 100 == 7 { INF } else { nan(i) })),
        (
            "infinities, numbers and NaNs",
            row(&|i| match i % 7 {
                0 | 3 => nan(i),
                1 => INF,
                2 => -INF,
                _ => noise[i],
            }),
        ),
        ("-∞ and NaNs", row(&|i| if i % 2 == 0 { -INF } else { nan(i / 2) })),
        ("∞ and NaNs", row(&|i| if i % 2 == 0 { INF } else { nan(i / 2) })),
        ("all -∞", row(&|_| -INF)),
        ("all ∞", row(&|_| INF)),
        ("zeros of both signs", row(&|i| if i * 7 % 3 == 0 { -0.0 } else { 0.0 })),
        ("zeros and NaNs", row(&|i| [0.0, -0.0, NAN, -NAN][i * 5 % 4])),
        ("negative, zeros of both signs on top", row(&|i| [-1.0, -0.0, 0.0][i * 5 % 3])),
        ("all equal", row(&|_| 2.5)),
        ("ties", row(&|i| (i * 37 % 5) as f64)),
        ("ascending", row(&|i| i as f64)),
        ("descending", row(&|i| -(i as f64))),
        ("largest and smallest", row(&|i| if i % 2 == 0 { 60_000.0 } else { -60_000.0 })),
        ("subnormal", row(&|i| if i % 2 == 0 { 1e-7 } else { -1e-7 })),
    ]
}

/// The approximate top-k of an operand of that shape; `min` is for the smallest.
pub fn top_k(shape: &Shape, k: usize, min: bool, options: &ApproxTopKOptions) -> Function {
    Function::trace("top_k", std::slice::from_ref(shape), |x| match min {
        false => x[0].approx_max_k(k, options),
        true => x[0].approx_min_k(k, options),
    })
    .unwrap()
}

/// Results of a function lowered for the platform that is tested in a form: its plain operators on the interpreter and,
/// where there is one, on a device, for each of several lists of arguments.
pub fn in_form(function: &Function, form: Option<Form>, arguments: &[Vec<Array>]) -> Vec<[Vec<Array>; 2]> {
    in_form_of(common::platform().capabilities, function, form, arguments)
}

/// As [`in_form`], lowered for any target. What the platform that is tested does not have, the interpreter evaluates
/// twice.
pub fn in_form_of(
    capabilities: &Capabilities,
    function: &Function,
    form: Option<Form>,
    arguments: &[Vec<Array>],
) -> Vec<[Vec<Array>; 2]> {
    let lowered = lower(function, capabilities, &Options { approx_top_k: form, ..Default::default() })
        .unwrap()
        .function;
    lowered.check().unwrap_or_else(|problem| panic!("{problem}\n{lowered}"));
    let plain = lowered.equations().iter().all(|equation| equation.operator() != "custom_call");
    let runs = plain || capabilities == common::platform().capabilities;
    let executable =
        session_for(&lowered).filter(|_| runs).map(|session| compile(session, &lowered).unwrap());
    arguments
        .iter()
        .map(|arguments| {
            let expected = lowered.eval(arguments).unwrap();
            let got = executable.as_ref().map(|executable| executable.run_arrays(arguments).unwrap());
            [got.unwrap_or_else(|| expected.clone()), expected]
        })
        .collect()
}

/// Requires of approximate top-k results along the last dimension that each row's indices are within its bounds
/// and distinct, that the values are the operand's at them, and that as many are no NaN as there can be; where
/// `sorted`, that they come best first, NaNs last.
pub fn assert_valid(operand: &Array, results: &[Array], min: bool, sorted: bool, context: &str) {
    let (&size, batch) = operand.shape().dims().split_last().unwrap();
    let (&count, result_batch) = results[0].shape().dims().split_last().unwrap();
    assert_eq!(result_batch, batch, "{context}");
    assert_eq!(results[0].shape().dtype(), operand.shape().dtype(), "{context}");
    let (operand, values, indices) =
        (operand.to_f64(), results[0].to_f64(), results[1].to_vec::<i32>().unwrap());
    for (row, (values, indices)) in values.chunks(count).zip(indices.chunks(count)).enumerate() {
        let from = &operand[row * size..][..size];
        let context = || format!("row {row}: {values:?} at {indices:?}, {context}");
        let mut distinct = indices.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), count, "an index comes twice: {}", context());
        assert!(
            distinct[0] >= 0 && distinct[count - 1] < size as i32,
            "an index out of range: {}",
            context()
        );
        for (&value, &index) in values.iter().zip(indices) {
            let at = from[index as usize];
            assert!(
                value.to_bits() == at.to_bits() || value.is_nan() && at.is_nan(),
                "{at} at {index}: {}",
                context()
            );
        }
        let numbers = values.iter().filter(|value| !value.is_nan()).count();
        if sorted {
            let possible = from.iter().filter(|value| !value.is_nan()).count().min(count);
            assert_eq!(numbers, possible, "a NaN in place of a number: {}", context());
            assert!(values[..numbers].iter().all(|value| !value.is_nan()), "NaNs come last: {}", context());
            let in_order = |pair: &[f64]| if min { pair[0] <= pair[1] } else { pair[0] >= pair[1] };
            assert!(values[..numbers].windows(2).all(in_order), "best first: {}", context());
        }
    }
}

/// The index of every position, in row-major order.
pub fn indices(dims: &[usize]) -> Vec<Vec<usize>> {
    dims.iter().fold(vec![Vec::new()], |indices, &dim| {
        indices
            .iter()
            .flat_map(|index| (0..dim).map(move |next| [index.as_slice(), &[next]].concat()))
            .collect()
    })
}

/// Checks and evaluates `function`, runs it on the backends, from its HLO and from its StableHLO, and gives the
/// interpreter's results.
///
/// # Panics
/// Where the function does not hold, or a backend's results differ by more than rounding.
pub fn run(function: &Function, arguments: &[Array]) -> Vec<Array> {
    let expected = run_hlo(function, arguments);
    if let Some(session) = session_for(function) {
        let text = lower::stablehlo(function, session.platform().capabilities).unwrap();
        let executable = stablehlo(session, function, &precise_text(&text))
            .unwrap_or_else(|problem| panic!("{problem}\n{text}"));
        run_on(&executable, arguments, &expected, &text);
    }
    expected
}

/// As [`run`], but from HLO only.
pub fn run_hlo(function: &Function, arguments: &[Array]) -> Vec<Array> {
    function.check().unwrap_or_else(|problem| panic!("{problem}\n{function}"));
    let expected = function.eval(arguments).unwrap_or_else(|problem| panic!("{problem}\n{function}"));
    if let Some(session) = session_for(function) {
        let executable = compile(session, function).unwrap_or_else(|problem| panic!("{problem}\n{function}"));
        run_on(&executable, arguments, &expected, function);
    }
    expected
}

/// As [`run`], for replicas of a function, each with its arguments and results.
pub fn run_replicas(function: &Function, arguments: &[Vec<Array>]) -> Vec<Vec<Array>> {
    function.check().unwrap_or_else(|problem| panic!("{problem}\n{function}"));
    let expected =
        function.eval_replicas(arguments).unwrap_or_else(|problem| panic!("{problem}\n{function}"));
    if let Some(session) = devices().filter(|_| session_for(function).is_some()) {
        let got = common::run_replicas(session, function, arguments)
            .unwrap_or_else(|problem| panic!("{problem}\n{function}"));
        assert_eq!(got.len(), expected.len(), "{function}");
        for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
            assert_close(got, expected, function);
        }
    }
    expected
}

fn run_on(executable: &Executable, arguments: &[Array], expected: &[Array], context: &dyn std::fmt::Display) {
    let got = executable.run_arrays(arguments).unwrap_or_else(|problem| panic!("{problem}\n{context}"));
    assert_eq!(got.len(), expected.len(), "{context}");
    for (got, expected) in got.iter().zip(expected) {
        assert_close(got, expected, context);
    }
}

/// The session of the platform that is tested, where that computes in the function's dtypes.
fn session_for(function: &Function) -> Option<&'static Session> {
    let has_f64 = common::platform().capabilities.searched.contains(&DType::F64);
    session().filter(|_| has_f64 || !function.to_string().contains("f64["))
}

/// Compiles a function, with products of full precision: by default, GPUs and TPUs round f32 for their matrix units.
fn compile(session: &Session, function: &Function) -> Result<Executable> {
    let mut module = lower(function, session.platform().capabilities, &Options::default())?.module;
    for instruction in module.computations.iter_mut().flat_map(|computation| &mut computation.instructions) {
        if instruction.opcode == "dot" {
            instruction.precision_config = Some(PrecisionConfig { operand_precision: vec![HIGHEST; 2] });
        }
    }
    let signature = Signature::of(function);
    session.client().compile(Program::Hlo(&module.to_bytes()), signature, &session.compile_options())
}

/// The number of the highest precision.
const HIGHEST: i32 = 2;

/// As [`compile`] does, of StableHLO.
fn precise_text(text: &str) -> String {
    let precise = |line: &str| match line.contains(" stablehlo.dot_general ") {
        true => line.replacen(" : (", ", precision = [HIGHEST, HIGHEST] : (", 1),
        false => line.to_owned(),
    };
    text.lines().map(|line| precise(line) + "\n").collect()
}

/// Compiles the StableHLO of a function.
pub fn stablehlo(session: &Session, function: &Function, text: &str) -> Result<Executable> {
    let options = session.compile_options();
    session.client().compile(Program::StableHlo(text), Signature::of(function), &options)
}

/// Requires that arrays are equal, floats but for rounding: by the dtype's tolerance of a value, or of 1e-3 where that
/// is larger, for what cancels. A NaN equals any NaN.
pub fn assert_close(got: &Array, expected: &Array, context: &dyn std::fmt::Display) {
    assert_eq!(got.shape(), expected.shape(), "{context}");
    let tolerance = match got.shape().dtype() {
        DType::F64 => 1e-12,
        DType::F32 => 1e-5,
        DType::F16 => 2e-3,
        DType::BF16 => 1.6e-2,
        _ => {
            assert_eq!(got, expected, "{context}");
            return;
        }
    };
    for (index, (g, e)) in got.to_f64().into_iter().zip(expected.to_f64()).enumerate() {
        let close = g == e || (g.is_nan() && e.is_nan()) || (g - e).abs() <= tolerance * e.abs().max(1e-3);
        assert!(close, "element {index}: got {g}, expected {e}\ngot {got}\nexpected {expected}\n{context}");
    }
}
