//! Which elements of a row a bucket of the two-stage form holds.
//!
//! A row is cut into *strides*, each as long as there are buckets, and every bucket has one element of each. Were that
//! the one at the bucket's own place, all elements at a distance of that many would share a bucket, and so would the
//! neighbours in data that repeat themselves with such a period. So each stride is shuffled, in its own fixed way:
//!
//! - Its blocks of [`BLOCK`] elements are turned around the end, by a number of blocks.
//! - Within each block, the places are exclusive-ored with a number that depends on the stride and the block.
//!
//! Elements of one stride are always in different buckets. So are the neighbours side by side across the edge of two
//! strides: each stride is turned a bit further than the one before it, so that its head does not meet the other's tail.
//! The threads that read together read one block, whatever the order in it.

use crate::graph::{Builder, Tensor};
use crate::{Array, DType, Result, Shape};

/// As many as the threads of a GPU that read together, a whole line of its cache.
const BLOCK: usize = 32;

/// How many strides are shuffled by a table; longer rows combine two of them.
const TABLE: usize = 4096;

/// The buckets of rows of a size.
pub(super) struct Buckets {
    /// The number of buckets.
    count: usize,
    /// The number of strides.
    depth: usize,
    /// Of stride `TABLE * i + j`, the sum of a turn by `coarse[i]` and one by `fine[j]`.
    turns: [Vec<i32>; 2],
    /// Of the same, what the numbers for the blocks are made of, exclusive-ored.
    keys: [Vec<i32>; 2],
}

impl Buckets {
    /// Those of rows of a size. `k` neighbours side by side are apart in them, but where k is more than a quarter of `count`.
    pub(super) fn new(size: usize, count: usize, k: usize) -> Buckets {
        let depth = size.div_ceil(count);
        let blocks = count / block(count);
        // So many blocks hold one of the k across an edge, at most.
        let held = k.saturating_sub(2) / block(count) + 2;
        // If all turns were small, strides that are near each other would be turned alike.
        let furthest = blocks.saturating_sub(held).max(blocks / 2);
        let mut state = 0;
        let mut tables = |steps: usize| {
            let (mut turn, mut turns, mut keys) = (0, vec![0], vec![0]);
            for _ in 1..steps {
                turn += random(&mut state) as usize % (furthest + 1);
                turns.push((turn % blocks * block(count)) as i32);
                keys.push((random(&mut state) >> 32) as i32);
            }
            (turns, keys, turn % blocks * block(count))
        };
        let (fine, fine_keys, last) = tables(depth.min(TABLE));
        let (coarse, coarse_keys, _) = tables(depth.div_ceil(TABLE));
        // The first stride of a table continues from the last of the table before.
        let coarse = (0..).zip(coarse).map(|(i, turn)| ((turn as usize + i * last) % count) as i32).collect();
        Buckets { count, depth, turns: [coarse, fine], keys: [coarse_keys, fine_keys] }
    }

    /// The element that each bucket has of each stride, `[batch, depth, count]`; of the last stride, some can be none of
    /// the row.
    pub(super) fn elements(&self, builder: &Builder, batch: usize) -> Result<Tensor> {
        let [count, block] = [self.count, block(self.count)];
        let blocks = [self.depth, count / block];
        let number = |axis| builder.iota(Shape::new(DType::S32, blocks), axis);
        let of_strides = |tables, combined: &dyn Fn(Tensor, Tensor) -> Result<Tensor>| {
            self.of_strides(builder, tables, combined)?.broadcast_in_dim(&blocks, &[0])
        };
        let turn = of_strides(&self.turns, &|coarse, fine| (coarse + fine)? % count as i32)?;
        let key = of_strides(&self.keys, &|coarse, fine| coarse ^ fine)?;
        // A number for each block of buckets, of whose product with the stride's key the upper bits count.
        let mixed = (number(1)? * 0x9e37_79b1_u32 as i32)?;
        let mixed = ((&mixed ^ mixed.shift_right_logical(15)?)? * 0x85eb_ca6b_u32 as i32)?;
        let salt = ((&mixed ^ mixed.shift_right_logical(13)?)? | 1)?;
        let twist = ((key * salt)?.shift_right_logical(27)? & (block - 1) as i32)?;
        let turned = ((number(1)? * block as i32)? - turn)?;
        let turned = turned.less(0)?.select((&turned + count as i32)?, &turned)?;
        // The number of a block's first element is a multiple of the block's size.
        let first = (((number(0)? * count as i32)? + turned)? ^ twist)?;
        let all = [batch, self.depth, count / block, block];
        let within = builder.iota(Shape::new(DType::S32, all), 3)?;
        (within ^ first.broadcast_in_dim(&all, &[1, 2])?)?.reshape(&[batch, self.depth, count])
    }

    /// A number for each stride, `[depth]`, of two tables.
    fn of_strides(
        &self,
        builder: &Builder,
        [coarse, fine]: &[Vec<i32>; 2],
        combined: impl Fn(Tensor, Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let fine = builder.constant(Array::new([1, fine.len()], fine)?)?;
        if coarse.len() == 1 {
            return fine.reshape(&[self.depth]);
        }
        let all = [coarse.len() * TABLE];
        let coarse = builder.constant(Array::new([coarse.len(), 1], coarse)?)?;
        combined(coarse, fine)?.reshape(&all)?.slice_in_dim(0, self.depth, 1, 0)
    }
}

/// The largest power of two up to [`BLOCK`] that divides the number of buckets.
fn block(count: usize) -> usize {
    1 << count.trailing_zeros().min(BLOCK.ilog2())
}

/// The next of a sequence of pseudo-random numbers (splitmix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests;
