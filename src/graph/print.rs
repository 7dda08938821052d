//! The readable text of a function.

use std::fmt::{Display, Formatter, Result};

use crate::graph::{Function, Var};

impl Display for Function {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.print(f, 0)
    }
}

impl Function {
    fn print(&self, f: &mut Formatter<'_>, depth: usize) -> Result {
        let indent = "  ".repeat(depth);
        write!(f, "{}(", self.name)?;
        for (index, parameter) in self.parameters.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let space = if parameter.name.is_empty() { "" } else { " " };
            write!(f, "{comma}{}{space}{}", parameter.name, Typed(self, parameter.var))?;
        }
        writeln!(f, ") {{")?;
        for equation in &self.equations {
            write!(f, "{indent}  ")?;
            for (index, &output) in equation.outputs.iter().enumerate() {
                write!(f, "{}{}", if index > 0 { ", " } else { "" }, Typed(self, output))?;
            }
            let rules = equation.op.rules();
            write!(f, " = {}", rules.name())?;
            let params = rules.params();
            if !params.is_empty() {
                let texts: Vec<_> = params.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", texts.join(", "))?;
            }
            for input in &equation.inputs {
                write!(f, " %{}", input.0)?;
            }
            for (name, function) in rules.functions() {
                write!(f, "\n{indent}    {name}=")?;
                function.print(f, depth + 2)?;
            }
            writeln!(f)?;
        }
        let results: Vec<_> = self.results.iter().map(|var| format!("%{}", var.0)).collect();
        write!(f, "{indent}  return {}\n{indent}}}", results.join(", "))
    }
}

struct Typed<'a>(&'a Function, Var);

impl Display for Typed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "%{}: {}", self.1.0, self.0.shape(self.1))
    }
}
