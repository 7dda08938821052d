//! That the judge accepts what is right, and catches what is not.

use xlann::ann::{Metric, Neighbors};
use xlann::{Array, DType, Shape};

use crate::families::{self, Data};
use crate::judge::{Truth, Verdict, Wrong};
use crate::ways::{Case, Draws, Outcome, Way, holds, search, session};

fn f32s(dims: [usize; 2], values: &[f64]) -> Array {
    Array::from_f64(Shape::new(DType::F32, dims), values).unwrap()
}

/// Rows at 1, 2, 3 and 4 on a line, one without a place and one at the origin, and a query at the origin.
fn line(k: usize) -> Data {
    Data { rows: f32s([6, 1], &[1.0, 2.0, 3.0, 4.0, f64::NAN, 0.0]), queries: f32s([1, 1], &[0.0]), k }
}

fn judged(metric: Metric, data: &Data, indices: &[i32], distances: &[f64]) -> Verdict {
    let found = Neighbors {
        distances: f32s([1, distances.len()], distances),
        indices: Array::new([1, indices.len()], indices).unwrap(),
    };
    Truth::of(metric, data).judge(&found)
}

fn wrongs(verdict: &Verdict) -> Vec<Wrong> {
    verdict.wrongs.iter().map(|(wrong, ..)| *wrong).collect()
}

/// That of 3 neighbours on the line.
fn on_line(indices: [i32; 3], distances: [f64; 3]) -> Verdict {
    judged(Metric::L2, &line(3), &indices, &distances)
}

#[test]
fn the_nearest_are_right() {
    let verdict = on_line([5, 0, 1], [0.0, 1.0, 4.0]);
    assert_eq!((verdict.there, verdict.right, verdict.wrongs.len()), (3, 3, 0));
    assert_eq!((verdict.recall(), verdict.error), (1.0, 0.0));
}

#[test]
fn a_farther_row_is_a_miss() {
    let verdict = on_line([5, 0, 2], [0.0, 1.0, 9.0]);
    assert_eq!((verdict.right, &verdict.misses[..], verdict.wrongs.len()), (2, &[0][..], 0));
    // A row that was not found at all, too.
    let verdict = on_line([5, 0, -1], [0.0, 1.0, f64::NAN]);
    assert_eq!((verdict.right, verdict.wrongs.len()), (2, 0));
}

#[test]
fn what_no_search_may_state_is_wrong() {
    assert_eq!(wrongs(&on_line([5, 0, 0], [0.0, 1.0, 1.0])), [Wrong::Twice]);
    assert_eq!(wrongs(&on_line([5, 0, 6], [0.0, 1.0, 4.0])), [Wrong::Index]);
    assert_eq!(wrongs(&on_line([5, 0, -1], [0.0, 1.0, 4.0])), [Wrong::Index]);
    assert_eq!(wrongs(&on_line([5, 0, -2], [0.0, 1.0, f64::NAN])), [Wrong::Index]);
    assert_eq!(wrongs(&on_line([5, 0, 4], [0.0, 1.0, f64::NAN])), [Wrong::Nan]);
    assert_eq!(wrongs(&on_line([5, 1, 0], [0.0, 4.0, 1.0])), [Wrong::Order]);
    assert_eq!(wrongs(&on_line([-1, 5, 0], [f64::NAN, 0.0, 1.0])), [Wrong::Order]);
    assert_eq!(wrongs(&judged(Metric::L2, &line(3), &[5, 0], &[0.0, 1.0])), [Wrong::Shape]);
}

#[test]
fn stated_distances_are_those_of_the_rows() {
    assert_eq!(wrongs(&on_line([5, 0, 1], [0.0, 1.0, 4.0 + 2e-5])), []);
    assert_eq!(wrongs(&on_line([5, 0, 1], [0.0, 1.0, 4.0 + 6e-5])), [Wrong::Distance]);
    assert_eq!(wrongs(&on_line([5, 0, 1], [0.0, 1.0, f64::INFINITY])), [Wrong::Distance]);
    assert_eq!(wrongs(&on_line([5, 0, 1], [0.0, 1.0, f64::NAN])), [Wrong::Distance]);
    // A row equal to the query is at 0, and nothing below it.
    assert_eq!(wrongs(&on_line([5, 0, 1], [1e-40, 1.0, 4.0])), [Wrong::Distance]);
    assert_eq!(wrongs(&on_line([5, 0, 1], [-1e-40, 1.0, 4.0])), [Wrong::Distance, Wrong::Range]);
}

#[test]
fn only_near_ties_of_the_last_neighbour_count() {
    let tie = |last: f64| {
        let data = Data {
            rows: f32s([3, 1], &[1.0, 10.0, 10.0 * (1.0 + last)]),
            queries: f32s([1, 1], &[0.0]),
            k: 2,
        };
        let square = f64::from((10.0 * (1.0 + last)) as f32).powi(2);
        judged(Metric::L2, &data, &[0, 2], &[1.0, square]).right
    };
    assert_eq!([tie(4e-7), tie(1e-5)], [2, 1]);
}

#[test]
fn products_are_judged_by_the_norms_of_their_rows() {
    // The first two nearly cancel: their products with the query are 1 and 2 of norms of a million.
    let data = Data {
        rows: f32s([3, 2], &[1e6, 1.0, 1e6, 2.0, 1.5, 1.5]),
        queries: f32s([1, 2], &[0.0, 1.0]),
        k: 1,
    };
    let right = |row, stated| judged(Metric::InnerProduct, &data, &[row], &[stated]).right;
    assert_eq!([right(1, 2.0), right(0, 1.0), right(2, 1.5)], [1, 1, 1]);
    let data = Data { rows: f32s([3, 2], &[1e3, 1.0, 1e3, 2.0, 1.5, 1.5]), ..data };
    let right = |row, stated| judged(Metric::InnerProduct, &data, &[row], &[stated]).right;
    assert_eq!([right(1, 2.0), right(0, 1.0), right(2, 1.5)], [1, 0, 0]);
}

#[test]
fn cosines_do_not_overflow_and_stay_within_1() {
    let data = Data {
        rows: f32s([4, 2], &[1e-40, 1e-40, 3e38, -3e38, 0.0, 0.0, f64::INFINITY, 1.0]),
        queries: f32s([1, 2], &[1e38, 1e38]),
        k: 4,
    };
    let verdict = judged(Metric::Cosine, &data, &[0, 2, 1, -1], &[1.0, 0.0, 0.0, f64::NAN]);
    assert_eq!((verdict.there, verdict.right, verdict.wrongs.len()), (3, 3, 0), "{verdict:?}");
    let verdict = judged(Metric::Cosine, &data, &[0, 2, 1, -1], &[1.000_001, 0.0, 0.0, f64::NAN]);
    assert_eq!(wrongs(&verdict), [Wrong::Range]);
    let verdict = judged(Metric::Cosine, &data, &[0, 2, 1, 3], &[1.0, 0.0, 0.0, f64::NAN]);
    assert_eq!(wrongs(&verdict), [Wrong::Nan]);
}

#[test]
fn infinite_and_unstatable_distances_are_judged_by_the_formula() {
    let data = Data {
        rows: f32s([4, 1], &[f64::INFINITY, 1e30, f64::NEG_INFINITY, 1.0]),
        queries: f32s([1, 1], &[2.0]),
        k: 4,
    };
    let infinity = f64::INFINITY;
    let verdict = judged(Metric::InnerProduct, &data, &[0, 1, 3, 2], &[infinity, 2e30, 2.0, -infinity]);
    assert_eq!((verdict.right, verdict.wrongs.len()), (4, 0), "{verdict:?}");
    // 1e60 is beyond f32.
    let verdict = judged(Metric::L2, &data, &[3, 1, 2, 0], &[1.0, infinity, infinity, infinity]);
    assert_eq!((verdict.right, verdict.wrongs.len()), (4, 0), "{verdict:?}");
    let verdict = judged(Metric::InnerProduct, &Data { k: 1, ..data }, &[1], &[2e30]);
    assert_eq!((verdict.right, verdict.wrongs.len()), (0, 0));
}

#[test]
fn a_query_with_a_nan_has_no_neighbours() {
    let data = Data { queries: f32s([1, 1], &[f64::NAN]), ..line(2) };
    let nans = [f64::NAN; 2];
    for metric in Metric::ALL {
        let verdict = judged(metric, &data, &[-1, -1], &nans);
        assert_eq!((verdict.there, verdict.wrongs.len()), (0, 0));
        assert_eq!(wrongs(&judged(metric, &data, &[0, 1], &nans)), [Wrong::Nan, Wrong::Nan]);
    }
}

#[test]
fn f64_distances_are_judged_beyond_the_range_of_f32() {
    let rows = Array::new([2, 1], &[1e-30, 1e30]).unwrap();
    let data = Data { rows, queries: f32s([1, 1], &[0.0]), k: 2 };
    let found = |first: f64, second: f64| Neighbors {
        distances: Array::new([1, 2], &[first, second]).unwrap(),
        indices: Array::new([1, 2], &[0, 1]).unwrap(),
    };
    let truth = Truth::of(Metric::L2, &data);
    assert_eq!(wrongs(&truth.judge(&found(1e-60, 1e60))), []);
    assert_eq!(wrongs(&truth.judge(&found(0.0, f64::INFINITY))), [Wrong::Distance, Wrong::Distance]);
}

#[test]
fn a_search_is_caught_that_is_judged_by_other_data() {
    if session(1).is_none() {
        return;
    }
    let family = &families::all()[0];
    assert_eq!(family.name, "normal");
    let case = Case { metric: Metric::InnerProduct, way: Way::ALL[0], devices: 1 };
    let mut draws = Draws::of(family, 1, case.metric);
    let (data, _) = draws.get(0);
    let data = data.clone();
    let (_, other) = draws.get(1);
    let Outcome::Judged(verdict) = search(case, &data, other) else { panic!("it was refused") };
    assert!(verdict.recall() < 0.1 && verdict.wrongs.len() > 1000, "{}", verdict.recall());
}

#[test]
fn a_low_recall_is_no_chance() {
    let mean = |recalls: &[f64]| recalls.iter().sum::<f64>() / recalls.len() as f64;
    let holds = |recalls: &[f64]| holds(mean(recalls), recalls, 3);
    assert_eq!(holds(&[1.0; 2]), None);
    assert_eq!(holds(&[0.95; 3]), Some(true));
    assert_eq!(holds(&[0.93; 3]), None);
    assert_eq!(holds(&[0.93; 16]), Some(false));
    assert_eq!(holds(&[0.1; 3]), None);
    assert_eq!(holds(&[0.1; 4]), Some(false));
    assert_eq!(holds(&[1.0, 0.8, 0.9, 1.0]), None);
    assert_eq!(holds(&[[1.0, 0.8, 0.9, 1.0]; 12].concat()), Some(false));
}

#[test]
fn draws_are_the_same_for_a_seed() {
    for family in families::all().iter().filter(|family| family.size.rows <= 2000 && family.size.width < 100)
    {
        let [one, same, other, another] =
            [(1, 0), (1, 0), (2, 0), (1, 1)].map(|(seed, draw)| family.draw(seed, draw));
        let bytes = |data: &Data| [data.rows.as_bytes(), data.queries.as_bytes()].concat();
        assert_eq!(bytes(&one), bytes(&same), "{}", family.name);
        if !family.name.starts_with("all-equal") && !family.name.starts_with("all-zeros") {
            assert!(bytes(&one) != bytes(&other) && bytes(&one) != bytes(&another), "{}", family.name);
        }
    }
    let names: std::collections::BTreeSet<_> = families::all().iter().map(|family| family.name).collect();
    assert_eq!(names.len(), families::all().len());
}
