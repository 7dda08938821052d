//! Kernels in several executions at once. A file of its own: it counts the threads of the process.

mod runner;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use runner::{common::cpu, random};
use xlann::lower::Form;
use xlann::{ApproxTopKOptions, Array, DType, Function, Shape};

/// How many executions at a time, of a pool that has as many threads as there are processors.
fn at_once() -> usize {
    4 * thread::available_parallelism().map_or(2, usize::from)
}

/// The number of threads of this process.
fn threads() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn executions_at_once_share_the_threads_of_xla() {
    let Some(session) = cpu() else { return };
    let f32s = |dims: &[usize]| Shape::new(DType::F32, dims);
    let shapes = [f32s(&[64, 48]), f32s(&[5000, 48]), f32s(&[5000])];
    let options = ApproxTopKOptions::default();
    let products = |x: &[xlann::Tensor]| x[0].dot_general(&x[1], (&[1], &[1]), (&[], &[]));
    let functions = [
        Function::trace("ip", &shapes[..2], |x| products(x)?.approx_max_k(10, &options)).unwrap(),
        Function::trace("l2", &shapes, |x| (&x[2] - products(x)?)?.approx_min_k(10, &options)).unwrap(),
        Function::trace("top", &[f32s(&[64, 5000])], |x| x[0].approx_max_k(10, &options)).unwrap(),
    ];
    let database = random(shapes[1].clone(), 1);
    let searches: Vec<_> = (0..at_once())
        .map(|index| {
            let function = &functions[index % functions.len()];
            let (executable, choices) = session.compile_with(function, &Default::default()).unwrap();
            assert_eq!(choices[0].form, Form::Kernel);
            // Of its own but for the database.
            let argument = |(at, shape): (usize, Shape)| match at {
                1 => database.clone(),
                _ => random(shape, (10 * index + at) as u64),
            };
            let arguments: Vec<Array> =
                function.parameter_shapes().into_iter().enumerate().map(argument).collect();
            let expected = executable.run_arrays(&arguments).unwrap();
            assert_eq!(expected[1], function.eval(&arguments).unwrap()[1], "indices of {function}");
            (executable, arguments, expected)
        })
        .collect();
    let most_threads = AtomicUsize::new(0);
    let round = |repeats: usize| {
        let (start, ended) = (&Barrier::new(searches.len()), AtomicBool::new(false));
        thread::scope(|scope| {
            let counting = scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    most_threads.fetch_max(threads(), Ordering::Relaxed);
                    thread::yield_now();
                }
            });
            let running: Vec<_> = searches
                .iter()
                .map(|(executable, arguments, expected)| {
                    scope.spawn(move || {
                        start.wait();
                        for _ in 0..repeats {
                            let found = executable.run_arrays(arguments).unwrap();
                            assert!(&found == expected, "another result beside others");
                        }
                    })
                })
                .collect();
            let results: Vec<_> = running.into_iter().map(|thread| thread.join()).collect();
            ended.store(true, Ordering::Relaxed);
            counting.join().unwrap();
            assert!(results.iter().all(|result| result.is_ok()));
        });
        // The operating system counts a thread for a moment after it is joined.
        thread::sleep(Duration::from_millis(100));
    };
    // XLA starts the threads of its pools with the first that need them.
    round(2);
    let before = threads();
    most_threads.store(0, Ordering::Relaxed);
    round(30);
    // Those of this test, one for each execution and one that counts, and no other.
    let most = most_threads.into_inner();
    assert!(most > 0 && most <= before + searches.len() + 1, "{most} threads, {before} before");
    assert_eq!(threads(), before, "threads that stay");
}
