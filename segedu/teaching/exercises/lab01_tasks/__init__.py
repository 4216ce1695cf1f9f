"""Lab 1: one-hot, semantic from instances, panoptic numbers, counting things, boxes from masks, run lengths."""

from __future__ import annotations

from segedu.teaching.checks.cell import lab_tools
from segedu.teaching.exercises.lab01_tasks.count_things import exercise as count_things
from segedu.teaching.exercises.lab01_tasks.mask_to_box import exercise as mask_to_box
from segedu.teaching.exercises.lab01_tasks.one_hot import exercise as one_hot
from segedu.teaching.exercises.lab01_tasks.panoptic_roundtrip import exercise as panoptic_roundtrip
from segedu.teaching.exercises.lab01_tasks.rle_roundtrip import exercise as rle_roundtrip
from segedu.teaching.exercises.lab01_tasks.semantic_from_instances import exercise as semantic_from_instances

exercises = [one_hot, semantic_from_instances, panoptic_roundtrip, count_things, mask_to_box, rle_roundtrip]
# answers of other libraries, hidden in grading and while a check runs
FORBIDDEN = ("torchvision.ops.masks_to_boxes",)
check, use = lab_tools("01_tasks", exercises, FORBIDDEN)
