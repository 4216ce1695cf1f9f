"""The metrics of the Cell Tracking Challenge: SEG, DET and TRA.

A sequence is a list of label maps, one per frame, in which a cell keeps its label, and a table of tracks with one row
``label, first frame, last frame, parent`` (0: no parent). A ground-truth cell R is matched to the predicted cell S if S
covers more than half of it, ``|R and S| > |R| / 2``. Therefore at most one S matches R, but one S may match
several cells.

- **SEG** (Maška et al. 2014): the mean over ground-truth cells of the IoU with the matched S, 0 without a match.
- **TRA** (Matula et al., PLoS ONE 2015): cells are vertices, links in time are edges. The metric compares the cost of
  editing the predicted graph into the ground-truth graph with the cost of creating the latter from an empty graph:

      AOGM = 5 NS + 10 FN + 1 FP + 1 ED + 1.5 EA + 1 EC        TRA = 1 - min(AOGM, AOGM0) / AOGM0

  NS: splits; an S that matches k > 1 cells needs k - 1 splits. FN: cells to add. FP: unmatched S, to delete.
  ED: edges to delete, EA: to add, EC: to change between "same cell" and "daughter of".
  Edges of the prediction count if both ends match exactly one cell. AOGM0 = 10 vertices + 1.5 edges.
- **DET**: the same with only the costs of vertices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.confusion import label_overlaps
from segedu.validation.numbers import check_length
from segedu.validation.tensors import check_integer_tensor

WEIGHTS = {"NS": 5, "FN": 10, "FP": 1, "ED": 1, "EA": 1.5, "EC": 1}  # table 1 of Matula et al.

Frames = Sequence[Tensor | np.ndarray] | np.ndarray | Tensor
Tracks = Tensor | np.ndarray
Vertex = tuple[int, int]  # frame, label


def segmentation_accuracy(preds: Frames, target: Frames) -> float:
    """SEG: the mean IoU of the ground-truth cells of all frames with their matched predictions.

    Args:
        preds: T label maps, (H, W) or (D, H, W) each, integers, 0 is background.
        target: the ground-truth maps of the same frames.

    Returns:
        A number in [0, 1]; NaN without ground-truth cells. False positives are not penalised.

    3 of 4 pixels of the first cell are covered, and 1 of 2 of the second cell, which is not more than half.

    >>> segmentation_accuracy([torch.tensor([[1, 1, 1, 0, 2, 0]])], [torch.tensor([[3, 3, 3, 3, 4, 4]])])
    0.375
    """
    frames = _match_frames(preds, target)
    cells = sum(len(frame.target) for frame in frames)
    return sum(iou for frame in frames for iou in frame.ious) / cells if cells else math.nan


def detection_accuracy(preds: Frames, target: Frames) -> float:
    """DET: the cost of correcting the predicted cells, without regard to tracks, as a score.

    Args:
        preds: T label maps, (H, W) or (D, H, W) each, integers, 0 is background.
        target: the ground-truth maps (or markers) of the same frames.

    Returns:
        A number in [0, 1]. Without ground-truth cells: 1 if nothing is predicted, otherwise 0.

    Two cells, predicted as one: a split costs 5, creating both cells 20.

    >>> detection_accuracy([torch.tensor([[1, 1, 1, 1]])], [torch.tensor([[3, 3, 4, 4]])])
    0.75
    """
    return _score(_vertex_operations(_match_frames(preds, target)), ("NS", "FN", "FP"))


def tracking_accuracy(preds: Frames, target: Frames, pred_tracks: Tracks, target_tracks: Tracks) -> float:
    """TRA: the cost of correcting the predicted graph of cells over time, as a score.

    Args:
        preds: T label maps, (H, W) or (D, H, W) each, integers, 0 is background.
        target: the ground-truth maps (or markers) of the same frames.
        pred_tracks: (N, 4) integers: label, first frame, last frame, parent or 0.
        target_tracks: (M, 4), of the ground truth.

    Returns:
        A number in [0, 1]. Without ground-truth cells: 1 if nothing is predicted, otherwise 0.

    Raises:
        TypeError: maps or tables are not arrays of integers.
        ValueError: numbers or shapes of frames differ, a label is negative, or a table is not (N, 4), has a label
            twice, has an unknown parent or one that does not end before its daughter begins, or does not list the
            frames in which its maps have a label.

    A cell is detected in two frames, but with different labels: one link must be added, at a cost of 1.5 out of 21.5.

    >>> cell = torch.tensor([[1, 1]])
    >>> tracks, one = torch.tensor([[1, 0, 0, 0], [2, 1, 1, 0]]), torch.tensor([[1, 0, 1, 0]])
    >>> round(tracking_accuracy([cell, 2 * cell], [cell, cell], tracks, one), 4)
    0.9302
    """
    return _score(graph_operations(preds, target, pred_tracks, target_tracks), tuple(WEIGHTS))


def graph_operations(preds: Frames, target: Frames, pred_tracks: Tracks, target_tracks: Tracks) -> dict[str, int]:
    """Count the operations that edit the predicted graph into the ground-truth graph.

    Arguments and errors as for `tracking_accuracy`.

    Returns:
        NS, FN, FP, ED, EA, EC, and the numbers of ground-truth ``vertices`` and ``edges``.

    A mother divides; the prediction misses one daughter and continues the mother's track with the other.

    >>> frames = [torch.tensor([[1, 1, 0]]), torch.tensor([[2, 0, 3]])]
    >>> preds = [torch.tensor([[7, 7, 0]]), torch.tensor([[7, 0, 0]])]
    >>> tracks = torch.tensor([[1, 0, 0, 0], [2, 1, 1, 1], [3, 1, 1, 1]])
    >>> graph_operations(preds, frames, torch.tensor([[7, 0, 1, 0]]), tracks)
    {'NS': 0, 'FN': 1, 'FP': 0, 'vertices': 3, 'ED': 0, 'EA': 1, 'EC': 1, 'edges': 2}
    """
    frames = _match_frames(preds, target)
    pred_edges = _edges(pred_tracks, "pred_tracks", [frame.preds for frame in frames])
    gt_edges = _edges(target_tracks, "target_tracks", [frame.target for frame in frames])
    operations = _vertex_operations(frames)
    # the ground-truth cell of every predicted cell that matches exactly one
    gt_vertex: dict[Vertex, Vertex] = {}
    for t, frame in enumerate(frames):
        gt_vertex |= {(t, s): (t, cells[0]) for s, cells in frame.matches.items() if len(cells) == 1}
    mapped = {
        (gt_vertex[a], gt_vertex[b]): kind for (a, b), kind in pred_edges.items() if a in gt_vertex and b in gt_vertex
    }
    operations["ED"] = len(mapped.keys() - gt_edges.keys())
    operations["EA"] = len(gt_edges.keys() - mapped.keys())
    operations["EC"] = sum(mapped[edge] != gt_edges[edge] for edge in mapped.keys() & gt_edges.keys())
    operations["edges"] = len(gt_edges)
    return operations


class CellTrackingMetrics:
    """SEG, DET and TRA of several sequences: the mean of their values, as the challenge reports it.

    >>> cell, empty, track = torch.tensor([[1, 1]]), torch.tensor([[0, 0]]), torch.tensor([[1, 0, 0, 0]])
    >>> total = CellTrackingMetrics()
    >>> total.update([cell], [cell], track, track)
    >>> total.update([empty], [cell], track[:0], track)
    >>> total.compute()
    {'seg': 0.5, 'det': 0.5, 'tra': 0.5, 'num_sequences': 2}
    """

    def __init__(self):
        """Start without sequences."""
        self.reset()

    def update(
        self,
        preds: Frames,
        target: Frames,
        pred_tracks: Tracks,
        target_tracks: Tracks,
        segmentations: Mapping[int, Tensor | np.ndarray] | None = None,
    ) -> None:
        """Add one sequence. The first four arguments and the errors are those of `tracking_accuracy`.

        Args:
            segmentations: the ground-truth masks for SEG by index of the frame, if `target` has only markers.
        """
        operations = graph_operations(preds, target, pred_tracks, target_tracks)
        indices = range(len(preds)) if segmentations is None else sorted(segmentations)
        if any(not 0 <= index < len(preds) for index in indices):
            raise ValueError(f"segmentations has the frames {indices}, expected 0 to {len(preds) - 1}")
        masks = target if segmentations is None else segmentations
        values = [
            segmentation_accuracy([preds[i] for i in indices], [masks[i] for i in indices]),
            _score(operations, ("NS", "FN", "FP")),
            _score(operations, tuple(WEIGHTS)),
        ]
        self._sum += np.nan_to_num(values)
        self._count += ~np.isnan(values)

    def compute(self) -> dict[str, float | int]:
        """The means over the sequences so far.

        Returns:
            ``seg``, ``det``, ``tra`` and ``num_sequences``. ``seg`` skips sequences without ground-truth masks. A mean
            over no sequence is NaN.
        """
        means = [float(total / n) if n else math.nan for total, n in zip(self._sum, self._count, strict=True)]
        return {**dict(zip(("seg", "det", "tra"), means, strict=True)), "num_sequences": int(self._count[1])}

    def reset(self) -> None:
        """Remove all sequences."""
        self._sum, self._count = np.zeros(3), np.zeros(3, dtype=np.int64)

    def merge(self, other: CellTrackingMetrics) -> None:
        """Add the sequences of another accumulator, for example of another process."""
        if not isinstance(other, CellTrackingMetrics):
            raise TypeError(f"other has type {type(other).__name__}, expected a CellTrackingMetrics")
        self._sum += other._sum
        self._count += other._count


@dataclass
class _Frame:
    """The labels of a frame, and the ground-truth cells that each predicted cell matches."""

    preds: list[int]
    target: list[int]
    matches: dict[int, list[int]]  # predicted label -> ground-truth labels
    ious: list[float]  # of the matched cells


def _match_frames(preds: Frames, target: Frames) -> list[_Frame]:
    for frames, name in ((preds, "preds"), (target, "target")):
        if not hasattr(frames, "__len__") or isinstance(frames, str | Mapping):
            raise TypeError(f"{name} has type {type(frames).__name__}, expected a sequence of label maps")
    check_length("preds", preds, len(target), of="frame of target")
    for t, frame in enumerate(target):
        if np.ndim(frame) < 2:
            raise ValueError(f"target[{t}] has shape {tuple(np.shape(frame))}, expected (H, W) or (D, H, W)")
    return [_match(p, t) for p, t in zip(preds, target, strict=True)]


def _match(preds: Tensor | np.ndarray, target: Tensor | np.ndarray) -> _Frame:
    pred_labels, gt_labels, common = (values.cpu().numpy() for values in label_overlaps(preds, target))
    pred_ids, rows = np.unique(pred_labels, return_inverse=True)
    gt_ids, columns = np.unique(gt_labels, return_inverse=True)
    area = np.bincount(columns, weights=common)[columns]
    union = np.bincount(rows, weights=common)[rows] + area - common
    covered = (2 * common > area) & (pred_labels > 0) & (gt_labels > 0)
    matches: dict[int, list[int]] = {}
    for s, cell in zip(pred_labels[covered].tolist(), gt_labels[covered].tolist(), strict=True):
        matches.setdefault(s, []).append(cell)
    ious = (common[covered] / union[covered]).tolist()
    return _Frame(pred_ids[pred_ids > 0].tolist(), gt_ids[gt_ids > 0].tolist(), matches, ious)


def _vertex_operations(frames: list[_Frame]) -> dict[str, int]:
    cells = sum(len(frame.target) for frame in frames)
    matched_cells = sum(len(frame.ious) for frame in frames)
    matched_preds = sum(len(frame.matches) for frame in frames)
    unmatched_preds = sum(len(frame.preds) for frame in frames) - matched_preds
    splits = matched_cells - matched_preds
    return {"NS": splits, "FN": cells - matched_cells, "FP": unmatched_preds, "vertices": cells}


def _score(operations: dict[str, int], names: tuple[str, ...]) -> float:
    """1 - min(AOGM, AOGM0) / AOGM0, with the operations of these names."""
    cost = sum(WEIGHTS[name] * operations[name] for name in names)
    cost_from_empty = WEIGHTS["FN"] * operations["vertices"]
    if "EA" in names:
        cost_from_empty += WEIGHTS["EA"] * operations["edges"]
    if cost_from_empty == 0:
        return 1.0 if cost == 0 else 0.0
    return 1 - min(cost, cost_from_empty) / cost_from_empty


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
    integers = isinstance(tracks, np.ndarray) and tracks.dtype.kind in "iu"
    # torch cannot read every array: astype also copies reversed views
    table = torch.from_numpy(tracks.astype(np.int64)) if integers else torch.as_tensor(tracks)
    check_integer_tensor(name, table, "N? 4")
    return table.tolist()


def _check_tracks(rows: list[list[int]], name: str, labels: list[list[int]], last_frame: dict[int, int]) -> None:
    if len(last_frame) != len(rows):
        raise ValueError(f"{name} has {len(rows)} tracks with {len(last_frame)} labels, expected one for each track")
    listed: list[set[int]] = [set() for _ in labels]
    for label, first, last, parent in rows:
        if not (label > 0 and 0 <= first <= last < len(labels)):
            expected = f"a label above 0 and 0 <= first <= last <= {len(labels) - 1}"
            raise ValueError(f"{name} has the row {[label, first, last, parent]}, expected {expected}")
        if parent and not last_frame.get(parent, first) < first:
            raise ValueError(
                f"{name} has the parent {parent} of {label}, expected a track that ends before frame {first}"
            )
        for t in range(first, last + 1):
            listed[t].add(label)
    for t, (in_table, in_map) in enumerate(zip(listed, labels, strict=True)):
        if mismatch := in_table.symmetric_difference(in_map):
            missing = "map" if min(mismatch) in in_table else "table"
            raise ValueError(f"{name}: frame {t}, label {min(mismatch)} is not in the {missing}, expected it in both")
