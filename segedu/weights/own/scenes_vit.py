"""A small ViT trained without labels on synthetic streets and shapes.

It is trained by DINO's self-distillation of whole crops and, beyond the paper, of patches: the student's patches learn
to predict the teacher's output near the same position in another crop, because neighbouring patches mostly show the
same thing (Yun, Lee, Kim, Shin, "Patch-level Representation Learning for Self-supervised Vision Transformers", CVPR
2022, arXiv 2206.07990, use neighbours in the same crop). A few hundred steps are too few for the `cls` token to shape
the patches. The teacher's outputs for patches are balanced over the classes as in SwAV and DINOv2, instead of DINO's
centring.

`python -m segedu.weights.own.scenes_vit` makes scenes_vit.safetensors and its log, scenes_vit.json, again; with a seed
and a file as arguments it trains a second ViT. tests/benchmarks/feature_clusters.py clusters the features with k-means:
the adjusted Rand index is 0.581, that of colours 0.474. It depends strongly on the seed: seed 1 reaches 0.544. None of
the following was better on validation scenes, with one or two seeds each: 1000 steps with twice the batch size, more or
fewer classes, a wider or deeper ViT, other crops, trainable directions, and other strengths of colour changes.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from segedu.backbones.vit import ViT
from segedu.datasets.shapes import SHAPES_VERSION, draw_shapes
from segedu.datasets.street import STREET_VERSION, draw_street
from segedu.unsupervised.dino import DINOHead, MultiCrop, dino_loss, teacher_momentum, update_centre, update_teacher
from segedu.weights.catalogue import SCENES_VIT

FILE = Path(__file__).with_suffix(".safetensors")
SCENES_SEED, SCENES, STEPS, BATCH, RATE, SEED = 3_000_000, 384, 500, 8, 1e-3, 0  # recipes draw scenes with other seeds
WINDOW, CROP, SCALE = 64, 32, (0.1, 0.75)  # pixels of a window and of a crop; fraction of the window that a crop shows
COLOUR = (0.6, 0.6, 0.2, 0.0)  # changes of brightness, contrast, saturation, hue
CLASSES, BOTTLENECK = 32, 32
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.06
MOMENTUM = 0.95  # of the teacher at the first step; low because training is short
NEAR = 8.0  # pixels of a scene: standard deviation of the offset between student and teacher positions
WEIGHT_OF_WHOLE = 0.05


def draw(number: int) -> Tensor:
    """Draw `number` windows of streets and as many scenes of shapes, alternating: uint8 (2 * number, 3, 64, 64)."""
    windows, generator = [], torch.Generator().manual_seed(SCENES_SEED)
    for i in tqdm(range(number), desc="draw", unit="scene"):
        street = draw_street((SCENES_SEED, i))["image"]
        top, left = (int(torch.randint(size - WINDOW + 1, (), generator=generator)) for size in street.shape[1:])
        windows += [street[:, top : top + WINDOW, left : left + WINDOW], draw_shapes((SCENES_SEED, i))["image"]]
    return (torch.stack(windows) * 255).round().to(torch.uint8)


def matching_positions(boxes: Tensor, other_boxes: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Positions near the patches of one crop, in the coordinates of another crop of the same image.

    Args:
        boxes: (B, 4) crops from `MultiCrop`; x0 > x1 in a mirrored crop.
        other_boxes: (B, 4) of the other crops.
        grid: number of patches along a side of a crop.

    Returns:
        Positions (B, grid, grid, 2) in the other crop as in `grid_sample`, (x, y), -1 and 1 at its sides; and whether
        the other crop has four patches around the position, (B, grid, grid).
    """
    centres = (torch.arange(grid) + 0.5) / grid
    corners, sides = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    x = (corners[:, :1] + sides[:, :1] * centres)[:, None, :].expand(-1, grid, -1)  # (B, grid, grid), x
    y = (corners[:, 1:] + sides[:, 1:] * centres)[:, :, None].expand(-1, -1, grid)
    positions = torch.stack([x, y], dim=-1)
    positions = positions + NEAR * torch.randn_like(positions)
    fractions = (positions - other_boxes[:, None, None, :2]) / (other_boxes[:, 2:] - other_boxes[:, :2])[:, None, None]
    positions = 2 * fractions - 1
    return positions, (positions.abs() <= 1 - 1 / grid).all(dim=-1)


def whitening(images: Tensor) -> nn.Conv2d:
    """A fixed 1 x 1 convolution that whitens the colours of images, uint8 (N, 3, H, W), to a standard deviation of 0.3.

    Synthetic scenes differ most in brightness. After whitening, the ViT also uses the rest of a colour from the start.
    """
    pixels = images.float().permute(1, 0, 2, 3).flatten(1) / 255  # (3, N H W)
    variances, axes = torch.linalg.eigh(torch.cov(pixels))
    matrix = 0.3 * (axes / variances.sqrt()) @ axes.T
    white = nn.Conv2d(3, 3, kernel_size=1).requires_grad_(False)
    white.weight.copy_(matrix[:, :, None, None])
    white.bias.copy_(-matrix @ pixels.mean(dim=1))
    return white


@torch.no_grad()
def fold(vit: ViT) -> ViT:
    """Merge the whitening in `vit.normalize` into the patch embedding, in place: the file is that of a plain ViT."""
    embedding, whitening = vit.patch_embed.proj, vit.normalize
    embedding.bias += torch.einsum("dchw,c->d", embedding.weight, whitening.bias)
    embedding.weight.copy_(torch.einsum("dchw,ce->dehw", embedding.weight, whitening.weight[:, :, 0, 0]))
    vit.normalize = nn.Identity()
    return vit


class Distilled(nn.Module):
    """A ViT with a head for whole crops and a head for patches.

    Paper: vectors are batch-normalised before they are scaled to length 1, and the directions of the classes stay
    frozen; the paper trains them after the first epoch. Without this, the patches of a small network are at first so
    similar that training collapses: all directions become one, and all outputs are equal.
    """

    def __init__(self, normalize: nn.Module) -> None:
        super().__init__()
        self.vit = ViT(**SCENES_VIT, normalize=normalize)
        heads = (DINOHead(self.vit.embed_dim, CLASSES, bottleneck=BOTTLENECK, layers=1) for _ in range(2))
        self.whole, self.patches = heads
        for head in (self.whole, self.patches):
            head.mlp.append(nn.BatchNorm1d(BOTTLENECK, affine=False))
            head.directions.requires_grad_(False)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        features = self.vit(crops)
        patches = features["patches"].permute(0, 2, 3, 1)  # (B, h, w, D)
        scores = self.patches(patches.flatten(0, 2)).unflatten(0, patches.shape[:3])
        return self.whole(features["cls"]), scores.permute(0, 3, 1, 2)  # (B, K) and (B, K, h, w)


def sinkhorn_knopp(scores: Tensor, iterations: int = 3) -> Tensor:
    """Class probabilities of each patch that use all classes about equally often, from scores (P, K).

    Each iteration divides by the sums over the patches, then over the classes. Rows of the result (P, K) sum to 1.
    """
    probabilities = (scores / TEACHER_TEMPERATURE).exp()
    for _ in range(iterations):
        probabilities = probabilities / probabilities.sum(dim=0, keepdim=True)
        probabilities = probabilities / probabilities.sum(dim=1, keepdim=True)
    return probabilities


def patch_loss(student: Tensor, teacher: Tensor, student_boxes: Tensor, teacher_boxes: Tensor) -> Tensor:
    """Cross-entropy between the student's patches and the teacher's output near the same positions in the other crop.

    Args:
        student: (B, K, h, h), of crops with the boxes `student_boxes`.
        teacher: (B, K, h, h), of crops with the boxes `teacher_boxes`.
        student_boxes: (B, 4).
        teacher_boxes: (B, 4).

    Returns:
        A scalar, the mean over patches whose positions lie in both crops.
    """
    positions, shared = matching_positions(student_boxes, teacher_boxes, student.shape[2])
    targets = F.grid_sample(teacher, positions, align_corners=False).permute(0, 2, 3, 1)[shared]  # (P, K)
    logits = student.permute(0, 2, 3, 1)[shared]
    return F.cross_entropy(logits / STUDENT_TEMPERATURE, sinkhorn_knopp(targets))


def batch_of(images: Tensor, crop: MultiCrop) -> tuple[list[Tensor], list[Tensor]]:
    """A batch (B, 3, h, h) and the boxes (B, 4) for each of the two crops."""
    picks = torch.randint(len(images) // 2, (BATCH // 2, 2)) * 2 + torch.arange(2)  # as many streets as shapes
    pairs = [crop(images[i].float() / 255) for i in picks.flatten().tolist()]
    crops = [torch.stack([pieces[side] for pieces, _ in pairs]) for side in (0, 1)]
    return crops, [torch.stack([boxes[side] for _, boxes in pairs]) for side in (0, 1)]


def loss_of(student: Distilled, teacher: Distilled, batch: tuple, centre: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of one batch, and the new centre."""
    crops, boxes = batch
    both = torch.cat(crops)  # one batch, so that batch normalisation covers both crops
    with torch.no_grad():
        teacher_whole, teacher_patches = (part.chunk(2) for part in teacher(both))
    student_whole, student_patches = (part.chunk(2) for part in student(both))
    loss = WEIGHT_OF_WHOLE * dino_loss(student_whole, teacher_whole, centre, STUDENT_TEMPERATURE, TEACHER_TEMPERATURE)
    for first, second in ((0, 1), (1, 0)):
        loss = loss + patch_loss(student_patches[first], teacher_patches[second], boxes[first], boxes[second]) / 2
    return loss, update_centre(centre, teacher_whole)


def train(images: Tensor, steps: int = STEPS, seed: int = SEED, every: int = 100) -> tuple[ViT, list[float]]:
    """The teacher's ViT after `steps` steps, and the mean loss of every `every` steps."""
    torch.manual_seed(seed)
    crop = MultiCrop(CROP, local_crops=0, global_scale=SCALE, colour=COLOUR, grayscale=0, solarise=0)
    student = Distilled(whitening(images))
    teacher, centre = copy.deepcopy(student).requires_grad_(False), torch.zeros(CLASSES)
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.04)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.03)
    losses = torch.zeros(steps)
    for step in tqdm(range(steps), desc="train", unit="step"):
        loss, centre = loss_of(student, teacher, batch_of(images, crop), centre)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 3.0)
        optimizer.step()
        schedule.step()
        update_teacher(teacher, student, teacher_momentum(step, steps, MOMENTUM))
        losses[step] = loss.detach()
    return fold(teacher.vit), [round(float(part.mean()), 4) for part in losses.split(every)]


def main(steps: int = STEPS, seed: int = SEED, file: Path = FILE) -> None:
    """Draw the scenes, which do not depend on `seed`, train, and write the file and its log."""
    torch.set_num_threads(1)
    start = time.process_time()
    images = draw(SCENES)
    training_start = time.process_time()
    vit, losses = train(images, steps, seed)
    vit.half()  # the precision of the file
    save_file({name: tensor.contiguous() for name, tensor in vit.state_dict().items()}, file)
    log = {
        "street_version": STREET_VERSION,
        "shapes_version": SHAPES_VERSION,
        "scenes_of_each_kind": SCENES,
        "steps": steps,
        "seed": seed,
        "losses_of_100_steps": losses,
        "cpu_seconds_of_drawing": round(training_start - start),
        "cpu_seconds_of_training": round(time.process_time() - training_start),
        "torch": torch.__version__,
    }
    file.with_suffix(".json").write_text(json.dumps(log, indent=2) + "\n")


if __name__ == "__main__":
    seed, file = sys.argv[1:] if len(sys.argv) == 3 else (SEED, FILE)
    main(seed=int(seed), file=Path(file))
