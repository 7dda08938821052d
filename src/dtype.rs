//! Element types.

use half::{bf16, f16};

/// The type of a tensor's elements, with XLA's names.
///
/// | dtypes | elements |
/// |---|---|
/// | `Pred` | truth values, a byte each: `bool` |
/// | `S8`, `S16`, `S32`, `S64` | signed integers of that many bits: `i8` to `i64` |
/// | `U8`, `U16`, `U32`, `U64` | unsigned integers of that many bits: `u8` to `u64` |
/// | `F16`, `F32`, `F64` | IEEE 754 floats of that many bits: `half::f16`, `f32`, `f64` |
/// | `BF16` | an `f32` without the lower half of its bits: `half::bf16` |
///
/// ```
/// use xlann::DType;
///
/// assert_eq!("bf16".parse::<DType>()?, DType::BF16);
/// assert_eq!(DType::BF16.to_string(), "bf16");
/// assert_eq!(DType::BF16.size(), 2);
/// assert!(DType::BF16.is_float() && DType::S8.is_signed_integer() && !DType::Pred.is_integer());
/// assert!("float32".parse::<DType>().is_err());
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say all there is")]
pub enum DType {
    Pred,
    S8,
    S16,
    S32,
    S64,
    U8,
    U16,
    U32,
    U64,
    F16,
    BF16,
    F32,
    F64,
}

impl DType {
    /// Every dtype, in the order of declaration.
    pub const ALL: [DType; 13] = [
        DType::Pred,
        DType::S8,
        DType::S16,
        DType::S32,
        DType::S64,
        DType::U8,
        DType::U16,
        DType::U32,
        DType::U64,
        DType::F16,
        DType::BF16,
        DType::F32,
        DType::F64,
    ];

    /// The size of an element in bytes; a pred takes one.
    pub const fn size(self) -> usize {
        match self {
            DType::Pred | DType::S8 | DType::U8 => 1,
            DType::S16 | DType::U16 | DType::F16 | DType::BF16 => 2,
            DType::S32 | DType::U32 | DType::F32 => 4,
            DType::S64 | DType::U64 | DType::F64 => 8,
        }
    }

    /// Whether it is f16, bf16, f32 or f64.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }

    /// Whether it is a signed or an unsigned integer; pred is neither.
    pub const fn is_integer(self) -> bool {
        self.is_signed_integer() || self.is_unsigned_integer()
    }

    /// Whether it is s8, s16, s32 or s64.
    pub const fn is_signed_integer(self) -> bool {
        matches!(self, DType::S8 | DType::S16 | DType::S32 | DType::S64)
    }

    /// Whether it is u8, u16, u32 or u64.
    pub const fn is_unsigned_integer(self) -> bool {
        matches!(self, DType::U8 | DType::U16 | DType::U32 | DType::U64)
    }

    /// XLA's name of it, as in HLO text.
    pub const fn name(self) -> &'static str {
        match self {
            DType::Pred => "pred",
            DType::S8 => "s8",
            DType::S16 => "s16",
            DType::S32 => "s32",
            DType::S64 => "s64",
            DType::U8 => "u8",
            DType::U16 => "u16",
            DType::U32 => "u32",
            DType::U64 => "u64",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F32 => "f32",
            DType::F64 => "f64",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for DType {
    type Err = crate::Error;

    fn from_str(text: &str) -> crate::Result<DType> {
        DType::ALL.into_iter().find(|dtype| dtype.name() == text).ok_or_else(|| {
            let names: Vec<_> = DType::ALL.iter().map(|dtype| dtype.name()).collect();
            crate::Error::argument(
                "dtype",
                "name",
                format!("one of {}", names.join(", ")),
                format!("{text:?}"),
            )
        })
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type whose values are the elements of a [`DType`].
///
/// These are `bool`, the integers of 8 to 64 bits, `f32`, `f64`, and `f16` and `bf16` of version 2 of the crate
/// `half`.
///
/// ```
/// use xlann::{Array, DType, Element};
///
/// fn column<T: Element>(elements: &[T]) -> xlann::Result<Array> {
///     Array::new([elements.len(), 1], elements)
/// }
/// assert_eq!(f64::DTYPE, DType::F64);
/// assert_eq!(column(&[1u8, 2])?.to_string(), "u8[2,1] [[1], [2]]");
/// # Ok::<(), xlann::Error>(())
/// ```
pub trait Element:
    sealed::Sealed + bytemuck::NoUninit + bytemuck::CheckedBitPattern + PartialEq + std::fmt::Debug + Send + Sync
{
    /// The dtype whose elements these are.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),* $(,)?) => {$(
        impl sealed::Sealed for $rust {}
        impl Element for $rust {
            const DTYPE: DType = DType::$dtype;
        }
    )*};
}

elements! {
    bool => Pred, i8 => S8, i16 => S16, i32 => S32, i64 => S64, u8 => U8, u16 => U16, u32 => U32, u64 => U64,
    f16 => F16, bf16 => BF16, f32 => F32, f64 => F64,
}

/// Evaluates `$body` with the type alias `$T` bound to the Rust type of a [`DType`].
macro_rules! with_element {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::Pred => {
                type $T = bool;
                $body
            }
            $crate::DType::S8 => {
                type $T = i8;
                $body
            }
            $crate::DType::S16 => {
                type $T = i16;
                $body
            }
            $crate::DType::S32 => {
                type $T = i32;
                $body
            }
            $crate::DType::S64 => {
                type $T = i64;
                $body
            }
            $crate::DType::U8 => {
                type $T = u8;
                $body
            }
            $crate::DType::U16 => {
                type $T = u16;
                $body
            }
            $crate::DType::U32 => {
                type $T = u32;
                $body
            }
            $crate::DType::U64 => {
                type $T = u64;
                $body
            }
            $crate::DType::F16 => {
                type $T = half::f16;
                $body
            }
            $crate::DType::BF16 => {
                type $T = half::bf16;
                $body
            }
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
        }
    };
}
pub(crate) use with_element;
