//! `xlann hlo` and `xlann compile`: programs of given shapes.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use xlann::ann::{DatabaseCopy, database_copies, search_function_for};
use xlann::lower::{Capabilities, Choice};
use xlann::pjrt::{self, Compiled};
use xlann::target::{Target, compile_for, cpu};
use xlann::{DType, Function, Shape, lower};

use super::search::SearchArguments;
use super::topk::TopkArguments;
use super::{Dims, Summary, Usage, check_outputs, parse_dims};

/// What is lowered or compiled.
#[derive(Subcommand)]
pub enum Program {
    /// The k largest or smallest values along a dimension
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
    /// The nearest neighbours in a database
    Search {
        /// The database's sizes, such as 1000000x128
        #[arg(long, value_parser = parse_dims)]
        database_shape: Dims,
        /// The queries' sizes, such as 128x128
        #[arg(long, value_parser = parse_dims)]
        queries_shape: Dims,
        /// The dtype of both: one that the target searches without a conversion
        #[arg(long, default_value = "f32")]
        dtype: DType,
        #[command(flatten)]
        arguments: SearchArguments,
    },
}

impl Program {
    /// `xlann hlo`: the program as it is lowered for the CPU.
    pub fn hlo(&self) -> anyhow::Result<Summary> {
        let (function, options) = self.function(&cpu::CAPABILITIES)?;
        let lowered = lower::lower(&function, &cpu::CAPABILITIES, &options)?;
        Ok(emitted(&lowered.choices, "hlo", &lowered.module.to_string()))
    }

    fn function(&self, capabilities: &Capabilities) -> anyhow::Result<(Function, lower::Options)> {
        match self {
            Program::Topk { shape, dtype, arguments } => {
                let operand = Shape::new(*dtype, shape.0.as_slice());
                Ok((arguments.function(operand)?, arguments.options()))
            }
            Program::Search { database_shape, queries_shape, dtype, arguments } => {
                let [queries, database] =
                    [queries_shape, database_shape].map(|dims| Shape::new(*dtype, dims.0.as_slice()));
                let searched = capabilities.searched;
                let names: Vec<_> = searched.iter().map(DType::to_string).collect();
                anyhow::ensure!(
                    searched.contains(dtype),
                    "--dtype must be one of {}, to which a search on the {} converts others, got {dtype}",
                    names.join(", "),
                    capabilities.target
                );
                let (&[count, width], &[_, database_width]) = (queries.dims(), database.dims()) else {
                    anyhow::bail!("expected shapes of two sizes, got {database} and queries {queries}");
                };
                anyhow::ensure!(
                    count > 0 && width == database_width,
                    "--queries-shape must be 1 or more of width {database_width}, as the database, got {queries}"
                );
                let options = arguments.options();
                let metric = options.searched_by(capabilities, arguments.metric(), &database)?;
                let function = search_function_for(capabilities, metric, &database, count, 1, &options)?;
                Ok((function, options.lowering()))
            }
        }
    }
}

#[derive(Args)]
pub struct Explain {
    #[command(subcommand)]
    program: Program,
    /// What it would be compiled for, as for xlann compile; needs no plugin
    #[arg(long, global = true, default_value = "cpu", value_parser = Target::parse)]
    target: Target,
}

impl Explain {
    pub fn run(&self) -> anyhow::Result<Summary> {
        let capabilities = self.target.platform().capabilities;
        let (function, options) = self.program.function(capabilities)?;
        let choices = lower::explain(&function, capabilities, &options)?;
        let mut summary = Summary::default();
        for choice in &choices {
            summary.line(format_args!("{choice}; expected recall {:.4}", choice.expected_recall));
        }
        let row = |choice: &Choice| {
            json!({
                "operator": choice.operator,
                "lowering": choice.form.name(),
                "reason": choice.reason,
                "expected_recall": choice.expected_recall,
                "keeps_scores": choice.keeps_scores,
            })
        };
        summary.field("choices", choices.iter().map(row).collect::<Vec<_>>());
        if let Program::Search { database_shape, dtype, arguments, .. } = &self.program {
            let database = Shape::new(*dtype, database_shape.0.as_slice());
            let (metric, options) = (arguments.metric(), arguments.options());
            let copies = database_copies(capabilities, metric, &database, 1, &options)?;
            for copy in &copies {
                summary.line(format_args!("beside the database: {copy}"));
            }
            let row =
                |copy: &DatabaseCopy| json!({"what": copy.what, "bytes": copy.bytes, "when": copy.when});
            summary.field("copies", copies.iter().map(row).collect::<Vec<_>>());
        }
        Ok(summary)
    }
}

#[derive(Args)]
pub struct Compile {
    #[command(subcommand)]
    program: Program,
    /// What to compile for: cpu, gpu or tpu as attached to this machine, or without one gpu:h100, gpu:h200, gpu:a100,
    /// gpu:FILE (XLA's target config as text) or a TPU topology such as tpu:v5e:2x2
    #[arg(long, global = true, default_value = "cpu", value_parser = Target::parse)]
    target: Target,
    /// What to print: the program as it is lowered (hlo) or as the compiler's passes left it (optimized-hlo), as
    /// StableHLO (stablehlo, which leaves approximate top-k to XLA unless --lowering says otherwise), or the compiler's
    /// estimates (cost); or what to write to the file of -o: the executable
    #[arg(long, global = true, default_value = "hlo", value_name = "WHAT")]
    emit: Emit,
    /// Where to write it, instead of standard output
    #[arg(short, long, global = true, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Emit {
    Hlo,
    OptimizedHlo,
    #[value(name = "stablehlo")]
    StableHlo,
    Cost,
    Executable,
}

impl Compile {
    pub fn run(&self) -> anyhow::Result<Summary> {
        if self.emit == Emit::Executable && self.output.is_none() {
            return Err(Usage("--emit executable needs -o FILE, the file to write it to").into());
        }
        check_outputs(&[], &[&self.output])?;
        let (function, options) = self.program.function(self.target.platform().capabilities)?;
        let (choices, name, text) = match self.emit {
            Emit::Hlo => {
                let lowered = lower::lower(&function, self.target.platform().capabilities, &options)?;
                (lowered.choices, "hlo", lowered.module.to_string())
            }
            Emit::StableHlo if options.approx_top_k.is_none() => {
                let text = lower::stablehlo(&function, self.target.platform().capabilities)?;
                (Vec::new(), "stablehlo", text)
            }
            Emit::StableHlo => {
                let lowered = lower::lower(&function, self.target.platform().capabilities, &options)?;
                (lowered.choices, "stablehlo", lowered.module.to_stablehlo()?)
            }
            Emit::Executable => {
                let (compiled, choices) = self.compile(&function, &options)?;
                let path = self.output.as_deref().unwrap_or(Path::new(""));
                compiled.get().save(path)?;
                return Ok(emitted(&choices, "output", &path.display().to_string()));
            }
            Emit::OptimizedHlo => {
                let (compiled, choices) = self.compile(&function, &options)?;
                (choices, "optimized_hlo", compiled.get().optimized_program()?.module()?.to_string())
            }
            Emit::Cost => {
                let (compiled, choices) = self.compile(&function, &options)?;
                let cost = Cost::of(compiled.get())?;
                if self.output.is_none() {
                    let mut summary = emitted(&choices, "cost", &cost.text());
                    cost.fields(&mut summary);
                    return Ok(summary);
                }
                (choices, "cost", cost.text())
            }
        };
        let Some(path) = &self.output else { return Ok(emitted(&choices, name, &text)) };
        xlann::data::write(path, text.as_bytes())?;
        Ok(emitted(&choices, "output", &path.display().to_string()))
    }

    fn compile(
        &self,
        function: &Function,
        options: &lower::Options,
    ) -> xlann::Result<(Executable, Vec<Choice>)> {
        if self.target.topology().is_some() {
            let (compiled, choices) = compile_for(function, &self.target, options)?;
            return Ok((Executable::Ahead(compiled), choices));
        }
        let (executable, choices) = self.target.platform().session()?.compile_with(function, options)?;
        Ok((Executable::Loaded(executable), choices))
    }
}

/// What was compiled for described devices, or for those of this machine.
enum Executable {
    Ahead(Compiled),
    Loaded(pjrt::Executable),
}

impl Executable {
    fn get(&self) -> &Compiled {
        match self {
            Executable::Ahead(compiled) => compiled,
            Executable::Loaded(executable) => executable.compiled(),
        }
    }
}

/// What the compiler tells of a run: its estimates where it makes any, and the memory.
struct Cost {
    /// By their names; or why there are none.
    estimates: Result<Vec<(String, pjrt::Value)>, String>,
    /// Bytes, by what they are for.
    memory: [(&'static str, i64); 4],
}

impl Cost {
    fn of(compiled: &Compiled) -> xlann::Result<Cost> {
        let estimates = match compiled.cost_analysis() {
            Ok(mut costs) => {
                costs.sort_by(|(name, _), (other, _)| name.cmp(other));
                Ok(costs)
            }
            Err(xlann::Error::Pjrt { message, .. }) => Err(message),
            Err(other) => return Err(other),
        };
        let memory = compiled.memory()?;
        let memory = [
            ("arguments", memory.arguments),
            ("results", memory.results),
            ("temporaries", memory.temporaries),
            ("generated code", memory.generated_code),
        ];
        Ok(Cost { estimates, memory })
    }

    fn text(&self) -> String {
        let estimates = match &self.estimates {
            Ok(costs) => costs.iter().map(|(name, value)| format!("{name}: {value}\n")).collect(),
            Err(message) => format!("no estimates: {message}\n"),
        };
        let memory = self.memory.map(|(name, bytes)| format!("bytes of {name}: {bytes}\n"));
        estimates + &memory.concat()
    }

    /// The estimates as numbers by their names, or why there are none, and the memory in bytes.
    fn fields(&self, summary: &mut Summary) {
        match &self.estimates {
            Ok(costs) => {
                let fields = costs.iter().map(|(name, value)| (name.clone(), field(value)));
                summary.field("cost", fields.collect::<serde_json::Map<_, _>>());
            }
            Err(message) => {
                summary.field("cost", serde_json::Map::new());
                summary.field("no_estimates", message.as_str());
            }
        }
        let memory = self.memory.map(|(name, bytes)| (name.replace(' ', "_"), bytes.into()));
        summary.field("memory", serde_json::Map::from_iter(memory));
    }
}

fn field(value: &pjrt::Value) -> Value {
    match value {
        pjrt::Value::Int(value) => json!(value),
        pjrt::Value::IntList(values) => json!(values),
        pjrt::Value::Float(value) => json!(value),
        pjrt::Value::Bool(value) => json!(value),
        other => json!(other.to_string()),
    }
}

/// The choices, then a text.
fn emitted(choices: &[Choice], name: &str, text: &str) -> Summary {
    let mut summary = Summary::default();
    for choice in choices {
        summary.line(format_args!("// {choice}"));
    }
    summary.line(text.trim_end());
    summary.field("lowering", choices.iter().map(Choice::to_string).collect::<Vec<_>>());
    summary.field(name, text);
    summary
}
