//! Dispatch, top-k, its derivative and search, at the shapes that the README compares with other systems.
//!
//! ```sh
//! cargo bench
//! ```
//!
//! Every benchmark checks its results first: a fast wrong answer is none. They run on the CPU, or on the platform that the
//! environment variable `XLANN_TEST_PLATFORM` names (`gpu`, `tpu`), and need its plugin.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use xlann::ann::{self, Metric, SearchOptions, Searcher};
use xlann::lower::{Form, Options};
use xlann::pjrt::{Buffer, Executable};
use xlann::target::Platform;
use xlann::{ApproxTopKOptions, Array, DType, Function, Session, Shape, Tangent, jvp};

const ROWS: usize = 128;
const SIZE: usize = 100_000;
const WIDTH: usize = 128;
const RECALL_TARGET: f64 = 0.95;

fn session() -> Session {
    let platform = std::env::var("XLANN_TEST_PLATFORM").unwrap_or("cpu".into());
    Platform::named(&platform).unwrap().session().unwrap()
}

/// Pseudo-random values in -1..1, by a fixed linear congruential generator.
fn random(dims: [usize; 2]) -> Array {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let elements: Vec<f32> = (0..dims[0] * dims[1]).map(|_| next()).collect();
    Array::new(dims, &elements).unwrap()
}

fn host_results(executable: &Executable, operands: &[&Buffer]) -> Vec<Array> {
    executable.run(operands).unwrap().iter().map(|buffer| buffer.to_array().unwrap()).collect()
}

/// A scalar add, from host memory to host memory.
fn dispatch(c: &mut Criterion) {
    let session = session();
    let function = Function::trace("add", &[Shape::scalar(DType::F32)], |x| &x[0] + 1f32).unwrap();
    let add = session.compile(&function).unwrap();
    let operand = [Array::scalar(1f32)];
    assert_eq!(add.run_arrays(&operand).unwrap(), [Array::scalar(2f32)]);
    c.bench_function("dispatch/scalar add", |b| b.iter(|| add.run_arrays(black_box(&operand)).unwrap()));
}

/// Top-k of ready scores on the device; results to host memory.
fn topk(c: &mut Criterion) {
    let session = session();
    let client = session.client();
    let scores = random([ROWS, SIZE]);
    let operand = client.buffer_from_array(&scores, &client.devices()[0]).unwrap();
    let mut group = c.benchmark_group("topk");
    group.throughput(Throughput::Bytes(scores.shape().byte_count() as u64));
    group.sample_size(20);
    for k in [1, 10, 100, 1000] {
        for min in [false, true] {
            let function = Function::trace("topk", &[scores.shape().clone()], |x| match min {
                false => x[0].approx_max_k(k, &ApproxTopKOptions::default()),
                true => x[0].approx_min_k(k, &ApproxTopKOptions::default()),
            })
            .unwrap();
            let truth = &function.eval(std::slice::from_ref(&scores)).unwrap()[1];
            for &form in session.platform().capabilities.forms {
                let options = Options { approx_top_k: Some(form), ..Default::default() };
                let (executable, _) = session.compile_with(&function, &options).unwrap();
                let found = &host_results(&executable, &[&operand])[1];
                let recall = ann::recall::recall_by_index(found, truth).unwrap();
                // The target is an expectation; rows and seed are fixed, so the margin covers one sample.
                assert!(recall >= RECALL_TARGET - 0.01, "{form}: recall {recall}");
                let direction = if min { "min" } else { "max" };
                group.bench_function(format!("{direction} k {k} {form}"), |b| {
                    b.iter(|| host_results(&executable, &[&operand]));
                });
            }
        }
    }
    group.finish();
}

/// Top-k with its forward derivative, whose tangents are gathered or carried; results to host memory.
fn derivative(c: &mut Criterion) {
    let session = session();
    let client = session.client();
    let mut group = c.benchmark_group("derivative");
    group.sample_size(20);
    for (rows, size, k) in [(ROWS, SIZE, 10), (16, 4096, 10), (ROWS, 1000, 100)] {
        let both = random([2 * rows, size]).to_vec::<f32>().unwrap();
        let [scores, tangents] =
            [0, 1].map(|half| Array::new([rows, size], &both[half * rows * size..][..rows * size]).unwrap());
        let operands =
            [&scores, &tangents].map(|array| client.buffer_from_array(array, &client.devices()[0]).unwrap());
        let cases =
            [(Tangent::Gather, None), (Tangent::Gather, Some(Form::TwoStage)), (Tangent::Carried, None)];
        for (tangent, form) in cases {
            let options = ApproxTopKOptions { tangent, ..ApproxTopKOptions::default() };
            let topk = Function::trace("topk", &[scores.shape().clone()], |x| x[0].approx_max_k(k, &options))
                .unwrap();
            let truth = &topk.eval(std::slice::from_ref(&scores)).unwrap()[1];
            let derivative = jvp(&topk, &[0]).unwrap();
            let (executable, choices) = session
                .compile_with(&derivative, &Options { approx_top_k: form, ..Default::default() })
                .unwrap();
            let results = host_results(&executable, &operands.each_ref());
            let recall = ann::recall::recall_by_index(&results[1], truth).unwrap();
            // Of fewer results the recall varies more: by this at most, in all but one of a thousand samples.
            let margin = 3.0 * (RECALL_TARGET * (1.0 - RECALL_TARGET) / (rows * k) as f64).sqrt();
            assert!(recall >= RECALL_TARGET - margin, "{tangent:?}: recall {recall}");
            let indices = results[1].to_vec::<i32>().unwrap();
            let found = results[2].to_vec::<f32>().unwrap();
            for (position, (index, found)) in indices.into_iter().zip(found).enumerate() {
                assert_eq!(found, both[(rows + position / k) * size + index as usize], "{tangent:?}");
            }
            let form = choices[0].form;
            let name = format!("f32[{rows},{size}] k {k} {tangent:?} {form}").to_lowercase();
            group.bench_function(name, |b| b.iter(|| host_results(&executable, &operands.each_ref())));
        }
    }
    group.finish();
}

/// Search of 100,000 vectors of 128 dimensions; the database on the device, queries and results on the host.
fn search(c: &mut Criterion) {
    let session = session();
    let database = random([SIZE, WIDTH]);
    let mut group = c.benchmark_group("search");
    group.sample_size(10);
    for count in [1, 128, 1024] {
        let queries = random([count, WIDTH]);
        for metric in Metric::ALL {
            let options = SearchOptions::new(10);
            let searcher = Searcher::new(&session, database.clone(), metric, options).unwrap();
            let found = searcher.search(&queries).unwrap().indices;
            let truth = ann::true_neighbors(metric, &queries, database.clone(), 10).unwrap().indices;
            let recall = ann::recall(metric, &queries, database.clone(), &found, &truth).unwrap();
            assert!(recall >= RECALL_TARGET, "{metric}: recall {recall}");
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(format!("{metric} {count} queries"), |b| {
                b.iter(|| searcher.search(&queries).unwrap());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, dispatch, topk, derivative, search);
criterion_main!(benches);
