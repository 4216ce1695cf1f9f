"""The measures of the Cell Tracking Challenge: SEG, DET and TRA.

A sequence is a list of label maps, one a frame, where a cell keeps its label, and a table of tracks with one row
``label, first frame, last frame, parent`` (0: no parent). A true cell R is found by the predicted S if S covers more
than half of it, ``|R and S| > |R| / 2``: so at most one S finds it, while one S may find several cells.

- **SEG** (Maška et al. 2014): the mean over true cells of the IoU with the S that finds it, 0 where none does.
- **TRA** (Matula et al., PLoS ONE 2015): cells are vertices, links in time are edges, and the measure is the work of
  turning the predicted graph into the true one, against the work of drawing the true one from nothing:

      AOGM = 5 NS + 10 FN + 1 FP + 1 ED + 1.5 EA + 1 EC        TRA = 1 - min(AOGM, AOGM0) / AOGM0

  NS: splits of an S that finds k > 1 cells, k - 1 each. FN: cells to add. FP: S without a cell, to delete.
  ED: edges to delete, EA: to add, EC: to change between "same cell" and "daughter of".
  Edges of the prediction count where both ends find exactly one cell. AOGM0 = 10 vertices + 1.5 edges.
- **DET**: the same with vertices alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.confusion import label_overlaps

WEIGHTS = {"NS": 5, "FN": 10, "FP": 1, "ED": 1, "EA": 1.5, "EC": 1}  # table 1 of Matula et al.

Frames = Sequence[Tensor | np.ndarray] | np.ndarray | Tensor
Tracks = Tensor | np.ndarray
Vertex = tuple[int, int]  # frame, label


def segmentation_accuracy(preds: Frames, target: Frames) -> float:
    """SEG: the mean IoU of the true cells of all frames with the predicted ones that find them.

    Args:
        preds: T label maps, (H, W) or (D, H, W) each, integers, 0 is background.
        target: the true maps of the same frames; only some frames of a sequence may have one.

    Returns:
        A number in [0, 1]; NaN without any true cell. Invented cells cost nothing.

    Raises:
        TypeError: an argument is not a sequence of arrays of integers.
        ValueError: numbers or shapes of frames differ, or a label is negative.

    Example:
        The first cell is covered for 3 of 4 pixels, the second for 1 of 2, which is not more than half.

        >>> segmentation_accuracy([torch.tensor([[1, 1, 1, 0, 2, 0]])], [torch.tensor([[3, 3, 3, 3, 4, 4]])])
        0.375
    """
    frames = _match_frames(preds, target)
    cells = sum(len(frame.target) for frame in frames)
    return sum(iou for frame in frames for iou in frame.ious) / cells if cells else math.nan


def detection_accuracy(preds: Frames, target: Frames) -> float:
    """DET: how little must be done to the predicted cells, without regard to tracks.

    Args:
        preds: T label maps, (H, W) or (D, H, W) each, integers, 0 is background.
        target: the true maps (or markers) of the same frames.

    Returns:
        A number in [0, 1]. Without any true cell: 1 if nothing is predicted, otherwise 0.

    Raises:
        TypeError: an argument is not a sequence of arrays of integers.
        ValueError: numbers or shapes of frames differ, or a label is negative.

    Example:
        Two cells, found as one: a split costs 5, drawing both 20.

        >>> detection_accuracy([torch.tensor([[1, 1, 1, 1]])], [torch.tensor([[3, 3, 4, 4]])])
        0.75
    """
    return _share(_vertex_operations(_match_frames(preds, target)), ("NS", "FN", "FP"))


def tracking_accuracy(preds: Frames, target: Frames, pred_tracks: Tracks, target_tracks: Tracks) -> float:
    """TRA: how little must be done to the predicted graph of cells in time.

    Args:
        preds: T label maps, (H, W) or (D, H, W) each, integers, 0 is background.
        target: the true maps (or markers) of the same frames.
        pred_tracks: (N, 4) integers: label, first frame, last frame, parent or 0.
        target_tracks: (M, 4), of the truth.

    Returns:
        A number in [0, 1]. Without any true cell: 1 if nothing is predicted, otherwise 0.

    Raises:
        TypeError: maps or tables are not arrays of integers.
        ValueError: numbers or shapes of frames differ, a label is negative, or a table is not (N, 4), lists a label
            twice, has an unknown parent or one that does not end before its daughter begins, or does not say in
            which frames its maps have a label.

    Example:
        One cell in two frames is found in both, under two names: one link must be added, for 1.5 of 21.5.

        >>> cell = torch.tensor([[1, 1]])
        >>> tracks, one = torch.tensor([[1, 0, 0, 0], [2, 1, 1, 0]]), torch.tensor([[1, 0, 1, 0]])
        >>> round(tracking_accuracy([cell, 2 * cell], [cell, cell], tracks, one), 4)
        0.9302
    """
    return _share(graph_operations(preds, target, pred_tracks, target_tracks), tuple(WEIGHTS))


def graph_operations(preds: Frames, target: Frames, pred_tracks: Tracks, target_tracks: Tracks) -> dict[str, int]:
    """How often each operation is needed to turn the predicted graph into the true one.

    Args:
        preds: T label maps, (H, W) or (D, H, W) each, integers, 0 is background.
        target: the true maps (or markers) of the same frames.
        pred_tracks: (N, 4) integers: label, first frame, last frame, parent or 0.
        target_tracks: (M, 4), of the truth.

    Returns:
        NS, FN, FP, ED, EA, EC, and the numbers of true ``vertices`` and ``edges``.

    Raises:
        TypeError: see ``tracking_accuracy``.
        ValueError: see ``tracking_accuracy``.

    Example:
        A mother divides; the prediction misses one daughter and takes the other for the mother.

        >>> frames = [torch.tensor([[1, 1, 0]]), torch.tensor([[2, 0, 3]])]
        >>> found = [torch.tensor([[7, 7, 0]]), torch.tensor([[7, 0, 0]])]
        >>> tracks = torch.tensor([[1, 0, 0, 0], [2, 1, 1, 1], [3, 1, 1, 1]])
        >>> graph_operations(found, frames, torch.tensor([[7, 0, 1, 0]]), tracks)
        {'NS': 0, 'FN': 1, 'FP': 0, 'vertices': 3, 'ED': 0, 'EA': 1, 'EC': 1, 'edges': 2}
    """
    frames = _match_frames(preds, target)
    edges = _edges(pred_tracks, "pred_tracks", [frame.preds for frame in frames])
    true_edges = _edges(target_tracks, "target_tracks", [frame.target for frame in frames])
    operations = _vertex_operations(frames)
    # the true cell of every predicted one that finds exactly one
    place: dict[Vertex, Vertex] = {}
    for t, frame in enumerate(frames):
        place |= {(t, s): (t, cells[0]) for s, cells in frame.found.items() if len(cells) == 1}
    moved = {(place[a], place[b]): kind for (a, b), kind in edges.items() if a in place and b in place}
    operations["ED"] = len(moved.keys() - true_edges.keys())
    operations["EA"] = len(true_edges.keys() - moved.keys())
    operations["EC"] = sum(moved[edge] != true_edges[edge] for edge in moved.keys() & true_edges.keys())
    operations["edges"] = len(true_edges)
    return operations


class CellTrackingMetrics:
    """SEG, DET and TRA of several sequences: the mean of their values, as the challenge reports it.

    Example:
        >>> cell, nothing, track = torch.tensor([[1, 1]]), torch.tensor([[0, 0]]), torch.tensor([[1, 0, 0, 0]])
        >>> total = CellTrackingMetrics()
        >>> total.update([cell], [cell], track, track)
        >>> total.update([nothing], [cell], track[:0], track)
        >>> total.compute()
        {'seg': 0.5, 'det': 0.5, 'tra': 0.5, 'num_sequences': 2}
    """

    def __init__(self):
        """Start with no sequence."""
        self.reset()

    def update(
        self,
        preds: Frames,
        target: Frames,
        pred_tracks: Tracks,
        target_tracks: Tracks,
        segmentations: Mapping[int, Tensor | np.ndarray] | None = None,
    ) -> None:
        """Add one sequence. The first four arguments and the errors are those of ``tracking_accuracy``.

        Args:
            preds: predicted label maps.
            target: true label maps or markers.
            pred_tracks: predicted tracks.
            target_tracks: true tracks.
            segmentations: the true masks for SEG by number of the frame, where ``target`` has only markers.

        Raises:
            ValueError: a number in ``segmentations`` is no frame.
        """
        operations = graph_operations(preds, target, pred_tracks, target_tracks)
        numbers = range(len(preds)) if segmentations is None else sorted(segmentations)
        if any(not 0 <= number < len(preds) for number in numbers):
            raise ValueError(f"segmentations has the frames {numbers}, expected 0 to {len(preds) - 1}")
        masks = target if segmentations is None else segmentations
        values = [
            segmentation_accuracy([preds[i] for i in numbers], [masks[i] for i in numbers]),
            _share(operations, ("NS", "FN", "FP")),
            _share(operations, tuple(WEIGHTS)),
        ]
        self._sum += np.nan_to_num(values)
        self._number += ~np.isnan(values)

    def compute(self) -> dict[str, float | int]:
        """The means over the sequences so far.

        Returns:
            ``seg``, ``det``, ``tra`` and ``num_sequences``. A sequence without true masks is left out of ``seg``.
            NaN where no sequence counts.
        """
        means = [float(total / n) if n else math.nan for total, n in zip(self._sum, self._number, strict=True)]
        return {**dict(zip(("seg", "det", "tra"), means, strict=True)), "num_sequences": int(self._number[1])}

    def reset(self) -> None:
        """Forget all sequences."""
        self._sum, self._number = np.zeros(3), np.zeros(3, dtype=np.int64)

    def merge(self, other: CellTrackingMetrics) -> None:
        """Add the sequences of another accumulator, for instance of another process.

        Args:
            other: it is left as it is.

        Raises:
            TypeError: ``other`` is not a ``CellTrackingMetrics``.
        """
        if not isinstance(other, CellTrackingMetrics):
            raise TypeError(f"other has type {type(other).__name__}, expected a CellTrackingMetrics")
        self._sum += other._sum
        self._number += other._number


@dataclass
class _Frame:
    """What is kept of a frame: its labels, and which prediction finds which cells."""

    preds: list[int]
    target: list[int]
    found: dict[int, list[int]]  # predicted label -> true labels
    ious: list[float]  # of the found cells


def _match_frames(preds: Frames, target: Frames) -> list[_Frame]:
    for frames, name in ((preds, "preds"), (target, "target")):
        if not hasattr(frames, "__len__") or isinstance(frames, str | Mapping):
            raise TypeError(f"{name} has type {type(frames).__name__}, expected a sequence of label maps")
    if len(preds) != len(target):
        raise ValueError(f"preds has {len(preds)} frames, expected as many as target, {len(target)}")
    for t, frame in enumerate(target):
        if np.ndim(frame) < 2:
            raise ValueError(f"target[{t}] has shape {tuple(np.shape(frame))}, expected (H, W) or (D, H, W)")
    return [_match(p, t) for p, t in zip(preds, target, strict=True)]


def _match(preds: Tensor | np.ndarray, target: Tensor | np.ndarray) -> _Frame:
    pred_labels, true_labels, common = (values.cpu().numpy() for values in label_overlaps(preds, target))
    pred_ids, rows = np.unique(pred_labels, return_inverse=True)
    true_ids, columns = np.unique(true_labels, return_inverse=True)
    area = np.bincount(columns, weights=common)[columns]
    union = np.bincount(rows, weights=common)[rows] + area - common
    covered = (2 * common > area) & (pred_labels > 0) & (true_labels > 0)
    found: dict[int, list[int]] = {}
    for s, cell in zip(pred_labels[covered].tolist(), true_labels[covered].tolist(), strict=True):
        found.setdefault(s, []).append(cell)
    ious = (common[covered] / union[covered]).tolist()
    return _Frame(pred_ids[pred_ids > 0].tolist(), true_ids[true_ids > 0].tolist(), found, ious)


def _vertex_operations(frames: list[_Frame]) -> dict[str, int]:
    cells = sum(len(frame.target) for frame in frames)
    found = sum(len(frame.ious) for frame in frames)
    finders = sum(len(frame.found) for frame in frames)
    extra = sum(len(frame.preds) for frame in frames) - finders
    return {"NS": found - finders, "FN": cells - found, "FP": extra, "vertices": cells}


def _share(operations: dict[str, int], names: tuple[str, ...]) -> float:
    """1 - min(AOGM, AOGM0) / AOGM0, with the operations of these names."""
    work = sum(WEIGHTS[name] * operations[name] for name in names)
    from_nothing = WEIGHTS["FN"] * operations["vertices"]
    if "EA" in names:
        from_nothing += WEIGHTS["EA"] * operations["edges"]
    if from_nothing == 0:
        return 1.0 if work == 0 else 0.0
    return 1 - min(work, from_nothing) / from_nothing


def _edges(tracks: Tracks, name: str, labels: list[list[int]]) -> dict[tuple[Vertex, Vertex], str]:
    """The links of a table: each cell with itself one frame later, and each mother with her daughters."""
    rows = _rows(tracks, name)
    last_frame = {label: last for label, _, last, _ in rows}
    _check_tracks(rows, name, labels, last_frame)
    edges = {}
    for label, first, last, parent in rows:
        edges |= {((t, label), (t + 1, label)): "same cell" for t in range(first, last)}
        if parent:
            edges[(last_frame[parent], parent), (first, label)] = "daughter"
    return edges


def _rows(tracks: Tracks, name: str) -> list[list[int]]:
    if not isinstance(tracks, Tensor | np.ndarray):
        raise TypeError(f"{name} has type {type(tracks).__name__}, expected a tensor or array (N, 4) of integers")
    whole = isinstance(tracks, np.ndarray) and tracks.dtype.kind in "iu"
    table = torch.from_numpy(tracks.astype(np.int64)) if whole else torch.as_tensor(tracks)  # in any order of memory
    if table.is_floating_point() or table.is_complex() or table.dtype == torch.bool:
        raise TypeError(f"{name} has dtype {tracks.dtype}, expected integers")
    if table.ndim != 2 or table.shape[1] != 4:
        raise ValueError(f"{name} has shape {tuple(table.shape)}, expected (N, 4): label, first, last, parent")
    return table.tolist()


def _check_tracks(rows: list[list[int]], name: str, labels: list[list[int]], last_frame: dict[int, int]) -> None:
    if len(last_frame) != len(rows):
        raise ValueError(f"{name} lists {len(rows)} tracks with {len(last_frame)} labels, expected a label for each")
    listed: list[set[int]] = [set() for _ in labels]
    for label, first, last, parent in rows:
        if not (label > 0 and 0 <= first <= last < len(labels)):
            expected = f"a label above 0 and 0 <= first <= last <= {len(labels) - 1}"
            raise ValueError(f"{name} has the row {[label, first, last, parent]}, expected {expected}")
        if parent and not last_frame.get(parent, first) < first:
            raise ValueError(f"{name} has the parent {parent} of {label}, expected a track that ends before {first}")
        for t in range(first, last + 1):
            listed[t].add(label)
    for t, (here, there) in enumerate(zip(listed, labels, strict=True)):
        if wrong := here.symmetric_difference(there):
            where = "the map has not" if min(wrong) in here else "the table has not"
            raise ValueError(f"{name}: frame {t}, label {min(wrong)}: {where}, expected the same labels in both")
