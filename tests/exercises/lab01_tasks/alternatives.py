"""Right answers of other kinds than the library's; every check and grading must accept them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import numpy as np
import torch
from skimage.measure import label as label_parts


def one_hot_loop(target, num_classes):
    """Pixel by pixel."""
    planes = torch.zeros(num_classes, *target.shape)
    for y in range(target.shape[0]):
        for x in range(target.shape[1]):
            if target[y, x] != 255:
                planes[target[y, x], y, x] = 1
    return planes


def one_hot_scatter(target, num_classes):
    """scatter into a spare plane for void, which is cut off."""
    index = torch.where(target == 255, num_classes, target)
    planes = torch.zeros(num_classes + 1, *target.shape, dtype=torch.float64)
    return planes.scatter_(0, index[None], 1.0)[:-1]


def one_hot_torch(target, num_classes):
    """torch's one_hot of a map whose void is class 0, times where there is a class."""
    known = target != 255
    planes = torch.nn.functional.one_hot(target * known, num_classes).permute(2, 0, 1)
    return planes.float() * known


def one_hot_numpy(target, num_classes):
    """Rows of the identity matrix."""
    rows = np.concatenate([np.eye(num_classes), np.zeros((1, num_classes))])
    return rows[np.minimum(target.numpy(), num_classes)].transpose(2, 0, 1)


def semantic_loop(masks, labels):
    """Pixel by pixel, the last instance that covers it."""
    N, H, W = masks.shape
    out = [[0] * W for _ in range(H)]
    for i in range(N):
        for y in range(H):
            for x in range(W):
                if masks[i, y, x]:
                    out[y][x] = int(labels[i])
    return torch.tensor(out)


def semantic_where(masks, labels):
    """torch.where, one instance after the other."""
    out = torch.zeros_like(masks.sum(0))
    for i in range(len(masks)):
        out = torch.where(masks[i], labels[i], out)
    return out


def semantic_argmax(masks, labels):
    """The number of the last instance looked up in a table of classes that begins with background."""
    order = np.arange(1, len(masks) + 1)[:, None, None]
    top = (masks.numpy() * order).max(axis=0, initial=0)
    return np.concatenate([[0], labels.numpy()])[top]


def panoptic_loop(category, instance, things, codes):
    """Python numbers."""
    encoded = [
        [1000 * c + (i if c in things else 0) for c, i in zip(cs, ins, strict=True)]
        for cs, ins in zip(category.tolist(), instance.tolist(), strict=True)
    ]
    pairs = [[divmod(code, 1000) for code in row] for row in codes.tolist()]
    return encoded, [[p[0] for p in row] for row in pairs], [[p[1] for p in row] for row in pairs]


def panoptic_numpy(category, instance, things, codes):
    """numpy in 32 bits, in place on copies."""
    encoded = category.numpy().astype(np.int32) * 1000
    thing = np.isin(category.numpy(), things)
    encoded[thing] += instance.numpy()[thing]
    back, number = np.divmod(codes.numpy(), 1000)
    return encoded, back, number


def panoptic_mask(category, instance, things, codes):
    """A product with a mask; the remainder by subtraction; a list instead of a tuple."""
    c = category.to(torch.int32)
    thing = sum((c == k).int() for k in things)
    back = torch.div(codes, 1000, rounding_mode="floor")
    return [c * 1000 + instance * thing, back, codes - 1000 * back]


def count_skimage(semantic, num_classes, things):
    """scikit-image's labelling of the whole map at once: background is whatever is not counted."""
    shown = np.where(np.isin(semantic.numpy(), things), semantic.numpy(), -1)
    parts = label_parts(shown, background=-1, connectivity=1)
    first = [int(shown[parts == i][0]) for i in range(1, parts.max() + 1)]
    return torch.tensor([first.count(k) for k in range(num_classes)])


def count_flood(semantic, num_classes, things):
    """Flood fill with a stack."""
    grid, counts = semantic.tolist(), [0] * num_classes
    for y, row in enumerate(grid):
        for x, k in enumerate(row):
            if k not in things:
                continue
            counts[k] += 1
            stack = [(y, x)]
            while stack:
                v, u = stack.pop()
                if 0 <= v < len(grid) and 0 <= u < len(row) and grid[v][u] == k:
                    grid[v][u] = -1
                    stack += [(v + 1, u), (v - 1, u), (v, u + 1), (v, u - 1)]
    return counts


def count_spread(semantic, num_classes, things):
    """Spread the largest pixel number over each part until nothing changes; count the numbers that are left."""
    counts = np.zeros(num_classes, dtype=np.int64)
    for k in things:
        mask = semantic.numpy() == k
        numbers = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
        before = None
        while before is None or (before != numbers).any():
            before = numbers
            p = np.pad(numbers, 1)
            near = np.stack([p[1:-1, 1:-1], p[:-2, 1:-1], p[2:, 1:-1], p[1:-1, :-2], p[1:-1, 2:]])
            numbers = near.max(0) * mask
        counts[k] = len(np.unique(numbers[mask]))
    return counts


def box_loop(mask):
    """Pixel by pixel; a tuple."""
    xs = [x for row in mask.tolist() for x, on in enumerate(row) if on]
    ys = [y for y, row in enumerate(mask.tolist()) if any(row)]
    return (min(xs), min(ys), max(xs) + 1, max(ys) + 1) if xs else (0, 0, 0, 0)


def box_projections(mask):
    """Projections on both axes; an int tensor."""
    if not mask.any():
        return torch.zeros(4, dtype=torch.int64)
    x, y = (torch.nonzero(mask.any(dim))[:, 0] for dim in (0, 1))
    return torch.stack([x[0], y[0], x[-1] + 1, y[-1] + 1])


def box_numpy(mask):
    """argmax from both ends; numpy integers in a list."""
    m = mask.numpy()
    if not m.any():
        return np.zeros(4, dtype=np.int32)
    columns, rows = m.any(0), m.any(1)
    H, W = m.shape
    return [columns.argmax(), rows.argmax(), W - columns[::-1].argmax(), H - rows[::-1].argmax()]


def rle_groupby(mask, counts, size):
    """itertools.groupby on the columns; decoding by filling a list."""
    flat = [on for column in mask.T.tolist() for on in column]
    runs = [(on, len(list(group))) for on, group in groupby(flat)]
    found = [length for _, length in runs]
    pixels = [bool(i % 2) for i, n in enumerate(counts) for _ in range(n)]
    H, W = size
    other = [[pixels[x * H + y] for x in range(W)] for y in range(H)]
    return ([0, *found] if runs[0][0] else found), other


def rle_loop(mask, counts, size):
    """A loop with a counter; decoding in place, slice by slice, in Fortran order."""
    found, value, length = [], False, 0
    for on in mask.numpy().flatten(order="F"):
        if on != value:
            found.append(length)
            value, length = on, 0
        length += 1
    found.append(length)
    flat, at = np.zeros(size[0] * size[1], dtype=bool), 0
    for i, n in enumerate(counts):
        flat[at : at + n] = i % 2
        at += n
    return found, flat.reshape(size, order="F")


def rle_torch(mask, counts, size):
    """torch's unique_consecutive and repeat_interleave; counts as a tensor."""
    flat = mask.T.flatten()
    values, lengths = torch.unique_consecutive(flat, return_counts=True)
    if values[0]:
        lengths = torch.cat([torch.zeros(1, dtype=lengths.dtype), lengths])
    turns = torch.arange(len(counts)) % 2 == 1
    other = torch.repeat_interleave(turns, torch.tensor(counts)).reshape(size[1], size[0]).T
    return lengths, other


ALTERNATIVES: dict[str, list[Callable]] = {
    "one_hot": [one_hot_loop, one_hot_scatter, one_hot_torch, one_hot_numpy],
    "semantic_from_instances": [semantic_loop, semantic_where, semantic_argmax],
    "panoptic_roundtrip": [panoptic_loop, panoptic_numpy, panoptic_mask],
    "count_things": [count_skimage, count_flood, count_spread],
    "mask_to_box": [box_loop, box_projections, box_numpy],
    "rle_roundtrip": [rle_groupby, rle_loop, rle_torch],
}
