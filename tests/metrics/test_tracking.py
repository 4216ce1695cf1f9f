"""SEG, DET and TRA against py-ctcmetrics on random sequences written as the challenge's files, and by hand."""

import contextlib
import functools
import io
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.io import imsave

from segedu.metrics.tracking import (
    CellTrackingMetrics,
    detection_accuracy,
    graph_operations,
    segmentation_accuracy,
    tracking_accuracy,
)

FRAMES, GRID, CELL = 7, (4, 5), 9
COUNTS = ("NS", "FN", "FP", "ED", "EA", "EC")


def true_tracks(rng):
    """Rows label, first, last, parent, and a place of the grid for each; some cells divide."""
    rows, places = [], []
    for place in range(GRID[0] * GRID[1]):
        if rng.random() < 0.2:
            continue
        first, last = np.sort(rng.integers(0, FRAMES, 2)).tolist()
        rows.append([len(rows) + 1, first, last, 0])
        places.append((place, None))
        if last < FRAMES - 1 and rng.random() < 0.6:  # two daughters share the mother's place
            mother = len(rows)
            for half in (0, 1):
                start = last + 1 + int(rng.random() < 0.2)
                if start < FRAMES:
                    rows.append([len(rows) + 1, start, int(rng.integers(start, FRAMES)), mother])
                    places.append((place, half))
    return rows, places


def paint(canvas, place, half, label, rng):
    y, x = (CELL * i + 1 for i in divmod(place, GRID[1]))
    y, x = y + rng.integers(0, 2), x + rng.integers(0, 2)
    height, width = rng.integers(5, 8), rng.integers(6, 8)
    left, right = {None: (0, width), 0: (0, width // 2), 1: (width // 2, width)}[half]
    canvas[y : y + height, x + left : x + right] = label


def predicted_labels(rows, rng):
    """Pieces of the true tracks: (frame, true label) -> predicted label; cut, lost, merged and exchanged."""
    names, name = {}, 1000
    last = {row[0]: row[2] for row in rows}
    for label, first, end, parent in rows:
        name += 1
        if parent and rng.random() < 0.3 and last[parent] == first - 1 and (first - 1, parent) in names:
            old = names[first - 1, parent]  # a daughter goes by the mother's name
            name_here = old if old not in [n for (t, _), n in names.items() if t >= first] else name
        else:
            name_here = name
        for t in range(first, end + 1):
            if rng.random() < 0.15:  # lost, or cut in two
                name += 1
                name_here = name
                if rng.random() < 0.5:
                    continue
            names[t, label] = name_here
    return names


@functools.cache
def random_sequence(seed):
    """Predicted maps, true maps, predicted and true table."""
    rng = np.random.default_rng(seed)
    rows, places = true_tracks(rng)
    shape = FRAMES, CELL * GRID[0] + 4, CELL * GRID[1] + 4
    target, preds = np.zeros(shape, dtype=np.uint16), np.zeros(shape, dtype=np.uint16)
    names = predicted_labels(rows, rng)
    for label, first, last, _ in rows:
        for t in range(first, last + 1):
            paint(target[t], *places[label - 1], label, rng)
            if (t, label) in names:
                paint(preds[t], *places[label - 1], names[t, label], rng)
    for t in range(FRAMES):
        ids = [n for n in np.unique(preds[t]) if n]
        if len(ids) > 2 and rng.random() < 0.5:  # two become one
            preds[t][preds[t] == ids[0]] = ids[1]
        if rng.random() < 0.3:  # invented
            preds[t, -3:, -3:] = 3000 + t
    rows = alive(target, {row[0]: row[3] for row in rows})
    mothers = {names[t, label]: names.get((t - 1, rows_parent)) for (t, label), rows_parent in parents(rows, names)}
    return preds, target, table(relabelled(preds), mothers, rng), np.array(rows)


def parents(rows, names):
    return [((first, label), parent) for label, first, _, parent in rows if parent and (first, label) in names]


def alive(maps, parent_of):
    """Rows of the labels that are left in the maps after cells were painted over each other."""
    rows = []
    for label in np.unique(maps[maps > 0]).tolist():
        frames = [t for t in range(len(maps)) if (maps[t] == label).any()]
        rows.append([label, frames[0], frames[-1], parent_of.get(label, 0)])
    return rows


def relabelled(maps):
    """Give each run of frames of a label a name of its own, in place: a track has no holes."""
    new = max(5000, int(maps.max()))  # a name that no other run has, or two of them would be one with a hole
    for label in np.unique(maps[maps > 0]).tolist():
        here = [bool((frame == label).any()) for frame in maps]
        for t in range(1, len(maps)):
            if here[t] and not here[t - 1] and any(here[:t]):
                new += 1
                for later in maps[t:]:
                    if not (later == label).any():
                        break
                    later[later == label] = new
                return relabelled(maps)
    return maps


def table(maps, mothers, rng):
    """The rows of the predicted maps: the true mother, a random one, or none."""
    rows = alive(maps, {})
    for row in rows:
        ended = [other[0] for other in rows if other[2] < row[1]]
        mother = mothers.get(row[0])
        if mother in ended and rng.random() < 0.8:
            row[3] = mother
        elif ended and rng.random() < 0.4:
            row[3] = int(rng.choice(ended))
    return np.array(rows).reshape(-1, 4)


def by_ctcmetrics(folder, preds, target, pred_tracks, target_tracks):
    ctc = pytest.importorskip("ctc_metrics")
    result, truth = folder / "01_RES", folder / "01_GT"
    for part in (result, truth / "TRA", truth / "SEG"):
        part.mkdir(parents=True)
    for t, (p, g) in enumerate(zip(preds, target, strict=True)):
        imsave(result / f"mask{t:03}.tif", p, check_contrast=False)
        imsave(truth / "TRA" / f"man_track{t:03}.tif", g, check_contrast=False)
        if t % 2:  # only some frames have masks
            imsave(truth / "SEG" / f"man_seg{t:03}.tif", g, check_contrast=False)
    np.savetxt(result / "res_track.txt", pred_tracks, fmt="%d")
    np.savetxt(truth / "TRA" / "man_track.txt", target_tracks, fmt="%d")
    with contextlib.redirect_stdout(io.StringIO()):
        return ctc.evaluate_sequence(str(result), str(truth), ["SEG", "DET", "TRA"], threads=1)


SEEDS = range(12)


@functools.cache
def expected(seed):
    with tempfile.TemporaryDirectory() as folder:
        return by_ctcmetrics(Path(folder), *random_sequence(seed))


def compare(seg=segmentation_accuracy, det=detection_accuracy, tra=tracking_accuracy, counts=graph_operations):
    for seed in SEEDS:
        preds, target, *tables = random_sequence(seed)
        theirs = expected(seed)
        assert seg(preds[1::2], target[1::2]) == pytest.approx(theirs["SEG"], abs=1e-14)
        assert det(preds, target) == pytest.approx(theirs["DET"], abs=1e-14)
        assert tra(preds, target, *tables) == pytest.approx(theirs["TRA"], abs=1e-14)
        ours = counts(preds, target, *tables)
        assert [ours[name] for name in COUNTS] == [theirs[f"AOGM_{name}"] for name in COUNTS]


def test_equals_py_ctcmetrics():
    compare()


def test_random_sequences_need_every_operation():
    sums = {name: sum(graph_operations(*random_sequence(seed))[name] for seed in SEEDS) for name in COUNTS}
    assert all(count >= 5 for count in sums.values()), sums


def without_parents(preds, target, pred_tracks, target_tracks):
    return preds, target, pred_tracks * [1, 1, 1, 0], target_tracks


PERTURBED = {
    "SEG scaled": {"seg": lambda *a: segmentation_accuracy(*a) * (1 + 1e-12)},
    "SEG with roles exchanged": {"seg": lambda p, t: segmentation_accuracy(t, p)},
    "DET with roles exchanged": {"det": lambda p, t: detection_accuracy(t, p)},
    "DET of the first frames": {"det": lambda p, t: detection_accuracy(p[:-1], t[:-1])},
    "TRA without links": {"tra": lambda p, t, *_: detection_accuracy(p, t)},
    "TRA without mothers": {"tra": lambda *a: tracking_accuracy(*without_parents(*a))},
    "counts without mothers": {"counts": lambda *a: graph_operations(*without_parents(*a))},
}


@pytest.mark.parametrize("name", PERTURBED)
def test_comparison_refuses_a_perturbed_function(name):
    pytest.importorskip("ctc_metrics")
    with pytest.raises(AssertionError):
        compare(**PERTURBED[name])


CELLS = np.array([[[1, 1, 1, 1, 0, 2, 2, 0]]])


def test_half_of_a_cell_does_not_find_it():
    half, more = np.array([[[9, 9, 0, 0, 0, 0, 0, 0]]]), np.array([[[9, 9, 9, 0, 0, 0, 0, 0]]])
    assert segmentation_accuracy(half, CELLS) == 0
    assert segmentation_accuracy(more, CELLS) == 3 / 4 / 2
    assert detection_accuracy(half, CELLS) == 0  # work 20 + 1 is more than drawing both: the score stops at 0
    assert detection_accuracy(more, CELLS) == 0.5


def test_half_of_the_prediction_may_lie_outside():
    """Coverage is asked of the true cell only: a cell that is found may have any IoU."""
    large = np.full((1, 1, 8), 9)
    assert segmentation_accuracy(large, CELLS) == (4 / 8 + 2 / 8) / 2
    assert detection_accuracy(large, CELLS) == 1 - 5 / 20


def test_an_invented_cell_costs_little_and_a_missed_one_much():
    invented, missed = CELLS.copy(), CELLS * (CELLS == 1)
    invented[..., -1] = 5
    assert detection_accuracy(invented, CELLS) == 1 - 1 / 20
    assert detection_accuracy(missed, CELLS) == 1 - 10 / 20
    assert segmentation_accuracy(invented, CELLS) == 1  # SEG does not see it


def test_a_link_across_a_gap_is_a_daughter_link():
    """A cell that is out of sight for a frame goes on as its own daughter."""
    maps = [np.array([[1, 1]]), np.array([[0, 0]]), np.array([[2, 2]])]
    tracks = np.array([[1, 0, 0, 0], [2, 2, 2, 1]])
    assert graph_operations(maps, maps, tracks, tracks)["edges"] == 1
    cut = tracks * [1, 1, 1, 0]
    assert tracking_accuracy(maps, maps, cut, tracks) == 1 - 1.5 / 21.5
    assert tracking_accuracy(maps, maps, tracks, cut) == 1 - 1 / 20


def test_nothing_there():
    nothing, none = np.zeros_like(CELLS), np.zeros((0, 4), dtype=np.int64)
    both = np.array([[1, 0, 0, 0], [2, 0, 0, 0]])
    assert math.isnan(segmentation_accuracy(CELLS, nothing))
    assert detection_accuracy(nothing, nothing) == tracking_accuracy(nothing, nothing, none, none) == 1
    assert detection_accuracy(CELLS, nothing) == tracking_accuracy(CELLS, nothing, both, none) == 0
    assert segmentation_accuracy(nothing, CELLS) == tracking_accuracy(nothing, CELLS, none, both) == 0
    assert math.isnan(segmentation_accuracy([], []))
    result = CellTrackingMetrics().compute()
    assert result["num_sequences"] == 0 and all(math.isnan(result[name]) for name in ("seg", "det", "tra"))


def test_volumes_and_masks_of_some_frames():
    volume = torch.zeros(3, 4, 5, dtype=torch.int32)
    volume[1:, 1:3, 1:4] = 1
    marker = torch.zeros_like(volume)
    marker[2, 2, 2] = 1
    tracks = torch.tensor([[1, 0, 1, 0]])
    total = CellTrackingMetrics()
    total.update([volume] * 2, [marker] * 2, tracks, tracks, segmentations={1: volume})
    assert total.compute() == {"seg": 1.0, "det": 1.0, "tra": 1.0, "num_sequences": 1}
    total.update([volume] * 2, [marker] * 2, tracks, tracks, segmentations={})
    assert total.compute() == {"seg": 1.0, "det": 1.0, "tra": 1.0, "num_sequences": 2}
    with pytest.raises(ValueError, match="segmentations has the frames"):
        total.update([volume] * 2, [marker] * 2, tracks, tracks, segmentations={2: volume})
    assert total.compute()["num_sequences"] == 2
    total.reset()
    assert total.compute()["num_sequences"] == 0


@given(st.integers(0, 10_000), st.integers(0, 3))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_bounds_names_and_merge(seed, cut):
    sequences = [random_sequence(seed + i) for i in range(3)]
    whole, parts = CellTrackingMetrics(), [CellTrackingMetrics(), CellTrackingMetrics()]
    for i, (preds, target, pred_tracks, target_tracks) in enumerate(sequences):
        order = np.random.default_rng(seed).permutation(9000) + 1
        order[0] = 0
        whole.update(preds, target, pred_tracks, target_tracks)
        parts[i >= cut].update(order[preds], target, order_of(pred_tracks, order), target_tracks)
        assert (
            graph_operations(target, target, target_tracks, target_tracks).items() >= dict.fromkeys(COUNTS, 0).items()
        )
        assert segmentation_accuracy(target, target) == 1
        det, tra = detection_accuracy(preds, target), tracking_accuracy(preds, target, pred_tracks, target_tracks)
        assert 0 <= det <= 1 and 0 <= tra <= 1
    parts[0].merge(parts[1])
    assert parts[0].compute() == pytest.approx(whole.compute(), abs=1e-14)


def order_of(tracks, order):
    """The table with new names."""
    renamed = tracks.copy()
    renamed[:, 0], renamed[:, 3] = order[tracks[:, 0]], order[tracks[:, 3]]
    return renamed


@pytest.mark.parametrize("view", [lambda table: table[::-1], lambda table: table.astype(">i4"), np.asfortranarray])
def test_tables_in_any_order_of_memory(view):
    frame, tracks = torch.tensor([[1, 2]]), np.array([[1, 0, 0, 0], [2, 0, 0, 0]])
    assert tracking_accuracy([frame], [frame], view(tracks), tracks) == 1
