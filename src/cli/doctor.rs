//! `xlann doctor` and `xlann plugin`.

use std::path::Path;

use clap::Subcommand;
use serde_json::{Value, json};
use xlann::data::{Fetched, Libraries};
use xlann::pjrt::{Candidate, Library, Plugin, search_order};
use xlann::target::{PLATFORMS, Platform};
use xlann::{DType, kernels};

use super::Summary;

#[derive(Subcommand)]
pub enum PluginCommand {
    /// Fetch a plugin, and what it needs beside it, into the cache, through pip
    Install {
        /// The plugin: cpu, cuda13 or tpu
        #[arg(value_parser = plugin_of)]
        plugin: &'static Platform,
        /// Fetch also the libraries that it needs to run programs on this machine's devices, not only to compile them
        /// for described ones: for cuda13, 2.0 GB, of which 3.2 GB are kept
        #[arg(long)]
        libraries: bool,
    },
    /// List the targets and their plugins
    List,
}

/// The platform that the plugin of this name drives.
fn plugin_of(name: &str) -> Result<&'static Platform, String> {
    PLATFORMS.into_iter().find(|platform| platform.plugin.name == name).ok_or_else(|| {
        let names = PLATFORMS.map(|platform| platform.plugin.name).join(", ");
        format!("expected one of {names}")
    })
}

impl PluginCommand {
    pub fn run(&self) -> anyhow::Result<Summary> {
        match self {
            PluginCommand::Install { plugin, libraries } => install(plugin, *libraries),
            PluginCommand::List => Ok(list()),
        }
    }
}

fn install(target: &Platform, with_libraries: bool) -> anyhow::Result<Summary> {
    let installed = target.install()?;
    let libraries = if with_libraries { target.install_libraries()? } else { Vec::new() };
    let mut summary = Summary::default();
    summary.field("target", target.name());
    summary.field("path", installed.path.display().to_string());
    summary.field("package", installed.wheel.to_string());
    summary.field("fetched", installed.fetched == Fetched::Downloaded);
    summary.field("passed_over", installed.passed_over.clone());
    summary.line(installed);
    let mut packages = Vec::new();
    for (Libraries { wheel, files, .. }, fetched) in libraries {
        let fetched = fetched == Fetched::Downloaded;
        let what = if fetched { "fetched" } else { "already there:" };
        summary.line(format_args!("{what} {} from {wheel}", files.join(", ")));
        packages.push(json!({ "package": wheel.to_string(), "files": files, "fetched": fetched }));
    }
    summary.field("libraries", packages);
    Ok(summary)
}

fn list() -> Summary {
    let mut summary = Summary::default();
    let mut plugins = Vec::new();
    for target in PLATFORMS {
        let found =
            search_order(&target.plugin).into_iter().find(|candidate| candidate.exists || candidate.required);
        let packages: Vec<_> = target.wheels.iter().map(|wheel| wheel.to_string()).collect();
        let text = match &found {
            Some(Candidate { path, place, exists: true, .. }) => format!("{} ({place})", path.display()),
            Some(Candidate { path, place, .. }) => format!("not found at {} ({place})", path.display()),
            None => format!("not found; xlann plugin install {} fetches one", target.plugin.name),
        };
        summary.line(format_args!("{}: {text}", target.name()));
        summary.line(format_args!("  packages: {}", packages.join(", else ")));
        plugins.push(json!({
            "target": target.name(),
            "path": found.filter(|candidate| candidate.exists).map(|candidate| candidate.path.display().to_string()),
            "packages": packages,
        }));
    }
    summary.field("plugins", plugins);
    summary
}

/// Plugins, where they are looked for, their devices; and what the processor can do.
pub fn doctor() -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    summary.line(format_args!("xlann {}", env!("CARGO_PKG_VERSION")));
    summary.field("version", env!("CARGO_PKG_VERSION"));
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
    let features = processor_features();
    summary.line(format_args!("processor: {processors} threads, {}", features.join(" ")));
    summary.field("processors", processors);
    summary.field("processor_features", features);
    let sets = [("f32", DType::F32), ("bf16", DType::BF16), ("f16", DType::F16), ("int8", DType::S8)]
        .map(|(name, dtype)| (name, kernels::instruction_set(dtype)));
    let text = sets.map(|(name, set)| format!("{name} {}", set.unwrap_or("none")));
    summary.line(format_args!("kernels: {}", text.join(", ")));
    summary.field(
        "kernels",
        sets.iter().map(|&(name, set)| (name.to_owned(), set.into())).collect::<serde_json::Map<_, _>>(),
    );
    let mut targets = Vec::new();
    for target in PLATFORMS {
        summary.line(format_args!("{}: plugins are looked for at", target.name()));
        let mut places = Vec::new();
        for candidate in search_order(&target.plugin) {
            let mark = if candidate.exists { "found" } else { "none " };
            summary.line(format_args!("  {mark} {} ({})", candidate.path.display(), candidate.place));
            places.push(json!({
                "place": candidate.place,
                "path": candidate.path.display().to_string(),
                "exists": candidate.exists,
            }));
        }
        let plugin = match Plugin::find(&target.plugin) {
            Ok(plugin) => describe(target, plugin, &mut summary),
            // A broken plugin is what a doctor is asked about: it is no failure of the command.
            Err(problem) => {
                summary.line(format_args!("  {problem}"));
                json!({ "error": problem.to_string() })
            }
        };
        targets.push(json!({ "name": target.name(), "looked_at": places, "plugin": plugin }));
    }
    summary.field("targets", targets);
    Ok(summary)
}

fn describe(target: &Platform, plugin: Plugin, summary: &mut Summary) -> Value {
    let (major, minor) = plugin.api_version();
    summary.line(format_args!("  plugin {}", plugin.path().display()));
    summary.line(format_args!("  PJRT C API {major}.{minor}"));
    let attributes = plugin.attributes().unwrap_or_default();
    for (name, value) in &attributes {
        summary.line(format_args!("  {name}: {value}"));
    }
    let extensions: Vec<String> = plugin
        .extensions()
        .into_iter()
        .map(|(number, name)| name.map_or(format!("type {number}"), str::to_owned))
        .collect();
    summary.line(format_args!("  extensions: {}", extensions.join(", ")));
    let mut object = json!({
        "path": plugin.path().display().to_string(),
        "api_version": format!("{major}.{minor}"),
        "attributes": attributes.iter().map(|(name, value)| (name.clone(), value.to_string().into()))
            .collect::<serde_json::Map<String, Value>>(),
        "extensions": extensions,
    });
    libraries(&target.plugin.find_libraries(plugin.path()), summary, &mut object);
    match target.session() {
        Ok(session) => {
            let client = session.client();
            let devices: Vec<String> =
                client.devices().iter().map(|device| device.debug_string().to_owned()).collect();
            summary.line(format_args!(
                "  platform {}, version {}",
                client.platform_name(),
                client.platform_version()
            ));
            summary.line(format_args!("  devices: {}", devices.join(", ")));
            object["platform"] = client.platform_name().into();
            object["devices"] = devices.into();
        }
        Err(problem) => {
            summary.line(format_args!("  {problem}"));
            object["error"] = problem.to_string().into();
        }
    }
    object
}

/// Where the libraries are that a plugin runs programs with: those of a folder on a line.
fn libraries(libraries: &[Library], summary: &mut Summary, object: &mut Value) {
    let folder = |library: &Library| library.path.as_ref().and_then(|path| path.parent().map(Path::to_owned));
    for group in libraries.chunk_by(|a, b| folder(a) == folder(b)) {
        let files: Vec<_> = group.iter().map(|library| library.file).collect();
        let place = match folder(&group[0]) {
            Some(folder) => format!("in {}", folder.display()),
            None => "left to the system's loader".to_owned(),
        };
        summary.line(format_args!("  to run programs: {} {place}", files.join(", ")));
    }
    let objects = libraries.iter().map(|Library { package, file, path }| {
        let path = path.as_ref().map(|path| path.display().to_string());
        json!({ "file": file, "path": path, "required": package.required })
    });
    object["libraries"] = objects.collect();
}

/// The processor's vector features that XLA can use.
fn processor_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! present {
            ($($name:tt),*) => {[$(($name, std::arch::is_x86_feature_detected!($name))),*]};
        }
        let features = present!(
            "sse4.2",
            "avx",
            "avx2",
            "fma",
            "f16c",
            "avx512f",
            "avx512bw",
            "avx512bf16",
            "avx512vnni"
        );
        features.into_iter().filter(|(_, present)| *present).map(|(name, _)| name).collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        vec![std::env::consts::ARCH]
    }
}
