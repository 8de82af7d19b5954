//! The host gives its job up. The deposit stays until the owner recovers it, or another host takes over.

use anchor_lang::prelude::*;

use crate::{
    errors::{NosanaError, NosanaJobsError},
    state::*,
};

#[derive(Accounts)]
pub struct Quit<'info> {
    #[account(mut)]
    pub job: Box<Account<'info, JobAccount>>,
    #[account(
        mut,
        close = payer,
        has_one = job @ NosanaJobsError::JobInvalidRunAccount,
        has_one = payer @ NosanaError::InvalidPayer,
        constraint = run.node == authority.key() @ NosanaError::Unauthorized,
    )]
    pub run: Box<Account<'info, RunAccount>>,
    /// CHECK: the run names it.
    #[account(mut)]
    pub payer: UncheckedAccount<'info>,
    pub authority: Signer<'info>,
}

impl Quit<'_> {
    pub fn handle(ctx: Context<Quit>) -> Result<()> {
        ctx.accounts.job.state = JOB_STOPPED;
        Ok(())
    }
}
