//! Ends a request that cannot be done. The fee stays for the payer to take back with the close.

use anchor_lang::prelude::*;

use crate::{errors::OracleError, events::RequestRejected, state::*};

#[derive(Accounts)]
pub struct RejectRequest<'info> {
    #[account(mut)]
    pub request: AccountLoader<'info, Request>,
    pub operator_key: Signer<'info>,
    #[account(
        constraint = operator.load()?.key == operator_key.key() @ OracleError::NotThisOperator,
        constraint = operator.load()?.queue == request.load()?.queue @ OracleError::OperatorOfAnotherQueue,
    )]
    pub operator: AccountLoader<'info, Operator>,
}

impl RejectRequest<'_> {
    pub fn handle(ctx: Context<RejectRequest>, reason: u8) -> Result<()> {
        require!(reason != 0, OracleError::ReasonMissing);
        let slot = Clock::get()?.slot;
        let operator = ctx.accounts.operator_key.key();
        let mut request = ctx.accounts.request.load_mut()?;
        request.require_settleable_by(&operator, slot)?;

        request.end(STATUS_REJECTED, slot);
        request.operator = operator;
        request.reason = reason;
        emit!(RequestRejected {
            request: ctx.accounts.request.key(),
            operator,
            reason,
            created_slot: request.created_slot,
        });
        Ok(())
    }
}
