"""Right answers of other kinds than the library's; every check and grading must accept them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.ops as ops
from scipy import ndimage


def resample_scipy(volume, spacing, new_spacing, is_labels):
    """One axis after the other with scipy's zoom."""
    thick = max(spacing) > 3 * min(spacing)
    for axis, (a, b) in enumerate(zip(spacing, new_spacing, strict=True)):
        n = volume.shape[axis]
        factors = [1.0, 1.0, 1.0]
        factors[axis] = max(round(n * a / b), 1) / n
        order = 0 if is_labels or (thick and a == max(spacing)) else 1
        volume = ndimage.zoom(volume, factors, order=order, mode="nearest", grid_mode=True)
    return volume


def resample_torch(volume, spacing, new_spacing, is_labels):
    """torch's interpolation, along each axis as a batch of lines."""
    found = torch.as_tensor(volume).double()
    for axis in range(3):
        n = found.shape[axis]
        m = max(1, round(n * spacing[axis] / new_spacing[axis]))
        lines = found.movedim(axis, -1)
        flat = lines.reshape(1, -1, n)
        coarse = spacing[axis] == max(spacing) and max(spacing) / min(spacing) > 3
        if is_labels or coarse:
            flat = F.interpolate(flat, m, mode="nearest-exact")
        else:
            flat = F.interpolate(flat, m, mode="linear", align_corners=False)
        found = flat.reshape(*lines.shape[:-1], m).movedim(-1, axis)
    return found.long() if is_labels else found


def resample_loops(volume, spacing, new_spacing, is_labels):
    """Every voxel by itself, from its eight neighbours."""
    size = [max(1, round(n * a / b)) for n, a, b in zip(volume.shape, spacing, new_spacing, strict=True)]
    thick = spacing.index(max(spacing)) if max(spacing) / min(spacing) > 3 else -1
    found = np.zeros(size, dtype=volume.dtype)
    for index in np.ndindex(*size):
        corners = [((), 1.0)]
        for axis, i in enumerate(index):
            n = volume.shape[axis]
            if is_labels or axis == thick:
                ways = [((2 * i + 1) * n // (2 * size[axis]), 1.0)]
            else:
                place = min(max((i + 0.5) * n / size[axis] - 0.5, 0), n - 1)
                low = int(place)
                ways = [(low, 1 - place + low), (min(low + 1, n - 1), place - low)]
            corners = [((*where, j), share * part) for where, share in corners for j, part in ways]
        if is_labels:
            found[index] = volume[corners[0][0]]
        else:
            found[index] = sum(share * volume[where] for where, share in corners)
    return found


def plan_numpy(shapes, spacings, voxels):
    """Arrays and masks."""
    spacing = np.median(spacings, axis=0)
    shape = np.median(np.rint(np.asarray(shapes) * spacings / spacing), axis=0)
    patch = np.minimum(np.rint(np.cbrt(voxels * spacing.prod()) / spacing), shape)
    size, distance, strides = patch.copy(), spacing.copy(), np.ones((0, 3), dtype=int)
    while True:
        large = size >= 8
        if not large.any():
            break
        chosen = large & (distance / distance[large].min() < 2)
        if chosen.sum() == 1 and size[chosen][0] < 12:
            break
        strides = np.vstack([strides, 1 + chosen])
        size = np.where(chosen, np.ceil(size / 2), size)
        distance = np.where(chosen, 2 * distance, distance)
    step = strides.prod(axis=0)
    patch = (np.ceil(patch / step) * step).astype(int)
    return {"spacing": spacing, "patch": patch, "strides": list(strides)}


def plan_recursive(shapes, spacings, voxels):
    """Plain lists and recursion; sizes as fractions."""

    def middle(values):
        return sorted(values)[len(values) // 2]

    def walk(size, distance):
        large = [a for a in range(3) if size[a] >= 8]
        chosen = [a for a in large if distance[a] < 2 * min(distance[b] for b in large)]
        if not chosen or (len(chosen) == 1 and size[chosen[0]] < 12):
            return []
        size = [(n + 1) // 2 if a in chosen else n for a, n in enumerate(size)]
        deeper = walk(size, [d * 2 if a in chosen else d for a, d in enumerate(distance)])
        return [tuple(1 + (a in chosen) for a in range(3)), *deeper]

    shapes, spacings = np.asarray(shapes).tolist(), np.asarray(spacings).tolist()
    spacing = [middle(column) for column in zip(*spacings, strict=True)]
    sizes = [
        [round(n * s / t) for n, s, t in zip(row, steps, spacing, strict=True)]
        for row, steps in zip(shapes, spacings, strict=True)
    ]
    side = (voxels * spacing[0] * spacing[1] * spacing[2]) ** (1 / 3)
    patch = [min(round(side / t), middle(column)) for t, column in zip(spacing, zip(*sizes, strict=True), strict=True)]
    strides = walk(patch, spacing)
    pools = [sum(row[a] == 2 for row in strides) for a in range(3)]
    grown = [int(-(Fraction(-n, 2**p) // 1)) * 2**p for n, p in zip(patch, pools, strict=True)]
    return {"spacing": spacing, "patch": grown, "strides": strides}


def encode_in_loops(point_coords, point_labels, image_size, side, frequencies, embeddings):
    """Click by click, number by number."""
    rows = np.zeros((len(point_coords), embeddings.shape[1]))
    for p, ((x, y), label) in enumerate(zip(point_coords.tolist(), point_labels.tolist(), strict=True)):
        if label == -1:
            rows[p] = embeddings[2]
            continue
        x, y = ((v * side / max(image_size) + 0.5) / side * 2 - 1 for v in (x, y))
        angles = [2 * math.pi * (x * a + y * b) for a, b in frequencies.T.tolist()]
        rows[p] = embeddings[label].numpy() + np.array([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
    return rows


def encode_by_choice(point_coords, point_labels, image_size, side, frequencies, embeddings):
    """In single precision; where says which row is added."""
    longest = max(image_size[0], image_size[1])
    parts = point_coords.float() / longest + 0.5 / side
    angles = (parts * 2 - 1) @ (frequencies.float() * (2 * torch.pi))
    waves = torch.cat((torch.sin(angles), torch.cos(angles)), dim=-1)
    kind = point_labels[:, None]
    said = torch.where(kind == 1, embeddings[1].float(), embeddings[0].float()) + waves
    return torch.where(kind < 0, embeddings[2].float(), said)


def encode_in_place(point_coords, point_labels, image_size, side, frequencies, embeddings):
    """One number of the complex plane for each frequency; padding is overwritten."""
    places = (point_coords * (side / max(image_size)) + 0.5).div(side).mul(2).sub(1)
    turned = torch.polar(torch.ones(()).double(), 2 * math.pi * places @ frequencies)
    found = torch.cat([turned.imag, turned.real], dim=1)
    found[point_labels == 0] += embeddings[0]
    found[point_labels == 1] += embeddings[1]
    found[point_labels == -1] = embeddings[2]
    return found


def best_by_torchvision(mask_logits, iou_pred, targets):
    """Chosen by argmin, without a gradient, and then gathered."""
    B, M = iou_pred.shape
    y = targets[:, None].repeat(1, M, 1, 1).to(mask_logits.dtype)
    focal = ops.sigmoid_focal_loss(mask_logits, y, alpha=0.25, gamma=2).flatten(2).mean(2)
    p = mask_logits.sigmoid()
    dice = 1 - (2 * (p * y).flatten(2).sum(2) + 1) / ((p + y).flatten(2).sum(2) + 1)
    losses = 20 * focal + dice
    best = losses.detach().argmin(dim=1)
    with torch.no_grad():
        both = ((mask_logits > 0) & (y > 0)).flatten(2).sum(2)
        either = ((mask_logits > 0) | (y > 0)).flatten(2).sum(2)
        iou = (both.double() / either).nan_to_num(1.0)
    return losses[torch.arange(B), best].mean() + F.mse_loss(iou_pred, iou)


def best_in_loops(mask_logits, iou_pred, targets):
    B, M = iou_pred.shape
    least, errors = [], []
    for b in range(B):
        y, losses = targets[b], []
        for m in range(M):
            x = mask_logits[b, m]
            p, count = torch.sigmoid(x), x.numel()
            inside = -((1 - p[y]) ** 2 * F.logsigmoid(x[y])).sum() / 4
            outside = -(p[~y] ** 2 * F.logsigmoid(-x[~y])).sum() * 3 / 4
            dice = 1 - (2 * p[y].sum() + 1) / (p.sum() + y.sum() + 1)
            losses.append(20 * (inside + outside) / count + dice)
            cut = p.detach() > 0.5
            union = int((cut | y).sum())
            errors.append((iou_pred[b, m] - (int((cut & y).sum()) / union if union else 1.0)) ** 2)
        least.append(min(losses))
    return sum(least) / B + sum(errors) / (B * M)


def best_in_single_precision(mask_logits, iou_pred, targets):
    x, y = mask_logits.float(), targets.float().unsqueeze(1)
    entropy = x.clamp(min=0) - x * y + torch.log1p(torch.exp(-x.abs()))
    right = torch.where(y > 0, x.sigmoid(), 1 - x.sigmoid())
    focal = torch.where(y > 0, 0.25, 0.75) * (1 - right).square() * entropy
    sums = [torch.einsum("bmhw,bnhw->bm", x.sigmoid(), y), x.sigmoid().sum((2, 3)) + y.sum((2, 3))]
    losses = 20 * focal.mean((2, 3)) + 1 - (2 * sums[0] + 1) / (sums[1] + 1)
    cut = (x > 0).float()
    both, either = (cut * y).sum((2, 3)), torch.maximum(cut, y.expand_as(cut)).sum((2, 3))
    iou = torch.where(either > 0, both / either.clamp(min=1), 1.0)
    return losses.min(dim=1).values.mean() + (iou_pred.float() - iou).pow(2).mean()


def stable_in_numpy(mask_logits, mask_threshold, offset):
    x = mask_logits.numpy()
    smaller, larger = ((x > limit).sum(axis=(1, 2)) for limit in (mask_threshold + offset, mask_threshold - offset))
    return np.divide(smaller, larger, out=np.zeros(len(x)), where=larger > 0)


def stable_as_iou(mask_logits, mask_threshold, offset):
    """The full IoU of two masks, in a loop."""
    scores = []
    for x in mask_logits:
        one, other = x > mask_threshold + offset, x > mask_threshold - offset
        union = (one | other).sum().item()
        scores.append((one & other).sum().item() / union if union else 0.0)
    return scores


def labelled_in_loops(masks, boxes, labels, scores, iou_threshold):
    """Pixels as sets."""
    M, H, W = masks.shape
    spots = list(itertools.product(range(H), range(W)))
    pixels = [{p for p in spots if masks[m][p]} for m in range(M)]
    free, found = set(range(M)), []
    for n in sorted(range(len(boxes)), key=lambda n: -scores[n].item()):
        x1, y1, x2, y2 = boxes[n].tolist()
        box = {(y, x) for y, x in spots if x1 <= x + 0.5 < x2 and y1 <= y + 0.5 < y2}
        ious = {m: len(box & pixels[m]) / max(1, len(box | pixels[m])) for m in sorted(free)}
        best = max(ious, key=ious.get, default=None)
        if best is not None and ious[best] >= iou_threshold:
            free.remove(best)
            found.append((best, int(labels[n]), float(scores[n])))
    columns = list(zip(*found, strict=True)) or [(), (), ()]
    return tuple(list(column) for column in columns)


def labelled_in_numpy(masks, boxes, labels, scores, iou_threshold):
    """Taken columns of the table are crossed out; whole pixels of a box by rounding up."""
    masks, boxes = masks.numpy(), boxes.numpy()
    filled = np.zeros((len(boxes), *masks.shape[1:]), dtype=bool)
    for area, box in zip(filled, np.maximum(np.ceil(boxes - 0.5), 0).astype(int), strict=True):
        area[box[1] : box[3], box[0] : box[2]] = True
    both = (filled[:, None] & masks).sum((2, 3))
    table = both / np.maximum((filled[:, None] | masks).sum((2, 3)), 1)
    taken, chose = [], []
    for n in np.argsort(-scores.numpy(), kind="stable"):
        if not table.shape[1] or table[n].max() < iou_threshold:
            continue
        taken.append(int(table[n].argmax()))
        chose.append(n)
        table[:, taken[-1]] = 0
    return np.array(taken, dtype=int), labels.numpy()[chose], scores.numpy()[chose]


ALTERNATIVES: dict[str, list[Callable]] = {
    "prompt_encode": [encode_in_loops, encode_by_choice, encode_in_place],
    "best_of_three": [best_by_torchvision, best_in_loops, best_in_single_precision],
    "stability_score": [stable_in_numpy, stable_as_iou],
    "label_by_detector": [labelled_in_loops, labelled_in_numpy],
    "resample_spacing": [resample_scipy, resample_torch, resample_loops],
    "plan_unet": [plan_numpy, plan_recursive],
}
