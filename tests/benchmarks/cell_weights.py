"""Quality of the small StarDist and the small Cellpose on 64 synthetic scenes that were not used in training.

`python tests/benchmarks/cell_weights.py` prints, beside the plain baseline: instance accuracy TP / (TP + FP + FN) at
IoU 0.5 and 0.7, the mean over scenes, and the average precision at IoU 0.5 of all scenes together, the area under
precision and recall. The score of an object is, for StarDist, the object probability of the pixel whose polygon was
kept; for Cellpose, the mean cell probability of its pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segedu.datasets.cells import Cells
from segedu.instance.cellpose import cellpose
from segedu.instance.stardist import candidates, polygon_nms, render_polygons
from segedu.metrics.average_precision import average_precision_area, match_detections, precision_recall_curve
from segedu.metrics.instance import label_map_iou
from segedu.recipes.baselines import OtsuWatershed
from segedu.recipes.data import Sets, pairs_of
from segedu.recipes.task import measure_instances
from segedu.weights import load

SEED, SCENES = 8_000_000, 64
Found = tuple[Tensor, Tensor]  # label map (H, W) with the labels 1 to N, scores (N,)


def average_precision(
    found: Sequence[Tensor], scores: Sequence[Tensor], truths: Sequence[Tensor], iou_threshold: float = 0.5
) -> float:
    """Area under precision and recall of the objects of all images.

    Args:
        found: label maps, with the labels 1 to N.
        scores: of each label map (N,).
        truths: ground-truth label maps.
        iou_threshold: lowest IoU of a true positive.
    """
    pooled, hits, number = [], [], 0
    for label_map, score, truth in zip(found, scores, truths, strict=True):
        order = score.argsort(descending=True, stable=True)
        matched, _ = match_detections(label_map_iou(label_map, truth)[order], iou_threshold=iou_threshold)
        pooled.append(score[order])
        hits.append(matched >= 0)
        number += int((truth.unique() > 0).sum())
    return average_precision_area(*precision_recall_curve(torch.cat(pooled), torch.cat(hits), number))


def seen(found: Tensor, scores: Tensor) -> Found:
    """Renumber the objects without those that have no visible pixel."""
    labels, numbered = found.unique(return_inverse=True)
    kept = labels[labels > 0].long() - 1
    return (numbered + int(labels[0] > 0)).int(), scores[kept]


def by_stardist(model: nn.Module, image: Tensor) -> Found:
    """As `stardist.postprocess`, with the scores."""
    outputs = model(image[None])
    distances, points, scores = candidates(outputs["logits"][0], outputs["distances"][0], model.grid, 0.5)
    best = polygon_nms(distances, points, scores)
    return seen(render_polygons(distances[best], points[best], image.shape[1:], scores[best]), scores[best])


def by_cellpose(model: nn.Module, image: Tensor) -> Found:
    """As `cellpose.postprocess`, with scores."""
    outputs = model(image[None])
    label_map = cellpose.postprocess(outputs)[0]
    probability, index = outputs["logits"][0].sigmoid().flatten(), label_map.flatten().long()
    sums, counts = (index.bincount(weights) for weights in (probability, None))
    return seen(label_map, (sums / counts.clamp(min=1))[1:].float())


@torch.no_grad()
def main() -> None:
    """Print the table."""
    pairs = pairs_of(Cells(SCENES, seed=SEED), "label_map")
    sets = Sets(None, {"new": {"all": pairs}})
    plain = OtsuWatershed()
    rows = {plain.name: [(plain(image[None])[0], None) for image, _ in pairs]}
    for name, find in (("cells_stardist", by_stardist), ("cells_cellpose", by_cellpose)):
        model = load(name)
        rows[name] = [find(model, image) for image, _ in pairs]
    print(f"{SCENES} drawn scenes of 128 x 128: instance accuracy at IoU 0.5, at 0.7, AP50")
    for name, found in rows.items():
        maps = iter([label_map for label_map, _ in found])
        figures = measure_instances(lambda _, maps=maps: next(maps), sets)["new"]["all"]
        line = f"{name}: {figures['instance_accuracy']:.3f}, {figures['instance_accuracy_0.7']:.3f}"
        if found[0][1] is not None:
            truths = [truth for _, truth in pairs]
            line += f", {average_precision(*zip(*found, strict=True), truths):.3f}"
        print(line)


if __name__ == "__main__":
    main()
