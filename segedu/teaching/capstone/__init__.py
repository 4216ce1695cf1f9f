"""The capstone's report: one table of results with seeds, the split that it was measured on, and its worst images.

A student fills a `Report` in the notebook and calls `hand_in`: what is missing is said at once, and the report is kept
in the cell's output. `segedu capstone FOLDER` reads the reports out of saved notebooks and asks the same questions
again; it runs nobody's code. Numbers in a report are the student's word: the rubric is for a person.
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
METRICS, SEEDS, WORST, WORDS = 3, 2, 10, 5  # at least so many; words about each of the worst
_SHARE = re.compile(r"(?<![A-Za-z])((?i:accuracy|auc|dice|f1|m?iou|jaccard|precision|recall)|m?AP|PQ|RQ|SQ)(?![a-z])")


def worst(scores: Sequence[float], count: int = WORST) -> list[int]:
    """Numbers of the images with the lowest scores, the lowest first; those with nothing to find are left out.

    Args:
        scores: one of each image, NaN where it has nothing to find.
        count: at most so many.

    Returns:
        Numbers from 0.

    >>> worst([0.9, float("nan"), 0.2, 0.5], 2)
    [2, 3]
    """
    return sorted((i for i, score in enumerate(scores) if not math.isnan(score)), key=lambda i: scores[i])[:count]


def problems(report: Report) -> list[str]:
    """What a report lacks, each as a sentence that says what to do; nothing where it is complete.

    Args:
        report: of the right types, see `from_json`.

    Returns:
        Sentences.
    """
    found = []
    if report.data not in DATA:
        found.append(f"data is {report.data!r}, expected one of {', '.join(DATA)}")
    metrics = len({name.strip() for name in report.metrics} - {""})
    if metrics < METRICS or metrics < len(report.metrics):
        found.append(
            f"{metrics} of {len(report.metrics)} metrics have a name of their own, expected all, and at least {METRICS}"
        )
    return [*found, *_of_the_table(report), *_of_the_seeds(report), *_of_the_split(report), *_of_the_worst(report)]


def _of_the_table(report: Report) -> Iterator[str]:
    wrong = [row.method for row in report.rows if len(row.values) != len(report.metrics)]
    if wrong:
        yield f"a row of {wrong[0]!r} has not one value for each of {len(report.metrics)} metrics"
    if not all(math.isfinite(value) for row in report.rows for value in row.values):
        yield "a value of the table is NaN or infinite: say what you do where nothing is to be found, then average"
    for name, row, value in ((n, r, v) for r in report.rows for n, v in zip(report.metrics, r.values, strict=False)):
        if _SHARE.search(name) and (value < 0 or value > 1):
            yield f"{name} of {row.method!r} is {_shown([value])}, expected a share of 0 to 1; rename it if it is none"
            break
    methods = {row.method for row in report.rows}
    if not all(method.strip() for method in methods):
        yield "a row does not say which method it is of"
    if report.baseline not in methods:
        yield f"no row of the baseline {report.baseline!r}: without it nobody can say whether the rest is good"
    if not methods - {report.baseline}:
        yield "no row of a method of your own: the table holds the baseline alone"


def _of_the_seeds(report: Report) -> Iterator[str]:
    """A method with one row and no seed is as plain as the baseline; one at least has to be trained."""
    by_method: dict[str, list[Row]] = {}
    for row in report.rows:
        by_method.setdefault(row.method, []).append(row)
    plain = {row.values for row in by_method.pop(report.baseline, [])}
    trained = {method: rows for method, rows in by_method.items() if [row.seed for row in rows] != [None]}
    if by_method and not trained:
        yield f"no method of yours was trained: expected one at least, with {SEEDS} different seeds or more"
    for method, rows in sorted(by_method.items()):
        if plain & {row.values for row in rows}:
            yield f"{method} has the baseline's values, to the last digit: is it measured at all?"
    for method, rows in sorted(trained.items()):
        seeds = [row.seed for row in rows]
        if len(set(seeds) - {None}) < SEEDS:
            yield f"{method} was trained with the seeds {seeds}, expected at least {SEEDS} different ones"
        elif len(set(seeds)) < len(seeds):
            yield f"{method} has two rows of the same seed"
        elif len({row.values for row in rows}) < len(rows):
            yield f"{method} has the same values for two seeds, to the last digit: is the seed used?"


def _of_the_split(report: Report) -> Iterator[str]:
    if not report.train or len(report.test) < WORST:
        held = f"{len(report.train)} images to train on and {len(report.test)} to test on"
        yield f"{held}, expected some to train on and at least {WORST} to test on"
    try:
        both, twice = leaks(report.train, report.test), repeated(report.test)
    except ValueError as error:
        yield f"train or test: {error}; give every image to `fingerprint`"
        return
    if both:
        train, test = both[0]
        yield (
            f"{len(both)} of {len(report.test)} test images are in the training set too, as they are or turned: "
            f"the first is test image {test}, training image {train}; take it out of one of the two"
        )
    if twice:
        first, again = twice[0]
        yield (
            f"{len({b for _, b in twice})} of {len(report.test)} test images are there before, as they are or turned: "
            f"{again} is {first} again, and would count twice"
        )


def _of_the_worst(report: Report) -> Iterator[str]:
    if len(report.scores) != len(report.test):
        yield f"scores has {len(report.scores)} values, expected one for each of {len(report.test)} test images"
        return
    true, chosen = worst(report.scores), [index for index, _ in report.worst]
    if report.scores and not true:
        yield "scores are NaN for every test image: your first metric says nothing about a single image"
    enough, inside = len(set(chosen)) >= len(true), all(0 <= i < len(report.test) for i in chosen)
    if not enough or not inside or len(set(chosen)) < len(chosen):
        yield f"worst names the images {chosen}, expected {len(true)} different ones of the test"
        return
    lowest = worst(report.scores, len(chosen))
    bar = report.scores[lowest[-1]] if lowest else math.nan
    better = [i for i in chosen if not report.scores[i] <= bar]
    if better:
        score = report.scores[better[0]]
        why = "it has no score" if math.isnan(score) else f"its score is {score:.3f}"
        yield f"image {better[0]} is not among the {len(lowest)} worst: {why}; `worst(scores)` lists them"
    silent = [index for index, why in report.worst if len(set(why.lower().split())) < WORDS]
    if silent:
        yield f"of image {silent[0]} too little is said: what went wrong, and why, in {WORDS} different words or more"
    if len(chosen) > 1 and len({why for _, why in report.worst}) == 1:
        yield f"the same is said of all {len(chosen)} worst images: what went wrong in each of them?"


def table(report: Report) -> list[list[str]]:
    """The table as a person reads it: one line a method, the mean of its seeds and their standard deviation.

    Args:
        report: any.

    Returns:
        Lines of cells, the heading first and the baseline second; nothing where a row has not a value for each metric.
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
        lines.append([method, str(len({row.seed for row in rows} - {None}) or "-"), *map(_shown, columns)])
    return lines


def _shown(column: Sequence[float]) -> str:
    """Mean and standard deviation; NaN and what is far too large too."""
    with np.errstate(all="ignore"):
        middle, spread = float(np.mean(column)), float(np.std(column, ddof=1)) if len(column) > 1 else None
    texts = [f"{v:.3f}" if not abs(v) >= 1e6 else f"{v:.2e}" for v in (middle, spread) if v is not None]
    return " ± ".join(texts)


def hand_in(report: Report) -> list[str]:
    """Show the table and what the report lacks, and keep the report in the output of the cell.

    Args:
        report: of the capstone.

    Returns:
        What it lacks, as `problems` says.

    Raises:
        TypeError, ValueError: a part of it is of another kind; see `Report`.
    """
    from IPython.display import display

    plain = to_json(report)
    report = from_json(plain)  # what the reader of the notebook will see
    lacks, lines = problems(report), table(report)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines]
    text += (
        ["", *(f"- {why}" for why in lacks)]
        if lacks
        else ["", "The report is complete. Save the notebook, hand it in."]
    )
    display({"text/plain": "\n".join(text), MIME: plain}, raw=True)
    return lacks
