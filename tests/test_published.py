"""The table of official weights beside torchvision's own, without a file."""

from __future__ import annotations

import pkgutil
import re
from dataclasses import replace
from pathlib import Path

import pooch
import pytest
import torch
import torchvision
from randomise import randomise

from segedu.weights import catalogue, pretrained
from segedu.weights.catalogue import WEIGHTS

SEGMENTERS = ("fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101")
DETECTORS = [
    name for name, weights in WEIGHTS.items() if weights.normalizes and weights.url.startswith(catalogue.TORCHVISION)
]
# Names of the layers in files of 2019 and 2020, which stood without a block around them.
OLD_NAMES = (
    (r"((?:inner|layer)_blocks\.\d)\.0\.", r"\1."),
    (r"rpn\.head\.conv\.0\.0\.", "rpn.head.conv."),
    *((rf"mask_head\.{i}\.0\.", f"mask_head.mask_fcn{i + 1}.") for i in range(4)),
    *((rf"(retina|)(_head\.conv)\.{i}\.0\.", rf"\1\2.{2 * i}.") for i in range(4)),
)


def test_table_is_that_of_torchvision() -> None:
    for name, weights in WEIGHTS.items():
        if not weights.url.startswith(catalogue.TORCHVISION):
            continue
        listed = torchvision.models.get_model_weights(name)
        trained = (
            "COCO_WITH_VOC_LABELS_V1" if name in SEGMENTERS else "COCO_V1" if name in DETECTORS else "IMAGENET1K_V1"
        )
        theirs = getattr(listed, trained)
        assert weights.url == theirs.url
        assert weights.mebibytes == theirs.meta["_file_size"]
        assert weights.file_name == theirs.url.rsplit("/", 1)[1]
        assert f"-{weights.sha256}.pth" in weights.file_name and len(weights.sha256) == 8
        assert weights.licence == "BSD-3-Clause" and weights.trained_on


@pytest.mark.parametrize("name", DETECTORS)
def test_keys_of_detectors_are_those_of_the_file(name: str) -> None:
    """Of both spellings, in sizes alone: a file has 120 to 180 MB."""
    with torch.device("meta"):
        theirs = getattr(torchvision.models.detection, name)(weights=None, weights_backbone=None).state_dict()
        ours = pkgutil.resolve_name(WEIGHTS[name].builder)()
    if "resnet50" in name and not name.endswith(
        "v2"
    ):  # frozen normalisations, as wherever there are weights, count nothing
        theirs = {key: tensor for key, tensor in theirs.items() if not key.endswith("num_batches_tracked")}
    old = {}
    for key, tensor in theirs.items():
        for pattern, replacement in OLD_NAMES if WEIGHTS[name].rename else ():
            key = re.sub(pattern, replacement, key)
        old[key] = tensor
    assert len(old) == len(theirs) and (set(old) != set(theirs)) == bool(WEIGHTS[name].rename)
    for state in (theirs, old):
        ours.load_state_dict(pretrained._our_keys(state, WEIGHTS[name]), strict=True, assign=True)


@pytest.mark.parametrize("name", ["swin_t", "convnext_tiny"])
def test_a_file_of_a_backbone_loads_strictly(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of torchvision's own names and shapes, the classifier and the tables of places included."""
    theirs = randomise(getattr(torchvision.models, name)()).float()
    file = tmp_path / WEIGHTS[name].file_name
    torch.save(theirs.state_dict(), file)
    monkeypatch.setenv("SEGEDU_CACHE", str(tmp_path))
    monkeypatch.setitem(WEIGHTS, name, replace(WEIGHTS[name], sha256=pooch.file_hash(file)[:8]))
    ours = pretrained.load(name, progress=False)
    images = torch.rand(1, 3, 61, 70, generator=torch.Generator().manual_seed(0))
    given, x = ours(images), ours.normalize(images)
    for layer, feature in zip(theirs.features.children(), [f for g in given for f in (None, g)], strict=True):
        x = layer(x)
        if feature is not None:
            expected = x.movedim(-1, 1) if name == "swin_t" else x
            torch.testing.assert_close(feature, expected, rtol=1e-4, atol=1e-4)
