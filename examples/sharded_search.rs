//! Sharded search: a database split over 4 devices of the CPU, as in the multi-core example of JAX's approximate
//! nearest neighbours (`jax.experimental.ann`).
//!
//! ```sh
//! cargo run --release --example sharded_search
//! ```
//!
//! Searches once with a `Searcher`, which puts together what the devices find, there or on the host; and once with
//! a function of each device's own, as JAX's `pmap` takes it. Prints the recall and the time of each. Needs the CPU
//! plugin: `xlann plugin install cpu`.

use std::time::Instant;

use anyhow::ensure;
use xlann::ann::{self, Aggregation, Metric, SearchOptions, Searcher};
use xlann::lower::{self, Form};
use xlann::pjrt::Buffer;
use xlann::{ApproxTopKOptions, Array, DType, Function, Session, Shape, target};

const DEVICES: usize = 4;
const DB_SIZE: usize = 100_000;
const FEATURE_DIM: usize = 64;
const QY_SIZE: usize = 128;
const K: usize = 10;
const RECALL_TARGET: f32 = 0.95;

/// An approximate form, as accelerators take; on the CPU an exact one is as fast at these sizes.
const FORM: Form = Form::TwoStage;

fn main() -> anyhow::Result<()> {
    let session = target::cpu::PLATFORM.session_with_devices(DEVICES)?;
    let (db, qy) = (random([DB_SIZE, FEATURE_DIM], 1)?, random([QY_SIZE, FEATURE_DIM], 2)?);

    let true_neighbors = ann::true_neighbors(Metric::InnerProduct, &qy, db.clone(), K)?.indices;
    let recall =
        |neighbors: &Array| ann::recall(Metric::InnerProduct, &qy, db.clone(), neighbors, &true_neighbors);

    let on_devices = [1, 2, DEVICES].map(|devices| (devices, Aggregation::Devices));
    for (devices, aggregation) in on_devices.into_iter().chain([(DEVICES, Aggregation::Host)]) {
        let options = SearchOptions {
            recall_target: RECALL_TARGET,
            aggregation,
            form: Some(FORM),
            ..SearchOptions::new(K)
        };
        let searcher = Searcher::over(&session, devices, db.clone(), Metric::InnerProduct, options)?;
        searcher.search(&qy)?;
        let start = Instant::now();
        let neighbors = searcher.search(&qy)?.indices;
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        let recall = recall(&neighbors)?;
        println!("{devices} devices, {aggregation:?}: recall {recall:.4}, {milliseconds:.1} ms");
        ensure!(recall >= f64::from(RECALL_TARGET), "the recall is below its target");
    }

    let start = Instant::now();
    let neighbors = pmap_mips(&session, &qy, &db)?;
    let seconds = start.elapsed().as_secs_f64();
    let recall = recall(&neighbors)?;
    println!("a function of each device: recall {recall:.4}, compiled, uploaded and run in {seconds:.2} s");
    ensure!(recall >= f64::from(RECALL_TARGET), "the recall is below its target");
    Ok(())
}

/// The neighbours that each device finds in its part of the database: `[qy_size, devices * k]`.
fn pmap_mips(session: &Session, qy: &Array, db: &Array) -> anyhow::Result<Array> {
    let per_device = DB_SIZE / DEVICES;
    let shapes =
        [qy.shape().clone(), db.shape().with_dims([per_device, FEATURE_DIM]), Shape::scalar(DType::S32)];
    let mips = Function::trace("mips", &shapes, |x| {
        let (qy, db, db_offset) = (&x[0], &x[1], &x[2]);
        let options = ApproxTopKOptions {
            recall_target: RECALL_TARGET,
            // Each device plans for its share of the recall.
            reduction_input_size_override: Some(DB_SIZE),
            ..ApproxTopKOptions::default()
        };
        let (_, neighbors) = ann::max_inner_product(qy, db, K, &options)?;
        (neighbors + db_offset)?.all_gather(1, DEVICES)
    })?;
    let options = lower::Options { approx_top_k: Some(FORM), ..Default::default() };
    let (mips, choices) = session.compile_replicas(&mips, &options, DEVICES)?;
    println!("{}", choices[0]);

    let mut arguments = Vec::new();
    let bytes = db.as_bytes().chunks_exact(db.as_bytes().len() / DEVICES);
    for (index, (device, bytes)) in mips.devices().zip(bytes).enumerate() {
        let part = Array::from_bytes(shapes[1].clone(), bytes)?;
        let db_offset = Array::scalar((index * per_device) as i32);
        let upload = |array| session.client().buffer_from_array(array, device);
        arguments.push([qy, &part, &db_offset].map(upload).into_iter().collect::<xlann::Result<Vec<_>>>()?);
    }
    let arguments: Vec<Vec<&Buffer>> = arguments.iter().map(|buffers| buffers.iter().collect()).collect();
    // Every device has gathered the same.
    Ok(mips.run_replicas(&arguments)?[0][0].to_array()?)
}

/// Pseudo-random values in -1..1, by a fixed linear congruential generator.
fn random(dims: [usize; 2], seed: u64) -> xlann::Result<Array> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let elements: Vec<f32> = (0..dims[0] * dims[1]).map(|_| next()).collect();
    Array::new(dims, &elements)
}
