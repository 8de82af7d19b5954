//! Every refusal of the program, named, with what to do about it.

use anchor_lang::prelude::*;

// Clients know these by number: new ones go to the end.
#[error_code]
pub enum OracleError {
    #[msg("The queue's name must be 1 to 32 printable ASCII characters, padded with zeros: choose another")]
    QueueNameInvalid,
    #[msg("The deadline bounds must satisfy 1 <= min_deadline_slots <= max_deadline_slots <= 4294967295: correct the terms")]
    DeadlineBoundsInvalid,
    #[msg("A queue that requires claims needs lease_slots of at least 1: correct the terms")]
    LeaseInvalid,
    #[msg("max_body_len must be at least 1 and max_body_len + max_output_cap at most 9888 bytes: correct the terms")]
    SizeBoundsInvalid,
    #[msg("The signer is not this queue's authority: sign with the authority's key")]
    NotQueueAuthority,
    #[msg("The queue has several operators, so claims stay required: remove operators first")]
    ClaimsStillRequired,
    #[msg("A second operator could copy the first one's answers: require claims on the queue first")]
    SecondOperatorNeedsClaims,
    #[msg("Requests made before claims were required may still be open: add the operator after the queue's unclaimed_until_slot")]
    UnclaimedRequestsRemain,
    #[msg(
        "The operator's URI must be http:// or https://, at most 128 bytes, of visible ASCII characters: correct it"
    )]
    OperatorUriInvalid,
    #[msg("The operator account belongs to another queue: pass the one of this queue")]
    OperatorOfAnotherQueue,
    #[msg("The operator account belongs to another key: sign with the operator's key or pass the signer's account")]
    NotThisOperator,
    #[msg("The queue is paused: wait, or use another queue")]
    QueuePaused,
    #[msg("The account is not the queue of this request: pass the queue stored in the request")]
    QueueOfAnotherRequest,
    #[msg("The fee is below the queue's floor: offer at least fee_floor_lamports")]
    FeeTooLow,
    #[msg("The deadline is outside the queue's bounds: choose ttl_slots between min_deadline_slots and max_deadline_slots")]
    DeadlineOutOfBounds,
    #[msg("The body is longer than the queue's max_body_len: shorten it, or put the input behind a URI")]
    BodyTooLong,
    #[msg("The room for an output is larger than the queue's max_output_cap: ask for less")]
    OutputCapTooLarge,
    #[msg("body_hash is not the SHA-256 of the borsh-encoded body: hash the bytes that are sent")]
    BodyHashMismatch,
    #[msg("The model must be 1 to 64 printable ASCII characters: correct it")]
    ModelInvalid,
    #[msg("The parameters have flags that this program does not know: clear them")]
    UnknownFlags,
    #[msg("The input's URI must be https:// and of visible ASCII characters: correct it")]
    InputUriInvalid,
    #[msg("The data query must be data:// and of visible ASCII characters: correct it")]
    DataQueryInvalid,
    #[msg("The hash of the data query is not the SHA-256 of its bytes: hash the query that is sent")]
    DataQueryHashMismatch,
    #[msg("The callback program may be neither the zero key nor the oracle itself: name the consumer's program")]
    CallbackProgramInvalid,
    #[msg("A callback takes at most 16 accounts: pass fewer")]
    TooManyCallbackAccounts,
    #[msg("The request has already ended: read its status")]
    RequestEnded,
    #[msg("The request is still open: settle, cancel or expire it first")]
    RequestStillOpen,
    #[msg("The deadline has passed: the request can only expire")]
    DeadlinePassed,
    #[msg("The deadline has not passed: wait for a slot after deadline_slot")]
    DeadlineNotPassed,
    #[msg("This request takes no claim: record its result directly")]
    ClaimNotRequired,
    #[msg("This request needs a claim first: claim it")]
    ClaimRequired,
    #[msg("Another operator holds the claim: wait until its lease lapses, then claim")]
    ClaimedByAnother,
    #[msg("The operator has already claimed this request, and nobody takes over from itself: record or reject it")]
    AlreadyClaimed,
    #[msg("The lease of the claim is still running: wait for a slot after claim_expires_slot")]
    LeaseRunning,
    #[msg("The reason of a rejection must be 1 to 255: give one")]
    ReasonMissing,
    #[msg("The request has no recorded result: record it before its output is published")]
    NotFulfilled,
    #[msg("The output is already published: read it from the account")]
    OutputAlreadyPublished,
    #[msg("There is no output to publish: send at least one byte")]
    OutputEmpty,
    #[msg("The output is longer than the room reserved for it: serve it by its hash instead")]
    OutputTooLong,
    #[msg("The output does not hash to the recorded output_hash: publish the very bytes that were recorded")]
    OutputHashMismatch,
    #[msg("The signer did not make this request: sign with the requester's key")]
    NotRequester,
    #[msg("Without claims a request is firm until its deadline: wait, then expire it")]
    RequestFirm,
    #[msg("The account is not the one refunds go to: pass the request's refund_to")]
    NotRefundAccount,
    #[msg("A request cannot be closed in the slot it was made in: wait for the next slot")]
    CloseInSlotOfCreation,
    #[msg("The retention period has not passed: only refund_to may close before")]
    RetentionRunning,
    #[msg("A slot or an amount does not fit its integer: choose a smaller number")]
    Overflow,
}
