//! Functions as HLO computations.

use crate::Result;
use crate::graph::Function;
use crate::hlo::{Builder, Computation};

/// How a computation takes its parameters and gives its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Convention {
    /// A parameter each; the result itself, or a tuple where there are several: entries, reducers, comparators.
    Flat,
    /// One tuple of all parameters, one tuple of all results: loops and branches.
    Tuple,
    /// One tuple of all parameters, the result itself: loop conditions.
    Condition,
}

impl Function {
    /// Adds a computation of this function to the module.
    pub(crate) fn emit(&self, module: &mut Builder, convention: Convention) -> Result<Computation> {
        module.computation(&self.name, |module| {
            let arguments = match convention {
                Convention::Flat => (0..)
                    .zip(self.parameters())
                    .map(|(number, (name, shape))| module.parameter(number, name, shape))
                    .collect(),
                Convention::Tuple | Convention::Condition => module.tuple_parameter(&self.parameter_shapes()),
            };
            let results =
                self.interpret(arguments, |equation, inputs| equation.op.rules().hlo(module, inputs))?;
            Ok(match (convention, results.as_slice()) {
                (Convention::Flat | Convention::Condition, [result]) => result.id(),
                _ => module.tuple(&results),
            })
        })
    }
}
