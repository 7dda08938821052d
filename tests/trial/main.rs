//! A standing trial of the search: data that it has been wrong about or may be, searched in every way, and judged by an f64
//! reference. `cargo test` tries a sample, `scripts/try-data` all of it.
//!
//! `XLANN_TRIAL_SEED` is the seed of the data and of the sample, and `XLANN_TRIAL_ONLY` names a family, or a part of its
//! name.

#[path = "../common/mod.rs"]
mod common;
mod families;
mod judge;
mod judge_tests;
mod reproduction;
mod ways;

use std::collections::BTreeMap;
use std::time::Instant;

use families::{Family, Random};
use ways::{Case, DEVICES, Draws, Way, trial};
use xlann::ann::Metric;

/// Families of which one failure is made small and printed.
const REPRODUCTIONS: usize = 12;

fn seed() -> u64 {
    let given = std::env::var("XLANN_TRIAL_SEED").unwrap_or("1".into());
    given.parse().unwrap_or_else(|_| panic!("XLANN_TRIAL_SEED must be a whole number, got {given}"))
}

/// The families that the environment asks for.
fn chosen() -> Vec<Family> {
    let only = std::env::var("XLANN_TRIAL_ONLY").unwrap_or_default();
    let mut families = families::all();
    families.retain(|family| family.name.contains(&only));
    assert!(!families.is_empty(), "XLANN_TRIAL_ONLY must be a part of a family's name, got {only}");
    families
}

/// The cases of one metric, by which programs are compiled: those of the same size and dtype follow each other.
fn cases(metric: Metric) -> Vec<Case> {
    let of = |way| DEVICES.map(|devices| Case { metric, way, devices });
    Way::ALL.into_iter().flat_map(of).collect()
}

/// Tries the cases of each family that `takes` takes; prints a line for each, and panics at the end where some failed.
fn run(mut takes: impl FnMut(&Family, Case) -> bool) {
    if DEVICES.iter().any(|&devices| ways::session(devices).is_none()) {
        return;
    }
    let (seed, start) = (seed(), Instant::now());
    println!("seed {seed}");
    println!("{:<20} {:<33} {:<10} {:>8} {:>8}  draws", "family", "case", "result", "recall", "error");
    let (mut count, mut failed) = (0, BTreeMap::<&str, Vec<String>>::new());
    let families = chosen();
    for family in &families {
        let mut reproduced = failed.len() >= REPRODUCTIONS;
        for metric in Metric::ALL {
            let mut draws = Draws::of(family, seed, metric);
            for case in cases(metric).into_iter().filter(|case| takes(family, *case)) {
                let trial = trial(case, &mut draws);
                count += 1;
                let result = match (&trial.refusal, &trial.failure) {
                    (Some(_), _) => "refused",
                    (None, Some((failure, _))) => failure,
                    (None, None) => "ok",
                };
                print!("{:<20} {:<33} {result:<10}", family.name, case.to_string());
                println!(" {:>8.4} {:>8.1e}  {}", trial.recall, trial.error, trial.draws);
                if let Some((failure, draw)) = &trial.failure {
                    let list = failed.entry(family.name).or_default();
                    list.push(format!("{case} {failure} {:.4} {:.1e}", trial.recall, trial.error));
                    if !reproduced {
                        reproduced = true;
                        let (data, _) = draws.get(*draw);
                        println!("{}", reproduction::of(family, seed, *draw, case, data));
                    }
                }
            }
        }
    }
    let failures: usize = failed.values().map(Vec::len).sum();
    println!("{count} cases, {failures} failed, in {:.0} s", start.elapsed().as_secs_f64());
    assert!(failed.is_empty(), "of {count} cases, {failures} failed, seed {seed}: {failed:#?}");
}

/// Of each family, some cases that the seed draws.
#[test]
fn results_are_right_for_a_sample_of_hostile_data() {
    let mut random = Random(seed());
    let cases = Metric::ALL.len() * Way::ALL.len() * DEVICES.len();
    run(move |_, _| random.below(cases) < 4);
}

#[test]
#[ignore = "takes some minutes: scripts/try-data"]
fn results_are_right_for_all_hostile_data() {
    run(|_, _| true);
}
