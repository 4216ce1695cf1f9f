"""Right answers of other kinds: loops, numpy, torch, scipy, scikit-image. All of them must be accepted."""

from __future__ import annotations

import heapq
import math

import numpy as np
import torch
from scipy import ndimage, spatial
from skimage.feature import peak_local_max
from skimage.morphology import reconstruction
from skimage.segmentation import watershed

from segedu.instance import signed_distance, stardist
from segedu.instance.cellpose import flows as cellpose_flows


def distance_in_loops(label_map):
    H, W = label_map.shape
    labels = label_map.tolist()
    pixels = [(y, x) for y in range(H) for x in range(W)]
    out = torch.zeros(H, W)
    for y, x in pixels:
        own = labels[y][x]
        others = [p for p in pixels if (labels[p[0]][p[1]] != own if own else labels[p[0]][p[1]] > 0)]
        nearest = min((math.dist(p, (y, x)) for p in others), default=math.hypot(H, W) + 0.5)
        out[y, x] = nearest - 0.5 if own else 0.5 - nearest
    return out


def distance_by_pairs(label_map):
    """All distances between all pixels."""
    places = torch.stack(torch.meshgrid(*map(torch.arange, label_map.shape), indexing="ij")).flatten(1).T.double()
    labels = label_map.flatten()
    far = (places[:, None] - places[None]).norm(dim=2)
    wanted = torch.where(labels[:, None] > 0, labels[None] != labels[:, None], labels[None] > 0)
    far = far.masked_fill(~wanted, math.hypot(*label_map.shape) + 0.5).amin(dim=1) - 0.5
    return torch.where(labels > 0, far, -far).reshape(label_map.shape)


def distance_in_numpy(label_map):
    labels = label_map.numpy()
    if labels.min() == labels.max():
        return np.full(labels.shape, np.hypot(*labels.shape) * (1 if labels.max() else -1))
    out = -(ndimage.distance_transform_edt(labels == 0) - 0.5)
    for number in np.unique(labels[labels != 0]):
        depth = ndimage.distance_transform_edt(labels == number) - 0.5
        out = np.where(labels == number, depth, out)
    return out


def distance_of_the_library(label_map):
    return signed_distance.signed_distance(label_map)


def decode_with_a_queue(distance, min_distance):
    """No scikit-image: plateaus by search, water by a heap."""
    H, W = distance.shape
    h = distance.tolist()

    def beside(y, x):
        return [(j, i) for j, i in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)) if 0 <= j < H and 0 <= i < W]

    def reach(start, joins):
        found, open_ = {start}, [start]
        while open_:
            for p in beside(*open_.pop()):
                if p not in found and joins(p):
                    found.add(p)
                    open_.append(p)
        return found

    pixels = [(y, x) for y in range(H) for x in range(W) if h[y][x] > 0]
    tops, seen, piece = [], set(), {}
    for p in pixels:
        if p not in piece:
            piece |= dict.fromkeys(reach(p, lambda q: h[q[0]][q[1]] > 0), p)
        if p not in seen:
            flat = reach(p, lambda q, at=h[p[0]][p[1]]: h[q[0]][q[1]] == at)
            seen |= flat
            if all(h[j][i] <= h[p[0]][p[1]] for q in flat for j, i in beside(*q)):
                tops.append(p)
    taken = []
    for p in sorted(tops, key=lambda p: -h[p[0]][p[1]]):
        if not any(piece[p] == piece[q] and math.dist(p, q) < min_distance for q in taken):
            taken.append(p)
    labels, queue = torch.zeros(H, W, dtype=torch.int64), []
    for n, (y, x) in enumerate(taken, 1):
        labels[y, x] = n
        heapq.heappush(queue, (-h[y][x], n, y, x))
    turn = len(taken)
    while queue:
        _, _, y, x = heapq.heappop(queue)
        for j, i in beside(y, x):
            if h[j][i] > 0 and labels[j, i] == 0:
                labels[j, i] = labels[y, x]
                turn += 1
                heapq.heappush(queue, (-h[j][i], turn, j, i))
    return labels


def decode_by_reconstruction(distance, min_distance):
    """Tops stick out of what is left of the map when it is lowered a little and filled up again."""
    d = np.pad(distance.numpy(), 1, constant_values=-9.0)
    cross = ndimage.generate_binary_structure(2, 1)
    tops, _ = ndimage.label((d - reconstruction(d - 1e-7, d, footprint=cross) > 0.5e-7) & (d > 0))
    places = [np.argwhere(tops == n)[0] for n in range(1, tops.max() + 1)]
    places.sort(key=lambda p: (-d[tuple(p)], tuple(p)))
    pieces, _ = ndimage.label(d > 0)
    seeds, kept = np.zeros(d.shape, int), []
    for p in places:
        near = [q for q in kept if pieces[tuple(q)] == pieces[tuple(p)] and np.linalg.norm(p - q) < min_distance]
        if not near:
            kept.append(p)
            seeds[tuple(p)] = len(kept)
    return watershed(-d, seeds, mask=d > 0)[1:-1, 1:-1]


def decode_by_peaks(distance, min_distance):
    """scikit-image finds candidates; all pixels of one plateau count as one."""
    d = distance.numpy()
    found = np.zeros(d.shape, bool)
    if (d > 0).any():
        cross = ndimage.generate_binary_structure(2, 1)
        peaks = peak_local_max(d, min_distance=1, threshold_abs=0, exclude_border=False, footprint=cross)
        found[tuple(peaks.T)] = True
    found &= d > 0
    plateaus, n = ndimage.label(found)
    tops = []
    for k in range(1, n + 1):
        flat = plateaus == k
        same = ndimage.binary_dilation(flat) & ~flat & (d == d[flat][0])
        if not same.any():  # a slope's upper step touches its lower part
            tops.append(tuple(np.argwhere(flat)[0].tolist()))
    tops.sort(key=lambda p: (-d[p], p))
    pieces, seeds, kept = ndimage.label(d > 0)[0], np.zeros(d.shape, np.int64), []
    for p in tops:
        if min([math.dist(p, q) for q in kept if pieces[p] == pieces[q]], default=math.inf) >= min_distance:
            kept.append(p)
            seeds[p] = len(kept)
    return watershed(-d, seeds, mask=d > 0)


def stars_in_loops(label_map, n_rays):
    H, W = label_map.shape
    out = np.zeros((n_rays, H, W))
    for k in range(n_rays):
        dy, dx = math.sin(2 * math.pi * k / n_rays), math.cos(2 * math.pi * k / n_rays)
        for y in range(H):
            for x in range(W):
                t = 0
                while label_map[y, x] > 0:
                    t += 1
                    j, i = round(y + t * dy), round(x + t * dx)
                    if not (0 <= j < H and 0 <= i < W) or label_map[j, i] != label_map[y, x]:
                        out[k, y, x] = t - 1 + 0.5 / max(abs(dy), abs(dx))
                        break
    return out


def stars_by_steps(label_map, n_rays):
    """All rays of all pixels one step at a time."""
    H, W = label_map.shape
    angle = torch.linspace(0, 2 * torch.pi, n_rays + 1, dtype=torch.float64)[:-1, None, None]
    dy, dx = torch.sin(angle), torch.cos(angle)
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    walking = (label_map > 0).expand(n_rays, H, W).clone()
    steps = torch.zeros(n_rays, H, W)
    t = 0
    while walking.any():
        t += 1
        steps += walking
        j, i = torch.round(y + t * dy).long(), torch.round(x + t * dx).long()
        inside = (j >= 0) & (j < H) & (i >= 0) & (i < W)
        walking &= inside & (label_map[j.clamp(0, H - 1), i.clamp(0, W - 1)] == label_map)
    half = 0.5 / torch.maximum(dy.abs(), dx.abs())
    return (steps - 1 + half) * (label_map > 0)


def stars_by_shifts(label_map, n_rays):
    """The whole map moved along the ray."""
    labels = label_map.numpy()
    reach = max(labels.shape)
    padded = np.pad(labels, 2 * reach)
    H, W = labels.shape
    out = np.zeros((n_rays, H, W), np.float32)
    for k, angle in enumerate(np.arange(n_rays) * 2 * np.pi / n_rays):
        dy, dx = np.sin(angle), np.cos(angle)
        inside = labels > 0
        out[k][inside] = 0.5 / max(abs(dy), abs(dx))
        for t in range(1, 2 * reach):
            y, x = (int(np.floor(t * d + 0.5)) + 2 * reach for d in (dy, dx))
            inside = inside & (padded[y : y + H, x : x + W] == labels)
            out[k] += inside
    return out


def stars_of_the_library(label_map, n_rays):
    return stardist.star_distances(label_map, n_rays)


def nms_in_loops(polygons, scores, shared, overlap_threshold):
    def area(corners):
        total = 0.0
        for (y0, x0), (y1, x1) in zip(corners, corners[1:] + corners[:1], strict=True):
            total += x0 * y1 - x1 * y0
        return abs(total) / 2

    areas = [area(corners) for corners in polygons.tolist()]
    kept = []
    for i in sorted(range(len(areas)), key=lambda i: -float(scores[i])):
        for j in kept:
            smaller = min(areas[i], areas[j])
            if smaller > 0 and shared[i, j] / smaller > overlap_threshold:
                break
        else:
            kept.append(i)
    return kept


def nms_by_removal(polygons, scores, shared, overlap_threshold):
    """The best of what is left removes."""
    y, x = polygons.numpy()[..., 0], polygons.numpy()[..., 1]
    areas = np.abs((x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1)) / 2
    left, kept, s = np.argsort(-scores.numpy(), kind="stable"), [], shared.numpy()
    while left.size:
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[s[best, left] <= overlap_threshold * np.minimum(areas[best], areas[left])]
    return np.array(kept, dtype=np.int64)


def nms_by_flags(polygons, scores, shared, overlap_threshold):
    areas = torch.diagonal(shared)
    order = torch.sort(scores, descending=True, stable=True).indices
    gone = torch.zeros(len(order), dtype=torch.bool)
    for rank, i in enumerate(order):
        if not gone[i]:
            worse = order[rank + 1 :]
            smaller = torch.minimum(areas[i], areas[worse]).clamp(min=1e-12)
            gone[worse] |= shared[i, worse] / smaller > overlap_threshold
    return order[~gone[order]]


def flow_in_loops(label_map, steps):
    H, W = label_map.shape
    labels = label_map.numpy()
    flows = np.zeros((2, H, W))
    for number in set(labels.ravel().tolist()) - {0}:
        pixels = [(y, x) for y in range(H) for x in range(W) if labels[y, x] == number]
        mean = [sum(axis) / len(pixels) for axis in zip(*pixels, strict=True)]
        source = min(pixels, key=lambda p: (p[0] - mean[0]) ** 2 + (p[1] - mean[1]) ** 2)
        heat = dict.fromkeys(pixels, 0.0)
        for _ in range(steps):
            heat[source] += 1
            heat = {
                (y, x): sum(heat.get((y + j, x + i), 0.0) for j in (-1, 0, 1) for i in (-1, 0, 1)) / 9
                for y, x in pixels
            }
        for y, x in pixels:
            dy = heat.get((y + 1, x), 0.0) - heat.get((y - 1, x), 0.0)
            dx = heat.get((y, x + 1), 0.0) - heat.get((y, x - 1), 0.0)
            length = math.hypot(dy, dx)
            if length >= 3e-7:
                flows[:, y, x] = dy / length, dx / length
    return flows


def flow_by_scipy(label_map, steps):
    labels = np.pad(label_map.numpy(), 1)
    flows = np.zeros((2, *labels.shape))
    for number in np.unique(labels)[1:] if labels.any() else []:
        inside = labels == number
        away = np.where(inside, sum((g - g[inside].mean()) ** 2 for g in np.indices(labels.shape)), np.inf)
        source = np.unravel_index(away.argmin(), away.shape)
        heat = np.zeros(labels.shape)
        for _ in range(steps):
            heat[source] += 1
            heat = inside * ndimage.uniform_filter(heat, 3, mode="constant")
        slope = np.stack([ndimage.correlate1d(heat, [-1, 0, 1], axis, mode="constant") for axis in (0, 1)])
        length = np.linalg.norm(slope, axis=0)
        slope[:, length < 3e-7] = 0
        flows += inside * slope / np.where(length < 3e-7, 1, length)
    return flows[:, 1:-1, 1:-1]


def flow_all_at_once(label_map, steps):
    """Nine shifts, each only where both pixels are of one cell: all cells spread in one map, in single precision."""
    labels = torch.nn.functional.pad(label_map, (1, 1, 1, 1))
    heat = torch.zeros(labels.shape)
    sources = torch.zeros_like(heat)
    for number in labels.unique()[labels.unique() > 0]:
        places = (labels == number).nonzero()
        sources[tuple(places[(places - places.double().mean(0)).square().sum(1).argmin()])] = 1

    def at(values, dy, dx):
        same = (labels.roll((-dy, -dx), (0, 1)) == labels) & (labels > 0)
        return values.roll((-dy, -dx), (0, 1)) * same

    for _ in range(steps):
        heat = heat + sources
        heat = sum(at(heat, dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9
    slope = torch.stack([at(heat, 1, 0) - at(heat, -1, 0), at(heat, 0, 1) - at(heat, 0, -1)])
    length = slope.square().sum(0).sqrt()
    return torch.where(length >= 3e-7, slope / length.clamp(min=1e-30), 0.0)[:, 1:-1, 1:-1]


def follow_in_loops(flows, foreground, steps):
    H, W = foreground.shape
    field = (flows * foreground).numpy()
    starts = [(y, x) for y in range(H) for x in range(W) if foreground[y, x]]
    ends = []
    for y, x in starts:
        for _ in range(steps):
            j, i = min(int(y), max(H - 2, 0)), min(int(x), max(W - 2, 0))
            v, u = y - j, x - i
            moves = []
            for plane in field:
                corners = [plane[min(j + a, H - 1), min(i + b, W - 1)] for a in (0, 1) for b in (0, 1)]
                weights = [(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u]
                moves.append(sum(w * c for w, c in zip(weights, corners, strict=True)))
            y, x = min(max(y + moves[0], 0), H - 1), min(max(x + moves[1], 0), W - 1)
        ends.append((y, x))
    numbers = [0] * len(ends)
    label_map = torch.zeros(H, W, dtype=torch.int32)
    for start in range(len(ends)):
        if numbers[start]:
            continue
        numbers[start] = max(numbers) + 1
        open_ = [start]
        while open_:
            one = open_.pop()
            for other in range(len(ends)):
                if not numbers[other] and math.dist(ends[one], ends[other]) <= 1:
                    numbers[other] = numbers[start]
                    open_.append(other)
    for p, number in zip(starts, numbers, strict=True):
        label_map[p] = number
    return torch.tensor(ends, dtype=torch.float64).reshape(-1, 2), label_map


def follow_by_scipy(flows, foreground, steps):
    """`map_coordinates` interpolates; a tree of single links, cut at 1."""
    field, mask = (flows * foreground).numpy(), foreground.numpy()
    places = np.argwhere(mask).T.astype(float)
    for _ in range(steps):
        places = places + [ndimage.map_coordinates(plane, places, order=1, mode="nearest") for plane in field]
        places = np.clip(places, 0, np.array(mask.shape)[:, None] - 1)
    ends, label_map = places.T, np.zeros(mask.shape, int)
    if len(ends):
        near = spatial.distance.squareform(spatial.distance.pdist(ends)) <= 1
        numbers = np.arange(len(ends))
        for _ in range(len(ends)):
            numbers = np.where(near, numbers, len(ends)).min(axis=1)
        label_map[mask] = np.unique(numbers, return_inverse=True)[1] + 1
    return ends, label_map


def follow_by_grid_sample(flows, foreground, steps):
    H, W = foreground.shape
    size, last = torch.tensor([W, H]).double(), torch.tensor([H - 1, W - 1]).double()
    places = foreground.nonzero().double()
    for _ in range(steps):
        grid = (2 * places.flip(1) + 1) / size - 1
        moved = torch.nn.functional.grid_sample(
            (flows * foreground)[None], grid[None, None], mode="bilinear", padding_mode="border", align_corners=False
        )
        places = torch.minimum((places + moved[0, :, 0].T).clamp(min=0), last)
    near = (places[:, None] - places[None]).norm(dim=2) < 1 + 1e-9
    numbers = torch.arange(1, len(places) + 1)
    while len(places):  # the least number spreads along the chain
        least = torch.where(near, numbers, len(places)).amin(dim=1)
        if torch.equal(least, numbers):
            break
        numbers = least
    label_map = torch.zeros(H, W, dtype=torch.int64)
    label_map[foreground] = torch.unique(numbers, return_inverse=True)[1] + 1
    return places, label_map


def follow_by_cdist(flows, foreground, steps):
    """The library's drift, in single precision, and torch's distances."""
    ends = cellpose_flows.follow_flows(flows, foreground, steps)[:, foreground].T.contiguous()
    near = (torch.cdist(ends, ends, compute_mode="donot_use_mm_for_euclid_dist") <= 1 + 1e-5).float()
    for _ in range(int(math.log2(len(ends) + 1)) + 1):
        near = ((near @ near) > 0).float()
    label_map = torch.zeros(foreground.shape, dtype=torch.int32)
    firsts = near.argmax(dim=1) if len(ends) else torch.zeros(0, dtype=torch.int64)
    label_map[foreground] = (torch.unique(firsts, return_inverse=True)[1] + 1).int()
    return ends, label_map


ALTERNATIVES = {
    "signed_distance": [distance_in_loops, distance_by_pairs, distance_in_numpy, distance_of_the_library],
    "watershed_decode": [decode_with_a_queue, decode_by_reconstruction, decode_by_peaks],
    "star_distances": [stars_in_loops, stars_by_steps, stars_by_shifts, stars_of_the_library],
    "polygon_nms": [nms_in_loops, nms_by_removal, nms_by_flags],
    "diffusion_flow": [flow_in_loops, flow_by_scipy, flow_all_at_once],
    "follow_flows": [follow_in_loops, follow_by_scipy, follow_by_grid_sample, follow_by_cdist],
}
