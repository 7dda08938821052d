//! Planning a search for devices that are not there.

use crate::common;
use crate::folder::Folder;
use xlann::ann::{Aggregation, Metric, Plan, SearchOptions, plan, smallest_fit};
use xlann::lower::Form;
use xlann::target::{Target, tpu};
use xlann::{DType, Shape};

/// A target whose compiler is there; else the test is over.
fn target(text: &str) -> Option<Target> {
    let target = Target::parse(text).unwrap();
    let compiles = match target.description() {
        Some(_) => common::compiler(&target).is_some(),
        None => common::found(target.platform().name(), target.platform().session()).is_some(),
    };
    compiles.then_some(target)
}

fn search(target: &Target, rows: usize, options: &SearchOptions) -> Plan {
    plan(target, Metric::InnerProduct, &Shape::new(DType::BF16, [rows, 128]), options).unwrap()
}

#[test]
fn a_pod_searches_a_billion_vectors() {
    let Some(pod) = target("tpu:v5e:16x16") else { return };
    for (metric, aggregation) in
        [(Metric::InnerProduct, Aggregation::Devices), (Metric::L2, Aggregation::Host)]
    {
        let options = SearchOptions { batch: Some(1024), aggregation, ..SearchOptions::new(10) };
        let database = Shape::new(DType::BF16, [1_000_000_000, 128]);
        let plan = plan(&pod, metric, &database, &options).unwrap();
        assert_eq!((plan.devices, plan.chips(), plan.memory_per_device), (256, 256, Some(16 << 30)));
        // A 256th of the rows, and for L2 as many norms.
        assert!(plan.fits && (1_000_000_000..1_100_000_000).contains(&plan.bytes_per_device), "{plan:?}");
        assert!((0.95..=1.0).contains(&plan.expected_recall()), "{plan:?}");
        assert_eq!(plan.choices[0].form, Form::Native, "{plan:?}");
        // A chip's 197e12 multiplications and additions a second take 5.2 ms.
        assert!((5e-3..50e-3).contains(&plan.seconds.unwrap()), "{plan:?}");
    }
}

#[test]
fn the_form_that_is_asked_for_is_planned() {
    let Some(chip) = target("tpu:v5e:1x1") else { return };
    let options = SearchOptions::new(10);
    let tight = search(&chip, 1_000_000, &options);
    assert_eq!(tight.choices[0].form, Form::NativeTight);
    let xlas = search(&chip, 1_000_000, &SearchOptions { form: Some(Form::Native), ..options });
    assert_eq!(xlas.choices[0].form, Form::Native);
    assert!(xlas.expected_recall() > tight.expected_recall());
}

#[test]
fn the_smallest_topology_that_fits_is_found() {
    let options = SearchOptions::new(10);
    // In bf16[1, 128], a GiB has 4 Mi rows.
    for (generation, rows, smallest) in
        [("v4", 500_000_000, "v4:2x2x1"), ("v4", 530_000_000, "v4:2x2x2"), ("v6e", 132_000_000, "v6e:2x2")]
    {
        let Some(given) = target(&format!("tpu:{}", first(generation))) else { return };
        let database = Shape::new(DType::BF16, [rows, 128]);
        let (found, plan) = smallest_fit(&given, Metric::InnerProduct, &database, &options).unwrap().unwrap();
        assert_eq!(found.topology(), Some(smallest), "{rows} rows");
        assert!(plan.fits && plan.memory_per_device.unwrap() >= plan.bytes_per_device, "{plan:?}");
        for smaller in &given.description().unwrap().sizes {
            if smaller == smallest {
                break;
            }
            let plan = search(&Target::parse(&format!("tpu:{smaller}")).unwrap(), rows, &options);
            assert!(!plan.fits && plan.seconds.is_none(), "{smaller}: {plan:?}");
        }
    }
}

fn first(generation: &str) -> String {
    let known = tpu::GENERATIONS.iter().find(|known| known.name == generation).unwrap();
    format!("{generation}:{}", known.topologies[0])
}

#[test]
fn exact_searches_fit_block_by_block() {
    let Some(target) = target("tpu:v5e:2x2") else { return };
    let options = SearchOptions { batch: Some(1024), recall_target: 1.0, ..SearchOptions::new(10) };
    let plan = search(&target, 100_000_000, &options);
    assert!(plan.fits && plan.expected_recall() == 1.0, "{plan:?}");
}

#[test]
fn what_libtpu_cannot_estimate_has_no_estimate() {
    let Some(target) = target("tpu:v4:2x2x1") else { return };
    for form in [Form::Sort, Form::Blocks] {
        let options = SearchOptions { form: Some(form), ..SearchOptions::new(10) };
        let plan = search(&target, 1_000_000, &options);
        assert!(plan.fits && plan.seconds.is_none_or(|seconds| seconds > 0.0), "{plan:?}");
    }
}

#[test]
fn known_topologies_are_libtpus() {
    for generation in tpu::GENERATIONS {
        let mut before = 0;
        for topology in generation.topologies {
            let Some(target) = target(&format!("tpu:{}:{topology}", generation.name)) else { return };
            let chips: usize = topology.split('x').map(|size| size.parse::<usize>().unwrap()).product();
            let devices = target.describe().unwrap().topology().device_count();
            assert_eq!(devices, chips * generation.devices_per_chip, "{target}");
            assert!(before < devices, "{target}");
            before = devices;
        }
    }
}

#[test]
fn what_a_gpu_or_the_cpu_takes_is_told_without_estimates() {
    let database = Shape::new(DType::BF16, [1_000_000, 64]);
    for text in ["gpu:h100", "cpu"] {
        let Some(target) = target(text) else { return };
        let plan = plan(&target, Metric::L2, &database, &SearchOptions::new(10)).unwrap();
        assert!(plan.fits && plan.seconds.is_none() && plan.devices == 1, "{text}: {plan:?}");
        assert!(plan.bytes_per_device > 128_000_000, "{text}: {plan:?}");
    }
    let Some(h100) = target("gpu:h100") else { return };
    let database = Shape::new(DType::F32, [1_000_000_000, 128]);
    let unfit = plan(&h100, Metric::InnerProduct, &database, &SearchOptions::new(10)).unwrap();
    assert!(!unfit.fits, "{unfit:?}");
    let fit = smallest_fit(&h100, Metric::InnerProduct, &database, &SearchOptions::new(10)).unwrap();
    assert!(fit.is_none(), "{fit:?}");
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let Some(pod) = target("tpu:v5e:16x16") else { return };
    let refusal = |shape: [usize; 2], options: &SearchOptions| {
        plan(&pod, Metric::L2, &Shape::new(DType::F32, shape), options).unwrap_err().to_string()
    };
    let options = SearchOptions::new(10);
    for (shape, problem) in [
        ([100, 8], "devices must be from 1 to the database's 100 rows, got 256"),
        ([9, 8], "k must be from 1 to the database's 9 rows, got 10"),
        ([3_000_000_000, 8], "of at most 2147483647 rows"),
        ([1000, 0], "a matrix of vectors"),
        ([1_000_000, usize::MAX / 4], "of at most 9223372036854775807 bytes"),
    ] {
        let refusal = refusal(shape, &options);
        assert!(refusal.contains(problem), "{shape:?}: {refusal}");
    }
    let unknown = Target::parse("tpu:v99:2x2").unwrap();
    let database = Shape::new(DType::F32, [1000, 8]);
    let problem = plan(&unknown, Metric::L2, &database, &options).unwrap_err().to_string();
    assert!(problem.contains("v99"), "{problem}");
}

#[test]
fn the_command_line_prints_a_table() {
    if target("tpu:v5e:1x1").is_none() {
        return;
    }
    let folder = Folder::new();
    let printed = folder.run_logged(
        "plan --database-size 2e8 --dim 128 --dtype bf16 --batch 1024 -k 10 --target tpu:v5e:1x1,tpu:v6e:4x4",
    );
    let lines: Vec<&str> = printed.0.lines().collect();
    assert!(
        lines[0].starts_with("bf16[200000000,128], ip, k 10, batches of 1024: the estimates"),
        "{lines:?}"
    );
    assert!(lines[2].starts_with("target "), "{lines:?}");
    let words = |line: usize| lines[line].split_whitespace().collect::<Vec<_>>();
    assert_eq!(words(3)[..2], ["tpu:v5e:1x1", "1"]);
    assert!(lines[3].ends_with(" does not fit"), "{lines:?}");
    assert_eq!(words(4)[..2], ["tpu:v5e:2x2", "4"]);
    assert!(lines[4].ends_with(" native"), "{lines:?}");
    assert_eq!(words(5)[..2], ["tpu:v6e:4x4", "16"]);
    printed.contains("tpu:v5e:1x1: does not fit; the smallest topology that fits is tpu:v5e:2x2\n");
    printed.contains("tpu:v6e:4x4: approx_max_k f32[1024,12500000] k=10: native (");

    let planned = folder.run_logged(
        "plan --database-size 200000000 --dim 128 --dtype bf16 --batch 1024 -k 10 --target tpu:v5e:1x1 --json",
    );
    let planned = planned.json();
    assert!(planned["source"].as_str().unwrap().contains("nothing was run"), "{planned:?}");
    let row = &planned["targets"][0];
    assert_eq!((row["fits"].as_bool(), row["qps"].as_f64()), (Some(false), None));
    let smallest = &row["smallest_fit"];
    assert_eq!((smallest["target"].as_str(), smallest["chips"].as_u64()), (Some("tpu:v5e:2x2"), Some(4)));
    assert_eq!(smallest["memory_per_chip"].as_u64(), Some(16 << 30));
    let seconds = smallest["seconds_per_batch"].as_f64().unwrap();
    assert!((smallest["qps"].as_f64().unwrap() * seconds - 1024.0).abs() < 1e-6, "{row}");
}

#[test]
fn bad_arguments_of_the_command_line_are_refused() {
    let folder = Folder::new();
    for (words, status, problem) in [
        ("plan --dim 8 -k 1 --target cpu", 2, "--database-size"),
        ("plan --database-size 100 --dim 8 -k 1", 2, "--target"),
        ("plan --database-size 1.5 --dim 8 -k 1 --target cpu", 2, "such as 1000000 or 1e9"),
        ("plan --database-size -1 --dim 8 -k 1 --target cpu", 2, "such as 1000000 or 1e9"),
        ("plan --database-size 1e300 --dim 8 -k 1 --target cpu", 2, "such as 1000000 or 1e9"),
        ("plan --database-size 100 --dim 0 -k 1 --target cpu", 2, "1 or more"),
        ("plan --database-size 100 --dim 8 -k 1 --target abacus", 2, "one of cpu, gpu, tpu"),
        ("plan --database-size 100 --dim 8 -k 1 --dtype x9 --target cpu", 2, "x9"),
        ("plan --database-size 100 --dim 8 -k 1 --target gpu:no/such/file", 2, "h100, h200, a100"),
        ("plan --database-size 100 --dim 8 -k 1 --target tpu:v5e:16x16x16", 2, "up to 16x16"),
    ] {
        folder.refuses(words, status, problem);
    }
    let words = "plan --database-size 100 --dim 8 -k 1 --target tpu:v5e:2x2";
    let problem = "run xlann plugin install tpu";
    folder.refuses_command(folder.command_without_plugin(words), 1, problem);
}
