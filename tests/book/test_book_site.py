"""The built site: what must be on it, beyond what the build itself refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from segedu_site import address, lint

ROOT = Path(__file__).resolve().parents[2]
LABS = sorted(path.stem for path in (ROOT / "labs").glob("*.ipynb"))


def coverage_rows() -> dict[str, list[str]]:
    """Chapter number -> rows of course/coverage.md below its heading."""
    chapters: dict[str, list[str]] = {}
    for line in (ROOT / "course" / "coverage.md").read_text().splitlines():
        if heading := re.match(r"## (\d+)", line):
            rows = chapters.setdefault(heading[1], [])
        elif line.startswith("| ") and not line.startswith("| Idea"):
            rows.append(line)
    return chapters


def test_every_idea_has_a_link_for_each_of_its_parts():
    for rows in coverage_rows().values():
        for row in rows:
            idea, places = re.match(r"\| (.+?) \| (.+) \|$", row).groups()
            links = re.findall(r"\[[^\]]{4,}\]\([^)]+\)", places)
            assert len(links) >= len(idea.split(";")), f"{idea}: {len(links)} links"


def test_every_row_of_the_syllabus_is_there_in_its_own_words():
    syllabus = ROOT.parent / "shared" / "SYLLABUS.md"
    if not syllabus.is_file():
        pytest.skip("no ../shared/SYLLABUS.md beside this checkout to compare with")
    part = syllabus.read_text().split("## 6. Coverage", 1)[1]
    chapters = coverage_rows()
    built = [folder.name for folder in (ROOT / "course").glob("[0-9]*-*")]
    assert sorted(chapters, key=int) == sorted({str(int(name[:2])) for name in built}, key=int)
    for line in re.finditer(r"^\*\*[^*]+\*\* (\d[\d, ]*): (.+)\.$", part, re.MULTILINE):
        numbers = line[1].split(", ")  # "9, 10": two chapters share the ideas, in any order
        ideas = [idea for idea in line[2].split(" · ") if "homework is in" not in idea]
        promptable = list((ROOT / "course").glob("16-*/sam.md"))
        if numbers == ["16"] and not promptable:  # that half is not there yet
            ideas = [idea for idea in ideas if "3D" in idea]
        if any(number not in chapters for number in numbers):
            continue
        named = [[row.split(" | ")[0].removeprefix("| ") for row in chapters[number]] for number in numbers]
        assert all(names[-1] == "reading list" for names in named)
        found = [idea for names in named for idea in names[:-1]]
        assert found == ideas if len(numbers) == 1 else sorted(set(found)) == sorted(ideas)


def test_links_of_the_coverage_page_work(site):
    page = site / "course" / "coverage.html"
    assert list(lint.broken_links(lint.Page(page.read_text()), page, site)) == []


def test_every_page_passes_the_lint(site):
    assert [complaint for page in lint.pages(site) for complaint in lint.complaints(page, site)] == []


@pytest.mark.parametrize("lab", LABS)
def test_a_lab_page_leads_to_colab_and_to_the_file_itself(site, lab):
    page = site / "labs" / f"{lab}.html"
    links = dict((text, href) for href, text in lint.Page(page.read_text()).links)
    owner = address.repository().removeprefix("https://github.com/")
    expected = f"https://colab.research.google.com/github/{owner}/blob/main/labs/{lab}.ipynb"
    assert links["Open in Colab"] == expected
    downloaded = (page.parent / links["Download the notebook"]).read_bytes()
    assert downloaded == (ROOT / "labs" / f"{lab}.ipynb").read_bytes()


@pytest.mark.parametrize("lab", LABS)
def test_a_chapter_leads_to_its_lab(site, lab):
    (chapter,) = (site / "course").glob("capstone.html" if lab == "capstone" else f"{lab[:2]}-*/index.html")
    hrefs = [href for href, _ in lint.Page(chapter.read_text()).links]
    assert any(href.endswith(f"../labs/{lab}.html") for href in hrefs)


def test_every_method_file_is_on_the_methods_page(site):
    page = (site / "course" / "methods.html").read_text().replace("<wbr>", "")  # where a long path may break
    methods = ("unsupervised", "semantic", "detection", "instance", "panoptic", "promptable")
    for path in [path for task in methods for path in (ROOT / "segedu" / task).rglob("*.py")]:
        if re.search(r"^Paper:", path.read_text(), re.MULTILINE):
            name = path.relative_to(ROOT).as_posix()
            assert name in page
            assert (site / "source" / name).with_suffix(".html").is_file()


def test_widgets_are_frames_on_the_site(site):
    for page in lint.pages(site):
        assert "application/vnd.jupyter.widget" not in page.read_text(), page
