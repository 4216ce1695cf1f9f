"""3D U-Net: the sizes and the parameters of the paper, sparse annotation, errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segedu.semantic import unet3d
from segedu.semantic.unet3d import UNet3D, annotate_slices, center_crop, unet3d_loss

SMALL = ((2, 4), (4, 4), (4, 6))


def test_the_paper() -> None:
    """Its tile of 132 x 132 x 116 voxels, its output of 44 x 44 x 28, and its 19,069,955 parameters."""
    with torch.device("meta"):
        net = UNet3D()
    assert net.out_size((116, 132, 132)) == (28, 44, 44)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv3d | nn.ConvTranspose3d)]
    assert sum(p.numel() for m in convolutions for p in m.parameters()) == 19_069_955
    assert net(torch.zeros(1, 3, 116, 132, 132, device="meta")).shape == (1, 3, 28, 44, 44)


@pytest.mark.parametrize("size", [(44, 44, 44), (48, 52, 44), (60, 44, 76)])
def test_out_size_is_the_size_of_the_logits(size: tuple[int, ...]) -> None:
    net = UNet3D(1, 2, SMALL)
    assert net(torch.zeros(1, 1, *size)).shape[2:] == net.out_size(size)


@pytest.mark.parametrize("size", [(46, 44, 44), (44, 44, 45), (40, 44, 44), (8, 44, 44)])
def test_illegal_sizes(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="images has .* on axis"):
        UNet3D(1, 2, SMALL).out_size(size)


def test_one_voxel_at_the_bottom_is_refused() -> None:
    with pytest.raises(ValueError, match="images has .* expected more than"):
        UNet3D(1, 2, SMALL, padding=True)(torch.zeros(1, 1, 4, 3, 4))


def test_deep_supervision() -> None:
    torch.manual_seed(0)
    net = UNet3D(1, 2, (*SMALL, (6, 6)), padding=True, outputs=3).eval()
    images = torch.rand(1, 1, 8, 16, 16)
    levels = net.forward_with_aux(images)
    assert torch.equal(levels["out"], net(images))
    assert [tuple(one.shape) for one in levels["aux"]] == [(1, 2, 4, 8, 8), (1, 2, 2, 4, 4)]
    with pytest.raises(ValueError, match="multiples of"):
        net.forward_with_aux(torch.rand(1, 1, 9, 16, 16))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"widths": ((4, 4),)}, "widths"),
        ({"widths": ((4,), ())}, "widths"),
        ({"kernels": ((3, 3, 3),) * 2}, "kernels"),
        ({"kernels": ((3, 3, 2),) * 3}, "kernels"),
        ({"strides": ((1, 1), (2, 2), (2, 2))}, "strides"),
        ({"strides": ((2, 2, 2),) * 3}, "strides"),
        ({"widths": ((4, 0),) * 3}, "widths"),
        ({"kernels": ((3, 3, -1),) * 3}, "kernels"),
        ({"strides": ((1, 1, 1), (2, 0, 2), (2, 2, 2))}, "strides"),
        ({"in_channels": 0, "num_classes": 2}, "in_channels"),
        ({"in_channels": 1, "num_classes": 0}, "num_classes"),
        ({"outputs": 3}, "outputs"),
        ({"outputs": 0}, "outputs"),
    ],
)
def test_bad_options(options: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is .*expected"):
        UNet3D(**({"in_channels": 1, "num_classes": 2, "widths": SMALL} | options))


def test_only_annotated_slices_pull_at_the_logits() -> None:
    target = annotate_slices(torch.randint(0, 2, (4, 5, 6)), {0: [1], 2: [3, 5]})
    logits = torch.zeros(1, 2, 4, 5, 6, requires_grad=True)
    unet3d_loss(logits, target[None]).backward()
    known = torch.zeros(4, 5, 6, dtype=torch.bool)
    known[1], known[:, :, 3], known[:, :, 5] = True, True, True
    assert torch.equal(logits.grad[0, 0] != 0, known)
    assert torch.equal(target == 255, ~known)


def test_nothing_annotated_costs_nothing() -> None:
    logits = torch.randn(1, 2, 2, 2, 2, requires_grad=True)
    loss = unet3d_loss(logits, torch.full((1, 2, 2, 2), 255))
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_class_weights_are_those_of_the_true_class() -> None:
    logits, target = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]])[None, :, None], torch.tensor([[[[0, 1]]]])
    loss = unet3d_loss(logits, target, torch.tensor([1.0, 3.0]))
    assert loss.item() == pytest.approx(
        (torch.log1p(torch.tensor(-2.0).exp()) + 3 * torch.tensor(2.0).log()).item() / 4
    )


def test_postprocess() -> None:
    logits = torch.tensor([0.0, 1.0, 1.0]).reshape(1, 3, 1, 1, 1)
    assert unet3d.postprocess(logits).item() == 1
    with pytest.raises(ValueError, match="logits has shape"):
        unet3d.postprocess(torch.zeros(3, 4, 4))


@pytest.mark.learns
def test_it_learns_one_volume_from_three_slices() -> None:
    torch.manual_seed(0)
    axis = torch.arange(12) - 5.5
    distance = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2).sqrt()
    target = (distance < 4).long()
    sparse = annotate_slices(target, {0: [5], 1: [5], 2: [5]})[None]
    net = UNet3D(1, 2, ((4, 8), (8, 16)), padding=True)
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(40):
        optimizer.zero_grad()
        unet3d_loss(net(target[None, None] + 0.25 * torch.randn(1, 1, 12, 12, 12)), sparse).backward()
        optimizer.step()
    found = unet3d.postprocess(net(target[None, None] + 0.25 * torch.randn(1, 1, 12, 12, 12)))[0]
    assert 2 * ((found == 1) & (target == 1)).sum() / ((found == 1).sum() + (target == 1).sum()) > 0.85


def test_slices_from_the_end_and_none() -> None:
    target = torch.ones(2, 3, 4, dtype=torch.int64)
    assert torch.equal(annotate_slices(target, {-1: [-1]}), annotate_slices(target, {2: [3]}))
    assert (annotate_slices(target, {}) == 255).all() and (annotate_slices(target, {0: []}) == 255).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: annotate_slices(t, {0: [2]}), ValueError, r"slices has 0: \[2\], expected .* shape \(2, 3, 4\)"),
        (lambda t: annotate_slices(t, {3: [0]}), ValueError, r"slices has 3: \[0\], expected"),
        (lambda t: annotate_slices(t, {0: [0.5]}), TypeError, "float"),
        (lambda t: annotate_slices(t.byte(), {0: [0]}), TypeError, "target has dtype torch.uint8, expected"),
        (lambda t: center_crop(t[None, None], (3, 3, 4)), ValueError, r"size is \(3, 3, 4\), expected .* \(2, 3, 4\)"),
        (lambda t: center_crop(t[None, None], (1, 0, 4)), ValueError, r"size is \(1, 0, 4\), expected"),
        (lambda t: center_crop(t[None, None], (1, 2)), ValueError, r"size is \(1, 2\), expected"),
        (lambda t: UNet3D(1, 2, SMALL).out_size((44, 44)), ValueError, r"size is \(44, 44\), expected 3 integers"),
        (lambda t: UNet3D(1, 2, SMALL)(t[None, None].numpy()), TypeError, "images has type ndarray"),
    ],
)
def test_bad_input(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(torch.ones(2, 3, 4, dtype=torch.int64))
