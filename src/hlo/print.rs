//! The text of a module.
