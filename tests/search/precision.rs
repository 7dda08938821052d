//! Searches by scores of fewer digits, whose recall is proven.

use std::num::NonZeroUsize;

use crate::nearest::{self, best, rows};
use crate::runner::{random, session};
use xlann::ann::{Metric, Neighbors, SearchOptions, Searcher, prepared_function, search_function_for};
use xlann::lower::{self, Form, Precision};
use xlann::target::{cpu, tpu};
use xlann::{ApproxTopKOptions, Array, CustomCall, DType, Function, Shape, Tensor, kernels, vmap};

const METRICS: [Metric; 2] = [Metric::InnerProduct, Metric::L2];

/// Sums of a few numbers in -1..1: nearly normally distributed.
fn normal(dims: [usize; 2], seed: u64) -> Vec<f64> {
    let parts = random(Shape::new(DType::F64, [dims[0] * dims[1], 6]), seed).to_f64();
    parts.chunks(6).map(|parts| parts.iter().sum()).collect()
}

fn f32s(dims: [usize; 2], values: &[f64]) -> Array {
    Array::from_f64(Shape::new(DType::F32, dims), values).unwrap()
}

/// Databases of 3000 rows of 20, and what is awkward about them for few digits.
fn databases() -> Vec<(&'static str, Array)> {
    let dims = [3000, 20];
    let noise = normal(dims, 1);
    let of = |value: &dyn Fn(usize, usize) -> f64| {
        let values: Vec<f64> = (0..dims[0] * dims[1]).map(|i| value(i / dims[1], i % dims[1])).collect();
        f32s(dims, &values)
    };
    let at = |row: usize, column: usize| noise[row * dims[1] + column];
    vec![
        ("random", of(&at)),
        ("random around a point far away", of(&|row, column| 1000.0 + at(row, column))),
        ("one huge column", of(&|row, column| at(row, column) * if column == 3 { 1e6 } else { 1.0 })),
        ("of sizes from 1e-4 to 1e4", of(&|row, column| at(row, column) * 10f64.powi(row as i32 % 9 - 4))),
        ("nearly equal rows side by side", of(&|row, column| at(row / 100, column) + 1e-5 * at(row, column))),
        ("tiny", of(&|row, column| 1e-30 * at(row, column))),
        ("zeros, but for some rows", of(&|row, column| if row % 50 == 0 { at(row, column) } else { 0.0 })),
    ]
}

/// The share of all queries' distances that are no worse than the true k-th, but for the rounding of f32.
fn mean_recall(found: &Neighbors, metric: Metric, queries: &Array, database: &Array) -> f64 {
    let k = found.indices.shape().dims()[1];
    let best = best(metric, queries, database, k);
    let indices = found.indices.to_vec::<i32>().unwrap();
    let (queries, database) = (rows(queries), rows(database));
    let recalls: Vec<f64> = queries
        .iter()
        .zip(&best)
        .zip(indices.chunks(k))
        .map(|((query, best), indices)| {
            let kth = best[k - 1];
            let norm = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
            let hits = indices.iter().filter(|&&index| {
                let row = &database[index as usize];
                let distance = nearest::distance(metric, query, row);
                match metric {
                    Metric::L2 => distance <= kth + 1e-6 * (norm(query).powi(2) + norm(row).powi(2)),
                    _ => distance >= kth - 1e-6 * norm(query) * norm(row),
                }
            });
            hits.count() as f64 / k as f64
        })
        .collect();
    recalls.iter().sum::<f64>() / recalls.len() as f64
}

/// Requires that distances are those of the vectors as they are, but for the rounding of f32.
fn check_distances(found: &Neighbors, metric: Metric, queries: &Array, database: &Array, context: &str) {
    let (queries, database) = (rows(queries), rows(database));
    let k = found.indices.shape().dims()[1];
    let indices = found.indices.to_vec::<i32>().unwrap();
    for (place, (&index, distance)) in indices.iter().zip(found.distances.to_f64()).enumerate() {
        let (query, row) = (&queries[place / k], &database[index as usize]);
        let absolute: f64 = query.iter().zip(row).map(|(a, b)| (a * b).abs()).sum();
        let expected = nearest::distance(metric, query, row);
        let scale = if metric == Metric::L2 { expected } else { absolute };
        assert!((distance - expected).abs() <= 1e-6 * scale, "{context}: {distance}, not {expected}");
    }
}

#[test]
fn the_recall_target_holds_for_any_data() {
    let Some(session) = session() else { return };
    let queries = f32s([33, 20], &normal([33, 20], 2));
    for (name, database) in databases() {
        for metric in METRICS {
            for precision in [Precision::Auto, Precision::Bf16, Precision::Int8] {
                for (k, recall_target) in [(10, 0.95), (1, 0.5), (100, 0.8), (10, 1.0)] {
                    let options = SearchOptions { precision, recall_target, ..SearchOptions::new(k) };
                    let searcher = Searcher::new(session, database.clone(), metric, options).unwrap();
                    let found = searcher.search(&queries).unwrap();
                    let recall = mean_recall(&found, metric, &queries, &database);
                    let context = format!("{name}, {metric}, {precision}, k {k}: {recall}");
                    assert!(recall >= f64::from(recall_target), "{context}");
                    check_distances(&found, metric, &queries, &database, &context);
                }
            }
        }
    }
}

#[test]
fn what_rounding_loses_is_known_on_the_device() {
    let Some(session) = session() else { return };
    for (name, database) in databases() {
        for precision in [Precision::Bf16, Precision::Int8] {
            let options = SearchOptions { precision, ..SearchOptions::new(10) };
            let prepared =
                prepared_function(Metric::InnerProduct, database.shape(), &options).unwrap().unwrap();
            let prepared =
                session.compile(&prepared).unwrap().run_arrays(std::slice::from_ref(&database)).unwrap();
            let (numbers, errors) = (rows(&prepared[0]), prepared.last().unwrap().to_f64());
            let scales =
                if precision == Precision::Int8 { prepared[1].to_f64() } else { vec![1.0; numbers.len()] };
            let (mut lost, mut left) = (0f64, 0f64);
            for ((row, numbers), scale) in rows(&database).iter().zip(&numbers).zip(scales) {
                let norm =
                    |of: &dyn Fn(usize) -> f64| (0..row.len()).map(|i| of(i).powi(2)).sum::<f64>().sqrt();
                lost = lost.max(norm(&|i| row[i] - numbers[i] * scale));
                left = left.max(norm(&|i| numbers[i] * scale));
            }
            let context = format!("{name} in {precision}: {errors:?}, not {lost} and {left}");
            assert!(lost > 0.0, "{context}");
            assert!((errors[0] - lost).abs() < 1e-4 * lost + 1e-6 * left, "{context}");
            assert!((errors[1] - left).abs() < 1e-5 * left, "{context}");
        }
    }
}

#[test]
fn a_vector_of_the_greatest_numbers_is_found() {
    let Some(session) = session() else { return };
    let mut values = normal([3000, 20], 1);
    values[7 * 20..8 * 20].fill(1e38);
    let database = f32s([3000, 20], &values);
    let small: Vec<f64> = normal([300, 20], 2).iter().map(|x| 1e-3 * x).collect();
    let queries = f32s([300, 20], &small);
    let shapes = [queries.shape().clone(), database.shape().clone()];
    let program = Function::trace("search", &shapes, search).unwrap();
    for precision in [Precision::Bf16, Precision::Int8] {
        let options = SearchOptions { precision, ..SearchOptions::new(10) };
        let searcher = Searcher::new(session, database.clone(), Metric::InnerProduct, options).unwrap();
        let found = searcher.search(&queries).unwrap();
        let recall = mean_recall(&found, Metric::InnerProduct, &queries, &database);
        assert!(recall >= 0.95, "{precision}: {recall}");
        let options = lower::Options { precision, ..Default::default() };
        let (program, _) = session.compile_with(&program, &options).unwrap();
        let results = program.run_arrays(&[queries.clone(), database.clone()]).unwrap();
        let found = Neighbors { distances: results[0].clone(), indices: results[1].clone() };
        let recall = mean_recall(&found, Metric::InnerProduct, &queries, &database);
        assert!(recall >= 0.95, "{precision} in the program: {recall}");
    }
}

#[test]
fn lower_precisions_are_taken_where_they_pay() {
    let reason = |rows: usize, k: usize, recall_target: f32, precision| {
        let shapes = [Shape::new(DType::F32, [512, 128]), Shape::new(DType::F32, [rows, 128])];
        let options = ApproxTopKOptions { recall_target, ..ApproxTopKOptions::default() };
        let f = Function::trace("search", &shapes, |x| {
            x[0].dot_general(&x[1], (&[1], &[1]), (&[], &[]))?.approx_max_k(k, &options)
        });
        let options = lower::Options { precision, ..Default::default() };
        lower::explain(&f.unwrap(), &cpu::CAPABILITIES, &options).unwrap()[0].reason.clone()
    };
    let exact = "exact, as a lower precision would not pay";
    // As many candidates as a target of 1 takes: 66, and 432.
    assert!(reason(2000, 10, 0.95, Precision::Auto).contains(exact));
    assert!(reason(10_000, 100, 0.95, Precision::Auto).contains(exact));
    assert!(reason(100_000, 100, 1.0, Precision::Auto).contains(exact));
    // More where queries are rounded to fewer steps.
    let few_steps = matches!(kernels::instruction_set(DType::S8), Some("avx2" | "avx512"));
    let of_int8 = |most, fewest| format!("in int8; {} candidates", if few_steps { most } else { fewest });
    assert!(reason(10_000, 100, 0.95, Precision::Int8).contains(&of_int8(352, 316)));
    assert!(reason(10_000, 100, 0.8, Precision::Int8).contains(&of_int8(265, 241)));
    // All of them.
    assert!(reason(300, 100, 0.95, Precision::Int8).contains(exact));
    // However small, as MLIR takes it.
    let shapes = [Shape::new(DType::F32, [4, 20]), Shape::new(DType::F32, [500, 20])];
    let options = ApproxTopKOptions { recall_target: 1e-6, ..ApproxTopKOptions::default() };
    let f = Function::trace("search", &shapes, |x| {
        x[0].dot_general(&x[1], (&[1], &[1]), (&[], &[]))?.approx_max_k(5, &options)
    });
    let options = lower::Options { precision: Precision::Int8, ..Default::default() };
    let lowered = lower::lower(&f.unwrap(), &cpu::CAPABILITIES, &options).unwrap().function.to_string();
    assert!(lowered.contains("certified_recall = 0.000001 : f64"), "{lowered}");
}

#[test]
fn what_fills_up_a_batch_is_no_part_of_its_recall() {
    let Some(session) = session() else { return };
    // Of (1, 0) all neighbours are proven, of (0, 1) none is, and none found at first.
    let rows = |i: usize| [if i < 10 { 1000.0 } else { -1000.0 }, 1e-3 * i as f64];
    let database = f32s([2000, 2], &(0..2000).flat_map(rows).collect::<Vec<_>>());
    for (recall_target, first, others) in [(0.5, 1, 8), (0.95, 16, 1), (0.5, 8, 8)] {
        let queries = [[1.0, 0.0].repeat(first), [0.0, 1.0].repeat(others)].concat();
        let queries = f32s([first + others, 2], &queries);
        let options = SearchOptions { precision: Precision::Int8, recall_target, ..SearchOptions::new(10) };
        let searcher = Searcher::new(session, database.clone(), Metric::InnerProduct, options).unwrap();
        let recall =
            mean_recall(&searcher.search(&queries).unwrap(), Metric::InnerProduct, &queries, &database);
        assert!(recall >= f64::from(recall_target), "{recall_target}: {recall}");
        // Where nothing fills it up, no more is found than has to be.
        assert!(recall == 0.5 || first != others, "{recall}");
    }
}

#[test]
fn parts_of_a_database_share_what_may_be_missed() {
    let recall = |rows: usize, whole: usize| {
        let shapes = [Shape::new(DType::F32, [300, 20]), Shape::new(DType::F32, [rows, 20])];
        let options = ApproxTopKOptions {
            recall_target: 0.75,
            reduction_input_size_override: Some(whole),
            ..ApproxTopKOptions::default()
        };
        let f = Function::trace("search", &shapes, |x| {
            x[0].dot_general(&x[1], (&[1], &[1]), (&[], &[]))?.approx_max_k(5, &options)
        });
        let options = lower::Options { precision: Precision::Int8, ..Default::default() };
        lower::lower(&f.unwrap(), &cpu::CAPABILITIES, &options).unwrap().function.to_string()
    };
    assert!(recall(2000, 2000).contains("certified_recall = 0.75 : f64"));
    assert!(recall(2000, 8000).contains("certified_recall = 0.9375 : f64"));
}

#[test]
fn neighbours_that_are_all_on_one_device_have_the_recall_of_all() {
    let Ok(session) = cpu::PLATFORM.session_with_devices(4) else { return };
    let part = normal([1000, 20], 3);
    let far: Vec<f64> = part.iter().map(|x| 1e-3 * x).collect();
    let database = f32s([4000, 20], &[&part[..], &far, &far, &far].concat());
    let queries = f32s([40, 20], &normal([40, 20], 2));
    let options = SearchOptions { precision: Precision::Int8, recall_target: 0.75, ..SearchOptions::new(10) };
    let searcher = Searcher::over(&session, 4, database.clone(), Metric::InnerProduct, options).unwrap();
    let found = searcher.search(&queries).unwrap();
    assert!(mean_recall(&found, Metric::InnerProduct, &queries, &database) >= 0.75);
}

#[test]
fn databases_over_devices_are_searched_at_any_precision() {
    let Ok(session) = cpu::PLATFORM.session_with_devices(3) else { return };
    let (queries, database) = (f32s([5, 20], &normal([5, 20], 2)), f32s([1000, 20], &normal([1000, 20], 3)));
    for metric in METRICS {
        let options = SearchOptions { precision: Precision::Int8, ..SearchOptions::new(10) };
        let searcher = Searcher::over(&session, 3, database.clone(), metric, options).unwrap();
        let found = searcher.search(&queries).unwrap();
        assert!(mean_recall(&found, metric, &queries, &database) >= 0.95, "{metric}");
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    let Some(session) = session() else { return };
    let (queries, database) =
        (f32s([40, 20], &normal([40, 20], 2)), f32s([9000, 20], &normal([9000, 20], 3)));
    for precision in [Precision::Exact, Precision::Int8] {
        let found = [None, NonZeroUsize::new(1), NonZeroUsize::new(2)].map(|threads| {
            let options = SearchOptions { precision, threads, ..SearchOptions::new(10) };
            let searcher = Searcher::new(session, database.clone(), Metric::L2, options).unwrap();
            searcher.search(&queries).unwrap()
        });
        assert_eq!(found[0], found[1]);
        assert_eq!(found[0], found[2]);
    }
    let threads = NonZeroUsize::new(3);
    let f = Function::trace("top", &[Shape::new(DType::F32, [2, 50])], |x| {
        x[0].approx_max_k(5, &ApproxTopKOptions::default())
    });
    let options = lower::Options { threads, ..Default::default() };
    let lowered = lower::lower(&f.unwrap(), &cpu::CAPABILITIES, &options).unwrap();
    assert!(lowered.function.to_string().contains("threads = 3 : i64"), "{}", lowered.function);
}

fn search(x: &[Tensor]) -> xlann::Result<(Tensor, Tensor)> {
    let products = x[0].dot_general(&x[1], (&[1], &[1]), (&[], &[]))?;
    products.approx_max_k(10, &ApproxTopKOptions::default())
}

#[test]
fn programs_round_their_databases_where_they_are_told_to() {
    let shapes = [Shape::new(DType::F32, [300, 20]), Shape::new(DType::F32, [2000, 20])];
    let f = Function::trace("search", &shapes, search).unwrap();
    let reason = |f: &Function, precision| {
        let options = lower::Options { precision, ..Default::default() };
        lower::explain(f, &cpu::CAPABILITIES, &options).unwrap()[0].to_string()
    };
    assert!(reason(&f, Precision::Exact).contains("exact"));
    let few_steps = matches!(kernels::instruction_set(DType::S8), Some("avx2" | "avx512"));
    let candidates = if few_steps { 34 } else { 30 };
    let expected = format!("in int8; {candidates} candidates scored anew, for a proven recall of 0.95");
    assert!(reason(&f, Precision::Int8).contains(&expected));
    assert!(reason(&f, Precision::Bf16).contains("in bf16; 19 candidates"));
    // Few queries are not worth it, and exact is exact.
    let few = [Shape::new(DType::F32, [8, 20]), shapes[1].clone()];
    assert!(reason(&Function::trace("search", &few, search).unwrap(), Precision::Auto).contains("exact"));
    let halves = shapes.clone().map(|shape| shape.with_dtype(DType::BF16));
    let halves = Function::trace("search", &halves, |x| {
        search(&[x[0].convert(DType::F32)?, x[1].convert(DType::F32)?])
    });
    assert!(reason(&halves.unwrap(), Precision::Int8).contains("exact"));
    let operands = [f32s([300, 20], &normal([300, 20], 2)), f32s([2000, 20], &normal([2000, 20], 3))];
    let options = lower::Options { precision: Precision::Int8, ..Default::default() };
    let (mut executables, mut functions) = (Vec::new(), vec![f.clone()]);
    functions.push(vmap(&f, [Some(0), None], 0, 2).unwrap());
    functions.push(vmap(&f, 0, 0, 2).unwrap());
    let Some(session) = session() else { return };
    for f in &functions {
        executables.push(session.compile_with(f, &options).unwrap());
    }
    let twice = |x: &Array| {
        let dims = [&[2], x.shape().dims()].concat();
        Array::from_f64(x.shape().with_dims(dims), &[x.to_f64(), x.to_f64()].concat()).unwrap()
    };
    let [queries, database] = &operands;
    let arguments =
        [operands.to_vec(), vec![twice(queries), database.clone()], vec![twice(queries), twice(database)]];
    for ((executable, choices), arguments) in executables.iter().zip(arguments) {
        assert!(choices[0].reason.contains("in int8") && choices[0].expected_recall < 1.0, "{}", choices[0]);
        let results = executable.run_arrays(&arguments).unwrap();
        let flat = |x: &Array| {
            Array::from_f64(Shape::new(x.shape().dtype(), [300, 10]), &x.to_f64()[..3000]).unwrap()
        };
        let found = Neighbors { distances: flat(&results[0]), indices: flat(&results[1]) };
        assert!(mean_recall(&found, Metric::InnerProduct, queries, database) >= 0.95);
    }
}

#[test]
fn search_functions_take_what_is_prepared_for_them() {
    let (queries, database) = (f32s([4, 20], &normal([4, 20], 2)), f32s([500, 20], &normal([500, 20], 3)));
    for precision in [Precision::Bf16, Precision::Int8] {
        let options = SearchOptions { precision, ..SearchOptions::new(10) };
        for metric in METRICS {
            let prepared = prepared_function(metric, database.shape(), &options).unwrap().unwrap();
            let prepared = prepared.eval(std::slice::from_ref(&database)).unwrap();
            let search =
                search_function_for(&cpu::CAPABILITIES, metric, database.shape(), 4, 1, &options).unwrap();
            let arguments = [vec![queries.clone(), database.clone()], prepared].concat();
            let results = search.eval(&arguments).unwrap();
            let found = Neighbors { distances: results[0].clone(), indices: results[1].clone() };
            assert_eq!(mean_recall(&found, metric, &queries, &database), 1.0);
            // On a target without the kernel, and in other forms, the database is searched as it is.
            for (target, form) in [(&tpu::CAPABILITIES, None), (&cpu::CAPABILITIES, Some(Form::Sort))] {
                let options = lower::Options { approx_top_k: form, ..Default::default() };
                let lowered = lower::lower(&search, target, &options).unwrap().function.to_string();
                assert!(!lowered.contains("xlann_"), "{lowered}");
            }
        }
    }
}

#[test]
fn of_no_rows_nothing_is_rounded() {
    let database = Shape::new(DType::F32, [0, 20]);
    for precision in Precision::ALL {
        let options = SearchOptions { precision, ..SearchOptions::new(10) };
        assert!(prepared_function(Metric::InnerProduct, &database, &options).unwrap().is_none());
    }
}

#[test]
fn a_call_of_the_name_of_ours_is_no_search_where_its_shapes_are_others() {
    let shapes = [[4, 20], [500, 20]].map(|dims| Shape::new(DType::F32, dims));
    let f = Function::trace("search", &[&shapes[..], &[Shape::scalar(DType::F32)]].concat(), |x| {
        let call = CustomCall::new("xlann_reduced", [x[1].shape().clone()]);
        let database = x[0].builder().custom_call(call, &[&x[1], &x[2], &x[2]])?;
        search(&[x[0].clone(), database[0].clone()])
    });
    let options = lower::Options::default();
    let reason = lower::explain(&f.unwrap(), &cpu::CAPABILITIES, &options).unwrap()[0].reason.clone();
    assert!(reason.contains("its form of fewer digits is none"), "{reason}");
}

#[test]
fn precisions_that_there_is_no_search_of_are_refused() {
    const COSINE: &str = "the metric is cosine, of which a Searcher alone has one";
    let database = Shape::new(DType::F32, [500, 20]);
    let int8 = SearchOptions { precision: Precision::Int8, ..SearchOptions::new(10) };
    let ip = Metric::InnerProduct;
    for (target, metric, database, options, expected) in [
        (&tpu::CAPABILITIES, ip, database.clone(), int8.clone(), "tpu has no kernels"),
        (&cpu::CAPABILITIES, Metric::Cosine, database.clone(), int8.clone(), COSINE),
        (
            &cpu::CAPABILITIES,
            ip,
            database.with_dtype(DType::F64),
            int8.clone(),
            "the database is searched in f64",
        ),
        (
            &cpu::CAPABILITIES,
            ip,
            database.clone(),
            SearchOptions { form: Some(Form::Blocks), ..int8.clone() },
            "the form is blocks",
        ),
        (
            &cpu::CAPABILITIES,
            ip,
            database.clone(),
            SearchOptions { score_budget: Some(1 << 20), ..int8.clone() },
            "there is a score budget, of 1048576 bytes",
        ),
    ] {
        let refused = search_function_for(target, metric, &database, 4, 1, &options).unwrap_err().to_string();
        let expected = format!("search: precision must be exact or auto, as {expected}, got int8");
        assert_eq!(refused, expected);
        let options = SearchOptions { precision: Precision::Auto, ..options };
        search_function_for(target, metric, &database, 4, 1, &options).unwrap();
    }
}

#[test]
fn queries_without_neighbours_are_no_part_of_the_recall() {
    let Some(session) = session() else { return };
    let numbers: Vec<f32> = (0..20 * 3000u64).map(|i| (i * i % 7919) as f32 / 7919.0 - 0.5).collect();
    let database = Array::new([3000, 20], &numbers).unwrap();
    for metric in [Metric::InnerProduct, Metric::L2, Metric::Cosine] {
        let options = SearchOptions { precision: Precision::Int8, ..SearchOptions::new(10) };
        let searcher = Searcher::new(session, database.clone(), metric, options).unwrap();
        // Two that have neighbours, among 128.
        let real = Array::new([2, 20], &numbers[20..60]).unwrap();
        let mut queries = vec![f32::NAN; 20 * 128];
        queries[20 * 5..][..20].copy_from_slice(&numbers[20..40]);
        queries[20 * 99..][..20].copy_from_slice(&numbers[40..60]);
        let found = searcher.search(&Array::new([128, 20], &queries).unwrap()).unwrap();
        let alone = searcher.search(&real).unwrap();
        let (indices, distances) = (found.indices.to_vec::<i32>().unwrap(), found.distances.to_f64());
        for query in 0..128 {
            let place = match query {
                5 => Some(0),
                99 => Some(1),
                _ => None,
            };
            let (indices, distances) = (&indices[10 * query..][..10], &distances[10 * query..][..10]);
            match place {
                Some(place) => {
                    assert_eq!(
                        indices,
                        &alone.indices.to_vec::<i32>().unwrap()[10 * place..][..10],
                        "{metric}"
                    );
                    assert_eq!(distances, &alone.distances.to_f64()[10 * place..][..10], "{metric}");
                }
                None => {
                    assert!(indices.iter().all(|&index| index == -1), "{metric} {query}");
                    assert!(distances.iter().all(|distance| distance.is_nan()), "{metric} {query}");
                }
            }
        }
    }
}
