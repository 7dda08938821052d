//! Scattering updates to computed places.

use crate::graph::{Tensor, same_dtype};
use crate::hlo;
use crate::ops::binary::Binary;
use crate::ops::gather::{Gather, GatherDims, Window, along_axis};
use crate::ops::{Operator, arity, i64s, increasing, others};
use crate::shape::{Dims, offsets};
use crate::transform::{Batched, Dual, Jvp, Part, Transposition, Vmap, no_rule, zeros};
use crate::{Array, DType, Error, Result, Shape};

/// Which dimensions play which part in a scatter, as in XLA's `ScatterDimensionNumbers`.
///
/// The dimensions of the indices other than `index_vector_dim` are the batch dimensions: the updates have them,
/// in order, and at `update_window_dims` those of the windows that are neither inserted nor batching.
///
/// ```
/// use xlann::ScatterDims;
///
/// // Elements of a vector at single indices.
/// let elements = ScatterDims {
///     inserted_window_dims: vec![0],
///     scatter_dims_to_operand_dims: vec![0],
///     index_vector_dim: 1,
///     ..ScatterDims::default()
/// };
/// assert!(elements.update_window_dims.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScatterDims {
    /// The updates' dimensions that are of the window; increasing.
    pub update_window_dims: Vec<usize>,
    /// The operand's dimensions of window size 1 that the updates lack; increasing.
    pub inserted_window_dims: Vec<usize>,
    /// For each component of an index vector, the operand's dimension that it is an index of.
    pub scatter_dims_to_operand_dims: Vec<usize>,
    /// The dimension of the indices that holds the index vectors; their rank where indices are single numbers.
    pub index_vector_dim: usize,
    /// The operand's dimensions that share their index with one of the indices' batch dimensions; increasing,
    /// of window size 1, and absent from the updates' windows.
    pub input_batching_dims: Vec<usize>,
    /// For each of `input_batching_dims`, that dimension of the indices.
    pub scatter_indices_batching_dims: Vec<usize>,
}

impl ScatterDims {
    /// Those of the gather whose output has the shape of the updates.
    pub(crate) fn to_gather(&self) -> GatherDims {
        GatherDims {
            offset_dims: self.update_window_dims.clone(),
            collapsed_slice_dims: self.inserted_window_dims.clone(),
            start_index_map: self.scatter_dims_to_operand_dims.clone(),
            index_vector_dim: self.index_vector_dim,
            operand_batching_dims: self.input_batching_dims.clone(),
            start_indices_batching_dims: self.scatter_indices_batching_dims.clone(),
        }
    }
}

variants! {
    /// How an update is combined with what the operand has in its place.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, ScatterKind, Shape};
    ///
    /// let shapes = [Shape::new(DType::F32, [3]), Shape::new(DType::S32, [2]), Shape::new(DType::F32, [2])];
    /// let f = Function::trace("f", &shapes, |x| {
    ///     x[0].scatter_along_axis(&x[1], &x[2], 0, ScatterKind::Max)
    /// })?;
    /// let [operand, indices] = [Array::new([3], &[5f32; 3])?, Array::new([2], &[0, 2])?];
    /// let results = f.eval(&[operand, indices, Array::new([2], &[1f32, 9.0])?])?;
    /// assert_eq!(results, [Array::new([3], &[5f32, 5.0, 9.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum ScatterKind {
        /// The update takes its place.
        Set,
        /// Their sum; of numbers.
        Add,
        /// The greater one.
        Max,
        /// The lesser one.
        Min,
    }
}

impl ScatterKind {
    /// The name, and the operator that combines two elements.
    fn facts(self) -> (&'static str, Option<Binary>) {
        match self {
            ScatterKind::Set => ("scatter_set", None),
            ScatterKind::Add => ("scatter_add", Some(Binary::Add)),
            ScatterKind::Max => ("scatter_max", Some(Binary::Max)),
            ScatterKind::Min => ("scatter_min", Some(Binary::Min)),
        }
    }
}

/// The operand with updates combined into it at the places that indices give.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scatter {
    pub(crate) kind: ScatterKind,
    pub(crate) dims: ScatterDims,
}

impl Tensor {
    /// This tensor with windows of `updates` combined into it where `indices` say.
    ///
    /// A window that would reach over an edge is dropped as a whole, as XLA does. Where several updates fall on
    /// one element, they are combined in any order: which one a [`ScatterKind::Set`] leaves is open.
    ///
    /// Derivatives are those of the update that is left, and of a maximum or a minimum the mean of those of all
    /// that are equal to it, the operand's element among them.
    ///
    /// # Errors
    /// Where the indices are not integers, the updates are of another dtype, the kind does not take it, the
    /// dimensions do not fit the shapes or one another, or the indices place nothing: a scalar has no place to
    /// scatter to.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, ScatterDims, ScatterKind, Shape};
    ///
    /// // A histogram: each update is added to the element that its index names.
    /// let shapes = [Shape::new(DType::F32, [4]), Shape::new(DType::S32, [3]), Shape::new(DType::F32, [3])];
    /// let f = Function::trace("f", &shapes, |x| {
    ///     let dims = ScatterDims {
    ///         inserted_window_dims: vec![0],
    ///         scatter_dims_to_operand_dims: vec![0],
    ///         index_vector_dim: 1,
    ///         ..ScatterDims::default()
    ///     };
    ///     x[0].scatter(&x[1], &x[2], ScatterKind::Add, dims)
    /// })?;
    /// let [zeros, indices] = [Array::new([4], &[0f32; 4])?, Array::new([3], &[1, 1, 3])?];
    /// let results = f.eval(&[zeros, indices, Array::new([3], &[1f32, 2.0, 4.0])?])?;
    /// assert_eq!(results, [Array::new([4], &[0f32, 3.0, 0.0, 4.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn scatter(
        &self,
        indices: &Tensor,
        updates: &Tensor,
        kind: ScatterKind,
        dims: ScatterDims,
    ) -> Result<Tensor> {
        self.builder().push_one(Scatter { kind, dims }, &[self, indices, updates])
    }

    /// This tensor with each of `updates` combined into the element at the same position but for `axis`
    /// (negative: from the end), where the index is that of `indices`: the counterpart of
    /// [`take_along_axis`](Tensor::take_along_axis).
    ///
    /// Updates whose index is out of range are dropped; of several on one element, see
    /// [`scatter`](Tensor::scatter).
    ///
    /// # Errors
    /// Where there is no such axis, the indices are not integers, their sizes differ from this tensor's in
    /// another dimension, or the updates are not of the indices' sizes and this tensor's dtype.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, ScatterKind, Shape};
    ///
    /// let rows = Shape::new(DType::F32, [2, 3]);
    /// let shapes = [rows, Shape::new(DType::S32, [2, 1]), Shape::new(DType::F32, [2, 1])];
    /// let f = Function::trace("f", &shapes, |x| {
    ///     x[0].scatter_along_axis(&x[1], &x[2], 1, ScatterKind::Set)
    /// })?;
    /// let [zeros, indices] = [Array::new([2, 3], &[0f32; 6])?, Array::new([2, 1], &[2, 0])?];
    /// let results = f.eval(&[zeros, indices, Array::new([2, 1], &[1f32, 2.0])?])?;
    /// assert_eq!(results, [Array::new([2, 3], &[0f32, 0.0, 1.0, 2.0, 0.0, 0.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("put_along_axis", "scatter_add", "scatter_reduce"))]
    pub fn scatter_along_axis(
        &self,
        indices: &Tensor,
        updates: &Tensor,
        axis: isize,
        kind: ScatterKind,
    ) -> Result<Tensor> {
        let axis = self.shape().axis("scatter_along_axis", "axis", axis)?;
        along_axis("scatter_along_axis", self, indices, axis)?;
        let batching = others(self.rank(), &[&[axis]]);
        let dims = ScatterDims {
            inserted_window_dims: vec![axis],
            scatter_dims_to_operand_dims: vec![axis],
            index_vector_dim: indices.rank(),
            input_batching_dims: batching.clone(),
            scatter_indices_batching_dims: batching,
            ..ScatterDims::default()
        };
        self.scatter(indices, updates, kind, dims)
    }
}

impl Scatter {
    fn window<'a>(&'a self, operand: &'a Shape, indices: &'a Shape) -> Window<'a> {
        Window {
            operator: self.name(),
            operand,
            indices,
            collapsed: &self.dims.inserted_window_dims,
            index_map: &self.dims.scatter_dims_to_operand_dims,
            index_vector_dim: self.dims.index_vector_dim,
            operand_batching: &self.dims.input_batching_dims,
            indices_batching: &self.dims.scatter_indices_batching_dims,
        }
    }

    /// The size of a window in each dimension of the operand.
    fn window_sizes(&self, window: &Window, updates: &Shape) -> Vec<usize> {
        let mut sizes = vec![1; window.operand.rank()];
        for (&place, axis) in self.dims.update_window_dims.iter().zip(window.window_axes()) {
            sizes[axis] = updates.dims()[place];
        }
        sizes
    }

    /// The positions in the operand and in the updates of each pair to combine.
    fn pairs(&self, inputs: &[Array]) -> Vec<(usize, usize)> {
        let (operand, updates) = (inputs[0].shape(), inputs[2].shape());
        if operand.element_count() == 0 || updates.element_count() == 0 {
            return Vec::new();
        }
        let window = self.window(operand, inputs[1].shape());
        let sizes = self.window_sizes(&window, updates);
        let strides = operand.strides();
        let within = offsets(&sizes, &strides);
        let places = |axes: &[usize]| {
            let (dims, strides) = updates.part(axes);
            offsets(&dims, &strides)
        };
        let window_places = places(&self.dims.update_window_dims);
        let batch_places = places(&others(updates.rank(), &[&self.dims.update_window_dims]));
        let mut pairs = Vec::with_capacity(updates.element_count());
        for (batch_place, start) in batch_places.into_iter().zip(window.starts(&inputs[1])) {
            let inside = (0..operand.rank()).all(|axis| {
                start[axis] >= 0 && start[axis] + sizes[axis] as i128 <= operand.dims()[axis] as i128
            });
            if inside {
                let first: usize =
                    start.iter().zip(&strides).map(|(&index, stride)| index as usize * stride).sum();
                let window = within.iter().zip(&window_places);
                pairs.extend(window.map(|(offset, place)| (first + offset, batch_place + place)));
            }
        }
        pairs
    }
}

impl Operator for Scatter {
    fn name(&self) -> &'static str {
        self.kind.facts().0
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        let dims = &self.dims;
        let mut params = vec![
            ("update_window_dims", Dims(&dims.update_window_dims).to_string()),
            ("inserted_window_dims", Dims(&dims.inserted_window_dims).to_string()),
            ("scatter_dims_to_operand_dims", Dims(&dims.scatter_dims_to_operand_dims).to_string()),
            ("index_vector_dim", dims.index_vector_dim.to_string()),
        ];
        if !dims.input_batching_dims.is_empty() {
            let indices_batching = Dims(&dims.scatter_indices_batching_dims).to_string();
            params.push(("input_batching_dims", Dims(&dims.input_batching_dims).to_string()));
            params.push(("scatter_indices_batching_dims", indices_batching));
        }
        params
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let name = self.name();
        let [operand, indices, updates] = arity(name, inputs)?;
        same_dtype(name, "updates", &updates, &operand)?;
        if self.kind == ScatterKind::Add && operand.dtype() == DType::Pred {
            return Err(Error::argument(name, "operand's dtype", "a number", operand.dtype()));
        }
        let window = self.window(&operand, &indices);
        window.check([
            "inserted_window_dims",
            "scatter_dims_to_operand_dims",
            "input_batching_dims",
            "scatter_indices_batching_dims",
        ])?;
        if window.index_map.is_empty() && window.operand_batching.is_empty() {
            // XLA:CPU applies only the first of the updates then, or fails to compile.
            let expected = "one dimension at least, where there are no batching dimensions";
            return Err(Error::argument(name, "scatter_dims_to_operand_dims", expected, "none"));
        }
        let (batch_axes, window_axes) = (window.batch_axes(), window.window_axes());
        let rank = batch_axes.len() + window_axes.len();
        increasing(name, "update_window_dims", &self.dims.update_window_dims, rank)?;
        if self.dims.update_window_dims.len() != window_axes.len() {
            let expected = format!("{} dimensions, those of a window", window_axes.len());
            let got = Dims(&self.dims.update_window_dims);
            return Err(Error::argument(name, "update_window_dims", expected, got));
        }
        if updates.rank() != rank {
            return Err(Error::argument(name, "updates", format!("of rank {rank}"), &updates));
        }
        for (&place, axis) in self.dims.update_window_dims.iter().zip(window_axes) {
            if updates.dims()[place] > operand.dims()[axis] {
                let expected = format!("of size {} at most at dimension {place}", operand.dims()[axis]);
                return Err(Error::argument(name, "updates", expected, &updates));
            }
        }
        for (place, axis) in others(rank, &[&self.dims.update_window_dims]).into_iter().zip(batch_axes) {
            if updates.dims()[place] != indices.dims()[axis] {
                let expected =
                    format!("of size {} at dimension {place}, as indices {indices}", indices.dims()[axis]);
                return Err(Error::argument(name, "updates", expected, &updates));
            }
        }
        Ok(vec![operand])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let shape = inputs[0].shape();
        let (_, combine) = self.kind.facts();
        let pairs = self.pairs(inputs);
        let array = if shape.dtype().is_float() {
            let (mut values, updates) = (inputs[0].to_f64(), inputs[2].to_f64());
            for (place, update) in pairs {
                let update = updates[update];
                values[place] = combine.map_or(update, |combine| combine.float(values[place], update));
            }
            Array::from_f64(shape.clone(), &values)?
        } else {
            let (mut values, updates) = (inputs[0].to_i128(), inputs[2].to_i128());
            for (place, update) in pairs {
                let update = updates[update];
                let sum = |combine: Binary| combine.integer(values[place], update, shape.dtype());
                values[place] = combine.map_or(update, sum);
            }
            Array::from_i128(shape.clone(), &values)?
        };
        Ok(vec![array])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let operand = inputs[0].shape();
        let scalar = operand.with_dims([]);
        let (name, combine) = self.kind.facts();
        let update = module.computation(name, |module| {
            let operands = [module.parameter(0, "", &scalar), module.parameter(1, "", &scalar)];
            Ok(match combine {
                None => operands[1].id(),
                Some(combine) => combine.hlo(module, &operands)?.remove(0).id(),
            })
        })?;
        let operands: Vec<&hlo::Value> = inputs.iter().collect();
        let scatter = module.add_with("scatter", operand, &operands, |instruction| {
            instruction.scatter_dimension_numbers = Some(hlo::proto::ScatterDimensionNumbers {
                update_window_dims: i64s(&self.dims.update_window_dims),
                inserted_window_dims: i64s(&self.dims.inserted_window_dims),
                scatter_dims_to_operand_dims: i64s(&self.dims.scatter_dims_to_operand_dims),
                index_vector_dim: self.dims.index_vector_dim as i64,
                input_batching_dims: i64s(&self.dims.input_batching_dims),
                scatter_indices_batching_dims: i64s(&self.dims.scatter_indices_batching_dims),
            });
            instruction.called_computation_ids = vec![update.id()];
        });
        Ok(vec![scatter])
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        // The output has a batch dimension, and so must the operand.
        let axis = inputs[0].axis.unwrap_or(0);
        let operand = Batched { tensor: rule.at(&inputs[0], axis)?, axis: Some(axis) };
        let (dims, place) = self.dims.to_gather().batched(&operand, &inputs[1]);
        let updates = rule.at(&inputs[2], place)?;
        let scatter = Scatter { kind: self.kind, dims: dims.to_scatter() };
        rule.push(scatter, &[&operand.tensor, &inputs[1].tensor, &updates], axis)
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        let (operand, indices, updates) = (&inputs[0], &inputs[1].primal, &inputs[2]);
        if nothing(operand.primal.shape(), updates.primal.shape()) {
            let primal = rule.primal(inputs)?.remove(0);
            return Ok(vec![Dual { primal, tangent: operand.tangent.clone() }]);
        }
        let dual = match self.kind {
            ScatterKind::Set if self.may_overlap(indices.shape()) => {
                self.set_jvp(operand, indices, updates)?
            }
            ScatterKind::Set | ScatterKind::Add => self.linear_jvp(rule, inputs)?,
            ScatterKind::Max | ScatterKind::Min => self.extremal_jvp(rule, inputs)?,
        };
        Ok(vec![dual])
    }

    fn transpose(
        &self,
        rule: &Transposition,
        inputs: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let (Some(cotangent), Some(indices)) = (&cotangents[0], inputs[1].known()) else {
            return Ok(vec![None; 3]);
        };
        let updates = inputs[2].shape();
        let operand = match self.kind {
            _ if !inputs[0].is_linear() => None,
            ScatterKind::Add => Some(cotangent.clone()),
            ScatterKind::Set if !self.may_overlap(indices.shape()) => {
                let zeros = zeros(rule.builder, updates)?;
                Some(rule.builder.push_one(self.clone(), &[cotangent, indices, &zeros])?)
            }
            _ => return no_rule(self.name(), "vjp", "it is not linear"),
        };
        let updates = match inputs[2].is_linear() && !nothing(cotangent.shape(), updates) {
            true => Some(self.read_back(cotangent, indices, updates)?),
            false => None,
        };
        Ok(vec![operand, None, updates])
    }
}

/// Whether there is nothing to update: then a gather of windows might not fit the operand.
fn nothing(operand: &Shape, updates: &Shape) -> bool {
    operand.element_count() == 0 || updates.element_count() == 0
}

impl Scatter {
    fn apply(
        &self,
        kind: ScatterKind,
        operand: &Tensor,
        indices: &Tensor,
        updates: &Tensor,
    ) -> Result<Tensor> {
        operand.scatter(indices, updates, kind, self.dims.clone())
    }

    /// Whether windows may have an element in common: that is where one part of the operand has several.
    fn may_overlap(&self, indices: &Shape) -> bool {
        let shared = &self.dims.scatter_indices_batching_dims;
        let own = others(indices.rank(), &[&[self.dims.index_vector_dim], shared]);
        own.iter().any(|&axis| indices.dims()[axis] > 1)
    }

    /// What the operand has where updates of that shape go. Of windows that are dropped it is
    /// something else.
    fn read(&self, operand: &Tensor, indices: &Tensor, updates: &Shape) -> Result<Tensor> {
        let sizes = self.window_sizes(&self.window(operand.shape(), indices.shape()), updates);
        let gather = Gather { dims: self.dims.to_gather(), slice_sizes: sizes };
        operand.builder().push_one(gather, &[operand, indices])
    }

    /// The cotangent of updates: that of the elements where they go, and 0 for those that are dropped.
    fn read_back(&self, cotangent: &Tensor, indices: &Tensor, updates: &Shape) -> Result<Tensor> {
        let read = self.read(cotangent, indices, updates)?;
        let window = self.window(cotangent.shape(), indices.shape());
        let inside = window.inside(indices, &self.window_sizes(&window, updates))?;
        let batch = others(updates.rank(), &[&self.dims.update_window_dims]);
        let inside = inside.broadcast_in_dim(updates.dims(), &batch)?;
        inside.select(&read, 0)
    }

    /// The rule of what is linear in the operand and the updates.
    fn linear_jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Dual> {
        let primal = rule.primal(inputs)?.remove(0);
        let tangent = match (self.kind, &inputs[0].tangent, &inputs[2].tangent) {
            (ScatterKind::Add, Some(tangent), None) => tangent.clone(),
            _ => self.apply(self.kind, &inputs[0].tangent()?, &inputs[1].primal, &inputs[2].tangent()?)?,
        };
        Ok(Dual { primal, tangent: Some(tangent) })
    }

    /// Of several updates on an element, the tangent is that of the one which is left there. Which one that is
    /// says a scatter of their numbers; the value is then made from the same one.
    fn set_jvp(&self, operand: &Dual, indices: &Tensor, updates: &Dual) -> Result<Dual> {
        let shape = updates.primal.shape();
        let count = shape.element_count();
        let dtype = if i32::try_from(count).is_ok() { DType::S32 } else { DType::S64 };
        let builder = indices.builder();
        let flat = builder.iota(Shape::new(dtype, [count]), 0)?;
        let numbers = (flat.reshape(shape.dims())? + 1)?;
        let left = builder.scalar(0)?.convert(dtype)?.broadcast_to(operand.primal.dims())?;
        let left = self.apply(ScatterKind::Set, &left, indices, &numbers)?;
        let winners = self.read(&left, indices, shape)?;
        let winning = updates.primal.reshape(&[count])?.take(&(&winners - 1)?, 0)?;
        let primal = self.apply(ScatterKind::Set, &operand.primal, indices, &winning)?;
        let tangent = self.sum(operand, &left.equal(0)?, indices, updates, &winners.equal(&numbers)?)?;
        Ok(Dual { primal, tangent: Some(tangent) })
    }

    /// The mean of the tangents of those that are equal to the extreme.
    fn extremal_jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Dual> {
        let (operand, indices, updates) = (&inputs[0], &inputs[1].primal, &inputs[2]);
        let primal = rule.primal(inputs)?.remove(0);
        let operand_is = operand.primal.equal(&primal)?;
        let update_is = updates.primal.equal(self.read(&primal, indices, updates.primal.shape())?)?;
        let [operands, added] = [&operand_is, &update_is].map(|mask| mask.convert(DType::S32));
        // Few floats count far.
        let count = self.apply(ScatterKind::Add, &operands?, indices, &added?)?.convert(primal.dtype())?;
        let total = self.sum(operand, &operand_is, indices, updates, &update_is)?;
        Ok(Dual { primal, tangent: Some((total / count)?) })
    }

    /// The tangents of those elements of the operand and of the updates that the masks say, added up in place.
    fn sum(
        &self,
        operand: &Dual,
        kept: &Tensor,
        indices: &Tensor,
        updates: &Dual,
        placed: &Tensor,
    ) -> Result<Tensor> {
        let kept = match &operand.tangent {
            Some(tangent) => kept.select(tangent, 0)?,
            None => operand.tangent()?,
        };
        match &updates.tangent {
            Some(tangent) => self.apply(ScatterKind::Add, &kept, indices, &placed.select(tangent, 0)?),
            None => Ok(kept),
        }
    }
}
