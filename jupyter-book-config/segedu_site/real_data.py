"""`{real-data} bccd`: what the recipes reach on the test split of a real data set, as a table from tests/proofs.csv.

The rows come from claims named "real: METHOD on DATA, figures on test; seed 0", which hold what `segedu train` prints
as "all figures on test"; one whose sources have changed since says so.
"""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from segedu.teaching.evidence.proofs import read_rows, stale
from segedu_site.results import DAGGER, with_chart

ROOT = Path(__file__).resolve().parents[2]
CLAIM = re.compile(r"real: (?P<method>\S+) on (?P<data>\S+), figures on test; seed 0")
FIGURE = re.compile(r"(\w+) (\d\.\d{4})(?= |$)")
COLUMNS = {  # data set -> name of a figure -> heading of its column
    "hippocampus": {"foreground_dice": "Dice, whole", "dice_1": "anterior", "dice_2": "posterior"},
    "bccd": {
        "box_ap50": "AP50, mean",
        "box_ap50_1": "red cells",
        "box_ap50_2": "white cells",
        "box_ap50_3": "platelets",
        "box_ap": "AP, mean",
    },
    "pennfudan": {"box_ap50": "box AP50", "box_ap": "box AP", "mask_ap50": "mask AP50", "mask_ap": "mask AP"},
}


def real_data_table(data: str, root: Path = ROOT) -> str:
    """The figures of each method on the test split, the baseline first.

    Args:
        data: name of the data set, a key of `COLUMNS`.
        root: of the checkout.

    Raises:
        ValueError: the data set has no columns, a row is not what `segedu train` prints, or the baselines differ.
    """
    if data not in COLUMNS:
        raise ValueError(f"data is {data!r}, expected one of {', '.join(COLUMNS)}")
    plain, lines, changed = set(), [], set(stale(root))
    for name, row in read_rows(root).items():
        if (found := CLAIM.match(name)) and found["data"] == data:
            baseline, _, ours = row.figure.partition("; ")
            method, *counts = [ours.split(" ", 1)[0], *ours.split()[-3:]]
            if method != found["method"] or not all(re.fullmatch(r"\d+(\.\d)?", count) for count in counts):
                raise ValueError(f"row {name!r} holds {row.figure!r}, expected two rows of figures and three counts")
            steps, parameters, cpu_seconds = counts
            plain.add(" | ".join((f"*{_words(baseline)}*", *_cells(baseline, data), "", "", "")))
            label = f"**{method}**" + DAGGER * (name in changed)
            lines.append(" | ".join((label, *_cells(ours, data), f"{int(parameters):,}", steps, cpu_seconds)))
    if not lines:
        return f"No recipe on `{data}` has a measured row so far."
    if len(plain) > 1:
        raise ValueError(f"the baseline of {data!r} is not one row: {sorted(plain)}")
    head = ["", *COLUMNS[data].values(), "parameters", "steps", "CPU (s)"]
    rule = "---|" + "---:|" * (len(head) - 1)
    return "\n".join(["| " + " | ".join(head) + " |", "|" + rule, *(f"| {line} |" for line in [*plain, *lines])])


def _words(text: str) -> str:
    """The name of a method, which precedes its first figure."""
    first = FIGURE.search(text)
    return text[: first.start()].strip() if first else text


def _cells(text: str, data: str) -> list[str]:
    """The figures of a row in the order of the columns, in percent; a dash for one that the method does not have."""
    figures = dict(FIGURE.findall(text))
    return [f"{100 * float(figures[key]):.1f}" if key in figures else "–" for key in COLUMNS[data]]


class RealData(SphinxDirective):
    """Writes the table of one real data set where it stands."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        for file in ("proofs.csv", "claims.toml"):
            self.env.note_dependency(str(ROOT / "tests" / file))
        table, first = real_data_table(self.arguments[0]), next(iter(COLUMNS[self.arguments[0]].values()))
        return with_chart(self, table, f"{first[0].upper()}{first[1:]}, in percent", [first], 100)


def setup(app: Sphinx) -> None:
    app.add_directive("real-data", RealData)
