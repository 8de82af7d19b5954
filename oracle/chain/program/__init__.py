"""The binding of the on-chain program: its accounts, instructions, addresses, events and errors, driven by its IDL."""

from __future__ import annotations

import copyreg

from solders.hash import Hash
from solders.pubkey import Pubkey

# solders 0.25 to 0.27 cannot pickle or deep-copy these two, and anchorpy deep-copies every value it encodes. Before
# anything else: without it the fault shows only when the first dataclass with a key in it is encoded.
copyreg.pickle(Pubkey, lambda key: (Pubkey.from_bytes, (bytes(key),)))
copyreg.pickle(Hash, lambda value: (Hash.from_bytes, (bytes(value),)))
