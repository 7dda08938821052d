//! The command line: arguments, exit status, and the summary on standard output.

mod doctor;
mod hlo;
mod plan;
mod search;
mod topk;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::{Map, Value};
use xlann::lower::{Form, Precision};

/// Nearest neighbours and approximate top-k through XLA.
#[derive(Parser)]
// Without a command, one line says so, as of other bad usage: clap would print the help.
#[command(name = "xlann", version, about, max_term_width = 100, arg_required_else_help = false)]
struct Cli {
    /// Print one JSON object on standard output instead of text
    #[arg(long, global = true, display_order = 900)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tell what is there: plugins and where they are looked for, devices, processor features
    Doctor,
    /// Fetch or list plugins
    #[command(subcommand, arg_required_else_help = false)]
    Plugin(doctor::PluginCommand),
    /// Find the k largest or smallest values along a dimension of an array, approximately
    Topk(topk::Topk),
    /// Find the nearest neighbours of queries in a database
    Search(search::Search),
    /// Print the HLO of a topk or a search of given shapes; needs no plugin
    #[command(subcommand, arg_required_else_help = false)]
    Hlo(hlo::Program),
    /// Tell which form the approximate top-k of a topk or a search takes on a target, and why; needs no plugin
    #[command(arg_required_else_help = false)]
    Explain(hlo::Explain),
    /// Compile a topk or a search of given shapes for a device, attached or only described, and print what came of it
    #[command(arg_required_else_help = false)]
    Compile(hlo::Compile),
    /// Tell what the search of a database of a given size would take of devices that are only described: memory, time
    /// and recall, by the estimates of their compiler
    Plan(plan::PlanCommand),
}

/// Runs the command line of this process.
///
/// The exit status is 0, 1 for a run that failed, or 2 for bad usage; a failure is one line on standard error.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are errors to clap, with status 0.
        Err(error) if error.exit_code() == 0 => {
            return print(&error.to_string());
        }
        Err(error) => {
            // The first paragraph says what is wrong, the second may be a tip; how to get help follows.
            let text = error.to_string();
            let help =
                |paragraph: &&str| ["Usage:", "For more"].iter().any(|start| paragraph.starts_with(start));
            let paragraphs: Vec<_> =
                text.split("\n\n").take_while(|text| !help(text)).map(one_line).collect();
            return fail(2, &paragraphs.join("; "));
        }
    };
    let summary = match cli.command {
        Command::Doctor => doctor::doctor(),
        Command::Plugin(command) => command.run(),
        Command::Topk(topk) => topk.run(),
        Command::Search(search) => search.run(),
        Command::Hlo(program) => program.hlo(),
        Command::Explain(explain) => explain.run(),
        Command::Compile(compile) => compile.run(),
        Command::Plan(plan) => plan.run(),
    };
    match summary {
        Ok(summary) => {
            let text = if cli.json { format!("{}\n", summary.json()) } else { summary.text };
            print(&text)
        }
        Err(error) => fail(if error.is::<Usage>() { 2 } else { 1 }, &format!("error: {error}")),
    }
}

/// Options that do not go together, where clap cannot tell.
#[derive(Debug)]
struct Usage(&'static str);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Usage {}

/// Prints to standard output. Unlike `print!`, it does not panic where that is closed.
fn print(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // A reader that has seen enough, such as head, is no failure.
        Err(problem) if problem.kind() != std::io::ErrorKind::BrokenPipe => {
            fail(1, &format!("error: standard output: {problem}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Prints a line to standard error, and gives the exit status.
fn fail(status: u8, problem: &str) -> ExitCode {
    // Where standard error is closed, the status is left to tell.
    let _ = writeln!(std::io::stderr(), "{}", one_line(problem));
    ExitCode::from(status)
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
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

/// A precision's name.
fn parse_precision(text: &str) -> Result<Precision, String> {
    let names = || Precision::ALL.map(Precision::name).join(", ");
    let precision = Precision::ALL.into_iter().find(|precision| precision.name() == text);
    precision.ok_or_else(|| format!("expected one of {}", names()))
}

/// A number of at least 1.
fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| "expected a number of 1 or more".to_owned())
}

/// A recall target.
fn share(text: &str) -> Result<f32, String> {
    let share = text.parse().ok().filter(|&share: &f32| share > 0.0 && share <= 1.0);
    share.ok_or_else(|| "expected a number in (0, 1]".to_owned())
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

/// Fails early where an output could not be written, rather than after the run, or would replace an input or
/// another output.
fn check_outputs(inputs: &[&Path], outputs: &[&Option<PathBuf>]) -> anyhow::Result<()> {
    let mut taken: Vec<_> = inputs.iter().filter_map(|path| path.canonicalize().ok()).collect();
    for path in outputs.iter().copied().flatten() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let refused = |problem: std::io::Error| anyhow::anyhow!("{}: {problem}", path.display());
        if let Ok(kind) = path.metadata() {
            let got = if kind.is_dir() { "a directory" } else { "a device, pipe or socket" };
            anyhow::ensure!(kind.is_file(), "{}: expected a file to write, got {got}", path.display());
        }
        tempfile::tempfile_in(folder).map_err(refused)?;
        let place = match path.canonicalize() {
            Ok(place) => place,
            Err(_) => folder.canonicalize().map_err(refused)?.join(path.file_name().unwrap_or_default()),
        };
        let message = "expected a file that is neither an input nor another output";
        anyhow::ensure!(!taken.contains(&place), "{}: {message}", path.display());
        taken.push(place);
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
