"""Region mutual information against covariances worked out region by region."""

import math

import numpy as np
import pytest
import torch
from losses.cases import assert_same, random_maps

from segedu.losses.cross_entropy import binary_cross_entropy
from segedu.losses.rmi import half_log_det_unexplained, region_vectors, rmi_loss


def pooled(maps, pool):
    """Means over squares, what does not fill one is left out."""
    H, W = maps.shape[0] // pool, maps.shape[1] // pool
    rows = [[maps[i * pool : (i + 1) * pool, j * pool : (j + 1) * pool].mean() for j in range(W)] for i in range(H)]
    return torch.stack([torch.stack(row) for row in rows])


def regions(maps, side):
    H, W = maps.shape
    places = [(i, j) for i in range(H - side + 1) for j in range(W - side + 1)]
    return torch.stack([maps[i : i + side, j : j + side].flatten() for i, j in places])  # (N, d)


def rmi_by_hand(z, target, weight, region, pool, eps):
    counted = target != 255
    p, total, entropy = z.sigmoid() * counted[:, None], 0.0, 0.0
    for b in range(len(z)):
        for k in range(z.shape[1]):
            truth = ((target[b] == k) & counted[b]).double()
            y, q = regions(pooled(truth, pool), region), regions(pooled(p[b, k], pool), region)
            y, q = y - y.mean(0), q - q.mean(0)
            n, identity = len(y), torch.eye(region**2, dtype=torch.float64)
            cov_y, cov_q, cov_yq = y.T @ y / n, q.T @ q / n, y.T @ q / n
            left = cov_y - cov_yq @ torch.linalg.inv(cov_q + eps * identity) @ cov_yq.T
            total = total + 0.5 * torch.linalg.slogdet(left + eps * identity)[1] / region**2
            log_p = torch.where(truth > 0, z[b, k].sigmoid(), 1 - z[b, k].sigmoid()).log()
            entropy = entropy - log_p[counted[b]].sum()
    return weight * entropy / counted.sum() + (1 - weight) * total / len(z)


def compare(ours):
    for shape, options in [
        ((2, 3, 9, 10), {"weight": 0.5, "region": 3, "pool": 1, "eps": 1e-3}),
        ((1, 2, 13, 11), {"weight": 0.2, "region": 2, "pool": 3, "eps": 1e-6}),
    ]:
        logits, target = random_maps(shape, ignored=0.1)
        by_hand = lambda z, t=target, o=options: rmi_by_hand(z, t, **o)  # noqa: E731
        assert_same(lambda z, t=target, o=options: ours(z, t, **o), by_hand, logits, 1e-9)


def test_equals_the_formula():
    compare(rmi_loss)


@pytest.mark.parametrize(
    "perturbed",
    [
        lambda z, t, **k: rmi_loss(z, t, **k) * (1 + 1e-6),
        lambda z, t, weight, **k: rmi_loss(z, t, weight=1 - weight - 0.01, **k),
        lambda z, t, eps, **k: rmi_loss(z, t, eps=eps * 1.01, **k),
        lambda z, t, pool, **k: rmi_loss(z, t, pool=pool + 1, **k),
        lambda z, t, **k: rmi_loss(z.flip(1), t, **k),
    ],
)
def test_comparison_refuses(perturbed):
    with pytest.raises(AssertionError):
        compare(perturbed)


def test_with_full_weight_it_is_cross_entropy_of_each_class():
    logits, target = random_maps((2, 3, 9, 9))
    expected = sum(binary_cross_entropy(logits[:, k], (target == k).long()) for k in range(3))
    torch.testing.assert_close(rmi_loss(logits, target, weight=1), expected)


def test_regions_are_neighbourhoods():
    maps = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(region_vectors(maps, 3)[1, 2].T, regions(maps[1, 2], 3))


def test_what_is_explained_is_mutual_information_of_gaussians():
    """y = x + noise: half the log of the noise's variance is left, which is the entropy given x (up to a constant)."""
    random = np.random.default_rng(0)
    x, noise = torch.from_numpy(random.normal(size=(1, 200_000))), torch.from_numpy(random.normal(size=(1, 200_000)))
    left = half_log_det_unexplained(x + 0.5 * noise, x, eps=1e-9)
    assert left.item() == pytest.approx(math.log(0.5), abs=0.01)


def test_places_count():
    """Two predictions with the same pixels wrong, in one patch or scattered: cross-entropy is the same, RMI is not."""
    target = torch.zeros(1, 12, 12, dtype=torch.int64)
    target[0, 3:9, 3:9] = 1
    one, scattered = target.clone(), target.clone()
    one[0, 3:6, 3:6] = 0
    scattered[0, 3:9:2, 3:9:2] = 0
    losses = []
    for preds in (one, scattered):
        logits = 4.0 * torch.nn.functional.one_hot(preds, 2).movedim(-1, 1).double() - 2
        losses.append([rmi_loss(logits, target, weight=w, pool=1).item() for w in (1, 0)])
    assert losses[0][0] == pytest.approx(losses[1][0])
    assert abs(losses[0][1] - losses[1][1]) > 0.01
