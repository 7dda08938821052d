//! Reductions of all elements up to each.

use super::{in_f32, number};
use crate::{Result, Tensor};

macro_rules! cumulative_methods {
    ($($(#[$doc:meta])* $method:ident => $combine:expr, $compute:expr; $from:tt => $to:tt;)*) => {
        impl Tensor {
            $($(#[$doc])*
            ///
            /// Of n elements, it takes less than 2n combinations, in about 2 log2(n) steps one after another. They are
            /// in the order of JAX's `associative_scan`, and so are rounding and derivatives. Zeros lose their sign.
            ///
            /// # Errors
            /// Where there is no such axis, or the dtype is pred.
            ///
            /// ```
            /// use xlann::{Array, DType, Function, Shape};
            ///
            #[doc = concat!(
                "let f = Function::trace(\"f\", &[Shape::new(DType::F32, [4])], |x| x[0].",
                stringify!($method), "(0))?;"
            )]
            #[doc = concat!("let results = f.eval(&[Array::new([4], &", stringify!($from), ")?])?;")]
            #[doc = concat!("assert_eq!(results, [Array::new([4], &", stringify!($to), ")?]);")]
            /// # Ok::<(), xlann::Error>(())
            /// ```
            pub fn $method(&self, axis: isize) -> Result<Tensor> {
                let dimension = self.shape().axis(stringify!($method), "axis", axis)?;
                number(stringify!($method), self)?;
                $compute(self, |x: &Tensor| scan(x, dimension, &$combine))
            })*
        }
    };
}

// Of each method, elements and what they give, for the example in its documentation.
cumulative_methods! {
    /// For each element, the sum of those up to it along `axis` (negative: from the end). Integers wrap.
    cumsum => |x: &Tensor, y: &Tensor| x + y, in_f32; [1f32, 2.0, 3.0, 4.0] => [1f32, 3.0, 6.0, 10.0];
    /// For each element, the product of those up to it along `axis` (negative: from the end). Integers wrap. The
    /// derivative divides by no element, and holds where some are 0.
    cumprod => |x: &Tensor, y: &Tensor| x * y, in_f32; [1f32, 2.0, 3.0, 4.0] => [1f32, 2.0, 6.0, 24.0];
    /// For each element, the greatest of those up to it along `axis` (negative: from the end); NaN from the first NaN
    /// on. Where two that are combined are equal, each has half of the derivative.
    cummax => |x: &Tensor, y: &Tensor| x.maximum(y), exactly; [1f32, 3.0, 2.0, 4.0] => [1f32, 3.0, 3.0, 4.0];
    /// For each element, the least of those up to it along `axis` (negative: from the end); NaN from the first NaN on.
    /// Where two that are combined are equal, each has half of the derivative.
    cummin => |x: &Tensor, y: &Tensor| x.minimum(y), exactly; [3f32, 1.0, 2.0, 0.0] => [3f32, 1.0, 1.0, 0.0];
}

/// What `compute` makes of a tensor, where no dtype loses anything.
fn exactly(x: &Tensor, compute: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    compute(x)
}

/// The combination of all elements up to each along an axis, by halves: pairs of neighbours are combined, their scan is
/// what stands at the odd places, and that with one element more at the even ones. Blelloch, "Prefix sums and their
/// applications" (1990).
fn scan(x: &Tensor, axis: usize, combine: &dyn Fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let size = x.dims()[axis];
    if size < 2 {
        return Ok(x.clone());
    }
    let part = |x: &Tensor, start, limit, stride| x.slice_in_dim(start, limit, stride, axis as isize);
    let pairs = combine(&part(x, 0, size - 1, 2)?, &part(x, 1, size, 2)?)?;
    let odd = scan(&pairs, axis, combine)?;
    let first = part(x, 0, 1, 1)?;
    let even = match size {
        2 => first,
        _ => {
            let before = part(&odd, 0, (size - 1) / 2, 1)?;
            let later = combine(&before, &part(x, 2, size, 2)?)?;
            Tensor::concatenate(&[&first, &later], axis as isize)?
        }
    };
    // Each among zeros at the other's places, as JAX puts them together.
    let spread = |x: &Tensor, start: usize| {
        let edge = |width: usize| {
            let mut edge = vec![0; x.rank()];
            edge[axis] = width as isize;
            edge
        };
        let mut interior = vec![0; x.rank()];
        interior[axis] = 1;
        let end = size - start - (2 * x.dims()[axis] - 1);
        x.pad(0, &edge(start), &edge(end), &interior)
    };
    spread(&even, 0)? + spread(&odd, 1)
}
