"""The small VGG of the street recipes: what it was trained for, by which script, on which scenes."""

from __future__ import annotations

import json

import pooch
import pytest
import torch
import torch.nn.functional as F

from segedu.datasets.street import STREET_VERSION, draw_street
from segedu.weights import WEIGHTS, WeightsError, load, pretrained
from segedu.weights.catalogue import STREET_VGG_STAGES
from segedu.weights.own.street_vgg import CLASSES, FILE, STEPS, train, windows


def test_the_log_is_of_this_street() -> None:
    """A new version of the street asks for new weights: python -m segedu.weights.own.street_vgg."""
    log = json.loads(FILE.with_suffix(".json").read_text())
    assert log["street_version"] == STREET_VERSION and log["steps"] == STEPS
    losses = log["losses_of_1000_steps"]
    assert len(losses) == STEPS // 1000 and losses[-1] < 0.5 * losses[0]
    assert pooch.file_hash(FILE).startswith(WEIGHTS["street_vgg"].sha256)


def test_windows_by_loops() -> None:
    target = torch.randint(0, len(CLASSES), (2, 32, 64), generator=torch.Generator().manual_seed(0))
    target[0, :4] = 255
    for i, occurs in enumerate(windows(target)):
        side = 2 ** (i + 1)
        assert occurs.shape == (2, len(CLASSES), 32 // side, 64 // side)
        for row, column in ((0, 0), (32 // side - 1, 64 // side - 1)):
            window = target[0, row * side : (row + 1) * side, column * side : (column + 1) * side]
            found = set(occurs[0, :, row, column].nonzero().flatten().tolist())
            assert found == set(window.unique().tolist()) - {255}


def test_features_tell_what_a_window_of_a_new_street_shows() -> None:
    """A linear classifier on the features of stride 8, on scenes that neither the encoder nor a recipe has seen."""
    scenes = [draw_street((2_000_000, i)) for i in range(6)]
    images = torch.stack([scene["image"] for scene in scenes]).float()
    truth = windows(torch.stack([scene["semantic"] for scene in scenes]).long())[2]

    def error(encoder: torch.nn.Module) -> float:
        torch.manual_seed(0)
        with torch.no_grad():
            features = encoder.eval()(images)[2]
        classify = torch.nn.Conv2d(features.shape[1], len(CLASSES), kernel_size=1)
        optimizer = torch.optim.Adam(classify.parameters(), lr=0.05)
        for _ in range(60):
            loss = F.binary_cross_entropy_with_logits(classify(features[:4]), truth[:4])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return F.binary_cross_entropy_with_logits(classify(features[4:]), truth[4:]).item()

    ours = load("street_vgg")
    assert not ours.training
    assert error(ours) < 0.7 * error(type(ours)(STREET_VGG_STAGES, batch_norm=True))


def test_the_script_trains() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 3, (4, 1, 1), generator=generator).expand(4, 96, 160).contiguous()
    images = (60 * targets[:, None]).expand(4, 3, 96, 160).to(torch.uint8)
    encoder, losses = train(images, targets.to(torch.uint8), steps=12, every=4)
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert set(encoder.state_dict()) == set(load("street_vgg").state_dict())


def test_a_damaged_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(pretrained, "OUR_OWN", tmp_path)
    with pytest.raises(WeightsError, match="is missing or damaged, expected the file that is part of segedu"):
        load("street_vgg")
    (tmp_path / FILE.name).write_bytes(FILE.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="install segedu again"):
        load("street_vgg")
