"""Images that are clearly not in [0, 1] are refused by every detector, query model and network that normalises inside."""

from __future__ import annotations

import pytest
import torch
from detection.small_detectors import DETECTORS
from promptable.small_sam import small as small_sam
from torch import Tensor, nn

from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, CaffeNormalize, Normalize
from segedu.promptable.everything import segment_everything
from segedu.validation.images import check_unit_range
from segedu.weights import load

BUILD = {name: build for name, build, _ in DETECTORS}


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def normalised(batch: Tensor) -> Tensor:
    return Normalize(IMAGENET_MEAN, IMAGENET_STD)(batch)


@pytest.mark.parametrize("name", BUILD)
def test_every_detector_and_query_model_refuses_other_ranges(name: str) -> None:
    model, batch = BUILD[name]().eval(), images(1, 3, 64, 64)
    with pytest.raises(ValueError, match=r"^images has values from .* to 25\d.*, expected values in \[0, 1\]: divide"):
        model(255 * batch)
    with pytest.raises(ValueError, match=r"^images has values from -1.*, expected values in \[0, 1\]: pass images as"):
        model(255 * batch - 120)
    model(batch)
    model(normalised(batch))  # the backbones of these do not normalise


def with_inside(normalize: nn.Module) -> ResNet:
    return ResNet(BasicBlock, (1, 1, 1, 1), (4, 4, 4, 4), normalize=normalize).eval()


@pytest.mark.parametrize("normalize", [Normalize(IMAGENET_MEAN, IMAGENET_STD), CaffeNormalize()])
def test_a_network_that_normalises_inside_refuses_other_ranges(normalize: nn.Module) -> None:
    net, batch = with_inside(normalize), images(1, 3, 40, 48)
    net(batch)
    net(1.4 * batch - 0.2)  # noise, and resizing with overshoots
    for other in (255 * batch, 65535 * batch, batch - 2, normalised(batch)):
        with pytest.raises(ValueError, match=r"^images has values from .* expected values in \[0, 1\]"):
            net(other)


def test_a_network_that_does_not_normalise_takes_any_range() -> None:
    with_inside(nn.Identity())(normalised(images(1, 3, 40, 48)))
    with_inside(Normalize((120.0, 110.0, 100.0), (60.0, 60.0, 60.0)))(255 * images(1, 3, 40, 48))


@pytest.mark.parametrize("name", ["shapes_mask_rcnn", "shapes_detr", "street_mask2former"])
def test_our_small_weights_refuse_bytes_as_floats(name: str) -> None:
    with pytest.raises(ValueError, match=r"^images has values from .*: divide images by 255"):
        load(name)(255 * images(1, 3, 64, 64))


def test_sam_refuses_other_ranges() -> None:
    model = small_sam()
    with pytest.raises(ValueError, match=r"^images has values from 0.* to 25.*: divide images by 255"):
        model.encode(255 * images(1, 3, 40, 40))
    with pytest.raises(ValueError, match="divide images by 255"):
        segment_everything(model, 255 * images(3, 40, 40))
    with pytest.raises(ValueError, match="pass images as they were before"):
        model.encode(normalised(images(1, 3, 40, 40)))


def test_values_are_not_read_while_a_program_is_recorded() -> None:
    net = with_inside(Normalize(IMAGENET_MEAN, IMAGENET_STD))
    batch = images(1, 3, 40, 48)
    program = torch.export.export(net, (batch,)).module()
    assert all(torch.equal(x, y) for x, y in zip(program(batch), net(batch), strict=True))
    check_unit_range(torch.full((2,), 255.0, device="meta"))
    check_unit_range(torch.zeros(0))
    torch.compile(check_unit_range, backend="eager", fullgraph=True)(255 * batch)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_type_and_every_limit(dtype: torch.dtype) -> None:
    check_unit_range(torch.tensor([-1.0, 2.0], dtype=dtype))
    check_unit_range(torch.tensor([0.0, torch.nan], dtype=dtype))
    for value in (-1.25, 2.25, torch.inf):
        with pytest.raises(ValueError, match=r"^crops has values from .*, expected values in \[0, 1\]"):
            check_unit_range(torch.tensor([0.0, value], dtype=dtype), "crops")
