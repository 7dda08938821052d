//! Conversion between dtypes, by value and by bits.

use crate::graph::Tensor;
use crate::hlo;
use crate::ops::{Operator, arity};
use crate::shape::Dims;
use crate::transform::{Batched, Dual, Jvp, Part, Transposition, Vmap};
use crate::{Array, DType, Error, Result, Shape};

/// The same values in another dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Convert {
    pub(crate) dtype: DType,
}

/// The same bits in another dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BitcastConvert {
    pub(crate) dtype: DType,
}

impl Tensor {
    /// This tensor in another dtype; itself where it is of that dtype.
    ///
    /// To a float, values are rounded to the nearest one, ties to even; to f16 and bf16, wider ones to f32
    /// first, as XLA does. From a float to an integer, they lose
    /// their fraction and saturate, and NaN becomes 0. Between integers, they wrap. To pred, what is not 0 is
    /// true, NaN too; from pred, true is 1.
    ///
    /// # Errors
    /// Where the size in bytes passes the address space.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [4])], |x| x[0].convert(DType::U8))?;
    /// let results = f.eval(&[Array::new([4], &[1.9f32, -1.0, 300.0, f32::NAN])?])?;
    /// assert_eq!(results, [Array::new([4], &[1u8, 0, 255, 0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("astype", "convert_element_type", "cast"))]
    pub fn convert(&self, dtype: DType) -> Result<Tensor> {
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        self.builder().push_one(Convert { dtype }, &[self])
    }

    /// The bits of this tensor read as another dtype; itself where it is of that dtype.
    ///
    /// Where the dtype is n times narrower, a last dimension of size n is added, the lowest bits first; where
    /// it is n times wider, the last dimension must be of size n, and is taken away.
    ///
    /// # Errors
    /// Where one of the dtypes is pred, or it is wider and the last dimension is not of that size.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [1])], |x| {
    ///     Ok([x[0].bitcast_convert(DType::U32)?, x[0].bitcast_convert(DType::U16)?])
    /// })?;
    /// let results = f.eval(&[Array::new([1], &[1f32])?])?;
    /// assert_eq!(results, [Array::new([1], &[0x3f80_0000u32])?, Array::new([1, 2], &[0u16, 0x3f80])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("bitcast_convert_type", "view"))]
    pub fn bitcast_convert(&self, dtype: DType) -> Result<Tensor> {
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        self.builder().push_one(BitcastConvert { dtype }, &[self])
    }
}

impl Operator for Convert {
    fn name(&self) -> &'static str {
        "convert"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![("dtype", self.dtype.to_string())]
    }

    fn elementwise(&self) -> bool {
        true
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [operand] = arity(self.name(), inputs)?;
        Ok(vec![operand.with_dtype(self.dtype)])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let from = inputs[0].shape().dtype();
        let shape = inputs[0].shape().with_dtype(self.dtype);
        let output = if from.is_float() {
            Array::from_f64(shape, &inputs[0].to_f64())?
        } else {
            Array::from_i128(shape, &inputs[0].to_i128())?
        };
        Ok(vec![output])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        Ok(vec![module.add("convert", &inputs[0].shape().with_dtype(self.dtype), &[&inputs[0]])])
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
        let Some(cotangent) = &cotangents[0] else { return Ok(vec![None]) };
        Ok(vec![Some(cotangent.convert(inputs[0].shape().dtype())?)])
    }
}

impl BitcastConvert {
    fn output(&self, operand: &Shape) -> Result<Shape> {
        for (argument, dtype) in [("operand's dtype", operand.dtype()), ("dtype", self.dtype)] {
            if dtype == DType::Pred {
                return Err(Error::argument(self.name(), argument, "a number", dtype));
            }
        }
        let (from, to) = (operand.dtype().size(), self.dtype.size());
        let mut dims = operand.dims().to_vec();
        if from > to {
            dims.push(from / to);
        } else if from < to && dims.pop() != Some(to / from) {
            let expected = format!("of a last dimension of size {}, for {}", to / from, self.dtype);
            return Err(Error::argument(self.name(), "dims", expected, Dims(operand.dims())));
        }
        Ok(Shape::new(self.dtype, dims))
    }
}

impl Operator for BitcastConvert {
    fn name(&self) -> &'static str {
        "bitcast_convert"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![("dtype", self.dtype.to_string())]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [operand] = arity(self.name(), inputs)?;
        Ok(vec![self.output(&operand)?])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        Ok(vec![Array::from_bytes(self.output(inputs[0].shape())?, inputs[0].as_bytes())?])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let shape = self.output(inputs[0].shape())?;
        Ok(vec![module.add("bitcast-convert", &shape, &[&inputs[0]])])
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let (operand, axis) = (&inputs[0], inputs[0].axis.unwrap_or(0));
        // The last dimension of a narrower dtype is taken away.
        if self.dtype.size() > operand.tensor.dtype().size() && axis + 1 == operand.tensor.rank() {
            return rule.push(*self, &[&rule.leading(operand)?], 0);
        }
        rule.push(*self, &[&operand.tensor], axis)
    }

    /// The tangent is zero: bits are no numbers.
    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        let outputs = rule.primal(inputs)?;
        Ok(outputs.into_iter().map(|primal| Dual { primal, tangent: None }).collect())
    }
}
