//! One file per instruction: its accounts, then what it does.

mod add_operator;
mod cancel_request;
mod claim_request;
mod close_request;
mod create_queue;
mod expire_request;
mod publish_output;
mod record_inference_result;
mod reject_request;
mod remove_operator;
mod submit_request;
mod update_operator;
mod update_queue;

pub use add_operator::*;
pub use cancel_request::*;
pub use claim_request::*;
pub use close_request::*;
pub use create_queue::*;
pub use expire_request::*;
pub use publish_output::*;
pub use record_inference_result::*;
pub use reject_request::*;
pub use remove_operator::*;
pub use submit_request::*;
pub use update_operator::*;
pub use update_queue::*;
