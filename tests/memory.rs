//! The memory that a search takes beside its database.

use xlann::ann::{Metric, SearchOptions, Searcher};
use xlann::{Array, DType, Shape, data};

mod common;

const ROWS: usize = 1 << 19;
const WIDTH: usize = 128;

/// A field of /proc/self/status, in bytes.
fn status(field: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    let kilobytes: usize = line.trim_matches([':', ' ', '\t']).split(' ').next().unwrap().parse().unwrap();
    kilobytes * 1024
}

/// Has the peak of the resident memory start anew.
fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// A .npy of `rows` pseudo-random rows, written without holding them.
fn write_database(path: &std::path::Path, rows: usize) {
    use std::io::{Seek, Write};
    // The header for that many rows, and room for the rest of them.
    let few = Array::zeros(Shape::new(DType::F32, [1, WIDTH])).unwrap();
    data::write_npy(path, &few).unwrap();
    let header = std::fs::read(path).unwrap();
    let header = String::from_utf8(header[10..header.len() - WIDTH * 4].to_vec()).unwrap();
    let size = header.len();
    let header = header.trim_end().replace("(1, ", &format!("({rows}, "));
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(std::io::SeekFrom::Start(10)).unwrap();
    file.write_all(format!("{header:<width$}\n", width = size - 1).as_bytes()).unwrap();
    let mut state = 1u64;
    for _ in 0..rows {
        let row: Vec<u8> = (0..WIDTH)
            .flat_map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((state >> 40) as f32 / (1 << 24) as f32).to_le_bytes()
            })
            .collect();
        file.write_all(&row).unwrap();
    }
}

// One test, so that no other one's memory is counted.
#[test]
fn a_mapped_database_is_not_copied() {
    let Some(session) = common::cpu() else { return };
    let plugin = session.client().plugin();
    if plugin.api_version() < (0, 115) {
        // The fallback of API 0.106 keeps up to 205 MiB of its own after the products here.
        println!("skipped: not measured on {}", plugin.path().display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (small, large) = (folder.path().join("small.npy"), folder.path().join("large.npy"));
    write_database(&small, 4096);
    write_database(&large, ROWS);
    let database = ROWS * WIDTH * 4;
    for (count, batch, score_budget) in [(300, 128, 16 << 20), (3, 1, 1 << 20)] {
        let values: Vec<f64> = (0..count * WIDTH).map(|index| (index * 37 % 101) as f64 / 101.0).collect();
        let queries = Array::from_f64(Shape::new(DType::F32, [count, WIDTH]), &values).unwrap();
        for metric in Metric::ALL {
            let options = SearchOptions {
                batch: Some(batch),
                score_budget: Some(score_budget),
                ..SearchOptions::new(10)
            };
            let search = |path| {
                let database = data::open(path).unwrap();
                let searcher = Searcher::new(session, database, metric, options.clone()).unwrap();
                searcher.search(&queries).unwrap();
                searcher
            };
            // What is there before: the plugin, its threads, the compiler, and what the allocator keeps of it.
            drop(search(&small));
            forget_peak();
            let (before, anonymous_before) = (status("VmRSS"), status("RssAnon"));
            let searcher = search(&large);
            let peak = status("VmHWM").saturating_sub(before);
            let anonymous = status("RssAnon").saturating_sub(anonymous_before);
            println!(
                "{metric} by {batch}: {} MiB over {} MiB, of which {} MiB are anonymous at the end",
                peak >> 20,
                before >> 20,
                anonymous >> 20
            );
            assert!(status("RssFile") > database, "the file is read in place");
            assert!(anonymous < database / 4, "{anonymous} bytes beside the file");
            assert!(peak < database / 10 * 13 + score_budget, "{peak} bytes for a database of {database}");
            drop(searcher);
        }
    }
}
