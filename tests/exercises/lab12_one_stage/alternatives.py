"""Right answers of other kinds: loops, numpy, scipy, torchvision, single precision. All of them must be accepted."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.ops as ops
from scipy.optimize import linear_sum_assignment
from scipy.special import logit
from torchvision.models.detection._utils import BoxCoder


def depth_by_counting(cells, boxes, classes, per_anchor=False):
    names = []
    for box in range(boxes):
        names += [f"{name}{box}" for name in ("x", "y", "w", "h", "confidence")]
        names += [f"class {c} of {box}" for c in range(classes) if per_anchor]
    return len(names) + len([c for c in range(classes) if not per_anchor])


def depth_in_one_line(cells, boxes, classes, per_anchor=False):
    return 5 * boxes + classes * (boxes if per_anchor else 1)


def depth_of_numpy(cells, boxes, classes, per_anchor=False):
    return np.int64(5 * boxes + classes * boxes**per_anchor)


def target_in_loops(boxes, labels, cells, image_size, classes):
    H, W = image_size
    target = [[[0.0] * (5 + classes) for _ in range(cells)] for _ in range(cells)]
    for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist(), strict=True):
        x, y = (x1 + x2) / 2 / W * cells, (y1 + y2) / 2 / H * cells
        cell = target[int(y)][int(x)]
        if cell[4]:
            continue
        cell[:5] = [x - int(x), y - int(y), math.sqrt((x2 - x1) / W), math.sqrt((y2 - y1) / H), 1.0]
        cell[4 + label] = 1.0
    return target


def target_from_behind(boxes, labels, cells, image_size, classes):
    """The first objects last, so that they overwrite; in single precision, pixels divided by the sides of a cell."""
    H, W = image_size
    target = torch.zeros(cells, cells, 5 + classes)
    for box, label in reversed(list(zip(boxes.float(), labels, strict=True))):
        x, y, w, h = ops.box_convert(box, "xyxy", "cxcywh")
        row, column = int(y // (H / cells)), int(x // (W / cells))
        kinds = F.one_hot(label - 1, classes).float()
        said = torch.stack([x % (W / cells) * cells / W, y % (H / cells) * cells / H, (w / W) ** 0.5, (h / H) ** 0.5])
        target[row, column] = torch.cat([said, torch.ones(1), kinds])
    return target


def target_in_numpy(boxes, labels, cells, image_size, classes):
    """All objects at once; of several in one cell the first index is found by unique."""
    boxes, labels = boxes.numpy(), labels.numpy()
    scale = np.array(image_size[::-1])
    middle, side = boxes.reshape(-1, 2, 2).mean(axis=1) / scale * cells, (boxes[:, 2:] - boxes[:, :2]) / scale
    corner = np.floor(middle).astype(int)
    target = np.zeros((cells * cells, 5 + classes))
    place, first = np.unique(corner[:, 1] * cells + corner[:, 0], return_index=True)
    target[place, :2], target[place, 2:4], target[place, 4] = (middle - corner)[first], np.sqrt(side[first]), 1
    target[place, 4 + labels[first]] = 1
    return target.reshape(cells, cells, -1)


def decoded_in_loops(deltas, logits, anchors, image_size, variances):
    (H, W), A = deltas.shape[1:], len(anchors) // deltas[0].numel()
    K, (height, width) = len(logits) // A, image_size
    boxes, scores = [], []
    for p, (i, j, a) in enumerate(itertools.product(range(H), range(W), range(A))):
        x1, y1, x2, y2 = anchors[p].tolist()
        dx, dy, dw, dh = deltas[4 * a : 4 * a + 4, i, j].tolist()
        w, h = x2 - x1, y2 - y1
        x, y = x1 + w / 2 + variances[0] * dx * w, y1 + h / 2 + variances[0] * dy * h
        w, h = w * math.exp(variances[1] * dw), h * math.exp(variances[1] * dh)
        box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        boxes.append([min(max(v, 0.0), limit) for v, limit in zip(box, (width, height) * 2, strict=True)])
        powers = [math.exp(v) for v in logits[K * a : K * (a + 1), i, j].tolist()]
        scores.append([power / sum(powers) for power in powers[1:]])
    return np.array(boxes), np.array(scores)


def decoded_by_torchvision(deltas, logits, anchors, image_size, variances):
    A = len(anchors) // deltas[0].numel()
    coder = BoxCoder(weights=(1 / variances[0],) * 2 + (1 / variances[1],) * 2, bbox_xform_clip=1e6)
    lists = [x.reshape(A, len(x) // A, -1).permute(2, 0, 1).reshape(len(anchors), -1) for x in (deltas, logits)]
    boxes = ops.clip_boxes_to_image(coder.decode_single(lists[0], anchors), image_size)
    return boxes, F.softmax(lists[1], dim=-1)[:, 1:]


def decoded_in_single_precision(deltas, logits, anchors, image_size, variances):
    """Channels last first, so that the list is a plain view."""
    deltas, logits = (x.float().permute(1, 2, 0).contiguous() for x in (deltas, logits))
    moves = deltas.view(-1, 4)
    x, y, w, h = ops.box_convert(anchors.float(), "xyxy", "cxcywh").unbind(1)
    v, u = variances
    x, y = x + moves[:, 0] * v * w, y + moves[:, 1] * v * h
    w, h = w * torch.exp(moves[:, 2] * u), h * torch.exp(moves[:, 3] * u)
    boxes = ops.box_convert(torch.stack([x, y, w, h], dim=1), "cxcywh", "xyxy")
    boxes[:, 0::2] = boxes[:, 0::2].clamp(0, image_size[1])
    boxes[:, 1::2] = boxes[:, 1::2].clamp(0, image_size[0])
    scores = logits.view(len(anchors), -1).softmax(-1)
    return boxes, scores[:, 1:]


def prior_by_logit(num_anchors, num_classes, prior=0.01):
    return np.full(num_anchors * num_classes, logit(prior)), np.zeros(num_anchors * 4)


def prior_in_lists(num_anchors, num_classes, prior=0.01):
    return [math.log(prior) - math.log(1 - prior)] * (num_anchors * num_classes), [0.0] * (4 * num_anchors)


def prior_in_place(num_anchors, num_classes, prior=0.01):
    classes, boxes = torch.nn.Conv2d(2, num_anchors * num_classes, 1), torch.nn.Conv2d(2, num_anchors * 4, 1)
    torch.nn.init.constant_(classes.bias, -math.log((1 - prior) / prior))
    torch.nn.init.zeros_(boxes.bias)
    return classes.bias, boxes.bias


def matched_by_scipy(pred_logits, pred_boxes, labels, boxes, image_size):
    """Pairs in the order of queries, sorted by object."""
    H, W = image_size
    truth = ops.box_convert(boxes / torch.tensor([W, H, W, H]), "xyxy", "cxcywh")
    likely = F.softmax(pred_logits, dim=-1)[:, labels]
    giou = ops.generalized_box_iou(*(ops.box_convert(b, "cxcywh", "xyxy") for b in (pred_boxes, truth)))
    cost = 5 * torch.cdist(pred_boxes, truth, p=1) - likely - 2 * giou
    rows, columns = linear_sum_assignment(cost)
    return cost, torch.from_numpy(rows[np.argsort(columns)])


def matched_in_loops(pred_logits, pred_boxes, labels, boxes, image_size):
    """Every possible match is tried."""
    (H, W), (Q, N) = image_size, (len(pred_boxes), len(boxes))
    cost = np.zeros((Q, N))
    for q, n in itertools.product(range(Q), range(N)):
        x1, y1, x2, y2 = (v / s for v, s in zip(boxes[n].tolist(), (W, H, W, H), strict=True))
        x, y, w, h = pred_boxes[q].tolist()
        away = abs(x - (x1 + x2) / 2) + abs(y - (y1 + y2) / 2) + abs(w - (x2 - x1)) + abs(h - (y2 - y1))
        a1, b1, a2, b2 = x - w / 2, y - h / 2, x + w / 2, y + h / 2
        both = max(0.0, min(a2, x2) - max(a1, x1)) * max(0.0, min(b2, y2) - max(b1, y1))
        union = w * h + (x2 - x1) * (y2 - y1) - both
        hull = (max(a2, x2) - min(a1, x1)) * (max(b2, y2) - min(b1, y1))
        powers = np.exp(pred_logits[q].numpy())
        cost[q, n] = -powers[labels[n]] / powers.sum() + 5 * away - 2 * (both / union - (hull - union) / hull)
    ways = itertools.permutations(range(Q), N)
    best = min(ways, key=lambda way: sum(cost[q, n] for n, q in enumerate(way)))
    return cost, np.array(best, dtype=np.int64)


def matched_in_single_precision(pred_logits, pred_boxes, labels, boxes, image_size):
    """Filled up to Q objects with no object, which costs nothing."""
    scale = torch.tensor([image_size[1], image_size[0]] * 2).float()
    truth, given = boxes.float() / scale, ops.box_convert(pred_boxes.float(), "cxcywh", "xyxy")
    away = (pred_boxes.float()[:, None] - ops.box_convert(truth, "xyxy", "cxcywh")[None]).abs().sum(-1)
    p = pred_logits.float().exp()
    p = (p / p.sum(1, keepdim=True))[:, labels]
    cost = -p + 5 * away - 2 * ops.generalized_box_iou(given, truth)
    filled = np.zeros((len(cost), len(cost)))
    filled[:, : len(labels)] = cost.numpy()
    return cost, linear_sum_assignment(filled.T)[1][: len(labels)]


def set_loss_by_torchvision(pred_logits, pred_boxes, labels, boxes, image_size, queries, no_object_weight=0.1):
    H, W = image_size
    truth = boxes / torch.tensor([W, H, W, H])
    wanted = torch.full(pred_logits.shape[:1], pred_logits.shape[1] - 1)
    wanted[queries] = labels
    weight = torch.ones(pred_logits.shape[1], dtype=pred_logits.dtype)
    weight[-1] = no_object_weight
    loss = F.cross_entropy(pred_logits, wanted, weight=weight)
    given, N = pred_boxes[queries], max(len(boxes), 1)
    loss = loss + 5 * F.l1_loss(given, ops.box_convert(truth, "xyxy", "cxcywh"), reduction="sum") / N
    corners = ops.box_convert(given, "cxcywh", "xyxy")
    return loss + 2 * ops.generalized_box_iou_loss(corners, truth, reduction="sum", eps=0) / N


def set_loss_in_loops(pred_logits, pred_boxes, labels, boxes, image_size, queries, no_object_weight=0.1):
    H, W = image_size
    object_of = {int(q): n for n, q in enumerate(queries)}
    costs, weights, away, shape = [], [], [], []
    for q, logits in enumerate(pred_logits):
        column = int(labels[object_of[q]]) if q in object_of else len(logits) - 1
        weights.append(1.0 if q in object_of else no_object_weight)
        costs.append(weights[-1] * (logits.logsumexp(0) - logits[column]))
        if q not in object_of:
            continue
        x1, y1, x2, y2 = boxes[object_of[q]] / torch.tensor([W, H, W, H])
        x, y, w, h = pred_boxes[q]
        away.append(abs(x - (x1 + x2) / 2) + abs(y - (y1 + y2) / 2) + abs(w - x2 + x1) + abs(h - y2 + y1))
        a1, b1, a2, b2 = x - w / 2, y - h / 2, x + w / 2, y + h / 2
        wide, high = torch.minimum(a2, x2) - torch.maximum(a1, x1), torch.minimum(b2, y2) - torch.maximum(b1, y1)
        both = wide.clamp(min=0) * high.clamp(min=0)
        union = w * h + (x2 - x1) * (y2 - y1) - both
        hull = (torch.maximum(a2, x2) - torch.minimum(a1, x1)) * (torch.maximum(b2, y2) - torch.minimum(b1, y1))
        shape.append(1 - both / union + (hull - union) / hull)
    return sum(costs) / sum(weights) + (5 * sum(away) + 2 * sum(shape)) / max(1, len(boxes))


def set_loss_by_hand(pred_logits, pred_boxes, labels, boxes, image_size, queries, no_object_weight=0.1):
    """In single precision, with a mask of the pairs and one-hot vectors."""
    x, b, t = (v.float() for v in (pred_logits, pred_boxes, boxes))
    pairs = torch.zeros(len(x), len(t))
    pairs[queries, torch.arange(len(t))] = 1
    kinds = pairs @ F.one_hot(labels, x.shape[1]).float()
    kinds[:, -1] = 1 - pairs.sum(1)
    weight = torch.where(kinds[:, -1] > 0, float(no_object_weight), 1.0)
    loss = -(weight * (kinds * x.log_softmax(1)).sum(1)).sum() / weight.sum()
    scale = torch.tensor([image_size[1], image_size[0]] * 2).float()
    truth = ops.box_convert(t / scale, "xyxy", "cxcywh")
    away = (b[:, None] - truth).abs().sum(2)
    giou = ops.generalized_box_iou(ops.box_convert(b, "cxcywh", "xyxy"), t / scale)
    return loss + (pairs * (5 * away + 2 * (1 - giou))).sum() / max(1, len(t))


ALTERNATIVES = {
    "yolo_depth": [depth_by_counting, depth_in_one_line, depth_of_numpy],
    "yolo_target": [target_in_loops, target_from_behind, target_in_numpy],
    "decode_ssd": [decoded_in_loops, decoded_by_torchvision, decoded_in_single_precision],
    "retina_prior": [prior_by_logit, prior_in_lists, prior_in_place],
    "hungarian_match": [matched_by_scipy, matched_in_loops, matched_in_single_precision],
    "set_loss": [set_loss_by_torchvision, set_loss_in_loops, set_loss_by_hand],
}
