//! Transforms of loops and branches.

use crate::required::{derivatives_match, interpreted, jvp_matches, mixed, mixes, stack, vmap_matches};
use crate::runner::{assert_close, random, run};
use proptest::prelude::*;
use xlann::{Array, DType, Function, Shape, Tensor, grad, jvp, vjp, vmap};

fn f64s(dims: &[usize]) -> Shape {
    Shape::new(DType::F64, dims)
}

fn arguments(function: &Function, seed: u64) -> Vec<Array> {
    function
        .parameter_shapes()
        .into_iter()
        .zip(seed * 10..)
        .map(|(shape, seed)| random(shape, seed))
        .collect()
}

/// Several states of which one stays, one is an integer, and each of the others depends on all.
fn recurrence(trip_count: i32) -> Function {
    Function::trace("recurrence", &[f64s(&[2, 2]), f64s(&[2]), f64s(&[])], |x| {
        let steps = x[0].builder().scalar(0i32)?;
        let last = x[0].builder().fori_loop(trip_count, &[&x[0], &x[1], &x[2], &steps], |index, s| {
            let next = (s[0].dot(&s[1])?.sin()? + &s[2])?;
            let sum = ((&s[2] * s[1].reduce_sum(&[0])?.cos())? + (index.convert(DType::F64)? * 0.1))?;
            Ok([s[0].clone(), next, sum, (&s[3] + index)?])
        })?;
        Ok([last[1].clone(), last[2].clone(), last[3].clone()])
    })
    .unwrap()
}

#[test]
fn counted_loops_batch() {
    for trip_count in [0, 1, 3] {
        let f = recurrence(trip_count);
        vmap_matches(&f, |seed| arguments(&f, seed));
        let batched = vmap(&f, [Some(0), None, None], 0, 3).unwrap().to_string();
        assert!(batched.contains(&format!("while[trip_count={trip_count}]")), "{batched}");
    }
}

#[test]
fn counted_loops_have_derivatives() {
    for trip_count in [-2, 0, 1, 4] {
        let f = recurrence(trip_count);
        derivatives_match(&f, &arguments(&f, 1), &[0, 1, 2]);
    }
    let f = recurrence(3);
    for wrt in [&[0][..], &[1], &[2]] {
        derivatives_match(&f, &arguments(&f, 1), wrt);
    }
}

#[test]
fn state_that_stays_is_not_recorded() {
    let f = Function::trace("f", &[f64s(&[7, 7]), f64s(&[7])], |x| {
        let last = x[0]
            .builder()
            .fori_loop(5, &[&x[0], &x[1]], |_, s| Ok([s[0].clone(), s[0].dot(&s[1])?.sin()?]))?;
        last[1].reduce_sum(&[0])
    })
    .unwrap();
    let text = grad(&f, &[0, 1]).unwrap().to_string();
    assert!(text.contains("f64[5,7]"), "{text}");
    assert!(!text.contains("f64[5,7,7]"), "{text}");
    // Nor is what no derivative needs.
    let f = Function::trace("f", &[f64s(&[7])], |x| {
        x[0].builder().fori_loop(5, &[&x[0]], |_, s| Ok([(&s[0] * 3)?]))?[0].reduce_sum(&[0])
    })
    .unwrap();
    let text = grad(&f, &[0]).unwrap().to_string();
    assert!(!text.contains("[5,7]"), "{text}");
}

#[test]
fn values_at_a_distance_are_exact() {
    // x^(2^n) and its derivatives.
    let f = Function::trace("f", &[f64s(&[])], |x| {
        x[0].builder().fori_loop(3, &[&x[0]], |_, s| Ok([(&s[0] * &s[0])?]))
    })
    .unwrap();
    let first = grad(&f, &[0]).unwrap();
    let second = grad(&first, &[0]).unwrap();
    let third = grad(&second, &[0]).unwrap();
    let x = [Array::scalar(1.5f64)];
    for (function, expected) in [
        (&f, 1.5f64.powi(8)),
        (&first, 8.0 * 1.5f64.powi(7)),
        (&second, 56.0 * 1.5f64.powi(6)),
        (&third, 336.0 * 1.5f64.powi(5)),
    ] {
        assert_close(&run(function, &x)[0], &Array::scalar(expected), function);
    }
}

#[test]
fn loops_nest() {
    let f = Function::trace("f", &[f64s(&[3]), f64s(&[])], |x| {
        let last = x[0].builder().fori_loop(3, &[&x[0], &x[1]], |row, s| {
            let inner = x_times(&s[0], row)?;
            s[0].builder().fori_loop(2, &[&inner, &s[1]], |column, t| {
                let angle = (&t[1] + column.convert(DType::F64)?)?;
                Ok([(&t[0] * angle.cos()?)?, (&t[1] * t[0].reduce_sum(&[0])?)?])
            })
        })?;
        Ok(last)
    })
    .unwrap();
    vmap_matches(&f, |seed| arguments(&f, seed));
    derivatives_match(&f, &arguments(&f, 2), &[0, 1]);
    derivatives_match(&f, &arguments(&f, 2), &[1]);
}

fn x_times(x: &Tensor, number: &Tensor) -> xlann::Result<Tensor> {
    x * (number.convert(DType::F64)? + 1)
}

#[test]
fn loops_three_deep_have_second_derivatives() {
    let f = Function::trace("f", &[f64s(&[])], |x| {
        let repeat = |x: &Tensor, body: &dyn Fn(&Tensor) -> xlann::Result<Tensor>| {
            Ok(x.builder().fori_loop(2, &[x], |_, s| body(&s[0]))?.remove(0))
        };
        repeat(&x[0], &|x| repeat(&x.sin()?, &|x| repeat(&(x * 1.25)?, &|x| &x.cos()? * x)))
    })
    .unwrap();
    derivatives_match(&f, &[Array::scalar(0.7f64)], &[0]);
}

/// The running sums of squares, written into a buffer row by row.
#[test]
fn a_buffer_is_filled() {
    let f = Function::trace("f", &[f64s(&[4, 2]), f64s(&[2])], |x| {
        let buffer = x[0].full_like(0)?;
        let last = x[0].builder().fori_loop(4, &[&x[0], &x[1], &buffer], |index, s| {
            let zero = index.full_like(0)?;
            let row = s[0].dynamic_slice(&[index, &zero], &[1, 2])?;
            let sum = (&s[1] + (&row * &row)?.reshape(&[2])?)?;
            let buffer = s[2].dynamic_update_slice(&sum.reshape(&[1, 2])?, &[index, &zero])?;
            Ok([s[0].clone(), sum, buffer])
        })?;
        Ok((last[1].clone(), last[2].clone()))
    })
    .unwrap();
    vmap_matches(&f, |seed| arguments(&f, seed));
    derivatives_match(&f, &arguments(&f, 2), &[0, 1]);
    derivatives_match(&f, &arguments(&f, 2), &[1]);
}

/// The square root by Newton's iteration, until it is exact enough, and the number of steps.
fn newton() -> Function {
    let state = [f64s(&[]), f64s(&[]), Shape::scalar(DType::S32)];
    let condition = Function::trace("condition", &state, |x| {
        ((&x[1] * &x[1])? - &x[0])?.abs()?.greater(&x[0] * 1e-13)? & x[2].less(50)
    });
    let body = Function::trace("body", &state, |x| {
        let next = ((&x[1] + (&x[0] / &x[1])?)? * 0.5)?;
        Ok((x[0].clone(), next, (&x[2] + 1)?))
    });
    Function::trace("newton", &[f64s(&[]), f64s(&[])], |x| {
        let steps = x[0].builder().scalar(0i32)?;
        let last = x[0].builder().while_loop(&[&x[0], &x[1], &steps], condition?, body?)?;
        Ok((last[1].clone(), last[2].clone()))
    })
    .unwrap()
}

#[test]
fn each_element_of_a_batch_has_its_own_trip_count() {
    let f = newton();
    let values = [(2.0, 1.0), (1e6, 1.0), (9.0, 3.0)];
    vmap_matches(&f, |seed| {
        let (x, start) = values[seed as usize];
        vec![Array::scalar(x), Array::scalar(start)]
    });
    let batched = vmap(&f, 0, 0, 3).unwrap();
    let arguments =
        [Array::new([3], &values.map(|v| v.0)).unwrap(), Array::new([3], &values.map(|v| v.1)).unwrap()];
    let results = run(&batched, &arguments);
    assert_close(&results[0], &Array::new([3], &[2f64.sqrt(), 1e3, 3.0]).unwrap(), &batched);
    let steps = results[1].to_vec::<i32>().unwrap();
    assert!(steps[2] == 0 && steps[0] > 2 && steps[1] > steps[0], "{steps:?}");
}

#[test]
fn a_loop_of_unknown_length_has_a_forward_derivative() {
    let f = newton();
    let arguments = [Array::scalar(2f64), Array::scalar(1f64)];
    let derivative = jvp(&f, &[0]).unwrap();
    let results = run(&derivative, &[&arguments[..], &[Array::scalar(1f64)]].concat());
    assert_close(&results[2], &Array::scalar(0.5 / 2f64.sqrt()), &derivative);
    jvp_matches(&f, &arguments, &[0, 1]);
    // A batch of derivatives, and the derivative of a batch.
    let batch: Vec<Vec<Array>> = [2.0, 1e4, 9.0]
        .iter()
        .map(|&x| vec![Array::scalar(x), Array::scalar(3f64), Array::scalar(1f64)])
        .collect();
    vmap_matches(&derivative, |seed| batch[seed as usize].clone());
    let column = |index: usize| stack(&batch.iter().map(|b| b[index].clone()).collect::<Vec<_>>(), 0);
    let batched = jvp(&vmap(&f, 0, 0, 3).unwrap(), &[0]).unwrap();
    let results = run(&batched, &[column(0), column(1), column(2)]);
    assert_close(&results[2], &Array::new([3], &[0.5 / 2f64.sqrt(), 0.005, 0.0]).unwrap(), &batched);
}

#[test]
fn a_loop_of_unknown_length_has_no_reverse_derivative() {
    let problem = "while: vjp cannot go through it: its number of iterations is not static; Builder::fori_loop builds \
                   loops for which it is";
    assert_eq!(grad(&newton(), &[0]).unwrap_err().to_string(), problem);
    // Nor has a counted one where the count differs within the batch.
    let f = Function::trace("f", &[f64s(&[]), Shape::scalar(DType::S32)], |x| {
        let state = [f64s(&[]), Shape::scalar(DType::S32)];
        let condition = Function::trace("condition", &state, |x| x[1].greater(0))?;
        let body = Function::trace("body", &state, |x| Ok(((&x[0] * 2)?, (&x[1] - 1)?)))?;
        Ok(x[0].builder().while_loop(&[&x[0], &x[1]], condition, body)?.remove(0))
    })
    .unwrap();
    vmap_matches(&f, |seed| vec![Array::scalar(1.5f64), Array::scalar(seed as i32)]);
    assert_eq!(vjp(&f, &[0]).unwrap_err().to_string(), problem);
    // What does not go through the loop has one.
    let g = Function::trace("g", &[f64s(&[]), Shape::scalar(DType::S32)], |x| {
        x[0].builder().call(&f, &[&x[0], &x[1]])?;
        &x[0] * &x[0]
    })
    .unwrap();
    let gradient = grad(&g, &[0]).unwrap();
    assert_eq!(run(&gradient, &[Array::scalar(3f64), Array::scalar(2)]), [Array::scalar(6f64)]);
}

#[test]
fn state_of_every_kind_batches() {
    // A pred, integers and an empty tensor, each element of the batch as often as its count says.
    let state = [
        Shape::scalar(DType::Pred),
        Shape::new(DType::U8, [2]),
        Shape::new(DType::F32, [0, 2]),
        Shape::scalar(DType::S32),
    ];
    let condition = Function::trace("condition", &state, |x| x[3].greater(0)).unwrap();
    let body = Function::trace("body", &state, |x| Ok([(!&x[0])?, (&x[1] + 3)?, (&x[2] * 2)?, (&x[3] - 1)?]))
        .unwrap();
    let f = Function::trace("f", &state, |x| {
        x[0].builder().while_loop(&x.iter().collect::<Vec<_>>(), condition, body)
    })
    .unwrap();
    vmap_matches(&f, |seed| {
        vec![
            Array::scalar(seed == 1),
            Array::new([2], &[seed as u8, 9]).unwrap(),
            Array::zeros(state[2].clone()).unwrap(),
            Array::scalar(seed as i32 + 1),
        ]
    });
}

#[test]
fn state_that_nothing_needs_is_dropped() {
    let f = Function::trace("f", &[f64s(&[]), f64s(&[5])], |x| {
        Ok(x[0]
            .builder()
            .fori_loop(3, &[&x[0], &x[1]], |_, s| Ok([(&s[0] * 2)?, (&s[1] * &s[0])?]))?
            .remove(0))
    })
    .unwrap();
    let derivative = jvp(&f, &[0]).unwrap();
    let text = derivative.to_string();
    assert_eq!(text.matches("f64[5]").count(), 1, "only the parameter: {text}");
    jvp_matches(&f, &arguments(&f, 0), &[0]);
}

/// One of three functions of a vector and a scalar; the second does not use the vector, and the third is constant.
fn choice(chooser: DType) -> Function {
    let operands = [f64s(&[3]), f64s(&[])];
    let first = Function::trace("first", &operands, |x| {
        Ok(((&x[0] * &x[1])?.sin()?, (&x[0] * &x[0])?.reduce_sum(&[0])?))
    });
    let second =
        Function::trace("second", &operands, |x| Ok((x[1].exp()?.broadcast_to(&[3])?, x[1].clone())));
    let third = Function::trace("third", &operands, |x| Ok((x[0].full_like(2)?, x[1].full_like(1)?)));
    Function::trace("choice", &[Shape::scalar(chooser), f64s(&[3]), f64s(&[])], |x| {
        let branches = (first?, second?, third?);
        match chooser {
            DType::Pred => x[0].cond(&[&x[1], &x[2]], branches.0, branches.1),
            _ => x[0].switch(&[&x[1], &x[2]], vec![branches.0, branches.1, branches.2]),
        }
    })
    .unwrap()
}

fn chooser(dtype: DType, index: i32) -> Array {
    if dtype == DType::Pred { Array::scalar(index == 0) } else { Array::scalar(index) }
}

#[test]
fn branches_batch() {
    for dtype in [DType::Pred, DType::S32] {
        let f = choice(dtype);
        for shift in [-1, 0, 1] {
            vmap_matches(&f, |seed| {
                vec![
                    chooser(dtype, seed as i32 + shift),
                    random(f64s(&[3]), seed),
                    random(f64s(&[]), seed + 5),
                ]
            });
        }
    }
}

#[test]
fn branches_have_derivatives() {
    for dtype in [DType::Pred, DType::S32] {
        let f = choice(dtype);
        for index in [0, 1, 2, 7] {
            let arguments = [chooser(dtype, index), random(f64s(&[3]), 1), random(f64s(&[]), 2)];
            derivatives_match(&f, &arguments, &[1, 2]);
            if index < 2 {
                derivatives_match(&f, &arguments, &[1]);
                derivatives_match(&f, &arguments, &[2]);
            }
        }
    }
}

#[test]
fn an_unbatched_index_stays_a_branch() {
    let batched = vmap(&choice(DType::S32), [None, Some(0), None], 0, 2).unwrap();
    let operators: Vec<_> = batched.equations().iter().map(|e| e.operator()).collect();
    assert_eq!(operators, ["conditional"]);
    let f = Function::trace("f", &choice(DType::S32).parameter_shapes(), |x| {
        let results = x[0].builder().call(&choice(DType::S32), &[&x[0], &x[1], &x[2]])?;
        Ok(results[1].clone())
    })
    .unwrap();
    let gradient = grad(&f, &[1]).unwrap();
    assert!(gradient.equations().iter().any(|e| e.operator() == "conditional"), "{gradient}");
}

/// In each iteration one of two branches, one of which loops.
#[test]
fn branches_and_loops_nest() {
    let operands = [f64s(&[2]), f64s(&[])];
    let looping = Function::trace("looping", &operands, |x| {
        let last = x[0].builder().fori_loop(2, &[&x[0], &x[1]], |_, s| {
            Ok([(&s[0] * &s[1])?, (s[1].sin()? + s[0].reduce_sum(&[0])?)?])
        })?;
        Ok(last)
    })
    .unwrap();
    let plain = Function::trace("plain", &operands, |x| Ok((x[0].cos()?, (&x[1] * &x[1])?))).unwrap();
    let f = Function::trace("f", &operands, |x| {
        x[0].builder().fori_loop(3, &[&x[0], &x[1]], |index, s| {
            (index % 2)?.equal(0)?.cond(&[&s[0], &s[1]], looping, plain)
        })
    })
    .unwrap();
    vmap_matches(&f, |seed| arguments(&f, seed));
    derivatives_match(&f, &arguments(&f, 3), &[0, 1]);
    derivatives_match(&f, &arguments(&f, 3), &[1]);

    // A predicate that differs within the batch, around a loop of unknown length.
    let state = [f64s(&[]), f64s(&[])];
    let newton = newton();
    let root =
        Function::trace("root", &state, |x| Ok(x[0].builder().call(&newton, &[&x[0], &x[1]])?.remove(0)));
    let same = Function::trace("same", &state, |x| Ok(x[0].clone()));
    let f = Function::trace("f", &state, |x| x[0].greater(5)?.cond(&[&x[0], &x[1]], root?, same?)).unwrap();
    vmap_matches(&f, |seed| vec![Array::scalar([3.0, 7.0, 100.0][seed as usize]), Array::scalar(1f64)]);
}

#[test]
fn gradients_of_batched_loops_and_batches_of_gradients_agree() {
    let f = Function::trace("f", &[f64s(&[2]), f64s(&[2])], |x| {
        let last = x[0]
            .builder()
            .fori_loop(3, &[&x[0], &x[1]], |_, s| Ok([(s[0].sin()? * &s[1])?, s[1].clone()]))?;
        last[0].reduce_sum(&[0])
    })
    .unwrap();
    let batch: Vec<Vec<Array>> = (0..3).map(|seed| arguments(&f, seed)).collect();
    let stacked: Vec<Array> =
        (0..2).map(|i| stack(&batch.iter().map(|b| b[i].clone()).collect::<Vec<_>>(), 0)).collect();
    let of_gradients = vmap(&grad(&f, &[0, 1]).unwrap(), 0, 0, 3).unwrap();
    let sum = Function::trace("sum", &[f64s(&[3, 2]), f64s(&[3, 2])], |x| {
        x[0].builder().call(&vmap(&f, 0, 0, 3)?, &[&x[0], &x[1]])?[0].reduce_sum(&[0])
    })
    .unwrap();
    let of_batch = grad(&sum, &[0, 1]).unwrap();
    for (got, expected) in run(&of_gradients, &stacked).iter().zip(run(&of_batch, &stacked)) {
        assert_close(got, &expected, &of_batch);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_counted_loop((shapes, feeds) in mixes(), trip_count in -1i32..4, seed: u32) {
        let f = Function::trace("f", &shapes, |x| {
            x[0].builder().fori_loop(trip_count, &x.iter().collect::<Vec<_>>(), |_, x| mixed(x, &feeds, 0.3))
        })
        .unwrap();
        let at = |number| arguments(&f, u64::from(seed) + number);
        interpreted(|| {
            vmap_matches(&f, at);
            derivatives_match(&f, &at(0), &(0..shapes.len()).collect::<Vec<_>>());
            derivatives_match(&f, &at(0), &[shapes.len() - 1]);
        });
    }

    #[test]
    fn any_loop((shapes, feeds) in mixes(), steps in prop::collection::vec(0i32..4, 3), seed: u32) {
        // For as many steps as the last of the state says, or until the first is near 0.
        let count = shapes.len();
        let state = [shapes.as_slice(), &[Shape::scalar(DType::S32)]].concat();
        let condition = Function::trace("condition", &state, |x| {
            let axes: Vec<isize> = (0..x[0].rank() as isize).collect();
            x[count].greater(0)? & x[0].reduce_sum(&axes)?.abs()?.greater(0.2)?
        })
        .unwrap();
        let body = Function::trace("body", &state, |x| {
            let mut next = mixed(&x[..count], &feeds, 0.3)?;
            next.push((&x[count] - 1)?);
            Ok(next)
        })
        .unwrap();
        let f = Function::trace("f", &state, |x| {
            x[0].builder().while_loop(&x.iter().collect::<Vec<_>>(), condition, body)
        })
        .unwrap();
        let at = |number: u64| {
            let mut arguments = arguments(&f, u64::from(seed) + number);
            arguments[count] = Array::scalar(steps[number as usize]);
            arguments
        };
        interpreted(|| {
            vmap_matches(&f, at);
            jvp_matches(&f, &at(0), &(0..count).collect::<Vec<_>>());
            jvp_matches(&f, &at(0), &[count - 1]);
            // The derivative of a batch, each element of which has its own number of steps.
            let batched = vmap(&f, 0, 0, steps.len()).unwrap();
            let each: Vec<Vec<Array>> = (0..steps.len() as u64).map(at).collect();
            let stacked: Vec<Array> = (0..=count)
                .map(|index| stack(&each.iter().map(|each| each[index].clone()).collect::<Vec<_>>(), 0))
                .collect();
            jvp_matches(&batched, &stacked, &(0..count).collect::<Vec<_>>());
        });
    }

    #[test]
    fn any_branches(
        (shapes, feeds) in mixes(),
        count in 1usize..4,
        by_pred: bool,
        indices in prop::collection::vec(-1i32..4, 3),
        seed: u32,
    ) {
        let branch = |number: usize| {
            let mut feeds = feeds.clone();
            feeds.rotate_left(number % shapes.len());
            Function::trace("branch", &shapes, |x| mixed(x, &feeds, 0.3 + number as f64)).unwrap()
        };
        let chooser_dtype = if by_pred { DType::Pred } else { DType::S32 };
        let all = [&[Shape::scalar(chooser_dtype)], shapes.as_slice()].concat();
        let f = Function::trace("f", &all, |x| {
            let operands: Vec<&Tensor> = x[1..].iter().collect();
            match by_pred {
                true => x[0].cond(&operands, branch(0), branch(1)),
                false => x[0].switch(&operands, (0..count).map(branch).collect()),
            }
        })
        .unwrap();
        let at = |number: u64| {
            let mut arguments = arguments(&f, u64::from(seed) + number);
            arguments[0] = chooser(chooser_dtype, indices[number as usize]);
            arguments
        };
        interpreted(|| {
            vmap_matches(&f, at);
            derivatives_match(&f, &at(0), &(1..=shapes.len()).collect::<Vec<_>>());
            derivatives_match(&f, &at(1), &[shapes.len()]);
            // The derivative of a batch, each element of which has its own branch.
            let batched = vmap(&f, 0, 0, indices.len()).unwrap();
            let each: Vec<Vec<Array>> = (0..indices.len() as u64).map(at).collect();
            let stacked: Vec<Array> = (0..=shapes.len())
                .map(|index| stack(&each.iter().map(|each| each[index].clone()).collect::<Vec<_>>(), 0))
                .collect();
            derivatives_match(&batched, &stacked, &(1..=shapes.len()).collect::<Vec<_>>());
        });
    }
}
