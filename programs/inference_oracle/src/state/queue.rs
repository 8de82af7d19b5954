//! A queue: the terms on which requests are taken, and the authority that sets them.

use anchor_lang::{prelude::*, solana_program::entrypoint::MAX_PERMITTED_DATA_INCREASE};

use crate::{checks::is_printable, errors::OracleError, state::Request};

#[account]
#[derive(InitSpace)]
pub struct Queue {
    pub version: u8,
    pub bump: u8,
    pub authority: Pubkey,
    pub name: [u8; 32],
    pub operator_count: u32,
    pub paused: bool,
    pub terms: QueueTerms,
    /// The last slot at which a request made while claims were not required can still be open; 0 if there was none.
    pub unclaimed_until_slot: u64,
}

/// What a requester agrees to. A request carries the terms it was made under.
#[derive(AnchorSerialize, AnchorDeserialize, Clone, InitSpace)]
pub struct QueueTerms {
    pub fee_floor_lamports: u64,
    pub min_deadline_slots: u64,
    pub max_deadline_slots: u64,
    pub lease_slots: u32,
    /// How long after its end only `refund_to` may close a request.
    pub retention_slots: u32,
    pub max_body_len: u32,
    pub max_output_cap: u32,
    pub claim_required: bool,
}

impl Queue {
    pub const SEED: &'static [u8] = b"queue";
    pub const VERSION: u8 = 1;
    pub const SPACE: usize = Self::DISCRIMINATOR.len() + Self::INIT_SPACE;

    /// Whether `name` is 1 to 32 printable characters followed by nothing but zeros.
    pub fn is_name(name: &[u8; 32]) -> bool {
        let length = name.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        length > 0 && is_printable(&name[..length])
    }
}

impl QueueTerms {
    /// Requests this far ahead keep every slot number far inside what signed 64-bit columns hold.
    pub const MAX_DEADLINE_SLOTS: u64 = u32::MAX as u64;

    /// An account made inside a program is at most this long, else the runtime refuses it without a name.
    pub const MAX_TAIL_LEN: u64 = (MAX_PERMITTED_DATA_INCREASE - Request::BODY_OFFSET) as u64;

    pub fn validate(&self) -> Result<()> {
        require!(
            1 <= self.min_deadline_slots
                && self.min_deadline_slots <= self.max_deadline_slots
                && self.max_deadline_slots <= Self::MAX_DEADLINE_SLOTS,
            OracleError::DeadlineBoundsInvalid
        );
        require!(!self.claim_required || self.lease_slots >= 1, OracleError::LeaseInvalid);
        let tail_len = u64::from(self.max_body_len) + u64::from(self.max_output_cap);
        require!(self.max_body_len >= 1 && tail_len <= Self::MAX_TAIL_LEN, OracleError::SizeBoundsInvalid);
        Ok(())
    }
}
