"""k-means on the features of the small ViT beside k-means on colours: adjusted Rand index on synthetic scenes.

`python tests/benchmarks/feature_clusters.py [other.safetensors]` prints the table. Every row clusters the pixels of
one image at a time with scikit-learn's k-means, k being the number of classes in the image, and is compared with the
semantic ground truth without void, on every second pixel along each axis. The rows: colour and position of the pixel;
mean colour of its neighbourhood and position; colours of the window around it, reduced to the ViT's number of
dimensions by principal components, and position; the ViT's features of the image at twice its size, all or their first
principal components, as in the chapter, upsampled bilinearly, and position: the patches after a block, or the attention
queries of the patches in both blocks, each block scaled to a total variance of 1. The settings of a row (weight of the
position, colour space, size of the window, block and number of components) are those that are best on other scenes,
separately for streets and shapes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from skimage.color import rgb2lab
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from segedu.backbones.vit import ViT
from segedu.datasets.shapes import draw_shapes
from segedu.datasets.street import draw_street
from segedu.unsupervised.dino import principal_components
from segedu.weights import load

DRAW = {"street": draw_street, "shapes": draw_shapes}
TUNING, HELD_OUT = (4_000_000, 50), (5_000_000, 50)  # seed, scenes of each kind; training and recipes have other seeds
WEIGHTS = (0.0, 0.5, 1.0)  # of the position
VOID = 255
Look = Callable[[Tensor], Tensor]  # image (3, H, W) -> features (C, H, W)


@cache
def scenes(kind: str, seed: int, number: int) -> list[tuple[Tensor, Tensor]]:
    """Images and semantic targets."""
    drawn = [DRAW[kind]((seed, i)) for i in range(number)]
    return [(scene["image"], scene["semantic"]) for scene in drawn]


def rgb(image: Tensor) -> Tensor:
    """The image itself."""
    return image


def lab(image: Tensor) -> Tensor:
    """The image in Lab, where distances approximate perceived differences."""
    return torch.from_numpy(rgb2lab(image.permute(1, 2, 0).numpy())).permute(2, 0, 1).float()


def smooth(size: int, space: Look) -> Look:
    """Mean colour of the size x size pixels around each pixel."""
    return lambda image: F.avg_pool2d(space(image)[None], size, 1, size // 2, count_include_pad=False)[0]


def windows(size: int, space: Look, dims: int) -> Look:
    """Colours of the size x size pixels around each pixel, at most `dims` principal components of them."""

    def look(image: Tensor) -> Tensor:
        before, after = (size - 1) // 2, size // 2
        padded = F.pad(space(image)[None], (before, after, before, after), mode="reflect")
        colours = F.unfold(padded, size)[0].T  # (H W, 3 size^2)
        if colours.shape[1] > dims:
            colours = principal_components(colours, dims).scores
        return colours.T.unflatten(1, image.shape[1:])

    return look


def patches(vit: ViT, components: int | None, block: int) -> Look:
    """The ViT's patch features after a block at every pixel, or their first principal components."""

    return enlarged(lambda larger: vit.features(larger, block)["patches"], components)


def queries(vit: ViT, components: int | None) -> Look:
    """The ViT's attention queries in each block at every pixel, or their first principal components."""
    blocks = range(len(vit.blocks))
    return enlarged(
        lambda larger: torch.cat([evenly(vit.queries(larger, b)[0])[None] for b in blocks], dim=1), components
    )


def evenly(features: Tensor) -> Tensor:
    """Features (C, H, W) scaled to a total variance of 1."""
    return features / features.std(dim=(1, 2)).square().sum().sqrt()


def enlarged(features_of: Callable[[Tensor], Tensor], components: int | None) -> Look:
    """Features (1, C, h, w) of images at twice their size, at every pixel, or their first principal components."""

    @torch.no_grad()
    def look(image: Tensor) -> Tensor:
        larger = F.interpolate(image[None], scale_factor=2, mode="bilinear")
        features = features_of(larger)
        if components is not None:
            scores = principal_components(features[0].flatten(1).T, components).scores  # (h w, components)
            features = scores.T.unflatten(1, features.shape[2:])[None]
        return F.interpolate(features, size=image.shape[1:], mode="bilinear")[0]

    return look


def rand_index(features: Tensor, semantic: Tensor, weight: float) -> float:
    """Adjusted Rand index of k-means on features of total variance 1, with y and x relative to the longer side."""
    height, width = semantic.shape
    place = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.cat([evenly(features), weight / max(height, width) * torch.stack(place)])[:, ::2, ::2].flatten(1).T
    truth = semantic[::2, ::2].flatten().numpy()
    seen = truth != VOID
    found = KMeans(len(np.unique(truth[seen])), n_init=2, random_state=0).fit_predict(points.contiguous().numpy())
    return adjusted_rand_score(truth[seen], found[seen])


def mean_rand_index(look: Look, chosen: list[tuple[Tensor, Tensor]], weight: float) -> float:
    """Mean index over scenes, at one weight of the position."""
    return float(np.mean([rand_index(look(image), semantic, weight) for image, semantic in chosen]))


def rows(vit: ViT) -> dict[str, dict[str, Look]]:
    """For each row the candidate feature functions, of which the tuning scenes select one."""
    spaces, dims = {"RGB": rgb, "Lab": lab}, vit.embed_dim
    return {
        "colour": spaces,
        "mean colour": {f"{s}x{s} {n}": smooth(s, c) for s in (3, 5, 9) for n, c in spaces.items()},
        "window": {f"{s}x{s} {n}": windows(s, c, dims) for s in (4, 8) for n, c in spaces.items()},
        "ViT": {
            f"block {block}{f', {components} components' if components else ''}": patches(vit, components, block)
            for block in range(len(vit.blocks))
            for components in (None, 4, 8)
        }
        | {
            f"queries{f', {components} components' if components else ''}": queries(vit, components)
            for components in (None, 4, 8)
        },
    }


def measure(looks: dict[str, Look], kind: str, held_out: int = HELD_OUT[1]) -> tuple[float, str]:
    """The mean index on held-out scenes with the settings that are best on the tuning scenes, and their description."""
    best = (-1.0, "", 0.0)
    for name, look in looks.items():
        seen = [(image, semantic, look(image)) for image, semantic in scenes(kind, *TUNING)]
        for weight in WEIGHTS:
            index = float(np.mean([rand_index(features, semantic, weight) for _, semantic, features in seen]))
            best = max(best, (index, name, weight))
    _, name, weight = best
    return mean_rand_index(looks[name], scenes(kind, HELD_OUT[0], held_out), weight), f"{name}, position x {weight}"


def main(vit: ViT) -> None:
    """Print the settings and numbers of every row, and in two last lines all numbers and the gain of the ViT."""
    numbers = {}
    for row, looks in rows(vit).items():
        found = {kind: measure(looks, kind) for kind in DRAW}
        parts = [f"{kind} {index:.4f} ({words})" for kind, (index, words) in found.items()]
        print(f"{row} and position: {', '.join(parts)}", flush=True)
        numbers[row] = [index for index, _ in found.values()]
    means = {row: float(np.mean(indexes)) for row, indexes in numbers.items()}
    texts = [f"{row} " + " ".join(f"{index:.4f}" for index in indexes) for row, indexes in numbers.items()]
    print(f"adjusted Rand index, {' and '.join(DRAW)}: {', '.join(texts)};")
    gains = [f"{means['ViT'] - mean:+.4f} over {row}" for row, mean in means.items() if row != "ViT"]
    print(f"mean of the ViT {means['ViT']:.4f}: {', '.join(gains)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    trained = load("scenes_vit")
    if len(sys.argv) > 1:  # another file of a ViT of the same shape, such as one trained from another seed
        trained.load_state_dict(load_file(sys.argv[1]))
    main(trained)
