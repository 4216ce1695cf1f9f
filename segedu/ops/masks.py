"""Conversions between masks, label maps and COCO's run-length encoding.

Masks are (N, H, W) bool and may overlap. A label map is (H, W) integers, 0 for background, so its objects never
overlap. A run-length encoding (RLE) is COCO's dict ``{"size": [H, W], "counts": ...}``: the lengths of alternating
runs of zeros and ones, starting with zeros, read **column by column**. ``counts`` is a list of integers, or bytes in
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
from segedu.validation.numbers import check_choice, check_length, check_size
from segedu.validation.tensors import check_dtype, check_floats, check_integer_tensor


def masks_from_label_map(label_map: Tensor) -> Tensor:
    """Split a label map into one mask for each label that occurs.

    Args:
        label_map: (H, W) integers, 0 for background.

    Returns:
        (N, H, W) bool, in the order of the labels; N may be 0.

    >>> masks_from_label_map(torch.tensor([[7, 7, 0, 3]])).int()
    tensor([[[0, 0, 0, 1]],
    <BLANKLINE>
            [[1, 1, 0, 0]]], dtype=torch.int32)
    """
    check_integer_tensor("label_map", label_map, "H? W?")
    if label_map.dtype == torch.uint16:
        label_map = label_map.int()  # torch cannot compare uint16
    if label_map.numel() and int(label_map.min()) < 0:
        raise ValueError(f"label_map has the label {int(label_map.min())}, expected 0 (background) and above")
    labels = label_map.unique()
    return label_map == labels[labels > 0][:, None, None]  # (N, H, W)


def label_map_from_masks(masks: Tensor, scores: Tensor | None = None) -> Tensor:
    """Combine masks into one label map; where masks overlap, a pixel is assigned to the one with the highest score.

    Args:
        masks: (N, H, W) bool; N may be 0.
        scores: (N,). With equal scores, or None, the first mask has priority.

    Returns:
        (H, W) int32: mask i has the label i + 1, and 0 is background. A mask that others cover does not occur.

    >>> masks = torch.tensor([[[1, 1, 0, 0]], [[0, 1, 1, 0]]]).bool()
    >>> label_map_from_masks(masks), label_map_from_masks(masks, torch.tensor([0.3, 0.9]))
    (tensor([[1, 1, 2, 0]], dtype=torch.int32), tensor([[1, 2, 2, 0]], dtype=torch.int32))
    """
    check_dtype("masks", masks, torch.bool, "N? H? W?")
    N, H, W = masks.shape
    order = torch.arange(N, device=masks.device)
    if scores is not None:
        check_scores("scores", scores, N)
        order = scores.argsort(descending=True, stable=True)
    label_map = torch.zeros(H, W, dtype=torch.int32, device=masks.device)
    for index in reversed(order.tolist()):  # the most confident mask last, over the others
        label_map[masks[index]] = index + 1
    return label_map


def boxes_from_masks(masks: Tensor) -> Tensor:
    """Bounding boxes of masks, at the edges of pixels: a pixel at row 2, column 3 has the box (3, 2, 4, 3) of area 1.

    ``torchvision.ops.masks_to_boxes`` uses the centres of pixels: its boxes end one pixel earlier.

    Args:
        masks: (N, H, W) bool; N may be 0.

    Returns:
        (N, 4) float32, xyxy. An empty mask has the box (0, 0, 0, 0), as in pycocotools.

    >>> boxes_from_masks(torch.tensor([[[0, 0, 0], [0, 1, 1]]]).bool())
    tensor([[1., 1., 3., 2.]])
    """
    check_dtype("masks", masks, torch.bool, "N? H? W?")
    N, H, W = masks.shape
    if N == 0 or H == 0 or W == 0:
        return torch.zeros(N, 4, device=masks.device)
    columns, rows = masks.any(dim=1).byte(), masks.any(dim=2).byte()  # (N, W), (N, H)
    first = [line.argmax(dim=1) for line in (columns, rows)]  # argmax returns the first of equal values
    last = [line.shape[1] - line.flip(1).argmax(dim=1) for line in (columns, rows)]
    boxes = torch.stack([*first, *last], dim=1).float()
    return boxes * columns.any(dim=1)[:, None]


def connected_components(mask: Tensor, connectivity: int = 4) -> tuple[Tensor, int]:
    """Number the connected components of a mask.

    Args:
        mask: (H, W) bool.
        connectivity: 4 (pixels that share an edge are connected) or 8 (a corner is enough).

    Returns:
        The label map (H, W) int32, components numbered from 1 in the order of their first pixels, and their count.

    Two pixels that share only a corner are two components, or one.

    >>> corner = torch.eye(2).bool()
    >>> connected_components(corner)[1], connected_components(corner, connectivity=8)[1]
    (2, 1)
    """
    check_dtype("mask", mask, torch.bool, "H? W?")
    check_choice("connectivity", connectivity, (4, 8))
    structure = np.ones((3, 3)) if connectivity == 8 else None
    components, count = ndimage.label(mask.cpu().numpy(), structure, output=np.int32)
    return torch.from_numpy(components).to(mask.device), int(count)


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize each small mask to its box and paste it into an image, as Mask R-CNN does after its 28x28 head.

    Bilinear, at the centres of pixels, with zeros around the mask: ``grid_sample`` with ``align_corners=False``.
    The weights of an axis-aligned box factor into rows and columns, so pasting is two matrix products.

    Args:
        masks: (N, M, M) float, for example probabilities.
        boxes: (N, 4), xyxy in pixels of the image; they may extend beyond it.
        size: (H, W) of the image.

    Returns:
        (N, H, W) float. Values fade to 0 from half a cell inside the box to half a cell outside it. The result for a
        box without area is 0 everywhere.

    >>> paste_masks(torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]), torch.tensor([[1.0, 0.0, 5.0, 2.0]]), (2, 6))
    tensor([[[0.0000, 0.0000, 0.2500, 0.7500, 0.7500, 0.2500],
             [0.0000, 0.0000, 0.2500, 0.7500, 0.7500, 0.2500]]])
    """
    check_floats("masks", masks)
    boxes = check_boxes("boxes", boxes).to(masks.device)  # half precision cannot represent pixel 2049
    if masks.ndim != 3 or len(masks) != len(boxes) or 0 in masks.shape[1:]:
        raise ValueError(f"masks has shape {tuple(masks.shape)}, expected ({len(boxes)}, M, M), one mask for each box")
    H, W = check_size("size", size, minimum=0)
    rows = _bilinear_weights(boxes[:, 1], boxes[:, 3], masks.shape[1], H)  # (N, H, M)
    columns = _bilinear_weights(boxes[:, 0], boxes[:, 2], masks.shape[2], W)  # (N, W, M)
    return rows.to(masks) @ masks @ columns.to(masks).transpose(1, 2)  # (N, H, W)


def _bilinear_weights(start: Tensor, end: Tensor, cells: int, pixels: int) -> Tensor:
    """(N, pixels, cells): along one axis, the weight of each cell of a mask, from `start` to `end`, in each pixel."""
    centre = torch.arange(pixels, dtype=start.dtype, device=start.device) + 0.5
    length = (end - start)[:, None]
    position = (centre - start[:, None]) / torch.where(length > 0, length, 1.0) * cells - 0.5
    index = torch.arange(cells, dtype=start.dtype, device=start.device)
    weights = (1 - (position[..., None] - index).abs()).clamp(min=0)
    return weights * (length > 0)[..., None]


def rle_encode(mask: Tensor) -> dict:
    """Run-length encoding of a mask, column by column, starting with zeros.

    Args:
        mask: (H, W) bool.

    Returns:
        ``{"size": [H, W], "counts": [...]}``. The first count is 0 if the first pixel is in the mask.

    The first column is 0, 1; the second is 1, 0.

    >>> rle_encode(torch.tensor([[0, 1], [1, 0]]).bool())
    {'size': [2, 2], 'counts': [1, 2, 1]}
    """
    check_dtype("mask", mask, torch.bool, "H? W?")
    pixels = mask.T.flatten().cpu().numpy()
    starts = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts = np.diff([0, *starts, pixels.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if pixels[:1].any() else counts}


def rle_decode(rle: dict) -> Tensor:
    """Decode a run-length encoding, compressed or not, to a mask (H, W) of bools.

    Raises:
        ValueError: the runs do not add up to H * W pixels (compressed runs may end before a last run of zeros).

    >>> rle_decode({"size": [2, 2], "counts": [1, 2, 1]}).int()
    tensor([[0, 1],
            [1, 0]], dtype=torch.int32)
    """
    H, W = _check_rle(rle)
    if isinstance(rle["counts"], str | bytes):
        mask = torch.from_numpy(coco_mask.decode(_as_bytes(rle)).astype(bool))
        if int(mask.sum()) != rle_area(rle):  # pycocotools does not initialise pixels after the last run
            raise ValueError(f"rle has runs that end early, expected {H} * {W} = {H * W} pixels")
        return mask
    counts = np.asarray(rle["counts"], dtype=np.int64)
    values = np.arange(len(counts)) % 2 == 1  # zeros first
    return torch.from_numpy(np.repeat(values, counts).reshape(W, H).T.copy())


def rle_area(rle: dict) -> int:
    """Number of pixels in the mask of a run-length encoding, compressed or not, without decoding it.

    >>> rle_area({"size": [2, 2], "counts": [1, 2, 1]})
    2
    """
    _check_rle(rle)
    if isinstance(rle["counts"], str | bytes):
        return int(coco_mask.area(_as_bytes(rle)))
    return sum(rle["counts"][1::2])


def compress_rle(rle: dict) -> dict:
    """Compress a run-length encoding to COCO's bytes: each run as a few characters, relative to the run two before it.

    An encoding that is compressed already is returned with its counts as bytes.

    >>> compress_rle({"size": [2, 2], "counts": [1, 2, 1]})
    {'size': [2, 2], 'counts': b'121'}
    """
    H, W = _check_rle(rle)
    if isinstance(rle["counts"], str | bytes):
        return _as_bytes(rle)
    return coco_mask.frPyObjects(dict(rle), H, W)


def decompress_rle(rle: dict) -> dict:
    """Convert a run-length encoding, compressed or not, to a list of runs.

    >>> decompress_rle({"size": [2, 2], "counts": b"121"})
    {'size': [2, 2], 'counts': [1, 2, 1]}
    """
    return rle_encode(rle_decode(rle))


def polygons_to_rle(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> dict:
    """Fill polygons, as COCO does for its annotations, and encode their union as a compressed RLE.

    Args:
        polygons: each a flat list x0, y0, x1, y1, ... of at least three corners, in pixels.
        size: (H, W) of the image.

    Returns:
        ``{"size": [H, W], "counts": bytes}``; without polygons, an empty mask.

    >>> rle_decode(polygons_to_rle([[0, 0, 2, 0, 2, 1, 0, 1]], (2, 3))).int()
    tensor([[1, 1, 0],
            [0, 0, 0]], dtype=torch.int32)
    """
    H, W = check_size("size", size, minimum=0)
    for index, polygon in enumerate(polygons):
        if len(polygon) < 6 or len(polygon) % 2 or not np.isfinite(polygon).all():
            raise ValueError(f"polygons[{index}] is {list(polygon)}, expected finite x0, y0, x1, y1, x2, y2, ...")
    if not len(polygons):
        return compress_rle({"size": [H, W], "counts": [H * W]})
    return coco_mask.merge(coco_mask.frPyObjects([list(map(float, p)) for p in polygons], H, W))


def rle_iou(preds: Sequence[dict], target: Sequence[dict], iscrowd: Sequence[bool]) -> np.ndarray:
    """IoU of every predicted mask with every ground-truth mask, from their run-length encodings (pycocotools).

    Args:
        preds: P run-length encodings.
        target: N run-length encodings.
        iscrowd: for each target, whether it is a crowd: then intersection over the area of the *prediction*.

    Returns:
        (P, N) float64.

    >>> square = {"size": [2, 2], "counts": [0, 4]}
    >>> rle_iou([{"size": [2, 2], "counts": [0, 2, 2]}], [square, square], [False, True])
    array([[0.5, 1. ]])
    """
    check_length("iscrowd", iscrowd, len(target), of="target")
    if not len(preds) or not len(target):
        return np.zeros((len(preds), len(target)))
    preds, target = [*map(compress_rle, preds)], [*map(compress_rle, target)]
    sizes = {tuple(rle["size"]) for rle in (*preds, *target)}
    if len(sizes) > 1:  # pycocotools returns -1
        raise ValueError(f"preds and target have masks of the sizes {sorted(sizes)}, expected one size")
    return coco_mask.iou(preds, target, [int(c) for c in iscrowd])


def _check_rle(rle: dict) -> tuple[int, int]:
    if not isinstance(rle, dict) or not {"size", "counts"} <= rle.keys():
        raise TypeError(f"rle is {rle!r:.60}, expected a dict with 'size' and 'counts'")
    H, W = check_size("rle['size']", rle["size"], minimum=0)
    counts = rle["counts"]
    if isinstance(counts, str | bytes):
        return H, W
    if isinstance(sum(counts), float):
        raise TypeError(f"rle has the counts {counts!r:.60}, expected integers")
    if sum(counts) != H * W or min(counts, default=0) < 0:
        raise ValueError(f"rle has runs of {sum(counts)} pixels, expected {H} * {W} = {H * W} and none negative")
    return H, W


def _as_bytes(rle: dict) -> dict:
    counts = rle["counts"]  # in JSON files, compressed counts are a string
    return {"size": list(rle["size"]), "counts": counts.encode() if isinstance(counts, str) else counts}
