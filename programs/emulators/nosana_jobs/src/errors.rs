//! The refusals by their published names. Both enums begin at 6000, so a number alone says little: read the name.

use anchor_lang::{error::ERROR_CODE_OFFSET, prelude::*};

#[error_code]
pub enum NosanaJobsError {
    #[msg("This market account is not valid.")]
    InvalidMarketAccount,
    #[msg("This market does not have the right status.")]
    MarketInWrongState,
    #[msg("Account cannot be find account in market queue.")]
    NotInMarketQueue,
    #[msg("This job account is not valid.")]
    InvalidJobAccount,
    #[msg("This job does not have the right status.")]
    JobInWrongState,
    #[msg("The job has not yet expired.")]
    JobNotExpired,
    #[msg("The job result can not be null.")]
    JobResultNull,
    #[msg("The job has a different project owner.")]
    JobInvalidProject,
    #[msg("The new job timeout should be larger than the current one.")]
    JobTimeoutNotGreater,
    #[msg("The run account does not match the job.")]
    JobInvalidRunAccount,
    #[msg("The job results are already set.")]
    JobResultsAlreadySet,
    #[msg("This node queue does not match.")]
    NodeQueueDoesNotMatch,
    #[msg("This node is not authorizing this stake.")]
    NodeStakeUnauthorized,
    #[msg("This node has not staked enough tokens.")]
    NodeNotEnoughStake,
    #[msg("This node is already present in the queue.")]
    NodeAlreadyQueued,
    #[msg("This metadata does not have the correct address.")]
    NodeNftWrongMetadata,
    #[msg("This NFT is not owned by this node.")]
    NodeNftWrongOwner,
    #[msg("Access NFT amount cannot be 0.")]
    NodeNftInvalidAmount,
    #[msg("This access key does not belong to a verified collection.")]
    NodeKeyInvalidCollection,
}

/// The refusals that Nosana's programs share. By hand, for an IDL has room for one enum.
#[derive(Clone, Copy, Debug)]
pub enum NosanaError {
    Unauthorized,
    InvalidOwner,
    LamportsNonNull,
    MissingSignature,
    InvalidAccount,
    InvalidTokenAccount,
    InvalidMint,
    InvalidVault,
    InvalidPayer,
    VaultEmpty,
    VaultNotEmpty,
    InvalidATA,
}

impl NosanaError {
    pub fn name(&self) -> String {
        format!("{self:?}")
    }
}

impl std::fmt::Display for NosanaError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(formatter, "{self:?}")
    }
}

impl From<NosanaError> for u32 {
    fn from(error: NosanaError) -> u32 {
        ERROR_CODE_OFFSET + error as u32
    }
}

impl From<NosanaError> for Error {
    fn from(error: NosanaError) -> Error {
        error!(error)
    }
}
