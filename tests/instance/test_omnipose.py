"""Omnipose: its field against the equation and scipy, DBSCAN against scikit-learn, and a cell that Cellpose splits."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from segedu.datasets.cells import draw_cells
from segedu.instance.cellpose import cellpose
from segedu.instance.omnipose import (
    Omnipose,
    cluster_points,
    eikonal_distance,
    field_flow,
    masks_from_field,
    omnipose_loss,
    omnipose_targets,
    postprocess,
    suppressed_euler,
)
from segedu.metrics.instance import match_instances
from segedu.ops.eikonal import solve_eikonal

Y, X = np.indices((95, 111))


def turned(angle):
    """Coordinates along and across, from the middle."""
    turn = np.deg2rad(angle)
    return np.cos(turn) * (X - 55) + np.sin(turn) * (Y - 47), np.cos(turn) * (Y - 47) - np.sin(turn) * (X - 55)


def rectangle(angle):
    along, across = turned(angle)
    return (abs(along) < 35.01) & (abs(across) < 12.01)


def ellipse(angle):
    along, across = turned(angle)
    return (along / 35) ** 2 + (across / 12) ** 2 <= 1


CONVEX = {f"disc {r}": np.hypot(Y - 47, X - 55) <= r for r in (3, 10, 20, 40)}
CONVEX |= {f"{make.__name__} {a}": make(a) for make in (rectangle, ellipse) for a in (0, 10, 22.5, 45, 90)}


@pytest.mark.parametrize("name", CONVEX)
def test_the_field_is_near_the_euclidean_distance_on_convex_shapes(name):
    inside = CONVEX[name]
    euclidean = ndimage.distance_transform_edt(inside)
    error = (eikonal_distance(torch.from_numpy(inside.astype(int))).numpy() - euclidean)[inside]
    print(f"{name}: mean {error.mean():.3f}, mean size {abs(error).mean():.3f}, largest {abs(error).max():.3f}")
    assert abs(error).mean() < 0.2 and abs(error).max() < 0.8
    assert abs(error[euclidean[inside] <= 1]).max() < 0.17  # at the edge
    if name in ("rectangle 0", "rectangle 90"):
        assert abs(error).mean() < 0.01  # straight edges along the axes


def lower(values, labels, down, right):
    """The lower neighbour along a line as the cell sees it, by rolled copies of arrays padded at the border."""
    found = []
    for sign in (-1, 1):
        window = tuple(
            slice(1 + sign * step, 1 + sign * step + n) for step, n in zip((down, right), labels.shape, strict=True)
        )
        same = np.pad(labels, 1, mode="edge")[window] == labels
        found.append(np.where(same, np.pad(values, 1, mode="edge")[window], 0))
    return np.minimum(*found)


def godunov(a, b, step):
    two = (a + b + np.sqrt(np.maximum(2 * step**2 - (a - b) ** 2, 0))) / 2
    return np.where(abs(a - b) >= step, np.minimum(a, b) + step, two)


@pytest.mark.parametrize("seed", range(4))
def test_the_field_solves_the_equation_at_every_pixel(seed):
    labels = draw_cells((8, seed), (61, 47))["label_map"].numpy()
    field = solve_eikonal(labels, tolerance=1e-9)
    straight = godunov(lower(field, labels, 1, 0), lower(field, labels, 0, 1), 1)
    slanted = godunov(lower(field, labels, 1, 1), lower(field, labels, 1, -1), math.sqrt(2))
    inside = labels > 0
    np.testing.assert_allclose(np.sqrt(straight * slanted)[inside], field[inside], atol=1e-7)
    assert (field[~inside] == 0).all() and field[inside].min() > 0.5 and len(np.unique(labels)) > 3


def test_nothing_leaks_between_cells_that_touch():
    label_map = draw_cells((8, 5), (90, 70), touching=1.0)["label_map"]
    field = eikonal_distance(label_map)
    for label in label_map.unique()[1:]:
        cell = label_map == label
        torch.testing.assert_close(field[cell], eikonal_distance(cell.int())[cell], atol=1e-3, rtol=0)
    merged = eikonal_distance((label_map > 0).int())
    assert (merged - field).max() > 2


def test_the_border_of_the_image_is_no_edge():
    half = torch.zeros(9, 12, dtype=torch.uint8)
    half[:, 7:] = 200
    assert torch.equal(eikonal_distance(half)[:, 7:], torch.arange(1.0, 6).expand(9, 5))
    assert torch.equal(
        field_flow(eikonal_distance(half), half)[:, :, 7:11], torch.tensor([0.0, 1.0])[:, None, None].expand(2, 9, 4)
    )
    assert (eikonal_distance(torch.full((3, 4), 7)) == 5).all()
    assert not omnipose_targets(torch.full((3, 4), 7))["flows"].any()
    assert not omnipose_targets(torch.full((3, 4), 7))["boundary"].any()


def test_flows_lead_from_the_edge_straight_inwards():
    for angle in (0, 30, 45, 80):
        inside = rectangle(angle)
        along, across = turned(angle)
        label_map = torch.from_numpy(inside.astype(int))
        flow = field_flow(eikonal_distance(label_map), label_map).numpy()
        sides = inside & (abs(along) < 20) & (abs(across) > 2)
        normal = -np.sign(across) * np.array([np.cos(np.deg2rad(angle)), -np.sin(np.deg2rad(angle))])[:, None, None]
        cosine = (flow * normal).sum(axis=0)[sides]
        assert cosine.min() > 0.96 and cosine.mean() > 0.9965, (angle, cosine.min(), cosine.mean())
        assert np.allclose(np.hypot(*flow)[sides], 1, atol=1e-6) and not flow[:, ~inside].any()


def test_flows_turn_with_the_image():
    label_map = draw_cells((8, 6), (40, 53))["label_map"]
    flow = omnipose_targets(label_map)["flows"]
    mirrored = omnipose_targets(label_map.flip(1))["flows"].flip(2) * torch.tensor([1, -1])[:, None, None]
    transposed = omnipose_targets(label_map.mT.contiguous())["flows"].mT.flip(0)
    for other in (mirrored, transposed):
        assert ((flow - other).norm(dim=0) < 0.02).float().mean() > 0.99


def test_targets_by_hand():
    label_map = torch.zeros(7, 8, dtype=torch.int64)
    label_map[1:6, 1:6], label_map[2:4, 6] = 2**31 - 1, 9
    targets = omnipose_targets(label_map)
    assert targets["distance"][3, 1:6].tolist() == pytest.approx([1, 2, 2.8, 2, 1], abs=0.2)
    assert (targets["distance"][label_map == 0] == -1).all()
    boundary = (label_map > 0).float()
    boundary[2:5, 2:5] = 0
    assert torch.equal(targets["boundary"], boundary)
    assert all(t.dtype == torch.float32 for t in targets.values())
    empty = omnipose_targets(torch.zeros(5, 6).int())
    assert (empty["distance"] == -1).all() and not empty["flows"].any() and not empty["boundary"].any()
    one = torch.zeros(3, 3).int()
    one[1, 1] = 5
    assert (
        omnipose_targets(one)["distance"][1, 1] == pytest.approx(2**-0.25) and not omnipose_targets(one)["flows"].any()
    )


# --- dynamics ---------------------------------------------------------------------------------------------------


def test_steps_grow_smaller_and_stay_in_the_image():
    inside = torch.ones(9, 9).bool()
    flows = torch.zeros(2, 9, 9)
    flows[0] = 0.5
    ends = suppressed_euler(flows, inside, 4)
    starts = inside.nonzero().float()
    right = (starts[:, 0] + 0.5 * (1 + 1 / 2 + 1 / 3 + 1 / 4)).clamp(max=8)
    torch.testing.assert_close(ends, torch.stack([right, starts[:, 1]], dim=1))
    assert torch.equal(suppressed_euler(flows, inside, 0), starts)
    lonely = torch.zeros(9, 9).bool()
    lonely[4, 4] = True  # its flow is halved half a pixel on: background has none
    assert suppressed_euler(flows, lonely, 2).tolist() == [[4 + 0.5 + 0.5 * 0.25, 4]]
    assert suppressed_euler(flows, lonely & False).shape == (0, 2)


@pytest.mark.parametrize("min_points", [1, 3, 6])
def test_clusters_equal_scikit_learn(min_points):
    dbscan = pytest.importorskip("sklearn.cluster").DBSCAN
    for seed in range(8):
        rng = np.random.default_rng(seed)
        points = rng.integers(0, 8 * 14, (160, 2)) / 8
        points = np.concatenate([points, points[:20], points[:5]])  # several in one place
        theirs = dbscan(eps=1.25, min_samples=min_points).fit(points)
        ours = cluster_points(torch.from_numpy(points), 1.25, min_points).numpy()
        assert ((ours == 0) == (theirs.labels_ < 0)).all()
        core = theirs.core_sample_indices_  # others may have cores of two clusters near
        pairs = set(zip(ours[core].tolist(), theirs.labels_[core].tolist(), strict=True))
        assert len(pairs) == theirs.labels_.max() + 1 == ours.max()


def test_clusters_of_nothing_and_of_noise():
    assert cluster_points(torch.zeros(0, 2)).shape == (0,)
    far = torch.tensor([[0.0, 0.0], [50.0, 0.0]])
    assert cluster_points(far, min_points=2).tolist() == [0, 0]
    assert cluster_points(far, min_points=1).tolist() == [1, 2]
    assert cluster_points(far[[1, 0, 1]], min_points=2).tolist() == [1, 0, 1]


def serpent():
    """One bacterium 14 pixels wide and folded three times, with gaps of 4 pixels: about 700 pixels long."""
    label_map = torch.zeros(77, 180, dtype=torch.int32)
    for fold in range(4):
        top = 5 + 18 * fold
        label_map[top : top + 14, 5:175] = 3
        if fold < 3:
            label_map[top : top + 32, slice(161, 175) if fold % 2 == 0 else slice(5, 19)] = 3
    return label_map


def test_a_long_bent_bacterium_is_one_cell_where_cellpose_finds_several():
    label_map = serpent()
    inside = label_map > 0
    assert ndimage.label(inside.numpy())[1] == 1
    found = masks_from_field(omnipose_targets(label_map)["flows"], inside)
    assert torch.equal(found, inside.int())
    flows = cellpose.cellpose_targets(label_map)["flows"]
    pieces = cellpose.masks_from_flows(flows, inside, flow_threshold=0)
    assert pieces.max() > 5  # its ends are more than the 200 steps from the middle, and pixels meet on the way


def test_a_neck_does_not_part_a_cell():
    along, across = abs(X - 55), abs(Y - 47)
    half = np.where(along < 30, 3 + 4 * along / 30, np.sqrt(np.maximum(49 - (along - 30) ** 2, 0)))  # 3 to 7 and back
    label_map = torch.from_numpy((across <= half - 0.5).astype(int))
    assert masks_from_field(omnipose_targets(label_map)["flows"], label_map > 0).max() == 1


def test_the_round_trip_finds_every_cell():
    for seed in range(3):
        label_map = draw_cells((4, seed), (83, 97), touching=1.0)["label_map"]
        targets = omnipose_targets(label_map)
        outputs = {"flows": 5 * targets["flows"][None], "distance": targets["distance"][None]}
        (found,) = postprocess(outputs)
        assert match_instances(found, label_map, 0.9)[1:] == (0, 0)
        assert found.dtype == torch.int32 and not found[label_map == 0].any()
        assert ((found > 0) != (label_map > 0)).sum() < 12  # a corner that comes loose is smaller than min_size


def test_rods_side_by_side_down_to_two_pixels():
    for width in (2, 3, 4, 7):
        label_map = torch.arange(1, 6).repeat_interleave(width)[:, None].expand(-1, 40)
        label_map = torch.nn.functional.pad(label_map, (3, 4, 2, 5))
        found = masks_from_field(omnipose_targets(label_map)["flows"], label_map > 0)
        assert torch.equal(found, label_map.int()), width


def test_small_and_no_cells():
    targets = omnipose_targets(torch.zeros(5, 4).int())
    assert not masks_from_field(targets["flows"], targets["distance"] > 0).any()
    label_map = torch.zeros(20, 21).int()
    label_map[2, 3], label_map[6:9, 6:9], label_map[12:18, 10:20] = 8, 5, 4
    flows, inside = omnipose_targets(label_map)["flows"], label_map > 0
    assert masks_from_field(flows, inside).unique().tolist() == [0, 1]
    assert masks_from_field(flows, inside, min_size=9).max() == 2
    everyone = masks_from_field(flows, inside, min_points=1, min_size=1)
    assert (everyone[2, 3], everyone[7, 7], everyone[13, 13]) == (1, 2, 3)


# --- network and loss -------------------------------------------------------------------------------------------


@pytest.mark.learns
def test_network_has_four_maps_and_learns_one_batch():
    scenes = [draw_cells((6, seed), (25, 31)) for seed in range(2)]
    targets = [omnipose_targets(scene["label_map"]) for scene in scenes]
    targets = {key: torch.stack([t[key] for t in targets]) for key in targets[0]}
    images = torch.stack([scene["image"][:1] for scene in scenes])
    torch.manual_seed(0)
    model = Omnipose(1, (8, 16))
    outputs = model(images)
    assert outputs["flows"].shape == (2, 2, 25, 31) and outputs["distance"].shape == outputs["boundary"].shape
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    start = omnipose_loss(outputs, targets)
    start["loss"].backward()
    # of weights only: the gradient of a bias before a normalisation is 0 up to rounding
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    assert len(weights) > 20 and all(weight.grad.abs().max() > 1e-4 for weight in weights)
    for _ in range(30):
        losses = omnipose_loss(model(images), targets)
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
    assert all(losses[key] < 0.8 * start[key] for key in start)


def test_the_maps_have_names():
    torch.manual_seed(0)
    model, images = Omnipose(2, (4, 6)).eval(), torch.rand(2, 2, 9, 11)
    maps, style = model.maps_and_style(images)
    outputs = model(images)
    named = torch.cat([outputs["flows"], outputs["distance"][:, None], outputs["boundary"][:, None]], dim=1)
    assert torch.equal(named, maps) and torch.equal(outputs["style"], style) and maps.shape == (2, 4, 9, 11)


def test_loss_by_hand():
    outputs = {"flows": torch.zeros(1, 2, 1, 2), "distance": torch.tensor([[[0.0, 3.0]]])}
    outputs["boundary"] = torch.zeros(1, 1, 2)
    targets = {"flows": torch.zeros(1, 2, 1, 2), "distance": torch.tensor([[[-1.0, 1.0]]])}
    targets["flows"][0, 1, 0, 0] = 1  # 25 / 2 over four numbers
    targets["boundary"] = torch.tensor([[[1.0, 0.0]]])
    losses = omnipose_loss(outputs, targets)
    assert losses["flows"] == 25 / 8 and losses["distance"] == (0.5 + 1.5) / 2
    assert losses["boundary"].item() == pytest.approx(math.log(2))
    assert losses["loss"].item() == pytest.approx(25 / 8 + 1 + math.log(2))


MAP, FLAT = torch.zeros(2, 3, dtype=torch.int32), torch.zeros(2, 3)
FLOWS, POINTS = torch.zeros(2, 2, 3), torch.zeros(4, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: eikonal_distance(MAP.numpy()), TypeError, "label_map has type ndarray, expected"),
        (lambda: eikonal_distance(FLAT), TypeError, "label_map has dtype torch.float32, expected"),
        (lambda: omnipose_targets(MAP[0]), ValueError, r"label_map has shape \(3,\), expected"),
        (lambda: eikonal_distance(MAP[:, :0]), ValueError, r"label_map has shape \(2, 0\), expected"),
        (lambda: omnipose_targets(MAP - 1), ValueError, "label_map has the label -1, expected"),
        (
            lambda: field_flow(FLAT.mT, MAP),
            ValueError,
            r"distance has shape \(3, 2\), expected \(H, W\) with H = 2, W = 3",
        ),
        (lambda: suppressed_euler(FLOWS, MAP), TypeError, "inside has dtype torch.int32, expected"),
        (
            lambda: suppressed_euler(FLOWS.mT, MAP > 0),
            ValueError,
            r"flows has shape \(2, 3, 2\), expected \(2, H, W\) with H = 2, W = 3",
        ),
        (lambda: suppressed_euler(FLOWS, MAP > 0, -1), ValueError, "steps is -1, expected"),
        (lambda: suppressed_euler(FLOWS / 0, MAP == 0), ValueError, "flows has the value nan, expected"),
        (lambda: cluster_points([[0, 0]]), TypeError, "points has type list, expected"),
        (lambda: cluster_points(POINTS / 0), ValueError, "points has the value"),
        (lambda: postprocess({}, threshold=0), ValueError, r"outputs has the keys \[\], expected flows, distance"),
        (
            lambda: postprocess({"flows": FLOWS[None], "distance": FLAT[None]}, threshold=math.nan),
            ValueError,
            "threshold is nan, expected",
        ),
        (lambda: field_flow([[1.0]], MAP), TypeError, "distance has type list, expected"),
        (lambda: cluster_points(FLAT), ValueError, r"points has shape \(2, 3\), expected"),
        (lambda: cluster_points(POINTS, eps=0), ValueError, "eps is 0, expected"),
        (lambda: cluster_points(POINTS, min_points=0), ValueError, "min_points is 0, expected"),
        (
            lambda: postprocess({"flows": FLOWS}),
            ValueError,
            r"outputs has the keys \['flows'\], expected flows, distance",
        ),
        (
            lambda: postprocess({"flows": FLOWS[None], "distance": MAP[None]}),
            TypeError,
            r"outputs\['distance'\] has dtype torch.int32",
        ),
        (
            lambda: postprocess({"flows": FLOWS, "distance": FLAT}),
            ValueError,
            r"outputs\['flows'\] has shape \(2, 2, 3\)",
        ),
        (lambda: omnipose_loss({}, {}), ValueError, r"outputs has the keys \[\], expected flows, distance"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_half_precision_reaches_far_rows():
    """float16 has no number for row 2049, so pixels must not move in it."""
    flows, inside = torch.zeros(2, 4100, 1, dtype=torch.float16), torch.ones(4100, 1).bool()
    ends = suppressed_euler(flows, inside)
    assert torch.equal(ends[:, 0], torch.arange(4100.0)) and ends.dtype == torch.float32
