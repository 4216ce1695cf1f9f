"""Panoptic quality, confusion matrices and matching of objects beside their peers; `run.py` times these pairs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch

TESTS = Path(__file__).resolve().parents[1] / "metrics"
SIZE = 480, 640


def test_module(name):
    """The test module with the scenes and the literal implementation."""
    spec = importlib.util.spec_from_file_location(name, TESTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def panoptic():
    """200 images (40 different ones, five times each)."""
    from segedu.metrics.panoptic import PanopticQuality

    paper = test_module("test_panoptic")

    def large(side):
        pixels = side["panoptic_seg"].repeat(27, axis=0).repeat(26, axis=1)[: SIZE[0], : SIZE[1]]
        listed = [info for info in side["segments_info"] if (pixels == info["id"]).any()]
        return {"panoptic_seg": np.ascontiguousarray(pixels), "segments_info": listed}

    images = [tuple(large(side) for side in paper.random_image(seed)) for seed in range(40)] * 5

    def ours():
        total = PanopticQuality(paper.K)
        for preds, target in images:
            total.update(preds, target)
        return total.compute()

    yield "panoptic quality, 200 images / the paper read literally", ours, lambda: paper.literal(images)


def confusion():
    """100 images of 21 classes with an ignored border, one update each."""
    from torchmetrics.classification import MulticlassConfusionMatrix

    from segedu.metrics.confusion import ConfusionMatrix

    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 21, (2, 100, 30, 40), generator=generator)
    preds, target = coarse.repeat_interleave(16, dim=2).repeat_interleave(16, dim=3)
    target[:, :, :20] = 255

    def one_pass(make):
        def run():
            total = make()
            for p, t in zip(preds, target, strict=True):
                total.update(p, t)
            return total.compute()

        return run

    ours = one_pass(lambda: ConfusionMatrix(21, ignore_index=255))
    for note, check in (("", True), (", its checks off", False)):
        theirs = one_pass(lambda check=check: MulticlassConfusionMatrix(21, ignore_index=255, validate_args=check))
        yield f"confusion matrix, 100 images / torchmetrics{note}", ours, theirs


def discs(jitter):
    """2,000 cells on a jittered grid; another jitter shifts them, like a prediction."""
    rng, moved = np.random.default_rng(1), np.random.default_rng(2)
    label_map = np.zeros((1024, 1024), dtype=np.int32)
    for i in range(2000):
        place = 22.7 * np.array(divmod(i, 45)) + 11 + rng.normal(0, 2, 2)
        radius, (cy, cx) = rng.uniform(7, 12), place + moved.normal(0, jitter, 2)
        y0, x0 = max(int(cy) - 13, 0), max(int(cx) - 13, 0)
        window = label_map[y0 : y0 + 27, x0 : x0 + 27]
        y, x = np.indices(window.shape)
        window[(y + y0 - cy) ** 2 + (x + x0 - cx) ** 2 <= radius**2] = i + 1
    return label_map


def matching():
    """Two maps of 2,000 objects; some objects have several candidates below IoU 1/2."""
    try:
        from stardist.matching import matching as peer
    except ImportError:
        print("left out: matching / StarDist (pip install stardist csbdeep numba)")
        return
    from segedu.metrics.instance import THRESHOLDS, instance_metrics

    target, preds = discs(0), discs(3)
    for thresholds in ([0.5], [0.1], list(THRESHOLDS)):
        text = "9 thresholds" if len(thresholds) > 1 else f"IoU {thresholds[0]}"

        def ours(thresholds=thresholds):
            return instance_metrics(preds, target, thresholds)

        def theirs(thresholds=thresholds):
            return peer(target, preds, thresholds)

        yield f"matching, 2,000 objects, {text} / StarDist", ours, theirs


def pairs():
    """Yield name, ours, peer, as in `run.py`."""
    yield from panoptic()
    yield from confusion()
    yield from matching()
