"""The whole book as an EPUB, and as one long page that Chromium prints into a PDF (`segedu epub`, `segedu pdf`).

Both are built from the sources of the site. They hold no pages of whole source files and no solutions, so links to
these become plain text. Formulas of the EPUB are drawings whose name for a screen reader is their TeX: a reader without
style sheets would otherwise show the MathML a second time.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

from segedu_site.address import repository

ROOT = Path(__file__).resolve().parents[2]
PAGE = "book.html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FORMULA = re.compile(r"<mjx-container ([^>]*)>(<svg.*?</svg>)<mjx-assistive-mml.*?</mjx-container>", re.DOTALL)
LINK = re.compile(r'<a ([^>]*)href="#([^"]*)"([^>]*)>(.*?)</a>', re.DOTALL)


def configure(app: Sphinx, config: Config) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    config.epub_title = config.html_title
    config.epub_description = project.get("description", "")
    config.epub_identifier = repository()
    config.epub_scheme = "URL"
    config.epub_uid = "address"
    config.epub_show_urls = "no"


def plain_formulas(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None
) -> None:
    """Write each formula of an EPUB as a drawing with its TeX as name."""
    if app.builder.name == "epub" and "body" in context:
        context["body"] = FORMULA.sub(_drawing, context["body"])


def _drawing(found: re.Match) -> str:
    tex = re.search(r'data-tex="([^"]*)"', found[1])[1]
    style = ' style="display: block; text-align: center; margin: 1em 0"' if 'display="true"' in found[1] else ""
    return f'<span role="img" aria-label="{tex}"{style}>{found[2]}</span>'


def links_within_one_page(page: str) -> str:
    """Repair the links of a book that is one page: Sphinx writes `#document-name#anchor` for another document.

    Args:
        page: HTML. A link to an anchor that it does not have becomes text.
    """
    anchors = set(re.findall(r'\sid="([^"]+)"', page))

    def repaired(found: re.Match) -> str:
        target = found[2].rsplit("#", 1)[-1]
        if target in anchors:
            return f'<a {found[1]}href="#{target}"{found[3]}>{found[4]}</a>'
        return found[4] if target.startswith("document-") or found[2] != target else found[0]

    return LINK.sub(repaired, page)


def repair_page(app: Sphinx, exception: Exception | None) -> None:
    """Repair the links, and move the page to the top: there lie the files whose addresses Sphinx has written."""
    if exception is None and app.builder.name == "singlehtml":
        folder = Path(app.outdir)
        written = folder / f"{app.config.root_doc}.html"
        (folder / PAGE).write_text(links_within_one_page(written.read_text(encoding="utf-8")), encoding="utf-8")


def print_pdf(page: Path, pdf: Path) -> None:
    """Print a page with Chromium.

    Raises:
        FileNotFoundError: if there is no Chromium.
        RuntimeError: if it wrote no PDF.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise FileNotFoundError(f"no browser that can print: expected one of {', '.join(BROWSERS)}")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", "--generate-pdf-document-outline"]
    command = [browser, *flags, f"--print-to-pdf={pdf}", page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not pdf.is_file():
        raise RuntimeError(f"{browser} printed nothing: {done.stderr[-500:]}")


def main(root: Path = ROOT) -> None:
    """Build the book as one page, and print it into `_build/book.pdf`."""
    build = root / "_build"
    command = [sys.executable, "-m", "sphinx", "-b", "singlehtml", "-W", "--keep-going", "-d", str(build / "doctrees")]
    folders = ["-c", str(root / "jupyter-book-config"), str(root), str(build / "one-page")]
    status = subprocess.call([*command, *folders], cwd=root)
    if status:
        raise SystemExit(status)
    pdf = build / "book.pdf"
    pdf.unlink(missing_ok=True)
    print_pdf(build / "one-page" / PAGE, pdf)
    print(f"The book is in {pdf}")


def setup(app: Sphinx) -> None:
    app.connect("config-inited", configure)
    app.connect("html-page-context", plain_formulas, priority=900)
    app.connect("build-finished", repair_page)
