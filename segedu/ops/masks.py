"""Masks, label maps and COCO's run lengths: three ways to write down which pixels belong to what, and the ways between.

Masks are (N, H, W) bool and may overlap. A label map is (H, W) integers, 0 is background, so objects in it never
overlap. A run-length encoding (RLE) is COCO's dict ``{"size": [H, W], "counts": ...}``: the lengths of runs of
zeros and ones in turn, zeros first, read **column by column**. ``counts`` is a list of integers, or bytes in
COCO's compressed form, which pycocotools reads and writes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pycocotools import mask as coco_mask
from scipy import ndimage
from torch import Tensor

from segedu.validation.boxes import check_boxes, check_scores

_INTEGERS = (torch.uint8, torch.uint16, torch.int8, torch.int16, torch.int32, torch.int64)


def masks_from_label_map(label_map: Tensor) -> Tensor:
    """Split a label map into one mask for each label that has a pixel.

    Args:
        label_map: (H, W) integers, 0 for background.

    Returns:
        (N, H, W) bool, in the order of the labels; N may be 0.

    Raises:
        TypeError: ``label_map`` is not a tensor of integers.
        ValueError: the shape is not (H, W), or a label is negative.

    Example:
        >>> masks_from_label_map(torch.tensor([[7, 7, 0, 3]])).int()
        tensor([[[0, 0, 0, 1]],
        <BLANKLINE>
                [[1, 1, 0, 0]]], dtype=torch.int32)
    """
    if not isinstance(label_map, Tensor) or label_map.dtype not in _INTEGERS:
        raise TypeError(f"label_map has {_kind(label_map)}, expected a tensor of integers of shape (H, W)")
    if label_map.ndim != 2:
        raise ValueError(f"label_map has shape {tuple(label_map.shape)}, expected (H, W)")
    if label_map.dtype == torch.uint16:
        label_map = label_map.int()  # torch cannot compare uint16
    if label_map.numel() and int(label_map.min()) < 0:
        raise ValueError(f"label_map has the label {int(label_map.min())}, expected 0 (background) and above")
    labels = label_map.unique()
    return label_map == labels[labels > 0][:, None, None]  # (N, H, W)


def label_map_from_masks(masks: Tensor, scores: Tensor | None = None) -> Tensor:
    """Draw masks into one label map; where masks overlap, the pixel goes to the one with the highest score.

    Args:
        masks: (N, H, W) bool; N may be 0.
        scores: (N,) numbers. None: the first mask wins. Equal scores: the first of them.

    Returns:
        (H, W) int32: mask i has the label i + 1, and 0 is where there is none. A mask that others hide is absent.

    Raises:
        TypeError: ``masks`` are not bool, or ``scores`` are not a tensor of numbers.
        ValueError: a shape does not fit, or a score is NaN.

    Example:
        >>> masks = torch.tensor([[[1, 1, 0, 0]], [[0, 1, 1, 0]]]).bool()
        >>> label_map_from_masks(masks), label_map_from_masks(masks, torch.tensor([0.3, 0.9]))
        (tensor([[1, 1, 2, 0]], dtype=torch.int32), tensor([[1, 2, 2, 0]], dtype=torch.int32))
    """
    _check_bool(masks, "masks", 3, "(N, H, W)")
    N, H, W = masks.shape
    order = torch.arange(N, device=masks.device)
    if scores is not None:
        check_scores("scores", scores, N)
        order = scores.argsort(descending=True, stable=True)
    label_map = torch.zeros(H, W, dtype=torch.int32, device=masks.device)
    for index in reversed(order.tolist()):  # the best is painted last, over the others
        label_map[masks[index]] = index + 1
    return label_map


def boxes_from_masks(masks: Tensor) -> Tensor:
    """Tight boxes of masks. The edges of pixels count: a pixel at row 2, column 3 has the box (3, 2, 4, 3) of area 1.

    ``torchvision.ops.masks_to_boxes`` counts the centres of pixels: its boxes end one earlier.

    Args:
        masks: (N, H, W) bool; N may be 0.

    Returns:
        (N, 4) float32, xyxy. An empty mask has the box (0, 0, 0, 0), as in pycocotools.

    Raises:
        TypeError: ``masks`` are not a bool tensor.
        ValueError: the shape is not (N, H, W).

    Example:
        >>> boxes_from_masks(torch.tensor([[[0, 0, 0], [0, 1, 1]]]).bool())
        tensor([[1., 1., 3., 2.]])
    """
    _check_bool(masks, "masks", 3, "(N, H, W)")
    N, H, W = masks.shape
    if N == 0 or H == 0 or W == 0:
        return torch.zeros(N, 4, device=masks.device)
    columns, rows = masks.any(dim=1).byte(), masks.any(dim=2).byte()  # (N, W), (N, H)
    first = [line.argmax(dim=1) for line in (columns, rows)]  # argmax finds the first of equals
    last = [line.shape[1] - line.flip(1).argmax(dim=1) for line in (columns, rows)]
    boxes = torch.stack([*first, *last], dim=1).float()
    return boxes * columns.any(dim=1)[:, None]


def connected_components(mask: Tensor, connectivity: int = 4) -> tuple[Tensor, int]:
    """Number the connected pieces of a mask.

    Args:
        mask: (H, W) bool.
        connectivity: 4: pixels that share an edge are connected; 8: a corner is enough.

    Returns:
        The label map (H, W) int32, pieces numbered from 1 in the order of their first pixels, and their count.

    Raises:
        TypeError: ``mask`` is not a bool tensor.
        ValueError: the shape is not (H, W), or ``connectivity`` is neither 4 nor 8.

    Example:
        Two pixels that touch by a corner are two pieces, or one.

        >>> corner = torch.eye(2).bool()
        >>> connected_components(corner)[1], connected_components(corner, connectivity=8)[1]
        (2, 1)
    """
    _check_bool(mask, "mask", 2, "(H, W)")
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity is {connectivity!r}, expected 4 or 8")
    structure = np.ones((3, 3)) if connectivity == 8 else None
    pieces, count = ndimage.label(mask.cpu().numpy(), structure, output=np.int32)
    return torch.from_numpy(pieces).to(mask.device), int(count)


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize each small mask to its box and put it into an image, as Mask R-CNN does after its 28x28 head.

    Bilinear, at the centres of pixels, with zeros around the mask: ``grid_sample`` with ``align_corners=False``.
    Weights of an axis-aligned box factor into rows and columns, so the whole is two matrix products.

    Args:
        masks: (N, M, M) float, for instance probabilities.
        boxes: (N, 4), xyxy in pixels of the image; they may reach beyond it.
        size: (H, W) of the image.

    Returns:
        (N, H, W) float. Values fade to 0 from half a cell inside the box to half a cell outside of it. A box
        without area leaves its image empty.

    Raises:
        TypeError: ``masks`` are not floats, or ``boxes`` are not a tensor of numbers.
        ValueError: the shapes do not fit, or a box is not ordered.

    Example:
        >>> paste_masks(torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]), torch.tensor([[1.0, 0.0, 5.0, 2.0]]), (2, 6))
        tensor([[[0.0000, 0.0000, 0.2500, 0.7500, 0.7500, 0.2500],
                 [0.0000, 0.0000, 0.2500, 0.7500, 0.7500, 0.2500]]])
    """
    if not isinstance(masks, Tensor) or not masks.is_floating_point():
        raise TypeError(f"masks has {_kind(masks)}, expected a float tensor of shape (N, M, M)")
    boxes = check_boxes("boxes", boxes).to(masks.device)  # not to half precision: it has no place for pixel 2049
    if masks.ndim != 3 or len(masks) != len(boxes) or 0 in masks.shape[1:]:
        raise ValueError(f"masks has shape {tuple(masks.shape)}, expected ({len(boxes)}, M, M): a mask for each box")
    H, W = _check_size(size)
    rows = _bilinear_weights(boxes[:, 1], boxes[:, 3], masks.shape[1], H)  # (N, H, M)
    columns = _bilinear_weights(boxes[:, 0], boxes[:, 2], masks.shape[2], W)  # (N, W, M)
    return rows.to(masks) @ masks @ columns.to(masks).transpose(1, 2)  # (N, H, W)


def _bilinear_weights(start: Tensor, end: Tensor, cells: int, pixels: int) -> Tensor:
    """(N, pixels, cells): how much of each cell between `start` and `end` each pixel of the image takes."""
    centre = torch.arange(pixels, dtype=start.dtype, device=start.device) + 0.5
    length = (end - start)[:, None]
    position = (centre - start[:, None]) / torch.where(length > 0, length, 1.0) * cells - 0.5
    index = torch.arange(cells, dtype=start.dtype, device=start.device)
    weights = (1 - (position[..., None] - index).abs()).clamp(min=0)
    return weights * (length > 0)[..., None]


def rle_encode(mask: Tensor) -> dict:
    """Run lengths of a mask, column by column, zeros first.

    Args:
        mask: (H, W) bool.

    Returns:
        ``{"size": [H, W], "counts": [...]}``. The first count is 0 if the first pixel is in the mask.

    Raises:
        TypeError: ``mask`` is not a bool tensor.
        ValueError: the shape is not (H, W).

    Example:
        Down the first column 0, 1; down the second 1, 0.

        >>> rle_encode(torch.tensor([[0, 1], [1, 0]]).bool())
        {'size': [2, 2], 'counts': [1, 2, 1]}
    """
    _check_bool(mask, "mask", 2, "(H, W)")
    pixels = mask.T.flatten().cpu().numpy()
    starts = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts = np.diff([0, *starts, pixels.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if pixels[:1].any() else counts}


def rle_decode(rle: dict) -> Tensor:
    """The mask of run lengths.

    Args:
        rle: uncompressed or compressed.

    Returns:
        (H, W) bool.

    Raises:
        TypeError: ``rle`` is not a dict with size and counts.
        ValueError: the runs do not add up to H * W pixels (compressed ones may end before a last run of zeros).

    Example:
        >>> rle_decode({"size": [2, 2], "counts": [1, 2, 1]}).int()
        tensor([[0, 1],
                [1, 0]], dtype=torch.int32)
    """
    H, W = _check_rle(rle, "rle")
    if isinstance(rle["counts"], str | bytes):
        mask = torch.from_numpy(coco_mask.decode(_as_bytes(rle)).astype(bool))
        if int(mask.sum()) != rle_area(rle):  # pycocotools leaves pixels that no run covers as memory happened to be
            raise ValueError(f"rle has runs that end early, expected {H} * {W} = {H * W} pixels")
        return mask
    counts = np.asarray(rle["counts"], dtype=np.int64)
    values = np.arange(len(counts)) % 2 == 1  # zeros first
    return torch.from_numpy(np.repeat(values, counts).reshape(W, H).T.copy())


def rle_area(rle: dict) -> int:
    """Number of pixels in the mask, without decoding it.

    Args:
        rle: uncompressed or compressed.

    Returns:
        The sum of the runs of ones.

    Raises:
        TypeError: ``rle`` is not a dict with size and counts.
        ValueError: the runs of an uncompressed one do not add up to H * W pixels.

    Example:
        >>> rle_area({"size": [2, 2], "counts": [1, 2, 1]})
        2
    """
    _check_rle(rle, "rle")
    if isinstance(rle["counts"], str | bytes):
        return int(coco_mask.area(_as_bytes(rle)))
    return sum(rle["counts"][1::2])


def compress_rle(rle: dict) -> dict:
    """COCO's compressed form: each run as a few characters, the difference to the run two before it.

    Args:
        rle: uncompressed or compressed.

    Returns:
        ``{"size": [H, W], "counts": bytes}``.

    Raises:
        TypeError: ``rle`` is not a dict with size and counts.
        ValueError: the runs of an uncompressed one do not add up to H * W pixels.

    Example:
        >>> compress_rle({"size": [2, 2], "counts": [1, 2, 1]})
        {'size': [2, 2], 'counts': b'121'}
    """
    H, W = _check_rle(rle, "rle")
    if isinstance(rle["counts"], str | bytes):
        return _as_bytes(rle)
    return coco_mask.frPyObjects(dict(rle), H, W)


def decompress_rle(rle: dict) -> dict:
    """Run lengths as a list.

    Args:
        rle: uncompressed or compressed.

    Returns:
        ``{"size": [H, W], "counts": [...]}``.

    Raises:
        TypeError: ``rle`` is not a dict with size and counts.
        ValueError: the runs do not add up to H * W pixels.

    Example:
        >>> decompress_rle({"size": [2, 2], "counts": b"121"})
        {'size': [2, 2], 'counts': [1, 2, 1]}
    """
    return rle_encode(rle_decode(rle))


def polygons_to_rle(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> dict:
    """Fill polygons, as COCO draws its annotations, and write the union as compressed run lengths.

    Args:
        polygons: each a flat list x0, y0, x1, y1, ... of at least three corners, in pixels.
        size: (H, W) of the image.

    Returns:
        ``{"size": [H, W], "counts": bytes}``. No polygons: an empty mask.

    Raises:
        ValueError: a polygon has fewer than three corners, an odd number of values or one that is not finite.

    Example:
        >>> rle_decode(polygons_to_rle([[0, 0, 2, 0, 2, 1, 0, 1]], (2, 3))).int()
        tensor([[1, 1, 0],
                [0, 0, 0]], dtype=torch.int32)
    """
    H, W = _check_size(size)
    for index, polygon in enumerate(polygons):
        if len(polygon) < 6 or len(polygon) % 2 or not np.isfinite(polygon).all():
            raise ValueError(f"polygons[{index}] is {list(polygon)}, expected finite x0, y0, x1, y1, x2, y2, ...")
    if not len(polygons):
        return compress_rle({"size": [H, W], "counts": [H * W]})
    return coco_mask.merge(coco_mask.frPyObjects([list(map(float, p)) for p in polygons], H, W))


def rle_iou(preds: Sequence[dict], target: Sequence[dict], iscrowd: Sequence[bool]) -> np.ndarray:
    """IoU of every predicted with every true mask, from their run lengths (pycocotools).

    Args:
        preds: P run lengths.
        target: N run lengths.
        iscrowd: for each target, whether it stands for a crowd: then intersection over the *prediction's* area.

    Returns:
        (P, N) float64.

    Raises:
        TypeError: an entry is not a dict with size and counts.
        ValueError: the runs do not add up, masks differ in size, or ``iscrowd`` has another length than ``target``.

    Example:
        >>> square = {"size": [2, 2], "counts": [0, 4]}
        >>> rle_iou([{"size": [2, 2], "counts": [0, 2, 2]}], [square, square], [False, True])
        array([[0.5, 1. ]])
    """
    if len(iscrowd) != len(target):
        raise ValueError(f"iscrowd has length {len(iscrowd)}, expected {len(target)}: one for each target")
    if not len(preds) or not len(target):
        return np.zeros((len(preds), len(target)))
    preds, target = [*map(compress_rle, preds)], [*map(compress_rle, target)]
    sizes = {tuple(rle["size"]) for rle in (*preds, *target)}
    if len(sizes) > 1:  # pycocotools answers -1
        raise ValueError(f"preds and target have masks of the sizes {sorted(sizes)}, expected one size")
    return coco_mask.iou(preds, target, [int(c) for c in iscrowd])


def _kind(value: object) -> str:
    return f"dtype {value.dtype}" if isinstance(value, Tensor) else f"type {type(value).__name__}"


def _check_bool(mask: Tensor, name: str, ndim: int, shape: str) -> None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"{name} has {_kind(mask)}, expected a bool tensor of shape {shape}")
    if mask.ndim != ndim:
        raise ValueError(f"{name} has shape {tuple(mask.shape)}, expected {shape}")


def _check_size(size: Sequence[int]) -> tuple[int, int]:
    if len(size) != 2 or any(int(n) != n or n < 0 for n in size):
        raise ValueError(f"size is {tuple(size)}, expected two integers (H, W)")
    return int(size[0]), int(size[1])


def _check_rle(rle: dict, name: str) -> tuple[int, int]:
    if not isinstance(rle, dict) or not {"size", "counts"} <= rle.keys():
        raise TypeError(f"{name} is {rle!r:.60}, expected a dict with 'size' and 'counts'")
    H, W = _check_size(rle["size"])
    counts = rle["counts"]
    if not isinstance(counts, str | bytes) and isinstance(sum(counts), float):
        raise TypeError(f"{name} has the counts {counts!r:.60}, expected whole numbers")
    if not isinstance(counts, str | bytes) and (sum(counts) != H * W or min(counts, default=0) < 0):
        raise ValueError(f"{name} has runs of {sum(counts)} pixels, expected {H} * {W} = {H * W} and none negative")
    return H, W


def _as_bytes(rle: dict) -> dict:
    counts = rle["counts"]  # JSON holds the compressed ones as a string
    return {"size": list(rle["size"]), "counts": counts.encode() if isinstance(counts, str) else counts}
