//! The kernels as custom calls on XLA:CPU.

use crate::runner::{random, session};
use xlann::kernels::{FUSED_SEARCH, SELECT_K};
use xlann::lower::{self, Form};
use xlann::target::cpu;
use xlann::{
    ApproxTopKOptions, Array, CustomCall, DType, Function, Result, Shape, Tangent, Tensor, jvp, vjp, vmap,
};

/// A function that is one custom call, with no checks of ours before those of the handler.
fn call(target: &str, config: &str, operands: &[Shape], results: &[Shape]) -> Function {
    Function::trace("call", operands, |x| {
        let call = CustomCall::new(target, results).backend_config(config);
        x[0].builder().custom_call(call, &x.iter().collect::<Vec<_>>())
    })
    .unwrap()
}

fn f32s(dims: &[usize]) -> Shape {
    Shape::new(DType::F32, dims)
}

fn s32s(dims: &[usize]) -> Shape {
    Shape::new(DType::S32, dims)
}

#[test]
fn the_k_best_of_rows_are_selected() {
    let Some(session) = session() else { return };
    let operand = Array::new([2, 4], &[3f32, 9.0, 7.0, 1.0, -1.0, -4.0, f32::NAN, -3.0]).unwrap();
    for (config, values, indices) in [
        ("", [9f32, 7.0, -1.0, -3.0], [1, 2, 0, 3]),
        ("{least = true}", [1f32, 3.0, -4.0, -3.0], [3, 0, 1, 3]),
        (
            "{least = true, threads = 1 : i64, instruction_set = \"portable\"}",
            [1f32, 3.0, -4.0, -3.0],
            [3, 0, 1, 3],
        ),
    ] {
        let f = call(SELECT_K, config, &[f32s(&[2, 4])], &[f32s(&[2, 2]), s32s(&[2, 2])]);
        let found = session.compile(&f).unwrap().run_arrays(std::slice::from_ref(&operand)).unwrap();
        assert_eq!(found[0], Array::new([2, 2], &values).unwrap(), "{config}");
        assert_eq!(found[1], Array::new([2, 2], &indices).unwrap(), "{config}");
    }
}

#[test]
fn a_batch_of_databases_is_searched() {
    let Some(session) = session() else { return };
    let queries = Array::new([2, 1, 2], &[1f32, 0.0, 0.0, 1.0]).unwrap();
    let database =
        Array::new([2, 3, 2], &[1f32, 5.0, 3.0, 0.0, 2.0, 9.0, 1.0, 5.0, 3.0, 0.0, 2.0, 9.0]).unwrap();
    let shapes = [queries.shape().clone(), database.shape().clone()];
    let f = call(FUSED_SEARCH, "", &shapes, &[f32s(&[2, 1, 2]), s32s(&[2, 1, 2])]);
    let found = session.compile(&f).unwrap().run_arrays(&[queries.clone(), database.clone()]).unwrap();
    assert_eq!(found[0], Array::new([2, 1, 2], &[3f32, 2.0, 9.0, 5.0]).unwrap());
    assert_eq!(found[1], Array::new([2, 1, 2], &[1, 2, 2, 0]).unwrap());
    let norms = Array::new([2, 3], &[13f32, 4.5, 42.5, 13.0, 4.5, 42.5]).unwrap();
    let shapes = [shapes[0].clone(), shapes[1].clone(), f32s(&[2, 3])];
    let f = call(FUSED_SEARCH, "{metric = \"l2\"}", &shapes, &[f32s(&[2, 1, 2]), s32s(&[2, 1, 2])]);
    let found = session.compile(&f).unwrap().run_arrays(&[queries, database, norms]).unwrap();
    assert_eq!(found[0], Array::new([2, 1, 2], &[1.5f32, 12.0, 4.5, 8.0]).unwrap());
    assert_eq!(found[1], Array::new([2, 1, 2], &[1, 0, 1, 0]).unwrap());
}

#[test]
fn a_batch_of_small_searches_finds_what_each_finds() {
    let Some(session) = session() else { return };
    let (batch, queries, rows, width, k) = (60, 3, 300, 16, 5);
    let [asked, stored] =
        [(queries, 1), (rows, 2)].map(|(count, seed)| random(f32s(&[batch, count, width]), seed));
    let norms = random(f32s(&[batch, rows]), 3);
    let config = "{metric = \"l2\"}";
    let operands = [asked, stored, norms];
    let shapes: Vec<Shape> = operands.iter().map(|operand| operand.shape().clone()).collect();
    let f = call(FUSED_SEARCH, config, &shapes, &[f32s(&[batch, queries, k]), s32s(&[batch, queries, k])]);
    let found = session.compile(&f).unwrap().run_arrays(&operands).unwrap();
    let singles: Vec<Shape> =
        shapes.iter().map(|shape| Shape::new(shape.dtype(), &shape.dims()[1..])).collect();
    let f = call(FUSED_SEARCH, config, &singles, &[f32s(&[queries, k]), s32s(&[queries, k])]);
    let single = session.compile(&f).unwrap();
    let part = |array: &Array, shape: &Shape, i: usize| {
        let count = shape.dims().iter().product::<usize>();
        Array::from_f64(shape.clone(), &array.to_f64()[i * count..(i + 1) * count]).unwrap()
    };
    for i in 0..batch {
        let own: Vec<Array> =
            operands.iter().zip(&singles).map(|(array, shape)| part(array, shape, i)).collect();
        let expected = single.run_arrays(&own).unwrap();
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(part(found, expected.shape(), i), expected, "search {i}");
        }
    }
}

#[test]
fn searches_without_proof_are_made_again() {
    let Some(session) = session() else { return };
    // A common offset leaves nothing of the rows in s8: each of them is stored as the others are.
    let offset = |row: i32| [1000.0 + 0.25 * row as f32, 1000.0];
    let rows: Vec<f32> = [0, 3, 5, 4, 7, 1].into_iter().flat_map(offset).collect();
    let rows = Array::new([2, 3, 2], &rows).unwrap();
    let queries = Array::new([2, 1, 2], &[1f32, 0.0, 1.0, 0.0]).unwrap();
    let stored = Array::new([2, 3, 2], &[127i8; 12]).unwrap();
    let scales = Array::new([2, 3], &[1000f32 / 127.0; 6]).unwrap();
    let errors = Array::new([2, 2], &[1.75f32, 1415.0, 1.75, 1415.0]).unwrap();
    let operands = [queries, stored, scales, rows, errors];
    for (recall, expected) in
        [("", [0, 0]), ("0.0 : f32", [0, 0]), ("1.0 : f32", [2, 1]), ("1.0 : f64", [2, 1])]
    {
        let (attribute, count) = match recall {
            "" => (String::new(), 4),
            "0.0 : f32" => (format!(", certified_recall = {recall}"), 4),
            _ => (format!(", certified_recall = {recall}"), 5),
        };
        let config = format!("{{candidates = 1 : i64{attribute}}}");
        let shapes: Vec<Shape> = operands[..count].iter().map(|operand| operand.shape().clone()).collect();
        let f = call(FUSED_SEARCH, &config, &shapes, &[f32s(&[2, 1, 1]), s32s(&[2, 1, 1])]);
        let found = session.compile(&f).unwrap().run_arrays(&operands[..count]).unwrap();
        assert_eq!(found[1], Array::new([2, 1, 1], &expected).unwrap(), "{config}");
    }
}

/// What XLA says of a call that the handler refuses.
fn refusal(target: &str, config: &str, operands: &[Shape], results: &[Shape]) -> Option<String> {
    let arguments: Vec<Array> = operands.iter().map(|shape| Array::zeros(shape.clone()).unwrap()).collect();
    let f = call(target, config, operands, results);
    let executable = session()?.compile(&f).unwrap();
    Some(executable.run_arrays(&arguments).unwrap_err().to_string())
}

#[test]
fn calls_that_do_not_fit_are_refused() {
    let select = |config, operand: Shape, values: Shape, indices: Shape| {
        refusal(SELECT_K, config, &[operand], &[values, indices])
    };
    let u8s = |dims: &[usize]| Shape::new(DType::U8, dims);
    let two = || (f32s(&[3, 2]), s32s(&[3, 2]));
    for (problem, expected) in [
        (
            select("", u8s(&[3, 5]), u8s(&[3, 2]), two().1),
            "the operand must be of f32, bf16, f16, f64, got u8",
        ),
        (select("", f32s(&[]), two().0, two().1), "the operand must be of rank 1 or more, got 0"),
        (
            select("", f32s(&[3, 5]), Shape::new(DType::F64, [3, 2]), two().1),
            "the values must be of f32, got f64",
        ),
        (select("", f32s(&[3, 5]), two().0, f32s(&[3, 2])), "the indices must be of s32, got f32"),
        (select("", f32s(&[3, 5]), f32s(&[4, 2]), two().1), "the values must be f32[3,2], got f32[4,2]"),
        (select("", f32s(&[3, 5]), two().0, s32s(&[3, 1])), "the indices must be s32[3,2], got s32[3,1]"),
        (
            refusal(SELECT_K, "", &[f32s(&[2, 3, 5])], &[f32s(&[3, 2, 1]), s32s(&[2, 3, 1])]),
            "the values must be f32[2,3,1], got f32[3,2,1]",
        ),
        (
            select("", f32s(&[3, 5]), f32s(&[3, 6]), s32s(&[3, 6])),
            "k must be at most the operand's last size",
        ),
        (select("{best = true}", f32s(&[3, 5]), two().0, two().1), "there is no attribute best"),
        (
            select("{least = 1 : i64}", f32s(&[3, 5]), two().0, two().1),
            "the attribute least must be a truth value",
        ),
        (
            select("{threads = -1 : i64}", f32s(&[3, 5]), two().0, two().1),
            "threads must be 0 or more, got -1",
        ),
        (
            select("{threads = true}", f32s(&[3, 5]), two().0, two().1),
            "the attribute threads must be an s64 or s32",
        ),
        (
            select("{instruction_set = \"mmx\"}", f32s(&[3, 5]), two().0, two().1),
            "there is no instruction set mmx",
        ),
        (select("{instruction_set = \"neon\"}", f32s(&[3, 5]), two().0, two().1), "no instruction set neon"),
        (refusal(SELECT_K, "", &[f32s(&[3, 5])], &[two().0]), "expected 2 results, got 1"),
        (
            refusal(SELECT_K, "", &[f32s(&[3, 5]), f32s(&[3])], &[two().0, two().1]),
            "expected 1 operand (the operand), got 2",
        ),
    ] {
        let Some(problem) = problem else { return };
        assert!(problem.contains("xlann_select_k: ") && problem.contains(expected), "{problem}");
    }
    let search = |config: &str, operands: &[Shape]| {
        refusal(FUSED_SEARCH, config, operands, &[f32s(&[4, 2]), s32s(&[4, 2])])
    };
    let (queries, database) = (f32s(&[4, 8]), f32s(&[9, 8]));
    let s8 = Shape::new(DType::S8, [9, 8]);
    let certified = |recall: &str, errors: &[Shape]| {
        let operands = [&[queries.clone(), database.clone(), database.clone()], errors].concat();
        search(&format!("{{candidates = 3 : i64, certified_recall = {recall}}}"), &operands)
    };
    // Leading sizes are compared one by one.
    let leading = |config, operands: &[Shape], values: &[usize]| {
        refusal(FUSED_SEARCH, config, operands, &[f32s(values), s32s(&[2, 3, 2, 1])])
    };
    let leading_queries = f32s(&[2, 3, 2, 4]);
    for (problem, expected) in [
        (
            leading("", &[leading_queries.clone(), f32s(&[3, 2, 5, 4])], &[2, 3, 2, 1]),
            "database must be f32[2,3,5,4], got f32[3,2,5,4]",
        ),
        (
            leading(
                "{metric = \"l2\"}",
                &[leading_queries.clone(), f32s(&[2, 3, 5, 4]), f32s(&[2, 3, 4])],
                &[2, 3, 2, 1],
            ),
            "half_norms must be f32[2,3,5], got f32[2,3,4]",
        ),
        (
            leading("", &[leading_queries, f32s(&[2, 3, 5, 4])], &[6, 2, 1]),
            "the values must be f32[2,3,2,1], got f32[6,2,1]",
        ),
        (search("", std::slice::from_ref(&queries)), "expected 2 operands (queries, database), got 1"),
        (search("", &[queries.clone(), f32s(&[9, 7])]), "database must be f32[9,8], got f32[9,7]"),
        (search("", &[queries.clone(), f32s(&[2, 9, 8])]), "database must be f32[9,8], got f32[2,9,8]"),
        (
            search("", &[queries.clone(), s8.clone()]),
            "expected 3 operands (queries, database, scales), got 2",
        ),
        (search("", &[queries.clone(), s8, f32s(&[8])]), "scales must be f32[9], got f32[8]"),
        (search("", &[queries.clone(), f32s(&[1, 8])]), "k must be at most the database's 1 rows, got 2"),
        (search("", &[f32s(&[4, 0]), f32s(&[9, 0])]), "database must be of 1 column or more, got 0"),
        (
            search("{metric = \"cosine\"}", &[queries.clone(), database.clone()]),
            "metric must be inner_product, l2 or squared_distance",
        ),
        (
            search("{metric = \"l2\"}", &[queries.clone(), database.clone()]),
            "(queries, database, half_norms), got 2",
        ),
        (
            search("{metric = \"l2\"}", &[queries.clone(), database.clone(), Shape::new(DType::F64, [9])]),
            "half_norms must be of f32, got f64",
        ),
        (
            search("{scaled = true}", &[queries.clone(), database.clone()]),
            "(queries, database, scales), got 2",
        ),
        (
            search(
                "{scaled = true, candidates = 5 : i64}",
                &[queries.clone(), database.clone(), f32s(&[9]), database.clone()],
            ),
            "scaled must be false with candidates from a database of f32",
        ),
        (
            search("{candidates = 1 : i64}", &[queries.clone(), database.clone(), database.clone()]),
            "candidates must be from k (2) to the database's 9 rows, got 1",
        ),
        (
            search("{certified_recall = 0.5 : f64}", &[queries.clone(), database.clone()]),
            "certified_recall must be 0 without candidates, got 0.5",
        ),
        (certified("1.5 : f32", &[f32s(&[2])]), "certified_recall must be from 0 to 1, got 1.5"),
        (certified("-0.5 : f64", &[f32s(&[2])]), "certified_recall must be from 0 to 1, got -0.5"),
        (certified("0x7FC00000 : f32", &[f32s(&[2])]), "certified_recall must be from 0 to 1, got nan"),
        (certified("1 : i64", &[f32s(&[2])]), "the attribute certified_recall must be an f64 or f32"),
        (certified("true", &[f32s(&[2])]), "the attribute certified_recall must be an f64 or f32"),
        (certified("0.5 : f64", &[]), "expected 4 operands (queries, database, rows, errors), got 3"),
        (certified("0.0 : f64", &[f32s(&[2])]), "expected 3 operands (queries, database, rows), got 4"),
        (certified("0.5 : f64", &[s32s(&[2])]), "errors must be of f32, got s32"),
        (certified("0.5 : f64", &[f32s(&[])]), "errors must be of rank 1 or more, got 0"),
        (certified("0.5 : f64", &[f32s(&[3])]), "errors must be f32[2], got f32[3]"),
        (certified("0.5 : f64", &[f32s(&[4, 2])]), "errors must be f32[2], got f32[4,2]"),
        (search("", &[Shape::new(DType::S8, [4, 8]), database]), "queries must be of f32, bf16, f16, got s8"),
    ] {
        let Some(problem) = problem else { return };
        assert!(problem.contains("xlann_fused_search: ") && problem.contains(expected), "{problem}");
    }
}

#[test]
fn what_is_empty_has_empty_results() {
    let Some(session) = session() else { return };
    for (target, operands, dims) in [
        (SELECT_K, vec![f32s(&[0, 5])], [0, 2]),
        (SELECT_K, vec![f32s(&[3, 5])], [3, 0]),
        (FUSED_SEARCH, vec![f32s(&[0, 8]), f32s(&[9, 8])], [0, 2]),
        (FUSED_SEARCH, vec![f32s(&[4, 8]), f32s(&[9, 8])], [4, 0]),
    ] {
        let f = call(target, "", &operands, &[f32s(&dims), s32s(&dims)]);
        let arguments: Vec<Array> =
            operands.iter().map(|shape| Array::zeros(shape.clone()).unwrap()).collect();
        let found = session.compile(&f).unwrap().run_arrays(&arguments).unwrap();
        assert_eq!(found[0].shape(), &f32s(&dims));
    }
}

/// The custom calls of a lowered function, and what was chosen.
fn lowered(function: &Function) -> (Vec<String>, Vec<lower::Choice>) {
    let lowered = lower::lower(function, &cpu::CAPABILITIES, &lower::Options::default()).unwrap();
    let instructions = lowered.module.computations.iter().flat_map(|computation| &computation.instructions);
    let targets = instructions.filter(|instruction| instruction.opcode == "custom-call");
    (targets.map(|call| call.custom_call_target.clone()).collect(), lowered.choices)
}

/// Scores of 3 queries and 50 vectors of width 8.
fn operands() -> [Shape; 3] {
    [f32s(&[3, 8]), f32s(&[50, 8]), f32s(&[50])]
}

fn products(x: &[Tensor]) -> Result<Tensor> {
    x[0].dot_general(&x[1], (&[1], &[1]), (&[], &[]))
}

fn top(scores: &Tensor) -> Result<(Tensor, Tensor)> {
    scores.approx_max_k(5, &ApproxTopKOptions::default())
}

fn bottom(scores: &Tensor) -> Result<(Tensor, Tensor)> {
    scores.approx_min_k(5, &ApproxTopKOptions::default())
}

#[test]
fn searches_are_recognised() {
    type Build<'a> = dyn Fn(&[Tensor]) -> Result<(Tensor, Tensor)> + 'a;
    let traced = |build: &Build<'_>| Function::trace("search", &operands(), |x| build(x)).unwrap();
    let searches = [
        traced(&|x| top(&products(x)?)),
        traced(&|x| bottom(&(&x[2] - products(x)?)?)),
        traced(&|x| bottom(&(x[2].expand_dims(0)? - products(x)?)?)),
        traced(&|x| top(&x[0].dot(&x[1].transpose(&[1, 0])?)?)),
        // Cosines, of which the queries' norms are a part of the queries.
        traced(&|x| top(&(products(x)? * &x[2])?)),
        traced(&|x| top(&(&x[2] * products(x)?)?)),
        // Halves whose products are summed in f32.
        traced(&|x| {
            let [queries, database] = [x[0].convert(DType::BF16)?, x[1].convert(DType::BF16)?];
            top(&products(&[queries.convert(DType::F32)?, database.convert(DType::F32)?])?)
        }),
    ];
    for search in &searches {
        let (calls, choices) = lowered(search);
        assert_eq!((&calls[..], choices.len()), (&[FUSED_SEARCH.to_owned()][..], 1), "{search}");
        assert!(choices[0].form == Form::Kernel && !choices[0].keeps_scores, "{}", choices[0]);
    }
    for (search, reason) in [
        (Function::trace("top", &[f32s(&[3, 50])], |x| top(&x[0])).unwrap(), "an argument"),
        (traced(&|x| bottom(&products(x)?)), "neither products, searched for the largest, nor half norms"),
        (
            traced(&|x| bottom(&(products(x)? - &x[2])?)),
            "neither products, searched for the largest, nor half norms",
        ),
        (
            traced(&|x| top(&(products(x)? * &x[2])?.exp()?)),
            "no products, with scales, half norms, a bias or a mask",
        ),
        // Sums of several would be rounded in another order.
        (
            traced(&|x| top(&((&x[2] + products(x)?)? - 0.5)?)),
            "no products, with scales, half norms, a bias or a mask",
        ),
        // Where a mask is not the last step, or fills in another number.
        (
            traced(&|x| {
                top(&(x[2].greater(0)?.expand_dims(0)?.select(products(x)?, f64::NEG_INFINITY)? + &x[2])?)
            }),
            "no products, with scales, half norms, a bias or a mask",
        ),
        (
            traced(&|x| top(&x[2].greater(0)?.expand_dims(0)?.select(products(x)?, -1e9)?)),
            "no products, with scales, half norms, a bias or a mask",
        ),
        (
            traced(&|x| top(&(products(x)? + x[0].reduce_sum(&[1])?.expand_dims(1)?)?)),
            "differ between queries",
        ),
        (traced(&|x| bottom(&(products(x)? * &x[2])?)), "neither products, searched for the largest"),
        (traced(&|x| top(&(products(x)? * products(x)?)?)), "differ between queries"),
        (
            traced(&|x| top(&x[1].dot(&x[0].transpose(&[1, 0])?)?.transpose(&[1, 0])?)),
            "along the dimension of",
        ),
        (
            Function::trace("search", &[f32s(&[3, 8]), f32s(&[8, 50])], |x| top(&x[0].dot(&x[1])?)).unwrap(),
            "the database would have to be transposed",
        ),
        (
            Function::trace("search", &operands(), |x| {
                let scores = products(x)?;
                let (values, indices) = top(&scores)?;
                Ok((values, indices, scores))
            })
            .unwrap(),
            "read elsewhere",
        ),
        (
            Function::trace("search", &[f32s(&[3, 8]), f32s(&[50, 8]), f32s(&[3, 1])], |x| {
                bottom(&(&x[2] - products(x)?)?)
            })
            .unwrap(),
            "differ between queries",
        ),
    ] {
        let (calls, choices) = lowered(&search);
        assert_eq!(calls, [SELECT_K], "{search}");
        assert!(choices[0].keeps_scores && choices[0].reason.contains(reason), "{}", choices[0]);
    }
}

/// Whether the rows of a mask are kept: broadcast to all queries.
fn kept(x: &[Tensor]) -> Result<Tensor> {
    x[2].greater(0)?.expand_dims(0)
}

#[test]
fn masked_and_biased_searches_stay_fused() {
    let Some(session) = session() else { return };
    type Build<'a> = dyn Fn(&[Tensor]) -> Result<(Tensor, Tensor)> + 'a;
    let none = f64::NEG_INFINITY;
    let builds: [&Build<'_>; 10] = [
        &|x| top(&kept(x)?.select(products(x)?, none)?),
        &|x| top(&kept(x)?.select(products(x)?.full_like(none)?, products(x)?)?),
        &|x| bottom(&kept(x)?.select((&x[2] - products(x)?)?, f64::INFINITY)?),
        &|x| top(&(products(x)? + &x[2])?),
        &|x| top(&(&x[2] + products(x)?)?),
        &|x| top(&(products(x)? - &x[2])?),
        &|x| top(&((products(x)? * &x[2])? + &x[2])?),
        &|x| top(&x[3].select((products(x)? * &x[2])?, none)?),
        &|x| top(&x[3].select(kept(x)?.select((products(x)? + &x[2])?, none)?, none)?),
        &|x| bottom(&x[3].select((&x[2] - products(x)?)?, f64::INFINITY)?),
    ];
    let operands = [&operands()[..], &[Shape::new(DType::Pred, [50])]].concat();
    for (number, build) in builds.iter().enumerate() {
        let search = Function::trace("search", &operands, |x| build(x)).unwrap();
        let axes = [Some(0); 4];
        for function in [vmap(&search, &axes[..], 0, 4).unwrap(), search] {
            let (calls, choices) = lowered(&function);
            assert_eq!(
                (&calls[..], choices.len()),
                (&[FUSED_SEARCH.to_owned()][..], 1),
                "{number} {function}"
            );
            let shapes = function.parameter_shapes();
            let mut arguments: Vec<Array> =
                shapes.into_iter().zip(1..).map(|(shape, seed)| integers(shape, seed)).collect();
            // Few rows are kept, fewer than k, and then none; rows that are masked out may hold anything.
            for kept in [0.5, 0.06, 0.0] {
                let shape = arguments[3].shape().clone();
                let chosen = random(shape.with_dtype(DType::F64), 9).to_f64();
                let mask: Vec<f64> = chosen.iter().map(|x| f64::from(x.abs() < kept)).collect();
                arguments[3] = Array::from_f64(shape, &mask).unwrap();
                let found = session.compile(&function).unwrap().run_arrays(&arguments).unwrap();
                assert_eq!(found, function.eval(&arguments).unwrap(), "{number}, {kept} kept: {function}");
            }
        }
    }
}

#[test]
fn what_a_masked_row_holds_is_not_seen() {
    let Some(session) = session() else { return };
    let search =
        Function::trace("search", &operands(), |x| top(&kept(x)?.select(products(x)?, f64::NEG_INFINITY)?))
            .unwrap();
    let [queries, rows, _] = operands();
    let mut numbers = integers(rows.clone(), 2).to_f64();
    for (row, special) in [(3, f64::NAN), (4, f64::INFINITY), (5, f64::NEG_INFINITY), (40, f64::NAN)] {
        numbers[8 * row] = special;
    }
    // Rows 10 to 12 are kept alone, and then 40, too.
    for last in [12, 40] {
        let kept: Vec<f32> =
            (0..50).map(|row| f32::from(u8::from((10..13).contains(&row) || row == last))).collect();
        let arguments = [
            integers(queries.clone(), 1),
            Array::from_f64(rows.clone(), &numbers).unwrap(),
            Array::new([50], &kept).unwrap(),
        ];
        let found = session.compile(&search).unwrap().run_arrays(&arguments).unwrap();
        let expected = search.eval(&arguments).unwrap();
        for query in 0..3 {
            let of = |found: &[Array]| -> Vec<(f64, f64)> {
                let pairs = found[0].to_f64().into_iter().zip(found[1].to_f64());
                pairs.skip(5 * query).take(3).collect()
            };
            assert_eq!(of(&found), of(&expected));
            let values = &found[0].to_f64()[5 * query..][3..5];
            assert!(
                values.iter().all(|x| *x == f64::NEG_INFINITY || (last == 40 && x.is_nan())),
                "{values:?}"
            );
        }
    }
}

#[test]
fn batches_of_searches_stay_fused() {
    let Some(session) = session() else { return };
    let l2 = Function::trace("search", &operands(), |x| bottom(&(&x[2] - products(x)?)?)).unwrap();
    let ip = Function::trace("search", &operands()[..2], |x| top(&products(x)?)).unwrap();
    let cosine = Function::trace("search", &operands(), |x| top(&(products(x)? * &x[2])?)).unwrap();
    let cases: [(&Function, Vec<Option<isize>>); 9] = [
        (&ip, vec![Some(0), None]),
        (&ip, vec![Some(1), None]),
        (&ip, vec![None, Some(0)]),
        (&ip, vec![Some(0), Some(0)]),
        (&l2, vec![Some(0), Some(0), Some(0)]),
        // Of shared queries, the products come out transposed.
        (&l2, vec![None, Some(0), Some(0)]),
        (&l2, vec![None, Some(0), None]),
        (&cosine, vec![Some(0), Some(0), Some(0)]),
        (&cosine, vec![None, Some(0), Some(0)]),
    ];
    for (search, axes) in cases {
        let batched = vmap(search, &axes[..], 0, 4).unwrap();
        let (calls, choices) = lowered(&batched);
        assert_eq!(calls, [FUSED_SEARCH], "{axes:?}: {}", choices[0]);
        let arguments: Vec<Array> = batched
            .parameter_shapes()
            .into_iter()
            .zip(1..)
            .map(|(shape, seed)| random(shape, seed))
            .collect();
        let found = session.compile(&batched).unwrap().run_arrays(&arguments).unwrap();
        let expected = batched.eval(&arguments).unwrap();
        assert_eq!(found[1], expected[1], "{axes:?}");
        for (found, expected) in found[0].to_f64().into_iter().zip(expected[0].to_f64()) {
            assert!((found - expected).abs() < 1e-4, "{axes:?}: {found} {expected}");
        }
    }
}

/// Small integers, whose products are summed exactly in any order.
fn integers(shape: Shape, seed: u64) -> Array {
    let values: Vec<f64> = random(shape.clone(), seed).to_f64().iter().map(|x| (x * 50.0).round()).collect();
    Array::from_f64(shape, &values).unwrap()
}

#[test]
fn derivatives_of_searches_are_those_of_the_interpreter() {
    let Some(session) = session() else { return };
    for tangent in [Tangent::Gather, Tangent::Carried] {
        let options = ApproxTopKOptions { tangent, ..ApproxTopKOptions::default() };
        let searches = [
            Function::trace("ip", &operands()[..2], |x| products(x)?.approx_max_k(5, &options)).unwrap(),
            Function::trace("l2", &operands(), |x| (&x[2] - products(x)?)?.approx_min_k(5, &options))
                .unwrap(),
        ];
        for search in &searches {
            let count = search.parameter_shapes().len();
            let all: Vec<usize> = (0..count).collect();
            // The transform of what is lowered, too: of a custom call, it is that of its reference.
            let lowered_search =
                lower::lower(search, &cpu::CAPABILITIES, &lower::Options::default()).unwrap().function;
            for wrt in [&[0][..], &[1], &all] {
                for (name, of_search, of_lowered) in [
                    ("jvp", jvp(search, wrt).unwrap(), jvp(&lowered_search, wrt).unwrap()),
                    ("vjp", vjp(search, wrt).unwrap(), vjp(&lowered_search, wrt).unwrap()),
                ] {
                    let shapes = of_search.parameter_shapes();
                    let arguments: Vec<Array> =
                        shapes.into_iter().zip(20..).map(|(shape, seed)| integers(shape, seed)).collect();
                    let expected = of_search.eval(&arguments).unwrap();
                    let (calls, choices) = lowered(&of_search);
                    // No kernel carries tangents along.
                    let fused = (name, tangent) != ("jvp", Tangent::Carried);
                    let expected_calls: &[&str] = if fused { &[FUSED_SEARCH] } else { &[] };
                    assert_eq!(calls, expected_calls, "{name} {wrt:?} {tangent:?}: {}", choices[0]);
                    let reason = if fused { "not kept" } else { "carries operands along" };
                    assert!(choices[0].reason.contains(reason), "{}", choices[0]);
                    for derivative in [&of_search, &of_lowered] {
                        let context = format!("{name} {wrt:?} {tangent:?}\n{derivative}");
                        assert_eq!(derivative.eval(&arguments).unwrap(), expected, "{context}");
                        let found = session.compile(derivative).unwrap().run_arrays(&arguments).unwrap();
                        assert_eq!(found, expected, "{context}");
                    }
                }
            }
        }
    }
}
