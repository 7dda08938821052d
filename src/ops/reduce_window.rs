//! Reduction over windows.

use std::sync::Arc;

use crate::graph::{Convention, Function, Tensor};
use crate::hlo::{self, proto};
use crate::ops::binary::Binary;
use crate::ops::reduce_variadic::reduces_by;
use crate::ops::{Operator, arity};
use crate::shape::Dims;
use crate::transform::{Batched, Dual, Jvp, Part, Transposition, Vmap, no_rule, push_jvp, push_vmap};
use crate::{Array, Error, Result, Shape};

/// Reduces windows of the operand, one for each element of the output.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReduceWindow {
    /// The window's size in each dimension.
    pub(crate) window: Vec<usize>,
    /// The distance between windows in each dimension.
    pub(crate) strides: Vec<usize>,
    /// How many initial values stand before and after each dimension.
    pub(crate) padding: Vec<(usize, usize)>,
    /// Two scalars, the reduced and the next, to one.
    pub(crate) reducer: Arc<Function>,
}

impl Tensor {
    /// Reduces windows of this tensor with `reducer`, starting from `init`.
    ///
    /// `window`, `strides` and `padding` have an entry for each dimension: the window's size, the distance
    /// between neighbouring windows, and the number of initial values before and after the operand. The reducer
    /// takes the value so far and the next and must be associative, with `init` as its identity.
    ///
    /// # Errors
    /// Where an entry is missing, a window or stride is 0, a window is larger than the padded operand, or init
    /// or reducer do not fit this tensor's dtype.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let scalar = Shape::scalar(DType::F32);
    /// let max = Function::trace("max", &[scalar.clone(), scalar], |x| x[0].maximum(&x[1]))?;
    /// // The greatest of each two neighbours, every second of them.
    /// let f = Function::trace("pool", &[Shape::new(DType::F32, [6])], |x| {
    ///     x[0].reduce_window(f32::NEG_INFINITY, &[2], &[2], &[(0, 0)], max)
    /// })?;
    /// let results = f.eval(&[Array::new([6], &[1f32, 4.0, 2.0, 0.0, 5.0, 6.0])?])?;
    /// assert_eq!(results, [Array::new([3], &[4f32, 2.0, 6.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("max_pool", "avg_pool", "sum_pool"))]
    pub fn reduce_window(
        &self,
        init: impl crate::Operand,
        window: &[usize],
        strides: &[usize],
        padding: &[(usize, usize)],
        reducer: Function,
    ) -> Result<Tensor> {
        let op = ReduceWindow {
            window: window.to_vec(),
            strides: strides.to_vec(),
            padding: padding.to_vec(),
            reducer: Arc::new(reducer),
        };
        self.builder().push_one(op, &[self, &init.tensor(self)?])
    }
}

impl Operator for ReduceWindow {
    fn name(&self) -> &'static str {
        "reduce_window"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![
            ("window", Dims(&self.window).to_string()),
            ("strides", Dims(&self.strides).to_string()),
            ("padding", format!("{:?}", self.padding)),
        ]
    }

    fn functions(&self) -> Vec<(&'static str, &Arc<Function>)> {
        vec![("reducer", &self.reducer)]
    }

    fn functions_mut(&mut self) -> Vec<&mut Arc<Function>> {
        vec![&mut self.reducer]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [operand, init] = arity(self.name(), inputs)?;
        let scalar = Shape::scalar(operand.dtype());
        if init != scalar {
            return Err(Error::argument(self.name(), "init", scalar.to_string(), init));
        }
        if self.reducer.parameter_shapes() != [scalar.clone(), scalar.clone()]
            || self.reducer.result_shapes() != [scalar.clone()]
        {
            let expected = format!("from two {scalar} to one");
            return Err(Error::argument(self.name(), "reducer", expected, self.reducer.name()));
        }
        for (argument, got) in
            [("window", self.window.len()), ("strides", self.strides.len()), ("padding", self.padding.len())]
        {
            if got != operand.rank() {
                let expected = format!("of {} entries, one for each dimension of {operand}", operand.rank());
                return Err(Error::argument(self.name(), argument, expected, got));
            }
        }
        let dims = (0..operand.rank()).map(|axis| {
            let (window, stride, (low, high)) = (self.window[axis], self.strides[axis], self.padding[axis]);
            let padded = low.checked_add(high).and_then(|padding| padding.checked_add(operand.dims()[axis]));
            if stride == 0 {
                return Err(Error::argument(self.name(), "strides", "1 or more", stride));
            }
            match padded {
                Some(padded) if (1..=padded).contains(&window) => Ok((padded - window) / stride + 1),
                _ => {
                    let expected = format!("from 1 to the padded size of dimension {axis} of {operand}");
                    Err(Error::argument(self.name(), "window", expected, window))
                }
            }
        });
        Ok(vec![operand.with_dims(dims.collect::<Result<Vec<_>>>()?)])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [operand, init] = [&inputs[0], &inputs[1]];
        let [from, to] = [operand.shape(), &self.infer(&[operand.shape(), init.shape()])?[0]];
        let (from_strides, to_strides) = (from.strides(), to.strides());
        let mut reduced = init.rearranged(to.dims(), None, |_| Some(0));
        // One step for each place in the window, taken in all windows at once.
        let window = Shape::new(from.dtype(), self.window.as_slice());
        let window_strides = window.strides();
        for place in 0..window.element_count() {
            let next = operand.rearranged(to.dims(), Some(init), |position| {
                (0..from.rank()).try_fold(0, |source, axis| {
                    let index = position / to_strides[axis] % to.dims()[axis] * self.strides[axis]
                        + place / window_strides[axis] % self.window[axis];
                    let index = index.checked_sub(self.padding[axis].0)?;
                    (index < from.dims()[axis]).then_some(source + index * from_strides[axis])
                })
            });
            reduced = self.reducer.eval_each(to.dims(), &[reduced, next])?.swap_remove(0);
        }
        Ok(vec![reduced])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let [operand, init] = [&inputs[0], &inputs[1]];
        let shape = &self.infer(&[operand.shape(), init.shape()])?[0];
        let reducer = self.reducer.emit(module, Convention::Flat)?;
        let dimensions = (0..self.window.len()).map(|axis| proto::WindowDimension {
            size: self.window[axis] as i64,
            stride: self.strides[axis] as i64,
            padding_low: self.padding[axis].0 as i64,
            padding_high: self.padding[axis].1 as i64,
            window_dilation: 1,
            base_dilation: 1,
        });
        let reduced = module.add_with("reduce-window", shape, &[operand, init], |instruction| {
            instruction.window = Some(proto::Window { dimensions: dimensions.collect() });
            instruction.called_computation_ids = vec![reducer.id()];
        });
        Ok(vec![reduced])
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let [operand, init] = [&inputs[0], &inputs[1]];
        if init.axis.is_some() {
            // HLO takes a scalar init only.
            let patches = self.patches(&operand.inner())?;
            return push_vmap(rule.builder, rule.size, &patches, inputs.to_vec());
        }
        let axis = operand.axis.unwrap_or(0);
        let operand = rule.at(operand, axis)?;
        let mut op = self.clone();
        op.window.insert(axis, 1);
        op.strides.insert(axis, 1);
        op.padding.insert(axis, (0, 0));
        rule.push(op, &[&operand, &init.tensor], axis)
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        let [operand, init] = [&inputs[0], &inputs[1]];
        let primal = rule.primal(inputs)?.remove(0);
        let tangent = match (&operand.tangent, &init.tangent) {
            (Some(tangent), None) if reduces_by(&self.reducer, Binary::Add) => {
                let zero = init.primal.full_like(0)?;
                Some(rule.builder.push_one(self.clone(), &[tangent, &zero])?)
            }
            _ => {
                let patches = self.patches(operand.primal.shape())?;
                push_jvp(rule.builder, &patches, inputs.to_vec())?.remove(0).tangent
            }
        };
        Ok(vec![Dual { primal, tangent }])
    }

    /// Of sums: each element's cotangent is the sum over the windows that it is in.
    fn transpose(
        &self,
        _: &Transposition,
        inputs: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(cotangent) = &cotangents[0] else { return Ok(vec![None, None]) };
        let operand = inputs[0].shape();
        if inputs[1].is_linear() || !reduces_by(&self.reducer, Binary::Add) {
            return no_rule(self.name(), "vjp", "it is not linear");
        }
        if operand.element_count() == 0 {
            return Ok(vec![None, None]);
        }
        // Where the windows end in the padded operand, and one before each window's first such place.
        let (mut low, mut high, mut interior) = (Vec::new(), Vec::new(), Vec::new());
        for (axis, &count) in cotangent.dims().iter().enumerate() {
            let (window, stride) = (self.window[axis] as isize, self.strides[axis]);
            let spread = ((count - 1) * stride + 1) as isize;
            low.push(window - 1 - self.padding[axis].0 as isize);
            high.push(operand.dims()[axis] as isize + window - 1 - spread - low[axis]);
            interior.push(stride - 1);
        }
        let ones = vec![1; operand.rank()];
        let unpadded = vec![(0, 0); operand.rank()];
        let spread = cotangent.pad(0, &low, &high, &interior)?;
        let sum = spread.reduce_window(0, &self.window, &ones, &unpadded, self.reducer.as_ref().clone())?;
        Ok(vec![Some(sum), None])
    }
}

impl ReduceWindow {
    /// The same function of an operand and an init by operators that have all rules: the windows are gathered
    /// along new dimensions, which are reduced. Of equal extrema, the first has the derivative, as in JAX.
    fn patches(&self, operand: &Shape) -> Result<Function> {
        Function::trace("windows", &[operand.clone(), operand.with_dims([])], |x| {
            let (low, high): (Vec<isize>, Vec<isize>) =
                self.padding.iter().map(|&(low, high)| (low as isize, high as isize)).unzip();
            let mut patches = x[0].pad(&x[1], &low, &high, &vec![0; self.window.len()])?;
            let mut reduced = Vec::new();
            for (axis, (&window, &stride)) in self.window.iter().zip(&self.strides).enumerate() {
                if (window, stride) == (1, 1) {
                    continue;
                }
                let axis = axis + reduced.len();
                let count = (patches.dims()[axis] - window) / stride + 1;
                let places =
                    (0..count).flat_map(|start| (0..window).map(move |place| start * stride + place));
                let places: Vec<i64> = places.map(|place| place as i64).collect();
                let places = patches.builder().constant(Array::new([count, window], &places)?)?;
                patches = patches.take(&places, axis as isize)?;
                reduced.push(axis as isize + 1);
            }
            let scalars = self.reducer.parameter_shapes();
            let reducer = match self.reducer.as_ref() {
                _ if reduces_by(&self.reducer, Binary::Max) => {
                    Function::trace("max", &scalars, |x| x[0].greater_equal(&x[1])?.select(&x[0], &x[1]))?
                }
                _ if reduces_by(&self.reducer, Binary::Min) => {
                    Function::trace("min", &scalars, |x| x[0].less_equal(&x[1])?.select(&x[0], &x[1]))?
                }
                reducer => reducer.clone(),
            };
            x[0].builder().reduce(&[&patches], &[&x[1]], &reduced, reducer)
        })
    }
}
