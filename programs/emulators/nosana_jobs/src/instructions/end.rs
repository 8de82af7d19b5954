//! Ends a running job for its owner. The result stays open: the host may hand one in with `complete`.

use anchor_lang::prelude::*;

use crate::{
    constants::*,
    errors::{NosanaError, NosanaJobsError},
    state::*,
    token::{check_account_of, pay_out},
};

#[derive(Accounts)]
pub struct End<'info> {
    #[account(
        mut,
        has_one = market @ NosanaJobsError::InvalidMarketAccount,
        constraint = job.project == authority.key() @ NosanaError::Unauthorized,
    )]
    pub job: Box<Account<'info, JobAccount>>,
    #[account(has_one = vault @ NosanaError::InvalidVault)]
    pub market: Box<Account<'info, MarketAccount>>,
    #[account(
        mut,
        close = payer,
        has_one = job @ NosanaJobsError::JobInvalidRunAccount,
        has_one = payer @ NosanaError::InvalidPayer,
    )]
    pub run: Box<Account<'info, RunAccount>>,
    /// CHECK: the NOS account of the job's payer.
    #[account(mut)]
    pub deposit: UncheckedAccount<'info>,
    /// CHECK: the NOS account of the host.
    #[account(mut)]
    pub user: UncheckedAccount<'info>,
    /// CHECK: the market names it.
    #[account(mut)]
    pub vault: UncheckedAccount<'info>,
    /// CHECK: the run names it.
    #[account(mut)]
    pub payer: UncheckedAccount<'info>,
    #[account(mut)]
    pub authority: Signer<'info>,
    /// CHECK: only called.
    #[account(address = TOKEN_PROGRAM)]
    pub token_program: UncheckedAccount<'info>,
}

impl End<'_> {
    pub fn handle(ctx: Context<End>) -> Result<()> {
        let accounts = ctx.accounts;
        let run = &accounts.run;
        check_account_of(&accounts.deposit, &accounts.job.payer, accounts.job.price)?;
        check_account_of(&accounts.user, &run.node, accounts.job.price)?;
        let (earned, rest) = accounts.job.end(run.node, run.time, Clock::get()?.unix_timestamp)?;
        pay_out(&accounts.market, &accounts.vault, &accounts.user, earned)?;
        pay_out(&accounts.market, &accounts.vault, &accounts.deposit, rest)
    }
}
