//! Building a module instruction by instruction.

use std::collections::HashMap;

use crate::hlo::proto::{
    HloComputationProto, HloInstructionProto, HloModuleProto, LiteralProto, ProgramShapeProto, ShapeProto,
};
use crate::{Array, DType, Error, Result, Shape};

/// An array-shaped instruction of the open computation.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    id: i64,
    shape: Shape,
}

impl Value {
    pub(crate) fn id(&self) -> Root {
        Root(self.id)
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }
}

/// An instruction that can be the root of a computation.
pub(crate) struct Root(i64);

/// A finished computation of the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Computation(i64);

impl Computation {
    pub(crate) fn id(self) -> i64 {
        self.0
    }
}

/// Collects the computations of a module. Instructions go to the open computation, the innermost one.
#[derive(Default)]
pub(crate) struct Builder {
    computations: Vec<HloComputationProto>,
    open: Vec<Vec<HloInstructionProto>>,
    last_id: i64,
    names: HashMap<String, usize>,
}

impl Builder {
    /// Adds a computation, whose instructions `body` adds, giving its root.
    pub(crate) fn computation(
        &mut self,
        name: &str,
        body: impl FnOnce(&mut Builder) -> Result<Root>,
    ) -> Result<Computation> {
        self.open.push(Vec::new());
        let root = body(self);
        let instructions = self.open.pop().unwrap_or_default();
        let Root(root_id) = root?;
        let mut parameters: Vec<_> = instructions.iter().filter(|i| i.opcode == "parameter").collect();
        parameters.sort_by_key(|parameter| parameter.parameter_number);
        let program_shape = ProgramShapeProto {
            parameters: parameters.iter().filter_map(|parameter| parameter.shape.clone()).collect(),
            result: instructions.iter().find(|i| i.id == root_id).and_then(|root| root.shape.clone()),
            parameter_names: parameters.iter().map(|parameter| parameter.name.clone()).collect(),
        };
        let id = self.new_id();
        let name = self.unique_name(name);
        self.computations.push(HloComputationProto {
            name,
            instructions,
            program_shape: Some(program_shape),
            id,
            root_id,
        });
        Ok(Computation(id))
    }

    /// The module whose entry is the computation that was added last.
    pub(crate) fn finish(self, name: &str) -> HloModuleProto {
        let entry = self.computations.last();
        HloModuleProto {
            name: identifier(name),
            entry_computation_name: entry.map(|entry| entry.name.clone()).unwrap_or_default(),
            entry_computation_id: entry.map(|entry| entry.id).unwrap_or_default(),
            host_program_shape: entry.and_then(|entry| entry.program_shape.clone()),
            computations: self.computations,
            id: 0,
        }
    }

    /// Adds an instruction of array shape.
    pub(crate) fn add(&mut self, opcode: &str, shape: &Shape, operands: &[&Value]) -> Value {
        self.add_with(opcode, shape, operands, |_| ())
    }

    /// Adds an instruction of array shape, whose further fields `edit` sets.
    pub(crate) fn add_with(
        &mut self,
        opcode: &str,
        shape: &Shape,
        operands: &[&Value],
        edit: impl FnOnce(&mut HloInstructionProto),
    ) -> Value {
        let id = self.push(opcode, shape.into(), operands, edit);
        Value { id, shape: shape.clone() }
    }

    /// Adds an instruction with several results: one of tuple shape, and what takes the tuple apart. A single
    /// shape makes an instruction of that array shape, as XLA wants of its variadic instructions.
    pub(crate) fn add_variadic(
        &mut self,
        opcode: &str,
        shapes: &[Shape],
        operands: &[&Value],
        edit: impl FnOnce(&mut HloInstructionProto),
    ) -> Vec<Value> {
        match shapes {
            [shape] => vec![self.add_with(opcode, shape, operands, edit)],
            _ => {
                let operand_ids: Vec<_> = operands.iter().map(|operand| operand.id).collect();
                self.add_tuple(opcode, shapes, operand_ids, edit)
            }
        }
    }

    /// Adds an instruction of tuple shape from operand ids of any shape, and what takes it apart.
    fn add_tuple(
        &mut self,
        opcode: &str,
        shapes: &[Shape],
        operand_ids: Vec<i64>,
        edit: impl FnOnce(&mut HloInstructionProto),
    ) -> Vec<Value> {
        let shape = ShapeProto::tuple(shapes.iter().map(ShapeProto::from).collect());
        let tuple = self.push(opcode, shape, &[], |instruction| {
            instruction.operand_ids = operand_ids;
            edit(instruction);
        });
        (0..)
            .zip(shapes)
            .map(|(index, shape)| {
                self.add_with("get-tuple-element", shape, &[], |instruction| {
                    instruction.operand_ids = vec![tuple];
                    instruction.tuple_index = index;
                })
            })
            .collect()
    }

    /// Adds an instruction that takes and gives tuples: `while` takes its state's; `conditional` a predicate
    /// (`first`) and one for each branch.
    pub(crate) fn add_control(
        &mut self,
        opcode: &str,
        shapes: &[Shape],
        first: Option<&Value>,
        tuples: &[&[Value]],
        called: &[Computation],
    ) -> Vec<Value> {
        let mut operand_ids: Vec<_> = first.iter().map(|value| value.id).collect();
        for values in tuples {
            let Root(id) = self.tuple(values);
            operand_ids.push(id);
        }
        self.add_tuple(opcode, shapes, operand_ids, |instruction| {
            instruction.called_computation_ids = called.iter().map(|computation| computation.0).collect();
        })
    }

    /// Adds a tuple.
    pub(crate) fn tuple(&mut self, values: &[Value]) -> Root {
        let shape = ShapeProto::tuple(values.iter().map(|value| ShapeProto::from(&value.shape)).collect());
        Root(self.push("tuple", shape, &values.iter().collect::<Vec<_>>(), |_| ()))
    }

    /// Adds the parameter of that number.
    pub(crate) fn parameter(&mut self, number: i64, name: &str, shape: &Shape) -> Value {
        self.add_with("parameter", shape, &[], |instruction| {
            instruction.parameter_number = number;
            if !name.is_empty() {
                instruction.name = identifier(name);
            }
        })
    }

    /// Adds a tuple as the only parameter, taken apart.
    pub(crate) fn tuple_parameter(&mut self, shapes: &[Shape]) -> Vec<Value> {
        self.add_tuple("parameter", shapes, Vec::new(), |_| ())
    }

    /// Adds a constant.
    pub(crate) fn constant(&mut self, array: &Array) -> Value {
        self.add_with("constant", array.shape(), &[], |instruction| {
            instruction.literal = Some(literal(array));
        })
    }

    /// Adds a scalar of that dtype, broadcast to `dims`.
    pub(crate) fn splat(&mut self, scalar: &Array, dims: &[usize]) -> Value {
        let scalar = self.constant(scalar);
        if dims.is_empty() {
            return scalar;
        }
        let shape = scalar.shape.with_dims(dims);
        self.add("broadcast", &shape, &[&scalar])
    }

    fn push(
        &mut self,
        opcode: &str,
        shape: ShapeProto,
        operands: &[&Value],
        edit: impl FnOnce(&mut HloInstructionProto),
    ) -> i64 {
        let id = self.new_id();
        let mut instruction = HloInstructionProto {
            opcode: opcode.to_owned(),
            shape: Some(shape),
            id,
            operand_ids: operands.iter().map(|operand| operand.id).collect(),
            ..Default::default()
        };
        edit(&mut instruction);
        let name = if instruction.name.is_empty() { opcode } else { &instruction.name };
        instruction.name = self.unique_name(name);
        if let Some(open) = self.open.last_mut() {
            open.push(instruction);
        }
        id
    }

    fn new_id(&mut self) -> i64 {
        self.last_id += 1;
        self.last_id
    }

    /// `name`, made unique in the module with a number.
    fn unique_name(&mut self, name: &str) -> String {
        let name = identifier(name);
        let count = self.names.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count == 1 { name } else { format!("{name}.{count}") }
    }
}

/// `name` with what HLO text does not allow in a name replaced; names end up in error messages and profiles.
fn identifier(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let text: String = name.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    if text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') { text } else { format!("_{text}") }
}

impl LiteralProto {
    /// The elements as an array.
    pub(super) fn to_array(&self) -> Result<Array> {
        let shape = self.shape.as_ref().and_then(|shape| shape.to_shape());
        let shape =
            shape.ok_or_else(|| Error::argument("literal", "shape", "that of an array", "another one"))?;
        match shape.dtype() {
            DType::Pred => {
                Array::from_bytes(shape, &self.preds.iter().map(|&pred| pred.into()).collect::<Vec<u8>>())
            }
            DType::S8 => Array::from_bytes(shape, &self.s8s),
            DType::U8 => Array::from_bytes(shape, &self.u8s),
            DType::S16 => Array::from_bytes(shape, &self.s16s),
            DType::U16 => Array::from_bytes(shape, &self.u16s),
            DType::F16 => Array::from_bytes(shape, &self.f16s),
            DType::BF16 => Array::from_bytes(shape, &self.bf16s),
            DType::S32 => Array::from_bytes(shape, bytemuck::cast_slice(&self.s32s)),
            DType::S64 => Array::from_bytes(shape, bytemuck::cast_slice(&self.s64s)),
            DType::U32 => Array::from_bytes(shape, bytemuck::cast_slice(&self.u32s)),
            DType::U64 => Array::from_bytes(shape, bytemuck::cast_slice(&self.u64s)),
            DType::F32 => Array::from_bytes(shape, bytemuck::cast_slice(&self.f32s)),
            DType::F64 => Array::from_bytes(shape, bytemuck::cast_slice(&self.f64s)),
        }
    }
}

fn literal(array: &Array) -> LiteralProto {
    let bytes = array.as_bytes();
    let mut literal = LiteralProto { shape: Some(array.shape().into()), ..Default::default() };
    match array.shape().dtype() {
        DType::Pred => literal.preds = bytes.iter().map(|&byte| byte != 0).collect(),
        DType::S8 => literal.s8s = bytes.to_vec(),
        DType::U8 => literal.u8s = bytes.to_vec(),
        DType::S16 => literal.s16s = bytes.to_vec(),
        DType::U16 => literal.u16s = bytes.to_vec(),
        DType::F16 => literal.f16s = bytes.to_vec(),
        DType::BF16 => literal.bf16s = bytes.to_vec(),
        DType::S32 => literal.s32s = bytemuck::cast_slice(bytes).to_vec(),
        DType::S64 => literal.s64s = bytemuck::cast_slice(bytes).to_vec(),
        DType::U32 => literal.u32s = bytemuck::cast_slice(bytes).to_vec(),
        DType::U64 => literal.u64s = bytemuck::cast_slice(bytes).to_vec(),
        DType::F32 => literal.f32s = bytemuck::cast_slice(bytes).to_vec(),
        DType::F64 => literal.f64s = bytemuck::cast_slice(bytes).to_vec(),
    }
    literal
}
