//! Lets a key serve a queue.

use anchor_lang::prelude::*;

use crate::{errors::OracleError, events::OperatorAdded, state::*};

#[derive(Accounts)]
pub struct AddOperator<'info> {
    #[account(
        init,
        payer = authority,
        space = Operator::SPACE,
        seeds = [Operator::SEED, queue.key().as_ref(), operator_key.key().as_ref()],
        bump,
    )]
    pub operator: AccountLoader<'info, Operator>,
    #[account(mut, has_one = authority @ OracleError::NotQueueAuthority)]
    pub queue: Account<'info, Queue>,
    #[account(mut)]
    pub authority: Signer<'info>,
    /// CHECK: any key may become an operator; it proves itself by signing what it does.
    pub operator_key: UncheckedAccount<'info>,
    pub system_program: Program<'info, System>,
}

impl AddOperator<'_> {
    pub fn handle(ctx: Context<AddOperator>, uri: String) -> Result<()> {
        let queue = &mut ctx.accounts.queue;
        // Where no claim is needed, a second operator could copy the first one's record and be paid for it.
        if queue.operator_count >= 1 {
            require!(queue.terms.claim_required, OracleError::SecondOperatorNeedsClaims);
            require!(Clock::get()?.slot > queue.unclaimed_until_slot, OracleError::UnclaimedRequestsRemain);
        }
        queue.operator_count = queue.operator_count.checked_add(1).ok_or(OracleError::Overflow)?;

        let mut operator = ctx.accounts.operator.load_init()?;
        operator.version = Operator::VERSION;
        operator.bump = ctx.bumps.operator;
        operator.queue = queue.key();
        operator.key = ctx.accounts.operator_key.key();
        operator.set_uri(&uri)?;
        emit!(OperatorAdded { queue: operator.queue, operator: operator.key });
        Ok(())
    }
}
