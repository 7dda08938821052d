//! MLIR's syntax: types, literals and attributes.

use std::fmt::Display;

use crate::hlo::proto::{HloInstructionProto, ShapeProto};
use crate::{Array, DType, Shape};

/// How many elements of a constant are listed; those of a larger one are written as one number.
const LISTED: usize = 64;

/// A type, such as `tensor<2x3xf32>`.
pub(super) fn tensor(shape: &Shape) -> String {
    let dims: String = shape.dims().iter().map(|dim| format!("{dim}x")).collect();
    let name = shape.dtype().name();
    match shape.dtype() {
        DType::Pred => format!("tensor<{dims}i1>"),
        dtype if dtype.is_signed_integer() => format!("tensor<{dims}{}>", name.replace('s', "i")),
        dtype if dtype.is_unsigned_integer() => format!("tensor<{dims}{}>", name.replace('u', "ui")),
        _ => format!("tensor<{dims}{name}>"),
    }
}

/// The elements of a constant, such as `dense<[1.0, 2.0]>`.
pub(super) fn dense(array: &Array) -> String {
    let dtype = array.shape().dtype();
    let mut elements = array.as_bytes().chunks_exact(dtype.size());
    let count = elements.len();
    if count == 0 {
        return "dense<>".to_owned();
    }
    // One element stands for all where they are equal.
    if elements.clone().all(|element| element == &array.as_bytes()[..dtype.size()]) {
        return format!("dense<{}>", element(dtype, &array.as_bytes()[..dtype.size()]));
    }
    // In such a number, a pred is a single bit in some versions of MLIR.
    if count > LISTED && dtype != DType::Pred {
        let digit = |number: u8| char::from_digit(number.into(), 16).unwrap_or_default();
        let mut text = String::with_capacity(2 * array.as_bytes().len() + 16);
        text.push_str("dense<\"0x");
        for byte in array.as_bytes() {
            text.extend([digit(byte >> 4), digit(byte & 15)]);
        }
        text.push_str("\">");
        return text;
    }
    let mut texts = (&mut elements).map(|bytes| element(dtype, bytes));
    format!("dense<{}>", nested(array.shape().dims(), &mut texts))
}

/// Elements in brackets, one pair for each dimension's index.
fn nested(dims: &[usize], elements: &mut impl Iterator<Item = String>) -> String {
    match dims {
        [] => elements.next().unwrap_or_default(),
        [size, rest @ ..] => format!("[{}]", list((0..*size).map(|_| nested(rest, elements)))),
    }
}

/// One element, from its bytes.
fn element(dtype: DType, bytes: &[u8]) -> String {
    let scalar = Array::filled(Shape::scalar(dtype), |target| target.copy_from_slice(bytes));
    if dtype == DType::Pred {
        return (bytes != [0]).to_string();
    }
    if dtype.is_integer() {
        return list(scalar.to_i128());
    }
    float(&scalar)
}

/// A float as MLIR reads it: the shortest decimal number where that stands for it, else the number of its bits.
pub(crate) fn float(scalar: &Array) -> String {
    let value = scalar.to_f64()[0];
    let text = match scalar.shape().dtype() {
        DType::F64 => format!("{value:?}"),
        _ => format!("{:?}", value as f32),
    };
    // MLIR wants a point, and reads a number as f64 before it rounds it to its type.
    let text = match text.split_once('e') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0e{exponent}"),
        _ => text,
    };
    let read = text.parse::<f64>().ok().filter(|read| read.is_finite());
    let again = read.and_then(|read| Array::from_f64(scalar.shape().clone(), &[read]).ok());
    match again {
        Some(again) if again.as_bytes() == scalar.as_bytes() => text,
        _ => {
            let digits: String = scalar.as_bytes().iter().rev().map(|byte| format!("{byte:02X}")).collect();
            format!("0x{digits}")
        }
    }
}

/// A string.
pub(super) fn quoted(text: &str) -> String {
    let escaped = text.bytes().map(|byte| match byte {
        b'"' | b'\\' => format!("\\{}", byte as char),
        b' '..=b'~' => (byte as char).to_string(),
        _ => format!("\\{byte:02X}"),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

/// The name of a function, a module or a custom call's target.
pub(super) fn symbol(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.');
    match name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(allowed) {
        true => format!("@{name}"),
        false => format!("@{}", quoted(name)),
    }
}

pub(super) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// Numbers as most attributes have them: `[1, 0]`.
pub(super) fn square(numbers: &[i64]) -> String {
    format!("[{}]", list(numbers))
}

/// Numbers as those attributes have them that name their type: `array<i64: 1, 0>`.
pub(super) fn i64_array(numbers: &[i64]) -> String {
    match numbers {
        [] => "array<i64>".to_owned(),
        _ => format!("array<i64: {}>", list(numbers)),
    }
}

/// The layouts of arrays.
pub(super) fn layouts(shapes: &[ShapeProto]) -> String {
    let layout =
        |shape: &ShapeProto| match shape.layout.as_ref().map(|layout| layout.minor_to_major.as_slice()) {
            None | Some([]) => "dense<> : tensor<0xindex>".to_owned(),
            Some(order) => format!("dense<{}> : tensor<{}xindex>", square(order), order.len()),
        };
    format!("[{}]", list(shapes.iter().map(layout)))
}

/// What follows the operands of a `dot_general`.
pub(super) fn dot_attributes(instruction: &HloInstructionProto) -> String {
    let numbers = instruction.dot_dimension_numbers.clone().unwrap_or_default();
    let pair = |lhs: &[i64], rhs: &[i64]| format!("{} x {}", square(lhs), square(rhs));
    let mut text = String::new();
    if !numbers.lhs_batch_dimensions.is_empty() {
        text += ", batching_dims = ";
        text += &pair(&numbers.lhs_batch_dimensions, &numbers.rhs_batch_dimensions);
    }
    text += ", contracting_dims = ";
    text += &pair(&numbers.lhs_contracting_dimensions, &numbers.rhs_contracting_dimensions);
    let precisions = instruction.precision_config.clone().unwrap_or_default().operand_precision;
    if precisions.iter().any(|&number| number != 0) {
        let name = |number: &i32| match number {
            1 => "HIGH",
            2 => "HIGHEST",
            _ => "DEFAULT",
        };
        text += &format!(", precision = [{}]", list(precisions.iter().map(name)));
    }
    text
}

/// The attributes of a `gather`.
pub(super) fn gather_attributes(instruction: &HloInstructionProto) -> String {
    let numbers = instruction.gather_dimension_numbers.clone().unwrap_or_default();
    let numbers = dimension_numbers(
        &[
            ("offset_dims", &numbers.offset_dims),
            ("collapsed_slice_dims", &numbers.collapsed_slice_dims),
            ("operand_batching_dims", &numbers.operand_batching_dims),
            ("start_indices_batching_dims", &numbers.start_indices_batching_dims),
            ("start_index_map", &numbers.start_index_map),
        ],
        numbers.index_vector_dim,
    );
    format!(
        "dimension_numbers = #stablehlo.gather<{numbers}>, indices_are_sorted = {}, slice_sizes = {}",
        instruction.indices_are_sorted,
        i64_array(&instruction.gather_slice_sizes)
    )
}

/// The attributes of a `scatter`.
pub(super) fn scatter_attributes(instruction: &HloInstructionProto) -> String {
    let numbers = instruction.scatter_dimension_numbers.clone().unwrap_or_default();
    let numbers = dimension_numbers(
        &[
            ("update_window_dims", &numbers.update_window_dims),
            ("inserted_window_dims", &numbers.inserted_window_dims),
            ("input_batching_dims", &numbers.input_batching_dims),
            ("scatter_indices_batching_dims", &numbers.scatter_indices_batching_dims),
            ("scatter_dims_to_operand_dims", &numbers.scatter_dims_to_operand_dims),
        ],
        numbers.index_vector_dim,
    );
    format!(
        "indices_are_sorted = {}, scatter_dimension_numbers = #stablehlo.scatter<{numbers}>, unique_indices = {}",
        instruction.indices_are_sorted, instruction.unique_indices
    )
}

/// The lists that are not empty, then the dimension of index vectors.
fn dimension_numbers(lists: &[(&str, &[i64])], index_vector_dim: i64) -> String {
    let there = lists.iter().filter(|(_, numbers)| !numbers.is_empty());
    let mut texts: Vec<String> =
        there.map(|(name, numbers)| format!("{name} = {}", square(numbers))).collect();
    texts.push(format!("index_vector_dim = {index_vector_dim}"));
    texts.join(", ")
}

/// The attributes of a `reduce_window`.
pub(super) fn window_attributes(instruction: &HloInstructionProto) -> String {
    let dimensions = instruction.window.clone().unwrap_or_default().dimensions;
    let rank = dimensions.len();
    let padding = dimensions.iter().map(|dimension| square(&[dimension.padding_low, dimension.padding_high]));
    let padding = match rank {
        0 => String::new(),
        _ => format!("[{}]", list(padding)),
    };
    let mut texts = vec![format!("padding = dense<{padding}> : tensor<{rank}x2xi64>")];
    let mut add = |name: &str, numbers: Vec<i64>| texts.push(format!("{name} = {}", i64_array(&numbers)));
    add("window_dimensions", dimensions.iter().map(|dimension| dimension.size).collect());
    add("window_strides", dimensions.iter().map(|dimension| dimension.stride).collect());
    add("base_dilations", dimensions.iter().map(|dimension| dimension.base_dilation).collect());
    add("window_dilations", dimensions.iter().map(|dimension| dimension.window_dilation).collect());
    texts.join(", ")
}
