"""Reads the project's pages: their links, their headings, their blocks of code, and the commands in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")])

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_INLINE = re.compile(r"`([^`\n]+)`")
_HEREDOC = re.compile(r"<<'?(?P<end>\w+)'?[^\n]*\n(?P<body>.*?)^(?P=end)$", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True, slots=True)
class Block:
    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        return f"{name(self.page)}: {self.text.strip().splitlines()[0][:60]}"


def blocks(page: Path) -> list[Block]:
    """Fenced blocks, without the indentation of a list they stand in."""
    found = []
    for fence in _FENCE.finditer(page.read_text()):
        text = re.sub(rf"^{fence['indent']}", "", fence["text"], flags=re.MULTILINE)
        found.append(Block(page, fence["language"], text))
    return found


def prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    return [link["target"] for link in _LINK.finditer(prose(page))]


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


def inline_code(page: Path) -> list[str]:
    return _INLINE.findall(prose(page))


def heredocs(block: Block) -> list[str]:
    return [match["body"] for match in _HEREDOC.finditer(block.text)]


def commands(block: Block) -> Iterator[list[str]]:
    """Every call of `oracle` in a shell block, as its arguments."""
    script = _HEREDOC.sub("\n", block.text).replace("\\\n", " ")
    for line in script.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;()<>")
        lexer.whitespace_split = True
        lexer.commenters = "#"
        yield from _calls(list(lexer))


def _calls(words: list[str]) -> Iterator[list[str]]:
    call: list[str] | None = None
    for word in [*words, ";"]:
        if set(word) <= set("|&;()<>") and word:
            if call is not None:
                yield call
            call = None
        elif call is not None:
            call.append(word)
        elif word == "oracle" or word.endswith("/oracle"):
            call = []
