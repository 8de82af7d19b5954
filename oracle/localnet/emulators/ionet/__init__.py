"""io.net: IO Intelligence, the OpenAI-style inference API behind `api.intelligence.io.solutions`.

Written from specs/ionet.md; sections are named where a rule comes from. What the specification calls unverified or
synthetic is marked so here, too.
"""

from oracle.localnet.emulators.ionet.catalogue import ApiKey, ServedModel
from oracle.localnet.emulators.ionet.emulator import Ionet
from oracle.localnet.emulators.ionet.spoiling import AnswerFault

__all__ = ["AnswerFault", "ApiKey", "Ionet", "ServedModel"]
