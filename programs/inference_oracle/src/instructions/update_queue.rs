//! Replaces a queue's terms, pauses or resumes it.

use anchor_lang::prelude::*;

use crate::{errors::OracleError, events::QueueUpdated, state::*};

#[derive(Accounts)]
pub struct UpdateQueue<'info> {
    #[account(mut, has_one = authority @ OracleError::NotQueueAuthority)]
    pub queue: Account<'info, Queue>,
    pub authority: Signer<'info>,
}

impl UpdateQueue<'_> {
    pub fn handle(ctx: Context<UpdateQueue>, terms: QueueTerms, paused: bool) -> Result<()> {
        terms.validate()?;
        let queue = &mut ctx.accounts.queue;
        require!(terms.claim_required || queue.operator_count <= 1, OracleError::ClaimsStillRequired);
        if !queue.terms.claim_required {
            // Requests under the old terms can be settled without a claim until the last of their deadlines.
            let last_deadline_slot =
                Clock::get()?.slot.checked_add(queue.terms.max_deadline_slots).ok_or(OracleError::Overflow)?;
            queue.unclaimed_until_slot = queue.unclaimed_until_slot.max(last_deadline_slot);
        }
        queue.terms = terms;
        queue.paused = paused;
        emit!(QueueUpdated { queue: queue.key() });
        Ok(())
    }
}
