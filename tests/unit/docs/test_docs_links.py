"""Every link of the documentation leads somewhere."""

from pathlib import Path

import pytest
from docs_pages import PAGES, ROOT, anchors, links, name


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    broken = []
    for target in links(page):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or not page.exists():
            continue
        reached.add(page)
        targets = (target.partition("#")[0] for target in links(page) if "://" not in target)
        waiting += [(page.parent / path).resolve() for path in targets if path.endswith(".md")]
    assert [name(page) for page in PAGES if page not in reached] == []


def test_no_page_names_a_place_on_somebody_s_machine() -> None:
    wrong = [name(page) for page in PAGES for word in ("/work/", "/root/", "/tmp/plan") if word in page.read_text()]
    assert not wrong
