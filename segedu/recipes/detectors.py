"""Detection and instance recipes on synthetic scenes of balls, squares and triangles."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from segedu.backbones.fpn import FPN, PoolLevel
from segedu.datasets.shapes import CLASSES
from segedu.detection import fast_rcnn, faster_rcnn, fcos, rcnn, retinanet, ssd, yolov1
from segedu.detection.fast_rcnn import TwoLayerHead
from segedu.instance import condinst, mask_rcnn, solov2, yolact
from segedu.layers.proposals import Sampling, add_ground_truth
from segedu.recipes.data import Sets, synthetic_sets
from segedu.recipes.recipe import Recipe
from segedu.recipes.shapes import (
    Example,
    Examples,
    OtsuComponents,
    WithTargets,
    draw_examples,
    features,
    stack,
    stack_with_proposals,
    stack_with_targets,
)
from segedu.recipes.task import DETECTION
from segedu.unsupervised.selective_search import FAST, selective_search

ANCHOR_SIDES = (12.0, 17.0, 24.0)  # pixels
SSD_SCALES = (0.22, 0.32, 0.42, 0.6)  # of default boxes, as fractions of 64 pixels
LOWEST_SCORE = 0.02  # of a detection that is ranked: precision at high recall needs detections with low scores too

SETS = partial(synthetic_sets, draw=draw_examples, train=2048, held_out=64, dataset=Examples)


def with_proposals(pairs: list[Example]) -> Examples:
    """Add the proposals of selective search, which take 0.03 CPU-seconds per scene."""
    return Examples([(image, objects | {"proposals": selective_search(image, FAST)}) for image, objects in pairs])


class WithProposals(WithTargets):
    """A network that classifies proposals. In training they are in its input; otherwise selective search is run."""

    def forward(self, batch: Tensor | dict[str, Any]) -> dict[str, Any]:
        if isinstance(batch, dict):
            return super().forward(batch)
        return self.model(batch, proposals=[selective_search(image, FAST) for image in batch.cpu()])


@torch.no_grad()
def fit_svms(model: WithProposals, sets: Sets, number: int = 256) -> None:
    """The last stage of R-CNN's training: SVMs and box regressors, from the features of the first scenes' proposals."""
    device = next(model.parameters()).device
    pairs, outputs = sets.train.pairs[:number], []
    model.eval()
    for image, objects in pairs:
        proposals = add_ground_truth([objects["proposals"]], [objects])
        outputs.append(model.model(image[None].to(device), proposals=proposals))
    tensors = {key: torch.cat([o[key] for o in outputs]) for key in rcnn.KEYS if torch.is_tensor(outputs[0][key])}
    lists = {key: sum([o[key] for o in outputs], []) for key in ("proposals", "sizes")}
    rcnn.fit_heads(model.model, tensors | lists, [objects for _, objects in pairs])


def pyramid() -> FPN:
    """One level of stride 8: all objects have a similar size, that of circles 15 to 26 pixels wide."""
    return FPN(features(), 48, levels=(2,))


def two_stage_parts() -> dict[str, Any]:
    """Backbone, anchors and head of a narrow two-stage network."""
    # the last level has anchors for larger objects, but no features are pooled from it
    return {
        "backbone": FPN(features(), 48, levels=(2,), extra=PoolLevel()),
        "num_classes": len(CLASSES),
        "rpn": faster_rcnn.RPN(48, sizes=(ANCHOR_SIDES, (20.0, 28.0, 34.0))),
        "head": TwoLayerHead(48, size=5, hidden=128),
        "max_proposals": (100, 50),
    }


def small_mask_rcnn() -> mask_rcnn.MaskRCNN:
    """A narrow Mask R-CNN, whose masks have 14 x 14 pixels."""
    return mask_rcnn.MaskRCNN(**two_stage_parts(), mask_head=mask_rcnn.MaskHead(48, size=7, depth=2))


def small_yolact() -> yolact.YOLACT:
    """A narrow YOLACT with 16 prototypes."""
    return yolact.YOLACT(
        features(4),
        len(CLASSES),
        48,
        num_prototypes=16,
        scales=ANCHOR_SIDES,
        ratios=(1.0, 0.5, 2.0),
        use_square_anchors=False,
    )


def small_fcos() -> fcos.FCOS:
    """FCOS on `pyramid`."""
    return fcos.FCOS(pyramid(), len(CLASSES), strides=(8,), offset=0.5, groups=8, depth=2)


def on_shapes(**row: Any) -> Recipe:
    """A detection recipe on the scenes; `row` has what differs between the methods."""
    shared = {"data": "shapes", "task": DETECTION, "classes": CLASSES, "sets": SETS, "collate": stack}
    shared |= {"baseline": OtsuComponents, "steps": 400, "batch_size": 16, "learning_rate": 3e-3, "metric": "box_ap50"}
    shared |= {"cpu_minutes": 200 / 60, "gpu_minutes": 1.0}
    return Recipe(**(shared | row))


RECIPES = (
    on_shapes(
        method="rcnn",
        build=lambda: WithProposals(
            rcnn.RCNN(rcnn.CropFeatures(features()), len(CLASSES), crop_size=32, context=4, sampling=Sampling(count=32))
        ),
        sets=partial(SETS, train=512, dataset=with_proposals),
        collate=stack_with_proposals,
        loss=rcnn.rcnn_loss,
        finish=fit_svms,
        postprocess=lambda outputs, size: rcnn.postprocess(outputs, score_threshold=-1.0),
        steps=300,
        batch_size=8,
        target=0.6,
    ),
    on_shapes(
        method="fast_rcnn",
        build=lambda: WithProposals(
            fast_rcnn.FastRCNN(pyramid(), len(CLASSES), head=TwoLayerHead(48, size=5, hidden=128))
        ),
        sets=partial(SETS, train=1024, dataset=with_proposals),
        collate=stack_with_proposals,
        loss=fast_rcnn.fast_rcnn_loss,
        postprocess=lambda outputs, size: fast_rcnn.postprocess(outputs, score_threshold=LOWEST_SCORE),
        target=0.6,
    ),
    on_shapes(
        method="yolov1",
        build=lambda: yolov1.YOLOv1(features(), len(CLASSES), cells=8, hidden=256, dropout=0.0),
        loss=yolov1.yolov1_loss,
        postprocess=lambda outputs, size: yolov1.postprocess(outputs, score_threshold=LOWEST_SCORE),
        steps=3500,  # all grid cells share two large layers, so each cell sees few objects
        target=0.6,
    ),
    on_shapes(
        method="ssd",
        build=lambda: ssd.SSD(
            ssd.SSDFeatures(features(5), 64, ((32, 64, 2),)), len(CLASSES), SSD_SCALES, ((2,), (2,), (2,)), steps=None
        ),
        loss=ssd.ssd_loss,
        postprocess=lambda outputs, size: ssd.postprocess(outputs),
        target=0.6,
    ),
    on_shapes(
        method="retinanet",
        build=lambda: retinanet.RetinaNet(pyramid(), len(CLASSES), (ANCHOR_SIDES,), (0.5, 1.0, 2.0), norm_groups=8),
        loss=retinanet.retinanet_loss,
        postprocess=lambda outputs, size: retinanet.postprocess(outputs, score_threshold=LOWEST_SCORE),
        steps=700,
        target=0.75,
    ),
    on_shapes(
        method="fcos",
        build=small_fcos,
        loss=fcos.fcos_loss,
        postprocess=lambda outputs, size: fcos.postprocess(outputs, score_threshold=LOWEST_SCORE),
        target=0.75,
    ),
    on_shapes(
        method="faster_rcnn",
        build=lambda: WithTargets(faster_rcnn.FasterRCNN(**two_stage_parts())),
        collate=stack_with_targets,
        loss=faster_rcnn.faster_rcnn_loss,
        postprocess=lambda outputs, size: faster_rcnn.postprocess(outputs),
        steps=300,
        target=0.75,
    ),
    on_shapes(
        method="mask_rcnn",
        build=lambda: WithTargets(small_mask_rcnn()),
        collate=stack_with_targets,
        loss=mask_rcnn.mask_rcnn_loss,
        postprocess=lambda outputs, size: mask_rcnn.postprocess(outputs),
        steps=300,
        metric="mask_ap50",
        target=0.6,
    ),
    on_shapes(
        method="yolact",
        build=small_yolact,
        loss=yolact.yolact_loss,
        postprocess=lambda outputs, size: yolact.postprocess(outputs),
        metric="mask_ap50",
        target=0.6,
    ),
    on_shapes(
        method="condinst",
        build=lambda: condinst.CondInst(small_fcos(), width=32, depth=2),
        loss=condinst.condinst_loss,
        postprocess=lambda outputs, size: condinst.postprocess(outputs, score_threshold=LOWEST_SCORE),
        metric="mask_ap50",
        target=0.6,
    ),
    on_shapes(
        method="solov2",
        build=lambda: solov2.SOLOv2(
            FPN(features(), 32, levels=(1, 2)), len(CLASSES), (12, 10), 32, 2, 32, kernel_channels=16, groups=8
        ),
        loss=partial(solov2.solov2_loss, ranges=((1.0, 20.0), (14.0, 64.0))),
        postprocess=lambda outputs, size: solov2.postprocess(outputs),
        metric="mask_ap50",
        target=0.6,
    ),
)
