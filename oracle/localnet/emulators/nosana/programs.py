"""Programs that turn an input into an output: a few filters of coreutils, and notebooks of one kind. Read, never run.

| what | which |
|---|---|
| a command | `cat`, `wc -c`, `tr a-z A-Z`, `echo <words>`, `exit <code>`, and `a \\| b` of them |
| a notebook | code cells whose lines are `import json`, `request = json.load(open("/tmp/body.json"))`, |
| | `prompt = request["messages"][-1]["content"]`, or `open("/tmp/text", "w").write(<expression>)`, |
| | where the expression is `prompt`, `prompt.upper()`, `str(len(prompt))` or a string in quotes |

"""

from __future__ import annotations

import re
import shlex

import orjson

_WRITE = re.compile(r"open\((['\"])/tmp/text\1, (['\"])w\2\)\.write\((.+)\)")


class Failed(Exception):
    """The program ended with an error: what it wrote to stderr, and its exit code."""

    def __init__(self, code: int, complaint: str) -> None:
        self.code = code
        self.complaint = complaint
        super().__init__(complaint)


def run_command(command: str, content: bytes) -> bytes:
    """What the command prints. Raises Failed."""
    for step in command.split("|"):
        match shlex.split(step):
            case ["cat"]:
                pass
            case ["wc", "-c"]:
                content = b"%d\n" % len(content)
            case ["tr", "a-z", "A-Z"]:
                content = content.upper()
            case ["echo", *words]:
                content = " ".join(words).encode() + b"\n"
            case ["exit", code]:
                raise Failed(int(code), "")
            case _:
                raise Failed(127, f"sh: the emulator cannot execute: {step.strip()}")
    return content


def run_notebook(notebook: bytes, body: bytes) -> bytes | None:
    """What the notebook writes to `/tmp/text`; None where it writes nothing. Raises Failed."""
    try:
        cells = orjson.loads(notebook)["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise Failed(1, f"nbformat.reader.NotJSONError: {type(error).__name__}") from None
    written = None
    for line in "\n".join(sources).splitlines():
        match line.strip():
            case (
                ""
                | "import json"
                | 'request = json.load(open("/tmp/body.json"))'
                | 'prompt = request["messages"][-1]["content"]'
            ):
                pass
            case statement if (write := _WRITE.fullmatch(statement)) is not None:
                written = _value(write[3], str(orjson.loads(body)["messages"][-1]["content"])).encode()
            case statement:
                raise Failed(1, f"nbclient.exceptions.CellExecutionError: the emulator cannot execute: {statement}")
    return written


def _value(expression: str, prompt: str) -> str:
    if (literal := re.fullmatch(r"(['\"])([^'\"\\]*)\1", expression)) is not None:
        return literal[2]
    values = {"prompt": prompt, "prompt.upper()": prompt.upper(), "str(len(prompt))": str(len(prompt))}
    if expression not in values:
        raise Failed(1, f"nbclient.exceptions.CellExecutionError: the emulator cannot execute: {expression}")
    return values[expression]
