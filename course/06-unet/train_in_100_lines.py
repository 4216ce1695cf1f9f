"""Train a U-Net on a folder of your own images and masks, keep the best weights, and write masks for other images.

    python train_in_100_lines.py my_folder other_images predicted

`my_folder` holds images/NAME.png and masks/NAME.png with the class of each pixel (0, 1, ...; 255 is ignored).
`other_images` is a folder of images, and `predicted` is the folder for their masks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from segedu.datasets.files import read_image
from segedu.datasets.folder import SegmentationFolder
from segedu.losses.cross_entropy import cross_entropy
from segedu.losses.dice import dice_loss
from segedu.metrics.confusion import ConfusionMatrix
from segedu.metrics.semantic import mean_iou_from_confusion
from segedu.semantic.unet import UNet

WINDOW, BATCH, EPOCHS, PATIENCE = 128, 8, 40, 10


class RandomWindows(Dataset):
    """A random window (3, 128, 128) of each image, mirrored at random, with its classes (128, 128)."""

    def __init__(self, samples: list[dict[str, Tensor]]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, target = self.samples[index]["image"], self.samples[index]["semantic"]
        missing = [max(0, WINDOW - side) for side in image.shape[1:]]
        image = pad(image, (0, missing[1], 0, missing[0]))
        target = pad(target, (0, missing[1], 0, missing[0]), value=255)  # padding is ignored
        top, left = (int(torch.randint(side - WINDOW + 1, ())) for side in target.shape)
        window = (..., slice(top, top + WINDOW), slice(left, left + WINDOW))
        mirrored = [-1] if torch.rand(()) < 0.5 else []
        return image[window].flip(mirrored), target[window].flip(mirrored)


@torch.no_grad()
def mean_iou(model: UNet, samples: list[dict[str, Tensor]], num_classes: int) -> float:
    """Mean IoU over all pixels of some images."""
    model.eval()
    matrix = ConfusionMatrix(num_classes, ignore_index=255)
    for sample in samples:
        matrix.update(model(sample["image"][None]).argmax(dim=1)[0], sample["semantic"])
    return float(mean_iou_from_confusion(matrix.compute()))


def train(train_samples: list, val_samples: list, num_classes: int) -> UNet:
    """Train until the mean IoU on the validation images has not improved for ten epochs; return the best network."""
    model = UNet(3, num_classes, base_channels=16, padding=1)
    loader = DataLoader(RandomWindows(train_samples * max(1, 64 // len(train_samples))), BATCH, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    best, best_epoch, weights = -1.0, 0, {}
    for epoch in range(EPOCHS):
        model.train()
        for images, target in tqdm(loader, desc=f"epoch {epoch + 1}", leave=False):
            logits = model(images)
            loss = cross_entropy(logits, target) + dice_loss(logits, target, per_image=False, include_background=True)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        score = mean_iou(model, val_samples, num_classes)
        print(f"epoch {epoch + 1}: loss of the last batch {float(loss):.3f}, validation mean IoU {score:.3f}")
        if score > best:
            best, best_epoch = score, epoch
            weights = {name: value.clone() for name, value in model.state_dict().items()}
        if epoch - best_epoch >= PATIENCE:
            break
    model.load_state_dict(weights)
    return model.eval()


def main() -> None:
    """Read the folder, train, and predict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("folder", "images", "out"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    folder = SegmentationFolder(options.folder)
    samples = [folder[int(i)] for i in torch.randperm(len(folder))]
    held_out = max(1, len(samples) // 5)  # images of one scene must not be in both parts: shuffle groups instead
    values = torch.cat([sample["semantic"].unique() for sample in samples])
    num_classes = int(values[values != 255].max()) + 1
    model = train(samples[held_out:], samples[:held_out], num_classes)
    options.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(options.images.glob("*.*")):
        with torch.no_grad():
            classes = model(torch.from_numpy(read_image(path))[None]).argmax(dim=1)[0]
        Image.fromarray(classes.to(torch.uint8).numpy()).save(options.out / f"{path.stem}.png")


if __name__ == "__main__":
    main()
