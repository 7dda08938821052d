//! Reverse derivatives: the forward one, transposed.

use crate::transform::{Part, Tape, check_wrt, jvp_body, parameters};
use crate::{Array, Builder, Error, Function, Result, Tensor};

/// Appends `function` to a builder, and gives its results and the cotangents of the parameters `wrt`. There is a
/// cotangent, or none for zero, for each floating result.
fn push_vjp(
    builder: &Builder,
    function: &Function,
    arguments: &[Tensor],
    wrt: &[usize],
    cotangents: Vec<Option<Tensor>>,
) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
    let active: Vec<bool> = (0..arguments.len()).map(|index| wrt.contains(&index)).collect();
    let count = function.results().len();
    let (derivative, has_tangent) = jvp_body(function, &active, &vec![false; count])?;
    let tangents = (0..arguments.len()).filter(|&index| active[index]);
    let tangents = tangents.map(|index| Part::Linear(arguments[index].shape().clone()));
    let parts = arguments.iter().cloned().map(Part::Known).chain(tangents).collect();
    let tape = Tape::forward(builder, &derivative, parts)?;
    let results: Vec<Tensor> = tape.results[..count].iter().filter_map(Part::known).cloned().collect();
    if results.len() != count {
        return Err(derivative.invalid("a value depends on a tangent".to_owned()));
    }
    // Results without a tangent have no part in the gradient.
    let floats = results.iter().zip(&has_tangent).filter(|(result, _)| result.dtype().is_float());
    let seeds = floats.zip(cotangents).filter(|((_, has_tangent), _)| **has_tangent);
    let seeds: Vec<_> = std::iter::repeat_n(None, count).chain(seeds.map(|(_, seed)| seed)).collect();
    let gradients = tape.backward(&seeds)?;
    let mut by_parameter = vec![None; arguments.len()];
    let positions = (0..arguments.len()).filter(|&index| active[index]);
    for (index, gradient) in positions.zip(&gradients[arguments.len()..]) {
        by_parameter[index] = gradient.clone();
    }
    let gradients = wrt.iter().map(|&index| match &by_parameter[index] {
        Some(gradient) => Ok(gradient.clone()),
        None => arguments[index].full_like(0),
    });
    Ok((results, gradients.collect::<Result<_>>()?))
}

/// The function with its reverse derivative (a vector times the Jacobian).
///
/// It takes the function's parameters, then a cotangent for each floating result; it gives the function's
/// results, then the cotangent of each parameter of `wrt`, which are positions of floating parameters.
///
/// # Errors
/// Where `wrt` names a position twice, or one that is not that of a floating parameter, or an operator on the
/// way has no derivative ([`Error::NoRule`]).
///
/// ```
/// use xlann::{Array, DType, Function, Shape, vjp};
///
/// let shapes = [Shape::new(DType::F32, [2]), Shape::new(DType::F32, [2])];
/// let f = Function::trace("mul", &shapes, |x| &x[0] * &x[1])?;
/// let both = vjp(&f, &[0, 1])?;
/// let (x, y) = (Array::new([2], &[2f32, 3.0])?, Array::new([2], &[5f32, 7.0])?);
/// let cotangent = Array::new([2], &[1f32, 10.0])?;
/// let results = both.eval(&[x, y, cotangent])?;
/// assert_eq!(results[0], Array::new([2], &[10f32, 21.0])?);
/// assert_eq!(results[1..], [Array::new([2], &[5f32, 70.0])?, Array::new([2], &[2f32, 30.0])?]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn vjp(function: &Function, wrt: &[usize]) -> Result<Function> {
    check_wrt("vjp", function, wrt)?;
    let builder = Builder::new(&format!("vjp_{}", function.name()));
    let arguments = parameters(&builder, function)?;
    let floats = function.result_shapes().into_iter().filter(|shape| shape.dtype().is_float());
    let cotangents =
        floats.map(|shape| builder.parameter("cotangent", shape).map(Some)).collect::<Result<_>>()?;
    let (results, gradients) = push_vjp(&builder, function, &arguments, wrt, cotangents)?;
    Ok(builder.finish([results, gradients].concat())?.pruned())
}

/// The gradient of a function of one scalar: it takes the same parameters and gives, for each of `wrt`, which are
/// positions of floating parameters, what the first result changes by.
///
/// Further results, as diagnostics beside a loss, have no part in it.
///
/// # Errors
/// Those of [`vjp`], and where the first result is not a floating scalar.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, grad};
///
/// let f = Function::trace("sum_of_squares", &[Shape::new(DType::F32, [3])], |x| {
///     (&x[0] * &x[0])?.reduce_sum(&[0])
/// })?;
/// let gradient = grad(&f, &[0])?;
/// let results = gradient.eval(&[Array::new([3], &[1f32, 2.0, 3.0])?])?;
/// assert_eq!(results, [Array::new([3], &[2f32, 4.0, 6.0])?]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn grad(function: &Function, wrt: &[usize]) -> Result<Function> {
    let builder = Builder::new(&format!("grad_{}", function.name()));
    let (_, gradients) = push_grad("grad", &builder, function, wrt)?;
    Ok(builder.finish(gradients)?.pruned())
}

/// The function with its gradient: the results are those of the function, then those of [`grad`].
///
/// # Errors
/// Those of [`grad`].
///
/// ```
/// use xlann::{Array, DType, Function, Shape, value_and_grad};
///
/// let f = Function::trace("square", &[Shape::scalar(DType::F32)], |x| &x[0] * &x[0])?;
/// let results = value_and_grad(&f, &[0])?.eval(&[Array::scalar(3f32)])?;
/// assert_eq!(results, [Array::scalar(9f32), Array::scalar(6f32)]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn value_and_grad(function: &Function, wrt: &[usize]) -> Result<Function> {
    let builder = Builder::new(&format!("value_and_grad_{}", function.name()));
    let (results, gradients) = push_grad("value_and_grad", &builder, function, wrt)?;
    Ok(builder.finish([results, gradients].concat())?.pruned())
}

fn push_grad(
    transform: &'static str,
    builder: &Builder,
    function: &Function,
    wrt: &[usize],
) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
    check_wrt(transform, function, wrt)?;
    let shapes = function.result_shapes();
    match shapes.first() {
        Some(shape) if shape.rank() == 0 && shape.dtype().is_float() => {}
        first => {
            let got = first.map_or("none".to_owned(), |shape| shape.to_string());
            return Err(Error::argument(transform, "result 0", "a floating scalar", got));
        }
    }
    let arguments = parameters(builder, function)?;
    let one = builder.constant(Array::from_f64(shapes[0].clone(), &[1.0])?)?;
    let floats = shapes.iter().filter(|shape| shape.dtype().is_float()).count();
    let mut cotangents = vec![None; floats];
    cotangents[0] = Some(one);
    push_vjp(builder, function, &arguments, wrt, cotangents)
}
