"""Key maps of published weights: a state dict with the published names loads strictly, and the sizes are the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segedu.backbones.fpn import FPN, PoolLevel
from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.instance.solov2 import SOLOv2, keys_of_mmdet, solov2_resnet50
from segedu.instance.yolact import YOLACT, keys_of_authors, yolact_resnet50


def tiny_solov2() -> SOLOv2:
    body = ResNet(BasicBlock, (1, 1, 1, 1), (8, 8, 8, 8))
    return SOLOv2(FPN(body, 8, (1, 2, 3, 4), PoolLevel()), 4, (8, 6, 5, 4, 3), 16, 2, 8, 12, groups=4)


def mmdet_name(ours: str) -> str:
    """The name in mmdet's source of a key of ours, written down by hand from its modules."""
    part, _, rest = ours.partition(".")
    layer = {"0": "conv", "1": "gn"}
    if part == "backbone":
        rest = rest.removeprefix("body.")
        for mine, theirs in (("fpn.inner_blocks", "neck.lateral_convs"), ("fpn.layer_blocks", "neck.fpn_convs")):
            if rest.startswith(mine):
                number, _, name = rest.removeprefix(mine + ".").split(".")
                return f"{theirs}.{number}.conv.{name}"
        return f"backbone.{rest}"
    if part == "mask_features":
        words = rest.split(".")
        if words[0] == "project":
            return f"mask_head.mask_feature_head.conv_pred.{layer[words[1]]}.{words[2]}"
        return f"mask_head.mask_feature_head.convs_all_levels.{words[1]}.conv{words[2]}.{layer[words[3]]}.{words[4]}"
    if part in ("class_convs", "kernel_convs"):
        number, inner, name = rest.split(".")
        return f"mask_head.{part.replace('class', 'cls')}.{number}.{layer[inner]}.{name}"
    return f"mask_head.{ {'class_logits': 'conv_cls', 'kernels': 'conv_kernel'}[part] }.{rest}"


def test_keys_of_solov2() -> None:
    ours = tiny_solov2().state_dict()
    theirs = {mmdet_name(key): value for key, value in ours.items()}
    some = ("neck.lateral_convs.3.conv.bias", "mask_head.mask_feature_head.convs_all_levels.3.conv2.gn.weight")
    some += ("backbone.layer1.0.conv1.weight", "mask_head.kernel_convs.1.conv.weight", "mask_head.conv_cls.bias")
    some += ("mask_head.mask_feature_head.conv_pred.conv.weight", "mask_head.cls_convs.0.gn.bias", "backbone.bn1.bias")
    assert set(some) <= set(theirs)
    net = tiny_solov2()
    nn.init.zeros_(net.kernels.weight)
    net.load_state_dict(keys_of_mmdet(theirs), strict=True)
    assert all(value.equal(ours[key]) for key, value in net.state_dict().items())
    with pytest.raises(RuntimeError, match="mask_head.unknown"):
        net.load_state_dict(keys_of_mmdet({**theirs, "mask_head.unknown": torch.zeros(1)}), strict=True)


def test_size_of_solov2() -> None:
    with torch.device("meta"):
        net = solov2_resnet50()
    weights = sum(p.numel() for p in net.parameters())
    assert round(weights / 1e6, 2) == 46.59  # measured on mmdet's network


def tiny_yolact() -> YOLACT:
    return YOLACT(ResNet(BasicBlock, (1, 1, 1, 1), (8, 8, 8, 8)), 4, 8, 6)


def name_of_authors(ours: str) -> str:
    """The name in the source of YOLACT's authors of a key of ours, written down by hand from its modules."""
    part, _, rest = ours.partition(".")
    if part == "backbone" and rest.startswith("layer"):
        return f"backbone.layers.{int(rest[5]) - 1}{rest[6:]}"
    if part == "pyramid":
        inner, number, name = rest.split(".")
        if inner == "extra":
            return f"fpn.downsample_layers.{number}.{name}"
        return f"fpn.{ {'lateral': 'lat', 'smooth': 'pred'}[inner] }_layers.{2 - int(number)}.{name}"
    heads = {
        "class_logits": "conf_layer",
        "deltas": "bbox_layer",
        "coefficients": "mask_layer",
        "shared": "upfeature.0",
    }
    if part in heads:
        return f"prediction_layers.0.{heads[part]}.{rest}"
    return {"protonet": "proto_net", "semantic": "semantic_seg_conv"}.get(part, part) + f".{rest}"


def test_keys_of_yolact() -> None:
    ours = tiny_yolact().state_dict()
    theirs = {name_of_authors(key): value for key, value in ours.items()}
    some = ("backbone.layers.0.0.conv1.weight", "fpn.lat_layers.0.weight", "proto_net.0.weight", "backbone.bn1.bias")
    some += ("proto_net.8.bias", "proto_net.10.weight", "prediction_layers.0.upfeature.0.weight")
    some += ("prediction_layers.0.conf_layer.bias", "semantic_seg_conv.weight", "fpn.downsample_layers.1.bias")
    assert set(some) <= set(theirs)
    assert theirs["fpn.lat_layers.0.weight"] is ours["pyramid.lateral.2.weight"]  # from the coarsest on
    net = tiny_yolact()
    net.load_state_dict(keys_of_authors(theirs), strict=True)
    assert all(value.equal(ours[key]) for key, value in net.state_dict().items())
    with pytest.raises(RuntimeError, match="maskiou_net"):
        net.load_state_dict(keys_of_authors({**theirs, "maskiou_net.0.weight": torch.zeros(1)}), strict=True)


def test_size_of_yolact() -> None:
    with torch.device("meta"):
        net = yolact_resnet50()
    weights = sum(p.numel() for p in net.parameters())
    assert round(weights / 1e6, 2) == 31.16  # measured on the authors' network
