//! The order in which a searcher stores rows.
//!
//! The native forms of approximate top-k keep one of all elements at a distance of some power of two, and lose neighbours that
//! are stored so: those of data that repeats itself with a period, or of more than 128 stored side by side. In a
//! pseudo-random order, neighbours are placed at random, as their recall is planned for.

use crate::ann::options::SearchOptions;
use crate::lower::{Capabilities, Form};

/// A permutation of the rows of a database: as they were given, or the same pseudo-random one for each number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    rows: u64,
    /// Half the bits of a number that is shuffled, where rows are.
    shuffled: Option<u32>,
}

impl Order {
    /// That in which a target is to store the rows of a database for such searches.
    pub(super) fn of(target: &Capabilities, options: &SearchOptions, rows: usize) -> Order {
        let is_native = |form: &Form| matches!(form, Form::Native | Form::NativeTight);
        let native = match &options.form {
            Some(form) => is_native(form),
            None => target.forms.iter().any(is_native),
        };
        Order::new(rows, native && options.recall_target < 1.0)
    }

    fn new(rows: usize, shuffles: bool) -> Order {
        let rows = rows as u64;
        let bits = u64::BITS - rows.saturating_sub(1).leading_zeros();
        Order { rows, shuffled: shuffles.then_some(bits.div_ceil(2).max(1)) }
    }

    /// Whether rows are stored in another order than they were given in.
    pub(super) fn shuffles(&self) -> bool {
        self.shuffled.is_some()
    }

    /// The row that is stored in a place.
    pub(super) fn row(&self, place: usize) -> usize {
        let Some(half) = self.shuffled else { return place };
        // A Feistel network permutes the numbers of an even number of bits. What is no row is permuted again, until it is one.
        let mut number = place as u64;
        loop {
            for round in 0..ROUNDS {
                let (left, right) = (number >> half, number & ((1 << half) - 1));
                number = right << half | (left ^ scrambled(right, round, half));
            }
            if number < self.rows {
                return number as usize;
            }
        }
    }
}

const ROUNDS: u64 = 5;

/// A number of so many bits that depends on all bits of another.
fn scrambled(number: u64, round: u64, bits: u32) -> u64 {
    // The mixing of SplitMix64.
    let mut x = number.wrapping_add((round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) >> (u64::BITS - bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recall::{reduction_output_size, reduction_recall};
    use crate::target::{cpu, tpu};

    #[test]
    fn every_row_has_a_place() {
        for rows in [1, 2, 3, 5, 16, 17, 1000, 4096, 100_003] {
            let order = Order::new(rows, true);
            let mut seen = vec![false; rows];
            (0..rows).for_each(|place| seen[order.row(place)] = true);
            assert!(seen.iter().all(|&seen| seen), "{rows}");
            let given = Order::new(rows, false);
            assert!((0..rows).all(|place| given.row(place) == place), "{rows}");
        }
    }

    #[test]
    fn rows_are_shuffled_for_native_forms_only() {
        let options = |form, recall_target| SearchOptions { form, recall_target, ..SearchOptions::new(3) };
        let shuffles =
            |target, form, recall_target| Order::of(target, &options(form, recall_target), 100).shuffles();
        assert!(shuffles(&tpu::CAPABILITIES, None, 0.95));
        assert!(shuffles(&tpu::CAPABILITIES, Some(Form::Native), 0.95));
        assert!(!shuffles(&tpu::CAPABILITIES, None, 1.0));
        assert!(!shuffles(&tpu::CAPABILITIES, Some(Form::Sort), 0.95));
        assert!(!shuffles(&cpu::CAPABILITIES, None, 0.95));
    }

    /// The native forms keep the best of each L elements that are L apart: of neighbours in these places, as many are found as
    /// there are different ones by L.
    #[test]
    fn recall_of_native_forms_holds_for_rows_in_any_order() {
        for (rows, k, target) in [(100_000, 10, 0.95f32), (262_144, 50, 0.9), (200_000, 200, 0.95)] {
            let size = reduction_output_size(rows, 2, k, target, false, None).unwrap();
            let expected = reduction_recall(rows, 2, k, size, None).unwrap();
            assert!(size.size < rows && expected >= f64::from(target), "{rows} {k}");
            let order = Order::new(rows, true);
            let mut places = vec![0; rows];
            (0..rows).for_each(|place| places[order.row(place)] = place);
            // Of neighbours that many rows apart, from so many first rows on that there are 10,000 results.
            let recall = |period: usize| {
                let (mut found, mut all, mut first) = (0, 0, 7);
                while all < 10_000 {
                    let mut kept: Vec<usize> = (0..k)
                        .map(|i| places[(first + i * period + i * period / rows) % rows] % size.size)
                        .collect();
                    kept.sort_unstable();
                    kept.dedup();
                    (found, all, first) = (found + kept.len(), all + k, first + 7919);
                }
                found as f64 / all as f64
            };
            for period in 1..=4096 {
                let recall = recall(period);
                assert!(recall >= f64::from(target) - 0.01, "{rows} rows, k {k}, period {period}: {recall}");
            }
        }
    }
}
