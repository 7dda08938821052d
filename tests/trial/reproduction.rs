//! A failure in as little data as shows it.

use std::fmt::Write;

use xlann::{Array, Shape};

use crate::families::{Data, Family};
use crate::judge::Truth;
use crate::ways::{Case, Outcome, RECALL_TARGET, find, search};

/// How many numbers are printed, at most.
const PRINTED: usize = 64;

/// What is wrong with a search, and of which query.
struct Failure {
    what: String,
    query: usize,
    details: String,
}

/// What a failure is, and the smallest data that still shows it.
pub fn of(family: &Family, seed: u64, draw: usize, case: Case, data: &Data) -> String {
    let mut text = format!("  {} {case}, seed {seed}, draw {draw}: {}\n", family.name, shapes(data));
    // A recall that is short over many draws need not be so in one.
    if let Some(failure) = failure(case, data) {
        let small = shrunk(case, data, &failure);
        writeln!(text, "    query {}: {}, {}", failure.query, failure.what, failure.details).unwrap();
        writeln!(text, "  still fails with {}", shapes(&small)).unwrap();
        text += &described(case, &small);
    }
    text
}

fn shapes(data: &Data) -> String {
    format!("rows {}, queries {}, k {}", data.rows.shape(), data.queries.shape(), data.k)
}

/// What is wrong with the search of data.
fn failure(case: Case, data: &Data) -> Option<Failure> {
    let verdict = match search(case, data, &Truth::of(case.metric, data)) {
        Outcome::Refused(_) => return None,
        Outcome::Failed(details) => return Some(Failure { what: "error".to_owned(), query: 0, details }),
        Outcome::Judged(verdict) => verdict,
    };
    if let Some((wrong, query, details)) = verdict.wrongs.first() {
        let what = format!("{wrong:?}").to_lowercase();
        return Some(Failure { what, query: *query, details: details.clone() });
    }
    // A few misses are no failure of an approximate search.
    let least = if case.way.is_exact() { 1.0 } else { RECALL_TARGET - 0.05 };
    let query = verdict.misses.first().copied().filter(|_| verdict.recall() < least)?;
    let details = format!("{:.4} of all neighbours are found", verdict.recall());
    Some(Failure { what: "recall".to_owned(), query, details })
}

/// Less of the data, by halves, as long as its search fails in the same way. Of an approximate search, all queries stay.
fn shrunk(case: Case, data: &Data, original: &Failure) -> Data {
    let fails = |data: &Data| failure(case, data).is_some_and(|failure| failure.what == original.what);
    let mut small = data.clone();
    if case.way.is_exact() {
        let query = original.query;
        let one = Data { queries: part(&small.queries, 0, query, query + 1), ..small.clone() };
        if fails(&one) {
            small = one;
        }
    }
    loop {
        let (rows, width) = (small.rows.shape().dims()[0], small.rows.shape().dims()[1]);
        let (half, half_width) = (rows / 2, width / 2);
        let of_rows = |from, to| Data {
            rows: part(&small.rows, 0, from, to),
            k: small.k.min(to - from),
            ..small.clone()
        };
        let of_columns = |from, to| Data {
            rows: part(&small.rows, 1, from, to),
            queries: part(&small.queries, 1, from, to),
            ..small.clone()
        };
        let mut candidates = Vec::new();
        if half > 0 {
            candidates.extend([of_rows(0, half), of_rows(half, rows)]);
            if small.k > 1 {
                candidates.push(Data { k: small.k / 2, ..small.clone() });
            }
            if rows < 24 {
                candidates.extend([of_rows(0, rows - 1), of_rows(1, rows)]);
            }
        }
        let queries = small.queries.shape().dims()[0];
        if queries > 1 && case.way.is_exact() {
            let of_queries = |from, to| Data { queries: part(&small.queries, 0, from, to), ..small.clone() };
            candidates.extend([of_queries(0, queries / 2), of_queries(queries / 2, queries)]);
        }
        if half_width > 0 {
            candidates.extend([of_columns(0, half_width), of_columns(half_width, width)]);
        }
        match candidates.into_iter().find(&fails) {
            Some(smaller) => small = smaller,
            None => return small,
        }
    }
}

/// Some rows of a matrix (dimension 0), or some of its columns.
fn part(matrix: &Array, dimension: usize, from: usize, to: usize) -> Array {
    let (rows, width) = (matrix.shape().dims()[0], matrix.shape().dims()[1]);
    let (rows, columns) = if dimension == 0 { (from..to, 0..width) } else { (0..rows, from..to) };
    let dims = [rows.len(), columns.len()];
    let numbers = matrix.to_f64();
    let numbers: Vec<f64> = rows.flat_map(|row| numbers[row * width..][columns.clone()].to_vec()).collect();
    Array::from_f64(Shape::new(matrix.shape().dtype(), dims), &numbers).unwrap()
}

/// What was found for the query that fails, what should have been, and the numbers where they are few.
fn described(case: Case, data: &Data) -> String {
    let mut text = String::new();
    let Some(Failure { what, query, details }) = failure(case, data) else { return text };
    let truth = Truth::of(case.metric, data);
    writeln!(text, "    query {query}: {what}, {details}").unwrap();
    if let Ok(found) = find(case, data) {
        let (indices, distances) = (found.indices.to_vec::<i32>().unwrap(), found.distances.to_f64());
        let places = query * data.k..(query + 1) * data.k;
        let rows = data.rows.shape().dims()[0];
        for (index, stated) in indices[places.clone()].iter().zip(&distances[places]).take(10) {
            let there = usize::try_from(*index).ok().filter(|row| *row < rows);
            let distance = there.map_or(f64::NAN, |row| truth.distance(query, row));
            writeln!(text, "    found row {index} at {stated:e}, truly {distance:e}").unwrap();
        }
    }
    for (row, distance) in truth.best[query].iter().take(10) {
        writeln!(text, "    expected row {row} at {distance:e}").unwrap();
    }
    if data.rows.shape().element_count() <= PRINTED {
        writeln!(text, "    rows {:?}", data.rows.to_f64()).unwrap();
        let width = data.rows.shape().dims()[1];
        writeln!(text, "    query {:?}", &data.queries.to_f64()[query * width..][..width]).unwrap();
    }
    text
}
