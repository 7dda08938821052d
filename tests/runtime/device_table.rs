//! What scripts/check-device prints, of sizes for a test.

#[allow(dead_code, reason = "its main is not run")]
#[path = "../../examples/check_device.rs"]
mod check_device;

use crate::common;
use check_device::{Arguments, check};
use xlann::DType;
use xlann::lower::Form;

#[test]
fn every_form_of_the_platform_is_checked_and_compared() {
    let Some(session) = common::session() else { return };
    let arguments = Arguments {
        platform: common::platform(),
        dtypes: vec![DType::F32],
        rows: 4,
        size: 640,
        width: 8,
        repeat: 3,
    };
    let mut table = String::new();
    let problems = check(session, &arguments, &mut |line| table += &(line + "\n")).unwrap();
    println!("{table}");
    assert_eq!(problems, [""; 0]);
    assert!(table.contains(&session.client().plugin().path().display().to_string()));
    for work in ["max of f32[4,640], k 10", "min of f32[4,640], k 100", "search of f32[640,8], l2, k 10"] {
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
            .filter(|cells: &Vec<_>| cells[0] == work)
            .collect();
        let forms: Vec<_> = rows.iter().map(|cells| cells[1].trim_end_matches(" *")).collect();
        assert_eq!(
            forms,
            session.platform().capabilities.forms.iter().copied().map(Form::name).collect::<Vec<_>>()
        );
        assert_eq!((rows[0][3], rows[0][5]), ("1.0000", "1.000"), "{work}: the device's own top-k is exact");
        assert_eq!(
            rows.iter().filter(|cells| cells[1].ends_with(" *")).count(),
            1,
            "one is chosen for {work}"
        );
    }
}

#[test]
fn wrong_results_are_problems() {
    use check_device::compare;
    use xlann::Array;

    let scores = [5.0, 1.0, 4.0, 4.0, 0.0];
    let best = [vec![5.0, 4.0, 4.0]];
    let with = |indices: [i32; 2], values: [f64; 2]| {
        let indices = Array::new([1, 2], &indices).unwrap();
        compare(&indices, &values, &best, 2, 0.0, |_, index| scores.get(index).copied()).unwrap()
    };
    assert_eq!(with([0, 2], [5.0, 4.0]), (1.0, None));
    assert_eq!(with([0, 3], [5.0, 4.0]), (1.0, None), "equal values are equally good");
    assert_eq!(with([0, 1], [5.0, 1.0]), (0.5, None));
    for (indices, values, problem) in [
        ([0, 0], [5.0, 5.0], "an index twice"),
        ([0, 2], [5.0, 4.5], "4.5 at 2, where Some(4.0) is"),
        ([0, 5], [5.0, 4.0], "4 at 5, where None is"),
        ([0, -1], [5.0, 0.0], "0 at -1"),
        ([2, 0], [4.0, 5.0], "not sorted"),
    ] {
        let (recall, found) = with(indices, values);
        assert!(recall == 0.0 && found.as_ref().is_some_and(|found| found.contains(problem)), "{found:?}");
    }
}
