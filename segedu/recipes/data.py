"""What recipes train on and are measured on: scenes drawn here, or the folder of the nuclei.

Sets differ by their seed; training and held-out scenes never share one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from segedu.datasets.cells import Cells
from segedu.datasets.files import replacing
from segedu.datasets.nuclei import Nuclei
from segedu.datasets.prostate import draw_prostate
from segedu.datasets.scenes import Scenes
from segedu.datasets.shapes import Shapes
from segedu.datasets.street import STREET_VERSION, draw_street
from segedu.datasets.volume import draw_volume
from segedu.weights.pretrained import cache_folder

VOLUME_SIZE = (16, 32, 48)  # voxels
WINDOW = 128  # pixels, of a nuclei image that is trained on
Pair = tuple[Tensor, Tensor]  # image (C, ...) and semantic target (...), of the same two or three sizes


@dataclass(frozen=True)
class Sets:
    """What a run trains on, and groups of images to evaluate on: {"val": {"fluorescence": [pair, ...]}}."""

    train: Dataset
    held_out: dict[str, dict[str, list[Pair]]]


class Pairs(Dataset):
    """Pairs in memory, with a change drawn anew each time one is taken."""

    def __init__(self, pairs: Sequence[Pair], change: Callable[[Tensor, Tensor], Pair]) -> None:
        self.pairs, self.change = list(pairs), change

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.change(*self.pairs[index])


def even_out(image: Tensor) -> Tensor:
    """Bring microscope images of any exposure and stain to bright nuclei on a dark ground in [0, 1].

    The 1st and 99.8th percentile of the image go to 0 and 1; if its median is then above 0.5, it is inverted.
    A constant image becomes 0.
    """
    low, high = np.percentile(image.numpy(), (1, 99.8))
    scaled = ((image - low) / max(high - low, 1e-3)).clamp(0, 1)
    return 1 - scaled if scaled.median() > 0.5 else scaled


def flip(image: Tensor, target: Tensor) -> Pair:
    """One of the eight rotations and mirrorings of a square, or of the four of an oblong, at random."""
    turns = torch.randint(0, 2, (3,)).tolist()
    axes = [axis for axis, turn in zip((-1, -2), turns, strict=False) if turn]
    image, target = image.flip(axes), target.flip(axes)
    if turns[2] and image.shape[-1] == image.shape[-2]:
        image, target = image.transpose(-1, -2), target.transpose(-1, -2)
    return image, target


def random_window(image: Tensor, size: tuple[int, int]) -> tuple:
    """An index that cuts a random window of that height and width out of the last two axes of an image."""
    height, width = image.shape[-2:]
    if height < size[0] or width < size[1]:
        raise ValueError(f"image has {height} x {width} pixels, expected at least {size[0]} x {size[1]} to crop")
    top, left = (int(torch.randint(0, full - part + 1, ())) for full, part in zip((height, width), size, strict=True))
    return ..., slice(top, top + size[0]), slice(left, left + size[1])


def crop_flip_gamma(image: Tensor, target: Tensor, size: int = WINDOW) -> Pair:
    """A random square of the image, flipped, its brightness bent by a power between 2/3 and 3/2."""
    window = random_window(image, (size, size))
    image, target = flip(image[window], target[window])
    return image ** torch.empty(()).uniform_(-0.4, 0.4).exp(), target


def crop_mirror(image: Tensor, target: Tensor, size: tuple[int, int] = (64, 112)) -> Pair:
    """A random window of the image, mirrored left to right at random: a street stays upright.

    A window costs less than half of the scene, so that a budget sees more than twice as many.
    """
    window = random_window(image, size)
    image, target = image[window], target[window]
    return (image.flip(-1), target.flip(-1)) if torch.rand(()) < 0.5 else (image, target)


def brighten(image: Tensor, target: Tensor) -> Pair:
    """Brightness bent by a power between 2/3 and 3/2; the place of every organ stays."""
    return image ** torch.empty(()).uniform_(-0.4, 0.4).exp(), target


def mirror_gamma(image: Tensor, target: Tensor) -> Pair:
    """Mirrored left to right at random, and brightness bent: a pelvis looks much the same in a mirror."""
    image, target = (image.flip(-1), target.flip(-1)) if torch.rand(()) < 0.5 else (image, target)
    return brighten(image, target)


def pairs_of(samples: Dataset, change: Callable[[Tensor], Tensor] = lambda image: image) -> list[Pair]:
    """Image and semantic target of each sample, as plain tensors, the image changed once."""
    taken = (samples[i] for i in range(len(samples)))
    plain = ((sample["image"].as_subclass(Tensor), sample["semantic"].as_subclass(Tensor)) for sample in taken)
    return [(change(image), target) for image, target in plain]


def shapes_sets(seed: int, folder: Path | None) -> Sets:
    """256 scenes to train on and 64 others, 64 x 64."""
    train = pairs_of(Shapes(256, seed=2 * seed))
    return Sets(Pairs(train, flip), {"val": {"all": pairs_of(Shapes(64, seed=2 * seed + 1))}})


def cells_sets(seed: int, folder: Path | None) -> Sets:
    """64 scenes to train on and 32 others, 128 x 128."""
    train = pairs_of(Cells(64, seed=2 * seed))
    return Sets(Pairs(train, flip), {"val": {"all": pairs_of(Cells(32, seed=2 * seed + 1))}})


@lru_cache(maxsize=1)  # one seed serves all methods that a process trains with it
def _streets(seed: int) -> tuple[list[Pair], list[Pair]]:
    """Scenes to train on and others, in 8 bits a channel as a camera gives them."""
    return tuple(
        [(image.float() / 255, target.long()) for image, target in zip(*_kept_streets(number, name), strict=True)]
        for number, name in ((1024, 2 * seed), (64, 2 * seed + 1))
    )


def _kept_streets(number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (N, 3, H, W) and targets (N, H, W), uint8: drawn once, a minute, and kept in the cache folder.

    A file that cannot be read is drawn anew; a folder that cannot be written costs the minute again.
    """
    path = cache_folder() / f"street-{STREET_VERSION}-{seed}-{number}.safetensors"
    with suppress(OSError, SafetensorError, KeyError):
        kept = load_file(path)
        return kept["images"], kept["targets"]
    scenes = [draw_street((seed, i)) for i in tqdm(range(number), desc="draw streets", unit="scene", leave=False)]
    images = torch.stack([(scene["image"] * 255).round().to(torch.uint8) for scene in scenes])
    targets = torch.stack([scene["semantic"].to(torch.uint8) for scene in scenes])
    with suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            save_file({"images": images, "targets": targets}, part)
    return images, targets


def street_sets(seed: int, folder: Path | None) -> Sets:
    """1,024 scenes to train on, in windows of 64 x 112, and 64 others, 96 x 160."""
    train, held_out = _streets(seed)
    return Sets(Pairs(train, crop_mirror), {"val": {"all": held_out}})


def volume_sets(seed: int, folder: Path | None) -> Sets:
    """24 patients without tumours to train on and 12 others, 16 x 32 x 48 voxels."""
    patient = {"size": VOLUME_SIZE, "tumours": 0}
    train = Scenes(draw_volume, 24, seed=2 * seed, **patient)
    others = Scenes(draw_volume, 12, seed=2 * seed + 1, **patient)
    return Sets(Pairs(pairs_of(train), brighten), {"val": {"all": pairs_of(others)}})


def prostate_sets(seed: int, folder: Path | None) -> Sets:
    """96 slices to train on and 40 others, 96 x 96."""
    train = pairs_of(Scenes(draw_prostate, 96, seed=2 * seed))
    return Sets(Pairs(train, mirror_gamma), {"val": {"all": pairs_of(Scenes(draw_prostate, 40, seed=2 * seed + 1))}})


def nuclei_sets(seed: int, folder: Path | None) -> Sets:
    """The split of the folder's index.csv. Near-duplicates across its splits are likely."""
    train, held_out = nuclei_images(folder)
    pairs = {split: {domain: pairs_of(part, even_out) for domain, part in group.items()} for split, group in held_out}
    return Sets(Pairs(checked_windows(train, pairs_of(train, even_out)), crop_flip_gamma), pairs)


def nuclei_images(folder: Path | None) -> tuple[Nuclei, list[tuple[str, dict[str, Nuclei]]]]:
    """Training images of a folder, and of each held-out split those of each domain that it has, all of them in one."""
    if folder is None:
        raise ValueError("data is nuclei without a folder, expected --data PATH to the folder with index.csv")
    held_out = []
    for split in ("val", "test"):
        domains = sorted({row["domain"] for row in Nuclei(folder, split).rows})
        held_out.append((split, {domain: Nuclei(folder, split, domain) for domain in domains}))
    return Nuclei(folder, "train"), held_out


def checked_windows(images: Nuclei, pairs: list[Pair], size: int = WINDOW) -> list[Pair]:
    """The pairs, if windows of that size fit into each of them; otherwise the file of the first that is too small."""
    for row, (image, _) in zip(images.rows, pairs, strict=True):
        height, width = image.shape[-2:]
        if min(height, width) < size:
            given = f"{images.root / 'images' / row['file']} has {height} x {width} pixels"
            raise ValueError(f"{given}, expected at least {size} x {size}: training takes windows of that size")
    return pairs
