//! Batching.

use crate::ops::Op;
use crate::{Array, Builder, Error, Function, Result, Shape, Tensor};

/// A value of the function that is being batched.
#[derive(Clone, Debug)]
pub(crate) struct Batched {
    pub(crate) tensor: Tensor,
    /// The batch dimension; a value without one is the same for all of the batch.
    pub(crate) axis: Option<usize>,
}

/// What the vmap rule of an operator works with.
pub(crate) struct Vmap<'a> {
    pub(crate) builder: &'a Builder,
    /// The size of the batch, 1 at least.
    pub(crate) size: usize,
    /// The operator.
    pub(crate) op: &'a Op,
}

impl Batched {
    /// Tensors that have the batch dimension in front where `batched` says.
    pub(crate) fn list(tensors: Vec<Tensor>, batched: &[bool]) -> Vec<Batched> {
        let pairs = tensors.into_iter().zip(batched);
        pairs.map(|(tensor, batched)| Batched { tensor, axis: batched.then_some(0) }).collect()
    }

    /// The shape without the batch dimension.
    pub(crate) fn inner(&self) -> Shape {
        let mut dims = self.tensor.dims().to_vec();
        if let Some(axis) = self.axis {
            dims.remove(axis);
        }
        self.tensor.shape().with_dims(dims)
    }

    /// The dimension of the tensor that is this dimension of the value.
    pub(crate) fn dimension(&self, inner: usize) -> usize {
        inner + usize::from(self.axis.is_some_and(|axis| axis <= inner))
    }

    /// With the batch dimension at `axis`; repeated along it where there is none.
    pub(crate) fn at(&self, size: usize, axis: usize) -> Result<Tensor> {
        match self.axis {
            Some(from) if from == axis => Ok(self.tensor.clone()),
            Some(from) => self.tensor.move_axis(from as isize, axis as isize),
            None => {
                let mut dims = self.tensor.dims().to_vec();
                dims.insert(axis, size);
                let places: Vec<usize> = (0..dims.len()).filter(|&place| place != axis).collect();
                self.tensor.broadcast_in_dim(&dims, &places)
            }
        }
    }
}

impl Vmap<'_> {
    /// The tensor with the batch dimension at `axis`; repeated along it where it has none.
    pub(crate) fn at(&self, input: &Batched, axis: usize) -> Result<Tensor> {
        input.at(self.size, axis)
    }

    /// The tensor with the batch dimension in front; repeated along it where it has none.
    pub(crate) fn leading(&self, input: &Batched) -> Result<Tensor> {
        self.at(input, 0)
    }

    /// The first batch dimension that one has, and all tensors with it there.
    pub(crate) fn aligned(&self, inputs: &[Batched]) -> Result<(usize, Vec<Tensor>)> {
        let axis = inputs.iter().find_map(|input| input.axis).unwrap_or(0);
        let tensors = inputs.iter().map(|input| self.at(input, axis));
        Ok((axis, tensors.collect::<Result<_>>()?))
    }

    /// The tensors with the batch dimension in front where `batched` says, which is where they have one at least.
    pub(crate) fn leading_where(&self, inputs: &[Batched], batched: &[bool]) -> Result<Vec<Tensor>> {
        let place = |(input, &batched): (&Batched, &bool)| match batched {
            true => self.leading(input),
            false => Ok(input.tensor.clone()),
        };
        inputs.iter().zip(batched).map(place).collect()
    }

    /// Appends an operator, all of whose outputs have the batch dimension at `axis`.
    pub(crate) fn push(&self, op: impl Into<Op>, inputs: &[&Tensor], axis: usize) -> Result<Vec<Batched>> {
        let outputs = self.builder.push(op, inputs)?;
        Ok(outputs.into_iter().map(|tensor| Batched { tensor, axis: Some(axis) }).collect())
    }

    /// The rule of another operator.
    pub(crate) fn apply(&self, op: impl Into<Op>, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let op = op.into();
        op.rules().vmap(&Vmap { builder: self.builder, size: self.size, op: &op }, inputs)
    }

    /// The rule of an operator that works position by position on operands of one shape.
    pub(crate) fn elementwise(&self, inputs: &[Batched]) -> Result<Vec<Batched>> {
        let (axis, inputs) = self.aligned(inputs)?;
        self.push(self.op.clone(), &inputs.iter().collect::<Vec<_>>(), axis)
    }
}

/// Appends the equations of `function` for a batch of arguments, and gives its results.
pub(crate) fn push_vmap(
    builder: &Builder,
    size: usize,
    function: &Function,
    arguments: Vec<Batched>,
) -> Result<Vec<Batched>> {
    function.interpret(arguments, |equation, inputs| {
        if inputs.iter().all(|input| input.axis.is_none()) {
            let tensors: Vec<&Tensor> = inputs.iter().map(|input| &input.tensor).collect();
            let outputs = builder.push(equation.op.clone(), &tensors)?;
            return Ok(outputs.into_iter().map(|tensor| Batched { tensor, axis: None }).collect());
        }
        if size == 0 {
            // Whatever the operator, of no batch there is nothing to compute.
            let empty = |&var| {
                let shape = function.shape(var);
                let dims = [&[0], shape.dims()].concat();
                let tensor = builder.constant(Array::zeros(shape.with_dims(dims))?)?;
                Ok(Batched { tensor, axis: Some(0) })
            };
            return equation.outputs().iter().map(empty).collect();
        }
        equation.op.rules().vmap(&Vmap { builder, size, op: &equation.op }, inputs)
    })
}

/// A sub-function for a batch, and which of its results then have a batch dimension: those that must, and those
/// that come out of parameters that have one. Batch dimensions stand in front.
pub(crate) fn vmap_body(
    function: &Function,
    size: usize,
    batched: &[bool],
    required: &[bool],
) -> Result<(Function, Vec<bool>)> {
    let builder = Builder::new(function.name());
    let arguments = function
        .parameters()
        .zip(batched)
        .map(|((name, shape), &batched)| {
            let dims = if batched { [&[size], shape.dims()].concat() } else { shape.dims().to_vec() };
            let tensor = builder.parameter(name, shape.with_dims(dims))?;
            Ok(Batched { tensor, axis: batched.then_some(0) })
        })
        .collect::<Result<_>>()?;
    let results = push_vmap(&builder, size, function, arguments)?;
    let batched: Vec<bool> =
        results.iter().zip(required).map(|(result, &required)| required || result.axis.is_some()).collect();
    let results = results
        .iter()
        .zip(&batched)
        .map(|(result, &batched)| if batched { result.at(size, 0) } else { Ok(result.tensor.clone()) })
        .collect::<Result<Vec<_>>>()?;
    Ok((builder.finish(results)?.pruned(), batched))
}

/// The batch axes of all parameters or of all results of a function: one for all, or one or none for each.
///
/// ```
/// use xlann::transform::Axes;
///
/// let same_for_all = Axes::from(0);
/// let last_of_the_first = Axes::from([Some(-1), None]);
/// assert_ne!(same_for_all, last_of_the_first);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Axes {
    /// This axis in each.
    All(isize),
    /// The axis of each; none where all of the batch share it.
    Each(Vec<Option<isize>>),
}

impl From<isize> for Axes {
    fn from(axis: isize) -> Axes {
        Axes::All(axis)
    }
}

impl From<&[Option<isize>]> for Axes {
    fn from(axes: &[Option<isize>]) -> Axes {
        Axes::Each(axes.to_vec())
    }
}

impl From<Vec<Option<isize>>> for Axes {
    fn from(axes: Vec<Option<isize>>) -> Axes {
        Axes::Each(axes)
    }
}

impl<const N: usize> From<[Option<isize>; N]> for Axes {
    fn from(axes: [Option<isize>; N]) -> Axes {
        Axes::Each(axes.to_vec())
    }
}

impl Axes {
    fn each(self, argument: &str, count: usize) -> Result<Vec<Option<isize>>> {
        match self {
            Axes::All(axis) => Ok(vec![Some(axis); count]),
            Axes::Each(axes) if axes.len() == count => Ok(axes),
            Axes::Each(axes) => {
                let expected = format!("{count}, one or none for each");
                Err(Error::argument("vmap", argument, expected, axes.len()))
            }
        }
    }
}

/// The function for a batch: it takes arguments with one more dimension, where `in_axes` says, and gives results
/// with one more, where `out_axes` says.
///
/// Both are an axis for all, or one or none for each; negative axes count from the end, in the shape with the
/// batch dimension. A parameter without an axis is shared by all of the batch, and a result without one must not
/// depend on it. Every operator is batched as a whole: nothing is repeated for each element of the batch, but for
/// custom calls that ask for it ([`VmapMethod::Sequential`](crate::VmapMethod::Sequential)).
///
/// The batch is of `size` elements, which the function's own shapes do not tell.
///
/// # Errors
/// Where the axes are not one or none for each, none of the parameters has one, an axis is out of range, a result
/// without one depends on the batch, or an operator cannot be batched ([`Error::NoRule`]).
///
/// ```
/// use xlann::{Array, DType, Function, Shape, vmap};
///
/// let shapes = [Shape::new(DType::F32, [3]), Shape::new(DType::F32, [3])];
/// let dot = Function::trace("dot", &shapes, |x| x[0].dot(&x[1]))?;
/// // Of each row of the first argument with the second one.
/// let rows = vmap(&dot, [Some(0), None], 0, 2)?;
/// assert_eq!(
///     rows.to_string(),
///     "vmap_dot(%0: f32[2,3], %1: f32[3]) {
///   %2: f32[2] = dot_general[lhs_contracting=[1], rhs_contracting=[0]] %0 %1
///   return %2
/// }"
/// );
/// let matrix = Array::new([2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// let results = rows.eval(&[matrix, Array::new([3], &[1f32, 0.0, 1.0])?])?;
/// assert_eq!(results, [Array::new([2], &[4f32, 10.0])?]);
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn vmap(
    function: &Function,
    in_axes: impl Into<Axes>,
    out_axes: impl Into<Axes>,
    size: usize,
) -> Result<Function> {
    let in_axes = in_axes.into().each("in_axes", function.parameters().len())?;
    let out_axes = out_axes.into().each("out_axes", function.results().len())?;
    if in_axes.iter().all(Option::is_none) {
        return Err(Error::argument("vmap", "in_axes", "an axis of one parameter at least", "none"));
    }
    // An axis is one of the shape with the batch dimension.
    let place = |argument: &str, index: usize, shape: &Shape, axis: isize| {
        let with_batch = shape.with_dims([shape.dims(), &[size]].concat());
        let axis = with_batch.axis("vmap", &format!("{argument}[{index}]"), axis)?;
        let mut dims = shape.dims().to_vec();
        dims.insert(axis, size);
        Ok::<_, Error>((axis, shape.with_dims(dims)))
    };
    let builder = Builder::new(&format!("vmap_{}", function.name()));
    let mut arguments = Vec::new();
    for (index, ((name, shape), axis)) in function.parameters().zip(&in_axes).enumerate() {
        let (axis, shape) = match axis {
            Some(axis) => {
                let (axis, shape) = place("in_axes", index, shape, *axis)?;
                (Some(axis), shape)
            }
            None => (None, shape.clone()),
        };
        arguments.push(Batched { tensor: builder.parameter(name, shape)?, axis });
    }
    let results = push_vmap(&builder, size, function, arguments)?;
    let mut placed = Vec::new();
    for (index, (result, axis)) in results.iter().zip(&out_axes).enumerate() {
        placed.push(match axis {
            Some(axis) => result.at(size, place("out_axes", index, &result.inner(), *axis)?.0)?,
            None if result.axis.is_none() => result.tensor.clone(),
            None => {
                let expected = "an axis, as the result depends on the batch";
                return Err(Error::argument("vmap", format!("out_axes[{index}]"), expected, "none"));
            }
        });
    }
    Ok(builder.finish(placed)?.pruned())
}
