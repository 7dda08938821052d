//! What a search would take of a target, before there is a database or a device.

use crate::ann::function::search_function_for;
use crate::ann::metric::Metric;
use crate::ann::options::SearchOptions;
use crate::lower::{self, Choice};
use crate::pjrt::{Compiled, Signature, Value};
use crate::target::Target;
use crate::{Error, PjrtCode, Result, Shape};

/// What the search of a batch of queries takes of a target with all its devices, by the target's own compiler: an
/// estimate, nothing was run.
///
/// ```
/// use xlann::ann::{Metric, SearchOptions, plan};
/// use xlann::target::Target;
/// use xlann::{DType, Error, Shape};
///
/// let options = SearchOptions { batch: Some(1024), ..SearchOptions::new(10) };
/// let database = Shape::new(DType::BF16, [1_000_000_000, 128]);
/// match plan(&Target::parse("tpu:v5e:16x16")?, Metric::InnerProduct, &database, &options) {
///     Ok(plan) => {
///         assert!(plan.fits && plan.expected_recall() >= 0.95);
///         assert!(plan.bytes_per_device > 1_000_000_000);
///         println!("{} devices, {:?} s", plan.devices, plan.seconds);
///     }
///     Err(Error::PluginNotFound { advice, .. }) => println!("{advice}"),
///     Err(other) => return Err(other),
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// How many devices the database is split over: all that the target has.
    pub devices: usize,
    /// How many devices a chip is.
    pub devices_per_chip: usize,
    /// The bytes that each device needs for its share of the database, the queries and the program. Where that does
    /// not fit, and the compiler gave up, those of the share and the queries alone.
    pub bytes_per_device: u64,
    /// The memory of each device in bytes, where that is known.
    pub memory_per_device: Option<u64>,
    /// Whether it fits, by the compiler and what is known of the memory.
    pub fits: bool,
    /// The compiler's estimate of the time that a batch takes, where it makes one.
    pub seconds: Option<f64>,
    /// The form that each approximate top-k takes; the first is the search of a device's share or a block of it.
    pub choices: Vec<Choice>,
}

impl Plan {
    /// The recall that is expected, where the true neighbours of a query are placed at random.
    pub fn expected_recall(&self) -> f64 {
        self.choices.iter().map(|choice| choice.expected_recall).fold(1.0, f64::min)
    }

    /// The number of chips.
    pub fn chips(&self) -> usize {
        self.devices.div_ceil(self.devices_per_chip)
    }
}

/// Compiles the search of a database `[n, d]` for all devices of a target, and tells what it takes.
///
/// The database is searched in the dtype that a [`Searcher`](crate::ann::Searcher) would search it in, and the
/// batches are of [`SearchOptions::batch`] queries.
///
/// # Errors
/// As [`Searcher::over`](crate::ann::Searcher::over), where the target has no plugin or no such topology, and where
/// the plugin does not compile the program for another reason than the memory.
pub fn plan(target: &Target, metric: Metric, database: &Shape, options: &SearchOptions) -> Result<Plan> {
    let mut capabilities = target.platform().capabilities;
    let database = database.with_dtype(capabilities.search_dtype(database.dtype()));
    let forms = options.lowering();
    let batch = options.batch.unwrap_or(capabilities.batch);
    let function =
        |capabilities, devices| search_function_for(capabilities, metric, &database, batch, devices, options);
    let (function, devices, memory_per_device, costs) = if let Some(description) = target.description() {
        let compiler = target.describe()?;
        let devices = compiler.topology().device_count();
        let function = function(capabilities, devices)?;
        let costs = compiler.compile(&function, &forms, devices).and_then(|(compiled, _)| costs(&compiled));
        (function, devices, description.device_memory, costs)
    } else {
        let session = target.platform().session_with_devices(1)?;
        let devices = session.client().devices();
        let limit = devices[0].memory_stats().ok().and_then(|stats| stats.bytes_limit?.try_into().ok());
        // A plugin that cannot call kernels has others than its platform.
        capabilities = session.platform().capabilities;
        let function = function(capabilities, devices.len())?;
        let compiled = session.compile_replicas(&function, &forms, devices.len());
        let costs = compiled.and_then(|(executable, _)| costs(executable.compiled()));
        (function, devices.len(), limit, costs)
    };
    let (costs, compiles) = match costs {
        Ok(costs) => (costs, true),
        // The compiler gives no memory statistics then.
        Err(Error::Pjrt { code: PjrtCode::ResourceExhausted, .. }) => {
            let parameters = Signature::of(&function).parameters;
            let bytes = parameters.iter().map(|shape| shape.byte_count() as u64);
            (Costs { bytes: bytes.fold(0, u64::saturating_add), seconds: None }, false)
        }
        Err(other) => return Err(other),
    };
    Ok(Plan {
        devices,
        devices_per_chip: target.description().map_or(1, |description| description.devices_per_chip),
        bytes_per_device: costs.bytes,
        memory_per_device,
        fits: compiles && memory_per_device.is_none_or(|memory| costs.bytes <= memory),
        seconds: costs.seconds,
        // What does not compile has been lowered all the same.
        choices: lower::explain(&function, capabilities, &forms)?,
    })
}

/// The smallest of the topologies that are known of a described target's devices ([`tpu::GENERATIONS`]) that a search
/// fits, and its plan.
///
/// [`tpu::GENERATIONS`]: crate::target::tpu::GENERATIONS
///
/// # Errors
/// As [`plan`].
///
/// ```
/// use xlann::ann::{Metric, SearchOptions, smallest_fit};
/// use xlann::target::Target;
/// use xlann::{DType, Error, Shape};
///
/// let target = Target::parse("tpu:v5e:1x1")?;
/// let database = Shape::new(DType::BF16, [200_000_000, 128]);
/// match smallest_fit(&target, Metric::InnerProduct, &database, &SearchOptions::new(10)) {
///     // 51.2 GB, and 16 GiB a chip.
///     Ok(found) => assert_eq!(found.unwrap().0.topology(), Some("v5e:2x2")),
///     Err(Error::PluginNotFound { advice, .. }) => println!("{advice}"),
///     Err(other) => return Err(other),
/// }
/// # Ok::<(), xlann::Error>(())
/// ```
pub fn smallest_fit(
    target: &Target,
    metric: Metric,
    database: &Shape,
    options: &SearchOptions,
) -> Result<Option<(Target, Plan)>> {
    for size in target.description().iter().flat_map(|description| &description.sizes) {
        let target = Target::parse(&format!("{}:{size}", target.platform().name()))?;
        let plan = plan(&target, metric, database, options)?;
        if plan.fits {
            return Ok(Some((target, plan)));
        }
    }
    Ok(None)
}

/// What a program costs, by its compiler.
struct Costs {
    bytes: u64,
    seconds: Option<f64>,
}

fn costs(compiled: &Compiled) -> Result<Costs> {
    let memory = compiled.memory()?;
    let held = [memory.arguments, memory.results, memory.temporaries, memory.generated_code];
    let held = held.into_iter().fold(0u64, |held, bytes| held.saturating_add_signed(bytes));
    let seconds = |(name, value): &(String, Value)| match value {
        // libtpu counts -1 s for an instruction of which it knows no better.
        Value::Float(seconds) if name == "optimal_seconds" && *seconds > 0.0 && seconds.is_finite() => {
            Some(f64::from(*seconds))
        }
        _ => None,
    };
    // A plugin that makes no estimates says so by an error.
    let seconds = compiled.cost_analysis().ok().and_then(|costs| costs.iter().find_map(seconds));
    Ok(Costs { bytes: held.saturating_add_signed(-memory.aliased), seconds })
}
