"""Right answers of other kinds: loops, numpy, scipy, matrix products. All of them must be accepted."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from scipy.spatial.distance import cdist


def otsu_in_loops(image, bins):
    values = [float(v) for v in image.flatten()]
    low, high = min(values), max(values)
    if high == low:
        return low
    width = (high - low) / bins
    numbers = [min(int((v - low) / width), bins - 1) for v in values]
    best, threshold = -1.0, None
    for split in range(bins - 1):
        dark = [k for k in numbers if k <= split]
        bright = [k for k in numbers if k > split]
        gap = sum(dark) / len(dark) - sum(bright) / len(bright)
        between = len(dark) * len(bright) * gap**2
        if between > best:
            best, threshold = between, low + (split + 0.5) * width
    return threshold


def otsu_by_shares(image, bins):
    if image.max() == image.min():
        return image.max().item()
    counts, edges = torch.histogram(image.double(), bins)
    centres = (edges[1:] + edges[:-1]) / 2
    p = counts / counts.sum()
    omega, mu = p.cumsum(0), (p * centres).cumsum(0)
    between = (mu[-1] * omega - mu)[:-1] ** 2 / (omega * (1 - omega))[:-1]
    return centres[between.argmax()]


def otsu_within(image, bins):
    """The smallest variance within the classes; variances in exact numbers, so that ties stay ties."""
    x = image.numpy().astype(np.float64)
    if np.ptp(x) == 0:
        return x.flat[0]
    counts, edges = np.histogram(x, bins)
    numbers = np.arange(bins)
    costs = []
    for t in range(1, bins):
        parts = [(counts[:t], numbers[:t]), (counts[t:], numbers[t:])]
        costs.append(sum(int((c * n * n).sum()) - int((c * n).sum()) ** 2 / int(c.sum()) for c, n in parts))
    best = int(np.argmin(costs))
    return (edges[best] + edges[best + 1]) / 2


def kmeans_in_loops(points, centres):
    labels = []
    for point in points.tolist():
        distances = [math.dist(point, centre) for centre in centres.tolist()]
        labels.append(distances.index(min(distances)))
    moved = []
    for k, centre in enumerate(centres.tolist()):
        own = [p for p, label in zip(points.tolist(), labels, strict=True) if label == k]
        moved.append([sum(c) / len(own) for c in zip(*own, strict=True)] if own else centre)
    return torch.tensor(labels), torch.tensor(moved, dtype=torch.float64)


def kmeans_by_one_hot(points, centres):
    labels = torch.cdist(points, centres).argmin(1)
    hot = F.one_hot(labels, len(centres)).double()
    counts = hot.sum(0)[:, None]
    return labels, torch.where(counts > 0, hot.T @ points / counts.clamp(min=1), centres)


def kmeans_by_expansion(points, centres):
    """|c|^2 - 2 x.c decides; index_add_ gathers."""
    labels = ((centres**2).sum(1) - 2 * points @ centres.T).argmin(1)
    sums = torch.zeros_like(centres).index_add_(0, labels, points)
    counts = torch.bincount(labels, minlength=len(centres))
    moved = centres.clone()
    moved[counts > 0] = sums[counts > 0] / counts[counts > 0, None]
    return labels, moved


def kmeans_in_numpy(points, centres):
    x, c = points.numpy(), centres.numpy().copy()
    labels = np.linalg.norm(x[:, None] - c[None], axis=2).argmin(axis=1)
    for k in np.unique(labels):
        c[k] = x[labels == k].mean(axis=0)
    return labels, c


def xy_in_loops(image, weight):
    C, H, W = image.shape
    rows = []
    for y in range(H):
        for x in range(W):
            place = [weight * y / max(H, W), weight * x / max(H, W)]
            rows.append([float(image[c, y, x]) for c in range(C)] + place)
    return torch.tensor(rows)


def xy_by_meshgrid(image, weight):
    H, W = image.shape[1:]
    y, x = torch.meshgrid(torch.arange(H) / max(H, W), torch.arange(W) / max(H, W), indexing="ij")
    return torch.stack([*image, weight * y, weight * x], dim=-1).reshape(H * W, -1)


def xy_in_numpy(image, weight):
    C, H, W = image.shape
    place = np.indices((H, W)).reshape(2, -1).T * weight / max(H, W)
    return np.hstack([image.numpy().transpose(1, 2, 0).reshape(-1, C), place])


def pca_by_covariance(features, n):
    x = features - features.mean(0, keepdim=True)
    _, vectors = torch.linalg.eigh(x.T @ x / max(len(x) - 1, 1))
    return x @ vectors.flip(1)[:, :n]


def pca_by_left_vectors(features, n):
    x = features - features.mean(0)
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    return -(u * s)[:, :n]


def pca_by_gram(features, n):
    """The eigenvectors of the N x N matrix of products."""
    x = features.numpy() - features.numpy().mean(0)
    values, vectors = np.linalg.eigh(x @ x.T)
    order = np.argsort(values)[::-1][:n]
    return vectors[:, order] * np.sqrt(np.maximum(values[order], 0))


def pca_by_covariance_of_numpy(features, n):
    x = np.asarray(features)
    values, vectors = np.linalg.eig(np.atleast_2d(np.cov(x, rowvar=False)))
    order = np.argsort(-values.real)[:n]
    return (x - x.mean(axis=0)) @ vectors.real[:, order]


def ncut_in_loops(weights, inside):
    N = len(weights)
    cut, assoc = 0.0, [0.0, 0.0]
    for i in range(N):
        for j in range(N):
            w = float(weights[i, j])
            assoc[int(inside[i])] += w
            if inside[i] and not inside[j]:
                cut += w
    return sum(cut / a for a in assoc if a > 0)


def ncut_by_matrices(weights, inside):
    a = inside.double()
    b = 1 - a
    degrees = weights.sum(dim=1)
    cut = a @ weights @ b
    return (cut / (a @ degrees)).nan_to_num(0) + (cut / (b @ degrees)).nan_to_num(0)


def ncut_in_numpy(weights, inside):
    w, a = np.asarray(weights), np.asarray(inside)
    degree, cut = w.sum(axis=1), w[np.ix_(a, ~a)].sum()
    return float(np.sum([cut / degree[side].sum() for side in (a, ~a) if degree[side].any()]))


def ncut_from_associations(weights, inside):
    """Each fraction is 1 less what the side has within."""
    total = 0.0
    for side in (inside, ~inside):
        whole = weights[side].sum()
        if whole:
            total += 1 - weights[side][:, side].sum() / whole
    return float(total)


def markers_by_pooling(mask, min_distance):
    distance = torch.from_numpy(ndimage.distance_transform_edt(mask))
    size = 2 * min_distance + 1
    highest = F.max_pool2d(distance[None, None], size, stride=1, padding=min_distance)[0, 0]
    summits = (distance == highest) & (distance > 0)
    return torch.from_numpy(ndimage.label(summits, structure=np.ones((3, 3)))[0])


def markers_in_loops(mask, min_distance):
    H, W = mask.shape
    holes = np.argwhere(~mask.numpy())
    pixels = np.argwhere(mask.numpy())
    square = {}
    if len(pixels):
        nearest = cdist(pixels, holes, "sqeuclidean").min(axis=1)
        square = {tuple(p): d for p, d in zip(pixels.tolist(), nearest, strict=True)}
    summits = set()
    for (y, x), height in square.items():
        reach = range(-min_distance, min_distance + 1)
        if all(square.get((y + i, x + j), 0) <= height for i in reach for j in reach):
            summits.add((y, x))
    markers, number = np.zeros((H, W), np.int64), 0
    for start in sorted(summits):
        if markers[start]:
            continue
        number += 1
        todo = [start]
        while todo:
            y, x = todo.pop()
            if (y, x) in summits and not markers[y, x]:
                markers[y, x] = number
                todo += [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return markers


def markers_by_dilation(mask, min_distance):
    d = ndimage.distance_transform_edt(mask.numpy()) * mask.numpy()
    around = ndimage.grey_dilation(d, size=(2 * min_distance + 1,) * 2, mode="reflect")
    return ndimage.label((d >= around) * mask.numpy(), np.ones((3, 3), int))[0]


ALTERNATIVES = {
    "otsu": [otsu_in_loops, otsu_by_shares, otsu_within],
    "kmeans_step": [kmeans_in_loops, kmeans_by_one_hot, kmeans_by_expansion, kmeans_in_numpy],
    "xy_features": [xy_in_loops, xy_by_meshgrid, xy_in_numpy],
    "pca_project": [pca_by_covariance, pca_by_left_vectors, pca_by_gram, pca_by_covariance_of_numpy],
    "ncut_value": [ncut_in_loops, ncut_by_matrices, ncut_in_numpy, ncut_from_associations],
    "watershed_markers": [markers_by_pooling, markers_in_loops, markers_by_dilation],
}
