"""DenoiSeg, and the same network without denoising, on very noisy images with labels in a single window.

All three recipes take the same number of steps, with the same number of labelled windows per step. `three_classes`
trains on labelled windows only. `denoiseg` adds windows without labels, and denoises. Batch normalisation alone already
learns from these windows, so `denoiseg_alpha_0` has the same batches as `denoiseg`, but does not learn to denoise.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from segedu.datasets.cells import CLASSES, Cells
from segedu.instance import denoiseg
from segedu.recipes.baselines import OtsuWatershed
from segedu.recipes.data import Pair, Pairs, flip, pairs_of, random_window, synthetic_sets
from segedu.recipes.recipe import Recipe, quick_layout
from segedu.recipes.task import INSTANCES
from segedu.semantic.res_unet import res_unet

NOISE = 6.0  # of `draw_cells`: 7 photons at brightness 1, and a readout noise of 0.12
WINDOW = 64  # pixels: the side of the labelled window and of those without labels
LABELLED = 2  # labelled windows per step
UNLABELLED = 3  # windows without labels per labelled one, if the network denoises
MIN_PIXELS = 15  # smaller objects become background

Sample = tuple[Tensor, dict[str, Tensor]]


def draw_label_maps(number: int, seed: int) -> list[Pair]:
    """Noisy scenes of 128 x 128 pixels with their label maps; nuclei are not placed beside others."""
    return pairs_of(Cells(number, seed=seed, noise=NOISE, touching=0.0, count=(10, 16)), "label_map")


class OneLabelledWindow(Pairs):
    """Scenes of which only the upper left window of the first one has labels.

    A sample is the labelled window, randomly flipped, with `unlabelled` random windows of all scenes. All of them have
    blind spots. The label maps of the other scenes are not used.

    Args:
        pairs: scenes of at least 64 x 64 pixels with their label maps.
        unlabelled: number of windows without labels in a sample.
    """

    def __init__(self, pairs: Sequence[Pair], unlabelled: int) -> None:
        super().__init__(pairs, flip)
        self.unlabelled = unlabelled

    def __getitem__(self, index: int) -> Sample:
        image, label_map = self.pairs[0]
        windows = [self.change(image[:, :WINDOW, :WINDOW], label_map[:WINDOW, :WINDOW])]
        for scene in torch.randint(len(self.pairs), (self.unlabelled,)).tolist():
            image, label_map = self.pairs[scene]
            window = random_window(image, (WINDOW, WINDOW))
            windows.append(self.change(image[window], label_map[window]))
        images = torch.stack([image for image, _ in windows])
        changed, blind = denoiseg.blind_spots(images)
        classes = [
            denoiseg.denoiseg_targets(label_map, labelled=number == 0)["classes"]
            for number, (_, label_map) in enumerate(windows)
        ]
        return changed, {"images": images, "blind": blind, "classes": torch.stack(classes)}


def join_windows(samples: Sequence[Sample]) -> Sample:
    """A batch of the windows of all samples."""
    images, targets = zip(*samples, strict=True)
    return torch.cat(images), {key: torch.cat([one[key] for one in targets]) for key in targets[0]}


def _recipe(method: str, unlabelled: int, alpha: float, target: float) -> Recipe:
    return Recipe(
        method=method,
        data="noisy_cells",
        task=INSTANCES,
        classes=CLASSES,
        # a short training needs batch normalisation, which the plain U-Net does not have
        build=lambda: quick_layout(denoiseg.DenoiSeg(res_unet(3, 6, [8, 16, 32, 64]))),
        loss=partial(denoiseg.denoiseg_loss, alpha=alpha),
        postprocess=lambda outputs, size: denoiseg.postprocess(outputs, min_size=MIN_PIXELS),
        sets=partial(
            synthetic_sets,
            draw=draw_label_maps,
            train=64,
            held_out=32,
            dataset=partial(OneLabelledWindow, unlabelled=unlabelled),
        ),
        collate=join_windows,
        baseline=OtsuWatershed,
        steps=240,
        batch_size=LABELLED,
        learning_rate=1e-2,
        metric="instance_accuracy",
        target=target,
        cpu_minutes=2,
        gpu_minutes=0.5,
    )


RECIPES = (
    _recipe("denoiseg", UNLABELLED, alpha=0.5, target=0.3),
    _recipe("denoiseg_alpha_0", UNLABELLED, alpha=0.0, target=0.22),
    _recipe("three_classes", 0, alpha=0.0, target=0.25),
)
