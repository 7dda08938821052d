//! StableHLO with approximate top-k as XLA's own operator.

use crate::graph::{Function, Tensor};
use crate::hlo::{APPROX_TOP_K, float};
use crate::lower::native::{comparator, initial, with_indices};
use crate::lower::{Capabilities, Form, Rewrite, Site, expand, module};
use crate::ops::Operator;
use crate::ops::approx_top_k::ApproxTopK;
use crate::{ApiVersion, Array, CustomCall, Result};

/// A function as StableHLO, in which approximate top-k stays an operator: `stablehlo.custom_call @ApproxTopK`, with
/// the attributes and the comparator that JAX gives it.
///
/// XLA chooses its form when it compiles: a partial reduction on a TPU; elsewhere, where the attribute `is_fallback`
/// is set, an exact sort. Of the target, this attribute is all that the text depends on. NaNs are XLA's matter then:
/// the comparator is a plain `>` or `<`, to which a NaN is equal to everything, and which results come of a row that
/// has some is not defined. Where that matters, or the crate's own forms are wanted, take the StableHLO of the
/// lowered module, [`HloModuleProto::to_stablehlo`](crate::hlo::HloModuleProto::to_stablehlo).
///
/// # Errors
/// Where a custom call's `backend_config` is not what its API asks for.
///
/// ```
/// use xlann::{ApproxTopKOptions, DType, Function, Shape, lower, target};
///
/// let f = Function::trace("best", &[Shape::new(DType::F32, [128, 1000])], |x| {
///     x[0].approx_max_k(10, &ApproxTopKOptions::default())
/// })?;
/// let text = lower::stablehlo(&f, &target::cpu::CAPABILITIES)?;
/// assert!(text.contains("stablehlo.custom_call @ApproxTopK(%arg0, %0, %1, %2)"), "{text}");
/// assert!(text.contains("is_fallback = true, recall_target = 0.95 : f32, reduction_dim = 1 : i64"), "{text}");
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn stablehlo(function: &Function, capabilities: &Capabilities) -> Result<String> {
    let is_fallback = !capabilities.forms.contains(&Form::Native);
    let function = expand(function, &mut AsJax { is_fallback })?.pruned();
    module(&function)?.to_stablehlo()
}

/// Writes approximate top-k as JAX does.
struct AsJax {
    is_fallback: bool,
}

impl Rewrite for AsJax {
    fn approx_top_k(&mut self, op: &ApproxTopK, inputs: &[Tensor], _: &Site<'_>) -> Result<Vec<Tensor>> {
        custom_call(op, inputs, self.is_fallback)
    }
}

/// XLA's own approximate top-k.
fn custom_call(op: &ApproxTopK, inputs: &[Tensor], is_fallback: bool) -> Result<Vec<Tensor>> {
    let operands = with_indices(op, inputs)?;
    let inits = initial(op, &operands)?;
    let mut attributes = vec![
        format!("aggregate_to_topk = {}", op.aggregate_to_topk),
        format!("recall_target = {} : f32", float(&Array::scalar(op.recall_target))),
        format!("reduction_dim = {} : i64", op.reduction_dimension),
        match op.reduction_input_size_override {
            Some(size) => format!("reduction_input_size_override = {size} : i64"),
            None => "reduction_input_size_override = -1 : i64".to_owned(),
        },
        format!("top_k = {} : i64", op.k),
    ];
    if is_fallback {
        attributes.insert(1, "is_fallback = true".to_owned());
    }
    let results = op.infer(&inputs.iter().map(Tensor::shape).collect::<Vec<_>>())?;
    let call = CustomCall::new(APPROX_TOP_K, results)
        .api_version(ApiVersion::Original)
        .backend_config(&format!("{{{}}}", attributes.join(", ")))
        .computation(comparator(op, &operands)?);
    operands[0].builder().custom_call(call, &operands.iter().chain(&inits).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::{Options, lower};
    use crate::ops::Op;
    use crate::pjrt::{Buffer, CompileOptions, Device, Program, Signature};
    use crate::transform::table::examples;
    use crate::{ApproxTopKOptions, DType, Session, Shape, Tangent, target};

    /// Results of a program on devices of the CPU, one for each list of arguments.
    fn run(
        session: &Session,
        program: Program<'_>,
        function: &Function,
        arguments: &[Vec<Array>],
    ) -> Result<Vec<Vec<Array>>> {
        let devices = session.client().devices();
        let options = CompileOptions {
            num_replicas: arguments.len(),
            devices: devices.iter().take(arguments.len()).map(Device::id).collect(),
            ..session.compile_options()
        };
        let executable = session.client().compile(program, Signature::of(function), &options)?;
        let upload = |(arguments, device): (&Vec<Array>, &Device)| {
            let upload = |array| session.client().buffer_from_array(array, device);
            arguments.iter().map(upload).collect::<Result<Vec<_>>>()
        };
        let buffers = arguments.iter().zip(executable.devices()).map(upload).collect::<Result<Vec<_>>>()?;
        let arguments: Vec<Vec<&Buffer>> = buffers.iter().map(|buffers| buffers.iter().collect()).collect();
        let results = executable.run_replicas(&arguments)?;
        results.iter().map(|results| results.iter().map(Buffer::to_array).collect()).collect()
    }

    #[test]
    fn every_operator_gives_from_stablehlo_what_it_gives_from_hlo() {
        let session = Session::cpu().ok();
        let mut kinds = Vec::new();
        for function in examples().unwrap() {
            let last = &function.equations().last().unwrap().op;
            kinds.push(last.kind());
            // It stands in no function that a transform gives.
            if last.rules().reverse_only() {
                continue;
            }
            let text = stablehlo(&function, &target::cpu::CAPABILITIES).unwrap();
            let Some(session) = &session else { continue };
            if last.kind() == "CustomCall" {
                // Of a kernel that there is not.
                assert!(
                    text.contains("stablehlo.custom_call @kernel(%arg0) {api_version = 4 : i32"),
                    "{text}"
                );
                continue;
            }
            let argument = |shape: &Shape, replica: usize| {
                let values = (0..shape.element_count()).map(|index| match shape.dtype() {
                    // The first is positive: a loop doubles it until it is 10.
                    dtype if dtype.is_float() => (((index + replica) * 7 + 4) % 11) as f64 / 8.0 - 0.375,
                    _ => (index % 2) as f64,
                });
                Array::from_f64(shape.clone(), &values.collect::<Vec<_>>()).unwrap()
            };
            let replicas = if ["AllGather", "ReplicaId"].contains(&last.kind()) { 4 } else { 1 };
            let arguments: Vec<Vec<Array>> = (0..replicas)
                .map(|replica| {
                    function.parameter_shapes().iter().map(|shape| argument(shape, replica)).collect()
                })
                .collect();
            let module = lower(&function, &target::cpu::CAPABILITIES, &Options::default()).unwrap().module;
            let run = |program| {
                run(session, program, &function, &arguments).unwrap_or_else(|problem| {
                    panic!("{problem}\n{program:?}");
                })
            };
            let module = module.to_bytes();
            let expected = run(Program::Hlo(&module)).concat();
            let got = run(Program::StableHlo(&text)).concat();
            assert_eq!(got.len(), expected.len(), "{text}");
            for (got, expected) in got.iter().zip(&expected) {
                assert_eq!(got.shape(), expected.shape(), "{text}");
                assert_eq!(got.as_bytes(), expected.as_bytes(), "{got} is not {expected} of {text}");
            }
        }
        for kind in Op::KINDS {
            assert!(kinds.contains(kind), "{kind}");
        }
    }

    #[test]
    fn approximate_top_k_is_written_as_jax_writes_it() {
        let options =
            ApproxTopKOptions { reduction_dimension: 0, aggregate_to_topk: false, ..Default::default() };
        let min = ApproxTopKOptions { reduction_input_size_override: Some(4000), ..options };
        let f =
            Function::trace("best", &[Shape::new(DType::BF16, [1000, 2])], |x| x[0].approx_min_k(10, &min));
        assert_eq!(
            stablehlo(&f.unwrap(), &target::cpu::CAPABILITIES).unwrap(),
            "module @best {
  func.func private @top_k_lt_bf16_comparator(%arg0: tensor<bf16>, %arg1: tensor<bf16>, %arg2: tensor<i32>, %arg3: tensor<i32>) -> tensor<i1> {
    %0 = stablehlo.compare LT, %arg0, %arg1 : (tensor<bf16>, tensor<bf16>) -> tensor<i1>
    return %0 : tensor<i1>
  }
  func.func public @main(%arg0: tensor<1000x2xbf16>) -> (tensor<128x2xbf16>, tensor<128x2xi32>) {
    %0 = stablehlo.iota dim = 0 : tensor<1000x2xi32>
    %1 = stablehlo.constant dense<0x7F80> : tensor<bf16>
    %2 = stablehlo.constant dense<-1> : tensor<i32>
    %3:2 = stablehlo.custom_call @ApproxTopK(%arg0, %0, %1, %2) {backend_config = \"\", called_computations = [@top_k_lt_bf16_comparator], mhlo.backend_config = {aggregate_to_topk = false, is_fallback = true, recall_target = 0.95 : f32, reduction_dim = 0 : i64, reduction_input_size_override = 4000 : i64, top_k = 10 : i64}} : (tensor<1000x2xbf16>, tensor<1000x2xi32>, tensor<bf16>, tensor<i32>) -> (tensor<128x2xbf16>, tensor<128x2xi32>)
    return %3#0, %3#1 : tensor<128x2xbf16>, tensor<128x2xi32>
  }
}
"
        );
    }

    #[test]
    fn carried_operands_are_the_custom_calls_too() {
        let options = ApproxTopKOptions { tangent: Tangent::Carried, ..Default::default() };
        let matrix = Shape::new(DType::F32, [2, 5]);
        let f = Function::trace("best", &[matrix], |x| x[0].approx_max_k(2, &options)).unwrap();
        let text = stablehlo(&crate::jvp(&f, &[0]).unwrap(), &target::cpu::CAPABILITIES).unwrap();
        assert!(text.contains("stablehlo.custom_call @ApproxTopK(%arg0, %0, %arg1, %1, %2, %3)"), "{text}");
        let parameters =
            (0..6).map(|i| format!("%arg{i}: tensor<{}>", if i / 2 == 1 { "i32" } else { "f32" }));
        let parameters = parameters.collect::<Vec<_>>().join(", ");
        assert!(text.contains(&format!("@top_k_gt_f32_comparator({parameters}) -> tensor<i1>")), "{text}");
    }
}
