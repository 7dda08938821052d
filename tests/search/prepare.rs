//! Which programs a searcher compiles, and when.

use std::sync::Barrier;
use std::time::Duration;

use crate::nearest::{assert_nearest, exact, matrix};
use crate::runner::session;
use xlann::DType;
use xlann::ann::{Metric, SearchOptions, Searcher};
use xlann::lower::Precision;

#[test]
fn prepared_sizes_are_not_compiled_again() {
    let Some(session) = session() else { return };
    let database = matrix(DType::F32, [3000, 9], 1);
    // At a lower precision, what fills up a batch counts for its recall.
    for precision in [Precision::Exact, Precision::Int8] {
        for (batch, queries, expected) in
            [(8, 100, &[1, 2, 4, 8][..]), (6, 6, &[1, 2, 4, 6]), (1000, 5, &[1, 2, 4, 8]), (8, 0, &[])]
        {
            let options = SearchOptions { batch: Some(batch), precision, ..SearchOptions::new(4) };
            let searcher = Searcher::new(session, database.clone(), Metric::InnerProduct, options).unwrap();
            let (sizes, compiled_in) = searcher.prepare_up_to(queries).unwrap();
            assert_eq!(sizes, expected, "{queries} queries, batches of {batch}");
            // A compilation that is made anew takes another time.
            let times = (1..=queries.min(batch)).map(|count| searcher.prepare(count).unwrap().1);
            let mut times: Vec<Duration> = times.collect();
            times.dedup();
            assert_eq!(times.iter().sum::<Duration>(), compiled_in, "{queries} queries, batches of {batch}");
            assert_eq!(searcher.prepare_up_to(queries).unwrap(), (sizes, compiled_in));
        }
    }
}

#[test]
fn callers_of_a_new_size_share_its_compilation() {
    let Some(session) = session() else { return };
    let database = matrix(DType::F32, [1003, 9], 1);
    let searcher = Searcher::new(session, database.clone(), Metric::L2, exact(4)).unwrap();
    searcher.prepare(1).unwrap();
    let together = Barrier::new(9);
    let compile = |thread: usize| {
        together.wait();
        searcher.prepare(2 << (thread % 2)).unwrap().1
    };
    let times: Vec<Duration> = std::thread::scope(|scope| {
        let compile = &compile;
        let callers: Vec<_> = (0..8).map(|thread| scope.spawn(move || compile(thread))).collect();
        together.wait();
        let queries = matrix(DType::F32, [1, 9], 2);
        let found = searcher.search(&queries).unwrap();
        assert_nearest(&found, Metric::L2, &queries, &database, "while others compile");
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    // A compilation that is made anew takes another time.
    assert!(times.iter().enumerate().all(|(thread, time)| *time == times[thread % 2]), "{times:?}");
}
