"""Official weights of Cellpose and StarDist: files in their authors' layouts, and what is said when they are loaded."""

from __future__ import annotations

import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from backbones.test_stardist_unet import keras_arrays, keras_model
from randomise import randomise
from test_pretrained import Server, publish, server  # noqa: F401, a fixture

from segedu.backbones.stardist_unet import percentile_normalize
from segedu.instance.cellpose.cellpose import PercentileNormalize
from segedu.weights import WEIGHTS, WeightsError, load

CELLPOSE = ("cellpose_cyto3", "cellpose_nuclei")
STARDIST = [name for name in WEIGHTS if name.startswith("stardist")]


@pytest.mark.parametrize("name", CELLPOSE)
def test_a_file_of_cellpose(name: str, server: type[Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # noqa: F811
    theirs = pytest.importorskip("cellpose.resnet_torch").CPnet([2, 32, 64, 128, 256], 3, 3)
    randomise(theirs).float()
    state = theirs.state_dict() | {"diam_mean": torch.tensor([21.0]), "diam_labels": torch.tensor([25.0])}
    assert len(state) == 313
    torch.save(state, tmp_path / f"{name}.pth")
    publish(server, monkeypatch, name, tmp_path / f"{name}.pth")
    with pytest.warns(
        UserWarning, match=f"weights '{name}': trained on images under CC BY-NC, so not for commercial use"
    ):
        ours = load(name, progress=False)
    assert (ours.diam_mean.item(), ours.diam_labels.item()) == (21.0, 25.0)  # the file's, not the table's
    images = torch.rand(1, 2, 32, 40, generator=torch.Generator().manual_seed(0)) / 3
    with torch.no_grad():
        outputs, (maps, style, _) = ours(images), theirs.eval()(PercentileNormalize()(images))
    torch.testing.assert_close(torch.cat([outputs["flows"], outputs["logits"][:, None]], 1), maps, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs["style"], style, rtol=0, atol=1e-5)


def test_sizes_are_those_of_the_network_in_single_precision() -> None:
    """A file holds 6.6 million numbers and the names of 313 tensors."""
    for name in CELLPOSE:
        assert 0 < WEIGHTS[name].mebibytes * 2**20 - 4 * 6_600_000 < 200_000
        assert len(WEIGHTS[name].sha256) == 64 and WEIGHTS[name].notice
    assert [WEIGHTS[name].options.get("diam_mean", 30.0) for name in CELLPOSE] == [30.0, 17.0]


def keras_zip(path: Path, channels: int) -> dict:
    """A file as StarDist's authors publish it, of random weights; and these."""
    h5py = pytest.importorskip("h5py")
    arrays = keras_arrays()
    arrays["conv2d_1/kernel"] = arrays["conv2d_1/kernel"].repeat(channels, axis=2)
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        for name, array in arrays.items():
            layer, kind = name.split("/")
            file[f"{layer}/{layer}/{kind}:0"] = array
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(path.with_suffix(".h5"), "model/weights_best.h5")
    return arrays


@pytest.mark.parametrize("name", STARDIST)
def test_a_file_of_stardist(name: str, server: type[Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # noqa: F811
    channels = WEIGHTS[name].options.get("in_channels", 1)
    arrays = keras_zip(tmp_path / "python_model.zip", channels)
    publish(server, monkeypatch, name, tmp_path / "python_model.zip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing to warn of
        ours = load(name, progress=False)
    images = torch.rand(1, channels, 48, 64, generator=torch.Generator().manual_seed(0)) / 3
    with torch.no_grad():
        outputs, expected = ours(images), keras_model(arrays, percentile_normalize(images))
    for key in ("logits", "distances"):
        torch.testing.assert_close(outputs[key], expected[key], rtol=1e-4, atol=1e-4)


def test_without_h5py_it_says_what_to_install(
    server: type[Server],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    with zipfile.ZipFile(tmp_path / "python_model.zip", "w") as archive:
        archive.writestr("model/weights_best.h5", "")
    publish(server, monkeypatch, STARDIST[0], tmp_path / "python_model.zip")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(WeightsError, match="cannot be read: Keras files are read with h5py, .* pip install h5py"):
        load(STARDIST[0], progress=False)


def test_a_zip_file_of_something_else(server: type[Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("h5py")
    with zipfile.ZipFile(tmp_path / "python_model.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    publish(server, monkeypatch, STARDIST[0], tmp_path / "python_model.zip")
    with pytest.raises(WeightsError, match="contains objects other than tensors, and was not loaded"):
        load(STARDIST[0], progress=False)
