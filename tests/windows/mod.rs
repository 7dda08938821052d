//! Random windows of gathers and scatters.
#![allow(dead_code, reason = "no test file uses all of it")]

use proptest::prelude::*;
use xlann::{Array, GatherDims, ScatterDims};

/// The number of the element at an index.
pub fn position(dims: &[usize], index: &[usize]) -> usize {
    index.iter().zip(dims).fold(0, |position, (index, dim)| position * dim + index)
}

/// The element at an index.
pub fn at(array: &Array, index: &[usize]) -> f64 {
    array.to_f64()[position(array.shape().dims(), index)]
}

/// What a dimension of the operand is in a gather or a scatter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// Indexed, and absent outside.
    Collapsed,
    /// Indexed, with a window of some size.
    Indexed,
    /// Not indexed.
    Window,
    /// Shared with the indices.
    Batching,
}

/// Dimension numbers, sizes and starts that fit one another.
#[derive(Clone, Debug)]
pub struct Case {
    pub operand: Vec<usize>,
    pub windows: Vec<usize>,
    /// The batch dimensions' sizes: those shared with the operand, in order, and others.
    pub batch: Vec<usize>,
    pub dims: GatherDims,
    /// Start indices, and their shape.
    pub starts: Array,
    /// The sizes of the output or the updates.
    pub outside: Vec<usize>,
}

pub fn case() -> impl Strategy<Value = Case> {
    let part = prop::sample::select(vec![Part::Collapsed, Part::Indexed, Part::Window, Part::Batching]);
    let axes = prop::collection::vec((part, 1usize..4, 1usize..4), 0..4);
    let batch = prop::collection::vec(0usize..4, 0..3);
    (axes, batch, any::<u64>(), prop::collection::vec(-1i32..4, 400)).prop_map(
        |(axes, own, order, values)| {
            let operand: Vec<usize> = axes.iter().map(|axis| axis.1).collect();
            let of = |wanted: &[Part]| -> Vec<usize> {
                (0..axes.len()).filter(|&axis| wanted.contains(&axes[axis].0)).collect()
            };
            let windows: Vec<usize> = axes
                .iter()
                .map(|&(part, size, window)| match part {
                    Part::Collapsed | Part::Batching => 1,
                    Part::Indexed | Part::Window => window.min(size),
                })
                .collect();
            let operand_batching_dims = of(&[Part::Batching]);
            let shared: Vec<usize> = operand_batching_dims.iter().map(|&axis| operand[axis]).collect();
            // The batch dimensions: own ones first, or the shared ones.
            let shared_first = order & 1 == 0;
            let batch = if shared_first {
                [shared.as_slice(), &own].concat()
            } else {
                [own.as_slice(), &shared].concat()
            };
            let first_shared = if shared_first { 0 } else { own.len() };
            let mut start_index_map = of(&[Part::Collapsed, Part::Indexed]);
            if order & 2 == 0 {
                start_index_map.reverse();
            }
            let components = start_index_map.len();
            let index_vector_dim = match components {
                1 if order & 4 == 0 => batch.len(),
                _ => (order >> 8) as usize % (batch.len() + 1),
            };
            let mut index_dims = batch.clone();
            if !(components == 1 && order & 4 == 0) {
                index_dims.insert(index_vector_dim, components);
            }
            let start_indices_batching_dims = (first_shared..first_shared + shared.len())
                .map(|place| place + usize::from(place >= index_vector_dim && index_dims.len() > batch.len()))
                .collect();
            let kept = of(&[Part::Indexed, Part::Window]);
            let rank = batch.len() + kept.len();
            // Offset dimensions: any of that many.
            let mut places: Vec<usize> = (0..rank).collect();
            places.sort_by_key(|&place| {
                (place as u64 + 1).wrapping_mul(order | 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            });
            let mut offset_dims = places[..kept.len()].to_vec();
            offset_dims.sort_unstable();
            let mut outside = vec![0; rank];
            for (&place, &axis) in offset_dims.iter().zip(&kept) {
                outside[place] = windows[axis];
            }
            let mut sizes = batch.iter();
            for place in (0..rank).filter(|place| !offset_dims.contains(place)) {
                outside[place] = *sizes.next().unwrap();
            }
            let elements: usize = index_dims.iter().product();
            let dims = GatherDims {
                offset_dims,
                collapsed_slice_dims: of(&[Part::Collapsed]),
                start_index_map,
                index_vector_dim,
                operand_batching_dims,
                start_indices_batching_dims,
            };
            let starts = Array::new(index_dims, &values[..elements]).unwrap();
            Case { operand, windows, batch, dims, starts, outside }
        },
    )
}

impl Case {
    /// The dimensions of the scatter whose updates have the shape of the gather's output.
    pub fn scatter_dims(&self) -> ScatterDims {
        ScatterDims {
            update_window_dims: self.dims.offset_dims.clone(),
            inserted_window_dims: self.dims.collapsed_slice_dims.clone(),
            scatter_dims_to_operand_dims: self.dims.start_index_map.clone(),
            index_vector_dim: self.dims.index_vector_dim,
            input_batching_dims: self.dims.operand_batching_dims.clone(),
            scatter_indices_batching_dims: self.dims.start_indices_batching_dims.clone(),
        }
    }

    /// Whether a scatter can be made of it.
    pub fn places_something(&self) -> bool {
        !self.dims.start_index_map.is_empty() || !self.dims.operand_batching_dims.is_empty()
    }

    /// For a position of the output or the updates, the start of its window and its place in the window.
    pub fn place(&self, index: &[usize]) -> (Vec<i64>, Vec<usize>) {
        let offsets = &self.dims.offset_dims;
        let batch: Vec<usize> =
            (0..index.len()).filter(|place| !offsets.contains(place)).map(|place| index[place]).collect();
        let has_vector = self.starts.shape().rank() > self.batch.len();
        let vector = self.dims.index_vector_dim;
        let mut start = vec![0; self.operand.len()];
        for (component, &axis) in self.dims.start_index_map.iter().enumerate() {
            let mut at_index = batch.clone();
            if has_vector {
                at_index.insert(vector, component);
            }
            start[axis] = at(&self.starts, &at_index) as i64;
        }
        for (&axis, &place) in
            self.dims.operand_batching_dims.iter().zip(&self.dims.start_indices_batching_dims)
        {
            start[axis] = batch[place - usize::from(has_vector && place > vector)] as i64;
        }
        let mut within = vec![0; self.operand.len()];
        let absent = [self.dims.collapsed_slice_dims.as_slice(), &self.dims.operand_batching_dims].concat();
        let kept = (0..self.operand.len()).filter(|axis| !absent.contains(axis));
        for (axis, &place) in kept.zip(offsets) {
            within[axis] = index[place];
        }
        (start, within)
    }
}
