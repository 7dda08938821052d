//! Modules in the hands of the crate xla: runs where its C++ library is, see scripts/test.

use xlann::{ApproxTopKOptions, Array, DType, Function, Shape, lower, target};

/// The results of a function of f32 vectors, by XLA's own client.
fn run(function: &Function, arguments: &[&[f32]]) -> Vec<xla::Literal> {
    let lowered = lower::lower(function, &target::cpu::CAPABILITIES, &lower::Options::default()).unwrap();
    let computation = lowered.module.to_xla_computation().unwrap();
    assert_eq!(computation.name(), function.name());
    let executable = xla::PjRtClient::cpu().unwrap().compile(&computation).unwrap();
    let arguments: Vec<_> = arguments.iter().map(|elements| xla::Literal::vec1(elements)).collect();
    let buffers = executable.execute(&arguments).unwrap();
    let results: Vec<_> = buffers[0].iter().map(|buffer| buffer.to_literal_sync().unwrap()).collect();
    match (function.results().len(), results.len()) {
        (1, _) => results,
        // A tuple, or one buffer for each of its elements.
        (count, 1) if count > 1 => results.into_iter().next().unwrap().to_tuple().unwrap(),
        _ => results,
    }
}

#[test]
fn modules_of_any_name_compute_the_same() {
    let shape = Shape::new(DType::F32, [3]);
    // The second is, by its length and first letter, a message of its own.
    for name in ["scaled", "attention"] {
        let f = Function::trace(name, &[shape.clone(), shape.clone()], |x| ((&x[0] * &x[1])? + 1f32)?.exp())
            .unwrap();
        let (x, y) = ([0.5f32, -1.0, 2.0], [1f32, 3.0, 0.25]);
        let expected = f.eval(&[Array::new([3], &x).unwrap(), Array::new([3], &y).unwrap()]).unwrap();
        let got = run(&f, &[&x, &y])[0].to_vec::<f32>().unwrap();
        for (got, expected) in got.iter().zip(expected[0].as_slice::<f32>().unwrap()) {
            assert!((got - expected).abs() <= 1e-5 * expected.abs(), "{got} is not {expected}");
        }
    }
}

#[test]
fn approximate_top_k_computes_the_same() {
    for (size, k) in [(40, 5), (5000, 10)] {
        let f = Function::trace("best", &[Shape::new(DType::F32, [size])], |x| {
            x[0].approx_min_k(k, &ApproxTopKOptions { recall_target: 1.0, ..ApproxTopKOptions::default() })
        })
        .unwrap();
        let values: Vec<f32> = (0..size).map(|index| (index * 7919 % size) as f32).collect();
        let expected = f.eval(&[Array::new([size], &values).unwrap()]).unwrap();
        let got = run(&f, &[&values]);
        assert_eq!(got[0].to_vec::<f32>().unwrap(), expected[0].as_slice::<f32>().unwrap());
        assert_eq!(got[1].to_vec::<i32>().unwrap(), expected[1].as_slice::<i32>().unwrap());
    }
}
