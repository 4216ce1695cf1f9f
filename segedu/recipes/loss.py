"""The loss of the semantic recipes: cross-entropy and Dice."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from segedu.losses.cross_entropy import cross_entropy
from segedu.losses.dice import dice_loss


@dataclass(frozen=True)
class PixelsAndOverlap:
    """Cross-entropy plus Dice of a batch: the first learns from every pixel, the second weighs all classes alike.

    `class_weights` (K,) weigh the cross-entropy; `background` decides whether Dice counts class 0 as well. Called with
    logits (B, K, ...) and target (B, ...) int64, 255 ignored; returns the scalars `cross_entropy`, `dice` and `loss`.
    """

    class_weights: tuple[float, ...] | None = None
    background: bool = False

    def __call__(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        pixels = cross_entropy(logits, target, class_weights=weights)
        overlap = dice_loss(logits, target, per_image=False, include_background=self.background)
        return {"cross_entropy": pixels, "dice": overlap, "loss": pixels + overlap}
