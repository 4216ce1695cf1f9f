"""Lab 14, top-down instances: RoIAlign, mask targets and their loss, prototypes, kernels per instance, matrix NMS."""

from __future__ import annotations

from segedu.checks.cell import lab_tools
from segedu.exercises.lab14_top_down.dynamic_conv import exercise as dynamic_conv
from segedu.exercises.lab14_top_down.mask_loss import exercise as mask_loss
from segedu.exercises.lab14_top_down.mask_target import exercise as mask_target
from segedu.exercises.lab14_top_down.matrix_nms import exercise as matrix_nms
from segedu.exercises.lab14_top_down.roi_align import exercise as roi_align
from segedu.exercises.lab14_top_down.yolact_masks import exercise as yolact_masks

exercises = [roi_align, mask_target, mask_loss, yolact_masks, dynamic_conv, matrix_nms]
check, use = lab_tools("14_top_down", exercises)

__all__ = ["check", "exercises", "use"]
