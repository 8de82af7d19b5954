//! Fulfils a request and pays its fee to the operator. Eight of these fit a transaction: every byte and unit counts.

use anchor_lang::prelude::*;

use crate::{errors::OracleError, events::InferenceRecorded, state::*};

#[derive(Accounts)]
pub struct RecordInferenceResult<'info> {
    #[account(mut)]
    pub request: AccountLoader<'info, Request>,
    #[account(mut)]
    pub operator_key: Signer<'info>,
    #[account(
        constraint = operator.load()?.key == operator_key.key() @ OracleError::NotThisOperator,
        constraint = operator.load()?.queue == request.load()?.queue @ OracleError::OperatorOfAnotherQueue,
    )]
    pub operator: AccountLoader<'info, Operator>,
}

impl RecordInferenceResult<'_> {
    pub fn handle(
        ctx: Context<RecordInferenceResult>,
        output_hash: [u8; 32],
        job_hash: [u8; 32],
        completed_at: i64,
    ) -> Result<()> {
        let slot = Clock::get()?.slot;
        let operator = ctx.accounts.operator_key.key();
        let mut request = ctx.accounts.request.load_mut()?;
        request.require_settleable_by(&operator, slot)?;

        request.end(STATUS_FULFILLED, slot);
        request.operator = operator;
        request.output_hash = output_hash;
        request.job_hash = job_hash;
        request.completed_at = completed_at;
        // The stored fee, never "the balance less the rent": what others sent to the account goes back with the close.
        ctx.accounts.request.sub_lamports(request.fee)?;
        ctx.accounts.operator_key.add_lamports(request.fee)?;
        emit!(InferenceRecorded {
            request: ctx.accounts.request.key(),
            operator,
            output_hash,
            job_hash,
            created_slot: request.created_slot,
            completed_at,
        });
        Ok(())
    }
}
