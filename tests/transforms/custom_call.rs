//! Transforms of custom calls. No target knows these, so that nothing here is compiled.

use crate::required::{derivatives_match, interpreted, mixed, mixes, stack, vmap_matches};
use crate::runner::{assert_close, random};
use proptest::prelude::*;
use xlann::{Array, CustomCall, DType, Function, Shape, Tensor, VmapMethod, grad, jvp, vjp, vmap};

const METHODS: [VmapMethod; 3] = [VmapMethod::Sequential, VmapMethod::ExpandDims, VmapMethod::BroadcastAll];

fn vector() -> Shape {
    Shape::new(DType::F64, [3])
}

fn scalar() -> Shape {
    Shape::scalar(DType::F64)
}

/// A vector times a scalar, and how many of its elements are above the scalar.
fn reference() -> Function {
    Function::trace("scale", &[vector(), scalar()], |x| {
        Ok(((&x[0] * &x[1])?, x[0].greater(&x[1])?.convert(DType::S32)?.reduce_sum(&[0])?))
    })
    .unwrap()
}

fn derivative() -> Function {
    Function::trace("d_scale", &[vector(), scalar(), vector(), scalar()], |x| {
        (&x[2] * &x[1])? + (&x[0] * &x[3])
    })
    .unwrap()
}

fn call() -> CustomCall {
    CustomCall::new("scale", [vector(), Shape::scalar(DType::S32)])
}

fn calling(call: CustomCall) -> Function {
    Function::trace("f", &[vector(), scalar()], |x| x[0].builder().custom_call(call, &[&x[0], &x[1]]))
        .unwrap()
}

fn arguments(seed: u64) -> Vec<Array> {
    vec![random(vector(), seed), random(scalar(), seed + 50)]
}

/// The function with the call's operator replaced by the reference's.
fn same_without_call() -> Function {
    Function::trace("f", &[vector(), scalar()], |x| x[0].builder().call(&reference(), &[&x[0], &x[1]]))
        .unwrap()
}

#[test]
fn calls_batch_by_each_method() {
    let axes = [[Some(0), None], [None, Some(0)], [Some(0), Some(0)], [Some(1), None], [Some(1), Some(0)]];
    for method in METHODS {
        let f = calling(call().reference(reference()).derivative(derivative()).vmap_method(method));
        for axes in axes {
            for size in [1, 4] {
                let batch: Vec<Vec<Array>> = (0..size).map(arguments).collect();
                let operand = |index: usize| match axes[index] {
                    None => batch[0][index].clone(),
                    Some(axis) => {
                        stack(&batch.iter().map(|b| b[index].clone()).collect::<Vec<_>>(), axis as usize)
                    }
                };
                let arguments = [operand(0), operand(1)];
                let batched = vmap(&f, axes, [Some(1), Some(0)], size as usize).unwrap();
                batched.check().unwrap_or_else(|problem| panic!("{problem}\n{batched}"));
                let expected = vmap(&same_without_call(), axes, [Some(1), Some(0)], size as usize).unwrap();
                assert_eq!(
                    batched.eval(&arguments).unwrap(),
                    expected.eval(&arguments).unwrap(),
                    "{batched}"
                );
            }
        }
        let empty = vmap(&f, [Some(0), None], 0, 0).unwrap();
        let none = Array::zeros(Shape::new(DType::F64, [0, 3])).unwrap();
        assert_eq!(empty.eval(&[none, Array::scalar(1f64)]).unwrap()[1].shape().dims(), [0]);
    }
}

#[test]
fn the_target_gets_the_dimensions_that_the_method_says() {
    let operands = |method| {
        let f = calling(call().reference(reference()).vmap_method(method));
        let batched = vmap(&f, [Some(0), None], 0, 4).unwrap();
        let calls: Vec<Vec<Shape>> = batched
            .equations()
            .iter()
            .filter(|equation| equation.operator() == "custom_call")
            .map(|equation| equation.inputs().iter().map(|&input| batched.shape(input).clone()).collect())
            .collect();
        (calls, batched.to_string())
    };
    let f64s = |dims: &[usize]| Shape::new(DType::F64, dims);
    assert_eq!(operands(VmapMethod::ExpandDims).0, [[f64s(&[4, 3]), f64s(&[1])]]);
    assert_eq!(operands(VmapMethod::BroadcastAll).0, [[f64s(&[4, 3]), f64s(&[4])]]);
    let (calls, text) = operands(VmapMethod::Sequential);
    assert!(calls.is_empty());
    assert!(text.contains("while[trip_count=4]"), "{text}");
    assert!(text.contains("custom_call[target=\"scale\", vmap_method=Sequential]"), "{text}");
}

#[test]
fn derivatives_are_those_of_the_derivative_or_the_reference() {
    let expected = same_without_call();
    for wrt in [&[0][..], &[1], &[1, 0]] {
        for stated in [call().reference(reference()), call().reference(reference()).derivative(derivative())]
        {
            let f = calling(stated);
            let directions: Vec<Array> = wrt.iter().map(|&index| arguments(7)[index].clone()).collect();
            let all = [arguments(2), directions].concat();
            let (got, expected_jvp) = (jvp(&f, wrt).unwrap(), jvp(&expected, wrt).unwrap());
            got.check().unwrap();
            assert_eq!(got.eval(&all).unwrap(), expected_jvp.eval(&all).unwrap(), "{got}");
            let all = [arguments(2), vec![random(vector(), 9)]].concat();
            let (got, expected_vjp) = (vjp(&f, wrt).unwrap(), vjp(&expected, wrt).unwrap());
            got.check().unwrap();
            assert_eq!(got.eval(&all).unwrap(), expected_vjp.eval(&all).unwrap(), "{got}");
        }
    }
}

#[test]
fn a_derivative_needs_no_reference() {
    let f = calling(call().derivative(derivative()));
    let derivative = jvp(&f, &[0]).unwrap();
    let operators: Vec<_> = derivative.equations().iter().map(|e| e.operator()).collect();
    assert_eq!(operators[0], "custom_call");
    assert!(!operators[1..].contains(&"custom_call"));
}

/// The sum of what the call gives for a vector.
fn loss(call: CustomCall) -> Function {
    Function::trace("loss", &[vector(), scalar()], |x| {
        let scaled = x[0].builder().custom_call(call, &[&x[0], &x[1]])?.remove(0);
        (&scaled * &scaled)?.reduce_sum(&[0])
    })
    .unwrap()
}

#[test]
fn transforms_of_calls_combine() {
    let expected = Function::trace("loss", &[vector(), scalar()], |x| {
        let scaled = (&x[0] * &x[1])?;
        (&scaled * &scaled)?.reduce_sum(&[0])
    })
    .unwrap();
    let close = |got: &Function, expected: &Function, arguments: &[Array]| {
        got.check().unwrap_or_else(|problem| panic!("{problem}\n{got}"));
        for (got_array, expected) in
            got.eval(arguments).unwrap().iter().zip(expected.eval(arguments).unwrap())
        {
            assert_close(got_array, &expected, got);
        }
    };
    let batch: Vec<Vec<Array>> = (0..3).map(arguments).collect();
    let stacked: Vec<Array> =
        (0..2).map(|index| stack(&batch.iter().map(|b| b[index].clone()).collect::<Vec<_>>(), 0)).collect();
    for method in METHODS {
        let f = loss(call().reference(reference()).derivative(derivative()).vmap_method(method));
        // The batch of the gradient.
        let gradient = |f: &Function| vmap(&grad(f, &[0, 1]).unwrap(), 0, 0, 3).unwrap();
        close(&gradient(&f), &gradient(&expected), &stacked);
        // The gradient of the batch, and its derivative.
        let gradient = |f: &Function| vjp(&vmap(f, [Some(0), None], 0, 3).unwrap(), &[0, 1]).unwrap();
        let weights = random(Shape::new(DType::F64, [3]), 5);
        let arguments = [stacked[0].clone(), batch[0][1].clone(), weights];
        close(&gradient(&f), &gradient(&expected), &arguments);
        let second = |f: &Function| jvp(&gradient(f), &[0]).unwrap();
        let direction = random(Shape::new(DType::F64, [3, 3]), 6);
        close(&second(&f), &second(&expected), &[arguments.as_slice(), &[direction]].concat());
        // A batch of batches.
        let twice =
            |f: &Function| vmap(&vmap(f, [Some(0), None], 0, 3).unwrap(), [None, Some(0)], 0, 3).unwrap();
        close(&twice(&f), &twice(&expected), &stacked);
    }
}

#[test]
fn a_call_with_a_side_effect_stays_and_is_made_once() {
    let shape = vector();
    let log = |method| {
        let log = CustomCall::new("log_tensor", []).side_effect().vmap_method(method);
        Function::trace("f", std::slice::from_ref(&shape), |x| {
            let double = (&x[0] * 2)?;
            x[0].builder().custom_call(log, &[&double])?;
            double.exp()?.reduce_sum(&[0])
        })
        .unwrap()
    };
    let calls = |f: &Function| f.to_string().matches("log_tensor").count();
    for method in METHODS {
        let batched = vmap(&log(method), 0, 0, 4).unwrap();
        batched.check().unwrap();
        assert_eq!(calls(&batched), 1, "{batched}");
    }
    let f = log(VmapMethod::Sequential);
    assert_eq!(calls(&jvp(&f, &[0]).unwrap()), 1);
    assert_eq!(calls(&grad(&f, &[0]).unwrap()), 1);

    let looped = Function::trace("looped", std::slice::from_ref(&shape), |x| {
        x[0].builder().fori_loop(3, &[&x[0]], |_, x| {
            let log = CustomCall::new("log_tensor", []).side_effect();
            x[0].builder().custom_call(log, &[&x[0]])?;
            x[0].sin()
        })
    });
    let reverse = vjp(&looped.unwrap(), &[0]).unwrap();
    assert_eq!(calls(&reverse), 1, "{reverse}");

    // Nor is it in what is computed again within what is computed again.
    let logged = Function::trace("logged", std::slice::from_ref(&shape), |x| {
        let log = CustomCall::new("log_tensor", []).side_effect();
        x[0].builder().custom_call(log, &[&x[0]])?;
        x[0].sin()
    })
    .unwrap();
    let plain = Function::trace("plain", std::slice::from_ref(&shape), |x| x[0].cos()).unwrap();
    let call = |x: &Tensor| x.builder().call(&logged, &[x]);
    let twice = |x: &Tensor| x.builder().fori_loop(2, &[x], |_, x| call(&x[0]));
    let chosen = |x: &Tensor| x.reduce_sum(&[0])?.greater(0)?.cond(&[x], logged.clone(), plain.clone());
    let choosing = Function::trace("choosing", std::slice::from_ref(&shape), |x| chosen(&x[0])).unwrap();
    type Body<'a> = &'a dyn Fn(&Tensor) -> xlann::Result<Vec<Tensor>>;
    let bodies: [Body; 4] = [&twice, &chosen, &|x| twice(&chosen(x)?[0]), &|x| {
        x.reduce_sum(&[0])?.less(9)?.cond(&[x], choosing.clone(), plain.clone())
    }];
    for body in bodies {
        // The value of the inner result is not linear in the state, so that the way back needs it again.
        let f = Function::trace("f", std::slice::from_ref(&shape), |x| {
            x[0].builder().fori_loop(3, &[&x[0]], |_, x| body(&x[0])?[0].sin()? * &x[0])
        })
        .unwrap();
        for wrapped in [f.clone(), vjp(&f, &[0]).unwrap()] {
            let reverse = vjp(&wrapped, &[0]).unwrap();
            reverse.check().unwrap();
            assert_eq!(calls(&reverse), calls(&f), "{reverse}");
        }
    }

    // What nothing needs but the call that it goes into is not computed again either.
    let f = Function::trace("f", &[shape.clone(), shape.clone()], |x| {
        x[0].builder().fori_loop(3, &[&x[0], &x[1]], |_, x| {
            let inner = x[0].builder().fori_loop(2, &[&x[0], &x[1]], |_, x| {
                let next = CustomCall::new("log_tensor", [vector()]).side_effect().reference(plain.clone());
                let next = x[0].builder().custom_call(next, &[&x[1]])?.remove(0);
                Ok([x[0].sin()?, next])
            })?;
            Ok([(&inner[0].sin()? * &x[0])?, inner[1].clone()])
        })
    })
    .unwrap();
    let reverse = vjp(&f, &[0]).unwrap();
    assert_eq!(calls(&reverse), 1, "{reverse}");
}

#[test]
fn what_is_not_stated_is_refused() {
    assert_eq!(
        vmap(&calling(call()), 0, 0, 2).unwrap_err().to_string(),
        "custom_call: vmap cannot go through it: \"scale\" does not say how; CustomCall::vmap_method states it"
    );
    assert_eq!(
        jvp(&calling(call()), &[0]).unwrap_err().to_string(),
        "custom_call: jvp cannot go through it: \"scale\" has no derivative; CustomCall::derivative states it"
    );
    assert_eq!(
        grad(&loss(call()), &[0]).unwrap_err().to_string(),
        "custom_call: jvp cannot go through it: \"scale\" has no derivative; CustomCall::derivative states it"
    );
    let wrong = |derivative| {
        let call = call().derivative(derivative);
        let f = Function::trace("f", &[vector(), scalar()], |x| {
            x[0].builder().custom_call(call, &[&x[0], &x[1]])
        });
        f.unwrap_err().to_string()
    };
    assert_eq!(
        wrong(reference()),
        "custom_call: derivative must be a function (f64[3], f64[], f64[3], f64[]) -> (f64[3]), \
         got (f64[3], f64[]) -> (f64[3], s32[])"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_call((shapes, feeds) in mixes(), stated: bool, seed: u32) {
        // Also gives an integer, which has no tangent.
        let reference = Function::trace("reference", &shapes, |x| {
            let mut results = mixed(x, &feeds, 0.3)?;
            results.insert(0, x[0].greater(0)?.convert(DType::S32)?);
            Ok(results)
        })
        .unwrap();
        let every: Vec<usize> = (0..shapes.len()).collect();
        let forward = jvp(&reference, &every).unwrap();
        let derivative = Function::trace("derivative", &[shapes.as_slice(), &shapes].concat(), |x| {
            let results = x[0].builder().call(&forward, &x.iter().collect::<Vec<_>>())?;
            Ok(results[reference.results().len()..].to_vec())
        })
        .unwrap();
        for method in METHODS {
            let mut call = CustomCall::new("mix", reference.result_shapes())
                .reference(reference.clone())
                .vmap_method(method);
            if stated {
                call = call.derivative(derivative.clone());
            }
            let f = Function::trace("f", &shapes, |x| {
                x[0].builder().custom_call(call, &x.iter().collect::<Vec<_>>())
            })
            .unwrap();
            let arguments = |of: &Function, number: u64| -> Vec<Array> {
                let shapes = of.parameter_shapes().into_iter().zip(10 * (u64::from(seed) + number)..);
                shapes.map(|(shape, seed)| random(shape, seed)).collect()
            };
            interpreted(|| {
                vmap_matches(&f, |number| arguments(&f, number));
                derivatives_match(&f, &arguments(&f, 0), &every);
                // Batched, and then differentiated or batched again.
                let batched = vmap(&f, 0, 0, 2).unwrap();
                derivatives_match(&batched, &arguments(&batched, 0), &every);
                vmap_matches(&batched, |number| arguments(&batched, number));
            });
        }
    }
}

#[test]
fn effects_that_only_some_elements_have_are_refused() {
    let log = |x: &Tensor| {
        let log = CustomCall::new("log_tensor", []).side_effect().vmap_method(VmapMethod::ExpandDims);
        x.builder().custom_call(log, &[x]).map(|_| ())
    };
    let shape = Shape::scalar(DType::F32);
    let logged = Function::trace("logged", std::slice::from_ref(&shape), |x| {
        log(&x[0])?;
        x[0].sin()
    })
    .unwrap();
    let plain = Function::trace("plain", std::slice::from_ref(&shape), |x| x[0].cos()).unwrap();
    let shapes = [Shape::scalar(DType::Pred), shape.clone()];
    let branches =
        Function::trace("branches", &shapes, |x| x[0].cond(&[&x[1]], logged.clone(), plain.clone())).unwrap();
    vmap(&branches, [None, Some(0)], 0, 3).unwrap().check().unwrap();
    let error = vmap(&branches, [Some(0), Some(0)], 0, 3).unwrap_err().to_string();
    assert!(error.contains("conditional") && error.contains("side effect"), "{error}");

    let below = Function::trace("below", std::slice::from_ref(&shape), |x| x[0].less(9f32)).unwrap();
    let double = Function::trace("double", std::slice::from_ref(&shape), |x| {
        log(&x[0])?;
        &x[0] + &x[0]
    })
    .unwrap();
    let doubled = Function::trace("doubled", &[shape], |x| {
        x[0].builder().while_loop(&[&x[0]], below.clone(), double.clone())
    })
    .unwrap();
    let error = vmap(&doubled, 0, 0, 3).unwrap_err().to_string();
    assert!(error.contains("while") && error.contains("side effect"), "{error}");
}
