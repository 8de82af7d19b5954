//! Buys more time for a job that waits or runs, at the job's own price.

use anchor_lang::prelude::*;

use crate::{
    constants::*,
    errors::{NosanaError, NosanaJobsError},
    state::*,
    token::{check_account_of, transfer},
};

#[derive(Accounts)]
pub struct Extend<'info> {
    #[account(
        mut,
        has_one = market @ NosanaJobsError::InvalidMarketAccount,
        constraint = job.project == authority.key() @ NosanaError::Unauthorized,
        constraint = job.price == 0 || job.payer == payer.key() @ NosanaError::Unauthorized,
        constraint = job.state == JOB_QUEUED @ NosanaJobsError::JobInWrongState,
    )]
    pub job: Box<Account<'info, JobAccount>>,
    #[account(has_one = vault @ NosanaError::InvalidVault)]
    pub market: Box<Account<'info, MarketAccount>>,
    /// CHECK: the payer's NOS account.
    #[account(mut)]
    pub user: UncheckedAccount<'info>,
    /// CHECK: the market names it.
    #[account(mut)]
    pub vault: UncheckedAccount<'info>,
    /// CHECK: the network fee is off.
    #[account(mut)]
    pub rewards_reflection: UncheckedAccount<'info>,
    /// CHECK: the network fee is off.
    #[account(mut)]
    pub rewards_vault: UncheckedAccount<'info>,
    pub authority: Signer<'info>,
    pub payer: Signer<'info>,
    /// CHECK: the network fee is off.
    #[account(address = REWARDS_PROGRAM)]
    pub rewards_program: UncheckedAccount<'info>,
    /// CHECK: only called.
    #[account(address = TOKEN_PROGRAM)]
    pub token_program: UncheckedAccount<'info>,
}

impl Extend<'_> {
    pub fn handle(ctx: Context<Extend>, timeout: i64) -> Result<()> {
        let accounts = ctx.accounts;
        require_gt!(timeout, accounts.job.timeout, NosanaJobsError::JobTimeoutNotGreater);
        check_account_of(&accounts.user, &accounts.payer.key(), accounts.job.price)?;
        let before = accounts.job.deposit()?;
        accounts.job.timeout = timeout;
        transfer(&accounts.user, &accounts.vault, &accounts.payer, accounts.job.deposit()? - before)
    }
}
