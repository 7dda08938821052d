//! Which form approximate top-k takes on a target.

use crate::lower::Options;
use crate::lower::approx_top_k::two_stage_buckets;
use crate::ops::Operator;
use crate::ops::approx_top_k::ApproxTopK;
use crate::{DType, Error, Result, Shape};

/// The forms of approximate top-k.
///
/// ```
/// use xlann::lower::Form;
/// assert_eq!(Form::ALL.map(Form::name), ["sort", "two-stage", "blocks"]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// The target's own top-k of whole rows: sort and slice, or what its compiler makes of that. Exact.
    Sort,
    /// The best of each of L strided buckets, then the top-k of these winners. Approximate: a bucket yields
    /// one result, and L is the least for which the expected recall meets the target, or the first divisor of the
    /// dimension's size that is above it and at most twice as large.
    TwoStage,
    /// The best of each block of adjacent elements, then the top-k of the elements of the k best blocks.
    /// Exact, since the k best elements lie in the k blocks with the best maxima.
    ///
    /// It has no place for operands that are carried along
    /// ([`Tangent::Carried`](crate::Tangent::Carried)).
    Blocks,
}

impl Form {
    /// Every form.
    pub const ALL: [Form; 3] = [Form::Sort, Form::TwoStage, Form::Blocks];

    /// The name, as on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Form::Sort => "sort",
            Form::TwoStage => "two-stage",
            Form::Blocks => "blocks",
        }
    }

    /// Whether it can carry operands along.
    fn carries(self) -> bool {
        self != Form::Blocks
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
    /// From how many elements for each result the blocks form beats the two-stage form.
    pub blocks_over_two_stage: usize,
    /// From how many elements for each result the blocks form beats the target's own top-k.
    pub blocks_over_sort: usize,
    /// From how many elements for each bucket the two-stage form beats the target's own top-k.
    pub two_stage_over_sort: usize,
    /// The dtypes whose values the target's own top-k partitions rather than sorts.
    pub fast_top_k: &'static [DType],
    /// The dtypes of databases that are searched as they are; others are converted to f32.
    pub searched: &'static [DType],
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
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({})", self.operator, self.form, self.reason)
    }
}

/// The form of one approximate top-k: the one that was asked for, or the one that the measurements behind the
/// target's capabilities speak for.
pub(super) fn choose(
    op: &ApproxTopK,
    operand: &Shape,
    carried: usize,
    capabilities: &Capabilities,
    options: &Options,
) -> Result<Choice> {
    let carrying = if carried > 0 { format!(" carrying {carried}") } else { String::new() };
    let operator = format!("{} {operand} k={}{carrying}", op.name(), op.k);
    let (form, reason) = match options.approx_top_k {
        Some(form) => (form, "asked for".to_owned()),
        None => preferred(op, operand, carried > 0, capabilities)?,
    };
    let refused = |reason| {
        Err(Error::Unsupported { operator: op.name(), target: capabilities.target.to_owned(), reason })
    };
    if !capabilities.forms.contains(&form) {
        return refused(format!("it has no form {form}"));
    }
    if carried > 0 && !form.carries() {
        return refused(format!("the form {form} cannot carry operands along"));
    }
    Ok(Choice { operator, form, reason })
}

fn preferred(
    op: &ApproxTopK,
    operand: &Shape,
    carrying: bool,
    capabilities: &Capabilities,
) -> Result<(Form, String)> {
    let has = |form: Form| capabilities.forms.contains(&form) && (!carrying || form.carries());
    let count = op.output_size(operand)?;
    let size = operand.dims()[op.reduction_dimension];
    let each = size / count.max(1);
    let blocks =
        |least: usize| (Form::Blocks, format!("{each} elements for each result, from {least} on; exact"));
    if has(Form::Blocks) && each >= capabilities.blocks_over_two_stage {
        return Ok(blocks(capabilities.blocks_over_two_stage));
    }
    // Where XLA would not reduce the operand, its users know the results to be exact.
    let reduced = op.partial_reduction(operand)?.log2_reduction > 0;
    // A sort that carries operands along is never a partial one, and worse than buckets as many as the results.
    let planned = op.aggregate_to_topk || carrying;
    if has(Form::TwoStage) && planned && op.recall_target < 1.0 && reduced {
        let buckets = two_stage_buckets(op, size, count)?;
        let depth = size / buckets;
        if depth >= capabilities.two_stage_over_sort {
            let reason = format!("{buckets} buckets of {depth} elements meet the recall target");
            return Ok((Form::TwoStage, reason));
        }
    }
    // Where the target's own top-k sorts, anything shorter to sort is better.
    if carrying && each >= 2 {
        return Ok((Form::Sort, "exact, and the only such form that carries operands along".to_owned()));
    }
    let partitions = capabilities.fast_top_k.contains(&operand.dtype());
    let least = if partitions { capabilities.blocks_over_sort } else { 2 };
    if has(Form::Blocks) && each >= least {
        return Ok(blocks(least));
    }
    Ok((Form::Sort, format!("{each} elements for each result, too few for another form; exact")))
}
