"""Batch normalisation of features that were pooled to one value, and frozen batch normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.validation.numbers import check_number


class PooledBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that uses the running statistics in training if there is only one value per channel.

    Features pooled over the whole image have one value per channel and image. In a batch of one image their variance is
    0, and torch raises an error. With two or more values this is `nn.BatchNorm2d`, keys included.
    """

    def forward(self, features: Tensor) -> Tensor:
        if self.training and features[:, 0].numel() == 1:
            return F.batch_norm(features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(features)


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation with constant statistics, weight and bias, in training too.

    Detectors are trained with about two large images per batch, from a network trained on ImageNet. Statistics of so
    few images would be worse than those of the pretrained network. Keys as torchvision's class of the same name.

    Args:
        channels: C of the features.
        eps: added to the variance. torchvision's detectors with weights COCO_V1 have 0.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, features: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()  # (C,)
        shift = self.bias - self.running_mean * scale
        return features * scale[:, None, None] + shift[:, None, None]

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest: object) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)  # only nn.BatchNorm2d has it
        super()._load_from_state_dict(state_dict, prefix, *rest)


def freeze_batch_norm(module: nn.Module, eps: float | None = None) -> nn.Module:
    """Replace every `nn.BatchNorm2d` by a `FrozenBatchNorm2d` with the same statistics, weight and bias.

    Args:
        module: changed in place, with all its children. Every `nn.BatchNorm2d` must have a weight and statistics.
        eps: of the frozen layers; None keeps that of each layer.

    Returns:
        The module, or the frozen layer if the module is a `nn.BatchNorm2d` itself.
    """
    if eps is not None:
        check_number("eps", eps)
    if isinstance(module, nn.BatchNorm2d):
        return _frozen(module, module.eps if eps is None else eps)
    for name, child in module.named_children():
        setattr(module, name, freeze_batch_norm(child, eps))
    return module


def _frozen(norm: nn.BatchNorm2d, eps: float) -> FrozenBatchNorm2d:
    if norm.weight is None or norm.running_mean is None:
        raise ValueError(f"module has {norm}, expected affine=True and track_running_stats=True")
    frozen = FrozenBatchNorm2d(norm.num_features, eps).to(norm.weight)
    frozen.load_state_dict(norm.state_dict())
    return frozen.train(norm.training)
