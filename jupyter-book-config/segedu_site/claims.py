"""`{measured-numbers}`: a few measured numbers in large type, and `{claims}`: the table of all measured claims.

    - claim: 'photos: encoder_unet on pets'
      find: 'encoder_unet *. (?P<number>[\\d.]+)'
      show: '{number:.2f}'
      text: mean IoU on photographs of pets

A number is read from the row of `tests/proofs.csv` whose claim begins with the pattern `claim`; if several do, the row
with the largest number. `text` may show other named groups of `find`. Each number is a link to its row in the table of
all claims, on the page `course/measured.md`.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from segedu.teaching.evidence.proofs import Row, read_claims, read_rows, stale
from segedu_site.results import DAGGER

ROOT = Path(__file__).resolve().parents[2]
PAGE = "course/measured"


def anchor(claim: str) -> str:
    """The id of a claim's row on the page of all claims.

    >>> anchor("lab 5: CPU-seconds, MiB")
    'claim-lab-5-cpu-seconds-mib'
    """
    return "claim-" + "-".join(re.findall(r"[a-z0-9]+", claim.lower()))


def readable(figure: str) -> str:
    """A figure as text; rows of a table, which `segedu train` prints with bars, become statements.

    >>> readable("Forest │ 0.66 │ 0.63     │ unet   │ 0.69 │ 0.70     │ 800 1941122 94.1")
    'Forest: 0.66, 0.63; unet: 0.69, 0.70; steps, parameters, CPU-seconds: 800, 1941122, 94.1'
    >>> readable("20 kills: none lost")
    '20 kills: none lost'
    """
    *cells, costs = (cell.strip() for cell in figure.split("│"))
    if not cells:
        return figure
    rows: list[list[str]] = []
    for cell in cells:
        if re.fullmatch(r"[\d.]+", cell) and rows:
            rows[-1].append(cell)
        else:
            rows.append([cell])
    statements = [f"{name}: {', '.join(scores)}" for name, *scores in rows]
    return "; ".join([*statements, f"steps, parameters, CPU-seconds: {', '.join(costs.split())}"])


def read_number(item: dict[str, str], rows: dict[str, Row]) -> tuple[str, str, str]:
    """The number of an item as it is shown, its words, and the claim that it comes from.

    Raises:
        ValueError: if no claim begins so, or its figure holds no such number.
    """
    found = {}
    for name, row in rows.items():
        if re.match(item["claim"], name):
            if not (match := re.search(item["find"], row.figure)):
                raise ValueError(f"the row {name!r} holds {row.figure!r}, expected {item['find']!r}")
            found[name] = {group: float(text.replace(",", "")) for group, text in match.groupdict().items()}
    if not found:
        raise ValueError(f"no row of tests/proofs.csv is named {item['claim']!r}")
    largest = max(found, key=lambda name: found[name]["number"])
    return item["show"].format(**found[largest]), item["text"].format(**found[largest]), largest


class MeasuredNumbers(SphinxDirective):
    """Writes the numbers where it stands."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        note_sources(self)
        rows, changed = read_rows(ROOT), set(stale(ROOT))
        row = nodes.container(classes=["measured-numbers"])
        for item in yaml.safe_load("\n".join(self.content)):
            number, text, claim = read_number(item, rows)
            box = nodes.container(classes=["measured-number"])
            box += nodes.paragraph("", "", self.link(number, claim), classes=["number"])
            words, messages = self.parse_inline(text)
            box += nodes.paragraph("", "", *words)
            if claim in changed:
                box += nodes.paragraph("", "(measured before the last change of its code)", classes=["number-note"])
            row += [box, *messages]
        return [row]

    def link(self, number: str, claim: str) -> nodes.Node:
        """The number, linked to its row if the site has the page of all claims."""
        if PAGE not in self.env.found_docs:
            return nodes.inline("", number)
        target = {
            "refdomain": "std",
            "reftype": "ref",
            "reftarget": anchor(claim),
            "refexplicit": True,
            "refwarn": True,
        }
        return addnodes.pending_xref("", nodes.inline("", number), refdoc=self.env.docname, **target)


class Claims(SphinxDirective):
    """Writes the table of all claims that have a row, newest sources or not, where it stands."""

    def run(self) -> list[nodes.Node]:
        note_sources(self)
        rows, changed = read_rows(ROOT), set(stale(ROOT))
        head = ["Claim", "Measured", "Date"]
        table = nodes.table("", classes=["look-up", "claims"])
        group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in (44, 36, 20)), cols=3)
        group += nodes.thead("", text_row(head))
        body = nodes.tbody()
        for claim in read_claims(ROOT):
            if claim.name in rows:
                body += self.claim_row(claim.name, rows[claim.name], claim.name in changed)
        group += body
        table += group
        return [table]

    def claim_row(self, name: str, row: Row, old: bool) -> nodes.row:
        date = row.date + DAGGER * old
        line = text_row([name, readable(row.figure), date])
        command = (
            f'<details class="claim-command"><summary>Command</summary><code>{escape(row.command)}</code></details>'
        )
        line[2] += nodes.raw("", command, format="html")
        line["ids"], line["names"] = [anchor(name)], [anchor(name)]
        self.env.domains.standard_domain.labels[anchor(name)] = (self.env.docname, anchor(name), name)
        self.env.domains.standard_domain.anonlabels[anchor(name)] = (self.env.docname, anchor(name))
        return line


def text_row(cells: list[str]) -> nodes.row:
    """One row of a table, with a paragraph in each cell."""
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", cell)) for cell in cells))


def note_sources(directive: SphinxDirective) -> None:
    for file in ("proofs.csv", "claims.toml"):
        directive.env.note_dependency(str(ROOT / "tests" / file))


def setup(app: Sphinx) -> None:
    app.add_directive("measured-numbers", MeasuredNumbers)
    app.add_directive("claims", Claims)
