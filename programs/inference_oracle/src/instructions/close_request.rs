//! Deletes an ended request and returns all it holds: the rent, the fee where no result came, and any dust.

use anchor_lang::prelude::*;

use crate::{errors::OracleError, events::RequestClosed, state::*};

#[derive(Accounts)]
pub struct CloseRequest<'info> {
    #[account(mut, close = refund_to, has_one = refund_to @ OracleError::NotRefundAccount)]
    pub request: AccountLoader<'info, Request>,
    /// CHECK: only credited, and it is the key that the request names.
    #[account(mut)]
    pub refund_to: UncheckedAccount<'info>,
    pub closer: Signer<'info>,
}

impl CloseRequest<'_> {
    pub fn handle(ctx: Context<CloseRequest>) -> Result<()> {
        let slot = Clock::get()?.slot;
        let request = ctx.accounts.request.load()?;
        require!(request.settled_slot != 0, OracleError::RequestStillOpen);
        // Address and created slot name one life of a request. A second one in the same slot would share its name.
        require!(slot > request.created_slot, OracleError::CloseInSlotOfCreation);
        if ctx.accounts.closer.key() != request.refund_to {
            let last_retained_slot =
                request.settled_slot.checked_add(request.retention_slots.into()).ok_or(OracleError::Overflow)?;
            require!(slot > last_retained_slot, OracleError::RetentionRunning);
        }
        emit!(RequestClosed {
            request: ctx.accounts.request.key(),
            created_slot: request.created_slot,
            returned_lamports: ctx.accounts.request.get_lamports(),
        });
        Ok(())
    }
}
