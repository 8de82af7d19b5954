"""io.net: IO Intelligence, its OpenAI-style inference API, and IO Cloud, GPU containers by the hour.

Written from specs/ionet.md; sections are named where a rule comes from. What the specification calls unverified or
synthetic is marked so here, too.
"""

from oracle.localnet.emulators.ionet.catalogue import ApiKey, ServedModel
from oracle.localnet.emulators.ionet.cloud import CLOUD_KEY, IonetCloud
from oracle.localnet.emulators.ionet.emulator import Ionet
from oracle.localnet.emulators.ionet.rentals import HARDWARE, Hardware, RentalFault
from oracle.localnet.emulators.ionet.spoiling import AnswerFault

__all__ = [
    "CLOUD_KEY",
    "HARDWARE",
    "AnswerFault",
    "ApiKey",
    "Hardware",
    "Ionet",
    "IonetCloud",
    "RentalFault",
    "ServedModel",
]
