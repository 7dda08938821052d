//! Data that searches have been wrong about, or may be.

use xlann::{Array, DType, Shape};

/// How much of it there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub rows: usize,
    pub width: usize,
    pub queries: usize,
    pub k: usize,
}

/// That of most families, so that they share compiled programs. Over 3 devices, two rows are left over.
const COMMON: Size = Size { rows: 2000, width: 32, queries: 256, k: 10 };

/// A database, and queries of it.
#[derive(Clone, Debug)]
pub struct Data {
    pub rows: Array,
    pub queries: Array,
    pub k: usize,
}

/// One kind of data.
pub struct Family {
    pub name: &'static str,
    pub size: Size,
    /// Of the database; queries are f32.
    pub dtype: DType,
    make: fn(&mut Random, Size) -> Values,
}

/// The numbers of a matrix of rows and of one of queries.
struct Values {
    rows: Vec<f64>,
    queries: Vec<f64>,
}

impl Family {
    const fn of(name: &'static str, make: fn(&mut Random, Size) -> Values) -> Family {
        Family { name, size: COMMON, dtype: DType::F32, make }
    }

    fn sized(self, rows: usize, width: usize, queries: usize, k: usize) -> Family {
        Family { size: Size { rows, width, queries, k }, ..self }
    }

    fn typed(self, dtype: DType) -> Family {
        Family { dtype, ..self }
    }

    /// The data of one draw, always the same for a seed.
    pub fn draw(&self, seed: u64, draw: usize) -> Data {
        let name = self.name.bytes().fold(0u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let mut random = Random(seed ^ name.rotate_left(20) ^ (draw as u64).rotate_left(48));
        let Size { rows, width, queries, k } = self.size;
        let values = (self.make)(&mut random, self.size);
        Data {
            rows: Array::from_f64(Shape::new(self.dtype, [rows, width]), &values.rows).unwrap(),
            queries: Array::from_f64(Shape::new(DType::F32, [queries, width]), &values.queries).unwrap(),
            k,
        }
    }
}

/// Pseudo-random numbers, by splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In 0..1.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Of mean 0 and variance 1.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

impl Size {
    /// The same for rows and queries, which stand behind the rows: by row and column.
    fn all(self, mut value: impl FnMut(usize, usize) -> f64) -> Values {
        let matrix =
            (0..self.rows + self.queries).flat_map(|row| (0..self.width).map(move |column| (row, column)));
        let mut rows: Vec<f64> = matrix.map(|(row, column)| value(row, column)).collect();
        let queries = rows.split_off(self.rows * self.width);
        Values { rows, queries }
    }

    /// Vectors around those of a few centres, which `centre` chooses by row.
    fn around(
        self,
        centres: Vec<f64>,
        spread: f64,
        random: &mut Random,
        mut centre: impl FnMut(&mut Random, usize) -> usize,
    ) -> Values {
        let mut chosen = 0;
        self.all(|row, column| {
            if column == 0 {
                chosen = centre(random, row);
            }
            centres[chosen * self.width + column] + spread * random.normal()
        })
    }
}

impl Values {
    fn map(mut self, rows: impl FnMut(f64) -> f64, queries: impl FnMut(f64) -> f64) -> Values {
        self.rows = self.rows.into_iter().map(rows).collect();
        self.queries = self.queries.into_iter().map(queries).collect();
        self
    }
}

fn normal(random: &mut Random, size: Size) -> Values {
    size.all(|_, _| random.normal())
}

fn normal_around(random: &mut Random, size: Size, offset: f64) -> Values {
    size.all(|_, _| offset + random.normal())
}

fn uniform_around(random: &mut Random, size: Size, offset: f64) -> Values {
    size.all(|_, _| offset + random.uniform())
}

/// One column is larger than the others.
fn large_column(random: &mut Random, size: Size, factor: f64) -> Values {
    size.all(|_, column| random.normal() * if column == 3 { factor } else { 1.0 })
}

/// Normal, some rows far larger. Queries are not.
fn outliers(random: &mut Random, size: Size, factor: f64) -> Values {
    let mut values = normal(random, size);
    for row in values.rows.chunks_mut(size.width).step_by(97) {
        row.iter_mut().for_each(|value| *value *= factor);
    }
    values
}

fn metres(random: &mut Random, size: Size) -> Values {
    size.all(|_, column| [4e6, 1e6, 5e6][column] + 1e3 * random.normal())
}

fn far_clusters(random: &mut Random, size: Size) -> Values {
    let centres = (0..40 * size.width).map(|_| 1e6 * random.normal()).collect();
    size.around(centres, 1.0, random, |random, _| random.below(40))
}

fn nearly_equal(random: &mut Random, size: Size) -> Values {
    let centre = (0..size.width).map(|_| random.normal()).collect();
    size.around(centre, 1e-6, random, |_, _| 0)
}

fn lognormal_norms(random: &mut Random, size: Size) -> Values {
    let mut norm = 1.0;
    size.all(|_, column| {
        if column == 0 {
            norm = 10f64.powf((4.0 * random.normal()).clamp(-15.0, 15.0));
        }
        norm * random.normal()
    })
}

fn duplicates(random: &mut Random, size: Size) -> Values {
    let centres = (0..100 * size.width).map(|_| random.normal()).collect();
    size.around(centres, 0.0, random, |random, _| random.below(100))
}

fn one_hot(random: &mut Random, size: Size) -> Values {
    let mut hot = 0;
    size.all(|_, column| {
        if column == 0 {
            hot = random.below(size.width);
        }
        f64::from(u8::from(column == hot))
    })
}

fn sparse(random: &mut Random, size: Size) -> Values {
    size.all(|_, _| if random.below(10) == 0 { random.normal() } else { 0.0 })
}

/// Rows along a line, from one end to the other, and queries anywhere on it.
fn sorted(random: &mut Random, size: Size) -> Values {
    let mut place = 0.0;
    size.all(|row, column| {
        if column == 0 {
            place = if row < size.rows { row as f64 / size.rows as f64 } else { random.uniform() };
        }
        10.0 * place + 1e-3 * random.normal()
    })
}

fn ascending_norms(random: &mut Random, size: Size) -> Values {
    size.all(|row, _| (1.0 + 9.0 * row as f64 / size.rows as f64) * random.normal())
}

/// Variants of a few prototypes, again and again in the same order.
fn periodic(random: &mut Random, size: Size, period: usize) -> Values {
    let prototypes = (0..period * size.width).map(|_| random.normal()).collect();
    size.around(
        prototypes,
        0.05,
        random,
        |random, row| {
            if row < size.rows { row % period } else { random.below(period) }
        },
    )
}

/// Clusters one after the other.
fn clustered_order(random: &mut Random, size: Size) -> Values {
    let centres = (0..40 * size.width).map(|_| random.normal()).collect();
    size.around(
        centres,
        0.05,
        random,
        |random, row| {
            if row < size.rows { row * 40 / size.rows } else { random.below(40) }
        },
    )
}

/// Queries that are rows of the database.
fn own_rows(random: &mut Random, size: Size) -> Values {
    let mut values = normal_around(random, size, 10.0);
    for query in values.queries.chunks_mut(size.width) {
        let row = random.below(size.rows) * size.width;
        query.copy_from_slice(&values.rows[row..][..size.width]);
    }
    values
}

/// Normal, but for one number of each few rows, which depends on how many had one before.
fn normal_with(random: &mut Random, size: Size, every: usize, value: fn(usize) -> f64) -> Values {
    let mut values = normal(random, size);
    strike(&mut values.rows, size.width, random, every, value);
    values
}

fn normal_with_queries(random: &mut Random, size: Size, every: usize, value: fn(usize) -> f64) -> Values {
    let mut values = normal(random, size);
    strike(&mut values.queries, size.width, random, every, value);
    values
}

fn strike(matrix: &mut [f64], width: usize, random: &mut Random, every: usize, value: fn(usize) -> f64) {
    for (count, row) in matrix.chunks_mut(width).step_by(every).enumerate() {
        row[random.below(width)] = value(count);
    }
}

/// Infinities of both signs.
fn infinite(count: usize) -> f64 {
    if count.is_multiple_of(2) { f64::INFINITY } else { f64::NEG_INFINITY }
}

fn nan(_: usize) -> f64 {
    f64::NAN
}

/// Fewer rows without a NaN than neighbours are asked for.
fn mostly_nan(random: &mut Random, size: Size) -> Values {
    let mut values = normal(random, size);
    for (row, numbers) in values.rows.chunks_mut(size.width).enumerate() {
        if row % (size.rows / 5) != 3 {
            numbers[random.below(size.width)] = f64::NAN;
        }
    }
    values
}

fn half_subnormal(random: &mut Random, size: Size) -> Values {
    let mut values = normal(random, size);
    values.rows.iter_mut().filter(|_| random.below(2) == 0).for_each(|x| *x *= 1e-40);
    values
}

/// Every family, those of one size and dtype one after the other.
pub fn all() -> Vec<Family> {
    let family = Family::of;
    vec![
        family("normal", normal),
        family("offset-10", |random, size| normal_around(random, size, 10.0)),
        family("offset-1000", |random, size| normal_around(random, size, 1e3)),
        family("offset-1e6", |random, size| normal_around(random, size, 1e6)),
        family("uniform", |random, size| uniform_around(random, size, 0.0)),
        family("uniform-offset-100", |random, size| uniform_around(random, size, 100.0)),
        family("column-1e4", |random, size| large_column(random, size, 1e4)),
        family("column-1e6", |random, size| large_column(random, size, 1e6)),
        family("far-clusters", far_clusters),
        family("nearly-equal", nearly_equal),
        family("norms-1e-20", |random, size| normal(random, size).map(|x| 1e-20 * x, |x| 1e-20 * x)),
        family("norms-1e18", |random, size| normal(random, size).map(|x| 1e17 * x, |x| 1e17 * x)),
        family("lognormal-norms", lognormal_norms),
        family("duplicates", duplicates),
        family("all-equal", |_, size| size.all(|_, column| column as f64 * 0.7 - 3.0)),
        family("all-zeros", |_, size| size.all(|_, _| 0.0)),
        family("signs", |random, size| size.all(|_, _| if random.below(2) == 0 { 1.0 } else { -1.0 })),
        family("integers", |random, size| size.all(|_, _| random.below(256) as f64)),
        family("one-hot", one_hot),
        family("sparse", sparse),
        family("outliers-1e4", |random, size| outliers(random, size, 1e4)),
        family("outliers-1e30", |random, size| outliers(random, size, 1e30)),
        family("inf-rows", |random, size| normal_with(random, size, 50, infinite)),
        family("nan-rows", |random, size| normal_with(random, size, 3, nan)),
        family("mostly-nan-rows", mostly_nan),
        family("nan-queries", |random, size| normal_with_queries(random, size, 2, nan)),
        family("inf-queries", |random, size| normal_with_queries(random, size, 2, infinite)),
        family("sorted", sorted),
        family("ascending-norms", ascending_norms),
        family("periodic", |random, size| periodic(random, size, 100)),
        family("clustered-order", clustered_order),
        family("own-rows", own_rows),
        family("half-subnormal", half_subnormal),
        family("subnormal", |random, size| normal(random, size).map(|x| 1e-40 * x, |x| 1e-40 * x)),
        family("nearest-one", normal).sized(2000, 32, 1024, 1),
        family("many-neighbours", normal).sized(2000, 32, 64, 300),
        family("metres", metres).sized(2000, 3, 256, 10),
        family("one-column", |random, size| normal_around(random, size, 5.0)).sized(2000, 1, 256, 10),
        family("two-columns", |random, size| normal_around(random, size, 5.0)).sized(2000, 2, 256, 10),
        family("wide", normal).sized(500, 4096, 64, 10),
        family("wide-offset", |random, size| normal_around(random, size, 3.0)).sized(500, 4096, 64, 10),
        family("images", |random, size| periodic(random, size, 256)).sized(128 * 256, 16, 128, 10),
        family("all-neighbours", normal).sized(10, 32, 256, 10),
        family("few-rows", normal).sized(7, 5, 256, 3),
        family("one-row", normal).sized(1, 8, 64, 1),
        // Queries of other ranges than the dtype's, or between its numbers.
        family("f16", |random, size| normal(random, size).map(|x| 100.0 * x, |x| 3e5 * x)).typed(DType::F16),
        family("f16-near", normal).typed(DType::F16),
        family("f64", |random, size| normal_around(random, size, 1e8)).typed(DType::F64),
        family("s32", |random, size| {
            let large = f64::from(1 << 28);
            normal(random, size).map(|x| large + (100.0 * x).round(), |x| large + 100.0 * x)
        })
        .typed(DType::S32),
        family("s32-spread", |random, size| {
            let large = f64::from(1 << 28);
            uniform_around(random, size, -0.5).map(|x| (2.0 * large * x).round(), |x| 2.0 * large * x)
        })
        .typed(DType::S32),
        family("u8", |random, size| {
            uniform_around(random, size, 0.0).map(|x| (255.0 * x).round(), |x| 600.0 * x - 200.0)
        })
        .typed(DType::U8),
    ]
}
