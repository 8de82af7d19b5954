//! Emulates Nosana's Jobs program: markets, jobs and runs, with the tokens they move. For local networks only.
//!
//! Written from the interface that Nosana publishes (instructions, account orders, layouts, errors) and from how jobs
//! are documented to live: a job waits in its market's queue, or is handed to a host that waits there; the host's run
//! account is what makes it running; the deposit pays the seconds that were used, and the rest goes back.
//!
//! What it leaves out: staking, access keys, the network fee, `assign`, and what only Nosana's own admin may do.

use anchor_lang::prelude::*;

mod constants;
mod errors;
mod instructions;
mod state;
mod token;

pub use constants::*;
pub use errors::*;
pub use instructions::*;
pub use state::*;

declare_id!("nosJhNRqr2bc9g1nfGDcXXTXvYUmxD4cVwy2pMWhrYM");

#[program]
pub mod nosana_jobs {
    use super::*;

    /// Opens a market and its vault.
    pub fn open(
        ctx: Context<Open>,
        job_expiration: i64,
        job_price: u64,
        job_timeout: i64,
        job_type: u8,
        node_xnos_minimum: u128,
    ) -> Result<()> {
        Open::handle(ctx, job_expiration, job_price, job_timeout, job_type, node_xnos_minimum)
    }

    /// Pays for a job of `timeout` seconds, and queues it or hands it to the host that has waited longest.
    pub fn list(ctx: Context<List>, ipfs_job: [u8; 32], timeout: i64) -> Result<()> {
        List::handle(ctx, ipfs_job, timeout)
    }

    /// Withdraws a job that no host has taken; the whole deposit goes back.
    pub fn delist(ctx: Context<Delist>) -> Result<()> {
        Delist::handle(ctx)
    }

    /// Takes back the deposit of a job that its host has quit.
    pub fn recover(ctx: Context<Recover>) -> Result<()> {
        Recover::handle(ctx)
    }

    /// Buys more time; `timeout` is the new total in seconds.
    pub fn extend(ctx: Context<Extend>, timeout: i64) -> Result<()> {
        Extend::handle(ctx, timeout)
    }

    /// Ends a running job for its owner, who pays for the seconds it ran.
    pub fn end(ctx: Context<End>) -> Result<()> {
        End::handle(ctx)
    }

    /// A host takes the oldest job that waits, or waits for one.
    pub fn work(ctx: Context<Work>) -> Result<()> {
        Work::handle(ctx)
    }

    /// A host leaves the queue.
    pub fn stop(ctx: Context<Stop>) -> Result<()> {
        Stop::handle(ctx)
    }

    /// A host takes over a job that another has quit.
    pub fn claim(ctx: Context<Claim>) -> Result<()> {
        Claim::handle(ctx)
    }

    /// The host hands in the result of a job that its owner has ended.
    pub fn complete(ctx: Context<Complete>, ipfs_result: [u8; 32]) -> Result<()> {
        Complete::handle(ctx, ipfs_result)
    }

    /// The host ends its job with a result and is paid.
    pub fn finish(ctx: Context<Finish>, ipfs_result: [u8; 32]) -> Result<()> {
        Finish::handle(ctx, ipfs_result)
    }

    /// The host gives its job up.
    pub fn quit(ctx: Context<Quit>) -> Result<()> {
        Quit::handle(ctx)
    }

    /// Deletes a job that ended long ago.
    pub fn clean(ctx: Context<Clean>) -> Result<()> {
        Clean::handle(ctx)
    }
}
