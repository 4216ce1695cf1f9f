"""Bad and empty input to `segedu.metrics.coco_matching`."""

import numpy as np
from bad_input.rows import defined, refused

from segedu.metrics.coco_matching import DETECTION, TARGET, match_ranks, outside_area_ranges, precision_and_recall
from segedu.metrics.coco_overlap import PAIR

DETECTIONS, TARGETS = np.array([(1, 0, 0.5, 9.0)], DETECTION), np.array([(1, 9.0, False)], TARGET)
FLAGS = np.zeros((1, 4, 10), bool)
NOTHING = np.zeros(0, DETECTION), np.zeros(0, TARGET), np.zeros(0, PAIR)
ROWS = [
    refused(ValueError, "area has shape ()", outside_area_ranges, np.array(3.0)),
    defined(np.zeros((0, 4)), outside_area_ranges, np.zeros(0)),
    refused(ValueError, "pairs has the detection 1", match_ranks, DETECTIONS, TARGETS, np.array([(1, 0, 0.7)], PAIR)),
    refused(ValueError, "pairs has the target -1", match_ranks, DETECTIONS, TARGETS, np.array([(0, -1, 0.7)], PAIR)),
    defined(np.zeros((2, 0, 4, 10)), match_ranks, *NOTHING),
    refused(ValueError, "matched has 0 entries", precision_and_recall, DETECTIONS, TARGETS, FLAGS[:0], FLAGS),
    refused(ValueError, "ignored has 0 entries", precision_and_recall, DETECTIONS, TARGETS, FLAGS, FLAGS[:0]),
]
