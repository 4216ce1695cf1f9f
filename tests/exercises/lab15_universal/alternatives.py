"""Right answers of other kinds: loops, numpy, scipy, torch.nn, single precision. All of them must be accepted."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from scipy.special import expit, softmax


def merged_in_loops(masks, labels, scores, semantic, things, score_threshold, overlap_threshold, stuff_area):
    """Pixel by pixel, in lists."""
    H, W = semantic.shape
    seg, found = [[0] * W for _ in range(H)], []
    for n in sorted(range(len(scores)), key=lambda n: -float(scores[n])):
        pixels = [(y, x) for y in range(H) for x in range(W) if masks[n, y, x]]
        free = [(y, x) for y, x in pixels if seg[y][x] == 0]
        if scores[n] < score_threshold or not free:
            continue
        if len(pixels) - len(free) > overlap_threshold * len(pixels):
            continue
        found.append({"id": len(found) + 1, "category_id": int(labels[n]), "isthing": True})
        for y, x in free:
            seg[y][x] = len(found)
    for category in range(256):
        pixels = [(y, x) for y in range(H) for x in range(W) if seg[y][x] == 0 and semantic[y, x] == category]
        if category == 255 or category in things or len(pixels) < stuff_area:
            continue
        found.append({"id": len(found) + 1, "category_id": category, "isthing": False})
        for y, x in pixels:
            seg[y][x] = len(found)
    return np.array(seg), found


def merged_in_numpy(masks, labels, scores, semantic, things, score_threshold, overlap_threshold, stuff_area):
    """The taken pixels in a mask of their own; stuff by bincount."""
    masks, semantic = masks.numpy(), semantic.numpy()
    order = np.argsort(-scores.numpy(), kind="stable")
    order = order[scores.numpy()[order] >= score_threshold]
    taken, seg, found = np.zeros(semantic.shape, dtype=bool), np.zeros(semantic.shape, dtype=np.int32), []
    for n in order:
        free = masks[n] & ~taken
        if free.any() and (masks[n] & taken).sum() / masks[n].sum() <= overlap_threshold:
            seg[free] = len(found) + 1
            found.append({"id": len(found) + 1, "category_id": labels[n].item(), "isthing": True})
            taken |= masks[n]
    counts = np.bincount(semantic[~taken], minlength=256)
    counts[[*things, 255]] = 0
    for category in (counts >= max(1, stuff_area)).nonzero()[0].tolist():
        seg[(semantic == category) & ~taken] = len(found) + 1
        found.append({"id": len(found) + 1, "category_id": category, "isthing": False})
    return seg, found


def masks_of_resized_features(class_logits, mask_embed, mask_features, image_size):
    """The features are resized, and then multiplied: both are sums of the same numbers."""
    large = F.interpolate(mask_features[None], image_size, mode="bilinear", align_corners=False)[0]
    return F.softmax(class_logits, dim=-1)[:, :-1], (mask_embed @ large.flatten(1)).unflatten(1, image_size).sigmoid()


def masks_by_convolution(class_logits, mask_embed, mask_features, image_size):
    """Each query's vector is a filter of 1 x 1; in single precision."""
    logits = F.conv2d(mask_features[None].float(), mask_embed.float()[:, :, None, None])
    large = torch.nn.Upsample(image_size, mode="bilinear")(logits)
    p = class_logits.float().exp()
    return (p / p.sum(1, keepdim=True))[:, : p.shape[1] - 1], torch.sigmoid(large)[0]


def masks_in_loops(class_logits, mask_embed, mask_features, image_size):
    """Both resized by hand, in numpy."""
    embed, features, (H, W) = mask_embed.numpy(), mask_features.numpy(), image_size
    _, h, w = features.shape
    found = np.zeros((len(embed), H, W))
    for q, y, x in itertools.product(range(len(embed)), range(H), range(W)):
        places = [np.clip((i + 0.5) * n / N - 0.5, 0, n - 1) for i, n, N in ((y, h, H), (x, w, W))]
        for dy, dx in itertools.product((0, 1), (0, 1)):
            row, column = min(int(places[0]) + dy, h - 1), min(int(places[1]) + dx, w - 1)
            share = abs(1 - dy - places[0] % 1) * abs(1 - dx - places[1] % 1)
            found[q, y, x] += share * (embed[q] * features[:, row, column]).sum()
    return softmax(class_logits.numpy(), axis=1)[:, :-1], expit(found)


def attention_with_added_mask(queries, keys, values, mask_logits, size):
    """-inf is added; the row without any place is opened before."""
    small = F.interpolate(mask_logits.unsqueeze(0), size=size, mode="bilinear").squeeze(0).flatten(1)
    outside = small.sigmoid() < 0.5
    outside[outside.all(dim=-1)] = False
    bias = torch.zeros_like(small).masked_fill(outside, -math.inf)
    return torch.softmax(queries @ keys.T / math.sqrt(queries.shape[-1]) + bias, dim=-1) @ values


def attention_of_torch(queries, keys, values, mask_logits, size):
    """scaled_dot_product_attention, whose mask says who takes part."""
    with torch.no_grad():
        inside = F.interpolate(mask_logits[:, None], size, mode="bilinear", align_corners=False).flatten(1) >= 0
        inside[inside.sum(dim=1) == 0] = True
    return F.scaled_dot_product_attention(queries[None], keys[None], values[None], attn_mask=inside[None])[0]


def attention_row_by_row(queries, keys, values, mask_logits, size):
    """Only the keys inside are taken at all."""
    rows = []
    for query, logits in zip(queries, mask_logits, strict=True):
        inside = F.interpolate(logits[None, None], size, mode="bilinear", align_corners=False).flatten() >= 0
        chosen = inside.nonzero()[:, 0] if inside.any() else torch.arange(len(keys))
        scores = (keys[chosen] * query).sum(1) / len(query) ** 0.5
        weights = (scores - scores.max().detach()).exp()
        rows.append((weights[:, None] * values[chosen]).sum(0) / weights.sum())
    return torch.stack(rows)


def attention_renormalised(queries, keys, values, mask_logits, size):
    """Multiplied after the softmax, and brought back to the sum 1: the same."""
    inside = F.interpolate(mask_logits[None], size, mode="bilinear", align_corners=False)[0].flatten(1).ge(0)
    inside = torch.where(inside.any(1, keepdim=True), inside, True)
    weights = (queries @ keys.T / queries.shape[1] ** 0.5).softmax(1) * inside
    return weights / weights.sum(1, keepdim=True) @ values


def attention_by_a_table_of_weights(queries, keys, values, mask_logits, size):
    """Weights are written into zeros, which have single precision."""
    inside = F.interpolate(mask_logits[None], size, mode="bilinear")[0].flatten(1) >= 0
    weights = torch.zeros(len(queries), len(keys))
    for q, row in enumerate(inside):
        places = row.nonzero().flatten() if row.any() else torch.arange(len(keys))
        weights[q, places] = torch.softmax(keys[places] @ queries[q] / math.sqrt(queries.shape[1]), 0)
    return weights @ values


def matched_in_loops(class_logits, mask_logits, labels, masks):
    """Every possible match is tried."""
    (Q, P), N = mask_logits.shape, len(labels)
    x = mask_logits.detach().numpy()
    p, y, likely = expit(x), masks.numpy(), softmax(class_logits.detach().numpy(), axis=1)
    cost = np.zeros((Q, N))
    for q, n in itertools.product(range(Q), range(N)):
        entropy = sum(-math.log(p[q, i] if y[n, i] else 1 - p[q, i]) for i in range(P)) / P
        both = sum(p[q, i] for i in range(P) if y[n, i])
        dice = 1 - (2 * both + 1) / (p[q].sum() + y[n].sum() + 1)
        cost[q, n] = -2 * likely[q, labels[n]] + 5 * entropy + 5 * dice
    ways = itertools.permutations(range(Q), N)
    return cost, np.array(min(ways, key=lambda way: sum(cost[q, n] for n, q in enumerate(way))), dtype=np.int64)


@torch.no_grad()
def matched_by_broadcasting(class_logits, mask_logits, labels, masks):
    """Pairs in the order of queries, sorted by target."""
    x, y = torch.broadcast_tensors(mask_logits[:, None], masks.double())
    p = x.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(x, y, reduction="none").mean(-1)
    dice = 1 - (2 * (p * y).sum(-1) + 1) / ((p + y).sum(-1) + 1)
    cost = 5 * entropy + 5 * dice - 2 * class_logits.softmax(-1)[:, labels]
    rows, columns = linear_sum_assignment(cost)
    return cost, torch.from_numpy(rows[np.argsort(columns)])


def matched_in_single_precision(class_logits, mask_logits, labels, masks):
    """Filled up to Q targets that cost nothing."""
    x, y = mask_logits.detach().float(), masks.float()
    entropy = torch.einsum("qp,np->qn", -F.logsigmoid(x), y) + torch.einsum("qp,np->qn", -F.logsigmoid(-x), 1 - y)
    dice = 1 - (2 * torch.einsum("qp,np->qn", x.sigmoid(), y) + 1) / (x.sigmoid().sum(1)[:, None] + y.sum(1) + 1)
    p = class_logits.detach().float().softmax(1)
    cost = -2 * p[:, labels] + 5 * entropy / x.shape[1] + 5 * dice
    filled = np.zeros((len(cost), len(cost)))
    filled[:, : len(labels)] = cost.numpy()
    return cost, linear_sum_assignment(filled.T)[1][: len(labels)]


def matched_pair_by_pair(class_logits, mask_logits, labels, masks):
    """With torch's own cross-entropy; masks become floats by .float(), and scipy's rows are put in order."""
    p, s, y = class_logits.softmax(1), mask_logits.sigmoid(), masks.float()
    cost = torch.zeros(len(mask_logits), len(labels))
    for q, n in itertools.product(range(len(mask_logits)), range(len(labels))):
        entropy = F.binary_cross_entropy_with_logits(mask_logits[q], y[n])
        dice = 1 - (2 * (s[q] @ y[n]) + 1) / (s[q].sum() + y[n].sum() + 1)
        cost[q, n] = -2 * p[q, labels[n]] + 5 * entropy + 5 * dice
    cost = cost.detach()
    queries = torch.zeros(len(labels), dtype=torch.long)
    for q, n in zip(*linear_sum_assignment(cost), strict=True):
        queries[n] = q
    return cost, queries


def read_in_loops(class_logits, mask_logits):
    K, (H, W) = class_logits.shape[1] - 1, mask_logits.shape[1:]
    scores = torch.zeros(K, H, W, dtype=torch.float64)
    for logits, mask in zip(class_logits, mask_logits, strict=True):
        for c in range(K):
            scores[c] += logits.softmax(0)[c] * mask.sigmoid()
    return scores


def read_in_numpy(class_logits, mask_logits):
    p, m = softmax(class_logits.numpy(), axis=-1)[:, :-1], expit(mask_logits.numpy())
    return np.tensordot(p, m, axes=(0, 0))


def read_by_matrices(class_logits, mask_logits):
    """In single precision."""
    p = class_logits.float().softmax(-1)[..., :-1]
    return (p.T @ mask_logits.float().sigmoid().flatten(1)).reshape(-1, *mask_logits.shape[1:])


def task_in_numpy(panoptic_seg, segments, task):
    seg = np.asarray(panoptic_seg)
    text = {t: f"the task is {t}" for t in ("panoptic", "instance", "semantic")}.get(task)
    if text is None:
        raise ValueError(task)
    numbers = set(np.unique(seg).tolist())
    targets = [(s["category_id"], seg == s["id"], s["isthing"]) for s in segments if s["id"] in numbers]
    if task == "semantic":
        merged = {}
        for category, mask, _ in targets:
            merged[category] = merged.get(category, False) | mask
        targets = [(category, merged[category], None) for category in sorted(merged)]
    targets = [(c, m) for c, m, thing in targets if task != "instance" or thing]
    labels = np.array([c for c, _ in targets], dtype=np.int64)
    return text, labels, np.array([m for _, m in targets], dtype=bool).reshape(-1, *seg.shape)


def task_by_isin(panoptic_seg, segments, task):
    if task not in {"panoptic", "instance", "semantic"}:
        raise ValueError("no such task")
    groups = {}
    for s in segments:
        if (panoptic_seg == s["id"]).sum() and not (task == "instance" and not s["isthing"]):
            groups.setdefault(s["category_id"] if task == "semantic" else s["id"], []).append(s)
    if task == "semantic":
        groups = dict(sorted(groups.items()))
    masks = [torch.isin(panoptic_seg, torch.tensor([s["id"] for s in group])) for group in groups.values()]
    labels = torch.tensor([group[0]["category_id"] for group in groups.values()], dtype=torch.long)
    return " ".join(["the", "task", "is", task]), labels, torch.stack(masks) if masks else (panoptic_seg > 0)[None][:0]


ALTERNATIVES = {
    "merge_panoptic": [merged_in_loops, merged_in_numpy],
    "query_masks": [masks_of_resized_features, masks_by_convolution, masks_in_loops],
    "masked_attention": [
        attention_with_added_mask,
        attention_of_torch,
        attention_row_by_row,
        attention_by_a_table_of_weights,
        attention_renormalised,
    ],
    "mask_match": [
        matched_in_loops,
        matched_by_broadcasting,
        matched_in_single_precision,
        matched_pair_by_pair,
    ],
    "semantic_inference": [read_in_loops, read_in_numpy, read_by_matrices],
    "task_token": [task_in_numpy, task_by_isin],
}
