//! Reshaping: the same elements in the same order under other dimensions.

use crate::graph::Tensor;
use crate::hlo;
use crate::ops::{Operator, arity};
use crate::shape::Dims;
use crate::transform::{Batched, Dual, Jvp, Part, Transposition, Vmap};
use crate::{Array, Error, Result, Shape};

/// The same elements in row-major order under other dimensions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reshape {
    pub(crate) dims: Vec<usize>,
}

impl Tensor {
    /// The same elements in row-major order under other dimensions; itself where they are its own.
    ///
    /// # Errors
    /// Where the number of elements differs.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::S32, [2, 3])], |x| x[0].reshape(&[3, 2]))?;
    /// let results = f.eval(&[Array::new([2, 3], &[1, 2, 3, 4, 5, 6])?])?;
    /// assert_eq!(results[0].to_string(), "s32[3,2] [[1, 2], [3, 4], [5, 6]]");
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias = "view")]
    pub fn reshape(&self, dims: &[usize]) -> Result<Tensor> {
        if self.dims() == dims {
            return Ok(self.clone());
        }
        self.builder().push_one(Reshape { dims: dims.to_vec() }, &[self])
    }

    /// This tensor with a dimension of size 1 inserted, which will be dimension `axis` (negative: from the
    /// end, -1 being the last) of the result.
    ///
    /// # Errors
    /// Where the result has no such dimension.
    ///
    /// ```
    /// use xlann::{DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::S32, [3])], |x| {
    ///     Ok([x[0].expand_dims(0)?, x[0].expand_dims(-1)?])
    /// })?;
    /// assert_eq!(f.result_shapes()[0].dims(), [1, 3]);
    /// assert_eq!(f.result_shapes()[1].dims(), [3, 1]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("unsqueeze", "newaxis"))]
    pub fn expand_dims(&self, axis: isize) -> Result<Tensor> {
        let mut dims = self.dims().to_vec();
        dims.push(1);
        let axis = self.shape().with_dims(dims).axis("expand_dims", "axis", axis)?;
        let mut dims = self.dims().to_vec();
        dims.insert(axis, 1);
        self.reshape(&dims)
    }

    /// This tensor without the dimensions `axes` (negative: from the end), which are of size 1.
    ///
    /// # Errors
    /// Where one is not a dimension, is named twice, or is not of size 1.
    ///
    /// ```
    /// use xlann::{DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::S32, [1, 3, 1])], |x| x[0].squeeze(&[0, -1]))?;
    /// assert_eq!(f.result_shapes()[0].dims(), [3]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn squeeze(&self, axes: &[isize]) -> Result<Tensor> {
        let axes = self.shape().axes("squeeze", "axes", axes)?;
        if let Some(&axis) = axes.iter().find(|&&axis| self.dims()[axis] != 1) {
            let expected = format!("dimensions of size 1 of {}", self.shape());
            return Err(Error::argument("squeeze", "axes", expected, axis));
        }
        let kept = (0..self.rank()).filter(|axis| !axes.contains(axis));
        self.reshape(&kept.map(|axis| self.dims()[axis]).collect::<Vec<_>>())
    }
}

impl Operator for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![("dims", Dims(&self.dims).to_string())]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [operand] = arity(self.name(), inputs)?;
        let output = operand.with_dims(self.dims.as_slice());
        if output.checked_byte_count(self.name())? != operand.checked_byte_count(self.name())? {
            let expected = format!("of {} elements, as {operand}", operand.element_count());
            return Err(Error::argument(self.name(), "dims", expected, Dims(&self.dims)));
        }
        Ok(vec![output])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        Ok(vec![inputs[0].reshape(self.dims.as_slice())?])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        Ok(vec![module.add("reshape", &inputs[0].shape().with_dims(self.dims.as_slice()), &[&inputs[0]])])
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let operand = rule.leading(&inputs[0])?;
        rule.push(Reshape { dims: [&[rule.size], self.dims.as_slice()].concat() }, &[&operand], 0)
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
        Ok(vec![Some(cotangent.reshape(inputs[0].shape().dims())?)])
    }
}
