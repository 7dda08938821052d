//! Loops, branches and custom calls.

use crate::runner::run;
use xlann::{ApiVersion, Array, Builder, CustomCall, DType, Function, Shape};

fn f32s(dims: &[usize]) -> Shape {
    Shape::new(DType::F32, dims)
}

/// x + 1 of a vector of three.
fn successor() -> Function {
    Function::trace("successor", &[f32s(&[3])], |x| &x[0] + 1f32).unwrap()
}

#[test]
fn a_loop_runs_while_its_condition_holds() {
    // The greatest common divisor by Euclid, and the number of its steps.
    let s = Shape::scalar(DType::S32);
    let state = [s.clone(), s.clone(), s.clone()];
    let condition = Function::trace("condition", &state, |x| x[1].not_equal(0)).unwrap();
    let body =
        Function::trace("body", &state, |x| Ok((x[1].clone(), (&x[0] % &x[1])?, (&x[2] + 1)?))).unwrap();
    let f = Function::trace("gcd", &[s.clone(), s], |x| {
        let steps = x[0].builder().scalar(0i32)?;
        x[0].builder().while_loop(&[&x[0], &x[1], &steps], condition, body)
    })
    .unwrap();
    for (a, b, divisor, steps) in [(12, 18, 6, 3), (7, 0, 7, 0), (1, 1, 1, 1)] {
        let got = run(&f, &[Array::scalar(a), Array::scalar(b)]);
        assert_eq!(got, [Array::scalar(divisor), Array::scalar(0), Array::scalar(steps)]);
    }
}

#[test]
fn a_state_of_one_tensor_loops() {
    let shape = f32s(&[2, 0]);
    let condition =
        Function::trace("condition", &[f32s(&[3])], |x| x[0].less(10f32)?.reduce_all(&[0])).unwrap();
    let f =
        Function::trace("f", &[f32s(&[3])], |x| x[0].builder().while_loop(&[&x[0]], condition, successor()))
            .unwrap();
    assert_eq!(
        run(&f, &[Array::new([3], &[1f32, 2.5, -4.0]).unwrap()]),
        [Array::new([3], &[9f32, 10.5, 4.0]).unwrap()]
    );
    let f = Function::trace("f", std::slice::from_ref(&shape), |x| {
        x[0].builder().fori_loop(3, &[&x[0]], |_, x| Ok(x.to_vec()))
    })
    .unwrap();
    assert_eq!(run(&f, &[Array::zeros(shape.clone()).unwrap()]), [Array::zeros(shape).unwrap()]);
}

#[test]
fn a_counted_loop_runs_that_often() {
    for (trips, expected) in [(0, 0), (1, 0), (5, 10), (-3, 0)] {
        let builder = Builder::new("sum");
        let zero = builder.scalar(0i32).unwrap();
        let sum = builder.fori_loop(trips, &[&zero], |index, x| &x[0] + index).unwrap();
        let function = builder.finish(sum).unwrap();
        assert_eq!(run(&function, &[]), [Array::scalar(expected)]);
        assert!(function.to_string().contains(&format!("while[trip_count={}]", trips.max(0))), "{function}");
    }
}

#[test]
fn loops_nest() {
    let builder = Builder::new("table");
    let zero = builder.scalar(0i32).unwrap();
    let sum = builder
        .fori_loop(3, &[&zero], |row, x| {
            let inner = x[0]
                .builder()
                .fori_loop(4, &[&x[0], row], |column, x| Ok([(&x[0] + (&x[1] * column))?, x[1].clone()]))?;
            Ok(inner[0].clone())
        })
        .unwrap();
    assert_eq!(run(&builder.finish(sum).unwrap(), &[]), [Array::scalar(18)]);
}

#[test]
fn a_loop_that_does_not_fit_is_refused() {
    let refuse = |condition: Function, body: Function| {
        let f = Function::trace("f", &[f32s(&[3])], |x| x[0].builder().while_loop(&[&x[0]], condition, body));
        f.unwrap_err().to_string()
    };
    let always = |shape: Shape| Function::trace("always", &[shape], |x| x[0].builder().scalar(true)).unwrap();
    let sum = Function::trace("sum", &[f32s(&[3])], |x| x[0].reduce_sum(&[0])).unwrap();
    assert_eq!(
        refuse(always(f32s(&[3])), sum),
        "while: body must be a function (f32[3]) -> (f32[3]), got (f32[3]) -> (f32[])"
    );
    assert_eq!(
        refuse(always(f32s(&[2])), successor()),
        "while: condition must be a function (f32[3]) -> (pred[]), got (f32[2]) -> (pred[])"
    );
    let builder = Builder::new("f");
    let outside = builder.scalar(1f32).unwrap();
    let error = builder.fori_loop(2, &[&outside], |_, x| &x[0] + &outside).unwrap_err();
    assert_eq!(error.to_string(), "add: operand must be of function body, got one of function f");
}

#[test]
fn a_predicate_chooses_a_branch() {
    let double = Function::trace("double", &[f32s(&[3])], |x| &x[0] + &x[0]).unwrap();
    let f = Function::trace("f", &[Shape::scalar(DType::Pred), f32s(&[3])], |x| {
        x[0].cond(&[&x[1]], double, successor())
    })
    .unwrap();
    let x = Array::new([3], &[1f32, 2.0, 3.0]).unwrap();
    assert_eq!(run(&f, &[Array::scalar(true), x.clone()]), [Array::new([3], &[2f32, 4.0, 6.0]).unwrap()]);
    assert_eq!(run(&f, &[Array::scalar(false), x]), [Array::new([3], &[2f32, 3.0, 4.0]).unwrap()]);
}

#[test]
fn branches_take_and_give_any_number_of_tensors() {
    let pair = |name: &str, a: f32, b: i32| {
        let builder = Builder::new(name);
        let results = (builder.scalar(a).unwrap(), builder.scalar(b).unwrap());
        builder.finish(results).unwrap()
    };
    let f = Function::trace("f", &[Shape::scalar(DType::Pred)], |x| {
        x[0].cond(&[], pair("one", 1.0, 1), pair("two", 2.0, 2))
    })
    .unwrap();
    assert_eq!(run(&f, &[Array::scalar(false)]), [Array::scalar(2f32), Array::scalar(2)]);
}

#[test]
fn an_index_chooses_among_branches() {
    for count in [1, 2, 4] {
        let f = Function::trace("f", &[Shape::scalar(DType::S32), f32s(&[])], |x| {
            let branch = |n: i32| Function::trace("branch", &[f32s(&[])], |x| &x[0] + n).unwrap();
            x[0].switch(&[&x[1]], (0..count).map(branch).collect())
        })
        .unwrap();
        for index in -2..6 {
            let expected = if (0..count).contains(&index) { index } else { count - 1 };
            let got = run(&f, &[Array::scalar(index), Array::scalar(10f32)]);
            assert_eq!(got, [Array::scalar(10.0 + expected as f32)], "{index} of {count}");
        }
    }
}

#[test]
fn branches_that_do_not_fit_are_refused() {
    let refuse = |chooser: Shape, branches: Vec<Function>| {
        let f = Function::trace("f", &[chooser, f32s(&[3])], |x| x[0].switch(&[&x[1]], branches));
        f.unwrap_err().to_string()
    };
    let s = Shape::scalar(DType::S32);
    assert_eq!(refuse(s.clone(), vec![]), "conditional: branches must be one at least, got 0");
    assert_eq!(refuse(f32s(&[]), vec![successor()]), "conditional: index must be s32[], got f32[]");
    let sum = Function::trace("sum", &[f32s(&[3])], |x| x[0].reduce_sum(&[0])).unwrap();
    assert_eq!(
        refuse(s, vec![successor(), sum]),
        "conditional: branch 1 must be a function (f32[3]) -> (f32[3]), got (f32[3]) -> (f32[])"
    );
    let f = Function::trace("f", &[f32s(&[3])], |x| x[0].cond(&[&x[0]], successor(), successor()));
    assert_eq!(f.unwrap_err().to_string(), "conditional: predicate must be pred[], got f32[3]");
}

#[test]
fn a_custom_call_is_evaluated_by_its_reference() {
    let call = CustomCall::new("xlann_test", [f32s(&[3])]).backend_config("{k = 1 : i64}");
    let f = |call: CustomCall| {
        Function::trace("f", &[f32s(&[3])], |x| x[0].builder().custom_call(call, &[&x[0]]))
    };
    let x = Array::new([3], &[1f32, 2.0, 3.0]).unwrap();
    assert_eq!(
        f(call.clone()).unwrap().eval(std::slice::from_ref(&x)).unwrap_err().to_string(),
        "custom_call: not available on target host: xlann_test has no reference function"
    );
    let referenced = f(call.clone().reference(successor())).unwrap();
    referenced.check().unwrap();
    assert_eq!(referenced.eval(&[x]).unwrap(), [Array::new([3], &[2f32, 3.0, 4.0]).unwrap()]);
    let sum = Function::trace("sum", &[f32s(&[3])], |x| x[0].reduce_sum(&[0])).unwrap();
    assert_eq!(
        f(call.reference(sum)).unwrap_err().to_string(),
        "custom_call: reference must be a function (f32[3]) -> (f32[3]), got (f32[3]) -> (f32[])"
    );
}

#[test]
fn functions_with_sub_functions_are_printed() {
    let f = Function::trace("f", &[Shape::scalar(DType::Pred), f32s(&[3])], |x| {
        x[0].cond(&[&x[1]], successor(), successor())
    })
    .unwrap();
    assert_eq!(
        f.to_string(),
        "f(%0: pred[], %1: f32[3]) {
  %2: f32[3] = conditional %0 %1
    branch=successor(%0: f32[3]) {
      %1: f32[] = constant[value=f32[] 1]
      %2: f32[3] = broadcast_in_dim[dims=[3], broadcast_dimensions=[]] %1
      %3: f32[3] = add %0 %2
      return %3
    }
    branch=successor(%0: f32[3]) {
      %1: f32[] = constant[value=f32[] 1]
      %2: f32[3] = broadcast_in_dim[dims=[3], broadcast_dimensions=[]] %1
      %3: f32[3] = add %0 %2
      return %3
    }
  return %2
}"
    );
    let call = CustomCall::new("kernel", [f32s(&[])]).api_version(ApiVersion::Original).side_effect();
    let f = Function::trace("f", &[f32s(&[])], |x| x[0].builder().custom_call(call, &[&x[0]])).unwrap();
    assert!(
        f.to_string()
            .contains("custom_call[target=\"kernel\", api_version=Original, has_side_effect=true] %0")
    );
}
