//! Functions with derivative rules of their own.

use std::sync::Arc;

use crate::graph::{Builder, Function, Tensor, chosen, placed};
use crate::hlo;
use crate::ops::{Op, Operator, either, signature};
use crate::transform::{
    Batched, Dual, Jvp, Part, Transposition, Vmap, flatten, join, no_rule, parameters, settle, vmap_body,
    zeros,
};
use crate::{Array, Error, Result, Shape};

/// A function, and its derivative in a direction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CustomJvp {
    pub(crate) function: Arc<Function>,
    /// From the parameters and tangents of the floating ones to the results and tangents of the floating ones.
    pub(crate) rule: Arc<Function>,
}

/// A function, and how cotangents go back through it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CustomVjp {
    pub(crate) function: Arc<Function>,
    /// From the parameters to the results and the residuals.
    pub(crate) forward: Arc<Function>,
    /// From the residuals and cotangents of the floating results to cotangents of the floating parameters.
    pub(crate) backward: Arc<Function>,
}

/// What the tangents of a [`CustomVjp`]'s results are: linear in those of its parameters, and known by its transpose
/// only. Its inputs are the residuals and those tangents.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Transposed {
    pub(crate) outputs: Vec<Shape>,
    pub(crate) backward: Arc<Function>,
}

/// The function with a derivative that is computed by `rule`, forwards and, transposed, in reverse.
///
/// `rule` takes what [`jvp`](crate::jvp()) of the function by all its floating parameters takes, and gives what that
/// gives: from the parameters and a tangent for each floating one to the results and a tangent for each floating one.
/// Its tangents must be linear in those that it takes. Where the derivative is asked for, the results are those of the
/// rule; their further derivatives go by the rule again, and those of its tangents through the operators that it is
/// made of. Lowered, nothing is left but the function.
///
/// # Errors
/// Where the rule does not take or give that.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, custom_jvp, grad};
///
/// let x = Shape::scalar(DType::F32);
/// // Of a large x, exp(x) is infinite, and the derivative by its operators NaN.
/// let log1pexp = Function::trace("log1pexp", &[x.clone()], |x| x[0].exp()?.log1p())?;
/// let rule = Function::trace("rule", &[x.clone(), x.clone()], |x| {
///     let value = x[0].maximum(0)? + (-x[0].abs()?)?.exp()?.log1p();
///     Ok((value?, (&x[1] * x[0].logistic())?))
/// })?;
/// let f = custom_jvp(&log1pexp, &rule)?;
/// assert!(grad(&log1pexp, &[0])?.eval(&[Array::scalar(100f32)])?[0].to_f64()[0].is_nan());
/// assert_eq!(grad(&f, &[0])?.eval(&[Array::scalar(100f32)])?, [Array::scalar(1f32)]);
///
/// let refused = custom_jvp(&log1pexp, &log1pexp).unwrap_err();
/// assert_eq!(
///     refused.to_string(),
///     "custom_jvp: rule must be a function (f32[], f32[]) -> (f32[], f32[]), got (f32[]) -> (f32[])"
/// );
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn custom_jvp(function: &Function, rule: &Function) -> Result<Function> {
    let op = CustomJvp { function: Arc::new(function.clone()), rule: Arc::new(rule.clone()) };
    wrapped(function, op)
}

/// The function with a reverse derivative that is computed by `forward` and `backward`.
///
/// `forward` takes the parameters, and gives the results and whatever else `backward` is to have: the residuals.
/// `backward` takes these and a cotangent for each floating result, and gives a cotangent for each floating parameter.
/// It need not be linear, nor the transpose of anything: it can clip what comes back. Where the derivative is asked
/// for, the results are those of `forward`; their further derivatives go by the same two functions, and those of the
/// cotangents through the operators that these are made of. Lowered, nothing is left but the function.
///
/// There is no forward derivative: [`jvp`](crate::jvp()) does not go through it.
///
/// # Errors
/// Where one of the functions does not take or give that.
///
/// ```
/// use xlann::{Array, DType, Function, Shape, custom_vjp, grad};
///
/// // The identity, past which no cotangent is larger than 1.
/// let x = Shape::scalar(DType::F32);
/// let identity = Function::trace("identity", &[x.clone()], |x| Ok(x[0].clone()))?;
/// let clip = Function::trace("clip", &[x.clone()], |cotangent| cotangent[0].clamp(-1, 1))?;
/// let clipped = custom_vjp(&identity, &identity, &clip)?;
/// let f = Function::trace("f", &[x], |x| &x[0].builder().call(&clipped, &[&x[0]])?[0] * 5)?;
/// assert_eq!(f.eval(&[Array::scalar(3f32)])?, [Array::scalar(15f32)]);
/// assert_eq!(grad(&f, &[0])?.eval(&[Array::scalar(3f32)])?, [Array::scalar(1f32)]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn custom_vjp(function: &Function, forward: &Function, backward: &Function) -> Result<Function> {
    let [function, forward, backward] = [function, forward, backward].map(|part| Arc::new(part.clone()));
    wrapped(&function.clone(), CustomVjp { function, forward, backward })
}

/// The function of an operator that takes and gives what `function` does.
fn wrapped(function: &Function, op: impl Into<Op>) -> Result<Function> {
    let builder = Builder::new(function.name());
    let arguments = parameters(&builder, function)?;
    builder.finish(builder.push(op, &arguments.iter().collect::<Vec<_>>())?)
}

fn floating(shapes: &[Shape]) -> Vec<bool> {
    shapes.iter().map(|shape| shape.dtype().is_float()).collect()
}

fn floats(shapes: &[Shape]) -> Vec<Shape> {
    chosen(shapes, &floating(shapes))
}

/// Appends `function`, the first results of which are the values of `own`: what is differentiated further, they and
/// what is computed of them, takes the derivatives of these.
fn push_as(
    builder: &Builder,
    function: &Function,
    arguments: Vec<Tensor>,
    own: &[Tensor],
) -> Result<Vec<Tensor>> {
    let values = &function.results()[..own.len()];
    let link = |value: Tensor, own: &Tensor| match own.dtype().is_float() {
        true => value.with_derivative_of(own),
        false => Ok(value),
    };
    let mut linked = vec![false; own.len()];
    let mut results = function.interpret(arguments, |equation, inputs| {
        let outputs = builder.push(equation.op.clone(), &inputs.iter().collect::<Vec<_>>())?;
        let outputs = equation.outputs().iter().zip(outputs).map(|(var, output)| {
            let Some(index) = values.iter().position(|value| value == var) else { return Ok(output) };
            linked[index] = true;
            link(output, &own[index])
        });
        outputs.collect()
    })?;
    // Those that are parameters, or another result again.
    for ((result, own), linked) in results.iter_mut().zip(own).zip(linked) {
        if !linked {
            *result = link(result.clone(), own)?;
        }
    }
    Ok(results)
}

/// Appends the operator that `batch` makes of which inputs have a batch dimension and which results must have one, and
/// that tells which have.
fn push_batch<T: Into<Op>>(
    rule: &Vmap,
    inputs: &[Batched],
    results: usize,
    batch: impl Fn(&[bool], &[bool]) -> Result<(T, Vec<bool>)>,
) -> Result<Vec<Batched>> {
    let batched: Vec<bool> = inputs.iter().map(|input| input.axis.is_some()).collect();
    let (op, results) = settle(vec![false; results], |required| batch(&batched, required))?;
    let inputs = rule.leading_where(inputs, &batched)?;
    Ok(Batched::list(rule.builder.push(op, &inputs.iter().collect::<Vec<_>>())?, &results))
}

impl Operator for CustomJvp {
    fn name(&self) -> &'static str {
        "custom_jvp"
    }

    fn functions(&self) -> Vec<(&'static str, &Arc<Function>)> {
        vec![("function", &self.function), ("rule", &self.rule)]
    }

    fn functions_mut(&mut self) -> Vec<&mut Arc<Function>> {
        vec![&mut self.function]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let inputs: Vec<Shape> = inputs.iter().map(|&shape| shape.clone()).collect();
        let results = self.function.result_shapes();
        signature(self.name(), "function", &self.function, &inputs, &results)?;
        let takes = [inputs.as_slice(), &floats(&inputs)].concat();
        let gives = [results.as_slice(), &floats(&results)].concat();
        signature(self.name(), "rule", &self.rule, &takes, &gives)?;
        Ok(results)
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        self.function.eval(inputs)
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        self.function.interpret(inputs.to_vec(), |equation, inputs| equation.op.rules().hlo(module, inputs))
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let (takes, gives) = (floating(&self.function.parameter_shapes()), self.function.result_shapes());
        let gives = floating(&gives);
        push_batch(rule, inputs, gives.len(), |batched, required| {
            let (function, given) = vmap_body(&self.function, rule.size, batched, required)?;
            let batched = [batched, &chosen(batched, &takes)].concat();
            let required = [required, &chosen(required, &gives)].concat();
            let (rule, by_rule) = vmap_body(&self.rule, rule.size, &batched, &required)?;
            // A value and its tangent are of one shape.
            let (values, tangents) = by_rule.split_at(gives.len());
            let tangents: Vec<bool> =
                placed(tangents.to_vec(), &gives).into_iter().map(|tangent| tangent == Some(true)).collect();
            let given = either(&given, &either(values, &tangents));
            Ok((CustomJvp { function: Arc::new(function), rule: Arc::new(rule) }, given))
        })
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        let own = rule.primal(inputs)?;
        let arguments = flatten(inputs, &floating(&self.function.parameter_shapes()))?;
        let results = push_as(rule.builder, &self.rule, arguments, &own)?;
        Ok(join(&results, &floating(&self.function.result_shapes())))
    }
}

impl CustomVjp {
    /// `backward` for a batch, with cotangents summed up of parameters that all of the batch share.
    fn batched_backward(&self, size: usize, batched: &[bool], wanted: &[bool]) -> Result<Function> {
        let (body, given) = vmap_body(&self.backward, size, batched, wanted)?;
        let builder = Builder::new(body.name());
        let arguments = parameters(&builder, &body)?;
        let cotangents = builder.call(&body, &arguments.iter().collect::<Vec<_>>())?;
        let cotangents = cotangents.iter().zip(&given).zip(wanted);
        let cotangents = cotangents.map(|((cotangent, &given), &wanted)| match given && !wanted {
            true => cotangent.reduce_sum(&[0]),
            false => Ok(cotangent.clone()),
        });
        builder.finish(cotangents.collect::<Result<Vec<_>>>()?)
    }
}

impl Operator for CustomVjp {
    fn name(&self) -> &'static str {
        "custom_vjp"
    }

    fn functions(&self) -> Vec<(&'static str, &Arc<Function>)> {
        vec![("function", &self.function), ("forward", &self.forward), ("backward", &self.backward)]
    }

    fn functions_mut(&mut self) -> Vec<&mut Arc<Function>> {
        vec![&mut self.function]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let inputs: Vec<Shape> = inputs.iter().map(|&shape| shape.clone()).collect();
        let results = self.function.result_shapes();
        signature(self.name(), "function", &self.function, &inputs, &results)?;
        let residuals =
            self.forward.result_shapes().split_off(results.len().min(self.forward.results().len()));
        let gives = [results.as_slice(), &residuals].concat();
        signature(self.name(), "forward", &self.forward, &inputs, &gives)?;
        let takes = [residuals, floats(&results)].concat();
        signature(self.name(), "backward", &self.backward, &takes, &floats(&inputs))?;
        Ok(results)
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        self.function.eval(inputs)
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        self.function.interpret(inputs.to_vec(), |equation, inputs| equation.op.rules().hlo(module, inputs))
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let takes = floating(&self.function.parameter_shapes());
        let gives = floating(&self.function.result_shapes());
        let residuals = self.forward.results().len() - gives.len();
        push_batch(rule, inputs, gives.len(), |batched, required| {
            let (function, given) = vmap_body(&self.function, rule.size, batched, required)?;
            let of_forward = [required, &vec![false; residuals]].concat();
            let (forward, of_forward) = vmap_body(&self.forward, rule.size, batched, &of_forward)?;
            let (values, residuals) = of_forward.split_at(gives.len());
            let given = either(&given, values);
            let of_backward = [residuals, &chosen(&given, &gives)].concat();
            let backward = self.batched_backward(rule.size, &of_backward, &chosen(batched, &takes))?;
            let [function, forward, backward] = [function, forward, backward].map(Arc::new);
            Ok((CustomVjp { function, forward, backward }, given))
        })
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        let own = rule.primal(inputs)?;
        let mut primals = flatten(inputs, &floating(&self.function.parameter_shapes()))?;
        let tangents = primals.split_off(inputs.len());
        let mut results = push_as(rule.builder, &self.forward, primals, &own)?;
        let inputs = [results.split_off(own.len()), tangents].concat();
        let shapes = self.function.result_shapes();
        let op = Transposed { outputs: floats(&shapes), backward: self.backward.clone() };
        results.extend(rule.builder.push(op, &inputs.iter().collect::<Vec<_>>())?);
        Ok(join(&results, &floating(&shapes)))
    }
}

impl Operator for Transposed {
    fn name(&self) -> &'static str {
        "custom_vjp"
    }

    fn functions(&self) -> Vec<(&'static str, &Arc<Function>)> {
        vec![("backward", &self.backward)]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let inputs: Vec<Shape> = inputs.iter().map(|&shape| shape.clone()).collect();
        let Some(residuals) = inputs.len().checked_sub(self.backward.results().len()) else {
            let expected = format!("{} at least", self.backward.results().len());
            return Err(Error::argument(self.name(), "operands", expected, inputs.len()));
        };
        let (residuals, tangents) = inputs.split_at(residuals);
        signature(self.name(), "backward", &self.backward, &[residuals, &self.outputs].concat(), tangents)?;
        Ok(self.outputs.clone())
    }

    fn eval(&self, _: &[Array]) -> Result<Vec<Array>> {
        no_forward()
    }

    fn hlo(&self, _: &mut hlo::Builder, _: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        no_forward()
    }

    fn reverse_only(&self) -> bool {
        true
    }

    fn transpose(
        &self,
        rule: &Transposition,
        inputs: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let residuals = &inputs[..inputs.len() - self.backward.results().len()];
        let known: Vec<&Tensor> = residuals.iter().filter_map(Part::known).collect();
        if known.len() != residuals.len() {
            return no_rule("custom_vjp", "vjp", "a residual depends on a tangent");
        }
        let cotangents = cotangents.iter().zip(&self.outputs).map(|(cotangent, shape)| match cotangent {
            Some(cotangent) => Ok(cotangent.clone()),
            None => zeros(rule.builder, shape),
        });
        let cotangents = cotangents.collect::<Result<Vec<_>>>()?;
        let arguments: Vec<&Tensor> = known.into_iter().chain(&cotangents).collect();
        let given = rule.builder.call(&self.backward, &arguments)?;
        Ok(residuals.iter().map(|_| None).chain(given.into_iter().map(Some)).collect())
    }
}

/// The error of a function with a reverse derivative only that is differentiated forwards.
pub(crate) fn no_forward<T>() -> Result<T> {
    no_rule("custom_vjp", "jvp", "it has a reverse derivative only; custom_jvp gives both")
}
