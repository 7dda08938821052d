use super::*;
use crate::Function;
use crate::lower::two_stage::two_stage_buckets;
use crate::ops::approx_top_k::{ApproxTopK, Direction, Tangent};

/// The bucket of each element, where each stride has each of its elements once.
fn buckets(size: usize, count: usize, k: usize) -> Vec<usize> {
    let unused = [Shape::scalar(DType::S32)];
    let elements =
        Function::trace("elements", &unused, |x| Buckets::new(size, count, k).elements(x[0].builder(), 1));
    let elements = elements.unwrap().eval(&[Array::scalar(0)]).unwrap()[0].to_vec::<i32>().unwrap();
    let mut buckets = vec![usize::MAX; elements.len()];
    for (place, element) in elements.into_iter().enumerate() {
        let element = element as usize;
        assert_eq!(element / count, place / count, "element {element} is of another stride");
        assert_eq!(buckets[element], usize::MAX, "element {element} comes twice");
        buckets[element] = place % count;
    }
    buckets.truncate(size);
    buckets
}

/// The planned number of buckets.
fn planned(size: usize, k: usize, recall_target: f32) -> usize {
    let op = ApproxTopK {
        direction: Direction::Max,
        k,
        reduction_dimension: 1,
        recall_target,
        reduction_input_size_override: None,
        aggregate_to_topk: true,
        tangent: Tangent::Gather,
    };
    two_stage_buckets(&op, size, k, crate::target::gpu::CAPABILITIES.bucket_multiple).unwrap()
}

/// How many of elements are found: one of each bucket.
fn found(
    buckets: &[usize],
    elements: impl Iterator<Item = usize>,
    taken: &mut [usize],
    mark: usize,
) -> usize {
    let fresh = |element: usize| std::mem::replace(&mut taken[buckets[element]], mark) != mark;
    elements.map(fresh).filter(|&fresh| fresh).count()
}

#[test]
fn the_first_stride_is_as_it_is() {
    for (size, count) in [(5000, 128), (1000, 1000), (999, 111), (640, 32)] {
        assert!(buckets(size, count, 10)[..count].iter().copied().eq(0..count));
    }
}

#[test]
fn neighbours_side_by_side_are_in_different_buckets() {
    // Of the last one, the strides take more than one table.
    for (size, count, k) in [
        (100_000, 128, 10),
        (100_000, 1024, 100),
        (50_000, 256, 64),
        (5000, 2560, 500),
        (TABLE * 128 * 2 + 999, 128, 30),
    ] {
        let buckets = buckets(size, count, k);
        let mut taken = vec![usize::MAX; count];
        for first in 0..=size - k {
            let found = found(&buckets, first..first + k, &mut taken, first);
            assert_eq!(found, k, "{k} from {first} on of {size} in {count} buckets");
        }
    }
}

#[test]
fn the_recall_target_is_met_at_every_period() {
    for (size, k, target) in [
        (100_000, 10, 0.95),
        (100_000, 10, 0.99),
        (131_072, 5, 0.9),
        (500_000, 50, 0.95),
        (1_000_000, 100, 0.95),
        (300_000, 20, 0.8),
    ] {
        let count = planned(size, k, target);
        let buckets = buckets(size, count, k);
        let mut taken = vec![usize::MAX; count];
        let (mut mark, mut worst) = (0, (1.0, 0));
        for period in 1..=4096 {
            // Of more than 10,000 neighbours, those of a query at this distance of each other.
            let queries = 10_000 / k + 1;
            let places = size - (k - 1) * period;
            let mut sum = 0;
            for query in 0..queries {
                let first = query * places / queries;
                mark += 1;
                sum += found(&buckets, (0..k).map(|i| first + i * period), &mut taken, mark);
            }
            let recall = sum as f64 / (queries * k) as f64;
            if recall < worst.0 {
                worst = (recall, period);
            }
        }
        println!(
            "{k} of {size}, {count} buckets: {target} is to be met, the least is {:.4} at {}",
            worst.0, worst.1
        );
        assert!(worst.0 >= f64::from(target) - 0.01, "{worst:?} for {k} of {size} in {count} buckets");
    }
}

#[test]
fn the_recall_target_is_met_by_clusters() {
    let mut state = 1;
    for (size, k, target, run, period) in [
        // Some runs of neighbours, and neighbours at random multiples of a period.
        (100_000, 10, 0.95, 5, 1),
        (1_000_000, 100, 0.95, 10, 1),
        (1_000_000, 100, 0.95, 50, 1),
        (32_768, 10, 0.95, 1, 256),
        (100_000, 10, 0.95, 1, 128),
        (100_000, 10, 0.95, 2, 128),
        (500_000, 50, 0.9, 1, 1024),
    ] {
        let count = planned(size, k, target);
        let buckets = buckets(size, count, k);
        let mut taken = vec![usize::MAX; count];
        let queries = 20_000 / k;
        let (mut sum, mut of) = (0, 0);
        for mark in 0..queries {
            let place = random(&mut state) as usize % period;
            let mut elements: Vec<usize> = (0..k / run)
                .flat_map(|_| {
                    let first = random(&mut state) as usize % ((size - run) / period) * period + place;
                    first..first + run
                })
                .filter(|&element| element < size)
                .collect();
            elements.sort_unstable();
            elements.dedup();
            of += elements.len();
            sum += found(&buckets, elements.into_iter(), &mut taken, mark);
        }
        let recall = sum as f64 / of as f64;
        println!("{k} of {size} in runs of {run}, period {period}: {recall:.4}");
        assert!(recall >= f64::from(target) - 0.01, "{recall} for {k} of {size} in runs of {run}, {period}");
    }
}
