//! Search of a database on a device, against plain computation in f64.

use std::sync::Arc;
use std::time::Duration;

use crate::nearest::{assert_nearest, exact, matrix, rows, searched};
use crate::runner::{self, session};
use xlann::ann::{self, Metric, Neighbors, SearchOptions, Searcher, prepared_function, search_function};
use xlann::lower::{Form, Precision};
use xlann::{ApproxTopKOptions, Array, DType, Error, Function, Shape};

#[test]
fn every_metric_and_dtype_finds_the_nearest() {
    let Some(session) = session() else { return };
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16, DType::U8, DType::S32] {
        let database = matrix(dtype, [700, 12], 1);
        for metric in Metric::ALL {
            let searcher = Searcher::new(session, database.clone(), metric, exact(10)).unwrap();
            let (searched, scored) = searched(session, dtype);
            assert_eq!(searcher.database_shape(), &Shape::new(searched, [700, 12]));
            // Integers are converted, and no query is to a narrower dtype.
            for query_dtype in [dtype, DType::F64] {
                let queries = matrix(query_dtype, [5, 12], 2);
                let found = searcher.search(&queries).unwrap();
                assert_eq!(found.distances.shape().dtype(), scored);
                assert_nearest(&found, metric, &queries, &database, &format!("{metric} of {dtype}"));
            }
        }
    }
}

#[test]
fn functions_find_the_nearest_on_every_backend() {
    for dtype in [DType::F32, DType::F64] {
        let (queries, database) = (matrix(dtype, [3, 7], 1), matrix(dtype, [300, 7], 2));
        let shapes = [queries.shape().clone(), database.shape().clone()];
        let options = ApproxTopKOptions { recall_target: 1.0, ..ApproxTopKOptions::default() };
        for metric in Metric::ALL {
            let function = Function::trace("search", &shapes, |x| match metric {
                Metric::InnerProduct => ann::max_inner_product(&x[0], &x[1], 6, &options),
                Metric::Cosine => ann::cosine(&x[0], &x[1], &ann::inverse_norms(&x[1])?, 6, &options),
                Metric::L2 => {
                    let (_, indices) = ann::l2(&x[0], &x[1], &ann::half_norms(&x[1])?, 6, &options)?;
                    Ok((ann::squared_distances(&x[0], &x[1], &indices)?, indices))
                }
            })
            .unwrap();
            let mut results = runner::run(&function, &[queries.clone(), database.clone()]);
            let indices = results.remove(1);
            let found = Neighbors { distances: results.remove(0), indices };
            assert_nearest(&found, metric, &queries, &database, &format!("{function}"));
        }
    }
}

#[test]
fn search_functions_are_what_a_searcher_compiles() {
    let (queries, database) = (matrix(DType::F32, [4, 5], 1), matrix(DType::F32, [103, 5], 2));
    for metric in Metric::ALL {
        for score_budget in [1 << 20, 4 * 4 * 30, 1, 0] {
            let options = SearchOptions { score_budget: Some(score_budget), ..exact(7) };
            let function = search_function(metric, database.shape(), 4, &options).unwrap();
            let mut arguments = vec![queries.clone(), database.clone()];
            if let Some(prepared) = prepared_function(metric, database.shape(), &options).unwrap() {
                arguments.extend(prepared.eval(std::slice::from_ref(&database)).unwrap());
            }
            let mut results = runner::run(&function, &arguments);
            if metric == Metric::L2 {
                assert_eq!(results[2], Array::new([4], &[true; 4]).unwrap());
            }
            let indices = results.remove(1);
            let found = Neighbors { distances: results.remove(0), indices };
            assert_nearest(&found, metric, &queries, &database, &format!("{metric}, budget {score_budget}"));
        }
    }
}

#[test]
fn a_database_is_padded_where_its_rows_are_gathered() {
    let (queries, database) = (matrix(DType::F32, [4, 5], 1), matrix(DType::U8, [103, 5], 2));
    let options = SearchOptions { width_multiple: Some(128), ..exact(7) };
    for (metric, squared_distances, width) in [
        (Metric::L2, true, 128),
        (Metric::L2, false, 5),
        (Metric::InnerProduct, true, 5),
        (Metric::Cosine, true, 5),
    ] {
        let options = SearchOptions { squared_distances, ..options.clone() };
        let shape = Shape::new(DType::F32, [103, 5]);
        let function = search_function(metric, &shape, 4, &options).unwrap();
        let parameters = function.parameter_shapes();
        assert_eq!(parameters[..2], [shape.with_dims([4, 5]), shape.with_dims([103, width])], "{metric}");
        let Some(session) = session() else { continue };
        let searcher = Searcher::new(session, database.clone(), metric, options).unwrap();
        assert_eq!(*searcher.database_shape(), shape);
        let found = searcher.search(&queries).unwrap();
        let unpadded = SearchOptions { squared_distances, ..exact(7) };
        let unpadded = Searcher::new(session, database.clone(), metric, unpadded).unwrap();
        assert_eq!(found.indices, unpadded.search(&queries).unwrap().indices, "{metric}");
        if squared_distances {
            assert_nearest(&found, metric, &queries, &database, &format!("{metric}"));
        }
    }
}

#[test]
fn a_search_in_blocks_finds_the_nearest_of_all() {
    let Some(session) = session() else { return };
    // 4 queries of f32: 16 bytes of scores for each row.
    for (size, k, rows_in_budget) in [
        (1000, 10, 100),
        (1003, 10, 100),
        (1003, 10, 3),
        (1003, 150, 100),
        (1003, 1003, 100),
        (999, 500, 1),
        (10, 1, 1),
        (1, 1, 1),
        (97, 96, 10),
    ] {
        let database = matrix(DType::F32, [size, 6], size as u64);
        let queries = matrix(DType::F32, [4, 6], 3);
        for metric in Metric::ALL {
            for form in [None, Some(Form::Sort), Some(Form::Blocks)] {
                let options = SearchOptions {
                    score_budget: Some(16 * rows_in_budget),
                    batch: Some(4),
                    form,
                    ..exact(k)
                };
                let searcher = Searcher::new(session, database.clone(), metric, options).unwrap();
                let found = searcher.search(&queries).unwrap();
                let context = format!("{metric} of {size} rows, k={k}, {rows_in_budget} a block, {form:?}");
                assert_nearest(&found, metric, &queries, &database, &context);
            }
        }
    }
}

#[test]
fn a_search_in_blocks_has_the_recall_it_aims_for() {
    let Some(session) = session() else { return };
    let (database, queries) = (matrix(DType::F32, [20_000, 8], 1), matrix(DType::F32, [64, 8], 2));
    for metric in Metric::ALL {
        let truth = ann::true_neighbors(metric, &queries, database.clone(), 50).unwrap();
        for form in [None, Some(Form::TwoStage)] {
            for score_budget in [16 << 20, 64 * 4 * 3000] {
                let options = SearchOptions {
                    form,
                    score_budget: Some(score_budget),
                    recall_target: 0.9,
                    ..SearchOptions::new(50)
                };
                let searcher = Searcher::new(session, database.clone(), metric, options).unwrap();
                let found = searcher.search(&queries).unwrap();
                let recall =
                    ann::recall(metric, &queries, database.clone(), &found.indices, &truth.indices).unwrap();
                assert!(recall >= 0.88, "{recall}: {metric}, {form:?}, budget {score_budget}");
            }
        }
    }
}

#[test]
fn batches_of_any_size_are_answered_alike() {
    let Some(session) = session() else { return };
    let (database, queries) = (matrix(DType::F32, [500, 9], 1), matrix(DType::F32, [130, 9], 2));
    for metric in Metric::ALL {
        for batch in [1, 3, 128, 1000] {
            let options = SearchOptions { batch: Some(batch), ..exact(4) };
            let searcher = Searcher::new(session, database.clone(), metric, options).unwrap();
            let found = searcher.search(&queries).unwrap();
            assert_nearest(&found, metric, &queries, &database, &format!("{metric}, batches of {batch}"));
        }
    }
}

#[test]
fn the_last_batch_runs_what_was_compiled_for_the_others() {
    let Some(session) = session() else { return };
    let options = SearchOptions { batch: Some(32), ..exact(4) };
    let database = matrix(DType::F32, [501, 9], 1);
    let searcher = Searcher::new(session, database, Metric::L2, options).unwrap();
    let (choices, compiled_in) = searcher.prepare(100).unwrap();
    assert!(compiled_in > Duration::ZERO && !choices.is_empty());
    for count in [100, 33, 32, 31] {
        searcher.search(&matrix(DType::F32, [count, 9], 2)).unwrap();
        // A compilation that is made anew takes another time.
        assert_eq!(searcher.prepare(count).unwrap(), (choices.clone(), compiled_in), "{count} queries");
    }
    for count in [usize::MAX, 1000] {
        assert_eq!(searcher.prepare(count).unwrap().1, compiled_in);
    }
    assert_ne!(searcher.prepare(1).unwrap().1, compiled_in, "one query does not pay for 32");
    assert_eq!(searcher.prepare(0).unwrap().1, searcher.prepare(1).unwrap().1);
}

#[test]
fn a_batch_without_bound_takes_any_number_of_queries() {
    let Some(session) = session() else { return };
    let database = matrix(DType::F32, [50, 3], 1);
    let options = SearchOptions { batch: Some(usize::MAX), ..exact(2) };
    let searcher = Searcher::new(session, database.clone(), Metric::L2, options).unwrap();
    let queries = matrix(DType::F32, [5, 3], 2);
    assert_nearest(&searcher.search(&queries).unwrap(), Metric::L2, &queries, &database, "no bound");
    assert!(searcher.prepare(usize::MAX).is_err());
}

#[test]
fn no_queries_have_no_neighbours() {
    let Some(session) = session() else { return };
    for metric in Metric::ALL {
        let searcher = Searcher::new(session, matrix(DType::F32, [50, 3], 1), metric, exact(2)).unwrap();
        for dtype in [DType::F32, DType::U8] {
            let found = searcher.search(&Array::zeros(Shape::new(dtype, [0, 3])).unwrap()).unwrap();
            assert_eq!(found.distances.shape(), &Shape::new(DType::F32, [0, 2]));
            assert_eq!(found.indices.shape(), &Shape::new(DType::S32, [0, 2]));
        }
        let function = search_function(metric, &Shape::new(DType::F32, [50, 3]), 0, &exact(2)).unwrap();
        assert_eq!(function.result_shapes()[0].dims(), [0, 2]);
    }
}

#[test]
fn nan_in_queries_and_rows_is_no_neighbour() {
    let Some(session) = session() else { return };
    let mut values = matrix(DType::F64, [400, 4], 1).to_f64();
    let is_nan = |row: usize| row.is_multiple_of(3);
    (0..400).filter(|&row| is_nan(row)).for_each(|row| {
        values[row * 4 + row % 4] = if row % 2 == 0 { f64::NAN } else { -f64::NAN };
    });
    let mut queries = matrix(DType::F64, [3, 4], 2).to_f64();
    queries[5] = f64::NAN;
    for dtype in [DType::F32, DType::F64] {
        let database = Array::from_f64(Shape::new(dtype, [400, 4]), &values).unwrap();
        let queries = Array::from_f64(Shape::new(dtype, [3, 4]), &queries).unwrap();
        for metric in Metric::ALL {
            for score_budget in [16 << 20, 4 * 8 * 50] {
                // There are 266 rows without a NaN.
                for k in [5, 266, 300] {
                    let options = SearchOptions { score_budget: Some(score_budget), ..exact(k) };
                    let searcher = Searcher::new(session, database.clone(), metric, options).unwrap();
                    let found = searcher.search(&queries).unwrap();
                    let (distances, indices) =
                        (found.distances.to_f64(), found.indices.to_vec::<i32>().unwrap());
                    for query in 0..3 {
                        let context = format!("{metric} {dtype} k={k} budget {score_budget} query {query}");
                        let numbers = if query == 1 { 0 } else { k.min(266) };
                        for place in 0..k {
                            let (distance, index) =
                                (distances[query * k + place], indices[query * k + place]);
                            assert_eq!(distance.is_nan(), place >= numbers, "place {place}: {context}");
                            assert_eq!(index == -1, place >= numbers, "place {place}: {context}");
                            assert!(index == -1 || !is_nan(index as usize), "row {index}: {context}");
                        }
                        let mut distinct = indices[query * k..][..numbers].to_vec();
                        distinct.sort_unstable();
                        distinct.dedup();
                        assert_eq!(distinct.len(), numbers, "a row comes twice: {context}");
                    }
                }
            }
        }
    }
}

#[test]
fn vectors_of_zeros_have_the_cosine_0() {
    let Some(session) = session() else { return };
    let mut values = matrix(DType::F32, [60, 4], 1).to_f64();
    values[..40].fill(0.0);
    let database = Array::from_f64(Shape::new(DType::F32, [60, 4]), &values).unwrap();
    let mut queries = matrix(DType::F32, [2, 4], 2).to_f64();
    queries[..4].fill(0.0);
    let queries = Array::from_f64(Shape::new(DType::F32, [2, 4]), &queries).unwrap();
    let searcher = Searcher::new(session, database.clone(), Metric::Cosine, exact(60)).unwrap();
    let found = searcher.search(&queries).unwrap();
    assert_nearest(&found, Metric::Cosine, &queries, &database, "zeros");
    assert!(found.distances.to_f64()[..60].iter().all(|&cosine| cosine == 0.0));
}

#[test]
fn cosines_do_not_depend_on_length() {
    let Some(session) = session() else { return };
    let queries = matrix(DType::F32, [4, 5], 2);
    let database = matrix(DType::F32, [200, 5], 1);
    let of = |scale: f64| {
        let values: Vec<f64> = database.to_f64().iter().map(|value| value * scale).collect();
        let scaled = Array::from_f64(database.shape().clone(), &values).unwrap();
        Searcher::new(session, scaled, Metric::Cosine, exact(3)).unwrap().search(&queries).unwrap()
    };
    assert_eq!(of(1.0), of(1024.0));
    assert_eq!(of(1.0), of(1.0 / 1024.0));
}

#[test]
fn squared_distances_do_not_cancel() {
    let Some(session) = session() else { return };
    // Far from the origin, norms of 1e8 hide distances of 1.
    let values: Vec<f64> = (0..100).flat_map(|row| [10_000.0 + f64::from(row) / 8.0, 10_000.0]).collect();
    let database = Array::from_f64(Shape::new(DType::F32, [100, 2]), &values).unwrap();
    let queries = database.clone();
    let searcher = Searcher::new(session, database.clone(), Metric::L2, exact(100)).unwrap();
    assert_nearest(&searcher.search(&queries).unwrap(), Metric::L2, &queries, &database, "far away");
}

#[test]
fn half_distances_are_given_on_request() {
    let Some(session) = session() else { return };
    let (database, queries) = (matrix(DType::F64, [300, 6], 1), matrix(DType::F64, [4, 6], 2));
    let options = SearchOptions { squared_distances: false, ..exact(5) };
    let searcher = Searcher::new(session, database.clone(), Metric::L2, options).unwrap();
    let half = searcher.search(&queries).unwrap();
    let squared = Searcher::new(session, database, Metric::L2, exact(5)).unwrap().search(&queries).unwrap();
    assert_eq!(half.indices, squared.indices);
    let norms: Vec<f64> = rows(&queries).iter().map(|row| row.iter().map(|x| x * x).sum()).collect();
    for (index, (half, squared)) in half.distances.to_f64().iter().zip(squared.distances.to_f64()).enumerate()
    {
        assert!((2.0 * half + norms[index / 5] - squared).abs() < 1e-12);
    }
}

#[test]
fn equal_rows_are_found_once_each() {
    let Some(session) = session() else { return };
    let database = Array::from_f64(Shape::new(DType::F32, [500, 3]), &vec![0.5; 1500]).unwrap();
    let queries = matrix(DType::F32, [2, 3], 2);
    for metric in Metric::ALL {
        for score_budget in [16 << 20, 2 * 4 * 60] {
            let options = SearchOptions { score_budget: Some(score_budget), ..exact(50) };
            let searcher = Searcher::new(session, database.clone(), metric, options).unwrap();
            let found = searcher.search(&queries).unwrap();
            assert_nearest(&found, metric, &queries, &database, &format!("{metric} of equal rows"));
        }
    }
}

#[test]
fn recall_is_measured_against_the_true_neighbors() {
    let Some(session) = session() else { return };
    let (database, queries) = (matrix(DType::F32, [3000, 8], 1), matrix(DType::F32, [50, 8], 2));
    let recall = |found: &Array, truth: &Array| {
        ann::recall(Metric::L2, &queries, database.clone(), found, truth).unwrap()
    };
    let truth = ann::true_neighbors(Metric::L2, &queries, database.clone(), 10).unwrap().indices;
    let search = |options| {
        let searcher = Searcher::new(session, database.clone(), Metric::L2, options).unwrap();
        searcher.search(&queries).unwrap().indices
    };
    assert_eq!(recall(&search(exact(10)), &truth), 1.0);
    let wider = search(exact(20));
    assert_eq!(recall(&wider, &truth), 1.0);
    assert_eq!(recall(&truth, &wider), 0.5);
    let options = SearchOptions { recall_target: 0.8, form: Some(Form::TwoStage), ..SearchOptions::new(10) };
    let recall = recall(&search(options), &truth);
    assert!((0.7..1.0).contains(&recall), "{recall}");
}

#[test]
fn eight_threads_share_a_searcher() {
    let Some(session) = session() else { return };
    let database = matrix(DType::F32, [2000, 8], 1);
    for metric in Metric::ALL {
        let options = SearchOptions { batch: Some(8), score_budget: Some(8 * 4 * 300), ..exact(5) };
        let searcher = Arc::new(Searcher::new(session, database.clone(), metric, options).unwrap());
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let searcher = Arc::clone(&searcher);
                std::thread::spawn(move || {
                    (0..5)
                        .map(|round| {
                            // Threads meet in the compilation of the same and of other sizes.
                            let queries = matrix(DType::F32, [1 + (thread + round) % 20, 8], thread as u64);
                            let found = searcher.search(&queries).unwrap();
                            (queries, found)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for (queries, found) in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
            assert_nearest(&found, metric, &queries, &database, &format!("{metric} in threads"));
        }
    }
}

#[test]
fn eight_threads_make_searchers_of_one_client() {
    let Some(session) = session() else { return };
    let threads: Vec<_> = (0..8)
        .map(|thread: u64| {
            let session = session.clone();
            std::thread::spawn(move || {
                let metric = Metric::ALL[thread as usize % 3];
                let database = matrix(DType::F32, [300 + thread as usize % 2, 4], thread);
                let queries = matrix(DType::F32, [3, 4], 9);
                let searcher = Searcher::new(&session, database.clone(), metric, exact(3)).unwrap();
                assert_nearest(&searcher.search(&queries).unwrap(), metric, &queries, &database, "a thread");
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn refusal(database: Shape, options: &SearchOptions) -> String {
    let problem = search_function(Metric::L2, &database, 1, options).unwrap_err();
    assert!(matches!(problem, Error::Argument { .. }));
    problem.to_string()
}

#[test]
fn unfit_databases_and_options_are_refused() {
    let f32s = |dims: &[usize]| Shape::new(DType::F32, dims);
    let good = f32s(&[100, 8]);
    for dims in [&[][..], &[100], &[100, 8, 2], &[100, 0]] {
        assert_eq!(
            refusal(f32s(dims), &exact(3)),
            format!("search: database must be a matrix of vectors, got {}", f32s(dims))
        );
    }
    assert_eq!(refusal(f32s(&[0, 8]), &exact(1)), "search: k must be from 1 to the database's 0 rows, got 1");
    assert_eq!(
        refusal(f32s(&[1 << 31, 8]), &exact(1)),
        "search: database must be of at most 2147483647 rows, as indices are s32, got f32[2147483648,8]"
    );
    for k in [0, 101, usize::MAX] {
        assert_eq!(
            refusal(good.clone(), &exact(k)),
            format!("search: k must be from 1 to the database's 100 rows, got {k}")
        );
    }
    assert_eq!(
        refusal(good.clone(), &SearchOptions { batch: Some(0), ..exact(3) }),
        "search: batch must be 1 or more, got 0"
    );
    assert_eq!(
        refusal(good.clone(), &SearchOptions { width_multiple: Some(0), ..exact(3) }),
        "search: width_multiple must be 1 or more, got 0"
    );
    for multiple in [1 << 62, usize::MAX] {
        refusal(good.clone(), &SearchOptions { width_multiple: Some(multiple), ..exact(3) });
    }
    for recall_target in [0.0, -1.0, 1.5, f32::NAN] {
        assert_eq!(
            refusal(good.clone(), &SearchOptions { recall_target, ..exact(3) }),
            format!("search: recall_target must be in (0, 1], got {recall_target}")
        );
    }
    assert_eq!(
        refusal(Shape::new(DType::U8, [100, 8]), &exact(3)),
        "search: database must be of floats, got u8[100,8]"
    );
    // The largest database that has s32 indices is no problem for the graph.
    let options = SearchOptions { score_budget: Some(1 << 20), ..exact(10) };
    search_function(Metric::Cosine, &f32s(&[i32::MAX as usize, 8]), 128, &options).unwrap();
    let Some(session) = session() else { return };
    let problem = Searcher::new(session, matrix(DType::U8, [10, 4], 1), Metric::L2, exact(11)).unwrap_err();
    assert_eq!(problem.to_string(), "search: k must be from 1 to the database's 10 rows, got 11");
}

#[test]
fn unfit_queries_are_refused() {
    let Some(session) = session() else { return };
    let searcher = Searcher::new(session, matrix(DType::F32, [10, 4], 1), Metric::L2, exact(3)).unwrap();
    for dims in [&[][..], &[4], &[2, 3], &[2, 5], &[1, 2, 4], &[0, 3], &[2, 0]] {
        let problem = searcher.search(&Array::zeros(Shape::new(DType::F32, dims)).unwrap()).unwrap_err();
        assert_eq!(
            problem.to_string(),
            format!(
                "search: queries must be a matrix of width 4, as the database of 10 rows, got {}",
                Shape::new(DType::F32, dims)
            )
        );
    }
}

#[test]
fn unfit_operands_of_search_functions_are_refused() {
    let f32s = |dims: &[usize]| Shape::new(DType::F32, dims);
    let options = ApproxTopKOptions::default();
    let of = |shapes: [Shape; 3], metric| {
        let problem = Function::trace("f", &shapes, |x| match metric {
            Metric::InnerProduct => ann::max_inner_product(&x[0], &x[1], 2, &options),
            Metric::L2 => ann::l2(&x[0], &x[1], &x[2], 2, &options),
            Metric::Cosine => ann::cosine(&x[0], &x[1], &x[2], 2, &options),
        })
        .unwrap_err();
        assert!(matches!(problem, Error::Argument { .. }));
        problem.to_string()
    };
    for (metric, name, norms) in [
        (Metric::InnerProduct, "max_inner_product", ""),
        (Metric::L2, "l2", "half_norms"),
        (Metric::Cosine, "cosine", "inverse_norms"),
    ] {
        assert_eq!(
            of([f32s(&[3, 4]), f32s(&[9, 5]), f32s(&[9])], metric),
            format!(
                "{name}: queries must be of width 5 and dtype f32, as the database f32[9,5], got f32[3,4]"
            )
        );
        assert_eq!(
            of([f32s(&[4]), f32s(&[9, 4]), f32s(&[9])], metric),
            format!("{name}: queries must be a matrix of floats, got f32[4]")
        );
        assert_eq!(
            of([f32s(&[3, 4]), f32s(&[2, 9, 4]), f32s(&[9])], metric),
            format!("{name}: database must be a matrix of floats, got f32[2,9,4]")
        );
        if !norms.is_empty() {
            assert_eq!(
                of([f32s(&[3, 4]), f32s(&[9, 4]), f32s(&[8])], metric),
                format!("{name}: {norms} must be f32[9], got f32[8]")
            );
        }
    }
    assert_eq!(
        of([f32s(&[3, 4]), Shape::new(DType::F64, [9, 4]), f32s(&[9])], Metric::L2),
        "l2: queries must be of width 4 and dtype f64, as the database f64[9,4], got f32[3,4]"
    );
    let half = Function::trace("f", &[f32s(&[3])], |x| ann::half_norms(&x[0])).unwrap_err();
    assert_eq!(half.to_string(), "half_norms: database must be a matrix of floats, got f32[3]");
    let inverse = Function::trace("f", &[f32s(&[3])], |x| ann::inverse_norms(&x[0])).unwrap_err();
    assert_eq!(inverse.to_string(), "inverse_norms: database must be a matrix of floats, got f32[3]");
    let squared = |indices: Shape| {
        Function::trace("f", &[f32s(&[3, 4]), f32s(&[9, 4]), indices], |x| {
            ann::squared_distances(&x[0], &x[1], &x[2])
        })
        .unwrap_err()
        .to_string()
    };
    for indices in [Shape::new(DType::S32, [2, 5]), Shape::new(DType::S32, [3]), f32s(&[3, 5])] {
        assert_eq!(
            squared(indices.clone()),
            format!("squared_distances: indices must be s32 of dimensions [3, k], got {indices}")
        );
    }
}

#[test]
fn rows_beyond_what_is_proven_are_found() {
    let Some(session) = session() else { return };
    let mut values = matrix(DType::F32, [1000, 8], 1).to_f64();
    values[17 * 8..18 * 8].fill(2e30);
    values[18 * 8..19 * 8].fill(3e30);
    let database = Array::from_f64(Shape::new(DType::F32, [1000, 8]), &values).unwrap();
    let query = Array::new([1, 8], &[2.02e30f32; 8]).unwrap();
    for form in [None, Some(Form::Sort), Some(Form::Blocks)] {
        for precision in [Precision::Exact, Precision::Auto] {
            let options = SearchOptions { form, precision, ..exact(1) };
            let searcher = Searcher::new(session, database.clone(), Metric::L2, options).unwrap();
            assert_eq!(searcher.search(&query).unwrap().indices.to_vec::<i32>().unwrap(), [17], "{form:?}");
        }
    }
    for precision in [Precision::Bf16, Precision::Int8] {
        let options = SearchOptions { precision, ..SearchOptions::new(1) };
        let searcher = Searcher::new(session, database.clone(), Metric::L2, options).unwrap();
        assert_eq!(searcher.search(&query).unwrap().indices.to_vec::<i32>().unwrap(), [17], "{precision}");
    }
}

#[test]
fn numbers_of_any_size_have_the_neighbours_of_ordinary_ones() {
    let Some(session) = session() else { return };
    let database = matrix(DType::F64, [500, 8], 1);
    let queries = matrix(DType::F64, [6, 8], 2);
    let scaled = |array: &Array, exponent: i32| {
        let values: Vec<f64> = array.to_f64().iter().map(|x| x * 2f64.powi(exponent)).collect();
        Array::from_f64(array.shape().clone(), &values).unwrap()
    };
    for metric in Metric::ALL {
        for form in [None, Some(Form::Sort)] {
            let found = |rows: i32, asked: i32| {
                let options = SearchOptions { form, ..exact(5) };
                let searcher = Searcher::new(session, scaled(&database, rows), metric, options).unwrap();
                searcher.search(&scaled(&queries, asked)).unwrap().indices
            };
            for exponent in [-700, -450, 450, 700] {
                assert_eq!(found(exponent, exponent), found(0, 0), "{metric} {form:?} 2^{exponent}");
            }
        }
    }
    // One large row does not make small ones zeros.
    let mut values: Vec<f64> = matrix(DType::F32, [500, 8], 1).to_f64().iter().map(|x| x * 1e-25).collect();
    values[..8].fill(-1e13);
    let database = Array::from_f64(Shape::new(DType::F32, [500, 8]), &values).unwrap();
    let queries = Array::from_f64(Shape::new(DType::F32, [1, 8]), &[1e-9; 8]).unwrap();
    let searcher = Searcher::new(session, database.clone(), Metric::InnerProduct, exact(3)).unwrap();
    let found = searcher.search(&queries).unwrap();
    let truth = ann::true_neighbors(Metric::InnerProduct, &queries, database, 3).unwrap();
    assert_eq!(found.indices, truth.indices);
}

#[test]
fn integers_that_the_scores_do_not_hold_are_refused() {
    let Some(session) = session() else { return };
    let database = matrix(DType::U8, [20, 2], 1);
    let searcher = Searcher::new(session, database, Metric::InnerProduct, exact(1)).unwrap();
    let problem =
        searcher.search(&Array::new([1, 2], &[(1 << 30) + 60, 1]).unwrap()).unwrap_err().to_string();
    assert_eq!(
        problem,
        "search: queries must be of integers that f32 holds, as the database is searched in f32 (or of floats), got \
         others in row 0"
    );
    let database = Array::new([2, 1], &[(1i64 << 60) + 1, 3]).unwrap();
    let problem = Searcher::new(session, database, Metric::L2, exact(1)).unwrap_err().to_string();
    assert!(problem.contains("database must be of integers below 2^53, which f64 holds, got "), "{problem}");
}
