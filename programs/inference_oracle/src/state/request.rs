//! A request: a fixed header at frozen offsets, then the body, then room for an inline output.

use anchor_lang::prelude::*;

use crate::{errors::OracleError, state::Queue};

// Fields are in order of their offsets, which clients filter on and read without decoding: none may move.
#[account(zero_copy)]
pub struct Request {
    pub version: u8,
    /// One of the `STATUS_` constants.
    pub status: u8,
    /// The operator's code for a rejection, else 0.
    pub reason: u8,
    pub bump: u8,
    pub body_len: u32,
    pub queue: Pubkey,
    /// The signing key of the operator that claimed, then of the one that settled; zero if none has.
    pub operator: Pubkey,
    /// The last slot at which a result is accepted.
    pub deadline_slot: u64,
    /// The last slot of the claim's lease.
    pub claim_expires_slot: u64,
    /// Lamports, held in the account until the record or the close.
    pub fee: u64,
    pub created_slot: u64,
    /// The slot in which the request ended, in whatever way; 0 while it is open.
    pub settled_slot: u64,
    pub nonce: u64,
    pub requester: Pubkey,
    /// Who paid, and gets everything that is left.
    pub refund_to: Pubkey,
    /// SHA-256 of the body's bytes.
    pub body_hash: [u8; 32],
    /// The program to call with the result; zero if none.
    pub callback_program: Pubkey,
    pub output_hash: [u8; 32],
    pub job_hash: [u8; 32],
    /// Unix seconds, as the operator states it; never compared with a clock.
    pub completed_at: i64,
    /// Bytes reserved after the body for an inline output.
    pub output_cap: u32,
    /// Bytes of them published; 0 until then.
    pub output_len: u32,
    pub lease_slots: u32,
    pub retention_slots: u32,
    pub claim_required: u8,
    pub callback_delivered: u8,
    pub reserved: [u8; 6],
}

#[constant]
pub const STATUS_PENDING: u8 = 0;
#[constant]
pub const STATUS_CLAIMED: u8 = 1;
#[constant]
pub const STATUS_FULFILLED: u8 = 2;
#[constant]
pub const STATUS_REJECTED: u8 = 3;
#[constant]
pub const STATUS_CANCELLED: u8 = 4;
#[constant]
pub const STATUS_EXPIRED: u8 = 5;

impl Request {
    pub const SEED: &'static [u8] = b"request";
    pub const VERSION: u8 = 1;
    pub const BODY_OFFSET: usize = Self::DISCRIMINATOR.len() + std::mem::size_of::<Self>();

    /// The size of the account, refused here because the runtime's own refusal of a long one has no name.
    pub fn space(queue: &Queue, body_len: usize, output_cap: u32) -> Result<usize> {
        require!(body_len <= queue.terms.max_body_len as usize, OracleError::BodyTooLong);
        require!(output_cap <= queue.terms.max_output_cap, OracleError::OutputCapTooLarge);
        Ok(Self::BODY_OFFSET + body_len + output_cap as usize)
    }

    pub fn require_open(&self) -> Result<()> {
        require!(self.status == STATUS_PENDING || self.status == STATUS_CLAIMED, OracleError::RequestEnded);
        Ok(())
    }

    /// A result, a rejection or a claim is in time up to and including the deadline.
    pub fn require_in_time(&self, slot: u64) -> Result<()> {
        require!(slot <= self.deadline_slot, OracleError::DeadlinePassed);
        Ok(())
    }

    /// Whether `operator` may end this request now. A lapsed lease still holds until another operator takes over.
    pub fn require_settleable_by(&self, operator: &Pubkey, slot: u64) -> Result<()> {
        self.require_open()?;
        if self.claim_required != 0 {
            require!(self.status == STATUS_CLAIMED, OracleError::ClaimRequired);
            require_keys_eq!(self.operator, *operator, OracleError::ClaimedByAnother);
        }
        self.require_in_time(slot)
    }

    pub fn lease_has_lapsed(&self, slot: u64) -> bool {
        slot > self.claim_expires_slot
    }

    pub fn end(&mut self, status: u8, slot: u64) {
        self.status = status;
        self.settled_slot = slot;
    }
}

const _: () = {
    assert!(Request::BODY_OFFSET == 352);
    assert!(std::mem::offset_of!(Request, status) + 8 == 9);
    assert!(std::mem::offset_of!(Request, queue) + 8 == 16);
    assert!(std::mem::offset_of!(Request, deadline_slot) + 8 == 80);
    assert!(std::mem::offset_of!(Request, requester) + 8 == 128);
    assert!(std::mem::offset_of!(Request, body_hash) + 8 == 192);
    assert!(std::mem::offset_of!(Request, output_hash) + 8 == 256);
    assert!(std::mem::offset_of!(Request, completed_at) + 8 == 320);
    assert!(std::mem::offset_of!(Request, claim_required) + 8 == 344);
};
