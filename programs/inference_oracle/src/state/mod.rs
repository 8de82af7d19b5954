//! The accounts of the program and what is stored in them.

mod body;
mod operator;
mod queue;
mod request;

pub use body::*;
pub use operator::*;
pub use queue::*;
pub use request::*;
