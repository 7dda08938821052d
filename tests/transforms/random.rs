//! Random numbers against those of JAX: scripts/make-random-fixtures.py wrote them.

use crate::runner;
use serde_json::Value;
use xlann::lower::{Options, lower};
use xlann::target::{cpu, gpu, tpu};
use xlann::{Array, DType, Function, Result, Shape, Tensor, grad, jvp, random, vmap};

/// An array from its text: its shape, and the bits of each element.
fn parse(text: &str) -> Array {
    let mut words = text.split(' ');
    let shape = shape(words.next().unwrap());
    let size = shape.dtype().size();
    let bits = words.map(|word| u64::from_str_radix(word, 16).unwrap().to_le_bytes());
    let bytes: Vec<u8> = bits.flat_map(|bytes| bytes[..size].to_vec()).collect();
    Array::from_bytes(shape, &bytes).unwrap()
}

fn shape(text: &str) -> Shape {
    let (dtype, dims) = text.trim_end_matches(']').split_once('[').unwrap();
    let dims: Vec<usize> = dims.split_terminator(',').map(|dim| dim.parse().unwrap()).collect();
    Shape::new(dtype.parse().unwrap(), dims)
}

/// One draw of JAX's.
struct Case(Value);

impl Case {
    fn all() -> Vec<Case> {
        let mut file: Value = serde_json::from_str(include_str!("../fixtures/random.json")).unwrap();
        let Value::Array(cases) = file["cases"].take() else { panic!("a list of cases") };
        cases.into_iter().map(Case).collect()
    }

    fn draw(&self) -> &str {
        self.0["draw"].as_str().unwrap()
    }

    fn number(&self, name: &str) -> i64 {
        self.0[name].as_i64().unwrap_or_else(|| panic!("{name} of {}", self.0))
    }

    fn array(&self, name: &str) -> Array {
        parse(self.0[name].as_str().unwrap())
    }

    fn shape(&self) -> Shape {
        shape(self.0["shape"].as_str().unwrap())
    }

    /// The key or the keys, and what else is drawn with.
    fn arguments(&self) -> Vec<Array> {
        let key = self.array(if self.0["key"].is_null() { "keys" } else { "key" });
        let others = self.0["arguments"].as_array().into_iter().flatten();
        std::iter::once(key).chain(others.map(|text| parse(text.as_str().unwrap()))).collect()
    }

    /// The function of the key and the other arguments.
    fn function(&self) -> Function {
        let mut shapes: Vec<Shape> = self.arguments().iter().map(|array| array.shape().clone()).collect();
        let batch = shapes[0].rank() == 2;
        if batch {
            shapes[0] = shapes[0].with_dims([2]);
        }
        let function = Function::trace(self.draw(), &shapes, |x| self.build(x)).unwrap();
        if batch { vmap(&function, 0, 0, 3).unwrap() } else { function }
    }

    fn build(&self, x: &[Tensor]) -> Result<Tensor> {
        let key = &x[0];
        match self.draw() {
            "key" => key.builder().constant(random::key(self.number("seed") as u64)),
            "key_of_32_bits" => key.builder().constant(random::key((self.number("seed") as u32).into())),
            "key_of" => random::key_of(&x[1]),
            "split" => random::split_into(key, self.number("count") as usize),
            "fold_in" => random::fold_in(key, &x[1]),
            "bits" => random::bits(key, self.shape()),
            "uniform" if x.len() == 3 => random::uniform(key, self.shape(), &x[1], &x[2]),
            "uniform" => {
                let bound = |index: usize| self.0["bounds"][index].as_f64().unwrap();
                random::uniform(key, self.shape(), bound(0), bound(1))
            }
            "normal" => random::normal(key, self.shape()),
            "bernoulli" => random::bernoulli(key, &x[1], &[20, 5]),
            "gumbel" => random::gumbel(key, self.shape()),
            "categorical" => random::categorical(key, &x[1], self.number("axis") as isize),
            "erf_inv" => x[1].erf_inv(),
            "randint" => {
                let bound = |index: usize| self.0["bounds"][index].as_i64().unwrap();
                random::randint(key, self.shape(), bound(0)..bound(1))
            }
            "permutation" => {
                let size = self.number("size") as usize;
                let indices = key.builder().iota(Shape::new(DType::S16, [size]), 0)?;
                random::permutation(key, &indices, 0)
            }
            "permutation_of" => random::permutation(key, &x[1], self.number("axis") as isize),
            other => panic!("no draw is of this name: {other}"),
        }
    }

    /// Whether floats are rounded on the way, or logarithms taken, which a compiler may do in more than one way.
    fn is_rounded(&self) -> bool {
        match self.draw() {
            "uniform" => self.0["bounds"][1].as_f64() != Some(1.0),
            draw => ["normal", "gumbel", "categorical", "erf_inv"].contains(&draw),
        }
    }

    /// How results differ from JAX's, where they do.
    fn difference(&self, got: &Array, bits: bool) -> Option<String> {
        let expected = self.array("result");
        let equal = match bits || !expected.shape().dtype().is_float() {
            true => *got == expected,
            false => close(got, &expected),
        };
        (!equal).then(|| format!("{}\ngot {got}, JAX gives {expected}", self.0))
    }
}

/// Whether arrays differ by a few roundings of their largest number at most.
fn close(got: &Array, expected: &Array) -> bool {
    let tolerance = match expected.shape().dtype() {
        DType::F16 => f64::powi(2.0, -9),
        DType::BF16 => f64::powi(2.0, -6),
        DType::F32 => f64::powi(2.0, -22),
        // The logarithm of f64 in that version of JAX is off by up to 126 roundings.
        _ => f64::powi(2.0, -47),
    };
    let finite = expected.to_f64().into_iter().filter(|x| x.is_finite());
    let largest = finite.fold(0.0, |largest: f64, x| largest.max(x.abs()));
    let pairs = got.to_f64().into_iter().zip(expected.to_f64());
    let within = |(got, expected): (f64, f64)| {
        got == expected || got.is_nan() && expected.is_nan() || (got - expected).abs() <= tolerance * largest
    };
    got.shape() == expected.shape() && pairs.into_iter().all(within)
}

/// Whether compiled f32 and f16 are rounded as those of the fixtures, made where products are added in one step.
fn rounds_as_recorded() -> bool {
    #[cfg(target_arch = "x86_64")]
    let fused = std::arch::is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    let fused = false;
    fused && runner::common::platform().name() == "cpu"
}

fn key_shape() -> Shape {
    Shape::new(DType::U32, [2])
}

fn of_key(body: impl FnOnce(&Tensor) -> Result<Tensor>) -> Function {
    Function::trace("draw", &[key_shape()], |x| body(&x[0])).unwrap()
}

#[test]
fn the_interpreter_draws_what_jax_draws() {
    let differences = Case::all().into_iter().filter_map(|case| {
        let function = case.function();
        function.check().unwrap();
        let got = function.eval(&case.arguments()).unwrap().remove(0);
        case.difference(&got, !case.is_rounded())
    });
    let differences: Vec<String> = differences.collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_device_draws_what_jax_draws() {
    let Some(session) = runner::session() else { return };
    let differences = Case::all().into_iter().filter_map(|case| {
        let function = case.function();
        let executable = session.compile(&function).unwrap_or_else(|problem| panic!("{problem}\n{function}"));
        let got = executable.run_arrays(&case.arguments()).unwrap().remove(0);
        // That of JAX takes another logarithm of f64.
        let same = rounds_as_recorded() && case.array("result").shape().dtype() != DType::F64;
        case.difference(&got, same || !case.is_rounded())
    });
    let differences: Vec<String> = differences.collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn every_target_has_the_same_integer_operators() {
    const INTEGER: [&str; 12] = [
        "add",
        "broadcast",
        "constant",
        "convert",
        "iota",
        "multiply",
        "or",
        "parameter",
        "reshape",
        "shift-left",
        "shift-right-logical",
        "xor",
    ];
    let function = of_key(|key| random::bits(key, Shape::new(DType::U16, [3, 4])));
    let texts = [&cpu::CAPABILITIES, &gpu::CAPABILITIES, &tpu::CAPABILITIES].map(|capabilities| {
        let module = lower(&function, capabilities, &Options::default()).unwrap().module;
        for instruction in module.computations.iter().flat_map(|computation| &computation.instructions) {
            let opcode = instruction.opcode.as_str();
            assert!(INTEGER.contains(&opcode) || opcode == "slice", "{opcode}");
        }
        module.to_string()
    });
    assert!(texts[0].contains("shift-right-logical(") && !texts[0].contains("f32["), "{}", texts[0]);
    assert_eq!(texts[0], texts[1]);
    assert_eq!(texts[0], texts[2]);
}

#[test]
fn positions_beyond_32_bits_have_an_upper_half() {
    let function = of_key(|key| random::bits(key, Shape::new(DType::U8, [1 << 20, 1 << 13])));
    assert!(function.to_string().contains("u64[1048576,8192] = iota"), "{function}");
    let function = of_key(|key| random::bits(key, Shape::new(DType::U8, [1 << 20, 1 << 12])));
    assert!(!function.to_string().contains("u64"), "{function}");
}

#[test]
fn a_batch_of_keys_draws_what_each_key_draws() {
    let keys = of_key(|key| random::split_into(key, 3)).eval(&[random::key(5)]).unwrap().remove(0);
    for case in Case::all().iter().filter(|case| case.0["keys"].is_null()) {
        let function = case.function();
        let others = &case.arguments()[1..];
        let axes: Vec<_> = std::iter::once(Some(0)).chain(others.iter().map(|_| None)).collect();
        let batch = vmap(&function, axes, 0, 3).unwrap();
        let got = batch.eval(&[std::slice::from_ref(&keys), others].concat()).unwrap().remove(0);
        let each = (0..3).flat_map(|row| {
            let words = &keys.to_vec::<u32>().unwrap()[2 * row..][..2];
            let arguments = [&[Array::new([2], words).unwrap()], others].concat();
            function.eval(&arguments).unwrap()[0].as_bytes().to_vec()
        });
        assert_eq!(got.as_bytes(), each.collect::<Vec<u8>>(), "{}", case.0);
    }
}

#[test]
fn a_loop_draws_by_its_counter() {
    let shape = Shape::new(DType::F32, [4]);
    let steps = Function::trace("steps", &[key_shape(), shape.clone()], |x| {
        let last = x[0].builder().fori_loop(3, &[&x[0], &x[1]], |step, x| {
            let noise = random::normal(&random::fold_in(&x[0], step)?, shape.clone())?;
            Ok([x[0].clone(), (&x[1] + noise)?])
        })?;
        Ok(last[1].clone())
    });
    let zeros = Array::zeros(shape.clone()).unwrap();
    let sum = runner::run(&steps.unwrap(), &[random::key(3), zeros]).remove(0);
    let apart = of_key(|key| {
        let noise = |step: i32| random::normal(&random::fold_in(key, step)?, shape.clone());
        (noise(0)? + noise(1))? + noise(2)
    });
    runner::assert_close(&sum, &apart.eval(&[random::key(3)]).unwrap()[0], &apart);
}

#[test]
fn derivatives_go_past_what_is_drawn() {
    let shape = Shape::new(DType::F64, [5]);
    let shapes = [key_shape(), Shape::scalar(DType::F64), Shape::scalar(DType::F64)];
    // Of the mean of what is drawn between two bounds.
    let mean = Function::trace("mean", &shapes, |x| {
        let [first, second] = random::split(&x[0])?;
        let numbers =
            random::permutation(&first, &random::uniform(&second, shape.clone(), &x[1], &x[2])?, 0)?;
        numbers.mean(&[0])
    });
    let mean = mean.unwrap();
    let unit = of_key(|key| {
        let [_, second] = random::split(key)?;
        random::uniform(&second, shape.clone(), 0, 1)?.mean(&[0])
    });
    let upper = unit.eval(&[random::key(1)]).unwrap()[0].to_f64()[0];
    let arguments = [random::key(1), Array::scalar(-1f64), Array::scalar(2f64)];
    let slopes = runner::run(&grad(&mean, &[1, 2]).unwrap(), &arguments);
    runner::assert_close(&slopes[0], &Array::scalar(1.0 - upper), &mean);
    runner::assert_close(&slopes[1], &Array::scalar(upper), &mean);
    let forward = jvp(&mean, &[2]).unwrap();
    let results = forward.eval(&[arguments.as_slice(), &[Array::scalar(3f64)]].concat()).unwrap();
    runner::assert_close(&results[1], &Array::scalar(3.0 * upper), &forward);

    let refused = grad(&mean, &[0]).unwrap_err().to_string();
    assert_eq!(refused, "grad: wrt must be positions of floating parameters, got 0, which is u32[2]");
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let shapes = [key_shape(), Shape::new(DType::U32, [3]), Shape::new(DType::F32, [3])];
    let refusal = |body: &dyn Fn(&[Tensor]) -> Result<Tensor>| {
        Function::trace("refused", &shapes, |x| body(x)).unwrap_err().to_string()
    };
    let of = |dtype| Shape::new(dtype, [3]);
    assert_eq!(refusal(&|x| random::bits(&x[1], of(DType::U32))), "bits: key must be u32[2], got u32[3]");
    assert_eq!(
        refusal(&|x| random::bits(&x[0], of(DType::S32))),
        "bits: dtype must be u8, u16, u32 or u64, got s32"
    );
    assert_eq!(
        refusal(&|x| random::normal(&x[0], of(DType::S32))),
        "normal: dtype must be floating, got s32"
    );
    assert_eq!(
        refusal(&|x| random::uniform(&x[0], Shape::scalar(DType::F32), &x[2], 1)),
        "broadcast_to: dims must be of rank 1 at least, that of f32[3], got []"
    );
    assert_eq!(
        refusal(&|x| random::fold_in(&x[0], &x[1])),
        "fold_in: data must be an integer scalar, got u32[3]"
    );
    assert_eq!(refusal(&|x| random::fold_in(&x[0], -1)), "constant: value must be a u32, got -1");
    assert_eq!(refusal(&|x| random::key_of(&x[2])), "key_of: seed must be an integer scalar, got f32[3]");
    assert_eq!(
        refusal(&|x| random::randint(&x[0], of(DType::U8), -1..3)),
        "randint: range must be one of values of u8, one at least, got -1..3"
    );
    assert_eq!(
        refusal(&|x| random::randint(&x[0], of(DType::S32), 3..3)),
        "randint: range must be one of values of s32, one at least, got 3..3"
    );
    assert_eq!(
        refusal(&|x| random::randint(&x[0], of(DType::F32), 0..3)),
        "randint: dtype must be an integer, got f32"
    );
    assert_eq!(
        refusal(&|x| random::permutation(&x[0], &x[2], 1)),
        "permutation: axis must be in -1..1 for f32[3], got 1"
    );
}
