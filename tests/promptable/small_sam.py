"""A SAM at tiny width, its twin in Meta's segment-anything, and prompts drawn at random."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD
from segedu.promptable.sam.image_encoder import ImageEncoder
from segedu.promptable.sam.mask_decoder import MaskDecoder, TwoWayTransformer
from segedu.promptable.sam.prompt_encoder import PromptEncoder
from segedu.promptable.sam.sam import SAM

SIZE, PATCH, WIDTH = 40, 8, 16  # 5 x 5 tokens, in windows of 3 x 3: the last ones are filled up


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(size: int = SIZE, seed: int = 0) -> SAM:
    encoder = ImageEncoder(size, PATCH, 12, 3, 2, WIDTH, 3, (1,))
    decoder = MaskDecoder(TwoWayTransformer(WIDTH, 2, 2, 24), iou_hidden=10)
    return shake(SAM(encoder, PromptEncoder(WIDTH, size // PATCH, size, 8), decoder), seed).eval()


def theirs(size: int = SIZE) -> nn.Module:
    """The same network of segment-anything, with weights of its own."""
    modeling = pytest.importorskip("segment_anything.modeling")
    grid, norm = size // PATCH, partial(nn.LayerNorm, eps=1e-6)
    options = {"norm_layer": norm, "use_rel_pos": True, "window_size": 3, "global_attn_indexes": (1,)}
    encoder = modeling.ImageEncoderViT(size, PATCH, 3, 12, 3, 2, out_chans=WIDTH, **options)
    transformer = modeling.TwoWayTransformer(2, WIDTH, 2, 24)
    decoder = modeling.MaskDecoder(transformer_dim=WIDTH, transformer=transformer, iou_head_hidden_dim=10)
    prompts = modeling.PromptEncoder(WIDTH, (grid, grid), (size, size), 8)
    return modeling.Sam(encoder, prompts, decoder).eval()


def twins(size: int = SIZE, seed: int = 0) -> tuple[SAM, nn.Module]:
    ours, reference = small(size, seed), theirs(size)
    reference.load_state_dict(ours.state_dict(), strict=True)
    return ours, reference


class _Float64Torch:
    """The module torch, with float64 in place of float32."""

    float = float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def in_double_precision(monkeypatch: pytest.MonkeyPatch, ours: SAM, reference: nn.Module) -> tuple[SAM, nn.Module]:
    """Both in float64, so that they agree on every CPU.

    segment-anything casts coordinates to float32 whatever its weights are, which is changed here; and the mean and the
    deviation of pixels are set again, because one was rounded to float32 as 0.485 and the other as 123.675.
    """
    monkeypatch.setattr("segment_anything.modeling.prompt_encoder.torch", _Float64Torch())
    ours, reference = ours.double(), reference.double()
    for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
        exact = torch.tensor(values, dtype=torch.float64).reshape(3, 1, 1)
        getattr(ours.normalize, name).copy_(exact)
        getattr(reference, f"pixel_{name}").copy_(255 * exact)
    return ours, reference


def shake(model: nn.Module, seed: int = 0) -> nn.Module:
    """All weights drawn, so that biases, positions and distances are not 0; in the size that keeps values alive."""
    drawn = generator(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            noise = torch.randn(tensor.shape, generator=drawn)
            inputs = tensor[0].numel() if tensor.ndim > 1 and "embed" not in name and "token" not in name else 4
            norm = tensor.ndim == 1 and name.endswith("weight")
            tensor.copy_(1 + 0.3 * noise if norm else noise if "gaussian" in name else noise / inputs**0.5)
    return model


def prompts_of(batch: tuple[int, ...], size: tuple[int, int], kinds: str, seed: int = 0) -> dict[str, Any]:
    """Some of points, boxes and masks for `batch` objects, (B,) or (B, N)."""
    drawn, side = generator(seed), torch.tensor([size[1], size[0]])
    given: dict[str, Tensor] = {}
    if "points" in kinds:
        given["point_coords"] = torch.rand(*batch, 3, 2, generator=drawn) * side
        given["point_labels"] = torch.randint(-1, 2, (*batch, 3), generator=drawn)
    if "boxes" in kinds:
        corners = torch.rand(*batch, 2, 2, generator=drawn).sort(dim=-2).values * side
        given["boxes"] = corners.flatten(-2)
    if "masks" in kinds:
        low = 4 * SIZE // PATCH
        given["mask_inputs"] = 3 * torch.randn(*batch, low, low, generator=drawn)
    return given


class Asked(nn.Module):
    """A SAM that is asked in every way, once with masks and once without: all numbers of an image in a row."""

    def __init__(self, model: SAM) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        embeddings, size, B = self.model.encode(images), images.shape[-2:], len(images)
        prompts = prompts_of((1,), size, "points boxes masks")
        prompts = {name: given.repeat(B, *[1] * (given.ndim - 1)) for name, given in prompts.items()}
        prompts["point_labels"] = torch.tensor([[1, 0, -1]], device=images.device).repeat(B, 1)
        prompts = {name: given.to(images) if given.is_floating_point() else given for name, given in prompts.items()}
        alone = {name: prompts.pop(name) for name in ("mask_inputs",)}
        answers = [self.model.decode(embeddings, size, **some, multimask_output=None) for some in (prompts, alone)]
        rows = [answer[key].flatten(1) for answer in answers for key in ("mask_logits", "iou_scores")]
        return torch.cat(rows, dim=1)[:, None]
