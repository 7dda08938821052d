//! The ways in which data is searched, and what comes of each.

use std::sync::LazyLock;

use xlann::ann::{Metric, Neighbors, SearchOptions, Searcher};
use xlann::lower::{Form, Precision};
use xlann::target::cpu;
use xlann::{DType, Error, Result, Session};

use crate::families::{Data, Family};
use crate::judge::{Truth, Verdict};

/// A form and a precision of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub form: Form,
    pub precision: Precision,
    /// Whether a score budget cuts the database into parts.
    pub in_parts: bool,
}

impl Way {
    /// All that the CPU has: lower precisions are the kernel's.
    pub const ALL: [Way; 8] = [
        Way::of(Form::Kernel, Precision::Exact),
        Way::of(Form::Sort, Precision::Exact),
        Way::of(Form::Blocks, Precision::Exact),
        Way::of(Form::TwoStage, Precision::Exact),
        Way { in_parts: true, ..Way::of(Form::Sort, Precision::Exact) },
        Way { in_parts: true, ..Way::of(Form::TwoStage, Precision::Exact) },
        Way::of(Form::Kernel, Precision::Bf16),
        Way::of(Form::Kernel, Precision::Int8),
    ];

    const fn of(form: Form, precision: Precision) -> Way {
        Way { form, precision, in_parts: false }
    }

    pub fn is_exact(self) -> bool {
        self.precision == Precision::Exact && self.form != Form::TwoStage
    }
}

/// A metric, a way and a number of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub metric: Metric,
    pub way: Way,
    pub devices: usize,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Case { metric, way: Way { form, precision, in_parts }, devices } = self;
        let form = form.name().to_owned() + if *in_parts { " in parts" } else { "" };
        write!(f, "{:<6} {form:<18} {:<5} {devices}", metric.name(), precision.name())
    }
}

/// On how many devices each way is tried.
pub const DEVICES: [usize; 2] = [1, 3];

/// The recall that approximate ways promise, and by how much chance may stay below it.
pub const RECALL_TARGET: f64 = 0.95;
const SLACK: f64 = 0.01;

/// Over how many results the recall of approximate ways is measured, at least, but for data of a few rows.
const RESULTS: usize = 10_000;
const MOST_DRAWS: usize = 48;

/// What comes of a search.
#[derive(Debug)]
pub enum Outcome {
    Judged(Verdict),
    /// The search was refused, as it has to be.
    Refused(String),
    /// Another error.
    Failed(String),
}

/// Sessions of as many devices; `None` without the plugin.
pub fn session(devices: usize) -> Option<&'static Session> {
    static SESSIONS: LazyLock<Option<Vec<Session>>> = LazyLock::new(|| {
        let of = |&devices: &usize| crate::common::found("cpu", cpu::PLATFORM.session_with_devices(devices));
        DEVICES.iter().map(of).collect()
    });
    let place = DEVICES.iter().position(|known| *known == devices)?;
    SESSIONS.as_ref().map(|sessions| &sessions[place])
}

/// Searches data in one way.
pub fn find(case: Case, data: &Data) -> Result<Neighbors> {
    let Case { metric, way, devices } = case;
    let [rows, width] = [data.rows.shape().dims()[0], data.rows.shape().dims()[1]];
    let queries = data.queries.shape().dims()[0];
    let options = SearchOptions {
        recall_target: RECALL_TARGET as f32,
        form: Some(way.form),
        precision: way.precision,
        score_budget: way.in_parts.then(|| 4 * queries.max(width) * rows.div_ceil(5)),
        ..SearchOptions::new(data.k)
    };
    let session = session(devices).expect("a session");
    Searcher::over(session, devices, data.rows.clone(), metric, options)?.search(&data.queries)
}

/// Searches data in one way, and judges what is found.
pub fn search(case: Case, data: &Data, truth: &Truth) -> Outcome {
    match find(case, data) {
        Ok(found) => Outcome::Judged(truth.judge(&found)),
        Err(problem) if may_refuse(case, data, &problem) => Outcome::Refused(problem.to_string()),
        Err(problem) => Outcome::Failed(problem.to_string()),
    }
}

/// Whether a refusal says what the documentation does: lower precisions are for f32, and each device takes a row.
fn may_refuse(case: Case, data: &Data, problem: &Error) -> bool {
    let Error::Argument { argument, .. } = problem else { return false };
    match argument.as_str() {
        "precision" => {
            let is_f32 = data.rows.shape().dtype() == DType::F32;
            case.way.precision != Precision::Exact && !is_f32
        }
        "devices" => case.devices > data.rows.shape().dims()[0],
        _ => false,
    }
}

/// The draws of a family, with the truth of one metric; made when they are needed.
pub struct Draws<'a> {
    pub family: &'a Family,
    pub seed: u64,
    pub metric: Metric,
    made: Vec<(Data, Truth)>,
}

impl Draws<'_> {
    pub fn of(family: &Family, seed: u64, metric: Metric) -> Draws<'_> {
        Draws { family, seed, metric, made: Vec::new() }
    }

    pub fn get(&mut self, draw: usize) -> &(Data, Truth) {
        while self.made.len() <= draw {
            let data = self.family.draw(self.seed, self.made.len());
            let truth = Truth::of(self.metric, &data);
            self.made.push((data, truth));
        }
        &self.made[draw]
    }
}

/// The outcome of one case over as many draws as it takes.
#[derive(Debug, Default)]
pub struct Trial {
    /// Why it failed, if it did, in a word or two, and the draw that shows it best.
    pub failure: Option<(String, usize)>,
    pub refusal: Option<String>,
    pub recall: f64,
    pub draws: usize,
    pub error: f64,
}

/// Tries a case. An exact way must find all of one draw. The recall of an approximate one is the mean of several; where that
/// is too low, more are drawn until chance is no excuse.
pub fn trial(case: Case, draws: &mut Draws<'_>) -> Trial {
    let mut trial = Trial { recall: 1.0, ..Trial::default() };
    let size = draws.family.size;
    let least = RESULTS.div_ceil(size.queries * size.k).min(10);
    let (mut there, mut right) = (0, 0);
    let mut recalls: Vec<f64> = Vec::new();
    loop {
        let draw = recalls.len();
        let (data, truth) = draws.get(draw);
        let verdict = match search(case, data, truth) {
            Outcome::Judged(verdict) => verdict,
            Outcome::Refused(problem) => return Trial { refusal: Some(problem), ..trial },
            Outcome::Failed(problem) => return Trial { failure: Some((problem, draw)), ..trial },
        };
        there += verdict.there;
        right += verdict.right;
        recalls.push(verdict.recall());
        trial.draws = recalls.len();
        trial.recall = if there == 0 { 1.0 } else { right as f64 / there as f64 };
        trial.error = trial.error.max(verdict.error);
        if let Some((wrong, ..)) = verdict.wrongs.first() {
            trial.failure = Some((format!("{wrong:?}").to_lowercase(), draw));
            return trial;
        }
        if case.way.is_exact() {
            trial.failure = (right < there).then(|| ("recall".to_owned(), draw));
            return trial;
        }
        match holds(trial.recall, &recalls, least) {
            None => (),
            Some(true) => return trial,
            Some(false) => {
                let worst = (0..recalls.len()).min_by(|&a, &b| recalls[a].total_cmp(&recalls[b]));
                trial.failure = worst.map(|draw| ("recall".to_owned(), draw));
                return trial;
            }
        }
    }
}

/// Whether the recall of some draws is what was promised; `None` where more of them have to tell. One draw can have all its
/// neighbours in a few rows, whose places are chance.
pub fn holds(recall: f64, recalls: &[f64], least: usize) -> Option<bool> {
    let short = RECALL_TARGET - SLACK - recall;
    if recalls.len() < least {
        None
    } else if short <= 0.0 {
        Some(true)
    } else {
        // A few draws can be unlucky alike.
        let enough = if short > 0.2 { 4 } else { 16 };
        let is_certain = recalls.len() >= enough && short > 3.0 * standard_error(recalls);
        (is_certain || recalls.len() >= MOST_DRAWS).then_some(false)
    }
}

/// Of the mean of some numbers.
fn standard_error(numbers: &[f64]) -> f64 {
    let count = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    let variance = numbers.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (count - 1.0).max(1.0);
    (variance / count).sqrt()
}
