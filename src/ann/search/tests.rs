use super::*;

#[test]
fn searches_after_prepare_up_to_compile_nothing() {
    let Ok(session) = Session::cpu() else { return };
    // Far from the origin and without a centre, nothing is proven, so that all queries are searched again by differences.
    let numbers: Vec<f64> = (0..3000).map(|i| 1e6 + f64::from(i * 7919 % 3001) / 4.0).collect();
    let of = |dtype, rows: usize| {
        let shape = Shape::new(dtype, [rows, 3]);
        Array::from_f64(shape, &numbers[..3 * rows]).unwrap()
    };
    for (metric, form, precision, dtype) in [
        (Metric::L2, Some(Form::Blocks), Precision::Exact, DType::F32),
        (Metric::L2, None, Precision::Exact, DType::F32),
        (Metric::L2, None, Precision::Int8, DType::F32),
        (Metric::L2, Some(Form::Sort), Precision::Exact, DType::BF16),
        (Metric::InnerProduct, Some(Form::Blocks), Precision::Exact, DType::BF16),
        (Metric::Cosine, None, Precision::Exact, DType::F64),
    ] {
        let options =
            SearchOptions { form, precision, centred: Some(false), batch: Some(4), ..SearchOptions::new(2) };
        let searcher = Searcher::new(&session, of(dtype, 1000), metric, options).unwrap();
        searcher.prepare_up_to(7).unwrap();
        let prepared = searcher.batches.len();
        for queries in 1..=7 {
            for given in [DType::F32, DType::F64, dtype] {
                searcher.search(&of(given, queries)).unwrap();
            }
            assert_eq!(searcher.batches.len(), prepared, "{metric} {form:?} {precision} {dtype}, {queries}");
        }
    }
}
