//! Opens a market with an empty queue, and the vault that holds the deposits of its jobs.

use anchor_lang::{
    prelude::*,
    system_program::{create_account, CreateAccount},
};

use crate::{
    constants::*,
    errors::NosanaError,
    state::*,
    token::{initialize_account, TOKEN_ACCOUNT_BYTES},
};

#[derive(Accounts)]
pub struct Open<'info> {
    /// CHECK: only its address is used.
    #[account(address = NOS_MINT @ NosanaError::InvalidMint)]
    pub mint: UncheckedAccount<'info>,
    #[account(init, payer = authority, space = MarketAccount::SIZE)]
    pub market: Box<Account<'info, MarketAccount>>,
    /// CHECK: created here.
    #[account(mut, seeds = [market.key().as_ref(), mint.key().as_ref()], bump)]
    pub vault: UncheckedAccount<'info>,
    #[account(mut)]
    pub authority: Signer<'info>,
    /// CHECK: only its address is kept.
    pub access_key: UncheckedAccount<'info>,
    pub rent: Sysvar<'info, Rent>,
    pub system_program: Program<'info, System>,
    /// CHECK: only its address is used.
    #[account(address = TOKEN_PROGRAM)]
    pub token_program: UncheckedAccount<'info>,
}

impl Open<'_> {
    pub fn handle(
        ctx: Context<Open>,
        job_expiration: i64,
        job_price: u64,
        job_timeout: i64,
        job_type: u8,
        node_xnos_minimum: u128,
    ) -> Result<()> {
        let accounts = ctx.accounts;
        let (market, vault) = (accounts.market.key(), accounts.vault.key());
        let seeds: &[&[u8]] = &[market.as_ref(), NOS_MINT.as_ref(), &[ctx.bumps.vault]];
        let made = CreateAccount { from: accounts.authority.to_account_info(), to: accounts.vault.to_account_info() };
        create_account(
            CpiContext::new_with_signer(accounts.system_program.key(), made, &[seeds]),
            accounts.rent.minimum_balance(TOKEN_ACCOUNT_BYTES),
            TOKEN_ACCOUNT_BYTES as u64,
            &TOKEN_PROGRAM,
        )?;
        initialize_account(&accounts.vault, &accounts.mint, &vault)?;
        **accounts.market = MarketAccount {
            authority: accounts.authority.key(),
            job_expiration,
            job_price,
            job_timeout,
            job_type,
            vault,
            vault_bump: ctx.bumps.vault,
            node_access_key: accounts.access_key.key(),
            node_xnos_minimum,
            queue_type: QUEUE_EMPTY,
            queue: vec![],
        };
        Ok(())
    }
}
