"""Every network as a program of `torch.export` and of ONNX: its outputs are those of the network, on other images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from detection.small_detectors import DETECTORS, InARow, WithRegions, _two_stages
from promptable.small_sam import SIZE, prompts_of
from promptable.small_sam import small as small_sam
from randomise import randomise
from test_contracts import INSTANCES, METHODS, SideBySide
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from segedu.backbones.convnext import ConvNeXt
from segedu.backbones.swin import Swin
from segedu.backbones.tiny_vit import TinyViT
from segedu.backbones.vit import ViT
from segedu.detection import faster_rcnn
from segedu.detection.faster_rcnn import FasterRCNN
from segedu.instance import mask_rcnn
from segedu.instance.mask_rcnn import MaskHead, MaskRCNN
from segedu.promptable.mobile_sam import MobileImageEncoder
from segedu.promptable.sam.mask_decoder import MaskDecoder, TwoWayTransformer
from segedu.promptable.sam.prompt_encoder import PromptEncoder
from segedu.promptable.sam.sam import SAM, fit_images

REGIONS = [torch.tensor([[0.0, 0.0, 40.0, 44.0], [4.0, 6.0, 20.0, 30.0], [12.0, 9.0, 41.0, 33.0]])]
# Networks on the left are made of the layers of the network on the right, which `make test` translates to ONNX. They
# are translated by `make prove`.
ALIKE = {
    "faster_rcnn": "mask_rcnn",
    "panoptic_fpn": "mask_rcnn",
    "condinst": "fcos",
    "oneformer": "mask2former",
    "detr_panoptic": "detr",
    "mobile_sam": "sam",
    "omnipose": "cellpose",
    "stardist3d": "unet3d",
    "unet3d padded": "unet3d",
    "nnunet slices": "nnunet",
    "unet padded": "unet",
    "denoiseg": "unet",
    "affinities": "unet",
    "signed_distance": "unet",
    "discriminative": "unet",
    "res_unet strided": "res_unet",
    "res_unet encoder": "res_unet",
    "deeplabv1": "deeplabv2",
    "deeplabv3": "deeplabv3plus",
    "fcn resnet": "fcn",
    "fcn32s": "fcn8s",
    "fcn16s": "fcn8s",
}


class Network(NamedTuple):
    """A network at tiny width, and what it is called with beside images."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    others: dict[str, Any] = {}


def _unwrapped(model: nn.Module) -> nn.Module:
    while isinstance(model, InARow | SideBySide | WithRegions):
        model = model.model
    return model


def _prompts(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    prompts = prompts_of((1,), (SIZE, SIZE), "points boxes")
    return {name: prompt.to(dtype) if prompt.is_floating_point() else prompt for name, prompt in prompts.items()}


def _mobile_sam() -> SAM:
    encoder = TinyViT((8, 8, 12, 16), (1, 1, 2, 1), (1, 2, 3, 4), (7, 7, 4, 7), last_stride=1)
    decoder = MaskDecoder(TwoWayTransformer(16, 2, 2, 24), iou_hidden=10)
    return SAM(MobileImageEncoder(encoder, 16), PromptEncoder(16, 5, 80, 8), decoder)


NETWORKS = [
    *(
        Network(
            method.name,
            lambda method=method: _unwrapped(method.build()),
            (1, method.channels, *method.sizes[0]),
            {"proposals": REGIONS} if method.name in ("rcnn", "fast_rcnn") else {},
        )
        for method in METHODS
        if method.name != "sam"
    ),
    Network("sam", small_sam, (1, 3, SIZE, SIZE), _prompts()),
    Network("convnext", lambda: ConvNeXt((1, 1, 1, 1), (4, 6, 8, 10)), (1, 3, 45, 64)),
    Network("swin", lambda: Swin(8, (2, 1, 1, 1), (1, 2, 2, 2), window_size=3), (1, 3, 45, 64)),
    Network("vit", lambda: ViT(8, 8, 2, 2, image_size=32), (1, 3, 40, 24)),
    Network("mobile_sam", _mobile_sam, (1, 3, 80, 80), _prompts()),
]


@pytest.fixture(autouse=True)
def without_traces() -> Iterator[None]:
    """pytest listens to every logger: torch then writes a trace of all that it records, which takes longer than the rest."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def test_every_method_is_in_the_table() -> None:
    names = {network.name for network in NETWORKS}
    assert {method.name for method in METHODS} | {name for name, *_ in (*DETECTORS, *INSTANCES)} <= names
    assert set(ALIKE) | set(ALIKE.values()) <= names and not set(ALIKE) & set(ALIKE.values())
    assert not [network.name for network in NETWORKS if isinstance(network.build(), InARow | SideBySide | WithRegions)]


def images(network: Network, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.rand(network.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_torch_export(network: Network) -> None:
    model = randomise(network.build())
    program = torch.export.export(model, (images(network, 1, torch.float64),), network.others)
    other = images(network, 2, torch.float64)
    with torch.no_grad():
        expected, got = model(other, **network.others), program.module()(other, **network.others)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)  # of a dict: all of its keys, and numbers too


@pytest.mark.parametrize(
    "network",
    [pytest.param(n, marks=pytest.mark.prove if n.name in ALIKE else (), id=n.name) for n in NETWORKS],
)
def test_onnx(network: Network) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = randomise(network.build()).float()
    others = {k: v.float() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in network.others.items()}
    recorded, other = (images(network, seed, torch.float32) for seed in (1, 2))
    program = torch.onnx.export(model, (recorded,), kwargs=others, dynamo=True, optimize=False, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    given = [other.numpy(), *(tensor.numpy() for tensor in tree_leaves(others))]
    got = session.run(None, dict(zip([port.name for port in session.get_inputs()], given, strict=True)))
    with torch.no_grad():
        expected = [leaf for leaf in tree_leaves(model(other, **others)) if isinstance(leaf, Tensor)]
    assert len(got) == len(expected)
    for ours, theirs in zip(expected, got, strict=True):
        # Two orders of summing differ by the rounding of float32, 6e-8, which a hundred layers may enlarge a thousand
        # times. A wrong translation differs by as much as the values themselves.
        limit = 1e-3 * max(1.0, float(ours.abs().max()) if ours.numel() else 0.0)
        torch.testing.assert_close(torch.from_numpy(theirs), ours, rtol=0, atol=limit)


# Of less confident detections some are of thin boxes with equal features: there rounding decides which one is kept.
CONFIDENT = {"score_threshold": 0.386}


def _few_proposals(masks: bool) -> FasterRCNN:
    parts = {**_two_stages(), "max_proposals": (1000, 1000)}  # more than remain after the suppression
    if masks:
        model = MaskRCNN(
            **parts, mask_head=MaskHead(8, size=4, depth=1), detection_options={**CONFIDENT, "max_detections": 300}
        )
    else:
        model = FasterRCNN(**parts)
    return randomise(model)


@pytest.mark.parametrize("masks", [False, True])
def test_detections_of_an_exported_program_are_those_of_the_network(masks: bool) -> None:
    model = _few_proposals(masks)
    recorded, other = (images(Network("", nn.Identity, (2, 3, 64, 45)), seed, torch.float64) for seed in (1, 2))
    with torch.no_grad():
        eager, got = model(other), torch.export.export(model, (recorded,)).module()(other)
    for boxes, padded in zip(eager["proposals"], got["proposals"], strict=True):
        assert len(boxes) < len(padded)
        torch.testing.assert_close(padded[: len(boxes)], boxes, rtol=1e-9, atol=1e-9)
        assert not padded[len(boxes) :].any()
    postprocess = mask_rcnn.postprocess if masks else partial(faster_rcnn.postprocess, **CONFIDENT)
    expected, found = postprocess(eager), postprocess(got)
    assert all(10 < len(detections["boxes"]) < 100 for detections in expected)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_images_that_must_be_resized_cannot_be_exported() -> None:
    with pytest.raises(ValueError, match="expected .* in an export, because the resizing by Pillow"):
        torch.export.export(small_sam(), (torch.zeros(1, 3, 20, 30),), _prompts(torch.float32))
    fitted = fit_images(torch.zeros(1, 3, 20, 30), SIZE)
    assert max(fitted.shape[-2:]) == SIZE
