"""Widgets of chapter 13: a score threshold as a point of the curve; split and merged segments in panoptic quality."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from scipy import ndimage

from segedu.metrics.average_precision import average_precision_area, precision_recall_curve
from segedu.metrics.panoptic import panoptic_quality
from segedu.teaching.widgets.explore import explore_in_browser
from segedu.viz import palette, show

# Twelve detections by descending score; ten objects, of which three are never detected.
SCORES = np.array([0.96, 0.91, 0.88, 0.83, 0.74, 0.69, 0.61, 0.52, 0.44, 0.35, 0.22, 0.13])
HITS = np.array([1, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0], dtype=bool)
NUM_TARGET = 10
HIT, MISS, INK = "#0072B2", "#D55E00", "#1b1b1b"

SIZE = (12, 24)
CARS = {2: (3, 3), 3: (3, 13), 4: (8, 8)}  # ground-truth id: top left corner
CAR = (3, 8)  # height and width
NAMES = ("road", "car")


def counts(threshold: float) -> dict[str, float]:
    """Count the results if detections with at least this score are kept; precision is 1 if nothing is kept.

    >>> counts(0.5)
    {'true_positive': 5, 'false_positive': 3, 'false_negative': 5, 'precision': 0.625, 'recall': 0.5}
    """
    kept = threshold <= SCORES
    hits = int((HITS & kept).sum())
    return {
        "true_positive": hits,
        "false_positive": int(kept.sum()) - hits,
        "false_negative": NUM_TARGET - hits,
        "precision": hits / int(kept.sum()) if kept.any() else 1.0,
        "recall": hits / NUM_TARGET,
    }


def _draw_bars(axis: Axes, threshold: float) -> None:
    for i, (score, hit) in enumerate(zip(SCORES, HITS, strict=True)):
        style = {"color": HIT} if hit else {"facecolor": "white", "edgecolor": MISS, "hatch": "////"}
        axis.bar(i, score, width=0.75, alpha=1.0 if score >= threshold else 0.3, **style)
    axis.axhline(threshold, color=INK, ls="--", lw=1.5)
    axis.text(
        len(SCORES) - 0.4,
        threshold + 0.025,
        "threshold",
        ha="right",
        fontsize=9,
        bbox={"fc": "white", "lw": 0, "pad": 1},
    )
    axis.set(xlabel="detection, by descending score", ylabel="score", ylim=(0, 1.05), xticks=[])
    axis.legend(
        handles=[
            Patch(color=HIT, label="true positive"),
            Patch(fc="white", ec=MISS, hatch="////", label="false positive"),
        ],
        fontsize=9,
    )


def _draw_curve(axis: Axes, result: dict[str, float], kept: int) -> None:
    precision, recall = (x.numpy() for x in precision_recall_curve(SCORES, HITS, NUM_TARGET))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    axis.fill_between(np.append(0, recall), np.append(envelope[0], envelope), step="pre", color="#56B4E9", alpha=0.25)
    axis.step(np.append(0, recall), np.append(envelope[0], envelope), where="pre", color="#56B4E9", label="envelope")
    axis.plot(recall, precision, "o-", color="#666666", ms=4, lw=1, label="one point per detection")
    if kept:
        axis.plot(result["recall"], result["precision"], "D", color=MISS, ms=11, mec=INK, label="this threshold")
    axis.axvline(HITS.sum() / NUM_TARGET, color="#999999", ls=":", lw=1)  # the largest recall of any threshold
    axis.set(xlim=(0, 1.02), ylim=(0, 1.05), xlabel="recall", ylabel="precision")
    axis.legend(loc="lower left", fontsize=9)


def draw_ranking(threshold: float = 0.5) -> None:
    """Show which detections a score threshold from 0 to 1 keeps, and the corresponding point of the curve."""
    result = counts(threshold)
    kept = int(result["true_positive"] + result["false_positive"])
    area = average_precision_area(*precision_recall_curve(SCORES, HITS, NUM_TARGET))
    fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.6), layout="constrained")
    _draw_bars(axes[0], threshold)
    _draw_curve(axes[1], result, kept)
    tally = f"TP {result['true_positive']}, FP {result['false_positive']}, FN {result['false_negative']}"
    axes[0].set_title(f"{tally} of {NUM_TARGET} objects", fontsize=10)
    point = f"precision {result['precision']:.3f}, recall {result['recall']:.3f}" if kept else "nothing is kept"
    axes[1].set_title(f"{point}; area {area:.3f} over all thresholds", fontsize=10)
    show(
        fig,
        alt=f"Scores of twelve detections with a threshold at {threshold:g}, which keeps {kept}: {tally}. Beside it, "
        f"the curve of precision and recall with its envelope, area {area:.3f}; {point}.",
    )


def panoptic_scene(split_column: int = 0, merge: bool = False, shift: int = 0) -> dict[str, dict]:
    """Make a road with three cars, and a prediction of it.

    Args:
        split_column: columns after which the first car is split in two; 0 does not split it.
        merge: whether the second and the third car are predicted as one.
        shift: pixels by which the prediction of the third car is shifted to the right.

    Returns:
        preds and target, each with panoptic_seg and segments_info.
    """
    target = np.ones(SIZE, dtype=np.int32)
    preds = np.ones(SIZE, dtype=np.int32)
    for number, (top, left) in CARS.items():
        target[top : top + CAR[0], left : left + CAR[1]] = number
        offset = shift if number == 4 else 0
        preds[top : top + CAR[0], left + offset : left + offset + CAR[1]] = 3 if merge and number == 4 else number
    if split_column:
        top, left = CARS[2]
        preds[top : top + CAR[0], left + split_column : left + CAR[1]] = 5
    return {"preds": _with_segments_info(preds), "target": _with_segments_info(target)}


def _with_segments_info(label_map: np.ndarray) -> dict:
    ids = np.unique(label_map).tolist()
    info = [{"id": i, "category_id": int(i > 1), "isthing": i > 1} for i in ids]
    return {"panoptic_seg": label_map, "segments_info": info}


def _draw_segments(axis: Axes, side: dict, title: str) -> None:
    label_map = side["panoptic_seg"]
    colours = np.concatenate([[[0.93, 0.93, 0.93]] * 2, palette(4)])
    axis.imshow(colours[label_map], interpolation="nearest")
    for number in np.unique(label_map[label_map > 1]).tolist():
        pieces, count = ndimage.label(label_map == number)
        for row, column in ndimage.center_of_mass(pieces > 0, pieces, range(1, count + 1)):
            axis.text(column, row, f"{number - 1}", ha="center", va="center", fontsize=10)
        axis.contour(label_map == number, levels=[0.5], colors="black", linewidths=1)
    axis.text(0.2, 10.9, "road", fontsize=9)
    axis.set_title(f"{title}, cars numbered", fontsize=10)
    axis.set_axis_off()


def draw_panoptic(split_column: int = 0, merge: bool = False, shift: int = 0) -> None:
    """Show ground truth, prediction and the three qualities of both classes; see `panoptic_scene`."""
    scene = panoptic_scene(split_column, merge, shift)
    result = panoptic_quality(scene["preds"], scene["target"], num_classes=2)
    table = {name: values.tolist() for name, values in result["per_class"].items()}
    fig, panels = plt.subplot_mosaic("AB;CC", figsize=(7.4, 5), height_ratios=(1, 1.1), layout="constrained")
    axes = list(panels.values())
    _draw_segments(axes[0], scene["target"], "ground truth")
    _draw_segments(axes[1], scene["preds"], "prediction")
    for i, (name, hatch) in enumerate((("pq", ""), ("sq", "///"), ("rq", "..."))):
        values = table[name]
        positions = np.arange(2) + 0.27 * (i - 1)
        axes[2].bar(positions, values, 0.25, color=palette(3)[i], hatch=hatch, edgecolor="black", label=name.upper())
        for x, value in zip(positions, values, strict=True):
            axes[2].text(x, value + 0.02, f"{value:.2f}", ha="center", fontsize=9)
    tallies = [
        f"{name}: TP {table['true_positive'][k]}, FP {table['false_positive'][k]}, FN {table['false_negative'][k]}"
        for k, name in enumerate(NAMES)
    ]
    axes[2].set(xticks=range(2), ylim=(0, 1.35), yticks=(0, 0.5, 1))
    axes[2].set_xticklabels([text.replace(": ", "\n") for text in tallies], fontsize=9)
    axes[2].legend(ncols=3, fontsize=9, loc="upper center")
    axes[2].set_title(f"mean PQ {result['pq']:.3f}", fontsize=10)
    qualities = [
        f"{name} PQ {table['pq'][k]:.2f} = SQ {table['sq'][k]:.2f} x RQ {table['rq'][k]:.2f}"
        for k, name in enumerate(NAMES)
    ]
    show(fig, alt=f"A road with three cars and a prediction of it. {'; '.join(tallies)}. {'; '.join(qualities)}.")


def explorer() -> None:
    """Show the first widget of chapter 13, a threshold: an explorer in a notebook, three static frames elsewhere."""
    explore_in_browser(
        draw_ranking,
        "average_precision",
        static=[{"threshold": 0.9}, {"threshold": 0.5}, {"threshold": 0.1}],
        labels={"threshold": "score threshold"},
    )


def panoptic_explorer() -> None:
    """Show the second widget of chapter 13, segments: an explorer in a notebook, four static frames elsewhere."""
    explore_in_browser(
        draw_panoptic,
        "panoptic_quality",
        static=[
            {"split_column": 2, "merge": False, "shift": 0},
            {"split_column": 4, "merge": False, "shift": 0},
            {"split_column": 0, "merge": True, "shift": 0},
            {"split_column": 0, "merge": False, "shift": 3},
        ],
        labels={"split_column": "split car 1 after column", "merge": "merge cars 2 and 3", "shift": "shift car 3 by"},
    )
