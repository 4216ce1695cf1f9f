"""The recipe that a folder of your own boxes makes of a detector, or of Mask R-CNN if there are masks too.

All of them start with the small pretrained VGG. Their anchors have 16 to 200 pixels; FCOS needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate

from segedu.backbones.fpn import FPN, LevelsP6P7, PoolLevel
from segedu.datasets.box_folder import BOXES, BoxFolder
from segedu.detection import faster_rcnn, fcos, retinanet, ssd
from segedu.detection.fast_rcnn import TwoLayerHead
from segedu.instance import mask_rcnn
from segedu.layers.proposals import Sampling
from segedu.recipes.own_boxes import OtsuBoxes, box_change, own_box_sets
from segedu.recipes.own_changes import LIGHT
from segedu.recipes.own_images import OWN, Preparation
from segedu.recipes.recipe import Recipe
from segedu.recipes.shapes import Instances, WithTargets, stack, stack_with_targets
from segedu.recipes.street_vgg import street_vgg
from segedu.recipes.task import DETECTION

WIDTH = 64  # channels of each level of a pyramid
BOX_WINDOW = 256  # pixels: the side of the windows of the training
BOX_SIDE = 512  # pixels: images with a longer side are reduced
STEPS, BATCH = 1500, 8
LOWEST_SCORE = 0.02  # precision at high recall needs detections with low scores too
ANCHORS = tuple(tuple(side * 2 ** (i / 3) for i in range(3)) for side in (16.0, 32.0, 64.0, 128.0, 256.0))
PAIRS_OF_ANCHORS = ((16.0, 23.0), (32.0, 45.0), (64.0, 90.0), (128.0, 180.0))
SSD_SCALES = (0.07, 0.15, 0.3, 0.45, 0.62, 0.8)  # of the image


@dataclass(frozen=True)
class Detector:
    """How a detector is built and trained.

    Attributes:
        build: number of classes and side of a window -> network.
        loss: outputs and targets -> losses.
        postprocess: outputs and size of the image -> detections.
        learning_rate: the highest.
        takes_targets: whether the network samples proposals from the targets in training.
        masks: whether it needs masks.
        whole: whether it is trained on whole images of one size in place of windows.
    """

    build: Callable[[int, int], nn.Module]
    loss: Callable[..., Any]
    postprocess: Callable[[Any, tuple[int, int]], list]
    learning_rate: float
    takes_targets: bool = False
    masks: bool = False
    whole: bool = False


class OneSize(nn.Module):
    """A network for square images of one side: others are resized to it, as SSD does with every image."""

    def __init__(self, model: nn.Module, side: int) -> None:
        super().__init__()
        self.model, self.side = model, side

    def forward(self, images: Tensor) -> dict[str, Any]:
        size = (self.side, self.side)
        if tuple(images.shape[-2:]) != size:
            images = interpolate(images, size, mode="bilinear", antialias=True)
        return self.model(images)


def ssd_detections(outputs: dict[str, Any], size: tuple[int, int]) -> list[Instances]:
    """Detections of SSD, in pixels of an image of that (height, width)."""
    detections = ssd.postprocess(outputs, score_threshold=LOWEST_SCORE)
    for found, (height, width) in zip(detections, outputs["sizes"], strict=True):
        found["boxes"] = found["boxes"] * found["boxes"].new_tensor([size[1] / width, size[0] / height] * 2)
    return detections


def fine_pyramid() -> FPN:
    """Levels with strides of 8 to 128 pixels."""
    backbone = street_vgg()
    return FPN(backbone, WIDTH, levels=(2, 3, 4), extra=LevelsP6P7(backbone.channels[4], WIDTH))


def two_stage_parts(num_classes: int) -> dict[str, Any]:
    """Backbone, proposals and head of a two-stage detector."""
    return {
        "backbone": FPN(street_vgg(), WIDTH, levels=(2, 3, 4), extra=PoolLevel()),
        "num_classes": num_classes,
        "rpn": faster_rcnn.RPN(WIDTH, sizes=PAIRS_OF_ANCHORS),
        "head": TwoLayerHead(WIDTH, size=7, hidden=256),
        "sampling": Sampling(count=64),
        "max_proposals": (300, 150),
    }


def small_ssd(num_classes: int, side: int) -> nn.Module:
    """SSD with five feature maps."""
    backbone = ssd.SSDFeatures(street_vgg(), 128, ((32, 64, 2),) * 3)
    return OneSize(ssd.SSD(backbone, num_classes, SSD_SCALES, ((2,),) * 5, steps=None), side)


def small_mask_rcnn(num_classes: int, side: int) -> nn.Module:
    """Mask R-CNN whose masks have 28 x 28 pixels."""
    options = {"score_threshold": LOWEST_SCORE}
    head = mask_rcnn.MaskHead(WIDTH, size=14, depth=2)
    parts = two_stage_parts(num_classes)
    return WithTargets(mask_rcnn.MaskRCNN(**parts, mask_head=head, detection_options=options))


DETECTORS: dict[str, Detector] = {
    "retinanet": Detector(
        lambda num_classes, side: retinanet.RetinaNet(
            fine_pyramid(), num_classes, ANCHORS, (0.5, 1.0, 2.0), norm_groups=8
        ),
        retinanet.retinanet_loss,
        lambda outputs, size: retinanet.postprocess(outputs, score_threshold=LOWEST_SCORE, max_detections=100),
        1e-3,
    ),
    "fcos": Detector(
        lambda num_classes, side: fcos.FCOS(fine_pyramid(), num_classes, offset=0.5, groups=8, depth=2),
        fcos.fcos_loss,
        lambda outputs, size: fcos.postprocess(outputs, score_threshold=LOWEST_SCORE),
        2e-3,
    ),
    "faster_rcnn": Detector(
        lambda num_classes, side: WithTargets(faster_rcnn.FasterRCNN(**two_stage_parts(num_classes))),
        faster_rcnn.faster_rcnn_loss,
        lambda outputs, size: faster_rcnn.postprocess(outputs, score_threshold=LOWEST_SCORE),
        1e-3,
        takes_targets=True,
    ),
    "ssd": Detector(small_ssd, ssd.ssd_loss, ssd_detections, 1e-3, whole=True),
    "mask_rcnn": Detector(
        small_mask_rcnn,
        mask_rcnn.mask_rcnn_loss,
        lambda outputs, size: mask_rcnn.postprocess(outputs),
        1e-3,
        takes_targets=True,
        masks=True,
    ),
}


def box_recipe(method: str, classes: tuple[str, ...], preparation: Preparation, augment: str = LIGHT) -> Recipe:
    """The recipe of a detector for images of this preparation, and these classes with the background."""
    if method not in DETECTORS:
        raise ValueError(
            f"method is {method!r}, which does not learn from a folder of boxes, expected one of {', '.join(DETECTORS)}"
        )
    detector = DETECTORS[method]
    change = box_change(augment, preparation.window, detector.whole)
    return Recipe(
        method=method,
        data=OWN,
        task=DETECTION,
        classes=classes,
        build=partial(detector.build, len(classes), preparation.window),
        loss=detector.loss,
        sets=partial(own_box_sets, preparation=preparation, change=change, masks=detector.masks),
        baseline=OtsuBoxes,
        steps=STEPS,
        batch_size=BATCH,
        learning_rate=detector.learning_rate,
        metric="mask_ap50" if detector.masks else "box_ap50",
        target=0.0,
        cpu_minutes=30,
        gpu_minutes=5,
        postprocess=detector.postprocess,
        collate=stack_with_targets if detector.takes_targets else stack,
    )


def own_box_recipe(
    method: str, folder: BoxFolder, *, window: int | None, longest_side: int | None, augment: str
) -> Recipe:
    """The recipe of a detector on a folder of your own; the arguments are those of `own_recipe`.

    Raises:
        ValueError: the method is not a detector, or it needs masks and the folder has none for some objects.
    """
    side = BOX_SIDE if longest_side is None else longest_side or None
    recipe = box_recipe(method, folder.classes, Preparation(BOXES, side, window or BOX_WINDOW), augment)
    if DETECTORS[method].masks and not folder.has_masks:
        raise ValueError(
            f"method is {method!r}, which learns masks, and {folder.root} has objects without a segmentation, expected "
            f"one of {', '.join(name for name, one in DETECTORS.items() if not one.masks)}, which learn boxes alone"
        )
    return recipe
