//! Searches with random and nasty contents, and a naive version of them in f64.

use std::cmp::Ordering;

use half::bf16;
use xlann::{Array, DType, Shape};

/// Best first: the greatest, or the least; NaNs last.
fn order(a: f64, b: f64, least: bool) -> Ordering {
    match a.is_nan().cmp(&b.is_nan()) {
        Ordering::Equal if a.is_nan() => Ordering::Equal,
        Ordering::Equal if least => a.partial_cmp(&b).unwrap(),
        Ordering::Equal => b.partial_cmp(&a).unwrap(),
        unequal => unequal,
    }
}

/// Indices from best to worst, the lower first of equal ones.
pub fn ranked(scores: &[f64], least: bool) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..scores.len()).collect();
    indices.sort_by(|&a, &b| order(scores[a], scores[b], least));
    indices
}

/// Pseudo-random numbers, by a linear congruential generator.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound) as f64
    }

    fn uniform(&mut self) -> f64 {
        self.below(1 << 24) / f64::from(1 << 23) - 1.0
    }
}

/// What rows, queries and half norms consist of.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Content {
    Noise,
    Integers,
    Ties,
    EqualRows,
    Nasty,
    MostlyNan,
    AllNan,
    Infinities,
    Zeros,
    Subnormal,
    Ascending,
    Descending,
}

use Content::*;

impl Content {
    /// The contents that a database of that dtype can have.
    fn of(dtype: DType) -> Vec<Content> {
        let mut contents = vec![Noise, Integers, Ties, EqualRows, Zeros, Ascending, Descending];
        if dtype != DType::S8 {
            contents.extend([Nasty, MostlyNan, AllNan, Infinities]);
        }
        if dtype == DType::F32 {
            contents.push(Subnormal);
        }
        contents
    }

    /// Whether sums are exact in f32, in any order.
    pub fn exact(self) -> bool {
        self != Noise
    }

    fn row(self, random: &mut Random, row: usize, column: usize) -> f64 {
        let first = |value: f64| if column == 0 { value } else { 0.0 };
        match self {
            Noise => random.uniform(),
            Integers => random.below(17) - 8.0,
            Ties => random.below(2),
            EqualRows => (column % 3) as f64,
            Nasty => match random.below(40) as usize {
                0 => f64::NAN,
                1 => f64::INFINITY,
                2 => f64::NEG_INFINITY,
                _ => random.below(9) - 4.0,
            },
            MostlyNan if row.is_multiple_of(7) => random.below(9) - 4.0,
            MostlyNan | AllNan => f64::NAN,
            Infinities => match random.below(3) as usize {
                0 => first(f64::NAN),
                1 => first(f64::INFINITY),
                _ => first(f64::NEG_INFINITY),
            },
            Zeros => [0.0, -0.0][random.below(2) as usize],
            Subnormal => f64::from(f32::from_bits(1)) * (random.below(200) - 100.0),
            Ascending => first((row / 8).min(120) as f64),
            Descending => first(-((row / 8).min(120) as f64)),
        }
    }

    fn query(self, random: &mut Random, column: usize) -> f64 {
        match self {
            Noise => random.uniform(),
            Integers | EqualRows => random.below(17) - 8.0,
            Infinities | Ascending | Descending => f64::from(u8::from(column == 0)),
            _ => random.below(2),
        }
    }

    fn half_norm(self, random: &mut Random) -> f64 {
        match self {
            Noise => 0.25 * random.below(9),
            Nasty => [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 2.0, 4.5][random.below(5) as usize],
            Integers | MostlyNan | AllNan => 0.5 * random.below(9),
            _ => 0.0,
        }
    }
}

/// What is to be 127 at most, where two products are summed in 16 bits, and eight magnitudes are to be 251: of numbers of
/// one sign beside each other, and of every other two of sixteen.
fn reach_of_pairs(query: &[f64]) -> f64 {
    let pairs = query.chunks(2).map(|pair| {
        let [positive, negative] =
            [1.0, -1.0].map(|sign| pair.iter().map(|x| (sign * x).max(0.0)).sum::<f64>());
        positive.max(negative)
    });
    let sums = query.chunks(16).flat_map(|some| {
        [0, 1].map(|half| {
            let every_other = some.chunks(2).skip(half).step_by(2).flatten();
            every_other.map(|x| x.abs()).sum::<f64>() * 127.0 / 251.0
        })
    });
    pairs.chain(sums).fold(0.0, f64::max)
}

/// A batch of searches, one for each content.
pub struct Searches {
    pub contents: Vec<Content>,
    /// q, n, d, k.
    pub sizes: [usize; 4],
    l2: bool,
    pub queries: Array,
    pub database: Array,
    pub scales: Array,
    pub half_norms: Array,
}

impl Searches {
    pub fn new(dtype: DType, query_dtype: DType, sizes: [usize; 4], l2: bool) -> Searches {
        let [q, n, d, _] = sizes;
        let mut random = Random((n * d + q) as u64);
        let (contents, s8) = (Content::of(dtype), dtype == DType::S8);
        let [mut queries, mut database, mut scales, mut half_norms] = [const { Vec::new() }; 4];
        for &content in &contents {
            for row in 0..n {
                let values = (0..d).map(|column| content.row(&mut random, row, column));
                database
                    .extend(values.map(|value| if s8 && content == Noise { 40.0 * value } else { value }));
                // Powers of two, lest sums are rounded.
                let exact = f64::powi(2.0, random.below(3) as i32 - 1);
                scales.push(if content.exact() { exact } else { 0.01 + 0.001 * random.below(9) });
                half_norms.push(content.half_norm(&mut random));
            }
            for _ in 0..q {
                // With 127 for the greatest, and another sign beside it, integers are quantised to themselves.
                let kept = s8 && content.exact();
                let values = (0..d).map(|column| content.query(&mut random, column));
                queries.extend(values.enumerate().map(|(at, x)| match at {
                    0 if kept => 127.0,
                    1 if kept => -x.abs(),
                    _ => x,
                }));
            }
        }
        let array =
            |dtype, dims: &[usize], values: &[f64]| Array::from_f64(Shape::new(dtype, dims), values).unwrap();
        let batch = contents.len();
        Searches {
            contents,
            sizes,
            l2,
            queries: array(query_dtype, &[batch, q, d], &queries),
            database: array(dtype, &[batch, n, d], &database),
            scales: array(DType::F32, &[batch, n], &scales),
            half_norms: array(DType::F32, &[batch, n], &half_norms),
        }
    }

    pub fn operands(&self) -> Vec<Array> {
        let mut operands = vec![self.queries.clone(), self.database.clone()];
        if self.database.shape().dtype() == DType::S8 {
            operands.push(self.scales.clone());
        }
        if self.l2 {
            operands.push(self.half_norms.clone());
        }
        operands
    }

    pub fn attributes(&self) -> &'static str {
        if self.l2 { "metric = \"l2\", " } else { "" }
    }

    pub fn results(&self) -> [Shape; 2] {
        let [q, _, _, k] = self.sizes;
        [DType::F32, DType::S32].map(|dtype| Shape::new(dtype, [self.contents.len(), q, k]))
    }

    /// The queries as the search sees them: rounded to bf16 where candidates are scored anew, or quantised, for sums of
    /// `pairs` of products in 16 bits or not.
    pub fn seen_queries(&self, anew: bool, pairs: bool) -> Vec<f64> {
        let queries = self.queries.to_f64();
        match self.database.shape().dtype() {
            DType::BF16 if anew => queries.into_iter().map(|x| bf16::from_f32(x as f32).to_f64()).collect(),
            DType::S8 => {
                let quantised = queries.chunks(self.sizes[2]).flat_map(|query| {
                    let mut greatest = query.iter().fold(0f64, |greatest, x| greatest.max(x.abs()));
                    if pairs {
                        greatest = greatest.max(reach_of_pairs(query));
                    }
                    let (scale, inverse) = ((greatest / 127.0) as f32, (127.0 / greatest) as f32);
                    let quantise = move |&x: &f64| match greatest {
                        0.0 => 0.0,
                        _ => f64::from((x as f32 * inverse).round_ties_even()) * f64::from(scale),
                    };
                    query.iter().map(quantise)
                });
                quantised.collect()
            }
            _ => queries,
        }
    }

    /// For each search and query, the scores of the rows `[n, d]` of each search, and what their rounding is relative
    /// to: the greatest sum of absolute values.
    pub fn scores(&self, queries: &[f64], rows: &[f64], scales: Option<&[f64]>) -> Vec<(Vec<f64>, f64)> {
        let [q, n, d, _] = self.sizes;
        let half_norms = self.half_norms.to_f64();
        let mut all = Vec::new();
        for (at, query) in queries.chunks(d).enumerate() {
            let search = at / q;
            let mut greatest = 0f64;
            let scores = (0..n).map(|row| {
                let index = search * n + row;
                let products = query.iter().zip(&rows[index * d..][..d]).map(|(x, y)| x * y);
                let (sum, absolute) =
                    products.fold((0.0, 0.0), |(sum, absolute), x| (sum + x, absolute + f64::abs(x)));
                let scale = scales.map_or(1.0, |scales| scales[index]);
                let (sum, absolute) = (sum * scale, absolute * scale);
                if self.l2 {
                    greatest = greatest.max(absolute + half_norms[index].abs());
                    half_norms[index] - sum
                } else {
                    greatest = greatest.max(absolute);
                    sum
                }
            });
            all.push((scores.collect(), greatest));
        }
        all
    }

    /// Requires that values and indices are the best of these scores, among `candidates` of each query where there are
    /// any; those of contents whose sums are rounded to within what rounding may do to them.
    pub fn check(
        &self,
        scores: &[(Vec<f64>, f64)],
        candidates: Option<&[Vec<usize>]>,
        [values, indices]: &[Array; 2],
        context: &str,
    ) {
        let [q, _, d, k] = self.sizes;
        let (values, indices) = (values.to_f64(), indices.to_vec::<i32>().unwrap());
        for (at, (scores, magnitude)) in scores.iter().enumerate() {
            let content = self.contents[at / q];
            let (values, indices) = (&values[at * k..][..k], &indices[at * k..][..k]);
            let mut best = ranked(scores, self.l2);
            if let Some(candidates) = candidates {
                best.retain(|index| candidates[at].contains(index));
            }
            let context = || format!("{content:?}, query {} of {:?}, {context}", at % q, self.sizes);
            // Of d products, scaled and subtracted, in any order.
            let tolerance = (d + 3) as f64 * f64::from(f32::EPSILON) * magnitude;
            for (rank, (&value, &index)) in values.iter().zip(indices).enumerate() {
                let expected = scores[best[rank]];
                if content.exact() {
                    assert_eq!(index as usize, best[rank], "rank {rank}: {}", context());
                    let equal = value == expected || value.is_nan() && expected.is_nan();
                    assert!(equal, "rank {rank}: {value}, not {expected}, {}", context());
                } else {
                    let own = scores[index as usize];
                    assert!((value - own).abs() <= tolerance, "rank {rank}: {value} {own} {}", context());
                    // As good as what stands there, but for two roundings.
                    let near = (own - expected).abs() <= 2.0 * tolerance;
                    assert!(near, "rank {rank}: {own} {expected} {}", context());
                }
            }
            if !content.exact() {
                let mut distinct = indices.to_vec();
                distinct.sort_unstable();
                distinct.dedup();
                assert_eq!(distinct.len(), k, "{}", context());
                let sorted = values.is_sorted_by(|a, b| order(*a, *b, self.l2) != Ordering::Greater);
                assert!(sorted, "{values:?} {}", context());
            }
        }
    }
}
