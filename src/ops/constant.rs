//! Constants and iota.

use crate::graph::{Builder, Tensor};
use crate::hlo;
use crate::ops::{Operator, arity};
use crate::{Array, DType, Element, Error, Result, Shape};

/// A literal array.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Constant {
    pub(crate) value: Array,
}

/// Counts from 0 along one dimension.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Iota {
    pub(crate) shape: Shape,
    pub(crate) dimension: usize,
}

impl Builder {
    /// A constant.
    ///
    /// # Errors
    /// None of its own; constants go into the compiled program, so large arrays are better parameters.
    ///
    /// ```
    /// use xlann::{Array, Builder};
    ///
    /// let builder = Builder::new("primes");
    /// let primes = builder.constant(Array::new([3], &[2, 3, 5])?)?;
    /// let function = builder.finish((primes * 10)?)?;
    /// assert_eq!(function.eval(&[])?, [Array::new([3], &[20, 30, 50])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn constant(&self, value: Array) -> Result<Tensor> {
        self.push_one(Constant { value }, &[])
    }

    /// A constant of rank 0.
    ///
    /// ```
    /// use xlann::Builder;
    ///
    /// let builder = Builder::new("half");
    /// let half = builder.scalar(0.5f64)?;
    /// assert_eq!(half.shape().to_string(), "f64[]");
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn scalar<T: Element>(&self, value: T) -> Result<Tensor> {
        self.constant(Array::scalar(value))
    }

    /// A tensor whose elements are their own index along `dimension` (negative: from the end).
    ///
    /// # Errors
    /// Where the shape has no such dimension, or is of pred.
    ///
    /// ```
    /// use xlann::{Builder, DType, Shape};
    ///
    /// let builder = Builder::new("columns");
    /// let columns = builder.iota(Shape::new(DType::S32, [2, 3]), 1)?;
    /// let function = builder.finish(columns)?;
    /// assert_eq!(function.eval(&[])?[0].to_string(), "s32[2,3] [[0, 1, 2], [0, 1, 2]]");
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("arange", "range", "broadcasted_iota"))]
    pub fn iota(&self, shape: Shape, dimension: isize) -> Result<Tensor> {
        let dimension = shape.axis("iota", "dimension", dimension)?;
        self.push_one(Iota { shape, dimension }, &[])
    }
}

impl Tensor {
    /// A constant of this tensor's shape and the given value everywhere.
    ///
    /// # Errors
    /// Where the dtype cannot hold the value.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [3])], |x| x[0].full_like(7))?;
    /// assert_eq!(f.eval(&[Array::new([3], &[0f32; 3])?])?, [Array::new([3], &[7f32; 3])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("zeros_like", "ones_like", "full"))]
    pub fn full_like(&self, value: impl crate::Operand) -> Result<Tensor> {
        value.tensor(self)?.broadcast_to(self.dims())
    }
}

impl Operator for Constant {
    fn name(&self) -> &'static str {
        "constant"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![("value", self.value.to_string())]
    }

    fn elementwise(&self) -> bool {
        self.value.shape().rank() == 0
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [] = arity(self.name(), inputs)?;
        Ok(vec![self.value.shape().clone()])
    }

    fn eval(&self, _: &[Array]) -> Result<Vec<Array>> {
        Ok(vec![self.value.clone()])
    }

    fn hlo(&self, module: &mut hlo::Builder, _: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        Ok(vec![module.constant(&self.value)])
    }
}

impl Operator for Iota {
    fn name(&self) -> &'static str {
        "iota"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![("dimension", self.dimension.to_string())]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [] = arity(self.name(), inputs)?;
        if self.dimension >= self.shape.rank() {
            let expected = format!("less than the rank of {}", self.shape);
            return Err(Error::argument(self.name(), "dimension", expected, self.dimension));
        }
        if self.shape.dtype() == DType::Pred {
            return Err(Error::argument(self.name(), "dtype", "a number", &self.shape));
        }
        Ok(vec![self.shape.clone()])
    }

    fn eval(&self, _: &[Array]) -> Result<Vec<Array>> {
        let (stride, size) = (self.shape.strides()[self.dimension], self.shape.dims()[self.dimension]);
        let values: Vec<i128> =
            (0..self.shape.element_count()).map(|position| (position / stride % size) as i128).collect();
        Ok(vec![Array::from_i128(self.shape.clone(), &values)?])
    }

    fn hlo(&self, module: &mut hlo::Builder, _: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let iota = module.add_with("iota", &self.shape, &[], |instruction| {
            instruction.dimensions = vec![self.dimension as i64];
        });
        Ok(vec![iota])
    }
}
