//! Batching by base ranks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::required::{derivatives_match, vmap_matches};
use crate::runner::{assert_close, indices, random, run};
use proptest::prelude::*;
use xlann::transform::AutoVmap;
use xlann::{
    ApproxTopKOptions, Array, DType, Function, Result, Results, Shape, Tensor, Tree, auto_vmap, grad, vmap,
};

type Body = fn(&[Tensor]) -> Result<Vec<Tensor>>;

/// v m v + s size(v).
fn quadratic(s: &Tensor, v: &Tensor, m: &Tensor) -> Result<Tensor> {
    v.dot(m)?.dot(v)? + s * v.dims()[0] as f64
}

const QUADRATIC: Body = |x| Ok(vec![quadratic(&x[0], &x[1], &x[2])?]);

fn foo() -> AutoVmap<'static> {
    auto_vmap("foo", &["s", "v", "m"], [0, 1, 2], |x| quadratic(x[0].leaf()?, x[1].leaf()?, x[2].leaf()?))
        .unwrap()
}

/// A body of tensors, with these base ranks.
fn flat(ranks: &[Option<usize>], body: Body) -> AutoVmap<'static> {
    let names: Vec<String> = (0..ranks.len()).map(|index| format!("x{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    auto_vmap("flat", &names, ranks.to_vec(), move |x| {
        body(&x.iter().map(|x| x.leaf().cloned()).collect::<Result<Vec<_>>>()?)
    })
    .unwrap()
}

fn f32s(dims: &[usize]) -> Shape {
    Shape::new(DType::F32, dims)
}

fn ones(dims: &[usize]) -> Array {
    Array::new(dims, &vec![1f32; dims.iter().product()]).unwrap()
}

/// How many dimensions of a shape are batch dimensions.
fn batch_rank(shape: &Shape, rank: Option<usize>) -> usize {
    rank.map_or(0, |rank| shape.rank() - rank)
}

/// What `body` gives for each index of the batch, on the interpreter.
fn by_hand(body: Body, ranks: &[Option<usize>], arguments: &[Array], batch: &[usize]) -> Vec<Array> {
    let bases: Vec<Shape> = arguments
        .iter()
        .zip(ranks)
        .map(|(array, &rank)| {
            array.shape().with_dims(&array.shape().dims()[batch_rank(array.shape(), rank)..])
        })
        .collect();
    let base = Function::trace("base", &bases, body).unwrap();
    let mut bytes = vec![Vec::new(); base.results().len()];
    for index in indices(batch) {
        let element = |((array, &rank), base): ((&Array, _), &Shape)| {
            let sizes = &array.shape().dims()[..batch_rank(array.shape(), rank)];
            let own = &index[batch.len() - sizes.len()..];
            let position = sizes
                .iter()
                .zip(own)
                .fold(0, |position, (&size, &index)| position * size + if size == 1 { 0 } else { index });
            let bytes = &array.as_bytes()[position * base.byte_count()..][..base.byte_count()];
            Array::from_bytes(base.clone(), bytes).unwrap()
        };
        let element: Vec<Array> = arguments.iter().zip(ranks).zip(&bases).map(element).collect();
        for (bytes, result) in bytes.iter_mut().zip(base.eval(&element).unwrap()) {
            bytes.extend_from_slice(result.as_bytes());
        }
    }
    let shapes = base.result_shapes().into_iter();
    shapes
        .zip(&bytes)
        .map(|(shape, bytes)| {
            Array::from_bytes(shape.with_dims([batch, shape.dims()].concat()), bytes).unwrap()
        })
        .collect()
}

/// Random small integers, whose sums of products are exact in any order.
fn arguments(shapes: &[Shape]) -> Vec<Array> {
    let argument = |(shape, seed): (&Shape, u64)| {
        let values = random(shape.with_dtype(DType::F64), seed).to_f64();
        let values: Vec<f64> = values.iter().map(|value| (value * 8.0).round()).collect();
        Array::from_f64(shape.clone(), &values).unwrap()
    };
    shapes.iter().zip(1..).map(argument).collect()
}

/// Requires that the batched function gives what the body gives for each index of `batch`, on the interpreter and
/// compiled.
fn matches(body: Body, ranks: &[Option<usize>], shapes: &[Shape], batch: &[usize]) {
    let arguments = arguments(shapes);
    let function = flat(ranks, body).function(shapes.to_vec()).unwrap();
    let expected = by_hand(body, ranks, &arguments, batch);
    let results = run(&function, &arguments);
    assert_eq!(results.len(), expected.len());
    for (result, expected) in results.iter().zip(&expected) {
        assert_close(result, expected, &function);
    }
}

fn operators(function: &Function) -> Vec<&str> {
    function.equations().iter().map(|equation| equation.operator()).collect()
}

fn refusal<T>(result: Result<T>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn ways_to_give_ranks_are_equal() {
    let body = |x: &[Tree<Tensor>]| quadratic(x[0].leaf()?, x[1].leaf()?, x[2].leaf()?);
    let names = ["s", "v", "m"];
    let by_map = BTreeMap::from([("v", 1), ("m", 2), ("s", 0)]);
    let ways = [
        foo(),
        auto_vmap("foo", &names, [Some(0), Some(1), Some(2)], body).unwrap(),
        auto_vmap("foo", &names, (0, Some(1), Tree::Leaf(2)), body).unwrap(),
        auto_vmap("foo", &names, [("v", 1), ("s", 0), ("m", 2)], body).unwrap(),
        auto_vmap("foo", &names, by_map, body).unwrap(),
    ];
    let shapes = (f32s(&[5]), f32s(&[2, 1, 3]), f32s(&[5, 3, 3]));
    let expected = foo().function(shapes.clone()).unwrap();
    for way in &ways {
        assert_eq!(way.function(shapes.clone()).unwrap(), expected);
    }
    assert_eq!(expected.result_shapes(), [f32s(&[2, 5])]);
    // The ranks that are left out are not mapped: here the scalar's, which has no dimension to map.
    let scalar = (f32s(&[]), f32s(&[2, 1, 3]), f32s(&[5, 3, 3]));
    let expected = foo().function(scalar.clone()).unwrap();
    let partial = auto_vmap("foo", &names, [None, Some(1), Some(2)], body).unwrap();
    assert_eq!(partial.function(scalar.clone()).unwrap(), expected);
    let partial = auto_vmap("foo", &names, [("m", 2), ("v", 1)], body).unwrap();
    assert_eq!(partial.function(scalar).unwrap(), expected);
}

#[test]
fn the_body_is_called_once_and_sees_the_base_ranks() {
    let calls = AtomicUsize::new(0);
    let ranks = (0, [("v", Tree::Leaf(1)), ("m", [2, 3].into())]);
    let foo = auto_vmap("foo", &["s", "inputs", "whole"], ranks, |x| {
        calls.fetch_add(1, Ordering::Relaxed);
        let dims = |x: &Tree<Tensor>| x.leaf().map(|tensor| tensor.dims().to_vec());
        assert_eq!(dims(&x[0])?, [0; 0]);
        assert_eq!(dims(x[1].get("v")?)?, [3]);
        assert_eq!(dims(x[1].get("m")?.get(0)?)?, [3, 4]);
        assert_eq!(dims(x[1].get("m")?.get(1)?)?, [2, 3, 4]);
        assert_eq!(dims(&x[2])?, [7, 7]);
        Ok(x[0].clone())
    })
    .unwrap();
    let m: Tree<Shape> = (f32s(&[4, 1, 3, 4]), f32s(&[2, 3, 4])).into();
    let inputs: Tree<Shape> = [("m", m), ("v", f32s(&[5, 3]).into())].into();
    let function = foo.function((f32s(&[6, 1, 1]), inputs, f32s(&[7, 7]))).unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(function.result_shapes(), [f32s(&[6, 4, 5])]);
    let names: Vec<&str> = function.parameters().map(|(name, _)| name).collect();
    assert_eq!(names, ["s", "inputs.m.0", "inputs.m.1", "inputs.v", "whole"]);
}

#[test]
fn batches_broadcast() {
    let cases: &[[&[usize]; 4]] = &[
        // The batch dimensions of the scalar, the vector and the matrix, and those of the result.
        [&[], &[], &[], &[]],
        [&[], &[3], &[3], &[3]],
        [&[], &[5], &[5], &[5]],
        [&[5], &[], &[], &[5]],
        [&[5], &[], &[2, 5], &[2, 5]],
        [&[4, 3], &[], &[3], &[4, 3]],
        [&[4, 3], &[3], &[], &[4, 3]],
        [&[7, 1], &[1, 5], &[], &[7, 5]],
        [&[], &[7, 1], &[7, 5], &[7, 5]],
        [&[7, 1], &[5], &[2, 1, 1], &[2, 7, 5]],
        // Sizes of 1 stay where nothing stretches them.
        [&[1], &[], &[1, 1], &[1, 1]],
        [&[2, 1, 3], &[1, 3], &[1], &[2, 1, 3]],
        [&[1, 1], &[2, 1], &[], &[2, 1]],
        // Of no batch there are no results.
        [&[0], &[], &[0], &[0]],
        [&[1], &[0], &[], &[0]],
        [&[4, 1], &[0], &[], &[4, 0]],
        [&[0, 1], &[3], &[], &[0, 3]],
    ];
    for [s, v, m, batch] in cases {
        let shapes = [f32s(s), f32s(&[v, &[3][..]].concat()), f32s(&[m, &[3, 3][..]].concat())];
        matches(QUADRATIC, &[Some(0), Some(1), Some(2)], &shapes, batch);
    }
}

#[test]
fn ranks_of_two_and_none() {
    let body: Body = |x| Ok(vec![(&x[0] * &x[1])?]);
    matches(body, &[Some(2), Some(0)], &[f32s(&[3, 3, 3]), f32s(&[4, 3])], &[4, 3]);
    matches(body, &[Some(1), Some(2)], &[f32s(&[7, 1, 3]), f32s(&[7, 5, 3, 3])], &[7, 5]);
    matches(body, &[Some(0), Some(0)], &[f32s(&[1, 5]), f32s(&[7, 1])], &[7, 5]);
    // Without a rank, the whole goes into every call.
    matches(body, &[Some(1), None], &[f32s(&[4, 3]), f32s(&[2, 3])], &[4]);
    matches(body, &[None, None], &[f32s(&[4, 3]), f32s(&[4, 3])], &[]);
}

#[test]
fn every_result_has_the_batch_dimensions() {
    // What depends on all, on one, on what is not mapped, on nothing, and an argument itself.
    let body: Body = |x| {
        let count = x[0].builder().constant(Array::new([2], &[true, false])?)?;
        Ok(vec![(&x[0] + &x[1])?, x[1].exp()?, (&x[2] * 2)?, count, x[0].clone(), x[2].clone()])
    };
    let ranks = [Some(1), Some(1), None];
    let vectors = |x: &[usize], y: &[usize]| [f32s(x), f32s(y), Shape::new(DType::S32, [2, 2])];
    matches(body, &ranks, &vectors(&[4, 1, 3], &[5, 3]), &[4, 5]);
    matches(body, &ranks, &vectors(&[1, 3], &[3]), &[1]);
    matches(body, &ranks, &vectors(&[4, 1, 3], &[0, 3]), &[4, 0]);
    matches(body, &ranks, &vectors(&[3], &[3]), &[]);
}

#[test]
fn maps_with_a_rank_for_each_leaf() {
    let names = ["a", "b", "c", "d", "e"];
    let ranks: BTreeMap<&str, usize> = names.into_iter().zip(1..).collect();
    let sums = |x: &[Tree<Tensor>]| -> Result<Tree<Tensor>> {
        let mut sums = BTreeMap::new();
        for (name, rank) in names.into_iter().zip(1..) {
            let tensor = x[0].get(name)?.leaf()?;
            assert_eq!(tensor.rank(), rank);
            sums.insert(name, tensor.reduce_sum(&(0..rank as isize).collect::<Vec<_>>())?);
        }
        Ok(sums.into())
    };
    let each = auto_vmap("each", &["x"], [ranks], sums).unwrap();
    let batches: [&[usize]; 5] = [&[3], &[2, 1], &[], &[1, 3], &[2, 3]];
    let arrays: BTreeMap<&str, Array> = names
        .into_iter()
        .zip(batches.into_iter().zip(1..))
        .map(|(name, (batch, rank))| (name, random(f32s(&[batch, &vec![2; rank]].concat()), rank as u64)))
        .collect();
    let results = each.eval([arrays.clone()]).unwrap();
    for (name, rank) in names.into_iter().zip(1..) {
        let all = arrays[name].to_f64();
        let sums: Vec<f64> = all.chunks(1 << rank).map(|chunk| chunk.iter().sum()).collect();
        let own = &arrays[name].shape().dims()[..arrays[name].shape().rank() - rank];
        let sum = Array::from_f64(f32s(own), &sums).unwrap();
        let spread = Function::trace("spread", &[sum.shape().clone()], |x| x[0].broadcast_to(&[2, 3]));
        let expected = spread.unwrap().eval(&[sum]).unwrap().remove(0);
        assert_close(results.get(name).unwrap().leaf().unwrap(), &expected, &name);
    }
    let shapes: BTreeMap<&str, Shape> =
        arrays.iter().map(|(&name, array)| (name, array.shape().clone())).collect();
    let leaves: Vec<Array> = arrays.into_values().collect();
    run(&each.function([shapes]).unwrap(), &leaves);
}

#[test]
fn threads_can_share_one() {
    let foo = foo();
    let shapes = (f32s(&[]), f32s(&[5, 3]), f32s(&[3, 3]));
    let expected = foo.function(shapes.clone()).unwrap();
    let got = std::thread::scope(|scope| scope.spawn(|| foo.function(shapes).unwrap()).join().unwrap());
    assert_eq!(got, expected);
}

#[test]
fn one_rank_is_that_of_every_leaf() {
    let body = |x: &[Tree<Tensor>]| {
        let (pair, bias) = (&x[0], x[1].get("bias")?.leaf()?);
        (pair.get(0)?.leaf()? * pair.get(1)?.leaf()?)? + bias
    };
    let for_each = auto_vmap("f", &["pair", "inputs"], [1, 1], body).unwrap();
    let for_all = auto_vmap("f", &["pair", "inputs"], 1, body).unwrap();
    let shapes: Tree<Shape> = ((f32s(&[4, 1, 3]), f32s(&[5, 3])), [("bias", f32s(&[4, 5, 3]))]).into();
    let function = for_each.function(&shapes).unwrap();
    assert_eq!(function, for_all.function(&shapes).unwrap());
    assert_eq!(function.result_shapes(), [f32s(&[4, 5, 3])]);
}

#[test]
fn a_value_of_none_is_skipped() {
    let body = |x: &[Tree<Tensor>]| match x[1].get("bias")? {
        Tree::None => Ok(x[0].leaf()?.clone()),
        bias => x[0].leaf()? + bias.leaf()?,
    };
    let f = auto_vmap("f", &["x", "inputs"], (1, [("bias", [("nested", 1)])]), body).unwrap();
    let results = f.eval((ones(&[4, 3]), [("bias", Tree::None)])).unwrap();
    assert_eq!(results, ones(&[4, 3]).into());
    let with_bias = auto_vmap("f", &["x", "inputs"], 1, body).unwrap();
    let inputs = [("bias", ones(&[2, 1, 3]))];
    let results = with_bias.eval((ones(&[4, 3]), inputs)).unwrap();
    assert_eq!(results, Array::new([2, 4, 3], &[2f32; 24]).unwrap().into());
    // So may be an argument, or a result.
    let nothing = auto_vmap("f", &["x", "y"], [1], |x| Ok((x[0].clone(), x[1].clone()))).unwrap();
    let results = nothing.eval((ones(&[2, 3]), Tree::None)).unwrap();
    assert_eq!(results, (ones(&[2, 3]), Tree::None).into());
}

#[test]
fn what_is_stretched_is_not_repeated() {
    let foo = foo();
    // A batch of size 1, and none, beside one of 500: neither the vector nor the matrix is repeated.
    for (v, m) in [(&[1, 3][..], &[500, 3, 3][..]), (&[500, 3], &[1, 3, 3]), (&[3], &[500, 3, 3])] {
        let function = foo.function((f32s(&[]), f32s(v), f32s(m))).unwrap();
        for equation in function.equations() {
            let repeated =
                equation.operator() == "broadcast_in_dim" && function.shape(equation.inputs()[0]).rank() > 0;
            assert!(!repeated, "{function}");
        }
        assert_eq!(operators(&function).iter().filter(|&&name| name == "dot_general").count(), 2);
    }
    let function = foo.function((f32s(&[]), f32s(&[1, 3]), f32s(&[500, 3, 3]))).unwrap();
    assert_eq!(
        function.to_string(),
        "foo(s %0: f32[], v %1: f32[1,3], m %2: f32[500,3,3]) {
  %3: f32[3] = reshape[dims=[3]] %1
  %4: f32[500,3] = dot_general[lhs_contracting=[0], rhs_contracting=[1]] %3 %2
  %5: f32[500] = dot_general[lhs_contracting=[1], rhs_contracting=[0]] %4 %3
  %6: f32[] = constant[value=f32[] 3]
  %7: f32[] = mul %0 %6
  %8: f32[500] = broadcast_in_dim[dims=[500], broadcast_dimensions=[]] %7
  %9: f32[500] = add %5 %8
  return %9
}"
    );
}

#[test]
fn one_can_stand_in_another() {
    // The matrix of all inner products, of each pair of batches.
    let inner = auto_vmap("inner", &["x", "y"], [1, 1], |x| x[0].leaf()?.dot(x[1].leaf()?)).unwrap();
    let gram = auto_vmap("gram", &["x", "y"], [2, 2], |x| {
        let (x, y) = (x[0].leaf()?, x[1].leaf()?);
        inner.call((x.reshape(&[x.dims()[0], 1, x.dims()[1]])?, y))
    })
    .unwrap();
    let shapes = [f32s(&[4, 1, 2, 3]), f32s(&[5, 6, 3])];
    let function = gram.function(shapes.to_vec()).unwrap();
    let arguments = arguments(&shapes);
    let results = run(&function, &arguments);
    assert_eq!(results[0].shape(), &f32s(&[4, 5, 2, 6]));
    let body: Body = |x| Ok(vec![x[0].dot(&x[1].transpose(&[1, 0])?)?]);
    let expected = by_hand(body, &[Some(2), Some(2)], &arguments, &[4, 5]);
    assert_close(&results[0], &expected[0], &function);
}

#[test]
fn a_search_of_one_query_is_one_of_many() {
    let nearest: Body = |x| {
        let found = x[0]
            .dot_general(&x[1], (&[0], &[1]), (&[], &[]))?
            .approx_max_k(3, &ApproxTopKOptions::default())?;
        Ok(found.into_tensors())
    };
    let ranks = [Some(1), Some(2)];
    let batched = |shapes: &[Shape]| flat(&ranks, nearest).function(shapes.to_vec()).unwrap();
    // Many queries of one database, which is not repeated.
    let shapes = [f32s(&[5, 4]), f32s(&[40, 4])];
    assert_eq!(
        batched(&shapes).to_string(),
        "flat(x0 %0: f32[5,4], x1 %1: f32[40,4]) {
  %2: f32[5,40] = dot_general[lhs_contracting=[1], rhs_contracting=[1]] %0 %1
  %3: f32[5,3], %4: s32[5,3] = approx_max_k[k=3, reduction_dimension=1, recall_target=0.95] %2
  return %3, %4
}"
    );
    for (shapes, batch) in [
        (shapes, &[5][..]),
        ([f32s(&[4]), f32s(&[2, 40, 4])], &[2]),
        ([f32s(&[5, 4]), f32s(&[2, 1, 40, 4])], &[2, 5]),
        ([f32s(&[0, 4]), f32s(&[40, 4])], &[0]),
    ] {
        // Products that are all different, as equal ones may come in any order.
        let arrays: Vec<Array> =
            shapes.iter().zip(1..).map(|(shape, seed)| random(shape.clone(), seed)).collect();
        let function = batched(&shapes);
        let results = run(&function, &arrays);
        let expected = by_hand(nearest, &ranks, &arrays, batch);
        assert_close(&results[0], &expected[0], &function);
        assert_eq!(results[1], expected[1], "{function}");
    }
}

#[test]
fn derivatives_and_batches_of_it() {
    let f64s = |dims: &[usize]| Shape::new(DType::F64, dims);
    let shapes = [f64s(&[2, 1]), f64s(&[1, 3]), f64s(&[2, 3, 3])];
    let function = foo().function(shapes.to_vec()).unwrap();
    derivatives_match(&function, &arguments(&shapes), &[0, 1, 2]);
    vmap_matches(&function, |seed| {
        shapes.iter().zip(3 * seed..).map(|(shape, seed)| random(shape.clone(), seed)).collect()
    });
}

#[test]
fn gradient_of_a_loss_that_calls_it() {
    let foo = foo();
    let shapes = [f32s(&[]), f32s(&[3]), f32s(&[5, 3, 3])];
    let loss = Function::trace("loss", &shapes, |x| foo.call(x.to_vec())?.leaf()?.reduce_sum(&[0])).unwrap();
    let gradient = grad(&loss, &[0, 1, 2]).unwrap();
    let results = run(&gradient, &[Array::scalar(2f32), ones(&[3]), ones(&[5, 3, 3])]);
    // Five matrices: d/ds = 5 size(v), d/dv = 5 (m + m') v, d/dm = v v'.
    assert_eq!(results, [Array::scalar(15f32), Array::new([3], &[30f32; 3]).unwrap(), ones(&[5, 3, 3])]);

    let batched = vmap(&gradient, [None, Some(0), None], 0, 2).unwrap();
    let results = run(&batched, &[Array::scalar(2f32), ones(&[2, 3]), ones(&[5, 3, 3])]);
    assert_eq!(results[1], Array::new([2, 3], &[30f32; 6]).unwrap());
}

#[test]
fn gradient_inside_of_it() {
    let scalar_loss = Function::trace("loss", &[f32s(&[3]), f32s(&[3])], |x| {
        let residual = (&x[0] - &x[1])?;
        (&residual * &residual)?.reduce_sum(&[0])
    });
    let gradient = grad(&scalar_loss.unwrap(), &[0]).unwrap();
    let each = auto_vmap("each", &["x", "target"], 1, |x| {
        let (x, target) = (x[0].leaf()?, x[1].leaf()?);
        x.builder().call(&gradient, &[x, target])
    })
    .unwrap();
    let results = each.eval((ones(&[2, 1, 3]), Array::new([4, 3], &[3f32; 12]).unwrap())).unwrap();
    assert_eq!(*results.get(0).unwrap().leaf().unwrap(), Array::new([2, 4, 3], &[-4f32; 24]).unwrap());
}

#[test]
fn wrong_ranks_and_names_are_refused() {
    let make =
        |names: &[&str], ranks: Tree<usize>| refusal(auto_vmap("foo", names, ranks, |x| Ok(x[0].clone())));
    let names = ["s", "v", "m"];
    assert_eq!(
        make(&names, [("v", 1), ("w", 2)].into()),
        "auto_vmap: ranks of foo must be of its arguments (s, v, m), got w"
    );
    assert_eq!(
        make(&names, [0, 1, 2, 3].into()),
        "auto_vmap: ranks of foo must be 3 at most, one for each argument, got 4"
    );
    assert_eq!(
        make(&names, [("v", 1), ("m", 2), ("v", 1)].into()),
        "auto_vmap: ranks of foo must be of names in increasing order, each once, got m, v, v"
    );
    assert_eq!(
        make(&names, [[("a", 1), ("a", 2)]].into()),
        "auto_vmap: ranks of foo must be of names in increasing order, each once, got a, a"
    );
    assert_eq!(
        make(&["s", "v", "s"], [0].into()),
        "auto_vmap: arguments of foo must be distinct names, got s twice"
    );
}

#[test]
fn wrong_arguments_are_refused_before_the_body_is_called() {
    let never = |_: &[Tree<Tensor>]| -> Result<Tensor> { panic!("the body is called") };
    let foo = auto_vmap("foo", &["s", "v", "m"], [0, 1, 2], never).unwrap();
    let refused = |s: &[usize], v: &[usize], m: &[usize]| refusal(foo.function((f32s(s), f32s(v), f32s(m))));
    assert_eq!(
        refused(&[], &[3], &[3]),
        "auto_vmap: argument m of foo must be of rank 2 at least, its base rank, got f32[3]"
    );
    assert_eq!(
        refused(&[], &[5, 3], &[4, 3, 3]),
        "auto_vmap: arguments v and m of foo must be of batch dimensions that are equal or 1, right-aligned, \
         got [5] of f32[5,3] and [4] of f32[4,3,3]"
    );
    // The third conflicts with the first, not with what it would be stretched to.
    assert_eq!(
        refused(&[5, 1], &[2, 3], &[4, 2, 3, 3]),
        "auto_vmap: arguments s and m of foo must be of batch dimensions that are equal or 1, right-aligned, \
         got [5,1] of f32[5,1] and [4,2] of f32[4,2,3,3]"
    );
    assert_eq!(
        refused(&[0], &[2, 3], &[3, 3]),
        "auto_vmap: arguments s and v of foo must be of batch dimensions that are equal or 1, right-aligned, \
         got [0] of f32[0] and [2] of f32[2,3]"
    );
    assert_eq!(refusal(foo.function([f32s(&[]), f32s(&[3])])), "foo: takes 3 arguments, got 2");
    assert_eq!(refusal(foo.eval(Tree::List(Vec::new()))), "foo: takes 3 arguments, got 0");
    assert_eq!(
        refusal(foo.eval(1f32)),
        "auto_vmap: arguments of foo must be a list, of one for each of s, v, m, got a leaf"
    );
    assert_eq!(
        refusal(foo.call(vec![Tree::None; 3])),
        "auto_vmap: arguments of foo must be of one tensor at least, got none"
    );
    assert_eq!(
        refusal(foo.eval((1f32, ones(&[3]), [("b", 1f32), ("a", 2f32), ("a", 3f32)]))),
        "auto_vmap: argument m of foo must be of names in increasing order, each once, got a, a, b"
    );
}

#[test]
fn another_structure_than_the_ranks_is_refused() {
    let never = |_: &[Tree<Tensor>]| -> Result<Tensor> { panic!("the body is called") };
    let foo = auto_vmap("foo", &["pair", "inputs"], ([1, 2], [("m", 2), ("v", 1)]), never).unwrap();
    let pair = || Tree::from((ones(&[3]), ones(&[3, 3])));
    let inputs = || Tree::from([("v", ones(&[3])), ("m", ones(&[3, 3]))]);
    let cases: [(Tree<Array>, &str); 7] = [
        ((ones(&[3]), inputs()).into(), "pair of foo must be a list of 2, as its ranks are, got a leaf"),
        (
            ([ones(&[3]), ones(&[3, 3]), ones(&[3])], inputs()).into(),
            "pair of foo must be a list of 2, as its ranks are, got a list of 3",
        ),
        (
            (pair(), [("v", ones(&[3]))]).into(),
            "inputs of foo must be a map of m, v, as its ranks are, got a map of v",
        ),
        (
            (pair(), [("v", ones(&[3])), ("n", ones(&[3, 3]))]).into(),
            "inputs of foo must be a map of m, v, as its ranks are, got a map of n, v",
        ),
        ((pair(), pair()).into(), "inputs of foo must be a map of m, v, as its ranks are, got a list of 2"),
        (
            ((ones(&[3]), ones(&[3])), inputs()).into(),
            "pair.1 of foo must be of rank 2 at least, its base rank, got f32[3]",
        ),
        (
            (pair(), [("m", ones(&[3, 3])), ("v", Array::scalar(1f32))]).into(),
            "inputs.v of foo must be of rank 1 at least, its base rank, got f32[]",
        ),
    ];
    for (arguments, expected) in cases {
        assert_eq!(refusal(foo.eval(arguments)), format!("auto_vmap: argument {expected}"));
    }
}

#[test]
fn what_the_body_refuses_is_refused() {
    let foo = foo();
    let refused = refusal(foo.function((f32s(&[]), f32s(&[5, 3]), f32s(&[5, 4, 4]))));
    assert!(refused.starts_with("dot_general: contracting dimensions must be of equal sizes"), "{refused}");
    let twice = auto_vmap("f", &["x"], [1], |x| Ok([("a", x[0].clone()), ("a", x[0].clone())])).unwrap();
    assert_eq!(
        refusal(twice.eval([ones(&[3])])),
        "auto_vmap: results of f must be of names in increasing order, each once, got a, a"
    );
    let not_a_leaf = auto_vmap("f", &["x"], [1], |x| x[0].leaf().cloned()).unwrap();
    assert_eq!(refusal(not_a_leaf.eval([[ones(&[3])]])), "tree: value must be a leaf, got a list of 1");
}

/// Batch dimensions, and which of the last ones an argument has: those of `mask` are of size 1.
fn batch_of(batch: &[usize], (rank, mask): (usize, u8)) -> Vec<usize> {
    let rank = rank.min(batch.len());
    let sizes = &batch[batch.len() - rank..];
    sizes.iter().enumerate().map(|(bit, &size)| if mask >> bit & 1 == 1 { 1 } else { size }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_batches_broadcast(
        sizes in prop::collection::vec(0usize..4, 0..4),
        parts in [(0usize..4, 0u8..8), (0usize..4, 0u8..8), (0usize..4, 0u8..8)],
    ) {
        let batches = parts.map(|part| batch_of(&sizes, part));
        // From the last dimension on: what is not 1 in one of them, if there is such.
        let rank = batches.iter().map(Vec::len).max().unwrap();
        let batch: Vec<usize> = (1..=rank)
            .rev()
            .map(|back| {
                let mut at = batches.iter().filter_map(|batch| batch.len().checked_sub(back).map(|at| batch[at]));
                at.find(|&size| size != 1).unwrap_or(1)
            })
            .collect();
        let ranks = [Some(0), Some(1), Some(2)];
        let bases: [&[usize]; 3] = [&[], &[2], &[2, 2]];
        let shapes: Vec<Shape> = batches
            .iter()
            .zip(bases)
            .map(|(batch, base)| Shape::new(DType::F64, [batch, base].concat()))
            .collect();
        let arguments = arguments(&shapes);
        let results = flat(&ranks, QUADRATIC).eval(arguments.clone()).unwrap();
        let expected = by_hand(QUADRATIC, &ranks, &arguments, &batch);
        assert_close(results.get(0).unwrap().leaf().unwrap(), &expected[0], &format!("{shapes:?}"));
    }
}
