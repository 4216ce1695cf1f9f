"""Lab 12, one-stage and set-based detectors: YOLO, SSD, RetinaNet, and the matching and loss of DETR."""

from __future__ import annotations

from segedu.teaching.checks.cell import lab_tools
from segedu.teaching.exercises.lab12_one_stage.decode_ssd import exercise as decode_ssd
from segedu.teaching.exercises.lab12_one_stage.hungarian_match import exercise as hungarian_match
from segedu.teaching.exercises.lab12_one_stage.retina_prior import exercise as retina_prior
from segedu.teaching.exercises.lab12_one_stage.set_loss import exercise as set_loss
from segedu.teaching.exercises.lab12_one_stage.yolo_depth import exercise as yolo_depth
from segedu.teaching.exercises.lab12_one_stage.yolo_target import exercise as yolo_target

exercises = [yolo_depth, yolo_target, decode_ssd, retina_prior, hungarian_match, set_loss]
# solutions in other libraries, hidden in grading and while a check runs
FORBIDDEN = (
    "torchvision.models.detection._utils.BoxCoder",
    "torchvision.models.detection.anchor_utils.DefaultBoxGenerator",
)
check, use = lab_tools("12_one_stage", exercises, FORBIDDEN)

__all__ = ["check", "exercises", "use"]
