//! Writes a recorded output into the room its request reserved. Any operator of the queue may: the hash is the proof.

use anchor_lang::prelude::*;

use crate::{checks::sha256, errors::OracleError, events::OutputPublished, state::*};

#[derive(Accounts)]
pub struct PublishOutput<'info> {
    #[account(mut)]
    pub request: AccountLoader<'info, Request>,
    pub operator_key: Signer<'info>,
    #[account(
        constraint = operator.load()?.key == operator_key.key() @ OracleError::NotThisOperator,
        constraint = operator.load()?.queue == request.load()?.queue @ OracleError::OperatorOfAnotherQueue,
    )]
    pub operator: AccountLoader<'info, Operator>,
}

impl PublishOutput<'_> {
    pub fn handle(ctx: Context<PublishOutput>, output: Vec<u8>) -> Result<()> {
        let output_len = u32::try_from(output.len()).map_err(|_| OracleError::OutputTooLong)?;
        let output_offset = {
            let mut request = ctx.accounts.request.load_mut()?;
            require!(request.status == STATUS_FULFILLED, OracleError::NotFulfilled);
            require!(request.output_len == 0, OracleError::OutputAlreadyPublished);
            require!(output_len > 0, OracleError::OutputEmpty);
            require!(output_len <= request.output_cap, OracleError::OutputTooLong);
            require!(sha256(&output) == request.output_hash, OracleError::OutputHashMismatch);
            request.output_len = output_len;
            Request::BODY_OFFSET + request.body_len as usize
        };
        let mut data = ctx.accounts.request.as_ref().try_borrow_mut_data()?;
        data[output_offset..output_offset + output.len()].copy_from_slice(&output);
        emit!(OutputPublished { request: ctx.accounts.request.key(), output_len });
        Ok(())
    }
}
