"""Short trainings, and what a test may ask of them: limits that hold with every seed and on every CPU.

A short training ends in other weights with another seed, another number of threads, or other instructions, so whether
it finds one particular object is chance. The tests marked `learns` therefore let the learning rate fall to zero and ask
for a share over all objects or pixels, with a limit that an untrained network misses by far and that training keeps
with a margin. `python tests/other_cpus.py --seeds` runs each of them with five seeds on two kinds of CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from segedu.ops.boxes import box_iou


def fit(
    model: nn.Module,
    loss_of: Callable[[], Tensor],
    steps: int,
    lr: float = 3e-3,
    max_norm: float = 10.0,
) -> tuple[float, float]:
    """Train with AdamW and a learning rate that rises for a tenth of the steps and then falls to zero.

    Args:
        model: set to training mode, and to evaluation mode afterwards.
        loss_of: computes the loss of the batch.
        steps: number of updates.
        lr: the largest learning rate.
        max_norm: the gradient is clipped to this norm.

    Returns:
        The first loss, and the mean of the last five.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    losses = []
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    model.eval()
    return losses[0], sum(losses[-5:]) / 5


def detection_f1(
    predictions: Sequence[dict[str, Tensor]],
    targets: Sequence[dict[str, Tensor]],
    of: str = "boxes",
    min_score: float = 0.5,
    min_iou: float = 0.5,
) -> float:
    """F1 score of detections over all images: 1 where each object has one detection of its class and no other is there.

    Args:
        predictions: instances with scores, one dict per image.
        targets: instances, one dict per image.
        of: "boxes" or "masks", what is compared.
        min_score: detections with a lower score are left out.
        min_iou: overlap from which a detection may match an object.

    Returns:
        2 TP / (2 TP + FP + FN).
    """
    overlap = box_iou if of == "boxes" else mask_iou
    matches = count = 0
    for preds, target in zip(predictions, targets, strict=True):
        keep = (preds["scores"] >= min_score).nonzero()[:, 0]
        keep = keep[preds["scores"][keep].argsort(descending=True, stable=True)]
        ious = overlap(target[of], preds[of][keep])
        ious[target["labels"][:, None] != preds["labels"][keep]] = -1.0
        for column in ious.T:  # the most confident detection first; each object is matched at most once
            best = column.argmax()
            if column[best] >= min_iou:
                matches += 1
                ious[best] = -1.0
        count += len(keep) + len(target["labels"])
    return 2 * matches / max(count, 1)


def mask_iou(masks: Tensor, others: Tensor) -> Tensor:
    """(N, H, W) and (M, H, W) -> (N, M)."""
    masks, others = masks.flatten(1).float(), others.flatten(1).float()
    both = masks @ others.T
    return both / (masks.sum(1)[:, None] + others.sum(1) - both).clamp(min=1)


def matched_share(label_map: Tensor, target: Tensor, min_iou: float = 0.5) -> float:
    """Share of the cells of a label map (H, W) that one predicted cell overlaps enough, less than 1 also for extra ones."""
    cells, preds = ([m == i for i in m.unique() if i > 0] for m in (target, label_map))
    if not preds:
        return 0.0
    ious = mask_iou(torch.stack(cells), torch.stack(preds))
    return (ious.amax(1) >= min_iou).sum().item() / max(len(cells), len(preds))


def mean_overlap(labels: Tensor, target: Tensor) -> float:
    """Mean IoU over the classes of the target."""
    ious = [((labels == c) & (target == c)).sum() / ((labels == c) | (target == c)).sum() for c in target.unique()]
    return torch.stack(ious).mean().item()
