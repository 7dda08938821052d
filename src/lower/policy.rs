//! Which form approximate top-k takes on a target.
//!
//! The caller's choice is taken where there is one ([`Options`]). Else, the first of these that applies; a form that
//! the target lacks ([`Capabilities::forms`]), that does not take the dtype, or that cannot carry operands along where
//! there are some, is passed over.
//!
//! 1. `two-stage`, where the results are not aggregated and are so many that there are
//!    [`Capabilities::two_stage_of_many`] elements for each or fewer, or of one row
//!    [`Capabilities::two_stage_of_one_row`]: the others sort them. But not of rows of up to 1024
//!    elements, which take no time.
//! 2. `kernel`.
//! 3. `sort`, of rows that the target sorts in one go ([`Capabilities::sorted_at_once`]), where the results are to be
//!    sorted.
//! 4. `native`, where the target has it and XLA's formula reduces the operand, or a tighter reduction meets the
//!    recall target: then `native-tight`, if it leaves less.
//! 5. `blocks`, of many elements for each result ([`Capabilities::blocks_over_two_stage`]).
//! 6. `two-stage`, where XLA would reduce the operand and buckets that meet the recall target have
//!    [`Capabilities::two_stage_over_sort`] elements or more; but not for results that are not aggregated, of which there
//!    are many, where the target's own top-k does not sort the dtype ([`Capabilities::fast_top_k`]): what carries
//!    operands along does sort.
//! 7. `blocks` again, as what is left is to be exact: from [`Capabilities::blocks_over_sort`] elements for each result
//!    on, or from [`Capabilities::blocks_over_full_sort`] on for a dtype that is not in [`Capabilities::fast_top_k`].
//! 8. `sort`, or the first form that is left.

use std::num::NonZeroUsize;

use crate::lower::Options;
use crate::lower::fused::Search;
use crate::lower::precision::{Precision, candidates, recall_of_part};
use crate::lower::two_stage::two_stage_buckets;
use crate::ops::Operator;
use crate::ops::approx_top_k::ApproxTopK;
use crate::recall::{ReductionSize, expected_recall, reduction_recall, tight_reduction_output_size};
use crate::{DType, Error, Result, Shape};

/// The forms of approximate top-k.
///
/// ```
/// use xlann::lower::Form;
/// assert_eq!(Form::ALL.map(Form::name), ["sort", "two-stage", "blocks", "native", "native-tight", "kernel"]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// The target's own top-k of whole rows: sort and slice, or what its compiler makes of that. Exact.
    Sort,
    /// The best of each of L buckets, then the top-k of these winners. Approximate: a bucket yields one result, and L is
    /// the least multiple of [`Capabilities::bucket_multiple`] for which the expected recall meets the target, or the
    /// first divisor of the dimension's size that is above it and at most twice as large.
    ///
    /// Each run of L elements has one in every bucket, and is shuffled in its own fixed, pseudo-random way. So the recall
    /// is that of random order, within 0.01, for rows that are sorted, clustered or periodic, too: in simulations of
    /// 10,000 results at every period from 1 to 4096. That is of many neighbours; the few of one query can fall badly, as
    /// they can in random order. Up to L / 4 neighbours side by side are all found.
    TwoStage,
    /// The best of each block of elements, then the top-k of the elements of the k best blocks. Exact, since the k
    /// best elements lie in the k blocks with the best maxima.
    ///
    /// It has no place for operands that are carried along
    /// ([`Tangent::Carried`](crate::Tangent::Carried)): for exact results, whole rows are then sorted with them
    /// ([`Sort`](Form::Sort)), on a GPU too. So they are in the two-stage form, where NaNs among its results make
    /// another search necessary.
    Blocks,
    /// XLA's expansion on a TPU: a `PartialReduce` custom call, which libtpu fuses into the matrix product that
    /// feeds it, then the top-k of what it leaves; the latter alone where XLA's formula
    /// ([`reduction_output_size`](crate::ann::recall::reduction_output_size)) reduces nothing.
    ///
    /// NaNs are treated as XLA treats them there: compared as floats, which a NaN never wins. One can be among the
    /// results, or hide elements that it was compared with, although there are k other values.
    ///
    /// Operands that are carried along are operands of the custom call, too. TPUs take denormals for zeros.
    ///
    /// The recall is that of rows in random order. Of up to 128 neighbours that are stored side by side, each has a place
    /// of its own. More fall into the same places, and are lost, far below the recall target: of 10^6 elements and a
    /// target of 0.95, 0.64 are found of 200 such neighbours, 0.43 of 300 and 0.13 of 1000. Neighbours at equal distances
    /// are lost where these share large powers of two: of 10, 0.1 are found at distances of 128 or 256, 0.2 of 64. The
    /// reduction is XLA's, and so is this: store such rows in random order, or ask for
    /// [`Sort`](Form::Sort), which is exact, but keeps the scores.
    Native,
    /// As [`Native`](Form::Native), of the smallest reduction whose expected recall, by the exact formula, meets the
    /// target ([`tight_reduction_output_size`](crate::ann::recall::tight_reduction_output_size)): about half of XLA's.
    /// What is not aggregated has XLA's size. Neighbours that are stored side by side are lost as there.
    NativeTight,
    /// A [kernel](crate::kernels) of this crate's, in a custom call: exact, but at a lower [`Precision`] that the user
    /// allows, and reads the operand once. Where the operand is the products of queries and the rows of a database, by
    /// themselves or times a scale for each row, searched for the largest, or half norms less such products, searched for
    /// the least, the scores are searched as they are computed, and not kept.
    Kernel,
}

impl Form {
    /// Every form.
    pub const ALL: [Form; 6] =
        [Form::Sort, Form::TwoStage, Form::Blocks, Form::Native, Form::NativeTight, Form::Kernel];

    /// The name, as on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Form::Sort => "sort",
            Form::TwoStage => "two-stage",
            Form::Blocks => "blocks",
            Form::Native => "native",
            Form::NativeTight => "native-tight",
            Form::Kernel => "kernel",
        }
    }

    /// Whether it can carry operands along.
    fn carries(self) -> bool {
        !matches!(self, Form::Blocks | Form::Kernel)
    }
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a target can lower, and what is fast on it: the data that tells targets apart.
///
/// ```
/// use xlann::lower::{Capabilities, Form};
/// use xlann::target::cpu;
///
/// let exact = Capabilities { forms: &[Form::Sort, Form::Blocks], ..cpu::CAPABILITIES };
/// assert_eq!(exact.target, "cpu");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Capabilities {
    /// The target's name.
    pub target: &'static str,
    /// The forms of approximate top-k that it can run.
    pub forms: &'static [Form],
    /// Up to how many elements a row is sorted in one go, so that nothing else is worth while.
    pub sorted_at_once: usize,
    /// From how many elements for each result the blocks form beats the two-stage form; `usize::MAX` where it never
    /// does.
    pub blocks_over_two_stage: usize,
    /// From how many elements for each result the blocks form beats the target's own top-k of a dtype that this
    /// partitions.
    pub blocks_over_sort: usize,
    /// From how many elements for each result the blocks form beats the target's own top-k of another dtype, which this
    /// sorts.
    pub blocks_over_full_sort: usize,
    /// From how many elements for each bucket the two-stage form beats the target's own top-k.
    pub two_stage_over_sort: usize,
    /// Up to how many elements for each result the two-stage form beats all others, where the results are not aggregated.
    pub two_stage_of_many: usize,
    /// As [`two_stage_of_many`](Capabilities::two_stage_of_many), of a single row with 4096 results or more.
    pub two_stage_of_one_row: usize,
    /// What the number of buckets of the two-stage form is rounded up to a multiple of. Buckets are shuffled well in blocks
    /// of 32, at least four of them.
    pub bucket_multiple: usize,
    /// Whether the elements of a block are strided (element j is in block j mod L), else they are adjacent.
    pub strided_blocks: bool,
    /// Whether the target takes denormal floats for zeros as it compares them, but sorts them as they are: then forms that
    /// compare them search again, exactly, where a result is as small as that and the operand has denormals.
    pub flushes_denormals: bool,
    /// The dtypes whose values the target's own top-k partitions rather than sorts.
    pub fast_top_k: &'static [DType],
    /// Whether what prepares the rows for the target's own top-k is fused into it, or costs less than a branch that
    /// does without.
    pub fuses_into_top_k: bool,
    /// The dtypes that the native forms take.
    pub native: &'static [DType],
    /// The dtypes that the kernel form takes.
    pub kernel: &'static [DType],
    /// The dtypes of databases that are searched as they are; others are converted to f32.
    pub searched: &'static [DType],
    /// The forms that keep no scores in memory, but take them from the matrix product that computes them.
    pub keeps_no_scores: &'static [Form],
    /// How many bytes the scores of a batch of queries may take where the user does not say, and the form keeps them.
    pub score_budget: usize,
    /// How many queries a search answers at once, at most, where the user does not say.
    pub batch: usize,
    /// The widest float that it computes with: distances are computed anew in it, by differences.
    pub wide: DType,
    /// By how much a product of two f32 may be off in a matrix product, relative to it, beside the rounding of the sum: where
    /// the matrix units round factors.
    pub product_rounding: f64,
    /// What the width of a database is padded to a multiple of where its rows are gathered: of another width, the
    /// compiler would copy the whole of it for every batch, so that a row's elements are stored next to each other.
    pub width_multiple: usize,
}

impl Capabilities {
    /// The dtype in which a database of that dtype is searched.
    ///
    /// ```
    /// use xlann::DType;
    /// use xlann::target::cpu;
    ///
    /// assert_eq!(cpu::CAPABILITIES.search_dtype(DType::F64), DType::F64);
    /// assert_eq!(cpu::CAPABILITIES.search_dtype(DType::U8), DType::F32);
    /// ```
    pub fn search_dtype(&self, dtype: DType) -> DType {
        if self.searched.contains(&dtype) { dtype } else { DType::F32 }
    }
}

/// The form that one approximate top-k took.
///
/// ```
/// use xlann::{ApproxTopKOptions, DType, Function, Shape, lower, target};
///
/// let f = Function::trace("best", &[Shape::new(DType::F32, [128, 1000])], |x| {
///     x[0].approx_max_k(10, &ApproxTopKOptions::default())
/// })?;
/// let lowered = lower::lower(&f, &target::cpu::CAPABILITIES, &lower::Options::default())?;
/// let [choice] = &lowered.choices[..] else { panic!("one approximate top-k, one choice") };
/// println!("{} became {}: {}", choice.operator, choice.form, choice.reason);
/// assert!(choice.expected_recall >= 0.95);
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The operator, its operand's shape and k, and how many operands it carries along, if any.
    pub operator: String,
    /// The form.
    pub form: Form,
    /// Why.
    pub reason: String,
    /// The recall that is expected of the form, where the true k best are placed at random; 1 of an exact form.
    pub expected_recall: f64,
    /// Whether the operand is kept in memory, where it is the scores of a search; else they are used as they are
    /// computed.
    pub keeps_scores: bool,
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({})", self.operator, self.form, self.reason)
    }
}

/// A form with what is planned for one operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Plan {
    Sort,
    TwoStage { buckets: usize },
    Blocks,
    Native(ReductionSize),
    Kernel { threads: Option<usize>, reduction: Option<Reduction> },
}

/// A search by scores of fewer digits, with candidates that are scored anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reduction {
    /// What the database is rounded to.
    pub(super) dtype: DType,
    pub(super) candidates: usize,
    /// What is proven of the results of all queries.
    pub(super) recall_target: f32,
}

/// A search that the kernel can do in one, with its scores.
#[derive(Clone, Copy)]
pub(super) struct Fusion {
    /// Of each database.
    queries: usize,
    rows: usize,
    width: usize,
    dtype: DType,
    /// Whether rows have scales: then candidates are not scored anew.
    scaled: bool,
    /// What is searched.
    scores: &'static str,
    /// What the database is there in, too.
    reduced: Option<DType>,
}

impl Fusion {
    pub(super) fn of(search: &Search) -> Fusion {
        Fusion {
            queries: search.queries.dims()[1],
            rows: search.database.dims()[1],
            width: search.database.dims()[2],
            dtype: search.database.dtype(),
            scaled: search.scales.is_some(),
            scores: match search {
                Search { kept: Some(_), .. } => "masked scores",
                Search { is_negated: true, .. } => "inner products and a bias",
                Search { half_norms: Some(_), .. } => "half distances",
                Search { scales: Some(_), .. } => "scaled inner products",
                _ => "inner products",
            },
            reduced: search.reduced.as_ref().map(|reduced| reduced.rows.dtype()),
        }
    }
}

/// From how many queries on a database is rounded in the program that searches it, which reads it once or twice more.
const QUERIES_WORTH_ROUNDING: usize = 256;

/// Up to how many elements a row is sorted in less time than the compiler takes to do without.
const SHORT: usize = 1024;

/// From how many results on a kernel sorts those of a single row more slowly than of many rows.
const MANY: usize = 4096;

/// The form of one approximate top-k: the one that was asked for, or the one that the measurements behind the
/// target's capabilities speak for.
pub(super) fn choose(
    op: &ApproxTopK,
    operand: &Shape,
    carried: usize,
    fusion: std::result::Result<Fusion, &'static str>,
    capabilities: &Capabilities,
    options: &Options,
) -> Result<(Plan, Choice)> {
    let carrying = if carried > 0 { format!(" carrying {carried}") } else { String::new() };
    let operator = format!("{} {operand} k={}{carrying}", op.name(), op.k);
    let planner = Planner {
        op,
        operand,
        size: operand.dims()[op.reduction_dimension],
        count: op.output_size(operand)?,
        carrying: carried > 0,
        fusion,
        capabilities,
        options,
    };
    let (form, plan, reason) = match options.approx_top_k {
        Some(form) => {
            if let Some(reason) = planner.refusal(form) {
                let target = capabilities.target.to_owned();
                return Err(Error::Unsupported { operator: op.name(), target, reason });
            }
            let reason = match form {
                Form::Kernel => format!("asked for; {}", planner.kernel_reason()),
                _ => "asked for".to_owned(),
            };
            (form, planner.plan(form)?, reason)
        }
        None => planner.preferred()?.ok_or_else(|| Error::Unsupported {
            operator: op.name(),
            target: capabilities.target.to_owned(),
            reason: format!("it has no form that takes {operator}"),
        })?,
    };
    let expected_recall = planner.expected_recall(plan)?;
    let keeps_scores =
        !capabilities.keeps_no_scores.contains(&form) || form == Form::Kernel && planner.fusion.is_err();
    Ok((plan, Choice { operator, form, reason, expected_recall, keeps_scores }))
}

/// One approximate top-k, and the target that it is planned for.
struct Planner<'a> {
    op: &'a ApproxTopK,
    operand: &'a Shape,
    /// Of the reduction dimension.
    size: usize,
    /// The number of results.
    count: usize,
    carrying: bool,
    /// What the kernel computes of the operand, or why it does not.
    fusion: std::result::Result<Fusion, &'static str>,
    capabilities: &'a Capabilities,
    options: &'a Options,
}

impl Planner<'_> {
    /// Why the target cannot lower the operator in that form.
    fn refusal(&self, form: Form) -> Option<String> {
        let dtype = self.operand.dtype();
        if !self.capabilities.forms.contains(&form) {
            return Some(format!("it has no form {form}"));
        }
        if self.carrying && !form.carries() {
            return Some(format!("the form {form} cannot carry operands along"));
        }
        let taken = match form {
            Form::Native | Form::NativeTight => self.capabilities.native.contains(&dtype),
            Form::Kernel => self.capabilities.kernel.contains(&dtype),
            Form::Sort | Form::TwoStage | Form::Blocks => true,
        };
        (!taken).then(|| format!("the form {form} takes no {dtype}"))
    }

    fn has(&self, form: Form) -> bool {
        self.refusal(form).is_none()
    }

    fn plan(&self, form: Form) -> Result<Plan> {
        Ok(match form {
            Form::Sort => Plan::Sort,
            Form::TwoStage => Plan::TwoStage {
                buckets: two_stage_buckets(
                    self.op,
                    self.size,
                    self.count,
                    self.capabilities.bucket_multiple,
                )?,
            },
            Form::Blocks => Plan::Blocks,
            Form::Kernel => Plan::Kernel {
                threads: self.options.threads.map(NonZeroUsize::get),
                reduction: self.reduction(),
            },
            Form::NativeTight if self.op.aggregate_to_topk => Plan::Native(self.tight()?),
            Form::Native | Form::NativeTight => Plan::Native(self.xlas()?),
        })
    }

    /// The reduction by XLA's formula. With an override that can leave less than k, which XLA then fails to compile.
    fn xlas(&self) -> Result<ReductionSize> {
        let xlas = self.op.partial_reduction(self.operand)?;
        if self.op.aggregate_to_topk && xlas.size < self.op.k { self.tight() } else { Ok(xlas) }
    }

    fn tight(&self) -> Result<ReductionSize> {
        let op = self.op;
        let whole = op.reduction_input_size_override;
        tight_reduction_output_size(self.size, self.operand.rank(), op.k, op.recall_target, whole)
    }

    fn expected_recall(&self, plan: Plan) -> Result<f64> {
        let op = self.op;
        let whole = op.reduction_input_size_override;
        match plan {
            Plan::Kernel { reduction: Some(_), .. } => Ok(op.recall_target.into()),
            Plan::Sort | Plan::Blocks | Plan::Kernel { .. } => Ok(1.0),
            Plan::TwoStage { buckets } => {
                let whole = whole.unwrap_or(self.size);
                let buckets = (buckets as f64 * (whole as f64 / self.size as f64)) as usize;
                expected_recall(whole, op.k, buckets.max(1), 1)
            }
            Plan::Native(to) => reduction_recall(self.size, self.operand.rank(), op.k, to, whole),
        }
    }

    /// The first form that applies, of those that the target has, if it has any.
    fn preferred(&self) -> Result<Option<(Form, Plan, String)>> {
        let (op, size, capabilities) = (self.op, self.size, self.capabilities);
        let chosen = |form, reason| Ok(Some((form, self.plan(form)?, reason)));
        let each = size / self.count.max(1);
        let is_one_row = self.operand.element_count() == size && self.count >= MANY && self.fusion.is_err();
        let least =
            if is_one_row { capabilities.two_stage_of_one_row } else { capabilities.two_stage_of_many };
        let many = !op.aggregate_to_topk && size > SHORT && each <= least;
        if many && self.has(Form::TwoStage) {
            let reason = format!("{each} elements for each result, none of which is sorted");
            return chosen(Form::TwoStage, reason);
        }
        if self.has(Form::Kernel) {
            return chosen(Form::Kernel, self.kernel_reason());
        }
        if self.has(Form::Sort) && size <= capabilities.sorted_at_once && op.aggregate_to_topk {
            let reason =
                format!("up to {} elements are sorted in one go; exact", capabilities.sorted_at_once);
            return chosen(Form::Sort, reason);
        }
        let blocks = |least: usize| format!("{each} elements for each result, from {least} on; exact");
        let xlas = self.xlas()?;
        if let Some(choice) = self.native(xlas)? {
            return Ok(Some(choice));
        }
        if self.has(Form::Blocks) && each >= capabilities.blocks_over_two_stage {
            return chosen(Form::Blocks, blocks(capabilities.blocks_over_two_stage));
        }
        let partitions = capabilities.fast_top_k.contains(&self.operand.dtype());
        // As many buckets as results are better than a sort, and one that carries operands along is never a partial one.
        let planned = op.aggregate_to_topk || self.carrying || !partitions;
        // Where XLA would not reduce the operand, its users know the results to be exact.
        if self.has(Form::TwoStage) && planned && xlas.log2_reduction > 0 {
            let plan = self.plan(Form::TwoStage)?;
            if let Plan::TwoStage { buckets } = plan
                && size / buckets >= capabilities.two_stage_over_sort
            {
                let reason =
                    format!("{buckets} buckets of {} elements meet the recall target", size / buckets);
                return Ok(Some((Form::TwoStage, plan, reason)));
            }
        }
        let least =
            if partitions { capabilities.blocks_over_sort } else { capabilities.blocks_over_full_sort };
        if self.has(Form::Blocks) && each >= least {
            return chosen(Form::Blocks, blocks(least));
        }
        if self.has(Form::Sort) {
            let reason = match self.has(Form::Blocks) && least < usize::MAX {
                _ if self.carrying => "exact, and the only such form that carries operands along".to_owned(),
                true => format!("{each} elements for each result, too few for another form; exact"),
                false => "exact; no other such form pays on this target".to_owned(),
            };
            return chosen(Form::Sort, reason);
        }
        match capabilities.forms.iter().find(|&&form| self.has(form)) {
            Some(&form) => chosen(form, "the only form that is left".to_owned()),
            None => Ok(None),
        }
    }

    /// The precision at which a kernel finds candidates, if below f32.
    fn reduction(&self) -> Option<Reduction> {
        let fusion = self.fusion.ok()?;
        // Of a part of the rows: what the parts may miss of their own neighbours adds up.
        let whole = self.op.reduction_input_size_override.unwrap_or(fusion.rows);
        let recall_target = recall_of_part(self.op.recall_target, fusion.rows, whole);
        let dtype = match (fusion.reduced, self.options.precision) {
            _ if fusion.dtype != DType::F32 || fusion.scaled => return None,
            (Some(reduced), _) => reduced,
            (None, Precision::Auto) if fusion.queries < QUERIES_WORTH_ROUNDING => return None,
            (None, precision) => precision.dtype(recall_target, self.count, [fusion.rows, fusion.width])?,
        };
        let candidates = candidates(dtype, recall_target, self.count, fusion.width, fusion.rows);
        Some(Reduction { dtype, candidates, recall_target })
    }

    fn kernel_reason(&self) -> String {
        match (self.fusion, self.reduction()) {
            (Ok(fusion), None) => {
                let why = match self.options.precision {
                    Precision::Exact => "",
                    _ if fusion.dtype != DType::F32 => ", as the database is not f32",
                    _ if fusion.scaled => ", as rows have scales",
                    _ => ", as a lower precision would not pay",
                };
                format!(
                    "{scores} searched as they are computed, not kept; exact{why}",
                    scores = fusion.scores
                )
            }
            (Ok(fusion), Some(Reduction { dtype, candidates, .. })) => {
                let precision = if dtype == DType::BF16 { Precision::Bf16 } else { Precision::Int8 };
                format!(
                    "{} searched as they are computed, not kept, in {precision}; {candidates} candidates scored \
                     anew, for a proven recall of {}",
                    fusion.scores, self.op.recall_target
                )
            }
            (Err(why_not), _) => {
                format!("one read of the operand; exact; not fused with a product: {why_not}")
            }
        }
    }

    /// The native form of the smaller reduction, where the target has one and it reduces at all.
    fn native(&self, xlas: ReductionSize) -> Result<Option<(Form, Plan, String)>> {
        if self.has(Form::NativeTight) && self.op.aggregate_to_topk {
            let tight = self.tight()?;
            if tight.log2_reduction > xlas.log2_reduction {
                let reason = format!(
                    "PartialReduce to {} meets the recall target, where XLA's formula leaves {}",
                    tight.size, xlas.size
                );
                return Ok(Some((Form::NativeTight, Plan::Native(tight), reason)));
            }
        }
        if self.has(Form::Native) && xlas.log2_reduction > 0 {
            let reason = format!("PartialReduce to {}, by XLA's formula", xlas.size);
            return Ok(Some((Form::Native, Plan::Native(xlas), reason)));
        }
        Ok(None)
    }
}
