//! The command line on bad input: a status, one line on standard error, and no file that was not there before.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use crate::common;
use crate::folder::{Folder, digits, npy, vecs};
use xlann::{Array, DType};

/// A folder with a good input of each command, and an output of an earlier run.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.write_npy("x.npy", &digits(DType::F32, &[4, 50], 1));
    folder.write_npy("db.npy", &digits(DType::F32, &[60, 8], 2));
    folder.write_npy("q.npy", &digits(DType::F32, &[5, 8], 3));
    folder.write("old.npy", "an earlier run's");
    std::fs::create_dir(folder.path("folder.npy")).unwrap();
    folder
}

/// A topk and a search that would write both outputs, one of them in place of an older file.
fn topk(rest: &str) -> String {
    format!("topk --values old.npy --indices new.npy {rest}")
}

fn search(rest: &str) -> String {
    format!("search --distances old.npy --indices new.npy {rest}")
}

#[test]
fn bad_usage_is_refused() {
    let folder = folder();
    let required = "the following required arguments were not provided: ";
    for (words, problem) in [
        ("", "'xlann' requires a subcommand"),
        ("--json", "'xlann' requires a subcommand"),
        ("plugin", "'xlann plugin' requires a subcommand"),
        ("hlo", "'xlann hlo' requires a subcommand"),
        ("serch", "unrecognized subcommand 'serch'; tip: a similar subcommand exists: 'search'"),
        ("plugin install", &format!("{required}<PLUGIN>")),
        ("plugin install abacus", "invalid value 'abacus' for '<PLUGIN>': expected one of cpu, cuda13, tpu"),
        ("compile", "'xlann compile' requires a subcommand"),
        (
            "compile topk --shape 9 -k 2 --target abacus",
            "platform must be one of cpu, gpu, tpu, got \"abacus\"",
        ),
        ("compile topk --shape 9 -k 2 --target cpu:2x2", "as it compiles only for what is attached"),
        ("compile topk --shape 9 -k 2 --target gpu:h1000", "one of h100, h200, a100, or a file"),
        ("compile topk --shape 9 -k 2 --target tpu:", "topology must be one after tpu:"),
        ("compile topk --shape 9 -k 2 --emit mlir", "invalid value 'mlir' for '--emit <WHAT>'"),
        ("topk --input x.npy -k 2 --target abacus", "platform must be one of cpu, gpu, tpu, got \"abacus\""),
        (
            "search --database db.npy --queries q.npy -k 2 --target gpu:h100",
            "platform must be one of cpu, gpu, tpu, got \"gpu:h100\"",
        ),
        ("plugin install cuda13 --library", "unexpected argument '--library' found"),
        ("doctor --frob", "unexpected argument '--frob' found"),
        ("doctor frob", "unexpected argument 'frob' found"),
        ("topk", &format!("{required}--input <X.npy> -k <K>")),
        ("topk --input x.npy", &format!("{required}-k <K>")),
        ("search -k 3 --database db.npy", &format!("{required}--queries <Q>")),
        ("hlo topk -k 3", &format!("{required}--shape <SHAPE>")),
        ("topk --input x.npy -k", "a value is required for '-k <K>' but none was supplied"),
        ("hlo topk --shape 9 -k 2 --dtype f31", "dtype: name must be one of pred,"),
        ("hlo topk --shape 9 --shape 8 -k 2", "cannot be used multiple times"),
    ] {
        folder.refuses(words, 2, problem);
    }
    for (option, problem) in [
        ("-k 0", "'-k <K>': expected a number of 1 or more"),
        ("-k -1", "'-k <K>': expected a number of 1 or more"),
        ("-k 1.5", "'-k <K>': expected a number of 1 or more"),
        ("-k 18446744073709551616", "'-k <K>': expected a number of 1 or more"),
        ("-k 2 --recall-target 0", "'--recall-target <R>': expected a number in (0, 1]"),
        ("-k 2 --recall-target 2", "expected a number in (0, 1]"),
        ("-k 2 --recall-target -0.5", "expected a number in (0, 1]"),
        ("-k 2 --recall-target nan", "expected a number in (0, 1]"),
        ("-k 2 --recall-target all", "expected a number in (0, 1]"),
        ("-k 2 --lowering magic", "expected auto or one of sort, two-stage, blocks"),
        ("-k 2 --repeat 0", "expected a number of 1 or more"),
        ("-k 2 --repeat -1", "-1"),
    ] {
        folder.refuses(&topk(&format!("--input x.npy {option}")), 2, problem);
        folder.refuses(&search(&format!("--database db.npy --queries q.npy {option}")), 2, problem);
    }
    for (option, problem) in [
        ("--dim one", "invalid value 'one' for '--dim <D>'"),
        ("--input-size-override many", "invalid value 'many' for '--input-size-override <N>'"),
        ("--metric l2", "unexpected argument '--metric' found"),
    ] {
        folder.refuses(&topk(&format!("--input x.npy -k 2 {option}")), 2, problem);
    }
    for (option, problem) in [
        ("--metric l3", "invalid value 'l3' for '--metric <METRIC>' [possible values: ip, l2, cosine]"),
        ("--batch 0", "'--batch <B>': expected a number of 1 or more"),
        ("--limit-queries 0", "'--limit-queries <N>': expected a number of 1 or more"),
        ("--devices 0", "'--devices <N>': expected a number of 1 or more"),
        ("--devices -1", "'--devices <N>': expected a number of 1 or more"),
        ("--devices all", "'--devices <N>': expected a number of 1 or more"),
        ("--aggregation cpu", "'--aggregation <AGGREGATION>' [possible values: devices, host]"),
        ("--check-recall --ground-truth gt.npy", "cannot be used with"),
        ("--min", "unexpected argument '--min' found"),
    ] {
        folder.refuses(&search(&format!("--database db.npy --queries q.npy -k 2 {option}")), 2, problem);
    }
}

#[test]
fn hlo_refuses_bad_shapes() {
    let folder = folder();
    for shape in ["128x", "x5", "5,5", "-3", "18446744073709551616", "abc", "5X5"] {
        let words = format!("hlo topk -k 1 --shape={shape}");
        folder.refuses(&words, 2, "'--shape <SHAPE>': expected sizes such as 128x100000");
    }
    for (words, problem) in [
        ("topk --shape 9 -k 10", "k must be at most the size of the reduction dimension (9), got 10"),
        ("topk --shape 5x0 -k 1", "k must be at most the size of the reduction dimension (0), got 1"),
        ("topk --shape 9x9 -k 2 --dim 2", "reduction_dimension must be in -2..2 for f32[9,9], got 2"),
        ("topk --shape 9 -k 2 --dtype s32", "dtype must be floating, got s32"),
        ("topk --shape 9 -k 2 --dtype pred", "dtype must be floating, got pred"),
        ("topk --shape 9 -k 2 --input-size-override 8", "reduction_input_size_override must be at least"),
        ("topk --shape 4294967296x4294967296 -k 1", "must be of at most 9223372036854775807 bytes"),
        ("topk --shape 3000000000 -k 1", "must be of at most 2147483647 elements"),
        ("search --database-shape 9 --queries-shape 1x9 -k 1", "shapes of two sizes"),
        ("search --database-shape 9x9 --queries-shape 9 -k 1", "shapes of two sizes"),
        ("search --database-shape 9x8 --queries-shape 1x9 -k 1", "of width 8"),
        ("search --database-shape 9x8 --queries-shape 0x8 -k 1", "1 or more"),
        ("search --database-shape 9x0 --queries-shape 1x0 -k 1", "matrix of vectors, got f32[9,0]"),
        ("search --database-shape 9x8 --queries-shape 1x8 -k 10", "from 1 to the database's 9 rows, got 10"),
        (
            "search --database-shape 9x8 --queries-shape 1x8 -k 1 --dtype s32",
            "must be one of f16, bf16, f32, f64",
        ),
        ("search --database-shape 9x8 --queries-shape 2305843009213693951x8 -k 1", "of at most"),
        ("search --database-shape 3000000000x1 --queries-shape 1x1 -k 1", "of at most 2147483647 rows"),
    ] {
        folder.refuses(&format!("hlo {words}"), 1, problem);
    }
}

#[test]
fn bad_files_are_refused() {
    let folder = folder();
    let whole = std::fs::read(folder.path("db.npy")).unwrap();
    folder.write("short.npy", &whole[..whole.len() - 1]);
    folder.write("header.npy", &whole[..70]);
    folder.write("long.npy", [&whole[..], &[0]].concat());
    folder.write("empty.npy", "");
    folder.write("garbage.npy", "\x1b[31m\n\ngarbage");
    folder.write("garbage.fvecs", [0xff; 100]);
    folder.write("uneven.fvecs", [&vecs(&digits(DType::F32, &[3, 8], 1))[..], &[8]].concat());
    folder.write("vectors.csv", "1,2,3");
    folder.write("no-ending", &whole);
    folder.write("big-endian.npy", npy(">f4", false, "1, 2", &[0; 8]));
    folder.write("huge.npy", npy("<f4", false, "4294967296, 4294967296", &[0; 8]));
    for (file, problem) in [
        ("missing.npy", "missing.npy: No such file or directory (os error 2)\n"),
        ("folder.npy", "folder.npy: expected a file, got a directory"),
        ("short.npy", "expected 1920 bytes of elements for f32[60,8], got 1919 bytes"),
        ("header.npy", "a file cut short after 70 bytes"),
        ("long.npy", "got 1921 bytes"),
        ("empty.npy", "0 bytes"),
        ("garbage.npy", "expected a .npy file"),
        ("garbage.fvecs", "expected rows of 1 or more elements, got a first row of -1"),
        ("uneven.fvecs", "expected a multiple of 36 bytes"),
        ("vectors.csv", "ends in .npy, .fvecs, .bvecs, .ivecs, .fbin, .u8bin or .ibin, got vectors.csv"),
        ("no-ending", "ends in .npy"),
        ("big-endian.npy", "expected little-endian elements"),
        ("huge.npy", "a shape that fits the address space"),
        ("old.npy/x.npy", "Not a directory"),
    ] {
        folder.refuses(&topk(&format!("--input {file} -k 1")), 1, problem);
        folder.refuses(&search(&format!("--database {file} --queries q.npy -k 1")), 1, problem);
        folder.refuses(&search(&format!("--database db.npy --queries {file} -k 1")), 1, problem);
        let words = format!("--database db.npy --queries q.npy -k 1 --ground-truth {file}");
        folder.refuses(&search(&words), 1, problem);
    }
}

#[test]
fn unreadable_files_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let closed = std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(folder.path("x.npy"), closed).unwrap();
    if std::fs::read(folder.path("x.npy")).is_ok() {
        println!("skipped: this user reads everything");
        return;
    }
    folder.refuses(&topk("--input x.npy -k 1"), 1, "x.npy: Permission denied");
}

#[test]
fn bad_arrays_are_refused() {
    if common::cpu().is_none() {
        return;
    }
    let folder = folder();
    folder.write_npy("scalar.npy", &Array::scalar(1f32));
    folder.write_npy("cube.npy", &digits(DType::F32, &[2, 3, 8], 1));
    folder.write_npy("narrow.npy", &digits(DType::F32, &[5, 7], 1));
    folder.write_npy("none.npy", &digits(DType::F32, &[0, 8], 1));
    folder.write_npy("thin.npy", &digits(DType::F32, &[5, 0], 1));
    folder.write_npy("integers.npy", &digits(DType::S32, &[5, 8], 1));
    for (words, problem) in [
        ("x.npy -k 51", "k must be at most the size of the reduction dimension (50), got 51"),
        ("x.npy -k 18446744073709551615", "got 18446744073709551615"),
        ("x.npy -k 2 --dim 2", "reduction_dimension must be in -2..2 for f32[4,50], got 2"),
        ("x.npy -k 2 --dim -3", "reduction_dimension must be in -2..2 for f32[4,50], got -3"),
        ("x.npy -k 2 --input-size-override 49", "reduction_input_size_override must be at least"),
        ("scalar.npy -k 1", "a scalar has none"),
        ("thin.npy -k 1", "k must be at most the size of the reduction dimension (0), got 1"),
        ("integers.npy -k 1", "operand's dtype must be floating, got s32"),
    ] {
        folder.refuses(&topk(&format!("--input {words}")), 1, problem);
    }
    let matrix = "expected a non-empty matrix, one vector a row, got";
    for (database, queries, k, problem) in [
        ("cube.npy", "q.npy", 1, format!("cube.npy: {matrix} f32[2,3,8]")),
        ("scalar.npy", "q.npy", 1, format!("scalar.npy: {matrix} f32[]")),
        ("none.npy", "q.npy", 1, format!("none.npy: {matrix} f32[0,8]")),
        ("thin.npy", "thin.npy", 1, format!("thin.npy: {matrix} f32[5,0]")),
        ("db.npy", "cube.npy", 1, format!("cube.npy: {matrix} f32[2,3,8]")),
        ("db.npy", "none.npy", 1, format!("none.npy: {matrix} f32[0,8]")),
        ("db.npy", "narrow.npy", 1, "expected queries of width 8, as the database f32[60,8]".into()),
        ("db.npy", "q.npy", 61, "k must be from 1 to the database's 60 rows, got 61".into()),
        ("db.npy", "q.npy", usize::MAX, "k must be from 1 to the database's 60 rows".into()),
    ] {
        let words = format!("--database {database} --queries {queries} -k {k}");
        folder.refuses(&search(&words), 1, &problem);
    }
}

#[test]
fn bad_ground_truths_are_refused() {
    let folder = folder();
    let write = |name, array: xlann::Result<Array>| folder.write_npy(name, &array.unwrap());
    write("few.npy", Array::new([4, 2], &[0; 8]));
    write("narrow.npy", Array::new([5, 1], &[0; 5]));
    write("vector.npy", Array::new([10], &[0; 10]));
    write("floats.npy", Array::new([5, 2], &[0f32; 10]));
    write("bytes.npy", Array::new([5, 2], &[0i8; 10]));
    write("past.npy", Array::new([5, 2], &[0, 1, 0, 60, 0, 1, 0, 1, 0, 1]));
    write("negative.npy", Array::new([5, 2], &[0, 1, 0, 1, 0, 1, 0, 1, 0, -2]));
    write("wide.npy", Array::new([5, 2], &[0, 1, 0, 1, 0, 1, 0, 1, 0, i64::MAX]));
    let shape = "expected 5 rows of 2 s32, s64, u32 or u64 at least";
    for (file, problem) in [
        ("few.npy", shape),
        ("narrow.npy", shape),
        ("vector.npy", shape),
        ("floats.npy", shape),
        ("bytes.npy", shape),
        ("past.npy", "expected rows of the database, 0 to 59, or -1 for none, got 60"),
        ("negative.npy", "expected rows of the database, 0 to 59, or -1 for none, got -2"),
        ("wide.npy", "expected rows of the database, 0 to 59, or -1 for none, got 92233720368547"),
    ] {
        let words = format!("--database db.npy --queries q.npy -k 2 --ground-truth {file}");
        folder.refuses(&search(&words), 1, problem);
    }
}

#[test]
fn devices_that_cannot_be_are_refused() {
    let folder = folder();
    let refused = "--devices must be at most the database's 60 rows, got 61";
    folder.refuses(&search("--database db.npy --queries q.npy -k 2 --devices 61"), 1, refused);
    if common::cpu().is_some() {
        folder.write_npy("long.npy", &digits(DType::F32, &[2000, 8], 1));
        let refused = "cpu_device_count must be an integer from 1 to 1024, got 1025";
        folder.refuses(&search("--database long.npy --queries q.npy -k 2 --devices 1025"), 1, refused);
        let refused = "k must be from 1 to the database's 60 rows, got 61";
        folder.refuses(&search("--database db.npy --queries q.npy -k 61 --devices 2"), 1, refused);
    }
}

#[test]
fn bad_outputs_are_refused() {
    let folder = folder();
    std::os::unix::fs::symlink("x.npy", folder.path("link.npy")).unwrap();
    let taken = "expected a file that is neither an input nor another output";
    for (outputs, problem) in [
        ("--values missing/v.npy", "missing/v.npy: No such file or directory"),
        ("--indices missing/i.npy", "missing/i.npy: No such file or directory"),
        ("--values old.npy/v.npy", "Not a directory"),
        ("--values folder.npy", "folder.npy: expected a file to write, got a directory"),
        ("--values /dev/null", "/dev/null: expected a file to write, got a device"),
        ("--values new.npy --indices new.npy", taken),
        ("--values old.npy --indices ./old.npy", taken),
        ("--values folder.npy/../new.npy --indices new.npy", taken),
        ("--values x.npy", taken),
        ("--indices folder.npy/../x.npy", taken),
        ("--values link.npy", taken),
    ] {
        folder.refuses(&format!("topk --input x.npy -k 2 {outputs}"), 1, problem);
    }
    folder.write_npy("gt.npy", &Array::new([5, 2], &[0; 10]).unwrap());
    for outputs in [
        "--distances db.npy",
        "--indices q.npy",
        "--ground-truth gt.npy --indices gt.npy",
        "--distances new.npy --indices new.npy",
    ] {
        folder.refuses(&format!("search --database db.npy --queries q.npy -k 2 {outputs}"), 1, taken);
    }
}

#[test]
fn readers_that_go_away_are_no_failure() {
    let folder = folder();
    for words in ["--help", "doctor", "hlo topk --shape 128x1000 -k 5", "hlo topk --shape 9 -k 5 --json"] {
        let mut command = folder.command_without_plugin(words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{words}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words}");
    }
    for (words, status) in [("frob", 2), ("topk --input missing.npy -k 1", 1)] {
        let mut child = folder.command(words).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stderr.take());
        assert_eq!(child.wait().unwrap().code(), Some(status), "{words}");
    }
}

#[test]
fn a_full_device_as_standard_output_is_a_failure() {
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else { return };
    for words in ["--help", "hlo topk --shape 9 -k 5"] {
        let folder = folder();
        let mut command = folder.command_without_plugin(words);
        command.stdout(full.try_clone().unwrap()).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with("error: standard output: No space left"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1);
    }
}

#[test]
fn a_run_that_is_ended_leaves_every_file_as_it_was() {
    if common::cpu().is_none() {
        return;
    }
    let folder = folder();
    let before = folder.listing();
    let words = search("--database db.npy --queries q.npy -k 2 --batch 1 --repeat 100000000");
    for wait in [50, 1500] {
        let mut child = folder.command(&words).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        // Not SIGINT, which a shell has the tests ignore that it runs in the background.
        let kill = common::command("kill").args(["-TERM", &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        assert_eq!(child.wait().unwrap().signal(), Some(15));
        assert_eq!(folder.listing(), before);
    }
}
