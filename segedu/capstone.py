"""The capstone's report: one table of results with seeds, the split that it was measured on, and its worst images.

A student fills a `Report` in the notebook and calls `hand_in`: what is missing is said at once, and the report is kept
in the cell's output. `segedu capstone FOLDER` reads the reports out of saved notebooks and asks the same questions
again; it runs nobody's code. Numbers in a report are the student's word: the rubric is for a person.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

MIME = "application/vnd.segedu.capstone+json"
DATA = ("cells", "street", "volume")
METRICS, SEEDS, WORST, WORDS = 3, 2, 10, 5  # at least so many; words about each of the worst
SAME = 0.9  # correlation of two fingerprints from which on two images count as one; tests/test_capstone.py measures it
_GRID = {2: (8, 8), 3: (6, 6, 6)}  # parts of an image that are averaged for its fingerprint
_LARGEST = 100_000  # images in a report; more are no honest report


@dataclass(frozen=True)
class Row:
    """One training of one method: its seed, None where nothing is drawn at random, and a value for each metric."""

    method: str
    seed: int | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class Report:
    """What a capstone hands in.

    Attributes:
        data: cells, street or volume.
        metrics: names of at least three; the first decides which images are worst.
        rows: every training, and the plain baseline.
        baseline: the method of `rows` that learns nothing.
        train: fingerprints of all images that anything was fitted to or chosen on.
        test: fingerprints of the images that `rows` was measured on.
        scores: the first metric of each test image, of your best method; NaN where an image has nothing to find.
        worst: of the ten worst, (number of the test image, what went wrong).
    """

    data: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    baseline: str
    train: tuple[tuple[int, ...], ...]
    test: tuple[tuple[int, ...], ...]
    scores: tuple[float, ...]
    worst: tuple[tuple[int, str], ...]


# --- the split --------------------------------------------------------------------------------------------------


def fingerprint(image: Any) -> tuple[int, ...]:
    """An image in 64 numbers: the mean of each part of a coarse grid, brightness and contrast taken out.

    Noise, another exposure or a pixel cut off change it little.

    Args:
        image: tensor or array (C, H, W), or of a volume (1, D, H, W): 216 numbers.

    Returns:
        Integers from -127 to 127; all 0 for an even image.

    Raises:
        ValueError: not of these shapes, empty, or not finite.
    """
    values = np.asarray(image, dtype=np.float64)
    if values.ndim not in (3, 4) or not values.size or not np.isfinite(values).all():
        finite = "" if values.ndim not in (3, 4) or not values.size else " with NaN or infinity in it"
        raise ValueError(f"image has shape {values.shape}{finite}, expected finite values (C, H, W) or (1, D, H, W)")
    grey = values.mean(axis=0)
    for axis, parts in enumerate(_GRID[grey.ndim]):
        grey = _averaged(grey, axis, parts)
    spread = grey.std()
    grey = (grey - grey.mean()) / spread if spread > 1e-9 else np.zeros_like(grey)
    return tuple(int(v) for v in np.clip(np.rint(grey * 40), -127, 127).ravel())


def _averaged(values: np.ndarray, axis: int, parts: int) -> np.ndarray:
    """Means of `parts` stretches along an axis; a stretch that holds no whole pixel takes the one it begins in."""
    edges = np.linspace(0, values.shape[axis], parts + 1)
    first = np.floor(edges[:-1]).astype(int)
    last = np.maximum(np.ceil(edges[1:]).astype(int), first + 1)
    pieces = [values.take(range(a, b), axis).mean(axis, keepdims=True) for a, b in zip(first, last, strict=True)]
    return np.concatenate(pieces, axis)


def leaks(train: Sequence[Sequence[int]], test: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Which images of the test are also trained on, as they are, noisy, or mirrored and turned.

    What all images have in common is taken out first, so that two streets are not one for their common sky. A window
    that was cut out of a larger image is not found.

    Args:
        train: fingerprints.
        test: fingerprints of the same length.

    Returns:
        Pairs (number in train, number in test), the likest training image of each leaking test image.

    >>> stripes, square = fingerprint(np.eye(16)[None]), fingerprint(np.ones((1, 16, 16)).cumsum(1))
    >>> leaks([stripes, square], [fingerprint(np.eye(16)[None, ::-1] * 0.5)])
    [(0, 0)]
    """
    if not len(train) or not len(test):
        return []
    known, asked = np.array(train, np.float64), np.array(test, np.float64)
    common = np.concatenate([known, asked]).mean(axis=0)
    likest = np.zeros((len(asked), len(known)))
    for turned in _turned(asked):
        likest = np.maximum(likest, _unit(turned - common) @ _unit(known - common).T)
    same = np.flatnonzero(likest.max(axis=1) > SAME)
    return [(int(likest[i].argmax()), int(i)) for i in same]


def _turned(prints: np.ndarray) -> Iterator[np.ndarray]:
    """All fingerprints in the eight ways of a square; a volume in the ways of its slices."""
    grid = next(grid for grid in _GRID.values() if math.prod(grid) == prints.shape[1])
    maps = prints.reshape(-1, *grid)
    for turn in range(4):
        rotated = np.rot90(maps, turn, axes=(-2, -1))
        yield rotated.reshape(prints.shape)
        yield np.flip(rotated, -1).reshape(prints.shape)


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)


# --- what a report lacks ----------------------------------------------------------------------------------------


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
    if len(set(report.metrics)) < METRICS:
        found.append(f"{len(set(report.metrics))} metrics are reported, expected at least {METRICS} different ones")
    return [*found, *_of_the_table(report), *_of_the_split(report), *_of_the_worst(report)]


def _of_the_table(report: Report) -> Iterator[str]:
    wrong = [row.method for row in report.rows if len(row.values) != len(report.metrics)]
    if wrong:
        yield f"a row of {wrong[0]!r} has not one value for each of {len(report.metrics)} metrics"
    if not all(math.isfinite(value) for row in report.rows for value in row.values):
        yield "a value of the table is NaN or infinite: say what you do where nothing is to be found, then average"
    methods = {row.method for row in report.rows}
    if report.baseline not in methods:
        yield f"no row of the baseline {report.baseline!r}: without it nobody can say whether the rest is good"
    if not methods - {report.baseline}:
        yield "no row of a method of your own: the table holds the baseline alone"
    for method in sorted(methods - {report.baseline}):
        rows = [row for row in report.rows if row.method == method]
        seeds = [row.seed for row in rows]
        if len(set(seeds) - {None}) < SEEDS:
            yield f"{method} was trained with the seeds {seeds}, expected at least {SEEDS} different ones"
        elif len(set(seeds)) < len(seeds):
            yield f"{method} has two rows of the same seed"
        elif len({row.values for row in rows}) == 1:
            yield f"{method} has the same values for each seed, to the last digit: is the seed used?"


def _of_the_split(report: Report) -> Iterator[str]:
    if not report.train or not report.test:
        yield f"{len(report.train)} images to train on and {len(report.test)} to test on, expected some of both"
        return
    if len({len(one) for one in (*report.train, *report.test)}) > 1 or len(report.test[0]) not in map(
        math.prod, _GRID.values()
    ):
        yield "train and test hold fingerprints of different kinds, expected those of `fingerprint` for every image"
        return
    both = leaks(report.train, report.test)
    if both:
        train, test = both[0]
        yield (
            f"{len(both)} of {len(report.test)} test images are in the training set too, as they are or turned: "
            f"the first is test image {test}, training image {train}"
        )


def _of_the_worst(report: Report) -> Iterator[str]:
    if len(report.scores) != len(report.test):
        yield f"scores has {len(report.scores)} values, expected one for each of {len(report.test)} test images"
        return
    wanted = min(WORST, len(report.test))
    chosen = [index for index, _ in report.worst]
    if (
        len(set(chosen)) < wanted
        or len(set(chosen)) < len(chosen)
        or not all(0 <= i < len(report.test) for i in chosen)
    ):
        yield f"worst names the images {chosen}, expected {wanted} different ones of the test"
        return
    asked = [score for score in report.scores if not math.isnan(score)]
    bar = sorted(asked)[: len(chosen)][-1] if asked else math.nan
    better = [i for i in chosen if not report.scores[i] <= bar]
    if better:
        yield f"image {better[0]} is not among the {len(chosen)} worst: its score is {report.scores[better[0]]:.3f}"
    silent = [index for index, why in report.worst if len(why.split()) < WORDS]
    if silent:
        yield f"of image {silent[0]} too little is said: what went wrong, and why, in {WORDS} words or more"


def table(report: Report) -> list[list[str]]:
    """The table as a person reads it: one line a method, the mean of its seeds and their standard deviation.

    Args:
        report: whose rows have a value for each metric.

    Returns:
        Lines of cells, the heading first and the baseline second.
    """
    lines = [["method", "seeds", *report.metrics]]
    methods = list(dict.fromkeys(row.method for row in report.rows))
    for method in sorted(methods, key=lambda name: name != report.baseline):
        rows = [row for row in report.rows if row.method == method]
        columns = zip(*(row.values for row in rows), strict=True)
        shown = [f"{mean(c):.3f}" + (f" ± {stdev(c):.3f}" if len(c) > 1 else "") for c in columns]
        lines.append([method, str(len({row.seed for row in rows} - {None}) or "-"), *shown])
    return lines


# --- in and out of a notebook -----------------------------------------------------------------------------------


def hand_in(report: Report) -> list[str]:
    """Show the table and what the report lacks, and keep the report in the output of the cell.

    Args:
        report: of the capstone.

    Returns:
        What it lacks, as `problems` says.
    """
    from IPython.display import display

    report = from_json(to_json(report))  # what the reader of the notebook will see
    lacks = problems(report)
    lines = table(report) if not any("one value for each" in why for why in lacks) else []
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines]
    text += (
        ["", *(f"- {why}" for why in lacks)]
        if lacks
        else ["", "The report is complete. Save the notebook, hand it in."]
    )
    display({"text/plain": "\n".join(text), MIME: to_json(report)}, raw=True)
    return lacks


def to_json(report: Report) -> dict[str, Any]:
    """A report as plain JSON; NaN becomes None.

    Args:
        report: any.

    Returns:
        What `from_json` reads.
    """
    plain = asdict(report)
    plain["scores"] = [None if math.isnan(score) else float(score) for score in report.scores]
    plain["rows"] = [
        {**asdict(row), "values": [None if math.isnan(value) else float(value) for value in row.values]}
        for row in report.rows
    ]
    return json.loads(json.dumps(plain))


def from_json(plain: object) -> Report:
    """Read a report that anybody may have written.

    Args:
        plain: parsed JSON.

    Returns:
        The report, every part of the right type.

    Raises:
        ValueError: says which part is not.
    """
    names = [field.name for field in fields(Report)]
    if not isinstance(plain, Mapping) or set(plain) != set(names):
        raise ValueError(f"the report is not one of `hand_in`, expected the keys {', '.join(names)}")
    rows = [_plain(row, dict, "rows") for row in _plain(plain["rows"], list, "rows")]
    if any(set(row) != {"method", "seed", "values"} for row in rows):
        raise ValueError("a row of the report has other keys than method, seed and values")
    return Report(
        data=_plain(plain["data"], str, "data"),
        metrics=tuple(_plain(name, str, "metrics") for name in _plain(plain["metrics"], list, "metrics")),
        rows=tuple(
            Row(_plain(row["method"], str, "method"), _seed(row["seed"]), _numbers(row["values"], "values"))
            for row in rows
        ),
        baseline=_plain(plain["baseline"], str, "baseline"),
        train=_prints(plain["train"], "train"),
        test=_prints(plain["test"], "test"),
        scores=_numbers(plain["scores"], "scores"),
        worst=tuple(_worst(pair) for pair in _plain(plain["worst"], list, "worst")),
    )


def _plain(value: object, kind: type, name: str) -> Any:
    if not isinstance(value, kind) or (kind is list and len(value) > _LARGEST):
        raise ValueError(f"{name} of the report is {type(value).__name__}, expected {kind.__name__} of usual size")
    return value


def _seed(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ValueError(f"seed of the report is {type(value).__name__}, expected int or None")


def _numbers(values: object, name: str) -> tuple[float, ...]:
    listed = _plain(values, list, name)
    if any(isinstance(v, bool) or not isinstance(v, (int, float, type(None))) for v in listed):
        raise ValueError(f"{name} of the report holds something that is no number")
    return tuple(math.nan if value is None else float(value) for value in listed)


def _prints(values: object, name: str) -> tuple[tuple[int, ...], ...]:
    prints = tuple(tuple(_plain(one, list, name)) for one in _plain(values, list, name))
    if any(type(v) is not int or abs(v) > 127 for one in prints for v in one):
        raise ValueError(f"{name} of the report holds something that is no fingerprint, see `fingerprint`")
    return prints


def _worst(pair: object) -> tuple[int, str]:
    index, why = _plain(pair, list, "worst") if isinstance(pair, list) and len(pair) == 2 else (None, None)
    if type(index) is not int or not isinstance(why, str):
        raise ValueError("worst of the report is no list of pairs (number of the image, what went wrong)")
    return index, why


def read(path: Path) -> Report:
    """The report that a saved notebook holds in its outputs, the last one. Nothing is run.

    Args:
        path: of the `.ipynb`.

    Returns:
        The report.

    Raises:
        ValueError: there is none, or it is not what `hand_in` writes.
        segedu.grading.notebook.SubmissionError: the file is no notebook that can be read.
    """
    from segedu.grading.notebook import parse_notebook
    from segedu.grading.submission import read_plain

    data = read_plain(path)
    parse_notebook(data, path.name)  # its limits and its sentences
    cells = json.loads(data.decode(json.detect_encoding(data)))["cells"]
    outputs = [output for cell in cells if isinstance(cell.get("outputs"), list) for output in cell["outputs"]]
    parts = [output.get("data") for output in outputs if isinstance(output, dict)]
    held = [part[MIME] for part in parts if isinstance(part, dict) and MIME in part]
    if not held:
        raise ValueError(f"{path.name} holds no report: run its last cell, save the notebook, and hand it in again")
    return from_json(held[-1])
