"""Lab 14, top-down instances: RoIAlign, mask targets and their loss, prototypes, kernels per instance, matrix NMS."""

from __future__ import annotations

from segedu.teaching.checks.cell import lab_tools
from segedu.teaching.exercises.lab14_top_down.dynamic_conv import exercise as dynamic_conv
from segedu.teaching.exercises.lab14_top_down.mask_loss import exercise as mask_loss
from segedu.teaching.exercises.lab14_top_down.mask_target import exercise as mask_target
from segedu.teaching.exercises.lab14_top_down.matrix_nms import exercise as matrix_nms
from segedu.teaching.exercises.lab14_top_down.roi_align import exercise as roi_align
from segedu.teaching.exercises.lab14_top_down.yolact_masks import exercise as yolact_masks

exercises = [roi_align, mask_target, mask_loss, yolact_masks, dynamic_conv, matrix_nms]
# answers of other libraries, hidden in grading and while a check runs
FORBIDDEN = (
    "torchvision.ops.roi_align",
    "torchvision.ops.roi_align._roi_align",
    "torchvision.ops.RoIAlign",
    "torchvision.ops.MultiScaleRoIAlign",
    "torch.ops.torchvision.roi_align",
    "torchvision.models.detection.roi_heads.project_masks_on_boxes",
    "torchvision.models.detection.roi_heads.maskrcnn_loss",
)
check, use = lab_tools("14_top_down", exercises, FORBIDDEN)

__all__ = ["check", "exercises", "use"]
