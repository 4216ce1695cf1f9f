"""Right answers of other kinds: loops, numpy, torchvision, single precision. All of them must be accepted."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.ops as ops
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops.poolers import LevelMapper


def anchors_in_loops(shape, stride, sizes, ratios):
    anchors = []
    for i in range(shape[0]):
        for j in range(shape[1]):
            x, y = stride * (j + 0.5), stride * (i + 0.5)
            for r in ratios:
                for s in sizes:
                    w, h = s / math.sqrt(r), s * math.sqrt(r)
                    anchors.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return anchors


def anchors_in_numpy(shape, stride, sizes, ratios):
    """The height first: h = s √r, w = h / r."""
    H, W = shape
    h = np.outer(np.sqrt(ratios), sizes)
    w = h / np.reshape(ratios, (-1, 1))
    y, x = (np.mgrid[:H, :W] + 0.5) * stride
    out = np.empty((H, W, len(ratios), len(sizes), 4))
    for k, (middle, side) in enumerate([(x, -w), (y, -h), (x, w), (y, h)]):
        out[..., k] = middle[:, :, None, None] + side / 2
    return out.reshape(-1, 4)


def anchors_by_cartesian_product(shape, stride, sizes, ratios):
    """In single precision."""
    i, j, ratio, size = torch.cartesian_prod(
        torch.arange(shape[0]).float(), torch.arange(shape[1]).float(), torch.tensor(ratios), torch.tensor(sizes)
    ).T
    x, y, w, h = (j + 0.5) * stride, (i + 0.5) * stride, size / ratio**0.5, size * ratio**0.5
    return ops.box_convert(torch.stack([x, y, w, h], dim=1), "cxcywh", "xyxy")


def anchors_by_torchvision(shape, stride, sizes, ratios):
    """Its grid, moved by half a stride; its anchors of one cell would be rounded, so they are made large first."""
    generator = AnchorGenerator()
    many = generator.generate_anchors([s * 2**20 for s in sizes], ratios, dtype=torch.float64) / 2**20
    generator.cell_anchors = [many]
    steps = torch.tensor(stride, dtype=torch.float64)
    return generator.grid_anchors([list(shape)], [[steps, steps]])[0] + stride / 2


def deltas_in_loops(boxes, anchors, deltas):
    encoded, decoded = [], []
    for b, a, t in zip(boxes.tolist(), anchors.tolist(), deltas.tolist(), strict=True):
        wa, ha, w, h = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
        xa, ya = a[0] + wa / 2, a[1] + ha / 2
        x, y = b[0] + w / 2, b[1] + h / 2
        encoded.append([(x - xa) / wa, (y - ya) / ha, math.log(w / wa), math.log(h / ha)])
        x, y, w, h = xa + t[0] * wa, ya + t[1] * ha, wa * math.exp(t[2]), ha * math.exp(t[3])
        decoded.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return np.array(encoded).reshape(-1, 4), np.array(decoded).reshape(-1, 4)


def deltas_by_torchvision(boxes, anchors, deltas):
    coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
    return coder.encode_single(boxes, anchors), coder.decode_single(deltas, anchors)


def deltas_in_single_precision(boxes, anchors, deltas):
    (x, y, w, h), (xa, ya, wa, ha) = (ops.box_convert(b.float(), "xyxy", "cxcywh").T for b in (boxes, anchors))
    encoded = torch.stack([(x - xa) / wa, (y - ya) / ha, w.log() - wa.log(), h.log() - ha.log()], dim=1)
    tx, ty, tw, th = deltas.float().T
    moved = torch.stack([xa + wa * tx, ya + ha * ty, wa * tw.exp(), ha * th.exp()], dim=1)
    return encoded, ops.box_convert(moved, "cxcywh", "xyxy")


def deltas_in_numpy(boxes, anchors, deltas):
    b, a, t = (v.numpy().reshape(-1, 2, 2) for v in (boxes, anchors, deltas))
    side = np.diff(a, axis=1)
    encoded = np.concatenate(
        [(b.mean(axis=1, keepdims=True) - a.mean(axis=1, keepdims=True)) / side, np.log(np.diff(b, axis=1) / side)],
        axis=1,
    )
    middle, half = a.mean(axis=1, keepdims=True) + t[:, :1] * side, side * np.exp(t[:, 1:]) / 2
    return encoded.reshape(-1, 4), np.concatenate([middle - half, middle + half], axis=1).reshape(-1, 4)


def targets_in_loops(iou, low, high):
    N, A = iou.shape
    targets = []
    for a in range(A):
        best, row = 0.0, -1
        for n in range(N):
            if row < 0 or iou[n, a] > best:
                best, row = float(iou[n, a]), n
        forced = any(iou[n, a] > 0 and iou[n, a] == max(iou[n].tolist()) for n in range(N))
        if row >= 0 and (best >= high or forced):
            targets.append(row)
        else:
            targets.append(-1 if row < 0 or best < low else -2)
    return targets


def targets_by_torchvision(iou, low, high):
    """Its matcher fails without objects, and lets objects that are apart from all force."""
    near = iou.sum(dim=1).nonzero().flatten()
    if not len(near):
        return torch.full((iou.shape[1],), -1)
    found = Matcher(high, low, allow_low_quality_matches=True)(iou[near])
    return torch.where(found >= 0, near[found.clamp(min=0)], found)


def targets_in_numpy(iou, low, high):
    """In single precision, with a row of zeros in front: background has the row 0."""
    table = np.concatenate([np.zeros((1, iou.shape[1]), np.float32), iou.numpy().astype(np.float32)])
    row, best = table.argmax(axis=0), table.max(axis=0)
    targets = np.select([best < np.float32(low), best < np.float32(high)], [-1, -2], row - 1)
    objects, anchors = np.nonzero((table == table.max(axis=1, keepdims=True)) & (table > 0))
    targets[anchors] = row[anchors] - 1
    return targets


def targets_in_place(iou, low, high):
    targets = torch.full((iou.shape[1],), -2)
    if iou.shape[0] == 0:
        targets[:] = -1
        return targets
    best, row = torch.sort(iou, dim=0, descending=True, stable=True)
    targets[best[0] < low] = -1
    targets[best[0] >= high] = row[0][best[0] >= high]
    for values in iou:
        top = values.max()
        if top > 0:
            mine = (values == top).nonzero().flatten()
            targets[mine] = row[0, mine]
    return targets


def nms_by_torchvision(boxes, scores, labels, iou_threshold):
    return ops.batched_nms(boxes, scores, labels, iou_threshold)


def nms_in_loops(boxes, scores, labels, iou_threshold):
    boxes, scores, labels = boxes.tolist(), scores.tolist(), labels.tolist()
    alive, kept = list(range(len(boxes))), []
    while alive:
        best = max(alive, key=lambda i: (scores[i], -i))
        kept.append(best)
        left = []
        for i in alive:
            a, b = boxes[i], boxes[best]
            w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
            h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
            if i != best and (labels[i] != labels[best] or w * h / union <= iou_threshold):
                left.append(i)
        alive = left
    return kept


def nms_moved_apart(boxes, scores, labels, iou_threshold):
    """All classes at once, each moved to a place of its own; in single precision."""
    if not len(boxes):
        return torch.zeros(0, dtype=torch.int64)
    moved = (boxes + (labels * (boxes.max() + 1))[:, None]).float()
    order = torch.argsort(scores, descending=True, stable=True)
    iou = ops.box_iou(moved[order], moved[order])
    alive = torch.ones(len(boxes), dtype=torch.bool)
    for i in range(len(boxes)):
        if alive[i]:
            alive[i + 1 :] &= iou[i, i + 1 :] <= iou_threshold
    return order[alive]


def nms_class_by_class_in_numpy(boxes, scores, labels, iou_threshold):
    iou = ops.box_iou(boxes, boxes).numpy()
    scores, labels = scores.numpy(), labels.numpy()
    kept = []
    for label in np.unique(labels):
        rest = np.flatnonzero(labels == label)
        rest = rest[np.argsort(-scores[rest], kind="stable")]
        while rest.size:
            kept.append(rest[0])
            rest = rest[1:][iou[rest[0], rest[1:]] <= iou_threshold]
    return np.array(sorted(kept, key=lambda i: (-scores[i], i)), dtype=np.int64)


def merge_by_einsum(features, lateral, smooth):
    """Pixels repeated and cut, the 1x1 convolution as a product of matrices."""
    above, out = None, [None] * len(features)
    for level in reversed(range(len(features))):
        x = torch.einsum("dc,bchw->bdhw", lateral[level].flatten(1), features[level])
        if above is not None:
            H, W = x.shape[-2:]
            x = x + above.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)[..., :H, :W]
        above = x
        out[level] = F.conv2d(x, smooth[level], padding="same")
    return out


def merge_by_index(features, lateral, smooth):
    """Pixel (y, x) takes from (y // 2, x // 2); in single precision."""
    merged = [F.conv2d(x.float(), w.float()) for x, w in zip(features, lateral, strict=True)]
    for level in range(len(merged) - 2, -1, -1):
        H, W = merged[level].shape[2:]
        merged[level] = merged[level] + merged[level + 1][:, :, torch.arange(H)[:, None] // 2, torch.arange(W) // 2]
    return [F.conv2d(F.pad(x, (1, 1, 1, 1)), w.float()) for x, w in zip(merged, smooth, strict=True)]


def merge_by_torchvision(features, lateral, smooth):
    net = ops.FeaturePyramidNetwork([x.shape[1] for x in features], len(lateral[0])).double()
    with torch.no_grad():
        for blocks, weights in ((net.inner_blocks, lateral), (net.layer_blocks, smooth)):
            for block, weight in zip(blocks, weights, strict=True):
                block[0].weight.copy_(weight)
                block[0].bias.zero_()
    return list(net({str(level): x for level, x in enumerate(features)}).values())


def merge_recursively(features, lateral, smooth):
    merged = F.conv2d(features[0], lateral[0])
    if len(features) == 1:
        return [F.conv2d(merged, smooth[0], padding=1)]

    def top_down(level):
        x = F.conv2d(features[level], lateral[level])
        if level + 1 < len(features):
            x = x + F.interpolate(top_down(level + 1), size=tuple(x.shape[-2:]))
        return x

    return tuple(F.conv2d(top_down(level), smooth[level], padding=1) for level in range(len(features)))


def levels_in_loops(boxes, k0, canonical, lowest, highest):
    levels = []
    for x1, y1, x2, y2 in boxes.tolist():
        area = (x2 - x1) * (y2 - y1)
        k = k0 + math.log2(math.sqrt(area) / canonical) if area else lowest
        levels.append(min(max(math.floor(k), lowest), highest))
    return levels


def levels_in_numpy(boxes, k0, canonical, lowest, highest):
    x1, y1, x2, y2 = boxes.numpy().T
    with np.errstate(divide="ignore"):
        k = np.floor(k0 + np.log2(np.sqrt((x2 - x1) * (y2 - y1)) / canonical))
    return np.clip(k, lowest, highest).astype(int)


def levels_in_single_precision(boxes, k0, canonical, lowest, highest):
    """Half the logarithm of the area."""
    w, h = ops.box_convert(boxes.float(), "xyxy", "xywh")[:, 2:].T
    k = torch.floor(k0 + 0.5 * torch.log2(w * h / canonical**2))
    return k.clamp(min=lowest, max=highest).to(torch.int64)


def levels_by_counting(boxes, k0, canonical, lowest, highest):
    """How many limits the area has passed."""
    area = ops.box_area(boxes)
    limits = [canonical**2 * 4.0 ** (k - k0) for k in range(lowest + 1, highest + 1)]
    return lowest + sum((area >= limit).long() for limit in limits) + 0 * area.long()


def levels_by_torchvision(boxes, k0, canonical, lowest, highest):
    return LevelMapper(lowest, highest, canonical, k0)([boxes]) + lowest


ALTERNATIVES = {
    "make_anchors": [anchors_in_loops, anchors_in_numpy, anchors_by_cartesian_product, anchors_by_torchvision],
    "encode_decode": [deltas_in_loops, deltas_by_torchvision, deltas_in_single_precision, deltas_in_numpy],
    "assign_targets": [targets_in_loops, targets_by_torchvision, targets_in_numpy, targets_in_place],
    "nms": [nms_by_torchvision, nms_in_loops, nms_moved_apart, nms_class_by_class_in_numpy],
    "fpn_merge": [merge_by_einsum, merge_by_index, merge_by_torchvision, merge_recursively],
    "level_assign": [
        levels_in_loops, levels_in_numpy, levels_in_single_precision, levels_by_counting, levels_by_torchvision,
    ],
}  # fmt: skip
