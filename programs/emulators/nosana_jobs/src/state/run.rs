//! A run: which host works on which job, and since when.

use anchor_lang::{
    prelude::*,
    system_program::{create_account, CreateAccount},
};

use crate::errors::NosanaError;

#[account]
pub struct RunAccount {
    pub job: Pubkey,
    pub node: Pubkey,
    pub payer: Pubkey,
    /// Not used: always 0.
    pub state: u8,
    pub time: i64,
}

impl RunAccount {
    /// 113 bytes are used.
    pub const SIZE: usize = 120;

    /// Creates the account at a key that signs and holds nothing yet.
    pub fn create<'info>(
        run: &AccountInfo<'info>,
        payer: &AccountInfo<'info>,
        system_program: &Program<'info, System>,
        job: Pubkey,
        node: Pubkey,
    ) -> Result<()> {
        let accounts = CreateAccount { from: payer.clone(), to: run.clone() };
        let rent_lamports = Rent::get()?.minimum_balance(Self::SIZE);
        create_account(CpiContext::new(system_program.key(), accounts), rent_lamports, Self::SIZE as u64, &crate::ID)?;
        let content = Self { job, node, payer: payer.key(), state: 0, time: Clock::get()?.unix_timestamp };
        let mut data = run.try_borrow_mut_data()?;
        content.try_serialize(&mut &mut data[..])
    }

    /// Whether a key can become a run account, if it has to.
    pub fn check_unused(run: &AccountInfo) -> Result<()> {
        require!(run.is_signer, NosanaError::MissingSignature);
        require_keys_eq!(*run.owner, anchor_lang::system_program::ID, NosanaError::InvalidOwner);
        require!(run.lamports() == 0, NosanaError::LamportsNonNull);
        Ok(())
    }
}
