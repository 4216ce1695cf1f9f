"""MobileSAM: its encoder is timm's TinyViT with SAM's neck, the rest segment-anything's; the official file's keys."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pooch
import pytest
import timm
import torch
from promptable.small_sam import generator, in_double_precision, prompts_of
from randomise import randomise
from timm.models.tiny_vit import TinyVit as TimmTinyViT
from torch import Tensor, nn

from segedu.backbones.tiny_vit import TinyViT
from segedu.promptable.mobile_sam import MobileImageEncoder
from segedu.promptable.sam.mask_decoder import MaskDecoder, TwoWayTransformer
from segedu.promptable.sam.prompt_encoder import PromptEncoder
from segedu.promptable.sam.sam import SAM, postprocess
from segedu.weights import pretrained

SIZE, WIDTH = 80, 16  # 20 x 20 tokens, then 10 x 10, then 5 x 5 twice
SMALL = {"embed_dims": (8, 8, 12, 16), "depths": (1, 1, 2, 1), "num_heads": (1, 2, 3, 4), "window_sizes": (7, 7, 4, 7)}
# From timm's names to those of the official file, which has the step to a stage at the end of the one before.
OFFICIAL = (
    (r"^patch_embed\.conv1\.", "patch_embed.seq.0."),
    (r"^patch_embed\.conv2\.", "patch_embed.seq.2."),
    *((rf"^stages\.{i}\.downsample\.", f"layers.{i - 1}.downsample.") for i in (1, 2, 3)),
    (r"^stages\.", "layers."),
    (r"\.conv\.weight$", ".c.weight"),
    (r"^head\.norm\.", "norm_head."),
    (r"^head\.fc\.", "head."),
)


class TheirEncoder(nn.Module):
    """timm's network with the stride of MobileSAM, and SAM's neck from segment-anything."""

    def __init__(self, body: nn.Module, width: int, img_size: int) -> None:
        super().__init__()
        norm = pytest.importorskip("segment_anything.modeling.common").LayerNorm2d
        self.img_size, self.body = img_size, body
        self.body.stages[3].downsample.conv2.conv.stride = (1, 1)
        first = nn.Conv2d(body.num_features, width, kernel_size=1, bias=False)
        second = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.neck = nn.Sequential(first, norm(width), second, norm(width))

    def forward(self, images: Tensor) -> Tensor:
        return self.neck(self.body.stages(self.body.patch_embed(images)))


def theirs(body: nn.Module, width: int = 256, size: int = 1024, hidden: int = 2048, masks: int = 16) -> nn.Module:
    modeling = pytest.importorskip("segment_anything.modeling")
    transformer = modeling.TwoWayTransformer(2, width, 8 if width > 16 else 2, hidden)
    head = {"iou_head_hidden_dim": width}
    decoder = modeling.MaskDecoder(transformer_dim=width, transformer=transformer, **head)
    prompts = modeling.PromptEncoder(width, (size // 16, size // 16), (size, size), masks)
    return modeling.Sam(TheirEncoder(body, width, size), prompts, decoder)


def official_file(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of `theirs` under the names of `mobile_sam.pt`."""
    state = {}
    for key, tensor in model.state_dict().items():
        if key.startswith("image_encoder.body."):
            key = key.removeprefix("image_encoder.body.")
            for pattern, replacement in OFFICIAL:
                key = re.sub(pattern, replacement, key)
            key = f"image_encoder.{key}"
        state[key] = tensor
    return state


def twins() -> tuple[SAM, nn.Module]:
    reference = randomise(theirs(TimmTinyViT(num_classes=3, **SMALL), WIDTH, SIZE, 24, 8))
    encoder = MobileImageEncoder(TinyViT(**SMALL, last_stride=1), WIDTH)
    decoder = MaskDecoder(TwoWayTransformer(WIDTH, 2, 2, 24), iou_hidden=WIDTH)
    ours = SAM(encoder, PromptEncoder(WIDTH, SIZE // 16, SIZE, 8), decoder).double().eval()
    weights = pretrained._our_keys(official_file(reference), pretrained.WEIGHTS["mobile_sam"])
    ours.load_state_dict(weights, strict=True)
    return ours, reference


@torch.no_grad()
def test_embeddings_masks_and_scores_equal_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, reference = in_double_precision(monkeypatch, *twins())
    pixels = torch.randint(0, 256, (2, 3, SIZE, 70), generator=generator(3)).double()
    prompts = prompts_of((2, 4), (SIZE, 70), "points boxes")
    prompts = {key: value.double() if value.is_floating_point() else value for key, value in prompts.items()}
    outputs = ours(pixels / 255, **prompts)
    masks, embeddings = postprocess(outputs), ours.encode(pixels / 255)
    for i, image in enumerate(pixels):
        expected = reference.image_encoder(reference.preprocess(image)[None])[0]
        torch.testing.assert_close(embeddings[i], expected, rtol=0, atol=1e-9)
        record = {name: prompt[i] for name, prompt in prompts.items()}
        found = reference([{**record, "image": image, "original_size": (SIZE, 70)}], True)[0]
        assert expected.std() > 0.3 and found["low_res_logits"].std() > 0.05
        torch.testing.assert_close(outputs["mask_logits"][i], found["low_res_logits"], rtol=0, atol=1e-9)
        torch.testing.assert_close(outputs["iou_scores"][i], found["iou_predictions"], rtol=0, atol=1e-9)
        assert torch.equal(masks[i], found["masks"])


@torch.no_grad()
def test_the_encoder_equals_theirs_in_double_precision() -> None:
    ours, reference = twins()
    images = torch.randn(2, 3, SIZE, SIZE, generator=generator(), dtype=torch.float64)
    expected = reference.image_encoder(images)
    torch.testing.assert_close(ours.image_encoder(images), expected, rtol=0, atol=1e-11)
    for name, weights in ours.image_encoder.named_parameters():
        if "attention_biases" in name or name.startswith("neck"):
            weights.view(-1)[::2].mul_(1.1)  # of all, a normalisation would hide it
            assert (ours.image_encoder(images) - expected).abs().max() > 1e-6, name
            weights.view(-1)[::2].div_(1.1)


def test_the_official_file_loads_strictly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """439 names, of the published shapes; the classifier that nothing asks is left out."""
    state = official_file(randomise(theirs(timm.create_model("tiny_vit_5m_224", num_classes=1000))).float())
    assert len(state) == 439 and "image_encoder.patch_embed.seq.0.c.weight" in state
    assert state["image_encoder.head.weight"].shape == (1000, 320)
    # about 10.1 million numbers, and the names of their places: the size of the published file
    assert abs(sum(4 * tensor.numel() for tensor in state.values()) / 40_728_226 - 1) < 0.01
    row = pretrained.WEIGHTS["mobile_sam"]
    torch.save(state, tmp_path / row.file_name)
    monkeypatch.setenv("SEGEDU_CACHE", str(tmp_path))
    here = replace(row, sha256=pooch.file_hash(tmp_path / row.file_name))
    monkeypatch.setitem(pretrained.WEIGHTS, "mobile_sam", here)
    model = pretrained.load("mobile_sam", progress=False)
    assert row.url.endswith("/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt") and len(row.sha256) == 64
    assert [type(part).__name__ for part in model.modules()].count("Normalize") == 1 and not model.training
    assert torch.equal(model.state_dict()["image_encoder.neck.2.weight"], state["image_encoder.neck.2.weight"])


def test_an_encoder_of_another_stride() -> None:
    with pytest.raises(ValueError, match=r"^backbone has the strides \(4, 8, 16, 32\), expected a last stride of 16"):
        MobileImageEncoder(TinyViT(**SMALL))
