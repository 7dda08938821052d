//! Clients, buffers and executables, on the CPU plugin.
#![allow(unsafe_code, reason = "mapping a file is unsafe")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common;
use xlann::lower::{Options, lower};
use xlann::pjrt::{Buffer, Client, CompileOptions, Device, Executable, Program, Signature, Value};
use xlann::target::cpu;
use xlann::{Array, Builder, DType, Error, Function, PjrtCode, Shape};

fn code(result: Result<impl std::fmt::Debug, Error>) -> PjrtCode {
    match result {
        Err(Error::Pjrt { code, .. }) => code,
        other => panic!("expected Error::Pjrt, got {other:?}"),
    }
}

#[test]
fn a_program_computes() {
    let Some(client) = common::cpu_client() else { return };
    let add = common::compile_add(&client, &Shape::new(DType::F32, [2, 2]));
    let x = Array::new([2, 2], &[1f32, 2.0, 3.0, 4.0]).unwrap();
    let results = add.run_arrays(&[x.clone(), x]).unwrap();
    assert_eq!(results, [Array::new([2, 2], &[2f32, 4.0, 6.0, 8.0]).unwrap()]);
}

#[test]
fn every_dtype_makes_the_round_trip() {
    let Some(client) = common::cpu_client() else { return };
    for dtype in DType::ALL {
        for dims in [vec![], vec![0], vec![5], vec![3, 0, 2], vec![2, 3, 4], vec![70, 70]] {
            let shape = Shape::new(dtype, dims);
            let bytes: Vec<u8> = (0..shape.byte_count())
                .map(|index| if dtype == DType::Pred { index as u8 % 2 } else { (index * 37) as u8 })
                .collect();
            let array = Array::from_bytes(shape.clone(), &bytes).unwrap();
            let buffer = client.buffer_from_array(&array, &client.devices()[0]).unwrap();
            assert_eq!(buffer.shape(), &shape);
            assert_eq!(buffer.to_array().unwrap(), array, "{shape}");
            let copy = common::compile(
                &client,
                std::slice::from_ref(&shape),
                &shape,
                &format!("%r = stablehlo.optimization_barrier %arg0 : {}", common::tensor(&shape)),
            );
            assert_eq!(copy.unwrap().run(&[&buffer]).unwrap()[0].to_array().unwrap(), array, "{shape}");
        }
    }
}

#[test]
fn a_result_is_read_in_row_major_order() {
    let Some(client) = common::cpu_client() else { return };
    let (from, to) = (Shape::new(DType::S32, [2, 3]), Shape::new(DType::S32, [3, 2]));
    let body = "%r = stablehlo.transpose %arg0, dims = [1, 0] : (tensor<2x3xi32>) -> tensor<3x2xi32>";
    let transpose = common::compile(&client, &[from], &to, body).unwrap();
    let results = transpose.run_arrays(&[Array::new([2, 3], &[1, 2, 3, 4, 5, 6]).unwrap()]).unwrap();
    assert_eq!(results[0], Array::new([3, 2], &[1, 4, 2, 5, 3, 6]).unwrap());
}

#[test]
fn a_result_of_another_layout_is_read_in_row_major_order() {
    let Some(client) = common::cpu_client() else { return };
    let shape = Shape::new(DType::S32, [2, 3]);
    let text = "module attributes {} {
      func.func @main(%x: tensor<2x3xi32>) -> (tensor<2x3xi32> {mhlo.layout_mode = \"{0,1}\"}) {
        %y = stablehlo.add %x, %x : tensor<2x3xi32>
        return %y : tensor<2x3xi32>
      }
    }";
    let signature = Signature { name: "twice".into(), parameters: vec![shape.clone()], results: vec![shape] };
    let twice = client.compile(Program::StableHlo(text), signature, &CompileOptions::default()).unwrap();
    let x = Array::new([2, 3], &[1, 2, 3, 4, 5, 6]).unwrap();
    assert_eq!(twice.run_arrays(&[x]).unwrap()[0], Array::new([2, 3], &[2, 4, 6, 8, 10, 12]).unwrap());
}

#[test]
fn several_results_come_in_order() {
    let Some(client) = common::cpu_client() else { return };
    let (scalar, pair) = (Shape::scalar(DType::F32), Shape::new(DType::F32, [2]));
    let text = "func.func @main(%x: tensor<f32>) -> (tensor<f32>, tensor<2xf32>) {
      %y = stablehlo.broadcast_in_dim %x, dims = [] : (tensor<f32>) -> tensor<2xf32>
      return %x, %y : tensor<f32>, tensor<2xf32>
    }";
    let signature =
        Signature { name: "two".into(), parameters: vec![scalar.clone()], results: vec![scalar, pair] };
    let two =
        client.compile(Program::StableHlo(text), signature.clone(), &CompileOptions::default()).unwrap();
    assert_eq!(
        two.run_arrays(&[Array::scalar(3f32)]).unwrap(),
        [Array::scalar(3f32), Array::new([2], &[3f32, 3.0]).unwrap()]
    );

    let wrong = Signature { results: signature.results.iter().rev().cloned().collect(), ..signature };
    let problem = client.compile(Program::StableHlo(text), wrong, &CompileOptions::default()).unwrap_err();
    assert_eq!(
        problem.to_string(),
        "executable: results of two must be [f32[], f32[2]], got [f32[2], f32[]]"
    );
}

#[test]
fn wrong_arguments_are_refused() {
    let Some(client) = common::cpu_client() else { return };
    let shape = Shape::new(DType::F32, [2]);
    let add = common::compile_add(&client, &shape);
    let good = Array::zeros(shape.clone()).unwrap();
    let buffer = client.buffer_from_array(&good, &client.devices()[0]).unwrap();
    assert!(matches!(
        add.run_arrays(std::slice::from_ref(&good)),
        Err(Error::ArgumentCount { expected: 2, got: 1, .. })
    ));
    assert!(matches!(
        add.run(&[&buffer, &buffer, &buffer]),
        Err(Error::ArgumentCount { expected: 2, got: 3, .. })
    ));
    for other in [Shape::new(DType::F32, [3]), Shape::new(DType::F32, [2, 1]), Shape::new(DType::S32, [2])] {
        let wrong = Array::zeros(other.clone()).unwrap();
        let check = |result: Result<(), Error>| match result {
            Err(Error::Call { index: 1, expected, got, .. }) => {
                assert_eq!((expected, got), (shape.clone(), other.clone()))
            }
            unexpected => panic!("{unexpected:?}"),
        };
        check(add.run_arrays(&[good.clone(), wrong.clone()]).map(drop));
        let wrong = client.buffer_from_array(&wrong, &client.devices()[0]).unwrap();
        check(add.run(&[&buffer, &wrong]).map(drop));
    }
}

#[test]
fn parameters_that_the_signature_gets_wrong_are_an_error_of_the_plugin() {
    let Some(client) = common::cpu_client() else { return };
    let (declared, real) = (Shape::new(DType::F32, [4]), Shape::scalar(DType::F32));
    let text = "func.func @main(%x: tensor<f32>) -> tensor<f32> { return %x : tensor<f32> }";
    let signature =
        Signature { name: "lie".into(), parameters: vec![declared.clone()], results: vec![real.clone()] };
    let lie = client.compile(Program::StableHlo(text), signature, &CompileOptions::default()).unwrap();
    assert_eq!(code(lie.run_arrays(&[Array::zeros(declared).unwrap()])), PjrtCode::InvalidArgument);
    let signature = Signature { name: "more".into(), parameters: vec![real.clone(); 2], results: vec![real] };
    let more = client.compile(Program::StableHlo(text), signature, &CompileOptions::default()).unwrap();
    assert_eq!(code(more.run_arrays(&[Array::scalar(1f32), Array::scalar(1f32)])), PjrtCode::InvalidArgument);
}

#[test]
fn deleted_buffers_are_refused() {
    let Some(client) = common::cpu_client() else { return };
    let add = common::compile_add(&client, &Shape::scalar(DType::F32));
    let buffer = client.buffer_from_array(&Array::scalar(1f32), &client.devices()[0]).unwrap();
    assert!(!buffer.is_deleted().unwrap());
    buffer.delete().unwrap();
    buffer.delete().unwrap();
    assert!(buffer.is_deleted().unwrap());
    assert_eq!(code(buffer.to_array()), PjrtCode::InvalidArgument);
    assert_eq!(code(add.run(&[&buffer, &buffer])), PjrtCode::InvalidArgument);
    let none = client.buffer_from_array(&Array::new([0], &[0f32; 0]).unwrap(), &client.devices()[0]).unwrap();
    none.delete().unwrap();
    assert_eq!(code(none.to_array()), PjrtCode::InvalidArgument);
}

#[test]
fn buffers_of_other_clients_and_devices_are_refused() {
    let Some(client) = common::cpu_client() else { return };
    let other = Client::new(client.plugin(), &[("cpu_device_count", Value::Int(2))]).unwrap();
    assert_eq!(other.devices().len(), 2);
    assert_ne!(client, other);
    let add = common::compile_add(&other, &Shape::scalar(DType::F32));
    let one = Array::scalar(1f32);
    let here = other.buffer_from_array(&one, &other.devices()[0]).unwrap();
    for elsewhere in [
        client.buffer_from_array(&one, &client.devices()[0]).unwrap(),
        other.buffer_from_array(&one, &other.devices()[1]).unwrap(),
    ] {
        let problem = add.run(&[&here, &elsewhere]).unwrap_err().to_string();
        assert!(problem.starts_with("executable: argument 1 of test must be on "), "{problem}");
    }
    let problem = other.buffer_from_array(&one, &client.devices()[0]).unwrap_err().to_string();
    assert!(problem.starts_with("buffer: device must be one of this client's"), "{problem}");
}

#[test]
fn an_executable_for_several_devices_is_refused_by_run() {
    let Some(client) = common::cpu_client() else { return };
    let scalar = Shape::scalar(DType::F32);
    let signature = Signature { name: "id".into(), parameters: vec![scalar.clone()], results: vec![scalar] };
    let text = "func.func @main(%x: tensor<f32>) -> tensor<f32> { return %x : tensor<f32> }";
    let mut options = CompileOptions::default();
    options.num_replicas = 2;
    let both = client.compile(Program::StableHlo(text), signature, &options).unwrap();
    let problem = both.run_arrays(&[Array::scalar(1f32)]).unwrap_err().to_string();
    assert_eq!(problem, "executable: number of devices must be 1, got 2 for id");
}

/// x + 10 * replica, for that many replicas on the devices of these ids.
fn numbered(client: &Client, replicas: usize, ids: &[i32]) -> Result<Executable, Error> {
    let scalar = Shape::scalar(DType::F32);
    let signature = Signature { name: "id".into(), parameters: vec![scalar.clone()], results: vec![scalar] };
    let text = "func.func @main(%x: tensor<f32>) -> tensor<f32> {
        %id = stablehlo.replica_id : tensor<ui32>
        %tens = stablehlo.convert %id : (tensor<ui32>) -> tensor<f32>
        %ten = stablehlo.constant dense<10.0> : tensor<f32>
        %more = stablehlo.multiply %tens, %ten : tensor<f32>
        %r = stablehlo.add %x, %more : tensor<f32>
        return %r : tensor<f32>
    }";
    let mut options = CompileOptions::default();
    options.num_replicas = replicas;
    options.devices = ids.to_vec();
    client.compile(Program::StableHlo(text), signature, &options)
}

#[test]
fn replicas_run_on_the_devices_that_were_named() {
    let Some(session) = common::devices() else { return };
    let client = session.client();
    for ids in [vec![], vec![0, 1, 2], vec![3, 0, 2], vec![2, 1, 3]] {
        let executable = numbered(client, 3, &ids).unwrap();
        let on: Vec<i32> = executable.devices().map(Device::id).collect();
        assert!(ids.is_empty() || on == ids, "{on:?} for {ids:?}");
        let upload =
            |device: &Device| client.buffer_from_array(&Array::scalar(device.id() as f32), device).unwrap();
        let arguments: Vec<Buffer> = executable.devices().map(upload).collect();
        let arguments: Vec<Vec<&Buffer>> = arguments.iter().map(|argument| vec![argument]).collect();
        for _ in 0..3 {
            let results = executable.run_replicas(&arguments).unwrap();
            for (replica, (results, &id)) in results.iter().zip(&on).enumerate() {
                assert_eq!(results[0].device().id(), id);
                assert_eq!(
                    results[0].to_array().unwrap(),
                    Array::scalar((id as usize + 10 * replica) as f32)
                );
            }
        }
    }
}

#[test]
fn an_executable_for_one_device_has_one_replica() {
    let Some(client) = common::cpu_client() else { return };
    let add = common::compile_add(&client, &Shape::scalar(DType::F32));
    let one = client.buffer_from_array(&Array::scalar(1f32), &client.devices()[0]).unwrap();
    let results = add.run_replicas(&[vec![&one, &one]]).unwrap();
    assert_eq!(results[0][0].to_array().unwrap(), Array::scalar(2f32));
}

#[test]
fn devices_that_do_not_fit_are_refused() {
    let Some(session) = common::devices() else { return };
    let client = session.client();
    for ids in [vec![0], vec![0, 1, 2], vec![1, 1], vec![0, 4], vec![-1, 0]] {
        let problem = numbered(client, 2, &ids).unwrap_err().to_string();
        let expected = format!("none, or 2 distinct ones of [0, 1, 2, 3], got {ids:?}");
        assert_eq!(problem, format!("compile: devices must be {expected}"));
    }
    let problem = numbered(client, 5, &[]).unwrap_err().to_string();
    let expected = "from 1 on, with replicas times partitions at most 4, got 5";
    assert_eq!(problem, format!("compile: num_replicas must be {expected}"));
    let problem = cpu::PLATFORM.session_with_devices(0).unwrap_err().to_string();
    assert_eq!(problem, "client: cpu_device_count must be an integer from 1 to 1024, got 0");
}

#[test]
fn arguments_of_replicas_that_do_not_fit_are_refused() {
    let Some(session) = common::devices() else { return };
    let client = session.client();
    let executable = numbered(client, 2, &[0, 1]).unwrap();
    let [here, there] =
        [0, 1].map(|index| client.buffer_from_array(&Array::scalar(1f32), &client.devices()[index]).unwrap());
    let vector = client.buffer_from_array(&Array::new([1], &[1f32]).unwrap(), &client.devices()[1]).unwrap();
    let other = common::cpu_client().unwrap();
    let elsewhere = other.buffer_from_array(&Array::scalar(1f32), &other.devices()[0]).unwrap();
    for (arguments, problem) in [
        (vec![], "executable: lists of arguments must be 2, one for each device of id, got 0"),
        (vec![vec![&here]], "executable: lists of arguments must be 2, one for each device of id, got 1"),
        (vec![vec![&here], vec![&there], vec![&here]], "one for each device of id, got 3"),
        (vec![vec![&here], vec![]], "id: takes 1 arguments, got 0"),
        (vec![vec![&here, &here], vec![&there]], "id: takes 1 arguments, got 2"),
        (vec![vec![&here], vec![&vector]], "id: argument 0 must be f32[], got f32[1]"),
        (vec![vec![&there], vec![&here]], "executable: argument 0 of id must be on "),
        (vec![vec![&here], vec![&here]], "executable: argument 0 of id must be on "),
        (vec![vec![&here], vec![&elsewhere]], "got one of another client"),
    ] {
        let refused = executable.run_replicas(&arguments).unwrap_err().to_string();
        assert!(refused.contains(problem), "{refused}");
    }
    executable.run_replicas(&[vec![&here], vec![&there]]).unwrap();
}

#[test]
fn a_partitioned_executable_is_refused_by_run_replicas() {
    let Some(session) = common::devices() else { return };
    let client = session.client();
    let scalar = Shape::scalar(DType::F32);
    let signature = Signature { name: "id".into(), parameters: vec![scalar.clone()], results: vec![scalar] };
    let text = "func.func @main(%x: tensor<f32>) -> tensor<f32> { return %x : tensor<f32> }";
    let mut options = CompileOptions::default();
    options.num_partitions = 2;
    options.devices = vec![1, 3];
    let halves = client.compile(Program::StableHlo(text), signature, &options).unwrap();
    assert_eq!(halves.devices().map(Device::id).collect::<Vec<_>>(), [1, 3]);
    let refused = halves.run_replicas(&[vec![], vec![]]).unwrap_err().to_string();
    assert_eq!(refused, "executable: number of partitions must be 1, got 2 for id");
}

#[test]
fn a_program_that_does_not_compile_is_an_error_of_the_plugin() {
    let Some(client) = common::cpu_client() else { return };
    let signature = Signature { name: "bad".into(), parameters: vec![], results: vec![] };
    for program in [
        Program::StableHlo("func.func @main() { nonsense }"),
        Program::StableHlo(""),
        Program::Hlo(b"not a proto"),
        Program::Hlo(b""),
    ] {
        let problem = client.compile(program, signature.clone(), &CompileOptions::default()).unwrap_err();
        assert!(matches!(problem, Error::Pjrt { call: "PJRT_Client_Compile", .. }), "{program:?}: {problem}");
    }
}

#[test]
fn the_optimized_program_compiles_as_hlo() {
    let Some(client) = common::cpu_client() else { return };
    let add = common::compile_add(&client, &Shape::scalar(DType::F32));
    let optimized = add.compiled().optimized_program().unwrap();
    assert_eq!(optimized.format, "hlo_with_config");
    // Field 1 of HloModuleProtoWithConfig is the module.
    let (tag, mut rest) = optimized.bytes.split_first().unwrap();
    assert_eq!(*tag, 0x0a);
    let size = prost::decode_length_delimiter(&mut rest).unwrap();
    let signature = add.signature().clone();
    let again = client.compile(Program::Hlo(&rest[..size]), signature, &CompileOptions::default()).unwrap();
    assert_ne!(again, add);
    assert_eq!(again.run_arrays(&[Array::scalar(1f32), Array::scalar(2f32)]).unwrap(), [Array::scalar(3f32)]);
}

#[test]
fn an_executable_says_what_it_needs() {
    let Some(client) = common::cpu_client() else { return };
    let compiled = common::compile_add(&client, &Shape::new(DType::F32, [100]));
    let memory = compiled.compiled().memory().unwrap();
    assert_eq!((memory.arguments, memory.results), (800, 400));
    assert!(compiled.compiled().generated_code_size().unwrap() >= 0);
    // Not every CPU plugin analyses costs.
    match compiled.compiled().cost_analysis() {
        Ok(properties) => {
            assert!(properties.contains(&("flops".into(), Value::Float(100.0))), "{properties:?}")
        }
        Err(problem) => assert_eq!(code(Err::<(), _>(problem)), PjrtCode::Unimplemented),
    }
}

#[test]
fn an_executable_is_saved_and_loaded() {
    let Some(client) = common::cpu_client() else { return };
    let add = common::compile_add(&client, &Shape::scalar(DType::S32));
    let bytes = add.compiled().serialize().unwrap();
    let signature = add.signature().clone();
    let loaded = client.load(&bytes, signature.clone()).unwrap();
    assert_eq!(loaded.run_arrays(&[Array::scalar(1), Array::scalar(2)]).unwrap(), [Array::scalar(3)]);
    for damaged in [&bytes[..bytes.len() / 2], b"", b"garbage"] {
        assert!(matches!(client.load(damaged, signature.clone()), Err(Error::Pjrt { .. })));
    }
    let wrong = Signature { results: vec![], ..signature };
    assert!(matches!(client.load(&bytes, wrong), Err(Error::Argument { .. })));
}

#[test]
fn the_same_program_is_compiled_once() {
    let Some(client) = common::cpu_client() else { return };
    let shape = Shape::new(DType::F32, [17]);
    let first = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| common::compile_add(&client, &shape))).collect();
        let executables: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(executables.iter().all(|executable| *executable == executables[0]));
        executables[0].clone()
    });
    assert_eq!(common::compile_add(&client, &shape), first);
    assert_ne!(common::compile_add(&client, &Shape::new(DType::F32, [18])), first);
}

#[test]
fn the_cache_forgets_what_was_asked_for_longest_ago() {
    let Some(client) = common::cpu_client() else { return };
    let client = Client::new(client.plugin(), &[]).unwrap();
    let compile = |size| common::compile_add(&client, &Shape::new(DType::F32, [size]));
    let executables: Vec<_> = (0..64).map(compile).collect();
    assert_eq!(compile(0), executables[0]);
    compile(64);
    assert_eq!(compile(0), executables[0]);
    assert_ne!(compile(1), executables[1]);
}

#[test]
fn running_out_of_memory_is_an_error() {
    let Some(client) = common::cpu_client() else { return };
    let scalar = Shape::scalar(DType::F32);
    for size in [1usize << 33, 1 << 40, 1 << 60] {
        let shape = Shape::new(DType::F32, [size]);
        let body = format!(
            "%r = stablehlo.broadcast_in_dim %arg0, dims = [] : (tensor<f32>) -> {}",
            common::tensor(&shape)
        );
        let huge = common::compile(&client, std::slice::from_ref(&scalar), &shape, &body);
        let argument = client.buffer_from_array(&Array::scalar(1f32), &client.devices()[0]).unwrap();
        let available = std::fs::read_to_string("/proc/meminfo").unwrap();
        let available = available.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
        let kib: usize = available.trim().trim_end_matches(" kB").parse().unwrap();
        if kib << 10 < shape.byte_count() {
            assert_eq!(code(huge.and_then(|huge| huge.run(&[&argument]))), PjrtCode::ResourceExhausted);
        }
    }
}

#[test]
fn eight_threads_share_one_executable() {
    let Some(client) = common::cpu_client() else { return };
    let add = common::compile_add(&client, &Shape::new(DType::S32, [1000]));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let add = &add;
            scope.spawn(move || {
                for round in 0..300 {
                    let x = Array::new([1000], &[thread; 1000]).unwrap();
                    let y = Array::new([1000], &[round; 1000]).unwrap();
                    let sum = add.run_arrays(&[x, y]).unwrap();
                    assert_eq!(sum[0].as_slice::<i32>().unwrap(), [thread + round; 1000]);
                }
            });
        }
    });
}

#[test]
fn buffers_and_executables_outlive_their_client() {
    let Some(client) = common::cpu_client() else { return };
    let client = Client::new(client.plugin(), &[]).unwrap();
    let add = common::compile_add(&client, &Shape::scalar(DType::F32));
    let one = client.buffer_from_array(&Array::scalar(1f32), &client.devices()[0]).unwrap();
    drop(client);
    let two = add.run(&[&one, &one]).unwrap().remove(0);
    drop((add, one));
    assert_eq!(two.to_array().unwrap(), Array::scalar(2f32));
}

/// A mapped file that tells when it is let go.
struct Mapped {
    map: memmap2::Mmap,
    start: usize,
    dropped: Arc<AtomicBool>,
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.map[self.start..]
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_mapped_file_is_read_in_place_and_let_go() {
    let Some(client) = common::cpu_client() else { return };
    let elements: Vec<f32> = (0..1 << 18).map(|index| index as f32).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    // 64 bytes of another kind before the elements, as in .npy files; 4 for one that is not aligned.
    for start in [64, 4] {
        let mut bytes = vec![0; start];
        bytes.extend(elements.iter().flat_map(|element| element.to_ne_bytes()));
        std::fs::write(file.path(), bytes).unwrap();
        // SAFETY: nothing else writes to the file while it is mapped.
        let map = unsafe { memmap2::Mmap::map(file.as_file()) }.unwrap();
        let dropped = Arc::new(AtomicBool::new(false));
        let mapped = Arc::new(Mapped { map, start, dropped: Arc::clone(&dropped) });
        let shape = Shape::new(DType::F32, [elements.len()]);
        let device = &client.devices()[0];
        let short = Shape::new(DType::F32, [3]);
        assert!(matches!(
            client.buffer_from_host(short, mapped.clone(), device),
            Err(Error::Argument { .. })
        ));

        let buffer = client.buffer_from_host(shape.clone(), mapped, device).unwrap();
        let add = common::compile_add(&client, &shape);
        let sum = add.run(&[&buffer, &buffer]).unwrap().remove(0);
        assert_eq!(buffer.to_array().unwrap().as_slice::<f32>().unwrap(), elements);
        if start == 64 {
            std::thread::sleep(Duration::from_millis(50));
            assert!(!dropped.load(Ordering::SeqCst), "the buffer reads the file in place");
        }
        let pending = add.run(&[&buffer, &sum]).unwrap().remove(0);
        drop((buffer, sum));
        let pending = pending.to_array().unwrap();
        assert!(pending.as_slice::<f32>().unwrap().iter().zip(&elements).all(|(x, y)| *x == 3.0 * y));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !dropped.load(Ordering::SeqCst) {
            assert!(Instant::now() < deadline, "the file is never let go");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn events_call_back_once() {
    let Some(client) = common::cpu_client() else { return };
    let shape = Shape::new(DType::F32, [1 << 20]);
    let add = common::compile_add(&client, &shape);
    let x = client.buffer_from_array(&Array::zeros(shape).unwrap(), &client.devices()[0]).unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    for _ in 0..20 {
        let sum = add.run(&[&x, &x]).unwrap().remove(0);
        let send = send.clone();
        sum.ready().unwrap().on_ready(move |outcome| send.send(outcome.is_ok()).unwrap()).unwrap();
        let event = sum.ready().unwrap();
        event.wait().unwrap();
        assert!(event.is_ready().unwrap());
    }
    drop(send);
    assert_eq!(receive.iter().collect::<Vec<_>>(), [true; 20]);

    x.delete().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    x.ready().unwrap().on_ready(move |outcome| send.send(outcome.is_err()).unwrap()).unwrap();
    assert!(receive.recv().unwrap());
    assert_eq!(code(x.ready().unwrap().wait()), PjrtCode::InvalidArgument);
}

#[test]
fn options_that_the_plugin_does_not_take_are_refused() {
    let Some(client) = common::cpu_client() else { return };
    let wrong = Client::new(client.plugin(), &[("cpu_device_count", Value::String("two".into()))]);
    let expected = "client: cpu_device_count must be an integer from 1 to 1024, got ";
    assert_eq!(wrong.unwrap_err().to_string(), format!("{expected}two"));
    for count in [-1, 0, 1 << 40] {
        let wrong = Client::new(client.plugin(), &[("cpu_device_count", Value::Int(count))]);
        assert_eq!(wrong.unwrap_err().to_string(), format!("{expected}{count}"));
    }
    let text = "func.func @main(%x: tensor<f32>) -> tensor<f32> { return %x : tensor<f32> }";
    let scalar = Shape::scalar(DType::F32);
    let signature =
        Signature { name: "same".into(), parameters: vec![scalar.clone()], results: vec![scalar] };
    for (replicas, partitions, argument) in [
        (0, 1, "num_replicas"),
        (1, 0, "num_partitions"),
        (usize::MAX, 2, "num_replicas"),
        (1 << 32, 1, "num_replicas"),
    ] {
        let mut options = CompileOptions::default();
        (options.num_replicas, options.num_partitions) = (replicas, partitions);
        let refused = client.compile(Program::StableHlo(text), signature.clone(), &options).unwrap_err();
        assert!(
            refused.to_string().starts_with(&format!("compile: {argument} must be from 1 on")),
            "{refused}"
        );
    }
}

#[test]
fn a_signature_that_is_not_the_modules_is_refused() {
    let Some(session) = common::session() else { return };
    let f32s = Shape::new(DType::F32, [4]);
    let function = Function::trace("double", std::slice::from_ref(&f32s), |x| &x[0] + &x[0]).unwrap();
    let lowered = lower(&function, session.platform().capabilities, &Options::default()).unwrap();
    let compile = |parameters: Vec<Shape>| {
        let signature = Signature { name: "double".into(), parameters, results: vec![f32s.clone()] };
        session.client().compile(
            Program::Hlo(&lowered.module.to_bytes()),
            signature,
            &CompileOptions::default(),
        )
    };
    compile(vec![f32s.clone()]).unwrap();
    assert_eq!(
        compile(vec![f32s.with_dtype(DType::S32)]).unwrap_err().to_string(),
        "compile: signature of double must be that of the program's parameter 0, got s32[4]"
    );
    assert_eq!(compile(vec![]).unwrap_err().to_string(), "double: takes 1 arguments, got 0");
}

#[test]
fn preds_that_are_neither_true_nor_false_are_refused() {
    let Some(client) = common::cpu_client() else { return };
    let memory = Arc::new(vec![1u8, 7]);
    let refused = client.buffer_from_host(Shape::new(DType::Pred, [2]), memory, &client.devices()[0]);
    assert_eq!(refused.unwrap_err().to_string(), "buffer: elements must be 0 or 1 for a pred, got 7");
}

#[test]
fn programs_for_more_memory_than_there_is_are_refused() {
    let Some(session) = common::session() else { return };
    // XLA:CPU itself crashes while it compiles these.
    for size in [1usize << 39, 1 << 62] {
        let shape = Shape::new(DType::U8, [size]);
        let builder = Builder::new("count");
        let function = builder.finish(builder.iota(shape, 0).unwrap()).unwrap();
        assert_eq!(code(session.compile(&function)), PjrtCode::ResourceExhausted);
    }
}

#[test]
fn the_last_client_may_be_dropped_in_a_callback() {
    let Some(client) = common::cpu_client() else { return };
    let client = Client::new(client.plugin(), &[]).unwrap();
    let shape = Shape::new(DType::F32, [1 << 20]);
    let add = common::compile_add(&client, &shape);
    let argument = client.buffer_from_array(&Array::zeros(shape).unwrap(), &client.devices()[0]).unwrap();
    let result = add.run(&[&argument, &argument]).unwrap().swap_remove(0);
    let (send, receive) = std::sync::mpsc::channel();
    let event = result.ready().unwrap();
    drop((client, add, argument));
    event
        .on_ready(move |outcome| {
            drop(result);
            send.send(outcome.is_ok()).unwrap();
        })
        .unwrap();
    assert!(receive.recv_timeout(Duration::from_secs(60)).unwrap());
}

#[test]
fn arguments_are_donated_only_when_asked_for() {
    let Some(client) = common::cpu_client() else { return };
    let shape = Shape::new(DType::F32, [1024]);
    let text = "func.func @main(%x: tensor<1024xf32> {tf.aliasing_output = 0 : i32}) -> tensor<1024xf32> {
      %y = stablehlo.add %x, %x : tensor<1024xf32>
      return %y : tensor<1024xf32>
    }";
    let signature =
        Signature { name: "twice".into(), parameters: vec![shape.clone()], results: vec![shape.clone()] };
    let twice = client.compile(Program::StableHlo(text), signature, &CompileOptions::default()).unwrap();
    let ones = Array::new([1024], &[1f32; 1024]).unwrap();
    let on_host = client.buffer_from_array(&ones, &client.devices()[0]).unwrap();
    let kept = twice.run(&[&on_host]).unwrap().remove(0);
    assert!(!on_host.is_deleted().unwrap());
    let fours = twice.run_donating(&[&kept], &[0]).unwrap().remove(0);
    assert_eq!(fours.to_array().unwrap(), Array::new([1024], &[4f32; 1024]).unwrap());
    assert!(kept.is_deleted().unwrap());
    // The array's own memory is not the plugin's to write.
    let twos = twice.run_donating(&[&on_host], &[0]).unwrap().remove(0);
    assert_eq!(twos.to_array().unwrap(), Array::new([1024], &[2f32; 1024]).unwrap());
    assert_eq!(ones, Array::new([1024], &[1f32; 1024]).unwrap());
    assert_eq!(
        twice.run_donating(&[&fours], &[1]).unwrap_err().to_string(),
        "executable: donated must be numbers of arguments of twice, below 1, got 1"
    );
}
