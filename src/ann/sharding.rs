//! How a database is split over devices, and what they find is put together.

use std::cmp::Ordering;

use crate::array::check_preds;
use crate::data::MappedArray;
use crate::{Array, Error, Result, Shape};

use super::Metric;
use super::order::Order;
use super::search::FoundRows;

/// The rows of a database, dealt out to devices in turn: device r has the rows r, r + devices, r + 2 devices and
/// so on.
///
/// Vectors that are near to each other are often stored next to each other. In parts of adjacent rows, one device
/// would then have all neighbours of a query, and too few buckets for them: each plans for its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sharding {
    pub(super) devices: usize,
    /// The rows of each device.
    pub(super) rows: usize,
    /// The last rows, too few to be dealt out: every device has them all.
    pub(super) rest: usize,
}

impl Sharding {
    pub(super) fn new(database: &Shape, devices: usize) -> Result<Sharding> {
        let rows = database.dims()[0];
        if !(1..=rows).contains(&devices) {
            let expected = format!("from 1 to the database's {rows} rows");
            return Err(Error::argument("search", "devices", expected, devices));
        }
        Ok(Sharding { devices, rows: rows / devices, rest: rows % devices })
    }

    /// The shapes of a device's own rows and, where there are any, of the rest.
    pub(super) fn shapes(&self, database: &Shape) -> Vec<Shape> {
        let of = |rows: usize| database.with_dims([rows, database.dims()[1]]);
        [self.rows, self.rest].into_iter().filter(|&rows| rows > 0).map(of).collect()
    }

    /// The rows of one device, and the rest, of a database that is stored in an order.
    pub(super) fn deal(&self, database: &MappedArray, order: Order, device: usize) -> Result<Vec<Array>> {
        let bytes = database.as_bytes();
        check_preds("search", database.shape(), bytes)?;
        let row = bytes.len() / database.shape().dims()[0];
        let dealt = self.rows * self.devices;
        let places = [(device, self.devices), (dealt, 1)];
        let rows = |(shape, (first, step)): (Shape, (usize, usize))| {
            Array::filled(shape, |target| {
                for (at, target) in target.chunks_exact_mut(row).enumerate() {
                    target.copy_from_slice(&bytes[order.row(first + at * step) * row..][..row]);
                }
            })
        };
        Ok(self.shapes(database.shape()).into_iter().zip(places).map(rows).collect())
    }

    /// The `k` best of what the devices found, equal ones in the order of their indices. The last columns are the
    /// rest's, the same for all devices.
    pub(super) fn aggregate(&self, found: &[FoundRows], metric: Metric, k: usize) -> FoundRows {
        let columns = k.min(self.rows) + self.rest;
        let queries = found[0].indices.len() / columns;
        let order = |a: &(f64, i32), b: &(f64, i32)| {
            let best_first = match metric {
                Metric::L2 => a.0.partial_cmp(&b.0),
                Metric::InnerProduct | Metric::Cosine => b.0.partial_cmp(&a.0),
            };
            let nan_last = a.0.is_nan().cmp(&b.0.is_nan());
            nan_last.then(best_first.unwrap_or(Ordering::Equal)).then(a.1.cmp(&b.1))
        };
        let mut best = FoundRows::default();
        let proven = (0..found[0].proven.len()).map(|query| found.iter().all(|found| found.proven[query]));
        best.proven = proven.collect();
        for query in 0..queries {
            let row = query * columns..(query + 1) * columns;
            let mut candidates: Vec<(f64, i32)> = Vec::new();
            for (device, found) in found.iter().enumerate() {
                let kept = if device == 0 { columns } else { columns - self.rest };
                let row = found.distances[row.clone()].iter().zip(&found.indices[row.clone()]).take(kept);
                candidates.extend(row.map(|(&distance, &index)| (distance, index)));
            }
            candidates.sort_unstable_by(order);
            candidates.truncate(k);
            best.distances.extend(candidates.iter().map(|(distance, _)| *distance));
            best.indices.extend(candidates.iter().map(|(_, index)| *index));
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::ann::options::SearchOptions;
    use crate::lower::Form;
    use crate::target::tpu;

    #[test]
    fn rows_are_dealt_out_in_turn() {
        let database = Array::new([11, 1], &(0..11u8).collect::<Vec<_>>()).unwrap();
        let sharding = Sharding::new(database.shape(), 3).unwrap();
        assert_eq!(sharding, Sharding { devices: 3, rows: 3, rest: 2 });
        let shapes = [Shape::new(DType::U8, [3, 1]), Shape::new(DType::U8, [2, 1])];
        assert_eq!(sharding.shapes(database.shape()), shapes);
        let order = |name: &str| {
            let options = SearchOptions {
                form: Form::ALL.into_iter().find(|form| form.name() == name),
                ..SearchOptions::new(1)
            };
            Order::of(&tpu::CAPABILITIES, &options, 11)
        };
        let dealt = |device| sharding.deal(&database.clone().into(), order("sort"), device).unwrap();
        assert_eq!(dealt(0)[0].to_vec::<u8>().unwrap(), [0, 3, 6]);
        assert_eq!(dealt(2)[0].to_vec::<u8>().unwrap(), [2, 5, 8]);
        assert_eq!(dealt(2)[1].to_vec::<u8>().unwrap(), [9, 10]);
        // What stands in the places of a shuffled database is what is said to.
        let native = order("native");
        for device in 0..3 {
            let shuffled = sharding.deal(&database.clone().into(), native, device).unwrap();
            let at = |place: usize| native.row(place) as u8;
            assert_eq!(shuffled[0].to_vec::<u8>().unwrap(), [0, 3, 6].map(|place| at(place + device)));
            assert_eq!(shuffled[1].to_vec::<u8>().unwrap(), [9, 10].map(at));
        }

        let even = Sharding::new(database.shape(), 11).unwrap();
        assert_eq!(
            even.deal(&database.clone().into(), order("sort"), 10).unwrap(),
            [Array::new([1, 1], &[10u8]).unwrap()]
        );
        assert_eq!(
            Sharding::new(database.shape(), 12).unwrap_err().to_string(),
            "search: devices must be from 1 to the database's 11 rows, got 12"
        );
        assert!(Sharding::new(database.shape(), 0).is_err());
    }

    #[test]
    fn what_devices_found_is_ordered_by_distance_then_index() {
        let found = |distances: [f64; 3], indices: [i32; 3], proven| FoundRows {
            distances: distances.to_vec(),
            indices: indices.to_vec(),
            proven: vec![proven],
        };
        let sharding = Sharding { devices: 2, rows: 2, rest: 1 };
        let both = [found([1.0, 2.0, 0.5], [6, 2, 8], true), found([f64::NAN, 1.0, 0.5], [1, 3, 8], false)];
        let best = |metric, k| sharding.aggregate(&both, metric, k);
        assert_eq!(best(Metric::L2, 5).indices, [8, 3, 6, 2, 1]);
        assert_eq!(best(Metric::InnerProduct, 3).indices, [2, 3, 6]);
        assert_eq!(best(Metric::Cosine, 5).indices, [2, 3, 6, 8, 1]);
        assert_eq!(best(Metric::L2, 5).proven, [false]);
    }
}
