//! Withdraws a request before an operator is bound to it.

use anchor_lang::prelude::*;

use crate::{errors::OracleError, events::RequestCancelled, state::*};

#[derive(Accounts)]
pub struct CancelRequest<'info> {
    #[account(mut, has_one = requester @ OracleError::NotRequester)]
    pub request: AccountLoader<'info, Request>,
    pub requester: Signer<'info>,
}

impl CancelRequest<'_> {
    pub fn handle(ctx: Context<CancelRequest>) -> Result<()> {
        let slot = Clock::get()?.slot;
        let mut request = ctx.accounts.request.load_mut()?;
        request.require_open()?;
        // Without claims an operator works at its own risk: a cancel after it has paid for the job would drain it.
        require!(request.claim_required != 0, OracleError::RequestFirm);
        if request.status == STATUS_CLAIMED {
            require!(request.lease_has_lapsed(slot), OracleError::LeaseRunning);
        }

        request.end(STATUS_CANCELLED, slot);
        emit!(RequestCancelled { request: ctx.accounts.request.key(), created_slot: request.created_slot });
        Ok(())
    }
}
