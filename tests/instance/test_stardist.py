"""StarDist in 2D: targets, suppression, painting and the loss, against StarDist's code and numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tifffile
import torch
from instance.star_maps import blobs, centers_of, mean_iou_of_objects
from learning import fit, matched_share
from torch import Tensor

from segedu.backbones.stardist_unet import StarDistUNet
from segedu.instance.stardist import (
    StarDist,
    candidates,
    object_probability,
    polygon_nms,
    postprocess,
    render_polygons,
    star_distances,
    stardist_loss,
    stardist_targets,
)


@pytest.fixture(scope="module")
def nuclei(shared_data) -> Tensor:
    path = shared_data / "stardist_sample" / "mask2d.tif"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return torch.from_numpy(tifffile.imread(path).astype(np.int32))


@pytest.mark.parametrize("shape", [(97, 123), (64, 160)])
@pytest.mark.parametrize(("n_rays", "grid"), [(3, (1, 1)), (32, (1, 1)), (33, (2, 2)), (8, (1, 4))])
def test_distances_equal_stardist(shape: tuple[int, int], n_rays: int, grid: tuple[int, int]) -> None:
    theirs = pytest.importorskip("stardist.geometry").star_dist
    for seed in range(3):
        label_map = blobs(shape, seed)
        expected = np.moveaxis(theirs(label_map.numpy(), n_rays, grid=grid), -1, 0)
        np.testing.assert_allclose(star_distances(label_map, n_rays, grid).numpy(), expected, rtol=0, atol=1e-5)


def test_distances_of_the_sample_equal_stardist(nuclei: Tensor) -> None:
    theirs = pytest.importorskip("stardist.geometry").star_dist
    expected = np.moveaxis(theirs(nuclei.numpy(), 32), -1, 0)
    np.testing.assert_allclose(star_distances(nuclei, 32).numpy(), expected, rtol=0, atol=1e-5)


def test_distances_of_a_square() -> None:
    label_map = torch.zeros(9, 9, dtype=torch.int64)
    label_map[2:7, 2:7] = 3
    half, corner = 2.5, 2.5 * math.sqrt(2)
    got = star_distances(label_map, 8)[:, 4, 4]
    # On a diagonal a step is shorter than a pixel's: the fourth one leaves, 4 - 1 + 0.5 sqrt(2).
    assert got.tolist() == pytest.approx([half, 3 + 0.5 * math.sqrt(2)] * 4) and corner < got[1] < corner + 0.2


def test_one_pixel_the_border_and_nothing() -> None:
    label_map = torch.zeros(5, 7, dtype=torch.int32)
    assert not star_distances(label_map, 8).any() and not object_probability(label_map).any()
    label_map[2, 3] = 40_000
    distances = star_distances(label_map, 8)
    assert distances[:, 2, 3].tolist() == pytest.approx([0.5, math.sqrt(0.5)] * 4)
    assert distances.count_nonzero() == 8 and object_probability(label_map)[2, 3] == 1
    full = star_distances(torch.ones(5, 7, dtype=torch.uint8), 4)
    assert full[:, 0, 0].tolist() == [6.5, 4.5, 0.5, 0.5]  # the image ends there


def test_object_probability_equals_stardist(nuclei: Tensor) -> None:
    theirs = pytest.importorskip("stardist.utils").edt_prob
    for label_map in (nuclei, *(blobs((60, 71), seed) for seed in range(3)), blobs((14, 20, 17), 3)):
        np.testing.assert_allclose(object_probability(label_map).numpy(), theirs(label_map.numpy()), atol=1e-6)
    volume = blobs((14, 20, 17), 4)
    expected = theirs(volume.numpy(), anisotropy=(2, 1, 1))
    np.testing.assert_allclose(object_probability(volume, (2, 1, 1)).numpy(), expected, atol=1e-6)


def test_an_object_that_fills_the_image_ends_at_its_border() -> None:
    got = object_probability(torch.full((3, 5), 7))
    assert got.tolist() == [[0.5] * 5, [0.5, 1, 1, 1, 0.5], [0.5] * 5]


def test_targets_are_every_second_pixel() -> None:
    label_map = blobs((33, 42), 5)
    targets = stardist_targets(label_map, 16, (2, 4))
    assert targets["probability"].shape == (1, 17, 11) and targets["distances"].shape == (16, 17, 11)
    assert torch.equal(targets["probability"][0], object_probability(label_map)[::2, ::4])
    assert torch.equal(targets["distances"], star_distances(label_map, 16)[:, ::2, ::4])


def test_painting_equals_stardist(nuclei: Tensor) -> None:
    theirs = pytest.importorskip("stardist.geometry").polygons_to_label
    rng = np.random.default_rng(6)
    for label_map in (nuclei, blobs((90, 101), 7)):
        points = centers_of(label_map)
        distances = star_distances(label_map)[:, points[:, 0], points[:, 1]].T
        distances = (distances * torch.from_numpy(rng.uniform(0.7, 1.5, distances.shape))).float().clamp(min=1e-3)
        scores = torch.from_numpy(rng.random(len(points)))
        got = render_polygons(distances, points, label_map.shape, scores).numpy()
        expected = theirs(distances.numpy(), points.numpy(), label_map.shape, prob=scores.numpy())
        assert partition_iou(got, expected) >= 0.999


def partition_iou(label_map: np.ndarray, other: np.ndarray) -> float:
    """The least over objects with the same label."""
    labels = np.union1d(label_map, other)[1:]
    return min(((label_map == n) & (other == n)).sum() / ((label_map == n) | (other == n)).sum() for n in labels)


def test_suppression_and_painting_equal_stardist(nuclei: Tensor) -> None:
    """A prediction with noise through both: the same polygons stay."""
    nms = pytest.importorskip("stardist.nms").non_maximum_suppression
    rng = np.random.default_rng(8)
    targets = stardist_targets(nuclei, 32, (2, 2))
    probability = 0.9 * targets["probability"] + torch.from_numpy(rng.uniform(0.01, 0.09, targets["probability"].shape))
    logits = torch.logit(probability)
    reach = targets["distances"] * torch.from_numpy(rng.uniform(0.9, 1.1, targets["distances"].shape))
    distances, points, scores = candidates(logits, reach, (2, 2), 0.5)
    kept = polygon_nms(distances, points, scores, 0.4)
    # 64 times as large, so that whole-numbered corners of their polygons are no coarser than ours.
    large = (64 * np.moveaxis(reach.clamp(min=1e-3).numpy(), 0, -1)).astype(np.float32)
    theirs, *_ = nms(large, logits[0].sigmoid().numpy(), grid=(128, 128), b=0, nms_thresh=0.4, prob_thresh=0.5)
    assert torch.equal(points[kept], torch.from_numpy(theirs // 64).long()) and 110 < len(kept) < 140


def test_round_trip_of_the_sample(nuclei: Tensor) -> None:
    relabel = pytest.importorskip("stardist.geometry").relabel_image_stardist
    points = centers_of(nuclei)
    ours = render_polygons(star_distances(nuclei)[:, points[:, 0], points[:, 1]].T, points, nuclei.shape)
    theirs = torch.from_numpy(relabel(nuclei.numpy(), 32))
    ours_iou, theirs_iou = mean_iou_of_objects(nuclei, ours), mean_iou_of_objects(nuclei, theirs)
    assert ours_iou >= 0.90 and abs(ours_iou - theirs_iou) < 0.01


@pytest.mark.parametrize("grid", [(1, 1), (2, 2)])
def test_postprocess_gives_the_label_map_back(nuclei: Tensor, grid: tuple[int, int]) -> None:
    parts = (nuclei[:301, :300], nuclei[-301:, -300:], 0 * nuclei[:301, :300])
    targets = [stardist_targets(part, 32, grid) for part in parts]
    outputs = {
        "logits": torch.stack([torch.logit(target["probability"], 1e-6) for target in targets]),
        "distances": torch.stack([target["distances"] for target in targets]),
    }
    found = postprocess(outputs, (301, 300), grid)
    assert [label_map.dtype for label_map in found] == [torch.int32] * 3 and not found[2].any()
    for label_map, part in zip(found[:2], parts[:2], strict=True):
        assert label_map.shape == part.shape and mean_iou_of_objects(part, label_map) >= 0.90
        assert abs(len(label_map.unique()) - len(part.unique())) <= 2


def test_candidates_of_the_border_and_distances_below_0() -> None:
    logits, distances = torch.full((1, 4, 6), 3.0), torch.full((8, 4, 6), -2.0)
    found = candidates(logits, distances, (2, 3), 0.5, border=1)
    assert (found[0] == 1e-3).all() and found[1].tolist() == [[y, x] for y in (2, 4) for x in (3, 6, 9, 12)]
    assert len(candidates(logits, distances, (2, 3), 0.5)[1]) == 24
    assert len(candidates(logits, distances, (2, 3), 0.96)[1]) == 0


def test_ties_keep_their_order_and_scores_decide() -> None:
    distances, points = torch.full((4, 8), 5.0), torch.tensor([[9, 9], [9, 10], [9, 40], [9, 41]])
    assert polygon_nms(distances, points, torch.tensor([0.5, 0.5, 0.1, 0.9])).tolist() == [3, 0]
    assert polygon_nms(distances[:0], points[:0], torch.zeros(0)).tolist() == []


def test_loss_of_numbers_worked_by_hand() -> None:
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 1, 1, 2)
    outputs = {"logits": logits, "distances": torch.tensor([[2.0, 5.0], [4.0, 7.0], [1.0, -9.0]]).reshape(1, 3, 1, 2)}
    targets = {
        "probability": torch.tensor([0.5, 0.0]).reshape(1, 1, 1, 2),
        "distances": torch.tensor([[3.0, 0.0], [1.0, 0.0], [1.0, 0.0]]).reshape(1, 3, 1, 2),
    }
    terms = stardist_loss(outputs, targets, distance_weight=0.2, background_weight=0.1)
    assert terms["object"].item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert terms["distance"].item() == pytest.approx(0.2 * (1 + 3 + 0) / 3)
    assert terms["background"].item() == pytest.approx(0.2 * 0.1 * (5 + 7 + 9) / 6)
    assert terms["loss"].item() == pytest.approx(sum(terms[key].item() for key in ("object", "distance", "background")))


def test_loss_without_objects() -> None:
    outputs = {"logits": torch.zeros(1, 1, 2, 2), "distances": torch.ones(1, 4, 2, 2)}
    terms = stardist_loss(outputs, {"probability": torch.zeros(1, 1, 2, 2), "distances": torch.zeros(1, 4, 2, 2)})
    assert terms["distance"] == 0 and terms["background"].item() == pytest.approx(2e-5)


@pytest.mark.learns
def test_learns_one_image() -> None:
    torch.manual_seed(0)
    label_map = torch.zeros(32, 32, dtype=torch.int64)
    label_map[4:15, 3:14], label_map[18:29, 5:17], label_map[9:22, 19:30] = 1, 2, 3
    images = (label_map > 0).float()[None, None]
    targets = {key: value[None] for key, value in stardist_targets(label_map, 16).items()}
    model = StarDist(StarDistUNet(1, 8, 2), 16, 16)
    fit(model, lambda: stardist_loss(model(images), targets)["loss"], steps=200, lr=5e-3)
    assert matched_share(postprocess(model(images), (32, 32))[0], label_map, min_iou=0.7) > 0.6


ROWS = [
    (lambda: star_distances(torch.zeros(2, 2)), TypeError, "label_map has dtype torch.float32, expected"),
    (lambda: star_distances(torch.zeros(2, 2, 2, dtype=torch.int64)), ValueError, r"label_map has shape \(2, 2, 2\)"),
    (lambda: star_distances(torch.zeros(2, 2, dtype=torch.int64), 2), ValueError, "n_rays is 2, expected"),
    (lambda: object_probability(torch.zeros(2, dtype=torch.int64)), ValueError, r"label_map has shape \(2,\)"),
    (lambda: object_probability(torch.ones(2, 2).long(), (1, 0)), ValueError, r"spacing is \(1, 0\), expected"),
    (lambda: StarDist(StarDistUNet(), 2), ValueError, "n_rays is 2, expected"),
    (lambda: StarDist(StarDistUNet(), 8)(torch.zeros(1, 3, 8, 8)), ValueError, "images has shape"),
    (lambda: polygon_nms(torch.ones(2, 8), torch.zeros(2, 2), torch.ones(3)), ValueError, r"scores has shape \(3,\)"),
    (
        lambda: polygon_nms(torch.ones(1, 8), torch.zeros(1, 2), torch.tensor([math.nan])),
        ValueError,
        "scores contains NaN",
    ),
    (lambda: polygon_nms(torch.ones(1, 8), torch.zeros(1, 2), torch.ones(1), 2), ValueError, "overlap_threshold is 2"),
    (
        lambda: render_polygons(torch.ones(2, 8), torch.zeros(2, 2), (3, 3), torch.ones(1)),
        ValueError,
        r"scores has shape \(1,\), expected",
    ),
    (lambda: postprocess(torch.zeros(1), (8, 8)), TypeError, "outputs has type Tensor, expected a dict"),
    (lambda: postprocess({"logits": torch.zeros(1)}, (8, 8)), ValueError, "outputs has the keys"),
    (lambda: postprocess(OUTPUTS, (8, 8, 1)), ValueError, r"size is \(8, 8, 1\) and grid \(2, 2\), expected 2 numbers"),
    (lambda: postprocess(OUTPUTS, (8, 8), (0, 2)), ValueError, r"grid \(0, 2\), expected 2 numbers of at least 1"),
    (lambda: polygon_nms(torch.ones(1, 8), torch.zeros(1, 2), [1.0]), TypeError, "scores has type list, expected"),
    (
        lambda: render_polygons(torch.ones(2, 8), torch.zeros(2, 2), (3, 3), torch.ones(2, 1)),
        ValueError,
        r"scores has shape \(2, 1\), expected \(2,\)",
    ),
    (lambda: postprocess(OUTPUTS, (9, 8)), ValueError, r"outputs has \(4, 4\) pixels, expected \(5, 4\)"),
    (lambda: postprocess(OUTPUTS, (8, 8), score_threshold=1.5), ValueError, "score_threshold is 1.5, expected"),
    (lambda: stardist_loss(OUTPUTS, OUTPUTS), ValueError, "targets has the keys"),
    (
        lambda: stardist_loss(OUTPUTS, {"probability": torch.zeros(1, 1, 2, 4), "distances": torch.zeros(1, 8, 2, 4)}),
        ValueError,
        r"targets\['probability'\] has shape \(1, 1, 2, 4\), expected \(B, 1, h, w\) with B = 1, h = 4",
    ),
]
OUTPUTS = {"logits": torch.zeros(1, 1, 4, 4), "distances": torch.ones(1, 8, 4, 4)}


@pytest.mark.parametrize(("call", "error", "words"), ROWS)
def test_what_is_wrong_is_said(call, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
