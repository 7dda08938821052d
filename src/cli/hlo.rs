//! `xlann hlo`.

use clap::Subcommand;
use xlann::ann::search_function;
use xlann::{DType, Function, Shape, lower};

use super::search::SearchArguments;
use super::topk::TopkArguments;
use super::{Dims, Summary, cpu, parse_dims};

#[derive(Subcommand)]
pub enum Hlo {
    /// The HLO of a topk
    Topk {
        /// The operand's sizes, such as 128x100000
        #[arg(long, value_parser = parse_dims)]
        shape: Dims,
        /// The operand's dtype
        #[arg(long, default_value = "f32")]
        dtype: DType,
        #[command(flatten)]
        arguments: TopkArguments,
    },
    /// The HLO of a search
    Search {
        /// The database's sizes, such as 1000000x128
        #[arg(long, value_parser = parse_dims)]
        database_shape: Dims,
        /// The queries' sizes, such as 128x128
        #[arg(long, value_parser = parse_dims)]
        queries_shape: Dims,
        /// The dtype of both: f32 or f64
        #[arg(long, default_value = "f32")]
        dtype: DType,
        #[command(flatten)]
        arguments: SearchArguments,
    },
}

impl Hlo {
    pub fn run(&self) -> anyhow::Result<Summary> {
        let (function, options) = self.function()?;
        let lowered = lower::lower(&function, cpu().capabilities, &options)?;
        let mut summary = Summary::default();
        for choice in &lowered.choices {
            summary.line(format_args!("// {choice}"));
        }
        let text = lowered.module.to_string();
        summary.line(text.trim_end());
        let choices: Vec<_> = lowered.choices.iter().map(|choice| choice.to_string()).collect();
        summary.field("lowering", choices);
        summary.field("hlo", text);
        Ok(summary)
    }

    fn function(&self) -> anyhow::Result<(Function, lower::Options)> {
        match self {
            Hlo::Topk { shape, dtype, arguments } => {
                let operand = Shape::new(*dtype, shape.0.as_slice());
                Ok((arguments.function(operand)?, arguments.options()))
            }
            Hlo::Search { database_shape, queries_shape, dtype, arguments } => {
                let [queries, database] =
                    [queries_shape, database_shape].map(|dims| Shape::new(*dtype, dims.0.as_slice()));
                anyhow::ensure!(
                    matches!(dtype, DType::F32 | DType::F64),
                    "--dtype must be f32 or f64, to which a search converts others, got {dtype}"
                );
                let (&[count, width], &[_, database_width]) = (queries.dims(), database.dims()) else {
                    anyhow::bail!("expected shapes of two sizes, got {database} and queries {queries}");
                };
                anyhow::ensure!(
                    count > 0 && width == database_width,
                    "--queries-shape must be 1 or more of width {database_width}, as the database, got {queries}"
                );
                let options = arguments.options();
                let function = search_function(arguments.metric(), &database, count, &options)?;
                Ok((function, lower::Options { approx_top_k: options.form, ..lower::Options::default() }))
            }
        }
    }
}
