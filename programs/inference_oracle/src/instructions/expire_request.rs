//! Ends a request that nobody answered in time. Anyone may.

use anchor_lang::prelude::*;

use crate::{errors::OracleError, events::RequestExpired, state::*};

#[derive(Accounts)]
pub struct ExpireRequest<'info> {
    #[account(mut)]
    pub request: AccountLoader<'info, Request>,
}

impl ExpireRequest<'_> {
    pub fn handle(ctx: Context<ExpireRequest>) -> Result<()> {
        let slot = Clock::get()?.slot;
        let mut request = ctx.accounts.request.load_mut()?;
        request.require_open()?;
        require!(slot > request.deadline_slot, OracleError::DeadlineNotPassed);

        request.end(STATUS_EXPIRED, slot);
        emit!(RequestExpired { request: ctx.accounts.request.key(), created_slot: request.created_slot });
        Ok(())
    }
}
