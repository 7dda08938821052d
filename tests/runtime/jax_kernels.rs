//! The kernels in JAX: `examples/jax_kernels.py`, with small sizes.
//!
//! By the Python that `XLANN_PYTHON` names, else the one that scripts/test has put in the cache, else `python3`. Where it
//! has no JAX, the test is skipped, unless `XLANN_REQUIRE` lists `jax`.

use std::path::PathBuf;
use std::process::Output;

use crate::common;

fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("XLANN_PYTHON") {
        return python.into();
    }
    let cached = xlann::pjrt::cache_directory().map(|cache| cache.join("jax/bin/python"));
    cached.filter(|python| python.exists()).unwrap_or("python3".into())
}

fn run(arguments: &[&str]) -> std::io::Result<Output> {
    // The environment may have plugins for other devices, too.
    common::command(python()).args(arguments).env("JAX_PLATFORMS", "cpu").output()
}

#[test]
fn jax_finds_the_same_by_the_kernels() {
    match run(&["-c", "import jax"]) {
        Ok(output) if output.status.success() => {}
        Ok(output) => return common::skip("jax", &String::from_utf8_lossy(&output.stderr)),
        Err(problem) => return common::skip("jax", &format!("{}: {problem}", python().display())),
    }
    // Cargo builds it beside the tests, as a part of the library.
    let library = std::env::current_exe().unwrap().with_file_name("libxlann.so");
    let library = library.to_str().unwrap();
    for sizes in [["700", "20", "9", "5"], ["64", "3", "1", "64"]] {
        let output = run(&[&["examples/jax_kernels.py", library], &sizes[..]].concat()).unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{stdout}{stderr}");
        println!("{stdout}");
        let lines: Vec<&str> = stdout.lines().collect();
        let names = ["approx_max_k(q @ db.T)", "approx_min_k(norms - q @ db.T)", "approx_max_k(scores)"];
        for (line, name) in lines.iter().zip(names.into_iter().chain(["approx_min_k(scores)"])) {
            assert!(line.starts_with(&format!("{name}: ")) && line.contains(" ms, JAX "), "{stdout}");
        }
        assert_eq!(lines.len(), 4, "{stdout}");
    }
    // What it says of a call that does not fit is what a user of JAX sees.
    let program = "import sys; sys.path.insert(0, 'examples'); import jax.numpy as jnp, jax_kernels
jax_kernels.register(sys.argv[1])
jax_kernels.fused_search(9, jnp.zeros((2, 4)), jnp.zeros((8, 4)))[0].block_until_ready()";
    let output = run(&["-c", program, library]).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success()
            && stderr.contains("xlann_fused_search: k must be at most the database's 8 rows, got 9"),
        "{stderr}"
    );
}
