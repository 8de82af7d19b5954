//! Changes where an operator's outputs and receipts are served.

use anchor_lang::prelude::*;

use crate::{errors::OracleError, events::OperatorUpdated, state::*};

#[derive(Accounts)]
pub struct UpdateOperator<'info> {
    #[account(
        mut,
        constraint = operator.load()?.key == operator_key.key() @ OracleError::NotThisOperator,
    )]
    pub operator: AccountLoader<'info, Operator>,
    pub operator_key: Signer<'info>,
}

impl UpdateOperator<'_> {
    pub fn handle(ctx: Context<UpdateOperator>, uri: String) -> Result<()> {
        let mut operator = ctx.accounts.operator.load_mut()?;
        operator.set_uri(&uri)?;
        emit!(OperatorUpdated { queue: operator.queue, operator: operator.key });
        Ok(())
    }
}
