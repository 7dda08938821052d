//! The table of rules, rules.md, made from what the transforms do.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{jvp, jvp_body, vjp, vmap};
use crate::ops::binary::Binary;
use crate::ops::custom_derivative::{CustomJvp, CustomVjp, Transposed};
use crate::ops::reduce::{Kind, Reduce};
use crate::ops::unary::Unary;
use crate::ops::{Op, approx_top_k};
use crate::{
    ApproxTopKOptions, CustomCall, DType, Error, Function, Result, Results, ScatterKind, Shape, Tangent,
    Tensor, VmapMethod,
};

/// The variable that writes the table's file anew.
const UPDATE: &str = "XLANN_UPDATE_RULES";

fn matrix() -> Shape {
    Shape::new(DType::F64, [2, 3])
}

fn index() -> Shape {
    Shape::scalar(DType::S32)
}

fn scalar() -> Shape {
    Shape::scalar(DType::F64)
}

/// A function whose last equation is the operator that it is an example of.
fn example<R: Results>(shapes: &[Shape], body: impl FnOnce(&[Tensor]) -> Result<R>) -> Result<Function> {
    // With a further parameter, there is always one to batch and to differentiate by.
    Function::trace("example", &[shapes, &[scalar()]].concat(), body)
}

/// An example on matrices of floats, or of what the operator takes instead.
fn uniform(op: impl Into<Op>, arity: usize) -> Result<Function> {
    let op = op.into();
    let takes = |shape: &Shape| op.rules().infer(&vec![shape; arity]).is_ok();
    let choices = [DType::F64, DType::S32, DType::Pred].map(|dtype| matrix().with_dtype(dtype));
    let shape = choices.into_iter().find(takes).expect("an operator takes one of the dtypes");
    example(&vec![shape; arity], |x| x[0].builder().push(op, &x[..arity].iter().collect::<Vec<_>>()))
}

/// An example on a scalar.
fn of_scalar(op: impl Into<Op>) -> Result<Function> {
    example(&[scalar()], |x| x[0].builder().push(op, &[&x[0]]))
}

fn combine(shape: Shape, body: impl FnOnce(&[Tensor]) -> Result<Tensor>) -> Result<Function> {
    Function::trace("combine", &[shape.clone(), shape], body)
}

/// Examples of every operator, several where a rule depends on its parameters.
pub(crate) fn examples() -> Result<Vec<Function>> {
    let mut all = Vec::new();
    for &op in Unary::ALL {
        all.push(uniform(op, 1)?);
    }
    for &op in Binary::ALL {
        all.push(uniform(op, 2)?);
    }
    for &kind in Kind::ALL {
        all.push(uniform(Reduce { kind, dimensions: vec![0] }, 1)?);
    }
    for &kind in ScatterKind::ALL {
        let shapes = [matrix(), Shape::new(DType::S32, [2, 2]), Shape::new(DType::F64, [2, 2])];
        all.push(example(&shapes, |x| x[0].scatter_along_axis(&x[1], &x[2], 1, kind))?);
    }
    for &direction in approx_top_k::Direction::ALL {
        for tangent in [Tangent::Gather, Tangent::Carried] {
            let options = ApproxTopKOptions { tangent, ..ApproxTopKOptions::default() };
            all.push(example(&[matrix()], |x| match direction {
                approx_top_k::Direction::Max => x[0].approx_max_k(2, &options),
                approx_top_k::Direction::Min => x[0].approx_min_k(2, &options),
            })?);
        }
    }
    all.extend(array_examples()?);
    all.extend(function_examples()?);
    Ok(all)
}

/// Examples of operators without sub-functions.
fn array_examples() -> Result<Vec<Function>> {
    let windows = [matrix(), Shape::new(DType::F64, [1, 2]), index(), index()];
    let pred = matrix().with_dtype(DType::Pred);
    Ok(vec![
        example(&[], |x| x[0].builder().scalar(1.5))?,
        example(&[], |x| x[0].builder().iota(matrix(), 0))?,
        example(&[matrix()], |x| x[0].broadcast_in_dim(&[4, 2, 3], &[1, 2]))?,
        example(&[matrix(), matrix()], |x| x[0].less(&x[1]))?,
        example(&[matrix(), matrix()], |x| Tensor::concatenate(&[&x[0], &x[1]], 0))?,
        example(&[matrix()], |x| x[0].convert(DType::F32))?,
        example(&[matrix()], |x| x[0].bitcast_convert(DType::S64))?,
        example(&[matrix()], |x| x[0].bitcast_convert(DType::F32))?,
        example(&windows, |x| x[0].dynamic_slice(&[&x[2], &x[3]], &[1, 2]))?,
        example(&windows, |x| x[0].dynamic_update_slice(&x[1], &[&x[2], &x[3]]))?,
        example(&[matrix(), scalar()], |x| x[0].pad(&x[1], &[1, 0], &[0, 1], &[0, 1]))?,
        example(&[matrix()], |x| x[0].reshape(&[6]))?,
        example(&[pred, matrix(), matrix()], |x| x[0].select(&x[1], &x[2]))?,
        example(&[scalar(), matrix(), scalar()], |x| x[1].clamp(&x[0], &x[2]))?,
        example(&[matrix(), matrix()], |x| x[0].with_derivative_of(&x[1]))?,
        example(&[matrix()], |x| x[0].slice_in_dim(0, 2, 1, 1))?,
        example(&[matrix()], |x| x[0].transpose(&[1, 0]))?,
        example(&[matrix()], |x| x[0].reverse(&[1]))?,
        example(&[matrix(), matrix()], |x| x[0].dot_general(&x[1], (&[1], &[1]), (&[0], &[0])))?,
        example(&[matrix()], |x| x[0].top_k(2))?,
        example(&[matrix(), Shape::new(DType::S32, [4])], |x| x[0].take(&x[1], 0))?,
        example(&[matrix()], |x| x[0].all_gather(1, 4))?,
        example(&[], |x| x[0].builder().replica_id(4))?,
    ])
}

/// Examples of operators with sub-functions.
fn function_examples() -> Result<Vec<Function>> {
    let add = combine(scalar(), |x| &x[0] + &x[1])?;
    let less = combine(scalar(), |x| x[0].less(&x[1]))?;
    let below = Function::trace("below", &[scalar()], |x| x[0].less(10))?;
    let double = Function::trace("double", &[scalar()], |x| &x[0] * 2)?;
    let call =
        |call: CustomCall| example(&[scalar()], |x| x[0].builder().custom_call(call.clone(), &[&x[0]]));
    let plain = CustomCall::new("kernel", [scalar()]);
    let stated = plain.clone().vmap_method(VmapMethod::Sequential).reference(double.clone());
    let (function, backward) = (Arc::new(double.clone()), Arc::new(double.clone()));
    let by_jvp = CustomJvp { function: function.clone(), rule: Arc::new(jvp(&double, &[0])?) };
    let by_vjp = CustomVjp { function: function.clone(), forward: function, backward: backward.clone() };
    let transposed = Transposed { outputs: vec![scalar()], backward };
    Ok(vec![
        of_scalar(by_jvp)?,
        of_scalar(by_vjp)?,
        of_scalar(transposed)?,
        example(&[matrix(), scalar()], |x| x[0].builder().reduce(&[&x[0]], &[&x[1]], &[1], add.clone()))?,
        example(&[matrix()], |x| x[0].reduce_window(0, &[1, 2], &[1, 1], &[(0, 0), (0, 0)], add.clone()))?,
        example(&[matrix()], |x| x[0].builder().sort_by(&[&x[0]], 1, true, less))?,
        example(&[scalar()], |x| x[0].builder().fori_loop(3, &[&x[0]], |_, x| &x[0] * 2))?,
        example(&[scalar()], |x| x[0].builder().while_loop(&[&x[0]], below, double.clone()))?,
        example(&[index(), scalar()], |x| x[0].switch(&[&x[1]], vec![double.clone(), double.clone()]))?,
        call(stated)?,
        call(plain)?,
    ])
}

fn last(function: &Function) -> &Op {
    &function.equations().last().expect("an example has an equation").op
}

/// What vmap, jvp and vjp make of a function.
fn outcomes(function: &Function) -> [String; 3] {
    let shapes = function.parameter_shapes();
    let active: Vec<bool> = shapes.iter().map(|shape| shape.dtype().is_float()).collect();
    let wrt: Vec<usize> = (0..shapes.len()).filter(|&index| active[index]).collect();
    let checked = |result: Result<Function>| match result {
        Ok(function) => {
            function.check().unwrap_or_else(|problem| panic!("{problem}\n{function}"));
            "yes".to_owned()
        }
        Err(Error::NoRule { reason, .. }) => reason,
        Err(problem) => panic!("{problem}\n{function}"),
    };
    let forward = jvp_body(function, &active, &vec![false; function.results().len()]);
    let zero = matches!(&forward, Ok((_, has_tangent)) if !has_tangent.contains(&true));
    let derivative = |result| if zero { "zero".to_owned() } else { checked(result) };
    [checked(vmap(function, 0, 0, 2)), derivative(jvp(function, &wrt)), derivative(vjp(function, &wrt))]
}

fn table() -> String {
    let mut rows: BTreeMap<&str, [Vec<String>; 3]> = BTreeMap::new();
    // What only a transpose is known of stands in no function that a transform gives.
    let finished = |function: &Function| !last(function).rules().reverse_only();
    for function in examples().unwrap().into_iter().filter(finished) {
        let row = rows.entry(last(&function).rules().name()).or_default();
        for (cell, outcome) in row.iter_mut().zip(outcomes(&function)) {
            if !cell.contains(&outcome) {
                cell.push(outcome);
            }
        }
    }
    let mut text = "| operator | vmap | jvp | vjp |\n|---|---|---|---|\n".to_owned();
    for (name, row) in rows {
        text += &format!("| `{name}` | {} |\n", row.map(|cell| cell.join("<br>")).join(" | "));
    }
    text
}

#[test]
fn the_table_of_rules_is_what_the_transforms_do() {
    let table = table();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/transform/rules.md"), &table).unwrap();
        return;
    }
    let file: Vec<&str> = include_str!("rules.md").lines().collect();
    let wrong: Vec<&str> = table.lines().filter(|row| !file.contains(row)).collect();
    let superfluous: Vec<&&str> =
        file.iter().filter(|row| !table.lines().any(|line| line == **row)).collect();
    assert!(
        file == table.lines().collect::<Vec<_>>(),
        "src/transform/rules.md is not what the transforms do; look at these rows and write it anew with {UPDATE}=1.\n\
         missing: {wrong:#?}\nsuperfluous: {superfluous:#?}"
    );
}

#[test]
fn every_operator_has_an_example() {
    let examples = examples().unwrap();
    for kind in Op::KINDS {
        assert!(
            examples.iter().any(|function| last(function).kind() == *kind),
            "{kind} needs an example in src/transform/table.rs"
        );
    }
}
