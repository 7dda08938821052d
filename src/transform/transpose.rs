//! Transposition of linear functions.
//!
//! The derivative of a function is linear in its tangents. Reverse-mode differentiation evaluates all that does
//! not depend on them, then walks the equations that do backwards: each turns cotangents of its outputs into
//! cotangents of its linear inputs.

use crate::graph::placed;
use crate::transform::{add_some, zeros};
use crate::{Builder, Function, Result, Shape, Tensor};

/// A value of a function that is linear in some of its parameters.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// It does not depend on them.
    Known(Tensor),
    /// It is linear in them, and of this shape.
    Linear(Shape),
}

impl Part {
    /// Values of these shapes, which are linear or the next of those that are known.
    pub(crate) fn list(shapes: &[Shape], linear: &[bool], known: Vec<Tensor>) -> Vec<Part> {
        let is_known: Vec<bool> = linear.iter().map(|linear| !linear).collect();
        let known = shapes.iter().zip(placed(known, &is_known));
        known.map(|(shape, known)| known.map_or_else(|| Part::Linear(shape.clone()), Part::Known)).collect()
    }

    pub(crate) fn is_linear(&self) -> bool {
        matches!(self, Part::Linear(_))
    }

    pub(crate) fn known(&self) -> Option<&Tensor> {
        match self {
            Part::Known(tensor) => Some(tensor),
            Part::Linear(_) => None,
        }
    }

    pub(crate) fn shape(&self) -> &Shape {
        match self {
            Part::Known(tensor) => tensor.shape(),
            Part::Linear(shape) => shape,
        }
    }
}

/// What the transpose rule of an operator works with.
pub(crate) struct Transposition<'a> {
    pub(crate) builder: &'a Builder,
    /// The shapes of its outputs.
    pub(crate) outputs: Vec<Shape>,
}

/// What an operator of which some inputs are linear gives before its cotangents are known.
pub(crate) struct Partial {
    /// Its outputs.
    pub(crate) outputs: Vec<Part>,
    /// What its transpose rule asks for again.
    pub(crate) residuals: Vec<Tensor>,
}

/// A function whose known part has been evaluated, to be walked backwards.
pub(crate) struct Tape<'a> {
    builder: &'a Builder,
    function: &'a Function,
    /// For each equation with a linear input, its number, inputs and residuals.
    records: Vec<(usize, Vec<Part>, Vec<Tensor>)>,
    /// The function's results.
    pub(crate) results: Vec<Part>,
}

impl<'a> Tape<'a> {
    /// Appends those equations of `function` that do not depend on linear arguments.
    pub(crate) fn forward(
        builder: &'a Builder,
        function: &'a Function,
        arguments: Vec<Part>,
    ) -> Result<Self> {
        let mut records = Vec::new();
        let mut number = 0;
        let results = function.interpret(arguments, |equation, inputs| {
            let current = number;
            number += 1;
            let known: Vec<&Tensor> = inputs.iter().filter_map(Part::known).collect();
            // What only a transpose is known of can have tangents that are zero, and known, for all its inputs.
            if known.len() == inputs.len() && !equation.op.rules().reverse_only() {
                let outputs = builder.push(equation.op.clone(), &known)?;
                return Ok(outputs.into_iter().map(Part::Known).collect());
            }
            let outputs = equation.outputs().iter().map(|&var| function.shape(var).clone()).collect();
            let rule = Transposition { builder, outputs };
            let partial = equation.op.rules().partial(&rule, inputs)?;
            records.push((current, inputs.to_vec(), partial.residuals));
            Ok(partial.outputs)
        })?;
        Ok(Tape { builder, function, records, results })
    }

    /// Appends the transpose of the linear equations: from cotangents of the results, those of the parameters.
    /// None stands for zero; known parameters have none.
    pub(crate) fn backward(&self, cotangents: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let function = self.function;
        let mut sums: Vec<Option<Tensor>> = vec![None; function.shapes.len()];
        for ((&var, result), cotangent) in function.results().iter().zip(&self.results).zip(cotangents) {
            if result.is_linear() {
                let sum = &mut sums[var.index()];
                *sum = add_some(sum.take(), cotangent.clone())?;
            }
        }
        for (number, inputs, residuals) in self.records.iter().rev() {
            let equation = &function.equations()[*number];
            let cotangents: Vec<_> = equation.outputs().iter().map(|var| sums[var.index()].take()).collect();
            if cotangents.iter().all(Option::is_none) {
                continue;
            }
            let outputs = equation.outputs().iter().map(|&var| function.shape(var).clone()).collect();
            let rule = Transposition { builder: self.builder, outputs };
            let terms = equation.op.rules().transpose(&rule, inputs, residuals, &cotangents)?;
            for ((var, input), term) in equation.inputs().iter().zip(inputs).zip(terms) {
                if input.is_linear() {
                    let sum = &mut sums[var.index()];
                    *sum = add_some(sum.take(), term)?;
                }
            }
        }
        Ok(function.parameters.iter().map(|parameter| sums[parameter.var.index()].take()).collect())
    }
}

/// The arguments of a walk over `function` in a new builder: parameters for what is known.
fn parts(builder: &Builder, function: &Function, linear: &[bool]) -> Result<Vec<Part>> {
    let part = |((name, shape), &linear): ((&str, &Shape), &bool)| match linear {
        true => Ok(Part::Linear(shape.clone())),
        false => builder.parameter(name, shape.clone()).map(Part::Known),
    };
    function.parameters().zip(linear).map(part).collect()
}

/// The part of a sub-function that does not depend on its linear parameters, and which results then are linear:
/// those that must be taken as such, and those that depend on them. It takes the other parameters and gives the
/// other results.
pub(crate) fn known_part(
    function: &Function,
    linear: &[bool],
    required: &[bool],
) -> Result<(Function, Vec<bool>)> {
    let builder = Builder::new(function.name());
    let tape = Tape::forward(&builder, function, parts(&builder, function, linear)?)?;
    let linear = tape.results.iter().zip(required).map(|(result, &required)| required || result.is_linear());
    let linear: Vec<bool> = linear.collect();
    let known = tape.results.iter().zip(&linear).filter(|(_, linear)| !**linear);
    let known: Vec<Tensor> = known.filter_map(|(result, _)| result.known().cloned()).collect();
    Ok((builder.finish(known)?.pruned(), linear))
}

/// The transpose of a sub-function, and which parameters then have a cotangent: those that must, and those that
/// get one. It takes the parameters that are not linear, then cotangents of the results that are `seeded`, and
/// computes again what it needs.
pub(crate) fn transposed(
    function: &Function,
    linear: &[bool],
    seeded: &[bool],
    required: &[bool],
) -> Result<(Function, Vec<bool>)> {
    let builder = Builder::new(&format!("transposed_{}", function.name()));
    let tape = Tape::forward(&builder, function, parts(&builder, function, linear)?)?;
    let seed = |(shape, &seeded): (Shape, &bool)| match seeded {
        true => builder.parameter("cotangent", shape).map(Some),
        false => Ok(None),
    };
    let seeds = function.result_shapes().into_iter().zip(seeded).map(seed).collect::<Result<Vec<_>>>()?;
    let cotangents = tape.backward(&seeds)?;
    let given = cotangents.iter().zip(required).map(|(cotangent, &required)| required || cotangent.is_some());
    let given: Vec<bool> = given.collect();
    let cotangents =
        function.parameter_shapes().into_iter().zip(cotangents).zip(&given).filter(|(_, given)| **given);
    let cotangents = cotangents.map(|((shape, cotangent), _)| match cotangent {
        Some(cotangent) => Ok(cotangent),
        None => zeros(&builder, &shape),
    });
    let cotangents = cotangents.collect::<Result<Vec<_>>>()?;
    Ok((builder.finish(cotangents)?.without_effects(), given))
}
