//! A host leaves the queue. It is not the job that is stopped.

use anchor_lang::prelude::*;

use crate::{
    errors::{NosanaError, NosanaJobsError},
    state::*,
};

#[derive(Accounts)]
pub struct Stop<'info> {
    #[account(
        mut,
        constraint = market.queue_type == QUEUE_OF_NODES @ NosanaJobsError::MarketInWrongState,
        constraint = [market.authority, node.key()].contains(authority.key) @ NosanaError::Unauthorized,
    )]
    pub market: Box<Account<'info, MarketAccount>>,
    /// CHECK: looked for in the queue.
    pub node: UncheckedAccount<'info>,
    pub authority: Signer<'info>,
}

impl Stop<'_> {
    pub fn handle(ctx: Context<Stop>) -> Result<()> {
        ctx.accounts.market.remove(ctx.accounts.node.key)
    }
}
