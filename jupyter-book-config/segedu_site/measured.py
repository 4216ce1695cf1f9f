"""`{measured} grading`: what was measured, a table of the claims whose names begin so, read from tests/proofs.csv.

A row whose sources have changed since has a dagger; a claim that has no row is listed as not measured.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from segedu.teaching.evidence.proofs import read_claims, read_rows, stale
from segedu_site.results import DAGGER, with_note

ROOT = Path(__file__).resolve().parents[2]


def markdown(prefix: str, root: Path = ROOT) -> str:
    """The table.

    Args:
        prefix: claims are named `prefix: what`.
        root: of the checkout.

    Raises:
        ValueError: if no claim is named so.
    """
    names = [claim.name for claim in read_claims(root) if claim.name.startswith(f"{prefix}: ")]
    if not names:
        raise ValueError(f"no claim in tests/claims.toml is named {prefix!r}, expected '{prefix}: ...'")
    rows, changed = read_rows(root), set(stale(root))
    lines = ["| what | measured | on |", "|---|---|---|"]
    for name in names:
        what = name.removeprefix(f"{prefix}: ")
        if name not in rows:
            lines.append(f"| {what} | *not yet* | |")
            continue
        date = rows[name].date + (DAGGER if name in changed else "")
        lines.append(f"| {what} | {rows[name].figure} | {date} |")
    return with_note("\n".join(lines))


class Measured(SphinxDirective):
    """Writes the table where it stands."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        for file in ("proofs.csv", "claims.toml"):
            self.env.note_dependency(str(ROOT / "tests" / file))
        written = self.parse_text_to_nodes(markdown(self.arguments[0]))
        for table in written:
            if isinstance(table, nodes.table):
                table["classes"].append("measured")
        return written


def setup(app: Sphinx) -> None:
    app.add_directive("measured", Measured)
