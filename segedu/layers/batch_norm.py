"""Batch normalisation of features that were pooled to one value."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PooledBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that also takes one value a channel in training: it then uses the running statistics.

    Features pooled over the whole image have one value a channel and image. In a batch of one image their
    variance is 0, and torch refuses. With two values and more this is `nn.BatchNorm2d`, keys included.
    """

    def forward(self, features: Tensor) -> Tensor:
        if self.training and features[:, 0].numel() == 1:
            return F.batch_norm(features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(features)
