//! A host takes over a job that another has quit. The job stays stopped until it is finished.

use anchor_lang::prelude::*;

use crate::{errors::NosanaJobsError, state::*};

#[derive(Accounts)]
pub struct Claim<'info> {
    #[account(
        mut,
        has_one = market @ NosanaJobsError::InvalidMarketAccount,
        constraint = job.state == JOB_STOPPED @ NosanaJobsError::JobInWrongState,
    )]
    pub job: Box<Account<'info, JobAccount>>,
    #[account(init, payer = payer, space = RunAccount::SIZE)]
    pub run: Box<Account<'info, RunAccount>>,
    pub market: Box<Account<'info, MarketAccount>>,
    /// CHECK: there is no staking here.
    pub stake: UncheckedAccount<'info>,
    /// CHECK: there are no access keys here.
    pub nft: UncheckedAccount<'info>,
    /// CHECK: there are no access keys here.
    pub metadata: UncheckedAccount<'info>,
    #[account(mut)]
    pub payer: Signer<'info>,
    pub authority: Signer<'info>,
    pub system_program: Program<'info, System>,
}

impl Claim<'_> {
    pub fn handle(ctx: Context<Claim>) -> Result<()> {
        let accounts = ctx.accounts;
        accounts.market.check_node()?;
        **accounts.run = RunAccount {
            job: accounts.job.key(),
            node: accounts.authority.key(),
            payer: accounts.payer.key(),
            state: 0,
            time: Clock::get()?.unix_timestamp,
        };
        Ok(())
    }
}
