"""HTML shared by all pages of the gradebook: one file per page, without scripts or external addresses, also for phones.

Callers escape the text that they insert, for example with `text`.
"""

from __future__ import annotations

import re
from html import escape
from urllib.parse import quote

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1e23; --soft: #565d66; --line: #d3d8de; --card: #fff; --ground: #f4f6f8;
  --link: #1f56a8; --bar: #3a6cb4; --good: #1b7f3b; --part: #8f5600; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #a5adb8; --line: #3a414b; --card: #1d2127;
  --ground: #14171b; --link: #8ab6f5; --bar: #6f9fe0; --good: #67c587; --part: #e2a95a; --bad: #f28b82; } }
* { box-sizing: border-box; }
body { font: 1rem/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 0; }
main { max-width: 46rem; margin: 0 auto; padding: 1.25rem 1rem 3rem; } .wide main { max-width: 76rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; } h3 { font-size: 1rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
p { margin: .35rem 0; } ul { margin: .35rem 0; padding-left: 1.25rem; } li { overflow-wrap: anywhere; }
a { color: var(--link); } a:focus-visible, summary:focus-visible, [tabindex]:focus-visible
  { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -99rem; } .skip:focus { left: 1rem; top: .5rem; background: var(--card); }
.soft { color: var(--soft); } .num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: .95rem; } caption { text-align: left; color: var(--soft); }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; color: var(--soft); font-weight: 600; }
th.num, td.num { text-align: right; } thead th.num { white-space: normal; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .25rem .75rem .5rem; }
.scroll table { width: 100%; } th .soft { font-weight: 400; } td:not(.num) { min-width: 4.5rem; }
.when span { white-space: nowrap; }
.scroll th[scope=row] { position: sticky; left: 0; background: var(--card); min-width: 7rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) { .scroll th[scope=row] { min-width: 9rem; max-width: 9.5rem; } }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem;
  margin: .75rem 0; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--link); }
@media print { body { background: none; } .card { break-inside: avoid; } }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(title: str, body: str, style: str = "", wide: bool = False) -> str:
    """Build an HTML document from a plain-text title and the HTML of its main part; `style` is additional CSS."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="referrer" content="no-referrer"><meta name="robots" content="noindex">'
        f"<title>{escape(printable(title))}</title><style>{_STYLE}{style}</style></head>\n"
        f'<body{" class=wide" * wide}><a class="skip" href="#top">To the content</a>\n'
        f'<main id="top">\n{body}\n</main></body></html>\n'
    )


def text(words: object) -> str:
    """Escape a text for HTML; words between backticks become code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(printable(words)))


def printable(words: object) -> str:
    """Replace control characters and marks that change the writing direction by spaces."""
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in str(words))


def breakable(name: str) -> str:
    """The escaped name of an exercise, with possible line breaks after its underscores."""
    return escape(printable(name)).replace("_", "_<wbr>")


def moment(shown: str) -> str:
    """A time such as `2026-10-05 23:59 CEST`; a line may break only between day and hour."""
    day, _, hour = shown.partition(" ")
    return f'<span class="when"><span>{text(day)}</span> <span>{text(hour)}</span></span>'


def listed(items: list[str]) -> str:
    """An HTML list of plain texts, or "" for an empty list."""
    return f"<ul>{''.join(f'<li>{text(item)}</li>' for item in items)}</ul>" if items else ""


def link(address: str, label: str) -> str:
    """A link to a relative address with a plain-text label."""
    return f'<a href="{escape(quote(address))}">{escape(printable(label))}</a>'


def table(header: list[str], rows: list[str], numeric: tuple[int, ...] = (), label: str = "") -> str:
    """A table that scrolls sideways, with the mouse or the keyboard, if it is wider than the screen.

    Args:
        header: HTML of the column headings.
        rows: table rows, which `row` makes.
        numeric: indices of the columns that hold numbers.
        label: name of the table for screen readers.
    """
    heads = "".join(f'<th scope="col"{" class=num" * (i in numeric)}>{head}</th>' for i, head in enumerate(header))
    body = f"<table><thead><tr>{heads}</tr></thead><tbody>\n{chr(10).join(rows)}\n</tbody></table>"
    return f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">{body}</div>'


def row(cells: list[str], numeric: tuple[int, ...] = ()) -> str:
    """A table row of HTML cells; the first cell is the heading of the row."""
    heading = f'<th scope="row">{cells[0]}</th>'
    rest = (f"<td{' class=num' * (i in numeric)}>{cell}</td>" for i, cell in enumerate(cells[1:], 1))
    return f"<tr>{heading}{''.join(rest)}</tr>"
