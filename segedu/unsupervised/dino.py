"""DINO: a network that learns from its own average what an image shows, with no label.

Paper: Caron, Touvron, Misra, Jégou, Mairal, Bojanowski, Joulin, "Emerging Properties in Self-Supervised Vision
    Transformers", ICCV 2021, arXiv 2104.14294.
Idea: A student and a teacher of the same shape see different crops of an image and each give it a distribution over
    K made-up classes; the student learns to give what the teacher gives. The teacher is the running mean of the
    student, and never learns itself. Its output is centred, so that no class wins everywhere, and sharpened, so that
    not all classes come out equal: together they keep both from answering the same to every image. What remains in
    the backbone is a map of features in which objects stand out, by their principal components and in what the
    token `cls` attends to.
Simplified: one process, so the centre is the mean of the batch that it is given. The last layer's vectors have length
    1, which the paper's authors chose for stability; its freezing in the first epoch is left to the loop. `MultiCrop`
    also tells where each crop lies, which the paper does not need: segedu/weights/own/scenes_vit.py pairs patches with
    it.
Shapes: `MultiCrop`: image (3, H, W) -> 2 crops (3, G, G), n crops (3, S, S) and boxes (2 + n, 4). `DINOHead`:
    (..., D) -> (..., K). `dino_loss`: lists of (B, K) -> scalar. The rest: see each function.
Quality: k-means on the features of a small ViT trained so (34 CPU-s, segedu/weights/own/scenes_vit.py) agrees with the
    truth of 50 streets and 50 scenes of shapes by an adjusted Rand index of 0.581; on colours by 0.474.
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


class DINOHead(nn.Module):
    """The paper's projection: an MLP, a narrow vector of length 1, and its cosine with K learnt directions.

    Args:
        embed_dim: D of the features.
        outputs: K, the made-up classes; the paper's 65536 are for ImageNet.
        hidden: width of the MLP.
        bottleneck: length of the narrow vector.
        layers: linear maps of the MLP, the one to the bottleneck included.
    """

    def __init__(
        self, embed_dim: int, outputs: int = 65536, hidden: int = 2048, bottleneck: int = 256, layers: int = 3
    ) -> None:
        super().__init__()
        for name, number in (("outputs", outputs), ("hidden", hidden), ("bottleneck", bottleneck), ("layers", layers)):
            if number < 1:
                raise ValueError(f"{name} is {number}, expected at least 1")
        widths = [embed_dim, *[hidden] * (layers - 1), bottleneck]
        steps = []
        for i in range(layers):
            steps += [nn.Linear(widths[i], widths[i + 1]), nn.GELU()]
        self.mlp = nn.Sequential(*steps[:-1])  # none behind the last
        self.directions = nn.Parameter(torch.empty(outputs, bottleneck))
        for weight in (self.directions, *(step.weight for step in self.mlp if isinstance(step, nn.Linear))):
            nn.init.trunc_normal_(weight, std=0.02)
        for step in self.mlp:
            if isinstance(step, nn.Linear):
                nn.init.zeros_(step.bias)

    def project(self, features: Tensor) -> Tensor:
        """The vector of length 1 before the last layer.

        Args:
            features: (..., D).

        Returns:
            (..., bottleneck).
        """
        return F.normalize(self.mlp(features), dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        return self.project(features) @ F.normalize(self.directions, dim=-1).T  # (..., K) in [-1, 1]


class MultiCrop:
    """Two large crops and several small ones of an image, each mirrored, coloured and blurred at random.

    Args:
        global_size: height and width of the two large crops in pixels.
        local_size: of the small ones.
        local_crops: how many small ones.
        global_scale: least and largest share of the image's area that a large crop shows.
        local_scale: of a small one.
        colour: strength of the changes of brightness, contrast, saturation and hue.
        grey: how often a crop loses its colours.
        solarise: how often the second large crop's bright pixels are turned dark.
    """

    def __init__(
        self,
        global_size: int = 224,
        local_size: int = 96,
        local_crops: int = 8,
        global_scale: tuple[float, float] = (0.4, 1.0),
        local_scale: tuple[float, float] = (0.05, 0.4),
        colour: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1),
        grey: float = 0.2,
        solarise: float = 0.2,
    ) -> None:
        for name, (least, most) in (("global_scale", global_scale), ("local_scale", local_scale)):
            if not 0 < least <= most <= 1:
                raise ValueError(f"{name} is {(least, most)}, expected 0 < least <= largest <= 1")
        if min(global_size, local_size) < 1 or local_crops < 0:
            given = (global_size, local_size, local_crops)
            raise ValueError(f"global_size, local_size, local_crops are {given}, expected at least 1, 1 and 0")
        large, small = v2.RandomResizedCrop(global_size, global_scale), v2.RandomResizedCrop(local_size, local_scale)
        self.places, self.sizes = [large] * 2 + [small] * local_crops, [global_size] * 2 + [local_size] * local_crops
        changes = [v2.RandomApply([v2.ColorJitter(*colour)], p=0.8), v2.RandomGrayscale(p=grey)]
        self.colour, self.solarise = v2.Compose(changes), v2.RandomSolarize(0.5, p=solarise)

    def __call__(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Crop one image.

        Args:
            image: (3, H, W) float in [0, 1].

        Returns:
            The crops, large ones first, and where they lie: (2 + n, 4), the x, y of a crop's left upper and right
            lower corner in pixels of the image. Where a crop is mirrored, its left x is the larger one.

        Raises:
            TypeError: the image is not of floating-point numbers.
            ValueError: the image has another shape.
        """
        if not torch.is_floating_point(image):
            raise TypeError(f"image has dtype {image.dtype}, expected a floating-point type with values in [0, 1]")
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise ValueError(f"image has shape {tuple(image.shape)}, expected (3, H, W), no axis empty")
        crops, boxes = [], []
        for number, (place, size) in enumerate(zip(self.places, self.sizes, strict=True)):
            box = place.make_params([image])
            top, left, height, width = (box[name] for name in ("top", "left", "height", "width"))
            crop = v2.functional.resized_crop(image, top, left, height, width, [size, size])
            mirrored = torch.rand(()) < 0.5
            crops.append(self._change(crop.flip(-1) if mirrored else crop, number))
            sides = (left + width, left) if mirrored else (left, left + width)
            boxes.append([sides[0], top, sides[1], top + height])
        return crops, torch.tensor(boxes, dtype=torch.float32)

    def _change(self, crop: Tensor, number: int) -> Tensor:
        """Colours, then blur: always for the first crop, seldom for the second, which is at times solarised."""
        crop = self.colour(crop)
        if torch.rand(()) < (1.0, 0.1, 0.5)[min(number, 2)]:
            # Paper: up to 2 pixels, of crops of 224; here in proportion to the crop
            sigma = float(torch.empty(()).uniform_(0.1, 2.0)) * crop.shape[1] / 224
            crop = v2.functional.gaussian_blur(crop, 2 * math.ceil(2 * sigma) + 1, sigma)
        return (self.solarise(crop) if number == 1 else crop).clamp(0, 1)


def dino_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    centre: Tensor,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Tensor:
    """Cross-entropy of the teacher's distribution and the student's, over all pairs of different crops: equation 3.

    Args:
        student: outputs (B, K) of the head, one of each crop, the teacher's crops first and in its order.
        teacher: outputs (B, K), one of each large crop; no gradient goes into them.
        centre: (K,), which is subtracted from the teacher's outputs, see `update_centre`.
        student_temperature: outputs are divided by it before the softmax.
        teacher_temperature: a smaller one, which makes the teacher's distribution sharper.

    Returns:
        A scalar, the mean over pairs and images.

    Raises:
        ValueError: there is no pair of different crops, shapes disagree, or a temperature is not above 0.
    """
    if not 0 < len(teacher) <= len(student) or len(student) < 2:
        raise ValueError(
            f"student and teacher have {len(student)} and {len(teacher)} crops, expected at least 2 and 1, and those "
            f"of the teacher among those of the student"
        )
    shapes = {tuple(outputs.shape) for outputs in (*student, *teacher)}
    if len(shapes) > 1 or len(next(iter(shapes))) != 2 or centre.shape != student[0].shape[1:]:
        raise ValueError(
            f"outputs have the shapes {sorted(shapes)} and centre {tuple(centre.shape)}, expected one (B, K) and (K,)"
        )
    if not (student_temperature > 0 and teacher_temperature > 0):
        raise ValueError(f"temperatures are {student_temperature} and {teacher_temperature}, expected above 0")
    losses = []
    for number, outputs in enumerate(teacher):
        target = ((outputs.detach() - centre) / teacher_temperature).softmax(dim=1)  # (B, K)
        for other, answers in enumerate(student):
            if other != number:
                losses.append(F.cross_entropy(answers / student_temperature, target))
    return torch.stack(losses).mean()


def update_centre(centre: Tensor, teacher: Sequence[Tensor], momentum: float = 0.9) -> Tensor:
    """The running mean of what the teacher gives: equation 4.

    Args:
        centre: (K,), the one before.
        teacher: outputs (B, K), one of each large crop.
        momentum: share of the old centre in the new one.

    Returns:
        (K,), a new tensor without gradient.

    Raises:
        ValueError: momentum is not in [0, 1].
    """
    _check_share("momentum", momentum)
    return momentum * centre + (1 - momentum) * torch.cat(list(teacher)).detach().mean(dim=0)


def teacher_momentum(step: int, steps: int, start: float = 0.996) -> float:
    """The share of the old teacher in the new one: from `start` along half a cosine to 1.

    Args:
        step: 0 for the first.
        steps: how many there will be.
        start: at the first step.

    Returns:
        A number in [start, 1].

    Raises:
        ValueError: step is not in 0 to steps, or start is not in [0, 1].
    """
    _check_share("start", start)
    if not 0 <= step <= steps or steps < 1:
        raise ValueError(f"step is {step} of {steps}, expected 0 to steps, and steps at least 1")
    return 1 - (1 - start) * (math.cos(math.pi * step / steps) + 1) / 2


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move every weight of the teacher towards the student's: teacher = m teacher + (1 - m) student.

    Args:
        teacher: is changed; buffers are copied.
        student: of the same shape.
        momentum: m, see `teacher_momentum`.

    Raises:
        ValueError: momentum is not in [0, 1], or the two have different weights.
    """
    _check_share("momentum", momentum)
    theirs = dict(student.named_parameters())
    if {name: weight.shape for name, weight in teacher.named_parameters()} != {n: w.shape for n, w in theirs.items()}:
        raise ValueError("teacher and student have different weights, expected a teacher made by copy.deepcopy")
    for name, weight in teacher.named_parameters():
        weight.lerp_(theirs[name], 1 - momentum)
    for kept, new in zip(teacher.buffers(), student.buffers(), strict=True):
        kept.copy_(new)


class PrincipalComponents(NamedTuple):
    """Directions in which features differ most.

    Attributes:
        scores: (N, n), each feature's coordinates along them.
        components: (n, D), of length 1 and at right angles, those of the largest variance first.
        mean: (D,), which is subtracted first.
    """

    scores: Tensor
    components: Tensor
    mean: Tensor


def principal_components(features: Tensor, n: int = 3) -> PrincipalComponents:
    """The n directions of largest variance; three of them make a picture of a feature map.

    A direction and its opposite serve equally: here the entry of largest size is positive.

    Args:
        features: (N, D).
        n: how many, at most N and D.

    Returns:
        Scores, components and mean.

    Raises:
        ValueError: features have another shape, or n is too large.
    """
    if features.ndim != 2 or not 1 <= n <= min(features.shape):
        raise ValueError(f"features has shape {tuple(features.shape)} and n is {n}, expected (N, D) and 1 to min(N, D)")
    mean = features.mean(dim=0)
    directions = torch.linalg.svd(features - mean, full_matrices=False)[2][:n]  # (n, D)
    largest = directions.abs().argmax(dim=1, keepdim=True)
    directions = directions * directions.gather(1, largest).sign()
    return PrincipalComponents((features - mean) @ directions.T, directions, mean)


def foreground(features: Tensor) -> Tensor:
    """The patches on one side of the mean along the first component: the side that has less of the image's border.

    Args:
        features: (h, w, D).

    Returns:
        (h, w) bool.

    Raises:
        ValueError: features have another shape.
    """
    if features.ndim != 3 or 0 in features.shape:
        raise ValueError(f"features has shape {tuple(features.shape)}, expected (h, w, D), no axis empty")
    height, width, _ = features.shape
    side = principal_components(features.flatten(0, 1), 1).scores.view(height, width) > 0
    border = torch.ones_like(side)
    border[1:-1, 1:-1] = False
    return ~side if side[border].float().mean() > 0.5 else side


@torch.no_grad()
def self_attention_maps(vit: ViT, images: Tensor, block: int = -1) -> Tensor:
    """What the token `cls` takes from each patch, in each head: the paper's figure 1.

    Args:
        vit: a backbone.
        images: (B, 3, H, W) in [0, 1], H and W multiples of its patch size.
        block: its index, -1 for the last.

    Returns:
        (B, heads, h, w), not negative; over the patches a head's shares sum to 1 less what `cls` takes from itself
        and from registers.
    """
    rows, columns = (size // vit.patch_size for size in images.shape[-2:])
    return vit.attention(images, block)[:, :, 0, -rows * columns :].unflatten(2, (rows, columns))


def attention_masks(maps: Tensor, keep: float = 0.6) -> Tensor:
    """The fewest patches that together have the share `keep` of a head's attention: the paper's figure 4.

    Args:
        maps: (..., h, w), not negative, such as of `self_attention_maps`.
        keep: a share in [0, 1].

    Returns:
        (..., h, w) bool.

    Raises:
        ValueError: keep is not in [0, 1].
    """
    _check_share("keep", keep)
    shares, order = maps.flatten(-2).sort(dim=-1, descending=True)
    before = shares.cumsum(dim=-1) - shares  # of all patches that take more
    needed = before < keep * shares.sum(dim=-1, keepdim=True)
    return torch.zeros_like(needed).scatter(-1, order, needed).view(maps.shape)


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{name} is {share}, expected a number in [0, 1]")
