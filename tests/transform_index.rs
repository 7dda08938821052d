//! Transforms of gathers, scatters and dynamic slices.

mod transforms;
mod windows;

use proptest::prelude::*;
use transforms::runner::random;
use transforms::{derivatives_match, vmap_matches};
use windows::{Case, case};
use xlann::{Array, DType, Function, GatherDims, ScatterDims, ScatterKind, Shape, Tensor, jvp, vjp, vmap};

const KINDS: [ScatterKind; 4] = [ScatterKind::Set, ScatterKind::Add, ScatterKind::Max, ScatterKind::Min];

fn f64s(dims: &[usize]) -> Shape {
    Shape::new(DType::F64, dims)
}

fn trace(arguments: &[Array], body: impl FnOnce(&[Tensor]) -> xlann::Result<Tensor>) -> Function {
    let shapes: Vec<Shape> = arguments.iter().map(|array| array.shape().clone()).collect();
    Function::trace("f", &shapes, body).unwrap()
}

/// Integers from `low` on, below `high`.
fn integers(shape: Shape, low: i32, high: i32, seed: u64) -> Array {
    let values = random(shape.with_dtype(DType::F64), seed).to_f64();
    let spread = |value: &f64| (f64::from(low) + (value + 1.0) / 2.0 * f64::from(high - low)).floor();
    Array::from_f64(shape, &values.iter().map(spread).collect::<Vec<_>>()).unwrap()
}

fn gather(case: &Case, dtype: DType) -> Function {
    let operand = Shape::new(dtype, case.operand.as_slice());
    Function::trace("f", &[operand, case.starts.shape().clone()], |x| {
        x[0].gather(&x[1], case.dims.clone(), &case.windows)
    })
    .unwrap()
}

fn scatter(case: &Case, dtype: DType, kind: ScatterKind) -> Function {
    let [operand, updates] = [&case.operand, &case.outside].map(|dims| Shape::new(dtype, dims.as_slice()));
    Function::trace("f", &[operand, case.starts.shape().clone(), updates], |x| {
        x[0].scatter(&x[1], &x[2], kind, case.scatter_dims())
    })
    .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn gathers_are_batched(case in case()) {
        vmap_matches(&gather(&case, DType::S32), |seed| {
            let operand = integers(Shape::new(DType::S32, case.operand.as_slice()), -99, 99, seed);
            vec![operand, integers(case.starts.shape().clone(), -1, 4, seed)]
        });
    }

    #[test]
    fn gathers_have_derivatives(case in case()) {
        let operand = random(f64s(&case.operand), 1);
        derivatives_match(&gather(&case, DType::F64), &[operand, case.starts.clone()], &[0]);
    }

    #[test]
    fn scatters_are_batched(case in case(), kind in prop::sample::select(KINDS.to_vec())) {
        prop_assume!(case.places_something());
        vmap_matches(&scatter(&case, DType::S32, kind), |seed| {
            let [operand, updates] = [&case.operand, &case.outside]
                .map(|dims| integers(Shape::new(DType::S32, dims.as_slice()), -99, 99, seed));
            vec![operand, integers(case.starts.shape().clone(), -1, 4, seed), updates]
        });
    }

    #[test]
    fn scatters_have_derivatives(case in case(), kind in prop::sample::select(KINDS.to_vec())) {
        prop_assume!(case.places_something());
        let arguments = [random(f64s(&case.operand), 1), case.starts.clone(), random(f64s(&case.outside), 2)];
        for wrt in [&[0, 2][..], &[0], &[2]] {
            derivatives_match(&scatter(&case, DType::F64, kind), &arguments, wrt);
        }
    }
}
