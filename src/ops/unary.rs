//! Elementwise operators of one operand.

use std::ops::{Neg, Not};

use crate::graph::Tensor;
use crate::hlo;
use crate::ops::{Operator, arity};
use crate::transform::{Dual, Jvp, Part, Transposition, no_rule};
use crate::{Array, DType, Error, Result, Shape};

variants! {
    /// An elementwise operator of one operand.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Unary {
        Abs,
        Cbrt,
        Ceil,
        Cos,
        Erf,
        Exp,
        Expm1,
        Floor,
        IsFinite,
        Log,
        Log1p,
        Logistic,
        Neg,
        Not,
        Round,
        RoundTiesEven,
        Rsqrt,
        Sign,
        Sin,
        Sqrt,
        Tan,
        Tanh,
    }
}

/// Which dtypes an operator takes.
enum Domain {
    Floats,
    /// Floats and signed integers.
    Signed,
    /// Pred and integers.
    Bits,
}

impl Unary {
    /// The name, the HLO opcode and the domain.
    fn facts(self) -> (&'static str, &'static str, Domain) {
        match self {
            Unary::Abs => ("abs", "abs", Domain::Signed),
            Unary::Cbrt => ("cbrt", "cbrt", Domain::Floats),
            Unary::Ceil => ("ceil", "ceil", Domain::Floats),
            Unary::Cos => ("cos", "cosine", Domain::Floats),
            Unary::Erf => ("erf", "erf", Domain::Floats),
            Unary::Exp => ("exp", "exponential", Domain::Floats),
            Unary::Expm1 => ("expm1", "exponential-minus-one", Domain::Floats),
            Unary::Floor => ("floor", "floor", Domain::Floats),
            Unary::IsFinite => ("is_finite", "is-finite", Domain::Floats),
            Unary::Log => ("log", "log", Domain::Floats),
            Unary::Log1p => ("log1p", "log-plus-one", Domain::Floats),
            Unary::Logistic => ("logistic", "logistic", Domain::Floats),
            Unary::Neg => ("neg", "negate", Domain::Signed),
            Unary::Not => ("not", "not", Domain::Bits),
            Unary::Round => ("round", "round-nearest-afz", Domain::Floats),
            Unary::RoundTiesEven => ("round_ties_even", "round-nearest-even", Domain::Floats),
            Unary::Rsqrt => ("rsqrt", "rsqrt", Domain::Floats),
            Unary::Sign => ("sign", "sign", Domain::Signed),
            Unary::Sin => ("sin", "sine", Domain::Floats),
            Unary::Sqrt => ("sqrt", "sqrt", Domain::Floats),
            Unary::Tan => ("tan", "tan", Domain::Floats),
            Unary::Tanh => ("tanh", "tanh", Domain::Floats),
        }
    }

    fn float(self, x: f64) -> f64 {
        match self {
            Unary::Abs => x.abs(),
            Unary::Cbrt => x.cbrt(),
            Unary::Ceil => x.ceil(),
            Unary::Cos => x.cos(),
            Unary::Erf => libm::erf(x),
            Unary::Exp => x.exp(),
            Unary::Expm1 => x.exp_m1(),
            Unary::Floor => x.floor(),
            Unary::IsFinite => x.is_finite().into(),
            Unary::Log => x.ln(),
            Unary::Log1p => x.ln_1p(),
            Unary::Logistic => 1.0 / (1.0 + (-x).exp()),
            Unary::Neg => -x,
            Unary::Round => x.round(),
            Unary::RoundTiesEven => x.round_ties_even(),
            Unary::Rsqrt => 1.0 / x.sqrt(),
            // Zeros keep their sign, as XLA's do.
            Unary::Sign if x == 0.0 || x.is_nan() => x,
            Unary::Sign => x.signum(),
            Unary::Sin => x.sin(),
            Unary::Sqrt => x.sqrt(),
            Unary::Tan => x.tan(),
            Unary::Tanh => x.tanh(),
            Unary::Not => unreachable!("its domain has no floats"),
        }
    }

    fn integer(self, x: i128, dtype: DType) -> i128 {
        match self {
            Unary::Abs => x.abs(),
            Unary::Neg => -x,
            Unary::Not if dtype == DType::Pred => 1 - x,
            Unary::Not => !x,
            Unary::Sign => x.signum(),
            _ => unreachable!("its domain has no integers"),
        }
    }
}

impl Operator for Unary {
    fn name(&self) -> &'static str {
        self.facts().0
    }

    fn elementwise(&self) -> bool {
        true
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let (name, _, domain) = self.facts();
        let [operand] = arity(name, inputs)?;
        let dtype = operand.dtype();
        let (allowed, expected) = match domain {
            Domain::Floats => (dtype.is_float(), "floating"),
            Domain::Signed => (dtype.is_float() || dtype.is_signed_integer(), "floating or a signed integer"),
            Domain::Bits => (dtype == DType::Pred || dtype.is_integer(), "pred or an integer"),
        };
        if !allowed {
            return Err(Error::argument(name, "operand's dtype", expected, dtype));
        }
        Ok(vec![if *self == Unary::IsFinite { operand.with_dtype(DType::Pred) } else { operand }])
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let operand = &inputs[0];
        let dtype = operand.shape().dtype();
        let output = if dtype.is_float() {
            let values: Vec<_> = operand.to_f64().into_iter().map(|x| self.float(x)).collect();
            let dtype = if *self == Unary::IsFinite { DType::Pred } else { dtype };
            Array::from_f64(operand.shape().with_dtype(dtype), &values)?
        } else {
            let values: Vec<_> = operand.to_i128().into_iter().map(|x| self.integer(x, dtype)).collect();
            Array::from_i128(operand.shape().clone(), &values)?
        };
        Ok(vec![output])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let operand = &inputs[0];
        let (_, opcode, _) = self.facts();
        let dtype = if *self == Unary::IsFinite { DType::Pred } else { operand.shape().dtype() };
        Ok(vec![module.add(opcode, &operand.shape().with_dtype(dtype), &[operand])])
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        let primal = rule.primal(inputs)?.remove(0);
        let tangent = match &inputs[0].tangent {
            Some(tangent) => self.derivative(&inputs[0].primal, &primal, tangent)?,
            None => None,
        };
        Ok(vec![Dual { primal, tangent }])
    }

    fn transpose(
        &self,
        _: &Transposition,
        _: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        match self {
            Unary::Neg => Ok(vec![cotangents[0].as_ref().map(|cotangent| -cotangent).transpose()?]),
            _ => no_rule(self.name(), "vjp", "it is not linear"),
        }
    }
}

impl Unary {
    /// The derivative times `t`, at `x`, where the value is `y`; none where it is zero everywhere.
    fn derivative(self, x: &Tensor, y: &Tensor, t: &Tensor) -> Result<Option<Tensor>> {
        let product = match self {
            // At 0 it is 1, as JAX's.
            Unary::Abs => t * x.greater_equal(0)?.select(&x.full_like(1)?, -1),
            // From y alone, for the slope is infinite at 0, where y / x is NaN.
            Unary::Cbrt => t * (y.pow(-2)? / 3),
            Unary::Cos => -(t * x.sin())?,
            Unary::Erf => t * ((-(x * x)?)?.exp()? * std::f64::consts::FRAC_2_SQRT_PI),
            Unary::Exp => t * y,
            Unary::Expm1 => t * (y + 1),
            Unary::Log => t / x,
            Unary::Log1p => t / (x + 1),
            Unary::Logistic => t * (y * (1 - y)),
            Unary::Neg => -t,
            Unary::Rsqrt => t * ((y / x)? * -0.5),
            Unary::Sin => t * x.cos(),
            Unary::Sqrt => t / (y * 2),
            Unary::Tan => t * ((y * y)? + 1),
            Unary::Tanh => t * (1 - &(y * y)?),
            Unary::Ceil | Unary::Floor | Unary::Round | Unary::RoundTiesEven | Unary::Sign => {
                return Ok(None);
            }
            Unary::IsFinite | Unary::Not => return no_rule(self.name(), "jvp", "its result is not floating"),
        };
        Ok(Some(product?))
    }
}

macro_rules! unary_methods {
    ($($(#[$doc:meta])* $method:ident => $operator:ident: $from:tt => $to:tt;)*) => {
        impl Tensor {
            $($(#[$doc])*
            ///
            /// # Errors
            /// Where the operator does not take this dtype.
            ///
            /// ```
            /// use xlann::{Array, DType, Function, Shape};
            ///
            /// let shape = Shape::new(DType::F32, [2]);
            #[doc = concat!(
                "let f = Function::trace(\"f\", &[shape], |x| x[0].", stringify!($method), "())?;"
            )]
            #[doc = concat!("let results = f.eval(&[Array::new([2], &", stringify!($from), ")?])?;")]
            #[doc = concat!("assert_eq!(results, [Array::new([2], &", stringify!($to), ")?]);")]
            /// # Ok::<(), xlann::Error>(())
            /// ```
            pub fn $method(&self) -> Result<Tensor> {
                self.builder().push_one(Unary::$operator, &[self])
            })*
        }
    };
}

// Of each method, an operand and what it gives, for the example in its documentation.
unary_methods! {
    /// The absolute value of floats and signed integers; the smallest integer is its own.
    #[doc(alias("absolute", "fabs"))]
    abs => Abs: [-1.5f32, 2.0] => [1.5f32, 2.0];
    /// The cube root of floats.
    cbrt => Cbrt: [8f32, -27.0] => [2f32, -3.0];
    /// Floats rounded up to integers.
    ceil => Ceil: [1.2f32, -1.2] => [2f32, -1.0];
    /// The cosine of floats, in radians.
    cos => Cos: [0f32, 1.0] => [1f32, 0.5403023];
    /// The error function of floats.
    erf => Erf: [0f32, 1.0] => [0f32, 0.8427008];
    /// e to the power of floats.
    exp => Exp: [0f32, 1.0] => [1f32, 2.7182817];
    /// `exp(x) - 1` of floats, exact near 0.
    expm1 => Expm1: [0f32, 1e-10] => [0f32, 1e-10];
    /// Floats rounded down to integers.
    floor => Floor: [1.2f32, -1.2] => [1f32, -2.0];
    /// Whether floats are neither infinite nor NaN; a pred.
    #[doc(alias = "isfinite")]
    is_finite => IsFinite: [1f32, f32::INFINITY] => [true, false];
    /// The natural logarithm of floats.
    #[doc(alias = "ln")]
    log => Log: [1f32, 10.0] => [0f32, 2.3025851];
    /// `log(1 + x)` of floats, exact near 0.
    log1p => Log1p: [0f32, 1e-10] => [0f32, 1e-10];
    /// `1 / (1 + exp(-x))` of floats.
    #[doc(alias("sigmoid", "expit"))]
    logistic => Logistic: [0f32, 1.0] => [0.5f32, 0.7310586];
    /// Floats rounded to the nearest integer, halves away from 0, as [`f64::round`].
    round => Round: [2.5f32, -2.5] => [3f32, -3.0];
    /// Floats rounded to the nearest integer, halves to the even one.
    #[doc(alias("rint", "round"))]
    round_ties_even => RoundTiesEven: [2.5f32, -2.5] => [2f32, -2.0];
    /// `1 / sqrt(x)` of floats.
    rsqrt => Rsqrt: [4f32, 0.25] => [0.5f32, 2.0];
    /// -1, 0 or 1 by the sign of floats and signed integers; zeros and NaNs stay themselves.
    #[doc(alias("sgn", "signum"))]
    sign => Sign: [-3f32, 0.0] => [-1f32, 0.0];
    /// The sine of floats, in radians.
    sin => Sin: [0f32, 1.0] => [0f32, 0.84147096];
    /// The square root of floats.
    sqrt => Sqrt: [4f32, 9.0] => [2f32, 3.0];
    /// The tangent of floats, in radians.
    tan => Tan: [0f32, 1.0] => [0f32, 1.5574077];
    /// The hyperbolic tangent of floats.
    tanh => Tanh: [0f32, 1.0] => [0f32, 0.7615942];
}

impl Neg for &Tensor {
    type Output = Result<Tensor>;

    fn neg(self) -> Result<Tensor> {
        self.builder().push_one(Unary::Neg, &[self])
    }
}

impl Neg for Tensor {
    type Output = Result<Tensor>;

    fn neg(self) -> Result<Tensor> {
        -&self
    }
}

impl Not for &Tensor {
    type Output = Result<Tensor>;

    fn not(self) -> Result<Tensor> {
        self.builder().push_one(Unary::Not, &[self])
    }
}

impl Not for Tensor {
    type Output = Result<Tensor>;

    fn not(self) -> Result<Tensor> {
        !&self
    }
}
