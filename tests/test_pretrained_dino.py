"""Official weights of DINO and DINOv2: the rows of the table, files in Facebook's layout, files without a hash."""

from __future__ import annotations

import pkgutil
import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from backbones.test_vit import as_timm, in_official_layout
from randomise import randomise
from test_pretrained import Server, left_in, normalized, publish, server  # noqa: F401, a fixture
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of torch, about torch
    import timm

from segedu.backbones.vit import ViT
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD
from segedu.weights import WEIGHTS, WeightsError, catalogue, load, pretrained
from segedu.weights.pretrained import fetch

TIMM = {
    "dino_vits16": "vit_small_patch16_224.dino",
    "dino_vits8": "vit_small_patch8_224.dino",
    "dino_vitb16": "vit_base_patch16_224.dino",
    "dino_vitb8": "vit_base_patch8_224.dino",
    "dinov2_vits14": "vit_small_patch14_dinov2.lvd142m",
    "dinov2_vits14_reg4": "vit_small_patch14_reg4_dinov2.lvd142m",
    "dinov2_vitb14": "vit_base_patch14_dinov2.lvd142m",
    "dinov2_vitb14_reg4": "vit_base_patch14_reg4_dinov2.lvd142m",
}


def their_net(name: str) -> nn.Module:
    """timm's, without numbers in it."""
    with torch.device("meta"):
        return timm.create_model(TIMM[name], pretrained=False, num_classes=0)


def their_file(net: nn.Module) -> dict[str, Tensor]:
    """Of DINO's backbone nothing else; DINOv2's has the token that hid patches."""
    state = in_official_layout(net)
    if net.patch_embed.patch_size == (14, 14):
        state["mask_token"] = torch.zeros_like(state["cls_token"][:, 0])
    return state


def our_net(name: str) -> ViT:
    weights = WEIGHTS[name]
    with torch.device("meta"):
        return pkgutil.resolve_name(weights.builder)(**weights.options)


def test_rows_are_all_here() -> None:
    assert [name for name, weights in WEIGHTS.items() if weights.url.startswith(f"{catalogue.FACEBOOK}dino")] == list(
        TIMM
    )


@pytest.mark.parametrize("name", TIMM)
def test_table_is_that_of_timm(name: str) -> None:
    weights, theirs = WEIGHTS[name], timm.get_pretrained_cfg(TIMM[name])
    assert weights.url == theirs.url
    assert weights.licence.lower() == theirs.license
    assert (IMAGENET_MEAN, IMAGENET_STD) == (theirs.mean, theirs.std)
    ours = our_net(name)
    assert (3, ours.grid_size * ours.patch_size, ours.grid_size * ours.patch_size) == theirs.input_size
    assert re.fullmatch("[0-9a-f]{64}", weights.sha256) or (
        name in ("dino_vits16", "dino_vits8") and not weights.sha256
    )


@pytest.mark.parametrize("name", TIMM)
def test_keys_shapes_and_bytes_of_the_file(name: str) -> None:
    file, ours = their_file(their_net(name)), our_net(name).state_dict()
    kept = pretrained._our_keys(file, WEIGHTS[name])
    assert {key: value.shape for key, value in kept.items()} == {key: value.shape for key, value in ours.items()}
    size, numbers = WEIGHTS[name].mebibytes * 2**20, 4 * sum(value.numel() for value in file.values())
    assert size == int(size) and 0 < size - numbers < 400 * len(file)  # what torch writes around each tensor


def test_digests_are_of_different_files() -> None:
    digests = [weights.sha256 for name in TIMM if (weights := WEIGHTS[name]).sha256]
    assert len(set(digests)) == len(digests) == 6


@pytest.mark.parametrize("name", ["dino_vits16", "dinov2_vits14_reg4"])
def test_files_load_strictly(
    name: str,
    server: type[Server],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    theirs = randomise(their_net(name).to_empty(device="cpu")).float()
    torch.save(their_file(theirs), tmp_path / "weights.pth")
    publish(server, monkeypatch, name, tmp_path / "weights.pth")
    ours = load(name, progress=False)
    assert not ours.training
    assert set(their_file(theirs)) - set(ours.state_dict()) == ({"mask_token"} if "v2" in name else set())
    for key, value in ours.state_dict().items():
        assert torch.equal(value, their_file(theirs)[key]), key
    if name == "dino_vits16":
        batch = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            got, expected = as_timm(ours(batch)), theirs.forward_features(normalized(batch))
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def without_hash(server: type[Server], monkeypatch: pytest.MonkeyPatch, body: bytes) -> Path:  # noqa: F811
    weights = WEIGHTS["dino_vits16"]
    assert not weights.sha256
    server.files[f"/{weights.file_name}"] = body
    new = replace(weights, url=f"{server.url}/{weights.file_name}", mebibytes=1001 / 2**20)
    monkeypatch.setitem(WEIGHTS, "dino_vits16", new)
    return server.cache / weights.file_name


def test_without_a_hash_the_size_is_checked_and_a_warning_says_so(
    server: type[Server],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = without_hash(server, monkeypatch, bytes(1001))
    with pytest.warns(UserWarning, match="^no sha256 of http.* is known: only its size was checked$"):
        assert fetch("dino_vits16", progress=False) == path
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fetch("dino_vits16", progress=False) == path
    assert len(server.asked) == 1
    path.write_bytes(bytes(1000))
    with pytest.warns(UserWarning, match="it is downloaded again"), pytest.warns(UserWarning, match="only its size"):
        fetch("dino_vits16", progress=False)
    assert path.read_bytes() == bytes(1001) and len(server.asked) == 2


def test_without_a_hash_another_size_is_refused(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    without_hash(server, monkeypatch, b"<html>Please log in</html>")
    with pytest.raises(WeightsError, match=r"not the published file \(26 bytes, expected 1001, from http"):
        fetch("dino_vits16", progress=False)
    assert left_in(server.cache) == []
