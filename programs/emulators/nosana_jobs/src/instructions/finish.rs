//! The host ends its job with a result. It is paid for the seconds it took; the rest goes back to the payer.

use anchor_lang::prelude::*;

use crate::{
    constants::*,
    errors::{NosanaError, NosanaJobsError},
    state::*,
    token::{check_account_of, pay_out},
};

#[derive(Accounts)]
pub struct Finish<'info> {
    #[account(
        mut,
        has_one = market @ NosanaJobsError::InvalidMarketAccount,
        constraint = job.payer == payer_job.key() @ NosanaError::InvalidPayer,
    )]
    pub job: Box<Account<'info, JobAccount>>,
    #[account(
        mut,
        close = payer_run,
        has_one = job @ NosanaJobsError::JobInvalidRunAccount,
        constraint = run.node == authority.key() @ NosanaError::Unauthorized,
        constraint = run.payer == payer_run.key() @ NosanaError::InvalidPayer,
    )]
    pub run: Box<Account<'info, RunAccount>>,
    #[account(has_one = vault @ NosanaError::InvalidVault)]
    pub market: Box<Account<'info, MarketAccount>>,
    /// CHECK: the market names it.
    #[account(mut)]
    pub vault: UncheckedAccount<'info>,
    /// CHECK: the NOS account of the job's payer.
    #[account(mut)]
    pub deposit: UncheckedAccount<'info>,
    /// CHECK: wherever the host wants its pay.
    #[account(mut)]
    pub user: UncheckedAccount<'info>,
    /// CHECK: the run names it.
    #[account(mut)]
    pub payer_run: UncheckedAccount<'info>,
    /// CHECK: the job names it.
    #[account(mut)]
    pub payer_job: UncheckedAccount<'info>,
    pub authority: Signer<'info>,
    /// CHECK: only called.
    #[account(address = TOKEN_PROGRAM)]
    pub token_program: UncheckedAccount<'info>,
}

impl Finish<'_> {
    pub fn handle(ctx: Context<Finish>, ipfs_result: [u8; 32]) -> Result<()> {
        require!(ipfs_result != NO_RESULT, NosanaJobsError::JobResultNull);
        let accounts = ctx.accounts;
        let run = &accounts.run;
        check_account_of(&accounts.deposit, &accounts.job.payer, accounts.job.price)?;
        let (earned, rest) = accounts.job.end(run.node, run.time, Clock::get()?.unix_timestamp)?;
        accounts.job.ipfs_result = ipfs_result;
        pay_out(&accounts.market, &accounts.vault, &accounts.user, earned)?;
        pay_out(&accounts.market, &accounts.vault, &accounts.deposit, rest)
    }
}
