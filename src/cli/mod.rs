//! The command line: arguments, exit status, and the summary on standard output.

mod doctor;
mod hlo;
mod search;
mod topk;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use serde_json::{Map, Value};
use xlann::lower::Form;
use xlann::target::Target;

/// Nearest neighbours and approximate top-k through XLA.
#[derive(Parser)]
#[command(name = "xlann", version, about, max_term_width = 100)]
struct Cli {
    /// Print one JSON object on standard output instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tell what is there: plugins and where they are looked for, devices, processor features
    Doctor,
    /// Fetch or list plugins
    #[command(subcommand)]
    Plugin(doctor::PluginCommand),
    /// Find the k largest or smallest values along a dimension of an array, approximately
    Topk(topk::Topk),
    /// Find the nearest neighbours of queries in a database
    Search(search::Search),
    /// Print the HLO of a topk or a search of given shapes; needs no plugin
    #[command(subcommand)]
    Hlo(hlo::Hlo),
}

/// Runs the command line of this process.
///
/// The exit status is 0, 1 for a run that failed, or 2 for bad usage; a failure is one line on standard error.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are errors to clap, with status 0.
        Err(error) if error.exit_code() == 0 => {
            print!("{error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            // The first paragraph says what is wrong; usage and tips follow it.
            let text = error.to_string();
            let problem: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
            eprintln!("{}", problem.join(" "));
            return ExitCode::from(2);
        }
    };
    let summary = match cli.command {
        Command::Doctor => doctor::doctor(),
        Command::Plugin(command) => command.run(),
        Command::Topk(topk) => topk.run(),
        Command::Search(search) => search.run(),
        Command::Hlo(hlo) => hlo.run(),
    };
    match summary {
        Ok(summary) => {
            use std::io::Write;
            let text = if cli.json { format!("{}\n", summary.json()) } else { summary.text };
            // A reader that has seen enough, such as head, is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {}", format!("{error:#}").replace('\n', " "));
            ExitCode::from(1)
        }
    }
}

/// What a command has to say, as text and as a JSON object.
#[derive(Default)]
struct Summary {
    text: String,
    object: Map<String, Value>,
}

impl Summary {
    /// Adds a line of text.
    fn line(&mut self, line: impl std::fmt::Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }

    /// Adds a field of the object.
    fn field(&mut self, name: &str, value: impl Into<Value>) {
        self.object.insert(name.to_owned(), value.into());
    }

    fn json(&self) -> String {
        Value::Object(self.object.clone()).to_string()
    }
}

/// A form of approximate top-k, or `auto`.
fn parse_form(text: &str) -> Result<Option<Form>, String> {
    if text == "auto" {
        return Ok(None);
    }
    let names = || Form::ALL.map(Form::name).join(", ");
    let form = Form::ALL.into_iter().find(|form| form.name() == text);
    form.map(Some).ok_or_else(|| format!("expected auto or one of {}", names()))
}

/// Sizes such as `128x100000`.
fn parse_dims(text: &str) -> Result<Dims, String> {
    let sizes: Result<Vec<usize>, _> = text.split('x').map(str::parse).collect();
    sizes.map(Dims).map_err(|_| "expected sizes such as 128x100000".to_owned())
}

/// The sizes of an array's dimensions.
// A type of its own, as clap takes a Vec for a repeated argument.
#[derive(Clone, Debug)]
struct Dims(Vec<usize>);

/// The target of the commands that run something.
fn cpu() -> &'static Target {
    &xlann::target::cpu::TARGET
}

/// Fails early where an output file could not be written, rather than after the run.
fn check_writable(paths: &[&Option<PathBuf>]) -> anyhow::Result<()> {
    for path in paths.iter().copied().flatten() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        tempfile::tempfile_in(folder)
            .with_context(|| format!("{}: cannot write to {}", path.display(), folder.display()))?;
        anyhow::ensure!(!path.is_dir(), "{}: expected a file to write, got a folder", path.display());
    }
    Ok(())
}

/// The middle of some durations in seconds, or the mean of the two in the middle; 0 of none.
fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    match seconds {
        [] => 0.0,
        _ if seconds.len() % 2 == 1 => seconds[seconds.len() / 2],
        _ => (seconds[seconds.len() / 2 - 1] + seconds[seconds.len() / 2]) / 2.0,
    }
}

/// A duration as a person reads it.
fn human(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} us", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}
