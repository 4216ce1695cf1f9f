"""The book as an EPUB and as a PDF: well-formed, without dead links, and printed to its end."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import xml.dom.minidom
import zipfile
from pathlib import Path

import pytest
from segedu_site import paper
from small_book import CONFIG, FRONT, ROOT, build

PAGES = {
    "index": "# A book\n\n[The second page](second.md) and [its part](second.md#part), {numref}`fig-red`.\n",
    "second": "# 2 Second\n\nLet $x < y$ and\n\n$$\n\\frac{a}{b}\n$$\n\n## Part\n\n"
    "```{code-cell} ipython3\n---\nmystnb:\n  figure:\n    name: fig-red\n    caption: A red field.\n---\n"
    "import io\nfrom IPython.display import Image, display\nfrom PIL import Image as Picture\n\npng = io.BytesIO()\n"
    'Picture.new("RGB", (400, 40), "red").save(png, format="png")\n'
    'display(Image(data=png.getvalue(), format="png", width=200, metadata={"alt": "A field that is all red"}))\n```\n',
}


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("paper")
    (folder / "course").mkdir()
    (folder / "course" / "second.md").write_text(FRONT + PAGES["second"])
    status, said = build(folder, PAGES["index"], "chapters:\n  - file: course/second\n")
    assert status == 0, said
    return folder


def test_the_epub_is_well_formed_and_reads_its_formulas(book):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "epub", "-d", "_build/doctrees"]
    command += ["-c", CONFIG.name, ".", "_build/epub"]
    env = {**os.environ, "SEGEDU_NPM": str(ROOT / "_build" / "npm")}
    done = subprocess.run(command, cwd=book, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = (book / "_build" / "epub").glob("*.epub")
    with zipfile.ZipFile(path) as files:
        for name in files.namelist():
            if name.endswith((".xhtml", ".opf", ".ncx")):
                xml.dom.minidom.parseString(files.read(name))
        page = files.read("course/second.xhtml").decode()
        assert not [name for name in files.namelist() if name.startswith("source/")]
    assert "mjx-" not in page
    assert 'aria-label="x &lt; y"' in page or r"\(x &lt; y\)" in page  # without Node.js it is TeX


@pytest.mark.browser
@pytest.mark.skipif(not any(map(shutil.which, paper.BROWSERS)), reason="no Chromium that can print")
def test_the_pdf_holds_every_page_and_its_links(book, monkeypatch):
    monkeypatch.setenv("SEGEDU_NPM", str(ROOT / "_build" / "npm"))
    paper.main(book)
    pdf = (book / "_build" / "book.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type /Page\b", pdf)) >= 1
    html = (book / "_build" / "one-page" / paper.PAGE).read_text()
    ids = set(re.findall(r'\sid="([^"]+)"', html))
    links = set(re.findall(r'<a [^>]*href="#([^"]+)"', html))
    assert {"document-course/second", "fig-red"} <= links <= ids


def test_links_within_one_page():
    page = '<p id="there"></p><a class="x" href="#document-a/b#there">one</a><a href="#document-c">two</a>'
    assert paper.links_within_one_page(page) == '<p id="there"></p><a class="x" href="#there">one</a>two'


def test_without_chromium_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="expected one of chromium"):
        paper.print_pdf(tmp_path / "page.html", tmp_path / "page.pdf")
