"""Right answers to lab 7 that are written differently from the reference; all must be accepted."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F


def ce_logsumexp(logits, target):
    """logsumexp minus the score of the true class; a loop for soft targets."""
    whole = torch.logsumexp(logits, dim=1)
    if target.dtype == torch.int64:
        return (whole - logits.gather(1, target.unsqueeze(1)).squeeze(1)).mean()
    total = 0
    for k in range(logits.shape[1]):
        total = total + target[:, k] * (whole - logits[:, k])
    return total.mean()


def ce_einsum(logits, target):
    """One-hot and einsum."""
    y = target if target.is_floating_point() else F.one_hot(target, logits.shape[1]).permute(0, 3, 1, 2).double()
    log_p = logits - logits.logsumexp(1, keepdim=True)
    return -torch.einsum("bkhw,bkhw->", y, log_p) / (log_p.numel() / log_p.shape[1])


def ce_subtract_maximum(logits, target):
    """The maximum subtracted by hand, pixels as rows, class by class."""
    K = logits.shape[1]
    z = logits.movedim(1, -1).reshape(-1, K)
    z = z - z.detach().amax(dim=1, keepdim=True)
    log_p = z - z.exp().sum(1, keepdim=True).log()
    if target.is_floating_point():
        y = target.movedim(1, -1).reshape(-1, K)
        return -(y * log_p).sum() / len(z)
    return -log_p[torch.arange(len(z)), target.flatten()].mean()


def ce_of_torch(logits, target):
    """torch's own, both kinds of target."""
    return torch.nn.CrossEntropyLoss()(logits, target)


def weighted_pixels(logits, target, pixel_counts, ignore_index):
    """Only the pixels that count, as rows."""
    z, y = logits.movedim(1, -1)[target != ignore_index], target[target != ignore_index]
    w = torch.zeros(len(pixel_counts), dtype=z.dtype)
    w[pixel_counts > 0] = 1 / pixel_counts[pixel_counts > 0].to(z.dtype)
    w = w[y]
    if w.sum() == 0:
        return 0.0 * logits.sum()
    loss = z.logsumexp(1) - z[torch.arange(len(z)), y]
    return (w * loss).sum() / w.sum()


def weighted_by_class(logits, target, pixel_counts, ignore_index):
    """A loop over classes."""
    log_p = torch.log_softmax(logits, dim=1)
    above, below = logits.sum() * 0, 0.0
    for k, count in enumerate(pixel_counts.tolist()):
        if count == 0 or k == ignore_index:
            continue
        mask = target == k
        above = above - log_p[:, k][mask].sum() / count
        below += float(mask.sum()) / count
    return above / below if below else above


def weighted_of_torch(logits, target, pixel_counts, ignore_index):
    """torch's negative log-likelihood with its weights, whose mean is over the sum of the weights; guarded."""
    w = torch.nan_to_num(1 / pixel_counts.to(logits.dtype), posinf=0.0)
    loss = F.nll_loss(torch.log_softmax(logits, 1), target, weight=w, ignore_index=ignore_index, reduction="sum")
    total = w[target[target != ignore_index]].sum()
    return loss / total if total > 0 else loss


def focal_branches(logits, target, alpha, gamma):
    """Two branches, written out."""
    positive = alpha * torch.sigmoid(-logits) ** gamma * -F.logsigmoid(logits)
    negative = (1 - alpha) * torch.sigmoid(logits) ** gamma * -F.logsigmoid(-logits)
    return torch.where(target == 1, positive, negative).mean()


def focal_sign(logits, target, alpha, gamma):
    """The sign of the score turned for the background; softplus."""
    y = 2 * target.to(logits.dtype) - 1
    z = y * logits
    a = alpha * (y + 1) / 2 + (1 - alpha) * (1 - y) / 2
    return (a * (1 - z.sigmoid()).pow(gamma) * F.softplus(-z)).sum() / z.numel()


def focal_of_torchvision(logits, target, alpha, gamma):
    """By binary cross-entropy, as torchvision does."""
    y = target.to(logits)
    p = torch.sigmoid(logits)
    ce = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
    p_t = p * y + (1 - p) * (1 - y)
    return ((alpha * y + (1 - alpha) * (1 - y)) * ce * (1 - p_t) ** gamma).mean()


def dice_loop(logits, target, smooth):
    """Loops over images and classes."""
    p = torch.softmax(logits, dim=1)
    total = 0
    for b in range(len(p)):
        for k in range(1, p.shape[1]):
            y = (target[b] == k).double()
            whole = y.sum() + p[b, k].sum() + smooth
            total = total + (1 - (2 * (y * p[b, k]).sum() + smooth) / whole if whole > 0 else 0.0)
    return total / (p.shape[0] * (p.shape[1] - 1))


def dice_einsum(logits, target, smooth):
    """Flat pixels and einsum, in place where it may be."""
    B, K = logits.shape[:2]
    p = logits.softmax(1).reshape(B, K, -1)
    y = torch.zeros_like(p).scatter_(1, target.reshape(B, 1, -1), 1.0)
    inter, areas = torch.einsum("bkn,bkn->bk", p, y), p.sum(-1) + y.sum(-1)
    whole = areas + smooth
    nowhere = whole == 0
    dice = (2 * inter + smooth + nowhere) / (whole + nowhere)
    dice[:, 0] = 1
    return (1 - dice).sum() / (B * (K - 1))


def dice_by_errors(logits, target, smooth):
    """(false positives + false negatives) over everything: 1 - Dice without a 1."""
    p = torch.exp(logits - logits.logsumexp(1, keepdim=True))
    y = F.one_hot(target, logits.shape[1]).movedim(-1, 1)
    errors = (p * (1 - y)).sum((2, 3)) + ((1 - p) * y).sum((2, 3))
    whole = p.sum((2, 3)) + y.sum((2, 3)) + smooth
    return torch.where(whole > 0, errors / whole.clamp(min=1e-300), 0.0)[:, 1:].mean()


def grad_by_hand(boxes, target):
    """Quotient rule, without autograd."""
    out = torch.zeros_like(boxes)
    for i, (a, b) in enumerate(zip(boxes.tolist(), target.tolist(), strict=True)):
        w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        if w <= 0 or h <= 0:
            continue
        aw, ah = a[2] - a[0], a[3] - a[1]
        inter = w * h
        union = aw * ah + (b[2] - b[0]) * (b[3] - b[1]) - inter
        for k, (area_slope, inside, inter_slope) in enumerate(
            [(-ah, a[0] > b[0], -h), (-aw, a[1] > b[1], -w), (ah, a[2] < b[2], h), (aw, a[3] < b[3], w)]
        ):
            d_inter = inter_slope if inside else 0.0
            out[i, k] = (d_inter * union - inter * (area_slope - d_inter)) / union**2
    return out, (out == 0).all(dim=1)


def grad_by_where(boxes, target):
    """clamp, and a mask for the pairs that share no area; a pair at a time."""
    rows = []
    for a, b in zip(boxes, target, strict=True):
        a = a.clone().requires_grad_(True)
        w = (torch.min(a[2], b[2]) - torch.max(a[0], b[0])).clamp(min=0)
        h = (torch.min(a[3], b[3]) - torch.max(a[1], b[1])).clamp(min=0)
        inter = w * h
        iou = inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)
        iou.backward()
        rows.append(a.grad if inter > 0 else torch.zeros(4, dtype=a.dtype))
    grad = torch.stack(rows)
    return grad, grad.abs().sum(1) == 0


def grad_relu(boxes, target):
    """relu on the sides, autograd of the sum; numpy comes back."""
    a = boxes.detach().clone().requires_grad_()
    side = F.relu(torch.minimum(a[:, 2:], target[:, 2:]) - torch.maximum(a[:, :2], target[:, :2]))
    inter = side[:, 0] * side[:, 1]
    area = [(x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, target)]
    (inter / (area[0] + area[1] - inter)).sum().backward()
    grad = a.grad.numpy()
    return grad, (grad == 0).all(axis=1)


def giou_eps(boxes, target):
    """As torchvision: corners one by one, a small eps in both fractions."""
    x1, y1, x2, y2 = boxes.unbind(1)
    u1, v1, u2, v2 = target.unbind(1)
    w = (torch.min(x2, u2) - torch.max(x1, u1)).clamp(min=0)
    h = (torch.min(y2, v2) - torch.max(y1, v1)).clamp(min=0)
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - w * h
    hull = (torch.max(x2, u2) - torch.min(x1, u1)) * (torch.max(y2, v2) - torch.min(y1, v1))
    loss = 1 - w * h / (union + 1e-9) + (hull - union) / (hull + 1e-9)
    return loss.mean() if len(loss) else loss.sum()


def giou_loop(boxes, target):
    """A loop over pairs, with ifs."""
    total = (boxes * 0).sum()
    for a, b in zip(boxes, target, strict=True):
        low, high = torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])
        inter = (high - low).relu().prod()
        union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inter
        hull = (torch.maximum(a[2:], b[2:]) - torch.minimum(a[:2], b[:2])).prod()
        iou = inter / union if union > 0 else 0.0
        total = total + 1 - iou + ((hull - union) / hull if hull > 0 else 0.0)
    return total / max(1, len(boxes))


def giou_two_minus(boxes, target):
    """2 - IoU - U / C over the pairs with an area, 1 or 2 for points."""
    low, high = torch.max(boxes, target), torch.min(boxes, target)
    inter = (high[:, 2:] - low[:, :2]).clamp(min=0).prod(1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (target[:, 2:] - target[:, :2]).prod(1) - inter
    hull = (low[:, 2:] - high[:, :2]).prod(1)
    real = union > 0
    loss = 2 - inter[real] / union[real] - union[real] / hull[real]
    points = 1 + (hull[~real] > 0).to(loss)  # no IoU; two different points have an empty box around them
    return (loss.sum() + points.sum()) / max(len(boxes), 1)


ALTERNATIVES: dict[str, list[Callable]] = {
    "ce_from_logits": [ce_logsumexp, ce_einsum, ce_subtract_maximum, ce_of_torch],
    "weighted_ce": [weighted_pixels, weighted_by_class, weighted_of_torch],
    "focal": [focal_branches, focal_sign, focal_of_torchvision],
    "soft_dice": [dice_loop, dice_einsum, dice_by_errors],
    "iou_grad_zero": [grad_by_hand, grad_by_where, grad_relu],
    "giou_loss": [giou_eps, giou_loop, giou_two_minus],
}
