"""Detectors at tiny width, as the table of contracts wants them: all that weights decide, as one row of an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from segedu.backbones.fpn import FPN, LevelsP6P7, PoolLevel
from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.backbones.vgg import VGG
from segedu.backbones.yolo11 import Scale, YOLO11Pyramid
from segedu.detection.detr import DETR
from segedu.detection.fast_rcnn import FastRCNN, TwoLayerHead
from segedu.detection.faster_rcnn import RPN, FasterRCNN
from segedu.detection.fcos import FCOS
from segedu.detection.rcnn import RCNN, CropFeatures
from segedu.detection.retinanet import RetinaNet
from segedu.detection.ssd import SSD, SSDFeatures
from segedu.detection.yolov1 import YOLOv1, YOLOv1Backbone
from segedu.instance.condinst import CondInst
from segedu.instance.mask_rcnn import MaskHead, MaskRCNN
from segedu.instance.solov2 import SOLOv2
from segedu.instance.yolact import YOLACT
from segedu.instance.yolo11_seg import YOLO11Seg
from segedu.layers.transformer import Transformer
from segedu.panoptic import maskformer
from segedu.panoptic.detr_panoptic import DETRPanoptic
from segedu.panoptic.mask2former.mask2former import Mask2Former, MaskedDecoder
from segedu.panoptic.mask2former.pixel_decoder import PixelDecoder
from segedu.panoptic.oneformer import OneFormer, TaskQueries
from segedu.panoptic.oneformer_text import TASKS, WordTokenizer, task_sentence
from segedu.panoptic.panoptic_fpn import PanopticFPN, SemanticBranch

REGIONS = 3  # of an image


def _vgg() -> VGG:
    return VGG(((8,), (8,), (8,), (8,), (16,)), batch_norm=True)


def _resnet(output_stride: int) -> ResNet:
    return ResNet(BasicBlock, (1, 1, 1, 1), (8, 8, 16, 16), output_stride=output_stride)


class InARow(nn.Module):
    """A detector: all numbers of an image that depend on weights, one behind the other, as one channel."""

    NOT_LEARNED = ("anchors", "sizes", "image_size", "points", "strides", "proposals", "instances", "aux_outputs")

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        found = [value for name, value in self.model(images).items() if name not in self.NOT_LEARNED]
        tensors = (x for value in found for x in (value if isinstance(value, list) else [value]))
        # of the boxes of a batch each image has as many
        return torch.cat([x.reshape(len(images), -1) for x in tensors], dim=1)[:, None]


def _levels(first: int = 1) -> FPN:
    return FPN(ResNet(BasicBlock, (1, 1, 1, 1), (8, 8, 8, 8)), 8, range(first, 5), PoolLevel())


def _fcos() -> FCOS:
    return FCOS(_levels(2), 4, (8, 16, 32, 64), 0.5, groups=4, depth=1)


def _retinanet() -> RetinaNet:
    return RetinaNet(FPN(_resnet(32), 8, levels=(2, 3, 4), extra=LevelsP6P7(16, 8)), 4, norm_groups=2)


def _ssd() -> SSD:
    return SSD(SSDFeatures(_vgg(), 16, ((8, 16, 2),)), 4, (0.2, 0.4, 0.7, 0.9), ((2,), (2,), (2,)), steps=None)


def _places(height: int, width: int, *strides: int) -> int:
    return sum(-(-height // stride) * -(-width // stride) for stride in strides)


class WithRegions(nn.Module):
    """A network that judges boxes from elsewhere, on the same few boxes of each image."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> dict[str, Any]:
        boxes = torch.tensor([[0.0, 0.0, 40.0, 44.0], [4.0, 6.0, 20.0, 30.0], [12.0, 9.0, 41.0, 33.0]])[:REGIONS]
        return self.model(images, proposals=[boxes] * len(images))


def _rcnn() -> nn.Module:
    return WithRegions(RCNN(CropFeatures(_resnet(32), 1), 4, crop_size=33, context=3))


def _fast_rcnn() -> nn.Module:
    return WithRegions(FastRCNN(_resnet(16), 4, head=TwoLayerHead(16, 3, 8)))


def _two_stages() -> dict[str, Any]:
    parts = {"rpn": RPN(8, ((8,), (16,), (24,), (32,), (48,))), "head": TwoLayerHead(8, 3, 8)}
    return {"backbone": _levels(1), "num_classes": 4, "max_proposals": (REGIONS, REGIONS), **parts}


def _mask_rcnn() -> MaskRCNN:
    detect = {"score_threshold": 0.0, "iou_threshold": 0.9, "max_detections": REGIONS}
    return MaskRCNN(**_two_stages(), mask_head=MaskHead(8, size=4, depth=1), detection_options=detect)


def _panoptic_fpn() -> PanopticFPN:
    detect = {"score_threshold": 0.0, "iou_threshold": 0.9, "max_detections": REGIONS}
    parts = {**_two_stages(), "mask_head": MaskHead(8, size=4, depth=1), "detection_options": detect}
    return PanopticFPN(**parts, num_stuff=2, semantic_branch=SemanticBranch(8, 3, width=8, groups=2))


def _yolo11_seg() -> YOLO11Seg:
    return YOLO11Seg(YOLO11Pyramid(Scale(0.5, 0.125, 1024, deep=False)), 4, prototype_width=8, num_prototypes=4, bins=4)


def _detr() -> DETR:
    net = DETR(_resnet(32), Transformer(8, 2, 1, 2, 12, dropout=0.3), 4, 6)
    nn.init.normal_(net.transformer.decoder.layers[0].self_attn.in_proj_bias)  # else the idle layer gets no gradient
    return net


def _detr_panoptic() -> DETRPanoptic:
    net = DETRPanoptic(DETR(_resnet(32), Transformer(32, 2, 1, 2, 12, dropout=0.3), 4, 6), 2, groups=2)
    nn.init.normal_(net.detr.transformer.decoder.layers[0].self_attn.in_proj_bias)
    return net


def _maskformer() -> maskformer.MaskFormer:
    body, transformer = _resnet(32), Transformer(8, 2, 0, 2, 12, dropout=0.3)
    net = maskformer.MaskFormer(body, maskformer.PixelDecoder(body.channels[-4:], 8, 8, groups=2), transformer, 4, 6)
    nn.init.normal_(transformer.decoder.layers[0].self_attn.in_proj_bias)  # as DETR's
    return net


def _mask2former() -> Mask2Former:
    pixels = PixelDecoder((8, 8, 16, 16), 32, 4, layers=1, hidden=12)
    for layer in pixels.layers:  # at first all tokens look at the same places, and positions say nothing
        nn.init.normal_(layer.self_attn.sampling_offsets.weight, std=0.1)
        nn.init.normal_(layer.self_attn.attention_weights.weight, std=0.1)
    return Mask2Former(_resnet(32), pixels, MaskedDecoder(4, 6, 32, 4, 3, 12))


def _oneformer() -> OneFormer:
    tokenize, parts = WordTokenizer(map(task_sentence, TASKS), 5), _mask2former()
    queries = TaskQueries(32, 4, hidden=12, dropout=0.3)
    nn.init.normal_(queries.layers[0].self_attn.in_proj_bias)  # as DETR's
    return OneFormer(parts.backbone, parts.pixel_decoder, parts.decoder, queries, tokenize, 5)


def _fcos_row(height: int, width: int, each: int = 4 + 4 + 1) -> int:
    return each * _places(height, width, 8, 16, 32, 64)


def _condinst_row(height: int, width: int) -> int:
    return _fcos_row(height, width, 4 + 4 + 1 + 169) + 8 * _places(height, width, 8)


def _solov2_row(height: int, width: int) -> int:
    return (3 + 8) * (36 + 25 + 16 + 9 + 4) + 8 * _places(height, width, 4)


def _yolact_row(height: int, width: int) -> int:
    anchors, finest = 3 * _places(height, width, 8, 16, 32, 64), _places(height, width, 8)
    return (4 + 4 + 6) * anchors + 6 * 4 * finest + 3 * finest


def _retinanet_row(height: int, width: int) -> int:
    return (4 + 4) * 9 * _places(height, width, 8, 16, 32, 64, 128)


def _faster_row(height: int, width: int) -> int:
    maps = _places(height, width, 4, 8, 16, 32, 64)
    return (1 + 4) * 3 * maps + 8 * maps + REGIONS * (4 + 4 * 4)


def _yolo11_row(height: int, width: int) -> int:
    height, width = (-(-side // 32) * 32 for side in (height, width))
    return (4 * 4 + 3 + 4) * _places(height, width, 8, 16, 32) + 4 * _places(height, width, 4)


def _ssd_row(height: int, width: int) -> int:
    sides = [(-(-(n // 4) // 2), -(-(n // 4) // 2) // 2) for n in (height, width)]  # the third pooling rounds up
    maps = zip(*((a, b, -(-b // 2)) for a, b in sides), strict=True)
    return (4 + 4) * 4 * sum(h * w for h, w in maps)


DETECTORS = [
    ("fcos", _fcos, _fcos_row),
    ("condinst", lambda: CondInst(_fcos(), width=8, depth=1), _condinst_row),
    ("solov2", lambda: SOLOv2(_levels(), 4, (6, 5, 4, 3, 2), 8, 1, 8, 8, groups=4), _solov2_row),
    ("yolact", lambda: YOLACT(_levels(1).body, 4, 8, 6, (24.0, 48.0, 96.0, 192.0)), _yolact_row),
    ("retinanet", _retinanet, _retinanet_row),
    ("ssd", _ssd, _ssd_row),
    ("rcnn", _rcnn, lambda h, w: REGIONS * (16 + 4 + 3 + 3 * 4)),
    ("fast_rcnn", _fast_rcnn, lambda h, w: REGIONS * (4 + 4 * 4)),
    ("faster_rcnn", lambda: FasterRCNN(**_two_stages()), _faster_row),
    ("mask_rcnn", _mask_rcnn, lambda h, w: _faster_row(h, w) + REGIONS * 4 * 8 * 8),
    ("panoptic_fpn", _panoptic_fpn, lambda h, w: _faster_row(h, w) + REGIONS * 4 * 8 * 8 + 3 * h * w),
    ("detr", _detr, lambda h, w: 6 * (5 + 4)),
    ("detr_panoptic", _detr_panoptic, lambda h, w: 6 * (5 + 4 + _places(h, w, 4))),
    ("maskformer", _maskformer, lambda h, w: 6 * (5 + _places(h, w, 4))),
    ("mask2former", _mask2former, lambda h, w: 6 * (5 + _places(h, w, 4))),
    ("oneformer", _oneformer, lambda h, w: 6 * (5 + _places(h, w, 4) + 32)),  # and the queries at the start
    ("yolo11_seg", _yolo11_seg, _yolo11_row),
    (
        "yolov1",
        lambda: YOLOv1(YOLOv1Backbone(((3, 4, 2), (), (1, 3))), 4, cells=3, hidden=8, dropout=0.0),
        lambda h, w: 9 * (2 * 5 + 3),
    ),
]
