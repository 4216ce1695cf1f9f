"""The small ViT that learnt without labels: by which script, on which scenes, and what k-means makes of its features."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pooch
import pytest
import torch

from segedu.backbones.vit import ViT
from segedu.datasets.shapes import SHAPES_VERSION
from segedu.datasets.street import STREET_VERSION
from segedu.teaching.evidence.proofs import read_rows
from segedu.weights import WEIGHTS, load
from segedu.weights.catalogue import SCENES_VIT
from segedu.weights.own.scenes_vit import (
    FILE,
    NEAR,
    STEPS,
    fold,
    matching_positions,
    patch_loss,
    sinkhorn_knopp,
    train,
    whitening,
)

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "feature_clusters.py"


def benchmark():
    spec = importlib.util.spec_from_file_location("feature_clusters", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_log_is_of_these_scenes() -> None:
    """A new version of either kind of scene asks for new weights: python -m segedu.weights.own.scenes_vit."""
    log = json.loads(FILE.with_suffix(".json").read_text())
    assert (log["street_version"], log["shapes_version"], log["steps"]) == (STREET_VERSION, SHAPES_VERSION, STEPS)
    assert log["losses_of_100_steps"][-1] < log["losses_of_100_steps"][0]
    assert pooch.file_hash(FILE).startswith(WEIGHTS["scenes_vit"].sha256)
    assert FILE.stat().st_size <= 2 * 2**20


def test_its_features_beat_colours_on_a_few_new_scenes() -> None:
    """As the benchmark does on fifty of each kind, see tests/claims.toml."""
    module, vit = benchmark(), load("scenes_vit")
    looks = {"colour": module.lab, "ViT": module.patches(vit, 8, -1)}
    found = {row: [] for row in looks}
    for kind in module.DRAW:
        chosen = module.scenes(kind, module.HELD_OUT[0], 5)
        for row, look in looks.items():
            found[row].append(module.mean_rand_index(look, chosen, 0.5))
    assert sum(found["ViT"]) > sum(found["colour"])


@pytest.mark.prove
def test_the_number_in_the_table_is_that_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Every number of the measured claim, to the last digit printed."""
    module = benchmark()
    module.main(load("scenes_vit"))
    printed = capsys.readouterr().out
    figure = read_rows(Path(__file__).resolve().parents[2])["features of a small ViT: adjusted Rand index"].figure
    assert figure and figure in printed.replace("\n", " ")


def test_places_of_patches_in_another_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worked by hand, looking exactly at the place: a crop of x 0 to 40, and its mirrored right half at y 20 to 60."""
    monkeypatch.setattr("segedu.weights.own.scenes_vit.NEAR", 0.0)
    here, there = torch.tensor([[0.0, 0.0, 40.0, 40.0]]), torch.tensor([[40.0, 20.0, 20.0, 60.0]])
    places, shared = matching_positions(here, there, 4)  # patches of 10 pixels, their middles at 5, 15, 25, 35
    assert places[0, 2, 3].tolist() == [pytest.approx(-0.5), pytest.approx(-0.75)]  # (35, 25): 5 of 20, 5 of 40
    assert places[0, 3, 2].tolist() == [pytest.approx(0.5), pytest.approx(-0.25)]  # (25, 35): 15 of 20, 15 of 40
    assert shared[0].tolist() == [[False] * 4, [False] * 4, [False, False, True, True], [False, False, True, True]]


def test_the_teacher_looks_near_the_place() -> None:
    torch.manual_seed(0)
    boxes = torch.tensor([[0.0, 0.0, 40.0, 40.0]]).expand(200, -1)
    places, _ = matching_positions(boxes, boxes, 8)
    middles = (torch.arange(8) + 0.5) * 5
    moved = (places + 1) * 20 - torch.stack([middles.expand(8, 8), middles[:, None].expand(8, 8)], dim=-1)
    assert moved.mean().abs() < 0.1 and moved.std().item() == pytest.approx(NEAR, rel=0.03)


def test_classes_are_used_alike() -> None:
    scores = 0.2 * torch.randn(64, 4, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.5, 0, 0, 0])
    shares = sinkhorn_knopp(scores)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(64))
    assert shares.mean(dim=0).max() < 0.4  # after three rounds
    torch.testing.assert_close(
        sinkhorn_knopp(scores, iterations=200).mean(dim=0), torch.full((4,), 0.25), rtol=0, atol=0.005
    )
    assert (scores / 0.06).softmax(dim=1).mean(dim=0)[0] > 0.8  # without it, one class takes most


def test_the_patch_loss_asks_for_what_the_teacher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segedu.weights.own.scenes_vit.NEAR", 0.0)
    codes = torch.randint(4, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    teacher = torch.nn.functional.one_hot(codes, 4).permute(0, 3, 1, 2).float()
    boxes = torch.tensor([[0.0, 0.0, 32.0, 32.0]]).expand(2, -1)
    same, mirrored = (patch_loss(answers, teacher, boxes, boxes) for answers in (teacher, teacher.flip(-1)))
    assert same < 0.1 < 3 < mirrored
    turned = boxes[:, [2, 1, 0, 3]]
    assert patch_loss(teacher.flip(-1), teacher, turned, boxes) < 0.1


def test_the_map_of_colours_is_folded_into_the_map_of_patches() -> None:
    torch.manual_seed(0)
    pixels = torch.rand(4, 1, 16, 16) * torch.tensor([0.9, 0.8, 0.7]).view(3, 1, 1) + 0.05 * torch.rand(4, 3, 16, 16)
    white = whitening((255 * pixels).to(torch.uint8))
    colours = white((255 * pixels).to(torch.uint8).float() / 255).permute(1, 0, 2, 3).flatten(1)
    torch.testing.assert_close(torch.cov(colours), 0.09 * torch.eye(3), rtol=0, atol=1e-3)
    vit = ViT(**SCENES_VIT, normalize=white)
    before = vit(pixels)["patches"]
    with torch.no_grad():
        after = fold(vit)(pixels)["patches"]
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4)
    assert set(vit.state_dict()) == set(load("scenes_vit").state_dict())


def test_the_script_trains() -> None:
    images = torch.randint(0, 255, (8, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images = images.repeat_interleave(16, dim=2).repeat_interleave(16, dim=3)  # of patches of one colour
    vit, losses = train(images, steps=30, every=10)
    assert len(losses) == 3 and losses[-1] < losses[0]
    again, same = train(images, steps=30, every=10)
    assert same == losses and all(torch.equal(a, b) for a, b in zip(vit.parameters(), again.parameters(), strict=True))
