//! Exact top-k.

use crate::graph::Tensor;
use crate::hlo;
use crate::ops::{Operator, arity};
use crate::transform::{Batched, Dual, Jvp, Vmap};
use crate::{Array, DType, Error, Result, Shape};

/// The k greatest elements along the last dimension and their indices.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TopK {
    pub(crate) k: usize,
}

impl Tensor {
    /// The `k` greatest elements along the last dimension, in descending order, and their s32 indices.
    ///
    /// Of equal elements the one of lower index comes first. Floats are in their total order: NaN is above ∞
    /// (and a NaN with the sign bit set below -∞), 0 above -0. With a `k` of 0 both outputs are empty.
    ///
    /// # Errors
    /// Where the operand is a scalar or of pred, or `k` is greater than the size of its last dimension, or that
    /// does not fit an s32.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [4])], |x| x[0].top_k(2))?;
    /// let results = f.eval(&[Array::new([4], &[3f32, 9.0, 7.0, 9.0])?])?;
    /// assert_eq!(results, [Array::new([2], &[9f32, 9.0])?, Array::new([2], &[1, 3])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias = "topk")]
    pub fn top_k(&self, k: usize) -> Result<(Tensor, Tensor)> {
        let mut outputs = self.builder().push(TopK { k }, &[self])?;
        let indices = outputs.remove(1);
        Ok((outputs.remove(0), indices))
    }
}

impl Operator for TopK {
    fn name(&self) -> &'static str {
        "top_k"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![("k", self.k.to_string())]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [operand] = arity(self.name(), inputs)?;
        if operand.dtype() == DType::Pred {
            return Err(Error::argument(self.name(), "operand's dtype", "a number", operand.dtype()));
        }
        let Some((&size, leading)) = operand.dims().split_last() else {
            return Err(Error::argument(self.name(), "operand", "of rank 1 at least", &operand));
        };
        let last = leading.len();
        if i32::try_from(size).is_err() {
            let expected = format!("of at most {} elements along dimension {last}", i32::MAX);
            return Err(Error::argument(self.name(), "operand", expected, &operand));
        }
        if self.k > size {
            let expected = format!("at most the size of dimension {last} ({size})");
            return Err(Error::argument(self.name(), "k", expected, self.k));
        }
        let values = operand.with_dims([leading, &[self.k]].concat());
        Ok(vec![values.clone(), values.with_dtype(DType::S32)])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let operand = &inputs[0];
        let outputs = self.infer(&[operand.shape()])?;
        let dims = outputs[0].dims();
        if outputs[0].element_count() == 0 {
            return outputs.into_iter().map(Array::zeros).collect();
        }
        let size = operand.shape().dims()[operand.shape().rank() - 1];
        let sources: Vec<usize> = if operand.shape().dtype().is_float() {
            leaders(&operand.to_f64(), size, self.k, |x, y| y.total_cmp(x))
        } else {
            leaders(&operand.to_i128(), size, self.k, |x, y| y.cmp(x))
        };
        let values = operand.rearranged(dims, None, |position| Some(sources[position]));
        let indices: Vec<i32> = sources.iter().map(|source| (source % size) as i32).collect();
        Ok(vec![values, Array::new(dims, &indices)?])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let outputs = self.infer(&[inputs[0].shape()])?;
        if outputs[0].element_count() == 0 {
            let mut empty = |shape: &Shape| -> Result<hlo::Value> {
                Ok(module.splat(&Array::zeros(shape.with_dims([]))?, shape.dims()))
            };
            return outputs.iter().map(&mut empty).collect();
        }
        // XLA rewrites this sort into a call of its top-k where the operand is an f32 of rank 1 or 2: others
        // are brought into that form where it holds their values.
        let dtype = inputs[0].shape().dtype();
        let sorted_dtype = if dtype.size() <= 2 { DType::F32 } else { dtype };
        let size = inputs[0].shape().dims()[outputs[0].rank() - 1];
        let lines = inputs[0].shape().element_count() / size;
        let flat = outputs[0].rank() > 2;
        let (sizes, kept) = match (flat, outputs[0].rank()) {
            (false, 1) => (vec![size], vec![self.k]),
            _ => (vec![lines, size], vec![lines, self.k]),
        };

        let mut operand = inputs[0].clone();
        if flat {
            operand = module.add("reshape", &operand.shape().with_dims(sizes.as_slice()), &[&operand]);
        }
        if sorted_dtype != dtype {
            operand = module.add("convert", &operand.shape().with_dtype(sorted_dtype), &[&operand]);
        }
        let comparator = greater_than(module, sorted_dtype)?;
        let last = sizes.len() as i64 - 1;
        let iota_shape = Shape::new(DType::S32, sizes);
        let iota = module.add_with("iota", &iota_shape, &[], |instruction| {
            instruction.dimensions = vec![last];
        });
        let shapes = [operand.shape().clone(), iota_shape];
        let sorted = module.add_variadic("sort", &shapes, &[&operand, &iota], |instruction| {
            instruction.dimensions = vec![last];
            instruction.is_stable = true;
            instruction.called_computation_ids = vec![comparator.id()];
        });
        let results = sorted.iter().zip(&outputs).map(|(sorted, output)| {
            let shape = sorted.shape().with_dims(kept.as_slice());
            let mut value = module.add_with("slice", &shape, &[sorted], |instruction| {
                let limit =
                    |&limit: &usize| hlo::proto::SliceDimensions { start: 0, limit: limit as i64, stride: 1 };
                instruction.slice_dimensions = kept.iter().map(limit).collect();
            });
            if value.shape().dtype() != output.dtype() {
                value = module.add("convert", &value.shape().with_dtype(output.dtype()), &[&value]);
            }
            if flat {
                value = module.add("reshape", output, &[&value]);
            }
            value
        });
        Ok(results.collect())
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let last = inputs[0].tensor.rank() - 1;
        let axis = inputs[0].axis.filter(|&axis| axis != last).unwrap_or(0);
        rule.push(self.clone(), &[&rule.at(&inputs[0], axis)?], axis)
    }

    /// The tangents of the elements that were chosen.
    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        let outputs = rule.primal(inputs)?;
        let tangent = match &inputs[0].tangent {
            Some(tangent) if outputs[0].shape().element_count() > 0 => {
                Some(tangent.take_along_axis(&outputs[1], -1)?)
            }
            _ => None,
        };
        let tangents = [tangent, None];
        Ok(outputs.into_iter().zip(tangents).map(|(primal, tangent)| Dual { primal, tangent }).collect())
    }
}

/// The positions of the first k of each line in the order that `compare` gives, ties by position.
fn leaders<T>(
    values: &[T],
    size: usize,
    k: usize,
    compare: impl Fn(&T, &T) -> std::cmp::Ordering,
) -> Vec<usize> {
    let full = |a: &usize, b: &usize| compare(&values[*a], &values[*b]).then(a.cmp(b));
    let mut all = Vec::with_capacity(values.len() / size * k);
    for start in (0..values.len()).step_by(size) {
        let mut line: Vec<usize> = (start..start + size).collect();
        if k < size {
            line.select_nth_unstable_by(k, full);
            line.truncate(k);
        }
        line.sort_unstable_by(full);
        all.extend(line);
    }
    all
}

/// The comparator of a descending sort of values that carry their s32 indices along.
fn greater_than(module: &mut hlo::Builder, dtype: DType) -> Result<hlo::Computation> {
    module.computation("greater_than", |module| {
        let (value, index) = (Shape::scalar(dtype), Shape::scalar(DType::S32));
        let lhs = module.parameter(0, "lhs", &value);
        let rhs = module.parameter(1, "rhs", &value);
        module.parameter(2, "lhs_index", &index);
        module.parameter(3, "rhs_index", &index);
        let pred = Shape::scalar(DType::Pred);
        let compare = module.add_with("compare", &pred, &[&lhs, &rhs], |instruction| {
            instruction.comparison_direction = "GT".to_owned();
            instruction.comparison_type = match dtype {
                dtype if dtype.is_float() => "TOTALORDER",
                dtype if dtype.is_signed_integer() => "SIGNED",
                _ => "UNSIGNED",
            }
            .to_owned();
        });
        Ok(compare.id())
    })
}
