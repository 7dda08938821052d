//! Functions with derivative rules of their own, against closed forms.

use crate::runner::{assert_close, run};
use xlann::lower::{Options, lower};
use xlann::target::{cpu, gpu, tpu};
use xlann::transform::auto_vmap;
use xlann::{
    Array, Builder, DType, Function, Result, Results, Shape, Tensor, custom_jvp, custom_vjp, grad, jvp, vjp,
    vmap,
};

fn scalar() -> Shape {
    Shape::scalar(DType::F64)
}

fn vector(size: usize) -> Shape {
    Shape::new(DType::F64, [size])
}

fn function<R: Results>(shapes: &[Shape], body: impl FnOnce(&[Tensor]) -> Result<R>) -> Function {
    Function::trace("f", shapes, body).unwrap()
}

/// The result of a function of one parameter.
fn apply(function: &Function, x: &Tensor) -> Result<Tensor> {
    Ok(x.builder().call(function, &[x])?.remove(0))
}

/// Requires that a function gives these numbers on every backend.
fn assert_gives(function: &Function, arguments: &[f64], expected: &[f64]) {
    let arguments: Vec<Array> = arguments.iter().map(|&x| Array::scalar(x)).collect();
    let got = run(function, &arguments);
    assert_eq!(got.len(), expected.len(), "{function}");
    for (got, &expected) in got.iter().zip(expected) {
        assert_close(got, &Array::scalar(expected), function);
    }
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// ln(1 + exp(x)), as written: infinite where x is large.
fn naive() -> Function {
    function(&[scalar()], |x| x[0].exp()?.log1p())
}

/// The same, by a rule that is exact everywhere.
fn log1pexp() -> Function {
    let rule = function(&[scalar(), scalar()], |x| {
        let value = x[0].maximum(0)? + (-x[0].abs()?)?.exp()?.log1p();
        Ok((value?, (&x[1] * x[0].logistic())?))
    });
    custom_jvp(&naive(), &rule).unwrap()
}

/// exp, of whose rule the tangent is made of the value.
fn exp_by_value() -> Function {
    let exp = function(&[scalar()], |x| x[0].exp());
    // Through bits, nothing is differentiated but by the rule.
    let rule = function(&[scalar(), scalar()], |x| {
        let value = x[0].bitcast_convert(DType::S64)?.bitcast_convert(DType::F64)?.exp()?;
        Ok((value.clone(), (&x[1] * value)?))
    });
    custom_jvp(&exp, &rule).unwrap()
}

/// The identity, past which cotangents are clipped to -1..1.
fn clip(shape: Shape) -> Function {
    let identity = function(std::slice::from_ref(&shape), |x| Ok(x[0].clone()));
    custom_vjp(&identity, &identity, &function(&[shape], |x| x[0].clamp(-1, 1))).unwrap()
}

/// x y, with a reverse derivative by residuals, and of twice the true size by y.
fn product() -> Function {
    let shapes = [scalar(), scalar()];
    let multiply = function(&shapes, |x| &x[0] * &x[1]);
    let forward = function(&shapes, |x| Ok([(&x[0] * &x[1])?, x[0].clone(), x[1].clone()]));
    let backward =
        function(&[scalar(), scalar(), scalar()], |x| Ok([(&x[2] * &x[1])?, ((&x[2] * &x[0])? * 2)?]));
    custom_vjp(&multiply, &forward, &backward).unwrap()
}

#[test]
fn the_rule_is_the_derivative_both_ways() {
    let f = log1pexp();
    assert!(grad(&naive(), &[0]).unwrap().eval(&[Array::scalar(800f64)]).unwrap()[0].to_f64()[0].is_nan());
    for x in [-3.0, 0.0, 1.5, 800.0] {
        let value = f64::max(x, 0.0) + (-x.abs()).exp().ln_1p();
        assert_gives(&grad(&f, &[0]).unwrap(), &[x], &[logistic(x)]);
        assert_gives(&jvp(&f, &[0]).unwrap(), &[x, 2.0], &[value, 2.0 * logistic(x)]);
        assert_gives(&vjp(&f, &[0]).unwrap(), &[x, 2.0], &[value, 2.0 * logistic(x)]);
    }
}

#[test]
fn without_a_derivative_the_function_is_what_it_was() {
    assert_gives(&log1pexp(), &[1.5], &[1.5f64.exp().ln_1p()]);
    assert_eq!(log1pexp().eval(&[Array::scalar(800f64)]).unwrap(), [Array::scalar(f64::INFINITY)]);
}

#[test]
fn higher_derivatives_go_by_the_rule_again() {
    let f = log1pexp();
    let second = grad(&grad(&f, &[0]).unwrap(), &[0]).unwrap();
    let third = jvp(&second, &[0]).unwrap();
    // Of its square, the second derivative needs the first of the value.
    let square = function(&[scalar()], |x| {
        let value = apply(&f, &x[0])?;
        &value * &value
    });
    let of_square = grad(&grad(&square, &[0]).unwrap(), &[0]).unwrap();
    for x in [-3.0, 0.0, 1.5, 800.0] {
        let value = f64::max(x, 0.0) + (-x.abs()).exp().ln_1p();
        let slope = logistic(x);
        let bend = slope * logistic(-x);
        assert_gives(&second, &[x], &[bend]);
        assert_gives(&third, &[x, 1.0], &[bend, bend * (logistic(-x) - slope)]);
        assert_gives(&of_square, &[x], &[2.0 * slope * slope + 2.0 * value * bend]);
    }
}

#[test]
fn what_is_made_of_the_value_is_differentiated_by_the_rule() {
    let mut f = exp_by_value();
    for _ in 0..3 {
        f = grad(&f, &[0]).unwrap();
        f.check().unwrap();
        assert_gives(&f, &[0.7], &[0.7f64.exp()]);
    }
}

#[test]
fn a_rounding_can_let_derivatives_through() {
    let round = function(&[scalar()], |x| x[0].round());
    let rule = function(&[scalar(), scalar()], |x| Ok((x[0].round()?, x[1].clone())));
    let f = custom_jvp(&round, &rule).unwrap();
    let scaled = function(&[scalar()], |x| apply(&f, &(&x[0] * 3)?));
    assert_gives(&scaled, &[1.1], &[3.0]);
    assert_gives(&grad(&scaled, &[0]).unwrap(), &[1.1], &[3.0]);
}

#[test]
fn cotangents_can_be_clipped() {
    let f = function(&[scalar()], |x| apply(&clip(scalar()), &x[0])? * 5);
    assert_gives(&f, &[3.0], &[15.0]);
    assert_gives(&vjp(&f, &[0]).unwrap(), &[3.0, 0.1], &[15.0, 0.5]);
    assert_gives(&grad(&f, &[0]).unwrap(), &[3.0], &[1.0]);
}

#[test]
fn a_reverse_derivative_goes_by_its_residuals() {
    let f = product();
    assert_gives(&vjp(&f, &[0, 1]).unwrap(), &[3.0, 5.0, 2.0], &[15.0, 10.0, 12.0]);
    assert_gives(&grad(&f, &[1]).unwrap(), &[3.0, 5.0], &[6.0]);
    // Reverse over reverse, and forward over reverse, of which nothing is the product itself.
    let mixed = grad(&grad(&f, &[1]).unwrap(), &[0]).unwrap();
    assert_gives(&mixed, &[3.0, 5.0], &[2.0]);
    assert_gives(&jvp(&grad(&f, &[1]).unwrap(), &[0]).unwrap(), &[3.0, 5.0, 7.0], &[6.0, 14.0]);
    // Of (xy)², the derivative by y is 2xy 2x, and by y again, where the product's counts twice, 8x².
    let square = function(&[scalar(), scalar()], |x| {
        let product = x[0].builder().call(&f, &[&x[0], &x[1]])?.remove(0);
        &product * &product
    });
    let twice = grad(&grad(&square, &[1]).unwrap(), &[1]).unwrap();
    assert_gives(&twice, &[3.0, 5.0], &[72.0]);
}

#[test]
fn a_reverse_derivative_is_not_taken_forwards() {
    let expected =
        "custom_vjp: jvp cannot go through it: it has a reverse derivative only; custom_jvp gives both";
    let refused = |function: &Function| jvp(function, &[0]).unwrap_err().to_string();
    assert_eq!(refused(&clip(scalar())), expected);
    let in_loop = function(&[scalar()], |x| {
        x[0].builder().fori_loop(2, &[&x[0]], |_, x| apply(&clip(scalar()), &x[0]))
    });
    assert_eq!(refused(&in_loop), expected);
    // What is not differentiated does not matter.
    let beside = function(&[scalar(), scalar()], |x| &x[0] * apply(&clip(scalar()), &x[1]));
    assert_gives(&jvp(&beside, &[0]).unwrap(), &[2.0, 3.0, 1.0], &[6.0, 3.0]);
}

#[test]
fn batches_and_derivatives_come_in_any_order() {
    let f = log1pexp();
    let points = Array::new([3], &[-2.0, 0.5, 800.0]).unwrap();
    let slopes: Vec<f64> = points.to_f64().into_iter().map(logistic).collect();
    let slopes = Array::new([3], &slopes).unwrap();
    let each = vmap(&grad(&f, &[0]).unwrap(), 0, 0, 3).unwrap();
    assert_close(&run(&each, std::slice::from_ref(&points))[0], &slopes, &each);
    let sum = function(&[vector(3)], |x| apply(&vmap(&f, 0, 0, 3)?, &x[0])?.reduce_sum(&[0]));
    let of_sum = grad(&sum, &[0]).unwrap();
    assert_close(&run(&of_sum, &[points])[0], &slopes, &of_sum);
}

#[test]
fn what_a_batch_shares_gets_the_sum_of_its_cotangents() {
    let rows = vmap(&product(), [Some(0), None], 0, 3).unwrap();
    let both = vjp(&rows, &[0, 1]).unwrap();
    let array = |values: &[f64]| Array::new([3], values).unwrap();
    let got = run(&both, &[array(&[1.0, 2.0, 3.0]), Array::scalar(5f64), array(&[1.0, 10.0, 100.0])]);
    let expected =
        [array(&[5.0, 10.0, 15.0]), array(&[5.0, 50.0, 500.0]), Array::scalar(2.0 * (1.0 + 20.0 + 300.0))];
    for (got, expected) in got.iter().zip(&expected) {
        assert_close(got, expected, &both);
    }
    // A result that all of the batch share does so still.
    let shapes = [scalar(), scalar()];
    let pair = function(&shapes, |x| Ok([(&x[0] * 2)?, (&x[1] * 3)?]));
    let pair = custom_jvp(&pair, &jvp(&pair, &[0, 1]).unwrap()).unwrap();
    let batch = vmap(&pair, [Some(0), None], [Some(0), None], 3).unwrap();
    batch.check().unwrap();
    assert_eq!(batch.result_shapes(), [vector(3), scalar()]);
    let empty = vmap(&pair, 0, 0, 0).unwrap();
    assert_eq!(empty.result_shapes(), [vector(0), vector(0)]);
}

#[test]
fn auto_vmap_goes_through() {
    let f = log1pexp();
    let batched = auto_vmap("softplus", &["x"], [0], |x| apply(&f, x[0].leaf()?)).unwrap();
    let points = Array::new([2, 2], &[-1.0, 0.0, 1.0, 2.0]).unwrap();
    let got = batched.eval([points.clone()]).unwrap();
    let expected: Vec<f64> = points.to_f64().into_iter().map(|x| x.exp().ln_1p()).collect();
    assert_close(got.leaf().unwrap(), &Array::new([2, 2], &expected).unwrap(), &f);
}

#[test]
fn loops_and_branches_go_through() {
    // x, three times through f: the slope is the product of the slopes.
    let points = |x: f64| {
        let y = x.exp().ln_1p();
        let z = y.exp().ln_1p();
        [x, y, z]
    };
    let f = log1pexp();
    let looped = function(&[scalar()], |x| x[0].builder().fori_loop(3, &[&x[0]], |_, x| apply(&f, &x[0])));
    let slope: f64 = points(0.3).map(logistic).iter().product();
    let value = points(0.3)[2].exp().ln_1p();
    assert_gives(&vjp(&looped, &[0]).unwrap(), &[0.3, 1.0], &[value, slope]);
    assert_gives(&jvp(&looped, &[0]).unwrap(), &[0.3, 1.0], &[value, slope]);

    let clipped = function(&[scalar()], |x| {
        x[0].builder().fori_loop(3, &[&x[0]], |_, x| apply(&clip(scalar()), &(&x[0] * 2)?))
    });
    assert_gives(&vjp(&clipped, &[0]).unwrap(), &[0.3, 5.0], &[2.4, 2.0]);

    let branch = function(&[scalar(), scalar()], |x| {
        let positive = x[0].greater(0)?;
        positive.cond(&[&x[0], &x[1]], product(), function(&[scalar(), scalar()], |x| &x[0] - &x[1]))
    });
    assert_gives(&vjp(&branch, &[0, 1]).unwrap(), &[3.0, 5.0, 1.0], &[15.0, 5.0, 6.0]);
    assert_gives(&vjp(&branch, &[0, 1]).unwrap(), &[-3.0, 5.0, 1.0], &[-8.0, 1.0, -1.0]);
    let batch = vmap(&vjp(&branch, &[0, 1]).unwrap(), 0, 0, 2).unwrap();
    let array = |values: &[f64]| Array::new([2], values).unwrap();
    let got = run(&batch, &[array(&[3.0, -3.0]), array(&[5.0, 5.0]), array(&[1.0, 1.0])]);
    assert_close(&got[1], &array(&[5.0, 1.0]), &batch);
    assert_close(&got[2], &array(&[6.0, -1.0]), &batch);
}

#[test]
fn one_can_stand_in_another() {
    let inner = log1pexp();
    let outer = function(&[scalar()], |x| apply(&inner, &(&x[0] * 2)?));
    let rule = function(&[scalar(), scalar()], |x| {
        let value = apply(&inner, &(&x[0] * 2)?)?;
        // Ten times the true slope.
        Ok((value, ((&x[1] * (&x[0] * 2)?.logistic())? * 20)?))
    });
    let f = custom_jvp(&outer, &rule).unwrap();
    let clipped =
        function(&[scalar()], |x| apply(&clip(scalar()), &apply(&f, &apply(&clip(scalar()), &x[0])?)?));
    assert_gives(&grad(&f, &[0]).unwrap(), &[0.4], &[20.0 * logistic(0.8)]);
    assert_gives(&grad(&clipped, &[0]).unwrap(), &[0.4], &[1.0]);
    let second = grad(&grad(&f, &[0]).unwrap(), &[0]).unwrap();
    assert_gives(&second, &[0.4], &[40.0 * logistic(0.8) * logistic(-0.8)]);
}

#[test]
fn a_tangent_that_is_zero_comes_back_from_nowhere() {
    // Of the pair, only the first changes with the first.
    let pair = function(&[scalar(), scalar()], |x| Ok([(&x[0] * 2)?, (&x[1] * 3)?]));
    let pair = custom_jvp(&pair, &jvp(&pair, &[0, 1]).unwrap()).unwrap();
    let f = function(&[scalar(), scalar()], |x| {
        let made = x[0].builder().call(&pair, &[&x[0], &x[1]])?;
        let looped = x[0].builder().fori_loop(2, &[&made[1]], |_, x| apply(&clip(scalar()), &x[0]))?;
        &made[0] * (apply(&clip(scalar()), &made[1])? + &looped[0])
    });
    assert_gives(&grad(&f, &[0]).unwrap(), &[5.0, 7.0], &[84.0]);
    assert_gives(&grad(&f, &[0, 1]).unwrap(), &[5.0, 7.0], &[84.0, 6.0]);
}

#[test]
fn integers_have_no_tangents() {
    let shapes = [vector(3), Shape::scalar(DType::S32)];
    let pick = |x: &[Tensor]| x[0].dynamic_slice(&[&x[1]], &[1])?.squeeze(&[0]);
    let f = function(&shapes, |x| Ok((pick(x)?, (&x[1] + 1)?)));
    let rule = function(&[shapes[0].clone(), shapes[1].clone(), vector(3)], |x| {
        Ok((pick(x)?, (&x[1] + 1)?, (pick(&[x[2].clone(), x[1].clone()])? * 10)?))
    });
    let by_jvp = custom_jvp(&f, &rule).unwrap();
    let forward = function(&shapes, |x| Ok([pick(x)?, (&x[1] + 1)?, x[1].clone()]));
    let backward = function(&[shapes[1].clone(), scalar()], |x| {
        let zeros = x[0].builder().constant(Array::zeros(vector(3))?)?;
        zeros.dynamic_update_slice(&(&x[1] * 10)?.expand_dims(0)?, &[&x[0]])
    });
    let by_vjp = custom_vjp(&f, &forward, &backward).unwrap();
    let arguments = [Array::new([3], &[5.0, 6.0, 7.0]).unwrap(), Array::scalar(1), Array::scalar(1f64)];
    for f in [by_jvp, by_vjp] {
        let reverse = vjp(&f, &[0]).unwrap();
        let got = run(&reverse, &arguments);
        assert_eq!(got[..2], [Array::scalar(6f64), Array::scalar(2)]);
        assert_eq!(got[2], Array::new([3], &[0.0, 10.0, 0.0]).unwrap());
    }
}

#[test]
fn the_inverse_error_function_has_its_closed_derivatives() {
    let f = function(&[scalar()], |x| x[0].erf_inv());
    let first = grad(&f, &[0]).unwrap();
    let second = grad(&first, &[0]).unwrap();
    for (x, y) in [(0.0, 0.0), (0.5, 0.4769362762044699), (-0.9, -1.1630871536766743)] {
        let slope = std::f64::consts::PI.sqrt() / 2.0 * f64::exp(y * y);
        assert_gives(&first, &[x], &[slope]);
        assert_gives(&second, &[x], &[2.0 * y * slope * slope]);
    }
}

#[test]
fn nothing_but_the_function_is_lowered() {
    for (custom, plain) in
        [(log1pexp(), naive()), (product(), function(&[scalar(), scalar()], |x| &x[0] * &x[1]))]
    {
        for capabilities in [&cpu::CAPABILITIES, &gpu::CAPABILITIES, &tpu::CAPABILITIES] {
            let [custom, plain] = [&custom, &plain].map(|function| {
                lower(function, capabilities, &Options::default()).unwrap().module.to_string()
            });
            assert_eq!(custom, plain);
        }
    }
}

#[test]
fn rules_of_other_signatures_are_refused() {
    let f = function(&[scalar(), Shape::scalar(DType::S32)], |x| Ok([x[0].clone()]));
    let rule = function(&[scalar(), Shape::scalar(DType::S32), Shape::scalar(DType::F32)], |x| {
        Ok([x[0].clone(), x[0].clone()])
    });
    assert_eq!(
        custom_jvp(&f, &rule).unwrap_err().to_string(),
        "custom_jvp: rule must be a function (f64[], s32[], f64[]) -> (f64[], f64[]), \
         got (f64[], s32[], f32[]) -> (f64[], f64[])"
    );
    let nothing = Builder::new("nothing").finish(Vec::new()).unwrap();
    assert_eq!(
        custom_vjp(&f, &nothing, &nothing).unwrap_err().to_string(),
        "custom_vjp: forward must be a function (f64[], s32[]) -> (f64[]), got () -> ()"
    );
    assert_eq!(
        custom_vjp(&f, &f, &f).unwrap_err().to_string(),
        "custom_vjp: backward must be a function (f64[]) -> (f64[]), got (f64[], s32[]) -> (f64[])"
    );
}
