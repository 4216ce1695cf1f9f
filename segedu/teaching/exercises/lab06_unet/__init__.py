"""Lab 6, U-Net: build, size and train it; weight the borders between cells; predict large images in tiles."""

from __future__ import annotations

from segedu.teaching.checks.cell import lab_tools
from segedu.teaching.exercises.lab06_unet.build_unet import SkipsZeroed as without_skips
from segedu.teaching.exercises.lab06_unet.build_unet import exercise as build_unet
from segedu.teaching.exercises.lab06_unet.crop_concat import exercise as crop_concat
from segedu.teaching.exercises.lab06_unet.double_conv import exercise as double_conv
from segedu.teaching.exercises.lab06_unet.tile_predict import exercise as tile_predict
from segedu.teaching.exercises.lab06_unet.unet_out_size import exercise as unet_out_size
from segedu.teaching.exercises.lab06_unet.weight_map import exercise as weight_map

exercises = [double_conv, crop_concat, unet_out_size, build_unet, weight_map, tile_predict]
check, use = lab_tools("06_unet", exercises)

__all__ = ["check", "exercises", "use", "without_skips"]
