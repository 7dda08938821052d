//! Every kernel through XLA, for every dtype, instruction set, number of threads and kind of shape, against a naive
//! version in f64. One program has the calls of all instruction sets and numbers of threads; the contents of its
//! operands, random and nasty, stand side by side as a batch.

use crate::runner::common::cpu;
use crate::runner::{FLOATS, awkward};
use crate::searches::{Random, Searches, ranked};
use xlann::kernels::{FUSED_SEARCH, SELECT_K, instruction_set};
use xlann::{Array, CustomCall, DType, Function, Session, Shape};

/// The instruction sets and whether the machine has them.
fn instruction_sets() -> Vec<(&'static str, bool)> {
    #[cfg(target_arch = "x86_64")]
    let (avx2, avx_vnni, avx512, bf16, vnni) = {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("bmi2");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512cd");
        let bf16 = avx512 && is_x86_feature_detected!("avx512bf16");
        // The macro knows no avxvnni before Rust 1.89.
        let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let avx_vnni = avx2 && processor.contains(" avx_vnni");
        (avx2, avx_vnni, avx512, bf16, avx512 && is_x86_feature_detected!("avx512vnni"))
    };
    #[cfg(not(target_arch = "x86_64"))]
    let (avx2, avx_vnni, avx512, bf16, vnni) = (false, false, false, false, false);
    vec![
        ("automatic", true),
        ("portable", true),
        ("avx2", avx2),
        ("avx_vnni", avx_vnni),
        ("avx512", avx512),
        ("avx512_bf16", bf16),
        ("avx512_vnni", vnni),
        ("neon", cfg!(target_arch = "aarch64")),
    ]
}

/// Whether a search of s8 sums pairs of products in 16 bits.
fn sums_pairs(set: &str) -> bool {
    let set = if set == "automatic" { instruction_set(DType::S8).unwrap() } else { set };
    matches!(set, "avx2" | "avx512" | "avx512_bf16")
}

#[test]
fn the_instruction_sets_in_use_are_the_best_that_the_machine_has() {
    let best = |sets: &[&'static str]| {
        let has = |set: &&&str| instruction_sets().contains(&(**set, true));
        *sets.iter().find(has).unwrap()
    };
    let others = ["neon", "avx512", "avx2", "portable"];
    assert_eq!(instruction_set(DType::F32), Some(best(&others)));
    assert_eq!(instruction_set(DType::F16), Some(best(&others)));
    assert_eq!(instruction_set(DType::BF16), Some(best(&[&["avx512_bf16"], &others[..]].concat())));
    let s8 = ["neon", "avx512_vnni", "avx512", "avx_vnni", "avx2", "portable"];
    assert_eq!(instruction_set(DType::S8), Some(best(&s8)));
    assert_eq!(instruction_set(DType::F64), None);
}

fn function(calls: &[(&str, String)], operands: &[Array], results: &[Shape; 2]) -> Function {
    let shapes: Vec<Shape> = operands.iter().map(|operand| operand.shape().clone()).collect();
    Function::trace("calls", &shapes, |x| {
        let operands: Vec<_> = x.iter().collect();
        let found = calls.iter().map(|(target, config)| {
            let call = CustomCall::new(target, results.clone()).backend_config(config);
            x[0].builder().custom_call(call, &operands)
        });
        Ok(found.collect::<xlann::Result<Vec<_>>>()?.concat())
    })
    .unwrap()
}

/// Values and indices by each instruction set of the machine, which must be the same with any number of threads.
fn found(
    session: &Session,
    target: &str,
    attributes: &str,
    operands: &[Array],
    results: &[Shape; 2],
) -> Vec<(&'static str, [Array; 2])> {
    const THREADS: [&str; 3] = ["threads = 1 : i64, ", "threads = 2 : i64, ", ""];
    let sets: Vec<_> = instruction_sets().into_iter().filter(|(_, has)| *has).map(|(set, _)| set).collect();
    let configs = sets.iter().flat_map(|set| {
        THREADS.map(|threads| (target, format!("{{{attributes}{threads}instruction_set = \"{set}\"}}")))
    });
    let f = function(&configs.collect::<Vec<_>>(), operands, results);
    let found = session.compile(&f).unwrap().run_arrays(operands).unwrap();
    let mut of_sets = Vec::new();
    for (set, found) in sets.into_iter().zip(found.chunks(2 * THREADS.len())) {
        for other in found.chunks(2) {
            assert!(
                other[0] == found[0] && other[1] == found[1],
                "{set} differs between threads: {target} {attributes} of {}",
                operands[0].shape()
            );
        }
        of_sets.push((set, [found[0].clone(), found[1].clone()]));
    }
    of_sets
}

#[test]
fn instruction_sets_that_the_machine_lacks_are_refused() {
    let Some(session) = cpu() else { return };
    let operand = [Array::new([1, 3], &[1f32, 3.0, 2.0]).unwrap()];
    let search = [operand[0].clone(), operand[0].clone()];
    for (set, has) in instruction_sets() {
        let config = format!("{{instruction_set = \"{set}\"}}");
        for (target, operands) in [(SELECT_K, &operand[..]), (FUSED_SEARCH, &search)] {
            let results = [Shape::new(DType::F32, [1, 1]), Shape::new(DType::S32, [1, 1])];
            let f = function(&[(target, config.clone())], operands, &results);
            let found = session.compile(&f).unwrap().run_arrays(operands);
            match found {
                Ok(_) => assert!(has, "{target} takes {set}"),
                Err(problem) => {
                    let expected = format!("{target}: this machine has no instruction set {set}");
                    assert!(!has && problem.to_string().contains(&expected), "{problem}");
                }
            }
        }
    }
}

#[test]
fn select_k_is_that_of_a_stable_sort() {
    let Some(session) = cpu() else { return };
    let mut rows_checked = 0;
    for dtype in FLOATS {
        for (columns, k) in [(1, 1), (7, 7), (33, 4), (257, 257), (1000, 1), (1003, 100), (40_001, 10)] {
            let rows: Vec<_> = awkward(columns);
            let values = rows.iter().flat_map(|(_, row)| row).copied().collect::<Vec<_>>();
            let operand = Array::from_f64(Shape::new(dtype, [rows.len(), columns]), &values).unwrap();
            let one = Array::from_f64(Shape::new(dtype, [columns]), &rows[0].1).unwrap();
            let batch = operand.reshape([rows.len() / 2, 2, columns]).unwrap();
            for operand in [operand, one, batch] {
                for least in [false, true] {
                    let values = operand
                        .shape()
                        .with_dims([&operand.shape().dims()[..operand.shape().rank() - 1], &[k]].concat());
                    let results = [values.clone(), values.with_dtype(DType::S32)];
                    let attributes = format!("least = {least}, ");
                    let operands = std::slice::from_ref(&operand);
                    let numbers = operand.to_f64();
                    for (set, [values, indices]) in found(session, SELECT_K, &attributes, operands, &results)
                    {
                        let indices = indices.to_vec::<i32>().unwrap();
                        let width = dtype.size();
                        for (row, numbers) in numbers.chunks(columns).enumerate() {
                            let context =
                                || format!("{set} {dtype} {attributes}k {k} {}", rows[row % rows.len()].0);
                            let indices = &indices[row * k..][..k];
                            let expected = &ranked(numbers, least)[..k];
                            assert!(
                                indices.iter().zip(expected).all(|(&i, &e)| i as usize == e),
                                "{indices:?}, not {expected:?}: {}",
                                context()
                            );
                            for (rank, &index) in expected.iter().enumerate() {
                                let at = |array: &Array, element: usize| {
                                    array.as_bytes()[element * width..][..width].to_vec()
                                };
                                let bits = at(&values, row * k + rank);
                                assert_eq!(bits, at(&operand, row * columns + index), "{}", context());
                            }
                            rows_checked += 1;
                        }
                    }
                }
            }
        }
    }
    println!("{rows_checked} rows");
}

/// One of each; k = n; d = 1; one query, of little and of much; many queries; none a multiple of a vector.
const SIZES: [[usize; 4]; 9] = [
    [1, 1, 1, 1],
    [1, 9, 1, 9],
    [1, 203, 37, 5],
    [1, 9001, 18, 10],
    [3, 77, 5, 77],
    [17, 130, 16, 7],
    [70, 101, 33, 10],
    [130, 61, 3, 5],
    [41, 1501, 20, 10],
];

fn fused_search_is_naive(dtype: DType) {
    let Some(session) = cpu() else { return };
    let mut searches_checked = 0;
    for query_dtype in [DType::F32, DType::BF16, DType::F16] {
        for l2 in [false, true] {
            for sizes in SIZES {
                let searches = Searches::new(dtype, query_dtype, sizes, l2);
                let scales = (dtype == DType::S8).then(|| searches.scales.to_f64());
                let scores = [false, true].map(|pairs| {
                    let queries = searches.seen_queries(false, pairs);
                    searches.scores(&queries, &searches.database.to_f64(), scales.as_deref())
                });
                let results = searches.results();
                let operands = searches.operands();
                for (set, found) in found(session, FUSED_SEARCH, searches.attributes(), &operands, &results) {
                    let context = format!("{set} {dtype} {query_dtype} l2 {l2}");
                    let scores = &scores[usize::from(sums_pairs(set))];
                    searches.check(scores, None, &found, &context);
                    searches_checked += scores.len();
                }
            }
        }
    }
    println!("{searches_checked} searches");
}

#[test]
fn fused_search_of_f32_is_naive() {
    fused_search_is_naive(DType::F32);
}

#[test]
fn fused_search_of_bf16_is_naive() {
    fused_search_is_naive(DType::BF16);
}

#[test]
fn fused_search_of_f16_is_naive() {
    fused_search_is_naive(DType::F16);
}

#[test]
fn fused_search_of_s8_is_naive() {
    fused_search_is_naive(DType::S8);
}

/// Candidates are the best of the coarse scores, and scored anew with the queries as they were given.
#[test]
fn candidates_are_scored_against_the_rows() {
    let Some(session) = cpu() else { return };
    for dtype in [DType::F32, DType::BF16, DType::F16, DType::S8] {
        for (query_dtype, l2) in
            [(DType::F32, false), (DType::F32, true), (DType::BF16, false), (DType::F16, true)]
        {
            for (sizes, candidates) in [
                ([1, 1, 1, 1], 1),
                ([1, 203, 37, 5], 5),
                ([3, 77, 5, 77], 77),
                ([70, 101, 33, 10], 23),
                ([5, 1501, 20, 10], 1501),
            ] {
                let mut searches = Searches::new(dtype, query_dtype, sizes, l2);
                let [_, n, d, _] = sizes;
                let s8 = dtype == DType::S8;
                let scales = s8.then(|| searches.scales.to_f64());
                // Of rounded scores, which are candidates is not known, unless all are.
                let kept: Vec<usize> = (0..searches.contents.len())
                    .filter(|&at| searches.contents[at].exact() || candidates == n)
                    .collect();
                let coarse_rows = searches.database.to_f64();
                let mut random = Random(n as u64);
                let rows: Vec<f64> = coarse_rows
                    .iter()
                    .enumerate()
                    .map(|(at, x)| x * scales.as_ref().map_or(1.0, |s| s[at / d]) + random.below(5))
                    .collect();
                // Exact ones are quantised to themselves in any set.
                let queries = searches.seen_queries(true, false);
                let coarse = searches.scores(&queries, &coarse_rows, scales.as_deref());
                let fine_rows =
                    Array::from_f64(searches.database.shape().with_dtype(DType::F32), &rows).unwrap();
                let fine = searches.scores(&searches.queries.to_f64(), &fine_rows.to_f64(), None);
                let among: Vec<Vec<usize>> =
                    coarse.iter().map(|(scores, _)| ranked(scores, l2)[..candidates].to_vec()).collect();
                let operands = [searches.operands(), vec![fine_rows]].concat();
                let attributes = format!("{}candidates = {candidates} : i64, ", searches.attributes());
                let found = found(session, FUSED_SEARCH, &attributes, &operands, &searches.results());
                // Only the searches whose candidates are known are compared.
                let q = sizes[0];
                let of_kept = |all: &[(Vec<f64>, f64)]| -> Vec<_> {
                    kept.iter().flat_map(|&at| all[at * q..][..q].to_vec()).collect()
                };
                let (fine, among): (Vec<_>, Vec<_>) =
                    (of_kept(&fine), kept.iter().flat_map(|&at| among[at * q..][..q].to_vec()).collect());
                searches.contents = kept.iter().map(|&at| searches.contents[at]).collect();
                for (set, found) in found {
                    let found = found.map(|array| {
                        let [q, _, _, k] = sizes;
                        let numbers = array.to_f64();
                        let numbers: Vec<f64> =
                            kept.iter().flat_map(|&at| &numbers[at * q * k..][..q * k]).copied().collect();
                        Array::from_f64(array.shape().with_dims([kept.len(), q, k]), &numbers).unwrap()
                    });
                    let context = format!("{set} {dtype} {query_dtype} l2 {l2} candidates {candidates}");
                    searches.check(&fine, Some(&among), &found, &context);
                }
            }
        }
    }
}

/// One call with leading dimensions is a search for each of their indices.
#[test]
fn searches_of_a_batch_are_searches_on_their_own() {
    let Some(session) = cpu() else { return };
    for dtype in [DType::F32, DType::BF16, DType::F16, DType::S8] {
        let searches = Searches::new(dtype, DType::F32, [17, 130, 16, 7], true);
        let batch = searches.contents.len();
        let attributes = searches.attributes();
        let whole = found(session, FUSED_SEARCH, attributes, &searches.operands(), &searches.results());
        let dims = |shape: &Shape| [&[1, batch], &shape.dims()[1..]].concat();
        let operands = searches.operands();
        let operands: Vec<Array> = operands.iter().map(|x| x.reshape(dims(x.shape())).unwrap()).collect();
        let results = searches.results().map(|shape| shape.with_dims(dims(&shape)));
        for ((_, whole), (set, other)) in
            whole.iter().zip(found(session, FUSED_SEARCH, attributes, &operands, &results))
        {
            let same = whole.iter().zip(&other).all(|(whole, other)| whole.as_bytes() == other.as_bytes());
            assert!(same, "{set} {dtype}: two leading dimensions");
        }
        for at in 0..batch {
            let part = |array: &Array| {
                let bytes = array.as_bytes();
                let size = bytes.len() / batch;
                let shape = array.shape().with_dims(&array.shape().dims()[1..]);
                Array::from_bytes(shape, &bytes[at * size..][..size]).unwrap()
            };
            let operands: Vec<Array> = searches.operands().iter().map(part).collect();
            let results = searches.results().map(|shape| shape.with_dims(&shape.dims()[1..]));
            let alone = found(session, FUSED_SEARCH, attributes, &operands, &results);
            for ((set, whole), (_, alone)) in whole.iter().zip(&alone) {
                let same = part(&whole[0]) == alone[0] && part(&whole[1]) == alone[1];
                assert!(same, "{set} {dtype} {:?}", searches.contents[at]);
            }
        }
    }
}
