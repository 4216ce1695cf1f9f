"""Lab 3: sizes of convolution and transposed convolution, both in loops, unpooling, receptive field."""

from __future__ import annotations

from segedu.teaching.checks.cell import lab_tools
from segedu.teaching.exercises.lab03_convolution.conv2d_loops import exercise as conv2d_loops
from segedu.teaching.exercises.lab03_convolution.conv_out import exercise as conv_out
from segedu.teaching.exercises.lab03_convolution.max_unpool import exercise as max_unpool
from segedu.teaching.exercises.lab03_convolution.receptive_field import exercise as receptive_field
from segedu.teaching.exercises.lab03_convolution.tconv2d import exercise as tconv2d
from segedu.teaching.exercises.lab03_convolution.tconv_out import exercise as tconv_out

exercises = [conv_out, conv2d_loops, max_unpool, tconv_out, tconv2d, receptive_field]
# the same functions in torch, hidden in grading and while a check runs; its modules, such as nn.Conv2d, call these
FORBIDDEN = (
    "torch.nn.functional.conv2d",
    "torch.conv2d",
    "torch.nn.functional.conv_transpose2d",
    "torch.conv_transpose2d",
    "torch.nn.functional.max_unpool2d",
)
check, use = lab_tools("03_convolution", exercises, FORBIDDEN)
