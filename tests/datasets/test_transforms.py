"""Joint transforms: image and truth move together, no new labels, exact instances."""

from __future__ import annotations

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from segedu.datasets.cells import draw_cells
from segedu.datasets.shapes import draw_shapes
from segedu.datasets.transforms import (
    FILL,
    ElasticDeformation,
    Joint,
    LabelMap,
    RandomCrop,
    RandomRot90,
    RandomScale,
    to_tv_tensors,
)

from .test_shapes import assert_truth_agrees

EACH = [
    v2.RandomHorizontalFlip(1.0),
    v2.RandomVerticalFlip(1.0),
    RandomRot90(),
    RandomCrop(24),
    RandomScale((0.6, 1.7)),
    ElasticDeformation(sigma=6.0),
]


def coordinates(height: int = 48, width: int = 48) -> dict:
    """A sample whose image spells out the semantic target: red is the label, in blocks of 8 x 8 pixels."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    blocks = rows // 8 * 6 + columns // 8
    image = torch.stack([blocks / 100, rows / height, columns / width])
    return {
        "image": image,
        "semantic": blocks,
        "label_map": (blocks + 1).int(),
        "labels": torch.arange(1, int(blocks.max()) + 2),
    }


def crossed(sample: dict) -> dict:
    """The sample without label 255, to which the truth's own rule applies."""
    return sample | {"semantic": sample["semantic"].where(sample["semantic"] != 255, 0)}


@pytest.mark.parametrize("transform", EACH, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("size", [(64, 64), (33, 47)])
def test_truth_still_agrees_and_no_label_is_new(transform, size) -> None:
    joint = Joint(transform)
    torch.manual_seed(0)
    for seed in range(4):
        for sample in (draw_shapes(seed, size), draw_cells(seed, size), draw_shapes(seed, size, count=0)):
            out = joint(sample)
            assert_truth_agrees(crossed(out), 4)
            assert set(out["semantic"].unique().tolist()) <= set(sample["semantic"].unique().tolist()) | {0, 255}
            assert len(out["labels"]) <= len(sample["labels"])
            assert (out["label_map"][out["semantic"] == 255] == 0).all()
            assert all(type(value) is torch.Tensor for value in out.values())


@pytest.mark.parametrize("transform", EACH, ids=lambda t: type(t).__name__)
def test_image_and_labels_move_together(transform) -> None:
    torch.manual_seed(1)
    out = Joint(transform)(coordinates())
    shown = (out["image"][0] * 100).round().long()
    counted = out["semantic"] != 255
    # Interpolation blends the image where blocks meet; within blocks the two must be the same.
    inner = (torch.nn.functional.max_pool2d(out["semantic"][None].float(), 5, 1, 2)
             == -torch.nn.functional.max_pool2d(-out["semantic"][None].float(), 5, 1, 2))[0]  # fmt: skip
    assert inner.sum() > 50
    assert (shown == out["semantic"])[inner & counted].all()


def test_elastic_moves_by_its_field() -> None:
    """Where an output pixel looks is where its colours come from: dy and dx are not mixed up."""
    bend = ElasticDeformation(sigma=4.0, generator=torch.Generator().manual_seed(3))
    expected = ElasticDeformation(sigma=4.0, generator=torch.Generator().manual_seed(3)).field((48, 60))
    out = Joint(bend)(coordinates(48, 60) | {"labels": torch.arange(1, 200)})
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(60), indexing="ij")
    assert torch.allclose(out["image"][1] * 48, (rows + expected[0]).clamp(0, 47), atol=1e-3)
    assert torch.allclose(out["image"][2] * 60, (columns + expected[1]).clamp(0, 59), atol=1e-3)


def test_elastic_field() -> None:
    sample = draw_cells(0)
    same = Joint(ElasticDeformation(sigma=0))(sample)
    for key, value in same.items():
        assert torch.equal(value, sample[key]), key
    fields = [ElasticDeformation(generator=torch.Generator().manual_seed(s)).field((65, 81)) for s in (5, 5, 6)]
    assert torch.equal(fields[0], fields[1]) and not torch.equal(fields[0], fields[2])
    nodes = 10 * torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(5))[0]
    assert torch.allclose(
        fields[0][:, [0, 0, 32, 64], [0, 80, 40, 80]], nodes[:, [0, 0, 1, 2], [0, 2, 1, 2]], atol=1e-4
    )
    torch.manual_seed(9)
    first = Joint(ElasticDeformation())(sample)["image"]
    torch.manual_seed(9)
    assert torch.equal(first, Joint(ElasticDeformation())(sample)["image"])
    spread = torch.stack([ElasticDeformation().field((33, 33))[:, 0, 0] for _ in range(800)]).std()
    assert 9 < spread < 11


@pytest.mark.parametrize("transform", [v2.RandomHorizontalFlip(1.0), v2.CenterCrop((30, 34))])
def test_objects_keep_their_mark_as_crowds(transform: v2.Transform) -> None:
    sample = draw_shapes(3, (64, 64), count=6)
    sample["labels"] = torch.arange(6)  # so that each object is known again
    out = Joint(transform)(sample | {"iscrowd": sample["labels"] % 2 == 1})
    assert len(out["labels"]) > 1 and out["iscrowd"].tolist() == (out["labels"] % 2 == 1).tolist()
    assert "iscrowd" not in Joint(transform)(sample)


def test_crop_counts_instances() -> None:
    sample = draw_cells(2)
    torch.manual_seed(4)
    out = Joint(RandomCrop((40, 50)))(sample)
    assert out["image"].shape == (3, 40, 50)
    windows = sample["image"].unfold(1, 40, 1).unfold(2, 50, 1)[0]  # (rows, columns, 40, 50)
    at = torch.nonzero((windows == out["image"][0]).all(-1).all(-1))
    assert len(at) == 1
    row, column = at[0].tolist()
    window = sample["label_map"][row : row + 40, column : column + 50]
    assert len(out["labels"]) == len(window.unique()) - int((window == 0).any())


def test_padding_is_ignored() -> None:
    out = Joint(RandomCrop(80))(draw_shapes(0))
    beyond = out["semantic"] == 255
    assert beyond.sum() == 80 * 80 - 64 * 64
    assert (out["label_map"][beyond] == 0).all() and (out["image"][:, beyond] == 0).all()
    assert FILL[LabelMap] == 0 and FILL[tv_tensors.Mask] == 255


def test_to_tv_tensors_follows_v2() -> None:
    sample = to_tv_tensors(draw_shapes(0, (40, 50)))
    types = {key: type(value).__name__ for key, value in sample.items() if key not in ("labels", "areas", "visible")}
    assert types == {
        "image": "Image",
        "semantic": "Mask",
        "label_map": "LabelMap",
        "masks": "Mask",
        "boxes": "BoundingBoxes",
    }
    flipped = v2.functional.horizontal_flip(sample["boxes"])
    assert flipped[:, 0].tolist() == (50 - sample["boxes"][:, 2]).tolist()


def test_small_images() -> None:
    one = {"image": torch.rand(3, 1, 1), "semantic": torch.ones(1, 1).long(), "label_map": torch.ones(1, 1).int(),
           "labels": torch.tensor([1])}  # fmt: skip
    out = Joint(ElasticDeformation(sigma=0), RandomRot90(), RandomScale((0.5, 0.5)), v2.RandomVerticalFlip())(one)
    assert out["boxes"].tolist() == [[0, 0, 1, 1]] and out["masks"].shape == (1, 1, 1)


def _without(key: str) -> dict:
    return {name: value for name, value in draw_shapes(0).items() if name != key}


BAD = [
    (lambda: ElasticDeformation(grid=1), ValueError, "grid is 1"),
    (lambda: ElasticDeformation(grid=2.5), TypeError, "grid is 2.5"),
    (lambda: ElasticDeformation(sigma=-1), ValueError, "sigma is -1"),
    (lambda: ElasticDeformation(sigma=float("nan")), ValueError, "sigma is nan"),
    (lambda: RandomScale((0.0, 1.0)), ValueError, "limits is"),
    (lambda: RandomScale((2.0, 1.0)), ValueError, "limits is"),
    (lambda: Joint(lambda sample: sample), TypeError, "transforms contains"),
    (lambda: Joint()([1]), TypeError, "sample has type list"),
    (lambda: Joint()(_without("semantic")), ValueError, "no 'semantic'"),
    (lambda: to_tv_tensors(_without("boxes")), ValueError, "no 'boxes'"),
    (lambda: Joint()(draw_shapes(0) | {"image": torch.rand(64, 64)}), ValueError, "image of shape"),
    (lambda: Joint()(draw_shapes(0) | {"image": torch.rand(3, 0, 64)}), ValueError, "at least one pixel"),
    (lambda: Joint()(draw_shapes(0) | {"label_map": torch.zeros(5, 5)}), ValueError, "label_map of shape"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
