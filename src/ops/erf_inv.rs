//! The inverse error function, of other operators.

use std::f64::consts::FRAC_2_SQRT_PI;

use crate::graph::Tensor;
use crate::{DType, Error, Function, Result, custom_jvp};

// Of erf⁻¹(x) / x, where w = -ln(1 - x²); the highest power comes first.

/// Of f32, for w below 5, in w - 2.5.
const SINGLE_CENTRE: [f64; 9] = [
    2.81022636e-8,
    3.43273939e-7,
    -3.5233877e-6,
    -4.39150654e-6,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
];

/// From there on, in √w - 3.
const SINGLE_TAIL: [f64; 9] = [
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
];

/// Of f64, for w below 6.25, in w - 3.125.
const DOUBLE_CENTRE: [f64; 23] = [
    -3.64441206401782e-21,
    -1.6850591381820166e-19,
    1.28584807152564e-18,
    1.1157877678025181e-17,
    -1.333171662854621e-16,
    2.0972767875968562e-17,
    6.637638134358324e-15,
    -4.054566272975207e-14,
    -8.151934197605472e-14,
    2.6335093153082323e-12,
    -1.2975133253453532e-11,
    -5.415412054294628e-11,
    1.0512122733215323e-9,
    -4.112633980346984e-9,
    -2.9070369957882005e-8,
    4.2347877827932404e-7,
    -1.3654692000834679e-6,
    -1.3882523362786469e-5,
    0.00018673420803405714,
    -0.000740702534166267,
    -0.006033670871430149,
    0.24015818242558962,
    1.6536545626831027,
];

/// From there to 16, in √w - 3.25.
const DOUBLE_MIDDLE: [f64; 19] = [
    2.2137376921775787e-9,
    9.075656193888539e-8,
    -2.7517406297064545e-7,
    1.8239629214389228e-8,
    1.5027403968909828e-6,
    -4.013867526981546e-6,
    2.9234449089955446e-6,
    1.2475304481671779e-5,
    -4.7318229009055734e-5,
    6.828485145957318e-5,
    2.4031110387097894e-5,
    -0.0003550375203628475,
    0.0009532893797373805,
    -0.0016882755560235047,
    0.002491442096107851,
    -0.003751208507569241,
    0.005370914553590064,
    1.0052589676941592,
    3.0838856104922208,
];

/// From 16 on, in √w - 5.
const DOUBLE_TAIL: [f64; 17] = [
    -2.7109920616438573e-11,
    -2.555641816996525e-10,
    1.5076572693500548e-9,
    -3.789465440126737e-9,
    7.61570120807834e-9,
    -1.496002662714924e-8,
    2.914795345090108e-8,
    -6.771199775845234e-8,
    2.2900482228026655e-7,
    -9.9298272942317e-7,
    4.526062597223154e-6,
    -1.968177810553167e-5,
    7.599527703001776e-5,
    -0.00021503011930044477,
    -0.00013871931833623122,
    1.0103004648645344,
    4.849906401408584,
];

impl Tensor {
    /// The number whose error function this is, of floats: ±∞ of ±1, and NaN beyond.
    ///
    /// They are the polynomials of Giles (*Approximating the erfinv function*, 2010) that XLA takes too, of f16 and
    /// bf16 in f32.
    ///
    /// # Errors
    /// Where the dtype is not floating.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F64, [2])], |x| x[0].erf()?.erf_inv())?;
    /// let results = f.eval(&[Array::new([2], &[0.5, -2.0])?])?[0].to_f64();
    /// assert!((results[0] - 0.5).abs() < 1e-14 && (results[1] + 2.0).abs() < 1e-13);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn erf_inv(&self) -> Result<Tensor> {
        if !self.dtype().is_float() {
            return Err(Error::argument("erf_inv", "operand's dtype", "floating", self.dtype()));
        }
        let shapes = [self.shape().clone(), self.shape().clone()];
        let function = Function::trace("erf_inv", &shapes[..1], |x| inverse(&x[0]))?;
        // The slope of the error function at the result is 2 / √π exp(-result²).
        let rule = Function::trace("erf_inv_rule", &shapes, |x| {
            let result = inverse(&x[0])?;
            let slope = ((&result * &result)?.exp()? * FRAC_2_SQRT_PI.recip())?;
            Ok((result, (&x[1] * slope)?))
        })?;
        Ok(self.builder().call(&custom_jvp(&function, &rule)?, &[self])?.remove(0))
    }
}

fn inverse(operand: &Tensor) -> Result<Tensor> {
    let x = match operand.dtype() {
        DType::F64 => operand.clone(),
        _ => operand.convert(DType::F32)?,
    };
    let w = (-(&x * -&x)?.log1p()?)?;
    let root = w.sqrt()?;
    let quotient = match x.dtype() {
        DType::F64 => {
            let middle = polynomial(&DOUBLE_MIDDLE, &(&root - 3.25)?)?;
            let outer = w.less(16)?.select(middle, polynomial(&DOUBLE_TAIL, &(root - 5)?)?)?;
            w.less(6.25)?.select(polynomial(&DOUBLE_CENTRE, &(w - 3.125)?)?, outer)
        }
        _ => {
            let outer = polynomial(&SINGLE_TAIL, &(root - 3)?)?;
            w.less(5)?.select(polynomial(&SINGLE_CENTRE, &(w - 2.5)?)?, outer)
        }
    };
    let infinite = x.abs()?.equal(1)?;
    infinite.select((&x * f64::INFINITY)?, (quotient? * &x)?)?.convert(operand.dtype())
}

/// The polynomial of these coefficients.
fn polynomial(coefficients: &[f64], x: &Tensor) -> Result<Tensor> {
    let mut sum = x.full_like(coefficients[0])?;
    for &coefficient in &coefficients[1..] {
        sum = ((sum * x)? + coefficient)?;
    }
    Ok(sum)
}
