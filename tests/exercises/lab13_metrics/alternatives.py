"""Right answers of other kinds than the library's; every check and grading must accept them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch


def match_loop(iou, scores, iscrowd, iou_threshold):
    """Loops over Python numbers; a list of numbers comes back."""
    table, crowd = iou.tolist(), iscrowd.tolist()
    outcome, free = [0] * len(table), {n for n, c in enumerate(crowd) if not c}
    for p in sorted(range(len(table)), key=lambda p: -scores[p]):
        real = [(table[p][n], n) for n in free if table[p][n] >= iou_threshold]
        if real:
            free.remove(max(real)[1])
            outcome[p] = 1
        elif any(c and v >= iou_threshold for v, c in zip(table[p], crowd, strict=True)):
            outcome[p] = -1
    return torch.tensor(outcome, dtype=torch.int64)


def match_numpy(iou, scores, iscrowd, iou_threshold):
    """Crosses out taken columns in a copy; numpy, 32 bits."""
    table, crowd = iou.numpy().copy(), iscrowd.numpy()
    outcome = np.zeros(len(table), dtype=np.int32)
    real = np.where(crowd, -1.0, table)
    for p in np.argsort(-scores.numpy(), kind="stable"):
        if real.shape[1] and real[p].max() >= iou_threshold:
            real[:, real[p].argmax()] = -1
            outcome[p] = 1
        elif (table[p, crowd] >= iou_threshold).any():
            outcome[p] = -1
    return outcome


def match_torch(iou, scores, iscrowd, iou_threshold):
    """Adds 1 to the IoU of free real objects, so that they win."""
    outcome = torch.zeros(len(scores)).long()
    worth = torch.where(iou >= iou_threshold, iou + (~iscrowd).double(), -1.0)
    for p in torch.argsort(-scores):
        if worth.shape[1] == 0:
            break
        best = int(worth[p].argmax())
        if worth[p, best] > 0:
            outcome[p] = -1 if iscrowd[best] else 1
            if not iscrowd[best]:
                worth[:, best] = -1
    return outcome


def pr_loop(scores, matched, num_target):
    """Counts in a loop; two lists in a list; sorted() is stable."""
    pairs = sorted(zip(scores.tolist(), matched.tolist(), strict=True), key=lambda pair: -pair[0])
    found, precision, recall = 0, [], []
    for k, (_, hit) in enumerate(pairs, start=1):
        found += hit
        precision.append(found / k)
        recall.append(found / num_target if num_target else float("nan"))
    return [torch.tensor(precision), torch.tensor(recall)]


def pr_lists(scores, matched, num_target):
    """Two Python lists, empty ones for no detection."""
    precision, recall, found = [], [], 0
    for k, p in enumerate(sorted(range(len(scores)), key=lambda p: -float(scores[p])), start=1):
        found += bool(matched[p])
        precision.append(found / k)
        recall.append(found / num_target if num_target else float("nan"))
    return precision, recall


def pr_numpy(scores, matched, num_target):
    """numpy; TP / (TP + FP)."""
    hits = matched.numpy()[np.argsort(-scores.numpy(), kind="stable")]
    tp, fp = np.cumsum(hits), np.cumsum(~hits)
    with np.errstate(invalid="ignore"):
        return tp / (tp + fp), tp / np.float64(num_target)


def pr_matrix(scores, matched, num_target):
    """A lower triangle of ones adds up; float32."""
    hits = matched[torch.sort(-scores, stable=True).indices].float()
    triangle = torch.ones(len(hits), len(hits)).tril()
    found = triangle @ hits
    return found / triangle.sum(1), found / torch.tensor(float(num_target))


def ap_loop(precision, recall, convention):
    """The definition, in loops."""
    points = list(zip(precision.tolist(), recall.tolist(), strict=True))

    def best(r):
        return max((p for p, s in points if s >= r), default=0.0)

    if convention == "area":
        before = [0.0] + [r for _, r in points]
        return sum((r - b) * best(r) for (_, r), b in zip(points, before, strict=False))
    steps = 10 if convention == "11-point" else 100
    return sum(best(i / steps) for i in range(steps + 1)) / (steps + 1)


def ap_broadcast(precision, recall, convention):
    """A table of thresholds by points; sentinels at both ends for the area."""
    if convention == "area":
        r = torch.cat([torch.zeros(1), recall, torch.ones(1)])
        p = torch.cat([torch.zeros(1), precision, torch.zeros(1)])
        p = p.flip(0).cummax(0).values.flip(0)
        return ((r[1:] - r[:-1]) * p[1:]).sum()
    count = {"11-point": 11, "101-point": 101}[convention]
    reached = recall[None] >= torch.linspace(0, 1, count, dtype=torch.float64)[:, None]
    return torch.cat([precision * reached, torch.zeros(count, 1)], dim=1).max(1).values.mean()


def ap_numpy(precision, recall, convention):
    """As pycocotools and the VOC programs write it."""
    p, r = precision.numpy().copy(), recall.numpy()
    for i in range(len(p) - 1, 0, -1):
        p[i - 1] = max(p[i - 1], p[i])
    if convention == "area":
        return float((np.diff(np.concatenate([[0.0], r])) * p).sum())
    thresholds = np.arange(0, 1.05, 0.1) if convention == "11-point" else np.linspace(0.0, 1.0, 101)
    q = np.zeros(len(thresholds))
    for i, place in enumerate(np.searchsorted(r, thresholds, side="left")):
        if place < len(p):
            q[i] = p[place]
    return np.mean(q)


def _average(hits, count):
    """101 points from hits by rank."""
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(found) + 1)
    best = [max(precision[found / count >= t], default=0.0) for t in np.linspace(0, 1, 101)]
    return float(np.mean(best))


def map_loop(classes, area_range, max_dets):
    """Detection by detection."""
    low, high = area_range
    values = []
    for c in classes:
        sizes = c["target_areas"].tolist()
        count = sum(low <= a <= high for a in sizes)
        if count == 0:
            continue
        for row in c["matched"].tolist():
            ranked = []
            for p in sorted(range(len(row)), key=lambda p: -c["scores"][p]):
                area = sizes[row[p]] if row[p] >= 0 else float(c["areas"][p])
                if c["ranks"][p] < max_dets and low <= area <= high:
                    ranked.append(row[p] >= 0)
            values.append(_average(np.array(ranked, dtype=bool), count))
    return sum(values) / len(values) if values else float("nan")


def map_numpy(classes, area_range, max_dets):
    """numpy with masks; a table of class by threshold, NaN where absent, and nanmean."""
    low, high = area_range
    table = np.full((len(classes), 10), np.nan)
    for k, c in enumerate(classes):
        c = {name: value.numpy() for name, value in c.items()}
        real = (c["target_areas"] >= low) & (c["target_areas"] <= high)
        keep = np.flatnonzero(c["ranks"] < max_dets)
        keep = keep[np.argsort(-c["scores"][keep])]
        for t in range(10) if real.any() else ():
            m = c["matched"][t, keep]
            own = (c["areas"][keep] >= low) & (c["areas"][keep] <= high)
            counted = np.where(m >= 0, real[m], own)
            table[k, t] = _average((m >= 0)[counted], real.sum())
    return float("nan") if np.isnan(table).all() else np.nanmean(table)


def pq_sets(preds, pred_classes, target, target_classes):
    """Sets of pixels; TP, FP, FN by class; PQ = SQ * RQ."""

    def segments(ids):
        groups = defaultdict(set)
        for place, i in enumerate(ids.flatten().tolist()):
            groups[i].add(place)
        return groups

    p, t = segments(preds), segments(target)
    void = t.pop(0, set())
    p.pop(0, None)
    classes = {int(pred_classes[i]) for i in p} | {int(target_classes[i]) for i in t}
    rows = []
    for k in classes:
        ours = {i: s for i, s in p.items() if pred_classes[i] == k}
        theirs = {j: s for j, s in t.items() if target_classes[j] == k}
        pairs = {(i, j): len(a & b) / len((a | b) - void) for i, a in ours.items() for j, b in theirs.items()}
        hits = {pair: v for pair, v in pairs.items() if v > 0.5}
        used = {i for i, _ in hits}
        fp = sum(i not in used and len(a & void) <= len(a) / 2 for i, a in ours.items())
        n = len(hits) + fp / 2 + (len(theirs) - len(hits)) / 2
        if n:
            sq = sum(hits.values()) / len(hits) if hits else 0
            rows.append((sq * len(hits) / n, sq, len(hits) / n))
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)] if rows else [float("nan")] * 3


def pq_one_hot(preds, pred_classes, target, target_classes):
    """A product of one-hot masks; float32; a tuple of tensors."""
    a = torch.nn.functional.one_hot(target.flatten(), len(target_classes)).float()
    b = torch.nn.functional.one_hot(preds.flatten(), len(pred_classes)).float()
    inter = torch.einsum("xn,xp->np", a, b)
    void = inter[0, 1:]
    size = b.sum(0)[1:]
    inter = inter[1:, 1:]
    iou = inter / (a.sum(0)[1:, None] + size - inter - void)
    tc, pc = target_classes[1:], pred_classes[1:]
    iou = iou * ((tc[:, None] == pc) & (iou > 0.5))
    rows = []
    for k in torch.unique(torch.cat([tc, pc])):
        mine, theirs = iou[:, pc == k], iou[tc == k]
        tp = (theirs > 0).sum()
        fp = ((mine.sum(0) == 0) & (void <= size / 2)[pc == k]).sum()
        total = tp + (fp + (tc == k).sum() - tp) / 2
        if total > 0:
            rows.append(torch.stack([theirs.sum() / total, theirs.sum() / tp.clamp(min=1), tp / total]))
    return tuple(torch.stack(rows).mean(0) if rows else torch.full((3,), torch.nan))


def pq_pairs(preds, pred_classes, target, target_classes):
    """np.unique over pairs, as panopticapi does it."""
    p, t = preds.numpy(), target.numpy()
    pairs, counts = np.unique(np.stack([t.ravel(), p.ravel()]), axis=1, return_counts=True)
    inter = {(int(a), int(b)): int(n) for (a, b), n in zip(pairs.T, counts, strict=True)}
    area_p = {i: int((p == i).sum()) for i in range(1, len(pred_classes))}
    area_t = {i: int((t == i).sum()) for i in range(1, len(target_classes))}
    iou, tp, fp, fn = (defaultdict(float) for _ in range(4))
    done_p, done_t = set(), set()
    for (a, b), n in inter.items():
        if a and b and target_classes[a] == pred_classes[b]:
            union = area_t[a] + area_p[b] - n - inter.get((0, b), 0)
            if n / union > 0.5:
                k = int(target_classes[a])
                iou[k] += n / union
                tp[k] += 1
                done_p.add(b)
                done_t.add(a)
    for a in area_t:
        fn[int(target_classes[a])] += a not in done_t
    for b in area_p:
        fp[int(pred_classes[b])] += b not in done_p and inter.get((0, b), 0) / area_p[b] <= 0.5
    classes = [k for k in {*tp, *fp, *fn} if tp[k] + fp[k] + fn[k] > 0]
    if not classes:
        return (np.nan,) * 3
    rq = [tp[k] / (tp[k] + fp[k] / 2 + fn[k] / 2) for k in classes]
    sq = [iou[k] / tp[k] if tp[k] else 0.0 for k in classes]
    return np.mean(np.multiply(rq, sq)), np.mean(sq), np.mean(rq)


def unique_by_size(iou_threshold):
    """A large square image, cut across; numpy arrays, integers; another class."""
    if iou_threshold >= 0.5:
        return None
    target = np.ones((10, 10), dtype=int)
    preds = np.zeros((2, 10, 10), dtype=int)
    preds[0, :5], preds[1, 5:] = 1, 1
    return [target, preds, (7, 7, 7)]


def unique_with_rest(iou_threshold):
    """The two parts leave a pixel over, and one of them reaches outside, as long as the threshold allows it."""
    if not iou_threshold < 0.5:
        return None
    target, preds = torch.zeros(2, 20000, dtype=torch.bool), torch.zeros(2, 2, 20000, dtype=torch.bool)
    target[0] = True
    preds[0, 0, :9999], preds[1, 0, 9999:19999], preds[1, 1, 5] = True, True, True
    return target, preds, torch.tensor([3, 3, 3])


def unique_lists(iou_threshold):
    """Nested lists of Python's own values."""
    return ([[True, True]], [[[True, False]], [[False, True]]], [0, 0, 0]) if iou_threshold < 0.5 else None


ALTERNATIVES: dict[str, list[Callable]] = {
    "match_detections": [match_loop, match_numpy, match_torch],
    "pr_curve": [pr_loop, pr_numpy, pr_matrix, pr_lists],
    "ap_interp": [ap_loop, ap_broadcast, ap_numpy],
    "map_coco": [map_loop, map_numpy],
    "pq": [pq_sets, pq_one_hot, pq_pairs],
    "pq_unique": [unique_by_size, unique_with_rest, unique_lists],
}
