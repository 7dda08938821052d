//! Tensor functions as graphs: [`Function`] and the handles that build it.
//!
//! A [`Function`] is a list of equations over numbered variables, in the order in which they are computed, each of
//! one static shape. [`Function::trace`] builds one from a closure; a [`Builder`] takes named parameters and is there
//! between calls. Both hand out [`Tensor`]s, whose methods append equations.
//!
//! ```
//! use xlann::{Builder, DType, Shape};
//!
//! let builder = Builder::new("distances");
//! let x = builder.parameter("x", Shape::new(DType::F32, [4]))?;
//! let y = builder.parameter("y", Shape::new(DType::F32, [4]))?;
//! let distances = builder.finish((&x - &y)?.abs()?)?;
//! let operators: Vec<_> = distances.equations().iter().map(|equation| equation.operator()).collect();
//! assert_eq!(operators, ["sub", "abs"]);
//! # Ok::<(), xlann::Error>(())
//! ```

pub use tensor::{Builder, Operand, Results, Tensor};

mod check;
mod emit;
mod eval;
mod print;
mod prune;
mod tensor;

pub(crate) use emit::Convention;
pub(crate) use tensor::same_dtype;

use crate::ops::Op;
use crate::{Result, Shape};

/// A variable of a [`Function`]: a parameter, or an output of an equation.
///
/// ```
/// use xlann::{DType, Function, Shape};
///
/// let double = Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0])?;
/// let (parameter, result) = (double.equations()[0].inputs()[0], double.results()[0]);
/// assert_ne!(parameter, result);
/// assert_eq!(double.shape(parameter), double.shape(result));
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Var(pub(crate) u32);

impl Var {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// One step of a [`Function`]: an operator applied to variables, defining new ones.
///
/// ```
/// use xlann::{DType, Function, Shape};
///
/// let double = Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0])?;
/// let [equation] = double.equations() else { panic!("one step") };
/// assert_eq!(equation.operator(), "add");
/// assert_eq!(equation.inputs().len(), 2);
/// assert_eq!(equation.outputs(), double.results());
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Equation {
    pub(crate) op: Op,
    pub(crate) inputs: Vec<Var>,
    pub(crate) outputs: Vec<Var>,
}

impl Equation {
    /// The operator's name, such as `dot_general`.
    pub fn operator(&self) -> &'static str {
        self.op.rules().name()
    }

    /// The variables that it reads.
    pub fn inputs(&self) -> &[Var] {
        &self.inputs
    }

    /// The variables that it defines.
    pub fn outputs(&self) -> &[Var] {
        &self.outputs
    }
}

/// A tensor function: parameters, equations in order, results; all of static shape.
///
/// Built with a [`Builder`] or traced from a closure, then printed (`Display`), [evaluated](Function::eval) on the
/// host, [lowered](crate::lower::lower), or [compiled](crate::Session::compile). Unlike a [`Tensor`], it can be
/// sent to and shared between threads.
///
/// ```
/// use xlann::{Array, DType, Function, Shape};
///
/// let vector = Shape::new(DType::F32, [3]);
/// let f = Function::trace("norm", &[vector], |x| (&x[0] * &x[0])?.reduce_sum(&[0])?.sqrt())?;
/// assert_eq!(
///     f.to_string(),
///     "norm(%0: f32[3]) {
///   %1: f32[3] = mul %0 %0
///   %2: f32[] = reduce_sum[dimensions=[0]] %1
///   %3: f32[] = sqrt %2
///   return %3
/// }"
/// );
/// let result = f.eval(&[Array::new([3], &[2f32, 3.0, 6.0])?])?;
/// assert_eq!(result, [Array::scalar(7f32)]);
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    pub(crate) name: String,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) equations: Vec<Equation>,
    pub(crate) results: Vec<Var>,
    /// The shape of each variable, in the order of definition; the variables are its indices.
    pub(crate) shapes: Vec<Shape>,
}

/// A parameter of a [`Function`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) var: Var,
}

/// The items whose flag is set.
pub(crate) fn chosen<T: Clone>(items: &[T], flags: &[bool]) -> Vec<T> {
    items.iter().zip(flags).filter(|(_, flag)| **flag).map(|(item, _)| item.clone()).collect()
}

/// What [`chosen`] chose, each at its place, and none elsewhere.
pub(crate) fn placed<T>(items: Vec<T>, flags: &[bool]) -> Vec<Option<T>> {
    let mut items = items.into_iter();
    flags.iter().map(|&flag| if flag { items.next() } else { None }).collect()
}

impl Function {
    /// The function that `body` computes from parameters of the given shapes.
    ///
    /// `body` is called once, with a handle for each parameter, and gives one [`Tensor`], a pair or a triple, an
    /// array or a `Vec` of them.
    ///
    /// # Errors
    /// Those of `body`, and where it returns a tensor of another function.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let shapes = [Shape::new(DType::F32, [2]), Shape::new(DType::F32, [2])];
    /// let f = Function::trace("sum_and_product", &shapes, |x| Ok([(&x[0] + &x[1])?, (&x[0] * &x[1])?]))?;
    /// let results = f.eval(&[Array::new([2], &[1f32, 2.0])?, Array::new([2], &[3f32, 4.0])?])?;
    /// assert_eq!(results, [Array::new([2], &[4f32, 6.0])?, Array::new([2], &[3f32, 8.0])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn trace<R: Results>(
        name: &str,
        parameters: &[Shape],
        body: impl FnOnce(&[Tensor]) -> Result<R>,
    ) -> Result<Function> {
        let builder = Builder::new(name);
        let arguments: Vec<_> =
            parameters.iter().map(|shape| builder.parameter("", shape.clone())).collect::<Result<_>>()?;
        let results = body(&arguments)?;
        builder.finish(results)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The parameters' names, empty where none was given, and shapes.
    ///
    /// ```
    /// use xlann::{Builder, DType, Shape};
    ///
    /// let builder = Builder::new("scale");
    /// let x = builder.parameter("x", Shape::new(DType::F32, [3]))?;
    /// let factor = builder.parameter("factor", Shape::scalar(DType::F32))?;
    /// let scale = builder.finish((x * factor)?)?;
    /// let parameters: Vec<_> = scale.parameters().map(|(name, shape)| format!("{name}: {shape}")).collect();
    /// assert_eq!(parameters, ["x: f32[3]", "factor: f32[]"]);
    /// assert_eq!(scale.name(), "scale");
    /// assert_eq!(scale.parameter_shapes().len(), 2);
    /// assert_eq!(scale.result_shapes(), [Shape::new(DType::F32, [3])]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn parameters(&self) -> impl ExactSizeIterator<Item = (&str, &Shape)> {
        self.parameters.iter().map(|parameter| (parameter.name.as_str(), self.shape(parameter.var)))
    }

    /// The parameters' shapes.
    pub fn parameter_shapes(&self) -> Vec<Shape> {
        self.parameters().map(|(_, shape)| shape.clone()).collect()
    }

    /// The equations, in order.
    pub fn equations(&self) -> &[Equation] {
        &self.equations
    }

    /// The results.
    pub fn results(&self) -> &[Var] {
        &self.results
    }

    /// The results' shapes.
    pub fn result_shapes(&self) -> Vec<Shape> {
        self.results.iter().map(|&var| self.shape(var).clone()).collect()
    }

    /// The shape of one of its variables.
    ///
    /// # Panics
    /// Where the variable belongs to another, larger function.
    pub fn shape(&self, var: Var) -> &Shape {
        &self.shapes[var.index()]
    }

    /// The first equation that replicas of the function work on together.
    pub(crate) fn collective(&self) -> Option<&Equation> {
        self.equations.iter().find(|equation| equation.op.rules().replicas().is_some())
    }

    /// Requires that so many replicas of the function can work together.
    pub(crate) fn check_replicas(&self, replicas: usize) -> Result<()> {
        for equation in &self.equations {
            if let Some(expected) = equation.op.rules().replicas().filter(|&expected| expected != replicas) {
                let expected = format!("{expected}, as in its {}", equation.operator());
                return Err(self.invalid(format!("replicas must be {expected}, got {replicas}")));
            }
        }
        Ok(())
    }

    /// Interprets the function: `step` gives the values of an equation's outputs from those of its inputs, in
    /// whatever the values are (arrays, instructions, tensors of another function).
    ///
    /// The number of arguments must be that of the parameters.
    pub(crate) fn interpret<T: Clone>(
        &self,
        arguments: impl IntoIterator<Item = T>,
        mut step: impl FnMut(&Equation, &[T]) -> Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        let mut values: Vec<Option<T>> = vec![None; self.shapes.len()];
        for (parameter, argument) in self.parameters.iter().zip(arguments) {
            values[parameter.var.index()] = Some(argument);
        }
        let read = |values: &[Option<T>], vars: &[Var]| -> Result<Vec<T>> {
            vars.iter()
                .map(|var| {
                    let value = values.get(var.index()).cloned().flatten();
                    value.ok_or_else(|| self.invalid(format!("%{} is read before it is defined", var.0)))
                })
                .collect()
        };
        for equation in &self.equations {
            let outputs = step(equation, &read(&values, &equation.inputs)?)?;
            if outputs.len() != equation.outputs.len() {
                let (expected, got) = (equation.outputs.len(), outputs.len());
                return Err(
                    self.invalid(format!("{} gives {got} values for {expected}", equation.operator()))
                );
            }
            for (var, output) in equation.outputs.iter().zip(outputs) {
                values[var.index()] = Some(output);
            }
        }
        read(&values, &self.results)
    }
}
