"""Small callables that a case may pass to a student's function, such as a model that predicts tiles.

A case is sent to another process as JSON and arrays, so a callable is sent as the name of its class and its parameters.
None of these callables contains a solution.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class ValidFilter:
    """A stand-in for a network of unpadded convolutions: (B, C, H, W) -> (B, K, H - 2m, W - 2m).

    Each output pixel is a fixed, asymmetric weighted sum of its (2m + 1) x (2m + 1) window and of the input channels,
    scaled differently for each output channel, so that a tile that is cropped or pasted one pixel off changes the
    result.

    Args:
        margin: m, pixels lost on each side.
        num_classes: K, output channels.
        seed: seed of the random weights of the window.
        size: the only input size (pixels) that it accepts, as a U-Net accepts only some; None accepts every size that
            is larger than the window.
    """

    def __init__(self, margin: int = 2, num_classes: int = 2, seed: int = 0, size: int | None = None) -> None:
        self.parameters_ = {"margin": margin, "num_classes": num_classes, "seed": seed, "size": size}
        self.margin, self.num_classes, self.size = margin, num_classes, size
        rng = np.random.default_rng(seed)
        self.window = rng.integers(1, 9, (2 * margin + 1, 2 * margin + 1)) / 8

    def __call__(self, images: Any) -> Any:
        """Filter a batch of images, float (B, C, H, W).

        Returns:
            Float tensor (B, K, H - 2m, W - 2m).
        """
        import torch

        if images.ndim != 4:
            raise ValueError(f"images has shape {tuple(images.shape)}, expected (B, C, H, W)")
        H, W = images.shape[-2:]
        if min(H, W) <= 2 * self.margin or (self.size and (H, W) != (self.size, self.size)):
            expected = f"{self.size} x {self.size}" if self.size else f"more than {2 * self.margin} pixels per side"
            raise ValueError(f"images has {H} x {W} pixels, expected {expected}")
        kernel = torch.as_tensor(self.window, dtype=images.dtype)[None, None]
        filtered = torch.nn.functional.conv2d(images.sum(1, keepdim=True), kernel)
        return torch.cat([filtered * (k + 1) for k in range(self.num_classes)], dim=1)


FIXTURES = {"ValidFilter": ValidFilter}
