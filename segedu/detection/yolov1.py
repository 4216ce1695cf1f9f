"""YOLO: one pass over the image; each cell of a grid predicts the object whose centre it contains.

Paper: Redmon, Divvala, Girshick, Farhadi, "You Only Look Once: Unified, Real-Time Object Detection", CVPR 2016,
    arXiv 1506.02640.
Idea: The image is divided into S x S cells, and the cell that contains the centre of an object has to detect it. A cell
    predicts B boxes, each with a confidence whose target is its IoU with the object, and one set of class scores that
    its boxes share. Everything is regression with squared errors, so the detector is one network and one pass.
Simplified: the convolutions start from random weights, not from ImageNet; no warm-up and no augmentation here. A cell
    predicts one object, the first in the list, because in this paper the boxes of a cell cannot have different classes.
Shapes: images (B, 3, H, W), resized inside to a square -> dict of `coordinates` (B, S, S, N, 4): centre within the
    cell, square roots of width and height relative to the image; `confidences` (B, S, S, N); `class_scores` (B, S, S,
    C); `image_size` (H, W); and `sizes`, B pairs (h, w). Channel c of the scores is for label c + 1. `postprocess`: the
    dict -> B dicts of `boxes`, `labels`, `scores`.
Quality: the paper's layers have 271.7 million parameters; encoding, responsibility and each term of the loss equal
    worked examples; decoding the targets returns the objects; a small backbone overfits one batch. From scratch on
    `shapes`: box AP50 at least 0.73 over three seeds, 141 CPU-seconds of training.
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
from segedu.validation.numbers import check_integer, check_integers
from segedu.validation.tensors import check_keys, check_no_nan, check_tensor_dict

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
            # Paper: not specified. Without batch normalisation, torch's default would vanish over 24 layers.
            nn.init.kaiming_normal_(convolution.weight, a=0.1)
            nn.init.zeros_(convolution.bias)
            self.features.extend([convolution, nn.LeakyReLU(0.1, inplace=True)])
            in_channels, stride = channels, stride * step
        self.channels, self.strides = (in_channels,), (stride,)

    def forward(self, images: Tensor) -> list[Tensor]:
        check_images(images, self.in_channels, self.strides[-1])
        return [self.features(images)]


class YOLOv1(nn.Module):
    """A backbone and two fully connected layers, so that the prediction of every cell depends on the whole image.

    Args:
        backbone: images -> list of features, with `in_channels`, `channels` and `strides`; the last features are used.
        num_classes: K, including the background: labels are 1 to K - 1, and the paper's C is K - 1.
        cells: S, cells along each side. Images are resized to S * stride squared; the paper's are 448 x 448.
        boxes: N, number of boxes per cell (the paper's B).
        hidden: width of the first fully connected layer.
        dropout: dropout probability after that layer.
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
        check_integers(cells=cells, boxes=boxes)
        check_integer("num_classes", num_classes, minimum=2)
        self.backbone, self.num_classes, self.cells, self.boxes = backbone, num_classes, cells, boxes
        self.input_size = cells * backbone.strides[-1]
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(backbone.channels[-1] * cells**2, hidden),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, cells**2 * yolo_depth(boxes, num_classes - 1)),  # all outputs are regressed
        )

    def forward(self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> dict[str, Any]:
        check_images(images, self.backbone.in_channels)
        sizes = check_sizes(sizes, images)
        # as in the paper, images of any aspect ratio are resized to a square
        square = F.interpolate(images, size=(self.input_size, self.input_size), mode="bilinear", align_corners=False)
        predictions = self.head(self.backbone(square)[-1]).unflatten(
            1, (self.cells, self.cells, -1)
        )  # (B, S, S, depth)
        boxes, class_scores = predictions.split([5 * self.boxes, self.num_classes - 1], dim=-1)
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
    """The paper's network, for images of 448 x 448 pixels and the 20 classes of Pascal VOC.

    Args:
        num_classes: K, including the background.
        **options: arguments of `YOLOv1`.
    """
    return YOLOv1(YOLOv1Backbone(), num_classes, **options)


def yolo_depth(boxes: int, object_classes: int) -> int:
    """Number of outputs per cell: four coordinates and a confidence per box, and C class scores, without background.

    >>> yolo_depth(2, 20)
    30
    """
    return 5 * boxes + object_classes


def yolov1_targets(
    boxes: Tensor, labels: Tensor, cells: int, image_size: tuple[int, int], num_classes: int
) -> dict[str, Tensor]:
    """Encode the objects of an image as a grid.

    An object belongs to the cell that contains the centre of its box: on a border between cells, the cell to the right
    or below; at the right or lower border of the image, the last cell. A cell keeps its first object; later ones are
    ignored.

    Args:
        boxes: (N, 4), xyxy in pixels, with an area and a centre within the image.
        labels: (N,) int64, 1 to K - 1.
        cells: S.
        image_size: (H, W).
        num_classes: K.

    Returns:
        `objects` (S, S) bool; `coordinates` (S, S, 4): x and y of the centre within the cell in [0, 1], square roots
        of width and height relative to the image; `classes` (S, S, K - 1), one-hot. Cells without an object are 0.

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
    indices = centres.floor().clamp(max=cells - 1)
    coordinates = torch.cat([centres - indices, ((boxes[:, 2:] - boxes[:, :2]) / scale).sqrt()], dim=1)
    targets = {
        "objects": torch.zeros(cells, cells, dtype=torch.bool, device=boxes.device),
        "coordinates": boxes.new_zeros(cells, cells, 4),
        "classes": boxes.new_zeros(cells, cells, num_classes - 1),
    }
    for (column, row), values, label in zip(indices.long().tolist(), coordinates, labels.tolist(), strict=True):
        if not targets["objects"][row, column]:
            targets["objects"][row, column] = True
            targets["coordinates"][row, column] = values
            targets["classes"][row, column, label - 1] = 1
    return targets


def decode_cells(coordinates: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Convert the coordinates of cells to boxes in pixels; the inverse of `yolov1_targets`.

    Args:
        coordinates: (..., S, S, N, 4): centre within the cell, square roots of width and height.
        image_size: (H, W).

    Returns:
        (..., S, S, N, 4), xyxy. Sides are squares of the coordinates, so they are never negative.
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

    In a cell with an object, the box with the largest IoU is responsible for it (the first if equal). The targets of
    its coordinates are those of the object, and the target of its confidence is their IoU. All other confidences have
    target 0.

    Args:
        outputs: outputs of `YOLOv1`.
        targets: B dicts of `boxes` and `labels`.
        coord_weight: lambda_coord, the weight of `centre` and `size`.
        no_object_weight: lambda_noobj, the weight of `no_object`. Most cells are empty and would dominate the loss.

    Returns:
        Scalars `centre`, `size`, `object`, `no_object` and `classes`, all weighted, and their sum `loss`. Without any
        object, all terms except `no_object` are 0.
    """
    outputs, axes = _check_outputs(outputs)
    targets = check_targets(targets, outputs["sizes"], axes["C"] + 1)
    grids = [
        yolov1_targets(target["boxes"], target["labels"], axes["S"], outputs["image_size"], axes["C"] + 1)
        for target in targets
    ]
    coordinates, confidences = outputs["coordinates"], outputs["confidences"]
    grid = {key: torch.stack([grid[key] for grid in grids]).to(coordinates.device) for key in grids[0]}
    objects = grid["objects"]  # (B, S, S)
    gt_coordinates = grid["coordinates"].to(coordinates)[:, :, :, None]  # (B, S, S, 1, 4)
    iou = _iou_with_objects(coordinates.detach(), gt_coordinates, outputs["image_size"])  # (B, S, S, N)
    responsible = F.one_hot(iou.argmax(dim=-1), axes["N"]).bool() & objects[..., None]
    error = (coordinates - gt_coordinates)[responsible] ** 2  # (objects, 4)
    class_error = (outputs["class_scores"] - grid["classes"].to(coordinates))[objects] ** 2
    losses = {
        "centre": coord_weight * error[:, :2].sum(),
        "size": coord_weight * error[:, 2:].sum(),
        "object": ((confidences - iou)[responsible] ** 2).sum(),
        "no_object": no_object_weight * (confidences[~responsible] ** 2).sum(),
        "classes": class_error.sum(),
    }
    losses = {name: value / axes["B"] for name, value in losses.items()}
    return losses | {"loss": sum(losses.values())}


def postprocess(
    outputs: Mapping[str, Any], score_threshold: float = 0.2, iou_threshold: float = 0.5, max_detections: int = 100
) -> list[dict[str, Tensor]]:
    """Convert outputs to boxes with the score Pr(class | object) * confidence, after non-maximum suppression per class.

    Args:
        outputs: outputs of `YOLOv1`.
        score_threshold: detections need a score above this. Paper: does not specify the value.
        iou_threshold: IoU threshold of non-maximum suppression.
        max_detections: maximum number of detections per image.

    Returns:
        For each image `boxes` (N, 4) xyxy clipped to its size, `labels` (N,) and `scores` (N,), highest score first.
        Boxes outside the image are dropped. A box may occur once per class.
    """
    outputs, _ = _check_outputs(outputs)
    all_boxes = decode_cells(outputs["coordinates"].detach(), outputs["image_size"])
    # regressed values may leave [0, 1]: two negative ones must not give a high score
    confidences, classes = (outputs[key].detach().clamp(0, 1) for key in ("confidences", "class_scores"))
    all_scores = confidences[..., None] * classes[:, :, :, None]  # (B, S, S, N, C)
    detections = []
    for boxes, scores, size in zip(all_boxes, all_scores, outputs["sizes"], strict=True):
        boxes, scores = clip_boxes(boxes.flatten(0, 2), size), scores.flatten(0, 2)  # (A, 4), (A, C)
        visible = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        box, label = ((scores > score_threshold) & visible[:, None]).nonzero(as_tuple=True)
        keep = batched_nms(boxes[box], scores[box, label], label, iou_threshold)[:max_detections]
        box, label = box[keep], label[keep]
        detections.append({"boxes": boxes[box], "labels": label + 1, "scores": scores[box, label]})
    return detections


def _iou_with_objects(coordinates: Tensor, gt_coordinates: Tensor, image_size: tuple[int, int]) -> Tensor:
    """IoU (..., S, S, N) of each predicted box with the object of its cell: (..., S, S, N, 4) and (..., S, S, 1, 4)."""
    boxes = decode_cells(coordinates, image_size)
    gt_boxes = decode_cells(gt_coordinates, image_size).expand_as(boxes)
    loss = iou_box_loss(boxes.reshape(-1, 4), gt_boxes.reshape(-1, 4), reduction="none")
    return (1 - loss).reshape(boxes.shape[:-1]).to(coordinates)


def _check_outputs(outputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """The outputs in full precision, and the lengths of their axes."""
    check_keys("outputs", outputs, (*MAPS, "image_size", "sizes"))
    axes = check_tensor_dict("outputs", outputs, **MAPS)
    check_no_nan("outputs", outputs, tuple(MAPS))
    return {**outputs, **{key: full_precision(outputs[key]) for key in MAPS}}, axes
