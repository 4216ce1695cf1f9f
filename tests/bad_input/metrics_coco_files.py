"""Bad and empty input to `segedu.metrics.coco_files`."""

from bad_input.rows import NAN, refused

from segedu.metrics.coco_files import evaluate_coco

IMAGE, RUNS = {"id": 7, "height": 2, "width": 3}, {"size": [2, 3], "counts": [0, 6]}
RESULT = {"image_id": 7, "category_id": 1, "bbox": [0, 0, 3, 2], "segmentation": RUNS, "score": 0.5}
TRUE = RESULT | {"area": 6.0}
GOOD = {"images": [IMAGE], "categories": [{"id": 1}], "annotations": [TRUE]}


def without(record, key):
    return {name: value for name, value in record.items() if name != key}


WRONG_ANNOTATIONS = [
    (TypeError, "annotations has type list", []),
    (ValueError, "annotations has the keys ['categories', 'annotations']", without(GOOD, "images")),
    (ValueError, "annotations has the keys ['images', 'annotations']", without(GOOD, "categories")),
    (ValueError, "annotations has the keys ['images', 'categories']", without(GOOD, "annotations")),
    (ValueError, "annotations['images'] has the entry {}", GOOD | {"images": [{}]}),
    (TypeError, "annotations['images'] has id of dtype <U1", GOOD | {"images": [{"id": "a"}]}),
    (ValueError, "annotations['categories'] has the entry {}", GOOD | {"categories": [{}]}),
    (ValueError, "annotations has the image_id 9", GOOD | {"annotations": [TRUE | {"image_id": 9}]}),
    (ValueError, "annotations has the entry {'image_id': 7", GOOD | {"annotations": [without(TRUE, "area")]}),
    (ValueError, "annotations has the area nan", GOOD | {"annotations": [TRUE | {"area": NAN}]}),
]
WRONG_RESULTS = [
    (TypeError, "results has type dict", {}),
    (ValueError, "results has the entry 3", [3]),
    (ValueError, "results has the entry {'image_id': 7", [without(RESULT, "score")]),
    (ValueError, "results has the entry {'category_id': 1", [without(RESULT, "image_id")]),
    (ValueError, "results has the entry {'image_id': 7", [without(RESULT, "bbox")]),
    (ValueError, "results has the image_id 8", [RESULT | {"image_id": 8}]),
    (TypeError, "results has category_id of dtype float64", [RESULT | {"category_id": 1.5}]),
    (TypeError, "results has score of dtype <U3", [RESULT | {"score": "0.5"}]),
    (ValueError, "results has the score nan", [RESULT | {"score": NAN}]),
    (ValueError, "results has a bbox of 3 values", [RESULT | {"bbox": [0, 0, 1]}]),
    (ValueError, "results has the bbox [0.0, 0.0, -1.0, 1.0]", [RESULT | {"bbox": [0, 0, -1, 1]}]),
]
WRONG_MASKS = [
    (ValueError, "results has a mask of size [3, 2]", {"size": [3, 2], "counts": [0, 6]}),
    (ValueError, "rle has runs of 5 pixels", {"size": [2, 3], "counts": [0, 5]}),
    (ValueError, "polygons[0] is [0, 0, 1, 1]", [[0, 0, 1, 1]]),
]
ROWS = [refused(error, words, evaluate_coco, wrong, [RESULT]) for error, words, wrong in WRONG_ANNOTATIONS]
ROWS += [refused(error, words, evaluate_coco, GOOD, wrong) for error, words, wrong in WRONG_RESULTS]
ROWS += [
    refused(error, words, evaluate_coco, GOOD, [RESULT | {"segmentation": wrong}], "segm")
    for error, words, wrong in WRONG_MASKS
]
ROWS += [
    refused(ValueError, "iou_type is 'mask'", evaluate_coco, GOOD, [RESULT], "mask"),
    refused(
        ValueError,
        "annotations['images'] has the entry {'id': 7}",
        evaluate_coco,
        GOOD | {"images": [{"id": 7}]},
        [],
        "segm",
    ),
]
