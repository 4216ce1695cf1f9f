"""What finished pages have beyond the theme: typeset formulas, small icons, light pictures, and figures to enlarge."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils import nodes
from docutils.utils import new_document
from segedu_site import icons, links_to_papers, maths, metadata, npm, pictures, presentation, weight
from small_book import build

from segedu import __version__

CONFIG = Path(__file__).resolve().parents[2] / "jupyter-book-config"
READY = npm.node() is not None and npm.obtain(maths.PACKAGE) is not None
needs_node = pytest.mark.skipif(not READY, reason="Node.js is not installed, or npm cannot fetch mathjax")
PAGE = r"""# A page

This paragraph describes the page in a few words, so that a search engine can show it beside the title.

Let $\frac{a}{b}$ be a fraction, and $\frac{a}{b}$ the same one.

$$
x^2 &= y \\
z &= 1
$$ (eq-two)

```{code-cell} ipython3
---
mystnb:
  figure:
    name: fig-noise
    caption: Noise of all colours.
---
import io
import numpy as np
from IPython.display import SVG, Image, display
from PIL import Image as Picture

noise = np.random.default_rng(0).integers(0, 256, (400, 1200, 3), dtype=np.uint8)
png = io.BytesIO()
Picture.fromarray(noise).save(png, format="png")
display(Image(data=png.getvalue(), format="png", width=600, metadata={"alt": "Noise, a random colour per pixel"}))
```

```{code-cell} ipython3
---
mystnb:
  figure:
    name: fig-line
    caption: A line.
---
svg = '<svg xmlns="http://www.w3.org/2000/svg" width="600pt" height="90pt" viewBox="0 0 600 90"><path d="M 0 0 L 600 90"/></svg>'
display(SVG(data=svg), metadata={"image/svg+xml": {"alt": "A line from one corner to the other"}})
```
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("presentation")
    status, said = build(folder, PAGE)
    assert status == 0, said
    return folder / "_build" / "html" / "course" / "index.html"


@needs_node
def test_formulas_are_typeset_and_mathjax_is_not_loaded(page):
    html = page.read_text()
    assert html.count("<mjx-container") == html.count("<math xmlns") == 3
    assert html.count('data-tex="\\frac{a}{b}"') == 2
    assert "tex-svg" not in html and not (page.parents[1] / "_static" / "mathjax").exists()


@needs_node
def test_each_glyph_of_a_page_is_written_once(page):
    html = page.read_text()
    used = set(maths.GLYPH.findall(html))
    assert used
    for name in used:
        assert html.count(f'<path id="{name}"') == 1


@needs_node
def test_a_formula_that_mathjax_does_not_know_is_an_error():
    setter = maths.Typesetter(npm.obtain(maths.PACKAGE))
    assert "data-mjx-error" in setter.typeset(r"\nomacro{x}", display=False)
    assert "data-mjx-error" not in setter.typeset(r"\mathbf{x}", display=False)
    setter.stop()


def test_without_node_pages_load_mathjax(tmp_path):
    status, said = build(tmp_path, "# A page\n\n$x^2$\n", environment={"PATH": "/nowhere", "SEGEDU_NPM": str(tmp_path)})
    assert status == 0, said
    html = (tmp_path / "_build" / "html" / "course" / "index.html").read_text()
    assert "tex-svg.js" in html and r"\(x^2\)" in html
    assert (tmp_path / "_build" / "html" / "_static" / "mathjax" / "tex-svg.js").is_file()


def test_a_package_with_another_hash_is_refused(tmp_path):
    (tmp_path / "package.tgz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="mathjax 3.2.2 has sha512 .+, expected"):
        npm.unpack(tmp_path / "package.tgz", maths.PACKAGE, tmp_path)


def test_a_heavy_picture_has_a_light_copy_and_keeps_its_size(page):
    html = page.read_text()
    (light,) = [tag for name, tag in weight.tags(html) if name == "img" and tag["src"].endswith(".webp")]
    assert (light["width"], light["height"], light["loading"]) == ("600", "200", "lazy")
    full = page.parent / Path(light["src"]).with_suffix(".png")
    assert full.stat().st_size > 3 * (page.parent / light["src"]).stat().st_size
    assert f'data-full="{Path(light["src"]).with_suffix(".png").as_posix()}"' in html


def test_a_drawing_is_marked_for_the_dark_mode(page):
    (drawing,) = [
        tag for _, tag in weight.tags(page.read_text()) if tag.get("src", "").endswith(".svg") and "width" in tag
    ]
    assert "line-drawing" in drawing["class"] and (drawing["width"], drawing["height"]) == ("800", "120")


def test_a_drawing_whose_caption_names_white_is_not_inverted():
    for text, expected in (("White boxes are losses.", True), ("Grey boxes are losses.", False)):
        image = nodes.image()
        nodes.figure("", image, nodes.caption("", text))
        assert bool(pictures.NAMES_LIGHTNESS.search(pictures._caption(image))) is expected


def test_a_light_picture_stays_as_it_is(tmp_path):
    (tmp_path / "small.png").write_bytes(b"\x89PNG")
    assert pictures.light_copy(tmp_path / "small.png") is None


def test_icons_are_drawn_and_no_script_draws_them(page):
    html = page.read_text()
    assert "fontawesome" not in html and '<i class="fa' not in html
    assert '<svg xmlns="http://www.w3.org/2000/svg" class="icon fa-chevron' in html or 'class="icon fa-bars"' in html


def test_the_codes_of_icons_are_not_in_the_style_sheet(page):
    styles = (page.parents[1] / icons.STYLES_OF_THEME).read_text()
    assert len(styles) > 100_000 and "--fa:" not in styles.replace("var(--fa", "")


def test_an_unknown_icon_keeps_the_script():
    html = '<script defer src="_static/scripts/fontawesome.js?digest=1"></script><i class="fas fa-no-such-icon"></i>'
    assert icons.replace(html) == html
    assert "fontawesome" not in icons.replace(html.replace("no-such-icon", "bars"))


def test_the_search_index_is_loaded_for_a_search_only():
    loading = '<script src="../searchindex.js"></script>'
    assert loading not in presentation.finish(f"<html>{loading}</html>")
    assert loading in presentation.finish(f'<html>{loading}<div id="search-results"></div></html>')


def test_names_in_tables_break_after_slashes_and_underscores():
    cell = '<td><code><span class="pre">segedu/semantic/res_unet.py</span> <span class="pre">a_b</span></code></td>'
    page = f'<p><code><span class="pre">segedu/cli.py</span></code></p>{cell}<td>torch.nn_and_more</td>'
    found = presentation.breaks_in_names(page)
    assert "segedu/<wbr>semantic/<wbr>res_<wbr>unet.py<" in found
    assert found.count("<wbr>") == 3


def test_long_names_in_a_paragraph_break_after_underscores():
    def code(name: str) -> str:
        return f'<code><span class="pre">{name}</span></code>'

    page = f"<article><p>{code('predict_boundaries_of_touching_cells')} {code('box_iou')}</p></article>"
    finished = presentation.finish(page)
    assert "predict_<wbr>boundaries_<wbr>of_<wbr>touching_<wbr>cells" in finished
    assert code("box_iou") in finished


def test_options_of_commands_stay_whole():
    page = '<code><span class="pre">train</span> <span class="pre">--data</span> <span class="pre">--</span></code>'
    assert presentation.whole_options(page).count("option") == 1
    assert '<span class="pre option">--data</span>' in presentation.whole_options(page)


def test_papers_are_linked_where_they_are_named():
    text = "See arXiv:1505.04597, doi:10.1038/s41592-020-01018-x. Not 10.5/3 or x10."
    first, arxiv, _, doi, last = links_to_papers.linked(text)
    assert (first, last) == ("See ", ". Not 10.5/3 or x10.")
    assert (arxiv.astext(), arxiv["refuri"]) == ("arXiv:1505.04597", "https://arxiv.org/abs/1505.04597")
    assert (doi.astext(), doi["refuri"]) == (
        "doi:10.1038/s41592-020-01018-x",
        "https://doi.org/10.1038/s41592-020-01018-x",
    )
    code = nodes.literal("", "arXiv:1505.04597")
    assert links_to_papers.is_fixed(code[0]) and not links_to_papers.is_fixed(nodes.paragraph("", text)[0])


def test_names_for_screen_readers():
    chapter = (
        '<a class="reference internal" href="x.html">5 FCN &amp; more</a><details><summary><span></span></summary>'
    )
    before = '<a class="reference internal" href="a.html">A page without pages</a></li><li>'
    assert '<summary aria-label="Pages of 5 FCN &amp; more">' in presentation.finish(before + chapter)
    assert (
        presentation.finish('<summary aria-label="Toggle hidden content">Show</summary>') == "<summary>Show</summary>"
    )


def test_what_a_page_says_about_itself(page):
    html = page.read_text()
    for part in (
        '<meta name="description" content="This paragraph describes the page in a few words',
        '<meta property="og:title" content="A page"/>',
        f"<p>Version {__version__}</p>",
        "/edit/main/course/index.md",
        "/issues/new?title=Page%20course/index",
    ):
        assert part in html
    assert "canonical" not in html and not (page.parents[1] / "sitemap.xml").exists()
    assert "Page not found" in (page.parents[1] / "404.html").read_text()


def test_labs_are_edited_where_their_source_is():
    assert metadata.source_of(SimpleNamespace(), "labs/06_unet") == "solutions/06_unet.py"


def test_with_an_address_there_are_a_sitemap_and_absolute_links(tmp_path):
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "index.html").write_text("")
    (tmp_path / "404.html").write_text(
        '<link href="_static/a.css"/><a href="#top">top</a><a href="https://b.org">b</a>'
    )
    builder = SimpleNamespace(name="html")
    app = SimpleNamespace(
        config=SimpleNamespace(html_baseurl="https://example.org/s/"), builder=builder, outdir=str(tmp_path)
    )
    metadata.write_sitemap(app, None)
    sitemap = (tmp_path / "sitemap.xml").read_text()
    assert "<loc>https://example.org/s/course/index.html</loc>" in sitemap and "404" not in sitemap
    expected = '<link href="https://example.org/s/_static/a.css"/><a href="#top">top</a><a href="https://b.org">b</a>'
    assert (tmp_path / "404.html").read_text() == expected


def test_the_weight_of_a_page_counts_what_it_loads_at_once(tmp_path):
    for name, length in {
        "a.js": 1_000_000,
        "a.css": 300_000,
        "0.png": 400_000,
        "1.png": 400_000,
        "2.png": 400_000,
    }.items():
        (tmp_path / name).write_bytes(b"x" * length)
    late = "".join(f'<img src="{number}.png" loading="lazy" alt="A picture of something">' for number in range(3))
    html = f'<link rel="stylesheet" href="a.css"><script src="a.js"></script>{late}'
    (tmp_path / "page.html").write_text(html)
    (complaint,) = weight.heavy(tmp_path / "page.html")
    assert complaint.startswith("the page has 2.10 MB") and "a.js 1.00 MB" in complaint
    (tmp_path / "page.html").write_text(html.replace('<script src="a.js"></script>', ""))
    assert list(weight.heavy(tmp_path / "page.html")) == []


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        ('<img src="{png}" alt="">', "no width or height"),
        ('<img src="{png}" width="300" height="300" alt="">', "1.00 pixels per pixel"),
        ('<img src="{svg}" width="800" height="100" alt="">', "labels of 6 points"),
    ],
)
def test_poor_pictures_are_found(tmp_path, image, complaint):
    names = {"png": "a" * 64 + ".png", "svg": "b" * 64 + ".svg"}
    (tmp_path / names["png"]).write_bytes(b"\x89PNG\r\n\x1a\n0000IHDR" + (300).to_bytes(4) * 2)
    (tmp_path / names["svg"]).write_text('<svg width="600pt" height="90pt"><g transform="scale(0.06 -0.06)"></g></svg>')
    (tmp_path / "page.html").write_text(image.format(**names))
    (found,) = weight.poor_pictures(tmp_path / "page.html")
    assert complaint in found


@pytest.mark.browser
def test_a_figure_is_enlarged_by_click_and_by_keyboard(browser, page):
    tab = browser.new_page()
    tab.goto(page.as_uri())
    tab.click("#fig-noise img")
    shown = tab.locator("dialog.figure-dialog img")
    assert shown.get_attribute("alt") == "Noise, a random colour per pixel"
    assert shown.evaluate("(i) => i.decode().then(() => i.src.endsWith('.png'))")
    tab.keyboard.press("Escape")
    assert not tab.locator("dialog.figure-dialog").is_visible()
    button = tab.locator("#fig-line .enlarge")
    button.focus()
    assert button.evaluate("(b) => getComputedStyle(b).opacity") == "1"
    tab.keyboard.press("Enter")
    assert shown.get_attribute("alt") == "A line from one corner to the other"
    tab.get_by_role("button", name="Close").click()
    assert tab.evaluate("() => document.activeElement.className") == "enlarge"
    tab.close()


@pytest.mark.browser
@needs_node
def test_a_copied_formula_is_tex(browser, page):
    tab = browser.new_page()
    tab.goto(page.as_uri())
    copied = tab.evaluate(
        """() => {
            getSelection().selectAllChildren([...document.querySelectorAll("article p")].find(p => p.querySelector("svg use")));
            const event = new ClipboardEvent("copy", {clipboardData: new DataTransfer(), cancelable: true});
            document.dispatchEvent(event);
            return event.clipboardData.getData("text/plain");
        }"""
    )
    assert copied == r"Let $\frac{a}{b}$ be a fraction, and $\frac{a}{b}$ the same one."
    tab.close()


@pytest.mark.browser
def test_paper_shows_no_buttons(browser, page):
    tab = browser.new_page()
    tab.goto(page.as_uri())
    tab.emulate_media(media="print")
    for selector in (".page-links", ".enlarge", ".bd-sidebar-primary", "#pst-back-to-top"):
        assert not tab.locator(selector).first.is_visible(), selector
    assert tab.locator("#fig-noise img").is_visible()
    tab.close()


@pytest.mark.parametrize(("words", "end"), [(5, "word"), (80, " …")])
def test_a_description_is_cut_after_a_word(words: int, end: str):
    text = " ".join(["longword"] * words)
    section = nodes.section("", nodes.title("", "Title"), nodes.paragraph("", text))
    document = new_document("page")
    document += section
    found = metadata.description(document)
    assert len(found) <= 160 and found.endswith(end) and text.startswith(found.removesuffix(" …"))


def test_numbers_keep_their_percent_sign_and_names_their_hyphen():
    page = "<article><h1>Mask R-CNN</h1><p>A U-Net: 97 % of <b>48</b>\n%, <code>x</code> %d</p><pre>9 %</pre></article>"
    assert presentation.whole_names(presentation.whole_percentages(page)) == (
        '<article><h1>Mask <span class="one-line">R-CNN</span></h1><p>A U-Net: 97\u00a0% of <b>48</b>\u00a0%, '
        "<code>x</code> %d</p><pre>9 %</pre></article>"
    )
    assert "segedu/<wbr>losses/<wbr>focal.py" in presentation.whole_names(
        "<article><h1>segedu/losses/focal.py</h1></article>"
    )
