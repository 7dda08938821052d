//! Long use: nothing leaks.

use xlann::{Array, DType, Shape};

mod common;

// One test, so that no other one's memory is counted.
#[test]
fn memory_stays_flat() {
    let Some(client) = common::cpu_client() else { return };
    runs_do_not_leak(&client);
    compilations_do_not_leak(&client);
}

fn runs_do_not_leak(client: &xlann::pjrt::Client) {
    let shape = Shape::new(DType::F32, [100]);
    let add = common::compile_add(client, &shape);
    let x = Array::zeros(shape).unwrap();
    let run = |count| {
        for _ in 0..count {
            add.run_arrays(&[x.clone(), x.clone()]).unwrap();
        }
    };
    run(10_000);
    let before = common::resident_bytes();
    run(100_000);
    let grown = common::resident_bytes().saturating_sub(before);
    println!("100,000 runs: {grown} bytes more");
    assert!(grown < 4 << 20, "100,000 runs of 800 bytes of arguments each grew the process by {grown} bytes");
}

fn compilations_do_not_leak(client: &xlann::pjrt::Client) {
    let x = Array::scalar(1f32);
    let mut serial = 0;
    let mut compile = |count| {
        for _ in 0..count {
            serial += 1;
            let body = format!(
                "%c = stablehlo.constant dense<{serial}.0> : tensor<f32>
                 %r = stablehlo.add %arg0, %c : tensor<f32>"
            );
            let shape = Shape::scalar(DType::F32);
            let add = common::compile(client, std::slice::from_ref(&shape), &shape, &body).unwrap();
            let sum = add.run_arrays(std::slice::from_ref(&x)).unwrap();
            assert_eq!(sum[0], Array::scalar(serial as f32 + 1.0));
        }
    };
    // More than the cache holds, so that from here on each compilation puts an executable out of it.
    compile(200);
    let before = common::resident_bytes();
    compile(1000);
    let grown = common::resident_bytes().saturating_sub(before);
    println!("1,000 compilations: {grown} bytes more");
    // Measured: 60 to 480 KB. Executables that are never destroyed take 180 KB each.
    assert!(grown < 4 << 20, "1,000 compilations grew the process by {grown} bytes");
}
