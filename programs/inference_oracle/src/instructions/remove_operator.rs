//! Takes an operator off a queue. A lease it holds still runs to its end before another may claim.

use anchor_lang::prelude::*;

use crate::{errors::OracleError, events::OperatorRemoved, state::*};

#[derive(Accounts)]
pub struct RemoveOperator<'info> {
    #[account(
        mut,
        close = authority,
        constraint = operator.load()?.queue == queue.key() @ OracleError::OperatorOfAnotherQueue,
    )]
    pub operator: AccountLoader<'info, Operator>,
    #[account(mut, has_one = authority @ OracleError::NotQueueAuthority)]
    pub queue: Account<'info, Queue>,
    #[account(mut)]
    pub authority: Signer<'info>,
}

impl RemoveOperator<'_> {
    pub fn handle(ctx: Context<RemoveOperator>) -> Result<()> {
        let queue = &mut ctx.accounts.queue;
        queue.operator_count = queue.operator_count.checked_sub(1).ok_or(OracleError::Overflow)?;
        emit!(OperatorRemoved { queue: queue.key(), operator: ctx.accounts.operator.load()?.key });
        Ok(())
    }
}
