"""Lab 11, detection: anchors, box deltas, training targets, non-maximum suppression and feature pyramids."""

from __future__ import annotations

from segedu.teaching.checks.cell import lab_tools
from segedu.teaching.exercises.lab11_detection.assign_targets import exercise as assign_targets
from segedu.teaching.exercises.lab11_detection.encode_decode import exercise as encode_decode
from segedu.teaching.exercises.lab11_detection.fpn_merge import exercise as fpn_merge
from segedu.teaching.exercises.lab11_detection.level_assign import exercise as level_assign
from segedu.teaching.exercises.lab11_detection.make_anchors import exercise as make_anchors
from segedu.teaching.exercises.lab11_detection.nms import exercise as nms

exercises = [make_anchors, encode_decode, assign_targets, nms, fpn_merge, level_assign]
# solutions in other libraries, hidden in grading and while a check runs
FORBIDDEN = (
    "torchvision.ops.nms",
    "torchvision.ops.batched_nms",
    "torch.ops.torchvision.nms",
    "torchvision.ops.FeaturePyramidNetwork",
    "torchvision.models.detection.anchor_utils.AnchorGenerator",
    "torchvision.models.detection._utils.BoxCoder",
    "torchvision.models.detection._utils.Matcher",
    "torchvision.ops.poolers.LevelMapper",
)
check, use = lab_tools("11_detection", exercises, FORBIDDEN)

__all__ = ["check", "exercises", "use"]
