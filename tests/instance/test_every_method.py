"""What all methods have in common: label maps that they take and give, words of refusal, kinds of numbers, devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from segedu.instance import (
    affinities,
    denoiseg,
    discriminative,
    omnipose,
    signed_distance,
    spatial_embedding,
    stardist,
    stardist3d,
)
from segedu.instance.cellpose import cellpose, cellpose3d
from segedu.instance.cellpose import flows as cellpose_flows
from segedu.instance.cellpose import size as cellpose_size

HEIGHT, WIDTH = 9, 7
RAYS, FACES = stardist3d.fibonacci_rays(8)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

OF_LABEL_MAP: dict[str, Callable[[Tensor], Any]] = {
    "signed_distance": signed_distance.signed_distance_targets,
    "stardist": lambda label_map: stardist.stardist_targets(label_map, 8),
    "cellpose": cellpose.cellpose_targets,
    "cell_diameter": cellpose_size.cell_diameter,
    "omnipose": omnipose.omnipose_targets,
    "denoiseg": denoiseg.denoiseg_targets,
    "spatial_embedding": spatial_embedding.spatial_embedding_targets,
    "offset_targets": spatial_embedding.offset_targets,
    "discriminative": discriminative.discriminative_targets,
    "affinities": affinities.affinity_targets,
    "flow_error": lambda label_map: cellpose_flows.flow_error(
        label_map, torch.full((2, *getattr(label_map, "shape", (1, 1))), 0.5, device=getattr(label_map, "device", None))
    ),
}
OF_VOLUME: dict[str, Callable[[Tensor], Any]] = {
    "stardist3d": lambda label_map: stardist3d.stardist3d_targets(label_map, RAYS.to(label_map.device)),
    "cellpose3d": cellpose3d.diffusion_flow3d,
}
# name: (postprocess of an image of 9 x 7 pixels, axes of each output without the batch)
POSTPROCESS: dict[str, tuple[Callable, dict[str, tuple[int, ...]]]] = {
    "signed_distance": (signed_distance.postprocess, {"distance": (9, 7)}),
    "stardist": (
        lambda outputs: stardist.postprocess(outputs, (9, 7)),
        {"logits": (1, 5, 4), "distances": (8, 5, 4)},
    ),
    "cellpose": (cellpose.postprocess, {"flows": (2, 9, 7), "logits": (9, 7)}),
    "omnipose": (omnipose.postprocess, {"flows": (2, 9, 7), "distance": (9, 7)}),
    "denoiseg": (denoiseg.postprocess, {"logits": (3, 9, 7)}),
    "spatial_embedding": (
        lambda outputs: spatial_embedding.postprocess(outputs, unit=8.0),
        {"offsets": (2, 9, 7), "sigma": (2, 9, 7), "seed": (1, 9, 7)},
    ),
    "discriminative": (discriminative.postprocess, {"embeddings": (3, 9, 7), "foreground": (1, 9, 7)}),
    "affinities": (affinities.postprocess, {"affinities": (8, 9, 7), "foreground": (1, 9, 7)}),
    "stardist3d": (
        lambda outputs: stardist3d.postprocess(outputs, (3, 9, 7), RAYS, FACES),
        {"logits": (1, 3, 5, 4), "distances": (8, 3, 5, 4)},
    ),
    "cellpose3d": (cellpose3d.postprocess3d, {"flows": (3, 3, 9, 7), "logits": (3, 9, 7)}),
}


def random_outputs(axes: dict[str, tuple[int, ...]], batch: int = 2) -> dict[str, Tensor]:
    torch.manual_seed(0)
    outputs = {key: torch.randn(batch, *shape) for key, shape in axes.items()}
    if "distances" in outputs:
        outputs["distances"] = outputs["distances"].abs() + 1
    return outputs


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(equal(*pair) for pair in zip(a, b, strict=True))
    return torch.equal(a.cpu(), b.cpu()) if isinstance(a, Tensor) else a == b


def finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(finite(inner) for inner in value.values())
    return bool(torch.as_tensor(value).isfinite().all())


@pytest.mark.parametrize("name", OF_LABEL_MAP)
def test_what_is_no_label_map_is_refused_in_the_same_words(name: str) -> None:
    good = torch.zeros(2, 3, dtype=torch.int32)
    for bad, error, words in (
        (good.numpy(), TypeError, "label_map has type ndarray, expected a tensor of integers"),
        (good.float(), TypeError, "label_map has dtype torch.float32, expected integers"),
        (good.bool(), TypeError, "label_map has dtype torch.bool, expected integers"),
        (good + 0j, TypeError, "label_map has dtype torch.complex64, expected integers"),
        (good[None], ValueError, "label_map has shape (1, 2, 3), expected (H, W), no axis empty"),
        (good[:, :0], ValueError, "label_map has shape (2, 0), expected (H, W), no axis empty"),
        (good - 1, ValueError, "label_map has the label -1, expected 0 for background and more for objects"),
    ):
        with pytest.raises(error) as caught:
            OF_LABEL_MAP[name](bad)
        assert str(caught.value).startswith(words)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", [*OF_LABEL_MAP, *OF_VOLUME])
def test_targets_depend_on_neither_type_layout_nor_device(name: str, device: str) -> None:
    targets, axes = (OF_LABEL_MAP[name], 2) if name in OF_LABEL_MAP else (OF_VOLUME[name], 3)
    label_map = torch.tensor([[0, 5, 5, 5, 0], [7, 7, 5, 5, 0], [7, 7, 0, 9, 9]]).expand(*[2] * (axes - 2), 3, 5)
    expected = targets(label_map)
    assert finite(expected)
    for same in (
        *(label_map.to(dtype) for dtype in (torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32)),
        label_map.mT.contiguous().mT,
        label_map.repeat_interleave(2, -1)[..., ::2],
    ):
        got = targets(same.to(device))
        assert equal(got, expected)
        for value in got.values() if isinstance(got, dict) else [got] if isinstance(got, Tensor) else []:
            assert value.device.type == device


@pytest.mark.parametrize("name", [*OF_LABEL_MAP, *OF_VOLUME])
def test_targets_of_small_and_empty_maps_are_finite(name: str) -> None:
    targets, axes = (OF_LABEL_MAP[name], 2) if name in OF_LABEL_MAP else (OF_VOLUME[name], 3)
    for label in (0, 1, 2**31 - 1, 2**40):
        for length in (1, 4):
            assert finite(targets(torch.full([length] * axes, label)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", POSTPROCESS)
def test_label_maps_are_int32_on_the_device_of_the_outputs(name: str, device: str) -> None:
    postprocess, axes = POSTPROCESS[name]
    outputs = random_outputs(axes)
    expected = postprocess(outputs)
    assert any(label_map.any() for label_map in expected) or name.startswith("cellpose")  # who wants 11 in one place
    for same in (
        {key: value.to(device).requires_grad_() for key, value in outputs.items()},
        {key: value.mT.contiguous().mT.to(device) for key, value in outputs.items()},
    ):
        label_maps = postprocess(same)
        assert [tuple(label_map.shape[-2:]) for label_map in label_maps] == [(HEIGHT, WIDTH)] * 2
        assert all(label_map.dtype == torch.int32 and label_map.device.type == device for label_map in label_maps)
        assert all(0 <= int(label_map.min()) for label_map in label_maps)
        if device == "cpu":  # elsewhere a sigmoid may end in another bit
            assert equal(label_maps, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", POSTPROCESS)
def test_every_floating_point_type_is_decoded(name: str, dtype: torch.dtype) -> None:
    postprocess, axes = POSTPROCESS[name]
    label_maps = postprocess({key: value.to(dtype) for key, value in random_outputs(axes).items()})
    assert [label_map.dtype for label_map in label_maps] == [torch.int32] * 2


@pytest.mark.parametrize("name", POSTPROCESS)
def test_bad_outputs_are_refused_in_the_same_words(name: str) -> None:
    postprocess, axes = POSTPROCESS[name]
    outputs = random_outputs(axes)
    with pytest.raises(TypeError, match="outputs has type Tensor, expected a dict with the keys"):
        postprocess(outputs[next(iter(axes))])
    with pytest.raises(ValueError, match=r"outputs\['\w+'\] has shape \(0, .*\), expected \(B, .*\), no axis empty"):
        postprocess(random_outputs(axes, batch=0))
    for key, value in outputs.items():
        with pytest.raises(ValueError, match=r"outputs has the keys \[.*\], expected .*" + key):
            postprocess({other: outputs[other] for other in axes if other != key})
        with pytest.raises(
            TypeError, match=rf"outputs\['{key}'\] has dtype torch.int64, expected a floating-point dtype"
        ):
            postprocess(outputs | {key: value.long()})
        with pytest.raises(ValueError, match=rf"outputs\['{key}'\] has shape .*, expected \(B, "):
            postprocess(outputs | {key: value[:, 0]})
        broken = value.clone()
        broken[broken.shape[0] - 1] = torch.nan
        with pytest.raises(ValueError, match=r"(?i)nan.*, expected (finite |)(numbers|values)"):
            postprocess(outputs | {key: broken})
