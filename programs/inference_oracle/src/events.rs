//! What the program logs. A courtesy: any program can log the same bytes, the accounts are the truth.

use anchor_lang::prelude::*;

#[event]
pub struct QueueCreated {
    pub queue: Pubkey,
}

#[event]
pub struct QueueUpdated {
    pub queue: Pubkey,
}

#[event]
pub struct OperatorAdded {
    pub queue: Pubkey,
    /// The operator's signing key, here and in every event.
    pub operator: Pubkey,
}

#[event]
pub struct OperatorUpdated {
    pub queue: Pubkey,
    pub operator: Pubkey,
}

#[event]
pub struct OperatorRemoved {
    pub queue: Pubkey,
    pub operator: Pubkey,
}

#[event]
pub struct RequestSubmitted {
    pub request: Pubkey,
    pub queue: Pubkey,
    pub requester: Pubkey,
    pub fee_lamports: u64,
    pub deadline_slot: u64,
    pub created_slot: u64,
}

#[event]
pub struct RequestClaimed {
    pub request: Pubkey,
    pub operator: Pubkey,
    pub claim_expires_slot: u64,
}

#[event]
pub struct InferenceRecorded {
    pub request: Pubkey,
    pub operator: Pubkey,
    pub output_hash: [u8; 32],
    pub job_hash: [u8; 32],
    pub created_slot: u64,
    pub completed_at: i64,
}

#[event]
pub struct OutputPublished {
    pub request: Pubkey,
    pub output_len: u32,
}

#[event]
pub struct RequestRejected {
    pub request: Pubkey,
    pub operator: Pubkey,
    pub reason: u8,
    pub created_slot: u64,
}

#[event]
pub struct RequestCancelled {
    pub request: Pubkey,
    pub created_slot: u64,
}

#[event]
pub struct RequestExpired {
    pub request: Pubkey,
    pub created_slot: u64,
}

#[event]
pub struct RequestClosed {
    pub request: Pubkey,
    pub created_slot: u64,
    pub returned_lamports: u64,
}
