"""The encoder of the street recipes: our small VGG, pretrained on other street scenes."""

from __future__ import annotations

from segedu.backbones.vgg import VGG
from segedu.weights import load
from segedu.weights.catalogue import STREET_VGG_STAGES


def street_vgg(stages: int = 5) -> VGG:
    """The first stages of a VGG that learned which classes occur in windows of other streets.

    It takes the place of the VGG pretrained on ImageNet from which papers start.
    """
    pretrained = load("street_vgg").state_dict()
    encoder = VGG(STREET_VGG_STAGES[:stages], batch_norm=True)
    encoder.load_state_dict({name: pretrained[name] for name in encoder.state_dict()})
    return encoder
