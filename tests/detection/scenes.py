"""Drawn scenes to learn by heart, and a small backbone to do it with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from segedu.backbones.fpn import FPN, PoolLevel
from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.datasets.shapes import Shapes
from segedu.ops.boxes import box_iou


def scenes(count: int, size: tuple[int, int] = (64, 64)) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Images (B, 3, H, W) and their targets; labels 1 to 3."""
    drawn = [Shapes(count, seed=3, size=size)[i] for i in range(count)]
    targets = [{key: scene[key] for key in ("boxes", "labels", "masks")} for scene in drawn]
    return torch.stack([scene["image"] for scene in drawn]), targets


def small_resnet() -> ResNet:
    return ResNet(BasicBlock, (1, 1, 1, 1), (16, 16, 32, 32))


def small_pyramid(channels: int) -> FPN:
    return FPN(small_resnet(), channels, extra=PoolLevel())


def fit(model: nn.Module, loss: Callable[[], Tensor], steps: int, rate: float = 3e-3) -> None:
    """Adam with a rate that falls to 0; leaves the model in evaluation mode."""
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()
    model.eval()


def found_share(
    found: Sequence[dict[str, Tensor]], targets: Sequence[dict[str, Tensor]], iou: float = 0.5, of: str = "boxes"
) -> float:
    """Share of objects that a detection of their class with a score above 1/2 overlaps enough."""
    hits = []
    for detections, target in zip(found, targets, strict=True):
        kept = detections["scores"] > 0.5
        measure = box_iou if of == "boxes" else mask_iou
        overlap = measure(target[of], detections[of][kept])
        same = target["labels"][:, None] == detections["labels"][kept]
        hits += ((overlap > iou) & same).any(1).tolist()
    return sum(hits) / len(hits)


def mask_iou(masks: Tensor, others: Tensor) -> Tensor:
    """(N, H, W) and (M, H, W) -> (N, M)."""
    masks, others = masks.flatten(1).float(), others.flatten(1).float()
    both = masks @ others.T
    return both / (masks.sum(1)[:, None] + others.sum(1) - both).clamp(min=1)
