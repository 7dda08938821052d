//! Batching by base ranks.

use crate::shape::{Dims, broadcast_dims};
use crate::transform::{Tree, vmap_body};
use crate::{Array, Builder, Error, Function, Result, Shape, Tensor};

/// A function of arguments with any leading batch dimensions, which [`auto_vmap`] makes.
///
/// Its graph depends on the arguments' shapes: [`function`](AutoVmap::function) gives that for some shapes,
/// [`eval`](AutoVmap::eval) evaluates it on the host, [`call`](AutoVmap::call) is for use in another graph.
/// Threads can share it.
pub struct AutoVmap<'a> {
    name: String,
    arguments: Vec<String>,
    /// Those of each argument.
    ranks: Vec<Tree<usize>>,
    body: Body<'a>,
}

type Body<'a> = Box<dyn Fn(&[Tree<Tensor>]) -> Result<Tree<Tensor>> + Send + Sync + 'a>;

/// A leaf of the arguments.
struct Leaf<'a> {
    /// Such as `inputs.v`.
    path: String,
    shape: &'a Shape,
    /// How many of its dimensions come before those of its base rank.
    batch_rank: usize,
}

/// The function that `body` computes, for arguments with any leading batch dimensions.
///
/// `arguments` are the names of the arguments, and `ranks` are their base ranks: by position, from the first
/// argument on, or by name. `body` sees arguments of exactly these ranks. The dimensions that an argument of the
/// call has in front of them are batch dimensions. Those of all arguments broadcast as in NumPy (right-aligned,
/// sizes of 1 stretched), and the function is applied for each index. Every result has the batch dimensions in
/// front, whether it depends on the batch or not.
///
/// Arguments and results are [`Tree`]s. The rank of an argument applies to each of its leaves, or ranks are
/// nested as the argument is; a single rank in place of a list is that of all leaves of all arguments. An
/// argument that has no rank, or [`Tree::None`], is not mapped: all of it goes into every call. An argument that
/// is itself [`Tree::None`] is skipped, whatever its ranks. Ranks are unsigned, so that none is negative.
///
/// What is not mapped, or has a batch dimension of size 1, is not repeated where the operators can do without, as
/// with [`vmap`](crate::vmap). `body` is called once for each graph, after the arguments' shapes have been checked.
///
/// # Errors
/// Where the names of the arguments are not distinct, or there are more ranks than arguments, or ranks under a name
/// that is no argument's, or under one name twice.
///
/// ```
/// use xlann::{Array, auto_vmap};
///
/// // A scalar, a vector and a matrix.
/// let foo = auto_vmap("foo", &["s", "v", "m"], [0, 1, 2], |x| {
///     let (s, v, m) = (x[0].leaf()?, x[1].leaf()?, x[2].leaf()?);
///     v.dot(m)?.dot(v)? + s * v.dims()[0] as f64
/// })?;
/// let ones = |dims: &[usize]| Array::new(dims, &vec![1f32; dims.iter().product()]);
/// let one = foo.eval((2f32, ones(&[3])?, ones(&[3, 3])?))?;
/// assert_eq!(*one.leaf()?, Array::scalar(15f32));
/// // With five vectors and matrices,
/// let five = foo.eval((2f32, ones(&[5, 3])?, ones(&[5, 3, 3])?))?;
/// assert_eq!(*five.leaf()?, Array::new([5], &[15f32; 5])?);
/// // and with a batch of two dimensions.
/// let ten = foo.eval((ones(&[5])?, ones(&[3])?, ones(&[2, 5, 3, 3])?))?;
/// assert_eq!(*ten.leaf()?, Array::new([2, 5], &[12f32; 10])?);
/// # Ok::<(), xlann::Error>(())
/// ```
///
/// By name, and in a map:
///
/// ```
/// use xlann::{Array, Tree, auto_vmap};
///
/// let ranks = [("inputs", [("s", 0), ("v", 1), ("m", 2)])];
/// let foo = auto_vmap("foo", &["inputs"], ranks, |x| {
///     let (v, m) = (x[0].get("v")?.leaf()?, x[0].get("m")?.leaf()?);
///     v.dot(m)?.dot(v)? + x[0].get("s")?.leaf()?
/// })?;
/// let ones = |dims: &[usize]| Array::new(dims, &vec![1f32; dims.iter().product()]);
/// let inputs = [("s", Array::scalar(2f32)), ("v", ones(&[5, 3])?), ("m", ones(&[3, 3])?)];
/// assert_eq!(*foo.eval([inputs])?.leaf()?, Array::new([5], &[11f32; 5])?);
///
/// let inputs = [("s", Array::scalar(2f32)), ("v", ones(&[5, 3])?), ("m", ones(&[3])?)];
/// let refused = foo.eval([inputs]).unwrap_err();
/// assert_eq!(
///     refused.to_string(),
///     "auto_vmap: argument inputs.m of foo must be of rank 2 at least, its base rank, got f32[3]"
/// );
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn auto_vmap<'a, R: Into<Tree<Tensor>>>(
    name: &str,
    arguments: &[&str],
    ranks: impl Into<Tree<usize>>,
    body: impl Fn(&[Tree<Tensor>]) -> Result<R> + Send + Sync + 'a,
) -> Result<AutoVmap<'a>> {
    if let Some(twice) = (0..arguments.len()).find(|&index| arguments[..index].contains(&arguments[index])) {
        let got = format!("{} twice", arguments[twice]);
        return Err(Error::argument("auto_vmap", format!("arguments of {name}"), "distinct names", got));
    }
    Ok(AutoVmap {
        name: name.to_owned(),
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        ranks: ranks_of_each(name, arguments, ranks.into())?,
        body: Box::new(move |x| Ok(body(x)?.into())),
    })
}

/// The ranks of each argument.
fn ranks_of_each(name: &str, arguments: &[&str], ranks: Tree<usize>) -> Result<Vec<Tree<usize>>> {
    let refused = |expected: String, got: String| {
        Err(Error::argument("auto_vmap", format!("ranks of {name}"), expected, got))
    };
    ranks.check_names("auto_vmap", &format!("ranks of {name}"))?;
    let mut of_each = vec![Tree::None; arguments.len()];
    match ranks {
        Tree::None | Tree::Leaf(_) => of_each.fill(ranks),
        Tree::List(ranks) if ranks.len() > arguments.len() => {
            let expected = format!("{} at most, one for each argument", arguments.len());
            return refused(expected, ranks.len().to_string());
        }
        Tree::List(ranks) => of_each.iter_mut().zip(ranks).for_each(|(of_one, ranks)| *of_one = ranks),
        Tree::Map(ranks) => {
            for (argument, ranks) in ranks {
                match arguments.iter().position(|&name| name == argument) {
                    Some(index) => of_each[index] = ranks,
                    None => return refused(format!("of its arguments ({})", arguments.join(", ")), argument),
                }
            }
        }
    }
    Ok(of_each)
}

impl AutoVmap<'_> {
    /// The function for arguments of these shapes, a list of one for each argument.
    ///
    /// Its parameters are the leaves of the arguments, named after their places, such as `inputs.v` or `pair.0`; its
    /// results are the leaves of the results. Both are in the order of [`Tree::leaves`].
    ///
    /// # Errors
    /// Where the arguments' number or structure is not what `auto_vmap` was told, one has fewer dimensions than
    /// its base rank, or the batch dimensions do not broadcast; those of the body; and where an operator cannot
    /// be batched ([`Error::NoRule`]).
    ///
    /// ```
    /// use xlann::{DType, Shape, auto_vmap};
    ///
    /// let foo = auto_vmap("foo", &["s", "v", "m"], [("v", 1), ("m", 2), ("s", 0)], |x| {
    ///     let (s, v, m) = (x[0].leaf()?, x[1].leaf()?, x[2].leaf()?);
    ///     v.dot(m)?.dot(v)? + s * 3
    /// })?;
    /// // One matrix for five vectors goes into the product as it is.
    /// let shape = |dims: &[usize]| Shape::new(DType::F32, dims);
    /// let function = foo.function((shape(&[]), shape(&[5, 3]), shape(&[3, 3])))?;
    /// assert_eq!(
    ///     function.to_string(),
    ///     "foo(s %0: f32[], v %1: f32[5,3], m %2: f32[3,3]) {
    ///   %3: f32[5,3] = dot_general[lhs_contracting=[1], rhs_contracting=[0]] %1 %2
    ///   %4: f32[5] = dot_general[lhs_contracting=[1], rhs_contracting=[1], lhs_batch=[0], rhs_batch=[0]] %3 %1
    ///   %5: f32[] = constant[value=f32[] 3]
    ///   %6: f32[] = mul %0 %5
    ///   %7: f32[5] = broadcast_in_dim[dims=[5], broadcast_dimensions=[]] %6
    ///   %8: f32[5] = add %4 %7
    ///   return %8
    /// }"
    /// );
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn function(&self, shapes: impl Into<Tree<Shape>>) -> Result<Function> {
        Ok(self.batched(&shapes.into())?.0)
    }

    /// Evaluates the function on the host for these arguments, a list of one for each.
    ///
    /// # Errors
    /// Those of [`function`](AutoVmap::function) and of [`Function::eval`].
    ///
    /// ```
    /// use xlann::{Array, auto_vmap};
    ///
    /// let shift = auto_vmap("shift", &["x", "offsets"], [1], |x| {
    ///     let (x, offsets) = (x[0].leaf()?, x[1].leaf()?);
    ///     Ok([("sum", (x + offsets)?), ("offsets", offsets.clone())])
    /// })?;
    /// // The offsets are not mapped, and every result has the batch dimension.
    /// let x = Array::new([2, 3], &[1, 2, 3, 4, 5, 6])?;
    /// let results = shift.eval((x, Array::new([3], &[10, 20, 30])?))?;
    /// assert_eq!(results.get("sum")?.leaf()?.to_string(), "s32[2,3] [[11, 22, 33], [14, 25, 36]]");
    /// assert_eq!(results.get("offsets")?.leaf()?.to_string(), "s32[2,3] [[10, 20, 30], [10, 20, 30]]");
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn eval(&self, arguments: impl Into<Tree<Array>>) -> Result<Tree<Array>> {
        let arguments = arguments.into();
        let (function, structure) = self.batched(&arguments.map(|array| array.shape().clone()))?;
        let leaves: Vec<Array> = arguments.leaves().into_iter().cloned().collect();
        structure.with_leaves(&function.eval(&leaves)?)
    }

    /// Appends the function to the graph that these arguments, a list of one for each, belong to, and gives its
    /// results.
    ///
    /// # Errors
    /// Those of [`function`](AutoVmap::function), and where there is no tensor among the arguments, or they belong
    /// to several graphs.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape, auto_vmap};
    ///
    /// let scale = auto_vmap("scale", &["x", "factor"], [1, 0], |x| x[0].leaf()? * x[1].leaf()?)?;
    /// let shapes = [Shape::new(DType::F32, [2, 2]), Shape::new(DType::F32, [2])];
    /// let f = Function::trace("f", &shapes, |x| scale.call((&x[0], &x[1]))?.leaf()?.exp())?;
    /// assert_eq!(f.result_shapes(), [Shape::new(DType::F32, [2, 2])]);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn call(&self, arguments: impl Into<Tree<Tensor>>) -> Result<Tree<Tensor>> {
        let arguments = arguments.into();
        let leaves = arguments.leaves();
        let Some(first) = leaves.first() else {
            let argument = format!("arguments of {}", self.name);
            return Err(Error::argument("auto_vmap", argument, "of one tensor at least", "none"));
        };
        let (function, structure) = self.batched(&arguments.map(|tensor| tensor.shape().clone()))?;
        structure.with_leaves(&first.builder().call(&function, &leaves)?)
    }

    /// The function for arguments of these shapes, and the structure of its results.
    fn batched(&self, shapes: &Tree<Shape>) -> Result<(Function, Tree<()>)> {
        let leaves = self.leaves(shapes)?;
        let batch = self.batch_dims(&leaves)?;
        let (mut function, structure) = self.traced(shapes, &leaves)?;

        // Dimensions of size 1 are left out here and come back with the results: what is 1 where the batch is
        // larger is then like what has no such dimension. From the innermost out, each goes in front.
        let count = function.results().len();
        let mut has = vec![Vec::new(); count];
        for (dimension, &size) in batch.iter().enumerate().rev().filter(|&(_, &size)| size != 1) {
            let mapped: Vec<bool> =
                leaves.iter().map(|leaf| leaf.batch_size(&batch, dimension) == size).collect();
            let (next, depends) = vmap_body(&function, size, &mapped, &vec![false; count])?;
            function = next;
            for (has, _) in has.iter_mut().zip(depends).filter(|(_, depends)| *depends) {
                has.insert(0, dimension);
            }
        }

        let builder = Builder::new(&self.name);
        let arguments = leaves.iter().map(|leaf| leaf.squeezed(&builder)).collect::<Result<Vec<_>>>()?;
        let results = builder.call(&function, &arguments.iter().collect::<Vec<_>>())?;
        let results = results.iter().zip(&has).map(|(result, has)| {
            let own = &result.dims()[has.len()..];
            let dims = [&batch, own].concat();
            if result.dims() == dims {
                return Ok(result.clone());
            }
            let places = has.iter().copied().chain(batch.len()..dims.len());
            result.broadcast_in_dim(&dims, &places.collect::<Vec<_>>())
        });
        let results = results.collect::<Result<Vec<_>>>()?;
        Ok((builder.finish(results)?.pruned(), structure))
    }

    /// The body for arguments without batch dimensions, and the structure of its results.
    fn traced(&self, shapes: &Tree<Shape>, leaves: &[Leaf]) -> Result<(Function, Tree<()>)> {
        let builder = Builder::new(&self.name);
        let parameters = leaves
            .iter()
            .map(|leaf| builder.parameter(&leaf.path, leaf.shape.with_dims(leaf.base())))
            .collect::<Result<Vec<_>>>()?;
        let arguments = shapes.with_leaves(&parameters)?;
        let arguments: Vec<_> =
            arguments.children().into_iter().map(|(_, argument)| argument.clone()).collect();
        let results = (self.body)(&arguments)?;
        results.check_names("auto_vmap", &format!("results of {}", self.name))?;
        let tensors: Vec<Tensor> = results.leaves().into_iter().cloned().collect();
        Ok((builder.finish(tensors)?, results.map(|_| ())))
    }

    /// The leaves of the arguments, which must be as their ranks say.
    fn leaves<'a>(&self, shapes: &'a Tree<Shape>) -> Result<Vec<Leaf<'a>>> {
        let Tree::List(arguments) = shapes else {
            let expected = format!("a list, of one for each of {}", self.arguments.join(", "));
            return Err(Error::argument(
                "auto_vmap",
                format!("arguments of {}", self.name),
                expected,
                shapes.kind(),
            ));
        };
        if arguments.len() != self.arguments.len() {
            let (expected, got) = (self.arguments.len(), arguments.len());
            return Err(Error::ArgumentCount { function: self.name.clone(), expected, got });
        }
        let mut leaves = Vec::new();
        for ((path, argument), ranks) in self.arguments.iter().zip(arguments).zip(&self.ranks) {
            argument.check_names("auto_vmap", &self.described(path))?;
            self.push_leaves(path, argument, ranks, &mut leaves)?;
        }
        Ok(leaves)
    }

    fn push_leaves<'a>(
        &self,
        path: &str,
        argument: &'a Tree<Shape>,
        ranks: &Tree<usize>,
        leaves: &mut Vec<Leaf<'a>>,
    ) -> Result<()> {
        let (children, ranks_of) = (argument.children(), ranks.children());
        let same_keys = || children.iter().map(|child| &child.0).eq(ranks_of.iter().map(|child| &child.0));
        match (argument, ranks) {
            (Tree::None, _) => {}
            (Tree::Leaf(shape), Tree::None) => {
                leaves.push(Leaf { path: path.to_owned(), shape, batch_rank: 0 });
            }
            (Tree::Leaf(shape), Tree::Leaf(rank)) => {
                let Some(batch_rank) = shape.rank().checked_sub(*rank) else {
                    let expected = format!("of rank {rank} at least, its base rank");
                    return Err(Error::argument("auto_vmap", self.described(path), expected, shape));
                };
                leaves.push(Leaf { path: path.to_owned(), shape, batch_rank });
            }
            (_, Tree::None | Tree::Leaf(_)) => {
                for (key, child) in children {
                    self.push_leaves(&format!("{path}.{key}"), child, ranks, leaves)?;
                }
            }
            (Tree::List(_), Tree::List(_)) | (Tree::Map(_), Tree::Map(_)) if same_keys() => {
                for ((key, child), (_, ranks)) in children.into_iter().zip(ranks_of) {
                    self.push_leaves(&format!("{path}.{key}"), child, ranks, leaves)?;
                }
            }
            _ => {
                let expected = format!("{}, as its ranks are", ranks.kind());
                return Err(Error::argument("auto_vmap", self.described(path), expected, argument.kind()));
            }
        }
        Ok(())
    }

    /// The batch dimensions of all leaves together.
    fn batch_dims(&self, leaves: &[Leaf]) -> Result<Vec<usize>> {
        let common = |dims: &[usize], leaf: &Leaf| broadcast_dims("auto_vmap", dims, leaf.batch());
        let mut batch = Vec::new();
        for (index, leaf) in leaves.iter().enumerate() {
            batch = common(&batch, leaf).map_err(|problem| {
                let Some(other) = leaves[..index].iter().find(|other| common(other.batch(), leaf).is_err())
                else {
                    return problem;
                };
                let argument = format!("arguments {} and {} of {}", other.path, leaf.path, self.name);
                let expected = "of batch dimensions that are equal or 1, right-aligned";
                let (a, b) = (Dims(other.batch()), Dims(leaf.batch()));
                let got = format!("{a} of {} and {b} of {}", other.shape, leaf.shape);
                Error::argument("auto_vmap", argument, expected, got)
            })?;
        }
        Ok(batch)
    }

    fn described(&self, path: &str) -> String {
        format!("argument {path} of {}", self.name)
    }
}

impl Leaf<'_> {
    fn batch(&self) -> &[usize] {
        &self.shape.dims()[..self.batch_rank]
    }

    fn base(&self) -> &[usize] {
        &self.shape.dims()[self.batch_rank..]
    }

    /// Its size along a dimension of the whole batch, 1 where it has none.
    fn batch_size(&self, batch: &[usize], dimension: usize) -> usize {
        let missing = batch.len() - self.batch_rank;
        dimension.checked_sub(missing).map_or(1, |dimension| self.batch()[dimension])
    }

    /// A parameter for it, without its batch dimensions of size 1.
    fn squeezed(&self, builder: &Builder) -> Result<Tensor> {
        let parameter = builder.parameter(&self.path, self.shape.clone())?;
        if !self.batch().contains(&1) {
            return Ok(parameter);
        }
        let kept = self.batch().iter().filter(|&&size| size != 1);
        parameter.reshape(&kept.chain(self.base()).copied().collect::<Vec<_>>())
    }
}

impl std::fmt::Debug for AutoVmap<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AutoVmap")
            .field("name", &self.name)
            .field("arguments", &self.arguments)
            .field("ranks", &self.ranks)
            .finish_non_exhaustive()
    }
}
