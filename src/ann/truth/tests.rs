use super::*;
use crate::ann::recall::{TOLERANCE, recall};

fn matrix(rows: usize, elements: &[f64]) -> Array {
    Array::new([rows, elements.len() / rows], elements).unwrap()
}

/// Small whole numbers in no order, of which many rows are equal.
fn digits(rows: usize, width: usize, seed: u64) -> Array {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 61) as f64 - 3.0
    };
    matrix(rows, &(0..rows * width).map(|_| next()).collect::<Vec<_>>())
}

/// The neighbours by a sort of all distances.
fn sorted(metric: Metric, query: &[f64], database: &Array, k: usize) -> Vec<(f64, i32)> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let sign = if metric == Metric::L2 { 1.0 } else { -1.0 };
    let mut all: Vec<(f64, i32)> = database
        .to_f64()
        .chunks(query.len())
        .map(|row| match metric {
            Metric::L2 => row.iter().zip(query).map(|(a, b)| (a - b).powi(2)).sum(),
            Metric::InnerProduct => dot(query, row),
            Metric::Cosine if dot(row, row) * dot(query, query) == 0.0 => 0.0,
            Metric::Cosine => dot(query, row) / (dot(row, row).sqrt() * dot(query, query).sqrt()),
        })
        .zip(0..)
        .collect();
    all.sort_by(|a, b| (sign * a.0).partial_cmp(&(sign * b.0)).unwrap().then(a.1.cmp(&b.1)));
    all.truncate(k);
    all
}

#[test]
fn true_neighbors_are_those_of_a_sort() {
    // Several blocks of rows, and of 300 queries more than go through them together.
    for (queries, rows, width, k) in
        [(37, 40_000, 3, 10), (300, 50, 2, 50), (1, 70_000, 1, 1), (5, 9, 40_000, 3)]
    {
        let (database, queries) = (digits(rows, width, 1), digits(queries, width, 2));
        for metric in Metric::ALL {
            let found = true_neighbors(metric, &queries, database.clone(), k).unwrap();
            let (distances, indices) = (found.distances.to_f64(), found.indices.to_vec::<i32>().unwrap());
            let whole = metric != Metric::Cosine;
            for (number, query) in queries.to_f64().chunks(width).enumerate() {
                let expected = sorted(metric, query, &database, k);
                for (place, (distance, index)) in expected.into_iter().enumerate() {
                    let (got, at) = (distances[number * k + place], indices[number * k + place]);
                    assert!(
                        (got - distance).abs() <= if whole { 0.0 } else { 1e-15 },
                        "{metric} {got} {distance}"
                    );
                    // Cosines of whole numbers round in either way of dividing.
                    assert!(!whole || at == index, "{metric}: row {at} for {index} at {distance}");
                }
            }
            let again = true_distances(metric, &queries, database.clone(), &found.indices).unwrap();
            assert_eq!(again, found.distances, "{metric}");
        }
    }
}

#[test]
fn distances_far_from_the_origin_do_not_cancel() {
    let offset = 1e12;
    let rows: Vec<f64> = (0..64).flat_map(|row| [offset + f64::from(row) / 8.0, -offset]).collect();
    let query = matrix(1, &[offset + 3.0, -offset]);
    let found = true_neighbors(Metric::L2, &query, matrix(64, &rows), 3).unwrap();
    assert_eq!(found.indices, Array::new([1, 3], &[24, 23, 25]).unwrap());
    assert_eq!(found.distances, Array::new([1, 3], &[0.0, 1.0 / 64.0, 1.0 / 64.0]).unwrap());
}

#[test]
fn wide_integers_are_compared_exactly() {
    let greatest = i32::MAX;
    let database = Array::new([4, 1], &[greatest - 2, greatest, i32::MIN, greatest - 1]).unwrap();
    let query = Array::new([1, 1], &[greatest]).unwrap();
    let found = true_neighbors(Metric::L2, &query, database.clone(), 4).unwrap();
    assert_eq!(found.indices, Array::new([1, 4], &[1, 3, 0, 2]).unwrap());
    let farthest = (2f64.powi(32) - 1.0).powi(2);
    assert_eq!(found.distances, Array::new([1, 4], &[0.0, 1.0, 4.0, farthest]).unwrap());
    // A product of 2^53 and of one less.
    let database = Array::new([2, 2], &[(1i64 << 53) - 1, 0, 1 << 53, 0]).unwrap();
    let query = Array::new([1, 2], &[1u8, 1]).unwrap();
    let found = true_neighbors(Metric::InnerProduct, &query, database, 2).unwrap();
    assert_eq!(found.indices, Array::new([1, 2], &[1, 0]).unwrap());
}

#[test]
fn cosines_hold_for_vectors_of_any_length() {
    let unit = [[1.0, 0.0], [0.6, 0.8], [-0.6, 0.8], [0.0, -1.0]];
    let least = f64::from_bits(1);
    for scale in [1.0, 1e300, f64::MAX, 1e-300, least * 2f64.powi(40)] {
        let rows: Vec<f64> = unit.iter().flatten().map(|x| x * scale).chain([0.0, -0.0]).collect();
        for length in [1.0, 1e-308, f64::MAX / 5.0] {
            let query = matrix(1, &[3.0 * length, 4.0 * length]);
            let found = true_neighbors(Metric::Cosine, &query, matrix(5, &rows), 5).unwrap();
            assert_eq!(found.indices, Array::new([1, 5], &[1, 0, 2, 4, 3]).unwrap(), "{scale} {length}");
            for (got, expected) in found.distances.to_f64().into_iter().zip([1.0, 0.6, 0.28, 0.0, -0.8]) {
                assert!((got - expected).abs() < 1e-11, "{got} for {expected}: {scale} {length}");
            }
        }
    }
    // One subnormal element, as small as there is.
    let found = true_neighbors(Metric::Cosine, &matrix(1, &[least, 0.0]), matrix(1, &[f64::MAX, 0.0]), 1);
    assert_eq!(found.unwrap().distances, matrix(1, &[1.0]));
}

#[test]
fn vectors_that_are_not_finite_have_no_neighbours() {
    let rows = [f64::NAN, 0.0, 1.0, 1.0, f64::INFINITY, 1.0, 2.0, 2.0];
    let database = matrix(4, &rows);
    let queries = matrix(2, &[1.0, 1.0, 1.0, f64::NAN]);
    for (metric, indices) in
        [(Metric::L2, [1, 3, 2, -1]), (Metric::InnerProduct, [2, 3, 1, -1]), (Metric::Cosine, [1, 3, -1, -1])]
    {
        let found = true_neighbors(metric, &queries, database.clone(), 4).unwrap();
        assert_eq!(found.indices, Array::new([2, 4], &[indices, [-1; 4]].concat()).unwrap(), "{metric}");
        for (index, distance) in found.indices.to_vec::<i32>().unwrap().iter().zip(found.distances.to_f64()) {
            assert_eq!(*index == -1, distance.is_nan(), "{metric}");
        }
        // What is there is found; places without a neighbour, and the query that has none, are left out.
        let of = |found: [i32; 8]| {
            let found = Array::new([2, 4], &found).unwrap();
            let truth = true_neighbors(metric, &queries, database.clone(), 4).unwrap().indices;
            recall(metric, &queries, database.clone(), &found, &truth).unwrap()
        };
        assert_eq!(of([1, 2, 3, 0, 0, 1, 2, 3]), 1.0, "{metric}");
        let there = indices.iter().filter(|&&index| index >= 0).count() as f64;
        assert_eq!(of([1, 1, -1, 0, 0, 1, 2, 3]), 1.0 / there, "{metric}");
    }
    let none = matrix(1, &[f64::NAN, 0.0]);
    let nothing = Array::new([1, 1], &[-1]).unwrap();
    assert_eq!(recall(Metric::L2, &none, database, &nothing, &nothing).unwrap(), 1.0);
}

/// The recall of some rows for one query, of as many true neighbours as are asked for.
fn recall_of(metric: Metric, query: &Array, database: &Array, found: &[i32], k: usize) -> f64 {
    let truth = true_neighbors(metric, query, database.clone(), k).unwrap().indices;
    recall(metric, query, database.clone(), &Array::new([1, found.len()], found).unwrap(), &truth).unwrap()
}

#[test]
fn rows_at_equal_distances_stand_for_each_other() {
    let (query, database) = (matrix(1, &[0.0]), matrix(6, &[1.0, -1.0, 1.0, 2.0, 2.0, 3.0]));
    let of = |found: &[i32], k| recall_of(Metric::L2, &query, &database, found, k);
    assert_eq!(of(&[2, 1], 2), 1.0);
    assert_eq!(of(&[2, 2], 2), 0.5, "found twice");
    assert_eq!(of(&[0, 1, 2, 4], 4), 1.0);
    assert_eq!(of(&[0, 1, 5, -1], 4), 0.5);
    assert_eq!(of(&[3, 4, 0, 1, 2], 4), 1.0, "more are right than are wanted");
    assert_eq!(of(&[], 4), 0.0);
}

#[test]
fn the_tolerance_is_of_the_last_distance_the_norms_or_1() {
    for (share, right) in [(0.99, 1.0), (1.01, 0.0)] {
        let off = share * TOLERANCE;
        // At a squared distance of 100 and a little more.
        let database = matrix(2, &[10.0, 10.0 * (1.0 + off).sqrt()]);
        assert_eq!(recall_of(Metric::L2, &matrix(1, &[0.0]), &database, &[1], 1), right, "{share}");
        // Products of 0 and of a little less, of norms 3 and 5.
        let (query, database) = (matrix(1, &[3.0, 0.0]), matrix(2, &[0.0, 1.0, -5.0 * off, 5.0]));
        assert_eq!(recall_of(Metric::InnerProduct, &query, &database, &[1], 1), right, "{share}");
        assert_eq!(recall_of(Metric::Cosine, &query, &database, &[1], 1), right, "{share}");
    }
    // Of a distance of 0 nothing is a share.
    let database = matrix(2, &[0.0, 1e-30]);
    assert_eq!(recall_of(Metric::L2, &matrix(1, &[0.0]), &database, &[1], 1), 0.0);
    // An infinite product is its own equal.
    let database = matrix(3, &[f64::INFINITY, 1.0, f64::INFINITY]);
    assert_eq!(recall_of(Metric::InnerProduct, &matrix(1, &[1.0]), &database, &[2], 1), 1.0);
    assert_eq!(recall_of(Metric::InnerProduct, &matrix(1, &[1.0]), &database, &[1], 1), 0.0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let (queries, database) = (matrix(2, &[0.0; 6]), matrix(4, &[0.0; 12]));
    let truth = |queries: &Array, database: &Array, k| {
        true_neighbors(Metric::L2, queries, database.clone(), k).unwrap_err().to_string()
    };
    let narrow =
        "true_neighbors: queries must be a matrix of width 3, as the database f64[4,3], got f64[2,2]";
    assert_eq!(truth(&matrix(2, &[0.0; 4]), &database, 1), narrow);
    for k in [0, 5] {
        let expected = format!("true_neighbors: k must be from 1 to the database's 4 rows, got {k}");
        assert_eq!(truth(&queries, &database, k), expected);
    }
    let vector = Array::new([3], &[0.0; 3]).unwrap();
    let expected = "true_neighbors: database must be a matrix of at most 2147483647 vectors, got f64[3]";
    assert_eq!(truth(&queries, &vector, 1), expected);
    let refusal = |found: Array, truth: &Array| {
        recall(Metric::L2, &queries, database.clone(), &found, truth).unwrap_err().to_string()
    };
    let good = Array::new([2, 1], &[0, 3]).unwrap();
    let rows = "must be rows of the database, 0 to 3, or -1 for none, got";
    for (rows_found, got) in [([0, 4], 4), ([-2, 0], -2)] {
        let bad = Array::new([2, 1], &rows_found).unwrap();
        assert_eq!(refusal(bad.clone(), &good), format!("recall: found {rows} {got}"));
        assert_eq!(refusal(good.clone(), &bad), format!("recall: truth {rows} {got}"));
    }
    let wide = Array::new([2, 1], &[0i64, 1]).unwrap();
    assert_eq!(refusal(wide, &good), "recall: found must be s32 of dimensions [2, k], got s64[2,1]");
}
