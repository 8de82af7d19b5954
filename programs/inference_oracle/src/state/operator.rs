//! An operator: a key that may settle requests of one queue.

use anchor_lang::prelude::*;

use crate::{checks::is_uri, errors::OracleError};

// Settlements read this account and never write it: no shared account but the operator's wallet serialises them.
#[account(zero_copy)]
pub struct Operator {
    pub version: u8,
    pub bump: u8,
    pub uri_len: u16,
    pub reserved: [u8; 4],
    pub queue: Pubkey,
    pub key: Pubkey,
    pub uri: [u8; 128],
}

impl Operator {
    pub const SEED: &'static [u8] = b"operator";
    pub const VERSION: u8 = 1;
    pub const SPACE: usize = Self::DISCRIMINATOR.len() + std::mem::size_of::<Self>();

    /// Stores the base URI of the operator's outputs and receipts.
    pub fn set_uri(&mut self, uri: &str) -> Result<()> {
        require!(
            uri.len() <= self.uri.len() && (is_uri(uri, "https://") || is_uri(uri, "http://")),
            OracleError::OperatorUriInvalid
        );
        self.uri = [0; 128];
        self.uri[..uri.len()].copy_from_slice(uri.as_bytes());
        self.uri_len = uri.len() as u16;
        Ok(())
    }
}

const _: () = assert!(Operator::SPACE == 208);
