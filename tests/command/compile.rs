//! `xlann compile`.

use crate::common;
use crate::folder::{Folder, succeeded};
use xlann::target::Target;

/// Whether there is a plugin that compiles for the target.
fn compiles_for(target: &str) -> bool {
    common::compiler(&Target::parse(target).unwrap()).is_some()
}

#[test]
fn hlo_for_a_described_target_needs_no_plugin() {
    let folder = Folder::new();
    for target in ["cpu", "gpu:h100", "tpu:v5e:2x2"] {
        let words = format!("compile topk --shape 8x1000 -k 5 --target {target}");
        let output = folder.command_without_plugin(&words).env_remove("XLANN_CACHE").output().unwrap();
        let printed = succeeded(&words, &output);
        assert!(printed.0.starts_with("// approx_max_k f32[8,1000] k=5: "), "{}", printed.0);
        printed.contains("\nHloModule topk");
    }
}

#[test]
fn a_target_without_its_plugin_says_how_to_install_it() {
    let folder = Folder::new();
    for (target, plugin) in [("cpu", "cpu"), ("gpu:h100", "cuda13"), ("tpu:v5e:2x2", "tpu")] {
        let words = format!("compile topk --shape 9 -k 5 --emit cost --target {target}");
        let problem = format!("run xlann plugin install {plugin}");
        folder.refuses_command(folder.command_without_plugin(&words), 1, &problem);
    }
}

#[test]
fn tpus_tell_their_estimates() {
    if !compiles_for("tpu:v5e:2x2") {
        return;
    }
    let folder = Folder::new();
    let search = "compile search --database-shape 100000x64 --queries-shape 32x64 -k 10 --target tpu:v5e:2x2";
    let cost = folder.run_logged(&format!("{search} --emit cost"));
    for name in ["optimal_seconds: ", "flops: ", "bytes of arguments: ", "bytes of temporaries: "] {
        cost.contains(name);
    }
    folder.run_logged(&format!("{search} --emit optimized-hlo")).contains("\nENTRY %");
    let words = "compile topk --shape 9 -k 2 --emit cost --target tpu:v99:2x2";
    let output = folder.command(words).output().unwrap();
    let problem = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && problem.contains("v99"), "{problem}");
}

#[test]
fn gpus_show_their_optimised_program() {
    if !compiles_for("gpu:h100") {
        return;
    }
    let folder = Folder::new();
    let topk = "compile topk --shape 8x10000 -k 10 --min --target gpu:h100";
    folder.run_logged(&format!("{topk} --emit optimized-hlo")).contains(" fusion(");
    folder.run_logged(&format!("{topk} --emit cost")).contains("bytes of arguments: 320000\n");
}

#[test]
fn costs_are_numbers_in_json() {
    if common::cpu().is_none() {
        return;
    }
    let folder = Folder::new();
    let object = folder.json("compile topk --shape 8x1000 -k 5 --emit cost");
    let memory = object["memory"].as_object().unwrap();
    assert_eq!(memory["arguments"], 32_000);
    assert!(memory.values().all(|bytes| bytes.is_i64() || bytes.is_u64()), "{object:?}");
    let cost = object["cost"].as_object().unwrap();
    assert!(cost.values().all(serde_json::Value::is_number), "{object:?}");
    assert_eq!(cost.is_empty(), object.contains_key("no_estimates"), "{object:?}");
}

#[test]
fn output_goes_to_a_file() {
    let folder = Folder::new();
    let printed = folder.run("compile topk --shape 8x1000 -k 5 -o module.hlo");
    printed.contains("module.hlo");
    let written = std::fs::read_to_string(folder.path("module.hlo")).unwrap();
    assert!(written.starts_with("HloModule topk"), "{written}");
    folder.refuses("compile topk --shape 8x1000 -k 5 -o .", 1, "expected a file to write, got a directory");
    folder.refuses("compile topk --shape 8x1000 -k 5 -o no/such/folder", 1, "no/such/folder");
}

#[test]
fn searches_are_those_that_suit_the_target() {
    let folder = Folder::new();
    let search = "compile search --database-shape 1000000x16 --queries-shape 128x16 -k 10";
    // On a TPU the scores are not kept, and there is nothing to do block by block.
    let words = format!("{search} --target tpu:v5e:2x2 --dtype bf16");
    let output = folder.command_without_plugin(&words).output().unwrap();
    let printed = succeeded(&words, &output);
    assert!(printed.0.contains("native-tight") && !printed.0.contains(" while("), "{}", printed.0);
    // On the CPU, a kernel keeps none either, of no metric.
    for metric in ["ip", "l2", "cosine"] {
        let words = format!("{search} --target cpu --metric {metric}");
        let output = folder.command_without_plugin(&words).output().unwrap();
        let printed = succeeded(&words, &output);
        assert!(printed.0.contains("xlann_fused_search") && !printed.0.contains(" while("), "{}", printed.0);
    }
    let words = format!("{search} --target cpu --dtype s32");
    let problem =
        "--dtype must be one of f16, bf16, f32, f64, to which a search on the cpu converts others, got s32";
    folder.refuses_command(folder.command_without_plugin(&words), 1, problem);
}

#[test]
fn stablehlo_keeps_approximate_top_k_unless_a_form_is_asked_for() {
    let folder = Folder::new();
    let topk = "compile topk --shape 8x1000 -k 5 --min --emit stablehlo";
    let printed = folder.run(topk);
    assert!(printed.0.starts_with("module @topk {\n"), "{}", printed.0);
    printed.contains("stablehlo.custom_call @ApproxTopK(%arg0, ");
    let printed = folder.run(&format!("{topk} --lowering sort"));
    assert!(
        printed.0.starts_with("// approx_min_k f32[8,1000] k=5: sort (asked for)\nmodule @topk {\n"),
        "{}",
        printed.0
    );
    printed.contains("\"stablehlo.sort\"(");
}

#[test]
fn executables_are_written_to_files() {
    let folder = Folder::new();
    folder.refuses(
        "compile topk --shape 8x1000 -k 5 --emit executable",
        2,
        "--emit executable needs -o FILE",
    );
    for (target, platform) in [("cpu", "cpu"), ("tpu:v5e:2x2", "tpu")] {
        let there = match target {
            "cpu" => common::cpu().is_some(),
            _ => compiles_for(target),
        };
        if !there {
            continue;
        }
        let words =
            format!("compile topk --shape 8x1000 -k 5 --emit executable --target {target} -o topk.exe");
        folder.run_logged(&words).contains("topk.exe");
        let file = xlann::data::ExecutableFile::read(folder.path("topk.exe")).unwrap();
        assert_eq!((file.platform_name(), file.signature().name.as_str()), (platform, "topk"));
    }
    if let Some(session) = common::cpu() {
        folder.run("compile topk --shape 2x4 -k 2 --emit executable -o topk.exe");
        let operand = xlann::Array::new([2, 4], &[3f32, 9.0, 7.0, 1.0, -1.0, -4.0, -2.0, -3.0]).unwrap();
        let results = session.load(folder.path("topk.exe")).unwrap().run_arrays(&[operand]).unwrap();
        assert_eq!(results[0], xlann::Array::new([2, 2], &[9f32, 7.0, -1.0, -2.0]).unwrap());
    }
}

#[test]
fn choices_are_explained_without_a_plugin() {
    let folder = Folder::new();
    let explained = |words: &str| {
        let words = format!("explain {words}");
        succeeded(&words, &folder.command_without_plugin(&words).output().unwrap()).0
    };
    let search = "search --database-shape 1000000x128 --queries-shape 128x128 -k 10";
    assert_eq!(
        explained(&format!("{search} --target tpu:v5e:2x2")),
        "approx_max_k f32[128,1000000] k=10: native-tight (PartialReduce to 128 meets the recall target, where XLA's \
         formula leaves 256); expected recall 0.9656\n\
         beside the database: a copy of 512000000 bytes, scaled by powers of two, only where the largest number is beyond \
         2^40 or below 2^-40\n\
         beside the database: a copy of 512000000 bytes, of the rows in the order in which devices search them\n"
    );
    let l2 = explained(&format!("{search} --metric l2 --json"));
    let object: serde_json::Value = serde_json::from_str(&l2).unwrap();
    let centred = &object["copies"][1];
    assert_eq!((&centred["bytes"], centred["when"].is_string()), (&512_000_000.into(), true), "{l2}");
    let topk = explained("topk --shape 8x1000000 -k 100 --min --lowering sort --target gpu:h100");
    assert_eq!(topk, "approx_min_k f32[8,1000000] k=100: sort (asked for); expected recall 1.0000\n");
    let words = format!("{search} --target tpu:v5e:2x2 --json");
    let object: serde_json::Value = serde_json::from_str(&explained(&words)).unwrap();
    assert_eq!(object["choices"][0]["lowering"], "native-tight");
    assert_eq!(object["choices"][0]["keeps_scores"], false);
    let words = "explain topk --shape 8x1000 -k 5 --target cpu --lowering native";
    folder.refuses_command(folder.command_without_plugin(words), 1, "native");
}
