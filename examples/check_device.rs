//! Recall and time of every form of approximate top-k on an attached device, beside the device's own top-k.
//!
//! ```sh
//! cargo run --release --example check_device -- gpu
//! ```
//!
//! Prints a table, for max-k and min-k of ready scores and for searches, of every dtype and form of the platform. All
//! results are checked on the host: the exit status is 1 where some are wrong, and 2 where the device cannot be had.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use xlann::ann::{self, Metric, SearchOptions, Searcher};
use xlann::lower::{Choice, Form, Options};
use xlann::target::Platform;
use xlann::{ApproxTopKOptions, Array, DType, Function, Session, Shape};

/// Measure the recall and the time of every form of approximate top-k on an attached device
#[derive(Parser)]
pub struct Arguments {
    /// The platform: cpu, gpu or tpu
    #[arg(value_parser = Platform::named)]
    pub platform: &'static Platform,
    /// Only these dtypes; by default, all that the platform searches or has a top-k for
    #[arg(long = "dtype")]
    pub dtypes: Vec<DType>,
    /// Rows of scores, and queries
    #[arg(long, default_value_t = 128, value_parser = at_least::<1>)]
    pub rows: usize,
    /// Elements of each row, and vectors in the database
    #[arg(long, default_value_t = 100_000, value_parser = at_least::<LARGEST>)]
    pub size: usize,
    /// Elements of each vector
    #[arg(long, default_value_t = 128, value_parser = at_least::<1>)]
    pub width: usize,
    /// Runs of which a time is the median, or fewer where they take more than two seconds
    #[arg(long, default_value_t = 20, value_parser = at_least::<1>)]
    pub repeat: usize,
}

/// How many results to find.
const KS: [usize; 2] = [10, LARGEST];

const LARGEST: usize = 100;

/// The recall to aim for.
const TARGET: f32 = 0.95;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let session = match arguments.platform.session() {
        Ok(session) => session,
        Err(problem) => {
            eprintln!("error: {problem}");
            return ExitCode::from(2);
        }
    };
    match check(&session, &arguments, &mut |line| println!("{line}")) {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            problems.iter().for_each(|problem| eprintln!("error: {problem}"));
            ExitCode::FAILURE
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the table line by line; gives what is wrong with the results.
pub fn check(
    session: &Session,
    arguments: &Arguments,
    print: &mut dyn FnMut(String),
) -> xlann::Result<Vec<String>> {
    let device = &session.client().devices()[0];
    let plugin = session.client().plugin();
    let (major, minor) = plugin.api_version();
    let Arguments { rows, size, width, repeat, .. } = *arguments;
    print(format!("{}: {} ({})", arguments.platform.name(), device.kind(), device.debug_string()));
    print(format!("plugin {}, PJRT C API {major}.{minor}", plugin.path().display()));
    print(format!(
        "top-k of {rows} rows of {size} scores, search of {rows} queries in {size} vectors of {width}; recall target \
         {TARGET}"
    ));
    print(format!(
        "medians of {repeat} runs, from operands on the device to results on the host (queries too come from the \
         host); ratios are of the time of the device's own top-k of whole rows, the form sort; * is what the policy \
         chooses\n"
    ));
    print(row(["work", "form", "recall expected", "measured", "median", "of own top-k"].map(String::from)));
    print(row(["---", "---", "---:", "---:", "---:", "---:"].map(String::from)));
    let mut table = Table { print, problems: Vec::new(), repeat };
    let capabilities = arguments.platform.capabilities;
    let asked = |dtype| arguments.dtypes.is_empty() || arguments.dtypes.contains(&dtype);
    let dtypes = [DType::F16, DType::BF16, DType::F32, DType::F64].into_iter().filter(|&dtype| asked(dtype));
    for dtype in dtypes.clone() {
        let lists = [capabilities.searched, capabilities.fast_top_k, capabilities.native];
        if lists.iter().any(|list| list.contains(&dtype)) {
            top_k(session, &mut table, Shape::new(dtype, [rows, size]))?;
        }
    }
    for dtype in dtypes.filter(|dtype| capabilities.searched.contains(dtype)) {
        let [database, queries] = [size, rows].map(|rows| random(Shape::new(dtype, [rows, width])));
        for metric in [Metric::InnerProduct, Metric::L2] {
            search(session, &mut table, &database, &queries, metric)?;
        }
    }
    Ok(table.problems)
}

/// A number that is not too small.
fn at_least<const LEAST: usize>(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|&number| number >= LEAST);
    number.ok_or_else(|| format!("expected a number of {LEAST} or more"))
}

/// What is printed, and what is wrong.
struct Table<'a> {
    print: &'a mut dyn FnMut(String),
    problems: Vec<String>,
    repeat: usize,
}

/// What one form does for some work.
struct Measured {
    choice: Choice,
    recall: f64,
    /// What is wrong with the results.
    problem: Option<String>,
    seconds: f64,
}

impl Table<'_> {
    /// Prints the rows of some work: those of every form that it can take, the device's own top-k first.
    fn add(
        &mut self,
        work: &str,
        session: &Session,
        mut measure: impl FnMut(Option<Form>, usize) -> xlann::Result<Option<Measured>>,
    ) -> xlann::Result<()> {
        let Some(chosen) = measure(None, 0)? else { return Ok(()) };
        let mut own = None;
        for &form in session.platform().capabilities.forms {
            let Some(measured) = measure(Some(form), self.repeat)? else { continue };
            let Measured { choice, recall, problem, seconds } = measured;
            let own = *own.get_or_insert(seconds);
            let mark = if form == chosen.choice.form { " *" } else { "" };
            (self.print)(row([
                work.to_owned(),
                format!("{form}{mark}"),
                format!("{:.4}", choice.expected_recall),
                format!("{recall:.4}"),
                human(seconds),
                format!("{:.3}", seconds / own),
            ]));
            self.problems.extend(problem.map(|problem| format!("{work}, {form}: {problem}")));
        }
        Ok(())
    }
}

/// Max-k and min-k of ready scores.
fn top_k(session: &Session, table: &mut Table, shape: Shape) -> xlann::Result<()> {
    let operand = random(shape.clone());
    let client = session.client();
    let buffer = client.buffer_from_array(&operand, &client.devices()[0])?;
    let scores = operand.to_f64();
    let size = shape.dims()[1];
    for (direction, sign) in [("max", 1.0), ("min", -1.0)] {
        let rows: Vec<Vec<f64>> =
            scores.chunks(size).map(|row| row.iter().map(|score| sign * score).collect()).collect();
        let best: Vec<Vec<f64>> = rows.iter().map(|row| best_of(row)).collect();
        for k in KS {
            let options = ApproxTopKOptions { recall_target: TARGET, ..ApproxTopKOptions::default() };
            let function = Function::trace("topk", std::slice::from_ref(&shape), |x| match direction {
                "max" => x[0].approx_max_k(k, &options),
                _ => x[0].approx_min_k(k, &options),
            })?;
            table.add(&format!("{direction} of {shape}, k {k}"), session, |form, repeat| {
                let Some((executable, choice)) = available(
                    session.compile_with(&function, &Options { approx_top_k: form, ..Default::default() }),
                )?
                .map(|(executable, mut choices)| (executable, choices.remove(0))) else {
                    return Ok(None);
                };
                let run = || -> xlann::Result<Vec<Array>> {
                    executable.run(&[&buffer])?.iter().map(|buffer| buffer.to_array()).collect()
                };
                let results = run()?;
                let values: Vec<f64> = results[0].to_f64().iter().map(|value| sign * value).collect();
                let score = |row: usize, index: usize| rows[row].get(index).copied();
                let (recall, mut problem) = compare(&results[1], &values, &best, k, 0.0, score)?;
                // As many as there are draws, of which it is the mean: the margin covers all but one in ten thousand.
                let expected = choice.expected_recall;
                let margin = 4.0 * (expected * (1.0 - expected) / (rows.len() * k) as f64).sqrt();
                if recall < expected - margin {
                    problem.get_or_insert(format!("a recall of {recall}, where {expected} is expected"));
                }
                let seconds = median(repeat, || run().map(drop))?;
                Ok(Some(Measured { choice, recall, problem, seconds }))
            })?;
        }
    }
    Ok(())
}

/// Searches of a database that is on the device.
fn search(
    session: &Session,
    table: &mut Table,
    database: &Array,
    queries: &Array,
    metric: Metric,
) -> xlann::Result<()> {
    let width = database.shape().dims()[1];
    let [vectors, asked] = [database, queries].map(Array::to_f64);
    let score = |query: usize, index: usize| -> f64 {
        let pairs = asked[query * width..][..width].iter().zip(&vectors[index * width..][..width]);
        match metric {
            Metric::L2 => -pairs.map(|(a, b)| (a - b) * (a - b)).sum::<f64>(),
            _ => pairs.map(|(a, b)| a * b).sum(),
        }
    };
    let [count, size] = [queries, database].map(|array| array.shape().dims()[0]);
    let sign = if metric == Metric::L2 { -1.0 } else { 1.0 };
    let scores = |distances: &[f64]| distances.iter().map(|distance| sign * distance).collect::<Vec<f64>>();
    let truth = ann::true_neighbors(metric, queries, database.clone(), LARGEST)?.distances.to_f64();
    let best: Vec<Vec<f64>> = truth.chunks(LARGEST).map(scores).collect();
    for k in KS {
        let work = format!("search of {}, {metric}, k {k}", database.shape());
        table.add(&work, session, |form, repeat| {
            let options =
                SearchOptions { recall_target: TARGET, batch: Some(count), form, ..SearchOptions::new(k) };
            let searcher = Searcher::new(session, database.clone(), metric, options)?;
            let Some((mut choices, _)) = available(searcher.prepare(count))? else { return Ok(None) };
            let choice = choices.remove(0);
            let found = searcher.search(queries)?;
            let distances = scores(&found.distances.to_f64());
            // By default, GPUs and TPUs round f32 to the precision of their matrix units: bf16 at worst.
            let rounding = 0.02 * (width as f64).sqrt();
            let score = |query, index| (index < size).then(|| score(query, index));
            let (recall, mut problem) = compare(&found.indices, &distances, &best, k, rounding, score)?;
            // Where neighbours are expected, not proven, as many as there are draws.
            let expected = f64::from(TARGET).min(choice.expected_recall);
            let margin = 4.0 * (expected * (1.0 - expected) / (count * k) as f64).sqrt();
            if recall < expected - margin.max(0.01) {
                problem.get_or_insert(format!("a recall of {recall}, where {TARGET} is asked for"));
            }
            let seconds = median(repeat, || searcher.search(queries).map(drop))?;
            Ok(Some(Measured { choice, recall, problem, seconds }))
        })?;
    }
    Ok(())
}

/// What the target has; `None` of a form that it lacks for this work.
fn available<T>(result: xlann::Result<T>) -> xlann::Result<Option<T>> {
    match result {
        Err(xlann::Error::Unsupported { .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// The share of the results that are among the `k` best of their row, ties counted; and what is wrong with them, if
/// anything. `at` gives the true value at an index of a row, if there is one; results may be off it by `rounding`.
pub fn compare(
    indices: &Array,
    values: &[f64],
    best: &[Vec<f64>],
    k: usize,
    rounding: f64,
    at: impl Fn(usize, usize) -> Option<f64>,
) -> xlann::Result<(f64, Option<String>)> {
    let indices = indices.to_vec::<i32>()?;
    let mut hits = 0;
    for (row, ((indices, values), best)) in indices.chunks(k).zip(values.chunks(k)).zip(best).enumerate() {
        let mut distinct = indices.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() < k {
            return Ok((0.0, Some(format!("row {row} has an index twice: {indices:?}"))));
        }
        for (&index, &value) in indices.iter().zip(values) {
            let truth = usize::try_from(index).ok().and_then(|index| at(row, index));
            let Some(truth) = truth.filter(|truth| (value - truth).abs() <= rounding) else {
                return Ok((0.0, Some(format!("row {row} has {value} at {index}, where {truth:?} is"))));
            };
            hits += usize::from(truth >= best[k - 1]);
        }
        if values.windows(2).any(|pair| pair[0] < pair[1] - rounding) {
            return Ok((0.0, Some(format!("row {row} is not sorted: {values:?}"))));
        }
    }
    Ok((hits as f64 / (best.len() * k) as f64, None))
}

/// The largest values of a row, the largest first.
fn best_of(row: &[f64]) -> Vec<f64> {
    let mut row = row.to_vec();
    let descending = |a: &f64, b: &f64| b.total_cmp(a);
    row.select_nth_unstable_by(LARGEST - 1, descending);
    row.truncate(LARGEST);
    row.sort_unstable_by(descending);
    row
}

/// Pseudo-random values in -1..1, by a fixed linear congruential generator.
fn random(shape: Shape) -> Array {
    let mut state = shape.dims()[0] as u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    let values: Vec<f64> = (0..shape.element_count()).map(|_| next()).collect();
    Array::from_f64(shape, &values).expect("as many values as elements")
}

/// The median time of some runs in seconds; 0 of none.
fn median(repeat: usize, mut run: impl FnMut() -> xlann::Result<()>) -> xlann::Result<f64> {
    let start = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < repeat && (seconds.len() < 3 || start.elapsed() < Duration::from_secs(2)) {
        let start = Instant::now();
        run()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds.get(seconds.len() / 2).copied().unwrap_or_default())
}

/// A row of a Markdown table.
fn row(cells: [String; 6]) -> String {
    format!("| {} |", cells.join(" | "))
}

/// A duration as a person reads it.
fn human(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} us", s * 1e6),
        s => format!("{:.2} ms", s * 1e3),
    }
}
