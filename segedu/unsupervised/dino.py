"""DINO: self-supervised features, from a student network that learns to match a moving average of itself.

Paper: Caron, Touvron, Misra, Jégou, Mairal, Bojanowski, Joulin, "Emerging Properties in Self-Supervised Vision
    Transformers", ICCV 2021, arXiv 2104.14294.
Idea: A student and a teacher of the same architecture see different crops of an image. Each outputs a distribution
    over K prototype classes, and the student learns to predict the teacher's. The teacher's weights are the moving
    average of the student's. Its outputs are centred, so that no class dominates, and sharpened, so that they do not
    become uniform: together, this prevents a collapse to one output for all images. In the backbone's feature maps,
    objects stand out in the principal components and in the attention of the token `cls`.
Simplified: one process, so the centre is the mean of the local batch. The last layer's vectors have length 1, which
    the paper's authors chose for stability; freezing it in the first epoch is left to the training loop. `MultiCrop`
    also returns the location of each crop, which the paper does not need: segedu/weights/own/scenes_vit.py uses it to
    match patches.
Shapes: `MultiCrop`: image (3, H, W) -> 2 crops (3, G, G), n crops (3, S, S) and boxes (2 + n, 4). `DINOHead`:
    (..., D) -> (..., K). `dino_loss`: lists of (B, K) -> scalar. The rest: see each function.
Quality: a small ViT was trained in this way (34 s of CPU time, segedu/weights/own/scenes_vit.py). k-means on its
    features reaches an adjusted Rand index of 0.581 on 50 streets and 50 scenes of shapes; k-means on colours: 0.474.
Course: 02-clustering
Lab: 02_clustering
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from segedu.backbones.vit import ViT
from segedu.validation.numbers import check_integer, check_integers, check_number
from segedu.validation.tensors import check_floats, check_tensor


class DINOHead(nn.Module):
    """The paper's projection head: an MLP, a bottleneck of length 1, and its cosine with K learned directions.

    Args:
        embed_dim: D of the features.
        outputs: K, the prototype classes; the paper's 65536 are for ImageNet.
        hidden: width of the MLP.
        bottleneck: dimension of the bottleneck.
        layers: linear layers of the MLP, including the one to the bottleneck.
    """

    def __init__(
        self, embed_dim: int, outputs: int = 65536, hidden: int = 2048, bottleneck: int = 256, layers: int = 3
    ) -> None:
        super().__init__()
        check_integers(outputs=outputs, hidden=hidden, bottleneck=bottleneck, layers=layers)
        widths = [embed_dim, *[hidden] * (layers - 1), bottleneck]
        modules = []
        for i in range(layers):
            modules += [nn.Linear(widths[i], widths[i + 1]), nn.GELU()]
        self.mlp = nn.Sequential(*modules[:-1])  # no activation after the last layer
        self.directions = nn.Parameter(torch.empty(outputs, bottleneck))
        linear = [layer for layer in self.mlp if isinstance(layer, nn.Linear)]
        for weight in (self.directions, *(layer.weight for layer in linear)):
            nn.init.trunc_normal_(weight, std=0.02)
        for layer in linear:
            nn.init.zeros_(layer.bias)

    def project(self, features: Tensor) -> Tensor:
        """Map features (..., D) to the bottleneck (..., bottleneck), vectors of length 1."""
        return F.normalize(self.mlp(features), dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        return self.project(features) @ F.normalize(self.directions, dim=-1).T  # (..., K) in [-1, 1]


class MultiCrop:
    """Two large (global) and several small (local) crops of an image, with random flips, colours and blur.

    Args:
        global_size: height and width of the two large crops in pixels.
        local_size: height and width of the small crops in pixels.
        local_crops: number of small crops.
        global_scale: smallest and largest fraction of the image's area in a large crop.
        local_scale: the same for a small crop.
        colour: strength of the changes of brightness, contrast, saturation and hue.
        grayscale: probability that a crop becomes grey.
        solarise: probability that the second large crop is solarised: its bright pixels are inverted.
    """

    def __init__(
        self,
        global_size: int = 224,
        local_size: int = 96,
        local_crops: int = 8,
        global_scale: tuple[float, float] = (0.4, 1.0),
        local_scale: tuple[float, float] = (0.05, 0.4),
        colour: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1),
        grayscale: float = 0.2,
        solarise: float = 0.2,
    ) -> None:
        for name, (smallest, largest) in (("global_scale", global_scale), ("local_scale", local_scale)):
            if not 0 < smallest <= largest <= 1:
                raise ValueError(f"{name} is {(smallest, largest)}, expected 0 < smallest <= largest <= 1")
        check_integers(global_size=global_size, local_size=local_size)
        check_integer("local_crops", local_crops, 0)
        large, small = v2.RandomResizedCrop(global_size, global_scale), v2.RandomResizedCrop(local_size, local_scale)
        self.croppers = [large] * 2 + [small] * local_crops
        self.sizes = [global_size] * 2 + [local_size] * local_crops
        colour_transforms = [v2.RandomApply([v2.ColorJitter(*colour)], p=0.8), v2.RandomGrayscale(p=grayscale)]
        self.colour, self.solarise = v2.Compose(colour_transforms), v2.RandomSolarize(0.5, p=solarise)

    def __call__(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Crop one image.

        Args:
            image: (3, H, W) float in [0, 1].

        Returns:
            The crops, large ones first, and their locations (2 + n, 4): x, y of a crop's upper left and lower right
            corner in pixels of the image. If a crop is flipped, its first x is the larger one.
        """
        check_floats("image", image, "3 H W")
        crops, boxes = [], []
        for index, (cropper, size) in enumerate(zip(self.croppers, self.sizes, strict=True)):
            box = cropper.make_params([image])
            top, left, height, width = (box[name] for name in ("top", "left", "height", "width"))
            crop = v2.functional.resized_crop(image, top, left, height, width, [size, size])
            flipped = torch.rand(()) < 0.5
            crops.append(self._augment(crop.flip(-1) if flipped else crop, index))
            sides = (left + width, left) if flipped else (left, left + width)
            boxes.append([sides[0], top, sides[1], top + height])
        return crops, torch.tensor(boxes, dtype=torch.float32)

    def _augment(self, crop: Tensor, index: int) -> Tensor:
        """Change colours, then blur: the first crop always, the second with probability 0.1, local crops with 0.5."""
        crop = self.colour(crop)
        if torch.rand(()) < (1.0, 0.1, 0.5)[min(index, 2)]:
            # Paper: up to 2 pixels in crops of 224; here in proportion to the size of the crop
            sigma = float(torch.empty(()).uniform_(0.1, 2.0)) * crop.shape[1] / 224
            crop = v2.functional.gaussian_blur(crop, 2 * math.ceil(2 * sigma) + 1, sigma)
        return (self.solarise(crop) if index == 1 else crop).clamp(0, 1)


def dino_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    centre: Tensor,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Tensor:
    """Cross-entropy of the teacher's and the student's distributions, over all pairs of different crops: equation 3.

    Args:
        student: outputs (B, K) of the head, one for each crop, beginning with the teacher's crops in the same order.
        teacher: outputs (B, K), one for each large crop; no gradient flows into them.
        centre: (K,), which is subtracted from the teacher's outputs, see `update_centre`.
        student_temperature: divides the outputs before the softmax.
        teacher_temperature: usually smaller, which makes the teacher's distribution sharper.

    Returns:
        A scalar, the mean over pairs and images.
    """
    if not 0 < len(teacher) <= len(student) or len(student) < 2:
        raise ValueError(
            f"student and teacher have {len(student)} and {len(teacher)} crops, expected at least 2 and 1, and the "
            f"teacher's crops among the student's"
        )
    shapes = {tuple(outputs.shape) for outputs in (*student, *teacher)}
    if len(shapes) > 1 or len(next(iter(shapes))) != 2 or centre.shape != student[0].shape[1:]:
        raise ValueError(
            f"outputs have the shapes {sorted(shapes)} and centre {tuple(centre.shape)}, expected one (B, K) and (K,)"
        )
    check_number("student_temperature", student_temperature, exclusive=True)
    check_number("teacher_temperature", teacher_temperature, exclusive=True)
    losses = []
    for i, teacher_outputs in enumerate(teacher):
        target = ((teacher_outputs.detach() - centre) / teacher_temperature).softmax(dim=1)  # (B, K)
        for j, student_outputs in enumerate(student):
            if i != j:
                losses.append(F.cross_entropy(student_outputs / student_temperature, target))
    return torch.stack(losses).mean()


def update_centre(centre: Tensor, teacher: Sequence[Tensor], momentum: float = 0.9) -> Tensor:
    """The moving average of the teacher's outputs: equation 4.

    Args:
        centre: (K,), the previous centre.
        teacher: outputs (B, K), one for each large crop.
        momentum: weight of the previous centre.

    Returns:
        (K,), a new tensor without gradient.
    """
    check_number("momentum", momentum, maximum=1)
    return momentum * centre + (1 - momentum) * torch.cat(list(teacher)).detach().mean(dim=0)


def teacher_momentum(step: int, steps: int, start: float = 0.996) -> float:
    """The momentum of the teacher's weights: half a cosine from `start` to 1.

    Args:
        step: index of the iteration, from 0 to `steps`.
        steps: number of training iterations.
        start: momentum at the first iteration.
    """
    check_number("start", start, maximum=1)
    check_integer("steps", steps)
    check_integer("step", step, 0, steps)
    return 1 - (1 - start) * (math.cos(math.pi * step / steps) + 1) / 2


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Update the moving average of the weights: teacher = m teacher + (1 - m) student.

    Args:
        teacher: changed in place; its buffers are copied from the student.
        student: network of the same architecture.
        momentum: m, see `teacher_momentum`.
    """
    check_number("momentum", momentum, maximum=1)
    weights, new_weights = dict(teacher.named_parameters()), dict(student.named_parameters())
    if {name: w.shape for name, w in weights.items()} != {name: w.shape for name, w in new_weights.items()}:
        raise ValueError("teacher and student have different weights, expected a teacher made by copy.deepcopy")
    for name, weight in weights.items():
        weight.lerp_(new_weights[name], 1 - momentum)
    for buffer, new_buffer in zip(teacher.buffers(), student.buffers(), strict=True):
        buffer.copy_(new_buffer)


class PrincipalComponents(NamedTuple):
    """Directions of largest variance of features.

    Attributes:
        scores: (N, n), coordinates of each feature along the directions.
        components: (n, D), orthonormal, in decreasing order of variance.
        mean: (D,), which is subtracted first.
    """

    scores: Tensor
    components: Tensor
    mean: Tensor


def principal_components(features: Tensor, n: int = 3) -> PrincipalComponents:
    """The n directions of largest variance; three of them visualise a feature map as colours.

    The sign of a direction is arbitrary. Here, its entry of largest absolute value is positive.

    Args:
        features: (N, D).
        n: at most N and D.
    """
    check_tensor("features", features, "N D")
    check_integer("n", n, 1, min(features.shape))
    mean = features.mean(dim=0)
    directions = torch.linalg.svd(features - mean, full_matrices=False)[2][:n]  # (n, D)
    largest = directions.abs().argmax(dim=1, keepdim=True)
    directions = directions * directions.gather(1, largest).sign()
    return PrincipalComponents((features - mean) @ directions.T, directions, mean)


def foreground(features: Tensor) -> Tensor:
    """Split patches at the mean along the first component, and take the side that covers less of the image's border.

    Args:
        features: (h, w, D).

    Returns:
        (h, w) bool.
    """
    check_tensor("features", features, "h w D")
    height, width, _ = features.shape
    side = principal_components(features.flatten(0, 1), 1).scores.view(height, width) > 0
    border = torch.ones_like(side)
    border[1:-1, 1:-1] = False
    return ~side if side[border].float().mean() > 0.5 else side


@torch.no_grad()
def self_attention_maps(vit: ViT, images: Tensor, block: int = -1) -> Tensor:
    """Attention of the token `cls` to each patch, in each head: the paper's figure 1.

    Args:
        vit: a backbone.
        images: (B, 3, H, W) in [0, 1], H and W multiples of its patch size.
        block: index of the block, -1 for the last.

    Returns:
        (B, heads, h, w), at least 0. The sum over patches is 1 minus the attention to `cls` itself and to registers.
    """
    rows, columns = (size // vit.patch_size for size in images.shape[-2:])
    return vit.attention(images, block)[:, :, 0, -rows * columns :].unflatten(2, (rows, columns))


def attention_masks(maps: Tensor, keep: float = 0.6) -> Tensor:
    """The fewest patches that together have the fraction `keep` of a head's attention: the paper's figure 4.

    Args:
        maps: (..., h, w), at least 0, for example of `self_attention_maps`.
        keep: a fraction in [0, 1].

    Returns:
        (..., h, w) bool.
    """
    check_number("keep", keep, maximum=1)
    shares, order = maps.flatten(-2).sort(dim=-1, descending=True)
    before = shares.cumsum(dim=-1) - shares  # sum over all patches with more attention
    is_selected = before < keep * shares.sum(dim=-1, keepdim=True)
    return torch.zeros_like(is_selected).scatter(-1, order, is_selected).view(maps.shape)
