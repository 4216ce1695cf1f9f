"""COCO's evaluation of 2,000 synthetic images, ours beside pycocotools; `run.py` times these pairs.

Both sides start from the same lists of dicts in memory (annotations and results as JSON gives them, masks as
compressed run lengths) and end with the twelve numbers. pycocotools runs COCO.createIndex, loadRes, evaluate,
accumulate and summarize without its prints. In the last two pairs ours starts from tensors instead, image by image,
with every check of `CocoEvaluation.update`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
from pathlib import Path

import numpy as np
import torch

SCENES = Path(__file__).resolve().parents[1] / "metrics" / "coco_scenes.py"
IMAGES = 2000


def scenes():
    """The generator that the tests use."""
    spec = importlib.util.spec_from_file_location("coco_scenes", SCENES)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def peer(annotations, results, iou_type):
    """pycocotools, from the lists to its `stats`."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = annotations
        truth.createIndex()
        # copies, as loadRes writes into its list, and given that list again would take another path
        evaluation = COCOeval(truth, truth.loadRes([dict(result) for result in results]), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def tensors(annotations, results, key):
    """The dicts of each image that `CocoEvaluation.update` takes."""
    found, true = ({image["id"]: [] for image in annotations["images"]} for _ in range(2))
    for place, records in ((found, results), (true, annotations["annotations"])):
        for record in records:
            place[record["image_id"]].append(record)
    return [(as_tensors(found[i], ("scores",), key), as_tensors(true[i], ("iscrowd", "area"), key)) for i in found]


def as_tensors(records, names, key):
    kinds = {"labels": ("category_id", torch.int64), "scores": ("score", torch.float64)}
    kinds |= {"iscrowd": ("iscrowd", torch.int64), "area": ("area", torch.float64)}
    columns = {name: kinds[name] for name in ("labels", *names)}
    objects = {name: torch.tensor([r[field] for r in records], dtype=kind) for name, (field, kind) in columns.items()}
    if key == "segmentation":
        return objects | {"masks": [r["segmentation"] for r in records]}
    boxes = np.array([r["bbox"] for r in records], dtype=np.float64).reshape(-1, 4)
    return objects | {"boxes": torch.from_numpy(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1))}


def image_by_image(images, iou_type):
    from segedu.metrics.coco import CocoEvaluation

    evaluation = CocoEvaluation(iou_type)
    for predictions, target in images:
        evaluation.update(predictions, target)
    return evaluation.compute()


def pairs():
    """Yield name, ours, peer, as in `run.py`."""
    from segedu.metrics.coco import METRIC_NAMES
    from segedu.metrics.coco_files import evaluate_coco

    make = scenes()
    annotations, results = make.scene(
        0, images=IMAGES, classes=20, objects=6, detections=8, size=(240, 320), ties=False, largest=150
    )
    for iou_type, key in (("bbox", "bbox"), ("segm", "segmentation")):
        lists = annotations, make.only(key, results), iou_type
        images = tensors(annotations, results, key)
        ours = evaluate_coco(*lists)
        np.testing.assert_allclose([ours[name] for name in METRIC_NAMES], peer(*lists), rtol=0, atol=1e-12)
        theirs = functools.partial(peer, *lists)
        yield f"{IMAGES} images, {iou_type}, lists / pycocotools", functools.partial(evaluate_coco, *lists), theirs
        one_by_one = functools.partial(image_by_image, images, iou_type)
        yield f"{IMAGES} images, {iou_type}, image by image / pycocotools", one_by_one, theirs
