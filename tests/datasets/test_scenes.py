"""All drawn scenes: one data set class, truths that never disagree, seeds, odd and small sizes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from segedu.datasets import field, lidar, page, street
from segedu.datasets.bacteria import draw_bacteria
from segedu.datasets.batch import panoptic_batch
from segedu.datasets.cells import draw_cells
from segedu.datasets.cytoplasm import draw_cytoplasm
from segedu.datasets.field import draw_field
from segedu.datasets.lidar import draw_lidar
from segedu.datasets.page import draw_page
from segedu.datasets.sample import VOID
from segedu.datasets.scenes import Scenes
from segedu.datasets.shapes import draw_shapes
from segedu.datasets.street import draw_street
from segedu.datasets.transforms import Joint, RandomCrop

WITH_STUFF = [
    (draw_street, street, [(32, 32), (33, 47), (96, 160), (61, 40)]),
    (draw_page, page, [(48, 48), (49, 131), (192, 144), (101, 60)]),
    (draw_lidar, lidar, [(16, 16), (17, 95), (32, 256)]),
    (draw_field, field, [(32, 32), (33, 47), (96, 128), (61, 40)]),
]
SIZES = [(draw, module, size) for draw, module, sizes in WITH_STUFF for size in sizes]


def assert_all_truth_agrees(sample: dict, module) -> None:
    """Semantic, instances, boxes and panoptic segments say the same of every pixel."""
    image, semantic, ids, masks = (sample[key] for key in ("image", "semantic", "label_map", "masks"))
    labels, boxes, count = sample["labels"], sample["boxes"], len(sample["labels"])
    things = getattr(module, "THINGS", tuple(range(1, len(module.CLASSES))))
    assert image.dtype == torch.float32 and image.shape == (3, *ids.shape)
    assert image.isfinite().all() and image.min() >= 0 and image.max() <= 1
    assert semantic.dtype == torch.int64 and ids.dtype == torch.int32 and labels.dtype == torch.int64
    assert masks.dtype == torch.bool and masks.shape == (count, *ids.shape)
    assert boxes.dtype == torch.float32 and boxes.shape == (count, 4)
    assert set(semantic.unique().tolist()) <= {*range(len(module.CLASSES)), VOID}
    assert sorted(set(ids.unique().tolist()) | {0}) == list(range(count + 1))
    assert torch.equal(ids > 0, torch.isin(semantic, torch.tensor(things)))
    for number, (mask, label, box) in enumerate(zip(masks, labels, boxes, strict=True), start=1):
        assert torch.equal(mask, ids == number) and label in things and (semantic[mask] == label).all()
        rows, columns = torch.nonzero(mask, as_tuple=True)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert_panoptic_agrees(sample, things)


def assert_panoptic_agrees(sample: dict, things: tuple[int, ...]) -> None:
    """Ids of `segments_info` are those of the map; class and instance of each follow from the other truths."""
    segments, semantic, ids = sample["panoptic_seg"], sample["semantic"], sample["label_map"]
    assert segments.dtype == torch.int32 and segments.shape == ids.shape
    info = {entry["id"]: entry for entry in sample["segments_info"]}
    assert len(info) == len(sample["segments_info"]) and set(segments.unique().tolist()) - {0} == set(info)
    assert torch.equal(segments == 0, semantic == VOID)
    for number, entry in info.items():
        assert set(entry) == {"id", "category_id", "isthing"} and type(entry["isthing"]) is bool
        here = segments == number
        assert (semantic[here] == entry["category_id"]).all()
        assert entry["isthing"] == (entry["category_id"] in things)
        assert torch.equal(here, ids == number if entry["isthing"] else (semantic == entry["category_id"]))


@pytest.mark.parametrize(("draw", "module", "size"), SIZES)
def test_truth_agrees(draw: Callable, module, size: tuple[int, int]) -> None:
    for seed in range(5):
        sample = draw((size[0], seed), size)
        assert tuple(sample["image"].shape[1:]) == size
        assert_all_truth_agrees(sample, module)


@pytest.mark.parametrize(("draw", "module"), [row[:2] for row in WITH_STUFF])
def test_every_class_occurs(draw: Callable, module) -> None:
    seen = torch.cat([draw((7, i))["semantic"].unique() for i in range(25)]).unique().tolist()
    assert set(range(len(module.CLASSES))) <= set(seen)


WITHOUT_STUFF = [draw_shapes, draw_cells, draw_cytoplasm, draw_bacteria]


@pytest.mark.parametrize("draw", [*WITHOUT_STUFF, draw_street, draw_page, draw_lidar, draw_field])
def test_scene_depends_on_seed_and_index_only(draw: Callable) -> None:
    size = (48, 56)
    forward = [Scenes(draw, 3, seed=3, size=size)[i] for i in range(3)]
    np.random.seed(1)
    torch.manual_seed(1)
    longer = Scenes(draw, 30, seed=3, size=size)
    for i in reversed(range(3)):
        again = longer[i]
        assert set(again) == set(forward[i])
        for key, value in forward[i].items():
            assert torch.equal(value, again[key]) if torch.is_tensor(value) else value == again[key], key
    assert not torch.equal(forward[0]["image"], forward[1]["image"])
    assert not torch.equal(forward[0]["image"], Scenes(draw, 3, seed=4, size=size)[0]["image"])
    assert torch.equal(forward[-1]["image"], longer[2 - 30]["image"])


@pytest.mark.parametrize("draw", [draw_street, draw_page, draw_field])
def test_panoptic_truth_survives_a_crop(draw: Callable) -> None:
    torch.manual_seed(0)
    data = Scenes(draw, 4, size=(64, 72), transforms=Joint(RandomCrop((40, 80))))
    module = next(row[1] for row in WITH_STUFF if row[0] is draw)
    for i in range(4):
        sample = data[i]
        assert sample["panoptic_seg"].shape == (40, 80) and (sample["panoptic_seg"] == 0).any()  # padded
        assert_all_truth_agrees(sample, module)


def test_scenes_hand_on_their_arguments() -> None:
    assert Scenes(draw_cells, 2, size=(32, 40), count=0)[1]["masks"].shape == (0, 32, 40)
    assert Scenes(draw_street, 1)[0]["image"].shape == (3, 96, 160)  # the size that the scene draws by itself
    assert len(Scenes(draw_shapes, 5)) == 5
    assert Scenes(draw_shapes, 1, transforms=lambda sample: len(sample["boxes"]), count=2)[0] <= 2


def test_panoptic_batch() -> None:
    data = Scenes(draw_street, 4, size=(32, 40))
    images, targets = next(iter(DataLoader(data, batch_size=3, collate_fn=panoptic_batch)))
    assert images.shape == (3, 3, 32, 40) and len(targets) == 3
    assert torch.equal(targets[1]["panoptic_seg"], data[1]["panoptic_seg"])
    assert targets[2]["segments_info"] == data[2]["segments_info"]
    for samples, message in (
        ([], "samples is empty"),
        ([draw_shapes(0)], "no 'panoptic_seg'"),
        ([data[0], draw_street(0, (32, 32))], "expected one shape"),
    ):
        with pytest.raises(ValueError, match=message):
            panoptic_batch(samples)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"draw": 3}, TypeError, "draw is 3"),
        ({"length": -1}, ValueError, "count is -1"),
        ({"length": 2.0}, TypeError, "count is 2.0"),
        ({"length": True}, TypeError, "count is True"),
        ({"size": 64}, TypeError, "size is 64"),
        ({"size": (0, 64)}, ValueError, "at least 1"),
    ],
)
def test_bad_scenes(arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Scenes(**({"draw": draw_shapes, "length": 2} | arguments))


def test_bad_index_and_size() -> None:
    with pytest.raises(IndexError, match="index is 3"):
        Scenes(draw_shapes, 3)[3]
    with pytest.raises(ValueError, match="at least 32"):
        Scenes(draw_street, 3, size=(20, 40))[0]


BAD = [
    ({"seed": 1.5}, TypeError, "seed is 1.5"),
    ({"seed": True}, TypeError, "seed is True"),
    ({"seed": -1}, ValueError, "seed is -1"),
    ({"seed": ()}, ValueError, "seed is"),
    ({"size": 64}, TypeError, "size is 64"),
    ({"size": (64,)}, TypeError, "size is"),
    ({"size": (64.0, 64)}, TypeError, "size is"),
    ({"size": (15, 64)}, ValueError, "at least"),
    ({"size": (64, 0)}, ValueError, "at least"),
    ({"noise": -0.1}, ValueError, "noise is -0.1"),
    ({"noise": 4}, ValueError, "noise is 4"),
    ({"noise": float("nan")}, ValueError, "noise is nan"),
    ({"noise": "loud"}, TypeError, "noise is 'loud'"),
]


@pytest.mark.parametrize("draw", [row[0] for row in WITH_STUFF])
@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_input(draw: Callable, arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        draw(**({"seed": 0} | arguments))
