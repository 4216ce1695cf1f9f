"""Bad and empty input to `segedu.metrics.panoptic`."""

import numpy as np
from bad_input.rows import refused

from segedu.metrics.panoptic import PanopticQuality, panoptic_quality


def side(pixels, *segments):
    infos = [{"id": i, "category_id": c, "isthing": thing} for i, c, thing in segments]
    return {"panoptic_seg": np.asarray(pixels), "segments_info": infos}


GOOD = side([[1, 1, 0]], (1, 0, True))
LISTED = {"panoptic_seg": GOOD["panoptic_seg"]}

WRONG_PREDS = [
    (TypeError, "preds has type list", []),
    (TypeError, "preds has type ndarray", GOOD["panoptic_seg"]),
    (ValueError, "preds has the keys ['panoptic_seg']", LISTED),
    (TypeError, "preds['segments_info'] has type NoneType", {**LISTED, "segments_info": None}),
    (TypeError, "preds has dtype float64", side([[1.0, 1.0, 0.0]], (1, 0, True))),
    (TypeError, "preds['segments_info'] has the id '1'", side([[1, 1, 0]], ("1", 0, True))),
    (TypeError, "preds['segments_info'] has the category_id 0.5", side([[1, 1, 0]], (1, 0.5, True))),
    (ValueError, "preds has shape (3,)", side([1, 1, 0], (1, 0, True))),
    (ValueError, "preds['segments_info'] has the entry {'id': 1}", {**LISTED, "segments_info": [{"id": 1}]}),
    (ValueError, "preds['segments_info'] has the entry 1", {**LISTED, "segments_info": [1]}),
    (ValueError, "preds has a segment 1 with category_id 2", side([[1, 1, 0]], (1, 2, True))),
    (ValueError, "preds has a segment 1 with category_id -1", side([[1, 1, 0]], (1, -1, True))),
    (ValueError, "preds['segments_info'] has the id 0", side([[1, 1, 0]], (0, 0, True))),
    (ValueError, "preds['segments_info'] has the id 1 twice", side([[1, 1, 0]], (1, 0, True), (1, 1, True))),
    (ValueError, "preds has thing and stuff segments of class 0", side([[1, 2, 0]], (1, 0, True), (2, 0, False))),
    (ValueError, "preds['panoptic_seg'] has the id 2", side([[1, 2, 0]], (1, 0, True))),
    (ValueError, "preds has the label -1", side([[1, -1, 0]], (1, 0, True))),
    (ValueError, "preds['panoptic_seg'] has the id 16777217", side([[1, 2**24 + 1, 0]], (1, 0, True))),
    (ValueError, "preds has the segment 5 without pixels", side([[1, 1, 0]], (1, 0, True), (5, 0, True))),
    (ValueError, "preds['segments_info'] has the id -3", side([[1, 1, 0]], (1, 0, True), (-3, 0, True))),
]
ROWS = [refused(error, words, panoptic_quality, preds, GOOD, 2) for error, words, preds in WRONG_PREDS]
ROWS += [
    refused(TypeError, "target has type NoneType", panoptic_quality, GOOD, None, 2),
    refused(ValueError, "target['panoptic_seg'] has the id 2", panoptic_quality, GOOD, side([[1, 2, 0]], (1, 0, 1)), 2),
    refused(
        ValueError, "target['panoptic_seg'] has shape (3,)", panoptic_quality, *[side([1, 1, 0], (1, 0, 1))] * 2, 2
    ),
    refused(ValueError, "isthing of class 0 differs", panoptic_quality, GOOD, side([[1, 1, 0]], (1, 0, False)), 2),
    refused(TypeError, "num_classes is 2.0", panoptic_quality, GOOD, GOOD, 2.0),
    refused(ValueError, "num_classes is 0", PanopticQuality, 0),
    refused(TypeError, "other has type dict", PanopticQuality(2).merge, {}),
    refused(ValueError, "other has num_classes 3", PanopticQuality(2).merge, PanopticQuality(3)),
]
