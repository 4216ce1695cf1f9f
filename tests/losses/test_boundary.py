"""Losses by distance against MONAI (value and gradient), and by hand with distances of all pairs of pixels."""

import math

import pytest
import torch
from losses.cases import SHAPES, VOLUME, assert_same, one_hot, random_maps
from monai.losses import BoundaryLoss, HausdorffDTLoss

from segedu.losses.boundary import boundary_dou_loss, boundary_loss, hausdorff_loss, region_wise_loss
from segedu.losses.region import iou_loss

FLAT = [(2, 3, 6, 8), (1, 5, 9, 7)]


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(boundary_loss, BoundaryLoss), (hausdorff_loss, HausdorffDTLoss)],
    ids=["boundary", "Hausdorff"],
)
def test_equals_monai(ours, theirs, background):
    peer = theirs(softmax=True, include_background=background)  # its distances are float32
    for shape in FLAT:
        logits, target = random_maps(shape)
        y = one_hot(target, shape[1])
        assert_same(
            lambda z, t=target: ours(z, t, include_background=background), lambda z, y=y: peer(z, y), logits, 2e-6
        )
        for wrong in (
            lambda z, t=target: ours(z, t, include_background=not background),
            lambda z, t=target: ours(z, t, include_background=background) * (1 + 1e-4),
            lambda z, t=target: ours(z.flip(1), t, include_background=background),
        ):
            with pytest.raises(AssertionError):
                assert_same(wrong, lambda z, y=y: peer(z, y), logits, 2e-6)


def distances(mask, elsewhere):
    """Distance of each pixel of a mask to the nearest of `elsewhere`, by all pairs; 0 where there is none."""
    result = torch.zeros(mask.shape, dtype=torch.float64)
    outside = [tuple(place) for place in elsewhere.nonzero().tolist()]
    for place in mask.nonzero().tolist():
        if outside:
            result[tuple(place)] = min(math.dist(place, other) for other in outside)
    return result


def boundary_by_hand(z, target):
    p, values = z.softmax(1), []
    for image, truth in zip(p, target, strict=True):
        for k in range(1, p.shape[1]):
            inside, outside = truth == k, (truth != k) & (truth != 255)
            within = distances(inside, outside)
            phi = distances(outside, inside) - torch.where(within > 0, within - 1, 0)
            values.append((phi * image[k])[truth != 255])
    return torch.cat(values).mean()


def hausdorff_by_hand(z, target, alpha):
    p, values = z.softmax(1), []
    for image, truth in zip(p, target, strict=True):
        for k in range(1, p.shape[1]):
            weight, counted = 0, truth != 255
            for mask in (truth == k, image[k] > 0.5):
                inside, outside = mask & counted, ~mask & counted
                weight = weight + (distances(inside, outside) + distances(outside, inside)) ** alpha
            values.append((weight * (image[k] - (truth == k).double()) ** 2)[counted])
    return torch.cat(values).mean()


@pytest.mark.parametrize("shape", [(2, 3, 5, 6), (1, 2, 3, 3, 4)])
def test_with_ignored_pixels_equals_the_formula(shape):
    logits, target = random_maps(shape, ignored=0.2)
    assert_same(lambda z: boundary_loss(z, target), lambda z: boundary_by_hand(z, target), logits)
    for alpha in (2.0, 1.3):
        by_hand = lambda z, a=alpha: hausdorff_by_hand(z, target, a)  # noqa: E731
        assert_same(lambda z, a=alpha: hausdorff_loss(z, target, alpha=a), by_hand, logits)
        with pytest.raises(AssertionError):
            assert_same(lambda z, a=alpha: hausdorff_loss(z, target, alpha=a + 1e-3), by_hand, logits)


def test_boundary_loss_is_signed():
    """A perfect prediction is below 0, and each pixel of error moves it by its distance."""
    target = torch.tensor([[[0, 0, 0, 1, 1, 1]]])

    def loss(*foreground):
        row = torch.tensor(foreground, dtype=torch.float64)
        return 6 * boundary_loss(1e4 * torch.stack([1 - row, row])[None, :, None], target).item()

    assert loss(0, 0, 0, 1, 1, 1) == pytest.approx(-1 - 2)
    assert loss(0, 0, 1, 1, 1, 1) == pytest.approx(-3 + 1)
    assert loss(1, 0, 0, 1, 1, 1) == pytest.approx(-3 + 3)
    assert loss(0, 0, 0, 1, 1, 0) == pytest.approx(-3 + 2)


def dou_by_hand(z, target, smooth, include_background, per_image):
    p, losses = z.softmax(1), []
    groups = [[i] for i in range(len(p))] if per_image else [list(range(len(p)))]
    for images in groups:
        for k in range(0 if include_background else 1, p.shape[1]):
            size = edge = 0
            intersection = squares = 0.0
            for image in images:
                truth = target[image]
                for place in torch.ones_like(truth).nonzero().tolist():
                    if truth[tuple(place)] == 255:
                        continue
                    own, true = p[(image, k, *place)], int(truth[tuple(place)] == k)
                    intersection, squares = intersection + true * own, squares + own * own
                    size += true
                    steps = [(axis, step) for axis in range(truth.ndim) for step in (-1, 1)]
                    around = [[c + step * (i == axis) for i, c in enumerate(place)] for axis, step in steps]
                    in_image = [all(0 <= c < n for c, n in zip(q, truth.shape, strict=True)) for q in around]
                    inside = [ok and truth[tuple(q)] == k for q, ok in zip(around, in_image, strict=True)]
                    edge += true * (not all(inside))
            alpha = min(max(1 - 2 * edge / max(size, 1), 0), 0.8)
            union = size + squares - intersection
            losses.append((union - intersection) / (union - alpha * intersection + smooth))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("shape", [(2, 3, 6, 7), (1, 2, 4, 5, 4)])
def test_boundary_dou_equals_the_formula(shape):
    logits, target = random_maps(shape, ignored=0.05)
    target[:1] = torch.where(target[:1] == 255, 255, 0)  # almost one region: alpha is above 0
    for smooth, background, per_image in [(1e-5, True, True), (1.0, False, True), (1e-5, True, False)]:
        options = {"smooth": smooth, "include_background": background, "per_image": per_image}
        by_hand = lambda z, o=options: dou_by_hand(z, target, **o)  # noqa: E731
        assert_same(lambda z, o=options: boundary_dou_loss(z, target, **o), by_hand, logits)
        with pytest.raises(AssertionError):
            other = {**options, "per_image": not per_image, "smooth": 2 * smooth}
            assert_same(lambda z, o=other: boundary_dou_loss(z, target, **o), by_hand, logits)


def test_boundary_dou_of_a_large_square():
    """One pixel wrong at the edge of a square of 20: C = 76, S = 400, alpha = 0.62."""
    target = torch.zeros(1, 30, 30, dtype=torch.int64)
    target[0, 5:25, 5:25] = 1
    preds = target.clone()
    preds[0, 5, 5] = 0
    logits = 1e4 * torch.nn.functional.one_hot(preds, 2).movedim(-1, 1).double()
    loss = boundary_dou_loss(logits, target, smooth=0, include_background=False).item()
    assert loss == pytest.approx(1 / (400 - 0.62 * 399))
    assert loss > 2.6 * iou_loss(logits, target, smooth=0, include_background=False).item()


def region_wise_by_hand(z, target):
    p, values = z.softmax(1), []
    for image, truth in zip(p, target, strict=True):
        for k in range(p.shape[1]):
            inside, outside = truth == k, (truth != k) & (truth != 255)
            depth = distances(inside, outside)
            depth = depth / depth.max() if depth.max() > 0 else torch.ones_like(depth)
            values.append((torch.where(inside, -depth, 1.0) * image[k])[truth != 255])
    return torch.cat(values).mean()


def test_region_wise_equals_the_formula():
    for shape in [*SHAPES, VOLUME]:
        logits, target = random_maps(shape, ignored=0.1)
        by_hand = lambda z, t=target: region_wise_by_hand(z, t)  # noqa: E731
        assert_same(lambda z, t=target: region_wise_loss(z, t), by_hand, logits)
        with pytest.raises(AssertionError):
            assert_same(lambda z, t=target: boundary_loss(z, t, include_background=True), by_hand, logits)


def test_wrong_classes_of_a_pixel_pull_alike():
    """The gradient at the probabilities is the same for all wrong classes: the principle of the paper."""
    target = torch.tensor([[[0, 0, 0, 1, 1, 2, 2, 2]]])
    p = torch.rand(1, 3, 1, 8, dtype=torch.float64)
    logits = p.log().requires_grad_()
    loss = region_wise_loss(logits, target)
    wrong_rows = [[k for k in range(3) if k != true] for true in target[0, 0].tolist()]
    q = logits.softmax(1)
    map_of = torch.autograd.grad(loss, logits)[0] / q  # (z_k - Σ q z) / (K P): equal for equal z
    for pixel, (first, second) in enumerate(wrong_rows):
        assert map_of[0, first, 0, pixel].item() == pytest.approx(map_of[0, second, 0, pixel].item())
