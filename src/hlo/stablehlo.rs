//! The StableHLO of a module, in MLIR's text.

use std::collections::HashMap;
use std::fmt::{Display, Write};

use crate::hlo::TUPLE;
use crate::hlo::mlir::{
    dense, dot_attributes, gather_attributes, i64_array, layouts, list, quoted, scatter_attributes, square,
    symbol, tensor, window_attributes,
};
use crate::hlo::proto::{HloComputationProto, HloInstructionProto, HloModuleProto, ShapeProto};
use crate::{DType, Error, Result};

/// XLA's approximate top-k, which StableHLO has as a custom call; HLO has it expanded only.
pub(crate) const APPROX_TOP_K: &str = "ApproxTopK";

/// The instructions whose operands and result are of one type, and that StableHLO calls as HLO does.
const ELEMENTWISE: [&str; 35] = [
    "abs",
    "add",
    "and",
    "atan2",
    "cbrt",
    "ceil",
    "cosine",
    "divide",
    "exponential",
    "exponential-minus-one",
    "floor",
    "log",
    "log-plus-one",
    "logistic",
    "maximum",
    "minimum",
    "multiply",
    "negate",
    "not",
    "or",
    "power",
    "remainder",
    "round-nearest-afz",
    "round-nearest-even",
    "rsqrt",
    "shift-left",
    "shift-right-arithmetic",
    "shift-right-logical",
    "sign",
    "sine",
    "sqrt",
    "subtract",
    "tan",
    "tanh",
    "xor",
];

/// Those that StableHLO calls as HLO does, too, but that are written with the types of their operands.
const FUNCTIONAL: [&str; 7] =
    ["bitcast-convert", "clamp", "convert", "dynamic-update-slice", "is-finite", "reshape", "select"];

/// How deep computations may call each other, so that those that call themselves end in an error.
const DEPTH: usize = 100;

impl HloModuleProto {
    /// The module as StableHLO, in MLIR's text form: what PJRT compiles as
    /// [`Program::StableHlo`](crate::pjrt::Program::StableHlo).
    ///
    /// The entry is `@main`. Sub-functions become regions where StableHLO has them, and functions where it has
    /// names (of custom calls). One operator is not StableHLO's own: erf is written `chlo.erf`, as JAX does, of
    /// the dialect that XLA reads beside it. Constants are written to the last bit.
    ///
    /// This is the StableHLO of a function as it was lowered; for approximate top-k as an operator of its own, see
    /// [`lower::stablehlo`](crate::lower::stablehlo).
    ///
    /// # Errors
    /// Where an instruction is none of those that this crate lowers functions to, as in the optimized modules of
    /// compilers, or the module does not hold together.
    ///
    /// ```
    /// use xlann::{DType, Function, Shape, lower, target};
    ///
    /// let f = Function::trace("double", &[Shape::new(DType::F32, [3])], |x| &x[0] + &x[0])?;
    /// let module = lower::lower(&f, &target::cpu::CAPABILITIES, &lower::Options::default())?.module;
    /// assert_eq!(
    ///     module.to_stablehlo()?,
    ///     "module @double {
    ///   func.func public @main(%arg0: tensor<3xf32>) -> tensor<3xf32> {
    ///     %0 = stablehlo.add %arg0, %arg0 : tensor<3xf32>
    ///     return %0 : tensor<3xf32>
    ///   }
    /// }
    /// "
    /// );
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn to_stablehlo(&self) -> Result<String> {
        let computations: HashMap<i64, &HloComputationProto> =
            self.computations.iter().map(|computation| (computation.id, computation)).collect();
        let mut printer = Printer { computations, text: String::new(), values: 0, arguments: 0 };
        printer.line(0, format_args!("module {} {{", symbol(&self.name)));
        // Those that custom calls name; the rest is written where it is called.
        let instructions = self.computations.iter().flat_map(|computation| &computation.instructions);
        let calls = instructions.filter(|instruction| instruction.opcode == "custom-call");
        let named: Vec<i64> = calls.flat_map(|call| call.called_computation_ids.iter().copied()).collect();
        for computation in self.computations.iter().filter(|computation| named.contains(&computation.id)) {
            printer.function(computation, &format!("private {}", function_symbol(computation)))?;
        }
        let entry = printer.computation(self.entry_computation_id)?;
        printer.function(entry, "public @main")?;
        printer.line(0, "}");
        Ok(printer.text)
    }
}

/// A value of array type.
#[derive(Clone)]
struct Value {
    /// With its `%`.
    name: String,
    r#type: String,
}

/// A region of an operation: a computation, and what its parameters are.
struct Region<'a> {
    computation: &'a HloComputationProto,
    /// Values of the outside, as the regions of a conditional have them; else it gets arguments of its own.
    captured: Option<Vec<Value>>,
}

struct Printer<'a> {
    computations: HashMap<i64, &'a HloComputationProto>,
    text: String,
    /// How many values of the open function have names.
    values: usize,
    /// And how many of its arguments, and of its regions'.
    arguments: usize,
}

impl<'a> Printer<'a> {
    fn computation(&self, id: i64) -> Result<&'a HloComputationProto> {
        let found = self.computations.get(&id).copied();
        found.ok_or_else(|| {
            Error::argument("stablehlo", "module", format!("one with a computation {id}"), "none")
        })
    }

    fn line(&mut self, level: usize, text: impl Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{:level$}{text}", "");
    }

    fn function(&mut self, computation: &'a HloComputationProto, name: &str) -> Result<()> {
        (self.values, self.arguments) = (0, 0);
        let arguments = self.block_arguments(computation)?;
        let root = computation.instructions.iter().find(|instruction| instruction.id == computation.root_id);
        let arrow = match &root.map(types).transpose()?.unwrap_or_default()[..] {
            [] => String::new(),
            [result] => format!(" -> {result}"),
            results => format!(" -> ({})", list(results)),
        };
        self.line(2, format_args!("func.func {name}({}){arrow} {{", declared(&arguments)));
        self.block(computation, arguments, "return", 4)?;
        self.line(2, "}");
        Ok(())
    }

    /// New arguments for all arrays among a computation's parameters.
    fn block_arguments(&mut self, computation: &HloComputationProto) -> Result<Vec<Value>> {
        let mut arguments = Vec::new();
        for parameter in parameters(computation) {
            for r#type in types(parameter)? {
                arguments.push(Value { name: format!("%arg{}", self.arguments), r#type });
                self.arguments += 1;
            }
        }
        Ok(arguments)
    }

    /// The operations of a computation of these arguments, and what ends them.
    fn block(
        &mut self,
        computation: &'a HloComputationProto,
        arguments: Vec<Value>,
        terminator: &str,
        level: usize,
    ) -> Result<()> {
        if level > 2 * DEPTH {
            let expected = format!("computations at most {DEPTH} deep in each other");
            return Err(Error::argument("stablehlo", "module", expected, &computation.name));
        }
        let mut scope: HashMap<i64, Vec<Value>> = HashMap::new();
        let mut arguments = arguments.into_iter();
        for parameter in parameters(computation) {
            let values: Vec<Value> = arguments.by_ref().take(types(parameter)?.len()).collect();
            scope.insert(parameter.id, values);
        }
        for instruction in &computation.instructions {
            let read = |id: &i64| {
                let expected = format!("after %{id}, which it reads");
                scope.get(id).ok_or_else(|| malformed(instruction, expected, "one before it"))
            };
            let operands = instruction.operand_ids.iter().map(read).collect::<Result<Vec<_>>>()?;
            let values = match instruction.opcode.as_str() {
                "parameter" => continue,
                // Operations give and take arrays: tuples are but lists of them.
                "tuple" => operands.into_iter().flatten().cloned().collect(),
                "get-tuple-element" => {
                    let index = usize::try_from(instruction.tuple_index).ok();
                    let value = operands.first().zip(index).and_then(|(tuple, index)| tuple.get(index));
                    vec![
                        value.ok_or_else(|| malformed(instruction, "an element of a tuple", "none"))?.clone(),
                    ]
                }
                _ => {
                    let operands: Vec<Vec<Value>> = operands.into_iter().cloned().collect();
                    self.operation(instruction, &operands, level)?
                }
            };
            scope.insert(instruction.id, values);
        }
        let results = scope.get(&computation.root_id).ok_or_else(|| {
            let argument = format!("computation {}", computation.name);
            Error::argument("stablehlo", argument, "one with a root", "none")
        })?;
        let text = match &results[..] {
            [] => terminator.to_owned(),
            _ => {
                let types = list(results.iter().map(|value| &value.r#type));
                format!("{terminator} {} : {types}", names(results))
            }
        };
        self.line(level, text);
        Ok(())
    }

    /// Writes an operation, and gives its results.
    fn operation(
        &mut self,
        instruction: &'a HloInstructionProto,
        operands: &[Vec<Value>],
        level: usize,
    ) -> Result<Vec<Value>> {
        let number = self.values;
        self.values += 1;
        let types = types(instruction)?;
        let name = |index: usize| match types.len() {
            1 => format!("%{number}"),
            _ => format!("%{number}#{index}"),
        };
        let results: Vec<Value> =
            (0..).zip(&types).map(|(i, r#type)| Value { name: name(i), r#type: r#type.clone() }).collect();
        let _ = write!(self.text, "{:level$}", "");
        let _ = match results.len() {
            0 => Ok(()),
            1 => write!(self.text, "%{number} = "),
            count => write!(self.text, "%{number}:{count} = "),
        };
        let regions = self.regions(instruction, operands)?;
        // Those of a conditional are for its regions.
        let operands: Vec<Value> = match instruction.opcode.as_str() {
            "conditional" => operands.first().cloned().unwrap_or_default(),
            _ => operands.iter().flatten().cloned().collect(),
        };
        if regions.is_empty() {
            let text = self.plain(instruction, &operands)?;
            self.line(0, format_args!("{text} : {}", signature(instruction, &operands, &results)));
            return Ok(results);
        }
        let (name, attributes) = with_regions(instruction, &operands)?;
        let _ = write!(self.text, "\"stablehlo.{name}\"({}){attributes} (", names(&operands));
        for (index, region) in regions.into_iter().enumerate() {
            self.line(0, if index == 0 { "{" } else { ", {" });
            let arguments = match region.captured {
                Some(values) => values,
                None => {
                    let arguments = self.block_arguments(region.computation)?;
                    self.line(level, format_args!("^bb0({}):", declared(&arguments)));
                    arguments
                }
            };
            self.block(region.computation, arguments, "stablehlo.return", level + 2)?;
            let _ = write!(self.text, "{:level$}}}", "");
        }
        self.line(0, format_args!(") : {}", signature(instruction, &operands, &results)));
        Ok(results)
    }

    /// The computations that an instruction calls, as regions.
    fn regions(&self, instruction: &HloInstructionProto, operands: &[Vec<Value>]) -> Result<Vec<Region<'a>>> {
        let called = instruction.called_computation_ids.iter().map(|&id| self.computation(id));
        let mut called = called.collect::<Result<Vec<_>>>()?;
        if instruction.opcode == "custom-call" {
            return Ok(Vec::new());
        }
        if instruction.opcode == "while" {
            // HLO names the body first.
            called.reverse();
        }
        let region = |(index, computation): (usize, &'a HloComputationProto)| {
            let captured = (instruction.opcode == "conditional")
                .then(|| operands.get(index + 1).cloned().unwrap_or_default());
            Region { computation, captured }
        };
        Ok(called.into_iter().enumerate().map(region).collect())
    }

    /// The name of an operation without regions, its operands and what follows them.
    fn plain(&self, instruction: &HloInstructionProto, operands: &[Value]) -> Result<String> {
        let opcode = instruction.opcode.as_str();
        let operand_names = names(operands);
        let dimensions = &instruction.dimensions;
        Ok(match opcode {
            "constant" => {
                let literal = instruction.literal.as_ref();
                let literal = literal.ok_or_else(|| malformed(instruction, "one with a literal", "none"))?;
                format!("stablehlo.constant {}", dense(&literal.to_array()?))
            }
            "iota" => format!("stablehlo.iota dim = {}", list(dimensions)),
            "replica-id" => "stablehlo.replica_id".to_owned(),
            "all-gather" => {
                let groups = instruction.replica_groups.iter().map(|group| square(&group.replica_ids));
                let size = instruction.replica_groups.first().map_or(0, |group| group.replica_ids.len());
                format!(
                    "\"stablehlo.all_gather\"({operand_names}) <{{all_gather_dim = {} : i64, \
                     replica_groups = dense<[{}]> : tensor<{}x{size}xi64>}}>",
                    list(dimensions),
                    list(groups),
                    instruction.replica_groups.len(),
                )
            }
            "erf" => format!("chlo.erf {operand_names}"),
            "broadcast" => {
                format!("stablehlo.broadcast_in_dim {operand_names}, dims = {}", square(dimensions))
            }
            "reverse" | "transpose" => {
                format!("stablehlo.{opcode} {operand_names}, dims = {}", square(dimensions))
            }
            "concatenate" => format!("stablehlo.concatenate {operand_names}, dim = {}", list(dimensions)),
            "compare" => {
                let kind = match instruction.comparison_type.as_str() {
                    // Of floats, the default.
                    "" | "FLOAT" => String::new(),
                    kind => format!(", {kind}"),
                };
                format!("stablehlo.compare {}, {operand_names}{kind}", instruction.comparison_direction)
            }
            "slice" => {
                let bounds = instruction.slice_dimensions.iter().map(|bounds| match bounds.stride {
                    1 => format!("{}:{}", bounds.start, bounds.limit),
                    stride => format!("{}:{}:{stride}", bounds.start, bounds.limit),
                });
                format!("stablehlo.slice {operand_names} [{}]", list(bounds))
            }
            "dynamic-slice" => {
                let sizes = square(&instruction.dynamic_slice_sizes);
                format!("stablehlo.dynamic_slice {operand_names}, sizes = {sizes}")
            }
            "pad" => {
                let padding = instruction.padding_config.clone().unwrap_or_default().dimensions;
                let low = padding.iter().map(|dimension| dimension.edge_padding_low);
                let high = padding.iter().map(|dimension| dimension.edge_padding_high);
                let interior = padding.iter().map(|dimension| dimension.interior_padding);
                let (low, high, interior) = (list(low), list(high), list(interior));
                format!(
                    "stablehlo.pad {operand_names}, low = [{low}], high = [{high}], interior = [{interior}]"
                )
            }
            "dot" => format!("stablehlo.dot_general {operand_names}{}", dot_attributes(instruction)),
            "gather" => {
                format!("\"stablehlo.gather\"({operand_names}) <{{{}}}>", gather_attributes(instruction))
            }
            "custom-call" => self.custom_call(instruction, &operand_names)?,
            _ if ELEMENTWISE.contains(&opcode) || FUNCTIONAL.contains(&opcode) => {
                format!("stablehlo.{} {operand_names}", opcode.replace('-', "_"))
            }
            _ => {
                return Err(malformed(instruction, "one that this crate has StableHLO for", opcode));
            }
        })
    }

    fn custom_call(&self, instruction: &HloInstructionProto, operand_names: &str) -> Result<String> {
        let config = std::str::from_utf8(&instruction.backend_config)
            .map_err(|problem| malformed(instruction, "one whose backend_config is text", problem))?;
        let called = instruction.called_computation_ids.iter().map(|&id| self.computation(id));
        let called = list(called.collect::<Result<Vec<_>>>()?.into_iter().map(function_symbol));
        let is_approx_top_k = instruction.custom_call_target == APPROX_TOP_K;
        let mut attributes = Vec::new();
        let mut add = |name: &str, value: String| attributes.push(format!("{name} = {value}"));
        match instruction.custom_call_api_version {
            // The original one, which is the default.
            0 | 1 => add("backend_config", quoted(if is_approx_top_k { "" } else { config })),
            4 => {
                let config = if config.is_empty() { "{}" } else { config };
                if !(config.starts_with('{') && config.ends_with('}')) {
                    let expected = "one whose backend_config is in braces, such as {k = 10 : i64}";
                    return Err(malformed(instruction, expected, config));
                }
                add("api_version", "4 : i32".to_owned());
                add("backend_config", config.to_owned());
            }
            other => {
                let expected = "one of the original API or the typed FFI";
                return Err(malformed(instruction, expected, format!("version {other}")));
            }
        }
        if !called.is_empty() {
            add("called_computations", format!("[{called}]"));
        }
        if instruction.custom_call_has_side_effect {
            add("has_side_effect", "true".to_owned());
        }
        if is_approx_top_k {
            add("mhlo.backend_config", config.to_owned());
        } else if instruction.constrain_layout {
            add("operand_layouts", layouts(&instruction.operand_shapes_with_layout));
            add("result_layouts", layouts(leaves(instruction)));
        }
        let target = symbol(&instruction.custom_call_target);
        Ok(format!("stablehlo.custom_call {target}({operand_names}) {{{}}}", list(attributes)))
    }
}

/// The name and the attributes of an operation with regions.
fn with_regions(instruction: &HloInstructionProto, operands: &[Value]) -> Result<(&'static str, String)> {
    let attributes = |text: String| format!(" <{{{text}}}>");
    Ok(match instruction.opcode.as_str() {
        "while" => ("while", String::new()),
        "conditional" if operands.iter().any(|value| value.r#type == "tensor<i1>") => ("if", String::new()),
        "conditional" => ("case", String::new()),
        "reduce" => ("reduce", attributes(format!("dimensions = {}", i64_array(&instruction.dimensions)))),
        "sort" => {
            let (dimension, is_stable) = (list(&instruction.dimensions), instruction.is_stable);
            ("sort", attributes(format!("dimension = {dimension} : i64, is_stable = {is_stable}")))
        }
        "reduce-window" => ("reduce_window", attributes(window_attributes(instruction))),
        "scatter" => ("scatter", attributes(scatter_attributes(instruction))),
        opcode => {
            return Err(malformed(instruction, "one that this crate has StableHLO for", opcode));
        }
    })
}

/// The types of an operation, as it is written.
fn signature(instruction: &HloInstructionProto, operands: &[Value], results: &[Value]) -> String {
    let of = |values: &[Value]| list(values.iter().map(|value| &value.r#type));
    let (from, to) = (of(operands), of(results));
    match instruction.opcode.as_str() {
        "constant" | "iota" | "replica-id" | "reverse" => to,
        "erf" => format!("{from} -> {to}"),
        opcode if ELEMENTWISE.contains(&opcode) => to,
        _ if results.len() == 1 => format!("({from}) -> {to}"),
        _ => format!("({from}) -> ({to})"),
    }
}

fn names(values: &[Value]) -> String {
    list(values.iter().map(|value| &value.name))
}

/// A list of arguments, with their types.
fn declared(arguments: &[Value]) -> String {
    list(arguments.iter().map(|value| format!("{}: {}", value.name, value.r#type)))
}

/// The name of a computation as a function, which the entry's must not be.
fn function_symbol(computation: &HloComputationProto) -> String {
    symbol(if computation.name == "main" { "main.1" } else { &computation.name })
}

/// The parameters of a computation, in order.
fn parameters(computation: &HloComputationProto) -> Vec<&HloInstructionProto> {
    let instructions = computation.instructions.iter();
    let mut parameters: Vec<_> =
        instructions.filter(|instruction| instruction.opcode == "parameter").collect();
    parameters.sort_by_key(|parameter| parameter.parameter_number);
    parameters
}

/// The shapes of the arrays that an instruction gives.
fn leaves(instruction: &HloInstructionProto) -> &[ShapeProto] {
    match &instruction.shape {
        Some(shape) if shape.element_type == TUPLE => &shape.tuple_shapes,
        shape => shape.as_slice(),
    }
}

/// The types of the arrays that an instruction gives.
fn types(instruction: &HloInstructionProto) -> Result<Vec<String>> {
    let r#type = |shape: &ShapeProto| {
        let shape = shape.to_shape();
        shape.map(|shape| tensor(&shape)).ok_or_else(|| {
            let dtypes = list(DType::ALL);
            malformed(instruction, format!("one that gives arrays of {dtypes}"), "another one")
        })
    };
    leaves(instruction).iter().map(r#type).collect()
}

fn malformed(instruction: &HloInstructionProto, expected: impl Into<String>, got: impl Display) -> Error {
    Error::argument("stablehlo", format!("instruction {}", instruction.name), expected, got)
}
