"""SAM against Meta's segment-anything at the same weights: embeddings, masks, scores; keys; and its own rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from promptable.small_sam import SIZE, generator, in_double_precision, prompts_of, small, twins
from torch import Tensor, nn

from segedu.promptable.sam import sam as builders
from segedu.promptable.sam.image_encoder import ImageEncoder, RelativePositionAttention
from segedu.promptable.sam.mask_decoder import MaskDecoder, TwoWayTransformer
from segedu.promptable.sam.prompt_encoder import PromptEncoder
from segedu.promptable.sam.sam import SAM, fit_images, fitted_size, full_size, postprocess
from segedu.weights import WEIGHTS, pretrained

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
def test_equals_segment_anything(size: tuple[int, int], kinds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, reference = in_double_precision(monkeypatch, *twins())
    images = torch.rand(2, 3, *size, generator=generator(3), dtype=torch.float64)
    prompts = prompts_of((2, 4), size, kinds)
    prompts = {key: value.double() if value.is_floating_point() else value for key, value in prompts.items()}
    for multi in (True, False):
        outputs = ours(images, **prompts, multimask_output=multi)
        masks = postprocess(outputs)
        for i, found in enumerate(their_answers(reference, images, prompts, multi)):
            logits, scores = found["low_res_logits"], found["iou_predictions"]
            assert logits.std() > 0.1 and logits.std(dim=0).mean() > 0.01  # prompts do make a difference
            torch.testing.assert_close(outputs["mask_logits"][i], logits, rtol=0, atol=1e-9)
            torch.testing.assert_close(outputs["iou_scores"][i], scores, rtol=0, atol=1e-9)
            assert torch.equal(masks[i], found["masks"])


# Tokens: 5 x 5, which windows of 3 x 3 do not divide; 6 x 6, which they do; a single window; less than one window.
@pytest.mark.parametrize("side", [SIZE, 48, 24, 16])
@torch.no_grad()
def test_the_encoder_equals_theirs_in_double_precision(side: int) -> None:
    ours, reference = (model.image_encoder.double() for model in twins(side))
    images = torch.randn(2, 3, side, side, generator=generator(), dtype=torch.float64)
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


@pytest.mark.parametrize("size", [(52, 30), (21, 64), (3, 60)])
@torch.no_grad()
def test_equals_their_predictor_on_images_of_any_size(size: tuple[int, int]) -> None:
    module = pytest.importorskip("segment_anything")
    ours, reference = twins()
    picture = torch.randint(0, 256, (*size, 3), generator=generator(), dtype=torch.uint8)
    prompts = prompts_of((1,), size, "points boxes")
    predictor = module.SamPredictor(reference)
    predictor.set_image(picture.numpy())
    points, labels, box = (prompts[name][0].numpy() for name in ("point_coords", "point_labels", "boxes"))
    masks, scores, logits = predictor.predict(points, labels, box, return_logits=True)
    outputs = ours(picture.permute(2, 0, 1)[None] / 255, **prompts)
    torch.testing.assert_close(outputs["mask_logits"][0].numpy(), logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs["iou_scores"][0].numpy(), scores, rtol=1e-4, atol=1e-4)
    large = full_size(outputs["mask_logits"], SIZE, size)[0]
    torch.testing.assert_close(large.numpy(), masks, rtol=1e-4, atol=1e-4)
    assert torch.equal(postprocess(outputs)[0], large > 0)


# --- the weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "millions"), [("sam_vit_b", 93.74), ("sam_vit_l", 312.34), ("sam_vit_h", 641.09)])
def test_official_keys(name: str, millions: float) -> None:
    module = pytest.importorskip("segment_anything")
    with torch.device("meta"):
        ours, reference = getattr(builders, name)(), module.sam_model_registry[name.removeprefix("sam_")]()
    expected = {key: value.shape for key, value in reference.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == expected
    assert name != "sam_vit_b" or len(expected) == 314
    assert sum(p.numel() for p in ours.parameters()) == pytest.approx(millions * 1e6, rel=1e-3)
    theirs = {name: module.eps for name, module in reference.named_modules() if hasattr(module, "eps")}
    assert {name: module.eps for name, module in ours.named_modules() if hasattr(module, "eps")} == theirs
    assert [block.window_size or 0 for block in ours.image_encoder.blocks] == [
        block.window_size for block in reference.image_encoder.blocks
    ]


def test_a_file_of_theirs_loads_strictly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file as Meta's, of the tiny network, through the code that loads the large ones."""
    ours, reference = twins()
    row = WEIGHTS["sam_vit_b"]
    assert row.url.endswith(row.file_name) and row.normalizes and len(row.sha256) == 64
    path = tmp_path / row.file_name
    torch.save(reference.state_dict(), path)
    monkeypatch.setattr(pretrained, "fetch", lambda name, **options: path)
    monkeypatch.setattr(builders, "sam_vit_b", lambda: small(seed=9))
    loaded = pretrained.load("sam_vit_b")
    images, prompts = torch.rand(1, 3, 30, 20), prompts_of((1,), (30, 20), "points")
    assert torch.equal(loaded(images, **prompts)["mask_logits"], ours(images, **prompts)["mask_logits"])
    torch.save({key: value for key, value in reference.state_dict().items() if "iou_token" not in key}, path)
    with pytest.raises(pretrained.WeightsError, match="iou_token"):
        pretrained.load("sam_vit_b")


# --- rules of ours ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_one_object_or_many_one_image_or_many() -> None:
    net, images = small(), torch.rand(2, 3, 40, 33, generator=generator(1))
    embeddings, prompts = net.encode(images), prompts_of((2, 3), (40, 33), "points boxes masks")
    together = net.decode(embeddings, (40, 33), **prompts, multimask_output=None)
    assert together["mask_logits"].shape == (2, 3, 4, 20, 20) and together["iou_scores"].shape == (2, 3, 4)
    assert together["size"] == (40, 33) and together["image_size"] == SIZE
    for n in range(3):
        alone = net.decode(embeddings[1:], (40, 33), **{name: p[1:, n] for name, p in prompts.items()})
        torch.testing.assert_close(alone["mask_logits"], together["mask_logits"][1:, n, 1:], rtol=0, atol=2e-5)
        torch.testing.assert_close(alone["iou_scores"], together["iou_scores"][1:, n, 1:], rtol=0, atol=2e-5)
    masks = postprocess(together)
    assert masks.shape == (2, 3, 4, 40, 33) and masks.dtype == torch.bool


@torch.no_grad()
def test_points_that_are_none_fill_rows_up() -> None:
    """Two fillers are not the same as one, as in the authors' code; but where they are does not matter."""
    net = small()
    points, labels = torch.tensor([[[3.0, 4.0], [20.0, 9.0]]]), torch.tensor([[1, -1]])
    once = net.prompt_encoder(points, labels)[0]
    moved = net.prompt_encoder(points + torch.tensor([[0.0, 0.0], [7.0, 7.0]]), labels)[0]
    assert torch.equal(once, moved) and torch.equal(once[:, 1], once[:, 2])
    assert not torch.equal(once, net.prompt_encoder(points, torch.tensor([[1, 0]]))[0])


@torch.no_grad()
def test_prompts_are_in_pixels_of_the_image() -> None:
    """An image twice as large, and prompts twice as far from the corner, are nearly the same question."""
    net, image = small(), torch.rand(1, 3, 20, 15, generator=generator())
    large = image.repeat_interleave(2, 2).repeat_interleave(2, 3)
    box = torch.tensor([[3.0, 5.0, 11.0, 14.0]])
    embeddings = net.encode(large)
    at_large, at_small = (net.decode(embeddings, size, boxes=b) for size, b in (((40, 30), 2 * box), ((20, 15), box)))
    assert torch.equal(at_large["mask_logits"], at_small["mask_logits"])
    assert at_small["size"] == (20, 15) and postprocess(at_small).shape == (1, 3, 20, 15)


@torch.no_grad()
def test_what_is_filled_up_is_the_mean_colour() -> None:
    net, seen = small(), []
    net.image_encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    net.encode(torch.rand(1, 3, 40, 21))
    assert seen[0].shape == (1, 3, 40, 40) and not seen[0][..., 21:].any() and seen[0][..., :21].any()


def test_sizes() -> None:
    assert fitted_size((1, 5000), 1024) == (1, 1024) and fitted_size((1024, 1024), 1024) == (1024, 1024)
    images = torch.rand(1, 3, 40, 20)
    assert fit_images(images, 40) is images and fit_images(images, 64).shape == (1, 3, 64, 32)
    assert fit_images(images.double(), 20).dtype == torch.float64


def test_an_attention_in_bands_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    attention = RelativePositionAttention(8, 2, 5).double()
    nn.init.normal_(attention.rel_pos_h)
    nn.init.normal_(attention.rel_pos_w)
    tokens = torch.randn(2, 5, 5, 8, generator=generator(), dtype=torch.float64)
    whole = attention(tokens)
    monkeypatch.setattr("segedu.promptable.sam.image_encoder.MAX_BIAS_VALUES", 2 * 2 * 25 * 5 * 2)
    torch.testing.assert_close(attention(tokens), whole, rtol=0, atol=1e-14)


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_devices_and_half_precision(device: str) -> None:
    net = small().to(device, torch.bfloat16)
    images = torch.rand(1, 3, 30, 44, device=device, dtype=torch.bfloat16)
    outputs = net(images, **{name: p.to(device) for name, p in prompts_of((1,), (30, 44), "points boxes").items()})
    assert outputs["mask_logits"].dtype == torch.bfloat16 and outputs["mask_logits"].device.type == device
    assert postprocess(outputs).device.type == device


def click(**change: Any) -> dict[str, Any]:
    return {"point_coords": torch.zeros(1, 2, 2), "point_labels": torch.ones(1, 2), **change}


@pytest.mark.parametrize(
    ("prompts", "error", "words"),
    [
        ({}, ValueError, "no prompt was given, expected point_coords with point_labels, boxes or mask_inputs"),
        (click(point_labels=None), ValueError, "prompts has point_coords, expected point_coords and point_labels"),
        (click(point_labels=torch.tensor([[1, 2]])), ValueError, "point_labels has the values [1, 2], expected"),
        (click(point_labels=torch.ones(1, 3)), ValueError, "point_labels has shape (1, 3)"),
        (click(point_coords=torch.zeros(2, 2, 2)), ValueError, "point_coords has shape (2, 2, 2)"),
        (click(point_coords=torch.zeros(1, 2, 2).long()), TypeError, "point_coords has dtype torch.int64"),
        (
            click(point_coords=torch.full((1, 2, 2), torch.nan)),
            ValueError,
            "point_coords has the value nan, expected finite values",
        ),
        (click(boxes=torch.zeros(1, 3, 4)), ValueError, "boxes has shape (1, 3, 4)"),
        ({"boxes": torch.zeros(1, 5)}, ValueError, "boxes has shape (1, 5)"),
        ({"boxes": torch.zeros(1, 0, 4)}, ValueError, "boxes has shape (1, 0, 4)"),
        ({"boxes": [0, 0, 1, 1]}, TypeError, "boxes has type list"),
        ({"mask_inputs": torch.zeros(1, 40, 40)}, ValueError, "mask_inputs has shape (1, 40, 40)"),
    ],
)
def test_bad_prompts(prompts: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        small()(torch.rand(1, 3, 40, 40), **prompts)
    assert str(caught.value).startswith(words)


def test_bad_numbers_and_outputs() -> None:
    for build, words in (
        (lambda: ImageEncoder(20, 8), "image_size is 20, expected a multiple of patch_size, which is 8"),
        (lambda: ImageEncoder(16, 8, 8, 2, 2, 8, 0, ()), "window_size is 0, expected an integer of at least 1"),
        (
            lambda: ImageEncoder(16, 8, 8, 2, 2, 8, 2, (2,)),
            "global_blocks has an index that is 2, expected an integer from 0 to 1",
        ),
        (lambda: ImageEncoder(16, 8, 9, 1, 2, 8, 2, (0,)), "embed_dim is 9, expected a multiple of num_heads"),
        (lambda: PromptEncoder(7), "embed_dim is 7, expected a multiple of 2"),
        (lambda: PromptEncoder(8, mask_channels=6), "mask_channels is 6, expected a multiple of 4"),
        (
            lambda: MaskDecoder(TwoWayTransformer(12, 1, 2, 4)),
            "transformer.embed_dim is 12, expected a multiple of 8",
        ),
        (
            lambda: TwoWayTransformer(8, 1, 3, 4),
            "inner_dim is 8, expected a multiple of num_heads, which is 3",
        ),
        (
            lambda: SAM(nn.Identity(), PromptEncoder(8), MaskDecoder(TwoWayTransformer(16, 1, 2))),
            "prompt_encoder.embed_dim is 8, expected 16",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            build()
    outputs = small()(torch.rand(1, 3, 40, 40), boxes=torch.tensor([[1.0, 2.0, 30.0, 20.0]]))
    with pytest.raises(ValueError, match="has the keys"):
        postprocess({"mask_logits": outputs["mask_logits"]})
    with pytest.raises(ValueError, match="contains NaN"):
        postprocess({**outputs, "iou_scores": outputs["iou_scores"] * torch.nan})
    with pytest.raises(ValueError, match=r"outputs\['iou_scores'\] has shape"):
        postprocess({**outputs, "iou_scores": outputs["iou_scores"][:, 1:]})
    with pytest.raises(ValueError, match="images has shape"):
        small().image_encoder(torch.rand(1, 3, 48, 48))
