"""What recipes make of a folder of microscope images: kinds, windows, balance, pieces, and exposures."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segedu.recipes import microscope_data
from segedu.recipes.data import crop_flip_gamma, crop_mirror
from segedu.recipes.microscope_data import (
    Windows,
    balanced,
    expose,
    largest_pieces,
    microscope_sets,
    microscope_window,
    read_kinds,
)
from segedu.recipes.own_images import StoredPairs
from segedu.recipes.recipe import find_recipe, load_recipe

SETS = {method: load_recipe(method, "nuclei_grouped").sets for method in ("unet", "mask_rcnn")}
KINDS = {"a": "dark", "b": "dark", "c": "light", "d": "light"}
SPLITS = {"train": ["a"], "val": ["b", "c"], "test": ["d"]}


def write(root: Path, size: tuple[int, int] = (190, 200)) -> None:
    """Two squares on every image: bright on dark, or dark on light."""
    labels = np.zeros(size, np.uint16)
    labels[10:30, 10:30], labels[60:90, 60:90] = 1, 2
    for name, kind in KINDS.items():
        grey = (40 + 160 * (labels > 0)).astype(np.uint8)
        Image.fromarray(grey if kind == "dark" else 255 - grey).save(root / "images" / f"{name}.png")
        Image.fromarray(labels).save(root / "labels" / f"{name}.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("images", "labels", "splits"):
        (tmp_path / part).mkdir()
    write(tmp_path)
    for split, names in SPLITS.items():
        (tmp_path / "splits" / f"{split}.txt").write_text("\n".join(names) + "\n")
    rows = [f"{name},{kind}\n" for name, kind in KINDS.items()]
    (tmp_path / "items.csv").write_text("name,kind\n" + "".join(rows))
    return tmp_path


@pytest.mark.parametrize("make", SETS.values(), ids=SETS)
def test_every_kind_of_image_is_a_group(folder: Path, make) -> None:
    sets = make(0, folder)
    assert {split: {kind: len(pairs) for kind, pairs in groups.items()} for split, groups in sets.held_out.items()} == {
        "val": {"dark": 1, "light": 1},
        "test": {"light": 1},
    }
    assert len(sets.train) == 1 and sets.train[0][0].shape == (3, 128, 128)
    for groups in sets.held_out.values():
        for image, target in (pair for pairs in groups.values() for pair in pairs):
            assert torch.equal(image[0] > 0.5, target > 0)  # objects are bright whatever the stain


def test_a_folder_without_kinds_is_one_group(folder: Path) -> None:
    (folder / "items.csv").write_text("name,cells\na,2\n")
    assert read_kinds(folder) == {}
    (folder / "items.csv").unlink()
    sets = SETS["unet"](0, folder)
    assert {split: list(groups) for split, groups in sets.held_out.items()} == {"val": ["all"], "test": ["all"]}


def test_a_recipe_on_images_needs_their_folder() -> None:
    with pytest.raises(ValueError, match="folder is None, expected the path of a folder"):
        SETS["unet"](0, None)


def test_an_image_smaller_than_the_window_is_resized(folder: Path) -> None:
    write(folder, (100, 140))
    assert {SETS["unet"](0, folder).train[0][0].shape for _ in range(3)} == {(3, 128, 128)}


def test_rare_kinds_are_repeated_up_to_three_times() -> None:
    def stored(count: int, value: int) -> StoredPairs:
        images = [torch.full((3, 2, 2), value, dtype=torch.uint8)] * count
        return StoredPairs(images, [torch.zeros(2, 2, dtype=torch.int32)] * count)

    both = balanced({"many": stored(10, 1), "few": stored(4, 2), "one": stored(1, 3)})
    values = [int(image[0, 0, 0]) for image in both.images]
    assert (values.count(1), values.count(2), values.count(3)) == (10, 8, 3)


def test_only_the_largest_piece_of_an_object_is_kept() -> None:
    label_map = torch.zeros(8, 8, dtype=torch.int32)
    label_map[0, :4], label_map[1, 4], label_map[4, 0] = (
        7,
        7,
        7,
    )  # a line with a diagonal neighbour, and one pixel apart
    label_map[6:, 6:] = 3
    kept = largest_pieces(label_map)
    expected = (label_map > 0).clone()
    expected[4, 0] = False
    assert torch.equal(kept > 0, expected) and len(kept.unique()) == 3 and kept[0, 0] == kept[1, 4] != kept[7, 7]
    assert int(label_map[4, 0]) == 7  # the argument is unchanged


def test_windows_keep_image_and_labels_together() -> None:
    """The image shows the labels: after any crop, factor, flip and turn, each label still has its own brightness."""
    label_map = torch.zeros(200, 240, dtype=torch.int32)
    label_map[20:90, 30:200], label_map[120:180, 10:80] = 1, 2
    image = torch.tensor([0.0, 0.5, 1.0])[label_map.long()].expand(3, -1, -1)
    shares = []
    for seed in range(12):
        torch.manual_seed(seed)
        part, labels = microscope_window(image, label_map, size=64)
        assert part.shape == (3, 64, 64) and labels.shape == (64, 64) and labels.dtype == label_map.dtype
        assert 0 <= part.min() and part.max() <= 1
        means = [float(part[:, labels == label].mean()) for label in labels.unique()]
        assert means == sorted(means)
        shares.append(float((labels > 0).float().mean()))
    assert len(set(shares)) > 6


def test_windows_are_resized_by_factors_of_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microscope_data, "expose", lambda image: image)
    stripes = (torch.arange(400) // 10 % 2).int()[:, None].repeat(1, 400)  # one per 20 pixels
    image, counts = stripes.float().expand(3, -1, -1), set()
    for seed in range(40):
        torch.manual_seed(seed)
        _, labels = microscope_window(image, stripes, size=128)
        line = labels[:, 0] if (labels[:, 0] != labels[0, 0]).any() else labels[0]
        counts.add(int((line[1:] > line[:-1]).sum()))
    assert min(counts) < 6 and max(counts) > 7  # windows that are not resized have 6 or 7


def test_exposures_change_and_stay_within_the_range() -> None:
    torch.manual_seed(0)
    image = torch.linspace(0, 1, 3 * 16 * 16).reshape(3, 16, 16)
    changed = [expose(image) for _ in range(20)]
    assert all(one.shape == image.shape and 0 <= one.min() and one.max() <= 1 for one in changed)
    assert len({round(float(one.mean()), 5) for one in changed}) == 20
    noisy = [one for one in changed if (one[0, :, 1:] < one[0, :, :-1] - 1e-6).any()]  # a ramp only falls by noise
    assert 1 <= len(noisy) < 15


def test_stored_windows_compute_their_targets_after_the_change() -> None:
    pairs = StoredPairs([torch.full((3, 4, 4), 255, dtype=torch.uint8)], [torch.ones(4, 4, dtype=torch.int32)])
    data = Windows(pairs, lambda image, target: (image / 2, target * 0), lambda label_map: {"sum": label_map.sum()})
    image, targets = data[0]
    assert float(image.max()) == 0.5 and int(targets["sum"]) == 0 and len(data) == 1


@pytest.mark.parametrize("crop", [crop_flip_gamma, crop_mirror])
def test_a_window_larger_than_the_image(crop) -> None:
    with pytest.raises(ValueError, match="image has 60 x 200 pixels, expected at least"):
        crop(torch.rand(3, 60, 200), torch.zeros(60, 200, dtype=torch.int64))


def test_the_real_folders_have_their_splits(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGEDU_DATA", str(shared_data))
    recipe, folder = find_recipe("omnipose", "phase_cells")
    sets = recipe.sets(0, folder)
    assert len(sets.train) == 33 and {s: len(groups["all"]) for s, groups in sets.held_out.items()} == {
        "val": 6, "test": 11,
    }  # fmt: skip
    assert find_recipe("stardist", "nuclei_grouped")[1] == shared_data / "nuclei_grouped"
    kinds = read_kinds(shared_data / "nuclei_grouped")
    assert len(kinds) == 564 and sorted(set(kinds.values())) == [
        "bright", "fluo_256x256", "fluo_360x360", "fluo_520x696", "fluo_other", "he",
    ]  # fmt: skip


def test_the_sets_of_a_recipe_can_be_given_a_target(folder: Path) -> None:
    plain = partial(Windows, change=lambda image, target: (image, target), targets=lambda label_map: label_map)
    sets = microscope_sets(0, folder, dataset=plain, train_target=lambda label_map: label_map * (label_map == 1))
    assert sets.train[0][1].unique().tolist() == [0, 1]
    assert sets.held_out["test"]["light"][0][1].unique().tolist() == [0, 1, 2]
