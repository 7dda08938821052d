//! What is required of every transformed function.

use std::cell::Cell;

use crate::runner;
use proptest::prelude::*;
use xlann::{Array, DType, Function, Shape, Tensor, jvp, vjp, vmap};

/// The size of the batches.
const BATCH: usize = 3;

thread_local! {
    static INTERPRETED: Cell<bool> = const { Cell::new(false) };
}

/// Requires what `checks` does of the interpreter alone: compiling each case of a property takes long.
pub fn interpreted(checks: impl FnOnce()) {
    INTERPRETED.set(true);
    checks();
    INTERPRETED.set(false);
}

/// As [`runner::run_hlo`], but for what is [`interpreted`].
fn run(function: &Function, arguments: &[Array]) -> Vec<Array> {
    if !INTERPRETED.get() {
        return runner::run_hlo(function, arguments);
    }
    function.check().unwrap_or_else(|problem| panic!("{problem}\n{function}"));
    function.eval(arguments).unwrap_or_else(|problem| panic!("{problem}\n{function}"))
}

/// Dimensions of arrays, of which few are empty.
pub fn dims() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1 => Just(0usize), 2 => Just(1), 9 => 2usize..5], 0..4)
}

/// Shapes of some values, and which of them feed each.
pub fn mixes() -> impl Strategy<Value = (Vec<Shape>, Vec<Vec<bool>>)> {
    let shape = prop::collection::vec(prop_oneof![1 => Just(0usize), 9 => 1usize..4], 0..3)
        .prop_map(|dims| Shape::new(DType::F64, dims));
    prop::collection::vec((shape, prop::collection::vec(any::<bool>(), 3)), 1..4)
        .prop_map(|values| values.into_iter().unzip())
}

/// New values of the same shapes: each stays, or is made of itself and the sums of those that feed it.
pub fn mixed(values: &[Tensor], feeds: &[Vec<bool>], weight: f64) -> xlann::Result<Vec<Tensor>> {
    let next = |(value, feeds): (&Tensor, &Vec<bool>)| {
        let mut next = value.clone();
        for (other, _) in values.iter().zip(feeds).filter(|(_, feeds)| **feeds) {
            let axes: Vec<isize> = (0..other.rank() as isize).collect();
            next = (next.sin()? + (other.reduce_sum(&axes)? * weight)?)?;
        }
        Ok(next)
    };
    values.iter().zip(feeds).map(next).collect()
}

/// Arrays of equal shapes as one, along a new dimension `axis`.
pub fn stack(arrays: &[Array], axis: usize) -> Array {
    let shapes: Vec<Shape> = arrays.iter().map(|array| array.shape().clone()).collect();
    let stack = Function::trace("stack", &shapes, |x| {
        let expanded: Vec<Tensor> = x
            .iter()
            .map(|x| {
                let mut dims = x.dims().to_vec();
                dims.insert(axis, 1);
                x.reshape(&dims)
            })
            .collect::<xlann::Result<_>>()?;
        Tensor::concatenate(&expanded.iter().collect::<Vec<_>>(), axis as isize)
    });
    stack.unwrap().eval(arrays).unwrap().remove(0)
}

/// Requires of `function` that vmap over each dimension of each parameter alone, and of all together, gives what
/// the function gives for each element of the batch on the interpreter, at any output axis; and that the compiled
/// function gives the same. `arguments` makes an element of the batch from its number.
pub fn vmap_matches(function: &Function, arguments: impl Fn(u64) -> Vec<Array>) {
    function.check().unwrap();
    let batch: Vec<Vec<Array>> = (0..BATCH as u64).map(arguments).collect();
    let count = batch[0].len();
    let ranks: Vec<usize> = batch[0].iter().map(|array| array.shape().rank()).collect();
    let mut choices: Vec<Vec<Option<usize>>> = Vec::new();
    for parameter in 0..count {
        for axis in 0..=ranks[parameter] {
            let mut axes = vec![None; count];
            axes[parameter] = Some(axis);
            choices.push(axes);
        }
    }
    choices.push(vec![Some(0); count]);
    choices.push(ranks.iter().map(|&rank| Some(rank)).collect());
    // One parameter in front and the others at the end, and all but one.
    choices.push(
        ranks.iter().enumerate().map(|(index, &rank)| Some(if index == 0 { 0 } else { rank })).collect(),
    );
    if count > 2 {
        for shared in 0..count {
            choices.push((0..count).map(|index| (index != shared).then_some(0)).collect());
        }
    }
    let compiled = choices.len() - 1;
    for (number, axes) in choices.iter().enumerate() {
        let expected: Vec<Vec<Array>> = (0..BATCH)
            .map(|element| {
                let own = |index: usize| if axes[index].is_some() { element } else { 0 };
                let arguments: Vec<Array> =
                    (0..count).map(|index| batch[own(index)][index].clone()).collect();
                function.eval(&arguments).unwrap()
            })
            .collect();
        let stacked: Vec<Array> = (0..count)
            .map(|index| match axes[index] {
                Some(axis) => {
                    stack(&batch.iter().map(|element| element[index].clone()).collect::<Vec<_>>(), axis)
                }
                None => batch[0][index].clone(),
            })
            .collect();
        // Out axes go through all places, counted from the end in every second case.
        let out_axes: Vec<usize> =
            expected[0].iter().map(|result| number % (result.shape().rank() + 1)).collect();
        let signed = |axis: usize, rank: usize| {
            Some(if number % 2 == 0 { axis as isize } else { axis as isize - rank as isize - 1 })
        };
        let signed_in: Vec<_> =
            axes.iter().zip(&ranks).map(|(axis, &rank)| axis.and_then(|axis| signed(axis, rank))).collect();
        let signed_out: Vec<_> = out_axes
            .iter()
            .zip(&expected[0])
            .map(|(&axis, result)| signed(axis, result.shape().rank()))
            .collect();
        let batched = vmap(function, signed_in, signed_out, BATCH)
            .unwrap_or_else(|problem| panic!("{axes:?}: {problem}\n{function}"));
        batched.check().unwrap_or_else(|problem| panic!("{axes:?}: {problem}\n{function}\n{batched}"));
        let results = if number == 0 || number == compiled {
            run(&batched, &stacked)
        } else {
            batched.eval(&stacked).unwrap_or_else(|problem| panic!("{axes:?}: {problem}\n{batched}"))
        };
        for (index, result) in results.iter().enumerate() {
            let expected: Vec<Array> = expected.iter().map(|results| results[index].clone()).collect();
            let context = format!("vmap over {axes:?}, result {index}\n{function}\n{batched}");
            runner::assert_close(result, &stack(&expected, out_axes[index]), &context);
        }
    }
}

/// The arguments with a multiple of directions added to those of `wrt`.
fn moved(arguments: &[Array], wrt: &[usize], directions: &[Array], by: f64) -> Vec<Array> {
    let mut moved = arguments.to_vec();
    for (&index, direction) in wrt.iter().zip(directions) {
        let values: Vec<f64> = arguments[index]
            .to_f64()
            .iter()
            .zip(direction.to_f64())
            .map(|(value, direction)| value + by * direction)
            .collect();
        moved[index] = Array::from_f64(arguments[index].shape().clone(), &values).unwrap();
    }
    moved
}

fn is_float(array: &&Array) -> bool {
    array.shape().dtype().is_float()
}

fn near(got: f64, expected: f64, tolerance: f64, context: &str) {
    let scale = expected.abs().max(1.0);
    assert!((got - expected).abs() <= tolerance * scale, "got {got}, expected {expected}\n{context}");
}

/// Requires of a function of f64 that its jvp equals central differences, at these arguments in a random
/// direction; integer arguments are held.
pub fn jvp_matches(function: &Function, arguments: &[Array], wrt: &[usize]) {
    let step = 1e-6;
    let directions: Vec<Array> = wrt
        .iter()
        .zip(100..)
        .map(|(&index, seed)| runner::random(arguments[index].shape().clone(), seed))
        .collect();
    let derivative = jvp(function, wrt).unwrap_or_else(|problem| panic!("{problem}\n{function}"));
    let results = run(&derivative, &[arguments, &directions].concat());
    let primal = function.eval(arguments).unwrap();
    assert_eq!(results[..primal.len()], primal, "{function}\n{derivative}");
    let after = function.eval(&moved(arguments, wrt, &directions, step)).unwrap();
    let before = function.eval(&moved(arguments, wrt, &directions, -step)).unwrap();
    let differences = after.iter().filter(is_float).zip(before.iter().filter(is_float));
    assert_eq!(differences.clone().count(), results.len() - primal.len());
    for (tangent, (after, before)) in results[primal.len()..].iter().zip(differences) {
        assert_eq!(tangent.shape(), after.shape());
        assert_eq!(tangent.shape().dtype(), DType::F64, "finite differences need f64");
        let context = format!("jvp against differences\n{function}\n{derivative}");
        for ((tangent, after), before) in tangent.to_f64().iter().zip(after.to_f64()).zip(before.to_f64()) {
            near(*tangent, (after - before) / (2.0 * step), 1e-6, &context);
        }
    }
}

/// Requires that vjp is the transpose of jvp, by the inner product with random cotangents, and gives the same
/// values as the function.
pub fn vjp_matches(function: &Function, arguments: &[Array], wrt: &[usize]) {
    let directions: Vec<Array> = wrt
        .iter()
        .zip(200..)
        .map(|(&index, seed)| runner::random(arguments[index].shape().clone(), seed))
        .collect();
    let primal = function.eval(arguments).unwrap();
    let cotangents: Vec<Array> = primal
        .iter()
        .filter(is_float)
        .zip(300..)
        .map(|(result, seed)| runner::random(result.shape().clone(), seed))
        .collect();
    let forward = jvp(function, wrt).unwrap_or_else(|problem| panic!("{problem}\n{function}"));
    let tangents = forward.eval(&[arguments, &directions].concat()).unwrap().split_off(primal.len());
    let reverse = vjp(function, wrt).unwrap_or_else(|problem| panic!("{problem}\n{function}\n{forward}"));
    let results = run(&reverse, &[arguments, &cotangents].concat());
    assert_eq!(results[..primal.len()], primal, "{function}\n{reverse}");
    let dot = |xs: &[Array], ys: &[Array]| -> f64 {
        assert_eq!(xs.len(), ys.len());
        let products = xs.iter().zip(ys).map(|(x, y)| {
            assert_eq!(x.shape(), y.shape(), "{function}\n{reverse}");
            x.to_f64().iter().zip(y.to_f64()).map(|(x, y)| x * y).sum::<f64>()
        });
        products.sum()
    };
    let context = format!("vjp against jvp\n{function}\n{forward}\n{reverse}");
    near(dot(&results[primal.len()..], &directions), dot(&cotangents, &tangents), 1e-9, &context);
}

/// Floats at three quarters; anything else as it is.
fn smaller(array: &Array) -> Array {
    if !is_float(&array) {
        return array.clone();
    }
    let values: Vec<f64> = array.to_f64().iter().map(|value| 0.75 * value).collect();
    Array::from_f64(array.shape().clone(), &values).unwrap()
}

/// Requires all of a function of f64: jvp against differences, vjp against jvp, the same of its vjp (second order,
/// reverse and forward over reverse), and that derivatives can be batched.
pub fn derivatives_match(function: &Function, arguments: &[Array], wrt: &[usize]) {
    jvp_matches(function, arguments, wrt);
    vjp_matches(function, arguments, wrt);
    let reverse = vjp(function, wrt).unwrap();
    let cotangents: Vec<Array> = reverse.parameter_shapes()[arguments.len()..]
        .iter()
        .zip(400..)
        .map(|(shape, seed)| runner::random(shape.clone(), seed))
        .collect();
    let all = [arguments, &cotangents].concat();
    jvp_matches(&reverse, &all, wrt);
    vjp_matches(&reverse, &all, wrt);

    let batched = vmap(&reverse, 0, 0, 2).unwrap_or_else(|problem| panic!("{problem}\n{reverse}"));
    batched.check().unwrap_or_else(|problem| panic!("{problem}\n{reverse}\n{batched}"));
    // The second element differs from the first in its values, but not in their signs, order and ties.
    let others: Vec<Array> = all.iter().map(smaller).collect();
    let pairs = |first: &[Array], second: &[Array]| -> Vec<Array> {
        first.iter().zip(second).map(|(first, second)| stack(&[first.clone(), second.clone()], 0)).collect()
    };
    let results = batched.eval(&pairs(&all, &others)).unwrap();
    let expected = pairs(&reverse.eval(&all).unwrap(), &reverse.eval(&others).unwrap());
    assert_eq!(results.len(), expected.len());
    for (got, expected) in results.iter().zip(&expected) {
        runner::assert_close(got, expected, &format!("vmap of vjp\n{reverse}\n{batched}"));
    }
}

/// A function of arrays of these dimensions, and an element of a batch of its arguments.
pub fn traced<F: FnOnce(&[Tensor]) -> xlann::Result<Tensor>>(
    dtype: DType,
    dims: &[&[usize]],
    body: F,
) -> (Function, impl Fn(u64) -> Vec<Array> + use<F>) {
    let shapes: Vec<Shape> = dims.iter().map(|&dims| Shape::new(dtype, dims)).collect();
    let function = Function::trace("f", &shapes, body).unwrap();
    let arguments = move |seed: u64| {
        let scaled = |value: f64| match dtype {
            DType::Pred => f64::from(value > 0.0),
            _ if dtype.is_float() => value,
            _ => 9.0 * value,
        };
        let array = |(index, shape): (usize, &Shape)| {
            let values = runner::random(shape.with_dtype(DType::F64), 10 * seed + index as u64).to_f64();
            let values: Vec<f64> = values.into_iter().map(scaled).collect();
            Array::from_f64(shape.clone(), &values).unwrap()
        };
        shapes.iter().enumerate().map(array).collect()
    };
    (function, arguments)
}

/// Requires all of a function of arrays of f64 of these dimensions, at random values.
pub fn vmap_and_derivatives(dims: &[&[usize]], body: impl FnOnce(&[Tensor]) -> xlann::Result<Tensor>) {
    let (function, arguments) = traced(DType::F64, dims, body);
    vmap_matches(&function, &arguments);
    derivatives_match(&function, &arguments(7), &(0..dims.len()).collect::<Vec<_>>());
}
