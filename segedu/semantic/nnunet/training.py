"""nnU-Net's training: a third of the patches is centred on foreground, and one schedule serves all data sets.

Paper: Isensee, Jaeger, Kohl, Petersen, Maier-Hein, "nnU-Net: a self-configuring method for deep learning-based
    biomedical image segmentation", Nature Methods 2021, arXiv 1904.08128, with its supplement.
Idea: Foreground is rare: most random patches of an abdomen show no spleen. For a third of the patches of each batch,
    and for at least one, a foreground class of the volume is therefore chosen at random, and the patch is centred on a
    random voxel of this class. The optimiser is SGD with Nesterov momentum and a learning rate that decays to 0.
Simplified: the number of iterations is an argument (250,000 in the paper: 1000 epochs of 250 iterations), and the
    augmentations rotation, scaling and blur are not included.
Shapes: `Patches` yields an image (C, *patch_size) float32 and a target (*patch_size) int64, 255 outside the volume.
Quality: trained on one half of a real CT and tested on the other half: mean Dice 0.75 over seven organs (page 16.6).
Course: 16-promptable
Lab: 16_promptable
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from segedu.semantic.nnunet.nnunet import nnunet_loss
from segedu.semantic.nnunet.plan import Plan
from segedu.validation.numbers import check_integer

LEARNING_RATE, DECAY, MAX_GRADIENT_NORM = 0.01, 0.9, 12.0

nesterov = partial(torch.optim.SGD, lr=LEARNING_RATE, momentum=0.99, nesterov=True, weight_decay=3e-5)


class Patches(Dataset):
    """A data set of random patches of preprocessed volumes; each access draws a new patch.

    The index determines only whether the patch is centred on foreground (see `oversamples_foreground`). Everything
    else is drawn from torch's global generator.

    Args:
        volumes: outputs of `preprocess` with a target, `semantic`.
        plan: the plan from `make_plan`, which determines patch size and batch size.
        length: number of patches per epoch.
        augmentation: function (image, target) -> (image, target) that augments a patch. None: `augment`.
    """

    def __init__(
        self,
        volumes: Sequence[Mapping[str, Any]],
        plan: Plan,
        length: int,
        augmentation: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        for volume in volumes:
            if "semantic" not in volume or np.shape(volume["semantic"]) != np.shape(volume["image"])[1:]:
                shape = np.shape(volume.get("semantic", ()))
                raise ValueError(f"volumes has semantic of shape {shape}, expected {np.shape(volume['image'])[1:]}")
        if not volumes:
            raise ValueError("volumes has 0 volumes, expected at least one")
        check_integer("length", length)
        self.plan, self.length, self.augmentation = plan, length, augmentation or augment
        self.pairs = [(torch.as_tensor(v["image"]), torch.as_tensor(v["semantic"])) for v in volumes]
        self.voxels = [class_voxels(target) for _, target in self.pairs]

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # `__getitem__` never raises IndexError, so without this method a loop over the data set would not end.
        return (self[index] for index in range(self.length))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        i = _draw(len(self.pairs))
        image, target = self.pairs[i]
        centre = [_draw(n) for n in target.shape]
        if oversamples_foreground(index, self.plan.batch_size) and self.voxels[i]:
            voxels = self.voxels[i][_draw(len(self.voxels[i]))]
            centre = voxels[_draw(len(voxels))].tolist()
        axis = self.plan.slice_axis
        if axis is not None:
            position = centre.pop(axis)
            image, target = image.select(axis + 1, position), target.select(axis, position)
        return self.augmentation(*crop_patch(image, target, centre, self.plan.patch_size))


def oversamples_foreground(index: int, batch_size: int) -> bool:
    """Whether a patch is centred on a random foreground voxel.

    As in the paper, this holds for a third of the patches of each batch, and for at least one: here for the last ones.

    Args:
        index: index of the patch, counted over all batches.
        batch_size: number of patches per batch.

    >>> [oversamples_foreground(index, 2) for index in range(4)]
    [False, True, False, True]
    """
    return index % batch_size >= batch_size - max(1, round(batch_size / 3))


def class_voxels(target: Tensor) -> list[Tensor]:
    """Find the voxels of each foreground class in a target (D, H, W): one tensor (n, 3) of indices per class.

    Background (0) and ignored voxels (255) are excluded.
    """
    labels = [label for label in target.unique().tolist() if label not in (0, 255)]
    return [(target == label).nonzero() for label in labels]


def crop_patch(image: Tensor, target: Tensor, centre: Sequence[int], size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Crop a patch around a voxel. It is shifted to lie within the volume, or padded where the volume is smaller.

    Args:
        image: (C, D, H, W), or (C, H, W).
        target: (D, H, W), or (H, W).
        centre: index of the voxel along each axis.
        size: size of the patch in voxels along each axis.

    Returns:
        The image (C, *size), padded with 0, and the target (*size), padded with 255 (ignored).
    """
    window, padding = [], []
    for middle, patch, volume in zip(centre, size, target.shape, strict=True):
        start = min(max(middle - patch // 2, 0), max(volume - patch, 0))
        window.append(slice(start, start + patch))
        missing = max(patch - volume, 0)
        padding = [missing // 2, missing - missing // 2, *padding]  # F.pad expects the padding of the last axis first
    image, target = image[(slice(None), *window)], target[tuple(window)]
    return F.pad(image, padding), F.pad(target, padding, value=255)


def augment(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror each axis with probability 1/2, change brightness and contrast slightly, and add noise."""
    axes = [axis for axis in range(target.ndim) if _draw(2)]
    return augment_intensity(image.flip([axis + 1 for axis in axes]), target.flip(axes))


def augment_intensity(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Apply `augment` without mirroring.

    Use it if left and right are different classes, or if there are too few patches to learn from mirrored ones.
    """
    contrast, shift = torch.empty(2).uniform_(-1, 1).tolist()
    image = image * (1 + 0.25 * contrast) + 0.1 * shift
    return image + 0.1 * torch.rand(()) * torch.randn(image.shape), target


def train_network(
    network: nn.Module,
    patches: Patches,
    steps: int,
    seed: int = 0,
    optimizer: Callable[[Iterable], torch.optim.Optimizer] = nesterov,
    on_step: Callable[[int, float], None] | None = None,
) -> nn.Module:
    """Train with deep supervision and the polynomial learning-rate schedule (1 - step / steps) ** 0.9.

    Args:
        network: the network, from `build_network`. It is trained in place.
        patches: the training set. The batch size is that of its plan.
        steps: number of training iterations; 250,000 in the paper.
        seed: seed of torch's global generator, from which patches and augmentations are drawn.
        optimizer: function that builds an optimiser from the parameters. The default is the paper's SGD.
        on_step: function called after each iteration with its index and the loss, for example to show progress.

    Returns:
        The network, in training mode.
    """
    check_integer("steps", steps)
    torch.manual_seed(seed)
    network.train()
    opt = optimizer(network.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: (1 - step / steps) ** DECAY)
    batch, device = patches.plan.batch_size, next(network.parameters()).device
    for step in range(steps):
        pairs = [patches[i] for i in range(step * batch, (step + 1) * batch)]
        images, target = (torch.stack(parts).to(device) for parts in zip(*pairs, strict=True))
        loss = nnunet_loss(network.forward_with_aux(images), target, batch_dice=target.ndim == 3)["loss"]
        if not np.isfinite(loss.item()):
            raise ValueError(f"the loss is {loss.item()} at iteration {step}, expected a finite value")
        opt.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
        opt.step()
        schedule.step()
        if on_step is not None:
            on_step(step, loss.item())
    return network


def _draw(below: int) -> int:
    return int(torch.randint(below, ()))
