//! The few instructions of the SPL Token program that are called, and addresses of token accounts.

use anchor_lang::{
    prelude::*,
    solana_program::{
        instruction::{AccountMeta, Instruction},
        program::invoke_signed,
    },
};

use crate::{constants::*, errors::NosanaError, state::MarketAccount};

const TRANSFER: u8 = 3;
const INITIALIZE_ACCOUNT_3: u8 = 18;
pub const TOKEN_ACCOUNT_BYTES: usize = 165;

/// Moves tokens out of an account whose owner has signed.
pub fn transfer<'info>(
    from: &AccountInfo<'info>,
    to: &AccountInfo<'info>,
    owner: &AccountInfo<'info>,
    amount: u64,
) -> Result<()> {
    move_tokens(from, to, owner, amount, &[])
}

/// Moves tokens out of a market's vault, which owns itself.
pub fn pay_out<'info>(
    market: &Account<'info, MarketAccount>,
    vault: &AccountInfo<'info>,
    to: &AccountInfo<'info>,
    amount: u64,
) -> Result<()> {
    let key = market.key();
    let seeds: &[&[u8]] = &[key.as_ref(), NOS_MINT.as_ref(), &[market.vault_bump]];
    move_tokens(vault, to, vault, amount, &[seeds])
}

pub fn initialize_account<'info>(
    account: &AccountInfo<'info>,
    mint: &AccountInfo<'info>,
    owner: &Pubkey,
) -> Result<()> {
    let accounts = vec![AccountMeta::new(account.key(), false), AccountMeta::new_readonly(mint.key(), false)];
    let data = [&[INITIALIZE_ACCOUNT_3], owner.as_ref()].concat();
    let instruction = Instruction { program_id: TOKEN_PROGRAM, accounts, data };
    invoke_signed(&instruction, &[account.clone(), mint.clone()], &[]).map_err(Into::into)
}

/// `account` must be the NOS account of `owner`. Where nothing is paid, any account will do.
pub fn check_account_of(account: &AccountInfo, owner: &Pubkey, price: u64) -> Result<()> {
    let seeds = [owner.as_ref(), TOKEN_PROGRAM.as_ref(), NOS_MINT.as_ref()];
    let (expected, _) = Pubkey::find_program_address(&seeds, &ASSOCIATED_TOKEN_PROGRAM);
    require!(price == 0 || account.key() == expected, NosanaError::InvalidATA);
    Ok(())
}

fn move_tokens<'info>(
    from: &AccountInfo<'info>,
    to: &AccountInfo<'info>,
    owner: &AccountInfo<'info>,
    amount: u64,
    seeds: &[&[&[u8]]],
) -> Result<()> {
    if amount == 0 {
        return Ok(());
    }
    let accounts = vec![
        AccountMeta::new(from.key(), false),
        AccountMeta::new(to.key(), false),
        AccountMeta::new_readonly(owner.key(), true),
    ];
    let data = [&[TRANSFER][..], &amount.to_le_bytes()].concat();
    let instruction = Instruction { program_id: TOKEN_PROGRAM, accounts, data };
    invoke_signed(&instruction, &[from.clone(), to.clone(), owner.clone()], seeds).map_err(Into::into)
}
