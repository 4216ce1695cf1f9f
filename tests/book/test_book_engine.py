"""The book's own extension: what makes a build fail, and what is read from where."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
import yaml
from segedu_site import address, figures, kernels, lint, maths, methods, npm, sources
from small_book import build

from segedu.teaching.capstone import report as capstone_report

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "jupyter-book-config"
HEADER = '''"""Toy: a net.

Paper: Someone,
    2015.
Idea: x | y, 2**n.
Quality: 0.9
Course: 06-toy
Lab: 06_toy
"""
raise RuntimeError("imported")
'''
PICTURE = """
import base64
from IPython.display import Image, display
png = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")
display(Image(data=png, format="png"{}))
"""


WITHOUT_NODE = {"PATH": "/nowhere", "SEGEDU_NPM": "/nowhere"}  # formulas stay TeX


def cell(code: str) -> str:
    return f"\n```{{code-cell}} ipython3\n{code}\n```\n"


def test_a_good_page_builds(tmp_path):
    alt = ', metadata={"alt": "One black pixel and nothing else"}'
    page = "# A page\n\n## Part\n\n[the part](#part) $x^2$\n" + cell(PICTURE.format(alt))
    status, said = build(tmp_path, page)
    assert status == 0, said
    html = (tmp_path / "_build/html/course/index.html").read_text()
    assert 'alt="One black pixel and nothing else"' in html
    assert (tmp_path / "_build/html/index.html").is_file()


def test_no_line_breaks_between_a_formula_and_its_punctuation(tmp_path):
    page = "# A page\n\nAll ($a$, $b$)-pairs, $c$-dimensional, and $d$ alone.\n\n$e$\n"
    status, said = build(tmp_path, page, environment=WITHOUT_NODE)
    assert status == 0, said
    html = (tmp_path / "_build/html/course/index.html").read_text()

    def formula(letter: str) -> str:
        return rf'<span class="math notranslate nohighlight">\({letter}\)</span>'

    line = (
        f'<p>All <span class="one-line">({formula("a")},</span> <span class="one-line">{formula("b")})-</span>pairs, '
    )
    line += f'<span class="one-line">{formula("c")}-d</span>imensional, and {formula("d")} alone.</p>'
    assert line in html and f"<p>{formula('e')}</p>" in html
    assert ".one-line { white-space: nowrap; }" in (CONFIG / "static/segedu.css").read_text()


def test_a_page_without_source_is_deleted(tmp_path):
    """A page that was split or renamed stays in the folder of an earlier build, with links that lead nowhere."""
    old = tmp_path / "_build/html/course/old.html"
    old.parent.mkdir(parents=True)
    old.write_text('<html><body><article><a href="index.html#gone">the rest of the chapter</a></article></body></html>')
    status, said = build(tmp_path, "# A page\n")
    assert status == 0, said
    assert not old.exists() and (old.parent / "index.html").is_file()


def test_a_poor_page_fails_and_each_fault_is_named(tmp_path):
    page = (
        "# A page\n\n### Too deep\n\n[nowhere](missing.md) and [here](#too-deep) $\\nomacro$\n\n"
        '<script src="https://cdn.example/x.js"></script>\n\n<a href="../gone.html">gone</a>\n'
    )
    status, said = build(tmp_path, page + cell(PICTURE.format("")))
    assert status != 0
    for fault in (
        "missing.md",
        "H1 to H3",
        "says only 'here'",
        "the page loads https://cdn.example/x.js",
        "leads to ../gone.html, which is not in the site",
        "has no alt text that says what is seen",
        *(["MathJax cannot typeset"] if npm.node() and npm.obtain(maths.PACKAGE) else []),
    ):
        assert fault in said, f"not said: {fault}\n{said}"


@pytest.mark.parametrize("switch", ["1", "0"])
def test_an_instructor_can_leave_the_solutions_out(tmp_path, switch):
    for name in ("labs", "solutions"):
        (tmp_path / name).mkdir()
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Lab 4")])
        nbformat.write(notebook, tmp_path / name / "04_toy.ipynb")
    page = "# A page\n\n```{lab} 04_toy\n```\n"
    status, said = build(tmp_path, page, "chapters:\n  - file: labs/04_toy\n", {"SEGEDU_SOLUTIONS": switch})
    assert status == 0, said
    html = tmp_path / "_build" / "html"
    there = switch == "1"
    assert (html / "solutions" / "04_toy.html").exists() is there
    for path in (html / "course" / "index.html", html / "labs" / "04_toy.html"):
        assert ("solutions/04_toy.html" in path.read_text()) is there


def test_a_failed_cell_fails_the_build(tmp_path):
    status, said = build(tmp_path, "# A page\n" + cell("1 / 0"))
    assert status != 0
    assert "ZeroDivisionError" in said


@pytest.mark.parametrize(
    ("html", "complaint"),
    [
        ('<img src="a1b2.png" alt="a1b2.png, a file">', "no alt text"),
        ('<img src="a.png">', "no alt text"),
        ('<img src="a.png" alt="short">', "no alt text"),
        ('<a href="other.html#nothing">the other</a>', "no such anchor"),
        ('<a href="#nothing">this page, further down</a>', "no such anchor"),
        ('<link rel="stylesheet" href="https://fonts.example/x.css">', "the page loads https://fonts"),
        ('<script src="//cdn.example/x.js"></script>', "the page loads //cdn"),
        ("<h1>Second</h1>", "2 headings of the first level"),
        ("<table><tr><td>1</td></tr></table>", "without header cells"),
        ('<div class="output traceback highlight"></div>', "ended in an error"),
        ("<p>| a | b |\n|---|---|</p>", "its table was not recognised"),
        (r'<math><mtable align="\text{a}, x"></mtable></math>', "read as an option"),
    ],
)
def test_lint_finds(tmp_path, html, complaint):
    (tmp_path / "other.html").write_text('<p id="something"></p>')
    (tmp_path / "page.html").write_text(f"<article><h1>Title</h1>{html}</article>")
    assert complaint in " ".join(lint.complaints(tmp_path / "page.html", tmp_path))


def test_lint_is_quiet_about_a_good_page(tmp_path):
    page = """<article><h1 id="top">Title</h1><h2>Part</h2><h3>Smaller</h3><h2>Part</h2>
    <img src="a.png" alt="Two discs that overlap"><a href="#top">back to the title</a>
    <a href="https://example.org">another site</a><table><tr><th>n</th></tr><tr><td>1</td></tr></table>
    <p>The norm <code>a</code> | b | is 1.</p><math><mtable align="baseline 1"></mtable></math></article>"""
    (tmp_path / "page.html").write_text(page)
    assert list(lint.complaints(tmp_path / "page.html", tmp_path)) == []


def test_a_change_in_the_library_is_a_new_cache(tmp_path):
    (tmp_path / "grading").mkdir()
    (tmp_path / "viz.py").write_text("x = 1\n")
    before = kernels.hash_of_sources(tmp_path)
    (tmp_path / "grading" / "batch.py").write_text("no page uses this\n")
    assert kernels.hash_of_sources(tmp_path) == before
    (tmp_path / "viz.py").write_text("x = 2\n")
    assert kernels.hash_of_sources(tmp_path) != before


def test_a_change_in_a_check_is_new_for_its_labs_only(tmp_path):
    checks, own, other = (
        tmp_path / "teaching" / folder for folder in ("checks", "exercises/lab15_queries", "exercises/lab12_anchors")
    )
    for folder in (checks, own, other, tmp_path / "teaching" / "exercises" / "lab01_tasks"):
        folder.mkdir(parents=True)
        (folder / "a.py").write_text("from exercises.lab15_queries import a\n")
    (own / "b.py").write_text("from exercises.lab12_anchors import a\n")

    def states() -> tuple[str, str]:
        return kernels.hash_of_sources(tmp_path), kernels.hash_for_lab("15_queries", tmp_path)

    before = states()
    (tmp_path / "teaching" / "exercises" / "lab01_tasks" / "a.py").write_text("changed\n")
    assert states() == before
    for folder in (checks, other, own):
        (folder / "a.py").write_text("changed, exercises.lab15_queries\n")
        assert states()[0] == before[0] and states()[1] != before[1]
        before = states()


def test_a_capstones_report_is_known_by_its_name():
    """Written out in both places, since the site's code must not need NumPy."""
    assert figures.REPORT == capstone_report.MIME


def test_the_address_stands_in_pyproject_only():
    assert address.repository().startswith("https://github.com/")
    for path in [CONFIG / "_config.yml", CONFIG / "conf.py", *(ROOT / "course").rglob("*.md")]:
        assert address.repository() not in path.read_text(), path


def test_headers_of_methods_are_read_without_importing(tmp_path):
    folder = tmp_path / "segedu" / "semantic"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "toy.py").write_text(HEADER)
    (tmp_path / "course" / "06-toy").mkdir(parents=True)
    (tmp_path / "course" / "06-toy" / "index.md").write_text("# Toy\n")
    tasks = methods.read_methods(tmp_path)
    assert [method.name for method in tasks["semantic"]] == ["Toy"]
    assert tasks["semantic"][0].fields["Paper"] == "Someone, 2015."
    text = methods.markdown(tasks, tmp_path)
    assert "[Chapter 6](/course/06-toy/index.md)" in text and "Lab 6" not in text
    assert ": x | y, `2**n`." in "\n".join(methods.entry(tasks["semantic"][0], tmp_path))


def test_sources_give_anchors_to_functions_classes_and_methods():
    assert list(sources.anchors("def f(): ...\nclass A:\n    def g(self): ...\n")) == [
        (0, "f"),
        (1, "A"),
        (2, "A.g"),
    ]


def test_the_order_of_pages_names_existing_files_once():
    def files(node):
        if isinstance(node, dict):
            yield from (value for key, value in node.items() if key in ("file", "root"))
            node = list(node.values())
        if isinstance(node, list):
            for child in node:
                yield from files(child)

    named = list(files(yaml.safe_load((CONFIG / "_toc.yml").read_text())))
    assert len(named) == len(set(named))
    for name in named:
        assert (ROOT / f"{name}.md").is_file() or (ROOT / f"{name}.ipynb").is_file(), name
