"""Boundary-aware loss: discs of distances are the mask, worked out pixel by pixel."""

import math

import pytest
import torch
from losses.cases import assert_same, random_maps

from segedu.losses.boundary_aware import boundary_aware_loss, decode_distances, truncated_distance
from segedu.losses.cross_entropy import cross_entropy


def by_hand(z, target):
    """Every pixel against every disc of every other pixel."""
    p, losses = z.softmax(1), []
    for image, truth in zip(p, target, strict=True):
        places = torch.ones_like(truth).nonzero().tolist()
        for place in places:
            outside = 1.0
            for other in places:
                for n in range(1, z.shape[1]):
                    if math.dist(place, other) < n and truth[tuple(other)] != 255:
                        outside = outside * (1 - image[(n, *other)])
            if truth[tuple(place)] != 255:
                losses.append(-torch.log(1 - outside if truth[tuple(place)] else outside))
    return sum(losses) / len(losses)


def test_equals_the_formula():
    logits, target = random_maps((2, 4, 4, 5), ignored=0.1)
    target = torch.where(target == 255, 255, (target > 1).long())
    assert_same(lambda z: boundary_aware_loss(z, target), lambda z: by_hand(z, target), logits)
    for wrong in (
        lambda z: boundary_aware_loss(z, target) * (1 + 1e-9),
        lambda z: boundary_aware_loss(z.flip(1), target),
        lambda z: cross_entropy(z, target),
    ):
        with pytest.raises(AssertionError):
            assert_same(wrong, lambda z: by_hand(z, target), logits)


def shape_on(size):
    """An L and a disc, as a mask."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    disc = (y - 8) ** 2 + (x - 9) ** 2 < 30
    corner = (y > 14) & (y < 24) & (x > 4) & (x < 26) | (x > 20) & (x < 26) & (y > 3) & (y < 24)
    return (disc | corner)[None].long()


@pytest.mark.parametrize("largest", [1, 2, 4, 9])
def test_true_distances_decode_to_the_mask(largest):
    """The disc of each pixel stays inside the mask, and each pixel is in its own: the union is the mask."""
    target = shape_on(30)
    distance = truncated_distance(target, largest)
    rounded_down = torch.where(target.bool(), distance.clamp(min=1), 0)
    logits = 1e4 * torch.nn.functional.one_hot(rounded_down, largest + 1).movedim(-1, 1).float()
    decoded = (decode_distances(logits) > 0.5).long()
    assert (decoded >= target).all()
    beyond = decoded.bool() & ~target.bool()
    assert beyond.float().sum() <= 0.1 * target.sum()  # rounding up lets discs touch the pixels next to the edge


def test_truncated_distance():
    assert truncated_distance(torch.tensor([[[0, 1, 1, 1, 1, 1, 0]]]), 2).tolist() == [[[0, 1, 2, 2, 2, 1, 0]]]
    diagonal = torch.ones(1, 2, 2).long()
    diagonal[0, 0, 0] = 0
    assert truncated_distance(diagonal, 9).tolist() == [[[0, 1], [1, 2]]]  # the root of 2, rounded up
    assert truncated_distance(torch.ones(1, 2, 2), 5).tolist() == [[[5, 5], [5, 5]]]


def test_a_mask_reaches_beyond_its_box():
    """The pixels right of the box are covered by discs of pixels inside it."""
    logits = torch.zeros(1, 5, 1, 9)
    logits[0, 0] = 100
    logits[0, :, 0, 4] = torch.tensor([0.0, 0, 0, 0, 200])  # one pixel, 4 from the edge
    assert decode_distances(logits)[0, 0].round().tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 0]
