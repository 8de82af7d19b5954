//! Opens a queue.

use anchor_lang::prelude::*;

use crate::{errors::OracleError, events::QueueCreated, state::*};

#[derive(Accounts)]
#[instruction(name: [u8; 32])]
pub struct CreateQueue<'info> {
    #[account(
        init,
        payer = authority,
        space = Queue::SPACE,
        seeds = [Queue::SEED, authority.key().as_ref(), name.as_ref()],
        bump,
    )]
    pub queue: Account<'info, Queue>,
    #[account(mut)]
    pub authority: Signer<'info>,
    pub system_program: Program<'info, System>,
}

impl CreateQueue<'_> {
    pub fn handle(ctx: Context<CreateQueue>, name: [u8; 32], terms: QueueTerms) -> Result<()> {
        require!(Queue::is_name(&name), OracleError::QueueNameInvalid);
        terms.validate()?;
        ctx.accounts.queue.set_inner(Queue {
            version: Queue::VERSION,
            bump: ctx.bumps.queue,
            authority: ctx.accounts.authority.key(),
            name,
            operator_count: 0,
            paused: false,
            terms,
            unclaimed_until_slot: 0,
        });
        emit!(QueueCreated { queue: ctx.accounts.queue.key() });
        Ok(())
    }
}
