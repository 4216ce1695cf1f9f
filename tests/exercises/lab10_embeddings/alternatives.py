"""Right answers of other kinds: loops, numpy, scipy, autograd. All of them must be accepted."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage

from segedu.losses.lovasz import lovasz_extension


def offsets_in_loops(label_map, unit):
    H, W = label_map.shape
    places = {}
    for y in range(H):
        for x in range(W):
            places.setdefault(int(label_map[y, x]), []).append((y, x))
    out = torch.zeros(2, H, W)
    for number, pixels in places.items():
        if number == 0:
            continue
        centre = [sum(axis) / len(pixels) for axis in zip(*pixels, strict=True)]
        for y, x in pixels:
            out[0, y, x] = (centre[0] - y) / unit
            out[1, y, x] = (centre[1] - x) / unit
    return out


def offsets_by_bincount(label_map, unit):
    _, index = torch.unique(label_map, return_inverse=True)
    index = index.flatten()
    grid = torch.stack(torch.meshgrid(*map(torch.arange, label_map.shape), indexing="ij")).flatten(1).double()
    centres = torch.stack([torch.bincount(index, axis) for axis in grid]) / torch.bincount(index)
    offsets = (centres[:, index] - grid) / unit
    return (offsets * (label_map.flatten() != 0)).reshape(2, *label_map.shape)


def offsets_by_scipy(label_map, unit):
    labels = label_map.numpy()
    grid = np.indices(labels.shape)
    numbers = np.unique(labels[labels > 0])
    out = np.zeros((2, *labels.shape))
    for number, centre in zip(numbers, ndimage.center_of_mass(labels > 0, labels, numbers), strict=True):
        out += (np.reshape(centre, (2, 1, 1)) - grid) * (labels == number)
    return out / unit


def gaussians_in_loops(embeddings, centres, log_sigmas):
    N, (_, H, W) = len(centres), embeddings.shape
    masks = torch.zeros(N, H, W, dtype=torch.bool)
    for n in range(N):
        for y in range(H):
            for x in range(W):
                total = 0.0
                for axis in range(2):
                    sigma = math.exp(log_sigmas[n, axis])
                    total += (float(embeddings[axis, y, x]) - float(centres[n, axis])) ** 2 / (2 * sigma * sigma)
                masks[n, y, x] = math.exp(-total) > 0.5
    return masks


def gaussians_by_logarithm(embeddings, centres, log_sigmas):
    """The ellipse of 1.18 sigmas."""
    away = (embeddings[None] - centres.reshape(-1, 2, 1, 1)) * (-log_sigmas).exp().reshape(-1, 2, 1, 1)
    return away.norm(dim=1) < math.sqrt(2 * math.log(2))


def gaussians_in_numpy(embeddings, centres, log_sigmas):
    e, c, s = embeddings.numpy(), centres.numpy(), np.exp(log_sigmas.numpy())
    y, x = (np.exp(-((e[k] - c[:, k, None, None]) ** 2) / (2 * s[:, k, None, None] ** 2)) for k in (0, 1))
    return y * x > 0.5


def gaussians_by_einsum(embeddings, centres, log_sigmas):
    away = embeddings.unsqueeze(0) - centres[..., None, None]
    precision = 0.5 * torch.exp(-2 * log_sigmas)
    return torch.einsum("nkhw,nk->nhw", away**2, precision) < math.log(2)


def cluster_by_sorting(embeddings, sigma, seed, seed_threshold, min_pixels):
    """All starts in order, once; those that were turned down or taken are passed over."""
    e, s, scores = embeddings.reshape(2, -1).numpy(), sigma.reshape(2, -1).numpy(), seed.reshape(-1).numpy()
    labels = np.zeros(scores.size, int)
    free, out = scores > 0.5, np.zeros(scores.size, bool)
    count = 0
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] <= seed_threshold or not free[i] or out[i]:
            continue
        near = np.exp(-((e[0] - e[0, i]) ** 2) / (2 * s[0, i] ** 2) - (e[1] - e[1, i]) ** 2 / (2 * s[1, i] ** 2)) > 0.5
        members = np.flatnonzero(near & free)
        out[members] = True
        if len(members) >= min_pixels:
            count += 1
            labels[members] = count
            free[members] = False
    return labels.reshape(seed.shape)


def cluster_in_loops(embeddings, sigma, seed, seed_threshold, min_pixels):
    H, W = seed.shape
    free = {(y, x) for y in range(H) for x in range(W) if seed[y, x] > 0.5}
    starts = {p for p in free if seed[p] > seed_threshold}
    labels, number = torch.zeros(H, W, dtype=torch.long), 0
    while starts:
        best = max(sorted(starts), key=lambda p: float(seed[p]))
        centre = [float(embeddings[(k, *best)]) for k in (0, 1)]
        width = [float(sigma[(k, *best)]) for k in (0, 1)]
        members = set()
        for p in free:
            d = sum((float(embeddings[(k, *p)]) - centre[k]) ** 2 / (2 * width[k] ** 2) for k in (0, 1))
            if math.exp(-d) > 0.5:
                members.add(p)
        starts -= members
        if len(members) >= min_pixels:
            number += 1
            free -= members
            for p in members:
                labels[p] = number
    return labels


def cluster_with_label_map(embeddings, sigma, seed, seed_threshold, min_pixels):
    """What is still free is read from the labels; seeds are set to 0 in a copy."""
    scores = seed.clone()
    scores[scores <= 0.5] = 0
    labels = torch.zeros(seed.shape, dtype=torch.int32)
    while scores.max() > seed_threshold:
        y, x = divmod(int(scores.argmax()), seed.shape[1])
        away = (embeddings - embeddings[:, y, x].view(2, 1, 1)) / sigma[:, y, x].view(2, 1, 1)
        inside = away.square().sum(0) < 2 * math.log(2)
        members = inside & (labels == 0) & (seed > 0.5)
        scores[members] = 0
        if members.sum() >= min_pixels:
            labels[members] = int(labels.max()) + 1
    return labels


def lovasz_in_loops(errors, truth):
    total = float(truth.sum())
    ranked = sorted(range(len(errors)), key=lambda i: -float(errors[i]))
    weights, before = [0.0] * len(errors), 0.0
    missing = extra = 0
    for i in ranked:
        if truth[i] == 1:
            missing += 1
        else:
            extra += 1
        cost = 1 - (total - missing) / (total + extra)
        weights[i] = cost - before
        before = cost
    return weights


def lovasz_by_autograd(errors, truth):
    """The gradient of the library's loss."""
    errors = errors.clone().requires_grad_()
    loss = lovasz_extension(errors, truth, torch.ones_like(truth).bool())
    return torch.autograd.grad(loss, errors)[0]


def lovasz_in_numpy(errors, truth):
    order = np.argsort(-errors.numpy())
    y = truth.numpy()[order]
    costs = 1 - (y.sum() - np.cumsum(y)) / (y.sum() + np.cumsum(1 - y))
    return np.diff(costs, prepend=0)[np.argsort(order)]


def lovasz_by_counting(errors, truth):
    """Counts for each pixel those that are at least as wrong."""
    before, with_it = errors[None] > errors[:, None], errors[None] >= errors[:, None]
    missing, extra = (torch.stack([(m * t).sum(1) for m in (before, with_it)]) for t in (truth, 1 - truth))
    n = truth.sum()
    union = n + extra
    cost = torch.where(union > 0, 1 - (n - missing) / union.clamp(min=1), 0.0)  # nothing yet costs nothing
    return cost[1] - cost[0]


def terms_in_loops(embeddings, label_map, pull_margin, push_margin):
    groups = {}
    D, H, W = embeddings.shape
    for y in range(H):
        for x in range(W):
            if number := int(label_map[y, x]):
                groups.setdefault(number, []).append([float(v) for v in embeddings[:, y, x]])
    if not groups:
        return 0.0, 0.0
    means = {k: [sum(v[d] for v in g) / len(g) for d in range(D)] for k, g in groups.items()}
    pull = 0.0
    for k, g in groups.items():
        pull += sum(max(0.0, math.dist(v, means[k]) - pull_margin) ** 2 for v in g) / len(g)
    push = 0.0
    for a in means:
        for b in means:
            if a != b:
                push += max(0.0, 2 * push_margin - math.dist(means[a], means[b])) ** 2
    C = len(means)
    return pull / C, push / (C * (C - 1)) if C > 1 else 0.0


def terms_by_index_add(embeddings, label_map, pull_margin, push_margin):
    inside = label_map > 0
    x = embeddings[:, inside].T
    numbers, index, counts = label_map[inside].unique(return_inverse=True, return_counts=True)
    C = len(numbers)
    if C == 0:
        return 0.0, 0.0
    means = torch.zeros(C, x.shape[1], dtype=x.dtype).index_add_(0, index, x) / counts[:, None]
    far = torch.relu((x - means[index]).norm(dim=1) - pull_margin) ** 2
    pull = torch.zeros(C, dtype=x.dtype).index_add_(0, index, far) / counts
    near = torch.relu(2 * push_margin - torch.linalg.norm(means[:, None] - means[None], dim=2)) ** 2
    near.fill_diagonal_(0)
    return pull.mean(), near.sum() / max(1, C * (C - 1))


def terms_in_numpy(embeddings, label_map, pull_margin, push_margin):
    e, labels = embeddings.numpy(), label_map.numpy()
    groups = [e[:, labels == n] for n in np.unique(labels) if n]
    if not groups:
        return np.float64(0), np.float64(0)
    means = [g.mean(axis=1) for g in groups]
    pulls = [
        np.mean(np.maximum(0, np.sqrt(((g.T - m) ** 2).sum(axis=1)) - pull_margin) ** 2)
        for g, m in zip(groups, means, strict=True)
    ]
    pushes = [
        max(0, 2 * push_margin - np.linalg.norm(a - b)) ** 2
        for i, a in enumerate(means)
        for j, b in enumerate(means)
        if i != j
    ]
    return float(np.mean(pulls)), float(np.mean(pushes)) if pushes else 0.0


def affinities_in_loops(label_map, offsets):
    H, W = label_map.shape
    out = torch.full((len(offsets), H, W), 255)
    for a, (dy, dx) in enumerate(offsets):
        for y in range(H):
            for x in range(W):
                j, i = y + dy, x + dx
                if 0 <= j < H and 0 <= i < W:
                    out[a, y, x] = int(label_map[y, x] != 0 and label_map[y, x] == label_map[j, i])
    return out


def affinities_by_padding(label_map, offsets):
    """-1 stands outside."""
    H, W = label_map.shape
    planes = []
    for dy, dx in offsets:
        m, n = abs(dy), abs(dx)
        padded = torch.nn.functional.pad(label_map, (n, n, m, m), value=-1)
        other = padded[m + dy : m + dy + H, n + dx : n + dx + W]
        same = ((other == label_map) & (label_map > 0)).to(torch.uint8)
        planes.append(same.masked_fill(other == -1, 255))
    return torch.stack(planes)


def affinities_by_slices(label_map, offsets):
    labels = label_map.numpy()
    H, W = labels.shape
    out = np.full((len(offsets), H, W), 255, dtype=np.uint8)
    for plane, (dy, dx) in zip(out, offsets, strict=True):
        if abs(dy) >= H or abs(dx) >= W:
            continue
        here = (slice(max(0, -dy), H - max(0, dy)), slice(max(0, -dx), W - max(0, dx)))
        there = (slice(max(0, dy), H - max(0, -dy)), slice(max(0, dx), W - max(0, -dx)))
        plane[here] = (labels[here] == labels[there]) * (labels[here] > 0)
    return out


ALTERNATIVES = {
    "offset_target": [offsets_in_loops, offsets_by_bincount, offsets_by_scipy],
    "gaussian_mask": [gaussians_in_loops, gaussians_by_logarithm, gaussians_in_numpy, gaussians_by_einsum],
    "greedy_cluster": [cluster_by_sorting, cluster_in_loops, cluster_with_label_map],
    "lovasz_grad": [lovasz_in_loops, lovasz_by_autograd, lovasz_in_numpy, lovasz_by_counting],
    "pull_push": [terms_in_loops, terms_by_index_add, terms_in_numpy],
    "affinities": [affinities_in_loops, affinities_by_padding, affinities_by_slices],
}
