//! Comparison.

use crate::dtype::with_element;
use crate::graph::{Operand, Tensor, same_dtype};
use crate::hlo;
use crate::ops::{Operator, arity};
use crate::{Array, DType, Error, Result, Shape};

/// Whether a pair of elements stands in a relation; a pred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compare {
    pub(crate) direction: Direction,
    /// Whether floats are ordered by their bits: -NaN < -inf < ... < -0 < +0 < ... < +inf < +NaN.
    pub(crate) total_order: bool,
}

/// The relation that a comparison asks for.
///
/// ```
/// use xlann::Direction;
/// assert_eq!(Direction::Ge.name(), "GE");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
}

impl Direction {
    /// XLA's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::Eq => "EQ",
            Direction::Ne => "NE",
            Direction::Lt => "LT",
            Direction::Le => "LE",
            Direction::Gt => "GT",
            Direction::Ge => "GE",
        }
    }

    fn holds<T: PartialOrd>(self, lhs: T, rhs: T) -> bool {
        match self {
            Direction::Eq => lhs == rhs,
            Direction::Ne => lhs != rhs,
            Direction::Lt => lhs < rhs,
            Direction::Le => lhs <= rhs,
            Direction::Gt => lhs > rhs,
            Direction::Ge => lhs >= rhs,
        }
    }
}

macro_rules! compare_methods {
    ($($(#[$doc:meta])* $method:ident => $direction:ident: $lhs:tt, $rhs:tt => $to:tt;)*) => {
        impl Tensor {
            $($(#[$doc])*
            ///
            /// # Errors
            /// Where the operands do not broadcast or differ in dtype.
            ///
            /// ```
            /// use xlann::{Array, DType, Function, Shape};
            ///
            /// let shape = Shape::new(DType::F32, [2]);
            /// let shapes = [shape.clone(), shape];
            #[doc = concat!(
                "let f = Function::trace(\"f\", &shapes, |x| x[0].", stringify!($method), "(&x[1]))?;"
            )]
            #[doc = concat!("let lhs = Array::new([2], &", stringify!($lhs), ")?;")]
            #[doc = concat!("let rhs = Array::new([2], &", stringify!($rhs), ")?;")]
            #[doc = concat!("assert_eq!(f.eval(&[lhs, rhs])?, [Array::new([2], &", stringify!($to), ")?]);")]
            /// # Ok::<(), xlann::Error>(())
            /// ```
            pub fn $method(&self, rhs: impl Operand) -> Result<Tensor> {
                self.compare(Direction::$direction, rhs, false)
            })*
        }
    };
}

// Of each method, operands and what they give, for the example in its documentation.
compare_methods! {
    /// Where `self` equals `rhs`; a NaN equals nothing.
    #[doc(alias = "eq")]
    equal => Eq: [1f32, 2.0], [2f32, 2.0] => [false, true];
    /// Where `self` does not equal `rhs`; true for a NaN.
    #[doc(alias = "ne")]
    not_equal => Ne: [1f32, 2.0], [2f32, 2.0] => [true, false];
    /// Where `self` is less than `rhs`; never for a NaN.
    #[doc(alias = "lt")]
    less => Lt: [1f32, 2.0], [2f32, 2.0] => [true, false];
    /// Where `self` is less than `rhs` or equals it; never for a NaN.
    #[doc(alias = "le")]
    less_equal => Le: [1f32, 2.0], [2f32, 2.0] => [true, true];
    /// Where `self` is greater than `rhs`; never for a NaN.
    #[doc(alias = "gt")]
    greater => Gt: [3f32, 2.0], [2f32, 2.0] => [true, false];
    /// Where `self` is greater than `rhs` or equals it; never for a NaN.
    #[doc(alias = "ge")]
    greater_equal => Ge: [1f32, 2.0], [2f32, 2.0] => [false, true];
}

impl Tensor {
    /// Compares floats in the total order -NaN < -inf < ... < -0 < +0 < ... < +inf < +NaN, in which a sort
    /// is well defined whatever the values; other dtypes are compared as ever.
    ///
    /// # Errors
    /// Where the operands do not broadcast or differ in dtype.
    ///
    /// ```
    /// use xlann::{Array, DType, Direction, Function, Shape};
    ///
    /// let shape = Shape::new(DType::F32, [2]);
    /// let f = Function::trace("f", &[shape.clone(), shape], |x| {
    ///     x[0].compare_total_order(Direction::Lt, &x[1])
    /// })?;
    /// let results = f.eval(&[Array::new([2], &[-0.0f32, 1.0])?, Array::new([2], &[0.0, f32::NAN])?])?;
    /// assert_eq!(results, [Array::new([2], &[true, true])?]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn compare_total_order(&self, direction: Direction, rhs: impl Operand) -> Result<Tensor> {
        self.compare(direction, rhs, self.dtype().is_float())
    }

    fn compare(&self, direction: Direction, rhs: impl Operand, total_order: bool) -> Result<Tensor> {
        let rhs = rhs.tensor(self)?;
        let (lhs, rhs) = self.broadcast_with("compare", &rhs)?;
        self.builder().push_one(Compare { direction, total_order }, &[&lhs, &rhs])
    }
}

/// Integers in the total order of the floats whose bytes these are.
fn total_order_keys(array: &Array) -> Vec<i64> {
    let bytes = array.as_bytes();
    macro_rules! keys {
        ($T:ty) => {
            // Negative floats grow downwards: all bits but the sign are flipped.
            bytemuck::cast_slice::<_, $T>(bytes)
                .iter()
                .map(|&bits| i64::from(if bits < 0 { bits ^ <$T>::MAX } else { bits }))
                .collect()
        };
    }
    match array.shape().dtype().size() {
        2 => keys!(i16),
        4 => keys!(i32),
        _ => keys!(i64),
    }
}

impl Operator for Compare {
    fn name(&self) -> &'static str {
        "compare"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        let mut params = vec![("direction", self.direction.name().to_owned())];
        if self.total_order {
            params.push(("total_order", "true".to_owned()));
        }
        params
    }

    fn elementwise(&self) -> bool {
        true
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [lhs, rhs] = arity(self.name(), inputs)?;
        same_dtype(self.name(), "rhs", &rhs, &lhs)?;
        if lhs.dims() != rhs.dims() {
            return Err(Error::argument(self.name(), "rhs", format!("of shape {lhs}, as lhs"), &rhs));
        }
        if self.total_order && !lhs.dtype().is_float() {
            return Err(Error::argument(self.name(), "operands' dtype", "floating", lhs.dtype()));
        }
        Ok(vec![lhs.with_dtype(DType::Pred)])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let shape = inputs[0].shape();
        let holds: Vec<bool> = if self.total_order {
            let pairs = total_order_keys(&inputs[0]).into_iter().zip(total_order_keys(&inputs[1]));
            pairs.map(|(x, y)| self.direction.holds(x, y)).collect()
        } else {
            with_element!(shape.dtype(), T => {
                let pairs = inputs[0].as_slice::<T>()?.iter().zip(inputs[1].as_slice::<T>()?);
                pairs.map(|(x, y)| self.direction.holds(x, y)).collect()
            })
        };
        Ok(vec![Array::new(shape.dims(), &holds)?])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let shape = inputs[0].shape();
        let comparison_type = match shape.dtype() {
            _ if self.total_order => "TOTALORDER",
            dtype if dtype.is_float() => "FLOAT",
            dtype if dtype.is_signed_integer() => "SIGNED",
            _ => "UNSIGNED",
        };
        let output = shape.with_dtype(DType::Pred);
        let compare = module.add_with("compare", &output, &[&inputs[0], &inputs[1]], |instruction| {
            instruction.comparison_direction = self.direction.name().to_owned();
            instruction.comparison_type = comparison_type.to_owned();
        });
        Ok(vec![compare])
    }
}
