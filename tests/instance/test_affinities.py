"""Affinities: targets against a loop over pixels, the loss by hand, and both decodings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from learning import fit, matched_share
from scipy import ndimage
from torch import Tensor, nn

from segedu.instance.affinities import (
    ATTRACTIVE_OFFSETS,
    OFFSETS,
    REPULSIVE_OFFSETS,
    AffinityNet,
    affinity_loss,
    affinity_targets,
    decode_components,
    decode_mutex,
    postprocess,
)
from segedu.semantic.unet import UNet


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def connected_objects(seed: int, size: tuple[int, int] = (40, 44)) -> Tensor:
    """Ellipses that cover each other, every connected part with a label of its own; and objects of one pixel."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(size)
    labels = np.zeros(size, dtype=np.int32)
    for number in range(1, 9):
        cy, cx, ry, rx = rng.uniform(0, size[0]), rng.uniform(0, size[1]), *rng.uniform(3, 12, 2)
        labels[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1] = number
    labels[0, 0], labels[-1, -1], labels[0, 1] = 20, 21, 0
    parts = np.zeros_like(labels)
    for number in np.unique(labels[labels > 0]):
        part, count = ndimage.label(labels == number)
        parts[part > 0] = part[part > 0] + parts.max()
    return torch.from_numpy(parts)


def same_partition(a: Tensor, b: Tensor) -> bool:
    pairs = set(zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
    return len({p for p, _ in pairs}) == len({q for _, q in pairs}) == len(pairs) and torch.equal(a > 0, b > 0)


# --- targets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(9, 13), (3, 14), (1, 1)])  # smaller than some offsets
def test_targets_equal_a_loop(size: tuple[int, int]) -> None:
    label_map = torch.randint(0, 3, size, generator=torch.Generator().manual_seed(0))
    offsets = [*OFFSETS, (1, 0), (0, 1), (2, -3), (-2, 3), (13, 1)]
    targets = affinity_targets(label_map, offsets)
    expected = torch.zeros(len(offsets), *size, dtype=torch.uint8)
    for a, (dy, dx) in enumerate(offsets):
        for y in range(size[0]):
            for x in range(size[1]):
                if not (0 <= y + dy < size[0] and 0 <= x + dx < size[1]):
                    expected[a, y, x] = 255
                elif label_map[y, x] > 0:
                    expected[a, y, x] = int(label_map[y, x] == label_map[y + dy, x + dx])
    assert targets["affinities"].dtype == torch.uint8 and targets["foreground"].dtype == torch.bool
    assert torch.equal(targets["affinities"], expected)
    assert torch.equal(targets["foreground"], label_map > 0)


def test_targets_by_hand() -> None:
    label_map = torch.tensor([[7, 0, 0], [7, 9, 0]])
    up, left, diagonal = affinity_targets(label_map, [(-1, 0), (0, -1), (1, 1)])["affinities"]
    assert up.tolist() == [[255, 255, 255], [1, 0, 0]]  # 0 above 0 is no object
    assert left.tolist() == [[255, 0, 0], [255, 0, 0]]
    assert diagonal.tolist() == [[0, 0, 255], [255, 255, 255]]
    assert not (affinity_targets(torch.zeros(4, 5).int())["affinities"] == 1).any()


# --- the loss ---------------------------------------------------------------------------------------------------


def test_loss_by_hand() -> None:
    log3 = math.log(3)  # probabilities 3/4 and 1/4
    logits = torch.tensor([[[[log3, log3, -log3, 9.0]], [[log3, 0.0, 0.0, 9.0]]]], dtype=torch.float64)
    target = torch.tensor([[[[1, 0, 1, 255]], [[0, 0, 0, 255]]]], dtype=torch.uint8)
    outputs = {"affinities": logits, "foreground": torch.tensor([[[[0.0, 0.0, log3, log3]]]], dtype=torch.float64)}
    targets = {"affinities": target, "foreground": torch.tensor([[[True, False, True, False]]])}
    losses = affinity_loss(outputs, targets)
    right, wrong, half = math.log(4 / 3), math.log(4), math.log(2)
    assert losses["entropy"].item() == pytest.approx((right + wrong + wrong + wrong + half + half) / 6)
    # first offset: p y = 3/4 + 1/4, p^2 = 9/16 + 9/16 + 1/16, y^2 = 2; the second has no pair of one object
    assert losses["dice"].item() == pytest.approx(1 - 2 / (19 / 16 + 2))
    assert losses["foreground"].item() == pytest.approx((half + half + right + wrong) / 4)
    assert losses["loss"].item() == pytest.approx(sum(losses[k].item() for k in ("entropy", "dice", "foreground")))
    weighted = affinity_loss(outputs, targets, entropy_weight=2.0, dice_weight=0.0, foreground_weight=3.0)
    assert weighted["loss"].item() == pytest.approx(2 * losses["entropy"].item() + 3 * losses["foreground"].item())


def test_loss_of_targets_themselves_is_nothing_and_gradients_are_finite() -> None:
    maps = [connected_objects(0), torch.zeros(40, 44, dtype=torch.int32)]
    targets = [affinity_targets(label_map) for label_map in maps]
    for chosen in (targets, targets[1:]):  # with an image without objects, and such alone
        batch = {key: torch.stack([one[key] for one in chosen]) for key in chosen[0]}
        outputs = {
            "affinities": 60.0 * (batch["affinities"] == 1) - 30.0,
            "foreground": (60.0 * batch["foreground"] - 30.0)[:, None],
        }
        assert affinity_loss(outputs, batch)["loss"].item() < 1e-6
        drawn = {key: random(*value.shape).requires_grad_() for key, value in outputs.items()}
        losses = affinity_loss(drawn, batch)
        assert losses["entropy"] > 0.1 and (losses["dice"] > 0.1) == (chosen is targets)
        losses["loss"].backward()
        ignored = batch["affinities"] == 255
        assert ignored.any() and not drawn["affinities"].grad[ignored].any()
        assert drawn["affinities"].grad[~ignored].abs().min() > 0


# --- decoding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decode", [decode_mutex, decode_components])
def test_targets_give_the_label_map_back(decode: object) -> None:
    maps = [connected_objects(seed) for seed in range(4)] + [torch.zeros(5, 6).int(), torch.ones(1, 1).int()]
    for label_map in maps:
        targets = affinity_targets(label_map)
        affinities = torch.where(targets["affinities"] == 255, 0.77, targets["affinities"].double())  # no such pair
        got = decode(affinities, targets["foreground"])
        assert got.dtype == torch.int32
        assert same_partition(got, label_map)
        first = got[got > 0].tolist()
        assert list(dict.fromkeys(first)) == list(range(1, len(set(first)) + 1))  # in raster order


def two_squares(bridge: float) -> tuple[Tensor, Tensor]:
    """Two squares side by side; at one row of their border the network is wrong by `bridge`."""
    label_map = torch.ones(8, 16, dtype=torch.int32)
    label_map[:, 8:] = 2
    affinities = affinity_targets(label_map)["affinities"].double()
    affinities[affinities == 255] = 0
    affinities = 0.05 + 0.9 * affinities
    affinities[OFFSETS.index((0, -1)), 3, 8] = bridge
    return affinities, label_map


def test_one_wrong_pair_joins_components_but_not_the_mutex_watershed() -> None:
    affinities, label_map = two_squares(0.9)  # less sure than the far pairs, at 0.95, and above any threshold
    foreground = label_map > 0
    assert decode_components(affinities, foreground).max() == 1
    assert same_partition(decode_mutex(affinities, foreground), label_map)
    # without far pairs nothing forbids the join
    near = affinities[: len(ATTRACTIVE_OFFSETS)]
    assert decode_mutex(near, foreground, ATTRACTIVE_OFFSETS).max() == 1
    # a yes that is surer than all noes wins
    assert decode_mutex(two_squares(0.97)[0], foreground).max() == 1
    assert decode_components(affinities, foreground, affinity_threshold=0.92).max() == 2
    assert len(OFFSETS) == len(ATTRACTIVE_OFFSETS) + len(REPULSIVE_OFFSETS)


def test_only_the_four_neighbours_attract() -> None:
    ones = torch.ones(1, 1, 5).double()
    label = torch.ones(1, 5).bool()
    # far pairs with affinity 1 join nothing, for both decodings
    affinities = torch.cat([torch.zeros_like(ones), ones])
    assert decode_mutex(affinities, label, [(0, 1), (0, 2)]).tolist() == [[1, 2, 3, 4, 5]]
    assert decode_components(affinities, label, [(0, 1), (0, 2)]).tolist() == [[1, 2, 3, 4, 5]]
    assert decode_mutex(ones, label, [(0, 1)]).tolist() == [[1, 1, 1, 1, 1]]


def test_pairs_follow_the_sign_of_the_offset() -> None:
    affinity = torch.tensor([[[0.9, 0.0, 0.9, 0.0]]])
    label = torch.ones(1, 4).bool()
    for decode in (decode_mutex, decode_components):
        assert decode(affinity, label, [(0, 1)]).tolist() == [[1, 1, 2, 2]]
        assert decode(affinity, label, [(0, -1)]).tolist() == [[1, 2, 2, 3]]


def test_background_and_least_size() -> None:
    affinities = torch.ones(1, 1, 6)
    foreground = torch.tensor([[True, True, False, True, False, True]])
    for decode in (decode_mutex, decode_components):
        assert decode(affinities, foreground, [(0, -1)]).tolist() == [[1, 1, 0, 2, 0, 3]]
        assert decode(affinities, foreground, [(0, -1)], min_pixels=2).tolist() == [[1, 1, 0, 0, 0, 0]]
        # a pixel of the background has no pair at all, from neither side
        assert decode(affinities.repeat(2, 1, 1), foreground, [(0, -1), (0, 1)]).tolist() == [[1, 1, 0, 2, 0, 3]]


def test_network_and_postprocess() -> None:
    torch.manual_seed(0)
    net = AffinityNet(nn.Conv2d(3, 4, 1), [(0, -1), (-1, 0), (0, -3)])
    outputs = net(torch.rand(2, 3, 5, 6))
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        "affinities": (2, 3, 5, 6),
        "foreground": (2, 1, 5, 6),
    }
    with torch.no_grad():
        net.network.weight.zero_()
        net.network.bias.copy_(torch.tensor([5.0, -5.0, 5.0, 1.0]))  # rows hang together, columns hardly
    # a weak yes between rows joins them in the end: no far pair of two rows forbids it
    assert postprocess(net(torch.rand(1, 3, 2, 3)), net.offsets)[0].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert postprocess(net(torch.rand(1, 3, 2, 3)), net.offsets, min_pixels=7)[0].max() == 0
    assert postprocess(net(torch.rand(1, 3, 2, 3)), net.offsets, foreground_threshold=0.8)[0].max() == 0
    with pytest.raises(ValueError, match=r"network\(images\) has shape \(1, 4, 2, 2\), expected \(B, 3, H, W\)"):
        AffinityNet(net.network, [(0, -1), (-1, 0)])(torch.rand(1, 3, 2, 2))


# --- what is refused --------------------------------------------------------------------------------------------

P, INSIDE, NEAR_ONLY = torch.rand(1, 4, 5), torch.ones(4, 5).bool(), [(0, -1)]
OUTPUTS = {"affinities": random(2, 1, 4, 5), "foreground": random(2, 1, 4, 5)}
TARGETS = {"affinities": torch.ones(2, 1, 4, 5).byte(), "foreground": torch.ones(2, 4, 5).bool()}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: affinity_targets(P[0]), TypeError, "label_map has dtype torch.float32, expected"),
        (lambda: affinity_targets(INSIDE), TypeError, "label_map has dtype torch.bool, expected"),
        (lambda: affinity_targets(INSIDE[None].int()), ValueError, "label_map has shape"),
        (lambda: affinity_targets(-INSIDE.int()), ValueError, "label_map has the label -1, expected"),
        (lambda: affinity_targets(INSIDE.int(), []), ValueError, "offsets is"),
        (lambda: affinity_targets(INSIDE.int(), [(0, 0)]), ValueError, "offsets is"),
        (lambda: affinity_targets(INSIDE.int(), [(0, 1, 2)]), ValueError, "offsets is"),
        (lambda: affinity_targets(INSIDE.int(), [(0, 0.5)]), ValueError, "offsets is"),
        (lambda: affinity_loss(P, TARGETS), TypeError, "outputs has type Tensor"),
        (lambda: affinity_loss({"affinities": P}, TARGETS), ValueError, "outputs has the keys"),
        (lambda: affinity_loss({**OUTPUTS, "affinities": P}, TARGETS), ValueError, "affinities.*has shape"),
        (lambda: affinity_loss({**OUTPUTS, "foreground": P[None]}, TARGETS), ValueError, "foreground.*has shape"),
        (lambda: affinity_loss(OUTPUTS, {}), ValueError, r"targets has the keys \[\], expected affinities, foreground"),
        (lambda: affinity_loss(OUTPUTS, P), TypeError, "targets has type Tensor, expected a dict"),
        (lambda: affinity_loss(OUTPUTS, {**TARGETS, "affinities": INSIDE}), ValueError, "target has shape"),
        (lambda: affinity_loss(OUTPUTS, TARGETS, dice_weight=-1.0), ValueError, "dice_weight is -1"),
        (lambda: decode_mutex(P.int(), INSIDE, NEAR_ONLY), TypeError, "affinities has dtype torch.int32"),
        (lambda: decode_mutex(P, INSIDE.int(), NEAR_ONLY), TypeError, "foreground has dtype torch.int32"),
        (lambda: decode_mutex(P, INSIDE), ValueError, r"expected \(8, 4, 5\), one channel per offset"),
        (
            lambda: decode_mutex(P, INSIDE[:2], NEAR_ONLY),
            ValueError,
            r"foreground has shape \(2, 5\), expected \(H, W\) with H = 4",
        ),
        (lambda: decode_mutex(3 * P + 1, INSIDE, NEAR_ONLY), ValueError, "outside"),
        (lambda: decode_mutex(P, INSIDE, [(0, -2)]), ValueError, "expected at least one direct neighbour"),
        (lambda: decode_components(P, INSIDE, NEAR_ONLY, min_pixels=0), ValueError, "min_pixels is 0"),
        (
            lambda: decode_components(P, INSIDE, NEAR_ONLY, affinity_threshold=2.0),
            ValueError,
            "affinity_threshold is 2",
        ),
        (lambda: AffinityNet(nn.Identity(), []), ValueError, "offsets is"),
    ],
)
def test_bad_arguments(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.learns
def test_learns_one_image() -> None:
    label_map = torch.zeros(32, 32, dtype=torch.int32)
    label_map[3:14, 4:17], label_map[14:29, 6:15], label_map[8:25, 20:30] = 1, 2, 3
    torch.manual_seed(0)
    images = (0.3 + 0.5 * (label_map > 0) + 0.1 * label_map + 0.03 * torch.randn(3, 32, 32))[None]
    net = AffinityNet(UNet(3, len(OFFSETS) + 1, 8, depth=2, padding=1))
    targets = {key: value[None] for key, value in affinity_targets(label_map).items()}
    fit(net, lambda: affinity_loss(net(images), targets)["loss"], steps=200, lr=1e-2)
    net.train()  # with the batch's statistics
    assert matched_share(postprocess(net(images), min_pixels=20)[0], label_map, min_iou=0.7) > 0.6
