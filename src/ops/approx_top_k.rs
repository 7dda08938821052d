//! Approximate top-k: the operator, and the plain forms that it is lowered to.
//!
//! The semantics are those of JAX's `approx_max_k` and `approx_min_k` and of XLA's ApproxTopK (arXiv
//! 2206.14286): the k best values along one dimension and their indices, of which an expected share, the recall
//! target, are among the true k best.

use crate::graph::{Tensor, placed};
use crate::hlo;
use crate::ops::{Narrowed, Operator};
use crate::recall::{ReductionSize, reduction_output_size};
use crate::shape::Dims;
use crate::transform::{Batched, Dual, Jvp, Part, Partial, Transposition, Vmap, no_rule, zeros};
use crate::{Array, DType, Error, Result, ScatterKind, Shape};

variants! {
    /// Which end is searched.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Direction {
        Max,
        Min,
    }
}

/// The k largest or smallest values along a dimension, approximately.
///
/// The inputs are the operand and any number of carried operands of its sizes; the outputs are values, indices,
/// and of each carried operand its elements at the indices.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApproxTopK {
    pub(crate) direction: Direction,
    pub(crate) k: usize,
    pub(crate) reduction_dimension: usize,
    pub(crate) recall_target: f32,
    pub(crate) reduction_input_size_override: Option<usize>,
    pub(crate) aggregate_to_topk: bool,
    pub(crate) tangent: Tangent,
}

/// How the forward derivative of an approximate top-k comes by the tangents of the elements that it returns.
///
/// Both give the same tangents: those at the returned indices.
///
/// ```
/// use xlann::{ApproxTopKOptions, DType, Function, Shape, Tangent, jvp};
///
/// let derivative = |tangent| {
///     let options = ApproxTopKOptions { tangent, ..ApproxTopKOptions::default() };
///     let f = Function::trace("best", &[Shape::new(DType::F32, [5])], |x| x[0].approx_max_k(2, &options))?;
///     jvp(&f, &[0])
/// };
/// assert!(derivative(Tangent::Gather)?.to_string().contains("= gather["));
/// assert_eq!(
///     derivative(Tangent::Carried)?.to_string(),
///     "jvp_best(%0: f32[5], %1: f32[5]) {
///   %2: f32[2], %3: s32[2], %4: f32[2] = \
///      approx_max_k[k=2, reduction_dimension=0, recall_target=0.95, tangent=carried] %0 %1
///   return %2, %3, %4
/// }"
/// );
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tangent {
    /// They are gathered at the indices, after the search.
    #[default]
    Gather,
    /// They are operands of the search, which carries them along: there is no gather. The blocks form
    /// ([`Form::Blocks`](crate::lower::Form::Blocks)) cannot do that: for exact results, whole rows are sorted, on
    /// a GPU too.
    ///
    /// On the CPU this is slower: by a factor of 9.5 for k = 10 of `f32[128,100000]`, 5.6 for k = 10 of `f32[16,4096]`
    /// and 4.3 for k = 100 of `f32[128,1000]`, or 1.3 where both take the two-stage form, for the first of these
    /// (`cargo bench -- derivative`). It is for targets on which a gather costs more than another operand of the
    /// search. Of many tangents at one operand ([`vmap`](crate::vmap()) over the tangents only) there is one search,
    /// and they are gathered.
    Carried,
}

/// The options of [`Tensor::approx_max_k`] and [`Tensor::approx_min_k`], with JAX's names and defaults.
///
/// ```
/// use xlann::{ApproxTopKOptions, DType, Function, Shape};
///
/// // The ten largest along dimension 0 of a shard of a whole of 4 million, to be aggregated by the caller.
/// let options = ApproxTopKOptions {
///     reduction_dimension: 0,
///     reduction_input_size_override: Some(4_000_000),
///     aggregate_to_topk: false,
///     ..ApproxTopKOptions::default()
/// };
/// let f = Function::trace("shard", &[Shape::new(DType::F32, [1_000_000])], |x| {
///     x[0].approx_max_k(10, &options)
/// })?;
/// assert_eq!(f.result_shapes()[0].dims(), [1024]);
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ApproxTopKOptions {
    /// The dimension that is searched, counted from the end where negative. Default: the last.
    pub reduction_dimension: isize,
    /// The share of the true k best that is expected among the results, in (0, 1]. Default: 0.95.
    pub recall_target: f32,
    /// The size that the recall is planned for, where the operand is a part of a larger whole, such as one of
    /// several devices' shares. Default: the operand's own.
    pub reduction_input_size_override: Option<usize>,
    /// Whether the results are reduced to the k best, sorted; else they are as many as
    /// [`reduction_output_size`] says, or all where it says more, unsorted. Default: true.
    ///
    /// [`vmap`](crate::vmap) keeps the results' sizes: where the formula has another one for an operand of one
    /// more dimension, as it has for vectors, the batched function gives so many best ones, sorted.
    pub aggregate_to_topk: bool,
    /// How [`jvp`](crate::jvp) comes by the tangents of the results. Default: [`Tangent::Gather`].
    pub tangent: Tangent,
}

impl Default for ApproxTopKOptions {
    fn default() -> ApproxTopKOptions {
        ApproxTopKOptions {
            reduction_dimension: -1,
            recall_target: 0.95,
            reduction_input_size_override: None,
            aggregate_to_topk: true,
            tangent: Tangent::default(),
        }
    }
}

impl Tensor {
    /// The `k` largest values along a dimension and their s32 indices in it, approximately.
    ///
    /// The results have the operand's dimensions but for the reduction dimension, which is `k`, best first
    /// (see [`ApproxTopKOptions::aggregate_to_topk`] for the other form). Values are the operand's own, in its
    /// dtype: f16, bf16, f32 or f64.
    ///
    /// A NaN is below every other value: none is returned while k other values exist. Equal values may be
    /// returned in any order, and -0.0 may or may not be below 0.0.
    ///
    /// # Errors
    /// Where the operand is a scalar or not of floats, `k` is 0 or more than the dimension's size, the recall
    /// target is outside (0, 1], or the override is less than the dimension's size.
    ///
    /// ```
    /// use xlann::{ApproxTopKOptions, Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("best", &[Shape::new(DType::F32, [5])], |x| {
    ///     x[0].approx_max_k(2, &ApproxTopKOptions::default())
    /// })?;
    /// let results = f.eval(&[Array::new([5], &[3f32, 9.0, f32::NAN, 7.0, 1.0])?])?;
    /// assert_eq!(results, [Array::new([2], &[9f32, 7.0])?, Array::new([2], &[1i32, 3])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn approx_max_k(&self, k: usize, options: &ApproxTopKOptions) -> Result<(Tensor, Tensor)> {
        self.approx_top_k(Direction::Max, k, options)
    }

    /// The `k` smallest values along a dimension and their s32 indices in it, approximately.
    ///
    /// As [`approx_max_k`](Tensor::approx_max_k), but a NaN is above every other value.
    ///
    /// # Errors
    /// As [`approx_max_k`](Tensor::approx_max_k).
    ///
    /// ```
    /// use xlann::{ApproxTopKOptions, Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("nearest", &[Shape::new(DType::F32, [2, 3])], |x| {
    ///     x[0].approx_min_k(1, &ApproxTopKOptions::default())
    /// })?;
    /// let distances = Array::new([2, 3], &[3f32, 9.0, 7.0, 4.0, 8.0, 2.0])?;
    /// let results = f.eval(&[distances])?;
    /// assert_eq!(results, [Array::new([2, 1], &[3f32, 2.0])?, Array::new([2, 1], &[0, 2])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn approx_min_k(&self, k: usize, options: &ApproxTopKOptions) -> Result<(Tensor, Tensor)> {
        self.approx_top_k(Direction::Min, k, options)
    }

    fn approx_top_k(
        &self,
        direction: Direction,
        k: usize,
        options: &ApproxTopKOptions,
    ) -> Result<(Tensor, Tensor)> {
        let name = direction.name();
        let op = ApproxTopK {
            direction,
            k,
            reduction_dimension: self.shape().axis(
                name,
                "reduction_dimension",
                options.reduction_dimension,
            )?,
            recall_target: options.recall_target,
            reduction_input_size_override: options.reduction_input_size_override,
            aggregate_to_topk: options.aggregate_to_topk,
            tangent: options.tangent,
        };
        pair(name, self.builder().push(op, &[self])?)
    }
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Direction::Max => "approx_max_k",
            Direction::Min => "approx_min_k",
        }
    }
}

impl ApproxTopK {
    /// The size of the results' reduction dimension.
    pub(crate) fn output_size(&self, operand: &Shape) -> Result<usize> {
        let planned = self.partial_reduction(operand)?.size;
        // With an override, XLA's formula rounds a small operand's size up past it, and XLA then leaves the
        // operand as it is.
        Ok(if self.aggregate_to_topk {
            self.k
        } else {
            planned.min(operand.dims()[self.reduction_dimension])
        })
    }

    /// The partial reduction by XLA's formula; it refuses what the operator does not take.
    pub(crate) fn partial_reduction(&self, operand: &Shape) -> Result<ReductionSize> {
        let name = self.direction.name();
        let Some(&size) = operand.dims().get(self.reduction_dimension) else {
            let expected = format!("a dimension of {operand}");
            return Err(Error::argument(name, "reduction_dimension", expected, self.reduction_dimension));
        };
        if !operand.dtype().is_float() {
            return Err(Error::argument(name, "operand's dtype", "floating", operand.dtype()));
        }
        if i32::try_from(size).is_err() {
            let expected = format!("of at most {} elements, as indices are s32", i32::MAX);
            return Err(Error::argument(name, "reduction dimension", expected, size));
        }
        reduction_output_size(
            size,
            operand.rank(),
            self.k,
            self.recall_target,
            false,
            self.reduction_input_size_override,
        )
        .map_err(|problem| match problem {
            Error::Argument { argument, expected, got, .. } => Error::argument(name, argument, expected, got),
            other => other,
        })
    }

    /// Appends the operator with those carried operands that are there: values, indices, and the elements of each
    /// carried operand that is there.
    fn push_some(
        &self,
        operand: &Tensor,
        carried: &[Option<&Tensor>],
    ) -> Result<(Tensor, Tensor, Vec<Option<Tensor>>)> {
        let inputs: Vec<&Tensor> =
            std::iter::once(operand).chain(carried.iter().copied().flatten()).collect();
        let mut outputs = operand.builder().push(self.clone(), &inputs)?;
        let found = outputs.split_off(2);
        let (values, indices) = pair(self.name(), outputs)?;
        let given: Vec<bool> = carried.iter().map(Option::is_some).collect();
        Ok((values, indices, placed(found, &given)))
    }
}

impl Operator for ApproxTopK {
    fn name(&self) -> &'static str {
        self.direction.name()
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        let mut params = vec![
            ("k", self.k.to_string()),
            ("reduction_dimension", self.reduction_dimension.to_string()),
            ("recall_target", self.recall_target.to_string()),
        ];
        if let Some(size) = self.reduction_input_size_override {
            params.push(("reduction_input_size_override", size.to_string()));
        }
        if !self.aggregate_to_topk {
            params.push(("aggregate_to_topk", "false".to_owned()));
        }
        if self.tangent == Tangent::Carried {
            params.push(("tangent", "carried".to_owned()));
        }
        params
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let Some((&operand, carried)) = inputs.split_first() else {
            return Err(Error::argument(self.name(), "operands", "one at least", "none"));
        };
        if let Some(index) = carried.iter().position(|carried| carried.dims() != operand.dims()) {
            let expected = format!("of sizes {}, as the operand", Dims(operand.dims()));
            return Err(Error::argument(
                self.name(),
                format!("carried operand {index}"),
                expected,
                carried[index],
            ));
        }
        let size = self.output_size(operand)?;
        let mut dims = operand.dims().to_vec();
        dims[self.reduction_dimension] = size;
        let values = operand.with_dims(dims);
        let carried = carried.iter().map(|carried| values.with_dtype(carried.dtype()));
        Ok([values.clone(), values.with_dtype(DType::S32)].into_iter().chain(carried).collect())
    }

    /// The exact answer, in a stable order.
    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let operand = inputs[0].shape();
        let size = operand.dims()[self.reduction_dimension];
        let stride = operand.strides()[self.reduction_dimension];
        let count = self.output_size(operand)?;
        let mut dims = operand.dims().to_vec();
        dims[self.reduction_dimension] = count;
        let numbers = inputs[0].to_f64();
        let output = operand.with_dims(dims.as_slice());
        let mut indices = vec![0i32; output.element_count()];
        // Rows start where the position along the reduction dimension is 0.
        let rows = (0..numbers.len()).filter(|position| (position / stride).is_multiple_of(size));
        for (row, start) in rows.enumerate() {
            let at = |index: usize| numbers[start + index * stride];
            let mut order: Vec<usize> = (0..size).collect();
            order.sort_by(|&a, &b| {
                let (a, b) = (at(a), at(b));
                let nan_last = a.is_nan().cmp(&b.is_nan());
                let best_first = match self.direction {
                    Direction::Max => b.partial_cmp(&a),
                    Direction::Min => a.partial_cmp(&b),
                };
                nan_last.then(best_first.unwrap_or(std::cmp::Ordering::Equal))
            });
            let target = row / stride * stride * count + row % stride;
            for (rank, &index) in order[..count].iter().enumerate() {
                indices[target + rank * stride] = index as i32;
            }
        }
        let source = |position| {
            let start = position / (stride * count) * stride * size + position % stride;
            Some(start + indices[position] as usize * stride)
        };
        let mut outputs: Vec<Array> =
            inputs.iter().map(|input| input.rearranged(output.dims(), None, source)).collect();
        outputs.insert(1, Array::new(dims, &indices)?);
        Ok(outputs)
    }

    fn hlo(&self, _: &mut hlo::Builder, _: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        Err(Error::Unsupported {
            operator: self.name(),
            target: "hlo".to_owned(),
            reason: "it has no HLO of its own and is lowered to one of its forms first".to_owned(),
        })
    }

    /// Without what is carried for nothing.
    fn narrowed(&self, used: &[bool], _effects: bool) -> Option<Narrowed> {
        let carried = used.get(2..).filter(|carried| carried.contains(&false))?;
        Some(Narrowed {
            op: self.clone().into(),
            inputs: [&[true], carried].concat(),
            outputs: [&[true, true], carried].concat(),
        })
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let (operand, carried) = (&inputs[0], &inputs[1..]);
        let Some(axis) = operand.axis else {
            // One search for all of the batch; what has a batch dimension is read at its indices.
            let shared: Vec<_> =
                carried.iter().map(|carried| carried.axis.is_none().then_some(&carried.tensor)).collect();
            let (values, indices, found) = self.push_some(&operand.tensor, &shared)?;
            let [values, indices] = [values, indices].map(|tensor| Batched { tensor, axis: None });
            let mut outputs = vec![values, indices.clone()];
            for (found, carried) in found.into_iter().zip(carried) {
                outputs.push(match (found, carried.axis) {
                    (None, Some(axis)) => {
                        let dimension = carried.dimension(self.reduction_dimension) as isize;
                        let indices = rule.at(&indices, axis)?;
                        let tensor = carried.tensor.take_along_axis(&indices, dimension)?;
                        Batched { tensor, axis: Some(axis) }
                    }
                    (found, axis) => Batched { tensor: found.unwrap_or(carried.tensor.clone()), axis },
                });
            }
            return Ok(outputs);
        };
        let mut op = self.clone();
        op.reduction_dimension = operand.dimension(self.reduction_dimension);
        let size = self.output_size(&operand.inner())?;
        if op.output_size(operand.tensor.shape())? != size {
            // XLA's formula depends on the rank. The best of that number are more than it promises.
            (op.k, op.aggregate_to_topk) = (size, true);
        }
        let inputs = inputs.iter().map(|input| rule.at(input, axis)).collect::<Result<Vec<_>>>()?;
        rule.push(op, &inputs.iter().collect::<Vec<_>>(), axis)
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        let tangents: Vec<&Tensor> = inputs.iter().filter_map(|input| input.tangent.as_ref()).collect();
        let (outputs, tangents) = match self.tangent {
            Tangent::Gather => {
                let outputs = rule.primal(inputs)?;
                let dimension = self.reduction_dimension as isize;
                let found = tangents.iter().map(|tangent| tangent.take_along_axis(&outputs[1], dimension));
                let found = found.collect::<Result<Vec<_>>>()?;
                (outputs, found)
            }
            Tangent::Carried => {
                let all: Vec<&Tensor> = inputs.iter().map(|input| &input.primal).chain(tangents).collect();
                let mut outputs = rule.builder.push(self.clone(), &all)?;
                let found = outputs.split_off(inputs.len() + 1);
                (outputs, found)
            }
        };
        let active: Vec<bool> = inputs.iter().map(|input| input.tangent.is_some()).collect();
        let mut found = placed(tangents, &active);
        // The indices have none.
        found.insert(1, None);
        Ok(outputs.into_iter().zip(found).map(|(primal, tangent)| Dual { primal, tangent }).collect())
    }

    fn partial(&self, rule: &Transposition, inputs: &[Part]) -> Result<Partial> {
        let Some(operand) = inputs[0].known() else {
            return no_rule(self.name(), "vjp", "it is not linear in its operand");
        };
        let known: Vec<_> = inputs[1..].iter().map(Part::known).collect();
        let (values, indices, found) = self.push_some(operand, &known)?;
        let residuals = vec![indices.clone()];
        let mut outputs = vec![Part::Known(values), Part::Known(indices)];
        for (found, shape) in found.into_iter().zip(&rule.outputs[2..]) {
            outputs.push(found.map_or(Part::Linear(shape.clone()), Part::Known));
        }
        Ok(Partial { outputs, residuals })
    }

    fn transpose(
        &self,
        rule: &Transposition,
        inputs: &[Part],
        residuals: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let dimension = self.reduction_dimension as isize;
        let scatter = |(input, cotangent): (&Part, &Option<Tensor>)| match (input, cotangent) {
            (Part::Linear(shape), Some(cotangent)) => zeros(rule.builder, shape)?
                .scatter_along_axis(&residuals[0], cotangent, dimension, ScatterKind::Add)
                .map(Some),
            _ => Ok(None),
        };
        // The output of a carried operand is one place behind it, after values and indices.
        let carried = inputs[1..].iter().zip(&cotangents[2..]).map(scatter);
        std::iter::once(Ok(None)).chain(carried).collect()
    }
}

fn pair(operator: &'static str, tensors: Vec<Tensor>) -> Result<(Tensor, Tensor)> {
    let got = tensors.len();
    let pair: [Tensor; 2] =
        tensors.try_into().map_err(|_| Error::argument(operator, "results", "two", got))?;
    Ok(pair.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::{Form, Options, lower};
    use crate::{Function, Session, target};

    fn carrying(carried: &[Shape], aggregate_to_topk: bool) -> Result<Function> {
        let op = ApproxTopK {
            direction: Direction::Min,
            k: 3,
            reduction_dimension: 0,
            recall_target: 0.95,
            reduction_input_size_override: None,
            aggregate_to_topk,
            tangent: Tangent::Carried,
        };
        let shapes = [&[Shape::new(DType::F32, [600, 2])], carried].concat();
        Function::trace("carrying", &shapes, |x| x[0].builder().push(op, &x.iter().collect::<Vec<_>>()))
    }

    #[test]
    fn operands_of_any_dtype_are_carried_along() {
        let dtypes = DType::ALL;
        let shapes: Vec<Shape> = dtypes.iter().map(|&dtype| Shape::new(dtype, [600, 2])).collect();
        let operand: Vec<f32> = (0..1200).map(|index| (index * 7 % 1201) as f32).collect();
        // A pred is true at every other position, and small integers repeat.
        let values: Vec<f64> = (0..1200).map(|index| f64::from(index * 5 % 127)).collect();
        let carried = shapes.iter().map(|shape| match shape.dtype() {
            DType::Pred => {
                Array::from_f64(shape.clone(), &values.iter().map(|v| v % 2.0).collect::<Vec<_>>())
            }
            _ => Array::from_f64(shape.clone(), &values),
        });
        let mut arguments = vec![Array::new([600, 2], &operand).unwrap()];
        arguments.extend(carried.map(Result::unwrap));
        for aggregate_to_topk in [true, false] {
            let function = carrying(&shapes, aggregate_to_topk).unwrap();
            for form in [None, Some(Form::Sort), Some(Form::TwoStage)] {
                let options = Options { approx_top_k: form, ..Default::default() };
                let lowered = lower(&function, &target::cpu::CAPABILITIES, &options).unwrap();
                let mut runs =
                    vec![function.eval(&arguments).unwrap(), lowered.function.eval(&arguments).unwrap()];
                if let Ok(session) = Session::cpu() {
                    let (executable, _) = session.compile_with(&function, &options).unwrap();
                    runs.push(executable.run_arrays(&arguments).unwrap());
                }
                for results in runs {
                    let indices = results[1].to_vec::<i32>().unwrap();
                    let source = |position: usize| Some(indices[position] as usize * 2 + position % 2);
                    for (argument, result) in arguments.iter().zip(results[..1].iter().chain(&results[2..])) {
                        let expected = argument.rearranged(results[1].shape().dims(), None, source);
                        assert_eq!(*result, expected, "{form:?} of {function}");
                    }
                }
            }
        }
    }

    #[test]
    fn carried_operands_of_other_sizes_are_refused() {
        assert_eq!(
            carrying(&[Shape::new(DType::S8, [600, 2]), Shape::new(DType::F32, [600])], true)
                .unwrap_err()
                .to_string(),
            "approx_min_k: carried operand 1 must be of sizes [600,2], as the operand, got f32[600]"
        );
    }
}
