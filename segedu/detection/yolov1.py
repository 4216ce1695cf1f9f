"""YOLO: one look at the image, and a grid whose cells each say what is centred in them, and where its box lies.

Paper: Redmon, Divvala, Girshick, Farhadi, "You Only Look Once: Unified, Real-Time Object Detection", CVPR 2016,
    arXiv 1506.02640.
Idea: The image is cut into S x S cells, and the cell in which an object's centre falls has to find it. A cell gives
    B boxes, each with a confidence that is to equal its IoU with the object, and one set of class scores for all of
    them. Everything is regression by squared errors, so one network and one pass are the whole detector.
Simplified: the convolutions start from random weights, not from ImageNet; no warm-up and no augmentation here. A cell
    holds one object, the first of the list: more of them cannot have classes of their own in this paper.
Shapes: images (B, 3, H, W), resized inside to a square -> dict of `coordinates` (B, S, S, N, 4): centre in the
    cell, square roots of width and height in images; `confidences` (B, S, S, N); `class_scores` (B, S, S, C); and
    `image_size` (H, W) and `sizes`, B of them. Column c of the scores is for label c + 1. `postprocess`: the dict ->
    B dicts of `boxes`, `labels`, `scores`.
Quality: the paper's layers have 271.7 million parameters; encoding, responsibility and each term of the loss equal
    numbers worked by hand; outputs made from targets give the objects back; a small backbone learns a batch by heart.
    From scratch on `shapes`: box AP50 at least 0.73 over three seeds, 141 CPU-s.
Course: 12-one-stage
Lab: 12_one_stage
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.layers.instance_targets import check_targets
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.losses.boxes import iou_box_loss
from segedu.losses.reduction import full_precision
from segedu.ops.boxes import clip_boxes
from segedu.ops.nms import batched_nms
from segedu.validation.boxes import check_boxes
from segedu.validation.images import check_images, check_sizes
from segedu.validation.tensors import check_keys, check_maps, check_no_nan

# Figure 3 of the paper: (kernel, channels) or (kernel, channels, stride) for a convolution, POOL for a max-pooling.
POOL = ()
LAYERS = (
    *((7, 64, 2), POOL),
    *((3, 192), POOL),
    *((1, 128), (3, 256), (1, 256), (3, 512), POOL),
    *(*((1, 256), (3, 512)) * 4, (1, 512), (3, 1024), POOL),
    *(*((1, 512), (3, 1024)) * 2, (3, 1024), (3, 1024, 2)),
    *((3, 1024), (3, 1024)),
)
MAPS = {"coordinates": "B S S N 4", "confidences": "B S S N", "class_scores": "B S S C"}


class YOLOv1Backbone(nn.Module):
    """The paper's 24 convolutions, each followed by a leaky ReLU of slope 0.1.

    Args:
        layers: rows of the paper's figure 3.
        in_channels: channels of the images.
    """

    def __init__(self, layers: Sequence[Sequence[int]] = LAYERS, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.features = nn.Sequential()
        stride = 1
        for row in layers:
            if row == POOL:
                self.features.append(nn.MaxPool2d(kernel_size=2, stride=2))
                stride *= 2
                continue
            kernel_size, channels, step = (*row, 1)[:3]
            convolution = nn.Conv2d(in_channels, channels, kernel_size, step, padding=kernel_size // 2)
            # Paper: says nothing of this. Without batch normalisation, 24 layers of torch's default fade to 0.
            nn.init.kaiming_normal_(convolution.weight, a=0.1)
            nn.init.zeros_(convolution.bias)
            self.features.extend([convolution, nn.LeakyReLU(0.1, inplace=True)])
            in_channels, stride = channels, stride * step
        self.channels, self.strides = (in_channels,), (stride,)

    def forward(self, images: Tensor) -> list[Tensor]:
        check_images(images, self.in_channels, self.strides[-1])
        return [self.features(images)]


class YOLOv1(nn.Module):
    """A backbone and two fully connected layers, which see the whole image for every cell.

    Args:
        backbone: gives a list of features, with `in_channels`, `channels` and `strides`; the last features are used.
        num_classes: K, the background counted, as everywhere here: labels are 1..K - 1, and the paper's C is K - 1.
        cells: S, cells along each side. Images are resized to S * stride squared; the paper's are 448 x 448.
        boxes: N, boxes of a cell (the paper's B).
        hidden: width of the first fully connected layer.
        dropout: probability after it.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int = 21,
        cells: int = 7,
        boxes: int = 2,
        hidden: int = 4096,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        for name, value, least in (("cells", cells, 1), ("boxes", boxes, 1), ("num_classes", num_classes, 2)):
            if value < least:
                raise ValueError(f"{name} is {value}, expected at least {least}")
        self.backbone, self.num_classes, self.cells, self.boxes = backbone, num_classes, cells, boxes
        self.side = cells * backbone.strides[-1]
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(backbone.channels[-1] * cells**2, hidden),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Dropout(dropout),
            nn.Linear(
                hidden, cells**2 * yolo_depth(boxes, num_classes - 1)
            ),  # no activation: all outputs are regressed
        )

    def forward(self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> dict[str, Any]:
        check_images(images, self.backbone.in_channels)
        sizes = check_sizes(sizes, images)
        # as the paper does it: whatever the image's own shape, the network sees a square
        square = F.interpolate(images, size=(self.side, self.side), mode="bilinear", align_corners=False)
        raw = self.head(self.backbone(square)[-1]).unflatten(1, (self.cells, self.cells, -1))  # (B, S, S, depth)
        boxes, class_scores = raw.split([5 * self.boxes, self.num_classes - 1], dim=-1)
        boxes = boxes.unflatten(-1, (self.boxes, 5))
        coordinates, confidences = boxes[..., :4], boxes[..., 4]
        outputs = {
            "coordinates": coordinates,
            "confidences": confidences,
            "class_scores": class_scores,
            "image_size": tuple(images.shape[-2:]),
            "sizes": sizes,
        }
        return onnx_outputs(outputs)


def yolov1(num_classes: int = 21, **options: Any) -> YOLOv1:
    """The paper's network, for images of 448 x 448 pixels and the 20 classes of PASCAL VOC.

    Args:
        num_classes: K, the background counted.
        **options: of `YOLOv1`.

    Returns:
        The network with random weights.
    """
    return YOLOv1(YOLOv1Backbone(), num_classes, **options)


def yolo_depth(boxes: int, object_classes: int) -> int:
    """Numbers a cell: four coordinates and a confidence for each box, and the class scores once.

    Args:
        boxes: of a cell.
        object_classes: C, the background not counted.

    Returns:
        5 boxes + C.

    >>> yolo_depth(2, 20)
    30
    """
    return 5 * boxes + object_classes


def yolov1_targets(
    boxes: Tensor, labels: Tensor, cells: int, image_size: tuple[int, int], num_classes: int
) -> dict[str, Tensor]:
    """Write the objects of an image into the grid.

    An object belongs to the cell of its box's centre; on a border between cells to the right or lower one, and at the
    right or lower edge of the image to the last one. A cell that has its object keeps it: later ones are lost.

    Args:
        boxes: (N, 4), xyxy pixels, centres within the image.
        labels: (N,) int64, 1..K - 1.
        cells: S.
        image_size: (H, W).
        num_classes: K.

    Returns:
        `objects` (S, S) bool; `coordinates` (S, S, 4): x and y of the centre within the cell in [0, 1], square roots
        of width and height as parts of the image; `classes` (S, S, K - 1), a 1 for the class. 0 where no object is.

    Raises:
        TypeError: boxes are no numbers, or labels not int64.
        ValueError: a shape does not fit, a label is not in 1..K - 1, a box has no area, or its centre is outside of
            the image.

    >>> targets = yolov1_targets(torch.tensor([[10.0, 30, 50, 70]]), torch.tensor([2]), 2, (80, 80), 4)
    >>> targets["objects"].nonzero(), targets["coordinates"][1, 0], targets["classes"][1, 0]
    (tensor([[1, 0]]), tensor([0.7500, 0.2500, 0.7071, 0.7071]), tensor([0., 1., 0.]))
    """
    check_targets([{"boxes": boxes, "labels": labels}], [image_size], num_classes)
    boxes = check_boxes("boxes", boxes)
    H, W = image_size
    scale = boxes.new_tensor([W, H])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / scale * cells  # (N, 2), in cells
    if bool(((centres < 0) | (centres > cells)).any()):
        row = int(((centres < 0) | (centres > cells)).any(dim=1).nonzero()[0])
        raise ValueError(f"boxes[{row}] is {boxes[row].tolist()}, expected a centre within the image of {(H, W)}")
    places = centres.floor().clamp(max=cells - 1)
    coordinates = torch.cat([centres - places, ((boxes[:, 2:] - boxes[:, :2]) / scale).sqrt()], dim=1)
    targets = {
        "objects": torch.zeros(cells, cells, dtype=torch.bool, device=boxes.device),
        "coordinates": boxes.new_zeros(cells, cells, 4),
        "classes": boxes.new_zeros(cells, cells, num_classes - 1),
    }
    for (column, row), values, label in zip(places.long().tolist(), coordinates, labels.tolist(), strict=True):
        if not targets["objects"][row, column]:
            targets["objects"][row, column] = True
            targets["coordinates"][row, column] = values
            targets["classes"][row, column, label - 1] = 1
    return targets


def decode_cells(coordinates: Tensor, image_size: tuple[int, int]) -> Tensor:
    """From what cells say to boxes in pixels; the inverse of `yolov1_targets`.

    Args:
        coordinates: (..., S, S, N, 4): centre within the cell, square roots of width and height.
        image_size: (H, W).

    Returns:
        (..., S, S, N, 4), xyxy. Sides are squares of what was given, so never negative.
    """
    H, W = image_size
    S = coordinates.shape[-3]
    index = torch.arange(S, device=coordinates.device, dtype=coordinates.dtype)
    corner = torch.stack(torch.meshgrid(index, index, indexing="xy"), dim=-1)[:, :, None]  # (S, S, 1, 2) as x, y
    scale = coordinates.new_tensor([W, H])
    centres = (coordinates[..., :2] + corner) / S * scale
    half = coordinates[..., 2:] ** 2 * scale / 2
    return torch.cat([centres - half, centres + half], dim=-1)


def yolov1_loss(
    outputs: Mapping[str, Any],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    coord_weight: float = 5.0,
    no_object_weight: float = 0.5,
) -> dict[str, Tensor]:
    """Equation 3 of the paper: sums of squared errors of each image, then the mean over images.

    In a cell with an object the box that overlaps it most is responsible (the first of equals): its coordinates are
    pulled to the object and its confidence to their IoU. All other confidences are pulled to 0.

    Args:
        outputs: of `YOLOv1`.
        targets: B dicts of `boxes` and `labels`.
        coord_weight: lambda_coord, of `centre` and `size`.
        no_object_weight: lambda_noobj, of `no_object`: most cells are empty, and would drown the others.

    Returns:
        Scalars `centre`, `size`, `object`, `no_object` and `classes`, weighted, and `loss`, their sum. Without any
        object all but `no_object` are 0.

    Raises:
        TypeError: outputs are no floats, boxes no numbers or labels not int64.
        ValueError: a key is missing, shapes do not fit, an output is NaN, or a target is not as `yolov1_targets`
            wants it.
    """
    outputs, axes = _checked(outputs)
    targets = check_targets(targets, outputs["sizes"], axes["C"] + 1)
    grids = [
        yolov1_targets(target["boxes"], target["labels"], axes["S"], outputs["image_size"], axes["C"] + 1)
        for target in targets
    ]
    coordinates, confidences = outputs["coordinates"], outputs["confidences"]
    wanted = {key: torch.stack([grid[key] for grid in grids]).to(coordinates.device) for key in grids[0]}
    objects = wanted["objects"]  # (B, S, S)
    truth = wanted["coordinates"].to(coordinates)[:, :, :, None]  # (B, S, S, 1, 4)
    iou = _iou_with_truth(coordinates.detach(), truth, outputs["image_size"])  # (B, S, S, N)
    responsible = F.one_hot(iou.argmax(dim=-1), axes["N"]).bool() & objects[..., None]
    error = (coordinates - truth)[responsible] ** 2  # (objects, 4)
    wrong_class = (outputs["class_scores"] - wanted["classes"].to(coordinates))[objects] ** 2
    losses = {
        "centre": coord_weight * error[:, :2].sum(),
        "size": coord_weight * error[:, 2:].sum(),
        "object": ((confidences - iou)[responsible] ** 2).sum(),
        "no_object": no_object_weight * (confidences[~responsible] ** 2).sum(),
        "classes": wrong_class.sum(),
    }
    losses = {name: value / axes["B"] for name, value in losses.items()}
    return losses | {"loss": sum(losses.values())}


def postprocess(
    outputs: Mapping[str, Any], score_threshold: float = 0.2, iou_threshold: float = 0.5, max_detections: int = 100
) -> list[dict[str, Tensor]]:
    """Boxes with the score Pr(class | object) * confidence, after suppression within each class.

    Args:
        outputs: of `YOLOv1`.
        score_threshold: boxes of a class with a score not above it are left out. Paper: not given.
        iou_threshold: of the suppression.
        max_detections: at most so many objects an image.

    Returns:
        For each image `boxes` (N, 4) xyxy cut at its size, `labels` (N,) and `scores` (N,), best first. Boxes
        without a pixel in the image are left out. A box may come once for each class.

    Raises:
        TypeError: outputs are no floats.
        ValueError: a key is missing, shapes do not fit, or an output is NaN.
    """
    outputs, _ = _checked(outputs)
    all_boxes = decode_cells(outputs["coordinates"].detach(), outputs["image_size"])
    # regressed numbers may leave [0, 1]: two negative ones must not make a good score
    confidences, classes = (outputs[key].detach().clamp(0, 1) for key in ("confidences", "class_scores"))
    results = []
    for boxes, scores, size in zip(
        all_boxes, confidences[..., None] * classes[:, :, :, None], outputs["sizes"], strict=True
    ):
        boxes, scores = clip_boxes(boxes.flatten(0, 2), size), scores.flatten(0, 2)  # (A, 4), (A, C)
        seen = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        box, label = ((scores > score_threshold) & seen[:, None]).nonzero(as_tuple=True)
        kept = batched_nms(boxes[box], scores[box, label], label, iou_threshold)[:max_detections]
        box, label = box[kept], label[kept]
        results.append({"boxes": boxes[box], "labels": label + 1, "scores": scores[box, label]})
    return results


def _iou_with_truth(coordinates: Tensor, truth: Tensor, image_size: tuple[int, int]) -> Tensor:
    """IoU of each box of a cell with the object of that cell: (..., S, S, N, 4) and (..., S, S, 1, 4)."""
    given = decode_cells(coordinates, image_size)
    true = decode_cells(truth, image_size).expand_as(given)
    loss = iou_box_loss(given.reshape(-1, 4), true.reshape(-1, 4), reduction="none")
    return (1 - loss).reshape(given.shape[:-1]).to(coordinates)


def _checked(outputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """The outputs in full precision, and the lengths of their axes."""
    check_keys("outputs", outputs, (*MAPS, "image_size", "sizes"))
    axes = check_maps("outputs", outputs, **MAPS)
    check_no_nan("outputs", outputs, tuple(MAPS))
    return {**outputs, **{key: full_precision(outputs[key]) for key in MAPS}}, axes
