"""Instance recipes on synthetic cells, and what those on real microscope images share with them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from segedu.backbones.erfnet import ERFNetEncoder
from segedu.backbones.fpn import FPN, PoolLevel
from segedu.backbones.stardist_unet import StarDistUNet
from segedu.backbones.vgg import VGG
from segedu.detection.fast_rcnn import TwoLayerHead
from segedu.detection.faster_rcnn import RPN
from segedu.instance import mask_rcnn, signed_distance, spatial_embedding, stardist
from segedu.instance.cellpose import cellpose
from segedu.layers.proposals import Sampling
from segedu.ops.masks import label_map_from_masks
from segedu.recipes.baselines import OtsuWatershed
from segedu.recipes.cells import CLASSES, RADIUS, Targets, boxes_and_masks, cells_instance_sets
from segedu.recipes.recipe import Recipe, quick_layout
from segedu.recipes.shapes import WithTargets
from segedu.recipes.task import INSTANCES
from segedu.semantic.res_unet import res_unet


def nuclei_mask_rcnn() -> nn.Module:
    """Mask R-CNN on a narrow VGG, from stride 4 on, because half of the nuclei are less than 13 pixels wide.

    Anchors have 6 to 100 pixels. All boxes are pooled from the finest level, and masks have 14 x 14 pixels.
    """
    backbone = VGG(((16,), (32, 32), (64, 64), (96, 96), (96,))[:4], batch_norm=True)
    return WithTargets(
        mask_rcnn.MaskRCNN(
            FPN(backbone, 64, levels=(1, 2, 3), extra=PoolLevel()),
            num_classes=2,
            rpn=RPN(64, sizes=((6.0, 11.0), (16.0, 24.0), (34.0, 50.0), (70.0, 100.0)), ratios=(0.6, 1.0, 1.7)),
            head=TwoLayerHead(64, size=7, hidden=256),
            mask_head=mask_rcnn.MaskHead(64, size=7, depth=2),
            sampling=Sampling(count=64, positive_fraction=0.5, positive_iou=0.5),
            max_proposals=(300, 1000),
            detection_options={"score_threshold": 0.5, "iou_threshold": 0.4, "max_detections": 500},
        )
    )


def label_maps_of_mask_rcnn(outputs: dict[str, Any], size: tuple[int, int]) -> list[Tensor]:
    """One label map per image. Where masks overlap, a pixel belongs to the one with the highest score."""
    return [_without_rims(detections["masks"], detections["scores"]) for detections in mask_rcnn.postprocess(outputs)]


def _without_rims(masks: Tensor, scores: Tensor) -> Tensor:
    """A label map without masks that are more than half covered by masks with higher scores.

    A second, slightly larger mask of the same nucleus would otherwise leave a rim around the first.
    """
    label_map = label_map_from_masks(masks, scores)
    visible = label_map.flatten().long().bincount(minlength=len(masks) + 1)[1:]  # (N,) pixels
    keep = 2 * visible >= masks.sum(dim=(1, 2))
    return label_map_from_masks(masks[keep], scores[keep])


def small_stardist(channels: int, radius: float = RADIUS) -> nn.Module:
    """StarDist with batch normalisation, whose distances start at the usual radius of a nucleus, in pixels.

    The authors use neither and train for 40,000 steps. Without both, the network learns no shape in a few hundred.
    """
    model = stardist.StarDist(StarDistUNet(3, channels, batch_norm=True), width=4 * channels)
    nn.init.constant_(model.dist.bias, radius)
    return model


def embedding_network(widths: Sequence[int], dilations: Sequence[Sequence[int]], unit: float) -> nn.Module:
    """A shallower ERFNet than the paper's, without dropout, for a short training."""
    return spatial_embedding.SpatialEmbedding(ERFNetEncoder(3, widths, dilations, (0.0, 0.0)), unit=unit)


def embedding_functions(unit: float) -> dict[str, Any]:
    """Loss and post-processing with offsets in units of `unit` pixels."""
    return {
        "loss": partial(spatial_embedding.spatial_embedding_loss, unit=unit, foreground_weight=10.0),
        # without these limits, the rim that an object's own Gaussian does not cover becomes an object
        "postprocess": lambda outputs, size: spatial_embedding.postprocess(
            outputs, unit=unit, min_pixels=15, min_free_fraction=0.5
        ),
    }


TARGETS: dict[str, Targets] = {  # method -> what its network learns to predict, computed from a label map
    "signed_distance": signed_distance.signed_distance_targets,
    "stardist": stardist.stardist_targets,
    "cellpose": cellpose.cellpose_targets,
    "spatial_embedding": spatial_embedding.spatial_embedding_targets,
    "mask_rcnn": boxes_and_masks,
}


def on_cells(method: str, **fields: Any) -> Recipe:
    """The recipe of a method on synthetic cells, with a narrow network. `fields` are those of `Recipe`."""
    common = {"task": INSTANCES, "classes": CLASSES, "baseline": OtsuWatershed, "batch_size": 8}
    common |= {"metric": "instance_accuracy", "cpu_minutes": 1, "gpu_minutes": 0.5}
    return Recipe(method=method, data="cells", sets=cells_instance_sets(TARGETS[method]), **common, **fields)


RECIPES = (
    on_cells(
        "signed_distance",
        loss=signed_distance.signed_distance_loss,
        postprocess=lambda outputs, size: signed_distance.postprocess(outputs),
        # a short training needs batch normalisation, which the plain U-Net does not have
        build=lambda: quick_layout(signed_distance.SignedDistance(res_unet(3, 1, [8, 16, 32, 64]))),
        steps=200,
        learning_rate=1e-2,
        target=0.75,
    ),
    on_cells(
        "stardist",
        loss=stardist.stardist_loss,
        postprocess=stardist.postprocess,
        build=lambda: quick_layout(small_stardist(8)),
        steps=150,
        learning_rate=1e-2,
        target=0.7,
    ),
    on_cells(
        "cellpose",
        loss=cellpose.cellpose_loss,
        postprocess=lambda outputs, size: cellpose.postprocess(outputs),
        build=lambda: quick_layout(cellpose.Cellpose(3, [8, 16, 32, 64])),
        steps=100,
        learning_rate=1e-2,
        target=0.9,
    ),
    on_cells(
        "spatial_embedding",
        **embedding_functions(128.0),
        build=lambda: quick_layout(embedding_network((12, 24, 48), ((1, 1), (1, 2, 4)), unit=128.0)),
        steps=150,
        learning_rate=1e-2,
        target=0.7,
    ),
)
