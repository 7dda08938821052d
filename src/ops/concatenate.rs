//! Concatenation.

use crate::graph::{Tensor, same_dtype};
use crate::hlo;
use crate::ops::Operator;
use crate::transform::{Batched, Dual, Jvp, Part, Transposition, Vmap};
use crate::{Array, Error, Result, Shape};

/// Operands one after another along a dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Concatenate {
    pub(crate) dimension: usize,
}

impl Tensor {
    /// The operands one after another along dimension `axis` (negative: from the end).
    ///
    /// # Errors
    /// Where there are none, they have no such dimension, or they differ in dtype or in another dimension.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape, Tensor};
    ///
    /// let shapes = [Shape::new(DType::F32, [2]), Shape::new(DType::F32, [1])];
    /// let f = Function::trace("f", &shapes, |x| Tensor::concatenate(&[&x[0], &x[1]], 0))?;
    /// let results = f.eval(&[Array::new([2], &[1f32, 2.0])?, Array::new([1], &[3f32])?])?;
    /// assert_eq!(results, [Array::new([3], &[1f32, 2.0, 3.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("cat", "concat"))]
    pub fn concatenate(operands: &[&Tensor], axis: isize) -> Result<Tensor> {
        let Some(first) = operands.first() else {
            return Err(Error::argument("concatenate", "operands", "at least 1", 0));
        };
        let dimension = first.shape().axis("concatenate", "axis", axis)?;
        first.builder().push_one(Concatenate { dimension }, operands)
    }
}

impl Operator for Concatenate {
    fn name(&self) -> &'static str {
        "concatenate"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![("dimension", self.dimension.to_string())]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let Some(&first) = inputs.first() else {
            return Err(Error::argument(self.name(), "operands", "at least 1", 0));
        };
        if self.dimension >= first.rank() {
            let expected = format!("less than the rank of {first}");
            return Err(Error::argument(self.name(), "dimension", expected, self.dimension));
        }
        let mut dims = first.dims().to_vec();
        dims[self.dimension] = 0;
        for (index, input) in inputs.iter().enumerate() {
            let argument = format!("operand {index}");
            same_dtype(self.name(), &argument, input, first)?;
            let same = input.rank() == first.rank()
                && (0..first.rank())
                    .all(|axis| axis == self.dimension || input.dims()[axis] == first.dims()[axis]);
            if !same {
                let expected = format!("as operand 0, {first}, but for dimension {}", self.dimension);
                return Err(Error::argument(self.name(), argument, expected, input));
            }
            let size = &mut dims[self.dimension];
            *size = size.checked_add(input.dims()[self.dimension]).ok_or_else(|| {
                Error::argument(self.name(), "operands", "of sizes whose sum is a usize", &argument)
            })?;
        }
        Ok(vec![first.with_dims(dims)])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let shapes: Vec<_> = inputs.iter().map(Array::shape).collect();
        let shape = self.infer(&shapes)?.remove(0);
        // Bytes that lie together in each operand, once for each index of the dimensions before.
        let rows: usize = shape.dims()[..self.dimension].iter().product();
        let concatenated = Array::filled(shape, |bytes| {
            let mut end = 0;
            for row in 0..rows {
                for input in inputs {
                    let size = input.as_bytes().len() / rows;
                    bytes[end..][..size].copy_from_slice(&input.as_bytes()[row * size..][..size]);
                    end += size;
                }
            }
        });
        Ok(vec![concatenated])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let shapes: Vec<_> = inputs.iter().map(hlo::Value::shape).collect();
        let shape = self.infer(&shapes)?.remove(0);
        let operands: Vec<_> = inputs.iter().collect();
        let concatenate = module.add_with("concatenate", &shape, &operands, |instruction| {
            instruction.dimensions = vec![self.dimension as i64];
        });
        Ok(vec![concatenate])
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let (axis, inputs) = rule.aligned(inputs)?;
        let dimension = self.dimension + usize::from(axis <= self.dimension);
        rule.push(Concatenate { dimension }, &inputs.iter().collect::<Vec<_>>(), axis)
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
        let Some(cotangent) = &cotangents[0] else { return Ok(vec![None; inputs.len()]) };
        let mut end = 0;
        let parts = inputs.iter().map(|input| {
            let start = end;
            end += input.shape().dims()[self.dimension];
            let part = || cotangent.slice_in_dim(start, end, 1, self.dimension as isize);
            input.is_linear().then(part).transpose()
        });
        parts.collect()
    }
}
