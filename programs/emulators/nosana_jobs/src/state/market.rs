//! A market: the terms of a class of hosts, and the queue in which either jobs or hosts wait.

use anchor_lang::prelude::*;

use crate::errors::NosanaJobsError;

pub const QUEUE_OF_JOBS: u8 = 0;
pub const QUEUE_OF_NODES: u8 = 1;
pub const QUEUE_EMPTY: u8 = 255;

#[account]
pub struct MarketAccount {
    pub authority: Pubkey,
    /// Seconds after its end for which a job stays.
    pub job_expiration: i64,
    /// Millionths of a NOS per second.
    pub job_price: u64,
    pub job_timeout: i64,
    pub job_type: u8,
    pub vault: Pubkey,
    pub vault_bump: u8,
    pub node_access_key: Pubkey,
    pub node_xnos_minimum: u128,
    pub queue_type: u8,
    pub queue: Vec<Pubkey>,
}

impl MarketAccount {
    /// Room for 314 waiting.
    pub const SIZE: usize = 151 + 314 * 32;

    pub fn push(&mut self, key: Pubkey, queue_type: u8) {
        self.queue_type = queue_type;
        self.queue.push(key);
    }

    /// Who has waited longest. Raises `NotInMarketQueue` where nobody waits.
    pub fn pop(&mut self) -> Result<Pubkey> {
        require!(!self.queue.is_empty(), NosanaJobsError::NotInMarketQueue);
        Ok(self.take(0))
    }

    pub fn remove(&mut self, key: &Pubkey) -> Result<()> {
        let position = self.queue.iter().position(|waiting| waiting == key);
        self.take(position.ok_or(NosanaJobsError::NotInMarketQueue)?);
        Ok(())
    }

    fn take(&mut self, position: usize) -> Pubkey {
        if self.queue.len() == 1 {
            self.queue_type = QUEUE_EMPTY;
        }
        self.queue.remove(position)
    }

    /// Hosts need neither stake nor access key here; a market that asks for them has no hosts.
    pub fn check_node(&self) -> Result<()> {
        require!(self.node_xnos_minimum == 0, NosanaJobsError::NodeNotEnoughStake);
        require_keys_eq!(self.node_access_key, Pubkey::default(), NosanaJobsError::NodeKeyInvalidCollection);
        Ok(())
    }
}
