//! Deletes a job that ended long enough ago. From then on its key is free again.

use anchor_lang::prelude::*;

use crate::{
    errors::{NosanaError, NosanaJobsError},
    state::*,
};

#[derive(Accounts)]
pub struct Clean<'info> {
    #[account(
        mut,
        close = payer,
        has_one = market @ NosanaJobsError::InvalidMarketAccount,
        has_one = payer @ NosanaError::InvalidPayer,
        constraint = job.state == JOB_DONE @ NosanaJobsError::JobInWrongState,
    )]
    pub job: Box<Account<'info, JobAccount>>,
    pub market: Box<Account<'info, MarketAccount>>,
    /// CHECK: the job names it.
    #[account(mut)]
    pub payer: UncheckedAccount<'info>,
}

impl Clean<'_> {
    pub fn handle(ctx: Context<Clean>) -> Result<()> {
        let age_seconds = Clock::get()?.unix_timestamp.saturating_sub(ctx.accounts.job.time_end);
        require!(age_seconds > ctx.accounts.market.job_expiration, NosanaJobsError::JobNotExpired);
        Ok(())
    }
}
