"""SAM against Meta's segment-anything at the same weights: embeddings, masks, scores; keys; and its own rules."""

from __future__ import annotations

import pytest
import torch
from promptable.small_sam import SIZE, generator, prompts_of, twins
from torch import Tensor, nn

from segedu.promptable.sam.sam import postprocess

KINDS = ("points", "boxes", "points boxes", "masks", "points masks", "points boxes masks")


def their_answers(reference: nn.Module, images: Tensor, prompts: dict[str, Tensor], multi: bool) -> list[dict]:
    """Of images (B, 3, h, w) whose longer side is S already, each with its N prompts."""
    records = []
    for i, image in enumerate(images):
        record = {name: prompt[i] for name, prompt in prompts.items()}
        if "mask_inputs" in record:
            record["mask_inputs"] = record["mask_inputs"][:, None]
        records.append({**record, "image": 255 * image, "original_size": images.shape[-2:]})
    return reference(records, multi)


# --- parity -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("size", [(SIZE, SIZE), (31, SIZE)])
@torch.no_grad()
def test_equals_segment_anything(size: tuple[int, int], kinds: str) -> None:
    ours, reference = twins()
    images, prompts = torch.rand(2, 3, *size, generator=generator(3)), prompts_of((2, 4), size, kinds)
    for multi in (True, False):
        outputs = ours(images, **prompts, multimask_output=multi)
        masks = postprocess(outputs)
        for i, found in enumerate(their_answers(reference, images, prompts, multi)):
            logits, scores = found["low_res_logits"], found["iou_predictions"]
            assert logits.std() > 0.1 and logits.std(dim=0).mean() > 0.01  # prompts do make a difference
            torch.testing.assert_close(outputs["mask_logits"][i], logits, rtol=1e-4, atol=3e-5)
            torch.testing.assert_close(outputs["iou_scores"][i], scores, rtol=1e-4, atol=3e-5)
            assert (masks[i] ^ found["masks"]).float().mean() < 1e-3


@torch.no_grad()
def test_the_encoder_equals_theirs_in_double_precision() -> None:
    ours, reference = (model.image_encoder.double() for model in twins())
    images = torch.randn(2, 3, SIZE, SIZE, generator=generator(), dtype=torch.float64)
    expected = reference(images)
    assert expected.std() > 0.3
    torch.testing.assert_close(ours(images), expected, rtol=0, atol=1e-12)
    for name, weights in ours.named_parameters():  # and each of its weights matters
        if "rel_pos" in name or name.endswith(("qkv.bias", "pos_embed")):
            weights.mul_(1.1)
            assert (ours(images) - expected).abs().max() > 1e-5, name
            weights.div_(1.1)


@torch.no_grad()
def test_the_decoder_equals_theirs_in_double_precision() -> None:
    ours, reference = (model.mask_decoder.double() for model in twins())
    drawn = generator(5)
    draw = lambda *shape: torch.randn(*shape, generator=drawn, dtype=torch.float64)  # noqa: E731
    embeddings, positions, sparse, dense = draw(2, 16, 5, 7), draw(16, 5, 7), draw(2, 3, 4, 16), draw(2, 3, 16, 5, 7)
    logits, scores = ours(embeddings, positions, sparse, dense)
    for i in range(2):
        expected = reference.predict_masks(embeddings[i : i + 1], positions[None], sparse[i], dense[i])
        torch.testing.assert_close((logits[i], scores[i]), expected, rtol=0, atol=1e-12)
