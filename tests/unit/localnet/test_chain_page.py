"""The reference page names what there is."""

import re
from pathlib import Path

from oracle.localnet.rpc.dispatch import METHODS
from oracle.localnet.rpc.subscriptions import SUBSCRIPTIONS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "localnet-chain.md"


def test_the_page_names_every_method_and_no_other() -> None:
    section = PAGE.read_text().split("\n## Methods\n")[1].split("\n## ")[0]
    named = set(re.findall(r"`((?:get|is|send|simulate|request|minimum)\w+|\w+Subscribe)`", section))
    assert named == set(METHODS) | set(SUBSCRIPTIONS)
