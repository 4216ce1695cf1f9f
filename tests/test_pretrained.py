"""Official weights: the table, the way from a server to a model, and everything that can go wrong on it."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pooch
import pytest
import safetensors.torch
import torch
import torchvision
from file_server import Server, file_server
from randomise import randomise
from torch import Tensor, nn

from segedu.datasets import download
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD
from segedu.weights import WEIGHTS, WeightsError, catalogue, load, pretrained
from segedu.weights.pretrained import fetch

SEGMENTERS = ("fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Server]]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("SEGEDU_CACHE", str(tmp_path / "cache"))
    with file_server() as handler:
        handler.cache = tmp_path / "cache"
        yield handler


def publish(server: type[Server], monkeypatch: pytest.MonkeyPatch, name: str, file: Path) -> Path:
    """Put a file on the server in place of the official one; the path that it will have in the cache."""
    weights = WEIGHTS[name]
    target = f"/{Path(weights.file_name).stem}{file.suffix}"
    server.files[target] = file.read_bytes()
    size = file.stat().st_size / 2**20
    new = replace(weights, url=server.url + target, sha256=pooch.file_hash(file)[:8], mebibytes=size)
    monkeypatch.setitem(WEIGHTS, name, new)
    return server.cache / target[1:]


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def their_net(name: str) -> nn.Module:
    """torchvision's, every tensor random, in float32 as files are; without the layers that ours leaves out."""
    models = torchvision.models.segmentation if name in SEGMENTERS else torchvision.models
    options = dict(weights_backbone=None, aux_loss=True, num_classes=21) if name in SEGMENTERS else {}
    with torch.device("meta"):  # the random start would be thrown away
        net = getattr(models, name)(weights=None, **options)
    for head in WEIGHTS[name].ignored_keys:
        setattr(net, head.removesuffix("."), nn.Linear(2, 2))
    randomise(net.to_empty(device="cpu")).float()
    for key, tensor in net.state_dict().items():
        if key.endswith("num_batches_tracked"):  # whole numbers, which `randomise` leaves alone
            tensor.zero_()
    return net


def images() -> Tensor:
    return torch.rand(1, 3, 34, 45, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def normalized(batch: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (batch - mean) / std


@pytest.mark.parametrize("name", SEGMENTERS)
def test_segmenters_load_strictly(name: str, server: type[Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    theirs = their_net(name)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    publish(server, monkeypatch, name, tmp_path / "weights.pth")
    ours = load(name, progress=False)
    assert not ours.training
    assert set(ours.state_dict()) == set(theirs.state_dict())  # the auxiliary classifier included
    ours, theirs = ours.double(), theirs.double()
    with torch.no_grad():
        got, expected = ours.forward_with_aux(images()), theirs(normalized(images()))
        assert torch.equal(ours(images()), got["out"])
    for key in ("out", "aux"):
        assert got[key].shape == (1, 21, 34, 45) and expected[key].std() > 0.01
        torch.testing.assert_close(got[key], expected[key], rtol=1e-9, atol=1e-9)


def test_a_detector_takes_images_as_they_are(
    server: type[Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The smallest file, whole: its builder is given no normalisation besides its own."""
    with torch.device("meta"):
        theirs = torchvision.models.detection.fcos_resnet50_fpn(weights=None, weights_backbone=None)
    state = {k: v for k, v in randomise(theirs.to_empty(device="cpu")).float().state_dict().items() if "num_b" not in k}
    torch.save(state, tmp_path / "weights.pth")
    publish(server, monkeypatch, "fcos_resnet50_fpn", tmp_path / "weights.pth")
    ours = load("fcos_resnet50_fpn", progress=False)
    assert [type(part).__name__ for part in ours.modules()].count("Normalize") == 1 and not ours.training
    assert torch.equal(ours.state_dict()["backbone.body.conv1.weight"], state["backbone.body.conv1.weight"])


def old_file(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As files made before 2018 are: no counters, and the layers of dense blocks with a dot."""
    kept = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    for key in list(kept):
        if "denselayer" in key:
            old = key
            for word in ("norm1", "norm2", "conv1", "conv2"):
                old = old.replace(f".{word}.", f".{word[:4]}.{word[4]}.")
            kept[old] = kept.pop(key)
    return kept


@pytest.mark.parametrize("name", ["vgg16_bn", "resnet18", "densenet121"])
def test_old_files_of_classifiers(name: str, server: type[Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    theirs = their_net(name)
    file = tmp_path / "weights.pth"
    torch.save(old_file(theirs.state_dict()), file, _use_new_zipfile_serialization=False)
    publish(server, monkeypatch, name, file)
    ours = load(name, progress=False)
    for key, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[key]), key
    if name == "resnet18":
        dilated = load(name, progress=False, output_stride=8)
        assert dilated(images().float())[-1].shape == (1, 512, 5, 6)
        assert server.asked == ["/resnet18-f37072fd.pth"]  # the second time from the cache


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of `resnet18` in a file; nobody changes it."""
    file = tmp_path_factory.mktemp("resnet18") / "weights.pth"
    torch.save(their_net("resnet18").state_dict(), file)
    return file


@pytest.fixture
def small(server: type[Server], monkeypatch: pytest.MonkeyPatch, small_file: Path) -> type[Server]:
    """`resnet18` on the server, its path in the cache as `path`."""
    server.path = publish(server, monkeypatch, "resnet18", small_file)
    return server


def refused(words: str, call=fetch, **options: object) -> None:
    """One error, no chain of others behind it, that says what failed and what to do."""
    with pytest.raises(WeightsError, match=words) as caught:
        call("resnet18", progress=False, **options)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    if call is fetch:
        for what in ("no file was kept", "try again", WEIGHTS["resnet18"].url, "SEGEDU_CACHE"):
            assert what in str(caught.value)


def test_fetched_once(small: type[Server], capfd: pytest.CaptureFixture) -> None:
    assert fetch("resnet18") == fetch("resnet18") == small.path
    assert len(small.asked) == 1 and left_in(small.cache) == [small.path.name]
    assert "resnet18-f37072fd.pth" in capfd.readouterr().err  # the bar


def test_licence_that_must_be_accepted(small: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    asks = replace(WEIGHTS["resnet18"], licence="CC BY-NC 4.0", non_commercial=True)
    monkeypatch.setitem(WEIGHTS, "resnet18", asks)
    words = r"licence is CC BY-NC 4.0, .* read it, .* load\('resnet18', accept_license=True\)$"
    for call in (load, fetch):
        with pytest.raises(WeightsError, match=words):
            call("resnet18", progress=False)
    assert not small.asked and left_in(small.cache) == []  # nothing was fetched
    load("resnet18", progress=False, accept_license=True)
    with pytest.raises(WeightsError, match=words):  # also of a file that lies in the cache
        fetch("resnet18")


def test_wrong_file_in_the_cache_is_fetched_again(small: type[Server]) -> None:
    small.cache.mkdir()
    small.path.write_bytes(b"half a file")
    with pytest.warns(UserWarning, match="not the published file"):
        load("resnet18", progress=False)
    assert small.path.read_bytes() == small.files["/" + small.path.name]


def test_wrong_file_that_another_process_removes_first(small: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    small.cache.mkdir()
    small.path.write_bytes(b"half a file")
    really = pretrained._is_published

    def check_and_remove(path: Path, weights: catalogue.Weights) -> bool:
        good = really(path, weights)
        if not good:
            path.unlink()
        return good

    monkeypatch.setattr(pretrained, "_is_published", check_and_remove)
    with pytest.warns(UserWarning, match="not the published file"):
        assert fetch("resnet18", progress=False) == small.path


def test_wrong_file_in_the_cache_and_offline(small: type[Server]) -> None:
    small.cache.mkdir()
    small.path.write_bytes(b"half a file")
    small.files.clear()
    with pytest.warns(UserWarning, match="not the published file"):
        refused("HTTP 404")
    assert left_in(small.cache) == []


def test_wrong_hash(small: type[Server]) -> None:
    small.files["/" + small.path.name] = b"<html>Please log in</html>"
    refused("the downloaded file is not the published file")
    assert left_in(small.cache) == []


def test_half_a_file(small: type[Server]) -> None:
    small.cut = True
    refused("could not be fetched|not the published file")
    assert left_in(small.cache) == []
    small.cut = False
    assert fetch("resnet18", progress=False) == small.path


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/resnet18.pth", "http://no-such-host.invalid/resnet18.pth"])
def test_offline(small: type[Server], monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setitem(WEIGHTS, "resnet18", replace(WEIGHTS["resnet18"], url=url))
    refused(r"could not be fetched from .* \(ConnectionError\)")
    assert left_in(small.cache) == []


def test_disk_that_is_too_small(small: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WEIGHTS, "resnet18", replace(WEIGHTS["resnet18"], mebibytes=2.0**50))
    refused("MiB are free there")
    assert left_in(small.cache) == [] and not small.asked


def test_disk_that_fills_up(small: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    def write(url: str, path: Path, size: int, progress: bool) -> None:
        path.write_bytes(b"some of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pretrained, "download", write)
    refused(r"could not be stored in .* \(No space left on device")
    assert left_in(small.cache) == []


def test_write_that_the_system_refuses(small: type[Server]) -> None:
    """A limit on the size of files, in a process of its own: a real error in the middle of a real download."""
    code = f"""
import dataclasses, resource, signal
from segedu.weights import pretrained
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
pretrained.WEIGHTS["resnet18"] = dataclasses.replace(pretrained.WEIGHTS["resnet18"], url={WEIGHTS["resnet18"].url!r})
pretrained.fetch("resnet18", progress=False)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("segedu.weights.pretrained.WeightsError: weights 'resnet18': could not be stored in")
    assert "File too large" in last and "another exception" not in done.stderr
    assert left_in(small.cache) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2**20


def test_folder_that_cannot_be_made(small: type[Server]) -> None:
    small.cache.write_text("a file")
    refused("could not be stored in")
    assert small.cache.read_text() == "a file"


def test_interrupt_leaves_nothing(small: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(url: str, path: Path, size: int, progress: bool) -> None:
        path.write_bytes(b"some of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pretrained, "download", interrupt)
        fetch("resnet18", progress=False)
    assert left_in(small.cache) == []


def test_what_a_killed_download_left_goes_after_a_day(small: type[Server]) -> None:
    old, young = small.cache / ".part-old", small.cache / ".part-young"
    for part in (old, young):
        part.mkdir(parents=True)
        (part / "weights.pth").write_bytes(b"half")
    os.utime(old, (time.time() - 2 * download.DAY,) * 2)
    fetch("resnet18", progress=False)
    assert sorted(left_in(small.cache)) == [".part-young", small.path.name]


def test_a_file_in_a_read_only_cache_is_used(small: type[Server]) -> None:
    fetch("resnet18", progress=False)
    small.cache.chmod(0o555)
    try:
        assert fetch("resnet18", progress=False) == small.path
    finally:
        small.cache.chmod(0o755)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_keys_that_do_not_fit(
    change: str, server: type[Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = torchvision.models.resnet18().state_dict()
    if change == "missing":
        del state["layer1.0.bn1.running_mean"]
    elif change == "extra":
        state["layer1.0.bn1.momentum"] = torch.ones(1)
    else:
        state["layer1.0.bn1.running_mean"] = torch.ones(3)
    torch.save(state, tmp_path / "weights.pth")
    publish(server, monkeypatch, "resnet18", tmp_path / "weights.pth")
    refused(r"does not fit(.|\n)*layer1\.0\.bn1\.", load)


def test_options_that_change_a_shape(small: type[Server]) -> None:
    refused(r"does not fit .* with \{'in_channels': 1,(.|\n)*conv1\.weight", load, in_channels=1, normalize=None)


class Evil:
    def __reduce__(self) -> tuple:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("pickled", [lambda o, f: torch.save(o, f), lambda o, f: f.write_bytes(pickle.dumps(o))])
def test_code_in_a_file_does_not_run(
    pickled, server: type[Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    pickled({"conv1.weight": Evil()}, tmp_path / "weights.pth")
    publish(server, monkeypatch, "resnet18", tmp_path / "weights.pth")
    refused("contains objects other than tensors", load)
    assert not (tmp_path / "pwned").exists()


def test_safetensors(server: type[Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18()
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    publish(server, monkeypatch, "resnet18", tmp_path / "weights.safetensors")
    ours = load("resnet18", progress=False)
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGEDU_CACHE", "~/weights")
    assert download.cache_folder() == Path.home() / "weights"
    monkeypatch.delenv("SEGEDU_CACHE")
    assert download.cache_folder() == Path(pooch.os_cache("segedu"))


@pytest.mark.parametrize("call", [load, fetch])
def test_unknown_name(call) -> None:
    with pytest.raises(ValueError, match="^name is 'resnet51', expected one of vgg16, "):
        call("resnet51")
