//! `xlann topk`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use xlann::lower::{Form, Options};
use xlann::target::Platform;
use xlann::{ApproxTopKOptions, Array, Function, Shape, data};

use super::{Summary, check_outputs, human, median, parse_form, positive, share};

/// What is searched for; shared with `xlann hlo topk`.
#[derive(Args, Clone)]
pub struct TopkArguments {
    /// How many values to find
    #[arg(short, allow_negative_numbers = true, value_parser = positive)]
    k: usize,
    /// Find the smallest values instead of the largest
    #[arg(long)]
    min: bool,
    /// The dimension to search along; negative: from the end
    #[arg(long, default_value_t = -1, allow_negative_numbers = true, value_name = "D")]
    dim: isize,
    /// The share of the true k best that is expected among the results, in (0, 1]
    #[arg(long, default_value_t = 0.95, allow_negative_numbers = true, value_name = "R", value_parser = share)]
    recall_target: f32,
    /// The size to plan the recall for, where the input is a part of a larger whole
    #[arg(long, value_name = "N")]
    input_size_override: Option<usize>,
    /// Leave the results of the partial reduction unsorted and not cut to k
    #[arg(long)]
    no_aggregate: bool,
    /// The form of the approximate top-k: auto, sort, two-stage, blocks, native, native-tight or kernel
    #[arg(long, default_value = "auto", value_name = "FORM", value_parser = parse_form)]
    // Spelled out, as clap takes an `Option` for an optional argument.
    lowering: std::option::Option<Form>,
    /// How many threads the target's kernel takes, at most [default: all]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = positive)]
    threads: Option<usize>,
}

impl TopkArguments {
    /// The function of an operand of that shape.
    pub fn function(&self, operand: Shape) -> xlann::Result<Function> {
        let options = ApproxTopKOptions {
            reduction_dimension: self.dim,
            recall_target: self.recall_target,
            reduction_input_size_override: self.input_size_override,
            aggregate_to_topk: !self.no_aggregate,
            ..ApproxTopKOptions::default()
        };
        Function::trace("topk", &[operand], |x| match self.min {
            false => x[0].approx_max_k(self.k, &options),
            true => x[0].approx_min_k(self.k, &options),
        })
    }

    pub fn options(&self) -> Options {
        let threads = self.threads.and_then(NonZeroUsize::new);
        Options { approx_top_k: self.lowering, threads, ..Default::default() }
    }
}

#[derive(Args)]
pub struct Topk {
    /// The array to search: a .npy of f16, bf16, f32 or f64, or an .fvecs file
    #[arg(long, value_name = "X.npy")]
    input: PathBuf,
    #[command(flatten)]
    arguments: TopkArguments,
    /// What runs it: cpu, or the gpu or tpu that is attached to this machine
    #[arg(long, default_value = "cpu", value_parser = Platform::named)]
    target: &'static Platform,
    /// How often to run; the time is the median
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = positive)]
    repeat: usize,
    /// Where to write the values found
    #[arg(long, value_name = "V.npy")]
    values: Option<PathBuf>,
    /// Where to write their indices
    #[arg(long, value_name = "I.npy")]
    indices: Option<PathBuf>,
}

impl Topk {
    pub fn run(&self) -> anyhow::Result<Summary> {
        check_outputs(&[&self.input], &[&self.values, &self.indices])?;
        let input = data::open(&self.input)?;
        let shape = input.shape().clone();
        let function = self.arguments.function(shape.clone())?;
        let session = self.target.session()?;
        let start = Instant::now();
        let (executable, choices) = session.compile_with(&function, &self.arguments.options())?;
        let compile_seconds = start.elapsed().as_secs_f64();
        let client = session.client();
        let bytes = shape.byte_count() as f64;
        let operand =
            client.buffer_from_host(shape.clone(), std::sync::Arc::new(input), &client.devices()[0])?;
        let run = || -> xlann::Result<Vec<Array>> {
            executable.run(&[&operand])?.iter().map(|buffer| buffer.to_array()).collect()
        };
        // The first run pays for memory that later ones find mapped.
        let mut results = run()?;
        let mut seconds = Vec::new();
        for _ in 0..self.repeat {
            let start = Instant::now();
            results = run()?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        let seconds = median(&mut seconds);
        for (path, result) in [&self.values, &self.indices].into_iter().zip(&results) {
            if let Some(path) = path {
                data::write_npy(path, result)?;
            }
        }
        let mut summary = Summary::default();
        summary.field("shape", shape.to_string());
        summary.field("result", results[0].shape().to_string());
        summary.field("seconds", seconds);
        summary.field("bytes_per_second", bytes / seconds);
        summary.field("compile_seconds", compile_seconds);
        summary.field("lowering", choices[0].form.name());
        summary.field("reason", choices[0].reason.as_str());
        summary.line(&choices[0]);
        let rate = bytes / seconds / 1e9;
        summary.line(format_args!(
            "{} to {} in {} ({rate:.1} GB/s), compiled in {}",
            shape,
            results[0].shape(),
            human(seconds),
            human(compile_seconds)
        ));
        Ok(summary)
    }
}
