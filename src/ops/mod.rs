//! The operators, one file for each family.
//!
//! A file holds all that there is to know of its operators: their parameters, the methods of [`Tensor`] that
//! apply them, shape rule, HLO and evaluation. To add one, write its file and add a line to the table below.

use std::sync::Arc;

use crate::graph::Function;
use crate::hlo;
use crate::{Array, Result, Shape};

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

    /// The shape rule: the outputs' shapes from the inputs', or why these cannot be.
    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>>;

    /// The outputs on the host; the inputs have passed the shape rule.
    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>>;

    /// Adds the operator's instructions; the inputs have passed the shape rule.
    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>>;
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

        impl Op {
            /// The operator's rules.
            pub(crate) fn rules(&self) -> &dyn Operator {
                match self {
                    $($(Op::$operator(operator) => operator,)*)*
                }
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
    pad: Pad;
    reshape: Reshape;
    select: Select, Clamp;
    slice: Slice;
    transpose: Transpose, Reverse;
}

/// The inputs as an array of the operator's arity.
///
/// A function that was put together by hand can have any number of inputs; builders always give the right one.
pub(crate) fn arity<const N: usize>(operator: &'static str, inputs: &[&Shape]) -> Result<[Shape; N]> {
    let got = inputs.len();
    let inputs: Vec<Shape> = inputs.iter().map(|&shape| shape.clone()).collect();
    inputs.try_into().map_err(|_| crate::Error::argument(operator, "operands", format!("{N}"), got))
}
