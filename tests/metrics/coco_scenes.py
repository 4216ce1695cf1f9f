"""Random detections in COCO's format, and pycocotools' answer to them."""

import contextlib
import copy
import io

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def ellipse(rng, size, box):
    """A blob with a wavy contour in a box x, y, w, h, as compressed run lengths (counts as str, as in JSON)."""
    x, y, w, h = box
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = 1 + 0.1 * rng.standard_normal(24)
    corners = np.stack([x + w / 2 + w / 2 * radius * np.cos(angle), y + h / 2 + h / 2 * radius * np.sin(angle)], axis=1)
    corners = corners.clip(0, [size[1], size[0]])
    rle = coco_mask.frPyObjects([corners.ravel().tolist()], *size)[0]
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def random_box(rng, size, smallest, largest):
    w, h = np.exp(rng.uniform(np.log(smallest), np.log(largest), 2))
    x, y = rng.uniform(0, 1, 2) * np.maximum([size[1] - w, size[0] - h], 1)
    return [float(v) for v in np.round([x, y, w, h], 2)]


def scene(seed, images=6, classes=4, objects=5, detections=9, size=(120, 160), masks=True, ties=True, largest=130):
    """(annotations, results): misplaced copies of true objects and inventions.

    Some images have no object, some no detection; the last class has no object; some objects are crowds; with
    `ties`, scores are multiples of 0.1 and coordinates whole.
    """
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image in range(1, images + 1):
        own = []
        for _ in range(rng.integers(0, 2 * objects + 1) if rng.random() > 0.1 else 0):
            box = random_box(rng, size, 6, largest)
            box = own[-1]["bbox"] if ties and own and rng.random() < 0.2 else box  # equal IoUs with both
            own.append({"bbox": [float(round(v)) for v in box] if ties else box})
            own[-1] |= {"category_id": int(rng.integers(1, classes)) * 3, "iscrowd": int(rng.random() < 0.15)}
            own[-1] |= {"image_id": image, "id": len(annotations) + len(own)}
        annotations += own
        for _ in range(rng.integers(0, 2 * detections + 1) if rng.random() > 0.1 else 0):
            if own and rng.random() < 0.7:
                source = own[rng.integers(len(own))]
                box, category = np.array(source["bbox"]), source["category_id"]
                box = box + rng.normal(0, rng.choice([0, 0.03, 0.1]), 4) * box[[2, 3, 2, 3]]
                box[2:] = np.maximum(box[2:], 1)
            else:
                box, category = np.array(random_box(rng, size, 6, largest)), int(rng.integers(1, classes + 1)) * 3
            box = box.round() if ties else box
            score = float(rng.random().__round__(1 if ties else 6))
            results.append({"image_id": image, "category_id": category, "score": score, "bbox": box.tolist()})
    for record in [*annotations, *results]:
        if masks:
            record["segmentation"] = ellipse(rng, size, record["bbox"])
    for record in annotations:
        rle = record.get("segmentation")
        record["area"] = float(coco_mask.area(rle)) if masks else record["bbox"][2] * record["bbox"][3]
    sizes = {"height": size[0], "width": size[1]}
    pages = [{"id": image, **sizes} for image in range(1, images + 1)]
    names = [{"id": 3 * c, "name": str(c)} for c in range(1, classes + 1)]
    return {"images": pages, "categories": names, "annotations": annotations}, results


def only(key, results):
    """Results with a box or a mask but not both: else pycocotools takes the area of the box for that of the mask."""
    return [{k: v for k, v in r.items() if k in ("image_id", "category_id", "score", key)} for r in results]


def pycocotools_evaluation(annotations, results, iou_type="bbox", class_agnostic=False):
    """The COCOeval that pycocotools has accumulated."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(annotations)
        truth.createIndex()
        found = truth.loadRes(copy.deepcopy(results))
        evaluation = COCOeval(truth, found, iou_type)
        evaluation.params.useCats = int(not class_agnostic)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation
