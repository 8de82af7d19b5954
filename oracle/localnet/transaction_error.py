"""Transaction errors as a validator's RPC prints them: as JSON, and as the sentence in a preflight failure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from solders.transaction_status import (
    InstructionErrorBorshIO,
    InstructionErrorCustom,
    TransactionErrorDuplicateInstruction,
    TransactionErrorInstructionError,
    TransactionErrorInsufficientFundsForRent,
    TransactionErrorProgramExecutionTemporarilyRestricted,
)

TransactionError = str | dict[str, Any]
"""For example `"BlockhashNotFound"` or `{"InstructionError": [0, {"Custom": 6000}]}`."""


def from_solders(error: Any) -> TransactionError:
    """The JSON of a `TransactionErrorType` of solders."""
    match error:
        case TransactionErrorInstructionError():
            return {"InstructionError": [error.index, _instruction_error(error.err)]}
        case TransactionErrorDuplicateInstruction():
            return {"DuplicateInstruction": error.index}
        case TransactionErrorInsufficientFundsForRent():
            return insufficient_funds_for_rent(error.account_index)
        case TransactionErrorProgramExecutionTemporarilyRestricted():
            return {"ProgramExecutionTemporarilyRestricted": {"account_index": error.account_index}}
        case _:
            return _variant(error)


def insufficient_funds_for_rent(account_index: int) -> TransactionError:
    return {"InsufficientFundsForRent": {"account_index": account_index}}


def sentence(error: TransactionError) -> str:
    """What Agave's `Display` prints for an error, as in "Transaction simulation failed: ..."."""
    if isinstance(error, str):
        return _SENTENCES.get(error, error)
    ((variant, detail),) = error.items()
    match variant:
        case "InstructionError":
            index, cause = detail
            return f"Error processing Instruction {index}: {_instruction_sentence(cause)}"
        case "DuplicateInstruction":
            return f"Transaction contains a duplicate instruction ({detail}) that is not allowed"
        case "InsufficientFundsForRent":
            index = detail["account_index"]
            return f"Transaction results in an account ({index}) with insufficient funds for rent"
        case _:
            index = detail["account_index"]
            return f"Execution of the program referenced by account at index {index} is temporarily restricted."


def from_logs(logs: Sequence[str]) -> TransactionError | None:
    """The instruction error that the logs of a failed transaction tell of, or `None` if no instruction failed.

    Precompiles log nothing, so an instruction after one would be counted one too low.
    """
    failure = next((match for line in reversed(logs) if (match := _FAILED.fullmatch(line))), None)
    if failure is None:
        return None
    index = sum(line.endswith(" invoke [1]") for line in logs) - 1
    text = failure[1]
    if custom := _CUSTOM.fullmatch(text):
        return {"InstructionError": [index, {"Custom": int(custom[1], 16)}]}
    # Whatever is no instruction error by name is a fault of the virtual machine, which Agave reports as this.
    return {"InstructionError": [index, _BY_SENTENCE.get(text, "ProgramFailedToComplete")]}


def _instruction_error(error: Any) -> str | dict[str, int]:
    match error:
        case InstructionErrorCustom():
            return {"Custom": error.code}
        case InstructionErrorBorshIO():
            return "BorshIoError"
        case _:
            return _variant(error)


def _variant(error: Any) -> str:
    return str(error).rpartition(".")[2]


def _instruction_sentence(cause: str | dict[str, int]) -> str:
    if isinstance(cause, dict):
        return f"custom program error: {cause['Custom']:#x}"
    return _INSTRUCTION_SENTENCES.get(cause, cause)


# `Display for TransactionError` of solana-transaction-error 2.2.
_SENTENCES = {
    "AccountInUse": "Account in use",
    "AccountLoadedTwice": "Account loaded twice",
    "AccountNotFound": "Attempt to debit an account but found no record of a prior credit.",
    "ProgramAccountNotFound": "Attempt to load a program that does not exist",
    "InsufficientFundsForFee": "Insufficient funds for fee",
    "InvalidAccountForFee": "This account may not be used to pay transaction fees",
    "AlreadyProcessed": "This transaction has already been processed",
    "BlockhashNotFound": "Blockhash not found",
    "CallChainTooDeep": "Loader call chain is too deep",
    "MissingSignatureForFee": "Transaction requires a fee but has no signature present",
    "InvalidAccountIndex": "Transaction contains an invalid account reference",
    "SignatureFailure": "Transaction did not pass signature verification",
    "InvalidProgramForExecution": "This program may not be used for executing instructions",
    "SanitizeFailure": "Transaction failed to sanitize accounts offsets correctly",
    "ClusterMaintenance": "Transactions are currently disabled due to cluster maintenance",
    "AccountBorrowOutstanding": "Transaction processing left an account with an outstanding borrowed reference",
    "WouldExceedMaxBlockCostLimit": "Transaction would exceed max Block Cost Limit",
    "UnsupportedVersion": "Transaction version is unsupported",
    "InvalidWritableAccount": "Transaction loads a writable account that cannot be written",
    "WouldExceedMaxAccountCostLimit": "Transaction would exceed max account limit within the block",
    "WouldExceedAccountDataBlockLimit": "Transaction would exceed account data limit within the block",
    "TooManyAccountLocks": "Transaction locked too many accounts",
    "AddressLookupTableNotFound": "Transaction loads an address table account that doesn't exist",
    "InvalidAddressLookupTableOwner": "Transaction loads an address table account with an invalid owner",
    "InvalidAddressLookupTableData": "Transaction loads an address table account with invalid data",
    "InvalidAddressLookupTableIndex": "Transaction address table lookup uses an invalid index",
    "InvalidRentPayingAccount": "Transaction leaves an account with a lower balance than rent-exempt minimum",
    "WouldExceedMaxVoteCostLimit": "Transaction would exceed max Vote Cost Limit",
    "WouldExceedAccountDataTotalLimit": "Transaction would exceed total account data limit",
    "MaxLoadedAccountsDataSizeExceeded": "Transaction exceeded max loaded accounts data size cap",
    "InvalidLoadedAccountsDataSizeLimit": "LoadedAccountsDataSizeLimit set for transaction must be greater than 0.",
    "ResanitizationNeeded": "ResanitizationNeeded",
    "UnbalancedTransaction": "Sum of account balances before and after transaction do not match",
    "ProgramCacheHitMaxLimit": "Program cache hit max limit",
    "CommitCancelled": "CommitCancelled",
    "Disabled": "Address loading from lookup tables is disabled",
    "SlotHashesSysvarNotFound": "Failed to load slot hashes sysvar",
    "InvalidLookupIndex": "Address lookup contains an invalid index",
    "IndexOutOfBounds": "index out of bounds",
    "ValueOutOfBounds": "value out of bounds",
    "InvalidValue": "invalid value",
}

# `Display for InstructionError` of solana-instruction 2.2.
_INSTRUCTION_SENTENCES = {
    "GenericError": "generic instruction error",
    "InvalidArgument": "invalid program argument",
    "InvalidInstructionData": "invalid instruction data",
    "InvalidAccountData": "invalid account data for instruction",
    "AccountDataTooSmall": "account data too small for instruction",
    "InsufficientFunds": "insufficient funds for instruction",
    "IncorrectProgramId": "incorrect program id for instruction",
    "MissingRequiredSignature": "missing required signature for instruction",
    "AccountAlreadyInitialized": "instruction requires an uninitialized account",
    "UninitializedAccount": "instruction requires an initialized account",
    "UnbalancedInstruction": "sum of account balances before and after instruction do not match",
    "ModifiedProgramId": "instruction illegally modified the program id of an account",
    "ExternalAccountLamportSpend": "instruction spent from the balance of an account it does not own",
    "ExternalAccountDataModified": "instruction modified data of an account it does not own",
    "ReadonlyLamportChange": "instruction changed the balance of a read-only account",
    "ReadonlyDataModified": "instruction modified data of a read-only account",
    "DuplicateAccountIndex": "instruction contains duplicate accounts",
    "ExecutableModified": "instruction changed executable bit of an account",
    "RentEpochModified": "instruction modified rent epoch of an account",
    "NotEnoughAccountKeys": "insufficient account keys for instruction",
    "AccountDataSizeChanged": "program other than the account's owner changed the size of the account data",
    "AccountNotExecutable": "instruction expected an executable account",
    "AccountBorrowFailed": "instruction tries to borrow reference for an account which is already borrowed",
    "AccountBorrowOutstanding": "instruction left account with an outstanding borrowed reference",
    "DuplicateAccountOutOfSync": "instruction modifications of multiply-passed account differ",
    "InvalidError": "program returned invalid error code",
    "ExecutableDataModified": "instruction changed executable accounts data",
    "ExecutableLamportChange": "instruction changed the balance of an executable account",
    "ExecutableAccountNotRentExempt": "executable accounts must be rent exempt",
    "UnsupportedProgramId": "Unsupported program id",
    "CallDepth": "Cross-program invocation call depth too deep",
    "MissingAccount": "An account required by the instruction is missing",
    "ReentrancyNotAllowed": "Cross-program invocation reentrancy not allowed for this instruction",
    "MaxSeedLengthExceeded": "Length of the seed is too long for address generation",
    "InvalidSeeds": "Provided seeds do not result in a valid address",
    "InvalidRealloc": "Failed to reallocate account data",
    "ComputationalBudgetExceeded": "Computational budget exceeded",
    "PrivilegeEscalation": "Cross-program invocation with unauthorized signer or writable account",
    "ProgramEnvironmentSetupFailure": "Failed to create program execution environment",
    "ProgramFailedToComplete": "Program failed to complete",
    "ProgramFailedToCompile": "Program failed to compile",
    "Immutable": "Account is immutable",
    "IncorrectAuthority": "Incorrect authority provided",
    "AccountNotRentExempt": "An account does not have enough lamports to be rent-exempt",
    "InvalidAccountOwner": "Invalid account owner",
    "ArithmeticOverflow": "Program arithmetic overflowed",
    "UnsupportedSysvar": "Unsupported sysvar",
    "IllegalOwner": "Provided owner is not allowed",
    "MaxAccountsDataAllocationsExceeded": "Accounts data allocations exceeded the maximum allowed per transaction",
    "MaxAccountsExceeded": "Max accounts exceeded",
    "MaxInstructionTraceLengthExceeded": "Max instruction trace length exceeded",
    "BuiltinProgramsMustConsumeComputeUnits": "Builtin programs must consume compute units",
    "BorshIoError": "Failed to serialize or deserialize account data",
}

_BY_SENTENCE = {text: name for name, text in _INSTRUCTION_SENTENCES.items()}
_FAILED = re.compile(r"Program \w+ failed: (.*)", re.DOTALL)
_CUSTOM = re.compile(r"custom program error: 0x([0-9a-f]+)")
