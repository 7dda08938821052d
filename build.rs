//! Compiles the kernels of `cpp/`, and does nothing else.

fn main() {
    for used in ["cpp/kernels", "cpp/handlers", "cpp/xla_ffi.h"] {
        println!("cargo:rerun-if-changed={used}");
    }
    let sources = ["cpp/kernels", "cpp/handlers"].into_iter().flat_map(|folder| {
        let entries = std::fs::read_dir(folder).unwrap_or_else(|problem| panic!("{folder}: {problem}"));
        entries.filter_map(|entry| Some(entry.ok()?.path()))
    });
    let mut sources: Vec<_> =
        sources.filter(|path| path.extension().is_some_and(|extension| extension == "cc")).collect();
    sources.sort();
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .files(sources)
        // Of use unoptimised to nobody: the tests of the kernels build their own.
        .opt_level(3)
        .debug(false)
        // Results are to be the same on every compiler: it fuses multiplications and additions where it is told to.
        .flag("-ffp-contract=off")
        .warnings_into_errors(false)
        .compile("xlann_kernels");
}
