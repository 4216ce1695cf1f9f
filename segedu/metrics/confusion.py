"""The confusion matrix, from which all metrics of semantic segmentation are computed.

``matrix[i, j]`` counts the pixels of ground-truth class i that are predicted as class j: rows are the ground truth,
columns the prediction.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.validation.numbers import check_integer


def confusion_matrix(
    preds: Tensor | np.ndarray,
    target: Tensor | np.ndarray,
    num_classes: int,
    ignore_index: int | None = None,
) -> Tensor:
    """Count the pixels of each pair of ground-truth class and predicted class.

    Args:
        preds: predicted classes, integers of any shape, for example (H, W) or (B, H, W).
        target: ground-truth classes, the same shape.
        num_classes: K. Classes are 0 to K - 1.
        ignore_index: pixels whose target has this value are not counted, whatever their predicted class.

    Returns:
        (K, K) int64; rows are the ground truth, columns the prediction. All zeros if every pixel is ignored.

    >>> preds = torch.tensor([[0, 1], [1, 1]])
    >>> target = torch.tensor([[0, 0], [1, 255]])
    >>> confusion_matrix(preds, target, num_classes=2, ignore_index=255)
    tensor([[1, 1],
            [0, 1]])
    """
    check_integer("num_classes", num_classes)
    preds, target = label_pair(preds, target)
    if ignore_index is not None:
        # Count ignored pixels as pairs (0, 0) and subtract them below: five times faster than a boolean index.
        ignored = target == ignore_index
        preds, target = preds.masked_fill(ignored, 0), target.masked_fill(ignored, 0)
    _check_range(target, "target", num_classes, ignore_index)
    _check_range(preds, "preds", num_classes, None)
    # Pair (i, j) has the index K*i + j. With minlength, pairs that do not occur get a count of 0.
    pairs = (num_classes * target).add_(preds).flatten()
    matrix = torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)  # (K, K)
    if ignore_index is not None:
        matrix[0, 0] -= ignored.sum()
    return matrix


class ConfusionMatrix:
    """A confusion matrix that is accumulated over batches.

    Compute the metrics of a data set once, from the accumulated counts. The mean of the metrics of all batches differs.

    >>> total = ConfusionMatrix(num_classes=2)
    >>> total.update(torch.tensor([0, 1]), torch.tensor([0, 0]))
    >>> total.update(torch.tensor([1, 1]), torch.tensor([1, 1]))
    >>> total.compute()
    tensor([[1, 1],
            [0, 2]])
    """

    def __init__(self, num_classes: int, ignore_index: int | None = None):
        """Start with counts of 0. Arguments as for `confusion_matrix`."""
        check_integer("num_classes", num_classes)
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.reset()

    def update(self, preds: Tensor | np.ndarray, target: Tensor | np.ndarray) -> None:
        """Add one batch. Arguments as for `confusion_matrix`."""
        self._matrix += confusion_matrix(preds, target, self.num_classes, self.ignore_index).cpu()

    def compute(self) -> Tensor:
        """Return a copy of the counts so far: (K, K) int64 on the CPU; rows are the ground truth."""
        return self._matrix.clone()

    def reset(self) -> None:
        """Set all counts to 0."""
        self._matrix = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of another accumulator, for example of another process.

        Raises:
            TypeError: `other` is not a `ConfusionMatrix`.
            ValueError: `other` has a different `num_classes` or `ignore_index`.
        """
        if not isinstance(other, ConfusionMatrix):
            raise TypeError(f"other has type {type(other).__name__}, expected a ConfusionMatrix")
        ours, theirs = (self.num_classes, self.ignore_index), (other.num_classes, other.ignore_index)
        if ours != theirs:
            raise ValueError(f"other has (num_classes, ignore_index) {theirs}, expected {ours}")
        self._matrix += other._matrix


def label_overlaps(preds: Tensor | np.ndarray, target: Tensor | np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Count the pixels in the intersection of each pair of overlapping labels: a sparse confusion matrix.

    Two label maps may have thousands of objects, but each object overlaps only a few objects of the other map. Time and
    memory grow with the number of pixels, not with the product of the numbers of objects.

    Args:
        preds: predicted label map, integers from 0, any shape.
        target: ground-truth label map, the same shape.

    Returns:
        For the M pairs of labels that occur: predicted labels, ground-truth labels and numbers of pixels, each (M,)
        int64 on the CPU, sorted by ground-truth label, then by predicted label.

    >>> label_overlaps(torch.tensor([[1, 1, 0, 2]]), torch.tensor([[7, 7, 7, 9]]))
    (tensor([0, 1, 2]), tensor([7, 7, 9]), tensor([1, 2, 1]))
    """
    pred, gt = _integer_array(preds, "preds"), _integer_array(target, "target")
    _check_same_shape(pred.shape, gt.shape)
    pred, gt = pred.ravel(), gt.ravel()
    if len(gt) == 0:
        empty = torch.zeros(0, dtype=torch.int64)
        return empty, empty.clone(), empty.clone()
    # Neighbouring pixels mostly have the same pair of labels, so runs of equal pairs are sorted instead of pixels.
    starts_run = (pred[1:] != pred[:-1]) | (gt[1:] != gt[:-1])
    starts = np.concatenate([[0], np.flatnonzero(starts_run) + 1])
    lengths = np.diff(starts, append=len(gt))
    pred_labels, pred = _ranks(pred[starts], "preds")
    gt_labels, gt = _ranks(gt[starts], "target")
    pairs, index = np.unique(gt * len(pred_labels) + pred, return_inverse=True)  # one integer per pair of labels
    counts = np.bincount(index, weights=lengths).astype(np.int64)
    labels = pred_labels[pairs % len(pred_labels)], gt_labels[pairs // len(pred_labels)]
    return torch.from_numpy(labels[0]), torch.from_numpy(labels[1]), torch.from_numpy(counts)


def _ranks(labels: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The unique labels in ascending order, int64, and the index of each label in this list."""
    unique, ranks = np.unique(labels.astype(np.int64), return_inverse=True)
    if unique[0] < 0:
        raise ValueError(f"{name} has the label {unique[0]}, expected 0 (background) and above")
    return unique, ranks


def label_pair(preds: Tensor | np.ndarray, target: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
    """Check that two maps of integers or bools have the same shape, and convert them to tensors.

    Returns:
        The two maps as int64 tensors, detached, on the device of `target`.

    >>> label_pair(np.array([1, 0]), np.array([1, 1]))
    (tensor([1, 0]), tensor([1, 1]))
    """
    preds, target = _integers(preds, "preds"), _integers(target, "target")
    _check_same_shape(preds.shape, target.shape)
    return preds.to(target.device), target


def mask_pair(preds: Tensor | np.ndarray, target: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
    """Check that two binary masks, bool or 0 and 1, have the same shape, and convert them to bool tensors.

    >>> mask_pair(np.array([1, 0]), np.array([True, True]))
    (tensor([ True, False]), tensor([True, True]))
    """
    preds, target = label_pair(preds, target)
    return as_mask(preds, "preds"), as_mask(target, "target")


def as_mask(mask: Tensor | np.ndarray, name: str = "mask") -> Tensor:
    """Check a binary mask of any shape, bool or 0 and 1, and convert it to a bool tensor.

    Args:
        name: name of the argument in error messages.

    >>> as_mask(np.array([1, 0]))
    tensor([ True, False])
    """
    mask = _integers(mask, name)
    other = mask[(mask != 0) & (mask != 1)]
    if other.numel():
        raise ValueError(f"{name} has the value {int(other[0])}, expected a mask of 0 and 1")
    return mask.bool()


def _integers(values: Tensor | np.ndarray, name: str) -> Tensor:
    if not isinstance(values, Tensor | np.ndarray):
        raise TypeError(f"{name} has type {type(values).__name__}, expected a tensor or array of integers")
    kind = values.dtype
    if isinstance(values, np.ndarray) and kind.kind in "iub":
        # Copy to int64: torch lacks arithmetic for uint16, and does not accept arrays with negative strides.
        return torch.from_numpy(values.astype(np.int64))
    if isinstance(values, np.ndarray) or values.is_floating_point() or values.is_complex():
        raise TypeError(f"{name} has dtype {kind}, expected integers (classes, not scores)")
    return values.detach().long()


def _integer_array(values: Tensor | np.ndarray, name: str) -> np.ndarray:
    """Check and return the map as an array; it is copied only if it is not in CPU memory."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iub":
        return values
    if isinstance(values, Tensor) and not values.is_floating_point() and not values.is_complex():
        return values.detach().cpu().numpy()
    return _integers(values, name).numpy()  # any other input: raises the TypeError


def _check_same_shape(preds: tuple[int, ...], target: tuple[int, ...]) -> None:
    if tuple(preds) != tuple(target):
        raise ValueError(
            f"preds has shape {tuple(preds)}, expected that of target, {tuple(target)}"
            " (convert logits (B, K, H, W) by argmax over dim 1)"
        )


def _check_range(values: Tensor, name: str, num_classes: int, ignore_index: int | None) -> None:
    if values.numel() == 0:
        return
    lowest, highest = values.aminmax()
    if lowest < 0 or highest >= num_classes:
        outside = values[(values < 0) | (values >= num_classes)]
        or_ignored = "" if ignore_index is None else f" or ignore_index={ignore_index}"
        raise ValueError(
            f"{name} has the value {int(outside.flatten()[0])},"
            f" expected classes 0 to {num_classes - 1} (num_classes={num_classes}){or_ignored}"
        )
