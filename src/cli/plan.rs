//! `xlann plan`.

use clap::Args;
use serde_json::{Value, json};
use xlann::ann::{self, Plan};
use xlann::target::Target;
use xlann::{DType, Shape};

use super::search::{AggregationArgument, SearchArguments};
use super::{Summary, human, positive};

/// How the estimates came about.
const SOURCE: &str = "the estimates of the targets' compilers; nothing was run";

#[derive(Args)]
pub struct PlanCommand {
    /// How many vectors the database has, such as 1000000 or 1e9
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = count)]
    database_size: usize,
    /// How many elements a vector has
    #[arg(long, value_name = "D", allow_negative_numbers = true, value_parser = positive)]
    dim: usize,
    /// The dtype of the vectors; a target that does not search it as it is, converts it to f32
    #[arg(long, default_value = "f32")]
    dtype: DType,
    /// How many queries are asked for at once
    #[arg(long, default_value_t = 128, value_name = "B", allow_negative_numbers = true, value_parser = positive)]
    batch: usize,
    #[command(flatten)]
    arguments: SearchArguments,
    /// Where the neighbours that several devices found are put together
    #[arg(long, default_value = "devices")]
    aggregation: AggregationArgument,
    /// What to plan for, with all its devices: as for xlann compile, such as tpu:v5e:16x16; several give a table
    #[arg(long = "target", required = true, value_delimiter = ',', value_name = "TARGET", value_parser = Target::parse)]
    targets: Vec<Target>,
}

impl PlanCommand {
    pub fn run(&self) -> anyhow::Result<Summary> {
        let database = Shape::new(self.dtype, [self.database_size, self.dim]);
        let options = ann::SearchOptions {
            batch: Some(self.batch),
            aggregation: self.aggregation.aggregation(),
            ..self.arguments.options()
        };
        let metric = self.arguments.metric();
        let plan = |target: &Target| -> xlann::Result<_> {
            let plan = ann::plan(target, metric, &database, &options)?;
            let smallest =
                if plan.fits { None } else { ann::smallest_fit(target, metric, &database, &options)? };
            Ok((target.clone(), plan, smallest))
        };
        let plan = |target| plan(target).map_err(|problem| anyhow::anyhow!("{target}: {problem}"));
        let plans = self.targets.iter().map(plan).collect::<anyhow::Result<Vec<_>>>()?;
        let mut summary = Summary::default();
        summary.field("database", database.to_string());
        summary.field("metric", metric.name());
        summary.field("k", options.k);
        summary.field("batch", self.batch);
        summary.field("source", SOURCE);
        let rows: Vec<_> = plans
            .iter()
            .map(|(target, plan, smallest)| {
                let mut row = self.json(target, plan);
                let smallest = smallest.as_ref().map(|(target, plan)| self.json(target, plan));
                row["smallest_fit"] = smallest.into();
                row
            })
            .collect();
        summary.field("targets", rows);
        summary
            .line(format_args!("{database}, {metric}, k {}, batches of {}: {SOURCE}", options.k, self.batch));
        summary.line("");
        // What does not fit is followed by the smallest that does.
        let shown = plans.iter().flat_map(|(target, plan, smallest)| {
            [(target, plan)].into_iter().chain(smallest.as_ref().map(|(target, plan)| (target, plan)))
        });
        let header = ["target", "chips", "a chip", "of", "a batch", "queries/s", "recall", "lowering"];
        let rows: Vec<_> = shown.map(|(target, plan)| self.row(target, plan)).collect();
        table(&mut summary, header.map(str::to_owned), &rows);
        summary.line("");
        for (target, plan, smallest) in &plans {
            if plan.fits {
                let note =
                    if plan.seconds.is_none() { "; the compiler makes no estimate of the time" } else { "" };
                summary.line(format_args!("{target}: {}{note}", plan.choices[0]));
                continue;
            }
            let smallest = match smallest {
                Some((smallest, _)) => format!("the smallest topology that fits is {smallest}"),
                None => "nor does any other topology that is known".to_owned(),
            };
            summary.line(format_args!("{target}: does not fit; {smallest}"));
        }
        Ok(summary)
    }

    fn queries_per_second(&self, plan: &Plan) -> Option<f64> {
        plan.seconds.filter(|_| plan.fits).map(|seconds| self.batch as f64 / seconds)
    }

    fn row(&self, target: &Target, plan: &Plan) -> [String; 8] {
        let none = || "-".to_owned();
        let per_chip = plan.devices_per_chip as u64;
        [
            target.to_string(),
            plan.chips().to_string(),
            gib(plan.bytes_per_device * per_chip),
            plan.memory_per_device.map_or_else(none, |memory| gib(memory * per_chip)),
            plan.seconds.filter(|_| plan.fits).map_or_else(none, human),
            self.queries_per_second(plan).map_or_else(none, |rate| format!("{rate:.0}")),
            format!("{:.4}", plan.expected_recall()),
            if plan.fits { plan.choices[0].form.name().to_owned() } else { "does not fit".to_owned() },
        ]
    }

    fn json(&self, target: &Target, plan: &Plan) -> Value {
        let per_chip = plan.devices_per_chip as u64;
        json!({
            "target": target.to_string(),
            "devices": plan.devices,
            "chips": plan.chips(),
            "bytes_per_chip": plan.bytes_per_device * per_chip,
            "memory_per_chip": plan.memory_per_device.map(|memory| memory * per_chip),
            "fits": plan.fits,
            "seconds_per_batch": plan.seconds.filter(|_| plan.fits),
            "qps": self.queries_per_second(plan),
            "expected_recall": plan.expected_recall(),
            "lowering": plan.choices[0].form.name(),
            "reason": plan.choices[0].reason,
        })
    }
}

/// A number of vectors: an integer, which may be written as 1e9.
fn count(text: &str) -> Result<usize, String> {
    let integer = positive(text).ok();
    // Up to 2^53, a float of an integer is exact.
    let float = text
        .parse::<f64>()
        .ok()
        .filter(|&count| count.fract() == 0.0 && (1.0..=2f64.powi(53)).contains(&count));
    let count = integer.or(float.map(|count| count as usize));
    count.ok_or_else(|| "expected a whole number of 1 or more, such as 1000000 or 1e9".to_owned())
}

fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / (1u64 << 30) as f64)
}

/// Adds lines of columns: words to the left, numbers to the right.
fn table<const N: usize>(summary: &mut Summary, header: [String; N], rows: &[[String; N]]) {
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter().chain([&header]).map(|row| row[column].len()).max().unwrap_or(0)
    });
    for row in [&header].into_iter().chain(rows) {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 || column == N - 1 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        summary.line(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
