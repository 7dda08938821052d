//! The operators, one file for each family.
//!
//! A file holds all that there is to know of its operators: their parameters, the methods of [`Tensor`] that
//! apply them, shape rule, evaluation and HLO, and the rules by which they are batched and differentiated. To add
//! one, write its file and add a line to the table below.

use std::sync::Arc;

use crate::graph::Function;
use crate::hlo;
use crate::shape::Dims;
use crate::transform::{Batched, Dual, Jvp, Part, Partial, Transposition, Vmap, no_rule};
use crate::{Array, Result, Shape, Tensor};

/// What every operator knows of itself.
pub(crate) trait Operator {
    /// The name, in snake case.
    fn name(&self) -> &'static str;

    /// Its parameters, as printed.
    fn params(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Its sub-functions, by the name of their role.
    fn functions(&self) -> Vec<(&'static str, &Arc<Function>)> {
        Vec::new()
    }

    /// Whether `eval` works position by position, so that on arrays of any equal shape it gives what it gives
    /// on their elements: such reducers and comparators are evaluated on whole arrays.
    fn elementwise(&self) -> bool {
        false
    }

    /// Those that are lowered with it, for a pass that rewrites them.
    fn functions_mut(&mut self) -> Vec<&mut Arc<Function>> {
        Vec::new()
    }

    /// The shape rule: the outputs' shapes from the inputs', or why these cannot be.
    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>>;

    /// The outputs on the host; the inputs have passed the shape rule.
    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>>;

    /// How many replicas of the function it works together with; none where each computes it by itself.
    fn replicas(&self) -> Option<usize> {
        None
    }

    /// The outputs of each of several replicas on the host, whose inputs have passed the shape rule.
    fn eval_replicas(&self, inputs: &[Vec<Array>]) -> Result<Vec<Vec<Array>>> {
        inputs.iter().map(|inputs| self.eval(inputs)).collect()
    }

    /// Adds the operator's instructions; the inputs have passed the shape rule.
    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>>;

    /// The operator for a batch of inputs, one of which has a batch dimension at least.
    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        match self.elementwise() {
            true => rule.elementwise(inputs),
            false => no_rule(self.name(), "vmap", "it has no rule"),
        }
    }

    /// The outputs with their tangents; one input has a tangent at least, and one output is floating.
    fn jvp(&self, _rule: &Jvp, _inputs: &[Dual]) -> Result<Vec<Dual>> {
        no_rule(self.name(), "jvp", "it has no derivative")
    }

    /// The outputs as far as they do not depend on the linear inputs, of which there is one at least. Of most
    /// operators, all outputs do.
    fn partial(&self, rule: &Transposition, _inputs: &[Part]) -> Result<Partial> {
        let outputs = rule.outputs.iter().cloned().map(Part::Linear).collect();
        Ok(Partial { outputs, residuals: Vec::new() })
    }

    /// For each linear input, its cotangent by those of the linear outputs; none stands for zero. What is said
    /// of the other inputs is not heard.
    fn transpose(
        &self,
        _rule: &Transposition,
        _inputs: &[Part],
        _residuals: &[Tensor],
        _cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        no_rule(self.name(), "vjp", "it is not linear")
    }

    /// The operator without outputs that are not used, where it can do with less for the others; `effects` says
    /// whether what only a side effect needs stays in its sub-functions.
    fn narrowed(&self, _used: &[bool], _effects: bool) -> Option<Narrowed> {
        None
    }

    /// Whether it is, or has in a sub-function, what only a transpose is known of.
    fn reverse_only(&self) -> bool {
        self.functions().iter().any(|(_, function)| {
            function.equations().iter().any(|equation| equation.op.rules().reverse_only())
        })
    }

    /// Whether it must be done although nothing reads its outputs.
    fn has_side_effect(&self) -> bool {
        self.functions()
            .iter()
            .any(|(_, function)| function.equations().iter().any(|equation| equation.op.has_side_effect()))
    }
}

/// What is left of an operator of which some outputs are not used.
pub(crate) struct Narrowed {
    pub(crate) op: Op,
    /// Which of the inputs it still takes.
    pub(crate) inputs: Vec<bool>,
    /// Which of the outputs it still gives.
    pub(crate) outputs: Vec<bool>,
}

/// Declares an enum of operators that share a file, with the list of its variants.
macro_rules! variants {
    (
        $(#[$meta:meta])*
        $visibility:vis enum $name:ident {
            $($(#[$doc:meta])* $variant:ident,)*
        }
    ) => {
        $(#[$meta])*
        $visibility enum $name {
            $($(#[$doc])* $variant,)*
        }

        #[cfg(test)]
        impl $name {
            pub(crate) const ALL: &[$name] = &[$($name::$variant),*];
        }
    };
}

/// Declares the modules and the enum of all operators.
macro_rules! operators {
    ($($module:ident: $($operator:ident),*;)*) => {
        $(pub(crate) mod $module;)*

        /// Any operator, with its parameters.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) enum Op {
            $($($operator($module::$operator),)*)*
        }

        #[cfg(test)]
        impl Op {
            /// The names of the variants.
            pub(crate) const KINDS: &[&str] = &[$($(stringify!($operator),)*)*];

            /// The name of the variant.
            pub(crate) fn kind(&self) -> &'static str {
                match self {
                    $($(Op::$operator(_) => stringify!($operator),)*)*
                }
            }
        }

        impl Op {
            /// The operator's rules.
            pub(crate) fn rules(&self) -> &dyn Operator {
                match self {
                    $($(Op::$operator(operator) => operator,)*)*
                }
            }

            pub(crate) fn has_side_effect(&self) -> bool {
                self.rules().has_side_effect()
            }

            fn rules_mut(&mut self) -> &mut dyn Operator {
                match self {
                    $($(Op::$operator(operator) => operator,)*)*
                }
            }

            /// The operator with each of its sub-functions replaced by what `map` makes of it.
            pub(crate) fn map_functions(
                &self,
                map: &mut dyn FnMut(&Function) -> Result<Function>,
            ) -> Result<Op> {
                let mut op = self.clone();
                for function in op.rules_mut().functions_mut() {
                    *function = Arc::new(map(function)?);
                }
                Ok(op)
            }
        }

        $($(impl From<$module::$operator> for Op {
            fn from(operator: $module::$operator) -> Op {
                Op::$operator(operator)
            }
        })*)*
    };
}

operators! {
    constant: Constant, Iota;
    unary: Unary;
    binary: Binary;
    broadcast: BroadcastInDim;
    compare: Compare;
    concatenate: Concatenate;
    convert: Convert, BitcastConvert;
    dynamic_slice: DynamicSlice, DynamicUpdateSlice;
    erf_inv: ;
    pad: Pad;
    reshape: Reshape;
    select: Select, Clamp;
    with_derivative_of: WithDerivativeOf;
    slice: Slice;
    transpose: Transpose, Reverse;
    dot_general: DotGeneral;
    reduce: Reduce;
    reduce_window: ReduceWindow;
    reduce_variadic: ReduceVariadic;
    sort: Sort;
    top_k: TopK;
    approx_top_k: ApproxTopK;
    gather: Gather;
    scatter: Scatter;
    while_loop: While;
    conditional: Conditional;
    collective: AllGather, ReplicaId;
    custom_call: CustomCall;
    custom_derivative: CustomJvp, CustomVjp, Transposed;
}

/// The inputs as an array of the operator's arity.
///
/// A function that was put together by hand can have any number of inputs; builders always give the right one.
pub(crate) fn arity<const N: usize>(operator: &'static str, inputs: &[&Shape]) -> Result<[Shape; N]> {
    let got = inputs.len();
    let inputs: Vec<Shape> = inputs.iter().map(|&shape| shape.clone()).collect();
    inputs.try_into().map_err(|_| crate::Error::argument(operator, "operands", format!("{N}"), got))
}

/// Requires that a sub-function takes and gives these shapes.
pub(crate) fn signature(
    operator: &'static str,
    role: &str,
    function: &Function,
    parameters: &[Shape],
    results: &[Shape],
) -> Result<()> {
    let got = (function.parameter_shapes(), function.result_shapes());
    if got.0 == parameters && got.1 == results {
        return Ok(());
    }
    let text = |parameters: &[Shape], results: &[Shape]| {
        let list = |shapes: &[Shape]| shapes.iter().map(Shape::to_string).collect::<Vec<_>>().join(", ");
        format!("({}) -> ({})", list(parameters), list(results))
    };
    let expected = format!("a function {}", text(parameters, results));
    Err(crate::Error::argument(operator, role, expected, text(&got.0, &got.1)))
}

/// Requires that `dimensions` are dimensions of an array of that rank, each at most once.
pub(crate) fn distinct(
    operator: &'static str,
    argument: &str,
    dimensions: &[usize],
    rank: usize,
) -> Result<()> {
    let mut seen = vec![false; rank];
    for &dimension in dimensions {
        if seen.get_mut(dimension).is_none_or(|seen| std::mem::replace(seen, true)) {
            let expected = format!("distinct dimensions below {rank}");
            return Err(crate::Error::argument(operator, argument, expected, Dims(dimensions)));
        }
    }
    Ok(())
}

/// As [`distinct`], and in increasing order.
pub(crate) fn increasing(
    operator: &'static str,
    argument: &str,
    dimensions: &[usize],
    rank: usize,
) -> Result<()> {
    if dimensions.is_sorted_by(|a, b| a < b) && dimensions.last().is_none_or(|&last| last < rank) {
        return Ok(());
    }
    let expected = format!("increasing dimensions below {rank}");
    Err(crate::Error::argument(operator, argument, expected, Dims(dimensions)))
}

/// Which flags are set in one of two lists at least.
pub(crate) fn either(x: &[bool], y: &[bool]) -> Vec<bool> {
    x.iter().zip(y).map(|(x, y)| x | y).collect()
}

/// The dimensions below `rank` that are in none of `taken`.
pub(crate) fn others(rank: usize, taken: &[&[usize]]) -> Vec<usize> {
    (0..rank).filter(|axis| !taken.iter().any(|taken| taken.contains(axis))).collect()
}

/// Dimensions as the messages of HLO hold them.
pub(crate) fn i64s(dimensions: &[usize]) -> Vec<i64> {
    dimensions.iter().map(|&dimension| dimension as i64).collect()
}
