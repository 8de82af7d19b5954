//! The addresses of the network that this program is written into.

use anchor_lang::prelude::*;

pub const NOS_MINT: Pubkey = pubkey!("nosXBVoaCTtYdLvKY6Csb4AC8JCdQKKAaWYtx2ZMoo7");
pub const REWARDS_PROGRAM: Pubkey = pubkey!("nosRB8DUV67oLNrL45bo2pFLrmsWPiewe2Lk2DRNYCp");
pub const TOKEN_PROGRAM: Pubkey = pubkey!("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA");
pub const ASSOCIATED_TOKEN_PROGRAM: Pubkey = pubkey!("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL");
