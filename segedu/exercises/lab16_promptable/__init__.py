"""Lab 16, its medical half: bring volumes to one spacing, and plan a U-Net for them as nnU-Net does."""

from __future__ import annotations

from segedu.checks.cell import lab_tools
from segedu.exercises.lab16_promptable.plan_unet import exercise as plan_unet
from segedu.exercises.lab16_promptable.resample_spacing import exercise as resample_spacing

exercises = [resample_spacing, plan_unet]
check, use = lab_tools("16_promptable", exercises)

__all__ = ["check", "exercises", "use"]
