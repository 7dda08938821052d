//! Sorting.

use std::sync::Arc;

use crate::graph::{Builder, Convention, Function, Tensor};
use crate::hlo;
use crate::ops::scatter::ScatterKind;
use crate::ops::{Narrowed, Operator, others, signature};
use crate::shape::{Dims, offsets};
use crate::transform::{
    Batched, Dual, Jvp, Part, Partial, Transposition, Vmap, flatten, join, no_rule, zeros,
};
use crate::{Array, DType, Error, Result, Shape};

/// Sorts operands of equal sizes together along a dimension.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sort {
    pub(crate) dimension: usize,
    pub(crate) is_stable: bool,
    /// From a left and a right element of each operand in turn, whether left comes first.
    pub(crate) comparator: Arc<Function>,
}

impl Builder {
    /// Sorts operands of equal sizes together along `axis` (negative: from the end).
    ///
    /// For n operands, `comparator` takes 2n scalars (the left and the right element of operand 0, then those
    /// of operand 1, ...) and gives a pred: whether left must come before right. It must be a strict weak
    /// order; under any other, the output is some permutation of the input. `stable` keeps the order of
    /// elements of which neither comes first; otherwise it is left open.
    ///
    /// # Errors
    /// Where there is no operand, their sizes differ, they have no such axis, or the comparator does not fit.
    ///
    /// ```
    /// use xlann::{Array, Builder, DType, Function, Shape};
    ///
    /// // Names by descending score: the scores decide, the names move along.
    /// let (f32, s32) = (Shape::scalar(DType::F32), Shape::scalar(DType::S32));
    /// let descending = Function::trace("descending", &[f32.clone(), f32, s32.clone(), s32], |x| {
    ///     let [left, right] = [&x[0], &x[1]];
    ///     left.greater(right)
    /// })?;
    ///
    /// let builder = Builder::new("ranking");
    /// let scores = builder.parameter("scores", Shape::new(DType::F32, [3]))?;
    /// let names = builder.parameter("names", Shape::new(DType::S32, [3]))?;
    /// let sorted = builder.sort_by(&[&scores, &names], 0, true, descending)?;
    /// let ranking = builder.finish(sorted)?;
    /// let results = ranking.eval(&[Array::new([3], &[0.5f32, 2.0, 1.0])?, Array::new([3], &[7, 8, 9])?])?;
    /// assert_eq!(results, [Array::new([3], &[2f32, 1.0, 0.5])?, Array::new([3], &[8, 9, 7])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias = "lexsort")]
    pub fn sort_by(
        &self,
        operands: &[&Tensor],
        axis: isize,
        stable: bool,
        comparator: Function,
    ) -> Result<Vec<Tensor>> {
        let Some(first) = operands.first() else {
            return Err(Error::argument("sort", "operands", "one at least", "none"));
        };
        let dimension = first.shape().axis("sort", "axis", axis)?;
        self.push(Sort { dimension, is_stable: stable, comparator: Arc::new(comparator) }, operands)
    }
}

impl Tensor {
    /// This tensor in ascending order along `axis` (negative: from the end); NaNs come last, 0 and -0 are equal
    /// and keep their order.
    ///
    /// # Errors
    /// Where there is no such axis.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [4])], |x| x[0].sort(0))?;
    /// let results = f.eval(&[Array::new([4], &[3f32, f32::NAN, -1.0, 2.0])?])?;
    /// assert_eq!(results[0].to_string(), "f32[4] [-1, 2, 3, NaN]");
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn sort(&self, axis: isize) -> Result<Tensor> {
        let comparator = ascending(&[self.dtype()])?;
        Ok(self.builder().sort_by(&[self], axis, true, comparator)?.remove(0))
    }

    /// This tensor in descending order along `axis` (negative: from the end); NaNs come first, as in JAX and torch, and
    /// what is equal keeps its order, such as 0 and -0.
    ///
    /// # Errors
    /// Where there is no such axis.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [4])], |x| x[0].sort_descending(0))?;
    /// let results = f.eval(&[Array::new([4], &[3f32, f32::NAN, -1.0, 2.0])?])?;
    /// assert_eq!(results[0].to_string(), "f32[4] [NaN, 3, 2, -1]");
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn sort_descending(&self, axis: isize) -> Result<Tensor> {
        let comparator = descending(&[self.dtype()])?;
        Ok(self.builder().sort_by(&[self], axis, true, comparator)?.remove(0))
    }

    /// The s32 indices along `axis` (negative: from the end) that bring this tensor in the order of
    /// [`sort`](Tensor::sort); equal elements keep their order.
    ///
    /// # Errors
    /// Where there is no such axis, or its size does not fit an s32.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [4])], |x| x[0].argsort(0))?;
    /// let results = f.eval(&[Array::new([4], &[3f32, f32::NAN, -1.0, 2.0])?])?;
    /// assert_eq!(results, [Array::new([4], &[2, 3, 0, 1])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn argsort(&self, axis: isize) -> Result<Tensor> {
        self.order_by("argsort", axis, ascending)
    }

    /// The s32 indices along `axis` (negative: from the end) that bring this tensor in the order of
    /// [`sort_descending`](Tensor::sort_descending); equal elements keep their order.
    ///
    /// # Errors
    /// Where there is no such axis, or its size does not fit an s32.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [4])], |x| x[0].argsort_descending(0))?;
    /// let results = f.eval(&[Array::new([4], &[3f32, f32::NAN, 3.0, 4.0])?])?;
    /// assert_eq!(results, [Array::new([4], &[1, 3, 0, 2])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn argsort_descending(&self, axis: isize) -> Result<Tensor> {
        self.order_by("argsort_descending", axis, descending)
    }

    fn order_by(
        &self,
        operator: &'static str,
        axis: isize,
        comparator: fn(&[DType]) -> Result<Function>,
    ) -> Result<Tensor> {
        let dimension = self.shape().axis(operator, "axis", axis)?;
        if i32::try_from(self.dims()[dimension]).is_err() {
            let expected = format!("one of size {} at most", i32::MAX);
            return Err(Error::argument(operator, "axis", expected, self.shape()));
        }
        let indices = self.builder().iota(self.shape().with_dtype(DType::S32), axis)?;
        let comparator = comparator(&[self.dtype(), DType::S32])?;
        Ok(self.builder().sort_by(&[self, &indices], axis, true, comparator)?.remove(1))
    }
}

/// Whether the left element of the first of several operands is less, a NaN being greater than all else.
fn ascending(dtypes: &[DType]) -> Result<Function> {
    comparator("ascending", dtypes, is_less)
}

/// Whether the left element of the first of several operands is greater, a NaN being greater than all else.
fn descending(dtypes: &[DType]) -> Result<Function> {
    comparator("descending", dtypes, |left, right| is_less(right, left))
}

/// A comparator of the first of operands of these dtypes.
fn comparator(
    name: &str,
    dtypes: &[DType],
    before: impl FnOnce(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Function> {
    let scalars: Vec<Shape> =
        dtypes.iter().flat_map(|&dtype| [Shape::scalar(dtype), Shape::scalar(dtype)]).collect();
    Function::trace(name, &scalars, |x| before(&x[0], &x[1]))
}

fn is_less(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let less = x.less(y)?;
    match x.dtype().is_float() {
        true => less | (x.equal(x)? & y.not_equal(y)),
        false => Ok(less),
    }
}

impl Sort {
    /// The positions of the elements in sorted order, line after line.
    ///
    /// A merge sort whose comparisons are evaluated in batches: for all elements at once, a step of the binary
    /// search for their place in the neighbouring run. Unlike the library's sorts it takes any comparator.
    fn order(&self, inputs: &[Array], lines: &[usize], size: usize, stride: usize) -> Result<Vec<usize>> {
        let mut order: Vec<usize> =
            lines.iter().flat_map(|line| (0..size).map(move |index| line + index * stride)).collect();
        let mut width = 1;
        while width < size {
            let mut searches = Vec::with_capacity(order.len());
            for start in (0..order.len()).step_by(size) {
                for left in (start..start + size).step_by(2 * width) {
                    let middle = (left + width).min(start + size);
                    let end = (middle + width).min(start + size);
                    searches.extend((left..middle).map(|element| Search { element, low: middle, high: end }));
                }
            }
            self.search(inputs, &order, &mut searches)?;
            order = merge(&order, &searches, size, width);
            width *= 2;
        }
        Ok(order)
    }

    /// Finds, for each element, the first of its neighbouring run that does not come before it.
    fn search(&self, inputs: &[Array], order: &[usize], searches: &mut [Search]) -> Result<()> {
        let mut open: Vec<usize> = (0..searches.len()).collect();
        loop {
            open.retain(|&index| searches[index].low < searches[index].high);
            if open.is_empty() {
                return Ok(());
            }
            let dims = [open.len()];
            let right = |p: usize| Some(order[searches[open[p]].middle()]);
            let left = |p: usize| Some(order[searches[open[p]].element]);
            let scalars: Vec<Array> = inputs
                .iter()
                .flat_map(|input| [input.rearranged(&dims, None, right), input.rearranged(&dims, None, left)])
                .collect();
            let before = self.comparator.eval_each(&dims, &scalars)?.remove(0);
            for (&index, &before) in open.iter().zip(before.as_bytes()) {
                let search = &mut searches[index];
                match before {
                    0 => search.high = search.middle(),
                    _ => search.low = search.middle() + 1,
                }
            }
        }
    }
}

/// A binary search for the place of an element in `low..high`, all of them positions in the current order.
struct Search {
    element: usize,
    low: usize,
    high: usize,
}

impl Search {
    fn middle(&self) -> usize {
        self.low + (self.high - self.low) / 2
    }
}

/// Merges neighbouring runs, given the place in the right one of each element of the left one.
fn merge(order: &[usize], searches: &[Search], size: usize, width: usize) -> Vec<usize> {
    let mut merged = Vec::with_capacity(order.len());
    let mut searches = searches.iter();
    for start in (0..order.len()).step_by(size) {
        for left in (start..start + size).step_by(2 * width) {
            let middle = (left + width).min(start + size);
            let end = (middle + width).min(start + size);
            let mut right = middle;
            for search in searches.by_ref().take(middle - left) {
                // Under an inconsistent comparator places can decrease; the merge stays a permutation.
                let place = search.low.max(right);
                merged.extend_from_slice(&order[right..place]);
                merged.push(order[search.element]);
                right = place;
            }
            merged.extend_from_slice(&order[right..end]);
        }
    }
    merged
}

impl Operator for Sort {
    fn name(&self) -> &'static str {
        "sort"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![("dimension", self.dimension.to_string()), ("is_stable", self.is_stable.to_string())]
    }

    fn functions(&self) -> Vec<(&'static str, &Arc<Function>)> {
        vec![("comparator", &self.comparator)]
    }

    fn functions_mut(&mut self) -> Vec<&mut Arc<Function>> {
        vec![&mut self.comparator]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let Some(&first) = inputs.first() else {
            return Err(Error::argument(self.name(), "operands", "one at least", "none"));
        };
        if self.dimension >= first.rank() {
            let expected = format!("less than the rank of {first}");
            return Err(Error::argument(self.name(), "dimension", expected, self.dimension));
        }
        if let Some(index) = inputs.iter().position(|input| input.dims() != first.dims()) {
            let expected = format!("of sizes {}, as operand 0", Dims(first.dims()));
            return Err(Error::argument(self.name(), format!("operand {index}"), expected, inputs[index]));
        }
        let scalars: Vec<Shape> =
            inputs.iter().flat_map(|input| std::iter::repeat_n(input.with_dims([]), 2)).collect();
        signature(self.name(), "comparator", &self.comparator, &scalars, &[Shape::scalar(DType::Pred)])?;
        Ok(inputs.iter().map(|&input| input.clone()).collect())
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let shape = inputs[0].shape();
        if shape.element_count() == 0 {
            return Ok(inputs.to_vec());
        }
        let (size, stride) = (shape.dims()[self.dimension], shape.strides()[self.dimension]);
        let (dims, strides) = shape.part(&others(shape.rank(), &[&[self.dimension]]));
        let lines = offsets(&dims, &strides);
        let order = self.order(inputs, &lines, size, stride)?;
        // The element at `sources[p]` goes to p.
        let mut sources = vec![0; order.len()];
        for (line, order) in lines.iter().zip(order.chunks_exact(size)) {
            for (index, &source) in order.iter().enumerate() {
                sources[line + index * stride] = source;
            }
        }
        Ok(inputs.iter().map(|input| input.rearranged(shape.dims(), None, |p| Some(sources[p]))).collect())
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let comparator = self.comparator.emit(module, Convention::Flat)?;
        let shapes: Vec<Shape> = inputs.iter().map(|input| input.shape().clone()).collect();
        let operands: Vec<&hlo::Value> = inputs.iter().collect();
        Ok(module.add_variadic("sort", &shapes, &operands, |instruction| {
            instruction.dimensions = vec![self.dimension as i64];
            instruction.is_stable = self.is_stable;
            instruction.called_computation_ids = vec![comparator.id()];
        }))
    }
    /// Without the operands whose outputs are not used and that the comparator does not read.
    fn narrowed(&self, used: &[bool], effects: bool) -> Option<Narrowed> {
        let read = self.comparator.parameters_read();
        let kept: Vec<bool> =
            used.iter().enumerate().map(|(i, used)| *used || read[2 * i] || read[2 * i + 1]).collect();
        if !kept.contains(&false) {
            return None;
        }
        let parameters: Vec<bool> = kept.iter().flat_map(|&kept| [kept, kept]).collect();
        let comparator = Arc::new(self.comparator.restricted(&parameters, &[true], effects));
        Some(Narrowed { op: Sort { comparator, ..self.clone() }.into(), inputs: kept.clone(), outputs: kept })
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let (axis, operands) = rule.aligned(inputs)?;
        let dimension = self.dimension + usize::from(axis <= self.dimension);
        rule.push(Sort { dimension, ..self.clone() }, &operands.iter().collect::<Vec<_>>(), axis)
    }

    /// Tangents are sorted along, as further operands that the comparator does not read.
    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        let active: Vec<bool> = inputs.iter().map(|input| input.tangent.is_some()).collect();
        let operands = flatten(inputs, &active)?;
        let operands: Vec<&Tensor> = operands.iter().collect();
        let read: Vec<usize> = (0..inputs.len()).collect();
        let sort = self.with_operands(&operands, &read)?;
        Ok(join(&rule.builder.push(sort, &operands)?, &active))
    }

    /// Linear operands are moved as the others are, whose sort takes their places along.
    fn partial(&self, rule: &Transposition, inputs: &[Part]) -> Result<Partial> {
        let shape = inputs[0].shape();
        let dtype = if i32::try_from(shape.dims()[self.dimension]).is_ok() { DType::S32 } else { DType::S64 };
        let places = rule.builder.iota(shape.with_dtype(dtype), self.dimension as isize)?;
        let read: Vec<usize> = (0..inputs.len()).filter(|&index| !inputs[index].is_linear()).collect();
        let operands: Vec<&Tensor> = inputs.iter().filter_map(Part::known).chain([&places]).collect();
        let mut sorted = rule.builder.push(self.with_operands(&operands, &read)?, &operands)?;
        let places = sorted.pop().into_iter().collect();
        let linear: Vec<bool> = inputs.iter().map(Part::is_linear).collect();
        Ok(Partial { outputs: Part::list(&rule.outputs, &linear, sorted), residuals: places })
    }

    /// Cotangents go back to the places that the elements came from. On XLA:CPU a scatter takes them there in a
    /// fraction of the time of a sort by the places.
    fn transpose(
        &self,
        rule: &Transposition,
        _: &[Part],
        residuals: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let axis = self.dimension as isize;
        let back = |cotangent: &Tensor| {
            let zeros = zeros(rule.builder, cotangent.shape())?;
            zeros.scatter_along_axis(&residuals[0], cotangent, axis, ScatterKind::Add)
        };
        cotangents.iter().map(|cotangent| cotangent.as_ref().map(back).transpose()).collect()
    }
}

impl Sort {
    /// The sort of other operands in the same order; `read` are those of its own that come first among them.
    fn with_operands(&self, operands: &[&Tensor], read: &[usize]) -> Result<Sort> {
        let builder = Builder::new(self.comparator.name());
        let mut scalars = Vec::new();
        for operand in operands {
            for _ in 0..2 {
                scalars.push(builder.parameter("", operand.shape().with_dims([]))?);
            }
        }
        let mut arguments = vec![None; self.comparator.parameters().len()];
        for (place, &index) in read.iter().enumerate() {
            for side in 0..2 {
                arguments[2 * index + side] = Some(scalars[2 * place + side].clone());
            }
        }
        let results = self.comparator.interpret(arguments, |equation, inputs| {
            let inputs: Option<Vec<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
            match inputs {
                Some(inputs) => {
                    Ok(builder.push(equation.op.clone(), &inputs)?.into_iter().map(Some).collect())
                }
                None => Ok(vec![None; equation.outputs().len()]),
            }
        })?;
        let Some(Some(before)) = results.into_iter().next() else {
            return no_rule(self.name(), "vjp", "its order depends on a tangent");
        };
        let comparator = Arc::new(builder.finish(before)?);
        Ok(Sort { comparator, ..self.clone() })
    }
}
