"""DINO: its loss worked by hand, what keeps it from collapse, its crops, and principal components beside sklearn's."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from segedu.backbones.vit import ViT
from segedu.unsupervised.dino import (
    DINOHead,
    MultiCrop,
    attention_masks,
    dino_loss,
    foreground,
    principal_components,
    self_attention_maps,
    teacher_momentum,
    update_centre,
    update_teacher,
)

LN2 = math.log(2)


def tensor(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_the_loss_worked_by_hand() -> None:
    """Temperatures 1; the student gives (1/4, 3/4) on its second crop, the teacher (1/2, 1/2) on the first."""
    student, teacher = [tensor([0, 0]), tensor([0, math.log(3)])], [tensor([LN2, LN2])]
    loss = dino_loss(student, teacher, torch.zeros(2, dtype=torch.float64), 1.0, 1.0)
    assert loss.item() == pytest.approx(0.5 * math.log(4) + 0.5 * math.log(4 / 3), abs=1e-12)


def test_the_centre_and_the_temperatures_worked_by_hand() -> None:
    """Teacher (2 ln 2, 0) less the centre (ln 2, 0) over 1/2 is (2 ln 2, 0): shares 4/5, 1/5."""
    student, teacher = [tensor([9, 0]), tensor([LN2, 0])], [tensor([2 * LN2, 0])]
    loss = dino_loss(student, teacher, tensor([LN2, 0])[0], 0.25, 0.5)  # the student: (16, 1) / 17
    assert loss.item() == pytest.approx(0.8 * math.log(17 / 16) + 0.2 * math.log(17), abs=1e-12)


def test_all_pairs_of_different_crops() -> None:
    """Two large crops and one small: four pairs; a crop is not compared with itself."""
    generator = torch.Generator().manual_seed(0)
    student = [torch.randn(3, 5, generator=generator) for _ in range(3)]
    teacher = [torch.randn(3, 5, generator=generator) for _ in range(2)]
    centre = torch.randn(5, generator=generator)

    def pair(t: int, s: int) -> float:
        total = 0.0
        for row in range(3):
            wanted = [math.exp((teacher[t][row, k] - centre[k]) / 0.04) for k in range(5)]
            given = [math.exp(student[s][row, k] / 0.1) for k in range(5)]
            total -= sum(w / sum(wanted) * math.log(g / sum(given)) for w, g in zip(wanted, given, strict=True)) / 3
        return total

    expected = (pair(0, 1) + pair(0, 2) + pair(1, 0) + pair(1, 2)) / 4
    assert dino_loss(student, teacher, centre).item() == pytest.approx(expected, rel=1e-4)


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = [torch.zeros(2, 3, requires_grad=True) for _ in range(2)], [torch.ones(2, 3, requires_grad=True)]
    dino_loss(student, teacher, torch.zeros(3)).backward()
    assert teacher[0].grad is None
    assert student[0].grad is None and student[1].grad is not None  # crop 0 is the teacher's own


def test_the_centre_is_a_running_mean() -> None:
    centre = update_centre(tensor([1, 1])[0], [tensor([0, 2], [2, 2]), tensor([4, 6], [6, 6])], momentum=0.75)
    assert centre.tolist() == [0.75 + 0.25 * 3, 0.75 + 0.25 * 4]


def test_the_momentum_follows_half_a_cosine() -> None:
    assert teacher_momentum(0, 100) == 0.996
    assert teacher_momentum(50, 100) == pytest.approx(0.998, abs=1e-12)
    assert teacher_momentum(100, 100) == 1
    assert teacher_momentum(25, 100, start=0.9) == pytest.approx(1 - 0.1 * (math.sqrt(0.5) + 1) / 2, abs=1e-12)


def test_the_teacher_is_the_running_mean_of_the_student() -> None:
    student = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    teacher = copy.deepcopy(student)
    first, expected = [weight.clone() for weight in teacher.parameters()], [0.0] * 4
    kept, steps = 1.0, 5
    for step in range(steps):
        with torch.no_grad():
            for weight in student.parameters():
                weight.add_(step + 1.0)
        momentum = 0.5 + 0.1 * step
        update_teacher(teacher, student, momentum)
        kept *= momentum
        expected = [
            momentum * e + (1 - momentum) * w.detach() for e, w in zip(expected, student.parameters(), strict=True)
        ]
    for weight, start, mean in zip(teacher.parameters(), first, expected, strict=True):
        torch.testing.assert_close(weight, kept * start + mean, rtol=0, atol=1e-12)
    student[1].running_mean += 7
    update_teacher(teacher, student, 1.0)
    assert torch.equal(teacher[1].running_mean, student[1].running_mean)


def spread(centring: bool, temperature: float) -> tuple[float, float]:
    """Of a toy student on 4 wide clusters of points after 150 steps: how many of 8 classes the teacher uses, over all
    clusters together and for one of them; exp of the entropy."""
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(4, 16), nn.GELU(), DINOHead(16, outputs=8, hidden=16, bottleneck=4, layers=2))
    teacher, centre = copy.deepcopy(student), torch.zeros(8)
    middles = 2 * torch.randn(4, 4)
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    for _ in range(150):
        places = middles[torch.randint(4, (32,))]
        views = [places + 2 * torch.randn(32, 4) for _ in range(2)]
        with torch.no_grad():
            wanted = [teacher(view) for view in views]
        loss = dino_loss([student(view) for view in views], wanted, centre, teacher_temperature=temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        update_teacher(teacher, student, 0.95)
        if centring:
            centre = update_centre(centre, wanted)
    with torch.no_grad():
        shares = ((teacher(middles) - centre) / temperature).softmax(dim=1)

    def used(rows: torch.Tensor) -> float:
        return torch.special.entr(rows).sum(dim=-1).exp().mean().item()

    return used(shares.mean(dim=0)), used(shares)


def test_what_keeps_it_from_collapse() -> None:
    """The paper's figure 7: without centring one class wins for all, without sharpening classes come out equal."""
    overall, each = spread(centring=True, temperature=0.04)
    assert overall > 1.5 and each < 1.2  # other clusters, other classes, and sure of each
    overall, each = spread(centring=False, temperature=0.04)
    assert overall < 1.05 and each < 1.05  # one class for all
    overall, each = spread(centring=True, temperature=0.1)
    assert each > 4  # many classes for each


def test_the_head() -> None:
    torch.manual_seed(0)
    head = DINOHead(6, outputs=9, hidden=16, bottleneck=4)
    features = torch.randn(2, 5, 6)
    narrow, outputs = head.project(features), head(features)
    assert narrow.shape == (2, 5, 4) and outputs.shape == (2, 5, 9)
    torch.testing.assert_close(narrow.norm(dim=-1), torch.ones(2, 5))
    turned = torch.nn.functional.cosine_similarity(narrow[..., None, :], head.directions, dim=-1)
    torch.testing.assert_close(outputs, turned)
    assert sum(isinstance(step, nn.Linear) for step in head.mlp) == 3
    outputs.sum().backward()
    assert all(weight.grad is not None for weight in head.parameters())


def test_crops_and_where_they_lie() -> None:
    """On an image whose red is x and whose green is y, a crop without changes of colour shows its own box."""
    rows, columns = torch.arange(60.0) + 0.5, torch.arange(90.0) + 0.5
    image = torch.stack([(columns / 90).expand(60, 90), (rows / 60)[:, None].expand(60, 90), torch.zeros(60, 90)])
    torch.manual_seed(0)
    crop = MultiCrop(32, 16, local_crops=6, global_scale=(0.5, 1), local_scale=(0.1, 0.4), grayscale=0, solarise=0)
    crop.colour = nn.Identity()
    mirrored = 0
    for _ in range(8):
        crops, boxes = crop(image)
        assert [tuple(c.shape) for c in crops] == [(3, 32, 32)] * 2 + [(3, 16, 16)] * 6 and boxes.shape == (8, 4)
        areas = (boxes[:, 2] - boxes[:, 0]).abs() * (boxes[:, 3] - boxes[:, 1]) / (60 * 90)
        assert (areas[:2] > 0.45).all() and (areas[2:] < 0.45).all() and (areas > 0.08).all()
        for piece, (left, top, right, bottom) in zip(crops, boxes.tolist(), strict=True):
            mirrored += left > right
            middle = piece[:, piece.shape[1] // 2 - 1 : piece.shape[1] // 2 + 1].mean(dim=(1,))  # (3, size)
            across = (torch.arange(piece.shape[2]) + 0.5) / piece.shape[2]
            expected = (left + (right - left) * across) / 90
            torch.testing.assert_close(middle[0][2:-2], expected[2:-2], rtol=0, atol=0.03)
            assert piece[1].mean().item() == pytest.approx((top + bottom) / 2 / 60, abs=0.02)
    assert 8 < mirrored < 56


def test_crops_differ_and_stay_images() -> None:
    torch.manual_seed(0)
    image = torch.rand(3, 48, 48)
    first, _ = MultiCrop(32, 16, local_crops=2)(image)
    second, _ = MultiCrop(32, 16, local_crops=2)(image)
    assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(0 <= piece.min() and piece.max() <= 1 and piece.dtype == torch.float32 for piece in first + second)


def test_principal_components_beside_sklearn() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(50, 7, generator=generator).double() @ torch.randn(7, 7, generator=generator).double() + 3
    scores, components, mean = principal_components(features, 4)
    theirs = PCA(4, svd_solver="full").fit(features.numpy())
    signs = torch.from_numpy(theirs.components_).mul(components).sum(dim=1)  # the sign is free
    torch.testing.assert_close(signs.abs(), torch.ones(4).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(components, torch.from_numpy(theirs.components_) * signs[:, None], rtol=0, atol=1e-9)
    torch.testing.assert_close(scores, torch.from_numpy(theirs.transform(features.numpy())) * signs, rtol=0, atol=1e-8)
    torch.testing.assert_close(mean, torch.from_numpy(theirs.mean_), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_foreground_is_what_the_border_is_not(sign: int) -> None:
    """The same block whichever way its features point, and one that touches the border at one side."""
    torch.manual_seed(0)
    for rows in (slice(3, 7), slice(0, 5)):
        block = torch.zeros(10, 12, dtype=torch.bool)
        block[rows, 4:9] = True
        features = 0.1 * torch.randn(10, 12, 5) + sign * 4 * block[..., None] * torch.tensor([1.0, -2, 0, 1, 0])
        assert torch.equal(foreground(features), block)


def by_side(block: torch.Tensor) -> torch.Tensor:
    """Features (h, w, 3) whose second number alone tells a block from the rest; the others vary a little."""
    noise = 0.1 * torch.randn(*block.shape, 3, generator=torch.Generator().manual_seed(0))
    return noise + 4 * block[..., None] * torch.tensor([0.0, 1.0, 0.0])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("rows", "columns", "of_border"),
    [
        (slice(1, 9), slice(1, 11), 0),  # 80 of the 120 patches, none of them at the border
        (slice(1, 10), slice(1, 11), 10),  # the lower side as well: of two rings of patches it would have most
        (slice(0, 9), slice(0, 11), 19),  # the upper and the left side, nearly half of the border
        (slice(0, 10), slice(2, 10), 16),  # most of the upper and of the lower side, nothing left or right
        (slice(0, 6), slice(0, 7), 12),  # a corner
    ],
)
def test_the_foreground_has_less_of_the_whole_border(rows: slice, columns: slice, of_border: int, sign: int) -> None:
    block, border = torch.zeros(10, 12, dtype=torch.bool), torch.ones(10, 12, dtype=torch.bool)
    block[rows, columns], border[1:-1, 1:-1] = True, False
    assert (block & border).sum() == of_border < border.sum() / 2
    assert torch.equal(foreground(sign * by_side(block)), block)


def test_the_largest_entry_of_a_direction_is_positive() -> None:
    for seed in range(8):
        features = torch.randn(30, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        scores, components, _ = principal_components(features, 6)
        assert (components.gather(1, components.abs().argmax(dim=1, keepdim=True)) > 0).all()
        mirrored = principal_components(-features, 6)
        torch.testing.assert_close(mirrored.components, components, rtol=0, atol=1e-9)
        torch.testing.assert_close(mirrored.scores, -scores, rtol=0, atol=1e-9)


def test_attention_of_cls() -> None:
    torch.manual_seed(0)
    vit = ViT(4, 16, 2, 2, image_size=16, registers=3).eval()
    images = torch.rand(2, 3, 24, 16)
    maps, full = self_attention_maps(vit, images), vit.attention(images)
    assert maps.shape == (2, 2, 6, 4)
    assert torch.equal(maps[1, 0, 2, 3], full[1, 0, 0, 1 + 3 + 2 * 4 + 3])
    torch.testing.assert_close(maps.sum(dim=(2, 3)), 1 - full[:, :, 0, :4].sum(dim=-1))
    assert not torch.allclose(maps, self_attention_maps(vit, images, block=0))


def test_the_fewest_patches_with_a_share_of_attention() -> None:
    maps = torch.tensor([[[0.1, 0.4], [0.2, 0.3]]])
    assert attention_masks(maps, 0.6).tolist() == [[[False, True], [False, True]]]
    assert attention_masks(maps, 0.75).tolist() == [[[False, True], [True, True]]]
    assert attention_masks(maps, 0.0).sum() == 0 and attention_masks(2 * maps, 1.0).all()
    heads = torch.stack([maps[0], 100 * maps[0].flip(0)])  # each head by its own total
    assert torch.equal(attention_masks(heads, 0.6)[0], attention_masks(maps, 0.6)[0])
    assert torch.equal(attention_masks(heads, 0.6)[1], attention_masks(maps, 0.6)[0].flip(0))


PAIR = [torch.zeros(2, 3), torch.zeros(2, 3)]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: dino_loss(PAIR[:1], PAIR[:1], torch.zeros(3)), ValueError, "student and teacher have 1 and 1 crops"),
        (lambda: dino_loss(PAIR, [], torch.zeros(3)), ValueError, "have 2 and 0 crops, expected at least 2 and 1"),
        (lambda: dino_loss(PAIR[:1], PAIR, torch.zeros(3)), ValueError, "the teacher's crops among"),
        (lambda: dino_loss(PAIR, PAIR, torch.zeros(4)), ValueError, r"centre \(4,\), expected one \(B, K\) and \(K,\)"),
        (lambda: dino_loss(PAIR, [torch.zeros(3, 3)], torch.zeros(3)), ValueError, r"\(2, 3\), \(3, 3\)"),
        (lambda: dino_loss(PAIR, PAIR, torch.zeros(3), 0.1, 0.0), ValueError, "teacher_temperature is 0.0, expected"),
        (
            lambda: update_centre(torch.zeros(3), PAIR, 1.5),
            ValueError,
            "momentum is 1.5, expected a number of at least 0 and at most 1",
        ),
        (lambda: teacher_momentum(11, 10), ValueError, "step is 11, expected an integer from 0 to 10"),
        (lambda: teacher_momentum(0, 10, -1), ValueError, "start is -1"),
        (lambda: update_teacher(nn.Linear(2, 2), nn.Linear(2, 3), 0.9), ValueError, "different weights, expected"),
        (lambda: update_teacher(nn.Linear(2, 2), nn.Linear(2, 2), -0.1), ValueError, "momentum is -0.1"),
        (
            lambda: principal_components(torch.zeros(4, 3), 4),
            ValueError,
            "n is 4, expected an integer from 1 to 3",
        ),
        (lambda: principal_components(torch.zeros(4), 1), ValueError, r"shape \(4,\)"),
        (lambda: foreground(torch.zeros(4, 3)), ValueError, r"shape \(4, 3\), expected \(h, w, D\)"),
        (lambda: attention_masks(torch.ones(2, 2), 60), ValueError, "keep is 60, expected"),
        (lambda: DINOHead(4, outputs=0), ValueError, "outputs is 0, expected"),
        (lambda: DINOHead(4, layers=0), ValueError, "layers is 0, expected"),
        (
            lambda: MultiCrop(global_scale=(0.5, 1.2)),
            ValueError,
            r"global_scale is \(0.5, 1.2\), expected 0 < smallest",
        ),
        (lambda: MultiCrop(local_scale=(0.0, 0.2)), ValueError, "local_scale is"),
        (lambda: MultiCrop(0), ValueError, "global_size is 0, expected"),
        (
            lambda: MultiCrop()(torch.zeros(3, 9, 9, dtype=torch.uint8)),
            TypeError,
            "dtype torch.uint8, expected a float",
        ),
        (lambda: MultiCrop()(torch.zeros(1, 9, 9)), ValueError, r"shape \(1, 9, 9\), expected \(3, H, W\)"),
    ],
)
def test_wrong_input_is_named(call, error, words) -> None:
    with pytest.raises(error, match=words):
        call()
