//! Transposition and reversal: the same elements in another order.

use crate::graph::Tensor;
use crate::hlo;
use crate::ops::{Operator, arity};
use crate::shape::Dims;
use crate::transform::{Batched, Dual, Jvp, Part, Transposition, Vmap};
use crate::{Array, Error, Result, Shape};

/// Permutes dimensions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Transpose {
    /// For each dimension of the output, that of the operand.
    pub(crate) permutation: Vec<usize>,
}

/// Reverses the order of the elements along some dimensions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reverse {
    /// Distinct; the order does not matter.
    pub(crate) dimensions: Vec<usize>,
}

impl Tensor {
    /// Permutes dimensions: dimension i of the result is `permutation[i]` (negative: from the end) of this.
    ///
    /// # Errors
    /// Where `permutation` does not name each dimension once.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::S32, [2, 3])], |x| x[0].transpose(&[1, 0]))?;
    /// let results = f.eval(&[Array::new([2, 3], &[1, 2, 3, 4, 5, 6])?])?;
    /// assert_eq!(results[0].to_string(), "s32[3,2] [[1, 4], [2, 5], [3, 6]]");
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias = "permute")]
    pub fn transpose(&self, permutation: &[isize]) -> Result<Tensor> {
        let permutation = permutation
            .iter()
            .map(|&axis| self.shape().axis("transpose", "permutation", axis))
            .collect::<Result<_>>()?;
        self.builder().push_one(Transpose { permutation }, &[self])
    }

    /// This tensor with dimensions `a` and `b` (negative: from the end) exchanged.
    ///
    /// # Errors
    /// Where it has no such dimensions.
    ///
    /// ```
    /// use xlann::{DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::S32, [2, 3, 4])], |x| x[0].swap_axes(0, -1))?;
    /// assert_eq!(f.result_shapes()[0].dims(), [4, 3, 2]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias = "swapaxes")]
    pub fn swap_axes(&self, a: isize, b: isize) -> Result<Tensor> {
        let a = self.shape().axis("swap_axes", "a", a)?;
        let b = self.shape().axis("swap_axes", "b", b)?;
        let mut permutation: Vec<usize> = (0..self.rank()).collect();
        permutation.swap(a, b);
        self.builder().push_one(Transpose { permutation }, &[self])
    }

    /// This tensor with dimension `source` moved to `destination` (negative: from the end), the others in
    /// their order.
    ///
    /// # Errors
    /// Where it has no such dimensions.
    ///
    /// ```
    /// use xlann::{DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::S32, [2, 3, 4])], |x| x[0].move_axis(0, -1))?;
    /// assert_eq!(f.result_shapes()[0].dims(), [3, 4, 2]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("moveaxis", "movedim"))]
    pub fn move_axis(&self, source: isize, destination: isize) -> Result<Tensor> {
        let source = self.shape().axis("move_axis", "source", source)?;
        let destination = self.shape().axis("move_axis", "destination", destination)?;
        let mut permutation: Vec<usize> = (0..self.rank()).filter(|&axis| axis != source).collect();
        permutation.insert(destination, source);
        self.builder().push_one(Transpose { permutation }, &[self])
    }

    /// Reverses the order of the elements along `dimensions` (negative: from the end).
    ///
    /// # Errors
    /// Where one is not a dimension, or is named twice.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::S32, [2, 3])], |x| x[0].reverse(&[1]))?;
    /// let results = f.eval(&[Array::new([2, 3], &[1, 2, 3, 4, 5, 6])?])?;
    /// assert_eq!(results, [Array::new([2, 3], &[3, 2, 1, 6, 5, 4])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("flip", "rev"))]
    pub fn reverse(&self, dimensions: &[isize]) -> Result<Tensor> {
        let dimensions = self.shape().axes("reverse", "dimensions", dimensions)?;
        self.builder().push_one(Reverse { dimensions }, &[self])
    }
}

impl Operator for Transpose {
    fn name(&self) -> &'static str {
        "transpose"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![("permutation", Dims(&self.permutation).to_string())]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [operand] = arity(self.name(), inputs)?;
        let mut sorted = self.permutation.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..operand.rank()) {
            let expected = format!("each dimension of {operand} once");
            return Err(Error::argument(self.name(), "permutation", expected, Dims(&self.permutation)));
        }
        Ok(vec![self.output(&operand)])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let output = self.output(inputs[0].shape());
        let (from, to) = (inputs[0].shape().strides(), output.strides());
        let source = |position: usize| {
            let terms =
                self.permutation.iter().enumerate().map(|(axis, &operand_axis)| {
                    position / to[axis] % output.dims()[axis] * from[operand_axis]
                });
            Some(terms.sum())
        };
        Ok(vec![inputs[0].rearranged(output.dims(), None, source)])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let output = self.output(inputs[0].shape());
        let transpose = module.add_with("transpose", &output, &[&inputs[0]], |instruction| {
            instruction.dimensions = self.permutation.iter().map(|&axis| axis as i64).collect();
        });
        Ok(vec![transpose])
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let operand = &inputs[0];
        let others = self.permutation.iter().map(|&axis| operand.dimension(axis));
        let permutation = operand.axis.into_iter().chain(others).collect();
        rule.push(Transpose { permutation }, &[&operand.tensor], 0)
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        rule.linear(inputs)
    }

    fn transpose(
        &self,
        _: &Transposition,
        _: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(cotangent) = &cotangents[0] else { return Ok(vec![None]) };
        let mut inverse = vec![0; self.permutation.len()];
        for (axis, &operand_axis) in self.permutation.iter().enumerate() {
            inverse[operand_axis] = axis as isize;
        }
        Ok(vec![Some(cotangent.transpose(&inverse)?)])
    }
}

impl Transpose {
    fn output(&self, operand: &Shape) -> Shape {
        operand.with_dims(self.permutation.iter().map(|&axis| operand.dims()[axis]).collect::<Vec<_>>())
    }
}

impl Operator for Reverse {
    fn name(&self) -> &'static str {
        "reverse"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![("dimensions", Dims(&self.dimensions).to_string())]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [operand] = arity(self.name(), inputs)?;
        let repeated = (1..self.dimensions.len())
            .any(|position| self.dimensions[..position].contains(&self.dimensions[position]));
        if repeated || self.dimensions.iter().any(|&axis| axis >= operand.rank()) {
            let expected = format!("distinct dimensions of {operand}");
            return Err(Error::argument(self.name(), "dimensions", expected, Dims(&self.dimensions)));
        }
        Ok(vec![operand])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let shape = inputs[0].shape();
        let strides = shape.strides();
        let source = |position: usize| {
            let terms = (0..shape.rank()).map(|axis| {
                let size = shape.dims()[axis];
                let index = position / strides[axis] % size;
                let index = if self.dimensions.contains(&axis) { size - 1 - index } else { index };
                index * strides[axis]
            });
            Some(terms.sum())
        };
        Ok(vec![inputs[0].rearranged(shape.dims(), None, source)])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let reverse = module.add_with("reverse", inputs[0].shape(), &[&inputs[0]], |instruction| {
            instruction.dimensions = self.dimensions.iter().map(|&axis| axis as i64).collect();
        });
        Ok(vec![reverse])
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let operand = &inputs[0];
        let dimensions = self.dimensions.iter().map(|&axis| operand.dimension(axis)).collect();
        rule.push(Reverse { dimensions }, &[&operand.tensor], operand.axis.unwrap_or(0))
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        rule.linear(inputs)
    }

    fn transpose(
        &self,
        _: &Transposition,
        _: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(cotangent) = &cotangents[0] else { return Ok(vec![None]) };
        Ok(vec![Some(cotangent.builder().push_one(self.clone(), &[cotangent])?)])
    }
}
