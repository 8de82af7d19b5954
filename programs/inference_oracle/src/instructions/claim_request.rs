//! Takes a lease on a request: until it lapses nobody else may work on it.

use anchor_lang::prelude::*;

use crate::{errors::OracleError, events::RequestClaimed, state::*};

#[derive(Accounts)]
pub struct ClaimRequest<'info> {
    #[account(mut)]
    pub request: AccountLoader<'info, Request>,
    pub operator_key: Signer<'info>,
    #[account(
        constraint = operator.load()?.key == operator_key.key() @ OracleError::NotThisOperator,
        constraint = operator.load()?.queue == request.load()?.queue @ OracleError::OperatorOfAnotherQueue,
    )]
    pub operator: AccountLoader<'info, Operator>,
    #[account(
        constraint = queue.key() == request.load()?.queue @ OracleError::QueueOfAnotherRequest,
        constraint = !queue.paused @ OracleError::QueuePaused,
    )]
    pub queue: Account<'info, Queue>,
}

impl ClaimRequest<'_> {
    pub fn handle(ctx: Context<ClaimRequest>) -> Result<()> {
        let slot = Clock::get()?.slot;
        let operator = ctx.accounts.operator_key.key();
        let mut request = ctx.accounts.request.load_mut()?;
        request.require_open()?;
        require!(request.claim_required != 0, OracleError::ClaimNotRequired);
        if request.status == STATUS_CLAIMED {
            // Else an operator could hold a request for ever without doing it.
            require_keys_neq!(request.operator, operator, OracleError::AlreadyClaimed);
            require!(request.lease_has_lapsed(slot), OracleError::ClaimedByAnother);
        }
        request.require_in_time(slot)?;

        let lease_end_slot = slot.checked_add(request.lease_slots.into()).ok_or(OracleError::Overflow)?;
        request.status = STATUS_CLAIMED;
        request.operator = operator;
        request.claim_expires_slot = lease_end_slot.min(request.deadline_slot);
        emit!(RequestClaimed {
            request: ctx.accounts.request.key(),
            operator,
            claim_expires_slot: request.claim_expires_slot,
        });
        Ok(())
    }
}
