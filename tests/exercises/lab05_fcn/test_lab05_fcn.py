"""What is special about lab 5: its functions do what they are for, and its cases hold what their names promise."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segedu.teaching.checks.judge import draw
from segedu.teaching.exercises import lab05_fcn as lab
from segedu.teaching.exercises.lab05_fcn.fcn8_fuse import fcn8_fuse

BY_NAME = {exercise.name: exercise for exercise in lab.exercises}
REFERENCE = {name: exercise.reference for name, exercise in BY_NAME.items()}


def test_the_convolution_gives_what_the_layer_gives_at_every_place_of_a_larger_map():
    layer = torch.nn.Linear(2 * 3 * 4, 5).double()
    weight, bias = REFERENCE["fc_to_conv"](layer.weight, layer.bias, (3, 4))
    features = torch.randn(2, 2, 6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    dense = F.conv2d(features, weight, bias)
    assert dense.shape == (2, 5, 4, 6)
    for y in range(4):
        for x in range(6):
            window = features[:, :, y : y + 3, x : x + 4].flatten(1)
            assert torch.allclose(dense[:, :, y, x], layer(window))


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_the_kernel_interpolates_bilinearly(factor):
    """A kernel of 2f - f % 2 with stride f, its border cut off, is torch's bilinear interpolation inside."""
    k = 2 * factor - factor % 2
    kernel = REFERENCE["bilinear_kernel"](2, k).double()
    scores = torch.randn(1, 2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours = F.conv_transpose2d(scores, kernel, stride=factor, padding=(k - factor) // 2)
    want = F.interpolate(scores, scale_factor=factor, mode="bilinear", align_corners=False)
    inside = (..., slice(factor, -factor), slice(factor, -factor))
    assert torch.allclose(ours[inside], want[..., : ours.shape[2], : ours.shape[3]][inside], atol=1e-6)


def test_the_offsets_of_the_paper_lay_each_pixel_on_its_own_place():
    """Scores that hold their own position in the image must agree where they are added."""

    def positions(count, stride, first):
        return (stride * torch.arange(count, dtype=torch.float64) + first)[None, None, :, None].expand(1, 1, -1, count)

    kernel = REFERENCE["bilinear_kernel"](1, 4).double()
    # centres of the pixels of score_fr, score_pool4 and score_pool3 with the paper's padding of 100
    score32, score16, score8 = positions(8, 32, 12.5), positions(40, 16, -91.5), positions(80, 8, -95.5)
    up = F.conv_transpose2d(score32, kernel, stride=2)[..., 2:-2, 2:-2]
    assert torch.allclose(up, score16[..., 5 + 2 : 5 + 2 + up.shape[2], 5 + 2 : 5 + 2 + up.shape[3]])
    fused = fcn8_fuse(score32, score16, score8, kernel, (5, 9))[..., 6:-6, 6:-6]
    # three times the position of the pixel, for the three maps agree
    at = score8[0, 0, 9 + 6 : 9 + 6 + fused.shape[2], 0]
    assert torch.allclose(fused[0, 0, :, 10], 3 * at)


@pytest.mark.parametrize("seed", range(4))
def test_cases_hold_what_their_names_promise(seed):
    for _, _, case in draw(BY_NAME["pixel_ce"], seed):
        _, target, void = case["args"]
        shares = (target == void).flatten(1).double().mean(1)
        if "much void" in case["name"]:
            assert shares[0] == 0.75 and shares[1] == 0
        if "all pixels" in case["name"]:
            assert (shares == 1).all()
    for _, _, case in draw(BY_NAME["segnet_decode"], seed):
        _, indices, sizes, _ = case["args"]
        odd = [side % 2 for size in sizes for side in size]
        assert any(odd) == ("odd" in case["name"])
        for where in indices:
            assert (where[..., 0, 0] > 1).all(), "the first maximum must not be at the top left"
            assert (where[:1] != where[-1:]).any() or len(where) == 1
    for _, _, case in draw(BY_NAME["joint_augment"], seed):
        target = case["args"][1]
        assert (target == 255).any() and (target != target.flip(0)).any() and (target != target.flip(1)).any()


def test_a_message_for_each_of_the_misconceptions_of_the_syllabus():
    names = {exercise.name: {wrong.name for wrong in exercise.wrong} for exercise in lab.exercises}
    assert {"channels last", "1x1 for the first layer", "bias lost", "matrix transposed"} <= names["fc_to_conv"]
    kernels = {"round cone", "centre of an odd kernel", "centre of an even kernel", "sums to 1", "mixes channels"}
    assert kernels <= names["bilinear_kernel"]
    fuse = {"concatenates", "cut at the top left", "sums before upsampling", "softmax before the sum"}
    assert fuse <= names["fcn8_fuse"]
    decode = {"indices of the wrong stage", "transposed convolution", "indices of image 0", "size not given"}
    assert decode <= names["segnet_decode"]
    assert {"softmax twice", "softmax along the columns", "void counted in the mean", "sum"} <= names["pixel_ce"]
    augment = {"target bilinear", "target not mirrored", "labels normalised", "border of class 0"}
    assert augment <= names["joint_augment"]
