//! Recognising a search: an approximate top-k of the products of queries with the rows of a database.
//!
//! Of scores `[batch.., query.., shared.., n]`, the products of a tensor with dimensions `batch`, `query` and those that
//! are summed over, and one with `batch`, `shared`, n and those that are summed over: a search of each batch and each
//! index of `shared` in a database of its own.

use std::collections::HashMap;

use crate::graph::{Equation, Function, Tensor, Var};
use crate::lower::precision::{Reduced, is_reducible};
use crate::ops::Op;
use crate::ops::approx_top_k::{ApproxTopK, Direction};
use crate::ops::binary::Binary;
use crate::ops::dot_general::DotGeneral;
use crate::{DType, Result};

/// The parts of a search, as the kernel takes them.
pub(super) struct Search {
    /// `[batch, q, d]`.
    pub(super) queries: Tensor,
    /// `[batch, n, d]`.
    pub(super) database: Tensor,
    /// `[batch, n]`, where the least half norm less the product is searched for, rather than the largest product.
    pub(super) half_norms: Option<Tensor>,
    /// `[batch, n]`, where products are to be multiplied by these first.
    pub(super) scales: Option<Tensor>,
    /// Whether what is wanted are the negatives of such differences, the largest first.
    pub(super) is_negated: bool,
    /// Pred `[batch, n]`, where some rows are masked out; their half norms are infinite.
    pub(super) kept: Option<Tensor>,
    /// The database of fewer digits, where the function has it.
    pub(super) reduced: Option<Reduced>,
    /// The sizes of the product's dimensions but for its last: those of a batch, of queries, and shared by queries.
    sizes: [Vec<usize>; 3],
    /// For each dimension of the scores, that of the product.
    permutation: Vec<usize>,
}

impl Search {
    /// What was found, `[batch, q, k]`, in the dimensions of the scores.
    pub(super) fn restore(&self, found: &Tensor) -> Result<Tensor> {
        let [batch, query, shared] = &self.sizes;
        let k = found.dims()[2];
        let (first, second) = (batch.len(), batch.len() + shared.len());
        let last = second + query.len();
        let order = (0..first).chain(second..last).chain(first..second).chain([last]);
        let found = transposed(&found.reshape(&[&batch[..], shared, query, &[k]].concat())?, order)?;
        transposed(&found, self.permutation.iter().copied())
    }
}

/// The equations of a function by what they define, and how often that is read.
pub(super) struct Uses<'a> {
    equations: HashMap<Var, &'a Equation>,
    reads: HashMap<Var, usize>,
}

impl<'a> Uses<'a> {
    pub(super) fn of(function: &'a Function) -> Uses<'a> {
        let mut uses = Uses { equations: HashMap::new(), reads: HashMap::new() };
        for equation in function.equations() {
            uses.equations.extend(equation.outputs().iter().map(|&var| (var, equation)));
        }
        let inputs = function.equations().iter().flat_map(|equation| equation.inputs());
        for &var in inputs.chain(function.results()) {
            *uses.reads.entry(var).or_default() += 1;
        }
        uses
    }

    /// What defines a variable that nothing but one equation reads.
    fn own(&self, var: Var) -> Option<&'a Equation> {
        self.equations.get(&var).copied().filter(|_| self.reads.get(&var) == Some(&1))
    }

    /// Whether a variable is a constant of this number, broadcast.
    fn is_full_of(&self, var: Var, number: f64) -> bool {
        match self.equations.get(&var) {
            Some(Equation { op: Op::Constant(constant), .. }) => {
                constant.value.to_f64().iter().all(|&x| x == number)
            }
            Some(Equation { op: Op::BroadcastInDim(_) | Op::Reshape(_), inputs, .. }) => {
                self.is_full_of(inputs[0], number)
            }
            _ => false,
        }
    }

    /// The operand of the conversion that defines a variable; else the variable.
    fn unconverted(&self, var: Var) -> Var {
        match self.equations.get(&var) {
            Some(Equation { op: Op::Convert(_), inputs, .. }) => inputs[0],
            _ => var,
        }
    }
}

/// The search that an approximate top-k is a part of, or why it is none that the kernel can do. `value` gives the tensors
/// of variables that equations before it have read.
pub(super) fn search(
    op: &ApproxTopK,
    equation: &Equation,
    uses: &Uses<'_>,
    value: &dyn Fn(Var) -> Option<Tensor>,
) -> Result<std::result::Result<Search, &'static str>> {
    let [scores] = equation.inputs() else { return Ok(Err("it carries operands along")) };
    if uses.own(*scores).is_none() {
        return Ok(Err("the operand is an argument, or read elsewhere, too"));
    }
    let Some(parts) = Parts::of(*scores, uses, op.direction) else {
        return Ok(Err("the operand is no products, with scales, half norms, a bias or a mask of the rows"));
    };
    if parts.is_negative != (op.direction == Direction::Min) {
        return Ok(Err(
            "the operand is neither products, searched for the largest, nor half norms less those",
        ));
    }
    let (product, permutation) = match &parts.product.op {
        Op::Transpose(transpose) => (uses.own(parts.product.inputs()[0]), transpose.permutation.clone()),
        _ => {
            let rank = value(*scores).map_or(0, |scores| scores.rank());
            (Some(parts.product), (0..rank).collect())
        }
    };
    let Some(Equation { op: Op::DotGeneral(dot), .. }) = product else {
        return Ok(Err("the operand is no products"));
    };
    let Some(&[lhs, rhs]) = product.and_then(|product| product.inputs().first_chunk()) else {
        return Ok(Err("the operand is no products"));
    };
    let (Some(mut queries), Some(mut database)) = (value(lhs), value(rhs)) else {
        return Ok(Err("the operand is no products"));
    };
    if database.dtype() != DType::F32 {
        return Ok(Err("the products are not of f32"));
    }
    // As they were before a conversion to f32: the kernel sums products of either in f32, too.
    let is_narrow = |tensor: &Tensor| matches!(tensor.dtype(), DType::F16 | DType::BF16);
    if let Some(narrow) = value(uses.unconverted(rhs)).filter(is_narrow) {
        database = narrow;
        queries = value(uses.unconverted(lhs)).filter(is_narrow).unwrap_or(queries);
    }
    let free = |rank: usize, batch: &[usize], contracting: &[usize]| -> Vec<usize> {
        (0..rank).filter(|dim| !batch.contains(dim) && !contracting.contains(dim)).collect()
    };
    let DotGeneral { lhs_contracting, rhs_contracting, lhs_batch, rhs_batch } = dot;
    let lhs_free = free(queries.rank(), lhs_batch, lhs_contracting);
    let rhs_free = free(database.rank(), rhs_batch, rhs_contracting);
    let Some((rows, shared)) = rhs_free.split_last() else { return Ok(Err("the database is a vector")) };
    if permutation[op.reduction_dimension] + 1 != permutation.len() {
        return Ok(Err("it is not along the dimension of the database's rows"));
    }
    let mut order = [&rhs_batch[..], &rhs_free, rhs_contracting].concat();
    let mut source = rhs;
    if let Some(Equation { op: Op::Transpose(transpose), inputs, .. }) = uses.equations.get(&rhs)
        && let Some(operand) = value(inputs[0])
    {
        order = order.iter().map(|&dim| transpose.permutation[dim]).collect();
        (source, database) = (inputs[0], operand);
    }
    if !order.iter().copied().eq(0..order.len()) {
        return Ok(Err("the database would have to be transposed"));
    }
    let sizes = |tensor: &Tensor, dims: &[usize]| -> Vec<usize> {
        dims.iter().map(|&dim| tensor.dims()[dim]).collect()
    };
    let (batch, query) = (sizes(&queries, lhs_batch), sizes(&queries, &lhs_free));
    let width: usize = sizes(&queries, lhs_contracting).iter().product();
    // Those of the product's own operand: a transposed database has others.
    let Some(product_rhs) = value(rhs) else { return Ok(Err("the operand is no products")) };
    let (shared, rows) = (sizes(&product_rhs, shared), product_rhs.dims()[*rows]);
    let [batches, repeats, count]: [usize; 3] = [&batch, &shared, &query].map(|sizes| sizes.iter().product());
    if [batches, repeats, count, rows, width].contains(&0) {
        return Ok(Err("there is nothing to search"));
    }
    let of_rows = |var: Var| -> Result<Option<Tensor>> {
        let sizes = [&batch[..], &query, &[&shared[..], &[rows]].concat()];
        let weights = broadcast_weights(var, uses, value, &permutation, sizes)?;
        weights.map(|weights| weights.reshape(&[batches * repeats, rows])).transpose()
    };
    let (mut scales, mut half_norms, mut kept) = (None, None, None::<Tensor>);
    const DIFFER: &str = "the norms, scales, bias or mask of the rows differ between queries";
    if let Some(var) = parts.scales {
        let Some(tensor) = of_rows(var)? else { return Ok(Err(DIFFER)) };
        scales = Some(tensor);
    }
    // What products are subtracted from: the other sign where the largest is searched for.
    if let Some((is_negative, var)) = parts.offset {
        let Some(tensor) = of_rows(var)? else { return Ok(Err(DIFFER)) };
        half_norms = Some(if is_negative == parts.is_negative { (-tensor)? } else { tensor });
    }
    for &(keeps, var) in &parts.masks {
        let Some(tensor) = of_rows(var)? else { return Ok(Err(DIFFER)) };
        let tensor = if keeps { tensor } else { (!tensor)? };
        kept = Some(match kept {
            None => tensor,
            Some(kept) => (kept & tensor)?,
        });
    }
    if let Some(kept) = &kept {
        let norms = match half_norms {
            Some(norms) => norms,
            None => database.builder().scalar(0f32)?.broadcast_to(kept.dims())?,
        };
        half_norms = Some(kept.select(norms, f64::INFINITY)?);
    }
    let is_negated = op.direction == Direction::Max && half_norms.is_some();
    let order = lhs_batch.iter().chain(&lhs_free).chain(lhs_contracting).copied();
    let queries = transposed(&queries, order)?
        .reshape(&[batches, 1, count, width])?
        .broadcast_in_dim(&[batches, repeats, count, width], &[0, 1, 2, 3])?
        .reshape(&[batches * repeats, count, width])?;
    let reduced = match uses.equations.get(&source) {
        Some(equation) if is_reducible(equation) && rhs_contracting.len() == 1 => {
            let tensors: Option<Vec<Tensor>> = equation.inputs()[1..].iter().map(|&var| value(var)).collect();
            let tensors = tensors.unwrap_or_default();
            if !Reduced::fits(&tensors, database.shape()) {
                return Ok(Err("its form of fewer digits is none"));
            }
            let leading = database.rank() - 2;
            let flat =
                |tensor: Tensor| tensor.reshape(&[&[batches * repeats], &tensor.dims()[leading..]].concat());
            let tensors = tensors.into_iter().map(flat).collect::<Result<Vec<_>>>()?;
            Reduced::from_tensors(&tensors)
        }
        _ => None,
    };
    let database = database.reshape(&[batches * repeats, rows, width])?;
    let sizes = [batch, query, shared];
    Ok(Ok(Search { queries, database, half_norms, scales, is_negated, kept, reduced, sizes, permutation }))
}

/// What scores are made of: products, times scales, and on top of that what is added and what is masked out.
struct Parts<'a> {
    product: &'a Equation,
    /// Whether the products are subtracted.
    is_negative: bool,
    scales: Option<Var>,
    /// What is added, or subtracted: one, as sums of several would be rounded in another order.
    offset: Option<(bool, Var)>,
    /// Where scores are kept, or are not: there they are infinite, and the last.
    masks: Vec<(bool, Var)>,
}

impl<'a> Parts<'a> {
    /// Adds something to all scores, or subtracts it.
    fn offset(&mut self, is_negative: bool, offset: Var) -> Option<()> {
        let is_first = self.offset.is_none() && self.masks.is_empty();
        self.offset = Some((is_negative, offset));
        is_first.then_some(())
    }

    fn of(var: Var, uses: &Uses<'a>, direction: Direction) -> Option<Parts<'a>> {
        let equation = uses.own(var)?;
        let parts = |var| Parts::of(var, uses, direction);
        let last = if direction == Direction::Max { f64::NEG_INFINITY } else { f64::INFINITY };
        let is_product = match (&equation.op, equation.inputs()) {
            (Op::DotGeneral(_), _) => true,
            (Op::Transpose(_), &[operand]) => {
                matches!(uses.own(operand), Some(Equation { op: Op::DotGeneral(_), .. }))
            }
            _ => false,
        };
        match (&equation.op, equation.inputs()) {
            _ if is_product => Some(Parts {
                product: equation,
                is_negative: false,
                scales: None,
                offset: None,
                masks: Vec::new(),
            }),
            (Op::Select(_), &[mask, on_true, on_false]) => {
                let keeps = uses.is_full_of(on_false, last);
                if !keeps && !uses.is_full_of(on_true, last) {
                    return None;
                }
                let mut parts = parts(if keeps { on_true } else { on_false })?;
                parts.masks.push((keeps, mask));
                Some(parts)
            }
            (Op::Binary(Binary::Mul), &[lhs, rhs]) => {
                let (mut parts, scales) =
                    parts(lhs).map(|parts| (parts, rhs)).or_else(|| Some((parts(rhs)?, lhs)))?;
                let is_product = parts.scales.is_none() && parts.offset.is_none() && parts.masks.is_empty();
                parts.scales = Some(scales);
                is_product.then_some(parts)
            }
            (Op::Binary(Binary::Add), &[lhs, rhs]) => {
                let (mut parts, offset) =
                    parts(lhs).map(|parts| (parts, rhs)).or_else(|| Some((parts(rhs)?, lhs)))?;
                parts.offset(false, offset)?;
                Some(parts)
            }
            (Op::Binary(Binary::Sub), &[lhs, rhs]) => {
                let parts = match (parts(lhs), parts(rhs)) {
                    (Some(mut parts), _) => {
                        parts.offset(true, rhs)?;
                        parts
                    }
                    (None, Some(mut parts)) => {
                        parts.is_negative = !parts.is_negative;
                        parts.offset(false, lhs)?;
                        parts
                    }
                    (None, None) => return None,
                };
                Some(parts)
            }
            _ => None,
        }
    }
}

/// A tensor with its dimensions in this order.
fn transposed(tensor: &Tensor, order: impl Iterator<Item = usize>) -> Result<Tensor> {
    let order: Vec<isize> = order.map(|dim| dim as isize).collect();
    if order.iter().copied().eq(0..order.len() as isize) {
        Ok(tensor.clone())
    } else {
        tensor.transpose(&order)
    }
}

/// Half norms, scales or the like that are broadcast to the scores, without the dimensions of the queries: of sizes `[batch.., rows..]`, where
/// the product's are `[batch.., query.., rows..]`; `None` where they differ between queries, or are something else.
fn broadcast_weights(
    var: Var,
    uses: &Uses<'_>,
    value: &dyn Fn(Var) -> Option<Tensor>,
    permutation: &[usize],
    [batch, query, rows]: [&[usize]; 3],
) -> Result<Option<Tensor>> {
    let (mut definition, mut dims) = (uses.equations.get(&var).copied(), permutation.to_vec());
    let mut norms = value(var);
    // A batch broadcasts what is broadcast already, and transposes it.
    while let Some(Equation { op, inputs, .. }) = definition {
        dims = match op {
            Op::BroadcastInDim(broadcast) => {
                broadcast.broadcast_dimensions.iter().map(|&dim| dims[dim]).collect()
            }
            Op::Transpose(transpose) => {
                let mut places: Vec<_> = transpose.permutation.iter().zip(&dims).collect();
                places.sort_unstable();
                places.into_iter().map(|(_, &place)| place).collect()
            }
            _ => break,
        };
        norms = value(inputs[0]);
        definition = uses.equations.get(&inputs[0]).copied();
    }
    let Some(norms) = norms else { return Ok(None) };
    let queries = batch.len()..batch.len() + query.len();
    // The dimensions in the order of the product's.
    let mut places: Vec<(usize, usize)> = dims.into_iter().zip(0..).collect();
    places.sort_unstable();
    let norms = transposed(&norms, places.iter().map(|&(_, dim)| dim))?;
    let (mut kept, mut kept_places) = (Vec::new(), Vec::new());
    for (&size, (place, _)) in norms.dims().iter().zip(places) {
        if !queries.contains(&place) {
            kept.push(size);
            kept_places.push(if place < queries.start { place } else { place - query.len() });
        } else if size != 1 {
            return Ok(None);
        }
    }
    norms.reshape(&kept)?.broadcast_in_dim(&[batch, rows].concat(), &kept_places).map(Some)
}
