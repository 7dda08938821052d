//! Learns a metric by gradient descent through a search.
//!
//! ```sh
//! cargo run --release --example learn_metric
//! ```
//!
//! Points of four classes differ in 2 of their 16 coordinates; the other 14 are noise of three times the size, so
//! that the nearest neighbours of a point are mostly of other classes. A linear map is learned under which they
//! are of its own: the loss searches the mapped points with `approx_max_k`, and its gradient goes through the
//! search. Prints the loss and the accuracy of the nearest neighbours on points that were not learned from.

use anyhow::ensure;
use xlann::{
    ApproxTopKOptions, Array, DType, Error, Function, Result, Session, Shape, Tensor, value_and_grad,
};

const CLASSES: usize = 4;
/// The coordinates of a point, of which the first few tell the classes apart, and those of the learned space.
const DIM: usize = 16;
const TELLING: usize = 2;
const LEARNED: usize = 4;
const DATABASE: usize = 1024;
const QUERIES: usize = 256;
const NEIGHBORS: usize = 16;
const STEPS: usize = 50;
const LEARNING_RATE: f32 = 0.1;

fn main() -> anyhow::Result<()> {
    let matrix = |rows, columns| Shape::new(DType::F32, [rows, columns]);
    let labels = |count| Shape::new(DType::S32, [count]);
    let shapes = [
        matrix(DIM, LEARNED),
        matrix(DATABASE, DIM),
        labels(DATABASE),
        matrix(QUERIES, DIM),
        labels(QUERIES),
    ];
    let loss = Function::trace("loss", &shapes, |x| loss(&x[0], &x[1], &x[2], &x[3], &x[4]))?;
    let run = compiled(&loss)?;
    let learn = compiled(&value_and_grad(&loss, &[0])?)?;

    let mut random = Random(1);
    let database = points(&mut random, DATABASE)?;
    let [train, test] = [points(&mut random, QUERIES)?, points(&mut random, QUERIES)?];
    let of = |map: &Array, queries: &[Array; 2]| [std::slice::from_ref(map), &database[..], queries].concat();
    let start: Vec<f32> = (0..DIM * LEARNED).map(|_| 0.1 * random.normal()).collect();
    let mut map = Array::new([DIM, LEARNED], &start)?;

    println!("step   loss    accuracy   on other points: loss    accuracy");
    let mut losses = Vec::new();
    for step in 0..=STEPS {
        let results = learn(&of(&map, &train))?;
        let [value, accuracy, gradient] = &results[..] else { anyhow::bail!("three results") };
        losses.push(value.as_slice::<f32>()?[0]);
        if step % 10 == 0 {
            let unseen = run(&of(&map, &test))?;
            let number = |array: &Array| array.to_f64()[0];
            println!(
                "{step:4}  {:6.3}  {:8.3}  {:23.3}  {:8.3}",
                number(value),
                number(accuracy),
                number(&unseen[0]),
                number(&unseen[1])
            );
        }
        let stepped = map.to_vec::<f32>()?.into_iter().zip(gradient.to_vec::<f32>()?);
        let stepped: Vec<f32> = stepped.map(|(value, slope)| value - LEARNING_RATE * slope).collect();
        map = Array::new([DIM, LEARNED], &stepped)?;
    }
    ensure!(losses[STEPS] < 0.5 * losses[0], "the loss went from {} to {} only", losses[0], losses[STEPS]);
    Ok(())
}

/// The mean of -log of the share that each query's neighbours of its own class have among its neighbours, each
/// weighted by e to the power of minus its squared distance; and how often the nearest is of its class.
fn loss(
    map: &Tensor,
    database: &Tensor,
    database_labels: &Tensor,
    queries: &Tensor,
    query_labels: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let (database, queries) = (database.dot(map)?, queries.dot(map)?);
    // |q|^2 is the same for all neighbours of a query, and cancels in their shares.
    let norms = (&database * &database)?.reduce_sum(&[1])?;
    let scores = ((queries.dot(&database.transpose(&[1, 0])?)? * 2)? - norms)?;
    let (nearest, indices) = scores.approx_max_k(NEIGHBORS, &ApproxTopKOptions::default())?;

    let labels = database_labels.take(&indices, 0)?;
    let same = labels.equal(query_labels.expand_dims(1)?)?;
    let weights = (&nearest - nearest.slice_in_dim(0, 1, 1, 1)?)?.exp()?;
    let all = weights.reduce_sum(&[1])?;
    let own = (same.select(&weights, 0)?.reduce_sum(&[1])? + 1e-6)?;
    let loss = ((all / &own)?.log()?.reduce_sum(&[0])? / QUERIES as f32)?;

    let first = same.slice_in_dim(0, 1, 1, 1)?.convert(DType::F32)?;
    Ok((loss, (first.reduce_sum(&[0, 1])? / QUERIES as f32)?))
}

type Run = Box<dyn Fn(&[Array]) -> Result<Vec<Array>>>;

/// What runs the function: a CPU plugin, or the interpreter where none is installed.
fn compiled(function: &Function) -> Result<Run> {
    match Session::cpu() {
        Ok(session) => {
            let executable = session.compile(function)?;
            Ok(Box::new(move |arguments| executable.run_arrays(arguments)))
        }
        Err(Error::PluginNotFound { .. }) => {
            let function = function.clone();
            Ok(Box::new(move |arguments| function.eval(arguments)))
        }
        Err(problem) => Err(problem),
    }
}

/// Points and their labels.
fn points(random: &mut Random, count: usize) -> Result<[Array; 2]> {
    let (mut coordinates, mut labels) = (Vec::new(), Vec::new());
    for point in 0..count {
        let label = point % CLASSES;
        labels.push(label as i32);
        for axis in 0..DIM {
            let center = if label >> axis & 1 == 1 { 2.0 } else { -2.0 };
            coordinates.push(if axis < TELLING { center + random.normal() } else { 3.0 * random.normal() });
        }
    }
    Ok([Array::new([count, DIM], &coordinates)?, Array::new([count], &labels)?])
}

/// A linear congruential generator.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Of mean 0 and variance 1, nearly normal: a sum of uniforms.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}
