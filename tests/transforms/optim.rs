//! Optimisers against training in NumPy: scripts/make-optimizer-fixtures.py wrote it.

use crate::runner::{self, session};
use serde_json::Value;
use xlann::optim::{self, Adam};
use xlann::{Array, Builder, DType, Function, Result, Shape, Tensor, Tree, grad};

const ROWS: usize = 8;
const COLUMNS: usize = 3;

fn fixture() -> Value {
    serde_json::from_str(include_str!("../fixtures/optimizers.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// The mean squared error of bias, weights, inputs and targets.
fn loss(dtype: DType) -> Function {
    let dims: [&[usize]; 4] = [&[], &[COLUMNS], &[ROWS, COLUMNS], &[ROWS]];
    let shapes = dims.map(|dims| Shape::new(dtype, dims));
    let loss = Function::trace("loss", &shapes, |x| {
        let error = ((x[2].dot(&x[1])? + &x[0])? - &x[3])?;
        (&error * &error)?.mean(&[0])
    });
    loss.unwrap()
}

/// One step of an optimiser.
fn step(
    name: &str,
    params: &Tree<Tensor>,
    grads: &Tree<Tensor>,
    state: &Tree<Tensor>,
) -> Result<(Tree<Tensor>, Tree<Tensor>)> {
    let rate = |rate: f64| params.leaves()[0].builder().scalar(rate);
    match name {
        "sgd" => Ok((optim::sgd(params, grads, &rate(0.1)?)?, Tree::None)),
        "momentum" => optim::momentum(params, grads, state, &rate(0.05)?, 0.9),
        "adam" => optim::adam(params, grads, state, &rate(0.1)?, &Adam::default()),
        "adagrad" => optim::adagrad(params, grads, state, &rate(0.5)?, 1e-7),
        other => panic!("no optimiser is of this name: {other}"),
    }
}

fn initial(name: &str, params: &Tree<Array>) -> Tree<Array> {
    match name {
        "sgd" => Tree::None,
        "momentum" => optim::zeros(params).unwrap(),
        "adam" => optim::adam_state(params).unwrap(),
        _ => optim::filled(params, 0.1).unwrap(),
    }
}

fn zero_params(dtype: DType) -> Tree<Array> {
    let zeros = |dims: &[usize]| Array::zeros(Shape::new(dtype, dims)).unwrap();
    [("bias", zeros(&[])), ("weights", zeros(&[COLUMNS]))].into()
}

/// A whole step as a function: of inputs, targets, parameters and state to parameters and state.
fn training(name: &str, dtype: DType) -> (Function, Tree<Array>, Tree<Array>) {
    let params = zero_params(dtype);
    let state = initial(name, &params);
    let builder = Builder::new("step");
    let take = |array: &Array| builder.parameter("", array.shape().clone());
    let inputs = builder.parameter("inputs", Shape::new(dtype, [ROWS, COLUMNS])).unwrap();
    let targets = builder.parameter("targets", Shape::new(dtype, [ROWS])).unwrap();
    let (old, old_state) = (params.try_map(take).unwrap(), state.try_map(take).unwrap());
    let arguments = [old.leaves(), vec![&inputs, &targets]].concat();
    let grads = builder.call(&grad(&loss(dtype), &[0, 1]).unwrap(), &arguments).unwrap();
    let grads = old.with_leaves(&grads).unwrap();
    let function = builder.finish(step(name, &old, &grads, &old_state).unwrap()).unwrap();
    function.check().unwrap();
    (function, params, state)
}

fn assert_near(got: &[&Array], expected: &[f64], tolerance: f64, context: &str) {
    let got: Vec<f64> = got.iter().flat_map(|array| array.to_f64()).collect();
    assert_eq!(got.len(), expected.len(), "{context}");
    for (got, expected) in got.iter().zip(expected) {
        assert!(
            (got - expected).abs() <= tolerance * expected.abs().max(1e-2),
            "{context}: {got}, {expected}"
        );
    }
}

/// Requires of training by `run` that it is the recorded one.
fn assert_trains(name: &str, dtype: DType, tolerance: f64, run: &dyn Fn(&[Array]) -> Vec<Array>) {
    let fixture = fixture();
    let (_, mut params, mut state) = training(name, dtype);
    let data = [("inputs", vec![ROWS, COLUMNS]), ("targets", vec![ROWS])]
        .map(|(name, dims)| Array::from_f64(Shape::new(dtype, dims), &numbers(&fixture[name])).unwrap());
    for count in 1..=60 {
        let arguments: Vec<Array> =
            data.iter().chain(params.leaves()).chain(state.leaves()).cloned().collect();
        let results = run(&arguments);
        let (new, new_state) = results.split_at(params.leaves().len());
        (params, state) = (params.with_leaves(new).unwrap(), state.with_leaves(new_state).unwrap());
        let recorded = &fixture["trained"][name][count.to_string()];
        if recorded.is_null() {
            continue;
        }
        let context = format!("{name} of {dtype} after {count} steps");
        assert_near(&params.leaves(), &numbers(&recorded["params"]), tolerance, &context);
        let mut leaves = state.leaves();
        if name == "adam" {
            assert_eq!(*leaves.remove(0), Array::scalar(count), "{context}");
        }
        let expected: Vec<f64> = recorded["state"].as_array().unwrap().iter().flat_map(numbers).collect();
        assert_near(&leaves, &expected, tolerance, &context);
    }
}

#[test]
fn training_goes_as_in_numpy() {
    for name in ["sgd", "momentum", "adam", "adagrad"] {
        for (dtype, tolerance) in [(DType::F64, 1e-11), (DType::F32, 2e-4)] {
            let (function, ..) = training(name, dtype);
            assert_trains(name, dtype, tolerance, &|arguments| function.eval(arguments).unwrap());
            if let Some(session) = session() {
                let executable = session.compile(&function).unwrap();
                assert_trains(name, dtype, tolerance, &|arguments| executable.run_arrays(arguments).unwrap());
            }
        }
    }
}

#[test]
fn a_loop_of_steps_is_one_function() {
    let (step, params, state) = training("adam", DType::F64);
    let fixture = fixture();
    let data = [("inputs", vec![ROWS, COLUMNS]), ("targets", vec![ROWS])]
        .map(|(name, dims)| Array::from_f64(Shape::new(DType::F64, dims), &numbers(&fixture[name])).unwrap());
    let arguments: Vec<Array> = data.iter().chain(params.leaves()).chain(state.leaves()).cloned().collect();
    let shapes: Vec<Shape> = arguments.iter().map(|array| array.shape().clone()).collect();
    let looped = Function::trace("looped", &shapes, |x| {
        x[0].builder().fori_loop(10, &x.iter().collect::<Vec<_>>(), |_, x| {
            let new = x[0].builder().call(&step, &x.iter().collect::<Vec<_>>())?;
            Ok([&x[..2], &new].concat())
        })
    });
    let results = runner::run(&looped.unwrap(), &arguments);
    let expected = numbers(&fixture["trained"]["adam"]["10"]["params"]);
    assert_near(&results[2..4].iter().collect::<Vec<_>>(), &expected, 1e-11, "looped");
}

#[test]
fn adam_of_f32_corrects_its_first_steps_exactly() {
    // Whatever the gradient, the first step is the rate, but for eps.
    let scalar = Shape::scalar(DType::F32);
    let function = Function::trace("f", std::slice::from_ref(&scalar), |x| {
        let params = Tree::Leaf(x[0].full_like(0)?);
        let state = [
            ("count", x[0].builder().scalar(0i32)?),
            ("mean", x[0].full_like(0)?),
            ("square", x[0].full_like(0)?),
        ];
        let rate = x[0].builder().scalar(1f32)?;
        optim::adam(&params, &Tree::Leaf(x[0].clone()), &state.into(), &rate, &Adam::default())
    });
    for gradient in [1e-3f32, 1.0, -500.0] {
        let moved = function.as_ref().unwrap().eval(&[Array::scalar(gradient)]).unwrap()[0].to_f64()[0];
        assert!((moved + f64::from(gradient.signum())).abs() < 2e-5, "{moved}");
    }
}

#[test]
fn trees_that_do_not_fit_are_refused() {
    let vector = Shape::new(DType::F32, [2]);
    let shapes = [
        vector.clone(),
        vector,
        Shape::new(DType::F32, [3]),
        Shape::scalar(DType::F32),
        Shape::scalar(DType::S32),
    ];
    let refusal = |body: &dyn Fn(&[Tensor]) -> Result<Tree<Tensor>>| {
        Function::trace("refused", &shapes, |x| body(x)).unwrap_err().to_string()
    };
    let leaf = |tensor: &Tensor| Tree::Leaf(tensor.clone());
    assert_eq!(
        refusal(&|x| optim::sgd(&leaf(&x[0]), &leaf(&x[2]), &x[3])),
        "sgd: grads must be as params, a leaf with leaves f32[2], got a leaf with leaves f32[3]"
    );
    assert_eq!(
        refusal(&|x| optim::sgd(&[&x[0]].into(), &leaf(&x[1]), &x[3])),
        "sgd: grads must be as params, a list of 1 with leaves f32[2], got a leaf with leaves f32[2]"
    );
    assert_eq!(
        refusal(&|x| optim::sgd(&leaf(&x[0]), &leaf(&x[1]), &x[4])),
        "sgd: learning_rate must be a floating scalar, got s32[]"
    );
    assert_eq!(
        refusal(&|x| optim::sgd(&leaf(&x[4]), &leaf(&x[4]), &x[3])),
        "sgd: params must be of floating tensors, got s32[]"
    );
    assert_eq!(
        refusal(&|x| Ok(optim::adagrad(&leaf(&x[0]), &leaf(&x[1]), &leaf(&x[1]), &x[3], 0.0)?.0)),
        "adagrad: eps must be positive, got 0"
    );
    let options = Adam { b1: 1.0, ..Adam::default() };
    assert_eq!(
        refusal(&|x| Ok(optim::adam(&leaf(&x[0]), &leaf(&x[1]), &leaf(&x[1]), &x[3], &options)?.0)),
        "adam: b1 must be from 0 on and below 1, got 1"
    );
    assert_eq!(
        refusal(&|x| Ok(optim::adam(&leaf(&x[0]), &leaf(&x[1]), &leaf(&x[1]), &x[3], &Adam::default())?.0)),
        "tree: key must be one of a leaf, got mean"
    );
}
