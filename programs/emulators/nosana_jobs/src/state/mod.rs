//! The accounts, at their published offsets.

mod job;
mod market;
mod run;

pub use job::*;
pub use market::*;
pub use run::*;
