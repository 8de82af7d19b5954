"""Stand-in for the Entity API of Helium, written from specs/depin_data.md §2.1: a network of a few hotspots."""

from oracle.localnet.emulators.helium.emulator import Helium as Helium
from oracle.localnet.emulators.helium.hotspots import HOTSPOTS as HOTSPOTS
from oracle.localnet.emulators.helium.hotspots import OUIS as OUIS
from oracle.localnet.emulators.helium.hotspots import WALLETS as WALLETS
