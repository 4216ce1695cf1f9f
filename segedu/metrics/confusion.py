"""The confusion matrix: every pixel metric is a function of it.

``matrix[i, j]`` counts the pixels whose true class is i and whose predicted class is j: rows are the truth,
columns the prediction.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def confusion_matrix(
    preds: Tensor | np.ndarray,
    target: Tensor | np.ndarray,
    num_classes: int,
    ignore_index: int | None = None,
) -> Tensor:
    """Count the pixels of each (true class, predicted class) pair.

    Args:
        preds: predicted classes, integers of any shape, for instance (H, W) or (B, H, W).
        target: true classes, the same shape.
        num_classes: K. Classes are 0 to K - 1.
        ignore_index: pixels whose target has this value are not counted, whatever is predicted there.

    Returns:
        (K, K) int64, rows truth, columns prediction. All zeros where no pixel counts.

    Raises:
        TypeError: a map is not an array of integers.
        ValueError: the shapes differ, or a counted pixel has a class outside [0, K).

    Example:
        >>> preds = torch.tensor([[0, 1], [1, 1]])
        >>> target = torch.tensor([[0, 0], [1, 255]])
        >>> confusion_matrix(preds, target, num_classes=2, ignore_index=255)
        tensor([[1, 1],
                [0, 1]])
    """
    check_num_classes(num_classes)
    preds, target = label_pair(preds, target)
    if ignore_index is not None:
        # Ignored pixels become pairs (0, 0) and are taken off again: five times faster than preds[counted].
        ignored = target == ignore_index
        preds, target = preds.masked_fill(ignored, 0), target.masked_fill(ignored, 0)
    _check_range(target, "target", num_classes, ignore_index)
    _check_range(preds, "preds", num_classes, None)
    # Each pair (i, j) has its own number K*i + j; minlength keeps the classes that do not occur.
    pairs = (num_classes * target).add_(preds).flatten()
    matrix = torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)  # (K, K)
    if ignore_index is not None:
        matrix[0, 0] -= ignored.sum()
    return matrix


class ConfusionMatrix:
    """A confusion matrix that grows batch by batch.

    Metrics of a data set are computed once, from the accumulated counts. Their mean over batches is another
    number.

    Example:
        >>> total = ConfusionMatrix(num_classes=2)
        >>> total.update(torch.tensor([0, 1]), torch.tensor([0, 0]))
        >>> total.update(torch.tensor([1, 1]), torch.tensor([1, 1]))
        >>> total.compute()
        tensor([[1, 1],
                [0, 2]])
    """

    def __init__(self, num_classes: int, ignore_index: int | None = None):
        """Start with no pixel counted.

        Args:
            num_classes: K. Classes are 0 to K - 1.
            ignore_index: pixels whose target has this value are not counted.

        Raises:
            TypeError: ``num_classes`` is not an integer.
            ValueError: ``num_classes`` is below 1.
        """
        check_num_classes(num_classes)
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.reset()

    def update(self, preds: Tensor | np.ndarray, target: Tensor | np.ndarray) -> None:
        """Count one more batch. Arguments and errors are those of ``confusion_matrix``.

        Args:
            preds: predicted classes, integers.
            target: true classes, the same shape.
        """
        self._matrix += confusion_matrix(preds, target, self.num_classes, self.ignore_index).cpu()

    def compute(self) -> Tensor:
        """The counts so far.

        Returns:
            (K, K) int64 on the CPU, rows truth; a copy.
        """
        return self._matrix.clone()

    def reset(self) -> None:
        """Forget all counts."""
        self._matrix = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of another accumulator, for instance of another process.

        Args:
            other: it is left as it is.

        Raises:
            TypeError: ``other`` is not a ``ConfusionMatrix``.
            ValueError: ``other`` has other classes or ignores another value.
        """
        if not isinstance(other, ConfusionMatrix):
            raise TypeError(f"other has type {type(other).__name__}, expected a ConfusionMatrix")
        ours, theirs = (self.num_classes, self.ignore_index), (other.num_classes, other.ignore_index)
        if ours != theirs:
            raise ValueError(f"other has (num_classes, ignore_index) {theirs}, expected {ours}")
        self._matrix += other._matrix


def label_overlaps(preds: Tensor | np.ndarray, target: Tensor | np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels that each pair of labels has in common: a confusion matrix whose zeros are left out.

    Label maps have thousands of objects, and each touches few others. Time and memory grow with the pixels, not
    with the square of the number of objects.

    Args:
        preds: predicted label map, integers from 0, any shape.
        target: true label map, the same shape.

    Returns:
        Predicted label, true label and number of pixels of every pair that occurs, each (M,) int64 on the CPU, in
        the order of the true label, then the predicted one.

    Raises:
        TypeError: a map is not an array of integers.
        ValueError: the shapes differ, or a label is negative.

    Example:
        >>> label_overlaps(torch.tensor([[1, 1, 0, 2]]), torch.tensor([[7, 7, 7, 9]]))
        (tensor([0, 1, 2]), tensor([7, 7, 9]), tensor([1, 2, 1]))
    """
    found, true = _integer_array(preds, "preds"), _integer_array(target, "target")
    _check_same_shape(found.shape, true.shape)
    found, true = found.ravel(), true.ravel()
    if len(true) == 0:
        nothing = torch.zeros(0, dtype=torch.int64)
        return nothing, nothing.clone(), nothing.clone()
    # Neighbouring pixels mostly have the same pair: find the runs, and sort and convert them instead of the pixels.
    change = (found[1:] != found[:-1]) | (true[1:] != true[:-1])
    starts = np.concatenate([[0], np.flatnonzero(change) + 1])
    lengths = np.diff(starts, append=len(true))
    pred_names, found = _ranks(found[starts], "preds")
    true_names, true = _ranks(true[starts], "target")
    pairs, index = np.unique(true * len(pred_names) + found, return_inverse=True)  # every pair has its own number
    counts = np.bincount(index, weights=lengths).astype(np.int64)
    labels = pred_names[pairs % len(pred_names)], true_names[pairs // len(pred_names)]
    return torch.from_numpy(labels[0]), torch.from_numpy(labels[1]), torch.from_numpy(counts)


def _ranks(labels: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The different labels in order, int64, and the place of each label among them."""
    names, ranks = np.unique(labels.astype(np.int64), return_inverse=True)
    if names[0] < 0:
        raise ValueError(f"{name} has the label {names[0]}, expected 0 (background) and above")
    return names, ranks


def label_pair(preds: Tensor | np.ndarray, target: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
    """Check two maps of integers and return them as int64 tensors.

    Args:
        preds: predicted map, a tensor or an array of integers (or bools, as 0 and 1).
        target: true map, the same shape.

    Returns:
        The two maps, detached, on the device of ``target``.

    Raises:
        TypeError: a map is not an array of integers.
        ValueError: the shapes differ.

    Example:
        >>> label_pair(np.array([1, 0]), np.array([1, 1]))
        (tensor([1, 0]), tensor([1, 1]))
    """
    preds, target = _integers(preds, "preds"), _integers(target, "target")
    _check_same_shape(preds.shape, target.shape)
    return preds.to(target.device), target


def mask_pair(preds: Tensor | np.ndarray, target: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
    """Check two binary masks and return them as bool tensors.

    Args:
        preds: predicted mask, bool (or 0 and 1).
        target: true mask, the same shape.

    Returns:
        The two masks.

    Raises:
        TypeError: a mask is not an array of bools or integers.
        ValueError: the shapes differ, or there are other values than 0 and 1.

    Example:
        >>> mask_pair(np.array([1, 0]), np.array([True, True]))
        (tensor([ True, False]), tensor([True, True]))
    """
    preds, target = label_pair(preds, target)
    return as_mask(preds, "preds"), as_mask(target, "target")


def as_mask(mask: Tensor | np.ndarray, name: str = "mask") -> Tensor:
    """Check a binary mask and return it as a bool tensor.

    Args:
        mask: bool (or 0 and 1), any shape.
        name: the argument's name in an error.

    Returns:
        The mask.

    Raises:
        TypeError: the mask is not an array of bools or integers.
        ValueError: there are other values than 0 and 1.

    Example:
        >>> as_mask(np.array([1, 0]))
        tensor([ True, False])
    """
    mask = _integers(mask, name)
    other = mask[(mask != 0) & (mask != 1)]
    if other.numel():
        raise ValueError(f"{name} has the value {int(other[0])}, expected a mask of 0 and 1")
    return mask.bool()


def check_num_classes(num_classes: int) -> None:
    """Refuse a number of classes that is not a positive integer.

    Args:
        num_classes: K.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is below 1.

    Example:
        >>> check_num_classes(0)
        Traceback (most recent call last):
        ValueError: num_classes is 0, expected at least 1
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int | np.integer):
        raise TypeError(f"num_classes has type {type(num_classes).__name__}, expected an int")
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, expected at least 1")


def _integers(values: Tensor | np.ndarray, name: str) -> Tensor:
    if not isinstance(values, Tensor | np.ndarray):
        raise TypeError(f"{name} has type {type(values).__name__}, expected a tensor or array of integers")
    kind = values.dtype
    if isinstance(values, np.ndarray) and kind.kind in "iub":
        # via int64: torch has no arithmetic for numpy's uint16, and cannot read a reversed view
        return torch.from_numpy(values.astype(np.int64))
    if isinstance(values, np.ndarray) or values.is_floating_point() or values.is_complex():
        raise TypeError(f"{name} has dtype {kind}, expected integers (classes, not scores)")
    return values.detach().long()


def _integer_array(values: Tensor | np.ndarray, name: str) -> np.ndarray:
    """The map as it is, without a copy where it lies in the CPU's memory."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iub":
        return values
    if isinstance(values, Tensor) and not values.is_floating_point() and not values.is_complex():
        return values.detach().cpu().numpy()
    return _integers(values, name).numpy()  # which says what is wrong


def _check_same_shape(preds: tuple[int, ...], target: tuple[int, ...]) -> None:
    if tuple(preds) != tuple(target):
        raise ValueError(
            f"preds has shape {tuple(preds)}, expected that of target, {tuple(target)}"
            " (from logits (B, K, H, W), take argmax over dim 1 first)"
        )


def _check_range(values: Tensor, name: str, num_classes: int, ignore_index: int | None) -> None:
    if values.numel() == 0:
        return
    lowest, highest = values.aminmax()
    if lowest < 0 or highest >= num_classes:
        outside = values[(values < 0) | (values >= num_classes)]
        also = "" if ignore_index is None else f" or ignore_index={ignore_index}"
        raise ValueError(
            f"{name} has the value {int(outside.flatten()[0])},"
            f" expected classes 0 to {num_classes - 1} (num_classes={num_classes}){also}"
        )
