//! What replicas do together, on the host and on 4 devices of the CPU.

use crate::runner::{self, devices, random, run_replicas};
use xlann::{Array, DType, Error, Function, Shape, grad, jvp, lower, target, vmap};

fn refusal<T>(result: Result<T, Error>) -> String {
    result.err().expect("a refusal").to_string()
}

/// An array of that shape for each of 4 replicas.
fn of_each(shape: &Shape) -> Vec<Vec<Array>> {
    (0..4).map(|replica| vec![random(shape.clone(), replica + 1)]).collect()
}

/// A dtype's numbers counted up from the replica's number.
fn counted(shape: &Shape) -> Vec<Vec<Array>> {
    let of = |replica: usize| {
        let values: Vec<f64> =
            (0..shape.element_count()).map(|index| ((index + replica) % 2) as f64).collect();
        vec![Array::from_f64(shape.clone(), &values).unwrap()]
    };
    (0..4).map(of).collect()
}

#[test]
fn every_dtype_is_gathered_along_every_dimension() {
    for dtype in DType::ALL {
        let shape = Shape::new(dtype, [2, 3, 1]);
        let arguments = counted(&shape);
        for axis in [0isize, 1, 2, -1] {
            let f = Function::trace("f", std::slice::from_ref(&shape), |x| x[0].all_gather(axis, 4)).unwrap();
            let results = run_replicas(&f, &arguments);
            assert_eq!(results[0], results[3], "every replica has the same");
            // One after another, as a function of one replica puts them.
            let concatenate = Function::trace("g", &vec![shape.clone(); 4], |x| {
                xlann::Tensor::concatenate(&x.iter().collect::<Vec<_>>(), axis)
            });
            let all: Vec<Array> = arguments.iter().flatten().cloned().collect();
            assert_eq!(results[0], concatenate.unwrap().eval(&all).unwrap(), "{dtype} {axis}");
        }
    }
}

#[test]
fn replicas_are_numbered_in_order() {
    let f = Function::trace("f", &[Shape::new(DType::S32, [2])], |x| {
        &x[0] + (x[0].builder().replica_id(4)? * 10)?
    })
    .unwrap();
    let argument = Array::new([2], &[1, 2]).unwrap();
    let results = run_replicas(&f, &vec![vec![argument]; 4]);
    let expected: Vec<_> =
        (0..4).map(|id| vec![Array::new([2], &[id * 10 + 1, id * 10 + 2]).unwrap()]).collect();
    assert_eq!(results, expected);
}

#[test]
fn empty_arrays_and_single_replicas_are_gathered() {
    let shape = Shape::new(DType::F32, [0, 2]);
    let f = Function::trace("f", std::slice::from_ref(&shape), |x| x[0].all_gather(1, 4)).unwrap();
    let results = run_replicas(&f, &vec![vec![Array::zeros(shape).unwrap()]; 4]);
    assert_eq!(results[0][0].shape().dims(), [0, 8]);

    let shape = Shape::new(DType::F32, [3]);
    let f = Function::trace("f", &[shape], |x| {
        x[0].all_gather(0, 1)? + x[0].builder().replica_id(1)?.convert(DType::F32)
    })
    .unwrap();
    let argument = Array::new([3], &[1f32, 2.0, 3.0]).unwrap();
    assert_eq!(runner::run(&f, std::slice::from_ref(&argument)), std::slice::from_ref(&argument));
    assert_eq!(run_replicas(&f, &[vec![argument.clone()]]), [[argument]]);
}

#[test]
fn a_search_over_replicas_finds_the_best_of_all() {
    let shape = Shape::new(DType::F32, [2, 50]);
    let f = Function::trace("best", std::slice::from_ref(&shape), |x| {
        let options = xlann::ApproxTopKOptions { recall_target: 1.0, ..Default::default() };
        let (values, indices) = x[0].approx_max_k(3, &options)?;
        let indices = (indices + (x[0].builder().replica_id(4)? * 50)?)?;
        let (values, indices) = (values.all_gather(1, 4)?, indices.all_gather(1, 4)?);
        let (values, position) = values.top_k(3)?;
        Ok((values, indices.take_along_axis(&position, 1)?))
    })
    .unwrap();
    let arguments = of_each(&shape);
    let results = run_replicas(&f, &arguments);
    for row in 0..2 {
        let values = arguments.iter().flat_map(|array| array[0].to_f64()[row * 50..][..50].to_vec());
        let mut ranked: Vec<(f64, i32)> = values.zip(0..).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        let expected: Vec<i32> = ranked[..3].iter().map(|(_, index)| *index).collect();
        assert_eq!(results[1][1].to_vec::<i32>().unwrap()[row * 3..][..3], expected);
    }
}

#[test]
fn a_batch_is_gathered_along_the_same_dimension() {
    let f = Function::trace("f", &[Shape::new(DType::F32, [2, 3])], |x| x[0].all_gather(1, 4)).unwrap();
    for (in_axis, out_axis, dims) in [(0, 0, [5, 2, 3]), (2, 1, [2, 3, 5]), (1, -1, [2, 5, 3])] {
        let batched = vmap(&f, in_axis, out_axis, 5).unwrap();
        let arguments = of_each(&Shape::new(DType::F32, dims));
        let results = run_replicas(&batched, &arguments);
        let row = |array: &Array, axis: isize, index: i32| {
            let take = Function::trace("row", &[array.shape().clone()], |x| {
                x[0].take(&x[0].builder().scalar(index)?, axis)
            });
            take.unwrap().eval(std::slice::from_ref(array)).unwrap().remove(0)
        };
        for index in 0..5 {
            let rows: Vec<_> =
                arguments.iter().map(|arguments| vec![row(&arguments[0], in_axis, index)]).collect();
            let expected = f.eval_replicas(&rows).unwrap();
            assert_eq!(row(&results[2][0], out_axis, index), expected[2][0], "{in_axis} {out_axis} {index}");
        }
    }
}

/// The sum of squares of what all replicas hold, weighted by place and by the replica that sums.
fn weighted(shape: &Shape) -> Function {
    Function::trace("weighted", std::slice::from_ref(shape), |x| {
        let all = x[0].all_gather(1, 4)?;
        let builder = x[0].builder();
        let weights = builder.iota(all.shape().clone(), 1)?;
        let weights = (weights + builder.replica_id(4)?.convert(shape.dtype())?)?;
        ((&all * &all)? * weights)?.reduce_sum(&[0, 1])
    })
    .unwrap()
}

#[test]
fn derivatives_are_those_of_the_sum_of_all_replicas() {
    let shape = Shape::new(DType::F64, [2, 3]);
    let f = weighted(&shape);
    let arguments = of_each(&shape);
    let total = |arguments: &[Vec<Array>]| -> f64 {
        f.eval_replicas(arguments).unwrap().iter().map(|results| results[0].to_f64()[0]).sum()
    };
    let gradients = run_replicas(&grad(&f, &[0]).unwrap(), &arguments);
    for replica in 0..4 {
        let gradient = gradients[replica][0].to_f64();
        for (index, &gradient) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let mut moved = arguments.clone();
                let mut values = moved[replica][0].to_f64();
                values[index] += by;
                moved[replica][0] = Array::from_f64(shape.clone(), &values).unwrap();
                total(&moved)
            };
            let expected = (moved(1e-4) - moved(-1e-4)) / 2e-4;
            assert!((gradient - expected).abs() < 1e-6 * expected.abs().max(1.0), "{gradient} {expected}");
        }
    }

    // The tangents are those of all replicas together.
    let directions = of_each(&shape.with_dims([2, 3]));
    let both: Vec<Vec<Array>> = arguments
        .iter()
        .zip(directions.iter().rev())
        .map(|(argument, direction)| vec![argument[0].clone(), direction[0].clone()])
        .collect();
    let results = run_replicas(&jvp(&f, &[0]).unwrap(), &both);
    let forward: f64 = results.iter().map(|results| results[1].to_f64()[0]).sum();
    let reverse: f64 = gradients
        .iter()
        .zip(&both)
        .map(|(gradient, both)| {
            gradient[0].to_f64().iter().zip(both[1].to_f64()).map(|(g, d)| g * d).sum::<f64>()
        })
        .sum();
    assert!((forward - reverse).abs() < 1e-9 * forward.abs(), "{forward} {reverse}");
}

#[test]
fn replicas_that_do_not_fit_are_refused() {
    let shape = Shape::new(DType::F32, [2]);
    let trace = |axis, replicas| {
        Function::trace("f", std::slice::from_ref(&shape), |x| x[0].all_gather(axis, replicas))
    };
    assert_eq!(refusal(trace(0, 0)), "all_gather: replicas must be from 1 to 2147483647, got 0");
    assert_eq!(refusal(trace(1, 4)), "all_gather: axis must be in -1..1 for f32[2], got 1");
    assert_eq!(
        refusal(trace(0, usize::MAX)),
        format!("all_gather: replicas must be from 1 to 2147483647, got {}", usize::MAX)
    );
    let id = Function::trace("f", &[], |_| xlann::Builder::new("g").replica_id(0));
    assert_eq!(refusal(id), "replica_id: replicas must be from 1 to 2147483647, got 0");

    let f = trace(0, 4).unwrap();
    let x = Array::zeros(shape.clone()).unwrap();
    let wrong = |got| format!("function f: replicas must be 4, as in its all_gather, got {got}");
    assert_eq!(refusal(f.eval(std::slice::from_ref(&x))), wrong(1));
    assert_eq!(refusal(f.eval_replicas(&vec![vec![x.clone()]; 3])), wrong(3));
    assert_eq!(refusal(f.eval_replicas(&[])), wrong(0));
    assert_eq!(refusal(f.eval_replicas(&vec![vec![]; 4])), "f: takes 1 arguments, got 0");
    if let Some(session) = devices() {
        assert_eq!(refusal(session.compile(&f)), wrong(1));
        for replicas in [0, 2, 5] {
            let compiled = session.compile_replicas(&f, &lower::Options::default(), replicas);
            assert_eq!(refusal(compiled), wrong(replicas));
        }
        let plain = Function::trace("g", std::slice::from_ref(&shape), |x| x[0].exp()).unwrap();
        for replicas in [0, 5, usize::MAX] {
            let problem = refusal(session.compile_replicas(&plain, &lower::Options::default(), replicas));
            assert!(problem.starts_with("compile: num_replicas must be from 1 on"), "{problem}");
        }
    }
    // Collectives of different numbers.
    let f = Function::trace("f", std::slice::from_ref(&shape), |x| x[0].all_gather(0, 4)?.all_gather(0, 2))
        .unwrap();
    let refused = "function f: replicas must be 2, as in its all_gather, got 4";
    assert_eq!(refusal(f.eval_replicas(&vec![vec![x]; 4])), refused);
}

#[test]
fn collectives_in_sub_functions_are_refused() {
    let scalar = Shape::scalar(DType::S32);
    let numbered = |name| {
        Function::trace(name, std::slice::from_ref(&scalar), |x| &x[0] + x[0].builder().replica_id(4)?)
            .unwrap()
    };
    let same = Function::trace("same", std::slice::from_ref(&scalar), |x| Ok(x[0].clone())).unwrap();
    let pred = Shape::scalar(DType::Pred);
    let branch =
        Function::trace("f", &[pred, scalar.clone()], |x| x[0].cond(&[&x[1]], same, numbered("other")));
    assert_eq!(
        refusal(branch),
        "conditional: branch must be without operators that replicas work on together, got replica_id"
    );
    let looped = Function::trace("f", &[scalar], |x| {
        x[0].builder().fori_loop(3, &[&x[0]], |_, x| x[0].all_gather(0, 1))
    });
    assert!(refusal(looped).contains("all_gather"));
}

#[test]
fn its_hlo_is_xlas() {
    let f = Function::trace("f", &[Shape::new(DType::S32, [2])], |x| {
        (&x[0] + x[0].builder().replica_id(3)?)?.all_gather(0, 3)
    })
    .unwrap();
    let options = lower::Options::default();
    let text = lower::lower(&f, &target::cpu::CAPABILITIES, &options).unwrap().module.to_string();
    for line in [
        "%replica-id = u32[] replica-id()",
        "%all-gather = s32[6]{0} all-gather(%add), dimensions={0}, replica_groups={{0,1,2}}",
    ] {
        assert!(text.contains(line), "{text}");
    }
}
