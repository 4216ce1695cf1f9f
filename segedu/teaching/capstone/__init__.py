"""The capstone's report: a table of results with seeds, the split that it was measured on, and its worst images.

A student fills a `Report` in the notebook and calls `hand_in`, which says at once what is missing and keeps the report
in the cell's output. `segedu capstone FOLDER` reads the reports from saved notebooks and repeats the same checks; it
runs no student code. Nobody verifies the numbers of a report: the rubric is for a person.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from segedu.teaching.capstone.leakage import fingerprint as fingerprint
from segedu.teaching.capstone.leakage import leaks as leaks
from segedu.teaching.capstone.leakage import repeated
from segedu.teaching.capstone.report import MIME as MIME
from segedu.teaching.capstone.report import Report as Report
from segedu.teaching.capstone.report import Row as Row
from segedu.teaching.capstone.report import from_json, to_json

DATA = ("cells", "street", "volume")
METRICS, SEEDS, WORST, WORDS = 3, 2, 10, 5  # minimum numbers; words about each of the worst images
_SHARE = re.compile(r"(?<![A-Za-z])((?i:accuracy|auc|dice|f1|m?iou|jaccard|precision|recall)|m?AP|PQ|RQ|SQ)(?![a-z])")


def worst(scores: Sequence[float], count: int = WORST) -> list[int]:
    """Indices of at most `count` images with the lowest scores, the lowest first; NaN, no score, is skipped.

    >>> worst([0.9, float("nan"), 0.2, 0.5], 2)
    [2, 3]
    """
    return sorted((i for i, score in enumerate(scores) if not math.isnan(score)), key=lambda i: scores[i])[:count]


def problems(report: Report) -> list[str]:
    """List what a report lacks, one sentence each that says what to do; the types must be right, see `from_json`."""
    messages = []
    if report.data not in DATA:
        messages.append(f"data is {report.data!r}, expected one of {', '.join(DATA)}")
    metrics = len({name.strip() for name in report.metrics} - {""})
    if metrics < METRICS or metrics < len(report.metrics):
        messages.append(
            f"{metrics} of {len(report.metrics)} metrics have a distinct name, expected all, and at least {METRICS}"
        )
    return [
        *messages,
        *_table_problems(report),
        *_seed_problems(report),
        *_split_problems(report),
        *_worst_problems(report),
    ]


def _table_problems(report: Report) -> Iterator[str]:
    wrong = [row.method for row in report.rows if len(row.values) != len(report.metrics)]
    if wrong:
        yield f"a row of {wrong[0]!r} does not have one value for each of the {len(report.metrics)} metrics"
    if not all(math.isfinite(value) for row in report.rows for value in row.values):
        yield "a value of the table is NaN or infinite: define the metric for images with nothing to find, then average"
    for name, row, value in ((n, r, v) for r in report.rows for n, v in zip(report.metrics, r.values, strict=False)):
        if _SHARE.search(name) and (value < 0 or value > 1):
            yield f"{name} of {row.method!r} is {_mean_and_spread([value])}, expected 0 to 1, or another name"
            break
    methods = {row.method for row in report.rows}
    if not all(method.strip() for method in methods):
        yield "a row does not say which method it belongs to"
    if report.baseline not in methods:
        yield f"no row of the baseline {report.baseline!r}: the other rows cannot be compared with anything"
    if not methods - {report.baseline}:
        yield "no row of your own method: the table contains only the baseline"


def _seed_problems(report: Report) -> Iterator[str]:
    """A method with one row and no seed counts as untrained; at least one method has to be trained."""
    by_method: dict[str, list[Row]] = {}
    for row in report.rows:
        by_method.setdefault(row.method, []).append(row)
    baseline_values = {row.values for row in by_method.pop(report.baseline, [])}
    trained = {method: rows for method, rows in by_method.items() if [row.seed for row in rows] != [None]}
    if by_method and not trained:
        yield f"none of your methods was trained: expected at least one, with {SEEDS} or more different seeds"
    for method, rows in sorted(by_method.items()):
        if baseline_values & {row.values for row in rows}:
            yield f"{method} has exactly the baseline's values: was it measured at all?"
    for method, rows in sorted(trained.items()):
        seeds = [row.seed for row in rows]
        if len(set(seeds) - {None}) < SEEDS:
            yield f"{method} was trained with the seeds {seeds}, expected at least {SEEDS} different ones"
        elif len(set(seeds)) < len(seeds):
            yield f"{method} has two rows with the same seed"
        elif len({row.values for row in rows}) < len(rows):
            yield f"{method} has exactly the same values for two seeds: is the seed used?"


def _split_problems(report: Report) -> Iterator[str]:
    if not report.train or len(report.test) < WORST:
        split = f"{len(report.train)} images to train on and {len(report.test)} to test on"
        yield f"{split}, expected some to train on and at least {WORST} to test on"
    try:
        leaked, duplicates = leaks(report.train, report.test), repeated(report.test)
    except ValueError as error:
        yield f"train or test: {error}; apply `fingerprint` to every image"
        return
    if leaked:
        train, test = leaked[0]
        yield (
            f"{len(leaked)} of {len(report.test)} test images are also in the training set, perhaps rotated or "
            f"flipped: the first is test image {test}, training image {train}; remove it from one of the two"
        )
    if duplicates:
        first, again = duplicates[0]
        yield (
            f"{len({b for _, b in duplicates})} of {len(report.test)} test images repeat another, perhaps rotated "
            f"or flipped: image {again} duplicates image {first} and would count twice"
        )


def _worst_problems(report: Report) -> Iterator[str]:
    if len(report.scores) != len(report.test):
        yield f"scores has {len(report.scores)} values, expected one for each of the {len(report.test)} test images"
        return
    lowest_scores, indices = worst(report.scores), [index for index, _ in report.worst]
    if report.scores and not lowest_scores:
        yield "scores are NaN for every test image: the first metric must be defined for single images"
    enough, inside = len(set(indices)) >= len(lowest_scores), all(0 <= i < len(report.test) for i in indices)
    if not enough or not inside or len(set(indices)) < len(indices):
        yield f"worst lists the images {indices}, expected {len(lowest_scores)} different test images"
        return
    lowest = worst(report.scores, len(indices))
    threshold = report.scores[lowest[-1]] if lowest else math.nan
    better = [i for i in indices if not report.scores[i] <= threshold]
    if better:
        score = report.scores[better[0]]
        why = "it has no score" if math.isnan(score) else f"its score is {score:.3f}"
        yield f"image {better[0]} is not among the {len(lowest)} worst: {why}; `worst(scores)` lists them"
    unexplained = [index for index, why in report.worst if len(set(why.lower().split())) < WORDS]
    if unexplained:
        yield f"the text on image {unexplained[0]} is too short: explain the error in at least {WORDS} different words"
    if len(indices) > 1 and len({why for _, why in report.worst}) == 1:
        yield f"all {len(indices)} worst images have the same text: say what went wrong in each of them"


def table(report: Report) -> list[list[str]]:
    """Format the table for a person: one line per method, the mean over its seeds and their standard deviation.

    Returns:
        Lines of cells, the heading first and the baseline second; empty if a row does not have a value for each metric.
    """
    if any(len(row.values) != len(report.metrics) for row in report.rows):
        return []
    by_method: dict[str, list[Row]] = {}
    for row in report.rows:
        by_method.setdefault(row.method, []).append(row)
    lines = [["method", "seeds", *report.metrics]]
    for method in sorted(by_method, key=lambda name: name != report.baseline):
        rows = by_method[method]
        columns = zip(*(row.values for row in rows), strict=True)
        lines.append([method, str(len({row.seed for row in rows} - {None}) or "-"), *map(_mean_and_spread, columns)])
    return lines


def _mean_and_spread(column: Sequence[float]) -> str:
    """Format mean and standard deviation, also of NaN and of values that are far too large."""
    with np.errstate(all="ignore"):
        middle, spread = float(np.mean(column)), float(np.std(column, ddof=1)) if len(column) > 1 else None
    texts = [f"{v:.3f}" if not abs(v) >= 1e6 else f"{v:.2e}" for v in (middle, spread) if v is not None]
    return " ± ".join(texts)


def hand_in(report: Report) -> list[str]:
    """Show the table and what the report lacks, and keep the report in the output of the cell.

    Returns:
        What it lacks, from `problems`.

    Raises:
        TypeError: if a part of it has the wrong type; see `Report`.
        ValueError: if a part of it is malformed.
    """
    from IPython.display import display

    as_json = to_json(report)
    report = from_json(as_json)  # what the reader of the notebook will see
    lacks, lines = problems(report), table(report)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines]
    text += (
        ["", *(f"- {why}" for why in lacks)]
        if lacks
        else ["", "The report is complete. Save the notebook and hand it in."]
    )
    display({"text/plain": "\n".join(text), MIME: as_json}, raw=True)
    return lacks
