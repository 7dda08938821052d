//! Search of a database over several devices: on 4 devices of the CPU, and on the host.

use crate::nearest::{assert_nearest, distance, exact, matrix, rows, searched};
use crate::runner::{self, devices};
use xlann::ann::{
    self, Aggregation, Metric, Neighbors, SearchOptions, Searcher, prepared_function, search_function,
    sharded_search_function,
};
use xlann::lower::Form;
use xlann::target::Target;
use xlann::{Array, DType, Error, PjrtCode, Shape, data, lower};

const AGGREGATIONS: [Aggregation; 2] = [Aggregation::Devices, Aggregation::Host];

#[test]
fn an_exact_search_finds_what_one_device_finds() {
    let Some(session) = devices() else { return };
    // In f64, whose rounding orders no two of the distances otherwise.
    let queries = matrix(DType::F64, [5, 12], 2);
    // Rows that the devices share evenly and not, and shares of fewer rows than neighbours.
    for (size, k, counts) in [
        (700, 10, 4..=4),
        (703, 10, 2..=4),
        (703, 200, 4..=4),
        (703, 703, 3..=4),
        (7, 3, 4..=4),
        (7, 7, 2..=4),
        (4, 1, 4..=4),
        (4, 4, 4..=4),
    ] {
        let database = matrix(DType::F64, [size, 12], size as u64);
        for metric in Metric::ALL {
            let one = Searcher::new(session, database.clone(), metric, exact(k)).unwrap();
            let expected = one.search(&queries).unwrap();
            for (devices, aggregation) in counts.clone().flat_map(|count| AGGREGATIONS.map(|a| (count, a))) {
                let options = SearchOptions { aggregation, ..exact(k) };
                let searcher = Searcher::over(session, devices, database.clone(), metric, options).unwrap();
                assert_eq!(searcher.devices(), devices);
                assert_eq!(searcher.database_shape(), database.shape());
                let found = searcher.search(&queries).unwrap();
                let context = format!("{metric} of {size} rows over {devices}, k={k}, {aggregation:?}");
                assert_eq!(found.indices, expected.indices, "{context}");
                assert_nearest(&found, metric, &queries, &database, &context);
            }
        }
    }
}

#[test]
fn every_dtype_is_searched() {
    let Some(session) = devices() else { return };
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16, DType::U8] {
        let (database, queries) = (matrix(dtype, [303, 7], 1), matrix(dtype, [5, 7], 2));
        for metric in Metric::ALL {
            for aggregation in AGGREGATIONS {
                let options = SearchOptions { aggregation, ..exact(10) };
                let searcher = Searcher::over(session, 4, database.clone(), metric, options).unwrap();
                let found = searcher.search(&queries).unwrap();
                let (searched, scored) = searched(session, dtype);
                assert_eq!(searcher.database_shape(), &Shape::new(searched, [303, 7]));
                assert_eq!(found.distances.shape().dtype(), scored);
                assert_nearest(&found, metric, &queries, &database, &format!("{metric} of {dtype}"));
            }
        }
    }
}

#[test]
fn blocks_and_half_distances_are_aggregated() {
    let Some(session) = devices() else { return };
    let (database, queries) = (matrix(DType::F32, [1003, 6], 1), matrix(DType::F32, [4, 6], 3));
    for metric in Metric::ALL {
        for aggregation in AGGREGATIONS {
            for k in [1, 20, 260] {
                let options = SearchOptions {
                    score_budget: Some(16 * 30),
                    width_multiple: Some(8),
                    batch: Some(4),
                    aggregation,
                    ..exact(k)
                };
                let searcher = Searcher::over(session, 4, database.clone(), metric, options.clone()).unwrap();
                let found = searcher.search(&queries).unwrap();
                assert_nearest(&found, metric, &queries, &database, &format!("{metric} {k} {aggregation:?}"));
                let options = SearchOptions { squared_distances: false, width_multiple: None, ..options };
                let searcher = Searcher::over(session, 4, database.clone(), metric, options).unwrap();
                let halves = searcher.search(&queries).unwrap();
                assert_eq!(halves.indices, found.indices, "{metric} {k} {aggregation:?}");
            }
        }
    }
}

/// The share of the true neighbours that is found over 4 devices, with the form and a recall target of 0.9.
fn recall(
    database: &Array,
    queries: &Array,
    metric: Metric,
    form: Option<Form>,
    options: &SearchOptions,
) -> f64 {
    let session = devices().unwrap();
    let k = options.k;
    let truth = ann::true_neighbors(metric, queries, database.clone(), k).unwrap();
    let options = SearchOptions { form, recall_target: 0.9, ..options.clone() };
    let found =
        Searcher::over(session, 4, database.clone(), metric, options).unwrap().search(queries).unwrap();
    ann::recall(metric, queries, database.clone(), &found.indices, &truth.indices).unwrap()
}

#[test]
fn the_recall_target_holds_globally() {
    if devices().is_none() {
        return;
    }
    let (database, queries) = (matrix(DType::F32, [20_003, 8], 1), matrix(DType::F32, [64, 8], 2));
    for metric in Metric::ALL {
        for form in [None, Some(Form::TwoStage)] {
            for aggregation in AGGREGATIONS {
                let options = SearchOptions { aggregation, ..SearchOptions::new(100) };
                let recall = recall(&database, &queries, metric, form, &options);
                assert!(recall >= 0.9, "{recall}: {metric}, {form:?}, {aggregation:?}");
                // It is planned for, not overshot: fewer buckets than an exact search would take.
                assert!(form.is_none() || recall < 0.97, "{recall}: {metric}, {form:?}, {aggregation:?}");
            }
        }
    }
}

#[test]
fn the_recall_target_holds_where_neighbours_are_stored_next_to_each_other() {
    if devices().is_none() {
        return;
    }
    let (database, around) = (matrix(DType::F32, [20_003, 8], 1), matrix(DType::F32, [1, 8], 2));
    // All queries are close to one, by whose distance the database is sorted.
    let noise = matrix(DType::F32, [64, 8], 3).to_f64();
    let close: Vec<f64> =
        noise.iter().enumerate().map(|(i, noise)| around.to_f64()[i % 8] + 0.02 * noise).collect();
    let queries = Array::from_f64(Shape::new(DType::F32, [64, 8]), &close).unwrap();
    for metric in Metric::ALL {
        let center = around.to_f64();
        let mut sorted = rows(&database);
        sorted.sort_by(|a, b| distance(metric, &center, a).total_cmp(&distance(metric, &center, b)));
        for backwards in [false, true] {
            if backwards {
                sorted.reverse();
            }
            let database = Array::from_f64(database.shape().clone(), &sorted.concat()).unwrap();
            for form in [None, Some(Form::TwoStage)] {
                // At once, and in blocks of 1,000 rows.
                for score_budget in [16 << 20, 64 * 4 * 1000] {
                    let options =
                        SearchOptions { score_budget: Some(score_budget), ..SearchOptions::new(100) };
                    let recall = recall(&database, &queries, metric, form, &options);
                    let context =
                        format!("{metric}, {form:?}, budget {score_budget}, backwards: {backwards}");
                    assert!(recall >= 0.9, "{recall}: {context}");
                }
            }
        }
    }
}

#[test]
fn rows_with_nan_come_last_and_none_comes_twice() {
    let Some(session) = devices() else { return };
    let mut values = matrix(DType::F32, [41, 3], 1).to_f64();
    let is_nan = |row: usize| row % 3 == 1;
    (0..41).filter(|&row| is_nan(row)).for_each(|row| values[row * 3] = f64::NAN);
    let database = Array::from_f64(Shape::new(DType::F32, [41, 3]), &values).unwrap();
    let queries = matrix(DType::F32, [2, 3], 2);
    for metric in Metric::ALL {
        for aggregation in AGGREGATIONS {
            // 27 rows are without a NaN.
            for k in [5, 27, 30, 41] {
                let options = SearchOptions { aggregation, ..exact(k) };
                let searcher = Searcher::over(session, 4, database.clone(), metric, options).unwrap();
                let found = searcher.search(&queries).unwrap();
                let (distances, indices) = (found.distances.to_f64(), found.indices.to_vec::<i32>().unwrap());
                let context = format!("{metric} {k} {aggregation:?}: {distances:?} at {indices:?}");
                for (place, (distance, &index)) in distances.iter().zip(&indices).enumerate() {
                    assert_eq!(distance.is_nan(), place % k >= 27, "{context}");
                    assert_eq!(index == -1, place % k >= 27, "{context}");
                    assert!(index == -1 || !is_nan(index as usize), "{context}");
                }
                for row in indices.chunks(k) {
                    let distinct: std::collections::HashSet<_> = row[..k.min(27)].iter().collect();
                    assert!(
                        distinct.len() == k.min(27) && distinct.iter().all(|index| (0..41).contains(*index)),
                        "{context}"
                    );
                }
            }
        }
    }
}

#[test]
fn threads_search_over_the_same_devices_at_once() {
    let Some(session) = devices() else { return };
    let database = matrix(DType::F32, [2001, 16], 1);
    let searchers = Metric::ALL.map(|metric| {
        let options = SearchOptions { batch: Some(8), ..exact(5) };
        Searcher::over(session, 4, database.clone(), metric, options).unwrap()
    });
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (searchers, database) = (&searchers, &database);
            scope.spawn(move || {
                for round in 0..20 {
                    let searcher = &searchers[(thread + round) % 3];
                    let queries = matrix(DType::F32, [11, 16], (thread * 20 + round) as u64);
                    let found = searcher.search(&queries).unwrap();
                    assert_nearest(&found, searcher.metric(), &queries, database, "one of 8 threads");
                }
            });
        }
    });
}

/// The rows of a database of each of `devices` replicas, and the rest.
fn dealt(database: &Array, devices: usize) -> Vec<Vec<Array>> {
    let (values, [size, width]) = (rows(database), [database.shape().dims()[0], database.shape().dims()[1]]);
    let of = |rows: Vec<&Vec<f64>>| {
        let values: Vec<f64> = rows.iter().flat_map(|row| row.iter().copied()).collect();
        Array::from_f64(database.shape().with_dims([rows.len(), width]), &values).unwrap()
    };
    let share = size / devices;
    (0..devices)
        .map(|device| {
            let mut parts = vec![of((0..share).map(|row| &values[row * devices + device]).collect())];
            if size % devices > 0 {
                parts.push(of(values[share * devices..].iter().collect()));
            }
            parts
        })
        .collect()
}

#[test]
fn functions_of_replicas_find_the_nearest_on_every_backend() {
    for dtype in [DType::F32, DType::BF16] {
        for (size, k) in [(103, 6), (100, 6), (9, 5)] {
            let (queries, database) = (matrix(DType::F32, [3, 7], 1), matrix(dtype, [size, 7], 2));
            for metric in Metric::ALL {
                for aggregation in AGGREGATIONS {
                    let options = SearchOptions { aggregation, ..exact(k) };
                    let function = sharded_search_function(metric, database.shape(), 3, 4, &options).unwrap();
                    let arguments: Vec<Vec<Array>> = dealt(&database, 4)
                        .into_iter()
                        .map(|mut parts| {
                            let prepared = prepared_function(metric, parts[0].shape(), &options).unwrap();
                            if let Some(prepared) = prepared {
                                parts.splice(1..1, prepared.eval(&parts[..1]).unwrap());
                            }
                            parts.insert(0, queries.clone());
                            parts
                        })
                        .collect();
                    let results = runner::run_replicas(&function, &arguments);
                    let context = format!("{metric} of {dtype}[{size},7] {aggregation:?}");
                    let found = |results: &[Array]| Neighbors {
                        distances: results[0].clone(),
                        indices: results[1].clone(),
                    };
                    if aggregation == Aggregation::Devices {
                        assert!(results.iter().all(|of_replica| *of_replica == results[0]), "{context}");
                        assert_nearest(&found(&results[0]), metric, &queries, &database, &context);
                    } else {
                        let columns = k.min(size / 4) + size % 4;
                        for results in &results {
                            assert_eq!(results[1].shape().dims(), [3, columns], "{context}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_billion_vectors_are_searched_on_a_pod() {
    let target = Target::parse("tpu:v5e:16x16").unwrap();
    let Some(compiler) = runner::common::compiler(&target) else { return };
    let database = Shape::new(DType::BF16, [1_000_000_000, 128]);
    let function =
        sharded_search_function(Metric::InnerProduct, &database, 1024, 256, &SearchOptions::new(10)).unwrap();
    assert_eq!(function.parameter_shapes()[1], database.with_dims([3_906_250, 128]));
    let (compiled, _) = compiler.compile(&function, &lower::Options::default(), 256).unwrap();
    let memory = compiled.memory().unwrap();
    // The share of a chip is 10^9 bytes, of which there is no copy, as it is or in f32.
    assert!((1_000_000_000..1_010_000_000).contains(&memory.arguments), "{memory:?}");
    assert!(memory.temporaries < 1_000_000_000, "{memory:?}");
    let refused = compiler.compile(&function, &lower::Options::default(), 128).unwrap_err().to_string();
    assert_eq!(refused, "function search: replicas must be 256, as in its replica_id, got 128");
}

#[test]
fn halves_are_compared_in_f32() {
    // Their sums differ by less than a bf16 tells apart.
    let database =
        Array::from_f64(Shape::new(DType::BF16, [3, 2]), &[256.0, 1.0, 256.0, 2.0, 256.0, 0.0]).unwrap();
    let query = Array::new([1, 2], &[1f32, 1.0]).unwrap();
    let f = search_function(Metric::InnerProduct, database.shape(), 1, &exact(3)).unwrap();
    let results = runner::run(&f, &[query, database]);
    assert_eq!(results[0], Array::new([1, 3], &[258f32, 257.0, 256.0]).unwrap());
    assert_eq!(results[1], Array::new([1, 3], &[1, 0, 2]).unwrap());
}

#[test]
fn devices_that_there_are_not_are_refused() {
    let Some(session) = devices() else { return };
    let database = matrix(DType::F32, [6, 3], 1);
    for metric in Metric::ALL {
        for (count, problem) in [
            (0, "search: devices must be from 1 to the database's 6 rows, got 0"),
            (5, "search: devices must be at most 4, as many as the session has, got 5"),
            (7, "search: devices must be from 1 to the database's 6 rows, got 7"),
        ] {
            let refused = Searcher::over(session, count, database.clone(), metric, exact(2));
            assert_eq!(refused.unwrap_err().to_string(), problem);
            let function = sharded_search_function(metric, database.shape(), 1, count, &exact(2));
            assert_eq!(function.is_ok(), count == 5);
        }
        let refused = Searcher::over(session, 2, database.clone(), metric, exact(7)).unwrap_err().to_string();
        assert_eq!(refused, "search: k must be from 1 to the database's 6 rows, got 7");
    }
}

#[test]
fn a_database_that_does_not_fit_is_refused_before_it_is_uploaded() {
    let Some(session) = devices() else { return };
    let folder = tempfile::tempdir().unwrap();
    // A file of 6 TB, of which nothing is stored.
    for (descr, width) in [("<f4", 1000), ("<f2", 2000)] {
        let path = folder.path().join("database.npy");
        let rows = 1_500_000_000usize;
        let mut header =
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
        header += &" ".repeat(128 - 10 - 1 - header.len());
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend_from_slice(&(header.len() as u16 + 1).to_le_bytes());
        bytes.extend_from_slice(header.as_bytes());
        bytes.push(b'\n');
        std::fs::write(&path, &bytes).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(128 + 6_000_000_000_000).unwrap();
        for metric in Metric::ALL {
            for devices in [1, 3, 4] {
                let database = data::open(&path).unwrap();
                let refused = Searcher::over(session, devices, database, metric, exact(2)).unwrap_err();
                let text = refused.to_string();
                assert!(
                    matches!(
                        refused,
                        Error::Pjrt {
                            call: "PJRT_Client_BufferFromHostBuffer",
                            code: PjrtCode::ResourceExhausted,
                            ..
                        }
                    ),
                    "{text}"
                );
                assert!(text.contains(&format!("[{rows},{width}] needs ")), "{text}");
            }
        }
    }
}
