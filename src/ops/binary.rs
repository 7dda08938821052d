//! Elementwise operators of two operands.

use crate::graph::{Operand, Tensor, same_dtype};
use crate::hlo;
use crate::ops::{Operator, arity};
use crate::transform::{Dual, Jvp, Part, Transposition, add_some, no_rule};
use crate::{Array, DType, Error, Result, Shape};

variants! {
    /// An elementwise operator of two operands of equal shape.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Binary {
        Add,
        And,
        Atan2,
        Div,
        Max,
        Min,
        Mul,
        Or,
        Pow,
        Rem,
        ShiftLeft,
        ShiftRightArithmetic,
        ShiftRightLogical,
        Sub,
        Xor,
    }
}

/// Which dtypes an operator takes.
#[derive(PartialEq)]
enum Domain {
    Floats,
    Numbers,
    /// Numbers and pred.
    Any,
    /// Pred and integers.
    Bits,
    Integers,
}

impl Binary {
    /// The name, the HLO opcode and the domain.
    fn facts(self) -> (&'static str, &'static str, Domain) {
        match self {
            Binary::Add => ("add", "add", Domain::Numbers),
            Binary::And => ("and", "and", Domain::Bits),
            Binary::Atan2 => ("atan2", "atan2", Domain::Floats),
            Binary::Div => ("div", "divide", Domain::Numbers),
            Binary::Max => ("max", "maximum", Domain::Any),
            Binary::Min => ("min", "minimum", Domain::Any),
            Binary::Mul => ("mul", "multiply", Domain::Numbers),
            Binary::Or => ("or", "or", Domain::Bits),
            Binary::Pow => ("pow", "power", Domain::Numbers),
            Binary::Rem => ("rem", "remainder", Domain::Numbers),
            Binary::ShiftLeft => ("shift_left", "shift-left", Domain::Integers),
            Binary::ShiftRightArithmetic => {
                ("shift_right_arithmetic", "shift-right-arithmetic", Domain::Integers)
            }
            Binary::ShiftRightLogical => ("shift_right_logical", "shift-right-logical", Domain::Integers),
            Binary::Sub => ("sub", "subtract", Domain::Numbers),
            Binary::Xor => ("xor", "xor", Domain::Bits),
        }
    }

    pub(crate) fn float(self, x: f64, y: f64) -> f64 {
        match self {
            Binary::Add => x + y,
            Binary::Atan2 => x.atan2(y),
            Binary::Div => x / y,
            // A NaN wins, unlike in f64::max; 0.0 is above -0.0.
            Binary::Max if x.is_nan() || y.is_nan() => f64::NAN,
            Binary::Max => {
                if x.total_cmp(&y).is_ge() {
                    x
                } else {
                    y
                }
            }
            Binary::Min if x.is_nan() || y.is_nan() => f64::NAN,
            Binary::Min => {
                if x.total_cmp(&y).is_le() {
                    x
                } else {
                    y
                }
            }
            Binary::Mul => x * y,
            Binary::Pow => x.powf(y),
            Binary::Rem => x % y,
            Binary::Sub => x - y,
            _ => unreachable!("its domain has no floats"),
        }
    }

    pub(crate) fn integer(self, x: i128, y: i128, dtype: DType) -> i128 {
        let bits = dtype.size() as u32 * 8;
        let shift = u32::try_from(y).ok().filter(|&shift| shift < bits);
        match self {
            Binary::Add => x + y,
            Binary::And => x & y,
            // XLA defines these where the processor does not: x / 0 = -1, x % 0 = x.
            Binary::Div => {
                if y == 0 {
                    -1
                } else {
                    x / y
                }
            }
            Binary::Max => x.max(y),
            Binary::Min => x.min(y),
            Binary::Mul => x.wrapping_mul(y),
            Binary::Or => x | y,
            Binary::Pow => integer_power(x, y),
            Binary::Rem => {
                if y == 0 {
                    x
                } else {
                    x % y
                }
            }
            Binary::ShiftLeft => shift.map_or(0, |shift| x << shift),
            Binary::ShiftRightArithmetic => {
                // Unsigned operands are read as signed ones of the same bits.
                let signed = x << (128 - bits) >> (128 - bits);
                signed >> shift.unwrap_or(bits - 1)
            }
            Binary::ShiftRightLogical => {
                let unsigned = x & ((1 << bits) - 1);
                shift.map_or(0, |shift| unsigned >> shift)
            }
            Binary::Sub => x - y,
            Binary::Xor => x ^ y,
            Binary::Atan2 => unreachable!("its domain has no integers"),
        }
    }
}

/// `x^y` modulo 2^128; a negative power is the integer part of the fraction, and of 0 it is 0, as XLA's.
fn integer_power(x: i128, y: i128) -> i128 {
    match (x, y) {
        (1, _) => 1,
        (-1, _) => {
            if y % 2 == 0 {
                1
            } else {
                -1
            }
        }
        (_, ..=-1) => 0,
        (x, y) => {
            let (mut base, mut exponent, mut power) = (x, y, 1i128);
            while exponent > 0 {
                if exponent & 1 == 1 {
                    power = power.wrapping_mul(base);
                }
                base = base.wrapping_mul(base);
                exponent >>= 1;
            }
            power
        }
    }
}

impl Operator for Binary {
    fn name(&self) -> &'static str {
        self.facts().0
    }

    fn elementwise(&self) -> bool {
        true
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let (name, _, domain) = self.facts();
        let [lhs, rhs] = arity(name, inputs)?;
        same_dtype(name, "rhs", &rhs, &lhs)?;
        if lhs.dims() != rhs.dims() {
            return Err(Error::argument(name, "rhs", format!("of shape {lhs}, as lhs"), &rhs));
        }
        let dtype = lhs.dtype();
        let (allowed, expected) = match domain {
            Domain::Floats => (dtype.is_float(), "floating"),
            Domain::Numbers => (dtype != DType::Pred, "a number"),
            Domain::Any => (true, ""),
            Domain::Bits => (!dtype.is_float(), "pred or an integer"),
            Domain::Integers => (dtype.is_integer(), "an integer"),
        };
        if !allowed {
            return Err(Error::argument(name, "operands' dtype", expected, dtype));
        }
        Ok(vec![lhs])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let shape = inputs[0].shape();
        let output = if shape.dtype().is_float() {
            let pairs = inputs[0].to_f64().into_iter().zip(inputs[1].to_f64());
            Array::from_f64(shape.clone(), &pairs.map(|(x, y)| self.float(x, y)).collect::<Vec<_>>())?
        } else {
            let pairs = inputs[0].to_i128().into_iter().zip(inputs[1].to_i128());
            let values: Vec<_> = pairs.map(|(x, y)| self.integer(x, y, shape.dtype())).collect();
            Array::from_i128(shape.clone(), &values)?
        };
        Ok(vec![output])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        Ok(vec![module.add(self.facts().1, inputs[0].shape(), &[&inputs[0], &inputs[1]])])
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        let (x, y) = (&inputs[0].primal, &inputs[1].primal);
        let out = rule.primal(inputs)?.remove(0);
        let by_x = inputs[0].tangent.as_ref().map(|t| self.derivative_by_x(x, &inputs[1], t)).transpose()?;
        let by_y = inputs[1].tangent.as_ref().map(|t| self.derivative_by_y(x, y, &out, t)).transpose()?;
        let tangent = add_some(by_x, by_y)?;
        Ok(vec![Dual { primal: out, tangent }])
    }

    fn transpose(
        &self,
        _: &Transposition,
        inputs: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(cotangent) = &cotangents[0] else { return Ok(vec![None, None]) };
        Ok(match (self, inputs[0].known(), inputs[1].known()) {
            (Binary::Add, _, _) => vec![Some(cotangent.clone()), Some(cotangent.clone())],
            (Binary::Sub, _, None) => vec![Some(cotangent.clone()), Some((-cotangent)?)],
            (Binary::Sub, _, Some(_)) => vec![Some(cotangent.clone()), None],
            (Binary::Mul, Some(x), _) => vec![None, Some((cotangent * x)?)],
            (Binary::Mul, _, Some(y)) => vec![Some((cotangent * y)?), None],
            (Binary::Div, _, Some(y)) => vec![Some((cotangent / y)?), None],
            _ => return no_rule(self.name(), "vjp", "it is not linear"),
        })
    }
}

impl Binary {
    /// The derivative by `x`, times `t`.
    fn derivative_by_x(self, x: &Tensor, rhs: &Dual, t: &Tensor) -> Result<Tensor> {
        let y = &rhs.primal;
        match self {
            Binary::Add | Binary::Sub | Binary::Rem => Ok(t.clone()),
            Binary::Atan2 => t * (y / ((x * x)? + (y * y)?)),
            Binary::Div => t / y,
            Binary::Max => t * share(x, y, x.greater(y)?),
            Binary::Min => t * share(x, y, x.less(y)?),
            Binary::Mul => t * y,
            // A power of 0 that stays so gives 1 whatever x is, also where x^-1 is infinite, times which 0 would
            // be NaN. Elsewhere the slope is left as it is, which has a derivative by y.
            Binary::Pow if rhs.tangent.is_none() => {
                let limit = (y.equal(0)? & !(1 / x)?.is_finite()?)?;
                t * (y * x.pow(limit.select(&y.full_like(1)?, (y - 1)?)?))
            }
            Binary::Pow => t * (y * x.pow((y - 1)?)?),
            _ => no_rule(self.name(), "jvp", "its operands are not floating"),
        }
    }

    /// The derivative by `y`, times `t`; `out` is the value.
    fn derivative_by_y(self, x: &Tensor, y: &Tensor, out: &Tensor, t: &Tensor) -> Result<Tensor> {
        match self {
            Binary::Add => Ok(t.clone()),
            Binary::Atan2 => t * ((-x)? / ((x * x)? + (y * y)?)),
            Binary::Div => t * ((-out)? / y),
            Binary::Max => t * share(x, y, y.greater(x)?),
            Binary::Min => t * share(x, y, y.less(x)?),
            Binary::Mul => t * x,
            Binary::Pow => {
                // 0 to any power near y is 0, and its logarithm infinite.
                let base = x.equal(0)?.select(&x.full_like(1)?, x)?;
                t * (out * base.log()?)
            }
            Binary::Rem => {
                // x % y = x - y * trunc(x / y)
                let quotient = (x / y)?;
                t * ((-quotient.sign()?)? * quotient.abs()?.floor()?)
            }
            Binary::Sub => -t,
            _ => no_rule(self.name(), "jvp", "its operands are not floating"),
        }
    }
}

/// The part of one of two operands in their maximum or minimum: 1 where it is chosen, one half where they are
/// equal.
fn share(x: &Tensor, y: &Tensor, chosen: Tensor) -> Result<Tensor> {
    let zero = x.full_like(0)?;
    let tied = x.equal(y)?.select(&x.full_like(0.5)?, zero)?;
    chosen.select(&x.full_like(1)?, tied)
}

impl Tensor {
    fn binary(&self, operator: Binary, rhs: impl Operand) -> Result<Tensor> {
        let rhs = rhs.tensor(self)?;
        let (lhs, rhs) = self.broadcast_with(operator.name(), &rhs)?;
        self.builder().push_one(operator, &[&lhs, &rhs])
    }
}

macro_rules! binary_methods {
    ($($(#[$doc:meta])* $method:ident => $operator:ident, $dtype:ident: $lhs:tt, $rhs:tt => $to:tt;)*) => {
        impl Tensor {
            $($(#[$doc])*
            ///
            /// # Errors
            /// Where the operands do not broadcast, differ in dtype, or are of a dtype that it does not take.
            ///
            /// ```
            /// use xlann::{Array, DType, Function, Shape};
            ///
            #[doc = concat!("let shape = Shape::new(DType::", stringify!($dtype), ", [2]);")]
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
                self.binary(Binary::$operator, rhs)
            })*
        }
    };
}

// Of each method, operands and what they give, for the example in its documentation.
binary_methods! {
    /// The angle of the points (`rhs`, `self`), in radians.
    #[doc(alias = "arctan2")]
    atan2 => Atan2, F32: [1f32, 0.0], [0f32, -1.0] => [1.5707964f32, 3.1415927];
    /// The larger operand; NaN where one is.
    #[doc(alias = "max")]
    maximum => Max, F32: [1f32, 5.0], [3f32, 2.0] => [3f32, 5.0];
    /// The smaller operand; NaN where one is.
    #[doc(alias = "min")]
    minimum => Min, F32: [1f32, 5.0], [3f32, 2.0] => [1f32, 2.0];
    /// `self` to the power of `rhs`. A negative power of an integer is the integer part of the fraction, and 0
    /// of 0. Integer powers of 64 and more are not defined, for XLA reads 6 bits of them where it compiles them.
    #[doc(alias("power", "float_power"))]
    pow => Pow, F32: [2f32, 9.0], [10f32, 0.5] => [1024f32, 3.0];
    /// Integers shifted left; 0 where `rhs` is not below their width.
    #[doc(alias("left_shift", "bitwise_left_shift"))]
    shift_left => ShiftLeft, S32: [1, -8], [4, 32] => [16, 0];
    /// Integers shifted right, filled with the sign bit.
    #[doc(alias("right_shift", "bitwise_right_shift"))]
    shift_right_arithmetic => ShiftRightArithmetic, S32: [-8, 8], [1, 1] => [-4, 4];
    /// Integers shifted right, filled with zeros.
    shift_right_logical => ShiftRightLogical, S32: [-8, 8], [1, 1] => [0x7fff_fffc, 4];
}

macro_rules! binary_operators {
    ($($trait:ident $method:ident => $operator:ident;)*) => {$(
        impl<R: Operand> std::ops::$trait<R> for &Tensor {
            type Output = Result<Tensor>;

            fn $method(self, rhs: R) -> Result<Tensor> {
                self.binary(Binary::$operator, rhs)
            }
        }

        impl<R: Operand> std::ops::$trait<R> for Tensor {
            type Output = Result<Tensor>;

            fn $method(self, rhs: R) -> Result<Tensor> {
                self.binary(Binary::$operator, rhs)
            }
        }
    )*};
}

binary_operators! {
    Add add => Add;
    Sub sub => Sub;
    Mul mul => Mul;
    Div div => Div;
    Rem rem => Rem;
    BitAnd bitand => And;
    BitOr bitor => Or;
    BitXor bitxor => Xor;
}

macro_rules! number_lhs {
    ($($number:ty),*) => {$(
        number_lhs!($number: Add add, Sub sub, Mul mul, Div div);
    )*};
    ($number:ty: $($trait:ident $method:ident),*) => {$(
        impl std::ops::$trait<&Tensor> for $number {
            type Output = Result<Tensor>;

            fn $method(self, rhs: &Tensor) -> Result<Tensor> {
                std::ops::$trait::$method(self.tensor(rhs)?, rhs)
            }
        }
    )*};
}
number_lhs!(i32, f32, f64);
