"""Signed distances against scipy cell by cell and against loops; decoding on discs, plateaus and drawn scenes."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from segedu.datasets.cells import draw_cells
from segedu.instance.signed_distance import (
    SignedDistance,
    postprocess,
    signed_distance,
    signed_distance_loss,
    signed_distance_targets,
    watershed_decode,
)
from segedu.metrics.instance import match_instances
from segedu.semantic.unet import UNet


def random_map(seed):
    """Blocks and single pixels, touching and apart, labels far from 1, 2, 3."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(rng.integers(1, 30, 2), np.int64)
    for label in rng.choice([3, 5, 70, 999, 2**31 - 1], 4, replace=False):
        top, left = (rng.integers(0, n) for n in labels.shape)
        labels[top : top + rng.integers(1, 12), left : left + rng.integers(1, 12)] = label
    return labels


def by_loops(labels):
    """Each pixel against each pixel, half a pixel less than the distance of the centres."""
    places = list(itertools.product(*map(range, labels.shape)))
    distance = np.zeros(labels.shape)
    for place in places:
        own = labels[place]
        others = [q for q in places if (labels[q] != own if own else labels[q] > 0)]
        nearest = min((np.hypot(place[0] - r, place[1] - c) - 0.5 for r, c in others), default=np.hypot(*labels.shape))
        distance[place] = nearest if own else -nearest
    return distance


@pytest.mark.parametrize("seed", range(12))
def test_equals_loops(seed):
    labels = random_map(seed)
    found = signed_distance(torch.from_numpy(labels)).numpy()
    np.testing.assert_allclose(found, by_loops(labels), rtol=1e-6, atol=1e-6)


def test_equals_scipy_cell_by_cell():
    label_map = draw_cells(3, (97, 131))["label_map"]
    labels = label_map.numpy()
    right = 0.5 - ndimage.distance_transform_edt(labels == 0)
    for label in np.unique(labels[labels > 0]):
        right[labels == label] = ndimage.distance_transform_edt(labels == label)[labels == label] - 0.5
    found = signed_distance(label_map)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), right.astype(np.float32))  # float64, rounded once
    assert len(np.unique(labels)) > 20


def test_the_edge_lies_between_pixels_and_touching_cells_keep_one():
    found = signed_distance(torch.tensor([[0, 0, 5, 5, 5, 5, 2, 2, 2, 0]]))
    assert found.tolist() == [[-1.5, -0.5, 0.5, 1.5, 1.5, 0.5, 0.5, 1.5, 0.5, -0.5]]


def test_the_border_of_the_image_is_no_edge():
    cut = torch.zeros(7, 9, dtype=torch.int64)
    cut[:, 5:] = 1
    assert signed_distance(cut).tolist() == [[-4.5, -3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5]] * 7
    assert (signed_distance(torch.full((3, 4), 9)) == 5).all()
    assert (signed_distance(torch.zeros(3, 4).int()) == -5).all()
    one = torch.zeros(5, 5, dtype=torch.uint8)
    one[2, 2] = 200
    assert signed_distance(one)[2, 2] == 0.5 and signed_distance(one)[2, 1] == -0.5
    assert signed_distance(torch.ones(1, 1).int()).shape == (1, 1)


# --- decoding ---------------------------------------------------------------------------------------------------


def test_the_round_trip_finds_every_cell():
    for seed in range(6):
        label_map = draw_cells((4, seed), (101, 127))["label_map"]
        found = watershed_decode(signed_distance(label_map))
        assert match_instances(found, label_map, 0.8)[1:] == (0, 0)
        assert torch.equal(found > 0, label_map > 0)


def test_real_labels_survive_the_round_trip(shared_data):
    from segedu.datasets.folder import SegmentationFolder

    true_positive = objects = 0
    nuclei = SegmentationFolder(shared_data / "nuclei_grouped", split="test")
    for index in range(0, len(nuclei), 15):
        label_map = nuclei[index]["label_map"]
        found = watershed_decode(signed_distance(label_map))
        pairs = match_instances(found, label_map, 0.5)
        true_positive, objects = true_positive + pairs[0], objects + sum(pairs)
    assert true_positive / objects > 0.95


def hills(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_one_cell_for_a_plateau_and_none_for_a_slope():
    plateau = hills([-1, 1, 1, 1, 1, -1], [-1, 1, 1, 1, 1, -1])
    assert watershed_decode(plateau, min_distance=0, depth=0).unique().tolist() == [0, 1]
    step = hills([-1, 1, 2, 2, 3, 1, -1])  # 2 2 touches 3
    assert watershed_decode(step, min_distance=0, depth=0).tolist() == [[0, 1, 1, 1, 1, 1, 0]]


def test_hills_of_up_to_depth_are_no_cells():
    two = hills([-1, 2, 1, 3, -1])
    assert watershed_decode(two, min_distance=0, depth=0.9).max() == 2
    assert watershed_decode(two, min_distance=0, depth=1.0).max() == 1
    assert watershed_decode(hills([-1, 2, -1, 3, -1]), depth=10).max() == 2  # with no pass between, both stay


def test_tops_near_a_higher_one_are_left_out_within_a_piece_only():
    near = hills([-1, 3, 1, 2, 1, 3, -1])
    assert watershed_decode(near, min_distance=2, depth=0).max() == 3
    assert watershed_decode(near, min_distance=2.1, depth=0).max() == 2
    assert watershed_decode(near, min_distance=4.1, depth=0).max() == 1
    assert watershed_decode(hills([1, -1, 1], [-1, 1, -1]), min_distance=9).tolist() == [[1, 0, 2], [0, 3, 0]]


def test_water_rises_from_the_tops_and_stops_at_the_threshold():
    slope = hills([-2, 1, 5, 4, 3, 0.5, 3.5, 6, 0.2, -1])
    assert watershed_decode(slope).tolist() == [[0, 2, 2, 2, 2, 1, 1, 1, 1, 0]]
    assert watershed_decode(slope, threshold=0.5).tolist() == [[0, 2, 2, 2, 2, 0, 1, 1, 0, 0]]
    assert watershed_decode(-slope.abs()).max() == 0
    assert watershed_decode(-slope.abs()).dtype == watershed_decode(slope).dtype == torch.int32


def test_depth_keeps_what_waves_of_that_height_would_split():
    label_map = draw_cells((4, 1))["label_map"]
    waves = signed_distance(label_map) + 0.3 * torch.rand(label_map.shape, generator=torch.Generator().manual_seed(0))
    found = {depth: watershed_decode(waves, min_distance=0, depth=depth) for depth in (0.0, 1.0)}
    assert found[0.0].max() > 2 * label_map.max()
    assert match_instances(found[1.0], label_map, 0.7)[1:] == (0, 0)


# --- network and loss -------------------------------------------------------------------------------------------


@pytest.mark.learns
def test_network_and_loss_learn_one_batch():
    scenes = [draw_cells((6, seed), (32, 24)) for seed in range(2)]
    images = torch.stack([scene["image"] for scene in scenes])
    targets = {"distance": torch.stack([signed_distance_targets(s["label_map"])["distance"] for s in scenes])}
    torch.manual_seed(0)
    model = SignedDistance(UNet(3, 1, 8, depth=2, padding=1))
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    start = signed_distance_loss(model(images), targets)["loss"]
    for _ in range(60):
        loss = signed_distance_loss(model(images), targets)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.4 * start
    outputs = model(images)
    for found, distance, scene in zip(postprocess(outputs), outputs["distance"], scenes, strict=True):
        assert found.dtype == torch.int32 and torch.equal(found > 0, distance > 0)
        assert ((found > 0) == (scene["label_map"] > 0)).float().mean() > 0.75


def test_loss_by_hand_and_its_gradient():
    predicted = torch.tensor([[[0.0, 4.0, -9.0]]], dtype=torch.float64, requires_grad=True)
    true = torch.tensor([[[2.0, 4.0, -30.0]]], dtype=torch.float64)
    losses = signed_distance_loss({"distance": predicted}, {"distance": true}, scale=2.0)
    right = (np.tanh(1) + (2 - np.tanh(2)) + (4.5 - np.tanh(15))) / 3
    assert losses["loss"].item() == pytest.approx(right, rel=1e-9) and losses["distance"] == losses["loss"]
    losses["loss"].backward()
    # also where both lie deep outside: a prediction of -9 finds its way back to -2
    assert torch.equal(predicted.grad[0, 0] * 6, torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64))
    far = {"distance": torch.full((1, 2, 2), 8.0)}, {"distance": torch.full((1, 2, 2), 50.0)}
    assert signed_distance_loss(*far)["loss"] < 1e-4


MAP, FLAT = torch.zeros(2, 3, dtype=torch.int32), torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: signed_distance(MAP.numpy()), TypeError, "label_map has type ndarray, expected"),
        (lambda: signed_distance(FLAT), TypeError, "label_map has dtype torch.float32, expected"),
        (lambda: signed_distance(MAP.bool()), TypeError, "label_map has dtype torch.bool, expected"),
        (lambda: signed_distance(MAP[None]), ValueError, r"label_map has shape \(1, 2, 3\), expected"),
        (lambda: signed_distance(MAP[:0]), ValueError, r"label_map has shape \(0, 3\), expected"),
        (lambda: signed_distance(MAP - 1), ValueError, "label_map has the label -1, expected"),
        (lambda: watershed_decode(MAP), TypeError, "distance has dtype torch.int32, expected"),
        (lambda: watershed_decode([1.0]), TypeError, "distance has type list, expected"),
        (lambda: watershed_decode(FLAT[0]), ValueError, r"distance has shape \(3,\), expected"),
        (lambda: watershed_decode(FLAT / 0), ValueError, "distance contains NaN, expected"),
        (lambda: watershed_decode(FLAT, float("nan")), ValueError, "threshold is nan, expected"),
        (lambda: watershed_decode(FLAT, min_distance=-1), ValueError, "min_distance is -1, expected"),
        (lambda: watershed_decode(FLAT, depth=float("nan")), ValueError, "depth is nan, expected"),
        (
            lambda: postprocess({"flows": FLAT[None]}),
            ValueError,
            r"outputs has the keys \['flows'\], expected distance",
        ),
        (lambda: postprocess(FLAT[None]), TypeError, "outputs has type Tensor, expected a dict with"),
        (lambda: postprocess({"distance": FLAT}), ValueError, r"outputs\['distance'\] has shape \(2, 3\), expected"),
        (
            lambda: signed_distance_loss({"distance": FLAT[None]}, {"distance": MAP[None]}),
            TypeError,
            r"targets\['distance'\] has dtype torch.int32, expected",
        ),
        (lambda: signed_distance_loss({}, {}, scale=0), ValueError, "scale is 0, expected"),
        (
            lambda: SignedDistance(UNet(3, 2, 2, 1, 1))(torch.zeros(1, 3, 4, 4)),
            ValueError,
            r"network\(images\) has shape",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
