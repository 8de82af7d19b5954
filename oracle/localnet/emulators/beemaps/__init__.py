"""Stand-in for Bee Maps of Hivemapper, written from specs/depin_data.md §1: a small town that nobody can drive to."""

from oracle.localnet.emulators.beemaps.emulator import Beemaps as Beemaps
from oracle.localnet.emulators.beemaps.emulator import MapKey as MapKey
from oracle.localnet.emulators.beemaps.town import FEATURES as FEATURES
from oracle.localnet.emulators.beemaps.town import FRAMES as FRAMES
