//! The body of a request: what is asked. Its SHA-256 is part of the request's address.

use anchor_lang::prelude::*;

use crate::{
    checks::{is_printable, is_uri, sha256},
    errors::OracleError,
};

#[derive(AnchorSerialize, AnchorDeserialize, Clone)]
pub struct Body {
    pub model: String,
    pub params: Params,
    pub input: Input,
    pub callback: Option<Callback>,
}

#[derive(AnchorSerialize, AnchorDeserialize, Clone)]
pub struct Params {
    pub max_output_tokens: u32,
    /// Thousandths: 700 is a temperature of 0.7.
    pub temperature_milli: u16,
    pub seed: u64,
    /// A sum of the `FLAG_` constants.
    pub flags: u16,
}

/// The prompt must not become public.
#[constant]
pub const FLAG_PRIVATE: u16 = 1;
/// Another model than the one named may answer.
#[constant]
pub const FLAG_ANY_MODEL: u16 = 2;
/// The input is a JSON array of OpenAI chat messages; otherwise it is the UTF-8 text of one user message.
#[constant]
pub const FLAG_CHAT: u16 = 4;

#[derive(AnchorSerialize, AnchorDeserialize, Clone)]
pub enum Input {
    Inline {
        content: Vec<u8>,
    },
    /// `sha256` is of the content behind the URI.
    Uri {
        uri: String,
        sha256: [u8; 32],
    },
    /// `sha256` is of the query itself; the hash of the data it returned is in the receipt.
    Data {
        query: String,
        sha256: [u8; 32],
    },
}

/// The program to call with the result, and the accounts it is to be given.
#[derive(AnchorSerialize, AnchorDeserialize, Clone)]
pub struct Callback {
    pub program: Pubkey,
    pub accounts: Vec<CallbackAccount>,
}

#[derive(AnchorSerialize, AnchorDeserialize, Clone)]
pub struct CallbackAccount {
    pub address: Pubkey,
    pub is_writable: bool,
}

impl Body {
    pub const MAX_MODEL_LEN: usize = 64;
    pub const MAX_CALLBACK_ACCOUNTS: usize = 16;

    pub fn validate(&self) -> Result<()> {
        let model = self.model.as_bytes();
        require!((1..=Self::MAX_MODEL_LEN).contains(&model.len()) && is_printable(model), OracleError::ModelInvalid);
        let known_flags = FLAG_PRIVATE | FLAG_ANY_MODEL | FLAG_CHAT;
        require!(self.params.flags & !known_flags == 0, OracleError::UnknownFlags);
        self.input.validate()?;
        self.callback.as_ref().map_or(Ok(()), Callback::validate)
    }
}

impl Input {
    fn validate(&self) -> Result<()> {
        match self {
            Input::Inline { .. } => {}
            Input::Uri { uri, .. } => require!(is_uri(uri, "https://"), OracleError::InputUriInvalid),
            Input::Data { query, sha256: hash } => {
                require!(is_uri(query, "data://"), OracleError::DataQueryInvalid);
                require!(sha256(query.as_bytes()) == *hash, OracleError::DataQueryHashMismatch);
            }
        }
        Ok(())
    }
}

impl Callback {
    // The request itself cannot be among the accounts: its address is a hash over them.
    fn validate(&self) -> Result<()> {
        // The zero key would read as "no callback" in the request's header.
        require!(self.program != crate::ID && self.program != Pubkey::default(), OracleError::CallbackProgramInvalid);
        require!(self.accounts.len() <= Body::MAX_CALLBACK_ACCOUNTS, OracleError::TooManyCallbackAccounts);
        Ok(())
    }
}
