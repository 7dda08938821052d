//! Validation of whole functions.

use crate::graph::{Function, Var};
use crate::{Error, Result, Shape};

impl Function {
    /// Checks that every variable is defined once and before it is read, and that every equation's outputs have
    /// the shapes that its operator gives for its inputs; in sub-functions too.
    ///
    /// Functions made through a [`Builder`](crate::Builder) pass; so must those that a transform makes.
    ///
    /// # Errors
    /// [`Error::InvalidFunction`] naming the first equation that does not hold.
    ///
    /// ```
    /// use xlann::{DType, Function, Shape};
    ///
    /// let double = Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0])?;
    /// double.check()?;
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn check(&self) -> Result<()> {
        let mut defined = vec![false; self.shapes.len()];
        for (index, parameter) in self.parameters.iter().enumerate() {
            self.define(&mut defined, parameter.var, &format!("parameter {index}"))?;
        }
        for (index, equation) in self.equations.iter().enumerate() {
            let place = format!("equation {index} ({})", equation.operator());
            self.read(&defined, &equation.inputs, &place)?;
            let at = |problem: Error| self.invalid(format!("{place}: {problem}"));
            for (_, function) in equation.op.rules().functions() {
                function.check().map_err(at)?;
            }
            for &var in &equation.outputs {
                self.define(&mut defined, var, &place)?;
            }
            let inputs: Vec<_> = equation.inputs.iter().map(|&var| self.shape(var)).collect();
            let inferred = equation.op.rules().infer(&inputs).map_err(at)?;
            let outputs: Vec<_> = equation.outputs.iter().map(|&var| self.shape(var).clone()).collect();
            if inferred != outputs {
                let (inferred, outputs) = (list(&inferred), list(&outputs));
                return Err(self.invalid(format!("{place} gives {inferred}, but defines {outputs}")));
            }
        }
        self.read(&defined, &self.results, "the result")
    }

    fn define(&self, defined: &mut [bool], var: Var, place: &str) -> Result<()> {
        match defined.get_mut(var.index()) {
            None => Err(self.invalid(format!("{place} defines %{}, which has no shape", var.0))),
            Some(true) => Err(self.invalid(format!("{place} defines %{} again", var.0))),
            Some(slot) => {
                *slot = true;
                Ok(())
            }
        }
    }

    fn read(&self, defined: &[bool], vars: &[Var], place: &str) -> Result<()> {
        match vars.iter().find(|var| !defined.get(var.index()).copied().unwrap_or(false)) {
            None => Ok(()),
            Some(var) => Err(self.invalid(format!("{place} reads %{} before it is defined", var.0))),
        }
    }

    /// Checks the number and shapes of the arguments of a call.
    pub(crate) fn check_arguments<'a>(
        &self,
        arguments: impl ExactSizeIterator<Item = &'a Shape>,
    ) -> Result<()> {
        if arguments.len() != self.parameters.len() {
            let (expected, got) = (self.parameters.len(), arguments.len());
            return Err(Error::ArgumentCount { function: self.name.clone(), expected, got });
        }
        for (index, ((_, expected), got)) in self.parameters().zip(arguments).enumerate() {
            if expected != got {
                let (expected, got) = (expected.clone(), got.clone());
                return Err(Error::Call { function: self.name.clone(), index, expected, got });
            }
        }
        Ok(())
    }

    pub(crate) fn invalid(&self, problem: String) -> Error {
        Error::InvalidFunction { function: self.name.clone(), problem }
    }
}

fn list(shapes: &[Shape]) -> String {
    let texts: Vec<_> = shapes.iter().map(Shape::to_string).collect();
    format!("({})", texts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    fn double() -> Function {
        Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0]).unwrap()
    }

    #[test]
    fn built_functions_hold() {
        double().check().unwrap();
    }

    #[test]
    fn a_read_before_the_definition_is_found() {
        let mut function = double();
        function.equations[0].inputs[0] = Var(1);
        assert_eq!(
            function.check().unwrap_err().to_string(),
            "function double: equation 0 (add) reads %1 before it is defined"
        );
    }

    #[test]
    fn a_second_definition_is_found() {
        let mut function = double();
        function.equations[0].outputs[0] = Var(0);
        assert_eq!(
            function.check().unwrap_err().to_string(),
            "function double: equation 0 (add) defines %0 again"
        );
    }

    #[test]
    fn an_output_of_another_shape_is_found() {
        let mut function = double();
        function.shapes[1] = Shape::new(DType::F32, [4]);
        assert_eq!(
            function.check().unwrap_err().to_string(),
            "function double: equation 0 (add) gives (f32[3]), but defines (f32[4])"
        );
    }

    #[test]
    fn an_unknown_result_is_found() {
        let mut function = double();
        function.results[0] = Var(9);
        assert_eq!(
            function.check().unwrap_err().to_string(),
            "function double: the result reads %9 before it is defined"
        );
    }
}
