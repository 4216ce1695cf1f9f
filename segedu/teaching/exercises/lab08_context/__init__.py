"""Lab 8, context: pyramid pooling, atrous convolution and output stride, ASPP, the decoder of DeepLab v3+."""

from __future__ import annotations

from segedu.teaching.checks.cell import lab_tools
from segedu.teaching.exercises.lab08_context.aspp import exercise as aspp
from segedu.teaching.exercises.lab08_context.convert_os import exercise as convert_os
from segedu.teaching.exercises.lab08_context.dilate_conv import exercise as dilate_conv
from segedu.teaching.exercises.lab08_context.ppm import exercise as ppm
from segedu.teaching.exercises.lab08_context.separable import exercise as separable
from segedu.teaching.exercises.lab08_context.v3plus_decode import exercise as v3plus_decode

exercises = [ppm, dilate_conv, convert_os, aspp, separable, v3plus_decode]
check, use = lab_tools("08_context", exercises)

__all__ = ["check", "exercises", "use"]
