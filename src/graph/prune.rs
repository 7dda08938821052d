//! Dropping what no result needs.

use crate::graph::{Equation, Function, Var, chosen};
use crate::ops::Narrowed;

impl Function {
    /// The function without the equations that neither a result nor a side effect needs, and without the outputs
    /// that operators can do without; all parameters stay.
    pub(crate) fn pruned(self) -> Function {
        self.prune(true)
    }

    /// As [`pruned`](Function::pruned), without the equations that only a side effect needs, in loops and branches
    /// too: what is computed again does it no second time. A call whose output is read is still made again.
    pub(crate) fn without_effects(self) -> Function {
        self.prune(false)
    }

    /// The function of some of its parameters and results; no other parameter may be read for them. `effects` says
    /// whether the equations stay that only a side effect needs.
    pub(crate) fn restricted(&self, parameters: &[bool], results: &[bool], effects: bool) -> Function {
        let mut function = self.clone();
        function.parameters = chosen(&self.parameters, parameters);
        function.results = chosen(&self.results, results);
        function.prune(effects)
    }

    /// Which parameters are read by an equation or are results.
    pub(crate) fn parameters_read(&self) -> Vec<bool> {
        let mut read = vec![false; self.shapes.len()];
        let vars = self.equations.iter().flat_map(|equation| &equation.inputs).chain(&self.results);
        vars.for_each(|var| read[var.index()] = true);
        self.parameters.iter().map(|parameter| read[parameter.var.index()]).collect()
    }

    fn prune(self, effects: bool) -> Function {
        let mut needed = vec![false; self.shapes.len()];
        let need =
            |needed: &mut Vec<bool>, vars: &[Var]| vars.iter().for_each(|var| needed[var.index()] = true);
        need(&mut needed, &self.results);
        let mut equations = Vec::new();
        for mut equation in self.equations.into_iter().rev() {
            let used: Vec<bool> = equation.outputs.iter().map(|var| needed[var.index()]).collect();
            if used.contains(&true) || effects && equation.op.has_side_effect() {
                let pure = &mut |function: &Function| Ok(function.clone().without_effects());
                if !effects && let Ok(op) = equation.op.map_functions(pure) {
                    equation.op = op;
                }
                if let Some(Narrowed { op, inputs, outputs }) = equation.op.rules().narrowed(&used, effects) {
                    let (inputs, outputs) =
                        (chosen(&equation.inputs, &inputs), chosen(&equation.outputs, &outputs));
                    equation = Equation { op, inputs, outputs };
                }
                need(&mut needed, &equation.inputs);
                equations.push(equation);
            }
        }
        equations.reverse();

        let mut shapes = Vec::new();
        let mut renamed = vec![None; self.shapes.len()];
        let mut define = |renamed: &mut Vec<Option<Var>>, var: Var| {
            let new = Var(shapes.len() as u32);
            shapes.push(self.shapes[var.index()].clone());
            renamed[var.index()] = Some(new);
            new
        };
        let mut parameters = self.parameters;
        for parameter in &mut parameters {
            parameter.var = define(&mut renamed, parameter.var);
        }
        for Equation { inputs, outputs, .. } in &mut equations {
            // A variable that nothing defines is left for `check` to find.
            inputs.iter_mut().for_each(|var| *var = renamed[var.index()].unwrap_or(*var));
            outputs.iter_mut().for_each(|var| *var = define(&mut renamed, *var));
        }
        let results = self.results.iter().map(|var| renamed[var.index()].unwrap_or(*var)).collect();
        Function { name: self.name, parameters, equations, results, shapes }
    }
}

#[cfg(test)]
mod tests {
    use crate::{CustomCall, DType, Function, Shape};

    #[test]
    fn what_no_result_needs_is_dropped_and_variables_are_renumbered() {
        let shapes = [Shape::scalar(DType::F32), Shape::scalar(DType::F32)];
        let f = Function::trace("f", &shapes, |x| {
            let unused = (x[0].exp()? + x[1].exp()?)?;
            unused.log()?;
            &x[1] * 2
        });
        let pruned = f.unwrap().pruned();
        pruned.check().unwrap();
        assert_eq!(
            pruned.to_string(),
            "f(%0: f32[], %1: f32[]) {\n  %2: f32[] = constant[value=f32[] 2]\n  %3: f32[] = mul %1 %2\n  return %3\n}"
        );
    }

    #[test]
    fn operators_do_without_outputs_that_no_result_needs() {
        let scalar = Shape::scalar(DType::F32);
        let f = Function::trace("f", &[scalar.clone(), scalar.clone(), scalar.clone()], |x| {
            let last = x[0].builder().fori_loop(3, &[&x[0], &x[1], &x[2]], |_, s| {
                // The second is needed for the first, and the third for nothing but itself.
                Ok([(&s[0] * &s[1])?, (&s[1] + 1)?, (&s[2] * &s[0])?])
            })?;
            Ok(last[0].clone())
        });
        let pruned = f.unwrap().pruned();
        pruned.check().unwrap();
        let outputs: Vec<_> = pruned.equations().iter().map(|e| (e.operator(), e.outputs().len())).collect();
        assert_eq!(outputs, [("constant", 1), ("while", 3)]);

        let branch = |name| {
            Function::trace(name, &[scalar.clone(), scalar.clone()], |x| Ok((x[0].exp()?, x[1].sin()?)))
                .unwrap()
        };
        let f = Function::trace("f", &[Shape::scalar(DType::Pred), scalar.clone(), scalar.clone()], |x| {
            Ok(x[0].cond(&[&x[1], &x[2]], branch("on_true"), branch("on_false"))?.remove(1))
        });
        let pruned = f.unwrap().pruned();
        pruned.check().unwrap();
        assert_eq!(
            pruned.to_string(),
            "f(%0: pred[], %1: f32[], %2: f32[]) {
  %3: f32[] = conditional %0 %2
    branch=on_true(%0: f32[]) {
      %1: f32[] = sin %0
      return %1
    }
    branch=on_false(%0: f32[]) {
      %1: f32[] = sin %0
      return %1
    }
  return %3
}"
        );
    }

    #[test]
    fn side_effects_stay_with_what_they_need() {
        let shape = Shape::scalar(DType::F32);
        let f = Function::trace("f", &[shape], |x| {
            let log = CustomCall::new("log_tensor", []).side_effect();
            x[0].builder().custom_call(log, &[&x[0].exp()?])?;
            x[0].sin()?;
            Ok(x[0].clone())
        });
        let operators: Vec<_> = f.unwrap().pruned().equations().iter().map(|e| e.operator()).collect();
        assert_eq!(operators, ["exp", "custom_call"]);
    }
}
