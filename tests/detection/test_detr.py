"""DETR by hand, its keys, what padding does, that it learns, and bad input; beside it test_detr_transformers.py."""

from __future__ import annotations

import math
import pkgutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pooch
import pytest
import torch
from detection.small_detr import (
    CLASSES,
    NOTHING,
    QUERIES,
    batch_of,
    generator,
    official_state,
    random_outputs,
    scene,
    small,
)
from learning import detection_f1, fit
from randomise import randomise
from torch import Tensor, nn

from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.datasets.shapes import draw_shapes
from segedu.detection.detr import DETR, BoxHead, detr_loss, detr_resnet50, detr_resnet101, matching_cost, postprocess
from segedu.layers.normalize import IMAGENET_MEAN
from segedu.layers.transformer import Transformer
from segedu.ops.matching import hungarian_matching
from segedu.weights import WEIGHTS, WeightsError, load

# --- loss -------------------------------------------------------------------------------------------------------


def two_queries() -> dict[str, Any]:
    """The left half of an image of 6 x 8 pixels, found by the second of two queries that say nothing of classes."""
    boxes = torch.tensor([[[0.75, 0.5, 0.5, 1.0], [0.25, 0.5, 0.5, 0.5]]])
    return {"class_logits": torch.zeros(1, 2, 3), "boxes": boxes, "aux_outputs": [], "sizes": [(6, 8)]}


LEFT = {"boxes": torch.tensor([[0.0, 0.0, 4.0, 6.0]]), "labels": torch.tensor([1])}


def test_loss_by_hand() -> None:
    # The second query has half of the height: L1 is 1/2, GIoU 1/2. Cross-entropy is log 3 whatever the weights.
    losses = detr_loss(two_queries(), [LEFT])
    assert losses["classification"].item() == pytest.approx(math.log(3), rel=1e-6)
    assert losses["l1"].item() == pytest.approx(5 / 2, rel=1e-6) and losses["giou"].item() == pytest.approx(1)
    assert losses["loss"] == losses["classification"] + losses["l1"] + losses["giou"]
    # The first is sure of "no object", the second of the class: -log p is log 5 - log 3 twice, whatever the weights;
    # the second sure of nothing: (log 5/3 weighted by 1/10 and log 5 by 1) / 1.1.
    logits = torch.tensor([[[0.0, 0.0, math.log(3)], [0.0, math.log(3), 0.0]]])
    losses = detr_loss({**two_queries(), "class_logits": logits}, [LEFT])
    assert losses["classification"].item() == pytest.approx(math.log(5 / 3), rel=1e-6)
    logits = torch.tensor([[[0.0, 0.0, math.log(3)], [0.0, 0.0, math.log(3)]]])
    losses = detr_loss({**two_queries(), "class_logits": logits}, [LEFT])
    assert losses["classification"].item() == pytest.approx((0.1 * math.log(5 / 3) + math.log(5)) / 1.1, rel=1e-6)


def test_more_objects_than_queries() -> None:
    # Both queries get one of three equal objects. L1 1/2 and 1/2; GIoU 0, of two halves side by side, and 1/2.
    thrice = {key: torch.cat([value] * 3) for key, value in LEFT.items()}
    losses = detr_loss(two_queries(), [thrice])
    assert losses["l1"].item() == pytest.approx(5 * (1 / 2 + 1 / 2) / 3)
    assert losses["giou"].item() == pytest.approx(2 * (1 + 1 / 2) / 3)


def test_every_decoder_layer_is_matched_for_itself() -> None:
    outputs = two_queries()
    flipped = {key: outputs[key].flip(1) for key in ("class_logits", "boxes")}
    once, thrice = (detr_loss({**outputs, "aux_outputs": aux}, [LEFT]) for aux in ([], [flipped, flipped]))
    for key, value in once.items():
        assert thrice[key].item() == pytest.approx(3 * value.item(), rel=1e-6)


@pytest.mark.parametrize("name", ["no_object_weight", "class_weight", "l1_weight", "giou_weight"])
def test_every_weight_is_seen(name: str) -> None:
    outputs = random_outputs()
    targets = [scene(size, 3, 7) for size in outputs["sizes"]]
    assert abs(detr_loss(outputs, targets)["loss"] - detr_loss(outputs, targets, **{name: 0.3})["loss"]) > 1e-3
    with pytest.raises(ValueError, match=f"{name} is -1, expected a finite number of at least 0"):
        detr_loss(outputs, targets, **{name: -1})


def test_the_class_decides_where_boxes_do_not() -> None:
    outputs = two_queries()
    outputs["boxes"] = outputs["boxes"][:, 1:].expand(-1, 2, -1)
    for query in (0, 1):
        outputs["class_logits"] = torch.zeros(1, 2, 3)
        outputs["class_logits"][0, query, 1] = 2.0
        cost = matching_cost(
            outputs["class_logits"][0], outputs["boxes"][0], torch.tensor([1]), outputs["boxes"][0, :1]
        )
        assert hungarian_matching(cost)[0].tolist() == [query]


def test_no_object_at_all() -> None:
    outputs = random_outputs()
    logits, boxes = (outputs[key].requires_grad_() for key in ("class_logits", "boxes"))
    losses = detr_loss(outputs, [NOTHING] * 3)
    assert losses["l1"] == 0 and losses["giou"] == 0 and losses["classification"] > 0
    losses["loss"].backward()
    assert (logits.grad[..., -1] < 0).all() and (logits.grad[..., :-1] > 0).all()  # "no object" shall rise
    assert not boxes.grad.any()
    expected = [-layer["class_logits"].log_softmax(2)[..., -1].mean() for layer in (*outputs["aux_outputs"], outputs)]
    assert losses["classification"].item() == pytest.approx(sum(expected).item())
    nothing = postprocess(outputs, score_threshold=1.0)
    assert [tuple(x.shape) for found in nothing for x in found.values()] == [(0, 4), (0,), (0,), (0,)] * 3


# --- network ----------------------------------------------------------------------------------------------------


class Patches(nn.Module):
    """A body whose places see 8 x 8 pixels and no others; a ResNet's see some of the padding beside the image."""

    def __init__(self) -> None:
        super().__init__()
        self.in_channels, self.channels = 3, (16,)
        self.conv = nn.Conv2d(3, 16, kernel_size=8, stride=8)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.conv(images)]


@torch.no_grad()
def test_padding_does_not_change_the_answer() -> None:
    net = randomise(DETR(Patches(), Transformer(16, 2, 2, 3, 20, 0.0), CLASSES, QUERIES))
    images, sizes = batch_of([(24, 40), (32, 16)], 8)
    images = torch.cat([images, torch.rand(2, 3, 32, 24, generator=generator(), dtype=torch.float64)], dim=3)
    together = postprocess(net(images, sizes))
    for image, (h, w), found in zip(images, sizes, together, strict=True):
        alone = postprocess(net(image[None, :, :h, :w]))[0]
        for key, value in alone.items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-11)
    unmasked = net(images)["boxes"] - net(images, sizes)["boxes"]
    assert unmasked.abs().amax((1, 2)).min() > 1e-4  # and without sizes it would


@torch.no_grad()
def test_a_resnet_sees_some_padding_and_no_more() -> None:
    # Black is not what convolutions pad with behind the first layer: places at the edge are others, in the authors'
    # code too. This ResNet sees 97 pixels far: of more padding it knows nothing.
    net, (images, sizes) = small(), batch_of([(64, 96)])
    wide = images.new_tensor(torch.tensor(IMAGENET_MEAN).tolist()).reshape(1, 3, 1, 1).repeat(1, 1, 256, 288)
    wide[..., :64, :96] = images
    alone, some, more = (net(wide[..., :h, :w], sizes)["boxes"] for h, w in ((64, 96), (192, 224), (256, 288)))
    torch.testing.assert_close(some, more, rtol=0, atol=1e-12)
    assert 1e-6 < (some - alone).abs().max() < 0.1


def test_gradient_reaches_all() -> None:
    net, (images, sizes) = small().train(), batch_of([(64, 96), (41, 50)])
    detr_loss(net(images, sizes), [scene(size, 3, 5) for size in sizes])["loss"].backward()
    idle = "transformer.decoder.layers.0.self_attn.in_proj_weight"
    for name, parameter in net.named_parameters():
        # All states are 0 before the first layer of the decoder, and so all its values alike: the paper's
        # appendix says that this attention can be skipped. Only the bias of the values says anything.
        reached = parameter.grad.abs().max() > 1e-12
        assert reached != (name == idle), name
    assert all(not name.endswith(("running_mean", "bn1.weight")) for name, _ in net.named_parameters())  # frozen


def test_float64_and_half_precision() -> None:
    net, (images, sizes) = small(), batch_of([(64, 96), (41, 50)])
    double, single = net(images, sizes), net.float()(images.float(), sizes)
    for key in ("class_logits", "boxes"):
        assert double[key].dtype == torch.float64 and single[key].dtype == torch.float32
        torch.testing.assert_close(single[key].double(), double[key], rtol=1e-4, atol=1e-4)
    targets = [scene(size, 3, 5) for size in sizes]
    assert detr_loss(double, targets)["loss"].dtype == torch.float64
    half = net.to(torch.bfloat16)(images.to(torch.bfloat16), sizes)
    assert half["class_logits"].dtype == torch.bfloat16
    assert detr_loss(half, targets)["loss"].dtype == postprocess(half)[0]["boxes"].dtype == torch.float32


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_devices(device: str) -> None:
    images, sizes = batch_of([(64, 96), (41, 50)])
    outputs = small().to(device)(images.to(device), sizes)
    targets = [{key: value.to(device) for key, value in scene(size, 3, 5).items()} for size in sizes]
    tensors = [*detr_loss(outputs, targets).values(), *postprocess(outputs)[0].values()]
    assert {tensor.device.type for tensor in tensors} == {device}


def test_detections_by_hand() -> None:
    # The first query is a 1 for sure, the second mostly "no object", 2/7 a 0, which is a class as any other here.
    logits = torch.tensor([[[0.0, 50.0, 0.0], [math.log(2), 0.0, math.log(4)]]])
    (found,) = postprocess({**two_queries(), "class_logits": logits})
    assert found["boxes"].tolist() == [[4.0, 0.0, 8.0, 6.0], [0.0, 1.5, 4.0, 4.5]]
    assert found["labels"].tolist() == [1, 0] and found["queries"].tolist() == [0, 1]
    assert found["scores"].tolist() == pytest.approx([1, 2 / 7])
    (found,) = postprocess({**two_queries(), "class_logits": logits}, score_threshold=0.5)
    assert found["labels"].tolist() == [1]


def test_the_box_head_has_two_hidden_layers() -> None:
    head = randomise(BoxHead(8))
    first, second, last = head.layers
    states = torch.randn(5, 8, generator=generator(), dtype=torch.float64)
    expected = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last, nn.Sigmoid())(states)
    assert expected.std() > 0.05 and torch.equal(head(states), expected)


def test_boxes_end_where_the_image_ends() -> None:
    outputs = random_outputs()
    outputs["boxes"] = outputs["boxes"] + torch.tensor([0.3, 0.3, 0.3, 0.3])
    for found, (h, w) in zip(postprocess(outputs), outputs["sizes"], strict=True):
        assert found["boxes"].amin() >= 0 and found["boxes"][:, 2].amax() == w and found["boxes"][:, 3].amax() == h
        assert sorted(found["queries"].tolist()) == list(range(9))
        assert torch.equal(found["scores"], found["scores"].sort(descending=True).values)


# --- keys -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("builder", "depth"), [(detr_resnet50, 50), (detr_resnet101, 101)])
def test_official_state_dict_loads_strictly(builder: Any, depth: int) -> None:
    with torch.device("meta"):
        ours, state = builder(), official_state(depth)
    assert {"transformer.encoder.layers.0.self_attn.in_proj_weight", "backbone.0.body.layer4.2.bn3.running_var"} < set(
        state
    )
    assert {key: value.shape for key, value in ours.state_dict().items()} == {k: v.shape for k, v in state.items()}
    ours.load_state_dict(state, strict=True, assign=True)
    assert {module.eps for module in ours.modules() if hasattr(module, "eps")} == {1e-5}
    if depth == 50:
        assert sum(p.numel() for p in ours.parameters()) == 41_524_768
    with pytest.raises(RuntimeError, match="Missing key"):
        ours.load_state_dict({key: value for key, value in state.items() if key != "query_embed.weight"}, assign=True)


FILES = {
    "detr_resnet50": "detr-r50-e632da11", "detr_resnet50_dc5": "detr-r50-dc5-f0fb7ef5",
    "detr_resnet101": "detr-r101-2c7b67e5", "detr_resnet101_dc5": "detr-r101-dc5-a2e86def",
}  # fmt: skip


def test_rows_of_official_files() -> None:
    for name, file in FILES.items():
        row = WEIGHTS[name]
        assert row.url == f"https://dl.fbaipublicfiles.com/detr/{file}.pth"
        assert file.endswith(f"-{row.sha256}") and len(row.sha256) == 8 and row.licence == "Apache-2.0"
        with torch.device("meta"):
            body = pkgutil.resolve_name(row.builder)(**row.options).backbone[0]["body"]
        assert body.strides[-1] == (16 if "dc5" in name else 32)


@pytest.mark.parametrize("name", ["detr_resnet50", "detr_resnet101_dc5"])
def test_official_files_load_strictly(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row, file = WEIGHTS[name], tmp_path / f"{FILES[name]}.pth"
    with torch.device("meta"):
        state = official_state(101 if "101" in name else 50)
    # one number each, however large the tensor: the file is small then
    state = {key: torch.tensor(float(i)).expand(meta.shape) for i, (key, meta) in enumerate(state.items())}
    torch.save({"model": state}, file)
    monkeypatch.setenv("SEGEDU_CACHE", str(tmp_path))
    monkeypatch.setitem(WEIGHTS, name, replace(row, sha256=pooch.file_hash(file)))
    with mock.patch.object(nn.init, "xavier_uniform_"), mock.patch.object(nn.init, "kaiming_normal_"):
        net = load(name, progress=False)
    loaded = net.state_dict()
    assert not net.training and loaded.keys() == state.keys()
    assert all(float(loaded[key].flatten()[-1]) == float(value.flatten()[-1]) for key, value in state.items())
    torch.save(state, file)  # not as the authors' files are
    monkeypatch.setitem(WEIGHTS, name, replace(row, sha256=pooch.file_hash(file)))
    with pytest.raises(WeightsError, match="contains objects other than tensors"):
        load(name, progress=False)


def test_dc5_has_four_times_the_places() -> None:
    with torch.device("meta"):
        body = detr_resnet50(output_stride=16).backbone[0]["body"]
        assert body(torch.rand(1, 3, 64, 96))[-1].shape == (1, 2048, 4, 6)


@pytest.mark.learns
def test_learns_two_scenes() -> None:
    scenes = [draw_shapes((7, i)) for i in range(2)]
    images = torch.stack([sample["image"] for sample in scenes])
    torch.manual_seed(0)
    body = ResNet(BasicBlock, (1, 1, 1, 1), (16, 24, 32, 32), output_stride=16)
    net = DETR(body, Transformer(32, 4, 1, 2, 64, 0.0), 4, 12)
    # with the paper's weight of 0.1, a second query for the same object is also suppressed, but only after more steps
    loss_of = lambda: detr_loss(net(images), scenes, no_object_weight=0.5)["loss"]  # noqa: E731
    fit(net, loss_of, steps=300, lr=2e-3, max_norm=1.0)
    assert detection_f1(postprocess(net(images), score_threshold=0.5), scenes) > 0.6  # without suppression


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda o: [o], TypeError, "outputs has type list, expected a dict with the keys class_logits, boxes"),
        (lambda o: {"boxes": o["boxes"]}, ValueError, "outputs has the keys ['boxes'], expected"),
        (lambda o: {**o, "class_logits": o["class_logits"][0]}, ValueError, "outputs['class_logits'] has shape"),
        (lambda o: {**o, "boxes": o["boxes"][:, 1:]}, ValueError, "outputs['boxes'] has shape"),
        (lambda o: {**o, "boxes": o["boxes"].long()}, TypeError, "outputs['boxes'] has dtype torch.int64"),
        (
            lambda o: {**o, "aux_outputs": {}},
            TypeError,
            "outputs['aux_outputs'] has type dict, expected a list of dicts",
        ),
        (lambda o: {**o, "aux_outputs": [{}]}, ValueError, "outputs['aux_outputs'][0] has the keys [], expected"),
        (
            lambda o: {**o, "sizes": o["sizes"][1:]},
            ValueError,
            "outputs['sizes'] has 2 entries, expected 3, one for each",
        ),
    ],
)
def test_bad_outputs(change: Any, error: type[Exception], words: str) -> None:
    outputs = change(random_outputs())
    for function in (postprocess, lambda bad: detr_loss(bad, [NOTHING] * 3)):
        with pytest.raises(error) as caught:
            function(outputs)
        assert str(caught.value).startswith(words)


def test_bad_input() -> None:
    outputs, net = random_outputs(1), small()
    broken = {**outputs, "class_logits": outputs["class_logits"] * torch.nan}
    with pytest.raises(ValueError, match="contains NaN, expected finite values"):
        postprocess(broken)
    with pytest.raises(ValueError, match="cost contains NaN or infinity, expected finite values"):
        detr_loss(broken, [scene((40, 96), 1, 0)])
    with pytest.raises(ValueError, match="targets has 2 entries, expected 1, one for each image"):
        detr_loss(outputs, [NOTHING] * 2)
    with pytest.raises(ValueError, match="expected 1 to 3"):
        detr_loss(outputs, [{**LEFT, "labels": torch.tensor([4])}])
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"images has shape \(3, 64, 64\), expected"):
        net(images[0])
    with pytest.raises(ValueError, match=r"sizes\[0\] is \(65, 64\), expected"):
        net(images, [(65, 64)])
    for options, words in (
        ((Transformer(6, 2, 1, 1), 4), "transformer.embed_dim is 6, expected a multiple of 4"),
        ((Transformer(8, 2, 1, 1), 1), "num_classes is 1, expected an integer of at least 2"),
        ((Transformer(8, 2, 1, 1), 4, 0), "num_queries is 0, expected an integer of at least 1"),
    ):
        with pytest.raises(ValueError, match=words):
            DETR(Patches(), *options)
