"""Every configuration shown loads."""

import re
import tomllib

import pytest
from docs_pages import PAGES, ROOT, Block, blocks, heredocs, inline_code, name

from oracle.config import Config, parse

SHOWN = [block for page in PAGES for block in blocks(page) if block.language == "toml"]
SHOWN += [
    Block(page, "toml", body)
    for page in PAGES
    for block in blocks(page)
    if block.language == "sh"
    for body in heredocs(block)
    if "[cluster]" in body or "[providers" in body
]


@pytest.mark.parametrize("block", SHOWN, ids=str)
def test_a_configuration_shown_loads(block: Block) -> None:
    parse(tomllib.loads(block.text))


def test_there_are_configurations_to_check() -> None:
    assert len(SHOWN) > 5


SECTIONS = {
    field: value.annotation.model_fields
    for field, value in Config.model_fields.items()
    if hasattr(value.annotation, "model_fields")
}


def test_an_option_named_in_a_sentence_exists() -> None:
    """`policy.margin` and the like: the section is one of the configuration, so the option must be there too."""
    wrong = []
    for page in PAGES:
        for code in inline_code(page):
            dotted = re.fullmatch(r"(\w+)\.(\w+)( = .*)?", code)
            if dotted and dotted[1] in SECTIONS and dotted[2] not in {*SECTIONS[dotted[1]], "py", "rs", "toml"}:
                wrong.append(f"{name(page)}: {code}")
    assert not wrong


def test_the_example_is_linked_where_the_options_are_described() -> None:
    assert "oracle.example.toml" in (ROOT / "docs/reference/configuration.md").read_text()
