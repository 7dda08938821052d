//! Reductions of several operands at once by a function.

use std::sync::Arc;

use crate::graph::{Builder, Convention, Function, Tensor, chosen};
use crate::hlo;
use crate::ops::binary::Binary;
use crate::ops::reduce::{Kind, walk};
use crate::ops::{Op, Operator, i64s, increasing, others, signature};
use crate::shape::Dims;
use crate::transform::{
    Batched, Dual, Jvp, Part, Partial, Tape, Transposition, Vmap, flatten, join, jvp_body, known_part,
    push_jvp, push_vmap, settle,
};
use crate::{Array, DType, Error, Result, Shape};

/// Combines the elements of several operands along some dimensions by a function of scalars.
///
/// The inputs are the operands, then for each its initial value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReduceVariadic {
    /// Increasing.
    pub(crate) dimensions: Vec<usize>,
    pub(crate) reducer: Arc<Function>,
}

impl Builder {
    /// Reduces operands of equal sizes together over `dimensions` (negative: from the end).
    ///
    /// For n operands, `inits` are n scalars of their dtypes, and `reducer` takes n accumulated scalars, then
    /// n elements, and gives n accumulated ones. Elements are combined in any order and grouping, and an init
    /// with any number of the groups: the reducer must be associative and commutative, and the inits its
    /// identity.
    ///
    /// # Errors
    /// Where there is no operand, their sizes differ, a dimension is out of range or named twice, or the inits
    /// or the reducer do not fit.
    ///
    /// ```
    /// use xlann::{Array, Builder, DType, Function, Shape};
    ///
    /// // The sum and the sum of squares at once: of each element, its value and its square are added up.
    /// let scalar = Shape::scalar(DType::F32);
    /// let add = Function::trace("add", &vec![scalar; 4], |x| Ok([(&x[0] + &x[2])?, (&x[1] + &x[3])?]))?;
    ///
    /// let builder = Builder::new("moments");
    /// let x = builder.parameter("x", Shape::new(DType::F32, [2, 3]))?;
    /// let (squares, zero) = ((&x * &x)?, builder.scalar(0f32)?);
    /// let moments = builder.reduce(&[&x, &squares], &[&zero, &zero], &[1], add)?;
    /// let function = builder.finish(moments)?;
    /// let results = function.eval(&[Array::new([2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0])?])?;
    /// assert_eq!(results, [Array::new([2], &[6f32, 15.0])?, Array::new([2], &[14f32, 77.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn reduce(
        &self,
        operands: &[&Tensor],
        inits: &[&Tensor],
        dimensions: &[isize],
        reducer: Function,
    ) -> Result<Vec<Tensor>> {
        let Some(first) = operands.first() else {
            return Err(Error::argument("reduce", "operands", "one at least", "none"));
        };
        if operands.len() != inits.len() {
            let expected = format!("{}, one for each operand", operands.len());
            return Err(Error::argument("reduce", "inits", expected, inits.len()));
        }
        let dimensions = first.shape().axes("reduce", "dimensions", dimensions)?;
        let op = ReduceVariadic { dimensions, reducer: Arc::new(reducer) };
        self.push(op, &[operands, inits].concat())
    }
}

impl Tensor {
    /// The s32 index of the greatest element along `axis` (negative: from the end), which the output lacks: the
    /// first of equal ones, or the first NaN where there is one.
    ///
    /// # Errors
    /// Where there is no such axis, or its size is 0 or does not fit an s32.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [2, 3])], |x| x[0].argmax(1))?;
    /// let results = f.eval(&[Array::new([2, 3], &[1f32, 2.0, 3.0, 9.0, 5.0, 6.0])?])?;
    /// assert_eq!(results, [Array::new([2], &[2, 0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn argmax(&self, axis: isize) -> Result<Tensor> {
        self.index_of("argmax", Kind::Max, axis, |lhs, rhs| lhs.greater(rhs))
    }

    /// The s32 index of the least element along `axis` (negative: from the end), which the output lacks: the
    /// first of equal ones, or the first NaN where there is one.
    ///
    /// # Errors
    /// Where there is no such axis, or its size is 0 or does not fit an s32.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [2, 3])], |x| x[0].argmin(1))?;
    /// let results = f.eval(&[Array::new([2, 3], &[1f32, 2.0, 3.0, 9.0, 5.0, 6.0])?])?;
    /// assert_eq!(results, [Array::new([2], &[0, 1])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn argmin(&self, axis: isize) -> Result<Tensor> {
        self.index_of("argmin", Kind::Min, axis, |lhs, rhs| lhs.less(rhs))
    }

    fn index_of(
        &self,
        operator: &'static str,
        kind: Kind,
        axis: isize,
        better: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let dimension = self.shape().axis(operator, "axis", axis)?;
        if !(1..=i32::MAX as usize).contains(&self.dims()[dimension]) {
            let expected = format!("one of size 1 to {}", i32::MAX);
            return Err(Error::argument(operator, "axis", expected, self.shape()));
        }
        let scalars = [Shape::scalar(self.dtype()), Shape::scalar(DType::S32)];
        let scalars = [scalars.as_slice(), &scalars].concat();
        let reducer = Function::trace(operator, &scalars, |x| {
            let [lhs, lhs_index, rhs, rhs_index] = [&x[0], &x[1], &x[2], &x[3]];
            let wins = |lhs: &Tensor, rhs: &Tensor| match lhs.dtype().is_float() {
                true => better(lhs, rhs)? | (lhs.not_equal(lhs)? & rhs.equal(rhs)),
                false => better(lhs, rhs),
            };
            let first = ((!wins(rhs, lhs)?)? & lhs_index.less(rhs_index))?;
            let left = (wins(lhs, rhs)? | first)?;
            Ok((left.select(lhs, rhs)?, left.select(lhs_index, rhs_index)?))
        })?;
        let indices = self.builder().iota(self.shape().with_dtype(DType::S32), axis)?;
        let inits = [self.builder().constant(kind.identity(self.dtype())?)?, self.builder().scalar(0i32)?];
        let mut outputs =
            self.builder().reduce(&[self, &indices], &[&inits[0], &inits[1]], &[axis], reducer)?;
        Ok(outputs.remove(1))
    }
}

impl Operator for ReduceVariadic {
    fn name(&self) -> &'static str {
        "reduce"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![("dimensions", Dims(&self.dimensions).to_string())]
    }

    fn functions(&self) -> Vec<(&'static str, &Arc<Function>)> {
        vec![("reducer", &self.reducer)]
    }

    fn functions_mut(&mut self) -> Vec<&mut Arc<Function>> {
        vec![&mut self.reducer]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let name = self.name();
        if inputs.is_empty() || inputs.len() % 2 == 1 {
            return Err(Error::argument(name, "operands", "some, and as many inits", inputs.len()));
        }
        let (operands, inits) = inputs.split_at(inputs.len() / 2);
        let first = operands[0];
        increasing(name, "dimensions", &self.dimensions, first.rank())?;
        for (index, (&operand, &init)) in operands.iter().zip(inits).enumerate() {
            if operand.dims() != first.dims() {
                let expected = format!("of sizes {}, as operand 0", Dims(first.dims()));
                return Err(Error::argument(name, format!("operand {index}"), expected, operand));
            }
            let scalar = operand.with_dims([]);
            if *init != scalar {
                return Err(Error::argument(name, format!("init {index}"), scalar.to_string(), init));
            }
        }
        let scalars: Vec<Shape> = inits.iter().map(|&init| init.clone()).collect();
        signature(name, "reducer", &self.reducer, &[scalars.as_slice(), &scalars].concat(), &scalars)?;
        let kept = others(first.rank(), &[&self.dimensions]);
        let dims = first.part(&kept).0;
        Ok(scalars.iter().map(|scalar| scalar.with_dims(dims.as_slice())).collect())
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let shapes: Vec<&Shape> = inputs.iter().map(Array::shape).collect();
        let outputs = self.infer(&shapes)?;
        let dims = outputs[0].dims();
        let (operands, inits) = inputs.split_at(inputs.len() / 2);
        let (kept, reduced) = walk(shapes[0], &self.dimensions);
        // Positions of the output are independent, so each step of the reduction is taken for all at once.
        let mut state: Vec<Array> =
            inits.iter().map(|init| init.rearranged(dims, None, |_| Some(0))).collect();
        for offset in reduced {
            let elements =
                operands.iter().map(|operand| operand.rearranged(dims, None, |p| Some(kept[p] + offset)));
            state.extend(elements);
            state = self.reducer.eval_each(dims, &state)?;
        }
        Ok(state)
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let outputs = self.infer(&inputs.iter().map(hlo::Value::shape).collect::<Vec<_>>())?;
        let reducer = self.reducer.emit(module, Convention::Flat)?;
        let operands: Vec<&hlo::Value> = inputs.iter().collect();
        Ok(module.add_variadic("reduce", &outputs, &operands, |instruction| {
            instruction.dimensions = i64s(&self.dimensions);
            instruction.called_computation_ids = vec![reducer.id()];
        }))
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let (operands, inits) = inputs.split_at(inputs.len() / 2);
        if inits.iter().any(|init| init.axis.is_some()) {
            // HLO takes scalar inits only.
            let shapes: Vec<Shape> = inputs.iter().map(Batched::inner).collect();
            return push_vmap(rule.builder, rule.size, &self.tree(&shapes)?, inputs.to_vec());
        }
        let (axis, operands) = rule.aligned(operands)?;
        let inputs: Vec<&Tensor> = operands.iter().chain(inits.iter().map(|init| &init.tensor)).collect();
        let dimensions: Vec<usize> =
            self.dimensions.iter().map(|&dimension| dimension + usize::from(axis <= dimension)).collect();
        let before = dimensions.iter().filter(|&&dimension| dimension < axis).count();
        rule.push(ReduceVariadic { dimensions, reducer: self.reducer.clone() }, &inputs, axis - before)
    }

    /// The reduction of values and tangents together by the derivative of the reducer, which is associative as
    /// the reducer is; but that of a maximum is not, where it shares between equal values.
    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        if let Some(extremum) =
            self.extremum(&inputs.iter().map(|input| input.primal.shape()).collect::<Vec<_>>())?
        {
            return push_jvp(rule.builder, &extremum, inputs.to_vec());
        }
        let (operands, inits) = inputs.split_at(inputs.len() / 2);
        let active = operands.iter().zip(inits);
        let active = active.map(|(operand, init)| operand.tangent.is_some() || init.tangent.is_some());
        let (reducer, active) =
            settle(active.collect(), |active| jvp_body(&self.reducer, &[active, active].concat(), active))?;
        let reducer = by_operand(&reducer, &active)?;
        let inputs = [flatten(operands, &active)?, flatten(inits, &active)?].concat();
        let op = ReduceVariadic { dimensions: self.dimensions.clone(), reducer: Arc::new(reducer) };
        Ok(join(&rule.builder.push(op, &inputs.iter().collect::<Vec<_>>())?, &active))
    }

    fn partial(&self, rule: &Transposition, inputs: &[Part]) -> Result<Partial> {
        let linear: Vec<bool> = inputs.iter().map(Part::is_linear).collect();
        let (operands, inits) = linear.split_at(linear.len() / 2);
        let linear = operands.iter().zip(inits).map(|(operand, init)| operand | init).collect();
        let (reducer, linear) =
            settle(linear, |linear| known_part(&self.reducer, &[linear, linear].concat(), linear))?;
        let known: Vec<bool> = linear.iter().map(|linear| !linear).collect();
        let inputs = chosen(inputs, &[known.as_slice(), &known].concat());
        let inputs: Vec<&Tensor> = inputs.iter().filter_map(Part::known).collect();
        let op = ReduceVariadic { dimensions: self.dimensions.clone(), reducer: Arc::new(reducer) };
        let known = if inputs.is_empty() { Vec::new() } else { rule.builder.push(op, &inputs)? };
        Ok(Partial { outputs: Part::list(&rule.outputs, &linear, known), residuals: Vec::new() })
    }

    /// The transpose of the same reduction written as a tree.
    fn transpose(
        &self,
        rule: &Transposition,
        inputs: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let shapes: Vec<Shape> = inputs.iter().map(|input| input.shape().clone()).collect();
        let tree = self.tree(&shapes)?;
        Tape::forward(rule.builder, &tree, inputs.to_vec())?.backward(cotangents)
    }
}

/// The derivative of a reducer with parameters in the order of operands that are values and then tangents: first
/// all that is accumulated, then all elements.
fn by_operand(derivative: &Function, active: &[bool]) -> Result<Function> {
    let count = active.len();
    let shapes = derivative.parameter_shapes();
    let tangents = (shapes.len() - 2 * count) / 2;
    // The places of one half among the derivative's parameters: all values, then all tangents.
    let half = |index: usize| {
        let values = index * count..(index + 1) * count;
        let first = 2 * count + index * tangents;
        values.chain(first..first + tangents)
    };
    let places: Vec<usize> = half(0).chain(half(1)).collect();
    let ordered: Vec<Shape> = places.iter().map(|&place| shapes[place].clone()).collect();
    Function::trace(derivative.name(), &ordered, |x| {
        let mut arguments: Vec<&Tensor> = x.iter().collect();
        places.iter().zip(x).for_each(|(&place, x)| arguments[place] = x);
        x[0].builder().call(derivative, &arguments)
    })
}

/// Whether a reducer is nothing but this operator.
pub(super) fn reduces_by(reducer: &Function, operator: Binary) -> bool {
    let [equation] = reducer.equations() else { return false };
    let [x, y] = reducer.parameters.as_slice() else { return false };
    let operands = [[x.var, y.var], [y.var, x.var]];
    equation.op == Op::Binary(operator)
        && operands.iter().any(|operands| equation.inputs == operands)
        && equation.outputs == reducer.results
}

impl ReduceVariadic {
    /// The same function of inputs of these shapes by `reduce_max` or `reduce_min`, where it is that.
    fn extremum(&self, inputs: &[&Shape]) -> Result<Option<Function>> {
        let dimensions: Vec<isize> = self.dimensions.iter().map(|&dimension| dimension as isize).collect();
        let shapes: Vec<Shape> = inputs.iter().map(|&shape| shape.clone()).collect();
        if reduces_by(&self.reducer, Binary::Max) {
            let maximum = |x: &[Tensor]| x[0].reduce_max(&dimensions)?.maximum(&x[1]);
            return Function::trace("maximum", &shapes, maximum).map(Some);
        }
        if reduces_by(&self.reducer, Binary::Min) {
            let minimum = |x: &[Tensor]| x[0].reduce_min(&dimensions)?.minimum(&x[1]);
            return Function::trace("minimum", &shapes, minimum).map(Some);
        }
        Ok(None)
    }

    /// The same function of inputs of these shapes by operators on whole arrays: neighbours are combined until
    /// one element is left, and the inits with that. The order stays, which decides between ties.
    fn tree(&self, inputs: &[Shape]) -> Result<Function> {
        Function::trace("reduce_tree", inputs, |x| {
            let (operands, inits) = x.split_at(x.len() / 2);
            let kept = others(operands[0].rank(), &[&self.dimensions]);
            let (dims, _) = operands[0].shape().part(&kept);
            let width: usize = dims.iter().product();
            let (reduced, _) = operands[0].shape().part(&self.dimensions);
            let mut count: usize = if width == 0 { 0 } else { reduced.iter().product() };
            let order: Vec<isize> = self.dimensions.iter().chain(&kept).map(|&axis| axis as isize).collect();
            let rows = |operand: &Tensor| operand.transpose(&order)?.reshape(&[count, width]);
            let mut elements = operands.iter().map(rows).collect::<Result<Vec<_>>>()?;
            while count > 1 {
                let even = count / 2 * 2;
                let rows = |from: usize, to: usize| {
                    elements.iter().map(|x| x.slice_in_dim(from, to, 2, 0)).collect::<Result<Vec<_>>>()
                };
                let combined = self.lifted(&rows(0, even)?, &rows(1, even)?)?;
                elements = match count % 2 {
                    0 => combined,
                    _ => combined
                        .iter()
                        .zip(&rows(even, count)?)
                        .map(|(combined, last)| Tensor::concatenate(&[combined, last], 0))
                        .collect::<Result<_>>()?,
                };
                count = count.div_ceil(2);
            }
            let inits =
                inits.iter().map(|init| init.broadcast_to(&[1, width])).collect::<Result<Vec<_>>>()?;
            let reduced = if count == 0 { inits } else { self.lifted(&inits, &elements)? };
            reduced.iter().map(|reduced| reduced.reshape(&dims)).collect::<Result<Vec<_>>>()
        })
    }

    /// The reducer applied to each position of matrices.
    fn lifted(&self, accumulated: &[Tensor], elements: &[Tensor]) -> Result<Vec<Tensor>> {
        let (builder, dims) = (elements[0].builder(), elements[0].dims());
        let size = dims.iter().product();
        let flat = |tensor: &Tensor| Ok(Batched { tensor: tensor.reshape(&[size])?, axis: Some(0) });
        let arguments = accumulated.iter().chain(elements).map(flat).collect::<Result<_>>()?;
        let results = push_vmap(builder, size, &self.reducer, arguments)?;
        results.iter().map(|result| result.at(size, 0)?.reshape(dims)).collect()
    }
}
