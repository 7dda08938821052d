//! The text of a module, in the syntax of XLA's own, which its parser reads.

use std::collections::{HashMap, HashSet};
use std::fmt::{Display, Formatter, Result};

use half::{bf16, f16};

use crate::DType;
use crate::hlo::proto::{
    GatherDimensionNumbers, HloComputationProto, HloInstructionProto, HloModuleProto, LiteralProto,
    ProgramShapeProto, ScatterDimensionNumbers, ShapeProto, Window, WindowDimension,
};
use crate::hlo::{PRED, PRIMITIVE_TYPES, TOKEN, TUPLE};

/// How many elements of a constant are printed; of a larger one, none is, and XLA reads it as zeros.
const PRINTED: usize = 256;

impl Display for HloModuleProto {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "HloModule {}", self.name)?;
        if let Some(shape) = &self.host_program_shape {
            let parameters = list(shape.parameters.iter().map(|shape| Typed { shape, layout: true }));
            let result = shape.result.as_ref().map(|shape| Typed { shape, layout: true }.to_string());
            let result = result.unwrap_or_default();
            write!(f, ", entry_computation_layout={{({parameters})->{result}}}")?;
        }
        writeln!(f)?;
        let names: Names =
            self.computations.iter().map(|computation| (computation.id, computation.name.as_str())).collect();
        for computation in &self.computations {
            f.write_str(if computation.id == self.entry_computation_id { "\nENTRY " } else { "\n" })?;
            computation.print(f, &names)?;
        }
        Ok(())
    }
}

/// Names by id.
type Names<'a> = HashMap<i64, &'a str>;

/// What the text of an instruction depends on.
struct Scope<'a> {
    /// The names of the instructions of the same computation.
    names: Names<'a>,
    /// Those of them that are preds: a conditional is written in another way where one chooses.
    preds: HashSet<i64>,
    /// The names of the computations.
    computations: &'a Names<'a>,
}

/// `%name`, or the number where nothing has that id.
fn reference(names: &Names<'_>, id: i64) -> String {
    names.get(&id).map_or_else(|| format!("%{id}"), |name| format!("%{name}"))
}

fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    joined(items, ", ")
}

fn joined<T: Display>(items: impl IntoIterator<Item = T>, separator: &str) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(separator)
}

impl HloComputationProto {
    fn print(&self, f: &mut Formatter<'_>, computations: &Names<'_>) -> Result {
        let ProgramShapeProto { parameters, result, parameter_names } =
            self.program_shape.clone().unwrap_or_default();
        let parameters = list(
            parameter_names
                .iter()
                .zip(&parameters)
                .map(|(name, shape)| format!("{name}: {}", Typed { shape, layout: false })),
        );
        let result = result.unwrap_or_default();
        let result = Typed { shape: &result, layout: false };
        writeln!(f, "%{} ({parameters}) -> {result} {{", self.name)?;
        let names: Names =
            self.instructions.iter().map(|instruction| (instruction.id, instruction.name.as_str())).collect();
        let of_pred = |shape: &ShapeProto| shape.element_type == PRED;
        let preds = self.instructions.iter().filter(|i| i.shape.as_ref().is_some_and(of_pred));
        let scope = Scope { names, preds: preds.map(|i| i.id).collect(), computations };
        for instruction in &self.instructions {
            f.write_str(if instruction.id == self.root_id { "  ROOT " } else { "  " })?;
            instruction.print(f, &scope)?;
        }
        writeln!(f, "}}")
    }
}

impl HloInstructionProto {
    fn print(&self, f: &mut Formatter<'_>, scope: &Scope<'_>) -> Result {
        let shape = self.shape.clone().unwrap_or_default();
        let operands = match (self.opcode.as_str(), &self.literal) {
            ("parameter", _) => self.parameter_number.to_string(),
            ("constant", Some(literal)) => literal.text(),
            _ => list(self.operand_ids.iter().map(|&id| reference(&scope.names, id))),
        };
        write!(f, "%{} = {} {}({operands})", self.name, Typed { shape: &shape, layout: true }, self.opcode)?;
        for (name, value) in self.attributes(scope) {
            write!(f, ", {name}={value}")?;
        }
        writeln!(f)
    }

    /// What follows the operands. A message that is absent, and a list that is empty where XLA does not ask
    /// for it, is not printed.
    fn attributes(&self, scope: &Scope<'_>) -> Vec<(&'static str, String)> {
        let mut attributes = Vec::new();
        let mut add = |name, value: String| attributes.push((name, value));
        match self.opcode.as_str() {
            "iota" => add("iota_dimension", joined(&self.dimensions, ",")),
            "all-gather" | "broadcast" | "concatenate" | "map" | "reduce" | "reverse" | "sort"
            | "transpose" => add("dimensions", set(&self.dimensions)),
            "get-tuple-element" => add("index", self.tuple_index.to_string()),
            "dynamic-slice" => add("dynamic_slice_sizes", set(&self.dynamic_slice_sizes)),
            "slice" => {
                let bounds = self.slice_dimensions.iter().map(|bounds| match bounds.stride {
                    1 => format!("[{}:{}]", bounds.start, bounds.limit),
                    stride => format!("[{}:{}:{stride}]", bounds.start, bounds.limit),
                });
                add("slice", format!("{{{}}}", list(bounds)));
            }
            "compare" => {
                add("direction", self.comparison_direction.clone());
                if self.comparison_type == "TOTALORDER" {
                    add("type", self.comparison_type.clone());
                }
            }
            _ => (),
        }
        if !self.replica_groups.is_empty() {
            let groups = self.replica_groups.iter().map(|group| set(&group.replica_ids));
            add("replica_groups", format!("{{{}}}", joined(groups, ",")));
        }
        if let Some(window) = &self.window {
            add("window", window.text());
        }
        if let Some(padding) = &self.padding_config {
            let dimensions = padding.dimensions.iter().map(|dimension| {
                let (low, high) = (dimension.edge_padding_low, dimension.edge_padding_high);
                match dimension.interior_padding {
                    0 => format!("{low}_{high}"),
                    interior => format!("{low}_{high}_{interior}"),
                }
            });
            add("padding", joined(dimensions, "x"));
        }
        if let Some(numbers) = &self.dot_dimension_numbers {
            let lists = [
                ("lhs_batch_dims", &numbers.lhs_batch_dimensions),
                ("lhs_contracting_dims", &numbers.lhs_contracting_dimensions),
                ("rhs_batch_dims", &numbers.rhs_batch_dimensions),
                ("rhs_contracting_dims", &numbers.rhs_contracting_dimensions),
            ];
            for (name, dimensions) in lists {
                if name.ends_with("contracting_dims") || !dimensions.is_empty() {
                    add(name, set(dimensions));
                }
            }
        }
        if let Some(numbers) = &self.gather_dimension_numbers {
            numbers.print(&mut add);
            add("slice_sizes", set(&self.gather_slice_sizes));
        }
        if let Some(numbers) = &self.scatter_dimension_numbers {
            numbers.print(&mut add);
        }
        let flags = [
            ("indices_are_sorted", self.indices_are_sorted),
            ("unique_indices", self.unique_indices),
            ("is_stable", self.is_stable),
            ("custom_call_has_side_effect", self.custom_call_has_side_effect),
        ];
        for (name, flag) in flags {
            if flag {
                add(name, "true".to_owned());
            }
        }
        if let Some(precision) = &self.precision_config
            && precision.operand_precision.iter().any(|&number| number != 0)
        {
            let precisions = precision.operand_precision.iter().map(|number| match number {
                1 => "high",
                2 => "highest",
                _ => "default",
            });
            add("operand_precision", format!("{{{}}}", joined(precisions, ",")));
        }
        self.called(scope, &mut add);
        if self.opcode == "custom-call" {
            add("custom_call_target", quoted(self.custom_call_target.as_bytes()));
            if self.constrain_layout {
                let operands = self.operand_shapes_with_layout.iter();
                let operands = list(operands.map(|shape| Typed { shape, layout: true }));
                add("operand_layout_constraints", format!("{{{operands}}}"));
            }
            let api_version = match self.custom_call_api_version {
                2 => Some("API_VERSION_STATUS_RETURNING"),
                3 => Some("API_VERSION_STATUS_RETURNING_UNIFIED"),
                4 => Some("API_VERSION_TYPED_FFI"),
                _ => None,
            };
            if let Some(version) = api_version {
                add("api_version", version.to_owned());
            }
        }
        if !self.backend_config.is_empty() {
            add("backend_config", quoted(&self.backend_config));
        }
        attributes
    }

    /// The computations that it calls, by their roles.
    fn called(&self, scope: &Scope<'_>, add: &mut impl FnMut(&'static str, String)) {
        let called: Vec<_> =
            self.called_computation_ids.iter().map(|&id| reference(scope.computations, id)).collect();
        match (self.opcode.as_str(), called.as_slice()) {
            (_, []) => (),
            ("while", [body, condition]) => {
                add("condition", condition.clone());
                add("body", body.clone());
            }
            ("conditional", [on_true, on_false])
                if self.operand_ids.first().is_some_and(|id| scope.preds.contains(id)) =>
            {
                add("true_computation", on_true.clone());
                add("false_computation", on_false.clone());
            }
            ("conditional", branches) => add("branch_computations", format!("{{{}}}", list(branches))),
            ("custom-call", called) => add("called_computations", format!("{{{}}}", list(called))),
            ("fusion", called) => {
                add("kind", self.fusion_kind.clone());
                add("calls", list(called));
            }
            (_, called) => add("to_apply", list(called)),
        }
    }
}

impl Window {
    /// Sizes, and what differs from the defaults of strides and padding.
    fn text(&self) -> String {
        let each = |text: &dyn Fn(&WindowDimension) -> String| joined(self.dimensions.iter().map(text), "x");
        let mut parts = vec![format!("size={}", each(&|dimension| dimension.size.to_string()))];
        if self.dimensions.iter().any(|dimension| dimension.stride != 1) {
            parts.push(format!("stride={}", each(&|dimension| dimension.stride.to_string())));
        }
        if self.dimensions.iter().any(|dimension| (dimension.padding_low, dimension.padding_high) != (0, 0)) {
            let pad =
                |dimension: &WindowDimension| format!("{}_{}", dimension.padding_low, dimension.padding_high);
            parts.push(format!("pad={}", each(&pad)));
        }
        format!("{{{}}}", parts.join(" "))
    }
}

impl GatherDimensionNumbers {
    fn print(&self, add: &mut impl FnMut(&'static str, String)) {
        add("offset_dims", set(&self.offset_dims));
        add("collapsed_slice_dims", set(&self.collapsed_slice_dims));
        add("start_index_map", set(&self.start_index_map));
        if !self.operand_batching_dims.is_empty() {
            add("operand_batching_dims", set(&self.operand_batching_dims));
            add("start_indices_batching_dims", set(&self.start_indices_batching_dims));
        }
        add("index_vector_dim", self.index_vector_dim.to_string());
    }
}

impl ScatterDimensionNumbers {
    fn print(&self, add: &mut impl FnMut(&'static str, String)) {
        add("update_window_dims", set(&self.update_window_dims));
        add("inserted_window_dims", set(&self.inserted_window_dims));
        add("scatter_dims_to_operand_dims", set(&self.scatter_dims_to_operand_dims));
        if !self.input_batching_dims.is_empty() {
            add("input_batching_dims", set(&self.input_batching_dims));
            add("scatter_indices_batching_dims", set(&self.scatter_indices_batching_dims));
        }
        add("index_vector_dim", self.index_vector_dim.to_string());
    }
}

fn set(numbers: &[i64]) -> String {
    format!("{{{}}}", joined(numbers, ","))
}

/// A string literal, with C's escapes for what is not printable ASCII; octal ones, which end after 3 digits.
fn quoted(bytes: &[u8]) -> String {
    let escaped = bytes.iter().map(|&byte| match byte {
        b'"' | b'\\' => format!("\\{}", byte as char),
        b' '..=b'~' => (byte as char).to_string(),
        _ => format!("\\{byte:03o}"),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

/// A shape, such as `f32[2,3]{1,0}`, with or without the layouts.
struct Typed<'a> {
    shape: &'a ShapeProto,
    layout: bool,
}

impl Display for Typed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Typed { shape, layout } = *self;
        if shape.element_type == TUPLE {
            return write!(f, "({})", list(shape.tuple_shapes.iter().map(|shape| Typed { shape, layout })));
        }
        let dtype = PRIMITIVE_TYPES.iter().find(|(_, number)| *number == shape.element_type);
        let name = match dtype {
            Some((dtype, _)) => dtype.name(),
            None if shape.element_type == TOKEN => "token",
            None => "invalid",
        };
        write!(f, "{name}[{}]", joined(&shape.dimensions, ","))?;
        match &shape.layout {
            Some(order) if layout && !shape.dimensions.is_empty() => {
                write!(f, "{{{}}}", joined(&order.minor_to_major, ","))
            }
            _ => Ok(()),
        }
    }
}

impl LiteralProto {
    fn text(&self) -> String {
        let shape = self.shape.clone().unwrap_or_default();
        let dims: Vec<usize> =
            shape.dimensions.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect();
        // The rows of [1000,0] take room too, though they have no elements.
        if dims.iter().fold(1, |count: usize, &dim| count.saturating_mul(dim.max(1))) > PRINTED {
            return "{...}".to_owned();
        }
        nested(&dims, &mut self.elements().into_iter())
    }

    fn elements(&self) -> Vec<String> {
        fn texts<T>(elements: &[T], text: impl Fn(&T) -> String) -> Vec<String> {
            elements.iter().map(text).collect()
        }
        fn halves(bytes: &[u8], text: impl Fn([u8; 2]) -> String) -> Vec<String> {
            bytes.chunks_exact(2).map(|pair| text([pair[0], pair[1]])).collect()
        }
        let number = self.shape.as_ref().map_or(0, |shape| shape.element_type);
        let dtype = PRIMITIVE_TYPES.iter().find(|(_, known)| *known == number);
        match dtype.map(|(dtype, _)| dtype) {
            None => Vec::new(),
            Some(DType::Pred) => texts(&self.preds, bool::to_string),
            Some(DType::S8) => texts(&self.s8s, |&x| (x as i8).to_string()),
            Some(DType::U8) => texts(&self.u8s, u8::to_string),
            Some(DType::S16) => halves(&self.s16s, |pair| i16::from_ne_bytes(pair).to_string()),
            Some(DType::U16) => halves(&self.u16s, |pair| u16::from_ne_bytes(pair).to_string()),
            Some(DType::S32) => texts(&self.s32s, i32::to_string),
            Some(DType::U32) => texts(&self.u32s, u32::to_string),
            Some(DType::S64) => texts(&self.s64s, i64::to_string),
            Some(DType::U64) => texts(&self.u64s, u64::to_string),
            Some(DType::F16) => halves(&self.f16s, |pair| float(f16::from_ne_bytes(pair).to_f32())),
            Some(DType::BF16) => halves(&self.bf16s, |pair| float(bf16::from_ne_bytes(pair).to_f32())),
            Some(DType::F32) => texts(&self.f32s, |&x| float(x)),
            Some(DType::F64) => texts(&self.f64s, |&x| float(x)),
        }
    }
}

/// The shortest text that reads back as `x`; of a NaN, its sign but not its payload.
fn float<T: Copy + Into<f64> + std::fmt::Debug>(x: T) -> String {
    let value: f64 = x.into();
    match (value.is_nan(), value.is_sign_negative()) {
        (true, true) => "-nan".to_owned(),
        (true, false) => "nan".to_owned(),
        // Without its fraction, it would be read as the integer 0.
        _ if value == 0.0 && value.is_sign_negative() => "-0.0".to_owned(),
        (false, _) => {
            let text = format!("{x:?}");
            text.strip_suffix(".0").unwrap_or(&text).to_owned()
        }
    }
}

/// Elements in braces, one pair for each dimension's index.
fn nested(dims: &[usize], elements: &mut impl Iterator<Item = String>) -> String {
    match dims {
        [] => elements.next().unwrap_or_default(),
        [size] => format!("{{{}}}", list(elements.take(*size))),
        [size, rest @ ..] => {
            let rows: Vec<_> = (0..*size).map(|_| nested(rest, elements)).collect();
            format!("{{ {} }}", rows.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::Convention;
    use crate::hlo::Builder;
    use crate::{Array, DType, Function, Result, Shape, Tensor};

    fn text(shapes: &[Shape], body: impl FnOnce(&[Tensor]) -> Result<Tensor>) -> String {
        let function = Function::trace("f", shapes, body).unwrap();
        let mut builder = Builder::default();
        function.emit(&mut builder, Convention::Flat).unwrap();
        builder.finish("f").to_string()
    }

    /// The instructions of the only computation that are not parameters.
    fn body(shapes: &[Shape], body: impl FnOnce(&[Tensor]) -> Result<Tensor>) -> Vec<String> {
        let text = text(shapes, body);
        let lines = text.lines().filter(|line| line.starts_with("  ") && !line.contains(" parameter("));
        lines.map(|line| line.trim_start().to_owned()).collect()
    }

    #[test]
    fn a_module_is_printed_as_xlas() {
        let vector = Shape::new(DType::F32, [2]);
        assert_eq!(
            text(&[vector.clone(), vector], |x| (&x[0] + &x[1])?.less(1.5f32)),
            "HloModule f, entry_computation_layout={(f32[2]{0}, f32[2]{0})->pred[2]{0}}

ENTRY %f (parameter: f32[2], parameter.2: f32[2]) -> pred[2] {
  %parameter = f32[2]{0} parameter(0)
  %parameter.2 = f32[2]{0} parameter(1)
  %add = f32[2]{0} add(%parameter, %parameter.2)
  %constant = f32[] constant(1.5)
  %broadcast = f32[2]{0} broadcast(%constant), dimensions={}
  ROOT %compare = pred[2]{0} compare(%add, %broadcast), direction=LT
}
"
        );
    }

    #[test]
    fn attributes_are_printed() {
        let matrix = [Shape::new(DType::F32, [4, 3]), Shape::scalar(DType::S32)];
        assert_eq!(
            body(&matrix, |x| x[0].slice(&[0, 1], &[4, 3], &[2, 1])?.transpose(&[1, 0])?.reverse(&[0])),
            [
                "%slice = f32[2,2]{1,0} slice(%parameter), slice={[0:4:2], [1:3]}",
                "%transpose = f32[2,2]{1,0} transpose(%slice), dimensions={1,0}",
                "ROOT %reverse = f32[2,2]{1,0} reverse(%transpose), dimensions={0}",
            ]
        );
        assert_eq!(
            body(&matrix, |x| x[0].pad(-0.0f32, &[-1, 0], &[2, 0], &[0, 1])),
            [
                "%constant = f32[] constant(-0.0)",
                "ROOT %pad = f32[5,5]{1,0} pad(%parameter, %constant), padding=-1_2x0_0_1",
            ]
        );
        assert_eq!(
            body(&matrix, |x| x[0].dynamic_slice(&[&x[1], &x[1]], &[1, 2])),
            ["ROOT %dynamic-slice = f32[1,2]{1,0} dynamic-slice(%parameter, %parameter.2, %parameter.2), \
                 dynamic_slice_sizes={1,2}"]
        );
    }

    #[test]
    fn constants_are_printed_as_literals() {
        let of = |array: Array| {
            let graph = crate::Builder::new("f");
            let function = graph.finish(graph.constant(array).unwrap()).unwrap();
            let mut builder = Builder::default();
            function.emit(&mut builder, Convention::Flat).unwrap();
            let text = builder.finish("f").to_string();
            let line = text.lines().nth(3).unwrap().trim_start();
            line.strip_prefix("ROOT %constant = ").unwrap().to_owned()
        };
        assert_eq!(
            of(Array::new([2, 2], &[1f32, -0.0, f32::NAN, -f32::INFINITY]).unwrap()),
            "f32[2,2]{1,0} constant({ {1, -0.0}, {nan, -inf} })"
        );
        assert_eq!(of(Array::new([2], &[true, false]).unwrap()), "pred[2]{0} constant({true, false})");
        assert_eq!(of(Array::scalar(1e300)), "f64[] constant(1e300)");
        assert_eq!(of(Array::new([2, 0], &[0u8; 0]).unwrap()), "u8[2,0]{1,0} constant({ {}, {} })");
        assert_eq!(of(Array::new([257], &[0u8; 257]).unwrap()), "u8[257]{0} constant({...})");
    }
}
