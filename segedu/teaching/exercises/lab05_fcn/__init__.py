"""Lab 5: a classifier made dense, bilinear kernels, the fusions of FCN-8, SegNet's decoder, the loss, augmentation."""

from __future__ import annotations

from segedu.teaching.checks.cell import lab_tools
from segedu.teaching.exercises.lab05_fcn.bilinear_kernel import exercise as bilinear_kernel
from segedu.teaching.exercises.lab05_fcn.fc_to_conv import exercise as fc_to_conv
from segedu.teaching.exercises.lab05_fcn.fcn8_fuse import exercise as fcn8_fuse
from segedu.teaching.exercises.lab05_fcn.joint_augment import exercise as joint_augment
from segedu.teaching.exercises.lab05_fcn.pixel_ce import exercise as pixel_ce
from segedu.teaching.exercises.lab05_fcn.segnet_decode import exercise as segnet_decode

exercises = [fc_to_conv, bilinear_kernel, fcn8_fuse, segnet_decode, pixel_ce, joint_augment]
check, use = lab_tools("05_fcn", exercises)
