//! Approximate top-k in every form, and search.

mod runner;

use runner::session;
use xlann::lower::{Form, Options, lower};
use xlann::{ApproxTopKOptions, Array, DType, Function, Shape};

/// Pseudo-random values in -1..1, by a fixed linear congruential generator.
fn random(shape: Shape, seed: u64) -> Array {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values: Vec<f64> = (0..shape.element_count())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect();
    Array::from_f64(shape, &values).unwrap()
}

fn top_k(shape: &Shape, k: usize, min: bool, options: &ApproxTopKOptions) -> Function {
    Function::trace("top_k", std::slice::from_ref(shape), |x| match min {
        false => x[0].approx_max_k(k, options),
        true => x[0].approx_min_k(k, options),
    })
    .unwrap()
}

/// Results of a function in a form, on the interpreter and, where there is one, the CPU.
fn results(function: &Function, form: Form, operand: &Array) -> Vec<Vec<Array>> {
    let options = Options { approx_top_k: Some(form) };
    let lowered = lower(function, &xlann::target::cpu::CAPABILITIES, &options).unwrap();
    lowered.function.check().unwrap();
    let mut all = vec![lowered.function.eval(std::slice::from_ref(operand)).unwrap()];
    if let Some(session) = session() {
        let (executable, _) = session.compile_with(function, &options).unwrap();
        all.push(executable.run_arrays(std::slice::from_ref(operand)).unwrap());
    }
    all
}

#[test]
fn exact_forms_agree_with_the_interpreter() {
    let options = ApproxTopKOptions::default();
    for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
        for (dims, k) in [(vec![7], 1), (vec![3, 1000], 10), (vec![2, 2, 333], 5), (vec![1, 100], 100)] {
            let shape = Shape::new(dtype, dims);
            let operand = random(shape.clone(), 1);
            for min in [false, true] {
                let function = top_k(&shape, k, min, &options);
                let expected = function.eval(std::slice::from_ref(&operand)).unwrap();
                for form in [Form::Sort, Form::Blocks] {
                    for got in results(&function, form, &operand) {
                        assert_eq!(got, expected, "{form} of {shape}, min {min}");
                    }
                }
            }
        }
    }
}
