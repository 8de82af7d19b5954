//! Pays for a job, and queues it or hands it to the host that has waited longest.

use anchor_lang::prelude::*;

use crate::{constants::*, errors::NosanaError, state::*, token::transfer};

#[derive(Accounts)]
pub struct List<'info> {
    #[account(init, payer = payer, space = JobAccount::SIZE)]
    pub job: Box<Account<'info, JobAccount>>,
    #[account(mut, has_one = vault @ NosanaError::InvalidVault)]
    pub market: Box<Account<'info, MarketAccount>>,
    /// CHECK: becomes a run account if a host waits.
    #[account(mut, signer @ NosanaError::MissingSignature)]
    pub run: UncheckedAccount<'info>,
    /// CHECK: the token program refuses what is not the payer's to spend.
    #[account(mut)]
    pub user: UncheckedAccount<'info>,
    /// CHECK: the market names it.
    #[account(mut)]
    pub vault: UncheckedAccount<'info>,
    #[account(mut)]
    pub payer: Signer<'info>,
    /// CHECK: the network fee is off.
    #[account(mut)]
    pub rewards_reflection: UncheckedAccount<'info>,
    /// CHECK: the network fee is off.
    #[account(mut)]
    pub rewards_vault: UncheckedAccount<'info>,
    pub authority: Signer<'info>,
    /// CHECK: the network fee is off.
    #[account(address = REWARDS_PROGRAM)]
    pub rewards_program: UncheckedAccount<'info>,
    /// CHECK: only called.
    #[account(address = TOKEN_PROGRAM)]
    pub token_program: UncheckedAccount<'info>,
    pub system_program: Program<'info, System>,
}

impl List<'_> {
    pub fn handle(ctx: Context<List>, ipfs_job: [u8; 32], timeout: i64) -> Result<()> {
        let accounts = ctx.accounts;
        RunAccount::check_unused(&accounts.run)?;
        let deposit = price_of(accounts.market.job_price, timeout)?;
        transfer(&accounts.user, &accounts.vault, &accounts.payer, deposit)?;
        **accounts.job = JobAccount {
            ipfs_job,
            ipfs_result: NO_RESULT,
            market: accounts.market.key(),
            node: Pubkey::default(),
            payer: accounts.payer.key(),
            price: accounts.market.job_price,
            project: accounts.authority.key(),
            state: JOB_QUEUED,
            time_end: 0,
            time_start: 0,
            timeout,
        };
        let job = accounts.job.key();
        if accounts.market.queue_type == QUEUE_OF_NODES {
            let node = accounts.market.pop()?;
            RunAccount::create(&accounts.run, &accounts.payer, &accounts.system_program, job, node)
        } else {
            accounts.market.push(job, QUEUE_OF_JOBS);
            Ok(())
        }
    }
}
