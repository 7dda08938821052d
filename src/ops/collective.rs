//! What the replicas of a function do together, each on a device of its own.
//!
//! A function is compiled for a number of replicas
//! ([`Session::compile_replicas`](crate::Session::compile_replicas)), all of which run it at the same time on
//! arguments of their own. On the host, [`Function::eval_replicas`](crate::Function::eval_replicas) evaluates them
//! together.

use crate::graph::{Builder, Tensor};
use crate::hlo;
use crate::hlo::proto::ReplicaGroup;
use crate::ops::concatenate::Concatenate;
use crate::ops::{Operator, arity};
use crate::transform::{Batched, Dual, Jvp, Part, Transposition, Vmap};
use crate::{Array, DType, Error, Result, Shape};

/// The operands of all replicas one after another along a dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AllGather {
    pub(crate) dimension: usize,
    pub(crate) replicas: usize,
}

/// The number of the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaId {
    pub(crate) replicas: usize,
}

impl Tensor {
    /// The operands of all replicas one after another along dimension `axis` (negative: from the end), in the
    /// order of their numbers; every replica gets the same.
    ///
    /// The function must be compiled for that many `replicas`, or evaluated with
    /// [`eval_replicas`](crate::Function::eval_replicas). It can stand in no sub-function, such as the body of a
    /// loop. Of a single replica, it gives the operand.
    ///
    /// Its reverse derivative is that of the sum of what all replicas compute.
    ///
    /// # Errors
    /// Where there is no such dimension, or of 0 replicas.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape};
    ///
    /// let f = Function::trace("f", &[Shape::new(DType::F32, [2])], |x| x[0].all_gather(0, 2))?;
    /// let [first, second] = [Array::new([2], &[1f32, 2.0])?, Array::new([2], &[3f32, 4.0])?];
    /// let results = f.eval_replicas(&[vec![first], vec![second]])?;
    /// let all = Array::new([4], &[1f32, 2.0, 3.0, 4.0])?;
    /// assert_eq!(results, [vec![all.clone()], vec![all]]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn all_gather(&self, axis: isize, replicas: usize) -> Result<Tensor> {
        let dimension = self.shape().axis("all_gather", "axis", axis)?;
        self.builder().push_one(AllGather { dimension, replicas }, &[self])
    }
}

impl Builder {
    /// The number of the replica, an s32 scalar from 0 to less than `replicas`, for which the function must be
    /// compiled or evaluated as for [`Tensor::all_gather`].
    ///
    /// # Errors
    /// Of 0 replicas, or more than an s32 counts.
    ///
    /// ```
    /// use xlann::{Array, Builder};
    ///
    /// let builder = Builder::new("first_row");
    /// let first_row = (builder.replica_id(3)? * 1000)?;
    /// let results = builder.finish(first_row)?.eval_replicas(&[vec![], vec![], vec![]])?;
    /// assert_eq!(results[2], [Array::scalar(2000)]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn replica_id(&self, replicas: usize) -> Result<Tensor> {
        self.push_one(ReplicaId { replicas }, &[])
    }
}

fn check_replicas(operator: &'static str, replicas: usize) -> Result<()> {
    if (1..=i32::MAX as usize).contains(&replicas) {
        return Ok(());
    }
    Err(Error::argument(operator, "replicas", format!("from 1 to {}", i32::MAX), replicas))
}

/// The outputs of the only replica.
fn single(operator: &dyn Operator, inputs: &[Array]) -> Result<Vec<Array>> {
    let mut outputs = operator.eval_replicas(&[inputs.to_vec()])?;
    Ok(outputs.swap_remove(0))
}

impl Operator for AllGather {
    fn name(&self) -> &'static str {
        "all_gather"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![("dimension", self.dimension.to_string()), ("replicas", self.replicas.to_string())]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [operand] = arity(self.name(), inputs)?;
        check_replicas(self.name(), self.replicas)?;
        let Some(size) = operand.dims().get(self.dimension) else {
            let expected = format!("less than the rank of {operand}");
            return Err(Error::argument(self.name(), "dimension", expected, self.dimension));
        };
        let mut dims = operand.dims().to_vec();
        dims[self.dimension] = size.checked_mul(self.replicas).ok_or_else(|| {
            Error::argument(self.name(), "replicas", "so few that sizes are a usize", self.replicas)
        })?;
        Ok(vec![operand.with_dims(dims)])
    }

    fn replicas(&self) -> Option<usize> {
        Some(self.replicas)
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        single(self, inputs)
    }

    fn eval_replicas(&self, inputs: &[Vec<Array>]) -> Result<Vec<Vec<Array>>> {
        let operands: Vec<Array> = inputs.iter().flatten().cloned().collect();
        let gathered = Concatenate { dimension: self.dimension }.eval(&operands)?;
        Ok(vec![gathered; inputs.len()])
    }

    fn hlo(&self, module: &mut hlo::Builder, inputs: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let shape = self.infer(&[inputs[0].shape()])?.remove(0);
        let gathered = module.add_with("all-gather", &shape, &[&inputs[0]], |instruction| {
            instruction.dimensions = vec![self.dimension as i64];
            instruction.replica_groups =
                vec![ReplicaGroup { replica_ids: (0..self.replicas as i64).collect() }];
        });
        Ok(vec![gathered])
    }

    fn vmap(&self, rule: &Vmap, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let operand = rule.leading(&inputs[0])?;
        rule.push(AllGather { dimension: self.dimension + 1, ..*self }, &[&operand], 0)
    }

    fn jvp(&self, rule: &Jvp, inputs: &[Dual]) -> Result<Vec<Dual>> {
        rule.linear(inputs)
    }

    /// The sum of all replicas' cotangents of this replica's part.
    fn transpose(
        &self,
        rule: &Transposition,
        inputs: &[Part],
        _: &[Tensor],
        cotangents: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(cotangent) = &cotangents[0] else { return Ok(vec![None]) };
        let mut sizes = inputs[0].shape().dims().to_vec();
        let size = rule.builder.scalar(sizes[self.dimension] as i64)?;
        let start = (rule.builder.replica_id(self.replicas)?.convert(DType::S64)? * size)?;
        let zero = rule.builder.scalar(0i64)?;
        let mut starts = vec![&zero; sizes.len() + 1];
        starts[self.dimension + 1] = &start;
        sizes.insert(0, self.replicas);
        let all = cotangent.expand_dims(0)?.all_gather(0, self.replicas)?;
        Ok(vec![Some(all.dynamic_slice(&starts, &sizes)?.reduce_sum(&[0])?)])
    }
}

impl Operator for ReplicaId {
    fn name(&self) -> &'static str {
        "replica_id"
    }

    fn params(&self) -> Vec<(&'static str, String)> {
        vec![("replicas", self.replicas.to_string())]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let [] = arity(self.name(), inputs)?;
        check_replicas(self.name(), self.replicas)?;
        Ok(vec![Shape::scalar(DType::S32)])
    }

    fn replicas(&self) -> Option<usize> {
        Some(self.replicas)
    }

    fn eval(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        single(self, inputs)
    }

    fn eval_replicas(&self, inputs: &[Vec<Array>]) -> Result<Vec<Vec<Array>>> {
        Ok((0..inputs.len() as i32).map(|id| vec![Array::scalar(id)]).collect())
    }

    fn hlo(&self, module: &mut hlo::Builder, _: &[hlo::Value]) -> Result<Vec<hlo::Value>> {
        let id = module.add("replica-id", &Shape::scalar(DType::U32), &[]);
        Ok(vec![module.add("convert", &Shape::scalar(DType::S32), &[&id])])
    }
}
