//! Functions of several operators: edges, errors, batches and derivatives. Their values are compared with JAX's in
//! functions_jax.rs.

use crate::required::{traced, vmap_and_derivatives, vmap_matches};
use crate::runner::{assert_close, indices, random, run};
use proptest::prelude::*;
use xlann::lower::{self, Options, lower};
use xlann::target::{cpu, gpu, tpu};
use xlann::{Array, DType, Function, Result, Shape, Tensor, auto_vmap, grad, vmap};

fn trace(shapes: &[Shape], body: impl FnOnce(&[Tensor]) -> Result<Tensor>) -> Result<Function> {
    Function::trace("f", shapes, body)
}

/// What a function gives, on the interpreter and compiled.
fn apply(arguments: &[Array], body: impl FnOnce(&[Tensor]) -> Result<Tensor>) -> Array {
    let shapes: Vec<Shape> = arguments.iter().map(|array| array.shape().clone()).collect();
    run(&trace(&shapes, body).unwrap(), arguments).remove(0)
}

fn refusal(shapes: &[Shape], body: impl FnOnce(&[Tensor]) -> Result<Tensor>) -> String {
    trace(shapes, body).unwrap_err().to_string()
}

fn f32s(dims: &[usize]) -> Shape {
    Shape::new(DType::F32, dims)
}

fn s32s(elements: &[i32]) -> Array {
    Array::new([elements.len()], elements).unwrap()
}

/// The same value everywhere.
fn full(dtype: DType, dims: &[usize], value: f64) -> Array {
    let shape = Shape::new(dtype, dims);
    let values = vec![value; shape.element_count()];
    Array::from_f64(shape, &values).unwrap()
}

type Unary = fn(&Tensor) -> Result<Tensor>;

/// Functions of floats of rank 2, with derivatives.
const OF_FLOATS: &[(&str, Unary)] = &[
    ("softmax", |x| x.softmax(1)),
    ("log_softmax", |x| x.log_softmax(0)),
    ("logsumexp", |x| x.logsumexp(&[1])),
    ("gelu", Tensor::gelu),
    ("gelu_tanh", Tensor::gelu_tanh),
    ("mean", |x| x.mean(&[0])),
    ("var", |x| x.var(&[1], 1)),
    ("norm", |x| x.norm(&[1])),
];

/// Functions of numbers of rank 2.
const OF_NUMBERS: &[(&str, Unary)] = &[
    ("relu", Tensor::relu),
    ("clip", |x| x.clip(0, 1)),
    ("cumsum", |x| x.cumsum(1)),
    ("cumprod", |x| x.cumprod(0)),
    ("cummax", |x| x.cummax(1)),
    ("cummin", |x| x.cummin(0)),
    ("einsum", |x| Tensor::einsum("ij->j", &[x])),
];

/// Functions of any dtype and rank 2.
const OF_ANY: &[(&str, Unary)] = &[
    ("tril", |x| x.tril(0)),
    ("triu", |x| x.triu(1)),
    ("roll", |x| x.roll(&[1, -1], &[0, 1])),
    ("stack", |x| Tensor::stack(&[x, x], 1)),
    ("split", |x| Ok(x.split(&[1, 2], 1)?.remove(1))),
    ("stop_gradient", Tensor::stop_gradient),
    ("sort_descending", |x| x.sort_descending(1)),
    ("argsort_descending", |x| x.argsort_descending(1)),
];

#[test]
fn dtypes_that_a_function_does_not_take_are_refused() {
    for dtype in DType::ALL {
        let of = |function: Unary| trace(&[Shape::new(dtype, [2, 3])], |x| function(&x[0]));
        for (name, function) in OF_FLOATS {
            let expected = format!("{name}: operand's dtype must be floating, got {dtype}");
            match of(*function) {
                Ok(traced) => {
                    assert!(dtype.is_float(), "{name} takes {dtype}");
                    assert_eq!(traced.result_shapes()[0].dtype(), dtype, "{name}");
                }
                Err(problem) => {
                    assert!(!dtype.is_float(), "{name} refuses {dtype}: {problem}");
                    assert_eq!(problem.to_string(), expected);
                }
            }
        }
        for (name, function) in OF_NUMBERS {
            match of(*function) {
                Ok(traced) => assert_eq!(traced.result_shapes()[0].dtype(), dtype, "{name}"),
                Err(problem) => {
                    assert_eq!(dtype, DType::Pred, "{name} refuses {dtype}: {problem}");
                    assert!(problem.to_string().contains("must be a number, got pred"), "{problem}");
                    assert!(problem.to_string().starts_with(name), "{problem}");
                }
            }
        }
        for (name, function) in OF_ANY {
            of(*function).unwrap_or_else(|problem| panic!("{name} refuses {dtype}: {problem}"));
        }
    }
}

#[test]
fn axes_that_are_not_there_are_refused_by_name() {
    let refused = |function: Unary| refusal(&[f32s(&[2, 3])], |x| function(&x[0]));
    let functions: &[(&str, Unary)] = &[
        ("softmax", |x| x.softmax(2)),
        ("log_softmax", |x| x.log_softmax(-3)),
        ("logsumexp", |x| x.logsumexp(&[2])),
        ("var", |x| x.var(&[2], 0)),
        ("norm", |x| x.norm(&[0, 2])),
        ("mean", |x| x.mean(&[0, 0])),
        ("cumsum", |x| x.cumsum(2)),
        ("cummin", |x| x.cummin(-3)),
        ("roll", |x| x.roll(&[1], &[2])),
        ("split", |x| Ok(x.split(&[2], 2)?.remove(0))),
        ("split_evenly", |x| Ok(x.split_evenly(1, 2)?.remove(0))),
        ("stack", |x| Tensor::stack(&[x], 3)),
        ("argsort_descending", |x| x.argsort_descending(2)),
    ];
    for (name, function) in functions {
        let problem = refused(*function);
        assert!(problem.starts_with(&format!("{name}: ")), "{name}: {problem}");
    }
    let scalar = [Shape::scalar(DType::F32)];
    let expected = "softmax: axis must be a dimension, and a scalar has none, got 0";
    assert_eq!(refusal(&scalar, |x| x[0].softmax(0)), expected);
    assert!(refusal(&scalar, |x| x[0].cumsum(-1)).starts_with("cumsum: axis"));
    assert_eq!(
        refusal(&[f32s(&[3])], |x| x[0].tril(0)),
        "tril: operand must be of rank 2 at least, got f32[3]"
    );
    assert_eq!(refusal(&scalar, |x| x[0].triu(0)), "triu: operand must be of rank 2 at least, got f32[]");
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let refused = |body: fn(&Tensor) -> Result<Vec<Tensor>>| {
        Function::trace("f", &[f32s(&[2, 6])], |x| body(&x[0])).unwrap_err().to_string()
    };
    let expected = "split: sizes must be of the sum 6, the size of dimension 1 of f32[2,6], got [2,3]";
    assert_eq!(refused(|x| x.split(&[2, 3], -1)), expected);
    assert!(refused(|x| x.split(&[usize::MAX, 7], 1)).starts_with("split: sizes must be of the sum 6"));
    assert!(refused(|x| x.split(&[], 1)).starts_with("split: sizes must be of the sum 6"));
    let expected = "split_evenly: parts must be a divisor of 6, the size of dimension 1 of f32[2,6], got 4";
    assert_eq!(refused(|x| x.split_evenly(4, 1)), expected);
    assert!(refused(|x| x.split_evenly(0, 1)).ends_with("got 0"));
    assert_eq!(
        refused(|x| Ok(vec![x.roll(&[1], &[0, 1])?])),
        "roll: shifts must be 2, one for each axis, got 1"
    );
}

#[test]
fn stacks_of_what_differs_are_refused() {
    let shapes = [f32s(&[2]), f32s(&[3]), Shape::new(DType::S32, [2])];
    let refused = |index: usize| refusal(&shapes, |x| Tensor::stack(&[&x[0], &x[index]], 0));
    assert_eq!(refused(1), "stack: operand 1 must be of shape f32[2], as operand 0, got f32[3]");
    assert_eq!(refused(2), "stack: operand 1 must be of shape f32[2], as operand 0, got s32[2]");
    assert_eq!(refusal(&shapes, |_| Tensor::stack(&[], 0)), "stack: operands must be at least 1, got 0");
}

#[test]
fn malformed_formulas_are_refused() {
    let shapes =
        [f32s(&[2, 3]), f32s(&[3, 4]), Shape::new(DType::S32, [2, 3]), Shape::new(DType::Pred, [2, 3])];
    let of = |formula: &str, operands: &[usize]| {
        refusal(&shapes, |x| Tensor::einsum(formula, &operands.iter().map(|&i| &x[i]).collect::<Vec<_>>()))
    };
    let expected = "einsum: formula must be of 1 operands, as came, got \"ij,jk\" with 2";
    assert_eq!(of("ij,jk", &[0]), expected);
    assert_eq!(of("ij", &[]), "einsum: operands must be at least 1, got 0");
    let expected = "einsum: operand 0 must be of rank 3, as \"ijk->i\" says, got f32[2,3]";
    assert_eq!(of("ijk->i", &[0]), expected);
    let expected = "einsum: operand 0 must be of rank 3 at least, as \"i...jk->i...\" says, got f32[2,3]";
    assert_eq!(of("i...jk->i...", &[0]), expected);
    let expected = "einsum: operand 1 must be of size 2 along i of \"ij,ik->jk\", got f32[3,4]";
    assert_eq!(of("ij,ik->jk", &[0, 1]), expected);
    assert!(of("ii->i", &[0]).starts_with("einsum: operand 0 must be of size 2 along i"));
    let expected = "einsum: formula must be of a result with each letter once, got \"ij->ii\" with i twice";
    assert_eq!(of("ij->ii", &[0]), expected);
    let expected =
        "einsum: formula must be of terms with one ellipsis at most, got \"......->...\" with two in one";
    assert_eq!(of("......->...", &[0]), expected);
    let expected = "einsum: formula must be of a result with an ellipsis, as those of the operands stand for \
                    dimensions, got \"...j->j\" with none";
    assert_eq!(of("...j->j", &[0]), expected);
    for (formula, with) in [
        ("i1->i", "'1'"),
        ("i.j", "'.'"),
        ("ij->i->j", "'-'"),
        ("ij-i", "'-'"),
        ("iä", "'ä'"),
        ("ij>i", "'>'"),
    ] {
        let expected = "letters and ... between commas, and once -> before those of the result";
        let expected = format!("einsum: formula must be {expected}, got {formula:?} with {with}");
        assert_eq!(of(formula, &[0]), expected);
    }
    assert_eq!(of("ij,ij", &[0, 2]), "einsum: operand 1 must be of dtype f32, as operand 0, got s32[2,3]");
    assert_eq!(of("ij", &[3]), "einsum: dtype of operand 0 must be a number, got pred");
    let expected =
        "einsum: operands must be of sizes that are equal or 1, right-aligned, got [2,3] and [3,4]";
    assert_eq!(of("...,...", &[0, 1]), expected);
    // An ellipsis may stand for nothing, also in a result alone.
    assert_eq!(
        trace(&shapes, |x| Tensor::einsum("ij...->...j", &[&x[0]])).unwrap().result_shapes(),
        [f32s(&[3])]
    );
    assert_eq!(
        trace(&shapes, |x| Tensor::einsum("ij->j...", &[&x[0]])).unwrap().result_shapes(),
        [f32s(&[3])]
    );
}

/// What a formula of single letters of the sizes 2, 3, 2, ... gives, by its definition.
fn einsum_by_hand(terms: &[Vec<usize>], result: &[usize], sizes: &[usize], operands: &[Array]) -> Array {
    let dims: Vec<usize> = result.iter().map(|&label| sizes[label]).collect();
    let shape = Shape::new(DType::F64, dims);
    let mut sums = vec![0.0; shape.element_count()];
    let used: Vec<usize> =
        (0..sizes.len()).filter(|label| terms.iter().any(|term| term.contains(label))).collect();
    let offset = |labels: &[usize], at: &[usize]| {
        labels.iter().fold(0, |offset, label| {
            let place = used.iter().position(|used| used == label).unwrap();
            offset * sizes[*label] + at[place]
        })
    };
    let elements: Vec<Vec<f64>> = operands.iter().map(Array::to_f64).collect();
    for at in indices(&used.iter().map(|&label| sizes[label]).collect::<Vec<_>>()) {
        let product: f64 =
            terms.iter().zip(&elements).map(|(term, elements)| elements[offset(term, &at)]).product();
        sums[offset(result, &at)] += product;
    }
    Array::from_f64(shape, &sums).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn einsum_is_its_definition(
        terms in prop::collection::vec(prop::collection::vec(0usize..4, 0..4), 1..4),
        order in Just(vec![0usize, 1, 2, 3]).prop_shuffle(),
        kept in prop::collection::vec(any::<bool>(), 4),
        empty in prop::option::weighted(0.1, 0usize..4),
    ) {
        let mut sizes = [2, 3, 1, 2];
        if let Some(label) = empty {
            sizes[label] = 0;
        }
        let is_used = |label: &usize| terms.iter().any(|term| term.contains(label));
        let result: Vec<usize> = order.into_iter().filter(|label| kept[*label] && is_used(label)).collect();
        let letters = |labels: &[usize]| labels.iter().map(|&label| ['b', 'a', 'Z', 'x'][label]).collect::<String>();
        let inputs: Vec<String> = terms.iter().map(|term| letters(term)).collect();
        let formula = format!("{}->{}", inputs.join(","), letters(&result));
        let shapes: Vec<Shape> = terms
            .iter()
            .map(|term| Shape::new(DType::F64, term.iter().map(|&label| sizes[label]).collect::<Vec<_>>()))
            .collect();
        let operands: Vec<Array> =
            shapes.iter().zip(1..).map(|(shape, seed)| random(shape.clone(), seed)).collect();
        let function =
            trace(&shapes, |x| Tensor::einsum(&formula, &x.iter().collect::<Vec<_>>())).unwrap();
        function.check().unwrap();
        let got = function.eval(&operands).unwrap().remove(0);
        assert_close(&got, &einsum_by_hand(&terms, &result, &sizes, &operands), &formula);
    }
}

#[test]
fn products_of_elements_are_no_contractions() {
    let function = trace(&[f32s(&[3]), f32s(&[2])], |x| Tensor::einsum("i,j->ji", &[&x[0], &x[1]])).unwrap();
    assert!(!function.to_string().contains("dot_general"), "{function}");
    let function =
        trace(&[f32s(&[2, 3]), f32s(&[3])], |x| Tensor::einsum("ij,j->i", &[&x[0], &x[1]])).unwrap();
    assert!(function.to_string().contains("dot_general"), "{function}");
}

#[test]
fn sums_of_narrow_floats_do_not_stop_or_overflow() {
    // Rounded after each addition, bf16 would stop at 256 and f16 at 2048; the sum of all does not fit f16.
    for dtype in [DType::F16, DType::BF16] {
        let ones = full(dtype, &[100_000], 1.0);
        assert_eq!(apply(std::slice::from_ref(&ones), |x| x[0].mean(&[0])), full(dtype, &[], 1.0));
        let of_signs = trace(&[Shape::new(dtype, [100_000])], |x| {
            let index = x[0].builder().iota(Shape::new(DType::S32, [100_000]), 0)?;
            (index % 2)?.equal(0)?.select(&x[0], -&x[0])?.var(&[0], 0)
        });
        assert_eq!(run(&of_signs.unwrap(), &[ones]), [full(dtype, &[], 1.0)]);
        let zeros = full(dtype, &[4096], 0.0);
        let even = full(dtype, &[4096], 1.0 / 4096.0);
        assert_eq!(apply(std::slice::from_ref(&zeros), |x| x[0].softmax(0)), even);
        let expected = full(dtype, &[], 4096f64.ln());
        assert_eq!(apply(std::slice::from_ref(&zeros), |x| x[0].logsumexp(&[0])), expected);
        assert_eq!(apply(&[full(dtype, &[4096], 1.0)], |x| x[0].norm(&[0])), full(dtype, &[], 64.0));
        let count: Vec<f64> = (1..=3000).map(f64::from).collect();
        let expected = Array::from_f64(Shape::new(dtype, [3000]), &count).unwrap();
        assert_eq!(apply(&[full(dtype, &[3000], 1.0)], |x| x[0].cumsum(0)), expected);
        let sums = apply(&[full(dtype, &[3000, 2], 1.0)], |x| Tensor::einsum("ij->j", &[&x[0]]));
        assert_eq!(sums, full(dtype, &[2], 3000.0));
    }
}

#[test]
fn what_has_no_elements_has_limits() {
    let none = Array::zeros(f32s(&[2, 0])).unwrap();
    let of = |body: Unary| apply(std::slice::from_ref(&none), |x| body(&x[0]));
    assert_eq!(of(|x| x.softmax(1)), none);
    assert_eq!(of(|x| x.softmax(0)), none);
    assert_eq!(of(|x| x.log_softmax(1)), none);
    assert_eq!(of(|x| x.logsumexp(&[1])), full(DType::F32, &[2], f64::NEG_INFINITY));
    assert_eq!(of(|x| x.norm(&[1])), full(DType::F32, &[2], 0.0));
    assert!(of(|x| x.mean(&[1])).to_f64().iter().all(|x| x.is_nan()));
    assert!(of(|x| x.var(&[1], 0)).to_f64().iter().all(|x| x.is_nan()));
    assert_eq!(of(|x| x.roll(&[3], &[1])), none);
    assert_eq!(of(|x| x.tril(0)), none);
    assert_eq!(of(|x| Tensor::einsum("ij->i", &[x])), full(DType::F32, &[2], 0.0));
    assert_eq!(of(|x| Tensor::einsum("ij,kj->ik", &[x, x])), full(DType::F32, &[2, 2], 0.0));
    for cumulative in [Tensor::cumsum, Tensor::cumprod, Tensor::cummax, Tensor::cummin] {
        assert_eq!(apply(std::slice::from_ref(&none), |x| cumulative(&x[0], 1)), none);
        assert_eq!(apply(std::slice::from_ref(&none), |x| cumulative(&x[0], 0)), none);
    }
    let parts = Function::trace("f", &[f32s(&[2, 0])], |x| x[0].split_evenly(2, 1)).unwrap();
    assert_eq!(run(&parts, std::slice::from_ref(&none)), [none.clone(), none]);
    let no_index = s32s(&[]);
    assert_eq!(apply(&[no_index], |x| x[0].one_hot(3, DType::F32)), Array::zeros(f32s(&[0, 3])).unwrap());
    assert_eq!(apply(&[s32s(&[1])], |x| x[0].one_hot(0, DType::F32)), Array::zeros(f32s(&[1, 0])).unwrap());
}

#[test]
fn variances_without_freedom_are_nan() {
    let two = Array::new([2], &[1f32, 2.0]).unwrap();
    assert_eq!(apply(std::slice::from_ref(&two), |x| x[0].var(&[0], 1)), Array::scalar(0.5f32));
    for ddof in [2, 3, usize::MAX] {
        let variance = apply(std::slice::from_ref(&two), |x| x[0].var(&[0], ddof));
        assert!(variance.to_f64()[0].is_nan(), "{ddof}: {variance}");
    }
}

#[test]
fn the_derivative_of_the_norm_of_zeros_is_zero() {
    let norms = trace(&[Shape::new(DType::F64, [2, 2])], |x| x[0].norm(&[1])?.reduce_sum(&[0])).unwrap();
    let rows = Array::new([2, 2], &[0.0, 0.0, 3.0, 4.0]).unwrap();
    assert_eq!(run(&norms, std::slice::from_ref(&rows)), [Array::scalar(5.0)]);
    let slope = grad(&norms, &[0]).unwrap();
    let slopes = run(&slope, std::slice::from_ref(&rows)).remove(0);
    assert_close(&slopes, &Array::new([2, 2], &[0.0, 0.0, 0.6, 0.8]).unwrap(), &slope);
    // Of second order too.
    let product = trace(&[Shape::new(DType::F64, [2, 2])], |x| {
        let slope = x[0].builder().call(&slope, &[&x[0]])?.remove(0);
        (&slope * 2)?.reduce_sum(&[0, 1])
    });
    let second = run(&grad(&product.unwrap(), &[0]).unwrap(), &[rows]).remove(0).to_f64();
    assert_eq!(second[..2], [0.0, 0.0]);
    assert!(second[2..].iter().all(|x| x.is_finite() && *x != 0.0), "{second:?}");
    let of_nan = apply(&[Array::new([2], &[f32::NAN, 0.0]).unwrap()], |x| x[0].norm(&[0]));
    assert!(of_nan.to_f64()[0].is_nan());
}

#[test]
fn cumulative_reductions_of_every_size() {
    for size in (0..34).chain([1000]) {
        let elements: Vec<i32> = random(Shape::new(DType::F64, [size]), size as u64 + 1)
            .to_f64()
            .iter()
            .map(|x| (x * 2e9) as i32)
            .collect();
        let folded = |combine: fn(i32, i32) -> i32| {
            let mut elements = elements.clone();
            for index in 1..size {
                elements[index] = combine(elements[index - 1], elements[index]);
            }
            s32s(&elements)
        };
        let function = Function::trace("f", &[Shape::new(DType::S32, [size])], |x| {
            Ok(vec![x[0].cumsum(0)?, x[0].cumprod(-1)?, x[0].cummax(0)?, x[0].cummin(0)?])
        })
        .unwrap();
        let expected =
            [folded(i32::wrapping_add), folded(i32::wrapping_mul), folded(i32::max), folded(i32::min)];
        // Compiling each takes long.
        let results = match size {
            0..4 | 7 | 33.. => run(&function, &[s32s(&elements)]),
            _ => function.eval(&[s32s(&elements)]).unwrap(),
        };
        assert_eq!(results, expected, "{size}");
    }
}

#[test]
fn cumulative_reductions_take_logarithmically_many_steps() {
    let equations = |size: usize| trace(&[f32s(&[size])], |x| x[0].cumsum(0)).unwrap().equations().len();
    assert!(equations(1 << 20) < 300, "{}", equations(1 << 20));
}

#[test]
fn classes_are_counted_in_a_dtype_that_holds_them() {
    let classes = |indices: Array, count: usize| {
        let rows = apply(&[indices], |x| x[0].one_hot(count, DType::Pred));
        let (ones, width) = (rows.to_vec::<bool>().unwrap(), count);
        ones.chunks(width)
            .map(|row| row.iter().enumerate().filter(|(_, one)| **one).map(|(at, _)| at).collect())
            .collect::<Vec<Vec<usize>>>()
    };
    assert_eq!(classes(Array::new([3], &[5u8, 255, 0]).unwrap(), 600), [[5], [255], [0]]);
    assert_eq!(classes(Array::new([2], &[-1i8, 127]).unwrap(), 256), [vec![], vec![127]]);
    assert_eq!(classes(Array::new([2], &[-1i64, 1 << 32]).unwrap(), 3), [vec![], Vec::<usize>::new()]);
    assert_eq!(classes(Array::new([2], &[u64::MAX, 2]).unwrap(), 3), [vec![], vec![2]]);
    assert_eq!(classes(s32s(&[i32::MIN, 3, 2]), 3), [vec![], vec![], vec![2]]);
    let refused = refusal(&[f32s(&[3])], |x| x[0].one_hot(3, DType::F32));
    assert_eq!(refused, "one_hot: operand's dtype must be an integer, got f32");
    let pred = refusal(&[Shape::new(DType::Pred, [3])], |x| x[0].one_hot(3, DType::F32));
    assert_eq!(pred, "one_hot: operand's dtype must be an integer, got pred");
}

#[test]
fn elements_are_rolled_by_any_shift() {
    let x = s32s(&[0, 1, 2, 3, 4]);
    for shift in (-12..12).chain([isize::MIN, isize::MAX]) {
        let expected: Vec<i32> = (0..5).map(|i| (i - shift.rem_euclid(5) as i32).rem_euclid(5)).collect();
        let function = trace(&[x.shape().clone()], |x| x[0].roll(&[shift], &[-1])).unwrap();
        assert_eq!(function.eval(std::slice::from_ref(&x)).unwrap(), [s32s(&expected)], "{shift}");
    }
    // Nothing is moved.
    let function = trace(&[x.shape().clone()], |x| x[0].roll(&[5, -2, 2], &[0, 0, 0])).unwrap();
    assert_eq!(function.eval(std::slice::from_ref(&x)).unwrap(), [x]);
}

#[test]
fn triangles_begin_at_any_diagonal() {
    let ones = full(DType::S32, &[3, 4], 1.0);
    for diagonal in (-6..7).chain([isize::MIN, isize::MIN + 1, isize::MAX]) {
        let is_lower = |row: usize, column: usize| column as i128 - row as i128 <= diagonal as i128;
        let is_upper = |row: usize, column: usize| column as i128 - row as i128 >= diagonal as i128;
        let of = |holds: &dyn Fn(usize, usize) -> bool| {
            let elements: Vec<i32> =
                indices(&[3, 4]).iter().map(|at| i32::from(holds(at[0], at[1]))).collect();
            Array::new([3, 4], &elements).unwrap()
        };
        let function = Function::trace("f", &[ones.shape().clone()], |x| {
            let mask = x[0].builder().tri(3, 4, diagonal)?;
            Ok(vec![x[0].tril(diagonal)?, x[0].triu(diagonal)?, mask.convert(DType::S32)?])
        })
        .unwrap();
        let results = function.eval(std::slice::from_ref(&ones)).unwrap();
        assert_eq!(results, [of(&is_lower), of(&is_upper), of(&is_lower)], "{diagonal}");
    }
}

#[test]
fn descending_order_is_stable_and_begins_with_nans() {
    let x = Array::new([7], &[1.0, f32::NAN, 2.0, 1.0, -0.0, 0.0, -f32::NAN]).unwrap();
    assert_eq!(apply(std::slice::from_ref(&x), |x| x[0].argsort_descending(0)), s32s(&[1, 6, 2, 0, 3, 4, 5]));
    let preds = Array::new([3], &[false, true, false]).unwrap();
    assert_eq!(apply(&[preds], |x| x[0].argsort_descending(0)), s32s(&[1, 0, 2]));
    let least = s32s(&[i32::MIN, 0, i32::MAX, 0]);
    assert_eq!(apply(std::slice::from_ref(&least), |x| x[0].argsort_descending(0)), s32s(&[2, 1, 3, 0]));
    assert_eq!(apply(&[least], |x| x[0].sort_descending(0)), s32s(&[i32::MAX, 0, 0, i32::MIN]));
}

#[test]
fn stopped_gradients_are_zero_to_any_order() {
    let f = trace(&[Shape::scalar(DType::F64)], |x| (&x[0] * x[0].sin()?.stop_gradient()?)? * &x[0]).unwrap();
    let (at, sine) = ([Array::scalar(0.5)], 0.5f64.sin());
    let slope = grad(&f, &[0]).unwrap();
    assert_close(&run(&slope, &at).remove(0), &Array::scalar(sine), &slope);
    let second = grad(&slope, &[0]).unwrap();
    assert_close(&run(&second, &at).remove(0), &Array::scalar(2.0 * sine), &second);
    // What does not change otherwise has none at all.
    let none = grad(&trace(&[Shape::scalar(DType::F64)], |x| x[0].exp()?.stop_gradient()).unwrap(), &[0]);
    assert_eq!(run(&none.unwrap(), &at), [Array::scalar(0.0)]);
}

#[test]
fn batches_and_derivatives() {
    for (_, function) in OF_FLOATS {
        vmap_and_derivatives(&[&[3, 4]], |x| function(&x[0]));
    }
    for (name, function) in OF_NUMBERS.iter().chain(OF_ANY) {
        match *name {
            // Its values are s32, and its tangents none.
            "argsort_descending" => {}
            // Differences do not stop.
            "stop_gradient" => {}
            _ => vmap_and_derivatives(&[&[2, 3]], |x| function(&x[0])),
        }
        let (function, arguments) = traced(DType::F64, &[&[2, 3]], |x| function(&x[0]));
        vmap_matches(&function, arguments);
    }
}

#[test]
fn batches_and_derivatives_of_several_operands() {
    vmap_and_derivatives(&[&[2, 3], &[2, 3]], |x| Tensor::stack(&[&x[0], &x[1]], -1));
    vmap_and_derivatives(&[&[2, 3], &[3], &[2, 1]], |x| x[0].clip(&x[1], x[2].exp()?));
    vmap_and_derivatives(&[&[2, 3], &[3, 2]], |x| Tensor::einsum("ij,jk->ki", &[&x[0], &x[1]]));
    vmap_and_derivatives(&[&[2, 2, 3], &[3, 2]], |x| Tensor::einsum("iij,jk->ki", &[&x[0], &x[1]]));
    vmap_and_derivatives(&[&[2, 1, 3], &[2, 3]], |x| Tensor::einsum("...j,...j->...", &[&x[0], &x[1]]));
    vmap_and_derivatives(&[&[2], &[2], &[2]], |x| Tensor::einsum("i,i,i", &[&x[0], &x[1], &x[2]]));
    vmap_and_derivatives(&[&[5]], |x| {
        Tensor::stack(&x[0].split(&[2, 0, 3], 0)?[..1].iter().collect::<Vec<_>>(), 0)
    });
}

#[test]
fn classes_are_batched() {
    let (function, arguments) = traced(DType::S32, &[&[2]], |x| x[0].one_hot(3, DType::F32));
    vmap_matches(&function, arguments);
}

#[test]
fn functions_of_vectors_take_batches_by_rank() {
    let softmax = auto_vmap("softmax", &["v"], [1], |x| x[0].leaf()?.softmax(0)).unwrap();
    let cumulative = auto_vmap("cumsum", &["v"], [1], |x| x[0].leaf()?.cumsum(-1)).unwrap();
    let x = random(Shape::new(DType::F64, [2, 3, 4]), 5);
    for (batched, by_axis) in
        [(softmax, (|x| x.softmax(2)) as Unary), (cumulative, (|x| x.cumsum(2)) as Unary)]
    {
        let function = batched.function(vec![x.shape().clone()]).unwrap();
        let expected = apply(std::slice::from_ref(&x), |x| by_axis(&x[0]));
        assert_close(&run(&function, std::slice::from_ref(&x))[0], &expected, &function);
    }
}

#[test]
fn all_are_lowered_for_every_target() {
    let function = Function::trace("all", &[f32s(&[2, 3])], |x| {
        let all = OF_FLOATS.iter().chain(OF_NUMBERS).chain(OF_ANY);
        all.map(|(_, function)| function(&x[0])).collect::<Result<Vec<_>>>()
    })
    .unwrap();
    let batched = vmap(&function, 0, 0, 2).unwrap();
    for capabilities in [&cpu::CAPABILITIES, &gpu::CAPABILITIES, &tpu::CAPABILITIES] {
        for function in [&function, &batched] {
            let lowered = lower(function, capabilities, &Options::default()).unwrap();
            let text = lowered.module.to_string();
            assert!(text.contains("erf(") && text.contains("tanh(") && text.contains("sort("), "{text}");
            lower::stablehlo(function, capabilities).unwrap();
        }
    }
}
