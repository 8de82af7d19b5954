"""OpenAI's Files and Batch API: a file of requests goes in, and within a day two files of answers come out.

Written from specs/openai_compatible.md §4. The status of an invalid file or of a cancellation that comes too late, and
the codes of a failed validation but one, are unverified there, and so here.
"""

from oracle.localnet.emulators.openai_batches.batches import BatchFault, BatchTimings
from oracle.localnet.emulators.openai_batches.emulator import OpenAIBatches

__all__ = ["BatchFault", "BatchTimings", "OpenAIBatches"]
