"""Recipes of the methods that find cells from the bottom up, on drawn cells and on real nuclei."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from segedu.backbones.erfnet import ERFNetEncoder
from segedu.backbones.stardist_unet import StarDistUNet
from segedu.baselines import OtsuWatershed
from segedu.datasets.cells import Cells
from segedu.datasets.nuclei import Nuclei
from segedu.instance import cellpose, signed_distance, spatial_embedding, stardist
from segedu.recipe_data import Pair, Sets, crop_flip_gamma, even_out
from segedu.recipe_row import Recipe, quick_layout
from segedu.semantic.res_unet import res_unet
from segedu.semantic.unet import UNet

Targets = Callable[[Tensor], dict[str, Tensor]]  # label map (H, W) -> what a network is to predict
UNIT = 64.0  # pixels: no pixel of these cells is farther from its centre than that
RADIUS = 7.0  # pixels: about the mean distance from inside a nucleus to its border


class Objects(Dataset):
    """Images and label maps in memory, changed anew each time; the targets are made of what came out."""

    def __init__(self, pairs: Sequence[Pair], change: Callable[[Tensor, Tensor], Pair], targets: Targets) -> None:
        self.pairs, self.change, self.targets = list(pairs), change, targets

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, label_map = self.change(*self.pairs[index])
        return image, self.targets(label_map)


def objects_of(samples: Dataset, change: Callable[[Tensor], Tensor] = lambda image: image) -> list[Pair]:
    """Image and label map of each sample, as plain tensors, the image changed once."""
    taken = (samples[i] for i in range(len(samples)))
    plain = ((sample["image"].as_subclass(Tensor), sample["label_map"].as_subclass(Tensor)) for sample in taken)
    return [(change(image), label_map) for image, label_map in plain]


def cells_sets(seed: int, folder: Path | None, targets: Targets) -> Sets:
    """64 scenes to train on, 128 x 128, in windows of 64 x 64, and 32 others: a window costs a quarter of a scene."""
    train = objects_of(Cells(64, seed=2 * seed))
    held_out = {"val": {"all": objects_of(Cells(32, seed=2 * seed + 1))}}
    return Sets(Objects(train, partial(crop_flip_gamma, size=64), targets), held_out)


def nuclei_sets(seed: int, folder: Path | None, targets: Targets) -> Sets:
    """The split of the folder's index.csv. Near-duplicates across its splits are likely."""
    if folder is None:
        raise ValueError("data is nuclei without a folder, expected --data PATH to the folder with index.csv")
    domains = ("fluorescence", "histology")
    held_out = {
        split: {domain: objects_of(Nuclei(folder, split, domain), even_out) for domain in domains}
        for split in ("val", "test")
    }
    return Sets(Objects(objects_of(Nuclei(folder, "train"), even_out), crop_flip_gamma, targets), held_out)


def distance_network(channels: int) -> nn.Module:
    """A U-Net with 32 channels or more; below one with batch normalisation, as a short training needs it."""
    if channels >= 32:
        return signed_distance.SignedDistance(UNet(3, 1, channels, depth=3, padding=1))
    return signed_distance.SignedDistance(res_unet(3, 1, [channels, 2 * channels, 4 * channels, 8 * channels]))


def star_network(channels: int) -> nn.Module:
    """StarDist with batch normalisation, its distances starting at a nucleus of usual size.

    StarDist's own settings train 40,000 steps without either. In a few hundred, the plain network learns no shape.
    """
    model = stardist.StarDist(StarDistUNet(3, channels, batch_norm=True), width=4 * channels)
    nn.init.constant_(model.dist.bias, RADIUS)
    return model


def embedding_network(size: tuple[Sequence[int], Sequence[Sequence[int]]]) -> nn.Module:
    """ERFNet of given widths and dilations, shorter than the paper's and without dropout, for a short training."""
    widths, dilations = size
    return spatial_embedding.SpatialEmbedding(ERFNetEncoder(3, widths, dilations, (0.0, 0.0)), unit=UNIT)


def on_cells(
    method: str,
    build: Callable[..., nn.Module],
    targets: Targets,
    loss: Callable[[Any, Any], dict[str, Tensor]],
    label_maps: Callable[[Any, tuple[int, int]], list[Tensor]],
    drawn: dict[str, Any],
    real: dict[str, Any],
) -> tuple[Recipe, Recipe]:
    """The rows of a method: on drawn cells, with a narrow network, and on real nuclei, with a wider one.

    Args:
        method: its name.
        build: from `size`, mostly the number of channels at the finest level, to the network, for three channels.
        targets: of one label map.
        loss: of outputs and a stack of targets.
        label_maps: of outputs and the images' size.
        drawn: `size`, `steps`, `learning_rate` and `target` on drawn cells.
        real: the same on the nuclei.

    Returns:
        Two rows.
    """
    same: dict[str, Any] = {
        "method": method,
        "classes": ("background", "nucleus"),
        "loss": loss,
        "baseline": OtsuWatershed,
        "batch_size": 8,
        "metric": "instance_accuracy",
        "label_maps": label_maps,
    }
    drawn, real = dict(drawn), dict(real)
    small, large = drawn.pop("size"), real.pop("size")
    on_drawn = Recipe(
        data="cells",
        build=lambda: quick_layout(build(small)),
        sets=partial(cells_sets, targets=targets),
        cpu_minutes=1,
        gpu_minutes=0.5,
        **drawn,
        **same,
    )
    on_real = Recipe(
        data="nuclei",
        build=lambda: quick_layout(build(large)),
        sets=partial(nuclei_sets, targets=targets),
        cpu_minutes=60,
        gpu_minutes=5,
        **real,
        **same,
    )
    return on_drawn, on_real


CELLS = (
    *on_cells(
        "signed_distance",
        distance_network,
        signed_distance.signed_distance_targets,
        signed_distance.signed_distance_loss,
        lambda outputs, size: signed_distance.postprocess(outputs),
        drawn={"size": 8, "steps": 200, "learning_rate": 1e-2, "target": 0.6},
        real={"size": 16, "steps": 2000, "learning_rate": 5e-3, "target": 0.72},
    ),
    *on_cells(
        "stardist",
        star_network,
        stardist.stardist_targets,
        stardist.stardist_loss,
        stardist.postprocess,
        drawn={"size": 8, "steps": 150, "learning_rate": 1e-2, "target": 0.7},
        real={"size": 32, "steps": 2500, "learning_rate": 3e-3, "target": 0.78},
    ),
    *on_cells(
        "cellpose",
        lambda channels: cellpose.Cellpose(3, [channels, 2 * channels, 4 * channels, 8 * channels]),
        cellpose.cellpose_targets,
        cellpose.cellpose_loss,
        lambda outputs, size: cellpose.postprocess(outputs),
        drawn={"size": 8, "steps": 100, "learning_rate": 1e-2, "target": 0.9},
        real={"size": 16, "steps": 2000, "learning_rate": 1e-3, "target": 0.78},
    ),
    *on_cells(
        "spatial_embedding",
        embedding_network,
        spatial_embedding.spatial_embedding_targets,
        partial(spatial_embedding.spatial_embedding_loss, unit=UNIT, foreground_weight=10.0),
        # without these, the rim that an object's own Gaussian leaves over becomes an object
        lambda outputs, size: spatial_embedding.postprocess(outputs, unit=UNIT, min_pixels=15, min_free=0.5),
        drawn={"size": ((12, 24, 48), ((1, 1), (1, 2, 4))), "steps": 150, "learning_rate": 1e-2, "target": 0.7},
        real={"size": ((16, 64, 128), ((1, 1, 1), (2, 4, 8, 2))), "steps": 1500, "learning_rate": 3e-3, "target": 0.72},
    ),
)
