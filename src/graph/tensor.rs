//! The handles that a user builds a [`Function`] with.

use std::cell::RefCell;
use std::rc::Rc;

use crate::graph::{Equation, Function, Parameter, Var};
use crate::ops::Op;
use crate::{Array, DType, Error, Result, Shape};

/// Collects the parameters and equations of a [`Function`] that is being built.
///
/// ```
/// use xlann::{Builder, DType, Shape};
///
/// let builder = Builder::new("scores");
/// let queries = builder.parameter("queries", Shape::new(DType::F32, [8, 64]))?;
/// let database = builder.parameter("database", Shape::new(DType::F32, [1000, 64]))?;
/// let scores = queries.dot(&database.transpose(&[1, 0])?)?;
/// let function = builder.finish(scores)?;
/// assert_eq!(function.result_shapes(), [Shape::new(DType::F32, [8, 1000])]);
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Builder(Rc<RefCell<Function>>);

/// A value of the function under construction; cloning it clones a handle.
///
/// Methods append an equation, check shapes and dtypes, and return a `Result`; the arithmetic operators do the
/// same and also take `Result<Tensor>` on the right, so that expressions chain: `(&a * (&b + 1f32))?`. Operands
/// of elementwise operators broadcast as in NumPy; dtypes are never converted silently, but for a Rust number,
/// which becomes a constant of the tensor's dtype (see [`Operand`]).
///
/// | operators | dtypes |
/// |---|---|
/// | `a + b`, `a - b`, `a * b`, `a / b`, `a % b` | numbers; integers wrap, `x / 0` has all bits set and `x % 0` is `x` |
/// | `-a` | floats and signed integers |
/// | `a & b`, `a \| b`, `a ^ b`, `!a` | pred and integers |
/// | [`less`](Tensor::less), [`equal`](Tensor::equal) and the other comparisons | any, to pred |
///
/// A Rust number may also stand on the left of `+`, `-`, `*` and `/`, before a `&Tensor`.
///
/// ```
/// use xlann::{Array, DType, Function, Shape};
///
/// let vector = Shape::new(DType::F32, [2]);
/// let f = Function::trace("f", &[vector.clone(), vector], |x| {
///     let (a, b) = (&x[0], &x[1]);
///     assert_eq!((a.dtype(), a.dims(), a.rank()), (DType::F32, &[2][..], 1));
///     let sum = (a * (b + 1))?;
///     let clipped = (sum.greater(4)? & sum.less(100))?.select(&sum, 4);
///     1.0 / &(-clipped?)?
/// })?;
/// let results = f.eval(&[Array::new([2], &[1f32, 2.0])?, Array::new([2], &[2f32, 3.0])?])?;
/// assert_eq!(results, [Array::new([2], &[-0.25f32, -0.125])?]);
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor {
    builder: Builder,
    var: Var,
    shape: Rc<Shape>,
}

impl Builder {
    /// A builder of a function of that name without parameters or equations.
    ///
    /// ```
    /// use xlann::Builder;
    ///
    /// let function = Builder::new("nothing").finish(Vec::new())?;
    /// assert_eq!(function.name(), "nothing");
    /// assert_eq!(function.eval(&[])?, []);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn new(name: &str) -> Builder {
        Builder(Rc::new(RefCell::new(Function {
            name: name.to_owned(),
            parameters: Vec::new(),
            equations: Vec::new(),
            results: Vec::new(),
            shapes: Vec::new(),
        })))
    }

    /// Adds a parameter; parameters are numbered in the order in which they are added.
    ///
    /// # Errors
    /// Where the shape's size in bytes passes the address space.
    ///
    /// ```
    /// use xlann::{Builder, DType, Shape};
    ///
    /// let builder = Builder::new("identity");
    /// let x = builder.parameter("x", Shape::new(DType::F32, [3]))?;
    /// assert_eq!(format!("{x:?}"), "%0: f32[3]");
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn parameter(&self, name: &str, shape: Shape) -> Result<Tensor> {
        let tensor = self.define("parameter", shape)?;
        self.0.borrow_mut().parameters.push(Parameter { name: name.to_owned(), var: tensor.var });
        Ok(tensor)
    }

    /// The function with everything added so far, and these results.
    ///
    /// # Errors
    /// Where a result belongs to another builder.
    ///
    /// ```
    /// use xlann::{Builder, DType, Shape};
    ///
    /// let builder = Builder::new("f");
    /// let x = builder.parameter("x", Shape::new(DType::F32, [3]))?;
    /// let function = builder.finish([(&x + 1)?, (&x * 2)?])?;
    /// assert_eq!(function.result_shapes().len(), 2);
    ///
    /// let elsewhere = Builder::new("g").scalar(1f32)?;
    /// assert!(builder.finish(elsewhere).is_err());
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn finish(&self, results: impl Results) -> Result<Function> {
        let results = results
            .into_tensors()
            .iter()
            .map(|tensor| self.own("finish", tensor))
            .collect::<Result<Vec<_>>>()?;
        let mut function = self.0.borrow().clone();
        function.results = results;
        Ok(function)
    }

    /// Appends an equation and gives its outputs.
    pub(crate) fn push(&self, op: impl Into<Op>, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let op = op.into();
        let name = op.rules().name();
        let vars = inputs.iter().map(|tensor| self.own(name, tensor)).collect::<Result<Vec<_>>>()?;
        for (role, function) in op.rules().functions() {
            if let Some(equation) = function.collective() {
                // Replicas may take another branch or make another number of steps, and would wait for ever.
                let expected = "without operators that replicas work on together";
                return Err(Error::argument(name, role, expected, equation.operator()));
            }
        }
        let shapes: Vec<&Shape> = inputs.iter().map(|tensor| tensor.shape()).collect();
        let outputs = op
            .rules()
            .infer(&shapes)?
            .into_iter()
            .map(|shape| self.define(name, shape))
            .collect::<Result<Vec<_>>>()?;
        let equation =
            Equation { op, inputs: vars, outputs: outputs.iter().map(|tensor| tensor.var).collect() };
        self.0.borrow_mut().equations.push(equation);
        Ok(outputs)
    }

    /// Appends an equation of one output.
    pub(crate) fn push_one(&self, op: impl Into<Op>, inputs: &[&Tensor]) -> Result<Tensor> {
        let op = op.into();
        let operator = op.rules().name();
        let outputs = self.push(op, inputs)?;
        let count = outputs.len();
        <[Tensor; 1]>::try_from(outputs)
            .map(|[output]| output)
            .map_err(|_| Error::argument(operator, "outputs", "one", count))
    }

    fn define(&self, operator: &'static str, shape: Shape) -> Result<Tensor> {
        shape.checked_byte_count(operator)?;
        let mut function = self.0.borrow_mut();
        let var = Var(function.shapes.len() as u32);
        function.shapes.push(shape.clone());
        Ok(Tensor { builder: self.clone(), var, shape: Rc::new(shape) })
    }

    fn own(&self, operator: &'static str, tensor: &Tensor) -> Result<Var> {
        if Rc::ptr_eq(&self.0, &tensor.builder.0) {
            return Ok(tensor.var);
        }
        let expected = format!("of function {}", self.0.borrow().name);
        let got = format!("one of function {}", tensor.builder.0.borrow().name);
        Err(Error::argument(operator, "operand", expected, got))
    }

    /// Appends the equations of `function` applied to `arguments`, and gives its results.
    ///
    /// # Errors
    /// Where the arguments' number or shapes are not the parameters', or they belong to another builder.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let vector = Shape::new(DType::F32, [2]);
    /// let norm = Function::trace("norm", std::slice::from_ref(&vector), |x| {
    ///     (&x[0] * &x[0])?.reduce_sum(&[0])?.sqrt()
    /// })?;
    /// let unit = Function::trace("unit", &[vector], |x| {
    ///     let norms = x[0].builder().call(&norm, &[&x[0]])?;
    ///     &x[0] / &norms[0]
    /// })?;
    /// assert_eq!(unit.eval(&[Array::new([2], &[3f32, 4.0])?])?, [Array::new([2], &[0.6f32, 0.8])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn call(&self, function: &Function, arguments: &[&Tensor]) -> Result<Vec<Tensor>> {
        function.check_arguments(arguments.iter().map(|tensor| tensor.shape()))?;
        let arguments = arguments.iter().map(|&tensor| tensor.clone());
        function.interpret(arguments, |equation, inputs| {
            self.push(equation.op.clone(), &inputs.iter().collect::<Vec<_>>())
        })
    }
}

impl Tensor {
    /// Its dtype and dimensions.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Its element type.
    pub fn dtype(&self) -> crate::DType {
        self.shape.dtype()
    }

    /// The size of each of its dimensions.
    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    /// The number of its dimensions.
    pub fn rank(&self) -> usize {
        self.shape.rank()
    }

    /// The builder that it belongs to, for constants and further parameters.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("with_index", &[Shape::new(DType::S32, [3])], |x| {
    ///     let index = x[0].builder().iota(x[0].shape().clone(), 0)?;
    ///     &x[0] + index
    /// })?;
    /// assert_eq!(f.eval(&[Array::new([3], &[10, 10, 10])?])?, [Array::new([3], &[10, 11, 12])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn builder(&self) -> &Builder {
        &self.builder
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "%{}: {}", self.var.0, self.shape)
    }
}

/// Requires that `tensor` has the dtype of `other`.
pub(crate) fn same_dtype(
    operator: &'static str,
    argument: &str,
    tensor: &Shape,
    other: &Shape,
) -> Result<()> {
    if tensor.dtype() == other.dtype() {
        return Ok(());
    }
    let expected = format!("of dtype {}, as the other operand {other}", other.dtype());
    Err(Error::argument(operator, argument, expected, tensor))
}

/// What a traced body or [`Builder::finish`] takes as results: a tensor, a pair or a triple, an array or a `Vec`
/// of them, or a [`Tree`](crate::Tree) or a pair of trees.
///
/// ```
/// use xlann::{DType, Function, Shape};
///
/// let vector = Shape::new(DType::F32, [3]);
/// let one = Function::trace("one", &[vector.clone()], |x| x[0].exp())?;
/// let two = Function::trace("two", &[vector], |x| Ok((x[0].exp()?, x[0].log()?)))?;
/// assert_eq!((one.results().len(), two.results().len()), (1, 2));
/// # Ok::<(), xlann::Error>(())
/// ```
pub trait Results {
    /// The results in order.
    fn into_tensors(self) -> Vec<Tensor>;
}

impl Results for Tensor {
    fn into_tensors(self) -> Vec<Tensor> {
        vec![self]
    }
}

impl Results for Vec<Tensor> {
    fn into_tensors(self) -> Vec<Tensor> {
        self
    }
}

impl<const N: usize> Results for [Tensor; N] {
    fn into_tensors(self) -> Vec<Tensor> {
        self.into()
    }
}

impl Results for (Tensor, Tensor) {
    fn into_tensors(self) -> Vec<Tensor> {
        vec![self.0, self.1]
    }
}

impl Results for (Tensor, Tensor, Tensor) {
    fn into_tensors(self) -> Vec<Tensor> {
        vec![self.0, self.1, self.2]
    }
}

/// What stands beside a tensor in arithmetic: a tensor, a `Result` of one, or a Rust number, which is an `i32`, an
/// `f32` or an `f64`.
///
/// A number becomes a constant of the tensor's dtype: floats round it, integers must hold it exactly, and pred takes
/// none. Other constants are made with [`Builder::scalar`] and [`Builder::constant`].
///
/// ```
/// use xlann::{DType, Function, Shape};
///
/// let f = Function::trace("f", &[Shape::new(DType::BF16, [3])], |x| {
///     let sum = &x[0] + 1; // a number takes the tensor's dtype
///     sum? * (&x[0] - 0.5) // a result needs no question mark on the right
/// })?;
/// assert_eq!(f.result_shapes()[0].dtype(), DType::BF16);
///
/// // A number that the dtype cannot hold is refused.
/// assert!(Function::trace("f", &[Shape::new(DType::U8, [3])], |x| &x[0] + 0.5).is_err());
/// # Ok::<(), xlann::Error>(())
/// ```
pub trait Operand {
    /// The operand as a tensor of the function of `beside`; a number takes its dtype.
    ///
    /// # Errors
    /// The operand's own, and where the dtype cannot hold the number.
    fn tensor(self, beside: &Tensor) -> Result<Tensor>;
}

impl Operand for Tensor {
    fn tensor(self, _: &Tensor) -> Result<Tensor> {
        Ok(self)
    }
}

impl Operand for &Tensor {
    fn tensor(self, _: &Tensor) -> Result<Tensor> {
        Ok(self.clone())
    }
}

impl Operand for Result<Tensor> {
    fn tensor(self, _: &Tensor) -> Result<Tensor> {
        self
    }
}

macro_rules! number_operands {
    ($($number:ty),*) => {$(
        impl Operand for $number {
            fn tensor(self, beside: &Tensor) -> Result<Tensor> {
                let shape = Shape::scalar(beside.dtype());
                let exact = shape.dtype().is_float()
                    || Array::from_f64(shape.clone(), &[self as f64])?.to_f64() == [self as f64];
                if !exact || shape.dtype() == DType::Pred {
                    return Err(Error::argument("constant", "value", format!("a {}", shape.dtype()), self));
                }
                beside.builder.constant(Array::from_f64(shape, &[self as f64])?)
            }
        }
    )*};
}
// Every i32 is an f64; wider integers are not, and are written as constants.
number_operands!(i32, f32, f64);
