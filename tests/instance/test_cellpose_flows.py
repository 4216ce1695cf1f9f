"""Cellpose's flows and masks from flows, against cellpose 3.1.1.3 on the CPU."""

import numpy as np
import pytest
import torch
from benchmarks.cells import random_cells

from segedu.instance.cellpose.flows import (
    cluster_end_points,
    diffusion_flow,
    fill_holes_and_remove_small,
    flow_error,
    follow_flows,
    masks_from_flows,
)
from segedu.ops.flows import drift
from segedu.ops.label_maps import relabel_by_occurrence

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks")


def crescent():
    y, x = np.mgrid[:40, :40] - 20
    return ((y**2 + x**2 <= 256) & (y**2 + x**2 >= 144) & (x < 6)).astype(np.int32)


def partition(first, second):
    """IoU of each object of `first` with the one of `second` that it shares most pixels with."""
    scores = []
    for number in np.unique(first[first > 0]):
        inside = first == number
        other = np.bincount(second[inside]).argmax()
        scores.append((inside & (second == other)).sum() / (inside | (second == other)).sum() if other else 0.0)
    return scores


EDGE_CASES = {
    "empty": np.zeros((9, 7), np.int32),
    "one pixel": np.pad([[1]], 4).astype(np.int32),
    "numbers left out": np.pad(np.repeat([[3, 900]], 8, axis=0).repeat(8, axis=1), 3).astype(np.int32),
    "at the border": np.repeat(np.repeat([[1, 0], [0, 2]], 10, axis=0), 12, axis=1).astype(np.int32),
    "crescent": crescent(),
    "in two pieces": np.repeat(np.repeat([[1, 0, 1]], 6, axis=0), 6, axis=1).astype(np.int32),
}


@pytest.mark.parametrize("label_map", EDGE_CASES.values(), ids=EDGE_CASES)
def test_flow_of_edge_cases_is_that_of_cellpose(label_map):
    dynamics = pytest.importorskip("cellpose.dynamics")
    expected = dynamics.masks_to_flows(label_map.astype(int), device=CPU).astype(np.float32)
    flows = diffusion_flow(torch.from_numpy(label_map))
    assert flows.dtype == torch.float32 and flows.shape == (2, *label_map.shape)
    np.testing.assert_allclose(flows.numpy(), expected, rtol=0, atol=1e-6)
    assert not flows[:, torch.from_numpy(label_map == 0)].any()


def test_flow_of_random_cells_is_that_of_cellpose():
    dynamics = pytest.importorskip("cellpose.dynamics")
    for seed in range(10):
        label_map = random_cells(seed)
        (expected,) = dynamics.labels_to_flows([label_map.copy()], device=CPU)
        flows = diffusion_flow(torch.from_numpy(label_map)).numpy()
        np.testing.assert_allclose(flows, expected[2:], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(label_map > 0, expected[1] > 0)


def test_flow_of_a_strip_points_to_its_middle():
    strip = torch.tensor([[0, 5, 5, 5, 5, 5, 5, 5, 0]])
    dy, dx = diffusion_flow(strip)
    dx[0, 4] = 0  # in the very middle rounding decides
    assert dx.tolist() == [[0, 1, 1, 1, 0, -1, -1, -1, 0]] and not dy.any()
    assert torch.equal(diffusion_flow(strip.mT)[0].index_fill(0, torch.tensor(4), 0), dx.mT)


def test_flow_of_a_crescent_stays_inside_it():
    label_map = torch.from_numpy(crescent())
    centre = label_map.nonzero().float().mean(dim=0).round().long()
    assert label_map[tuple(centre)] == 0
    ends = follow_flows(diffusion_flow(label_map), label_map > 0)
    y, x = ends[:, label_map > 0].round().long()
    assert (label_map[y, x] == 1).all()


def test_flow_does_not_leak_into_the_neighbour():
    label_map = random_cells(3)
    number = label_map.max()
    alone = np.where(label_map == number, 1, 0)
    inside = torch.from_numpy(alone > 0)
    both = [diffusion_flow(torch.from_numpy(one))[:, inside] for one in (label_map, alone)]
    assert torch.equal(*both)


def test_labels_may_be_huge():
    label_map = torch.from_numpy(random_cells(1)).long()
    huge = torch.where(label_map > 0, label_map * 10**12, 0)
    assert torch.equal(diffusion_flow(huge), diffusion_flow(label_map))


def noisy(seed):
    label_map = random_cells(seed)
    flows = diffusion_flow(torch.from_numpy(label_map))
    return label_map, flows + 0.5 * torch.randn(flows.shape, generator=torch.Generator().manual_seed(seed))


def test_ends_and_groups_are_those_of_cellpose():
    dynamics = pytest.importorskip("cellpose.dynamics")
    for seed in range(10):
        label_map, flows = noisy(seed)
        foreground = torch.from_numpy(label_map > 0)
        places = foreground.numpy().nonzero()
        expected = dynamics.follow_flows(flows.numpy() * foreground.numpy(), inds=places, niter=200, device=CPU)
        ends = follow_flows(flows, foreground)
        # Noise makes whirls, in which a last bit may grow.
        assert (np.abs(ends[:, foreground].numpy() - expected) < 1e-3).mean() > 0.99
        rows, columns = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
        assert torch.equal(ends[:, ~foreground], torch.stack([rows, columns]).float()[:, ~foreground])
        groups = cluster_end_points(torch.from_numpy(expected), (96, 96), 0.4)
        theirs = dynamics.get_masks_torch(torch.from_numpy(expected).int(), places, (96, 96))
        np.testing.assert_array_equal(groups.numpy(), theirs[places])


def test_a_step_is_bilinear_and_stops_at_the_border():
    flows = torch.zeros(2, 3, 4)
    flows[1] = torch.tensor([0.5, 0.25, 4.0, 4.0])
    ends = follow_flows(flows, torch.ones(3, 4).bool(), steps=2)
    assert ends[1, 1].tolist() == [0.5 + 0.375, 1.25 + 0.25 * 4 + 0.75 * 0.25, 3, 3]
    assert torch.equal(ends[0], torch.arange(3.0)[:, None].expand(3, 4))
    assert torch.equal(follow_flows(flows, torch.ones(3, 4).bool(), steps=0)[1], torch.arange(4.0).expand(3, 4))


def test_paths_that_repeat_themselves_end_where_step_by_step_they_do():
    """To the last bit, for numbers of steps that cut rounds in their middle."""
    label_map, flows = noisy(0)
    foreground = torch.from_numpy(label_map > 0)
    field, starts = flows * foreground, foreground.nonzero().T
    places, rounds = starts.float(), 0
    for step in range(1, 131):
        before, places = places, drift(field, places, 1)
        if step in (1, 2, 3, 37, 64, 65, 100, 129, 130):
            assert torch.equal(drift(field, starts, step), places), step
            rounds += ((places != before).any(dim=0) & (drift(field, places, 2) == places).all(dim=0)).sum()
    assert rounds > 0  # some do go round and round


def test_label_maps_from_flows_are_those_of_cellpose_on_100_random_ones():
    dynamics = pytest.importorskip("cellpose.dynamics")
    scores = []
    for seed in range(100):
        label_map = random_cells(seed)
        flows, inside = diffusion_flow(torch.from_numpy(label_map)), label_map > 0
        theirs = dynamics.compute_masks(5 * flows.numpy(), np.where(inside, 4.0, -4.0), min_size=15, device=CPU)
        ours = masks_from_flows(flows, torch.from_numpy(inside)).numpy()
        assert ours.max() == theirs.max() == len(np.unique(ours)) - (0 in ours), seed
        scores += partition(theirs.astype(int), ours)
    assert np.mean(scores) >= 0.99 and len(scores) > 600


def in_reading_order(label_map):
    """The same cells, numbered by their first pixel: two maps are equal if and only if their cells are."""
    return relabel_by_occurrence(torch.from_numpy(label_map.astype(np.int32))).numpy()


def small_cells(seed):
    """Cells of 12 pixels and more, of which six have flows so short that the filter drops them."""
    label_map = random_cells(seed, cells=40, radius=(1.8, 6))
    flows = diffusion_flow(torch.from_numpy(label_map))
    chosen = np.random.default_rng(seed).permutation(np.unique(label_map)[1:])[:6]
    return label_map > 0, 5 * torch.where(torch.from_numpy(np.isin(label_map, chosen)), 0.3 * flows, flows)


@pytest.mark.parametrize(
    ("flow_threshold", "renumbered", "different"),
    [(0.0, False, (0, 1041)), (0.4, True, (0, 864)), (0.4, False, (13, 864))],
)
def test_label_maps_of_small_cells_are_those_of_cellpose_where_its_labels_have_no_gaps(
    flow_threshold, renumbered, different, monkeypatch
):
    """Its filter leaves gaps, and what then drops small cells takes the n-th label for the label n."""
    dynamics, utils = pytest.importorskip("cellpose.dynamics"), pytest.importorskip("cellpose.utils")
    fill = utils.fill_holes_and_remove_small_masks
    if renumbered:
        monkeypatch.setattr(
            utils, "fill_holes_and_remove_small_masks", lambda m, min_size: fill(in_reading_order(m), min_size)
        )
    in_one_map, in_any = 0, 0
    for seed in range(30):
        inside, flows = small_cells(seed)
        theirs = dynamics.compute_masks(
            flows.numpy(), np.where(inside, 4.0, -4.0), flow_threshold=flow_threshold, min_size=15, device=CPU
        )
        ours = masks_from_flows(flows / 5, torch.from_numpy(inside), flow_threshold=flow_threshold).numpy()
        both = [in_reading_order(np.asarray(one)) for one in (theirs, ours)]
        cells = [{np.flatnonzero(one == n).tobytes() for n in range(1, one.max() + 1)} for one in both]
        in_one_map, in_any = in_one_map + len(cells[0] ^ cells[1]), in_any + len(cells[0] | cells[1])
    assert (in_one_map, in_any) == different


def test_round_trip_finds_nearly_all_cells():
    found = total = 0
    for seed in range(30):
        label_map = fill_holes_and_remove_small(torch.from_numpy(random_cells(seed)), 40)
        ours = masks_from_flows(diffusion_flow(label_map), label_map > 0)
        scores = partition(label_map.numpy(), ours.numpy())
        found, total = found + sum(score > 0.9 for score in scores), total + len(scores)
    assert found >= 0.97 * total


def test_flow_error_and_its_filter_are_those_of_cellpose():
    dynamics, metrics = pytest.importorskip("cellpose.dynamics"), pytest.importorskip("cellpose.metrics")
    dropped = 0
    for seed in range(10):
        label_map, flows = noisy(seed)
        merged = np.unique(np.where(label_map % 4 == 1, label_map + 1, label_map), return_inverse=True)[1]
        merged = merged.reshape(96, 96)
        expected, _ = metrics.flow_error(merged, 5 * flows.numpy(), device=CPU)
        errors = flow_error(torch.from_numpy(merged), flows).numpy()
        np.testing.assert_allclose(errors, expected, rtol=0, atol=1e-6)
        kept = dynamics.remove_bad_flow_masks(merged.copy(), 5 * flows.numpy(), threshold=0.6, device=CPU)
        assert set(np.unique(kept)) - {0} == set(np.flatnonzero(errors <= 0.6) + 1)
        dropped += (errors > 0.6).sum()
    assert 0 < dropped < 60


def test_the_filter_drops_a_cell_whose_flow_is_wrong():
    label_map = torch.from_numpy(EDGE_CASES["numbers left out"])
    flows = diffusion_flow(label_map)
    turned = torch.where(label_map == 900, flows.flip(0), flows)  # to the middle no more: axes swapped
    assert masks_from_flows(flows, label_map > 0, max_size_fraction=1).max() == 2
    errors = flow_error(label_map, turned)
    assert errors[0] < 1e-6 and errors[1] > 0.4


def test_tidy_fills_holes_and_drops_small_cells():
    label_map = np.zeros((30, 30), np.int32)
    label_map[2:14, 2:14] = 4
    label_map[5:9, 5:9] = 0
    label_map[6, 6] = 9  # in the hole: it is swallowed
    label_map[20:23, 20:24] = 7  # 12 pixels
    label_map[20:24, 2:6] = 2  # 16
    found = fill_holes_and_remove_small(torch.from_numpy(label_map), 15)
    assert found.dtype == torch.int32 and found.unique().tolist() == [0, 1, 2]
    assert (found[2:14, 2:14] == 1).all() and (found[20:24, 2:6] == 2).all() and (found > 0).sum() == 144 + 16
    assert len(fill_holes_and_remove_small(torch.from_numpy(label_map), 0).unique()) == 4


def test_nothing_to_find():
    flows, none = torch.zeros(2, 8, 9), torch.zeros(8, 9).bool()
    for foreground in (none, ~none):  # nothing flows: no peak
        found = masks_from_flows(flows, foreground)
        assert found.dtype == torch.int32 and found.shape == (8, 9) and not found.any()
    assert flow_error(none.int(), flows).shape == (0,)
    filled = torch.ones(40, 40, dtype=torch.int32)
    assert not masks_from_flows(diffusion_flow(filled), filled > 0).any()  # 0.4 of the image is the most
    assert (masks_from_flows(diffusion_flow(filled), filled > 0, max_size_fraction=1) == 1).all()


def test_bad_input():
    flows, inside, label_map = torch.zeros(2, 8, 9), torch.ones(8, 9).bool(), torch.zeros(8, 9).int()
    for error, words, call in (
        (TypeError, "label_map has dtype torch.float32, expected", lambda: diffusion_flow(label_map.float())),
        (TypeError, "label_map has dtype torch.bool", lambda: diffusion_flow(inside)),
        (TypeError, "label_map has type list", lambda: diffusion_flow([[0]])),
        (ValueError, r"label_map has shape \(1, 8, 9\), expected \(H, W\)", lambda: diffusion_flow(label_map[None])),
        (ValueError, r"label_map has shape \(0, 9\)", lambda: diffusion_flow(label_map[:0])),
        (ValueError, "label_map has the label -1", lambda: diffusion_flow(label_map - 1)),
        (TypeError, "flows has dtype torch.int64", lambda: follow_flows(flows.long(), inside)),
        (
            TypeError,
            "foreground has dtype torch.int32, expected torch.bool",
            lambda: follow_flows(flows, label_map),
        ),
        (
            ValueError,
            r"flows has shape \(2, 8, 9\), expected \(2, H, W\) with H = 9, W = 8",
            lambda: follow_flows(flows, inside.mT),
        ),
        (ValueError, r"flows has shape \(3, 8, 9\)", lambda: follow_flows(torch.zeros(3, 8, 9), inside)),
        (ValueError, "flows has the value nan", lambda: masks_from_flows(flows * torch.nan, inside)),
        (ValueError, "steps is -1", lambda: follow_flows(flows, inside, -1)),
        (ValueError, "flow_threshold is nan", lambda: masks_from_flows(flows, inside, flow_threshold=float("nan"))),
        (ValueError, "max_size_fraction is 0", lambda: masks_from_flows(flows, inside, max_size_fraction=0)),
        (ValueError, "flows has the value nan", lambda: flow_error(label_map, flows / 0)),
    ):
        with pytest.raises(error, match=words):
            call()
