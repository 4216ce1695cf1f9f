"""The discriminative loss against loops over objects and pixels, and clusters of embeddings."""

from __future__ import annotations

import math

import pytest
import torch
from learning import fit, matched_share
from torch import Tensor, nn

from segedu.instance.discriminative import (
    DiscriminativeEmbedding,
    cluster_embeddings,
    discriminative_loss,
    discriminative_targets,
    postprocess,
    pull_push,
)
from segedu.semantic.unet import UNet


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_labels(*shape: int, seed: int = 0) -> Tensor:
    return 5 * torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(seed))  # 0, 5, 10, 15


# --- the loss ---------------------------------------------------------------------------------------------------


def by_loops(embeddings: Tensor, label_map: Tensor, pull_margin: float, push_margin: float) -> list[float]:
    """The paper's equations 1 to 3, one pixel and one ordered pair of objects after the other."""

    def norm(vector: list[float]) -> float:
        return math.sqrt(sum(v * v for v in vector))

    groups: dict[int, list[list[float]]] = {}
    for y in range(label_map.shape[0]):
        for x in range(label_map.shape[1]):
            if label_map[y, x]:
                groups.setdefault(int(label_map[y, x]), []).append(embeddings[:, y, x].tolist())
    means = {k: [sum(column) / len(g) for column in zip(*g, strict=True)] for k, g in groups.items()}
    objects = len(groups)
    pull = push = 0.0
    for k, group in groups.items():
        errors = [max(0.0, norm([v - m for v, m in zip(x, means[k], strict=True)]) - pull_margin) for x in group]
        pull += sum(e * e for e in errors) / len(group) / objects
        for j in groups:
            if j != k:
                distance = norm([a - b for a, b in zip(means[k], means[j], strict=True)])
                push += max(0.0, 2 * push_margin - distance) ** 2 / (objects * (objects - 1))
    return [pull, push, sum(norm(m) for m in means.values()) / objects]


@pytest.mark.parametrize("seed", range(5))
def test_equals_loops(seed: int) -> None:
    embeddings, labels = random(3, 5, 7, seed=seed), random_labels(5, 7, seed=seed)
    for margins in ((0.5, 1.5), (1.0, 0.4), (0.0, 0.0)):
        expected = by_loops(embeddings, labels, *margins)
        got = [term.item() for term in pull_push(embeddings, labels, *margins)]
        assert got == pytest.approx(expected, abs=1e-12)
    assert min(by_loops(embeddings, labels, 0.5, 1.5)) > 0.01


def test_by_hand() -> None:
    # means (0, 0), (3, 4), (0, 2): distances 5, 2 and sqrt(13) = 3.60555. With 2 push margins = 4 two pairs of three
    # are too near, by 2 and 0.39445; ordered pairs count twice and are divided by 3 * 2.
    embeddings = torch.tensor([[[0.0, 0.0, 3.0, 0.0, 99.0]], [[-1.0, 1.0, 4.0, 2.0, 99.0]]], dtype=torch.float64)
    labels = torch.tensor([[1, 1, 2, 8, 0]])
    pull, push, regular = pull_push(embeddings, labels, pull_margin=0.25, push_margin=2.0)
    assert pull.item() == pytest.approx(0.75**2 / 3)
    assert push.item() == pytest.approx((4 + (4 - math.sqrt(13)) ** 2) / 3)
    assert regular.item() == pytest.approx((0 + 5 + 2) / 3)


def test_margins_leave_alone_what_is_near_or_far_enough() -> None:
    embeddings = torch.tensor([[[0.0, 1.0, 3.5, 3.5]]]).requires_grad_()  # 1/2 from the mean; means 3 apart
    pull, push, _ = pull_push(embeddings, torch.tensor([[1, 1, 2, 2]]))
    assert pull.item() == push.item() == 0
    assert not torch.autograd.grad(pull + push, embeddings)[0].any()


def test_one_object_none_and_one_pixel() -> None:
    for labels, wanted in (
        (torch.zeros(2, 3).long(), (0, 0, 0)),  # no object
        (torch.tensor([[0, 0, 0], [0, 4, 0]]), (0, 0, 2)),  # one of one pixel
        (torch.ones(2, 3).int(), (0, 0, 2)),  # one everywhere
    ):
        embeddings = torch.full((4, 2, 3), 1.0).requires_grad_()
        terms = pull_push(embeddings, labels)
        assert [term.item() for term in terms] == pytest.approx(wanted)
        sum(terms).backward()
        assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("seed", range(3))
def test_gradients(seed: int) -> None:
    embeddings, labels = random(2, 3, 4, seed=seed).requires_grad_(), random_labels(3, 4, seed=seed)
    assert torch.autograd.gradcheck(lambda x: pull_push(x, labels, 0.3, 1.5), (embeddings,))


def test_loss_is_the_mean_over_images_and_the_sum_of_its_parts() -> None:
    outputs = {"embeddings": random(2, 3, 5, 7), "foreground": random(2, 1, 5, 7, seed=1)}
    labels = random_labels(2, 5, 7)
    labels[1] = labels[1].clamp(max=5)  # a single object
    losses = discriminative_loss(outputs, {"label_map": labels}, regular_weight=0.2, foreground_weight=3.0)
    terms = [by_loops(outputs["embeddings"][0], labels[0], 0.5, 1.5)]
    single = outputs["embeddings"][1][:, labels[1] > 0]
    distance = (single - single.mean(1, keepdim=True)).square().sum(0).sqrt()
    terms.append(
        [float((distance - 0.5).clamp(min=0).square().mean()), 0.0, float(single.mean(1).square().sum().sqrt())]
    )
    expected = torch.tensor(terms).double().mean(0).tolist()
    assert losses["pull"].item() == pytest.approx(expected[0], abs=1e-6)
    assert losses["push"].item() == pytest.approx(expected[1], abs=1e-6)
    assert losses["regular"].item() == pytest.approx(0.2 * expected[2], abs=1e-6)
    p, y = outputs["foreground"][:, 0].sigmoid(), (labels > 0).double()
    entropy = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    assert losses["foreground"].item() == pytest.approx(3 * entropy.item())
    assert losses["loss"].item() == pytest.approx(sum(losses[k].item() for k in losses if k != "loss"))
    default = discriminative_loss(outputs, {"label_map": labels})
    assert default["regular"].item() == pytest.approx(losses["regular"].item() / 200)  # 0.001


def test_half_precision_is_summed_in_single() -> None:
    embeddings = random(2, 64, 64).half()
    terms = pull_push(embeddings, torch.ones(64, 64).long())
    expected = pull_push(embeddings.float(), torch.ones(64, 64).long())
    assert [t.dtype for t in terms] == [torch.float32] * 3
    assert torch.equal(torch.stack(terms), torch.stack(expected))


# --- clusters ---------------------------------------------------------------------------------------------------


def row(values: list[float], foreground: list[bool] | None = None, **options: float) -> list[int]:
    chosen = torch.tensor([foreground or [True] * len(values)])
    got = cluster_embeddings(torch.tensor([[values]]).float(), chosen, **options)
    assert got.dtype == torch.int32
    return got.flatten().tolist()


@pytest.mark.parametrize("seed", range(4))
def test_embeddings_within_both_margins_give_the_label_map_back(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    label_map = torch.randint(0, 6, (20, 23), generator=generator)
    directions = nn.functional.normalize(random(8, 20, 23, seed=seed), dim=0)
    centres = 3.01 * torch.eye(8).double()[:, :6] / math.sqrt(2)  # 3.01 apart
    # at most 1/2 from the centre, and half of them exactly there
    radius = 0.5 * torch.rand(20, 23, generator=generator).gt(0.5).double() * (1 - 1e-6)
    embeddings = centres[:, label_map] + radius * directions
    outputs = {"embeddings": embeddings[None], "foreground": torch.where(label_map > 0, 4.0, -4.0)[None, None].double()}
    got = postprocess(outputs)[0]
    pairs = set(zip(label_map.flatten().tolist(), got.flatten().tolist(), strict=True))
    assert len(pairs) == len(label_map.unique()) == len(got.unique())
    assert torch.equal(got > 0, label_map > 0)


def test_clusters_by_hand() -> None:
    assert row([0, 1, 5, 5, 0]) == [1, 1, 2, 2, 1]
    assert row([5, 0, 1, 5, 0]) == [1, 2, 2, 1, 2]  # numbered by their first pixel
    assert row([0, 1, 5, 5, 0], [False, True, True, False, True]) == [0, 1, 2, 0, 1]
    assert row([0, 1, 5, 5, 0], bandwidth=0.5) == [1, 2, 3, 3, 1]
    assert row([0, 9, 5, 5, 0], min_pixels=2) == [1, 0, 2, 2, 1]
    assert row([3], min_pixels=2) == [0]
    assert row([3, 3], [False, False]) == [0, 0]


def test_a_start_at_the_rim_climbs_to_the_mode() -> None:
    # from 0 the ball of 1 holds 0, 0.8, 0.9, 1.0 only; it moves up and takes the far side too
    assert row([0.0, 0.8, 0.9, 1.0, 1.1, 1.2, 1.6], bandwidth=1.0) == [1] * 7
    assert row([0.0, 0.8, 0.9, 1.0, 1.1, 1.2, 1.6], bandwidth=1.0, steps=1) == [1] * 7
    # a start that climbs away from itself joins nevertheless, and the loop ends
    assert row([0.0, *[1.0] * 3, *[1.7] * 5], bandwidth=1.0) == [1] * 9
    # pixels of an earlier object do not draw the climb of a later one
    assert row([*[0.0] * 3, *[0.9] * 5, 1.8, 2.7], bandwidth=1.0) == [1] * 8 + [2] * 2


def test_network() -> None:
    torch.manual_seed(0)
    net = DiscriminativeEmbedding(nn.Conv2d(3, 5, 1), embed_dim=4)
    outputs = net(torch.rand(2, 3, 6, 7))
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        "embeddings": (2, 4, 6, 7),
        "foreground": (2, 1, 6, 7),
    }
    assert len(postprocess(outputs)) == 2
    with torch.no_grad():
        net.network.weight.zero_()
        net.network.bias.copy_(torch.tensor([0.0, 1.0, 2.0, 3.0, 9.0]))
    outputs = net(torch.rand(1, 3, 2, 2))
    assert outputs["foreground"].unique().tolist() == [9] and outputs["embeddings"].amax().item() == 3
    assert postprocess(outputs)[0].tolist() == [[1, 1], [1, 1]]
    assert postprocess(outputs, foreground_threshold=0.9999)[0].tolist() == [[0, 0], [0, 0]]
    with pytest.raises(ValueError, match=r"network\(images\) has shape \(1, 5, 2, 2\), expected \(B, 4, H, W\)"):
        DiscriminativeEmbedding(net.network, 3)(torch.rand(1, 3, 2, 2))


def test_targets() -> None:
    label_map = random_labels(4, 5)
    targets = discriminative_targets(label_map)
    assert set(targets) == {"label_map"} and targets["label_map"].dtype == torch.int32
    assert torch.equal(targets["label_map"], label_map)
    assert discriminative_targets(torch.tensor([[5, 2**32 + 5, 0]]))["label_map"].tolist() == [[1, 2, 0]]  # no int32


# --- what is refused --------------------------------------------------------------------------------------------

X, LABELS, INSIDE = random(3, 4, 5), random_labels(4, 5), torch.ones(4, 5).bool()
OUTPUTS, TARGETS = {"embeddings": X[None], "foreground": random(1, 1, 4, 5)}, {"label_map": LABELS[None]}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pull_push(LABELS[None], LABELS), TypeError, "embeddings has dtype torch.int64, expected"),
        (lambda: pull_push(X[0], LABELS), ValueError, "embeddings has shape"),
        (lambda: pull_push(X, LABELS.float()), TypeError, "label_map has dtype torch.float32, expected"),
        (lambda: pull_push(X, LABELS[:3]), ValueError, r"label_map has shape \(3, 5\), expected \(4, 5\)"),
        (lambda: pull_push(X, LABELS - 6), ValueError, "label_map has the label -6, expected"),
        (lambda: pull_push(X, LABELS, -1.0), ValueError, "pull_margin is -1"),
        (lambda: pull_push(X, LABELS, 0.5, float("nan")), ValueError, "push_margin is nan"),
        (lambda: discriminative_targets(X), TypeError, "label_map has dtype"),
        (lambda: discriminative_targets(LABELS[None]), ValueError, "label_map has shape"),
        (lambda: discriminative_loss(X, TARGETS), TypeError, "outputs has type Tensor"),
        (lambda: discriminative_loss({"embeddings": X}, TARGETS), ValueError, "outputs has the keys"),
        (lambda: discriminative_loss({**OUTPUTS, "foreground": X[None]}, TARGETS), ValueError, "foreground.*has shape"),
        (lambda: discriminative_loss({**OUTPUTS, "foreground": None}, TARGETS), TypeError, "foreground.*NoneType"),
        (lambda: discriminative_loss(OUTPUTS, {}), ValueError, r"targets has the keys \[\], expected label_map"),
        (lambda: discriminative_loss(OUTPUTS, {"label_map": LABELS}), ValueError, r"targets\['label_map'\] has shape"),
        (lambda: discriminative_loss(OUTPUTS, TARGETS, regular_weight=-1.0), ValueError, "regular_weight is -1"),
        (lambda: cluster_embeddings(X, LABELS), TypeError, "foreground has dtype torch.int64, expected"),
        (lambda: cluster_embeddings(X, INSIDE[:2]), ValueError, "foreground has shape"),
        (lambda: cluster_embeddings(X[0], INSIDE), ValueError, "embeddings has shape"),
        (lambda: cluster_embeddings(X * float("nan"), INSIDE), ValueError, "NaN"),
        (lambda: cluster_embeddings(X, INSIDE, 0.0), ValueError, "bandwidth is 0"),
        (lambda: cluster_embeddings(X, INSIDE, min_pixels=0), ValueError, "min_pixels is 0"),
        (lambda: postprocess(OUTPUTS, foreground_threshold=2.0), ValueError, "foreground_threshold is 2"),
        (lambda: DiscriminativeEmbedding(nn.Identity(), 0), ValueError, "embed_dim is 0"),
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
    net = DiscriminativeEmbedding(UNet(3, 5, 8, depth=2, padding=1), embed_dim=4)
    targets = {"label_map": label_map[None]}
    fit(net, lambda: discriminative_loss(net(images), targets)["loss"], steps=200, lr=1e-2)
    net.train()  # with the batch's statistics
    assert matched_share(postprocess(net(images), min_pixels=20)[0], label_map, min_iou=0.7) > 0.6
