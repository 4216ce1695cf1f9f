"""Lab 16, promptable, medical and 3-D: SAM's prompts, loss, stability and labels; resampling and nnU-Net's plan."""

from __future__ import annotations

from segedu.teaching.checks.cell import lab_tools
from segedu.teaching.exercises.lab16_promptable.best_of_three import exercise as best_of_three
from segedu.teaching.exercises.lab16_promptable.label_by_detector import exercise as label_by_detector
from segedu.teaching.exercises.lab16_promptable.plan_unet import exercise as plan_unet
from segedu.teaching.exercises.lab16_promptable.prompt_encode import exercise as prompt_encode
from segedu.teaching.exercises.lab16_promptable.resample_spacing import exercise as resample_spacing
from segedu.teaching.exercises.lab16_promptable.stability_score import exercise as stability_score

exercises = [prompt_encode, best_of_three, stability_score, label_by_detector, resample_spacing, plan_unet]
check, use = lab_tools("16_promptable", exercises)

__all__ = ["check", "exercises", "use"]
