//! StableHLO: what programs that leave the crate as it compute, and what cannot leave.

#![allow(unsafe_code)]

use std::ffi::c_void;

use crate::runner::{FLOATS, assert_valid, random, run, session, stablehlo, top_k};
use xlann::hlo::HloModuleProto;
use xlann::hlo::proto::{HloComputationProto, HloInstructionProto};
use xlann::lower::{self, lower};
use xlann::{
    ApiVersion, ApproxTopKOptions, Array, Builder, CustomCall, DType, Function, Shape, Tangent, jvp, target,
    vmap,
};

fn f32s(dims: &[usize]) -> Shape {
    Shape::new(DType::F32, dims)
}

fn text_of(function: &Function) -> String {
    lower::stablehlo(function, &target::cpu::CAPABILITIES).unwrap()
}

/// The StableHLO of a function in plain operators.
fn lowered_text(function: &Function) -> String {
    let lowered = lower(function, &target::cpu::CAPABILITIES, &lower::Options::default()).unwrap();
    lowered.module.to_stablehlo().unwrap()
}

/// Numbers in some order, all different.
fn distinct(shape: &Shape) -> Array {
    let count = shape.element_count();
    // A prime that divides no size here.
    let values: Vec<f64> =
        (0..count).map(|index| (index * 7919 % count) as f64 - count as f64 / 2.0).collect();
    Array::from_f64(shape.clone(), &values).unwrap()
}

#[test]
fn approximate_top_k_finds_what_the_interpreter_finds() {
    let Some(session) = session() else { return };
    let default = ApproxTopKOptions::default;
    for (dims, k, options) in [
        (&[3, 500][..], 10, default()),
        (&[500], 10, default()),
        (&[4000], 1, default()),
        (&[2, 3000], 1, ApproxTopKOptions { recall_target: 0.5, ..default() }),
        (&[2, 600, 3], 5, ApproxTopKOptions { reduction_dimension: 1, ..default() }),
        (&[600, 4], 7, ApproxTopKOptions { reduction_dimension: 0, recall_target: 1.0, ..default() }),
        (&[4, 7], 7, default()),
        (&[1], 1, default()),
        (&[0, 7], 3, default()),
        (&[2, 2000], 10, ApproxTopKOptions { reduction_input_size_override: Some(1_000_000), ..default() }),
        (&[1, 2000], 10, ApproxTopKOptions { recall_target: 1e-7, ..default() }),
    ] {
        for aggregate_to_topk in [true, false] {
            let options = ApproxTopKOptions { aggregate_to_topk, ..options.clone() };
            for min in [false, true] {
                for dtype in FLOATS {
                    let shape = Shape::new(dtype, dims);
                    let function = top_k(&shape, k, min, &options);
                    let text = text_of(&function);
                    assert_eq!(text.matches("stablehlo.custom_call @ApproxTopK").count(), 1, "{text}");
                    let executable = stablehlo(session, &function, &text).unwrap();
                    let operand = distinct(&shape);
                    let expected = function.eval(std::slice::from_ref(&operand)).unwrap();
                    let got = executable.run_arrays(std::slice::from_ref(&operand)).unwrap();
                    assert_eq!(got[0], expected[0], "{text}");
                    if matches!(dtype, DType::F32 | DType::F64) {
                        assert_eq!(got[1], expected[1], "{text}");
                    } else if options.reduction_dimension == -1 && dims[0] > 0 {
                        // Numbers that were different are equal in few bits.
                        assert_valid(&operand, &got, min, true, &text);
                    }
                }
            }
        }
    }
}

#[test]
fn approximate_top_k_carries_operands_along() {
    let Some(session) = session() else { return };
    let options = ApproxTopKOptions { tangent: Tangent::Carried, ..ApproxTopKOptions::default() };
    for min in [false, true] {
        let function = jvp(&top_k(&f32s(&[3, 300]), 4, min, &options), &[0]).unwrap();
        let arguments = [distinct(&f32s(&[3, 300])), random(f32s(&[3, 300]), 1)];
        let text = text_of(&function);
        assert_eq!(text.matches("gather").count(), 0, "{text}");
        let executable = stablehlo(session, &function, &text).unwrap();
        assert_eq!(executable.run_arrays(&arguments).unwrap(), function.eval(&arguments).unwrap(), "{text}");
    }
}

#[test]
fn approximate_top_k_is_found_in_sub_functions() {
    let options = ApproxTopKOptions::default();
    let shape = f32s(&[300]);
    let largest =
        Function::trace("largest", std::slice::from_ref(&shape), |x| Ok(x[0].approx_max_k(3, &options)?.0));
    let smallest =
        Function::trace("smallest", std::slice::from_ref(&shape), |x| Ok(x[0].approx_min_k(3, &options)?.0));
    let branches = vec![largest.unwrap(), smallest.unwrap()];
    let function = Function::trace("either", &[Shape::scalar(DType::S32), shape.clone()], |x| {
        x[0].switch(&[&x[1]], branches)
    })
    .unwrap();
    assert_eq!(text_of(&function).matches("stablehlo.custom_call @ApproxTopK").count(), 2);
    for index in [0, 1] {
        run(&function, &[Array::scalar(index), distinct(&shape)]);
    }
    // One search for each element of a batch, in a loop.
    let row =
        Function::trace("row", std::slice::from_ref(&shape), |x| x[0].approx_max_k(3, &options)).unwrap();
    run(&vmap(&row, 0, 0, 2).unwrap(), &[distinct(&f32s(&[2, 300]))]);
}

/// What JAX 0.10.2 writes of `jax.jit(lambda x: jax.lax.approx_max_k(x, 10)).lower(x).as_text()`.
const JAX: &str = r#"module @jit__lambda attributes {mhlo.num_partitions = 1 : i32, mhlo.num_replicas = 1 : i32} {
  func.func @top_k_gt_f32_comparator(%arg0: tensor<f32>, %arg1: tensor<f32>, %arg2: tensor<i32>, %arg3: tensor<i32>) -> tensor<i1> {
    %0 = stablehlo.compare GT, %arg0, %arg1 : (tensor<f32>, tensor<f32>) -> tensor<i1>
    stablehlo.return %0 : tensor<i1>
  }
  func.func public @main(%arg0: tensor<128x1000xf32>) -> (tensor<128x10xf32> {jax.result_info = "result[0]"}, tensor<128x10xi32> {jax.result_info = "result[1]"}) {
    %0 = stablehlo.iota dim = 1 : tensor<128x1000xi32>
    %c = stablehlo.constant dense<-1> : tensor<i32>
    %cst = stablehlo.constant dense<0xFF800000> : tensor<f32>
    %1:2 = stablehlo.custom_call @ApproxTopK(%arg0, %0, %cst, %c) {backend_config = "", called_computations = [@top_k_gt_f32_comparator], mhlo.backend_config = {aggregate_to_topk = true, is_fallback = true, recall_target = 0.949999988 : f32, reduction_dim = 1 : i64, reduction_input_size_override = -1 : i64, top_k = 10 : i64}} : (tensor<128x1000xf32>, tensor<128x1000xi32>, tensor<f32>, tensor<i32>) -> (tensor<128x10xf32>, tensor<128x10xi32>)
    return %1#0, %1#1 : tensor<128x10xf32>, tensor<128x10xi32>
  }
}
"#;

#[test]
fn approximate_top_k_is_jaxs() {
    let function = top_k(&f32s(&[128, 1000]), 10, false, &ApproxTopKOptions::default());
    let call = |text: &str| text.lines().find(|line| line.contains("@ApproxTopK")).unwrap().trim().to_owned();
    let jax =
        call(JAX).replace("%1:2", "%3:2").replace("%cst, %c)", "%1, %2)").replace("0.949999988", "0.95");
    assert_eq!("0.949999988".parse::<f32>(), Ok(0.95));
    let text = text_of(&function);
    assert_eq!(call(&text), jax);
    let Some(session) = session() else { return };
    let arguments = [distinct(&f32s(&[128, 1000]))];
    let [jax, ours] =
        [JAX, &text].map(|text| stablehlo(session, &function, text).unwrap().run_arrays(&arguments).unwrap());
    assert_eq!(ours, jax);
}

#[test]
fn forms_that_the_lowering_chose_leave_too() {
    let Some(session) = session() else { return };
    for (k, size) in [(10, 100_000), (100, 5000), (5, 40)] {
        let shape = f32s(&[2, size]);
        let function = top_k(&shape, k, true, &ApproxTopKOptions::default());
        let text = lowered_text(&function);
        assert!(!text.contains("ApproxTopK"), "{text}");
        let arguments = [random(shape, 3)];
        let from_stablehlo = stablehlo(session, &function, &text).unwrap().run_arrays(&arguments).unwrap();
        let from_hlo = session.compile(&function).unwrap().run_arrays(&arguments).unwrap();
        assert_eq!(from_stablehlo, from_hlo);
    }
}

#[test]
fn constants_leave_to_the_last_bit() {
    let Some(session) = session() else { return };
    let odd = [0.1f32, -0.0, f32::NAN, -f32::INFINITY, f32::MIN_POSITIVE / 3.0, 1e10, 16777217.0, f32::MAX];
    let mut arrays = vec![
        Array::new([2, 4], &odd).unwrap(),
        Array::scalar(f32::from_bits(0x7fc1_2345)),
        Array::new([3], &[0.1f64, -1e-310, f64::MAX]).unwrap(),
        Array::new([1000], &[f32::NAN; 1000]).unwrap(),
        Array::new([2, 0], &[0u8; 0]).unwrap(),
        Array::new([200], &(0..200).map(|index| index % 3 == 0).collect::<Vec<_>>()).unwrap(),
        Array::new([2], &[u64::MAX, 0]).unwrap(),
        Array::new([2], &[i64::MIN, 1]).unwrap(),
    ];
    for dtype in DType::ALL {
        for dims in [&[][..], &[5], &[7, 30]] {
            let shape = Shape::new(dtype, dims);
            let values = (0..shape.element_count()).map(|index| (index * 37 % 101) as f64 / 2.0);
            arrays.push(
                Array::from_f64(
                    shape.clone(),
                    &values.map(|x| if dtype == DType::Pred { x % 2.0 } else { x }).collect::<Vec<_>>(),
                )
                .unwrap(),
            );
        }
    }
    for array in arrays {
        let builder = Builder::new("constant");
        let function = builder.finish(builder.constant(array.clone()).unwrap()).unwrap();
        let text = text_of(&function);
        let got = stablehlo(session, &function, &text).unwrap().run_arrays(&[]).unwrap();
        assert_eq!(got[0].shape(), array.shape());
        assert_eq!(got[0].as_bytes(), array.as_bytes(), "{text}");
    }
}

#[test]
fn functions_of_any_name_and_number_of_results_leave() {
    let shape = f32s(&[2]);
    let main = || {
        Function::trace("main", &[Shape::scalar(DType::F32), Shape::scalar(DType::F32)], |x| x[0].less(&x[1]))
    };
    for name in ["main", "a-b", "7 \"of\"\n9", "", "名"] {
        let function = Function::trace(name, std::slice::from_ref(&shape), |x| {
            let sorted = x[0].builder().sort_by(&[&x[0]], 0, true, main()?)?;
            Ok((sorted[0].clone(), x[0].clone()))
        })
        .unwrap();
        run(&function, &[Array::new([2], &[2f32, 1.0]).unwrap()]);
    }
    let nothing = Function::trace("nothing", &[shape], |_| Ok(Vec::<xlann::Tensor>::new()));
    if let Ok(nothing) = nothing {
        assert!(text_of(&nothing).contains("    return\n"));
    }
}

/// Doubles an array of f32 so many times as the attribute `times`, an s64, says.
///
/// # Safety
/// XLA's: `frame` must be a call frame of its FFI.
unsafe extern "C" fn double(frame: *mut c_void) -> *mut c_void {
    // SAFETY: the offsets are those of XLA_FFI_CallFrame and what it points at.
    unsafe {
        let field = |at: *mut c_void, offset: usize| at.cast::<u8>().add(offset).cast::<*mut c_void>().read();
        let extension = field(frame, 8);
        if !extension.is_null() && extension.cast::<u8>().add(8).cast::<i32>().read() == 1 {
            // It is asked for the version of the API that it is written for.
            let version = field(extension, 24).cast::<u8>().add(8);
            version.add(16).cast::<[i32; 2]>().write([0, 1]);
            return std::ptr::null_mut();
        }
        let operand = field(field(frame, 40 + 32), 0);
        let result = field(field(frame, 80 + 32), 0);
        let count: i64 = (0..field(operand, 32) as usize)
            .map(|axis| *field(operand, 40).cast::<i64>().add(axis))
            .product();
        let times = *field(field(field(frame, 120 + 40), 0), 8).cast::<i64>();
        for index in 0..count as usize {
            let x = *field(operand, 24).cast::<f32>().add(index);
            *field(result, 24).cast::<f32>().add(index) = x * 2f32.powi(times as i32);
        }
        std::ptr::null_mut()
    }
}

#[test]
fn custom_calls_get_their_attributes() {
    let Some(session) = session() else { return };
    let plugin = session.client().plugin();
    // SAFETY: it keeps to the rules of the FFI, and is a part of this program.
    unsafe { plugin.register_handler("test double", double as *mut c_void, "Host") }.unwrap();
    let shape = f32s(&[2, 3]);
    let function = Function::trace("doubled", std::slice::from_ref(&shape), |x| {
        let reference = Function::trace("reference", std::slice::from_ref(&shape), |x| &x[0] * 8f32)?;
        let call = CustomCall::new("test double", [shape.clone()])
            .backend_config("{times = 3 : i64}")
            .reference(reference)
            .side_effect();
        // A transpose in front, so that XLA would rather have another layout.
        let operand = x[0].transpose(&[1, 0])?.exp()?.transpose(&[1, 0])?;
        x[0].builder().custom_call(call, &[&operand])
    })
    .unwrap();
    assert!(
        text_of(&function).contains(
            "stablehlo.custom_call @\"test double\"(%2) {api_version = 4 : i32, backend_config = {times = 3 : i64}, \
             has_side_effect = true, operand_layouts = [dense<[1, 0]> : tensor<2xindex>], \
             result_layouts = [dense<[1, 0]> : tensor<2xindex>]} : (tensor<2x3xf32>) -> tensor<2x3xf32>"
        ),
        "{}",
        text_of(&function)
    );
    run(&function, &[random(shape, 5)]);
}

#[test]
fn custom_calls_of_the_original_api_have_text() {
    let call = CustomCall::new("old", [f32s(&[]), Shape::scalar(DType::S32)])
        .api_version(ApiVersion::Original)
        .backend_config("a \"b\"\n\\");
    let function =
        Function::trace("f", &[f32s(&[2])], |x| x[0].builder().custom_call(call, &[&x[0]])).unwrap();
    let text = text_of(&function);
    assert!(
        text.contains(r#"%0:2 = stablehlo.custom_call @old(%arg0) {backend_config = "a \"b\"\0A\\", "#),
        "{text}"
    );
    assert!(text.contains("-> (tensor<f32>, tensor<i32>)"), "{text}");
}

#[test]
fn what_has_no_stablehlo_is_refused() {
    let refusal = |call: CustomCall| {
        let f = Function::trace("f", &[f32s(&[2])], |x| x[0].builder().custom_call(call, &[&x[0]])).unwrap();
        lower::stablehlo(&f, &target::cpu::CAPABILITIES).unwrap_err().to_string()
    };
    assert_eq!(
        refusal(CustomCall::new("kernel", [f32s(&[2])]).backend_config("k = 10")),
        "stablehlo: instruction custom-call must be one whose backend_config is in braces, \
         such as {k = 10 : i64}, got k = 10"
    );

    let module = |edit: &dyn Fn(&mut HloModuleProto)| {
        let double = Function::trace("double", &[f32s(&[2])], |x| &x[0] + &x[0]).unwrap();
        let lowered = lower(&double, &target::cpu::CAPABILITIES, &lower::Options::default()).unwrap();
        let mut module = lowered.module;
        edit(&mut module);
        module.to_stablehlo().unwrap_err().to_string()
    };
    let add = |module: &mut HloModuleProto, edit: &dyn Fn(&mut HloInstructionProto)| {
        edit(&mut module.computations[0].instructions[1]);
    };
    assert_eq!(
        module(&|module| add(module, &|add| add.opcode = "fft".to_owned())),
        "stablehlo: instruction add must be one that this crate has StableHLO for, got fft"
    );
    assert_eq!(
        module(&|module| add(module, &|add| add.operand_ids = vec![9])),
        "stablehlo: instruction add must be after %9, which it reads, got one before it"
    );
    assert_eq!(
        module(&|module| add(module, &|add| add.shape.as_mut().unwrap().element_type = 99)),
        "stablehlo: instruction add must be one that gives arrays of pred, s8, s16, s32, s64, u8, u16, u32, u64, \
         f16, bf16, f32, f64, got another one"
    );
    assert_eq!(
        module(&|module| add(module, &|add| add.opcode = "constant".to_owned())),
        "stablehlo: instruction add must be one with a literal, got none"
    );
    assert_eq!(
        module(&|module| add(module, &|add| add.called_computation_ids = vec![77])),
        "stablehlo: module must be one with a computation 77, got none"
    );
    // A computation that calls itself.
    assert_eq!(
        module(&|module| {
            let own = module.entry_computation_id;
            add(module, &|add| {
                add.opcode = "sort".to_owned();
                add.called_computation_ids = vec![own];
            });
        }),
        "stablehlo: module must be computations at most 100 deep in each other, got double"
    );
    assert_eq!(
        module(&|module| module.computations[0].root_id = 99),
        "stablehlo: computation double must be one with a root, got none"
    );
    assert_eq!(
        module(&|module| module.computations = vec![HloComputationProto::default()]),
        "stablehlo: module must be one with a computation 3, got none"
    );
}
