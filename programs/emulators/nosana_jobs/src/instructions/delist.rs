//! Withdraws a job that no host has taken; the whole deposit goes back, and the account is deleted.

use anchor_lang::prelude::*;

use crate::{
    constants::*,
    errors::{NosanaError, NosanaJobsError},
    state::*,
    token::{check_account_of, pay_out},
};

#[derive(Accounts)]
pub struct Delist<'info> {
    #[account(
        mut,
        close = payer,
        has_one = market @ NosanaJobsError::InvalidMarketAccount,
        has_one = payer @ NosanaError::InvalidPayer,
        constraint = job.project == authority.key() @ NosanaError::Unauthorized,
        constraint = job.state == JOB_QUEUED @ NosanaJobsError::JobInWrongState,
    )]
    pub job: Box<Account<'info, JobAccount>>,
    #[account(
        mut,
        has_one = vault @ NosanaError::InvalidVault,
        constraint = market.queue_type == QUEUE_OF_JOBS @ NosanaJobsError::MarketInWrongState,
    )]
    pub market: Box<Account<'info, MarketAccount>>,
    /// CHECK: the payer's NOS account.
    #[account(mut)]
    pub deposit: UncheckedAccount<'info>,
    /// CHECK: the job names it.
    #[account(mut)]
    pub payer: UncheckedAccount<'info>,
    /// CHECK: the market names it.
    #[account(mut)]
    pub vault: UncheckedAccount<'info>,
    /// CHECK: only called.
    #[account(address = TOKEN_PROGRAM)]
    pub token_program: UncheckedAccount<'info>,
    #[account(mut)]
    pub authority: Signer<'info>,
}

impl Delist<'_> {
    pub fn handle(ctx: Context<Delist>) -> Result<()> {
        let accounts = ctx.accounts;
        check_account_of(&accounts.deposit, &accounts.job.payer, accounts.job.price)?;
        accounts.market.remove(&accounts.job.key())?;
        pay_out(&accounts.market, &accounts.vault, &accounts.deposit, accounts.job.deposit()?)
    }
}
