use super::*;

#[test]
fn sizes_are_jaxlibs() {
    let table = include_str!("../../tests/fixtures/reduction_output_size.csv");
    let mut rows = 0;
    for line in table.lines().filter(|line| !line.starts_with(['#', 'i'])) {
        let fields: Vec<&str> = line.split(',').collect();
        let int = |index: usize| fields[index].parse::<i64>().unwrap();
        let recall_target = fields[3].parse::<f64>().unwrap() as f32;
        let size = |aggregate| {
            reduction_output_size(
                int(0) as usize,
                int(1) as usize,
                int(2) as usize,
                recall_target,
                aggregate,
                usize::try_from(int(4)).ok(),
            )
            .unwrap_or_else(|error| panic!("{line}: {error}"))
        };
        let expected = ReductionSize { size: int(5) as usize, log2_reduction: int(6) as u32 };
        assert_eq!(size(false), expected, "{line}");
        // jaxlib 0.10.2 gives k even where less is left; later XLA gives the minimum.
        assert_eq!(size(true).size as i64, int(7).min(int(5)), "{line}");
        rows += 1;
    }
    assert!(rows > 2000, "{rows} rows");
}

#[test]
fn bad_arguments_are_refused_by_name() {
    let refusal = |n, rank, k, recall, size| {
        reduction_output_size(n, rank, k, recall, false, size).unwrap_err().to_string()
    };
    assert_eq!(refusal(10, 0, 1, 0.9, None), "approx_top_k: operand must be of rank 1 or more, got rank 0");
    assert_eq!(refusal(10, 1, 0, 0.9, None), "approx_top_k: k must be 1 or more, got 0");
    assert_eq!(
        refusal(500, 2, 600, 0.9, None),
        "approx_top_k: k must be at most the size of the reduction dimension (500), got 600"
    );
    for (recall, text) in [(0.0, "0"), (-1.0, "-1"), (1.5, "1.5"), (f32::NAN, "NaN")] {
        assert_eq!(
            refusal(500, 2, 10, recall, None),
            format!("approx_top_k: recall_target must be in (0, 1], got {text}")
        );
    }
    assert_eq!(
        refusal(500, 2, 10, 0.9, Some(499)),
        "approx_top_k: reduction_input_size_override must be at least the size of the reduction dimension \
         (500), got 499"
    );
}

#[test]
fn an_override_can_leave_less_than_k() {
    let reduced = reduction_output_size(1000, 2, 500, 0.95, true, Some(1 << 20)).unwrap();
    assert_eq!(reduced, ReductionSize { size: 128, log2_reduction: 3 });
}

#[test]
fn sizes_at_the_end_of_the_address_space_do_not_overflow() {
    for k in [1, 2, usize::MAX] {
        for recall in [1e-45, 0.95, 1.0 - f32::EPSILON / 2.0, 1.0] {
            for rank in [1, 2] {
                // The rounded-up size may pass the address space, but only by less than a tile.
                let n = usize::MAX / 2;
                let reduced =
                    reduction_output_size(n, rank, k.min(n), recall, false, Some(usize::MAX)).unwrap();
                assert!(reduced.size >= 128, "{reduced:?}");
            }
        }
    }
    assert!(reduction_output_size(usize::MAX, 2, 2, 1e-45, false, None).unwrap().size >= 128);
}

/// The expected recall over every placement of k marked elements among n, element j in bucket j mod `buckets`.
fn enumerated(n: usize, k: usize, buckets: usize, kept: usize) -> f64 {
    let (mut hits, mut placements) = (0, 0);
    for marked in 0u32..1 << n {
        if marked.count_ones() as usize == k {
            let mut counts = vec![0; buckets];
            (0..n).filter(|j| marked >> j & 1 == 1).for_each(|j| counts[j % buckets] += 1);
            hits += counts.iter().map(|&count: &usize| count.min(kept)).sum::<usize>();
            placements += 1;
        }
    }
    hits as f64 / (placements * k) as f64
}

#[test]
fn expected_recall_is_that_of_every_placement() {
    for n in 1..=10 {
        for k in 1..=n {
            for buckets in 1..=n + 2 {
                for kept in 1..=3 {
                    let expected = enumerated(n, k, buckets, kept);
                    let got = expected_recall(n, k, buckets, kept).unwrap();
                    assert!((got - expected).abs() < 1e-14, "{n} {k} {buckets} {kept}: {got}, {expected}");
                }
            }
        }
    }
}

/// A small generator of uniform numbers; SplitMix64.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn expected_recall_is_that_of_simulated_placements() {
    let mut state = 7;
    for (n, k, buckets, kept) in [(1000, 50, 128, 1), (1000, 100, 30, 4), (5000, 300, 257, 2)] {
        let rounds = 3000;
        let mut hits = 0;
        for _ in 0..rounds {
            let mut marked = std::collections::HashSet::new();
            while marked.len() < k {
                marked.insert(splitmix(&mut state) as usize % n);
            }
            let mut counts = vec![0usize; buckets];
            marked.iter().for_each(|j| counts[j % buckets] += 1);
            hits += counts.iter().map(|&count| count.min(kept)).sum::<usize>();
        }
        let simulated = hits as f64 / (rounds * k) as f64;
        let got = expected_recall(n, k, buckets, kept).unwrap();
        assert!((got - simulated).abs() < 2e-3, "{n} {k} {buckets} {kept}: {got}, {simulated}");
    }
}

#[test]
fn expected_recall_tends_to_its_limit() {
    for (k, buckets) in [(1, 1), (10, 128), (100, 16384), (5000, 1000), (1_000_000, 64)] {
        let limit = expected_recall_limit(k, buckets).unwrap();
        let got = expected_recall(1_000_000_000, k, buckets, 1).unwrap();
        assert!((got / limit - 1.0).abs() < 2.0 * k as f64 / 1e9 + 1e-9, "{k} {buckets}: {got}, {limit}");
        assert!(recall_lower_bound(k, buckets).unwrap() <= got + 1e-15);
    }
    assert_eq!(expected_recall_limit(5, 1).unwrap(), 0.2);
}

#[test]
fn small_losses_keep_their_digits() {
    // Two true neighbours share one of L buckets of n/L with the probability (n/L - 1)/(n - 1).
    let (n, buckets) = (1 << 30, 1 << 29);
    let lost = Recall::of(n, 2, buckets, 1).lost;
    let expected = 0.5 / (n as f64 - 1.0);
    assert!((lost / expected - 1.0).abs() < 1e-12, "{lost:e}, {expected:e}");
}

#[test]
fn bucket_counts_are_those_of_the_papers() {
    // (n, k, target, kept, buckets): powers of two that suffice where half of it does not.
    for (n, k, target, kept, buckets) in [
        (1 << 20, 100, 0.99, 1, 8192),
        (1 << 20, 100, 0.99, 2, 512),
        (1 << 20, 100, 0.99, 4, 128),
        (1 << 18, 1024, 0.95, 1, 16384),
        (1 << 18, 1024, 0.95, 2, 2048),
        (1 << 18, 1024, 0.95, 4, 512),
        (1 << 17, 2048, 0.99, 1, 65536),
        (1 << 17, 2048, 0.99, 2, 8192),
        (1 << 17, 2048, 0.99, 4, 2048),
    ] {
        let least = buckets_for_recall(n, k, kept, target).unwrap();
        assert_eq!(least.next_power_of_two(), buckets, "{n} {k} {target} {kept}: {least}");
    }
    assert!((expected_recall(1_000_000, 100, 16384, 1).unwrap() - 0.997).abs() < 5e-4);
    assert!((expected_recall(256_000, 1024, 32768, 1).unwrap() - 0.986).abs() < 5e-4);
}

#[test]
fn bucket_counts_are_the_least_that_suffice() {
    for n in 1..=24 {
        for k in 1..=n {
            for kept in 1..=3 {
                for target in [1e-9, 0.3, 0.5, 0.9, 0.99, 1.0] {
                    let least = (1..=n).find(|&l| expected_recall(n, k, l, kept).unwrap() >= target).unwrap();
                    assert_eq!(
                        buckets_for_recall(n, k, kept, target).unwrap(),
                        least,
                        "{n} {k} {kept} {target}"
                    );
                }
            }
        }
    }
    // A target of 1 means that nothing can be lost, not that the loss rounds to nothing.
    assert_eq!(buckets_for_recall(1_000_000_000, 2, 1, 1.0).unwrap(), 1_000_000_000);
    assert_eq!(buckets_for_recall(1000, 3, 3, 1.0).unwrap(), 1);
}

/// The recall over every placement of k marked elements among n, element j in the bucket that `bucket` gives.
fn of_every_placement(n: usize, k: usize, bucket: impl Fn(usize) -> usize) -> f64 {
    let (mut hits, mut placements) = (0, 0);
    for marked in 0u32..1 << n {
        if marked.count_ones() as usize == k {
            let marked = (0..n).filter(|j| marked >> j & 1 == 1);
            hits += marked.map(&bucket).collect::<std::collections::HashSet<_>>().len();
            placements += 1;
        }
    }
    hits as f64 / (placements * k) as f64
}

#[test]
fn recall_of_uneven_buckets_is_that_of_every_placement() {
    for (n, k, buckets) in
        [(10, 3, vec![4, 4, 2]), (9, 4, vec![1, 1, 3, 4]), (6, 6, vec![6]), (7, 2, vec![0, 7])]
    {
        let bucket = |j| {
            let ends = buckets.iter().scan(0, |end, size| {
                *end += size;
                Some(*end)
            });
            ends.filter(|&end| end <= j).count()
        };
        let sizes: Vec<_> = buckets.iter().map(|&size| (size, 1.0)).collect();
        let got = Recall::of_buckets(n, k, &sizes, 1).value();
        assert!((got - of_every_placement(n, k, bucket)).abs() < 1e-14, "{n} {k} {buckets:?}");
    }
}

#[test]
fn recall_of_a_reduction_is_that_of_simulated_placements() {
    let mut state = 11;
    // Full groups and chunks, a last group of fewer chunks, a last chunk of fewer elements; vectors; one group.
    for (n, rank, k, log2) in [
        (4096, 2, 40, 3),
        (5000, 2, 50, 3),
        (5000, 1, 200, 1),
        (700, 2, 60, 1),
        (700, 2, 20, 3),
        (1000, 2, 10, 1),
    ] {
        let chunk = if rank == 1 { 1024 } else { 128 };
        let reduction = reduced(n, rank, log2);
        let bucket = |j: usize| ((j / chunk) >> log2, j % chunk);
        let (rounds, mut hits) = (3000, 0);
        for _ in 0..rounds {
            let mut marked = std::collections::HashSet::new();
            while marked.len() < k {
                marked.insert(splitmix(&mut state) as usize % n);
            }
            let found: std::collections::HashSet<_> = marked.into_iter().map(bucket).collect();
            assert!(found.iter().all(|&(group, place)| group * chunk + place < reduction.size));
            hits += found.len();
        }
        let simulated = hits as f64 / (rounds * k) as f64;
        let got = reduction_recall(n, rank, k, reduction, None).unwrap();
        assert!((got - simulated).abs() < 2.5e-3, "{n} {rank} {k} {log2}: {got}, {simulated}");
    }
}

#[test]
fn tight_reductions_meet_the_target_with_the_least() {
    let mut smaller = 0;
    for n in [1, 100, 129, 1000, 5000, 100_000, 131_072, 1_000_000] {
        for rank in [1, 2] {
            for k in [1, 2, 10, 100, 1000, 2048] {
                for target in [0.5, 0.9, 0.95, 0.99, 0.999, 1.0] {
                    for whole in [None, Some(4 * n), Some(100 * n)] {
                        if k > n {
                            continue;
                        }
                        let context = format!("{n} {rank} {k} {target} {whole:?}");
                        let xla = reduction_output_size(n, rank, k, target, false, whole).unwrap();
                        let tight = tight_reduction_output_size(n, rank, k, target, whole).unwrap();
                        let recall = |to| reduction_recall(n, rank, k, to, whole).unwrap();
                        assert!(recall(tight) >= target.into(), "{context}: {tight:?}");
                        assert!(tight.size >= k && tight.size <= n, "{context}: {tight:?}");
                        if xla.size >= k {
                            assert!(recall(xla) >= target.into(), "{context}: {xla:?}");
                            assert!(tight.size <= xla.size, "{context}: {tight:?} {xla:?}");
                        }
                        if tight.log2_reduction > 0 {
                            let next = reduced(n, rank, tight.log2_reduction + 1);
                            let less = next.size < tight.size && next.size >= k;
                            assert!(!less || recall(next) < target.into(), "{context}: {tight:?}");
                        }
                        smaller += usize::from(tight.size < xla.size);
                    }
                }
            }
        }
    }
    assert!(smaller > 100, "{smaller}");
    // Where XLA reduces nothing.
    let of = |n, k, target| tight_reduction_output_size(n, 2, k, target, None).unwrap();
    assert_eq!(reduction_output_size(131_072, 2, 2048, 0.99, false, None).unwrap().log2_reduction, 0);
    assert_eq!(of(131_072, 2048, 0.99), ReductionSize { size: 65536, log2_reduction: 1 });
    assert_eq!(of(1_000_000, 10, 1.0), ReductionSize { size: 1_000_000, log2_reduction: 0 });
}
