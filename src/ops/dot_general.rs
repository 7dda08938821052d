//! Contractions: dot products, matrix products, and their batches.

use crate::graph::{Tensor, same_dtype};
use crate::hlo;
use crate::ops::{Operator, arity, distinct, i64s, others};
use crate::shape::{Dims, broadcast_dims, offsets};
use crate::transform::{Batched, Dual, Jvp, Part, Transposition, Vmap, add_some, no_rule};
use crate::{Array, DType, Error, Result, Shape};

/// Sums products over contracting dimensions, for each index of the batch and the free dimensions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DotGeneral {
    pub(crate) lhs_contracting: Vec<usize>,
    /// For each of `lhs_contracting`, the dimension of rhs that it is summed with.
    pub(crate) rhs_contracting: Vec<usize>,
    pub(crate) lhs_batch: Vec<usize>,
    /// For each of `lhs_batch`, the dimension of rhs that shares its index.
    pub(crate) rhs_batch: Vec<usize>,
}

impl Tensor {
    /// The sums of products over `contracting` dimensions (those of `self` and those of `rhs`, in pairs), for
    /// each index that the `batch` dimensions share. The output's dimensions are the batch ones, then the
    /// others of `self`, then the others of `rhs`; its dtype is the operands'.
    ///
    /// Targets choose the precision of the sums: XLA:CPU accumulates f16 and bf16 in f32; the interpreter
    /// accumulates all floats in f64. Integers wrap.
    ///
    /// # Errors
    /// Where the dtypes differ or are pred, a dimension is named twice or is out of range, or the sizes of
    /// a pair differ.
    ///
    /// ```
    /// use xlann::{DType, Function, Shape};
    ///
    /// let (keys, queries) = (Shape::new(DType::F32, [8, 100, 64]), Shape::new(DType::F32, [8, 5, 64]));
    /// let scores =
    ///     Function::trace("scores", &[queries, keys], |x| x[0].dot_general(&x[1], (&[2], &[2]), (&[0], &[0])))?;
    /// assert_eq!(scores.result_shapes(), [Shape::new(DType::F32, [8, 5, 100])]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias = "tensordot")]
    pub fn dot_general(
        &self,
        rhs: &Tensor,
        contracting: (&[usize], &[usize]),
        batch: (&[usize], &[usize]),
    ) -> Result<Tensor> {
        let op = DotGeneral {
            lhs_contracting: contracting.0.to_vec(),
            rhs_contracting: contracting.1.to_vec(),
            lhs_batch: batch.0.to_vec(),
            rhs_batch: batch.1.to_vec(),
        };
        self.builder().push_one(op, &[self, rhs])
    }

    /// The product of vectors and matrices: the last dimension of `self` contracted with the first of `rhs`.
    ///
    /// # Errors
    /// Where an operand is neither a vector nor a matrix, and as for [`dot_general`](Tensor::dot_general).
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let shapes = [Shape::new(DType::F32, [2, 3]), Shape::new(DType::F32, [3])];
    /// let f = Function::trace("f", &shapes, |x| x[0].dot(&x[1]))?;
    /// let matrix = Array::new([2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    /// let results = f.eval(&[matrix, Array::new([3], &[1f32, 0.0, 2.0])?])?;
    /// assert_eq!(results, [Array::new([2], &[7f32, 16.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("mm", "mv", "@"))]
    pub fn dot(&self, rhs: &Tensor) -> Result<Tensor> {
        for (argument, tensor) in [("lhs", self), ("rhs", rhs)] {
            if !matches!(tensor.rank(), 1 | 2) {
                return Err(Error::argument("dot", argument, "a vector or a matrix", tensor.shape()));
            }
        }
        self.dot_general(rhs, (&[self.rank() - 1], &[0]), (&[], &[]))
    }

    /// The matrix product with NumPy's rules: leading dimensions are batch dimensions and broadcast; a vector
    /// is a row on the left and a column on the right, whose dimension the output lacks.
    ///
    /// # Errors
    /// Where an operand is a scalar or the batch dimensions do not broadcast, and as for
    /// [`dot_general`](Tensor::dot_general).
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let shapes = [Shape::new(DType::F32, [5, 1, 2, 3]), Shape::new(DType::F32, [4, 3, 2])];
    /// let f = Function::trace("f", &shapes, |x| x[0].matmul(&x[1]))?;
    /// assert_eq!(f.result_shapes()[0].dims(), [5, 4, 2, 2]);
    ///
    /// let square = Shape::new(DType::F32, [2, 2]);
    /// let f = Function::trace("f", &[square.clone(), square], |x| x[0].matmul(&x[1]))?;
    /// let matrix = Array::new([2, 2], &[1f32, 1.0, 0.0, 1.0])?;
    /// assert_eq!(f.eval(&[matrix.clone(), matrix])?, [Array::new([2, 2], &[1f32, 2.0, 0.0, 1.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("bmm", "mm", "@"))]
    pub fn matmul(&self, rhs: &Tensor) -> Result<Tensor> {
        for (argument, tensor) in [("lhs", self), ("rhs", rhs)] {
            if tensor.rank() == 0 {
                return Err(Error::argument("matmul", argument, "of rank 1 at least", tensor.shape()));
            }
        }
        let row_dimension = rhs.rank().saturating_sub(2);
        if self.rank() == 1 || rhs.rank() <= 2 {
            return self.dot_general(rhs, (&[self.rank() - 1], &[row_dimension]), (&[], &[]));
        }
        let (lhs_batch, lhs_matrix) = self.dims().split_at(self.rank() - 2);
        let (rhs_batch, rhs_matrix) = rhs.dims().split_at(rhs.rank() - 2);
        let dims = broadcast_dims("matmul", lhs_batch, rhs_batch)?;
        let lhs = self.broadcast_to(&[&dims, lhs_matrix].concat())?;
        let rhs = rhs.broadcast_to(&[&dims, rhs_matrix].concat())?;
        let batch: Vec<usize> = (0..dims.len()).collect();
        lhs.dot_general(&rhs, (&[dims.len() + 1], &[dims.len()]), (&batch, &batch))
    }
}

impl DotGeneral {
    /// The dimensions of an operand that are neither contracting nor batch.
    fn free(&self, lhs: &Shape, rhs: &Shape) -> (Vec<usize>, Vec<usize>) {
        (
            others(lhs.rank(), &[&self.lhs_contracting, &self.lhs_batch]),
            others(rhs.rank(), &[&self.rhs_contracting, &self.rhs_batch]),
        )
    }

    /// The sums in row-major order of the output; `multiply_add(sum, x, y)` is `sum + x * y`.
    fn sums<T: Copy>(
        &self,
        (lhs_shape, lhs): (&Shape, &[T]),
        (rhs_shape, rhs): (&Shape, &[T]),
        zero: T,
        multiply_add: impl Fn(T, T, T) -> T,
    ) -> Vec<T> {
        let walk = |shape: &Shape, axes: &[usize]| {
            let (dims, strides) = shape.part(axes);
            offsets(&dims, &strides)
        };
        let (lhs_free, rhs_free) = self.free(lhs_shape, rhs_shape);
        let (lhs_free, rhs_free) = (walk(lhs_shape, &lhs_free), walk(rhs_shape, &rhs_free));
        let (lhs_batch, rhs_batch) = (walk(lhs_shape, &self.lhs_batch), walk(rhs_shape, &self.rhs_batch));
        let lhs_contracting = walk(lhs_shape, &self.lhs_contracting);
        let rhs_contracting = walk(rhs_shape, &self.rhs_contracting);

        let mut sums = vec![zero; lhs_batch.len() * lhs_free.len() * rhs_free.len()];
        let mut rows = sums.chunks_exact_mut(rhs_free.len());
        for (lhs_start, rhs_start) in lhs_batch.iter().zip(&rhs_batch) {
            // Packed, a row of rhs for each contracted index: the innermost loop then runs over neighbours.
            let packed: Vec<T> = rhs_contracting
                .iter()
                .flat_map(|row| rhs_free.iter().map(move |column| rhs[rhs_start + row + column]))
                .collect();
            for lhs_row in &lhs_free {
                let Some(sums) = rows.next() else { return sums };
                for (lhs_column, rhs_row) in lhs_contracting.iter().zip(packed.chunks_exact(rhs_free.len())) {
                    let x = lhs[lhs_start + lhs_row + lhs_column];
                    for (sum, &y) in sums.iter_mut().zip(rhs_row) {
                        *sum = multiply_add(*sum, x, y);
                    }
                }
            }
        }
        sums
    }
}

impl Operator for DotGeneral {
    fn name(&self) -> &'static str {
        "dot_general"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        let mut params = vec![
            ("lhs_contracting", Dims(&self.lhs_contracting).to_string()),
            ("rhs_contracting", Dims(&self.rhs_contracting).to_string()),
        ];
        if !self.lhs_batch.is_empty() {
            params.push(("lhs_batch", Dims(&self.lhs_batch).to_string()));
            params.push(("rhs_batch", Dims(&self.rhs_batch).to_string()));
        }
        params
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let name = self.name();
        let [lhs, rhs] = arity(name, inputs)?;
        same_dtype(name, "rhs", &rhs, &lhs)?;
        if lhs.dtype() == DType::Pred {
            return Err(Error::argument(name, "operands' dtype", "a number", lhs.dtype()));
        }
        let lhs_named = [self.lhs_batch.as_slice(), &self.lhs_contracting].concat();
        let rhs_named = [self.rhs_batch.as_slice(), &self.rhs_contracting].concat();
        distinct(name, "batch and contracting dimensions of lhs", &lhs_named, lhs.rank())?;
        distinct(name, "batch and contracting dimensions of rhs", &rhs_named, rhs.rank())?;
        for (argument, of_lhs, of_rhs) in [
            ("contracting dimensions", &self.lhs_contracting, &self.rhs_contracting),
            ("batch dimensions", &self.lhs_batch, &self.rhs_batch),
        ] {
            let sizes = |shape: &Shape, axes: &[usize]| shape.part(axes).0;
            let (lhs_sizes, rhs_sizes) = (sizes(&lhs, of_lhs), sizes(&rhs, of_rhs));
            if lhs_sizes != rhs_sizes {
                let got = format!("{} for {lhs} and {} for {rhs}", Dims(of_lhs), Dims(of_rhs));
                return Err(Error::argument(name, argument, "of equal sizes in both operands", got));
            }
        }
        let (lhs_free, rhs_free) = self.free(&lhs, &rhs);
        let parts = [lhs.part(&self.lhs_batch).0, lhs.part(&lhs_free).0, rhs.part(&rhs_free).0];
        Ok(vec![lhs.with_dims(parts.concat())])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let (lhs, rhs) = (inputs[0].shape(), inputs[1].shape());
        let output = self.infer(&[lhs, rhs])?.remove(0);
        let array = if output.element_count() == 0 {
            Array::zeros(output)?
        } else if output.dtype().is_float() {
            let (x, y) = (inputs[0].to_f64(), inputs[1].to_f64());
            let sums = self.sums((lhs, &x), (rhs, &y), 0.0, |sum, x, y| sum + x * y);
            Array::from_f64(output, &sums)?
        } else {
            let (x, y) = (inputs[0].to_i128(), inputs[1].to_i128());
            let sums = self.sums((lhs, &x), (rhs, &y), 0, |sum, x, y| sum.wrapping_add(x.wrapping_mul(y)));
            Array::from_i128(output, &sums)?
        };
        Ok(vec![array])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let output = self.infer(&[inputs[0].shape(), inputs[1].shape()])?.remove(0);
        let dot = module.add_with("dot", &output, &[&inputs[0], &inputs[1]], |instruction| {
            instruction.dot_dimension_numbers = Some(hlo::proto::DotDimensionNumbers {
                lhs_contracting_dimensions: i64s(&self.lhs_contracting),
                rhs_contracting_dimensions: i64s(&self.rhs_contracting),
                lhs_batch_dimensions: i64s(&self.lhs_batch),
                rhs_batch_dimensions: i64s(&self.rhs_batch),
            });
        });
        Ok(vec![dot])
    }

    /// The batch dimension of both operands is a batch dimension of the product, that of one a free dimension.
    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let (lhs, rhs) = (&inputs[0], &inputs[1]);
        let places =
            |operand: &Batched, axes: &[usize]| axes.iter().map(|&axis| operand.dimension(axis)).collect();
        let mut op = DotGeneral {
            lhs_contracting: places(lhs, &self.lhs_contracting),
            rhs_contracting: places(rhs, &self.rhs_contracting),
            lhs_batch: places(lhs, &self.lhs_batch),
            rhs_batch: places(rhs, &self.rhs_batch),
        };
        if let (Some(lhs_axis), Some(rhs_axis)) = (lhs.axis, rhs.axis) {
            op.lhs_batch.insert(0, lhs_axis);
            op.rhs_batch.insert(0, rhs_axis);
            return rule.push(op, &[&lhs.tensor, &rhs.tensor], 0);
        }
        let (lhs_free, rhs_free) = op.free(lhs.tensor.shape(), rhs.tensor.shape());
        let before =
            |free: &[usize], axis: Option<usize>| free.iter().take_while(|&&free| Some(free) != axis).count();
        let axis = match lhs.axis {
            Some(_) => op.lhs_batch.len() + before(&lhs_free, lhs.axis),
            None => op.lhs_batch.len() + lhs_free.len() + before(&rhs_free, rhs.axis),
        };
        rule.push(op, &[&lhs.tensor, &rhs.tensor], axis)
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        let primal = rule.primal(inputs)?.remove(0);
        let (lhs, rhs) = (&inputs[0], &inputs[1]);
        let product = |lhs: &Tensor, rhs: &Tensor| rule.builder.push_one(self.clone(), &[lhs, rhs]);
        let by_lhs = lhs.tangent.as_ref().map(|tangent| product(tangent, &rhs.primal)).transpose()?;
        let by_rhs = rhs.tangent.as_ref().map(|tangent| product(&lhs.primal, tangent)).transpose()?;
        let tangent = add_some(by_lhs, by_rhs)?;
        Ok(vec![Dual { primal, tangent }])
    }

    fn transpose(
        &self,
        _: &Transposition,
        inputs: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(cotangent) = &cotangents[0] else { return Ok(vec![None, None]) };
        let (lhs_free, rhs_free) = self.free(inputs[0].shape(), inputs[1].shape());
        let batch: Vec<usize> = (0..self.lhs_batch.len()).collect();
        let split = batch.len() + lhs_free.len();
        let (of_lhs, of_rhs): (Vec<usize>, Vec<usize>) =
            ((batch.len()..split).collect(), (split..cotangent.rank()).collect());
        match (inputs[0].known(), inputs[1].known()) {
            (None, Some(rhs)) => {
                // The contracting dimensions stand in their order in rhs.
                let product = cotangent.dot_general(rhs, (&of_rhs, &rhs_free), (&batch, &self.rhs_batch))?;
                let contracting = paired(&self.rhs_contracting, &self.lhs_contracting);
                let places = [self.lhs_batch.as_slice(), &lhs_free, &contracting].concat();
                Ok(vec![Some(arranged(product, &places)?), None])
            }
            (Some(lhs), None) => {
                let product = lhs.dot_general(cotangent, (&lhs_free, &of_lhs), (&self.lhs_batch, &batch))?;
                let contracting = paired(&self.lhs_contracting, &self.rhs_contracting);
                let places = [self.rhs_batch.as_slice(), &contracting, &rhs_free].concat();
                Ok(vec![None, Some(arranged(product, &places)?)])
            }
            _ => no_rule(self.name(), "vjp", "both operands are linear"),
        }
    }
}

/// The partners of the dimensions `by` in the order of these.
fn paired(by: &[usize], partners: &[usize]) -> Vec<usize> {
    let mut pairs: Vec<_> = by.iter().zip(partners).collect();
    pairs.sort_unstable();
    pairs.into_iter().map(|(_, &partner)| partner).collect()
}

/// The tensor with dimension i at `places[i]`.
fn arranged(tensor: Tensor, places: &[usize]) -> Result<Tensor> {
    if places.is_sorted() {
        return Ok(tensor);
    }
    let mut permutation = vec![0; places.len()];
    for (axis, &place) in places.iter().enumerate() {
        permutation[place] = axis as isize;
    }
    tensor.transpose(&permutation)
}
