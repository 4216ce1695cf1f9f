"""The small ViT that learnt from drawn streets and shapes without a label, and how.

It is trained by DINO's self-distillation, of whole crops and, beyond the paper, of patches: the student's patches learn
to give what the teacher's give in another crop near the same place, as neighbours mostly show the same thing (Yun, Lee,
Kim, Shin, "Patch-level Representation Learning for Self-supervised Vision Transformers", CVPR 2022, arXiv 2206.07990,
take neighbours of one crop). A few hundred steps are too few for the token `cls` to shape the patches. What the
teacher says of patches is evened out over the classes as SwAV and DINOv2 do, in place of DINO's centre.

`python -m segedu.weights.own.scenes_vit` makes scenes_vit.safetensors and its log, scenes_vit.json, anew; a seed and a
file behind it train a second ViT. tests/benchmarks/feature_clusters.py measures what k-means makes of the features: an
adjusted Rand index of 0.581, of colours 0.474. Training leaves much to chance: seed 1 comes to 0.544. It gets no better
by going on: 1000 steps of twice the batch, more classes or fewer, a wider or a deeper ViT, other crops, directions that
learn and other strengths of colour changes: with one or two seeds each, none was better on scenes kept for choosing.
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
SCENES_SEED, SCENES, STEPS, BATCH, RATE, SEED = 3_000_000, 384, 500, 8, 1e-3, 0  # recipes draw with other seeds
WINDOW, CROP, SCALE = 64, 32, (0.1, 0.75)  # pixels of a part of a scene and of a crop, and which share crops show
COLOUR = (0.6, 0.6, 0.2, 0.0)  # changes of brightness, contrast, saturation, hue
CLASSES, BOTTLENECK = 32, 32
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.06
MOMENTUM = 0.95  # of the teacher at the first step: training is short
NEAR = 8.0  # pixels of a scene, standard deviation of where the teacher looks
WEIGHT_OF_WHOLE = 0.05


def draw(number: int) -> Tensor:
    """uint8 (2 number, 3, 64, 64): a window of each of so many streets, and as many scenes of shapes."""
    windows, generator = [], torch.Generator().manual_seed(SCENES_SEED)
    for i in tqdm(range(number), desc="draw", unit="scene"):
        street = draw_street((SCENES_SEED, i))["image"]
        top, left = (int(torch.randint(size - WINDOW + 1, (), generator=generator)) for size in street.shape[1:])
        windows += [street[:, top : top + WINDOW, left : left + WINDOW], draw_shapes((SCENES_SEED, i))["image"]]
    return (torch.stack(windows) * 255).round().to(torch.uint8)


def same_places(here: Tensor, there: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Where near the patches of one crop one looks in another crop of the same image.

    Args:
        here: boxes (B, 4) as `MultiCrop` gives them, x0 > x1 where mirrored.
        there: boxes of the other crops.
        grid: patches along a side of either.

    Returns:
        Places (B, grid, grid, 2) in the other crop, x then y, -1 and 1 at its sides, as `grid_sample` reads them;
        and whether the other crop has four patches around that place, (B, grid, grid).
    """
    middles = (torch.arange(grid) + 0.5) / grid
    corners, sides = here[:, :2], here[:, 2:] - here[:, :2]
    across = (corners[:, :1] + sides[:, :1] * middles)[:, None, :].expand(-1, grid, -1)  # (B, grid, grid), x
    down = (corners[:, 1:] + sides[:, 1:] * middles)[:, :, None].expand(-1, -1, grid)
    places = torch.stack([across, down], dim=-1)
    places = places + NEAR * torch.randn_like(places)
    shares = (places - there[:, None, None, :2]) / (there[:, 2:] - there[:, :2])[:, None, None]
    places = 2 * shares - 1
    return places, (places.abs() <= 1 - 1 / grid).all(dim=-1)


def whitening(images: Tensor) -> nn.Conv2d:
    """A linear map of colours after which the three numbers of a pixel vary alike and apart from each other.

    Drawn scenes differ most in brightness; this lets the ViT see the rest of a colour as well from the start.

    Args:
        images: uint8 (N, 3, H, W).

    Returns:
        A 1 x 1 convolution that does not learn; values then have standard deviation 0.3.
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
    """The ViT with the map of colours moved into the map of patches, so that its file is that of a plain ViT.

    Args:
        vit: whose `normalize` is what `whitening` gave; is changed.

    Returns:
        The same ViT.
    """
    first, white = vit.patch_embed.proj, vit.normalize
    first.bias += torch.einsum("dchw,c->d", first.weight, white.bias)
    first.weight.copy_(torch.einsum("dchw,ce->dehw", first.weight, white.weight[:, :, 0, 0]))
    vit.normalize = nn.Identity()
    return vit


class Distilled(nn.Module):
    """A ViT with a head for whole crops and a head for patches.

    Paper: vectors are normalised over the batch before they get length 1, and the directions of the made-up classes
    stay as they start; the paper frees them after an epoch. Otherwise the patches of a small network start so much
    alike that it turns all directions into one, and every answer is the same.
    """

    def __init__(self, normalize: nn.Module) -> None:
        super().__init__()
        self.vit = ViT(**SCENES_VIT, normalize=normalize)
        self.whole, self.places = (DINOHead(self.vit.embed_dim, CLASSES, bottleneck=BOTTLENECK, layers=1) for _ in "12")
        for head in (self.whole, self.places):
            head.mlp.append(nn.BatchNorm1d(BOTTLENECK, affine=False))
            head.directions.requires_grad_(False)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.vit(crops)
        patches = seen["patches"].permute(0, 2, 3, 1)  # (B, h, w, D)
        scores = self.places(patches.flatten(0, 2)).unflatten(0, patches.shape[:3])
        return self.whole(seen["cls"]), scores.permute(0, 3, 1, 2)  # (B, K) and (B, K, h, w)


def evened(scores: Tensor, rounds: int = 3) -> Tensor:
    """Shares of the classes for each patch, such that all classes are used alike: Sinkhorn and Knopp's way.

    Args:
        scores: (P, K).
        rounds: of dividing by the sums over patches, then over classes.

    Returns:
        (P, K), rows summing to 1.
    """
    shares = (scores / TEACHER_TEMPERATURE).exp()
    for _ in range(rounds):
        shares = shares / shares.sum(dim=0, keepdim=True)
        shares = shares / shares.sum(dim=1, keepdim=True)
    return shares


def patch_loss(student: Tensor, teacher: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """Cross-entropy of what the teacher says near a patch's place in the other crop and what the student says of it.

    Args:
        student: (B, K, h, h), of crops with the boxes `here`.
        teacher: (B, K, h, h), of crops with the boxes `there`.
        here: (B, 4).
        there: (B, 4).

    Returns:
        A scalar, the mean over patches whose places lie in both crops.
    """
    places, shared = same_places(here, there, student.shape[2])
    wanted = F.grid_sample(teacher, places, align_corners=False).permute(0, 2, 3, 1)[shared]  # (P, K)
    answers = student.permute(0, 2, 3, 1)[shared]
    return F.cross_entropy(answers / STUDENT_TEMPERATURE, evened(wanted))


def batch_of(images: Tensor, crop: MultiCrop) -> tuple[list[Tensor], list[Tensor]]:
    """Of each of the two crops the batch (B, 3, h, h) and the boxes (B, 4)."""
    picks = torch.randint(len(images) // 2, (BATCH // 2, 2)) * 2 + torch.arange(2)  # as many streets as shapes
    pairs = [crop(images[i].float() / 255) for i in picks.flatten().tolist()]
    crops = [torch.stack([pieces[side] for pieces, _ in pairs]) for side in (0, 1)]
    return crops, [torch.stack([boxes[side] for _, boxes in pairs]) for side in (0, 1)]


def loss_of(student: Distilled, teacher: Distilled, batch: tuple, centre: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of one batch, and the new centre."""
    crops, boxes = batch
    both = torch.cat(crops)  # one batch, that both normalise over
    with torch.no_grad():
        wanted, near = (part.chunk(2) for part in teacher(both))
    answers, places = (part.chunk(2) for part in student(both))
    loss = WEIGHT_OF_WHOLE * dino_loss(answers, wanted, centre, STUDENT_TEMPERATURE, TEACHER_TEMPERATURE)
    for here, there in ((0, 1), (1, 0)):
        loss = loss + patch_loss(places[here], near[there], boxes[here], boxes[there]) / 2
    return loss, update_centre(centre, wanted)


def train(images: Tensor, steps: int = STEPS, seed: int = SEED, every: int = 100) -> tuple[ViT, list[float]]:
    """The teacher's ViT after `steps` steps, and the mean loss of each `every` of them."""
    torch.manual_seed(seed)
    crop = MultiCrop(CROP, local_crops=0, global_scale=SCALE, colour=COLOUR, grey=0, solarise=0)
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
    """Draw, train, and write the file and its log beside this script.

    Args:
        steps: of the training.
        seed: of the training; scenes are always the same.
        file: where to, so that a second training can stand beside the first.
    """
    torch.set_num_threads(1)
    start = time.process_time()
    images = draw(SCENES)
    drawn = time.process_time()
    vit, losses = train(images, steps, seed)
    save_file({name: tensor.contiguous() for name, tensor in vit.state_dict().items()}, file)
    log = {
        "street_version": STREET_VERSION,
        "shapes_version": SHAPES_VERSION,
        "scenes_of_each_kind": SCENES,
        "steps": steps,
        "seed": seed,
        "losses_of_100_steps": losses,
        "cpu_seconds_of_drawing": round(drawn - start),
        "cpu_seconds_of_training": round(time.process_time() - drawn),
        "torch": torch.__version__,
    }
    file.with_suffix(".json").write_text(json.dumps(log, indent=2) + "\n")


if __name__ == "__main__":
    seed, file = sys.argv[1:] if len(sys.argv) == 3 else (SEED, FILE)
    main(seed=int(seed), file=Path(file))
