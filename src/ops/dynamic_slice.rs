//! Slicing from starts that are computed.

use crate::graph::{Tensor, same_dtype};
use crate::hlo;
use crate::ops::Operator;
use crate::ops::gather::{Gather, GatherDims, clamped_starts};
use crate::ops::scatter::{Scatter, ScatterKind};
use crate::shape::Dims;
use crate::transform::{Batched, Dual, Jvp, Part, Transposition, Vmap, zeros};
use crate::{Array, Error, Result, Shape};

/// A window of the first operand; the others are its starts, a scalar for each dimension.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DynamicSlice {
    pub(crate) sizes: Vec<usize>,
}

/// The first operand with the window at the starts, its third and further operands, replaced by the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DynamicUpdateSlice;

impl Tensor {
    /// The window of the given sizes that starts at `starts`, a scalar integer for each dimension.
    ///
    /// A start at which the window would pass an end of the dimension is moved to the nearest at which it
    /// does not.
    ///
    /// # Errors
    /// Where there is not one start and one size for each dimension, the starts are not scalars of one integer
    /// dtype, or a size is above the dimension's.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let shapes = [Shape::new(DType::F32, [5]), Shape::scalar(DType::S32)];
    /// let f = Function::trace("f", &shapes, |x| x[0].dynamic_slice(&[&x[1]], &[3]))?;
    /// let x = Array::new([5], &[10f32, 11.0, 12.0, 13.0, 14.0])?;
    /// let results = f.eval(&[x.clone(), Array::scalar(1)])?;
    /// assert_eq!(results, [Array::new([3], &[11f32, 12.0, 13.0])?]);
    /// // A window that would pass the end is moved.
    /// let results = f.eval(&[x, Array::scalar(4)])?;
    /// assert_eq!(results, [Array::new([3], &[12f32, 13.0, 14.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias = "index")]
    pub fn dynamic_slice(&self, starts: &[&Tensor], sizes: &[usize]) -> Result<Tensor> {
        let inputs: Vec<_> = [self].into_iter().chain(starts.iter().copied()).collect();
        self.builder().push_one(DynamicSlice { sizes: sizes.to_vec() }, &inputs)
    }

    /// This tensor with the window at `starts`, a scalar integer for each dimension, replaced by `update`.
    ///
    /// Starts are moved as those of [`dynamic_slice`](Tensor::dynamic_slice).
    ///
    /// # Errors
    /// Where `update` differs in dtype or rank, or is larger in a dimension, there is not one start for each
    /// dimension, or they are not scalars of one integer dtype.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let shapes = [Shape::new(DType::F32, [4]), Shape::new(DType::F32, [2]), Shape::scalar(DType::S32)];
    /// let f = Function::trace("f", &shapes, |x| x[0].dynamic_update_slice(&x[1], &[&x[2]]))?;
    /// let zeros = Array::new([4], &[0f32; 4])?;
    /// let results = f.eval(&[zeros, Array::new([2], &[1f32, 2.0])?, Array::scalar(1)])?;
    /// assert_eq!(results, [Array::new([4], &[0f32, 1.0, 2.0, 0.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias = "index_copy")]
    pub fn dynamic_update_slice(&self, update: &Tensor, starts: &[&Tensor]) -> Result<Tensor> {
        let inputs: Vec<_> = [self, update].into_iter().chain(starts.iter().copied()).collect();
        self.builder().push_one(DynamicUpdateSlice, &inputs)
    }
}

/// The row of a tensor at a computed index.
pub(crate) fn row(rows: &Tensor, index: &Tensor) -> Result<Tensor> {
    let mut sizes = rows.dims().to_vec();
    sizes[0] = 1;
    rows.dynamic_slice(&starts(rows, index)?.iter().collect::<Vec<_>>(), &sizes)?.reshape(&sizes[1..])
}

/// The tensor with the row at a computed index replaced.
pub(crate) fn with_row(rows: &Tensor, index: &Tensor, row: &Tensor) -> Result<Tensor> {
    let row = row.reshape(&[&[1], row.dims()].concat())?;
    rows.dynamic_update_slice(&row, &starts(rows, index)?.iter().collect::<Vec<_>>())
}

fn starts(rows: &Tensor, index: &Tensor) -> Result<Vec<Tensor>> {
    let zero = index.full_like(0)?;
    Ok((0..rows.rank()).map(|axis| if axis == 0 { index.clone() } else { zero.clone() }).collect())
}

/// Requires a window that fits and a scalar start of one integer dtype for each dimension.
fn check_window(
    operator: &'static str,
    operand: &Shape,
    (argument, sizes): (&str, &[usize]),
    starts: &[&Shape],
) -> Result<()> {
    let fits = sizes.iter().zip(operand.dims()).all(|(size, dim)| size <= dim);
    if sizes.len() != operand.rank() || !fits {
        let expected = format!("at most the size of each dimension of {operand}");
        return Err(Error::argument(operator, argument, expected, Dims(sizes)));
    }
    if starts.len() != operand.rank() {
        let expected = format!("one for each dimension of {operand}");
        return Err(Error::argument(operator, "starts", expected, starts.len()));
    }
    for (axis, start) in starts.iter().enumerate() {
        if start.rank() > 0 || !start.dtype().is_integer() || start.dtype() != starts[0].dtype() {
            let expected = "scalars of one integer dtype";
            return Err(Error::argument(
                operator,
                "starts",
                expected,
                format!("{start} for dimension {axis}"),
            ));
        }
    }
    Ok(())
}

/// Where the window starts in each dimension.
fn clamped(starts: &[Array], operand: &Shape, sizes: &[usize]) -> Vec<usize> {
    let starts = starts.iter().map(|start| start.to_i128()[0]);
    let last = operand.dims().iter().zip(sizes).map(|(dim, size)| dim - size);
    starts.zip(last).map(|(start, last)| start.clamp(0, last as i128) as usize).collect()
}

/// The position in an array of these strides of the element at `position` of the window.
fn place(
    position: usize,
    window: &Shape,
    window_strides: &[usize],
    starts: &[usize],
    strides: &[usize],
) -> usize {
    (0..window.rank())
        .map(|axis| (starts[axis] + position / window_strides[axis] % window.dims()[axis]) * strides[axis])
        .sum()
}

/// The starts with one of 0 for a new dimension.
fn with_start(rule: &Vmap, starts: &[Batched], axis: usize) -> Result<Vec<Tensor>> {
    let mut starts: Vec<Tensor> = starts.iter().map(|start| start.tensor.clone()).collect();
    let zero = match starts.first() {
        Some(start) => start.full_like(0)?,
        None => rule.builder.scalar(0)?,
    };
    starts.insert(axis, zero);
    Ok(starts)
}

/// Starts that differ in the batch as index vectors, moved to where windows fit, and the dimensions of a gather of
/// one window from each.
fn index_vectors(
    rule: &Vmap,
    operand: &Shape,
    sizes: &[usize],
    starts: &[Batched],
) -> Result<(Batched, GatherDims)> {
    let columns = starts
        .iter()
        .map(|start| rule.leading(start)?.reshape(&[rule.size, 1]))
        .collect::<Result<Vec<_>>>()?;
    let starts = Tensor::concatenate(&columns.iter().collect::<Vec<_>>(), 1)?;
    let last: Vec<usize> = operand.dims().iter().zip(sizes).map(|(dim, size)| dim - size).collect();
    let starts = clamped_starts(&starts, 1, &last)?;
    let axes: Vec<usize> = (0..operand.rank()).collect();
    let dims = GatherDims { offset_dims: axes.clone(), start_index_map: axes, ..GatherDims::default() };
    Ok((Batched { tensor: starts, axis: Some(0) }, dims))
}

/// The starts that a transpose rule reads again.
fn known(starts: &[Part]) -> Vec<&Tensor> {
    starts.iter().filter_map(Part::known).collect()
}

impl Operator for DynamicSlice {
    fn name(&self) -> &'static str {
        "dynamic_slice"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![("sizes", Dims(&self.sizes).to_string())]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let Some((operand, starts)) = inputs.split_first() else {
            return Err(Error::argument(self.name(), "operands", "at least 1", 0));
        };
        check_window(self.name(), operand, ("sizes", &self.sizes), starts)?;
        Ok(vec![operand.with_dims(self.sizes.as_slice())])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let operand = inputs[0].shape();
        let starts = clamped(&inputs[1..], operand, &self.sizes);
        let window = operand.with_dims(self.sizes.as_slice());
        let (from, to) = (operand.strides(), window.strides());
        let source = |position| Some(place(position, &window, &to, &starts, &from));
        Ok(vec![inputs[0].rearranged(&self.sizes, None, source)])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let window = inputs[0].shape().with_dims(self.sizes.as_slice());
        let operands: Vec<_> = inputs.iter().collect();
        let slice = module.add_with("dynamic-slice", &window, &operands, |instruction| {
            instruction.dynamic_slice_sizes = self.sizes.iter().map(|&size| size as i64).collect();
        });
        Ok(vec![slice])
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let (operand, starts) = (&inputs[0], &inputs[1..]);
        if let (Some(axis), true) = (operand.axis, starts.iter().all(|start| start.axis.is_none())) {
            let mut sizes = self.sizes.clone();
            sizes.insert(axis, rule.size);
            let starts = with_start(rule, starts, axis)?;
            let inputs: Vec<&Tensor> = std::iter::once(&operand.tensor).chain(&starts).collect();
            return rule.push(DynamicSlice { sizes }, &inputs, axis);
        }
        let (indices, dims) = index_vectors(rule, &operand.inner(), &self.sizes, starts)?;
        rule.apply(Gather { dims, slice_sizes: self.sizes.clone() }, &[operand.clone(), indices])
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        rule.linear(inputs)
    }

    fn transpose(
        &self,
        rule: &Transposition,
        inputs: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let mut terms = vec![None; inputs.len()];
        if let Some(cotangent) = &cotangents[0] {
            let zeros = zeros(rule.builder, inputs[0].shape())?;
            terms[0] = Some(zeros.dynamic_update_slice(cotangent, &known(&inputs[1..]))?);
        }
        Ok(terms)
    }
}

impl Operator for DynamicUpdateSlice {
    fn name(&self) -> &'static str {
        "dynamic_update_slice"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [operand, update, starts @ ..] = inputs else {
            return Err(Error::argument(self.name(), "operands", "at least 2", inputs.len()));
        };
        same_dtype(self.name(), "update", update, operand)?;
        check_window(self.name(), operand, ("update's dimensions", update.dims()), starts)?;
        Ok(vec![(*operand).clone()])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let (operand, update) = (inputs[0].shape(), inputs[1].shape());
        let starts = clamped(&inputs[2..], operand, update.dims());
        let (from, to, size) = (update.strides(), operand.strides(), operand.dtype().size());
        let updated = Array::filled(operand.clone(), |bytes| {
            bytes.copy_from_slice(inputs[0].as_bytes());
            for (position, element) in inputs[1].as_bytes().chunks_exact(size).enumerate() {
                let target = place(position, update, &from, &starts, &to);
                bytes[target * size..][..size].copy_from_slice(element);
            }
        });
        Ok(vec![updated])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let operands: Vec<_> = inputs.iter().collect();
        Ok(vec![module.add("dynamic-update-slice", inputs[0].shape(), &operands)])
    }
    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let (operand, update, starts) = (&inputs[0], &inputs[1], &inputs[2..]);
        if starts.iter().any(|start| start.axis.is_some()) {
            let (indices, dims) = index_vectors(rule, &operand.inner(), update.inner().dims(), starts)?;
            let scatter = Scatter { kind: ScatterKind::Set, dims: dims.to_scatter() };
            return rule.apply(scatter, &[operand.clone(), indices, update.clone()]);
        }
        let axis = operand.axis.or(update.axis).unwrap_or(0);
        let (operand, update) = (rule.at(operand, axis)?, rule.at(update, axis)?);
        let starts = with_start(rule, starts, axis)?;
        let inputs: Vec<&Tensor> = [&operand, &update].into_iter().chain(&starts).collect();
        rule.push(DynamicUpdateSlice, &inputs, axis)
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        rule.linear(inputs)
    }

    fn transpose(
        &self,
        rule: &Transposition,
        inputs: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let mut terms = vec![None; inputs.len()];
        let (update, starts) = (inputs[1].shape(), known(&inputs[2..]));
        if let Some(cotangent) = &cotangents[0] {
            if inputs[0].is_linear() {
                terms[0] = Some(cotangent.dynamic_update_slice(&zeros(rule.builder, update)?, &starts)?);
            }
            if inputs[1].is_linear() {
                terms[1] = Some(cotangent.dynamic_slice(&starts, update.dims())?);
            }
        }
        Ok(terms)
    }
}
