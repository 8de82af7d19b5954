//! Asks for an inference: stores the body, and escrows the fee beside the rent.

use anchor_lang::{
    prelude::*,
    system_program::{transfer, Transfer},
};

use crate::{checks::sha256, errors::OracleError, events::RequestSubmitted, state::*};

#[derive(Accounts)]
#[instruction(nonce: u64, fee_lamports: u64, ttl_slots: u64, output_cap: u32, body_hash: [u8; 32], body: Body)]
pub struct SubmitRequest<'info> {
    // The body's hash in the seeds means that a result, which names only the address, answers this input and no other,
    // even after a close and a new submit at the same address, or on another fork.
    #[account(
        init,
        payer = payer,
        space = Request::space(&queue, borsh::object_length(&body)?, output_cap)?,
        seeds = [
            Request::SEED,
            queue.key().as_ref(),
            requester.key().as_ref(),
            nonce.to_le_bytes().as_ref(),
            body_hash.as_ref(),
        ],
        bump,
    )]
    pub request: AccountLoader<'info, Request>,
    #[account(constraint = !queue.paused @ OracleError::QueuePaused)]
    pub queue: Account<'info, Queue>,
    /// May be a program's address, which cannot pay.
    pub requester: Signer<'info>,
    /// Pays, and gets everything that is left when the request is closed.
    #[account(mut)]
    pub payer: Signer<'info>,
    pub system_program: Program<'info, System>,
}

impl SubmitRequest<'_> {
    pub fn handle(
        ctx: Context<SubmitRequest>,
        nonce: u64,
        fee_lamports: u64,
        ttl_slots: u64,
        output_cap: u32,
        body_hash: [u8; 32],
        body: Body,
    ) -> Result<()> {
        let accounts = &ctx.accounts;
        let terms = &accounts.queue.terms;
        let created_slot = Clock::get()?.slot;
        require!(fee_lamports >= terms.fee_floor_lamports, OracleError::FeeTooLow);
        require!(
            (terms.min_deadline_slots..=terms.max_deadline_slots).contains(&ttl_slots),
            OracleError::DeadlineOutOfBounds
        );
        let deadline_slot = created_slot.checked_add(ttl_slots).ok_or(OracleError::Overflow)?;
        body.validate()?;
        let body_len = store_body(&accounts.request, &body, &body_hash)?;

        let mut request = accounts.request.load_init()?;
        request.version = Request::VERSION;
        request.status = STATUS_PENDING;
        request.bump = ctx.bumps.request;
        request.body_len = body_len;
        request.queue = accounts.queue.key();
        request.deadline_slot = deadline_slot;
        request.fee = fee_lamports;
        request.created_slot = created_slot;
        request.nonce = nonce;
        request.requester = accounts.requester.key();
        request.refund_to = accounts.payer.key();
        request.body_hash = body_hash;
        request.callback_program = body.callback.map_or(Pubkey::default(), |callback| callback.program);
        request.output_cap = output_cap;
        request.lease_slots = terms.lease_slots;
        request.retention_slots = terms.retention_slots;
        request.claim_required = terms.claim_required.into();
        drop(request);

        let escrow = Transfer { from: accounts.payer.to_account_info(), to: accounts.request.to_account_info() };
        transfer(CpiContext::new(accounts.system_program.key(), escrow), fee_lamports)?;
        emit!(RequestSubmitted {
            request: accounts.request.key(),
            queue: accounts.queue.key(),
            requester: accounts.requester.key(),
            fee_lamports,
            deadline_slot,
            created_slot,
        });
        Ok(())
    }
}

/// Writes the body behind the header, checks its hash, and returns its length.
fn store_body(request: &AccountLoader<Request>, body: &Body, body_hash: &[u8; 32]) -> Result<u32> {
    let mut data = request.as_ref().try_borrow_mut_data()?;
    let room = &mut data[Request::BODY_OFFSET..];
    let room_len = room.len();
    let mut unwritten = &mut *room;
    body.serialize(&mut unwritten)?;
    let body_len = room_len - unwritten.len();
    require!(sha256(&room[..body_len]) == *body_hash, OracleError::BodyHashMismatch);
    u32::try_from(body_len).map_err(|_| OracleError::Overflow.into())
}
