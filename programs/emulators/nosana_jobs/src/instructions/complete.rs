//! The host hands in, once, the result of a job that its owner has ended.

use anchor_lang::prelude::*;

use crate::{
    errors::{NosanaError, NosanaJobsError},
    state::*,
};

#[derive(Accounts)]
pub struct Complete<'info> {
    #[account(
        mut,
        constraint = job.state == JOB_DONE @ NosanaJobsError::JobInWrongState,
        constraint = job.node == authority.key() @ NosanaError::Unauthorized,
        constraint = job.ipfs_result == NO_RESULT @ NosanaJobsError::JobResultsAlreadySet,
    )]
    pub job: Box<Account<'info, JobAccount>>,
    pub authority: Signer<'info>,
}

impl Complete<'_> {
    pub fn handle(ctx: Context<Complete>, ipfs_result: [u8; 32]) -> Result<()> {
        require!(ipfs_result != NO_RESULT, NosanaJobsError::JobResultNull);
        ctx.accounts.job.ipfs_result = ipfs_result;
        Ok(())
    }
}
