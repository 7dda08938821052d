//! The host interpreter: plain, slow, and the oracle of the tests.

use crate::graph::Function;
use crate::{Array, Result};

impl Function {
    /// Evaluates it on the host, operator by operator.
    ///
    /// Floats are computed in f64 and rounded to their dtype after each operator; integers wrap.
    ///
    /// # Errors
    /// Where the arguments' number or shapes are not the parameters', or an operator has no host form (a custom
    /// call of a target's own).
    pub fn eval(&self, arguments: &[Array]) -> Result<Vec<Array>> {
        self.check_arguments(arguments.iter().map(Array::shape))?;
        self.interpret(arguments.iter().cloned(), |equation, inputs| {
            let outputs = equation.op.rules().eval(inputs)?;
            for (&var, output) in equation.outputs.iter().zip(&outputs) {
                if output.shape() != self.shape(var) {
                    let (operator, expected, got) = (equation.operator(), self.shape(var), output.shape());
                    return Err(self.invalid(format!("{operator} gives {got} where {expected} was inferred")));
                }
            }
            Ok(outputs)
        })
    }
}
