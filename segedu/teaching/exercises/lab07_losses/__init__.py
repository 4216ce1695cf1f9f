"""Lab 7: cross-entropy, class weights, focal loss, Dice loss, and two losses for boxes."""

from __future__ import annotations

from segedu.teaching.checks.cell import lab_tools
from segedu.teaching.exercises.lab07_losses.ce_from_logits import exercise as ce_from_logits
from segedu.teaching.exercises.lab07_losses.focal import exercise as focal
from segedu.teaching.exercises.lab07_losses.giou_loss import exercise as giou_loss
from segedu.teaching.exercises.lab07_losses.iou_grad_zero import exercise as iou_grad_zero
from segedu.teaching.exercises.lab07_losses.soft_dice import exercise as soft_dice
from segedu.teaching.exercises.lab07_losses.weighted_ce import exercise as weighted_ce

exercises = [ce_from_logits, weighted_ce, focal, soft_dice, iou_grad_zero, giou_loss]
# the same functions in other libraries, hidden in grading and while a check runs
FORBIDDEN = (
    "torch.nn.functional.cross_entropy",
    "torchvision.ops.sigmoid_focal_loss",
    "torchvision.ops.generalized_box_iou_loss",
    "torchvision.ops.generalized_box_iou",
    "torchvision.ops.box_iou",
    "torchvision.ops.boxes._box_inter_union",
    "torchvision.ops._utils._loss_inter_union",
)
check, use = lab_tools("07_losses", exercises, FORBIDDEN)
