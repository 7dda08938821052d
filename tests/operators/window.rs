//! Reductions over windows.

use crate::runner::run;
use xlann::{Array, DType, Function, Shape};

fn maximum(dtype: DType) -> Function {
    let scalar = Shape::scalar(dtype);
    Function::trace("maximum", &[scalar.clone(), scalar], |x| x[0].maximum(&x[1])).unwrap()
}

fn sum(dtype: DType) -> Function {
    let scalar = Shape::scalar(dtype);
    Function::trace("sum", &[scalar.clone(), scalar], |x| &x[0] + &x[1]).unwrap()
}

#[test]
fn windows_overlap_leave_gaps_and_reach_over_the_edges() {
    let x = Array::new([5], &[1, 5, 2, 4, 3]).unwrap();
    for (window, stride, padding, expected) in [
        (2, 1, (0, 0), vec![6, 7, 6, 7]),
        (2, 3, (0, 0), vec![6, 7]),
        (3, 2, (1, 1), vec![6, 11, 7]),
        (1, 2, (0, 0), vec![1, 2, 3]),
        (4, 1, (3, 0), vec![1, 6, 8, 12, 14]),
        (9, 1, (2, 2), vec![15]),
    ] {
        let function = Function::trace("windows", &[x.shape().clone()], |x| {
            x[0].reduce_window(0, &[window], &[stride], &[padding], sum(DType::S32))
        })
        .unwrap();
        let results = run(&function, std::slice::from_ref(&x));
        assert_eq!(results[0].to_vec::<i32>().unwrap(), expected, "{function}");
    }
}

#[test]
fn windows_of_every_rank_and_number() {
    for dtype in [DType::S8, DType::U16, DType::S64, DType::F16, DType::BF16, DType::F32, DType::F64] {
        let values: Vec<f64> = (0..24).map(|index| f64::from(index * 7 % 24)).collect();
        let x = Array::from_f64(Shape::new(dtype, [2, 3, 4]), &values).unwrap();
        let function = Function::trace("windows", &[x.shape().clone()], |x| {
            x[0].reduce_window(0, &[1, 2, 3], &[1, 1, 2], &[(0, 0), (0, 1), (1, 0)], maximum(dtype))
        })
        .unwrap();
        let results = run(&function, std::slice::from_ref(&x));
        let at = |i: usize, j: usize, k: usize| values[(i * 3 + j) * 4 + k];
        let mut expected = Vec::new();
        for i in 0..2 {
            for j in 0..3usize {
                for start in [-1isize, 1] {
                    let places =
                        (j..(j + 2).min(3)).flat_map(|j| (start.max(0)..start + 3).map(move |k| (j, k)));
                    expected.push(places.map(|(j, k)| at(i, j, k as usize)).fold(0.0, f64::max));
                }
            }
        }
        assert_eq!(results[0].to_f64(), expected, "{dtype}");
    }
}

#[test]
fn an_empty_operand_gives_an_empty_or_an_initial_output() {
    let x = Array::new([0, 3], &[0f32; 0]).unwrap();
    let function = Function::trace("windows", &[x.shape().clone()], |x| {
        x[0].reduce_window(0, &[1, 2], &[1, 1], &[(1, 1), (0, 0)], sum(DType::F32))
    })
    .unwrap();
    assert_eq!(run(&function, &[x])[0], Array::zeros(Shape::new(DType::F32, [2, 2])).unwrap());
}

#[test]
fn windows_that_do_not_fit_are_refused() {
    let refused = |window: &[usize], strides: &[usize], padding: &[(usize, usize)], dtype| {
        let shape = Shape::new(DType::F32, [5]);
        let built = Function::trace("windows", &[shape], |x| {
            x[0].reduce_window(0, window, strides, padding, sum(dtype))
        });
        built.unwrap_err().to_string()
    };
    let f32 = DType::F32;
    assert_eq!(
        refused(&[6], &[1], &[(0, 0)], f32),
        "reduce_window: window must be from 1 to the padded size of dimension 0 of f32[5], got 6"
    );
    assert_eq!(
        refused(&[0], &[1], &[(0, 0)], f32),
        "reduce_window: window must be from 1 to the padded size of dimension 0 of f32[5], got 0"
    );
    assert_eq!(refused(&[1], &[0], &[(0, 0)], f32), "reduce_window: strides must be 1 or more, got 0");
    assert_eq!(
        refused(&[1, 1], &[1], &[(0, 0)], f32),
        "reduce_window: window must be of 1 entries, one for each dimension of f32[5], got 2"
    );
    assert_eq!(
        refused(&[1], &[1], &[(usize::MAX, 1)], f32),
        "reduce_window: window must be from 1 to the padded size of dimension 0 of f32[5], got 1"
    );
    assert_eq!(
        refused(&[1], &[1], &[(0, 0)], DType::S32),
        "reduce_window: reducer must be from two f32[] to one, got sum"
    );
}
