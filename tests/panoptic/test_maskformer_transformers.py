"""MaskFormer against Hugging Face's transformers with the same random weights: stages, costs, losses, gradients."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pooch
import pytest
import torch
from panoptic.small_maskformer import (
    CLASSES,
    EMBED,
    HEADS,
    HIDDEN,
    LAYERS,
    MASK_DIM,
    QUERIES,
    RESNET,
    SWIN,
    WIDTH,
    batch_of,
    random_outputs,
    segments,
    small,
)
from torch import Tensor, nn

from segedu.layers.segments import pad_masks
from segedu.ops.matching import hungarian_matching
from segedu.panoptic.maskformer import MaskFormer, maskformer_loss, matching_cost
from segedu.weights import WEIGHTS, WeightsError, load
from segedu.weights.transformers_keys import MASKFORMER

transformers = pytest.importorskip("transformers")

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
# Windows have 3 x 3 tokens. Sizes: several windows in every stage; one window in some or all stages, on one axis or on
# both; and sides that are not multiples of 4, 8, 16 or 32.
BATCHES = [
    ("resnet", [(64, 96), (41, 50)], 32),
    ("resnet", [(53, 71)], 1),
    ("swin", [(128, 160)], 32),
    ("swin", [(124, 131), (128, 100)], 4),
    ("swin", [(97, 131), (90, 70)], 1),
    ("swin", [(48, 130)], 1),
    ("swin", [(12, 41)], 1),
    ("resnet", [(33, 9)], 1),
]


def renamed(key: str) -> tuple[str, int | None]:
    """A key of transformers -> our key, and which third of it, where queries, keys and values are one tensor."""
    for pattern, ours in MASKFORMER:
        key = re.sub(pattern, ours, key)
    name, _, third = key.partition("#")
    return name, int(third) if third else None


def transformers_net(ours: MaskFormer, kind: str) -> nn.Module:
    stages = ["stage1", "stage2", "stage3", "stage4"]
    if kind == "swin":
        body = transformers.SwinConfig(**{**SWIN, "depths": [*SWIN["depths"]]}, out_features=stages, image_size=128)
    else:
        body = transformers.ResNetConfig(
            embedding_size=RESNET[0], hidden_sizes=[4 * C for C in RESNET], depths=[1] * 4, out_features=stages
        )
    decoder = transformers.DetrConfig(
        num_queries=QUERIES, d_model=EMBED, decoder_layers=LAYERS, decoder_attention_heads=HEADS, decoder_ffn_dim=HIDDEN,
    )  # fmt: skip
    config = transformers.MaskFormerConfig(
        fpn_feature_size=WIDTH, mask_feature_size=MASK_DIM, backbone_config=body, decoder_config=decoder,
        num_labels=CLASSES, use_auxiliary_loss=True, output_auxiliary_logits=True,
    )  # fmt: skip
    theirs = transformers.MaskFormerForInstanceSegmentation(config).double().eval()
    state, ready, used = ours.state_dict(), {}, set()
    for key, tensor in theirs.state_dict().items():
        # a normalisation of Swin that nothing reads, tables that we compute, and a weight of the loss
        if key.endswith("relative_position_index") or ".model.layernorm." in key or key == "criterion.empty_weight":
            ready[key] = tensor
            continue
        name, third = renamed(key)
        used.add(name)
        ready[key] = state[name] if third is None else state[name].chunk(3)[third]
    assert used == set(state)
    theirs.load_state_dict(ready, strict=True)
    return theirs


@pytest.fixture(scope="module")
def pairs() -> dict[str, tuple[MaskFormer, nn.Module]]:
    """Ours and theirs; transformers makes some numbers of its own, and would make them float32."""
    torch.set_default_dtype(torch.float64)
    nets = {kind: small(kind) for kind in ("resnet", "swin")}
    yield {kind: (net, transformers_net(net, kind)) for kind, net in nets.items()}
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("kind", "sizes", "multiple"), BATCHES)
@torch.no_grad()
def test_every_stage_equals_transformers(pairs, kind: str, sizes: list[tuple[int, int]], multiple: int) -> None:
    ours, theirs = pairs[kind]
    images, _ = batch_of(sizes, multiple)
    expected = theirs(ours.backbone.normalize(images), output_hidden_states=True)
    features = ours.backbone(images)[-4:]
    for got, wanted in zip(features, expected.encoder_hidden_states, strict=True):
        assert wanted.std() > 0.01
        torch.testing.assert_close(got, wanted, **CLOSE)
    pixels = ours.pixel_decoder(features)
    torch.testing.assert_close(pixels, expected.pixel_decoder_last_hidden_state, **CLOSE)
    outputs = ours(images, sizes)
    assert list(outputs) == ["class_logits", "mask_logits", "aux_outputs", "sizes", "image_size"]
    assert outputs["sizes"] == sizes and outputs["image_size"] == tuple(images.shape[2:])
    torch.testing.assert_close(outputs["class_logits"], expected.class_queries_logits, **CLOSE)
    torch.testing.assert_close(outputs["mask_logits"], expected.masks_queries_logits, **CLOSE)
    assert (images.shape[2] / 4 - outputs["mask_logits"].shape[2]) <= 0 and len(outputs["aux_outputs"]) == LAYERS - 1


def states_of(ours: MaskFormer, images: Tensor) -> Tensor:
    found = []
    handle = ours.transformer.register_forward_hook(lambda module, given, made: found.append(made[0]))
    ours(images)
    handle.remove()
    return found[0]


@torch.no_grad()
def test_states_of_every_layer_equal_transformers(pairs) -> None:
    """Auxiliary outputs: transformers takes them without the decoder's last normalisation, the authors with it."""
    ours, theirs = pairs["resnet"]
    images, _ = batch_of([(64, 96)])
    expected = theirs(ours.backbone.normalize(images), output_hidden_states=True)
    behind = expected.transformer_decoder_hidden_states
    norm, outputs = theirs.model.transformer_module.decoder.layernorm, ours(images)
    states = [norm(state) for state in behind[1:LAYERS]] + [expected.transformer_decoder_last_hidden_state]
    torch.testing.assert_close(states_of(ours, images), torch.stack(states), **CLOSE)
    for layer, state in zip([*outputs["aux_outputs"], outputs], states, strict=True):
        torch.testing.assert_close(layer["class_logits"], theirs.class_predictor(state), **CLOSE)
        masks = torch.einsum("bqc,bchw->bqhw", theirs.mask_embedder(state), expected.pixel_decoder_last_hidden_state)
        torch.testing.assert_close(layer["mask_logits"], masks, **CLOSE)
    assert (outputs["aux_outputs"][0]["mask_logits"] - outputs["mask_logits"]).abs().max() > 0.01


def oracle_loss():
    from transformers.models.maskformer import modeling_maskformer as theirs

    matcher = theirs.MaskFormerHungarianMatcher(1.0, 20.0, 1.0)
    return matcher, theirs.MaskFormerLoss(CLASSES, matcher, {}, 0.1).double()


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("counts", [(3, 0, 7), (1, 9, 12)])  # of nine queries
def test_costs_losses_and_gradients_equal_transformers(counts: tuple[int, ...]) -> None:
    outputs = random_outputs()
    targets = [segments(size, n, 20 * n) for size, n in zip(outputs["sizes"], counts, strict=True)]
    labels = [target["labels"] for target in targets]
    masks = [pad_masks(target["masks"], outputs["image_size"]).double() for target in targets]
    matcher, oracle = oracle_loss()
    layers = [*outputs["aux_outputs"], outputs]
    logits, found = (
        torch.stack([layer[key] for layer in layers]).requires_grad_() for key in ("class_logits", "mask_logits")
    )
    layers = [{"class_logits": c, "mask_logits": m} for c, m in zip(logits, found, strict=True)]
    # transformers cannot interpolate the masks of an image without any: it gets the batch without that image, of
    # which the losses of masks are the same
    some = [b for b, n in enumerate(counts) if n]
    terms = [
        oracle(m[some], c[some], [masks[b] for b in some], [labels[b] for b in some])
        for c, m in zip(logits, found, strict=True)
    ]
    losses = maskformer_loss({**outputs, **layers[-1], "aux_outputs": layers[:-1]}, targets)
    assert list(losses) == ["classification", "focal", "dice", "loss"]
    focal, dice = (sum(term[key] for term in terms) for key in ("loss_mask", "loss_dice"))
    torch.testing.assert_close(losses["focal"], 20 * focal, **CLOSE)
    torch.testing.assert_close(losses["dice"], dice, **CLOSE)
    torch.testing.assert_close(losses["loss"], losses["classification"] + losses["focal"] + losses["dice"], **CLOSE)
    asked = [(losses["focal"] + losses["dice"], 20 * focal + dice, found)]
    if len(some) == 3:
        classes = sum(term["loss_cross_entropy"] for term in terms)
        torch.testing.assert_close(losses["classification"], classes, **CLOSE)
        asked.append((losses["classification"], classes, logits))
    for loss, expected, leaf in asked:
        got, wanted = (torch.autograd.grad(x, leaf, retain_graph=True)[0] for x in (loss, expected))
        assert wanted.abs().amax((1, 2, 3) if leaf is logits else (1, 2, 3, 4)).min() > 1e-4
        torch.testing.assert_close(got, wanted, **CLOSE)
    for b in some:
        ours = matching_cost(logits[0, b], found[0, b], labels[b], masks[b].bool())
        torch.testing.assert_close(ours, looped_cost(logits[0, b], found[0, b], labels[b], masks[b]), **CLOSE)
        pair = matcher(found[0, b, None], logits[0, b, None], [masks[b]], [labels[b]])[0]
        assert all(torch.equal(*both) for both in zip(hungarian_matching(ours), pair, strict=True))


def looped_cost(logits: Tensor, found: Tensor, labels: Tensor, masks: Tensor) -> Tensor:
    from transformers.models.maskformer import modeling_maskformer as theirs

    truth = nn.functional.interpolate(masks[:, None], size=found.shape[-2:], mode="nearest")[:, 0].flatten(1)
    found = found.detach().flatten(1)
    masks = 20 * theirs.pair_wise_sigmoid_focal_loss(found, truth) + theirs.pair_wise_dice_loss(found, truth)
    return masks - logits.softmax(1)[:, labels]


def state_of_file(name: str) -> dict[str, Tensor]:
    """Keys and shapes of a file of 2022: those of transformers, but two names of the decoder."""
    kind, size = WEIGHTS[name].builder.rsplit("_", 2)[-2:] if "swin" in name else ("resnet", 50)
    stages = ["stage1", "stage2", "stage3", "stage4"]
    if kind == "resnet":
        body = transformers.ResNetConfig(depths=[3, 4, 6 if size == 50 else 23, 3], out_features=stages)
    else:
        body = transformers.SwinConfig(depths=[2, 2, 6 if size == "tiny" else 18, 2], out_features=stages)
    config = transformers.MaskFormerConfig(backbone_config=body, num_labels=WEIGHTS[name].options["num_classes"])
    with torch.device("meta"):
        state = transformers.MaskFormerForInstanceSegmentation(config).state_dict()
    return {re.sub(r"mlp\.fc", "fc", key.replace("o_proj", "out_proj")): tensor for key, tensor in state.items()}


@pytest.mark.parametrize(
    "name", ["maskformer_resnet50_ade20k", "maskformer_swin_tiny_ade20k", "maskformer_swin_tiny_coco"]
)
def test_files_load_strictly(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row, state = WEIGHTS[name], state_of_file(name)
    assert "model.transformer_module.decoder.layers.5.fc1.weight" in state
    file = tmp_path / row.file_name
    # one number each, however large the tensor: the file is small then
    state = {key: torch.tensor(float(i)).expand(meta.shape) for i, (key, meta) in enumerate(state.items())}
    torch.save(state, file)
    monkeypatch.setenv("SEGEDU_CACHE", str(tmp_path))
    monkeypatch.setitem(WEIGHTS, name, replace(row, sha256=pooch.file_hash(file)))
    with pytest.raises(WeightsError, match="CC BY-NC 4.0"):
        load(name, progress=False)
    for random in ("xavier_uniform_", "kaiming_normal_", "trunc_normal_"):
        monkeypatch.setattr(nn.init, random, lambda tensor, *args, **options: tensor)
    net = load(name, progress=False, accept_license=True)
    key, weight = (
        "transformer.decoder.layers.3.multihead_attn.in_proj_bias",
        "transformer_module.decoder.layers.3.encoder_attn",
    )
    numbers = list(state)
    thirds = [float(numbers.index(f"model.{weight}.{x}_proj.bias")) for x in "qkv"]
    assert net.state_dict()[key][::256].tolist() == thirds and not net.training
    assert len(row.sha256) == 64 and row.file_name.startswith("maskformer-") and row.non_commercial
