//! A host asks for work: it gets the oldest job that waits, or waits itself.

use anchor_lang::prelude::*;

use crate::{
    errors::{NosanaError, NosanaJobsError},
    state::*,
};

#[derive(Accounts)]
pub struct Work<'info> {
    /// CHECK: becomes a run account if a job waits.
    #[account(mut, signer @ NosanaError::MissingSignature)]
    pub run: UncheckedAccount<'info>,
    #[account(mut)]
    pub market: Box<Account<'info, MarketAccount>>,
    #[account(mut)]
    pub payer: Signer<'info>,
    /// CHECK: there is no staking here.
    pub stake: UncheckedAccount<'info>,
    /// CHECK: there are no access keys here.
    pub nft: UncheckedAccount<'info>,
    /// CHECK: there are no access keys here.
    pub metadata: UncheckedAccount<'info>,
    pub authority: Signer<'info>,
    pub system_program: Program<'info, System>,
}

impl Work<'_> {
    pub fn handle(ctx: Context<Work>) -> Result<()> {
        let accounts = ctx.accounts;
        accounts.market.check_node()?;
        RunAccount::check_unused(&accounts.run)?;
        let node = accounts.authority.key();
        if accounts.market.queue_type == QUEUE_OF_JOBS {
            let job = accounts.market.pop()?;
            return RunAccount::create(&accounts.run, &accounts.payer, &accounts.system_program, job, node);
        }
        require!(!accounts.market.queue.contains(&node), NosanaJobsError::NodeAlreadyQueued);
        accounts.market.push(node, QUEUE_OF_NODES);
        Ok(())
    }
}
