//! Searching by true squared distances.
//!
//! Half norms less products are fast to compute, but lose everything where vectors are far from the origin, or much closer
//! to each other than they are long. So a few more candidates than are asked for are found by them and scored anew by
//! differences, and a bound on what was lost on the way proves that no other row is nearer.

use crate::graph::{Equation, Function, Tensor};
use crate::lower::approx_top_k::best_with;
use crate::lower::kernel;
use crate::lower::policy::{Capabilities, Choice, Form};
use crate::lower::precision::Precision;
use crate::lower::{Options, recall_of_part};
use crate::ops::Op;
use crate::ops::approx_top_k::{ApproxTopK, Direction};
use crate::{ApproxTopKOptions, Array, CustomCall, DType, Result, Shape, VmapMethod};

/// Rows whose squared distances differ by no more than this share of them count as equally near.
const TOLERANCE: f64 = 1.0 / (1 << 20) as f64;

/// A custom call that never reaches a target: lowering puts a kernel or its reference in its place.
const NEAREST: &str = "xlann_nearest";

/// What a search by true squared distances takes.
#[derive(Clone)]
pub(crate) struct Nearest {
    /// `[q, d]`, of a dtype that need not be the database's.
    pub(crate) queries: Tensor,
    /// `[n, d]`.
    pub(crate) database: Tensor,
    /// What candidates are found in, less the centre where there is one; else the database is.
    pub(crate) stored: Option<Stored>,
    /// `[2]`: the greatest norm of what a row has lost where it is stored, and of a stored row.
    pub(crate) errors: Tensor,
    /// `[n]`, of the rows less the centre.
    pub(crate) half_norms: Tensor,
}

/// The rows of a database in another form.
#[derive(Clone)]
pub(crate) struct Stored {
    /// f32, bf16 or s8, `[n, d]`.
    pub(crate) rows: Tensor,
    /// Of s8, `[n]`.
    pub(crate) scales: Option<Tensor>,
    /// `[d]`.
    pub(crate) centre: Option<Tensor>,
}

/// How it is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) k: usize,
    /// How many are scored anew.
    pub(crate) candidates: usize,
    pub(crate) recall_target: f32,
    /// The number of rows of the database that these are a share of.
    pub(crate) whole: usize,
    /// The dtype of differences and their sums.
    pub(crate) wide: DType,
    /// By how much a product of two floats may be off, relative to it, beside the rounding of sums.
    pub(crate) product_rounding: f64,
}

impl Nearest {
    /// Squared distances `[q, k]` of the plan's wide dtype, s32 indices, and whether each query's results are proven to be
    /// right as far as [`TOLERANCE`] goes, and as the form of the approximate top-k allows: pred `[q]`. Of what no number is,
    /// distances are NaN, and come last.
    pub(crate) fn search(&self, plan: Plan) -> Result<[Tensor; 3]> {
        let operands = self.operands();
        let shapes: Vec<Shape> = operands.iter().map(|operand| operand.shape().clone()).collect();
        let reference = Function::trace("nearest", &shapes, |x| Ok(Nearest::of(x).plain(plan)?.to_vec()))?;
        let call = CustomCall::new(NEAREST, reference.result_shapes())
            .reference(reference)
            .vmap_method(VmapMethod::BroadcastAll);
        let results = self.queries.builder().custom_call(call, &operands.iter().collect::<Vec<_>>())?;
        Ok([results[0].clone(), results[1].clone(), results[2].clone()])
    }

    fn operands(&self) -> Vec<Tensor> {
        let mut operands =
            vec![self.queries.clone(), self.database.clone(), self.errors.clone(), self.half_norms.clone()];
        if let Some(stored) = &self.stored {
            operands.extend(
                [Some(&stored.rows), stored.scales.as_ref(), stored.centre.as_ref()]
                    .into_iter()
                    .flatten()
                    .cloned(),
            );
        }
        operands
    }

    /// Of what [`operands`](Nearest::operands) gives, each with any dimensions in front.
    fn of(operands: &[Tensor]) -> Nearest {
        let stored = operands.get(4).map(|rows| {
            let scaled = rows.dtype() == DType::S8;
            Stored {
                rows: rows.clone(),
                scales: scaled.then(|| operands[5].clone()),
                centre: operands.get(5 + usize::from(scaled)).cloned(),
            }
        });
        let [queries, database, errors, half_norms] = [0, 1, 2, 3].map(|at| operands[at].clone());
        Nearest { queries, database, stored, errors, half_norms }
    }

    /// The search in plain operators.
    fn plain(&self, plan: Plan) -> Result<[Tensor; 3]> {
        let Plan { k, candidates, wide, .. } = plan;
        let scored = self.half_norms.dtype();
        let exact = self.queries.convert(wide)?;
        let stored = match &self.stored {
            Some(Stored { rows, scales: Some(scales), .. }) => {
                (rows.convert(scored)? * scales.expand_dims(1)?)?
            }
            Some(Stored { rows, .. }) => rows.convert(scored)?,
            None => self.database.convert(scored)?,
        };
        let centred = match self.stored.as_ref().and_then(|stored| stored.centre.as_ref()) {
            Some(centre) => (&exact - centre.convert(wide)?.expand_dims(0)?)?,
            None => exact.clone(),
        };
        let used = centred.convert(scored)?;
        let products = used.dot_general(&stored, (&[1], &[1]), (&[], &[]))?;
        let options = ApproxTopKOptions {
            recall_target: plan.recall_target,
            reduction_input_size_override: Some(plan.whole),
            ..ApproxTopKOptions::default()
        };
        let (scores, indices) = (&self.half_norms - products)?.approx_min_k(candidates, &options)?;
        let differences = (self.database.take(&indices, 0)?.convert(wide)? - exact.expand_dims(1)?)?;
        let distances = (&differences * &differences)?.reduce_sum(&[2])?;
        // Of a place for which there is no row, the native forms say so.
        let distances = indices.greater_equal(0)?.select(distances, f64::NAN)?;
        let best = best_with(&distances, &[indices], k, Direction::Min)?;
        let proven = if candidates == self.database.dims()[0] {
            let queries = self.queries.dims()[0];
            self.queries.builder().constant(Array::new([1], &[true])?)?.broadcast_to(&[queries])?
        } else {
            let worst = scores.slice_in_dim(candidates - 1, candidates, 1, 1)?;
            self.proven(plan, &centred, &used, &best[0], &worst)?
        };
        Ok([best[0].clone(), best[1].clone(), proven])
    }

    /// Whether no row that is no candidate is nearer than the last result, for each query. The derivation stands in
    /// cpp/kernels/certify.cc; here, sums are rounded as those of the half norms' dtype are, and the query's norm as those of
    /// the wide one.
    fn proven(
        &self,
        plan: Plan,
        centred: &Tensor,
        used: &Tensor,
        distances: &Tensor,
        worst: &Tensor,
    ) -> Result<Tensor> {
        let Plan { k, wide, product_rounding, .. } = plan;
        let (queries, width) = (centred.dims()[0], centred.dims()[1]);
        let scored = used.dtype();
        // What a sum is off by, relative to its terms, of the unit roundoff; and the norm of what may have been taken for 0.
        let sum = |dtype: DType| {
            let roundoff =
                if dtype == DType::F64 { f64::EPSILON / 2.0 } else { f64::from(f32::EPSILON) / 2.0 };
            let terms = (width as f64 + 16.0) * roundoff;
            if terms < 1.0 { terms / (1.0 - terms) } else { f64::INFINITY }
        };
        let (g, wide_sum) = (sum(scored), sum(wide));
        let tiny =
            (width as f64).sqrt() * if scored == DType::F64 { 2f64.powi(-510) } else { 2f64.powi(-62) };
        let norm = |x: &Tensor| (x * x)?.reduce_sum(&[1])?.sqrt();
        let query = norm(centred)?;
        let rounding = (norm(&(centred - used.convert(wide)?)?)? + tiny)?;
        let given = |at: usize| -> Result<Tensor> {
            let error = self.errors.convert(wide)?.slice_in_dim(at, at + 1, 1, 0)?;
            (error * (1.0 + g))? + tiny
        };
        let (lost, greatest) = (given(0)?, given(1)?);
        let last = distances.slice_in_dim(k - 1, k, 1, 1)?.reshape(&[queries])?;
        let worst = worst.reshape(&[queries])?.convert(wide)?;
        let within = (((&query + last.sqrt()?)? + &lost)? * (1.0 / (1.0 - g)))?;
        let stored = greatest.minimum(&within)?;
        let row = (&lost + (&stored * g)?)?;
        let reach = (&stored + &row)?;
        let used = (&query + &rounding)?;
        let rounded = if self.stored.is_some() { 2.0 * g / (width as f64 + 16.0) } else { 0.0 };
        let terms = [
            (&query * (&row + (&reach * rounded)?)?)?,
            (&rounding * &stored)?,
            ((&used * &stored)? * (g + product_rounding))?,
            ((&reach * &reach)? * g)?,
            (worst.abs()? * (2.0 * g / (width as f64 + 16.0)))?,
            // The rounding of what follows.
            ((&query * &query)? * (2.0 * wide_sum))?,
        ];
        let mut bound = last.full_like(tiny * tiny)?;
        for term in terms {
            bound = (bound + term)?;
        }
        let least = (((&query * &query)? + (&worst * 2.0)?)? - (bound * (2.0 * (1.0 + TOLERANCE)))?)?;
        let near = (&last * (1.0 - TOLERANCE))?.less_equal(least)?;
        // Squares of greater ones overflow, the errors say nothing of them, and what is infinite proves nothing.
        let limit = if scored == DType::F64 { 2f64.powi(500) } else { 2f64.powi(62) };
        let in_range = (within.less(limit)? & worst.abs()?.less(limit * limit)?)?;
        (near & in_range)? | last.equal(0.0)?
    }
}

/// The kernel's results in the place of such a call, and what was chosen; `None` where the target has no such kernel, or the
/// options ask for another form, and the search is to be as the call's reference says.
pub(super) fn kernel(
    call: &CustomCall,
    inputs: &[Tensor],
    capabilities: &Capabilities,
    options: &Options,
) -> Result<Option<(Vec<Tensor>, Choice)>> {
    let Some((reference, op)) = plan_of(call) else { return Ok(None) };
    let asked = options.approx_top_k.is_none_or(|form| form == Form::Kernel);
    if !asked || !capabilities.forms.contains(&Form::Kernel) {
        return Ok(None);
    }
    let search = Nearest::of(inputs);
    let shapes = reference.result_shapes();
    let k = shapes[0].dims().last().copied().unwrap_or_default();
    let rank = search.database.rank();
    let rows = search.database.dims()[rank - 2];
    let stored = search.stored.as_ref().map_or(search.database.dtype(), |stored| stored.rows.dtype());
    let certified_recall = match stored {
        DType::F64 => None,
        DType::S8 | DType::BF16 if search.stored.is_some() => {
            Some(recall_of_part(op.recall_target, rows, op.reduction_input_size_override.unwrap_or(rows)))
        }
        _ => Some(1.0),
    };
    let threads = options.threads.map(std::num::NonZeroUsize::get);
    let found = kernel::nearest(&search, k, op.k, certified_recall, threads)?;
    let candidates = op.k;
    let is_centred = search.stored.as_ref().is_some_and(|stored| stored.centre.is_some());
    let less = if is_centred { " of the vectors less a centre" } else { "" };
    let reason = match (stored, certified_recall) {
        (_, None) => "squared distances searched as they are computed, not kept; exact".to_owned(),
        (DType::S8 | DType::BF16, Some(recall)) if search.stored.is_some() => {
            let precision = if stored == DType::BF16 { Precision::Bf16 } else { Precision::Int8 };
            format!(
                "half distances{less} searched as they are computed, not kept, in {precision}; {candidates} candidates \
                 scored anew, for a proven recall of {recall}"
            )
        }
        _ => {
            let copy = if is_centred { ", a copy of the database" } else { "" };
            format!(
                "half distances{less}{copy} searched as they are computed, not kept; {candidates} candidates scored \
                 anew; exact, proven"
            )
        }
    };
    let queries = search.queries.dims()[..rank - 1].to_vec();
    let scores = Shape::new(search.half_norms.dtype(), [&queries[..], &[rows]].concat());
    let choice = Choice {
        operator: format!("approx_min_k {scores} k={k}"),
        form: Form::Kernel,
        reason,
        expected_recall: match certified_recall {
            Some(recall) if recall < 1.0 => op.recall_target.into(),
            _ => 1.0,
        },
        keeps_scores: false,
    };
    let builder = search.queries.builder();
    let distances = found[0].convert(shapes[0].dtype())?;
    let proven = builder.constant(Array::new([1], &[true])?)?.reshape(&[])?.broadcast_to(&queries)?;
    Ok(Some((vec![distances, found[1].clone(), proven], choice)))
}

/// The reference of such a call, and the approximate top-k in it; `None` of another call.
fn plan_of(call: &CustomCall) -> Option<(&Function, &ApproxTopK)> {
    let reference = call.reference_function().filter(|_| call.target() == NEAREST)?;
    let op = reference.equations().iter().find_map(|equation| match &equation.op {
        Op::ApproxTopK(op) => Some(op),
        _ => None,
    })?;
    Some((reference, op))
}

/// The search in plain operators, where an equation is such a call.
pub(super) fn reference(equation: &Equation) -> Option<(&CustomCall, &Function)> {
    match &equation.op {
        Op::CustomCall(call) => plan_of(call).map(|(reference, _)| (call, reference)),
        _ => None,
    }
}
