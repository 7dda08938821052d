//! Optimisers: how parameters change by gradients.
//!
//! Each is a plain function of trees of tensors, which appends what it computes: with the gradient, a whole step of
//! training is one [`Function`](crate::Function), which is compiled once. What an optimiser remembers, its *state*, is
//! a tree too, which a step takes and gives; what it is at first, functions of host arrays tell.
//!
//! ```
//! use xlann::{Array, Builder, DType, Function, Shape, Tensor, Tree, grad, optim};
//!
//! // Fits y = w x + b to points, with Adam.
//! let loss = Function::trace(
//!     "loss",
//!     &[vec![Shape::scalar(DType::F32); 2], vec![Shape::new(DType::F32, [3]); 2]].concat(),
//!     |x| {
//!         let error = (((&x[1] * &x[2])? + &x[0])? - &x[3])?;
//!         (&error * &error)?.mean(&[0])
//!     },
//! )?;
//! let gradient = grad(&loss, &[0, 1])?;
//!
//! let mut params: Tree<Array> = [("b", 0f32), ("w", 0f32)].into();
//! let mut state = optim::adam_state(&params)?;
//! let builder = Builder::new("step");
//! let take = |array: &Array| builder.parameter("", array.shape().clone());
//! let (x, y) = (take(&Array::new([3], &[0f32; 3])?)?, take(&Array::new([3], &[0f32; 3])?)?);
//! let old: Tree<Tensor> = params.try_map(take)?;
//! let old_state: Tree<Tensor> = state.try_map(take)?;
//! let arguments = [old.leaves(), vec![&x, &y]].concat();
//! let grads = old.with_leaves(&builder.call(&gradient, &arguments)?)?;
//! let rate = builder.scalar(0.1f32)?;
//! let step = builder.finish(optim::adam(&old, &grads, &old_state, &rate, &optim::Adam::default())?)?;
//!
//! let points = [Array::new([3], &[0f32, 1.0, 2.0])?, Array::new([3], &[1f32, 3.0, 5.0])?];
//! for _ in 0..300 {
//!     let leaves = [params.leaves(), state.leaves()].concat();
//!     let arguments: Vec<Array> = points.iter().chain(leaves).cloned().collect();
//!     let results = step.eval(&arguments)?;
//!     let (new, new_state) = results.split_at(params.leaves().len());
//!     (params, state) = (params.with_leaves(new)?, state.with_leaves(new_state)?);
//! }
//! assert!((params.get("w")?.leaf()?.to_f64()[0] - 2.0).abs() < 0.01);
//! assert!((params.get("b")?.leaf()?.to_f64()[0] - 1.0).abs() < 0.01);
//! # Ok::<(), xlann::Error>(())
//! ```

use crate::{Array, DType, Error, Result, Shape, Tensor, Tree};

/// How [`adam`] averages.
///
/// ```
/// assert_eq!(xlann::optim::Adam::default(), xlann::optim::Adam { b1: 0.9, b2: 0.999, eps: 1e-8 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// How much of the mean of the gradients stays in a step: from 0 on and below 1.
    pub b1: f64,
    /// The same of the mean of their squares.
    pub b2: f64,
    /// What is added to the root of the mean of squares.
    pub eps: f64,
}

impl Default for Adam {
    fn default() -> Adam {
        Adam { b1: 0.9, b2: 0.999, eps: 1e-8 }
    }
}

/// Gradient descent: `params - learning_rate * grads`.
///
/// The rate, here as in the other optimisers, is a floating scalar, which may be a parameter of the step; it is
/// converted to the dtype of each tensor.
///
/// # Errors
/// Where the gradients are not of the structure, shapes and dtypes of the parameters, one of these is not floating, or
/// the rate is not a floating scalar.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, Tree, optim};
///
/// let vector = Shape::new(DType::F32, [2]);
/// let f = Function::trace("f", &[vector.clone(), vector, Shape::scalar(DType::F32)], |x| {
///     optim::sgd(&Tree::Leaf(x[0].clone()), &Tree::Leaf(x[1].clone()), &x[2])
/// })?;
/// let [params, grads] = [[1f32, 2.0], [4f32, -4.0]].map(|x| Array::new([2], &x).unwrap());
/// assert_eq!(f.eval(&[params, grads, Array::scalar(0.5f32)])?, [Array::new([2], &[-1f32, 4.0])?]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn sgd(params: &Tree<Tensor>, grads: &Tree<Tensor>, learning_rate: &Tensor) -> Result<Tree<Tensor>> {
    let [new] = each("sgd", params, [("grads", grads)], learning_rate, |param, [grad], rate| {
        Ok([(param - (rate * grad))?])
    })?;
    Ok(new)
}

/// Gradient descent with momentum (Polyak, 1964): the velocities are `momentum * velocities + grads`, the parameters
/// change by `-learning_rate` times these. Gives parameters and velocities, which are [`zeros`] at first.
///
/// # Errors
/// As [`sgd`], and where the velocities are not of the structure, shapes and dtypes of the parameters.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, Tree, optim};
///
/// let f = Function::trace("f", &vec![Shape::scalar(DType::F32); 3], |x| {
///     let [param, grad, velocity] = [0, 1, 2].map(|index: usize| Tree::Leaf(x[index].clone()));
///     let rate = x[0].builder().scalar(0.5f32)?;
///     optim::momentum(&param, &grad, &velocity, &rate, 0.25)
/// })?;
/// let results = f.eval(&[1f32, 2.0, 8.0].map(Array::scalar))?;
/// assert_eq!(results, [Array::scalar(-1f32), Array::scalar(4f32)]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn momentum(
    params: &Tree<Tensor>,
    grads: &Tree<Tensor>,
    velocities: &Tree<Tensor>,
    learning_rate: &Tensor,
    momentum: f64,
) -> Result<(Tree<Tensor>, Tree<Tensor>)> {
    let trees = [("grads", grads), ("velocities", velocities)];
    let [new, velocities] =
        each("momentum", params, trees, learning_rate, |param, [grad, velocity], rate| {
            let velocity = ((velocity * momentum)? + grad)?;
            Ok([(param - (rate * &velocity))?, velocity])
        })?;
    Ok((new, velocities))
}

/// Adam (Kingma and Ba, 2014, algorithm 1), and what it remembers next, of what [`adam_state`] is at first.
///
/// Of the gradients g in step t, counted from 1:
///
/// ```text
/// mean   = b1 mean + (1 - b1) g
/// square = b2 square + (1 - b2) g²
/// params = params - learning_rate (mean / (1 - b1^t)) / (√(square / (1 - b2^t)) + eps)
/// ```
///
/// # Errors
/// As [`sgd`], where the state is not of the structure, shapes and dtypes of [`adam_state`], or the options are out of
/// range.
///
/// An example is that of the [module](self).
pub fn adam(
    params: &Tree<Tensor>,
    grads: &Tree<Tensor>,
    state: &Tree<Tensor>,
    learning_rate: &Tensor,
    options: &Adam,
) -> Result<(Tree<Tensor>, Tree<Tensor>)> {
    let Adam { b1, b2, eps } = *options;
    for (name, value) in [("b1", b1), ("b2", b2)] {
        if !(0.0..1.0).contains(&value) {
            return Err(Error::argument("adam", name, "from 0 on and below 1", value));
        }
    }
    let (mean, square) = (state.get("mean")?, state.get("square")?);
    let count = state.get("count")?.leaf()?;
    if *count.shape() != Shape::scalar(DType::S32) {
        return Err(Error::argument("adam", "count", "s32[]", count.shape()));
    }
    let count = (count + 1)?;
    let trees = [("grads", grads), ("mean", mean), ("square", square)];
    let [new, mean, square] =
        each("adam", params, trees, learning_rate, |param, [grad, mean, square], rate| {
            let mean = ((mean * b1)? + (grad * (1.0 - b1)))?;
            let square = ((square * b2)? + ((grad * grad)? * (1.0 - b2)))?;
            // 1 - b^t, without the rounding of b to the dtype.
            let steps = count.convert(param.dtype())?;
            let correction = |b: f64| -(&steps * b.ln())?.expm1()?;
            let root = (&square / correction(b2))?.sqrt()?;
            let change = ((&mean / correction(b1))? / (root + eps))?;
            Ok([(param - (rate * change))?, mean, square])
        })?;
    Ok((new, [("count", Tree::Leaf(count)), ("mean", mean), ("square", square)].into()))
}

/// AdaGrad (Duchi, Hazan and Singer, 2011, diagonal): the sums become `sums + grads²`, the parameters change by
/// `-learning_rate * grads / √(sums + eps)`. Gives parameters and sums, which are at first what [`filled`] gives of an
/// initial value, such as 0.1.
///
/// # Errors
/// As [`sgd`], where the sums are not of the structure, shapes and dtypes of the parameters, or `eps` is not positive.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, Tree, optim};
///
/// let f = Function::trace("f", &vec![Shape::scalar(DType::F32); 3], |x| {
///     let [param, grad, sum] = [0, 1, 2].map(|index: usize| Tree::Leaf(x[index].clone()));
///     let rate = x[0].builder().scalar(0.5f32)?;
///     optim::adagrad(&param, &grad, &sum, &rate, 1e-7)
/// })?;
/// let results = f.eval(&[1f32, 3.0, 7.0].map(Array::scalar))?;
/// assert!((results[0].to_f64()[0] - 0.625).abs() < 1e-6);
/// assert_eq!(results[1], Array::scalar(16f32));
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn adagrad(
    params: &Tree<Tensor>,
    grads: &Tree<Tensor>,
    sums: &Tree<Tensor>,
    learning_rate: &Tensor,
    eps: f64,
) -> Result<(Tree<Tensor>, Tree<Tensor>)> {
    if eps.is_nan() || eps <= 0.0 {
        return Err(Error::argument("adagrad", "eps", "positive", eps));
    }
    let trees = [("grads", grads), ("sums", sums)];
    let [new, sums] = each("adagrad", params, trees, learning_rate, |param, [grad, sum], rate| {
        let sum = (sum + (grad * grad))?;
        let change = (grad / (&sum + eps)?.sqrt()?)?;
        Ok([(param - (rate * change))?, sum])
    })?;
    Ok((new, sums))
}

/// What [`adam`] remembers before the first step: a map of `count`, an s32 of 0, and of `mean` and `square`, which are
/// [`zeros`].
///
/// # Errors
/// None of its own.
///
/// ```
/// use xlann::{Array, Tree, optim};
///
/// let params: Tree<Array> = [("b", 1f32), ("w", 2f32)].into();
/// let state = optim::adam_state(&params)?;
/// assert_eq!(*state.get("count")?.leaf()?, Array::scalar(0));
/// assert_eq!(*state.get("mean")?, [("b", 0f32), ("w", 0f32)].into());
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn adam_state(params: &Tree<Array>) -> Result<Tree<Array>> {
    let (mean, square) = (zeros(params)?, zeros(params)?);
    Ok([("count", Tree::from(0i32)), ("mean", mean), ("square", square)].into())
}

/// Arrays of 0, of the structure, shapes and dtypes of these.
///
/// # Errors
/// None of its own.
///
/// ```
/// use xlann::{Array, Tree, optim};
///
/// let params: Tree<Array> = [("b", 1f32), ("w", 2f32)].into();
/// assert_eq!(optim::zeros(&params)?, [("b", 0f32), ("w", 0f32)].into());
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn zeros(params: &Tree<Array>) -> Result<Tree<Array>> {
    filled(params, 0.0)
}

/// Arrays of one value, of the structure, shapes and dtypes of these.
///
/// # Errors
/// None of its own.
///
/// ```
/// use xlann::{Array, Tree, optim};
///
/// let params: Tree<Array> = [("b", 1f32), ("w", 2f32)].into();
/// assert_eq!(optim::filled(&params, 0.1)?, [("b", 0.1f32), ("w", 0.1f32)].into());
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn filled(params: &Tree<Array>, value: f64) -> Result<Tree<Array>> {
    params
        .try_map(|array| Array::from_f64(array.shape().clone(), &vec![value; array.shape().element_count()]))
}

/// The trees of what `step` makes of each parameter, of what the other trees have in its place, and of the rate in its
/// dtype.
fn each<const N: usize, const M: usize>(
    operator: &'static str,
    params: &Tree<Tensor>,
    trees: [(&str, &Tree<Tensor>); N],
    learning_rate: &Tensor,
    step: impl Fn(&Tensor, [&Tensor; N], &Tensor) -> Result<[Tensor; M]>,
) -> Result<[Tree<Tensor>; M]> {
    if learning_rate.rank() != 0 || !learning_rate.dtype().is_float() {
        let got = learning_rate.shape();
        return Err(Error::argument(operator, "learning_rate", "a floating scalar", got));
    }
    let shapes = params.map(|tensor| tensor.shape().clone());
    for (name, tree) in trees {
        if tree.map(|tensor| tensor.shape().clone()) != shapes {
            let text = |shapes: &Tree<Shape>| {
                let list: Vec<String> = shapes.leaves().iter().map(|shape| shape.to_string()).collect();
                format!("{} with leaves {}", shapes.kind(), list.join(", "))
            };
            let (expected, got) = (text(&shapes), text(&tree.map(|tensor| tensor.shape().clone())));
            return Err(Error::argument(operator, name, format!("as params, {expected}"), got));
        }
    }
    let leaves = trees.map(|(_, tree)| tree.leaves());
    let mut made = [const { Vec::new() }; M];
    for (index, param) in params.leaves().into_iter().enumerate() {
        if !param.dtype().is_float() {
            return Err(Error::argument(operator, "params", "of floating tensors", param.shape()));
        }
        let rate = learning_rate.convert(param.dtype())?;
        let new = step(param, leaves.each_ref().map(|leaves| leaves[index]), &rate)?;
        made.iter_mut().zip(new).for_each(|(made, new)| made.push(new));
    }
    let mut result = [const { Tree::None }; M];
    for (tree, leaves) in result.iter_mut().zip(&made) {
        *tree = params.with_leaves(leaves)?;
    }
    Ok(result)
}
