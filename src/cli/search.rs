//! `xlann search`.

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use xlann::ann::recall::recall_by_index;
use xlann::ann::{self, Aggregation, Metric, SearchOptions, Searcher};
use xlann::data::{self, MappedArray};
use xlann::lower::{Form, Precision};
use xlann::target::Platform;
use xlann::{Array, DType, Shape};

use super::{Summary, check_outputs, human, median, parse_form, parse_precision, positive, share};

/// What is searched for; shared with `xlann hlo search`.
#[derive(Args, Clone)]
pub struct SearchArguments {
    /// How many neighbours to find for each query
    #[arg(short, allow_negative_numbers = true, value_parser = positive)]
    k: usize,
    /// What makes a vector near: a large inner product, a small Euclidean distance, a large cosine
    #[arg(long, default_value = "ip")]
    metric: MetricArgument,
    /// The share of the true neighbours that is expected among those found, in (0, 1]
    #[arg(long, default_value_t = 0.95, allow_negative_numbers = true, value_name = "R", value_parser = share)]
    recall_target: f32,
    /// The form of the approximate top-k: auto, sort, two-stage, blocks, native, native-tight or kernel
    #[arg(long, default_value = "auto", value_name = "FORM", value_parser = parse_form)]
    // Spelled out, as clap takes an `Option` for an optional argument.
    lowering: std::option::Option<Form>,
    /// The precision of the scores that find candidates in an f32 database, on targets with kernels: exact, auto, bf16 or
    /// int8. Below exact, candidates are scored anew, and the recall target is proven for all queries of a batch together
    #[arg(long, default_value = "exact", value_name = "P", value_parser = parse_precision)]
    precision: Precision,
    /// How many threads the target's kernels take, at most [default: all]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = positive)]
    threads: Option<usize>,
}

/// The metrics as clap knows them.
#[derive(Clone, Copy, ValueEnum)]
enum MetricArgument {
    Ip,
    L2,
    Cosine,
}

/// Where neighbours are put together, as clap knows it.
#[derive(Clone, Copy, ValueEnum)]
pub enum AggregationArgument {
    Devices,
    Host,
}

impl AggregationArgument {
    pub fn aggregation(self) -> Aggregation {
        match self {
            AggregationArgument::Devices => Aggregation::Devices,
            AggregationArgument::Host => Aggregation::Host,
        }
    }
}

impl SearchArguments {
    pub fn metric(&self) -> Metric {
        match self.metric {
            MetricArgument::Ip => Metric::InnerProduct,
            MetricArgument::L2 => Metric::L2,
            MetricArgument::Cosine => Metric::Cosine,
        }
    }

    pub fn options(&self) -> SearchOptions {
        SearchOptions {
            recall_target: self.recall_target,
            form: self.lowering,
            precision: self.precision,
            threads: self.threads.and_then(NonZeroUsize::new),
            ..SearchOptions::new(self.k)
        }
    }
}

#[derive(Args)]
pub struct Search {
    /// The vectors to search, a row each: .npy (f32, f64, f16), .fvecs, .bvecs, .ivecs, .fbin, .u8bin or .ibin
    #[arg(long, value_name = "DB")]
    database: PathBuf,
    /// The vectors whose neighbours to find, in one of the same formats
    #[arg(long, value_name = "Q")]
    queries: PathBuf,
    #[command(flatten)]
    arguments: SearchArguments,
    /// What runs it: cpu, or the gpu or tpu that is attached to this machine
    #[arg(long, default_value = "cpu", value_parser = Platform::named)]
    target: &'static Platform,
    /// How many queries are asked for at once, which is what is timed
    #[arg(long, default_value_t = 128, value_name = "B", value_parser = positive)]
    batch: usize,
    /// Over how many of its devices the database is split; of the CPU, as many are made
    #[arg(long, default_value_t = 1, allow_negative_numbers = true, value_name = "N", value_parser = positive)]
    devices: usize,
    /// Where the neighbours that several devices found are put together
    #[arg(long, default_value = "devices")]
    aggregation: AggregationArgument,
    /// How often to run all queries; the time is the median
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = positive)]
    repeat: usize,
    /// Take only the first N queries
    #[arg(long, value_name = "N", value_parser = positive)]
    limit_queries: Option<usize>,
    /// Measure the recall against these neighbours: .npy of s32, s64, u32 or u64, .ivecs or .ibin, k a row at least. A
    /// neighbour counts as found where a row is as near as the last of these, and by the numbers of the rows, too
    #[arg(long, value_name = "GT", conflicts_with = "check_recall")]
    ground_truth: Option<PathBuf>,
    /// Measure the recall against the true neighbours, which the host computes in f64, in its own time
    #[arg(long)]
    check_recall: bool,
    /// Where to write the distances: inner products, squared Euclidean distances or cosines
    #[arg(long, value_name = "D.npy")]
    distances: Option<PathBuf>,
    /// Where to write the neighbours' rows
    #[arg(long, value_name = "I.npy")]
    indices: Option<PathBuf>,
}

impl Search {
    pub fn run(&self) -> anyhow::Result<Summary> {
        let inputs = [Some(&self.database), Some(&self.queries), self.ground_truth.as_ref()];
        let inputs: Vec<_> = inputs.into_iter().flatten().map(PathBuf::as_path).collect();
        check_outputs(&inputs, &[&self.distances, &self.indices])?;
        let database = data::open(&self.database)?;
        let queries = self.queries(&database)?;
        let count = queries.shape().dims()[0];
        let options =
            SearchOptions { aggregation: self.aggregation.aggregation(), ..self.arguments.options() };
        let truth = match &self.ground_truth {
            Some(path) => Some(self.read_truth(path, count, database.shape().dims()[0])?),
            None => None,
        };
        let rows = database.shape().dims()[0];
        anyhow::ensure!(
            self.devices <= rows,
            "--devices must be at most the database's {rows} rows, got {}",
            self.devices
        );
        let session = self.target.session_with_devices(self.devices)?;
        let metric = self.arguments.metric();
        let searcher = Searcher::over(&session, self.devices, database.clone(), metric, options)?;
        let (choices, compiled_in) = searcher.prepare(self.batch.min(count))?;
        let (found, mut seconds) = self.search(&searcher, &queries)?;
        let truth = match truth {
            None if self.check_recall => {
                Some(ann::true_neighbors(metric, &queries, database.clone(), self.arguments.k)?.indices)
            }
            truth => truth,
        };
        let recalls = match truth {
            None => None,
            Some(truth) => Some([
                ann::recall(metric, &queries, database, &found.indices, &truth)?,
                recall_by_index(&found.indices, &truth)?,
            ]),
        };
        let outputs = [(&self.distances, &found.distances), (&self.indices, &found.indices)];
        for (path, array) in outputs {
            if let Some(path) = path {
                data::write_npy(path, array)?;
            }
        }
        let rows = found.indices.to_vec::<i32>()?;
        let without = rows.chunks(self.arguments.k).filter(|row| row[0] < 0).count();
        let per_batch = median(&mut seconds);
        let batch = self.batch.min(count);
        let qps = count as f64 / (count.div_ceil(batch) as f64 * per_batch);
        let mut summary = Summary::default();
        summary.field("queries", count);
        summary.field("database", searcher.database_shape().to_string());
        summary.field("devices", self.devices);
        summary.field("metric", metric.name());
        summary.field("k", self.arguments.k);
        summary.field("batch", batch);
        summary.field("seconds_per_batch", per_batch);
        summary.field("qps", qps);
        summary.field("queries_without_neighbors", without);
        if let Some([by_distance, by_index]) = recalls {
            summary.field("recall", by_distance);
            summary.field("recall_by", "distance");
            summary.field("recall_by_index", by_index);
        }
        summary.field("lowering", choices[0].form.name());
        summary.field("precision", searcher.options().precision.name());
        summary.field("reason", choices[0].reason.as_str());
        summary.field("compile_seconds", compiled_in.as_secs_f64());
        summary.line(&choices[0]);
        let over = if self.devices > 1 { format!(" over {} devices", self.devices) } else { String::new() };
        summary.line(format_args!(
            "{count} queries in {}{over}, batches of {batch}: {} a batch, {qps:.0} queries a second; compiled in {}",
            searcher.database_shape(),
            human(per_batch),
            human(compiled_in.as_secs_f64()),
        ));
        if without > 0 {
            summary.line(format_args!(
                "{without} of the queries have no neighbours: distances to all rows are NaN"
            ));
        }
        if let Some([by_distance, by_index]) = recalls {
            summary.line(format_args!("recall {by_distance:.4} by distance, {by_index:.4} by row number"));
        }
        Ok(summary)
    }

    /// The queries that are asked for, of the database's width.
    fn queries(&self, database: &MappedArray) -> anyhow::Result<Array> {
        let queries = data::open(&self.queries)?;
        let (shape, wanted) = (queries.shape().clone(), database.shape());
        for (path, shape) in [(&self.database, wanted), (&self.queries, &shape)] {
            anyhow::ensure!(
                shape.rank() == 2 && shape.dims().iter().all(|&size| size > 0),
                "{}: expected a non-empty matrix, one vector a row, got {shape}",
                path.display()
            );
        }
        anyhow::ensure!(
            shape.dims()[1] == wanted.dims()[1],
            "{}: expected queries of width {}, as the database {wanted}, got {shape}",
            self.queries.display(),
            wanted.dims()[1]
        );
        let count = self.limit_queries.unwrap_or(usize::MAX).min(shape.dims()[0]);
        let bytes = &queries.as_bytes()[..count * shape.dims()[1] * shape.dtype().size()];
        Ok(Array::from_bytes(shape.with_dims([count, shape.dims()[1]]), bytes)?)
    }

    /// The first k of each row of the ground truth, for `count` queries in a database of `size` rows.
    fn read_truth(&self, path: &Path, count: usize, size: usize) -> anyhow::Result<Array> {
        let (truth, k) = (data::open(path)?.to_array()?, self.arguments.k);
        let shape = truth.shape();
        anyhow::ensure!(
            shape.rank() == 2
                && matches!(shape.dtype(), DType::S32 | DType::S64 | DType::U32 | DType::U64)
                && shape.dims()[0] >= count
                && shape.dims()[1] >= k,
            "{}: expected {count} rows of {k} s32, s64, u32 or u64 at least, got {shape}",
            path.display()
        );
        let width = shape.dims()[1];
        let rows = truth.to_f64();
        let first: Vec<f64> = rows.chunks(width).take(count).flat_map(|row| row[..k].to_vec()).collect();
        if let Some(index) = first.iter().find(|index| !(-1.0..size as f64).contains(*index)) {
            anyhow::bail!(
                "{}: expected rows of the database, 0 to {}, or -1 for none, got {index}",
                path.display(),
                size - 1
            );
        }
        Ok(Array::from_f64(Shape::new(DType::S32, [count, k]), &first)?)
    }

    /// Neighbours of all queries, and the seconds that each whole batch took.
    fn search(&self, searcher: &Searcher, queries: &Array) -> anyhow::Result<(ann::Neighbors, Vec<f64>)> {
        let shape = queries.shape();
        let (count, width) = (shape.dims()[0], shape.dims()[1]);
        let batch = shape.with_dims([self.batch.min(count), width]);
        let row = width * shape.dtype().size();
        let part = |bytes: &[u8]| Array::from_bytes(shape.with_dims([bytes.len() / row, width]), bytes);
        let batches: Vec<Array> =
            queries.as_bytes().chunks(batch.byte_count()).map(part).collect::<xlann::Result<_>>()?;
        // The last may be smaller, and is not to be compiled while the clock runs.
        searcher.prepare(batches[batches.len() - 1].shape().dims()[0])?;
        // The first run pays for memory that later ones find mapped.
        let first = searcher.search(&batches[0])?;
        let progress = progress(batches.len() * self.repeat);
        let (mut distances, mut indices) = (Vec::new(), Vec::new());
        let mut seconds = Vec::new();
        for round in 0..self.repeat {
            for queries in &batches {
                let start = Instant::now();
                let found = searcher.search(queries)?;
                if *queries.shape() == batch {
                    seconds.push(start.elapsed().as_secs_f64());
                }
                if round == 0 {
                    distances.extend_from_slice(found.distances.as_bytes());
                    indices.extend_from_slice(found.indices.as_bytes());
                }
                progress.inc(1);
            }
        }
        progress.finish_and_clear();
        // Those of half vectors are f32.
        let distances_shape = first.distances.shape().with_dims([count, self.arguments.k]);
        let indices_shape = distances_shape.with_dtype(DType::S32);
        let found = ann::Neighbors {
            distances: Array::from_bytes(
                distances_shape.clone(),
                &distances[..distances_shape.byte_count()],
            )?,
            indices: Array::from_bytes(indices_shape.clone(), &indices[..indices_shape.byte_count()])?,
        };
        Ok((found, seconds))
    }
}

/// A progress bar on standard error where that is a terminal.
fn progress(steps: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() || steps < 10 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} batches, {eta} left");
    ProgressBar::new(steps as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message("searching")
}
