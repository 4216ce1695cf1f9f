"""The small SAM for photographs: from which images and by which script, and how good one click is."""

from __future__ import annotations

import json

import numpy as np
import pooch
import pytest
import torch

from segedu.datasets.data_folder import data_folder
from segedu.promptable.sam.interactive import mask_iou
from segedu.weights import WEIGHTS, load
from segedu.weights.own import photo_sam, photo_sam_data
from segedu.weights.own import photo_sam_measures as measures
from segedu.weights.own.photo_sam import CYCLES, FILE, SIZE, THRESHOLD, Cycle
from segedu.weights.own.photo_sam_data import (
    LICENCES,
    Labelled,
    collage,
    draw_objects,
    pad,
    random_shape,
    resize,
    window,
)

LOG = json.loads(FILE.with_suffix(".json").read_text())


def scenes(count: int = 4) -> list[Labelled]:
    return [draw_objects("shapes", (21_000_000, i)) for i in range(count)]


def test_the_log_is_of_this_script() -> None:
    assert [Cycle(**cycle) for cycle in LOG["cycles"]] == list(CYCLES)
    losses = LOG["losses_of_100_steps"]
    assert len(losses) == sum(-(-cycle.steps // 100) for cycle in CYCLES) and losses[-1] < 0.6 * losses[0]
    assert LOG["mask_threshold"] == load("photo_sam").mask_threshold == THRESHOLD
    assert pooch.file_hash(FILE) == WEIGHTS["photo_sam"].sha256
    size = FILE.stat().st_size
    assert size == pytest.approx(WEIGHTS["photo_sam"].mebibytes * 2**20, rel=0.02) and size < 2 * 2**20


def test_the_licence_is_that_of_the_images() -> None:
    """Photographs under CC BY-SA: the weights are under the same licence, and no image without a licence was used."""
    assert WEIGHTS["photo_sam"].licence == "CC-BY-SA-4.0" and LOG["licence_of_the_weights"] == "CC BY-SA 4.0"
    assert LOG["data"].keys() == LICENCES.keys() and set(LICENCES) - {"synthetic"} == set(photo_sam_data.READERS)
    assert not {"camvid", "pennfudan"} & LICENCES.keys()


def test_one_click_on_photographs() -> None:
    """The figures of the log are those of the file, and far better than those of the SAM for synthetic scenes."""
    model = load("photo_sam")
    assert model.image_size == SIZE and all(one.dtype == torch.float32 for one in model.parameters())
    measured = measures.photographs_means(model)
    for what, row in measured.items():
        assert row == pytest.approx(LOG["mean_iou"][what], abs=0.01), what
    for row in measured.values():
        assert row["best"] >= row["chosen"]
    whole, zoomed = measured["whole photographs, largest object"], measured["zoomed, all objects"]
    assert whole["chosen"] > 0.44 and zoomed["chosen"] > 0.45  # shapes_sam: 0.29 and 0.26


@pytest.mark.prove
def test_one_click_on_pets() -> None:
    try:
        data_folder("pets")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    measured = measures.pets(load("photo_sam"))
    assert measured == pytest.approx(LOG["mean_iou"]["pets, test"], abs=0.005) and measured["chosen"] > 0.75


def test_pixels_without_a_label_do_not_count() -> None:
    model, scene = load("photo_sam"), scenes(1)[0]
    image = torch.from_numpy(scene.image).permute(2, 0, 1) / 255
    mask = torch.from_numpy(scene.label_map == 1)[None]
    all_valid = measures.prompt_ious(model, image, mask, torch.ones(mask.shape[1:], dtype=torch.bool))
    only_mask = measures.prompt_ious(model, image, mask, mask[0])
    assert set(all_valid) == set(measures.KEYS) and all(only_mask[key] >= all_valid[key] for key in measures.KEYS)
    assert only_mask["chosen"] > all_valid["chosen"] or all_valid["chosen"] == 1


def test_a_view_is_a_part_of_the_image_around_an_object() -> None:
    rng = np.random.default_rng(0)
    (scene,) = scenes(1)
    for _ in range(50):
        part = window(scene, rng)
        h, w = part.label_map.shape
        assert part.image.shape == (h, w, 3) and min(h, w) >= 16 and part.label_map.any()
        square = pad(resize(part, SIZE), SIZE)
        assert square.image.shape == (SIZE, SIZE, 3) and square.label_map.shape == (SIZE, SIZE)
        assert set(np.unique(square.label_map)) <= {0, *np.unique(part.label_map)}
        if min(h, w) < 0.9 * max(h, w):
            assert (square.image[-1, -1] == photo_sam_data.MEAN_COLOUR).all() and square.label_map[-1, -1] == 0


def test_a_collage_has_new_objects_and_no_hidden_ones() -> None:
    rng = np.random.default_rng(1)
    base = pad(resize(scenes(1)[0], 96), 96)
    before = np.bincount(base.label_map.ravel())
    added = 0
    for _ in range(20):
        made = collage(base, scenes(), rng)
        after = np.bincount(made.label_map.ravel(), minlength=len(before))
        added += len(after) > len(before)
        old = after[1 : len(before)]
        assert ((old == 0) | (old >= 0.7 * before[1:])).all()
        same = (made.label_map == base.label_map) & (made.label_map > 0)
        assert abs(made.image[same].astype(int) - base.image[same]).sum() <= 3 * 15 * same.sum()
    assert added >= 15
    areas = [random_shape(96, rng).mean() for _ in range(100)]
    assert 0.02 < np.mean(areas) < 0.4


def test_the_script_trains_and_again_to_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_sam, "read_objects", lambda data, split: scenes())
    monkeypatch.setattr(photo_sam, "SCENES", 3)
    views, trained = photo_sam.Views(), []
    for _ in range(2):
        torch.manual_seed(0)
        model = photo_sam.photo_sam()
        photo_sam.start(model)
        losses = photo_sam.train(model, views, Cycle(4, 1e-3, 64, 0.2), seed=0, every=2)
        assert len(losses) == 2 and not model.training and model.image_size == SIZE
        trained.append(model.state_dict())
    assert trained[0].keys() == load("photo_sam").state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in trained), strict=True))


def test_the_start_keeps_what_the_other_networks_have_learned() -> None:
    """The first convolution takes normalised images, and computes what that of `pets_encoder_unet` computes."""
    model, pets = photo_sam.photo_sam(), load("pets_encoder_unet").network
    photo_sam.start(model)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = pets.backbone(image)[0]
        features = model.image_encoder.eval().backbone(model.normalize(image))[0]
    inside = (..., slice(2, -2), slice(2, -2))  # the padding of the two networks differs
    torch.testing.assert_close(features[inside], expected[inside], rtol=0, atol=1e-4)
    decoder = load("shapes_sam").mask_decoder.state_dict()
    assert all(torch.equal(value, decoder[name]) for name, value in model.mask_decoder.state_dict().items())


def test_masks_are_compared_at_the_size_of_the_image() -> None:
    name, image, masks, valid = next(measures.photographs())
    assert name == "astronaut" and image.shape[1:] == masks.shape[1:] == valid.shape
    assert mask_iou(masks[0] & valid, masks[0]) > 0.99
