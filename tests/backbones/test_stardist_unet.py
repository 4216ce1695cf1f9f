"""StarDist's U-Net against the same layers written out from Keras arrays, and the way of such arrays into it."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.backbones.stardist_unet import StarDistUNet, from_keras, percentile_normalize, read_keras
from segedu.instance.stardist import StarDist, official_stardist

# Layers of `2D_versatile_fluo` in the order of the Keras model: input and output channels, 3x3 but for the heads.
OFFICIAL = {
    "conv2d_1": (1, 32),
    "conv2d_2": (32, 32),
    "down_level_0_no_0": (32, 32),
    "down_level_0_no_1": (32, 32),
    "down_level_1_no_0": (32, 64),
    "down_level_1_no_1": (64, 64),
    "down_level_2_no_0": (64, 128),
    "down_level_2_no_1": (128, 128),
    "middle_0": (128, 256),
    "middle_2": (256, 128),
    "up_level_2_no_0": (256, 128),
    "up_level_2_no_2": (128, 64),
    "up_level_1_no_0": (128, 64),
    "up_level_1_no_2": (64, 32),
    "up_level_0_no_0": (64, 32),
    "up_level_0_no_2": (32, 32),
    "features": (32, 128),
    "prob": (128, 1),
    "dist": (128, 32),
}


def keras_arrays(unnamed: tuple[str, str] = ("conv2d_1", "conv2d_2")) -> dict[str, np.ndarray]:
    rng, arrays = np.random.default_rng(0), {}
    for layer, (before, after) in OFFICIAL.items():
        size = 1 if layer in ("prob", "dist") else 3
        layer = {"conv2d_1": unnamed[0], "conv2d_2": unnamed[1]}.get(layer, layer)
        kernel = rng.normal(0, np.sqrt(2 / (before * size**2)), (size, size, before, after))
        arrays[f"{layer}/kernel"] = kernel.astype(np.float32)
        arrays[f"{layer}/bias"] = rng.normal(0, 0.1, after).astype(np.float32)
    return arrays


def keras_model(arrays: dict[str, np.ndarray], images: Tensor) -> dict[str, Tensor]:
    """The graph of StarDist's Keras model, on images whose sides are multiples of 16."""

    def conv(x: Tensor, layer: str) -> Tensor:
        kernel = torch.from_numpy(arrays[f"{layer}/kernel"].transpose(3, 2, 0, 1).copy())
        return F.conv2d(x, kernel, torch.from_numpy(arrays[f"{layer}/bias"]), padding="same")

    def relu(x: Tensor, *layers: str) -> Tensor:
        for layer in layers:
            x = conv(x, layer).clamp(min=0)
        return x

    x = F.max_pool2d(relu(images, "conv2d_1", "conv2d_2"), 2)
    skips = []
    for n in range(3):
        skips.append(relu(x, f"down_level_{n}_no_0", f"down_level_{n}_no_1"))
        x = F.max_pool2d(skips[n], 2)
    x = relu(x, "middle_0", "middle_2")
    for n in (2, 1, 0):
        x = torch.cat([x.repeat_interleave(2, 2).repeat_interleave(2, 3), skips[n]], dim=1)
        x = relu(x, f"up_level_{n}_no_0", f"up_level_{n}_no_2")
    x = relu(x, "features")
    return {"logits": conv(x, "prob"), "distances": conv(x, "dist")}


def test_official_names_and_shapes_fit_and_give_the_same_numbers() -> None:
    arrays = keras_arrays()
    model = official_stardist()
    model.load_state_dict(from_keras(arrays), strict=True)
    assert sum(p.numel() for p in model.parameters()) == sum(a.size for a in arrays.values())
    images = torch.rand(2, 1, 48, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got, expected = model(images), keras_model(arrays, percentile_normalize(images))
    for key in ("logits", "distances"):
        torch.testing.assert_close(got[key], expected[key], rtol=1e-4, atol=1e-4)


def test_layers_without_a_name_come_in_order_of_their_numbers() -> None:
    first, second = keras_arrays(), keras_arrays(("conv2d_9", "conv2d_10"))
    third = keras_arrays(("conv2d", "conv2d_1"))
    for other in (second, third):
        for key, value in from_keras(dict(sorted(other.items()))).items():
            assert torch.equal(value, from_keras(first)[key])


def test_arrays_of_something_else_are_refused() -> None:
    with pytest.raises(ValueError, match="arrays has 'features/gamma', expected"):
        from_keras({"features/gamma": np.zeros(3)})


@pytest.mark.parametrize("nested", [True, False])
def test_keras_files_are_read(tmp_path, nested: bool) -> None:
    h5py = pytest.importorskip("h5py")
    arrays = keras_arrays()
    with h5py.File(tmp_path / "weights_best.h5", "w") as file:
        for name, array in arrays.items():
            layer, kind = name.split("/")
            file[f"{layer}/{layer}/{kind}:0" if nested else f"{layer}/{kind}:0"] = array
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.write(tmp_path / "weights_best.h5", "2D_versatile_fluo/weights_best.h5")
        archive.writestr("2D_versatile_fluo/config.json", "{}")
    for path in (tmp_path / "weights_best.h5", tmp_path / "model.zip"):
        read = read_keras(path)
        assert read.keys() == arrays.keys()
        assert all((read[name] == array).all() for name, array in arrays.items())


def test_a_zip_file_without_weights_is_refused(tmp_path) -> None:
    pytest.importorskip("h5py")
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ValueError, match=r"path has \['config.json'\], expected"):
        read_keras(tmp_path / "model.zip")


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (4, 2), (1, 2, 2)])
def test_any_size_and_grid(grid: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = StarDist(StarDistUNet(2, 4, 2, grid), n_rays=5, width=6)
    for size in ((1,) * len(grid), (13, 18, 7)[: len(grid)]):
        out = model(torch.rand(2, 2, *size))
        expected = tuple(-(-side // step) for side, step in zip(size, grid, strict=True))
        assert out["logits"].shape == (2, 1, *expected) and out["distances"].shape == (2, 5, *expected)


@pytest.mark.parametrize("grid", [(2, 2), (1, 2, 2)])
def test_normalised_features_start_as_large_as_the_image(grid: tuple[int, ...]) -> None:
    """Glorot's weights in front of a ReLU halve the variance, 16 times in a row: what comes out is a constant."""
    torch.manual_seed(0)
    images = torch.rand(2, 1, *(16 * g for g in grid))
    plain, normalised = (StarDistUNet(1, 8, 3, grid, batch_norm=flag) for flag in (False, True))
    assert plain(images).std() < 0.1 < 0.4 < normalised(images).std()
    assert {key.split(".")[0] for key in plain.state_dict()} == {"convs"}  # as in the published weights


def test_padding_mirrors_the_far_end() -> None:
    torch.manual_seed(0)
    model, images = StarDist(StarDistUNet(1, 4, 2, (2, 2)), 4, 6), torch.rand(1, 1, 13, 22)
    whole = F.pad(images, (0, 2, 0, 3), mode="reflect")
    assert torch.equal(model(images)["distances"], model(whole)["distances"][..., :7, :11])


@pytest.mark.parametrize("grid", [(3, 2), (2,), (0, 2), (1, 1, 1, 1)])
def test_wrong_grid(grid: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="grid is .*, expected two or three powers of 2"):
        StarDistUNet(grid=grid)


def test_wrong_counts() -> None:
    with pytest.raises(ValueError, match="base_channels is 0, expected an integer of at least 1"):
        StarDistUNet(base_channels=0)


def test_percentiles_become_0_and_1() -> None:
    images = torch.rand(3, 2, 40, 50, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5, 9]).view(
        3, 1, 1, 1
    )
    scaled = percentile_normalize(images, 5, 95)
    for image in scaled:
        assert np.percentile(image, [5, 95]) == pytest.approx([0, 1], abs=1e-6)
    torch.testing.assert_close(percentile_normalize(3 * images + 2, 5, 95), scaled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_normalised_in_float32(dtype: torch.dtype) -> None:
    """A constant image is 0 everywhere: in float16 the 1e-20 that keeps it from 0 / 0 is 0 itself."""
    assert percentile_normalize(torch.ones(1, 1, 4, 4, dtype=dtype)).eq(0).all()
    images = torch.rand(2, 1, 8, 8).to(dtype)
    normalized = percentile_normalize(images)
    assert normalized.dtype == dtype
    assert torch.equal(normalized, percentile_normalize(images.float()).to(dtype))
