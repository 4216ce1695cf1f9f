"""DETR against Hugging Face's transformers with the same random weights: stages, costs, losses, detections."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from detection.small_detr import CLASSES, QUERIES, batch_of, random_outputs, scene, small
from torch import Tensor, nn

from segedu.detection.detr import DETR, detr_loss, matching_cost, padding_mask, postprocess
from segedu.layers.position import sine_position
from segedu.ops.boxes import clip_boxes
from segedu.ops.matching import hungarian_matching

transformers = pytest.importorskip("transformers")

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
# padded to 64 x 96, to 96 x 128, and, with no multiple of 32, to 53 x 71
BATCHES = [([(64, 96), (41, 50)], 32), ([(33, 128), (70, 90), (96, 64)], 32), ([(53, 71), (33, 20)], 1)]


def renamed(key: str) -> tuple[str, int | None]:
    """A key of transformers -> our key, and which third of `in_proj` it is."""
    names = {
        "model.backbone.model.embedder.embedder.": "backbone.0.body.",
        "model.backbone.model.encoder.stages.": "backbone.0.body.layer",
        ".convolution.": ".conv.", ".normalization.": ".bn.", ".shortcut.": ".downsample.",
        "model.query_position_embeddings": "query_embed", "model.input_projection": "input_proj",
        "model.encoder": "transformer.encoder", "model.decoder": "transformer.decoder", "decoder.layernorm": "decoder.norm",
        "class_labels_classifier": "class_embed", "bbox_predictor": "bbox_embed",
        "self_attn_layer_norm": "norm1", "encoder_attn_layer_norm": "norm2", "encoder_attn": "multihead_attn",
        "o_proj": "out_proj", "mlp.fc": "linear",
    }  # fmt: skip
    decoder = key.startswith("model.decoder")
    for old, new in names.items():
        key = key.replace(old, new)
    key = key.replace("final_layer_norm", "norm3" if decoder else "norm2")
    for third, name in enumerate(("q_proj.", "k_proj.", "v_proj.")):
        if name in key:
            return key.replace(name, "in_proj_"), third
    if "body" not in key:
        return key, None
    head, _, number = key.partition(".body.")
    if number.startswith(("conv.", "bn.")):
        return f"{head}.body.{number.replace('.', '1.', 1)}", None
    stage, _, block, *rest = number.split(".")  # layer0, layers, 0, then layer 1 conv weight, or downsample conv weight
    stage = f"layer{int(stage.removeprefix('layer')) + 1}"
    if rest[0] == "downsample":
        return ".".join([head, "body", stage, block, "downsample", {"conv": "0", "bn": "1"}[rest[1]], rest[2]]), None
    return ".".join([head, "body", stage, block, rest[2] + str(int(rest[1]) + 1), rest[3]]), None


def transformers_net(ours: DETR) -> nn.Module:
    body = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 12, 16], depths=[1] * 4, layer_type="basic", out_features=["stage4"]
    )
    config = transformers.DetrConfig(
        backbone_config=body, num_queries=QUERIES, d_model=16, num_labels=CLASSES, encoder_layers=2, decoder_layers=3,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=20, decoder_ffn_dim=20,
    )  # fmt: skip
    theirs = transformers.DetrForObjectDetection(config).double().eval()
    state, ready, used = ours.state_dict(), {}, set()
    for key in theirs.state_dict():
        name, third = renamed(key)
        used.add(name)
        ready[key] = state[name] if third is None else state[name].chunk(3)[third]
    assert used == set(state)
    theirs.load_state_dict(ready, strict=True)
    return theirs


@pytest.mark.parametrize(("sizes", "multiple"), BATCHES)
@torch.no_grad()
def test_every_stage_equals_transformers(sizes: list[tuple[int, int]], multiple: int) -> None:
    ours = small()
    theirs = transformers_net(ours)
    images, inside = batch_of(sizes, multiple)
    assert inside == sizes
    body = ours.backbone[0]["body"]
    pixels, mask = body.normalize(images), torch.zeros(len(images), *images.shape[2:])
    for row, (h, w) in zip(mask, sizes, strict=True):
        row[:h, :w] = 1
        assert row.all() or pixels[:, :, ~row.bool()].abs().min() == 0
    expected = theirs(pixel_values=pixels, pixel_mask=mask, output_hidden_states=True)
    (wanted, seen), features = theirs.model.backbone(pixels, mask)[-1], body(images)[-1]
    assert wanted.std() > 0.01
    torch.testing.assert_close(features, wanted, **CLOSE)
    padding = padding_mask(sizes, images, features)
    assert torch.equal(padding, ~seen) and padding.any()
    positions = sine_position(padding, 16, torch.float64)
    wanted = theirs.model.position_embedding(features.shape, features.device, features.dtype, mask=seen)
    torch.testing.assert_close(positions.reshape(wanted.shape), wanted, **CLOSE)
    states, memory = ours.transformer(ours.input_proj(features), padding, positions, ours.query_embed.weight)
    valid, encoded = ~padding.flatten(1), expected.encoder_last_hidden_state
    torch.testing.assert_close(memory.flatten(2).mT[valid], encoded[valid], **CLOSE)
    # with auxiliary_loss=True transformers feeds the normalised state on, which the authors' code does not
    layers = [theirs.model.decoder.layernorm(state) for state in expected.decoder_hidden_states[1:-1]]
    layers.append(expected.last_hidden_state)
    assert len(layers) == 3 and (layers[1] - layers[2]).abs().max() > 0.01
    torch.testing.assert_close(states, torch.stack(layers), **CLOSE)
    outputs = ours(images, sizes)
    assert list(outputs) == ["class_logits", "boxes", "aux_outputs", "sizes"] and outputs["sizes"] == sizes
    torch.testing.assert_close(outputs["class_logits"], expected.logits, **CLOSE)
    torch.testing.assert_close(outputs["boxes"], expected.pred_boxes, **CLOSE)
    for state, aux in zip(layers[:2], outputs["aux_outputs"], strict=True):
        torch.testing.assert_close(aux["class_logits"], theirs.class_labels_classifier(state), **CLOSE)
        torch.testing.assert_close(aux["boxes"], theirs.bbox_predictor(state).sigmoid(), **CLOSE)


def parts(target: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
    """A target as transformers wants it."""
    x1, y1, x2, y2 = (target["boxes"].double() / torch.tensor([*size[::-1]] * 2)).unbind(1)
    boxes = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], dim=1)
    return {"class_labels": target["labels"], "boxes": boxes}


@pytest.fixture
def double() -> Iterator[None]:
    """transformers makes weights and numbers of its own, and would make them float32."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("counts", [(3, 0, 7), (1, 9, 12)])  # of nine queries
def test_costs_losses_and_gradients_equal_transformers(counts: tuple[int, ...]) -> None:
    from transformers.loss import loss_for_object_detection as oracle

    outputs = random_outputs()
    targets = [scene(size, n, 20 * n) for size, n in zip(outputs["sizes"], counts, strict=True)]
    theirs = [parts(*pair) for pair in zip(targets, outputs["sizes"], strict=True)]
    logits, boxes = (
        torch.stack([layer[key] for layer in (*outputs["aux_outputs"], outputs)]).requires_grad_()
        for key in ("class_logits", "boxes")
    )
    config = SimpleNamespace(
        class_cost=1, bbox_cost=5, giou_cost=2, num_labels=CLASSES, eos_coefficient=0.1, auxiliary_loss=True,
        bbox_loss_coefficient=5, giou_loss_coefficient=2, decoder_layers=3,
    )  # fmt: skip
    total, terms, _ = oracle.ForObjectDetectionLoss(logits[-1], theirs, "cpu", boxes[-1], config, logits, boxes)
    layers = [{"class_logits": k, "boxes": b} for k, b in zip(logits, boxes, strict=True)]
    losses = detr_loss({**layers[-1], "aux_outputs": layers[:-1], "sizes": outputs["sizes"]}, targets)
    assert list(losses) == ["classification", "l1", "giou", "loss"]
    torch.testing.assert_close(losses["loss"], total, **CLOSE)
    for name, key, weight in (("classification", "ce", 1), ("l1", "bbox", 5), ("giou", "giou", 2)):
        wanted = weight * sum(terms[f"loss_{key}{end}"] for end in ("", "_0", "_1"))
        torch.testing.assert_close(losses[name], wanted, **CLOSE)
    for leaf in (logits, boxes):
        got, wanted = (torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in (losses["loss"], total))
        assert wanted.abs().amax((1, 2, 3)).min() > 1e-3
        torch.testing.assert_close(got, wanted, **CLOSE)
    pairs = oracle.HungarianMatcher(1, 5, 2)({"logits": logits[0], "pred_boxes": boxes[0]}, theirs)
    for b, target in enumerate(theirs):
        cost = matching_cost(logits[0, b], boxes[0, b], target["class_labels"], target["boxes"])
        wanted = 5 * torch.cdist(boxes[0, b], target["boxes"], p=1) - logits[0, b].softmax(1)[:, target["class_labels"]]
        corners = [oracle.center_to_corners_format(x) for x in (boxes[0, b], target["boxes"])]
        torch.testing.assert_close(cost, wanted - 2 * oracle.generalized_box_iou(*corners), **CLOSE)
        assert all(torch.equal(*both) for both in zip(hungarian_matching(cost), pairs[b], strict=True))


@pytest.mark.parametrize("threshold", [0.0, 0.4])
def test_detections_equal_transformers(threshold: float) -> None:
    from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil as Processor

    outputs = random_outputs()
    given = SimpleNamespace(logits=outputs["class_logits"], pred_boxes=outputs["boxes"])
    process = Processor.post_process_object_detection
    expected = process(None, given, threshold, torch.tensor(outputs["sizes"]))
    for got, wanted, size in zip(
        postprocess(outputs, score_threshold=threshold), expected, outputs["sizes"], strict=True
    ):
        order = wanted["scores"].argsort(descending=True)
        assert len(order) == 9 if threshold == 0 else 0 < len(order) < 9
        torch.testing.assert_close(got["scores"], wanted["scores"][order], **CLOSE)
        assert torch.equal(got["labels"], wanted["labels"][order])
        torch.testing.assert_close(got["boxes"], clip_boxes(wanted["boxes"][order], size), **CLOSE)
