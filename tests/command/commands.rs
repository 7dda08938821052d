//! The command line on good input.

use crate::common;
use crate::folder::{Folder, bin, digits, npy, succeeded, vecs};
use serde_json::{Map, Value};
use xlann::ann::recall::reduction_output_size;
use xlann::target::gpu;
use xlann::{Array, DType, Shape};

/// The lines of an array along a dimension, as positions in row-major order.
fn lines(dims: &[usize], dimension: usize) -> Vec<Vec<usize>> {
    let inner: usize = dims[dimension + 1..].iter().product();
    let outer: usize = dims[..dimension].iter().product();
    let starts = (0..outer).flat_map(|outer| (0..inner).map(move |inner| (outer, inner)));
    starts
        .map(|(o, i)| (0..dims[dimension]).map(|j| (o * dims[dimension] + j) * inner + i).collect())
        .collect()
}

/// Checks values and indices against each line of the operand, sorted.
fn check_topk(folder: &Folder, operand: &Array, dimension: usize, k: usize, min: bool) {
    let (values, indices) = (folder.read("v.npy"), folder.read("i.npy"));
    let mut dims = operand.shape().dims().to_vec();
    let operand_lines = lines(&dims, dimension);
    dims[dimension] = k;
    assert_eq!(*values.shape(), operand.shape().with_dims(dims.clone()));
    assert_eq!(*indices.shape(), Shape::new(DType::S32, dims.clone()));
    let (operand, values, indices) = (operand.to_f64(), values.to_f64(), indices.to_vec::<i32>().unwrap());
    for (line, results) in operand_lines.iter().zip(lines(&dims, dimension)) {
        let mut order: Vec<usize> = (0..line.len()).collect();
        order.sort_by(|&a, &b| {
            let order = operand[line[a]].total_cmp(&operand[line[b]]);
            if min { order } else { order.reverse() }
        });
        for (&best, result) in order.iter().zip(results) {
            assert_eq!((values[result], indices[result]), (operand[line[best]], best as i32));
        }
    }
}

fn positive(object: &Map<String, Value>, fields: &[&str]) {
    for field in fields {
        assert!(object[*field].as_f64().unwrap() > 0.0, "{field}: {object:?}");
    }
}

#[test]
fn topk_takes_every_dtype_direction_and_dimension() {
    if common::cpu().is_none() {
        return;
    }
    for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
        let folder = Folder::new();
        let operand = digits(dtype, &[3, 5, 40], 1);
        folder.write_npy("x.npy", &operand);
        for (dim, dimension, min) in [("-1", 2, ""), ("0", 0, "--min"), ("1", 1, ""), ("-2", 1, "--min")] {
            let object = folder
                .json(&format!("topk --input x.npy -k 3 --dim {dim} {min} --values v.npy --indices i.npy"));
            check_topk(&folder, &operand, dimension, 3, !min.is_empty());
            assert_eq!(object["shape"], format!("{dtype}[3,5,40]"));
            positive(&object, &["seconds", "compile_seconds", "bytes_per_second"]);
            assert!(object["reason"].is_string());
        }
    }
}

#[test]
fn topk_takes_every_lowering() {
    if common::cpu().is_none() {
        return;
    }
    let folder = Folder::new();
    // Each of 0 to 1999 in a row: the bucket of two-stage that an element falls into is then known.
    let rows: Vec<f32> = (0..4000).map(|j| (j * 7 % 2000) as f32).collect();
    let operand = Array::new([2, 2000], &rows).unwrap();
    folder.write_npy("x.npy", &operand);
    for form in ["auto", "sort", "blocks", "two-stage"] {
        for min in [false, true] {
            let min_flag = if min { "--min" } else { "" };
            let words = format!("topk --input x.npy -k 5 {min_flag} --recall-target 1 --lowering {form}");
            let object = folder.json(&format!("{words} --repeat 3 --values v.npy --indices i.npy"));
            check_topk(&folder, &operand, 1, 5, min);
            assert!(form == "auto" || object["lowering"] == form, "{object:?}");
        }
    }
    let printed = folder.run("topk --input x.npy -k 5 --lowering sort");
    printed.contains("approx_max_k f32[2,2000] k=5: sort (asked for)\n");
    printed.contains("f32[2,2000] to f32[2,5] in ");
}

#[test]
fn topk_without_aggregation_gives_the_partial_reduction() {
    if common::cpu().is_none() {
        return;
    }
    let folder = Folder::new();
    let rows: Vec<f32> = (0..10_000).map(|j| (j * 7 % 5000) as f32).collect();
    folder.write_npy("x.npy", &Array::new([2, 5000], &rows).unwrap());
    for (options, recall_target, whole) in [
        ("", 0.95, None),
        ("--recall-target 0.8 --lowering two-stage", 0.8, None),
        ("--lowering sort --input-size-override 100000", 0.95, Some(100_000)),
    ] {
        let words = format!("topk --input x.npy -k 10 --no-aggregate {options}");
        let object = folder.json(&format!("{words} --values v.npy --indices i.npy"));
        let size = reduction_output_size(5000, 2, 10, recall_target, false, whole).unwrap().size;
        assert!(size > 10);
        assert_eq!(object["result"], format!("f32[2,{size}]"));
        let (values, indices) = (folder.read("v.npy"), folder.read("i.npy"));
        assert_eq!(values.shape().dims(), [2, size]);
        let (values, indices) = (values.to_vec::<f32>().unwrap(), indices.to_vec::<i32>().unwrap());
        for (row, found) in indices.chunks(size).enumerate() {
            let of_row = &values[row * size..][..size];
            for (&value, &index) in of_row.iter().zip(found) {
                assert_eq!(value, rows[row * 5000 + index as usize]);
            }
            assert!(of_row.contains(&4999.0));
        }
    }
}

/// The score of each database vector for a query; best first when sorted upwards.
fn scores(database: &Array, query: &[f64], metric: &str) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    database
        .to_f64()
        .chunks(query.len())
        .map(|row| match metric {
            "l2" => row.iter().zip(query).map(|(a, b)| (a - b) * (a - b)).sum(),
            "ip" => -dot(row, query),
            _ => -dot(row, query) / (dot(row, row) * dot(query, query)).sqrt(),
        })
        .collect()
}

/// Checks distances and indices against the scores of all vectors, sorted.
fn check_search(folder: &Folder, database: &Array, queries: &Array, k: usize, metric: &str) {
    let (distances, indices) = (folder.read("d.npy"), folder.read("i.npy"));
    let [count, width] = [queries.shape().dims()[0], queries.shape().dims()[1]];
    assert_eq!(distances.shape().dims(), [count, k]);
    assert_eq!(*indices.shape(), Shape::new(DType::S32, [count, k]));
    let sign = if metric == "l2" { 1.0 } else { -1.0 };
    let found = distances.to_f64().into_iter().zip(indices.to_vec::<i32>().unwrap());
    let found: Vec<(f64, i32)> = found.collect();
    for (query, found) in queries.to_f64().chunks(width).zip(found.chunks(k)) {
        let scores = scores(database, query, metric);
        let mut sorted = scores.clone();
        sorted.sort_by(f64::total_cmp);
        let rows: std::collections::HashSet<i32> = found.iter().map(|&(_, index)| index).collect();
        assert_eq!(rows.len(), k, "a row twice");
        for (&(distance, index), best) in found.iter().zip(sorted) {
            assert!((sign * distance - best).abs() <= 1e-6, "{metric}: {distance} for {best}");
            assert!((scores[index as usize] - best).abs() <= 1e-6, "{metric}: row {index}");
        }
    }
}

#[test]
fn search_takes_every_metric() {
    if common::cpu().is_none() {
        return;
    }
    let folder = Folder::new();
    let (database, queries) = (digits(DType::F32, &[300, 7], 1), digits(DType::F32, &[10, 7], 2));
    folder.write_npy("db.npy", &database);
    folder.write_npy("q.npy", &queries);
    for metric in ["ip", "l2", "cosine"] {
        // Batches of 4 leave 2 over.
        let words = format!("search --database db.npy --queries q.npy -k 5 --metric {metric} --batch 4");
        let object = folder.json(&format!("{words} --recall-target 1 --distances d.npy --indices i.npy"));
        check_search(&folder, &database, &queries, 5, metric);
        assert_eq!(object["queries"], 10);
        assert_eq!(object["metric"], metric);
        assert_eq!(object["batch"], 4);
        assert!(object["lowering"].is_string() && !object.contains_key("recall"));
        positive(&object, &["seconds_per_batch", "qps", "compile_seconds"]);
    }
}

#[test]
fn search_reads_every_format() {
    if common::cpu().is_none() {
        return;
    }
    let folder = Folder::new();
    let (database, queries) = (digits(DType::F64, &[50, 3], 1), digits(DType::F64, &[5, 3], 2));
    for (name, array) in [("db", &database), ("q", &queries)] {
        let of = |dtype| Array::from_f64(array.shape().with_dtype(dtype), &array.to_f64()).unwrap();
        for dtype in [DType::F16, DType::F32, DType::F64] {
            folder.write_npy(&format!("{name}-{dtype}.npy"), &of(dtype));
        }
        for (ending, dtype) in [("fvecs", DType::F32), ("bvecs", DType::U8), ("ivecs", DType::S32)] {
            folder.write(&format!("{name}.{ending}"), vecs(&of(dtype)));
        }
        for (ending, dtype) in [("fbin", DType::F32), ("u8bin", DType::U8), ("ibin", DType::S32)] {
            folder.write(&format!("{name}.{ending}"), bin(&of(dtype)));
        }
        let rows = array.shape().dims()[0];
        let columns = lines(array.shape().dims(), 0).concat();
        let elements = array.to_f64();
        let transposed: Vec<u8> = columns.iter().flat_map(|&place| elements[place].to_le_bytes()).collect();
        folder.write(&format!("{name}-fortran.npy"), npy("<f8", true, &format!("{rows}, 3"), &transposed));
    }
    for (db, q) in [
        ("db-f16.npy", "q-f64.npy"),
        ("db-f64.npy", "q-f16.npy"),
        ("db-f32.npy", "q-fortran.npy"),
        ("db-fortran.npy", "q-f32.npy"),
        ("db.fvecs", "q.bvecs"),
        ("db.bvecs", "q.ivecs"),
        ("db.ivecs", "q.fvecs"),
        ("db.fbin", "q.u8bin"),
        ("db.u8bin", "q.ibin"),
        ("db.ibin", "q.fbin"),
    ] {
        let words = format!("search --database {db} --queries {q} -k 4 --metric l2 --recall-target 1");
        folder.run(&format!("{words} --distances d.npy --indices i.npy"));
        check_search(&folder, &database, &queries, 4, "l2");
    }
}

#[test]
fn search_is_split_over_devices() {
    if common::cpu().is_none() {
        return;
    }
    let folder = Folder::new();
    // Neither 2 nor 4 divides the rows; a share of 4 is fewer than the neighbours.
    let (database, queries) = (digits(DType::F32, &[303, 7], 1), digits(DType::F32, &[10, 7], 2));
    folder.write_npy("db.npy", &database);
    folder.write_npy("q.npy", &queries);
    let words =
        "search --database db.npy --queries q.npy --recall-target 1 --distances d.npy --indices i.npy";
    for metric in ["ip", "l2", "cosine"] {
        for (devices, k) in [(2, 5), (4, 90)] {
            for aggregation in ["devices", "host"] {
                let options = format!("-k {k} --devices {devices} --aggregation {aggregation}");
                let object = folder.json(&format!("{words} --metric {metric} {options}"));
                check_search(&folder, &database, &queries, k, metric);
                assert_eq!(object["devices"], devices);
                assert_eq!(object["database"], "f32[303,7]");
            }
        }
    }
    let printed = folder.run(&format!("{words} -k 3 --devices 3 --check-recall"));
    printed.contains("10 queries in f32[303,7] over 3 devices, batches of 10: ");
    printed.contains("\nrecall 1.0000 by distance, 1.0000 by row number\n");
    assert_eq!(folder.json(&format!("{words} -k 3"))["devices"], 1);
}

#[test]
fn search_measures_the_recall() {
    if common::cpu().is_none() {
        return;
    }
    let folder = Folder::new();
    folder.write_npy("db.npy", &digits(DType::F32, &[300, 7], 1));
    folder.write_npy("q.npy", &digits(DType::F32, &[10, 7], 2));
    let words = "search --database db.npy --queries q.npy --recall-target 1 -k";
    folder.run(&format!("{words} 6 --indices found.npy"));
    let found = folder.read("found.npy");
    let wide = Array::from_f64(found.shape().with_dtype(DType::S64), &found.to_f64()).unwrap();
    folder.write_npy("wide.npy", &wide);
    for dtype in [DType::U32, DType::U64] {
        let unsigned = Array::from_f64(found.shape().with_dtype(dtype), &found.to_f64()).unwrap();
        folder.write_npy(&format!("{dtype}.npy"), &unsigned);
    }
    folder.write("found.ivecs", vecs(&found));
    folder.write("found.ibin", bin(&found));
    for truth in ["found.npy", "wide.npy", "u32.npy", "u64.npy", "found.ivecs", "found.ibin"] {
        let object = folder.json(&format!("{words} 4 --ground-truth {truth}"));
        assert_eq!(object["recall"], 1.0, "{truth}");
    }
    // Of four neighbours the last two are others.
    let mut others = found.to_f64();
    for row in others.chunks_mut(6) {
        let mut free =
            (0..300).map(f64::from).filter(|index| !row.contains(index)).collect::<Vec<_>>().into_iter();
        row[2..4].fill_with(|| free.next().unwrap());
    }
    folder.write_npy("others.npy", &Array::from_f64(found.shape().clone(), &others).unwrap());
    let printed = folder.run(&format!("{words} 4 --limit-queries 7 --ground-truth others.npy"));
    printed.contains("7 queries in f32[300,7], batches of 7: ");
    // They are worse than what is found in their place.
    printed.contains("\nrecall 1.0000 by distance, 0.5000 by row number\n");
    let object = folder.json(&format!("{words} 4 --check-recall --repeat 2"));
    assert_eq!((&object["recall"], &object["recall_by"]), (&1.0.into(), &"distance".into()));
    assert!(object["recall_by_index"].as_f64().unwrap() > 0.9);
}

#[test]
fn duplicates_stand_for_each_other_in_the_recall() {
    if common::cpu().is_none() {
        return;
    }
    let folder = Folder::new();
    // Each row twice, 40 rows apart: the ground truth has the later ones.
    let rows: Vec<f32> = (0..80).map(|row| (row % 40) as f32).collect();
    folder.write_npy("db.npy", &Array::new([80, 1], &rows).unwrap());
    folder.write_npy("q.npy", &Array::new([2, 1], &[-1f32, 50.0]).unwrap());
    folder.write("gt.ibin", bin(&Array::new([2, 2], &[40, 40, 79, 39]).unwrap()));
    let words = "search --database db.npy --queries q.npy --metric l2 --recall-target 1 -k";
    let object = folder.json(&format!("{words} 1 --ground-truth gt.ibin"));
    assert_eq!(object["recall"], 1.0);
    // The kernel gives the lower index first.
    assert_eq!(object["recall_by_index"], 0.0);
}

#[test]
fn recall_is_counted_by_distances_that_f32_does_not_tell_apart() {
    if common::cpu().is_none() {
        return;
    }
    let folder = Folder::new();
    // To f32, all rows from 2^24 on by twos are one and the same as the next, and so are their products with 1.
    let rows: Vec<i32> = (0..64).map(|row| (1 << 24) + row).collect();
    folder.write("db.ibin", bin(&Array::new([64, 1], &rows).unwrap()));
    folder.write("q.ibin", bin(&Array::new([1, 1], &[(1 << 24) + 41]).unwrap()));
    // The search by f64 is right, and a ground truth by f32 is not.
    let words = "search --database db.ibin --queries q.ibin --metric l2 --recall-target 1 -k 2";
    let object = folder.json(&format!("{words} --check-recall --indices i.npy"));
    assert_eq!(object["recall"], 1.0);
    let found = folder.read("i.npy").to_vec::<i32>().unwrap();
    assert!(found[0] == 41 && [40, 42].contains(&found[1]), "{found:?}");
    folder.write("gt.ibin", bin(&Array::new([1, 2], &[40, 43]).unwrap()));
    let object = folder.json(&format!("{words} --ground-truth gt.ibin"));
    assert_eq!((object["recall"].as_f64(), object["recall_by_index"].as_f64()), (Some(1.0), Some(0.5)));
}

#[test]
fn search_takes_the_first_queries_nans_and_any_batch() {
    if common::cpu().is_none() {
        return;
    }
    let folder = Folder::new();
    let database = digits(DType::F32, &[300, 7], 1);
    folder.write_npy("db.npy", &database);
    let mut queries = digits(DType::F32, &[50, 7], 2).to_vec::<f32>().unwrap();
    queries[30] = f32::NAN;
    let first = Array::new([3, 7], &queries[..21]).unwrap();
    folder.write_npy("q.npy", &Array::new([50, 7], &queries).unwrap());
    let words = "search --database db.npy --queries q.npy -k 2 --distances d.npy --indices i.npy";
    for batch in ["1", "2", "3", "128", "18446744073709551615"] {
        let object = folder.json(&format!("{words} --limit-queries 3 --recall-target 1 --batch {batch}"));
        assert_eq!(object["queries"], 3);
        check_search(&folder, &database, &first, 2, "ip");
    }
    // Enough batches for a progress bar, of which nothing is seen but on a terminal.
    folder.run(&format!("{words} --batch 1 --repeat 3 --limit-queries 500"));
    assert_eq!(folder.read("d.npy").shape().dims(), [50, 2]);
    // The fifth query has a NaN, and no neighbours.
    let indices = folder.read("i.npy").to_vec::<i32>().unwrap();
    for (place, index) in indices.iter().enumerate() {
        assert_eq!((0..300).contains(index), place / 2 != 4, "{place}: {index}");
        assert_eq!(*index == -1, place / 2 == 4, "{place}: {index}");
    }
    assert!(folder.read("d.npy").to_f64()[8..10].iter().all(|distance| distance.is_nan()));
    assert_eq!(folder.json(words)["queries_without_neighbors"], 1);
    folder.run(words).contains("1 of the queries have no neighbours: distances to all rows are NaN");
}

#[test]
fn outputs_replace_older_files_and_go_where_links_point() {
    if common::cpu().is_none() {
        return;
    }
    let folder = Folder::new();
    let operand = digits(DType::F32, &[2, 9], 1);
    folder.write_npy("x.npy", &operand);
    folder.write("v.npy", "older");
    folder.write("target.npy", "older");
    std::os::unix::fs::symlink("target.npy", folder.path("i.npy")).unwrap();
    folder.run("topk --input x.npy -k 2 --values v.npy --indices i.npy");
    check_topk(&folder, &operand, 1, 2, false);
    assert!(folder.path("i.npy").is_symlink());
    let names: Vec<_> = folder.listing().into_iter().map(|(path, _)| path).collect();
    assert_eq!(names, ["i.npy", "target.npy", "v.npy", "x.npy"].map(|name| folder.path(name)));
}

#[test]
fn hlo_needs_no_plugin() {
    let folder = Folder::new();
    for (words, entry) in [
        (
            "hlo topk --shape 128x1000 -k 5",
            "ENTRY %topk (parameter: f32[128,1000]) -> (f32[128,5], s32[128,5])",
        ),
        ("hlo topk --shape 9 -k 2 --min --dtype bf16", "-> (bf16[2], s32[2])"),
        ("hlo topk --shape 4x5x6 -k 1 --dim 0 --lowering sort", "-> (f32[1,5,6], s32[1,5,6])"),
        (
            "hlo search --database-shape 500x16 --queries-shape 8x16 -k 3 --metric l2 --dtype f64",
            "ENTRY %search (queries: f64[8,16], database: f64[500,16], errors: f64[2], half_norms: f64[500]) -> \
             (f64[8,3], s32[8,3], pred[8])",
        ),
    ] {
        let output = |words: &str| {
            let output = folder.command_without_plugin(words).env_remove("XLANN_CACHE").output().unwrap();
            succeeded(words, &output)
        };
        let printed = output(words);
        assert!(printed.0.starts_with("// approx_m"), "{}", printed.0);
        printed.contains("\nHloModule ");
        printed.contains(entry);
        let object = output(&format!("{words} --json")).json();
        assert!(object["hlo"].as_str().unwrap().starts_with("HloModule "));
        assert!(!object["lowering"].as_array().unwrap().is_empty());
    }
}

#[test]
fn doctor_and_plugin_list_tell_what_is_there() {
    let Some(session) = common::cpu() else { return };
    let folder = Folder::new();
    let path = session.client().plugin().path().display().to_string();
    let printed = folder.run_logged("doctor");
    printed.contains(&format!("  plugin {path}\n  PJRT C API 0."));
    printed.contains("  devices: ");
    let object = folder.run_logged("doctor --json").json();
    assert_eq!(object["version"], env!("CARGO_PKG_VERSION"));
    assert!(object["processor_features"].is_array());
    let sets = ["f32", "bf16", "f16", "int8"].map(|name| {
        let set = object["kernels"][name].as_str().unwrap();
        format!("{name} {set}")
    });
    printed.contains(&format!("\nkernels: {}\n", sets.join(", ")));
    let cpu = &object["targets"][0];
    assert_eq!(cpu["name"], "cpu");
    assert!(cpu["looked_at"].as_array().unwrap().iter().any(|place| place["exists"] == true));
    assert_eq!(cpu["plugin"]["path"], path);
    assert!(!cpu["plugin"]["devices"].as_array().unwrap().is_empty());
    assert!(!cpu["plugin"]["extensions"].as_array().unwrap().is_empty());
    folder.run("plugin list").contains("cpu: /");
    assert_eq!(folder.json("plugin list")["plugins"][0]["target"], "cpu");
}

#[test]
fn an_installed_plugin_is_not_fetched_again() {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return;
    }
    let folder = Folder::new();
    let file = "cache/plugins/cpu/pjrt_c_api_cpu_plugin.so";
    std::fs::create_dir_all(folder.path("cache/plugins/cpu")).unwrap();
    folder.write(file, "there");
    let words = "plugin install cpu";
    let output = folder.command_without_plugin(words).output().unwrap();
    succeeded(words, &output).contains("is already there\n");
    let words = "plugin install cpu --json";
    let object = succeeded(words, &folder.command_without_plugin(words).output().unwrap()).json();
    assert_eq!(object["fetched"], false);
    assert_eq!(object["path"], folder.path(file).display().to_string());
    assert_eq!(std::fs::read(folder.path(file)).unwrap(), b"there");
    assert_eq!(object["libraries"], serde_json::json!([]));
    // All that the GPU's plugin is installed with, and runs programs with.
    for path in
        ["cuda13/xla_cuda_plugin.so", "nvidia/cu13/bin/ptxas", "nvidia/cu13/nvvm/libdevice/libdevice.10.bc"]
            .into_iter()
            .map(str::to_owned)
            .chain(gpu::PLATFORM.plugin.libraries.iter().flat_map(|libraries| {
                libraries.files.iter().map(|file| format!("{}/{file}", libraries.folder))
            }))
    {
        let path = folder.path(&format!("cache/plugins/{path}"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "there").unwrap();
    }
    let words = "plugin install cuda13 --libraries";
    let output = succeeded(words, &folder.command_without_plugin(words).output().unwrap());
    output.contains("already there: libcublasLt.so.13, libcublas.so.13 from nvidia-cublas==13.10.0.20\n");
}

#[test]
fn without_a_plugin_the_way_to_one_is_told() {
    let folder = Folder::new();
    folder.write_npy("x.npy", &digits(DType::F32, &[9], 1));
    folder.write_npy("db.npy", &digits(DType::F32, &[9, 2], 1));
    let output = |words: &str| succeeded(words, &folder.command_without_plugin(words).output().unwrap());
    output("doctor").contains("no cpu plugin found");
    output("doctor").contains("run xlann plugin install cpu");
    output("plugin list").contains("cpu: not found; xlann plugin install cpu fetches one\n");
    assert_eq!(output("plugin list --json").json()["plugins"][0]["path"], Value::Null);
    for words in [
        "topk --input x.npy -k 1 --values v.npy",
        "search --database db.npy --queries db.npy -k 1 --indices i.npy",
    ] {
        for (target, plugin) in [("cpu", "cpu"), ("gpu", "cuda13"), ("tpu", "tpu")] {
            let words = format!("{words} --target {target}");
            let problem = format!("run xlann plugin install {plugin}");
            folder.refuses_command(folder.command_without_plugin(&words), 1, &problem);
        }
    }
}

#[test]
fn a_plugin_that_is_none_is_told() {
    let folder = Folder::new();
    folder.write_npy("x.npy", &digits(DType::F32, &[9], 1));
    folder.write("garbage.so", "no library");
    for (plugin, problem) in [("garbage.so", "it cannot be loaded: "), ("missing.so", "No such file")] {
        let with = |words: &str| {
            let mut command = folder.command_without_plugin(words);
            command.env("XLANN_CPU_PLUGIN", folder.path(plugin));
            command
        };
        succeeded(plugin, &with("doctor").output().unwrap()).contains(problem);
        let object = succeeded(plugin, &with("doctor --json").output().unwrap()).json();
        assert!(object["targets"][0]["plugin"]["error"].as_str().unwrap().contains(problem), "{object:?}");
        folder.refuses_command(with("topk --input x.npy -k 1 --values v.npy"), 1, problem);
    }
    let mut list = folder.command_without_plugin("plugin list");
    list.env("XLANN_CPU_PLUGIN", folder.path("missing.so"));
    succeeded("plugin list", &list.output().unwrap()).contains("missing.so ($XLANN_CPU_PLUGIN)\n");
}

#[test]
fn help_and_version_are_printed() {
    let folder = Folder::new();
    for words in [
        "",
        "doctor",
        "plugin",
        "plugin install",
        "plugin list",
        "topk",
        "search",
        "hlo",
        "hlo topk",
        "compile",
    ] {
        let printed = folder.run(&format!("{words} --help"));
        printed.contains(format!("\nUsage: xlann {words}").trim_end());
        assert!(printed.0.lines().all(|line| line.len() <= 100), "{}", printed.0);
    }
    folder.run("help search").contains("--ground-truth <GT>");
    assert_eq!(folder.run("--version").0, format!("xlann {}\n", env!("CARGO_PKG_VERSION")));
}
