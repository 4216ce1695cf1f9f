"""The U-Net of StarDist's code, and the conversion of its published Keras weights to a state dict."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.validation.numbers import check_integers


class StarDistUNet(nn.Module):
    """Two 3x3 convolutions per level, nearest upsampling, features on a grid that may be coarser than the image.

    For each halving of the grid, two convolutions and a pooling come first. Layers have the names of the Keras model,
    so that its weights fit; those before the grid, which have no names there, are `grid_0_no_0` and so on.

    Args:
        in_channels: C of the images.
        base_channels: channels at the grid's resolution, doubled at every pooling.
        depth: number of pooling layers after the grid.
        grid: stride of the features along each axis, powers of 2: two for images, three for volumes.
        batch_norm: normalise after each convolution. The published weights have none. Without it, the features become
            smaller from layer to layer at the start of training, so that a short training learns little more than the
            biases.

    Attributes:
        out_channels: channels of the features, `base_channels`.
        step: along each axis, images must be a multiple of this.
    """

    def __init__(
        self,
        in_channels: int = 1,
        base_channels: int = 32,
        depth: int = 3,
        grid: Sequence[int] = (2, 2),
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if len(grid) not in (2, 3) or any(g < 1 or g & (g - 1) for g in grid):
            raise ValueError(f"grid is {tuple(grid)}, expected two or three powers of 2")
        check_integers(in_channels=in_channels, base_channels=base_channels, depth=depth)
        self.in_channels, self.out_channels, self.depth, self.grid = in_channels, base_channels, depth, tuple(grid)
        self.step = tuple(g * 2**depth for g in grid)
        self.pools = [tuple(2 if g > 2**level else 1 for g in grid) for level in range(max(grid).bit_length() - 1)]
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if len(grid) == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.convs, self.norms = nn.ModuleDict(), nn.ModuleDict()
        width = in_channels
        for name, skip_channels, out_channels in self._layers(base_channels):
            self.convs[name] = conv(width + skip_channels, out_channels, kernel_size=3, padding=1)
            nn.init.xavier_uniform_(self.convs[name].weight)  # as Keras does
            nn.init.zeros_(self.convs[name].bias)
            self.norms[name] = norm(out_channels) if batch_norm else nn.Identity()
            width = out_channels

    def _layers(self, base: int) -> list[tuple[str, int, int]]:
        """Name, channels of the skip connection, and output channels of each layer, in order."""
        layers = [(f"grid_{level}_no_{i}", 0, base) for level in range(len(self.pools)) for i in (0, 1)]
        layers += [(f"down_level_{n}_no_{i}", 0, base * 2**n) for n in range(self.depth) for i in (0, 1)]
        layers += [("middle_0", 0, base * 2**self.depth), ("middle_2", 0, base * 2 ** (self.depth - 1))]
        for n in reversed(range(self.depth)):
            layers.append((f"up_level_{n}_no_0", base * 2**n, base * 2**n))
            layers.append((f"up_level_{n}_no_2", 0, base * 2 ** max(n - 1, 0)))
        return layers

    def forward(self, images: Tensor) -> Tensor:
        pool = F.max_pool2d if len(self.grid) == 2 else F.max_pool3d
        features, skips = images, []
        for level, size in enumerate(self.pools):
            features = pool(self._two_convs(features, f"grid_{level}_no_0", f"grid_{level}_no_1"), size)
        for n in range(self.depth):
            skips.append(self._two_convs(features, f"down_level_{n}_no_0", f"down_level_{n}_no_1"))
            features = pool(skips[-1], 2)
        features = self._two_convs(features, "middle_0", "middle_2")
        for n in reversed(range(self.depth)):
            up = F.interpolate(features, scale_factor=2, mode="nearest")
            features = self._two_convs(torch.cat([up, skips[n]], dim=1), f"up_level_{n}_no_0", f"up_level_{n}_no_2")
        return features  # (B, base_channels, H / grid, W / grid)

    def _two_convs(self, features: Tensor, first: str, second: str) -> Tensor:
        for name in (first, second):
            features = F.relu(self.norms[name](self.convs[name](features)))
        return features


def percentile_normalize(images: Tensor, low: float = 1.0, high: float = 99.8) -> Tensor:
    """Scale each image so that two of its percentiles become 0 and 1, as for StarDist's own weights.

    Args:
        images: (B, C, ...).
        low: the percentile that becomes 0.
        high: the percentile that becomes 1.

    Returns:
        The same shape; values beyond the percentiles are not clipped.

    >>> percentile_normalize(torch.tensor([[[[2.0, 4.0, 6.0]]]]), 0, 100)
    tensor([[[[0.0000, 0.5000, 1.0000]]]])
    """
    # numpy does not support bfloat16, and in float16 1e-20 is 0
    values = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
    percentiles = np.percentile(values.detach().flatten(1).cpu().numpy(), [low, high], axis=1)
    lower, upper = torch.from_numpy(percentiles).to(values).reshape(2, -1, *[1] * (images.ndim - 1))
    return ((values - lower) / (upper - lower + 1e-20)).to(images)


def read_keras(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of a published Keras model. It requires h5py, which segedu itself does not.

    Args:
        path: path of `weights_best.h5`, or of the zip file that contains it.

    Returns:
        Arrays with names such as `down_level_0_no_0/kernel`.

    Raises:
        ImportError: h5py is not installed.
        ValueError: the zip file contains no `weights_best.h5`.
    """
    try:
        import h5py
    except ImportError:
        raise ImportError("Keras files are read with h5py, which is not installed: pip install h5py") from None

    arrays, source = {}, path
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if name.endswith("weights_best.h5")), None)
            if name is None:
                raise ValueError(f"path has {archive.namelist()}, expected a file weights_best.h5 among them")
            source = io.BytesIO(archive.read(name))
    with h5py.File(source) as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    # Keras 2 writes layer/layer/kernel:0, and older versions layer/kernel:0.
    return {f"{name.split('/')[0]}/{name.split('/')[-1].split(':')[0]}": array for name, array in arrays.items()}


def from_keras(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Convert the weights of a Keras StarDist to a state dict of `StarDist` with a `StarDistUNet`.

    Args:
        arrays: result of `read_keras`; kernels are (h, w, in, out), or (d, h, w, in, out).

    Returns:
        Tensors under our keys; kernels are (out, in, h, w).

    Raises:
        ValueError: a name does not belong to the kernel or bias of a layer.
    """
    unnamed = {name.split("/")[0] for name in arrays if re.match(r"conv[23]d(_\d+)?/", name)}
    before_grid = sorted(unnamed, key=lambda layer: int(re.search(r"(?<=_)\d+|$", layer)[0] or 0))
    state = {}
    for name, array in arrays.items():
        layer, _, kind = name.partition("/")
        if kind not in ("kernel", "bias"):
            raise ValueError(f"arrays has {name!r}, expected names such as down_level_0_no_0/kernel")
        if layer in before_grid:
            layer = "grid_{}_no_{}".format(*divmod(before_grid.index(layer), 2))
        key = layer if layer in ("features", "prob", "dist") else f"backbone.convs.{layer}"
        tensor = torch.from_numpy(np.asarray(array, np.float32))
        if kind == "kernel":
            tensor = tensor.movedim((-1, -2), (0, 1)).contiguous()
        state[f"{key}.{'weight' if kind == 'kernel' else 'bias'}"] = tensor
    return state
