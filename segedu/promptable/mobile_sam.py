"""MobileSAM: SAM with an image encoder a hundred times smaller, distilled from the embeddings of the large one.

Paper: Zhang, Han, Qiao, Kim, Bae, Lee, Hong, "Faster Segment Anything: Towards Lightweight SAM for Mobile
    Applications", 2023, arXiv 2306.14289. The encoder: Wu et al., "TinyViT", ECCV 2022, arXiv 2207.10666.
Idea: Nearly all of SAM's computation is in its image encoder. Training a small encoder together with the decoder is
    slow and unstable, because each depends on the other. So the two are decoupled: the small encoder is trained alone,
    with the mean squared error between its embeddings and those of SAM's largest encoder. These need no masks and no
    prompts, and are computed once and stored. SAM's prompt encoder and mask decoder are then used unchanged.
Simplified: the network and its weights, not its training.
Shapes: as SAM's: images (B, 3, H, W) in [0, 1] and prompts in their pixels -> dict of `mask_logits`, `iou_scores`, ...
    The encoder: normalised images (B, 3, S, S) -> embeddings (B, C, S / 16, S / 16).
Quality: embeddings equal those of timm's TinyViT with MobileSAM's last stride, and masks and scores those of Meta's
    segment-anything after it, at the same weights (tests/promptable/test_mobile_sam.py).
Course: 16-promptable
Lab: 16_promptable
"""

from __future__ import annotations

from torch import Tensor, nn

from segedu.backbones.tiny_vit import TinyViT, tiny_vit_5m
from segedu.promptable.sam.image_encoder import neck
from segedu.promptable.sam.mask_decoder import MaskDecoder, TwoWayTransformer
from segedu.promptable.sam.prompt_encoder import PromptEncoder
from segedu.promptable.sam.sam import SAM


class MobileImageEncoder(nn.Module):
    """TinyViT followed by SAM's neck.

    Args:
        backbone: its last stage has stride 16, so that the embeddings have the same size as SAM's.
        out_channels: C of the embeddings.
    """

    def __init__(self, backbone: TinyViT, out_channels: int = 256) -> None:
        super().__init__()
        if backbone.strides[-1] != 16:
            raise ValueError(
                f"backbone has the strides {backbone.strides}, expected a last stride of 16. Pass last_stride=1"
            )
        self.backbone = backbone
        self.neck = neck(backbone.channels[-1], out_channels)

    def forward(self, images: Tensor) -> Tensor:
        return self.neck(self.backbone(images)[-1])  # (B, C, S / 16, S / 16)


def mobile_sam() -> SAM:
    """The paper's network, 9.8 million parameters: 5.7 of the encoder, and SAM's prompt encoder and mask decoder."""
    encoder = MobileImageEncoder(tiny_vit_5m(last_stride=1))
    return SAM(encoder, PromptEncoder(), MaskDecoder(TwoWayTransformer()))
