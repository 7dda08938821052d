//! Nearest neighbour search: what it is measured by.

pub mod recall;
