//! Gathering slices at computed places.

use crate::graph::Tensor;
use crate::hlo;
use crate::ops::scatter::{Scatter, ScatterDims, ScatterKind};
use crate::ops::{Operator, arity, distinct, i64s, increasing, others};
use crate::shape::{Dims, offsets};
use crate::transform::{Batched, Dual, Jvp, Part, Transposition, Vmap, zeros};
use crate::{Array, DType, Error, Result, Shape};

/// Which dimensions play which part in a gather, as in XLA's `GatherDimensionNumbers`.
///
/// The dimensions of the indices other than `index_vector_dim` are the batch dimensions: the output has them,
/// in order, and at `offset_dims` those of the slices that are neither collapsed nor batching.
///
/// ```
/// use xlann::GatherDims;
///
/// // Rows of a matrix at single indices: what `take(indices, 0)` does.
/// let rows = GatherDims {
///     offset_dims: vec![1],
///     collapsed_slice_dims: vec![0],
///     start_index_map: vec![0],
///     index_vector_dim: 1,
///     ..GatherDims::default()
/// };
/// assert!(rows.operand_batching_dims.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatherDims {
    /// The output's dimensions that are of the slice; increasing.
    pub offset_dims: Vec<usize>,
    /// The operand's dimensions of slice size 1 that the output lacks; increasing.
    pub collapsed_slice_dims: Vec<usize>,
    /// For each component of an index vector, the operand's dimension that it is an index of.
    pub start_index_map: Vec<usize>,
    /// The dimension of the indices that holds the index vectors; their rank where indices are single numbers.
    pub index_vector_dim: usize,
    /// The operand's dimensions that share their index with one of the indices' batch dimensions; increasing,
    /// of slice size 1, and absent from the output's slices.
    pub operand_batching_dims: Vec<usize>,
    /// For each of `operand_batching_dims`, that dimension of the indices.
    pub start_indices_batching_dims: Vec<usize>,
}

impl GatherDims {
    /// Those of the scatter whose updates have the shape of the gather's output.
    pub(crate) fn to_scatter(&self) -> ScatterDims {
        ScatterDims {
            update_window_dims: self.offset_dims.clone(),
            inserted_window_dims: self.collapsed_slice_dims.clone(),
            scatter_dims_to_operand_dims: self.start_index_map.clone(),
            index_vector_dim: self.index_vector_dim,
            input_batching_dims: self.operand_batching_dims.clone(),
            scatter_indices_batching_dims: self.start_indices_batching_dims.clone(),
        }
    }

    /// Those for a batch of operands, of indices or of both, and the batch dimension of the output.
    ///
    /// That of the operand alone is one more of the slices, of full size. That of the indices is one more of
    /// theirs, which the operand shares if it has one.
    pub(crate) fn batched(&self, operand: &Batched, indices: &Batched) -> (GatherDims, usize) {
        let shifted = |dims: &[usize], by: &Batched| dims.iter().map(|&dim| by.dimension(dim)).collect();
        let mut dims = GatherDims {
            offset_dims: self.offset_dims.clone(),
            collapsed_slice_dims: shifted(&self.collapsed_slice_dims, operand),
            start_index_map: shifted(&self.start_index_map, operand),
            index_vector_dim: indices.dimension(self.index_vector_dim),
            operand_batching_dims: shifted(&self.operand_batching_dims, operand),
            start_indices_batching_dims: shifted(&self.start_indices_batching_dims, indices),
        };
        let index_rank = indices.inner().rank();
        let rank = self.offset_dims.len() + index_rank - usize::from(self.index_vector_dim < index_rank);
        let mut window = None;
        let place = match (operand.axis, indices.axis) {
            (Some(axis), None) => {
                let before = others(axis, &[&dims.collapsed_slice_dims, &dims.operand_batching_dims]).len();
                window = Some(before);
                self.offset_dims.get(before).copied()
            }
            (_, axis) => {
                let axis = axis.unwrap_or(0);
                let before = axis - usize::from(dims.index_vector_dim < axis);
                others(rank, &[&self.offset_dims]).get(before).copied()
            }
        };
        let place = place.unwrap_or(rank);
        dims.offset_dims.iter_mut().filter(|dim| **dim >= place).for_each(|dim| *dim += 1);
        if let Some(window) = window {
            dims.offset_dims.insert(window, place);
        }
        if let (Some(axis), Some(index_axis)) = (operand.axis, indices.axis) {
            let position = dims.operand_batching_dims.partition_point(|&dim| dim < axis);
            dims.operand_batching_dims.insert(position, axis);
            dims.start_indices_batching_dims.insert(position, index_axis);
        }
        (dims, place)
    }
}

/// Slices of the operand, of equal sizes, at the places that indices give.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gather {
    pub(crate) dims: GatherDims,
    pub(crate) slice_sizes: Vec<usize>,
}

impl Tensor {
    /// Slices of sizes `slice_sizes` (one size for each dimension of this tensor) that start where `indices`
    /// say.
    ///
    /// Indices are clamped, as XLA's: a slice that would reach over an edge starts so that it ends there, and
    /// a negative index is 0. The clamping is in the indices' own dtype, which should hold the sizes.
    ///
    /// # Errors
    /// Where the indices are not integers, or the dimensions do not fit the shapes or one another.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, GatherDims, Shape};
    ///
    /// // From a matrix, slices of one row and two columns that start at (row, column) pairs.
    /// let shapes = [Shape::new(DType::S32, [3, 4]), Shape::new(DType::S32, [2, 2])];
    /// let f = Function::trace("f", &shapes, |x| {
    ///     let dims = GatherDims {
    ///         offset_dims: vec![1],
    ///         collapsed_slice_dims: vec![0],
    ///         start_index_map: vec![0, 1],
    ///         index_vector_dim: 1,
    ///         ..GatherDims::default()
    ///     };
    ///     x[0].gather(&x[1], dims, &[1, 2])
    /// })?;
    /// let matrix = Array::new([3, 4], &[0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23])?;
    /// let starts = Array::new([2, 2], &[0, 1, 2, 0])?;
    /// assert_eq!(f.eval(&[matrix, starts])?, [Array::new([2, 2], &[1, 2, 20, 21])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn gather(&self, indices: &Tensor, dims: GatherDims, slice_sizes: &[usize]) -> Result<Tensor> {
        self.builder().push_one(Gather { dims, slice_sizes: slice_sizes.to_vec() }, &[self, indices])
    }

    /// The slices at `indices` along `axis` (negative: from the end): in the output, the dimensions of
    /// `indices` take the axis's place.
    ///
    /// Indices out of range are clamped; negative ones do not count from the end.
    ///
    /// # Errors
    /// Where there is no such axis or it is of size 0, or the indices are not integers.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let shapes = [Shape::new(DType::F32, [3, 2]), Shape::new(DType::S32, [2])];
    /// let f = Function::trace("f", &shapes, |x| x[0].take(&x[1], 0))?;
    /// let rows = Array::new([3, 2], &[0f32, 1.0, 10.0, 11.0, 20.0, 21.0])?;
    /// let results = f.eval(&[rows, Array::new([2], &[2, 0])?])?;
    /// assert_eq!(results, [Array::new([2, 2], &[20f32, 21.0, 0.0, 1.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("index_select", "embedding"))]
    pub fn take(&self, indices: &Tensor, axis: isize) -> Result<Tensor> {
        let axis = self.shape().axis("take", "axis", axis)?;
        nonempty("take", self, axis)?;
        let before = 0..axis;
        let after = axis + indices.rank()..self.rank() - 1 + indices.rank();
        let dims = GatherDims {
            offset_dims: before.chain(after).collect(),
            collapsed_slice_dims: vec![axis],
            start_index_map: vec![axis],
            index_vector_dim: indices.rank(),
            ..GatherDims::default()
        };
        let mut slice_sizes = self.dims().to_vec();
        slice_sizes[axis] = 1;
        self.gather(indices, dims, &slice_sizes)
    }

    /// For each position of `indices`, the element at the same position but for `axis` (negative: from the
    /// end), where the index is that of `indices`.
    ///
    /// Indices out of range are clamped; negative ones do not count from the end.
    ///
    /// # Errors
    /// Where there is no such axis or it is of size 0, the indices are not integers, or their sizes differ from
    /// this tensor's in another dimension.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// // The indices of an argsort sort.
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [2, 3])], |x| {
    ///     x[0].take_along_axis(&x[0].argsort(1)?, 1)
    /// })?;
    /// let results = f.eval(&[Array::new([2, 3], &[3f32, 1.0, 2.0, 4.0, 6.0, 5.0])?])?;
    /// assert_eq!(results, [Array::new([2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("gather", "take_along_dim"))]
    pub fn take_along_axis(&self, indices: &Tensor, axis: isize) -> Result<Tensor> {
        let axis = self.shape().axis("take_along_axis", "axis", axis)?;
        nonempty("take_along_axis", self, axis)?;
        along_axis("take_along_axis", self, indices, axis)?;
        let batching = others(self.rank(), &[&[axis]]);
        let dims = GatherDims {
            collapsed_slice_dims: vec![axis],
            start_index_map: vec![axis],
            index_vector_dim: indices.rank(),
            operand_batching_dims: batching.clone(),
            start_indices_batching_dims: batching,
            ..GatherDims::default()
        };
        // Without elements, slices of size 1 would not fit the operand.
        if indices.shape().element_count() == 0 {
            return self.builder().constant(Array::zeros(indices.shape().with_dtype(self.dtype()))?);
        }
        self.gather(indices, dims, &vec![1; self.rank()])
    }
}

/// Refuses an axis that has no index.
fn nonempty(operator: &'static str, operand: &Tensor, axis: usize) -> Result<()> {
    match operand.dims()[axis] {
        0 => Err(Error::argument(operator, "axis", "one of size 1 at least", operand.shape())),
        _ => Ok(()),
    }
}

/// Requires that the indices have the operand's sizes but for the axis.
pub(crate) fn along_axis(
    operator: &'static str,
    operand: &Tensor,
    indices: &Tensor,
    axis: usize,
) -> Result<()> {
    let mut sizes = operand.dims().to_vec();
    if let Some(&size) = indices.dims().get(axis) {
        sizes[axis] = size;
    }
    if sizes == indices.dims() {
        return Ok(());
    }
    let expected = format!("of the sizes of {} but for dimension {axis}", operand.shape());
    Err(Error::argument(operator, "indices", expected, indices.shape()))
}

/// The parts of a gather or a scatter that its operand and indices share.
pub(crate) struct Window<'a> {
    pub(crate) operator: &'static str,
    pub(crate) operand: &'a Shape,
    pub(crate) indices: &'a Shape,
    /// The operand's dimensions of window size 1 that the windows outside lack.
    pub(crate) collapsed: &'a [usize],
    pub(crate) index_map: &'a [usize],
    pub(crate) index_vector_dim: usize,
    pub(crate) operand_batching: &'a [usize],
    pub(crate) indices_batching: &'a [usize],
}

impl Window<'_> {
    /// Checks all that does not concern the windows; `names` are those of the collapsed dimensions, the index
    /// map, and the batching dimensions.
    pub(crate) fn check(&self, names: [&str; 4]) -> Result<()> {
        let Window { operator, operand, indices, .. } = self;
        let [collapsed, index_map, operand_batching, indices_batching] = names;
        if !indices.dtype().is_integer() {
            return Err(Error::argument(operator, "indices' dtype", "an integer", indices.dtype()));
        }
        if self.index_vector_dim > indices.rank() {
            let expected = format!("at most the rank of {indices}");
            return Err(Error::argument(operator, "index_vector_dim", expected, self.index_vector_dim));
        }
        increasing(operator, collapsed, self.collapsed, operand.rank())?;
        increasing(operator, operand_batching, self.operand_batching, operand.rank())?;
        let absent = [self.collapsed, self.operand_batching].concat();
        distinct(operator, &format!("{collapsed} and {operand_batching}"), &absent, operand.rank())?;
        let mapped = [self.index_map, self.operand_batching].concat();
        distinct(operator, &format!("{index_map} and {operand_batching}"), &mapped, operand.rank())?;
        let components = indices.dims().get(self.index_vector_dim).copied().unwrap_or(1);
        if self.index_map.len() != components {
            let expected = format!("{components} dimensions, one for each component of an index");
            return Err(Error::argument(operator, index_map, expected, Dims(self.index_map)));
        }
        distinct(operator, indices_batching, self.indices_batching, indices.rank())?;
        let sizes = |shape: &Shape, axes: &[usize]| shape.part(axes).0;
        if self.indices_batching.contains(&self.index_vector_dim)
            || sizes(operand, self.operand_batching) != sizes(indices, self.indices_batching)
        {
            let expected = format!("batch dimensions of {indices} of the sizes of {operand_batching}");
            return Err(Error::argument(operator, indices_batching, expected, Dims(self.indices_batching)));
        }
        Ok(())
    }

    /// The indices' dimensions that are not of the index vectors.
    pub(crate) fn batch_axes(&self) -> Vec<usize> {
        others(self.indices.rank(), &[&[self.index_vector_dim]])
    }

    /// The operand's dimensions that the windows have outside.
    pub(crate) fn window_axes(&self) -> Vec<usize> {
        others(self.operand.rank(), &[self.collapsed, self.operand_batching])
    }

    /// For each batch position, the start of its window in each dimension of the operand, not yet clamped.
    pub(crate) fn starts(&self, indices: &Array) -> Vec<Vec<i128>> {
        let batch_axes = self.batch_axes();
        let (dims, strides) = self.indices.part(&batch_axes);
        let component = self.indices.strides().get(self.index_vector_dim).copied().unwrap_or(0);
        // Where each batching dimension is among the batch ones, with the stride that it has among them: the
        // indices' own strides are 0 where index vectors have no components.
        let batch_strides = self.indices.with_dims(dims.as_slice()).strides();
        let batching: Vec<(usize, usize)> = self
            .indices_batching
            .iter()
            .flat_map(|axis| batch_axes.iter().position(|batch_axis| batch_axis == axis))
            .map(|place| (batch_strides[place], dims[place]))
            .collect();
        let values = indices.to_i128();
        let start = |(number, offset): (usize, usize)| {
            let mut start = vec![0; self.operand.rank()];
            for (index, &axis) in self.index_map.iter().enumerate() {
                start[axis] = values[offset + index * component];
            }
            for (&(stride, dim), &axis) in batching.iter().zip(self.operand_batching) {
                start[axis] = (number / stride % dim) as i128;
            }
            start
        };
        offsets(&dims, &strides).into_iter().enumerate().map(start).collect()
    }

    /// The last start in each dimension that is indexed at which windows of these sizes fit.
    fn last_starts(&self, sizes: &[usize]) -> Vec<usize> {
        self.index_map.iter().map(|&axis| self.operand.dims()[axis] - sizes[axis]).collect()
    }

    /// Indices at which windows of these sizes are where a gather reads them.
    pub(crate) fn clamped(&self, indices: &Tensor, sizes: &[usize]) -> Result<Tensor> {
        clamped_starts(indices, self.index_vector_dim, &self.last_starts(sizes))
    }

    /// For each batch position, whether a window of these sizes is inside the operand.
    pub(crate) fn inside(&self, indices: &Tensor, sizes: &[usize]) -> Result<Tensor> {
        let last = bounds(indices, self.index_vector_dim, &self.last_starts(sizes))?;
        let inside = (indices.greater_equal(0)? & indices.less_equal(&last))?;
        match self.index_vector_dim < indices.rank() {
            true => inside.reduce_all(&[self.index_vector_dim as isize]),
            false => Ok(inside),
        }
    }
}

/// The greatest start of each component, at the indices' shape and as far as their dtype goes.
fn bounds(indices: &Tensor, index_vector_dim: usize, last: &[usize]) -> Result<Tensor> {
    let places: Vec<usize> = (index_vector_dim..indices.rank()).take(1).collect();
    let dims: Vec<usize> = places.iter().map(|_| last.len()).collect();
    // From f64, integers saturate.
    let values: Vec<f64> = last.iter().map(|&last| last as f64).collect();
    let last = Array::from_f64(indices.shape().with_dims(dims), &values)?;
    indices.builder().constant(last)?.broadcast_in_dim(indices.dims(), &places)
}

/// Indices with each component between 0 and its greatest start, in a dtype that holds it.
pub(crate) fn clamped_starts(indices: &Tensor, index_vector_dim: usize, last: &[usize]) -> Result<Tensor> {
    let clamped = indices.clamp(0, bounds(indices, index_vector_dim, last)?)?;
    match indices.dtype().size() < 4 {
        true => clamped.convert(DType::S32),
        false => Ok(clamped),
    }
}

impl Gather {
    fn window<'a>(&'a self, operand: &'a Shape, indices: &'a Shape) -> Window<'a> {
        Window {
            operator: self.name(),
            operand,
            indices,
            collapsed: &self.dims.collapsed_slice_dims,
            index_map: &self.dims.start_index_map,
            index_vector_dim: self.dims.index_vector_dim,
            operand_batching: &self.dims.operand_batching_dims,
            indices_batching: &self.dims.start_indices_batching_dims,
        }
    }
}

impl Operator for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        let dims = &self.dims;
        let mut params = vec![
            ("offset_dims", Dims(&dims.offset_dims).to_string()),
            ("collapsed_slice_dims", Dims(&dims.collapsed_slice_dims).to_string()),
            ("start_index_map", Dims(&dims.start_index_map).to_string()),
            ("index_vector_dim", dims.index_vector_dim.to_string()),
        ];
        if !dims.operand_batching_dims.is_empty() {
            params.push(("operand_batching_dims", Dims(&dims.operand_batching_dims).to_string()));
            params.push(("start_indices_batching_dims", Dims(&dims.start_indices_batching_dims).to_string()));
        }
        params.push(("slice_sizes", Dims(&self.slice_sizes).to_string()));
        params
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let name = self.name();
        let [operand, indices] = arity(name, inputs)?;
        let window = self.window(&operand, &indices);
        window.check([
            "collapsed_slice_dims",
            "start_index_map",
            "operand_batching_dims",
            "start_indices_batching_dims",
        ])?;
        let fits = self.slice_sizes.len() == operand.rank()
            && self.slice_sizes.iter().zip(operand.dims()).all(|(size, dim)| size <= dim);
        if !fits {
            let expected = format!("at most the sizes of {operand}");
            return Err(Error::argument(name, "slice_sizes", expected, Dims(&self.slice_sizes)));
        }
        let absent = [window.collapsed, window.operand_batching].concat();
        if let Some(axis) = absent.into_iter().find(|&axis| self.slice_sizes[axis] != 1) {
            let expected = format!("1 at dimension {axis}, which is collapsed or batching");
            return Err(Error::argument(name, "slice_sizes", expected, Dims(&self.slice_sizes)));
        }
        let (batch_axes, window_axes) = (window.batch_axes(), window.window_axes());
        let rank = batch_axes.len() + window_axes.len();
        increasing(name, "offset_dims", &self.dims.offset_dims, rank)?;
        if self.dims.offset_dims.len() != window_axes.len() {
            let expected = format!("{} dimensions, those of a slice", window_axes.len());
            return Err(Error::argument(name, "offset_dims", expected, Dims(&self.dims.offset_dims)));
        }
        let mut sizes = vec![0; rank];
        for (&place, axis) in self.dims.offset_dims.iter().zip(window_axes) {
            sizes[place] = self.slice_sizes[axis];
        }
        for (place, axis) in others(rank, &[&self.dims.offset_dims]).into_iter().zip(batch_axes) {
            sizes[place] = indices.dims()[axis];
        }
        Ok(vec![operand.with_dims(sizes)])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let (operand, indices) = (inputs[0].shape(), inputs[1].shape());
        let output = self.infer(&[operand, indices])?.remove(0);
        if output.element_count() == 0 {
            return Ok(vec![Array::zeros(output)?]);
        }
        let window = self.window(operand, indices);
        let strides = operand.strides();
        let within = offsets(&self.slice_sizes, &strides);
        let places = |axes: &[usize]| {
            let (dims, strides) = output.part(axes);
            offsets(&dims, &strides)
        };
        let slice_places = places(&self.dims.offset_dims);
        let batch_places = places(&others(output.rank(), &[&self.dims.offset_dims]));
        let mut sources = vec![0; output.element_count()];
        for (batch_place, start) in batch_places.into_iter().zip(window.starts(&inputs[1])) {
            let first: usize = (0..operand.rank())
                .map(|axis| {
                    let last = operand.dims()[axis] - self.slice_sizes[axis];
                    start[axis].clamp(0, last as i128) as usize * strides[axis]
                })
                .sum();
            for (slice_place, offset) in slice_places.iter().zip(&within) {
                sources[batch_place + slice_place] = first + offset;
            }
        }
        Ok(vec![inputs[0].rearranged(output.dims(), None, |position| Some(sources[position]))])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let output = self.infer(&[inputs[0].shape(), inputs[1].shape()])?.remove(0);
        let gather = module.add_with("gather", &output, &[&inputs[0], &inputs[1]], |instruction| {
            instruction.gather_dimension_numbers = Some(hlo::proto::GatherDimensionNumbers {
                offset_dims: i64s(&self.dims.offset_dims),
                collapsed_slice_dims: i64s(&self.dims.collapsed_slice_dims),
                start_index_map: i64s(&self.dims.start_index_map),
                index_vector_dim: self.dims.index_vector_dim as i64,
                operand_batching_dims: i64s(&self.dims.operand_batching_dims),
                start_indices_batching_dims: i64s(&self.dims.start_indices_batching_dims),
            });
            instruction.gather_slice_sizes = i64s(&self.slice_sizes);
        });
        Ok(vec![gather])
    }
    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let [operand, indices] = [&inputs[0], &inputs[1]];
        let (dims, place) = self.dims.batched(operand, indices);
        let mut slice_sizes = self.slice_sizes.clone();
        if let Some(axis) = operand.axis {
            slice_sizes.insert(axis, if indices.axis.is_some() { 1 } else { rule.size });
        }
        rule.push(Gather { dims, slice_sizes }, &[&operand.tensor, &indices.tensor], place)
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        rule.linear(inputs)
    }

    /// What was read from an element, added up.
    fn transpose(
        &self,
        rule: &Transposition,
        inputs: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let (Some(cotangent), Some(indices)) = (&cotangents[0], inputs[1].known()) else {
            return Ok(vec![None, None]);
        };
        let operand = inputs[0].shape();
        let window = self.window(operand, indices.shape());
        if window.index_map.is_empty() && window.operand_batching.is_empty() {
            return Ok(vec![Some(self.repeats(rule, operand, cotangent)?), None]);
        }
        let indices = window.clamped(indices, &self.slice_sizes)?;
        let scatter = Scatter { kind: ScatterKind::Add, dims: self.dims.to_scatter() };
        let sum = rule.builder.push_one(scatter, &[&zeros(rule.builder, operand)?, &indices, cotangent])?;
        Ok(vec![Some(sum), None])
    }
}

impl Gather {
    /// The transpose where nothing is indexed, which a scatter cannot express: every slice is the first one.
    fn repeats(&self, rule: &Transposition, operand: &Shape, cotangent: &Tensor) -> Result<Tensor> {
        let batch = others(cotangent.rank(), &[&self.dims.offset_dims]);
        let batch: Vec<isize> = batch.into_iter().map(|axis| axis as isize).collect();
        let slice = cotangent.reduce_sum(&batch)?.reshape(&self.slice_sizes)?;
        let first = rule.builder.scalar(0)?;
        zeros(rule.builder, operand)?.dynamic_update_slice(&slice, &vec![&first; operand.rank()])
    }
}
