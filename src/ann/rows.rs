//! Searching rows on a device: all of them, or block by block.

use crate::ann::function::score_dtype;
use crate::ann::metric::{self, Metric};
use crate::ann::options::SearchOptions;
use crate::graph::{Function, Tensor};
use crate::lower::{Nearest, NearestPlan, Reduced, Stored, best_with, candidates};
use crate::ops::approx_top_k::Direction;
use crate::{ApproxTopKOptions, DType, Result, Shape};

/// A database or a part of one, and what is prepared of it.
#[derive(Clone)]
pub(super) struct Rows {
    /// `[n, d]`.
    pub(super) database: Tensor,
    /// The database in another form, in which candidates are found, and the scales of its rows, `[n]`.
    pub(super) stored: Option<Tensor>,
    pub(super) scales: Option<Tensor>,
    /// The greatest norms of what a row has lost there, and of what is left of one, `[2]`.
    pub(super) errors: Option<Tensor>,
    /// Of each row, as the metric needs it, `[n]`.
    pub(super) norms: Option<Tensor>,
    /// What stored rows are less, `[d]`.
    pub(super) centre: Option<Tensor>,
}

impl Rows {
    /// A database with what [`prepared_function`](crate::ann::prepared_function) gives; `measured` where that has errors
    /// without another form of it.
    pub(super) fn of(database: Tensor, prepared: Vec<Tensor>, measured: bool) -> Rows {
        let mut rows = Rows::alone(database);
        let mut prepared = prepared.into_iter().peekable();
        rows.stored = prepared.next_if(|tensor| tensor.rank() == 2);
        if rows.stored.as_ref().is_some_and(|stored| stored.dtype() == DType::S8) {
            rows.scales = prepared.next();
        }
        if rows.stored.is_some() || measured {
            rows.errors = prepared.next();
        }
        rows.norms = prepared.next();
        rows
    }

    pub(super) fn alone(database: Tensor) -> Rows {
        Rows { database, stored: None, scales: None, errors: None, norms: None, centre: None }
    }

    /// Other tensors in the places of these; `f` is told which have something for each row.
    fn map(&self, mut f: impl FnMut(&Tensor, bool) -> Result<Tensor>) -> Result<Rows> {
        let mut of =
            |tensor: &Option<Tensor>, by_row| tensor.as_ref().map(|tensor| f(tensor, by_row)).transpose();
        Ok(Rows {
            stored: of(&self.stored, true)?,
            scales: of(&self.scales, true)?,
            errors: of(&self.errors, false)?,
            norms: of(&self.norms, true)?,
            centre: of(&self.centre, false)?,
            database: f(&self.database, true)?,
        })
    }

    /// The tensors in the order in which [`map`](Rows::map) goes through them.
    fn tensors(&self) -> Result<Vec<Tensor>> {
        let mut tensors = Vec::new();
        self.map(|tensor, _| {
            tensors.push(tensor.clone());
            Ok(tensor.clone())
        })?;
        Ok(tensors)
    }

    /// `count` rows from `start` on, of these tensors in another function.
    fn block(&self, tensors: &[Tensor], start: &Tensor, count: usize) -> Result<Rows> {
        let zero = start.builder().scalar(0i32)?;
        let mut tensors = tensors.iter();
        self.map(|own, by_row| {
            let tensor = tensors.next().unwrap_or(own);
            match (by_row, tensor.rank()) {
                (false, _) => Ok(tensor.clone()),
                (true, 1) => tensor.dynamic_slice(&[start], &[count]),
                (true, _) => tensor.dynamic_slice(&[start, &zero], &[count, tensor.dims()[1]]),
            }
        })
    }
}

/// How rows are searched.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) metric: Metric,
    pub(super) options: &'a SearchOptions,
    /// How many neighbours are looked for among these rows.
    pub(super) k: usize,
    /// The number of rows of the database that these are a share of.
    pub(super) whole: usize,
    /// The dtype of differences.
    pub(super) wide: DType,
    /// How far off a product of two floats may be, relative to it.
    pub(super) product_rounding: f64,
    /// Whether queries of cosines have the norm 1, or 0.
    pub(super) unit_queries: bool,
    /// Whether squared distances to all rows are computed.
    pub(super) by_differences: bool,
}

impl Plan<'_> {
    /// Whether distances are true squared ones.
    fn refines(&self) -> bool {
        self.options.refines(self.metric)
    }
}

/// What was found.
#[derive(Clone)]
pub(super) struct Found {
    /// `[q, k]`.
    pub(super) distances: Tensor,
    /// s32 `[q, k]`.
    pub(super) indices: Tensor,
    /// Whether a query's results are proven, pred `[q]`, where there is something to prove.
    pub(super) proven: Option<Tensor>,
}

impl Found {
    pub(super) fn tensors(&self) -> Vec<Tensor> {
        let proven = self.proven.clone();
        [self.distances.clone(), self.indices.clone()].into_iter().chain(proven).collect()
    }

    fn of(tensors: &[Tensor]) -> Found {
        Found { distances: tensors[0].clone(), indices: tensors[1].clone(), proven: tensors.get(2).cloned() }
    }

    /// What all devices found, side by side.
    pub(super) fn gathered(&self, devices: usize) -> Result<Found> {
        let proven = self.proven.as_ref().map(|proven| {
            let all = proven.convert(DType::S32)?.expand_dims(1)?.all_gather(1, devices)?;
            all.reduce_min(&[1])?.greater(0)
        });
        Ok(Found {
            distances: self.distances.all_gather(1, devices)?,
            indices: self.indices.all_gather(1, devices)?,
            proven: proven.transpose()?,
        })
    }
}

/// The rows of a block in the whole; -1 stays, for none.
fn moved(indices: &Tensor, start: &Tensor) -> Result<Tensor> {
    indices.less(0)?.select(indices, (indices + start)?)
}

/// One search.
#[derive(Clone)]
pub(super) struct Search<'a> {
    pub(super) plan: Plan<'a>,
    pub(super) queries: Tensor,
    pub(super) rows: Rows,
}

impl Search<'_> {
    /// The neighbours among the rows, block by block.
    pub(super) fn blocks(&self) -> Result<Found> {
        let [queries, k] = [self.queries.dims()[0], self.plan.k];
        let [rows, width] = [self.rows.database.dims()[0], self.rows.database.dims()[1]];
        let dtype =
            if self.plan.by_differences { self.plan.wide } else { score_dtype(self.rows.database.dtype()) };
        let in_budget = self.plan.options.score_budget.unwrap_or(usize::MAX) / dtype.size();
        // A block has k rows at least, as many as it must yield.
        if rows <= in_budget / queries.max(1) || rows < 2 * k {
            return self.nearest(self.plan.whole);
        }
        let blocks = rows.div_ceil((in_budget / queries.max(width)).max(1)).min(rows / k);
        let block = rows / blocks;
        let builder = self.queries.builder();
        // From the last block to the first, each block's neighbours in front: equal ones stay in the order of
        // their indices.
        let tensors = self.rows.tensors()?;
        let last = builder.scalar(((blocks - 1) * block) as i32)?;
        let mut found = self.of(&self.queries, &tensors, &last, block)?.nearest(block)?;
        found.indices = moved(&found.indices, &last)?;
        let left = builder.scalar(blocks as i32 - 1)?;
        let results = found.tensors();
        let state: Vec<&Tensor> =
            [&left].into_iter().chain(&results).chain([&self.queries]).chain(&tensors).collect();
        let shapes: Vec<Shape> = state.iter().map(|tensor| tensor.shape().clone()).collect();
        let condition = Function::trace("blocks_left", &shapes, |x| x[0].greater(0))?;
        let body = Function::trace("search_block", &shapes, |x| {
            let number = (&x[0] - 1)?;
            let start = (&number * block as i32)?;
            let (before, operands) = x[1..].split_at(results.len());
            // A block can hold all neighbours of a query, where they are stored next to each other.
            let mut here = self.of(&operands[0], &operands[1..], &start, block)?.nearest(block)?;
            here.indices = moved(&here.indices, &start)?;
            let mut state = x.to_vec();
            let merged = self.merge(&here, &Found::of(before))?.tensors();
            state[1..=merged.len()].clone_from_slice(&merged);
            state[0] = number;
            Ok(state)
        })?;
        let state = builder.while_loop(&state, condition, body)?;
        let found = Found::of(&state[1..=results.len()]);
        // Fewer rows than there are blocks are left over: each is a candidate.
        let rest = rows - blocks * block;
        if rest == 0 {
            return Ok(found);
        }
        let start = builder.scalar((blocks * block) as i32)?;
        let (distances, indices) = self.of(&self.queries, &tensors, &start, rest)?.all()?;
        let rest = Found { distances, indices: (indices + start)?, proven: None };
        self.merge(&found, &rest)
    }

    /// The search of `rows` rows from `start` on, in the function of these tensors.
    fn of(&self, queries: &Tensor, tensors: &[Tensor], start: &Tensor, rows: usize) -> Result<Self> {
        let rows = self.rows.block(tensors, start, rows)?;
        Ok(Search { plan: self.plan, queries: queries.clone(), rows })
    }

    /// The score of every row for each query.
    fn scores(&self) -> Result<Tensor> {
        let dtype = score_dtype(self.rows.database.dtype());
        let [queries, mut database] = [self.queries.convert(dtype)?, self.rows.database.convert(dtype)?];
        if let (Some(rows), Some(errors)) = (&self.rows.stored, &self.rows.errors) {
            let (rows, scales, errors) = (rows.clone(), self.rows.scales.clone(), errors.clone());
            database = Reduced { rows, scales, errors }.instead_of(&database)?;
        }
        let queries = match self.plan.metric {
            Metric::Cosine if !self.plan.unit_queries => metric::unit(&queries)?,
            _ => queries,
        };
        metric::scores(self.plan.metric, &queries, &database, self.rows.norms.as_ref())
    }

    /// The squared distances of all rows.
    fn squared_distances(&self) -> Result<Tensor> {
        let [queries, rows] = [&self.queries, &self.rows.database].map(|x| x.convert(self.plan.wide));
        metric::squared_distances_to(&queries?, &rows?.expand_dims(0)?)
    }

    /// Distances and indices of all rows, in their order.
    pub(super) fn all(&self) -> Result<(Tensor, Tensor)> {
        let sizes = [self.queries.dims()[0], self.rows.database.dims()[0]];
        let indices = self.queries.builder().iota(Shape::new(DType::S32, sizes), 1)?;
        let distances = if self.plan.refines() { self.squared_distances()? } else { self.scores()? };
        Ok((distances, indices))
    }

    /// The neighbours, with the recall planned for a database of `whole` rows.
    fn nearest(&self, whole: usize) -> Result<Found> {
        let options = ApproxTopKOptions {
            recall_target: self.plan.options.recall_target,
            reduction_input_size_override: Some(whole),
            ..ApproxTopKOptions::default()
        };
        if !self.plan.refines() {
            let (distances, indices) = self.best(&self.scores()?, &options)?;
            return Ok(Found { distances, indices, proven: None });
        }
        if self.plan.by_differences {
            let exact = ApproxTopKOptions { recall_target: 1.0, ..ApproxTopKOptions::default() };
            let (distances, indices) = self.best(&self.squared_distances()?, &exact)?;
            return Ok(Found { distances, indices, proven: None });
        }
        let Rows { database, stored, scales, errors: Some(errors), norms: Some(half_norms), centre } =
            &self.rows
        else {
            let (distances, indices) = self.all()?;
            return self.aggregate(Found { distances, indices, proven: None });
        };
        let [rows, width] = [database.dims()[0], database.dims()[1]];
        let lossy = stored.as_ref().unwrap_or(database).dtype();
        let lossy = if self.plan.product_rounding > 0.0 { DType::BF16 } else { lossy };
        let stored = stored.as_ref().map(|rows| Stored {
            rows: rows.clone(),
            scales: scales.clone(),
            centre: centre.clone(),
        });
        let nearest = Nearest {
            queries: self.queries.clone(),
            database: database.clone(),
            stored,
            errors: errors.clone(),
            half_norms: half_norms.clone(),
        };
        let [distances, indices, proven] = nearest.search(NearestPlan {
            k: self.plan.k,
            candidates: candidates(lossy, options.recall_target, self.plan.k, width, rows),
            recall_target: options.recall_target,
            whole,
            wide: self.plan.wide,
            product_rounding: self.plan.product_rounding,
        })?;
        Ok(Found { distances, indices, proven: Some(proven) })
    }

    /// The best of some distances by the metric, and their positions.
    fn best(&self, distances: &Tensor, options: &ApproxTopKOptions) -> Result<(Tensor, Tensor)> {
        match self.plan.metric {
            Metric::L2 => distances.approx_min_k(self.plan.k, options),
            Metric::InnerProduct | Metric::Cosine => distances.approx_max_k(self.plan.k, options),
        }
    }

    /// The best of two lots of distances, exactly, and those of their indices.
    fn merge(&self, first: &Found, second: &Found) -> Result<Found> {
        let exact = ApproxTopKOptions { recall_target: 1.0, ..ApproxTopKOptions::default() };
        let distances = Tensor::concatenate(&[&first.distances, &second.distances], 1)?;
        let (distances, position) = self.best(&distances, &exact)?;
        let indices = Tensor::concatenate(&[&first.indices, &second.indices], 1)?;
        let indices = indices.take_along_axis(&position, 1)?;
        let proven = match (&first.proven, &second.proven) {
            (Some(first), Some(second)) => Some((first & second)?),
            (proven, None) | (None, proven) => proven.clone(),
        };
        Ok(Found { distances, indices, proven })
    }

    /// The best of a few distances, exactly, and those of their indices. They are sorted together, as a TPU takes
    /// longer to gather as many elements.
    pub(super) fn aggregate(&self, found: Found) -> Result<Found> {
        let direction = match self.plan.metric {
            Metric::L2 => Direction::Min,
            Metric::InnerProduct | Metric::Cosine => Direction::Max,
        };
        let indices = std::slice::from_ref(&found.indices);
        let best = best_with(&found.distances, indices, self.plan.k, direction)?;
        Ok(Found { distances: best[0].clone(), indices: best[1].clone(), proven: found.proven })
    }
}
