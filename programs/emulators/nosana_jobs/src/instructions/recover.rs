//! Takes back the whole deposit of a job that its host has quit, and deletes the account.

use anchor_lang::prelude::*;

use crate::{
    constants::*,
    errors::{NosanaError, NosanaJobsError},
    state::*,
    token::pay_out,
};

#[derive(Accounts)]
pub struct Recover<'info> {
    #[account(
        mut,
        close = payer,
        has_one = market @ NosanaJobsError::InvalidMarketAccount,
        has_one = payer @ NosanaError::InvalidPayer,
        constraint = job.project == authority.key() @ NosanaError::Unauthorized,
        constraint = job.state == JOB_STOPPED @ NosanaJobsError::JobInWrongState,
    )]
    pub job: Box<Account<'info, JobAccount>>,
    #[account(has_one = vault @ NosanaError::InvalidVault)]
    pub market: Box<Account<'info, MarketAccount>>,
    /// CHECK: the market names it.
    #[account(mut)]
    pub vault: UncheckedAccount<'info>,
    /// CHECK: wherever the owner wants the refund.
    #[account(mut)]
    pub user: UncheckedAccount<'info>,
    /// CHECK: the job names it.
    #[account(mut)]
    pub payer: UncheckedAccount<'info>,
    pub authority: Signer<'info>,
    /// CHECK: only called.
    #[account(address = TOKEN_PROGRAM)]
    pub token_program: UncheckedAccount<'info>,
}

impl Recover<'_> {
    pub fn handle(ctx: Context<Recover>) -> Result<()> {
        let accounts = ctx.accounts;
        pay_out(&accounts.market, &accounts.vault, &accounts.user, accounts.job.deposit()?)
    }
}
