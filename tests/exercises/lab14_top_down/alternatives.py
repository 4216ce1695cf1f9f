"""Right answers of other kinds: loops, numpy, torchvision, grid_sample, grouped convolutions. All must be accepted."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.ops


def _bilinear(plane, y, x):
    """One value of a map (H, W); `y` and `x` count from the centre of the first cell."""
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = min(int(y), max(height - 2, 0)), min(int(x), max(width - 2, 0))
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    upper = (1 - across) * plane[top][left] + across * plane[top][right]
    lower = (1 - across) * plane[bottom][left] + across * plane[bottom][right]
    return float((1 - down) * upper + down * lower)


def align_in_loops(features, boxes, output_size, spatial_scale, samples):
    (C, _, _), (h, w) = features.shape, output_size
    out = torch.zeros(len(boxes), C, h, w)
    for n, box in enumerate(boxes.tolist()):
        x1, y1, x2, y2 = (v * spatial_scale for v in box)
        for c in range(C):
            for i in range(h):
                for j in range(w):
                    total = 0.0
                    for a in range(samples):
                        for b in range(samples):
                            y = y1 + (i + (a + 0.5) / samples) * (y2 - y1) / h
                            x = x1 + (j + (b + 0.5) / samples) * (x2 - x1) / w
                            total += _bilinear(features[c], y - 0.5, x - 0.5)
                    out[n, c, i, j] = total / samples**2
    return out


def align_by_torchvision(features, boxes, output_size, spatial_scale, samples):
    return torchvision.ops.roi_align(features[None], [boxes], output_size, spatial_scale, samples, aligned=True)


def align_by_corners(features, boxes, output_size, spatial_scale, samples):
    """Four reads by index, each with its weight; then the mean over blocks."""
    (C, H, W), (h, w) = features.shape, output_size
    x1, y1, x2, y2 = (boxes * spatial_scale).unbind(1)
    y = y1[:, None] + (y2 - y1)[:, None] * torch.linspace(0.5, h * samples - 0.5, h * samples) / (h * samples) - 0.5
    x = x1[:, None] + (x2 - x1)[:, None] * torch.linspace(0.5, w * samples - 0.5, w * samples) / (w * samples) - 0.5
    known = ((y >= -1) & (y <= H))[:, :, None] & ((x >= -1) & (x <= W))[:, None, :]
    y, x = y.clamp(0, H - 1)[:, :, None], x.clamp(0, W - 1)[:, None, :]
    top, left = y.floor().long(), x.floor().long()
    bottom, right = (top + 1).clamp(max=H - 1), (left + 1).clamp(max=W - 1)
    down, across = y - top, x - left
    value = (1 - down) * ((1 - across) * features[:, top, left] + across * features[:, top, right])
    value = value + down * ((1 - across) * features[:, bottom, left] + across * features[:, bottom, right])
    value = torch.where(known, value, 0.0).reshape(C, len(boxes), h, samples, w, samples)
    return value.mean((3, 5)).transpose(0, 1)


def align_by_grid_sample(features, boxes, output_size, spatial_scale, samples):
    (C, H, W), (h, w) = features.shape, output_size
    found = torch.empty(len(boxes), C, h, w)
    for n, (x1, y1, x2, y2) in enumerate(boxes * spatial_scale):
        y = y1 + (torch.arange(h * samples) + 0.5) * (y2 - y1) / (h * samples)
        x = x1 + (torch.arange(w * samples) + 0.5) * (x2 - x1) / (w * samples)
        grid = torch.stack(torch.meshgrid(2 * x / W - 1, 2 * y / H - 1, indexing="xy"), dim=-1)
        read = F.grid_sample(features[None], grid[None], padding_mode="border", align_corners=False)
        read = read * ((y >= -0.5) & (y <= H + 0.5))[:, None] * ((x >= -0.5) & (x <= W + 0.5))
        found[n] = F.avg_pool2d(read, samples)[0]
    return found


def align_in_numpy(features, boxes, output_size, spatial_scale, samples):
    """In float64, one axis after the other."""
    maps = features.numpy().astype(float)
    found = np.zeros((len(boxes), len(maps), *output_size))
    for n, box in enumerate(boxes.numpy().astype(float) * spatial_scale - 0.5):
        read = maps
        for axis, bins in ((1, output_size[0]), (2, output_size[1])):
            low, high = box[2 - axis], box[4 - axis]
            points = low + (np.arange(bins * samples) + 0.5) / (bins * samples) * (high - low)
            cells = maps.shape[axis]
            place = np.clip(points, 0, cells - 1)
            first = np.floor(place).astype(int)
            shape = [1, 1, 1]
            shape[axis] = -1
            part = (place - first).reshape(shape)
            read = (1 - part) * read.take(first, axis) + part * read.take(np.minimum(first + 1, cells - 1), axis)
            read = read * ((points >= -1) & (points <= cells)).reshape(shape)
        found[n] = read.reshape(len(maps), output_size[0], samples, output_size[1], samples).mean((2, 4))
    return found


def target_in_loops(masks, boxes, matches, size):
    out = torch.zeros(len(boxes), size, size, dtype=torch.bool)
    for p, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        mask = masks[matches[p]].float()
        for i in range(size):
            for j in range(size):
                y, x = y1 + (i + 0.5) * (y2 - y1) / size, x1 + (j + 0.5) * (x2 - x1) / size
                out[p, i, j] = _bilinear(mask, y - 0.5, x - 0.5) >= 0.5
    return out


def target_by_torchvision(masks, boxes, matches, size):
    """Every object is a channel."""
    every = torchvision.ops.roi_align(masks[None].float(), [boxes], size, sampling_ratio=1, aligned=True)
    return every[torch.arange(len(boxes)), matches] >= 0.5


def target_by_torchvision_in_a_batch(masks, boxes, matches, size):
    """Every object is an image of a batch."""
    rois = torch.cat([matches[:, None].float(), boxes], dim=1)
    return torchvision.ops.roi_align(masks[:, None].float(), rois, size, 1.0, 1, True)[:, 0] >= 0.5


def target_by_grid_sample(masks, boxes, matches, size):
    height, width = masks.shape[1:]
    steps = (torch.arange(size) + 0.5) / size
    x = boxes[:, 0, None] + (boxes[:, 2] - boxes[:, 0])[:, None] * steps
    y = boxes[:, 1, None] + (boxes[:, 3] - boxes[:, 1])[:, None] * steps
    grid = torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1)
    grid = grid / torch.tensor([width, height]) * 2 - 1
    read = F.grid_sample(masks[matches][:, None].double(), grid.double(), padding_mode="border", align_corners=False)
    return read[:, 0] >= 0.5


def loss_in_loops(logits, labels, targets):
    total, count = 0.0, 0
    for p, label in enumerate(labels.tolist()):
        if label == 0:
            continue
        for row, wanted in zip(logits[p, label], targets[p], strict=True):
            for z, t in zip(row, wanted, strict=True):
                total = total + torch.clamp(z, min=0) - z * t + torch.log1p(torch.exp(-z.abs()))
                count += 1
    return total / count if count else 0 * logits.sum()


def loss_by_logsigmoid(logits, labels, targets):
    keep = labels > 0
    own = logits[torch.arange(len(labels)), labels][keep]
    t = targets[keep]
    costs = -(t * F.logsigmoid(own) + (1 - t) * F.logsigmoid(-own))
    return costs.sum() / max(costs.numel(), 1)


def loss_by_gather(logits, labels, targets):
    index = labels.view(-1, 1, 1, 1).expand(-1, 1, *logits.shape[2:])
    own = logits.gather(1, index).squeeze(1)
    weight = (labels > 0).float()[:, None, None].expand_as(own)
    costs = F.binary_cross_entropy_with_logits(own, targets, weight=weight, reduction="sum")
    return costs / weight.sum().clamp(min=1)


def loss_in_double(logits, labels, targets):
    own = [logits[p, c].double() for p, c in enumerate(labels) if c > 0]
    if not own:
        return (logits * 0.0).sum()
    wanted = targets[labels != 0].double()
    return F.softplus(torch.where(wanted > 0, -1.0, 1.0) * torch.stack(own)).mean()


def masks_in_loops(prototypes, coefficients, boxes):
    H, W, k = prototypes.shape
    out = torch.zeros(len(boxes), H, W)
    for n in range(len(boxes)):
        x1, y1, x2, y2 = boxes[n].tolist()
        for i in range(H):
            for j in range(W):
                if x1 <= j + 0.5 < x2 and y1 <= i + 0.5 < y2:
                    z = sum(float(prototypes[i, j, m]) * math.tanh(coefficients[n, m]) for m in range(k))
                    out[n, i, j] = 1 / (1 + math.exp(-z))
    return out


def masks_by_product(prototypes, coefficients, boxes):
    H, W, _ = prototypes.shape
    masks = torch.sigmoid(prototypes @ torch.tanh(coefficients).T).permute(2, 0, 1)
    x, y = torch.arange(W) + 0.5, (torch.arange(H) + 0.5)[:, None]
    x1, y1, x2, y2 = (edge.view(-1, 1, 1) for edge in boxes.unbind(1))
    return torch.where((x >= x1) & (x < x2) & (y >= y1) & (y < y2), masks, 0.0)


def masks_by_slices(prototypes, coefficients, boxes):
    """Each box as a slice: from ceil(x1 - 0.5) on."""
    H, W, k = prototypes.shape
    out = np.zeros((len(boxes), H, W))
    c = np.tanh(coefficients.numpy().astype(float))
    for n, box in enumerate(boxes.numpy()):
        left, top, right, bottom = (max(int(math.ceil(edge - 0.5)), 0) for edge in box)
        z = prototypes.numpy()[top:bottom, left:right] @ c[n]
        out[n, top:bottom, left:right] = 1 / (1 + np.exp(-z))
    return out


def conv_in_loops(features, parameters, locations, unit, hidden):
    C, H, W = features.shape
    out = torch.zeros(len(parameters), H, W)
    for n, numbers in enumerate(parameters):
        sizes = [(hidden, C + 2), (hidden, hidden), (1, hidden)]
        at, weights, biases = 0, [], []
        for rows, columns in sizes:
            weights.append(numbers[at : at + rows * columns].reshape(rows, columns))
            at += rows * columns
        for rows, _ in sizes:
            biases.append(numbers[at : at + rows])
            at += rows
        for i in range(H):
            for j in range(W):
                place = (locations[n] - torch.tensor([j + 0.5, i + 0.5])) / unit
                x = torch.cat([place, features[:, i, j]])
                for layer in range(3):
                    x = weights[layer] @ x + biases[layer]
                    x = x.clamp(min=0) if layer < 2 else x
                out[n, i, j] = x
    return out


def conv_by_groups(features, parameters, locations, unit, hidden):
    """As the authors: all instances side by side in the channels of one image."""
    (C, H, W), N = features.shape, len(parameters)
    if N == 0:
        return torch.zeros(0, H, W)
    x = torch.arange(0.5, W).expand(H, W)
    y = torch.arange(0.5, H)[:, None].expand(H, W)
    coordinates = (locations.view(N, 2, 1, 1) - torch.stack([x, y])) / unit
    value = torch.cat([coordinates, features.repeat(N, 1, 1, 1)], 1).view(1, N * (C + 2), H, W)
    sizes = [(C + 2) * hidden, hidden**2, hidden, hidden, hidden, 1]
    *weights, b1, b2, b3 = torch.split(parameters, sizes, dim=1)
    for weight, bias in zip(weights, (b1, b2, b3), strict=True):
        if bias is not b1:
            value = F.relu(value)
        outs = bias.shape[1]
        value = F.conv2d(value, weight.reshape(N * outs, -1, 1, 1), bias.reshape(-1), groups=N)
    return value.view(N, H, W)


def conv_by_matrices(features, parameters, locations, unit, hidden):
    """Pixels as columns, bmm; in float64."""
    (C, H, W), N = features.shape, len(parameters)
    i, j = np.mgrid[:H, :W]
    p, x = parameters.double(), torch.empty(N, C + 2, H * W, dtype=torch.float64)
    x[:, 0] = (locations[:, :1].double() - torch.from_numpy(j.ravel() + 0.5)) / unit
    x[:, 1] = (locations[:, 1:].double() - torch.from_numpy(i.ravel() + 0.5)) / unit
    x[:, 2:] = features.reshape(C, -1)
    a, b = (C + 2) * hidden, hidden * hidden
    biases = p[:, a + b + hidden :].unsqueeze(-1)
    x = torch.relu(torch.bmm(p[:, :a].reshape(N, hidden, C + 2), x) + biases[:, :hidden])
    x = torch.relu(torch.bmm(p[:, a : a + b].reshape(N, hidden, hidden), x) + biases[:, hidden : 2 * hidden])
    x = torch.bmm(p[:, a + b : a + b + hidden].reshape(N, 1, hidden), x) + biases[:, 2 * hidden :]
    return x.reshape(N, H, W)


def nms_in_loops(masks, labels, scores, sigma):
    def iou(a, b):
        union = int((masks[a] | masks[b]).sum())
        return int((masks[a] & masks[b]).sum()) / union if union and labels[a] == labels[b] else 0.0

    def better(a):
        return [b for b in range(len(scores)) if scores[b] > scores[a]]

    def f(value):
        return math.exp(-sigma * value**2)

    worst = [max([iou(k, i) for k in better(i)], default=0.0) for i in range(len(scores))]
    decays = [min([f(iou(i, j)) / f(worst[i]) for i in better(j)], default=1.0) for j in range(len(scores))]
    return scores * torch.tensor(decays)


def nms_by_sorting(masks, labels, scores, sigma):
    """As the authors: sorted, triu(1)."""
    if len(scores) == 0:
        return scores
    order = torch.argsort(scores, descending=True)
    flat = masks[order].flatten(1).float()
    common = flat @ flat.T
    area = flat.sum(1).expand_as(common)
    iou = torch.nan_to_num(common / (area + area.T - common)).triu(diagonal=1)
    same = labels[order].expand_as(common)
    iou = iou * (same == same.T)
    worst = iou.max(0).values.expand_as(iou).T
    decay = (torch.exp(-sigma * iou**2) / torch.exp(-sigma * worst**2)).min(0).values
    result = torch.empty_like(scores)
    result[order] = scores[order] * decay
    return result


def nms_in_numpy(masks, labels, scores, sigma):
    m, s, c = masks.numpy(), scores.numpy().astype(float), labels.numpy()
    both = (m[:, None] & m[None]).sum((2, 3))
    either = (m[:, None] | m[None]).sum((2, 3))
    iou = np.where((either > 0) & (c[:, None] == c), both / np.maximum(either, 1), 0) * (s[:, None] > s)
    worst = iou.max(0, initial=0)
    return s * np.exp(-sigma * (iou**2 - worst[:, None] ** 2)).min(0, initial=1)


ALTERNATIVES = {
    "roi_align": [align_in_loops, align_by_torchvision, align_by_corners, align_by_grid_sample, align_in_numpy],
    "mask_target": [
        target_in_loops, target_by_torchvision, target_by_torchvision_in_a_batch, target_by_grid_sample
    ],
    "mask_loss": [loss_in_loops, loss_by_logsigmoid, loss_by_gather, loss_in_double],
    "yolact_masks": [masks_in_loops, masks_by_product, masks_by_slices],
    "dynamic_conv": [conv_in_loops, conv_by_groups, conv_by_matrices],
    "matrix_nms": [nms_in_loops, nms_by_sorting, nms_in_numpy],
}  # fmt: skip
