"""Spatial embeddings: the loss by hand and against plain loops, the targets, the network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from learning import fit, matched_share
from torch import Tensor

from segedu.backbones.erfnet import ERFNetEncoder
from segedu.instance.spatial_embedding import (
    SpatialEmbedding,
    decode_sigma,
    embed,
    offset_targets,
    postprocess,
    spatial_embedding_erfnet,
    spatial_embedding_loss,
    spatial_embedding_targets,
)
from segedu.losses.lovasz import lovasz_hinge_loss

WEIGHTS_1 = {"mask_weight": 1.0, "smooth_weight": 1.0, "seed_weight": 1.0}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_outputs(n_sigma: int, seed: int = 0, size: tuple[int, int] = (5, 6), batch: int = 2) -> dict[str, Tensor]:
    def draw(channels: int) -> Tensor:
        return torch.randn(batch, channels, *size, generator=generator(seed + channels), dtype=torch.float64)

    return {"offsets": draw(2), "sigma": 0.1 * draw(n_sigma), "seed": draw(1)}


def random_labels(seed: int = 0, size: tuple[int, int] = (5, 6), batch: int = 2) -> Tensor:
    return 3 * torch.randint(0, 4, (batch, *size), generator=generator(seed))  # labels 0, 3, 6, 9


# --- the loss ---------------------------------------------------------------------------------------------------


def hand_scene() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Four pixels in a row, unit 1 pixel; labels 1 1 0 2. The second points half a pixel to the left."""
    row = torch.tensor([[0.0, math.atanh(-0.5), 0.0, 0.0]], dtype=torch.float64)
    outputs = {
        "offsets": torch.stack([torch.zeros_like(row), row])[None],
        # precisions 1 and 4, whose logarithms have the mean log 2; then 1 for the second object
        "sigma": torch.tensor([[[[0.0, math.log(4) / 10, 5.0, 0.0]]]], dtype=torch.float64),
        "seed": torch.tensor([[[[0.0, math.log(3), 0.0, math.log(3)]]]], dtype=torch.float64),  # 1/2 3/4 1/2 3/4
    }
    return outputs, {"label_map": torch.tensor([[[1, 1, 0, 2]]], dtype=torch.int32)}


def test_loss_by_hand() -> None:
    outputs, targets = hand_scene()
    # Embeddings 0, 1/2, 2, 3. Object 1: centre 1/4, precision 2, both pixels at e^(-2/16). Their errors
    # 2 (1 - e^(-1/8)) = 0.23500619483 come first and cost half the IoU each; after that nothing is left to lose.
    # Object 2: centre 3, precision 1. Errors 2 e^-1, 2 e^-6.25, 2 e^-9 of pixels 2, 1, 0 take the IoU from 1 to
    # 1/2, 1/3, 1/4: steps 1/2, 1/6, 1/12; its own pixel has no error.
    mask = (0.23500619483 + (2 / math.e) / 2 + 2 * math.exp(-6.25) / 6 + 2 * math.exp(-9) / 12) / 2
    assert mask == pytest.approx(0.30177484, abs=1e-8)
    # raw sigmas of object 1 are log(2)/10 off their mean: 0.0693147^2 = 0.00480453; those of object 2 agree
    smooth = 0.00480453014 / 2
    # wanted seeds e^(-1/8) = 0.8824969 twice, 0, 1
    seed = ((0.5 - 0.88249690258) ** 2 + (0.75 - 0.88249690258) ** 2 + 0.25 + 0.0625) / 4
    assert seed == pytest.approx(0.11908983, abs=1e-8)
    losses = spatial_embedding_loss(outputs, targets, unit=1.0)
    assert losses["mask"].item() == pytest.approx(mask, abs=1e-10)
    assert losses["smooth"].item() == pytest.approx(10 * smooth, abs=1e-10)  # the default weight
    assert losses["seed"].item() == pytest.approx(seed, abs=1e-10)
    assert losses["loss"].item() == pytest.approx(mask + 10 * smooth + seed, abs=1e-10)


def test_loss_by_hand_at_the_centroid_and_with_weights() -> None:
    outputs, targets = hand_scene()
    # centre of object 1: (0 + 1) / 2, embeddings 0 and 1/2: e^(-2/4) and 1. Error 2 (1 - e^(-1/2)) = 0.78693868
    # costs 1/2; pixel 2, at 2, has the error 2 e^(-4.5) = 0.02221799308 behind it and takes the IoU from 1/2 to
    # 1/3: 1/6; pixel 3, at 3, 2 e^(-12.5) from 1/3 to 1/4: 1/12.
    first = 0.78693868057 / 2 + 0.02221799308 / 6 + 2 * math.exp(-12.5) / 12
    second = (2 / math.e) / 2 + 2 * math.exp(-6.25) / 6 + 2 * math.exp(-9) / 12
    seed = (5 * ((0.5 - math.exp(-0.5)) ** 2 + 0.0625 + 0.0625) + 0.25) / 4
    options = {"mask_weight": 2.0, "smooth_weight": 0.0, "seed_weight": 3.0, "foreground_weight": 5.0}
    losses = spatial_embedding_loss(outputs, targets, unit=1.0, learned_centre=False, **options)
    assert losses["mask"].item() == pytest.approx(first + second, abs=1e-10)
    assert losses["smooth"].item() == 0
    assert losses["seed"].item() == pytest.approx(3 * seed, abs=1e-10)


def loss_by_loops(outputs: dict[str, Tensor], labels: Tensor, unit: float, learned: bool) -> tuple[float, float, float]:
    """The paper's sums, pixel by pixel; the Lovasz hinge over all pixels of the image."""
    totals = np.zeros(3)
    batch, height, width = labels.shape
    places = [(y, x) for y in range(height) for x in range(width)]
    for b in range(batch):
        o, s, seeds = (outputs[key][b] for key in ("offsets", "sigma", "seed"))
        e = {p: [p[i] / unit + math.tanh(o[i][p]) for i in range(2)] for p in places}
        wanted = dict.fromkeys(places, 0.0)
        masks, smooths = [], []
        for k in sorted(set(labels[b].flatten().tolist()) - {0}):
            own = [p for p in places if labels[b][p] == k]
            centre = [sum((e[p][i] if learned else p[i] / unit) for p in own) / len(own) for i in range(2)]
            mean = [sum(float(s[c][p]) for p in own) / len(own) for c in range(len(s))]
            precision = [math.exp(10 * mean[i if len(s) == 2 else 0]) for i in range(2)]
            phi = {p: math.exp(-sum(precision[i] * (e[p][i] - centre[i]) ** 2 for i in range(2))) for p in places}
            logits = torch.tensor([[2 * phi[p] - 1 for p in places]], dtype=torch.float64)
            truth = torch.tensor([[int(p in own) for p in places]])
            masks.append(float(lovasz_hinge_loss(logits, truth)))
            smooths.append(sum((float(s[c][p]) - mean[c]) ** 2 for p in own for c in range(len(s))) / len(own))
            wanted.update({p: phi[p] for p in own})
        seed = sum((1 / (1 + math.exp(-float(seeds[0][p]))) - wanted[p]) ** 2 for p in places) / len(places)
        totals += [np.mean(masks or [0]), np.mean(smooths or [0]), seed]
    return tuple(totals / batch)


@pytest.mark.parametrize("n_sigma", [1, 2])
@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("unit", [4.0, 0.3])  # with 0.3 most pixels are beyond e^-18
def test_loss_is_the_sums_over_all_pixels(n_sigma: int, learned: bool, unit: float) -> None:
    outputs, labels = random_outputs(n_sigma), random_labels()
    expected = loss_by_loops(outputs, labels, unit, learned)
    losses = spatial_embedding_loss(outputs, {"label_map": labels}, unit=unit, learned_centre=learned, **WEIGHTS_1)
    for name, value in zip(("mask", "smooth", "seed"), expected, strict=True):
        assert value > 1e-4
        assert losses[name].item() == pytest.approx(value, abs=1e-7 if name == "mask" else 1e-12), name


@pytest.mark.parametrize("n_sigma", [1, 2])
@pytest.mark.parametrize("learned", [True, False])
def test_gradients(n_sigma: int, learned: bool) -> None:
    outputs = random_outputs(n_sigma, seed=5, size=(3, 4), batch=1)
    targets = {"label_map": random_labels(3, (3, 4), 1)}
    assert len(targets["label_map"].unique()) > 2

    def loss(*tensors: Tensor, **weights: float) -> Tensor:
        parts = dict(zip(outputs, tensors, strict=True))
        return spatial_embedding_loss(parts, targets, unit=4.0, learned_centre=learned, **weights)["loss"]

    offsets, sigma, seed = (t.clone().requires_grad_() for t in outputs.values())
    # without seeds, which see the Gaussian as a constant
    assert torch.autograd.gradcheck(lambda o, s: loss(o, s, seed, seed_weight=0.0), (offsets, sigma))
    assert torch.autograd.gradcheck(lambda z: loss(offsets.detach(), sigma.detach(), z), (seed,))


def test_seeds_learn_from_embeddings_and_not_they_from_seeds() -> None:
    outputs = {key: value.requires_grad_() for key, value in random_outputs(2).items()}
    seed = spatial_embedding_loss(outputs, {"label_map": random_labels()})["seed"]
    grads = torch.autograd.grad(seed, list(outputs.values()), allow_unused=True)
    assert all(grad is None or not grad.any() for grad in grads[:2])
    assert grads[2].any()


def test_learned_centres_are_learned() -> None:
    outputs = {key: value.requires_grad_() for key, value in random_outputs(1).items()}
    both = []
    for learned in (True, False):
        losses = spatial_embedding_loss(outputs, {"label_map": random_labels()}, unit=4.0, learned_centre=learned)
        both.append(torch.autograd.grad(losses["mask"], outputs["offsets"])[0])
    # moving all embeddings of an object and its centre together changes nothing for its own pixels
    assert (both[0] - both[1]).abs().max() > 1e-3


def test_empty_label_maps() -> None:
    outputs = {key: value.requires_grad_() for key, value in random_outputs(2).items()}
    losses = spatial_embedding_loss(outputs, {"label_map": torch.zeros(2, 5, 6, dtype=torch.int32)})
    assert losses["mask"].item() == losses["smooth"].item() == 0
    assert losses["seed"].item() == pytest.approx(outputs["seed"].sigmoid().square().mean().item())
    losses["loss"].backward()
    assert all(value.grad is None or value.grad.isfinite().all() for value in outputs.values())
    assert outputs["seed"].grad.abs().min() > 0


def test_one_pixel_is_an_object() -> None:
    outputs = {key: value.requires_grad_() for key, value in random_outputs(2).items()}
    labels = torch.zeros(2, 5, 6, dtype=torch.int64)
    labels[:, 2, 3] = 4
    losses = spatial_embedding_loss(outputs, {"label_map": labels}, unit=4.0)
    assert losses["smooth"].item() == 0 and losses["mask"].item() > 0
    losses["loss"].backward()
    assert all(value.grad.isfinite().all() for value in outputs.values())


def test_mean_over_images_and_half_precision() -> None:
    outputs, labels = random_outputs(2), random_labels()
    whole = spatial_embedding_loss(outputs, {"label_map": labels}, unit=4.0)
    parts = [
        spatial_embedding_loss(
            {k: v[i : i + 1] for k, v in outputs.items()}, {"label_map": labels[i : i + 1]}, unit=4.0
        )
        for i in range(2)
    ]
    for name, value in whole.items():
        torch.testing.assert_close(value, (parts[0][name] + parts[1][name]) / 2)
    half = {key: value.half() for key, value in outputs.items()}
    got = spatial_embedding_loss(half, {"label_map": labels}, unit=4.0)["loss"]
    assert got.dtype == torch.float32
    expected = spatial_embedding_loss({k: v.float() for k, v in half.items()}, {"label_map": labels}, unit=4.0)["loss"]
    assert got == expected


# --- targets and activations ------------------------------------------------------------------------------------


def test_offset_targets() -> None:
    # an L: the mean of its four pixels is (1.25, 0.25), the middle of its box would be (1, 0.5)
    label_map = torch.tensor([[7, 0, 0], [7, 0, 9], [7, 7, 0]], dtype=torch.int32)
    dy, dx = offset_targets(label_map, unit=2.0)
    assert offset_targets(label_map).dtype == torch.float32
    assert dy.tolist() == [[0.625, 0, 0], [0.125, 0, 0], [-0.375, -0.375, 0]]
    assert dx.tolist() == [[0.125, 0, 0], [0.125, 0, 0], [0.125, -0.375, 0]]
    torch.testing.assert_close(offset_targets(label_map) * 512, offset_targets(label_map, unit=2.0))  # 1024 pixels
    assert not offset_targets(torch.zeros(2, 3, dtype=torch.int64)).any()
    assert spatial_embedding_targets(label_map.long())["label_map"].equal(label_map)


def test_units_and_activations() -> None:
    places = embed(torch.zeros(2, 3, 1025))
    assert places[:, 2, 1024].tolist() == [2 / 1024, 1.0]  # both axes in units of 1024 pixels
    far = embed(torch.tensor([1e3, -1e3]).reshape(2, 1, 1))
    assert far.flatten().tolist() == [1, -1]  # tanh
    raw = torch.tensor([0.0, 0.2], dtype=torch.float64)
    assert decode_sigma(raw).tolist() == pytest.approx([math.sqrt(0.5), math.sqrt(0.5) / math.e])
    assert (decode_sigma(torch.linspace(-3, 3, 7)) > 0).all()


# --- the network ------------------------------------------------------------------------------------------------


def tiny(n_sigma: int = 2, **options: float) -> SpatialEmbedding:
    torch.manual_seed(0)
    return SpatialEmbedding(ERFNetEncoder(3, (4, 8, 16), ((1,), (2, 4)), (0.0, 0.0)), n_sigma, blocks=1, **options)


def official_keys() -> set[str]:
    conv, norm = ("weight", "bias"), ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    step = {f"conv.{n}" for n in conv} | {f"bn.{n}" for n in norm}
    block = {f"conv{shape}_{i}.{n}" for shape in ("3x1", "1x3") for i in (1, 2) for n in conv}
    block |= {f"bn{i}.{n}" for i in (1, 2) for n in norm}
    keys = {f"encoder.initial_block.{key}" for key in step}
    keys |= {f"encoder.layers.{i}.{key}" for i in range(15) for key in (step if i in (0, 6) else block)}
    for d in (0, 1):
        keys |= {f"decoders.{d}.layers.{i}.{key}" for i in range(6) for key in (step if i in (0, 3) else block)}
        keys |= {f"decoders.{d}.output_conv.{n}" for n in conv}
    return keys


def test_keys_and_size_are_the_authors() -> None:
    for n_sigma in (1, 2):
        net = spatial_embedding_erfnet(n_sigma=n_sigma)
        assert set(net.state_dict()) == official_keys()
        # with a classifier behind the encoder, which only pre-training used: 2.253 million
        weights = sum(p.numel() for p in net.parameters()) + 129 * (3 + n_sigma)
        assert round(weights / 1e6, 3) == 2.253


@pytest.mark.parametrize(("n_sigma", "size"), [(1, (16, 24)), (2, (13, 21)), (2, (1, 5))])
def test_outputs(n_sigma: int, size: tuple[int, int]) -> None:
    outputs = tiny(n_sigma).eval()(torch.rand(2, 3, *size))
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        "offsets": (2, 2, *size),
        "sigma": (2, n_sigma, *size),
        "seed": (2, 1, *size),
    }


@torch.no_grad()
def test_channels_of_the_file_are_x_before_y() -> None:
    net = tiny().eval()
    for decoder, bias in zip(net.decoders, ([0.1, 0.2, 0.3, 0.4], [0.5]), strict=True):
        decoder.output_conv.weight.zero_()
        decoder.output_conv.bias.copy_(torch.tensor(bias))
    outputs = net(torch.rand(1, 3, 8, 8))
    means = {key: value.mean((0, 2, 3)).tolist() for key, value in outputs.items()}
    assert means == {"offsets": pytest.approx([0.2, 0.1]), "sigma": pytest.approx([0.4, 0.3]), "seed": [0.5]}


def test_untrained_margin() -> None:
    for margin, unit in ((8.0, 1024.0), (3.0, 100.0)):
        outputs = tiny(margin=margin, unit=unit).eval()(torch.rand(1, 3, 32, 32))
        pixels = decode_sigma(outputs["sigma"]) * math.sqrt(2 * math.log(2)) * unit
        assert pixels.flatten().tolist() == pytest.approx([margin] * pixels.numel(), rel=0.03)


@pytest.mark.learns
def test_learns_one_image() -> None:
    label_map = torch.zeros(32, 32, dtype=torch.int32)
    label_map[3:14, 4:17], label_map[14:29, 6:15], label_map[8:25, 20:30] = 1, 2, 3
    torch.manual_seed(1)
    images = (0.3 + 0.5 * (label_map > 0) + 0.1 * label_map + 0.03 * torch.randn(3, 32, 32))[None]
    torch.manual_seed(0)
    encoder = ERFNetEncoder(3, (8, 16, 24), ((1,), (2,)), (0.0, 0.0))
    net = SpatialEmbedding(encoder, blocks=0, unit=32.0, margin=3.0)
    targets = {"label_map": label_map[None]}
    fit(net, lambda: spatial_embedding_loss(net(images), targets, unit=32.0)["loss"], steps=100, lr=1e-2)
    preds = postprocess(net(images), unit=32.0, foreground_threshold=0.4, min_pixels=20)[0]
    assert matched_share(preds, label_map, min_iou=0.7) > 0.6


# --- what is refused --------------------------------------------------------------------------------------------

OUTPUTS = random_outputs(2)
LABELS = {"label_map": random_labels()}
PLACES, SEED = torch.rand(2, 3, 4), torch.rand(3, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: spatial_embedding_loss(OUTPUTS["seed"], LABELS), TypeError, "outputs has type Tensor"),
        (lambda: spatial_embedding_loss({"seed": SEED}, LABELS), ValueError, "outputs has the keys"),
        (lambda: spatial_embedding_loss({**OUTPUTS, "seed": None}, LABELS), TypeError, r"outputs\['seed'\] has type"),
        (lambda: spatial_embedding_loss({**OUTPUTS, "seed": LABELS["label_map"]}, LABELS), TypeError, "seed"),
        (
            lambda: spatial_embedding_loss({**OUTPUTS, "seed": OUTPUTS["sigma"]}, LABELS),
            ValueError,
            "expected .B, 1, H",
        ),
        (
            lambda: spatial_embedding_loss({**OUTPUTS, "sigma": OUTPUTS["sigma"][:1]}, LABELS),
            ValueError,
            "sigma.*with B = 2",
        ),
        (lambda: spatial_embedding_loss(OUTPUTS, {}), ValueError, r"targets has the keys \[\], expected label_map"),
        (
            lambda: spatial_embedding_loss(OUTPUTS, LABELS["label_map"]),
            TypeError,
            "targets has type Tensor, expected a dict",
        ),
        (lambda: spatial_embedding_loss(OUTPUTS, {"label_map": OUTPUTS["seed"][:, 0]}), TypeError, "float64"),
        (lambda: spatial_embedding_loss(OUTPUTS, {"label_map": LABELS["label_map"][0]}), ValueError, "has shape"),
        (lambda: spatial_embedding_loss(OUTPUTS, {"label_map": -LABELS["label_map"]}), ValueError, "has the label -9"),
        (lambda: spatial_embedding_loss(OUTPUTS, LABELS, unit=0), ValueError, "unit is 0"),
        (lambda: offset_targets(SEED), TypeError, "label_map has dtype torch.float32, expected"),
        (lambda: offset_targets(SEED > 0), TypeError, "label_map has dtype torch.bool, expected"),
        (lambda: offset_targets(LABELS["label_map"]), ValueError, "label_map has shape"),
        (lambda: offset_targets(torch.zeros(0, 3).int()), ValueError, "label_map has shape"),
        (lambda: offset_targets(-torch.ones(2, 3).int()), ValueError, "label_map has the label -1, expected"),
        (lambda: spatial_embedding_targets(SEED), TypeError, "label_map has dtype"),
        (lambda: embed(SEED), ValueError, "offsets has shape"),
        (lambda: embed(PLACES.long()), TypeError, "offsets has dtype torch.int64"),
        (lambda: tiny(3), ValueError, "n_sigma is 3"),
        (lambda: tiny(2, margin=0.0), ValueError, "margin is 0"),
        (lambda: tiny()(torch.rand(1, 1, 8, 8)), ValueError, "images has shape"),
        (lambda: tiny()(torch.ones(1, 3, 8, 8).byte()), TypeError, "images has dtype"),
    ],
)
def test_bad_arguments(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
