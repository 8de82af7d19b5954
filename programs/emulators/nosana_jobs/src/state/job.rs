//! A job: what is to be done, who pays, and what came of it.

use anchor_lang::prelude::*;

use crate::errors::NosanaError;

/// Waiting or running: a run account tells the two apart.
pub const JOB_QUEUED: u8 = 0;
pub const JOB_DONE: u8 = 2;
pub const JOB_STOPPED: u8 = 3;

pub const NO_RESULT: [u8; 32] = [0; 32];

#[account]
pub struct JobAccount {
    pub ipfs_job: [u8; 32],
    pub ipfs_result: [u8; 32],
    pub market: Pubkey,
    pub node: Pubkey,
    pub payer: Pubkey,
    /// Millionths of a NOS per second, as the market asked when the job was listed.
    pub price: u64,
    /// The owner.
    pub project: Pubkey,
    pub state: u8,
    pub time_end: i64,
    pub time_start: i64,
    pub timeout: i64,
}

impl JobAccount {
    /// 233 bytes are used.
    pub const SIZE: usize = 240;

    pub fn deposit(&self) -> Result<u64> {
        price_of(self.price, self.timeout)
    }

    /// Ends the job, and splits its deposit: what the host has earned, and what goes back.
    pub fn end(&mut self, node: Pubkey, time_start: i64, now: i64) -> Result<(u64, u64)> {
        self.node = node;
        self.time_start = time_start;
        self.time_end = now;
        self.state = JOB_DONE;
        let earned = price_of(self.price, now.saturating_sub(time_start).clamp(0, self.timeout))?;
        Ok((earned, self.deposit()? - earned))
    }
}

/// What so many seconds cost, in millionths of a NOS.
pub fn price_of(price: u64, seconds: i64) -> Result<u64> {
    let seconds = u64::try_from(seconds).map_err(|_| NosanaError::InvalidAccount)?;
    price.checked_mul(seconds).ok_or_else(|| NosanaError::InvalidAccount.into())
}
