"""Encoder of torchvision and unpooling of torch.nn, to compare SegNet and DeconvNet with part by part."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models.vgg import make_layers

STAGES = ((3, 4), (5,), (6, 7, 8))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def randomise(net: nn.Module) -> None:
    """Every tensor of the state dict, running statistics too."""
    generator = torch.Generator().manual_seed(0)
    for name, value in net.state_dict().items():
        if name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1):
            value.uniform_(0.5, 2, generator=generator)  # else layer after layer fades out, and mistakes with them
        elif value.is_floating_point():
            value.normal_(std=(3 / value[0].numel()) ** 0.5 if value.ndim > 1 else 0.3, generator=generator)


def torchvision_encoder(weights: dict[str, Tensor], ceil_mode: bool = True) -> nn.Sequential:
    """torchvision's VGG-BN of the widths STAGES, with our weights."""
    layers = make_layers([item for widths in STAGES for item in (*widths, "M")], batch_norm=True).double().eval()
    layers.load_state_dict(weights, strict=True)
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode, layer.return_indices = ceil_mode, True
    return layers


def walk(
    encoder: nn.Sequential, images: Tensor, middle: Callable[[Tensor], Tensor], stages: list[Callable[[Tensor], Tensor]]
) -> Tensor:
    """Down through the encoder, through `middle`, and up: nn.MaxUnpool2d, then one of `stages`, coarse to fine."""
    kept, x = [], images
    for layer in encoder:
        before = x
        x = layer(x)
        if isinstance(layer, nn.MaxPool2d):
            x, indices = x
            kept.append((indices, before.shape[-2:]))
    x = middle(x)
    for stage, (indices, size) in zip(stages, reversed(kept), strict=True):
        x = stage(nn.MaxUnpool2d(2)(x, indices, output_size=size))
    return x
