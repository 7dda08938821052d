//! Derivatives of searches, of norms and cosines, and what of a database has a part in them.

use crate::required::{derivatives_match, vmap_matches};
use crate::runner::{self, in_form, random};
use xlann::ann::{Metric, cosine, half_norms, inverse_norms, l2, max_inner_product};
use xlann::lower::{self, Form};
use xlann::target::{cpu, gpu, tpu};
use xlann::{ApproxTopKOptions, Array, DType, Function, Result, Shape, Tensor, grad, jvp, vjp, vmap};

fn f64s(dims: &[usize]) -> Shape {
    Shape::new(DType::F64, dims)
}

fn search(x: &[Tensor], metric: Metric, k: usize) -> Result<(Tensor, Tensor)> {
    let options = ApproxTopKOptions { recall_target: 1.0, ..ApproxTopKOptions::default() };
    match metric {
        Metric::InnerProduct => max_inner_product(&x[0], &x[1], k, &options),
        Metric::L2 => l2(&x[0], &x[1], &half_norms(&x[1])?, k, &options),
        Metric::Cosine => cosine(&x[0], &x[1], &inverse_norms(&x[1])?, k, &options),
    }
}

/// The search of a database, of which norms are a part.
fn searching(metric: Metric, shapes: &[Shape; 2], k: usize) -> Function {
    Function::trace("search", shapes, |x| search(x, metric, k)).unwrap()
}

/// The gradient of the sum of the values of the `k` best, by queries and database.
fn gradient(metric: Metric, shapes: &[Shape; 2], k: usize) -> Function {
    let sum = Function::trace("sum", shapes, |x| search(x, metric, k)?.0.reduce_sum(&[0, 1])).unwrap();
    grad(&sum, &[0, 1]).unwrap()
}

#[test]
fn searches_have_derivatives_of_every_order() {
    let shapes = [f64s(&[2, 3]), f64s(&[6, 3])];
    for metric in Metric::ALL {
        let arguments = [random(shapes[0].clone(), 1), random(shapes[1].clone(), 2)];
        derivatives_match(&searching(metric, &shapes, 2), &arguments, &[0, 1]);
        vmap_matches(&gradient(metric, &shapes, 2), |seed| {
            vec![random(shapes[0].clone(), seed), random(shapes[1].clone(), seed + 50)]
        });
    }
}

/// Rows to be found, then rows to be left: none is found, whatever it holds.
fn with_others(found: &[[f64; 2]], dtype: DType) -> Array {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    // Infinite scores are the worst by any metric, or none.
    let others = [[nan, 1.0], [-inf, 1.0], [nan, inf], [0.0, 0.0], [-inf, -inf], [0.0, nan]];
    let rows: Vec<f64> = found.iter().chain(&others).flatten().copied().collect();
    Array::from_f64(Shape::new(dtype, [rows.len() / 2, 2]), &rows).unwrap()
}

#[test]
fn rows_that_are_not_found_have_no_part_in_a_gradient() {
    for dtype in [DType::F32, DType::F64] {
        let queries = Array::from_f64(Shape::new(dtype, [1, 2]), &[3.0, 4.0]).unwrap();
        let database = with_others(&[[4.0, 3.0], [3.0, 3.0]], dtype);
        let shapes = [queries.shape().clone(), database.shape().clone()];
        // Of cos(q, r) by q: r / (|q| |r|) - cos(q, r) q / |q|^2, and likewise by r.
        let by = |x: [f64; 2], y: [f64; 2]| {
            let dot = |a: [f64; 2], b: [f64; 2]| a[0] * b[0] + a[1] * b[1];
            let (xx, yy) = (dot(x, x).sqrt(), dot(y, y).sqrt());
            [0, 1].map(|i| y[i] / (xx * yy) - dot(x, y) / (xx * yy) * x[i] / (xx * xx))
        };
        let (q, [r, s]) = ([3.0, 4.0], [[4.0, 3.0], [3.0, 3.0]]);
        let [from_r, from_s] = [by(q, r), by(q, s)];
        let cosines = [from_r[0] + from_s[0], from_r[1] + from_s[1]];
        for (metric, by_query, by_rows) in [
            (Metric::InnerProduct, [7.0, 6.0], [q, q]),
            // Half distances less |q|^2 / 2.
            (Metric::L2, [-7.0, -6.0], [[1.0, -1.0], [0.0, -1.0]]),
            (Metric::Cosine, cosines, [by(r, q), by(s, q)]),
        ] {
            let expected = [by_query.to_vec(), by_rows.concat()];
            for results in
                in_form(&gradient(metric, &shapes, 2), None, &[vec![queries.clone(), database.clone()]])
                    .concat()
            {
                let [of_queries, of_rows] = [&results[0], &results[1]].map(Array::to_f64);
                let (found, others) = of_rows.split_at(4);
                for (got, expected) in of_queries.iter().chain(found).zip(expected.concat()) {
                    assert!(
                        (got - expected).abs() < 1e-6,
                        "{metric} {dtype}: {got} for {expected}, {results:?}"
                    );
                }
                assert!(others.iter().all(|&x| x == 0.0), "{metric} {dtype}: {results:?}");
            }
        }
        // Forward, and forward over reverse.
        for metric in Metric::ALL {
            for function in [searching(metric, &shapes, 2), gradient(metric, &shapes, 2)] {
                let derivative = jvp(&function, &[0, 1]).unwrap();
                let ones = [1.0; 16];
                let tangents = shapes
                    .each_ref()
                    .map(|shape| Array::from_f64(shape.clone(), &ones[..shape.element_count()]));
                let tangents = tangents.into_iter().map(xlann::Result::unwrap);
                let arguments: Vec<Array> =
                    [queries.clone(), database.clone()].into_iter().chain(tangents).collect();
                for result in in_form(&derivative, None, &[arguments]).concat().concat() {
                    assert!(result.to_f64().iter().all(|x| x.is_finite()), "{metric} {dtype}: {result}");
                }
            }
        }
    }
}

#[test]
fn searches_stay_kernels() {
    let shapes = [Shape::new(DType::F32, [16, 8]), Shape::new(DType::F32, [5000, 8])];
    for metric in Metric::ALL {
        let f = searching(metric, &shapes, 5);
        for function in [
            f.clone(),
            vmap(&f, 0, 0, 3).unwrap(),
            vmap(&vmap(&f, [Some(1), None], 0, 3).unwrap(), [None, Some(2)], 1, 2).unwrap(),
            vjp(&f, &[0, 1]).unwrap(),
            jvp(&f, &[0]).unwrap(),
            vmap(&vjp(&f, &[0, 1]).unwrap(), 0, 0, 3).unwrap(),
        ] {
            let options = lower::Options::default();
            let choices = lower::explain(&function, &cpu::CAPABILITIES, &options).unwrap();
            assert!(choices.iter().all(|choice| choice.form == Form::Kernel), "{choices:?} of {function}");
            assert_eq!(choices.len(), 1);
            for capabilities in [&gpu::CAPABILITIES, &tpu::CAPABILITIES] {
                lower::lower(&function, capabilities, &options).unwrap();
            }
        }
        // What only a derivative needs is not there.
        let lowered = lower::lower(&f, &cpu::CAPABILITIES, &lower::Options::default()).unwrap().function;
        let text = lowered.to_string();
        assert!(!text.contains("gather") && !text.contains("with_derivative_of"), "{text}");
        assert!(!lower::stablehlo(&f, &cpu::CAPABILITIES).unwrap().contains("gather"));
    }
}

#[test]
fn a_search_along_queries_is_refused() {
    let shapes = [f64s(&[2, 3]), f64s(&[6, 3])];
    let options = ApproxTopKOptions { reduction_dimension: 0, ..ApproxTopKOptions::default() };
    let problem =
        Function::trace("f", &shapes, |x| max_inner_product(&x[0], &x[1], 1, &options)).unwrap_err();
    assert_eq!(
        problem.to_string(),
        "max_inner_product: reduction_dimension must be 1 or -1, along the database's rows, got 0"
    );
}

#[test]
fn a_value_can_have_the_derivative_of_another() {
    let shapes = [f64s(&[3]), f64s(&[3])];
    let f = Function::trace("f", &shapes, |x| x[0].floor()?.with_derivative_of(&(&x[0] * &x[1])?)).unwrap();
    let arguments = [[1.5, -2.5, 0.0], [2.0, 3.0, 4.0], [1.0, 10.0, 100.0]];
    let arguments = arguments.map(|values| Array::new([3], &values).unwrap());
    let results = runner::run(&vjp(&f, &[0, 1]).unwrap(), &arguments);
    let expected = [[1.0, -3.0, 0.0], [2.0, 30.0, 400.0], [1.5, -25.0, 0.0]];
    assert_eq!(results, expected.map(|values| Array::new([3], &values).unwrap()));
    vmap_matches(&f, |seed| shapes.each_ref().map(|shape| random(shape.clone(), seed)).to_vec());

    // Among tangents it is its value, and so is its transpose.
    let derivative = Function::trace("derivative", &[f64s(&[]), f64s(&[])], |x| {
        (&x[1] * 3)?.with_derivative_of(&(&x[1] * 5)?)
    });
    let call = xlann::CustomCall::new("kernel", [f64s(&[])]).derivative(derivative.unwrap());
    let f = Function::trace("f", &[f64s(&[])], |x| x[0].builder().custom_call(call, &[&x[0]])).unwrap();
    let gradient = grad(&f, &[0]).unwrap();
    assert_eq!(gradient.eval(&[Array::scalar(1f64)]).unwrap(), [Array::scalar(3f64)]);

    let problem =
        Function::trace("f", &[f64s(&[2]), f64s(&[3])], |x| x[0].with_derivative_of(&x[1])).unwrap_err();
    assert_eq!(problem.to_string(), "with_derivative_of: other must be of shape f64[2], got f64[3]");
}

fn norms(shape: &Shape) -> Function {
    Function::trace("norms", std::slice::from_ref(shape), |x| inverse_norms(&x[0])).unwrap()
}

#[test]
fn inverse_norms_hold_for_rows_of_any_length() {
    for (dtype, scales, tolerance) in [
        (DType::F16, vec![1e-4, 1.0, 1000.0], 2e-3),
        (DType::BF16, vec![1e-37, 1e-20, 1.0, 1e30, 1e37], 2e-2),
        (DType::F32, vec![1e-37, 1e-30, 1e-20, 1.0, 1e20, 1.5e37], 1e-6),
        (DType::F64, vec![1e-300, 1e-200, 1.0, 1e200, 1e306], 1e-15),
    ] {
        // Of norm 5, and of 5 elements; then of zeros, with an infinity, and with a NaN.
        let row = [3.0, 0.0, -4.0, 0.0, 0.0];
        let rows: Vec<f64> = scales.iter().flat_map(|scale| row.map(|x| x * scale)).collect();
        let others = [[0.0; 5], [f64::INFINITY, 0.0, 1.0, 0.0, 0.0], [0.0, f64::NAN, 1.0, 0.0, 0.0]];
        let rows = [rows, others.concat()].concat();
        let rows = Array::from_f64(Shape::new(dtype, [scales.len() + 3, 5]), &rows).unwrap();
        for results in in_form(&norms(rows.shape()), None, &[vec![rows.clone()]]).concat() {
            let got = results[0].to_f64();
            for (got, scale) in got.iter().zip(&scales) {
                assert!((got * 5.0 * scale - 1.0).abs() < tolerance, "{dtype}: {got} of {scale}");
            }
            assert_eq!(got[scales.len()..][..2], [0.0, 0.0], "{dtype}");
            assert!(got[scales.len() + 2].is_nan(), "{dtype}");
        }
    }
    let none = Array::new([2, 0], &[0f32; 0]).unwrap();
    assert_eq!(norms(none.shape()).eval(&[none]).unwrap(), [Array::new([2], &[0f32; 2]).unwrap()]);
}

#[test]
fn inverse_norms_have_derivatives_of_two_orders_and_none_at_zeros() {
    let shape = f64s(&[3, 2]);
    let function = norms(&shape);
    let argument = [Array::new([3, 2], &[0.3, -0.4, 1.5, 2.0, -30.0, 7.0]).unwrap()];
    derivatives_match(&function, &argument, &[0]);

    // By x of 1 / |x|: -x / |x|^3; of that along t: 3 (x t) x / |x|^5 - t / |x|^3. At zeros, all are 0.
    let rows = [[3.0, 4.0], [0.0, 0.0], [-0.0, 0.0]];
    let directions = [[1.0, 0.0], [1.0, 2.0], [1.0, 1.0]];
    let gradient = grad(
        &Function::trace("sum", std::slice::from_ref(&shape), |x| inverse_norms(&x[0])?.reduce_sum(&[0]))
            .unwrap(),
        &[0],
    )
    .unwrap();
    let second = jvp(&gradient, &[0]).unwrap();
    let arguments = [rows, directions].map(|rows| Array::new([3, 2], &rows.concat()).unwrap());
    let results = runner::run(&second, &arguments);
    let close = |got: &Array, expected: [f64; 2]| {
        for (got, expected) in got.to_f64().iter().zip([expected, [0.0; 2], [0.0; 2]].concat()) {
            assert!((got - expected).abs() < 1e-15, "{got} for {expected}");
        }
    };
    close(&results[0], [-3.0 / 125.0, -4.0 / 125.0]);
    close(&results[1], [27.0 / 3125.0 - 1.0 / 125.0, 36.0 / 3125.0]);
    // Reverse over reverse.
    let twice = vjp(&gradient, &[0]).unwrap();
    close(&runner::run(&twice, &arguments)[1], [27.0 / 3125.0 - 1.0 / 125.0, 36.0 / 3125.0]);
}

#[test]
fn cosines_are_within_one_for_vectors_of_any_length() {
    // Rows in the direction of the query, and against it: rounding alone tells the cosines from 1.
    let scales = [1e-36, 3e-20, 0.7, 1.1, 3.3, 5e19, 6e36];
    let query = [0.1, 0.3, -0.7, 0.9, 0.2];
    let rows: Vec<f64> = scales
        .iter()
        .flat_map(|scale| [1.0, -1.0].map(|sign| query.map(|x| x * scale * sign)))
        .flatten()
        .collect();
    let database = Array::from_f64(Shape::new(DType::F32, [14, 5]), &rows).unwrap();
    let lengths = [1e-44, 1e-30, 1.0, 1.7, 1e30, 3e38];
    let queries: Vec<f64> = lengths.iter().flat_map(|length| query.map(|x| x * length)).collect();
    let queries = Array::from_f64(Shape::new(DType::F32, [6, 5]), &queries).unwrap();
    let f = searching(Metric::Cosine, &[queries.shape().clone(), database.shape().clone()], 14);
    for (device, results) in in_form(&f, None, &[vec![queries, database]]).concat().into_iter().enumerate() {
        for (query, cosines) in results[0].to_f64().chunks(14).enumerate() {
            // A subnormal query has few digits, and a device takes it for zeros.
            let (tolerance, zero) = if query == 0 { (0.1, cosines[0] == 0.0) } else { (1e-6, false) };
            for (place, cosine) in cosines.iter().enumerate() {
                let expected = if zero {
                    0.0
                } else if place < 7 {
                    1.0
                } else {
                    -1.0
                };
                assert!(cosine.abs() <= 1.0, "{device} {query} {place}: {cosine}");
                assert!((cosine - expected).abs() < tolerance, "{device} {query} {place}: {cosine}");
            }
        }
    }
}
