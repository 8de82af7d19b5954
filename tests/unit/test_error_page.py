"""Every error code is documented, and the page says what the source says."""

import runpy
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "error_page.py"


def test_the_page_of_errors_says_what_the_source_says() -> None:
    module = runpy.run_path(str(SCRIPT))
    assert module["PAGE"].read_text() == module["page"](), "run python scripts/error_page.py"


def test_every_code_has_a_cause_and_a_remedy_in_whole_sentences() -> None:
    for code in runpy.run_path(str(SCRIPT))["catalogue"]().values():
        for text in (code.cause, code.remedy):
            assert text.endswith((".", "?", "!")), f"{code.code}: {text}"
        assert not code.title.endswith("."), code.code
