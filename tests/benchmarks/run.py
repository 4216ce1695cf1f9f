"""Our code beside the peers in one process: interleaved pairs, the median of 15 ratios, and ours against itself.

The last column is the spread due to the machine alone; a ratio inside it means nothing. All groups of pairs run, or
those named on the command line: `python tests/benchmarks/run.py coco models`. The order within a pair alternates from
round to round. The networks use two threads, everything else one.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

sys.path.remove(str(Path(__file__).resolve().parent))  # files here have names of folders of tests
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cells import pairs as cell_pairs
from benchmarks.clustering import pairs as clustering_pairs
from benchmarks.coco_evaluation import pairs as coco_pairs
from benchmarks.detection import network_pairs, operation_pairs
from benchmarks.label_maps import pairs as label_map_pairs
from benchmarks.models import pairs as model_pairs
from benchmarks.queries import query_pairs, sam_pairs

ROUNDS = 15


def pairs():
    """Yield name, ours, peer: functions without arguments that do the same work."""
    import torchvision
    from monai.losses import DiceLoss, FocalLoss
    from sklearn.metrics import confusion_matrix as sklearn_confusion

    from segedu.losses.cross_entropy import cross_entropy
    from segedu.losses.dice import dice_loss
    from segedu.losses.focal import focal_loss, sigmoid_focal_loss
    from segedu.metrics.confusion import confusion_matrix
    from segedu.ops.boxes import box_iou, generalized_box_iou

    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(600, 2, 2, generator=generator).sort(dim=1).values.reshape(600, 4) * 100
    a, b = corners[:300], corners[300:]
    preds = torch.randint(0, 21, (4, 256, 256), generator=generator)
    target = torch.randint(0, 21, (4, 256, 256), generator=generator)
    logits = torch.randn(4, 21, 128, 128, generator=generator)
    small = target[:, :128, :128].contiguous()
    flat = preds.numpy().ravel(), target.numpy().ravel()
    monai_dice = DiceLoss(to_onehot_y=True, softmax=True)
    yield "box_iou / torchvision", lambda: box_iou(a, b), lambda: torchvision.ops.box_iou(a, b)
    giou = torchvision.ops.generalized_box_iou
    yield "generalized_box_iou / torchvision", lambda: generalized_box_iou(a, b), lambda: giou(a, b)
    ours = lambda: confusion_matrix(preds, target, 21)  # noqa: E731
    yield "confusion_matrix / scikit-learn", ours, lambda: sklearn_confusion(flat[1], flat[0], labels=np.arange(21))
    yield "cross_entropy / torch", lambda: cross_entropy(logits, small), lambda: F.cross_entropy(logits, small)
    yield "dice_loss / MONAI", lambda: dice_loss(logits, small), lambda: monai_dice(logits, small[:, None])
    monai_focal = FocalLoss(to_onehot_y=True, use_softmax=True)
    yield "focal_loss / MONAI", lambda: focal_loss(logits, small), lambda: monai_focal(logits, small[:, None])
    scores, truth = logits[:, 0], (small > 9).long()
    theirs = lambda: torchvision.ops.sigmoid_focal_loss(scores, truth.float(), reduction="mean")  # noqa: E731
    yield "sigmoid_focal_loss / torchvision", lambda: sigmoid_focal_loss(scores, truth), theirs


GROUPS = {
    "tensors": pairs,
    "coco": coco_pairs,
    "label_maps": label_map_pairs,
    "models": model_pairs,
    "clustering": clustering_pairs,
    "cells": cell_pairs,
    "detectors": network_pairs,
    "regions": operation_pairs,
    "queries": query_pairs,
    "sam": sam_pairs,
}
THREADS = {"models": 2, "detectors": 2, "queries": 2, "sam": 2}


def seconds(function) -> float:
    """Time enough calls to fill 20 ms."""
    start, calls = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < 0.02:
        function()
        calls += 1
    return spent / calls


def ratios(one, other) -> list[float]:
    """Ratios of the times of two functions, measured alternately."""
    found = []
    for turn in range(ROUNDS):
        if turn % 2:
            found.append(seconds(one) / seconds(other))
        else:
            found.append(1 / (seconds(other) / seconds(one)))
    return found


def main(groups: list[str]) -> None:
    """Print the table."""
    table = Table("ours / peer", "median ratio", "of 15, lowest to highest", "ours / ours, lowest to highest")
    for group in groups or GROUPS:
        torch.set_num_threads(THREADS.get(group, 1))
        medians = []
        for name, ours, peer in GROUPS[group]():
            ours(), peer()
            spread, noise = ratios(ours, peer), ratios(ours, ours)
            medians.append(statistics.median(spread))
            table.add_row(name, f"{medians[-1]:.2f}", *(f"{min(r):.2f} to {max(r):.2f}" for r in (spread, noise)))
        mean, highest = statistics.geometric_mean(medians), max(medians)
        table.add_row(f"{group}: geometric mean, highest", f"{mean:.3f}, {highest:.2f}", "", "", end_section=True)
    Console(width=120).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
