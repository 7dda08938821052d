//! Padding.

use crate::graph::{Operand, Tensor, same_dtype};
use crate::hlo;
use crate::hlo::proto::{PaddingConfig, PaddingConfigDimension};
use crate::ops::slice::Slice;
use crate::ops::{Operator, arity};
use crate::shape::Dims;
use crate::transform::{Batched, Dual, Jvp, Part, Transposition, Vmap};
use crate::{Array, Builder, Error, Result, Shape};

/// A scalar put before, after and between the elements of an operand.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pad {
    /// How many before the first element of each dimension; negative: how many elements are cut off.
    pub(crate) low: Vec<isize>,
    /// How many after the last; negative: how many are cut off.
    pub(crate) high: Vec<isize>,
    /// How many between two neighbours.
    pub(crate) interior: Vec<usize>,
}

impl Tensor {
    /// Puts `value` `low[i]` times before the elements of dimension i, `high[i]` times after them and
    /// `interior[i]` times between each two. Where `low` or `high` is negative, that many are cut off, after
    /// the interior ones were put in.
    ///
    /// # Errors
    /// Where there is not one number for each dimension, `value` is not a scalar of this tensor's dtype, more
    /// is cut off than there is, or a size passes `isize::MAX`.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// // One before, none after but one cut off, two in between.
    /// let f = Function::trace("f", &[Shape::new(DType::S32, [3])], |x| x[0].pad(0, &[1], &[-1], &[2]))?;
    /// let results = f.eval(&[Array::new([3], &[7, 8, 9])?])?;
    /// assert_eq!(results, [Array::new([7], &[0, 7, 0, 0, 8, 0, 0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn pad(
        &self,
        value: impl Operand,
        low: &[isize],
        high: &[isize],
        interior: &[usize],
    ) -> Result<Tensor> {
        let value = value.tensor(self)?;
        let op = Pad { low: low.to_vec(), high: high.to_vec(), interior: interior.to_vec() };
        self.builder().push_one(op, &[self, &value])
    }
}

impl Pad {
    fn output(&self, operand: &Shape) -> Result<Shape> {
        let size = |axis: usize| {
            let dim = operand.dims()[axis] as i128;
            let between = (dim - 1).max(0) * self.interior[axis] as i128;
            let size = self.low[axis] as i128 + dim + between + self.high[axis] as i128;
            isize::try_from(size).ok().and_then(|size| usize::try_from(size).ok()).ok_or_else(|| {
                let expected =
                    format!("such that dimension {axis} of {operand} has a size in 0..={}", isize::MAX);
                Error::argument(self.name(), "padding", expected, size)
            })
        };
        Ok(operand.with_dims((0..operand.rank()).map(size).collect::<Result<Vec<_>>>()?))
    }

    /// Where the output has elements of an operand of these dimensions; a pred.
    fn elements(&self, builder: &Builder, dims: &[usize]) -> Result<Tensor> {
        let elements = builder.scalar(true)?.broadcast_to(dims)?;
        builder.push_one(self.clone(), &[&elements, &builder.scalar(false)?])
    }

    /// The operand's part of a cotangent of the output, zeros where elements were cut off.
    fn operand_cotangent(&self, operand: &Shape, cotangent: &Tensor) -> Result<Tensor> {
        let rank = operand.rank();
        let mut slice = Slice { start: vec![0; rank], limit: vec![0; rank], stride: vec![1; rank] };
        let (mut low, mut high) = (vec![0; rank], vec![0; rank]);
        for (axis, &size) in operand.dims().iter().enumerate() {
            // Element i stands at offset + i * step of the output; those from `first` below `end` are there.
            let (step, offset) = (self.interior[axis] as i128 + 1, self.low[axis] as i128);
            let from = |place: i128| (place + step - 1).div_euclid(step).clamp(0, size as i128);
            let (first, end) = (from(-offset), from(cotangent.dims()[axis] as i128 - offset));
            if first < end {
                slice.start[axis] = (offset + first * step) as usize;
                slice.limit[axis] = (offset + (end - 1) * step + 1) as usize;
                slice.stride[axis] = step as usize;
            }
            (low[axis], high[axis]) = (first as isize, size as isize - end as isize);
        }
        let elements = cotangent.builder().push_one(slice, &[cotangent])?;
        if elements.dims() == operand.dims() {
            Ok(elements)
        } else {
            elements.pad(0, &low, &high, &vec![0; rank])
        }
    }
}

impl Operator for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![
            ("low", format!("{:?}", self.low).replace(' ', "")),
            ("high", format!("{:?}", self.high).replace(' ', "")),
            ("interior", Dims(&self.interior).to_string()),
        ]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [operand, value] = arity(self.name(), inputs)?;
        same_dtype(self.name(), "value", &value, &operand)?;
        if value.rank() != 0 {
            return Err(Error::argument(self.name(), "value", "a scalar", value));
        }
        let lengths = [("low", self.low.len()), ("high", self.high.len()), ("interior", self.interior.len())];
        for (argument, length) in lengths {
            if length != operand.rank() {
                let expected = format!("a number for each dimension of {operand}");
                return Err(Error::argument(self.name(), argument, expected, format!("{length} numbers")));
            }
        }
        Ok(vec![self.output(&operand)?])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let operand = inputs[0].shape();
        let output = self.output(operand)?;
        let (from, to) = (operand.strides(), output.strides());
        let source = |position: usize| {
            let terms = (0..output.rank()).map(|axis| {
                let index = position / to[axis] % output.dims()[axis];
                // Both are below isize::MAX, the output's sizes being so.
                let index = usize::try_from((index as isize).checked_sub(self.low[axis])?).ok()?;
                let step = self.interior[axis].checked_add(1)?;
                (index % step == 0 && index / step < operand.dims()[axis]).then(|| index / step * from[axis])
            });
            terms.sum()
        };
        Ok(vec![inputs[0].rearranged(output.dims(), Some(&inputs[1]), source)])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let dims = inputs[0].shape().dims();
        if dims.is_empty() {
            // The text of HLO has no padding of no dimensions.
            return Ok(vec![inputs[0].clone()]);
        }
        let output = self.output(inputs[0].shape())?;
        let pad = module.add_with("pad", &output, &[&inputs[0], &inputs[1]], |instruction| {
            let dimensions = (0..output.rank())
                .map(|axis| PaddingConfigDimension {
                    edge_padding_low: self.low[axis] as i64,
                    edge_padding_high: self.high[axis] as i64,
                    // Of no effect on fewer than two elements, and then perhaps no i64.
                    interior_padding: if dims[axis] > 1 { self.interior[axis] as i64 } else { 0 },
                })
                .collect();
            instruction.padding_config = Some(PaddingConfig { dimensions });
        });
        Ok(vec![pad])
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let (operand, value) = (&inputs[0], &inputs[1]);
        let mut op = self.clone();
        if let Some(axis) = operand.axis {
            op.low.insert(axis, 0);
            op.high.insert(axis, 0);
            op.interior.insert(axis, 0);
        }
        if let (Some(axis), None) = (operand.axis, value.axis) {
            return rule.push(op, &[&operand.tensor, &value.tensor], axis);
        }
        // Each element of the batch has its value: it is put over another padding.
        let zero = rule.builder.constant(Array::zeros(value.inner())?)?;
        let padded = rule.builder.push_one(op, &[&operand.tensor, &zero])?;
        let padded = Batched { tensor: padded, axis: operand.axis };
        let padded = rule.leading(&padded)?;
        let values = value.tensor.broadcast_in_dim(padded.dims(), &[0])?;
        let elements = self.elements(rule.builder, operand.inner().dims())?;
        Ok(vec![Batched { tensor: elements.select(padded, values)?, axis: Some(0) }])
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        rule.linear(inputs)
    }

    fn transpose(
        &self,
        _: &Transposition,
        inputs: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(cotangent) = &cotangents[0] else { return Ok(vec![None, None]) };
        let operand = inputs[0].shape();
        let of_operand = match inputs[0].is_linear() {
            true => Some(self.operand_cotangent(operand, cotangent)?),
            false => None,
        };
        let of_value = match inputs[1].is_linear() {
            true => {
                let elements = self.elements(cotangent.builder(), operand.dims())?;
                let padding = elements.select(cotangent.full_like(0)?, cotangent)?;
                Some(padding.reduce_sum(&(0..cotangent.rank() as isize).collect::<Vec<_>>())?)
            }
            false => None,
        };
        Ok(vec![of_operand, of_value])
    }
}
