"""Instance recipes on real photographs of streets: pedestrians, with boxes and masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.utils.data import Dataset

from segedu.backbones.fpn import FPN, PoolLevel
from segedu.backbones.vgg import VGG
from segedu.datasets.penn_fudan import CLASSES, PennFudan
from segedu.detection import faster_rcnn, fcos
from segedu.detection.fast_rcnn import TwoLayerHead
from segedu.instance import condinst, mask_rcnn, yolact
from segedu.layers.proposals import Sampling
from segedu.ops.boxes import box_iou
from segedu.ops.masks import boxes_from_masks
from segedu.recipes.data import Sets
from segedu.recipes.recipe import Recipe, quick_layout
from segedu.recipes.shapes import Example, Instances, WithTargets, examples, stack, stack_with_targets
from segedu.recipes.task import DETECTION

WINDOW = 256  # pixels: the side of the training windows, and the short side of the images
SCALES = (0.75, 1.3)  # by which a training image, or a pasted pedestrian, is resized
VISIBLE = 0.3  # fraction of the pixels of a pedestrian, below which it is dropped
PASTED = 2  # highest number of pedestrians pasted into a training image
LOWEST_SCORE = 0.02  # of a detection that is ranked
RATIOS = (1.9, 2.7, 3.6)  # height over width of the anchors; the median of the pedestrians is 2.7
ANCHOR_SIZES = ((40.0, 52.0), (66.0, 84.0), (104.0, 128.0), (155.0, 190.0))  # pixels: square roots of areas


# --- data ---------------------------------------------------------------------------------------------------------


class Pedestrians(Dataset):
    """Random windows of photographs in memory, into which pedestrians of other photographs are pasted.

    Copy and paste (Ghiasi et al. 2021, arXiv 2012.07177) gives each of the few pedestrians many backgrounds.
    """

    def __init__(self, pairs: Sequence[Example]) -> None:
        self.pairs = list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Example:
        image, masks = self._window(index)
        for _ in range(int(torch.randint(0, PASTED + 1, ()))):
            other_image, other_masks = self._window(int(torch.randint(0, len(self.pairs), ())))
            if len(other_masks):
                image, masks = paste(image, masks, other_image, other_masks[torch.randint(0, len(other_masks), ())])
        power = torch.empty(()).uniform_(-0.3, 0.3).exp()
        image = (image**power * torch.empty(3, 1, 1).uniform_(0.85, 1.15)).clamp(0, 1)
        boxes, labels = boxes_from_masks(masks), torch.ones(len(masks), dtype=torch.int64)
        return image, {"boxes": boxes, "labels": labels, "masks": masks}

    def _window(self, index: int) -> tuple[Tensor, Tensor]:
        image, objects = self.pairs[index]
        return random_window(image, objects["masks"])


def random_window(image: Tensor, masks: Tensor, side: int = WINDOW) -> tuple[Tensor, Tensor]:
    """Resize an image (3, H, W) and its masks (N, H, W) by a random factor, mirror at random, and crop a square.

    A smaller image is padded with grey at a random position. A pedestrian of which less than `VISIBLE` remains is
    dropped.
    """
    factor = float(torch.empty(()).uniform_(*SCALES))
    size = [round(n * factor) for n in image.shape[1:]]
    image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    masks = F.interpolate(masks[None].float(), size, mode="nearest-exact")[0].bool() if len(masks) else masks
    if torch.rand(()) < 0.5:
        image, masks = image.flip(-1), masks.flip(-1)
    before = masks.sum(dim=(1, 2))
    new_image = torch.full((3, side, side), 0.5)
    new_masks = torch.zeros(len(masks), side, side, dtype=torch.bool)
    source, destination = [], []
    for full in size:
        shift = int(torch.randint(min(full - side, 0), max(full - side, 0) + 1, ()))
        low, high = max(shift, 0), min(shift + side, full)
        source.append(slice(low, high))
        destination.append(slice(low - shift, high - shift))
    new_image[(slice(None), *destination)] = image[(slice(None), *source)]
    if len(masks):
        new_masks[(slice(None), *destination)] = masks[(slice(None), *source)]
    return new_image, new_masks[new_masks.sum(dim=(1, 2)) >= torch.clamp(VISIBLE * before, min=30)]


def paste(image: Tensor, masks: Tensor, other: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Paste the pixels of a mask (H, W) of another image, shifted to the side at random, in front of an image.

    Pedestrians of which less than `VISIBLE` is left are dropped.
    """
    shift = int(torch.randint(0, mask.shape[1], ()))
    columns = mask.any(dim=0).nonzero().flatten()
    shift = min(max(shift - int(columns[0]), -int(columns[0])), mask.shape[1] - 1 - int(columns[-1]))
    mask, other = mask.roll(shift, dims=1), other.roll(shift, dims=2)
    visible = masks & ~mask
    keep = visible.sum(dim=(1, 2)) >= VISIBLE * masks.sum(dim=(1, 2))
    return torch.where(mask, other, image), torch.cat([visible[keep], mask[None]])


def pedestrian_sets(seed: int, folder: Path | None) -> Sets:
    """The splits of the folder; they do not depend on the seed."""
    pairs = {split: examples(PennFudan(folder, split=split)) for split in ("train", "val", "test")}
    return Sets(Pedestrians(pairs["train"]), {split: {"all": pairs[split]} for split in ("val", "test")})


# --- baseline -----------------------------------------------------------------------------------------------------


class MeanBoxes(nn.Module):
    """The mean boxes of clusters of the training pedestrians, at relative positions, without a look at the image.

    The score of a box is the fraction of the training images in which it overlaps a pedestrian with an IoU of at least
    0.5. Masks are ellipses that fill the boxes.
    """

    name = "Mean boxes"

    def __init__(self, train: Sequence[Example], num_classes: int, number: int = 12) -> None:
        super().__init__()
        relative = [objects["boxes"] / _sides(image) for image, objects in train]
        everyone = torch.cat(relative).double().numpy()
        clusters = KMeans(min(number, len(everyone)), n_init=4, random_state=0).fit(everyone)
        boxes = torch.from_numpy(clusters.cluster_centers_).float()
        hits = [(box_iou(boxes, one) >= 0.5).any(dim=1).float() for one in relative if len(one)]
        self.scores, order = (torch.stack(hits).sum(dim=0) / len(train)).sort(descending=True)
        self.boxes = boxes[order]

    def forward(self, images: Tensor) -> list[Instances]:
        return [self._detect(image) for image in images]

    def _detect(self, image: Tensor) -> Instances:
        height, width = image.shape[1:]
        boxes = self.boxes * _sides(image)
        rows, columns = torch.arange(height)[:, None] + 0.5, torch.arange(width)[None] + 0.5
        centres, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        x, y = (
            (columns - centres[:, :1, None]) / halves[:, :1, None],
            (rows - centres[:, 1:, None]) / halves[:, 1:, None],
        )
        labels = torch.ones(len(boxes), dtype=torch.int64)
        return {"boxes": boxes, "labels": labels, "scores": self.scores, "masks": x**2 + y**2 <= 1}


def _sides(image: Tensor) -> Tensor:
    height, width = image.shape[1:]
    return torch.tensor([width, height] * 2, dtype=torch.float32)


# --- networks -----------------------------------------------------------------------------------------------------


def features() -> VGG:
    """A narrow VGG with five stages."""
    return VGG(((16,), (32,), (64, 64), (96, 96), (128, 128)), batch_norm=True)


def two_stage_parts() -> dict[str, Any]:
    """Backbone, anchors and head of a two-stage network."""
    return {
        "backbone": FPN(features(), 64, levels=(2, 3, 4), extra=PoolLevel()),
        "num_classes": len(CLASSES),
        "rpn": faster_rcnn.RPN(64, sizes=ANCHOR_SIZES, ratios=RATIOS),
        "head": TwoLayerHead(64, size=7, hidden=256),
        "sampling": Sampling(count=64, positive_fraction=0.5, positive_iou=0.5),
        "max_proposals": (200, 100),
    }


def pedestrian_condinst() -> nn.Module:
    """CondInst on an FCOS with the strides 8, 16 and 32."""
    pyramid = FPN(features(), 64, levels=(2, 3, 4))
    detector = fcos.FCOS(pyramid, len(CLASSES), strides=(8, 16, 32), offset=0.5, groups=8, depth=3)
    return condinst.CondInst(detector, width=32, depth=2)


def condinst_detections(outputs: dict[str, Any], size: tuple[int, int]) -> list[Instances]:
    """CondInst's detections. Its masks end where its features do, at a multiple of 32, and are padded to the image."""
    detections = condinst.postprocess(outputs, score_threshold=LOWEST_SCORE)
    return [one | {"masks": _padded(one["masks"], size)} for one in detections]


def _padded(masks: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = (max(full - part, 0) for full, part in zip(size, masks.shape[1:], strict=True))
    return F.pad(masks, (0, width, 0, height))


def on_streets(**row: Any) -> Recipe:
    """An instance recipe on the photographs; `row` has what differs between the methods."""
    shared = {"data": "pennfudan", "task": DETECTION, "classes": CLASSES, "sets": pedestrian_sets, "collate": stack}
    shared |= {"baseline": MeanBoxes, "steps": 800, "batch_size": 4, "learning_rate": 2e-3, "metric": "box_ap50"}
    return Recipe(**(shared | {"cpu_minutes": 30, "gpu_minutes": 3.0, "target": 0.8} | row))


RECIPES = (
    on_streets(
        method="faster_rcnn",
        build=lambda: quick_layout(WithTargets(faster_rcnn.FasterRCNN(**two_stage_parts()))),
        collate=stack_with_targets,
        loss=faster_rcnn.faster_rcnn_loss,
        postprocess=lambda outputs, size: faster_rcnn.postprocess(outputs, score_threshold=LOWEST_SCORE),
    ),
    on_streets(
        method="mask_rcnn",
        build=lambda: quick_layout(
            WithTargets(
                mask_rcnn.MaskRCNN(
                    **two_stage_parts(),
                    mask_head=mask_rcnn.MaskHead(64, size=14, depth=2),
                    detection_options={"score_threshold": LOWEST_SCORE},
                )
            )
        ),
        collate=stack_with_targets,
        loss=mask_rcnn.mask_rcnn_loss,
        postprocess=lambda outputs, size: mask_rcnn.postprocess(outputs),
    ),
    on_streets(
        method="yolact",
        build=lambda: yolact.YOLACT(
            features(), len(CLASSES), 64, num_prototypes=16, scales=(45.0, 80.0, 130.0, 180.0), ratios=(0.3, 0.42, 0.6)
        ),
        loss=yolact.yolact_loss,
        postprocess=lambda outputs, size: yolact.postprocess(outputs),
    ),
    on_streets(
        method="condinst",
        build=lambda: quick_layout(pedestrian_condinst()),
        loss=condinst.condinst_loss,
        postprocess=condinst_detections,
    ),
)
