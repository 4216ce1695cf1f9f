"""A small VGG, the pretrained encoder of the recipes on streets.

Papers start from a VGG pretrained on the classification of ImageNet. This one was pretrained on other synthetic
streets: at each of the five stages, a linear classifier predicts from every feature vector which classes occur in its
window of 2, 4, 8, 16 or 32 pixels. The classifiers are then discarded.

`python -m segedu.weights.own.street_vgg` makes street_vgg.safetensors and its log, street_vgg.json, again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from segedu.backbones.vgg import VGG
from segedu.datasets.street import CLASSES, STREET_VERSION
from segedu.recipes.data import crop_mirror, draw_streets
from segedu.weights.catalogue import STREET_VGG_STAGES

FILE = Path(__file__).with_suffix(".safetensors")
SCENES_SEED, SCENES, STEPS, BATCH, RATE = 1_000_000, 3072, 10_000, 8, 5e-3  # seeds of recipes are much smaller


def windows(target: Tensor, stages: int = len(STREET_VGG_STAGES)) -> list[Tensor]:
    """Which classes occur in the windows of each stage.

    Args:
        target: (B, H, W) int64; 255 is not a class. H and W are multiples of the largest window.
        stages: number of stages; the windows of stage i have 2**(i + 1) pixels per side.

    Returns:
        For each stage (B, K, H / 2**(i + 1), W / 2**(i + 1)), 1 for a class that occurs in the window, else 0.
    """
    occurs = F.one_hot(target.clamp(max=len(CLASSES)), len(CLASSES) + 1)[..., : len(CLASSES)]  # (B, H, W, K)
    occurs, of_stages = occurs.permute(0, 3, 1, 2).float(), []
    for _ in range(stages):
        occurs = F.max_pool2d(occurs, kernel_size=2)
        of_stages.append(occurs)
    return of_stages


def batch_of(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """A random batch of windows, each mirrored at random: (B, 3, h, w) in [0, 1] and (B, h, w) int64."""
    picks = torch.randint(len(images), (BATCH,)).tolist()
    crops, labels = zip(*(crop_mirror(images[i], targets[i]) for i in picks), strict=True)
    return torch.stack(crops).float() / 255, torch.stack(labels).long()


def train(images: Tensor, targets: Tensor, steps: int = STEPS, every: int = 1000) -> tuple[VGG, list[float]]:
    """The encoder after `steps` steps, and the mean loss of every `every` steps."""
    torch.manual_seed(0)
    encoder = VGG(STREET_VGG_STAGES, batch_norm=True).to(memory_format=torch.channels_last)
    classifiers = nn.ModuleList(nn.Conv2d(channels, len(CLASSES), kernel_size=1) for channels in encoder.channels)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *classifiers.parameters()], lr=RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    losses = torch.zeros(steps)
    for step in tqdm(range(steps), desc="train", unit="step"):
        crops, labels = batch_of(images, targets)
        stages = zip(classifiers, encoder(crops), windows(labels), strict=True)
        loss = sum(F.binary_cross_entropy_with_logits(classify(x), occurs) for classify, x, occurs in stages)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses[step] = loss.detach()
    means = [round(float(part.mean()), 4) for part in losses.split(every)]
    return encoder.to(memory_format=torch.contiguous_format), means


def main() -> None:
    """Draw the scenes, train, and write the file and its log."""
    start = time.process_time()
    images, targets = draw_streets(SCENES, SCENES_SEED)
    drawn = time.process_time()
    encoder, losses = train(images, targets)
    save_file({name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}, FILE)
    log = {
        "street_version": STREET_VERSION,
        "scenes": SCENES,
        "steps": STEPS,
        "losses_of_1000_steps": losses,
        "cpu_seconds_of_drawing": round(drawn - start),
        "cpu_seconds_of_training": round(time.process_time() - drawn),
        "torch": torch.__version__,
    }
    FILE.with_suffix(".json").write_text(json.dumps(log, indent=2) + "\n")


if __name__ == "__main__":
    main()
