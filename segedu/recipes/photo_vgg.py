"""The encoder of the recipes on photographs: our small VGG, trained on real images."""

from __future__ import annotations

from segedu.backbones.vgg import VGG
from segedu.weights import load
from segedu.weights.catalogue import STREET_VGG_STAGES


def photo_vgg() -> VGG:
    """A VGG that learned from masks of 402 photographs of cats and dogs, as the encoder of `pets_encoder_unet`.

    It takes the place of the VGG pretrained on ImageNet from which papers start. Before the photographs, it was the VGG
    of the street scenes.
    """
    state = load("pets_encoder_unet").state_dict()
    encoder = VGG(STREET_VGG_STAGES, batch_norm=True)
    prefix = "network.backbone."
    encoder.load_state_dict({name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)})
    return encoder
