//! The inference oracle: a requester escrows a fee with a question, an operator records the answer's hash and is paid.
//!
//! Every request ends (fulfilled, rejected, cancelled or expired), money moves only in `record_inference_result` and
//! `close_request`, and the status byte decides every race. `docs/reference/program.md` has the whole interface.

use anchor_lang::prelude::*;

mod checks;
mod errors;
mod events;
mod instructions;
mod state;

pub use errors::*;
pub use events::*;
pub use instructions::*;
pub use state::*;

declare_id!("BpyCayTbo23JUqQPEu3M2iDCLtULTtK3TJt2HcaYRjWp");

#[program]
pub mod inference_oracle {
    use super::*;

    /// Opens a queue owned by `authority`, with no operators.
    pub fn create_queue(ctx: Context<CreateQueue>, name: [u8; 32], terms: QueueTerms) -> Result<()> {
        CreateQueue::handle(ctx, name, terms)
    }

    /// Replaces the queue's terms; open requests keep the terms they were made under.
    pub fn update_queue(ctx: Context<UpdateQueue>, terms: QueueTerms, paused: bool) -> Result<()> {
        UpdateQueue::handle(ctx, terms, paused)
    }

    /// Lets `operator_key` serve the queue; `uri` is where its outputs and receipts are found.
    pub fn add_operator(ctx: Context<AddOperator>, uri: String) -> Result<()> {
        AddOperator::handle(ctx, uri)
    }

    /// Changes the operator's own URI.
    pub fn update_operator(ctx: Context<UpdateOperator>, uri: String) -> Result<()> {
        UpdateOperator::handle(ctx, uri)
    }

    /// Takes an operator off the queue; it can do nothing from then on.
    pub fn remove_operator(ctx: Context<RemoveOperator>) -> Result<()> {
        RemoveOperator::handle(ctx)
    }

    /// Asks for an inference and escrows its fee; `ttl_slots` from now is the deadline.
    pub fn submit_request(
        ctx: Context<SubmitRequest>,
        nonce: u64,
        fee_lamports: u64,
        ttl_slots: u64,
        output_cap: u32,
        body_hash: [u8; 32],
        body: Body,
    ) -> Result<()> {
        SubmitRequest::handle(ctx, nonce, fee_lamports, ttl_slots, output_cap, body_hash, body)
    }

    /// Takes a lease on the request, on queues that require one.
    pub fn claim_request(ctx: Context<ClaimRequest>) -> Result<()> {
        ClaimRequest::handle(ctx)
    }

    /// Fulfils the request with the hashes of its output and job, and pays the fee to the operator.
    pub fn record_inference_result(
        ctx: Context<RecordInferenceResult>,
        output_hash: [u8; 32],
        job_hash: [u8; 32],
        completed_at: i64,
    ) -> Result<()> {
        RecordInferenceResult::handle(ctx, output_hash, job_hash, completed_at)
    }

    /// Writes a small output into the room reserved for it, once its hash is recorded.
    pub fn publish_output(ctx: Context<PublishOutput>, output: Vec<u8>) -> Result<()> {
        PublishOutput::handle(ctx, output)
    }

    /// Ends the request without a result, for a coded reason; moves no money.
    pub fn reject_request(ctx: Context<RejectRequest>, reason: u8) -> Result<()> {
        RejectRequest::handle(ctx, reason)
    }

    /// Withdraws a request that nobody is bound to work on; moves no money.
    pub fn cancel_request(ctx: Context<CancelRequest>) -> Result<()> {
        CancelRequest::handle(ctx)
    }

    /// Ends an open request past its deadline; anyone may; moves no money.
    pub fn expire_request(ctx: Context<ExpireRequest>) -> Result<()> {
        ExpireRequest::handle(ctx)
    }

    /// Deletes an ended request and returns everything left in it to whoever paid for it.
    pub fn close_request(ctx: Context<CloseRequest>) -> Result<()> {
        CloseRequest::handle(ctx)
    }
}
