"""Cellpose: the network against cellpose 3.1.1.3's CPnet, the loss, official state dicts, postprocessing."""

import io

import benchmarks.cells
import numpy as np
import pytest
import torch
from learning import fit, matched_share
from torch.nn.functional import pad

from segedu.instance.cellpose.cellpose import (
    Cellpose,
    PercentileNormalize,
    cellpose_loss,
    cellpose_targets,
    official_cellpose,
    postprocess,
)

WIDTHS = (4, 6, 8, 10)


def cpnet(widths=WIDTHS, **options):
    pytest.importorskip("cellpose.resnet_torch")
    return benchmarks.cells.cpnet(widths, **options)


def twin(theirs, widths=WIDTHS):
    ours = Cellpose(2, widths)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours


def images(*size, seed=0, channels=2):
    return torch.rand(*size[:1], channels, *size[1:], generator=torch.Generator().manual_seed(seed))


def disc_map():
    y, x = np.mgrid[:48, :64]
    label_map = np.zeros((48, 64), np.int32)
    for number, (cy, cx) in enumerate([(12, 14), (12, 34), (33, 20), (34, 50)], 1):
        label_map[(y - cy) ** 2 + (x - cx) ** 2 <= 81] = number
    return torch.from_numpy(label_map)


@pytest.mark.parametrize("size", [(2, 32, 48), (1, 24, 40)])  # 24 = 3 * 8 and 40 = 5 * 8: odd on the deepest level
def test_forward_is_that_of_cpnet(size):
    theirs, batch = cpnet().eval(), images(*size)
    ours = twin(theirs).eval()
    with torch.no_grad():
        maps, style, _ = theirs(batch)
        outputs = ours(batch)
    torch.testing.assert_close(outputs["flows"], maps[:, :2], rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs["logits"], maps[:, 2], rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs["style"], style, rtol=0, atol=1e-6)
    torch.testing.assert_close(outputs["style"].norm(dim=1), torch.ones(size[0]))
    with torch.no_grad():
        next(iter(ours.upsample.up.values())).conv["conv_3"].full.bias += 1
        assert (ours(batch)["logits"] - maps[:, 2]).abs().max() > 1e-3  # the comparison sees one shifted style


def test_odd_sizes_are_those_of_cpnet_with_zeros_below_and_on_the_right():
    theirs, batch = cpnet().eval(), images(1, 37, 45)
    with torch.no_grad():
        maps, style, _ = theirs(pad(batch, (0, 3, 0, 3)))
        outputs = twin(theirs).eval()(batch)
    torch.testing.assert_close(outputs["flows"], maps[:, :2, :37, :45], rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs["style"], style, rtol=0, atol=1e-6)


def test_training_step_is_that_of_cpnet():
    """Gradients, and what batch norm remembers: momentum 0.05."""
    theirs, batch = cpnet().double().train(), images(2, 32, 32).double()
    ours = twin(theirs.float()).double().train()
    theirs.double()
    theirs(batch)[0].square().mean().backward()
    outputs = ours(batch)
    torch.cat([outputs["flows"], outputs["logits"][:, None]], dim=1).square().mean().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-8, atol=1e-10, msg=name)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, msg=name)


def test_official_files_load_strictly():
    """The 313 keys and shapes of a file of `cyto`, through torch.load(weights_only=True)."""
    theirs = cpnet((32, 64, 128, 256), diam_mean=17.0)
    file = io.BytesIO()
    torch.save(theirs.state_dict(), file)
    file.seek(0)
    state = torch.load(file, map_location="cpu", weights_only=True)
    ours = official_cellpose()
    assert len(state) == 313 and set(state) == set(ours.state_dict())
    ours.load_state_dict(state, strict=True)
    assert ours.diam_mean.item() == ours.diam_labels.item() == 17.0
    assert sum(p.numel() for p in ours.parameters()) == 6_600_845 - 2  # their diameters are parameters, ours buffers
    assert isinstance(ours.normalize, PercentileNormalize)
    theirs.load_state_dict(ours.state_dict(), strict=True)


def test_percentiles_are_those_of_cellpose():
    transforms = pytest.importorskip("cellpose.transforms")
    batch = images(2, 20, 31)
    batch[1, 1] = 0.25  # a constant channel
    expected = np.stack([[transforms.normalize99(channel) for channel in image] for image in batch.numpy()])
    torch.testing.assert_close(PercentileNormalize()(batch), torch.from_numpy(expected), rtol=0, atol=1e-5)


def test_loss_is_that_of_cellpose():
    train = pytest.importorskip("cellpose.train")
    targets = [cellpose_targets(disc_map()), cellpose_targets(disc_map().flip(1))]
    targets = {key: torch.stack([target[key] for target in targets]) for key in targets[0]}
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 48, 64, generator=generator, requires_grad=True)
    label = torch.cat([targets["foreground"][:, None].float(), targets["flows"]], dim=1).numpy()
    expected = train._loss_fn_seg(label, maps, torch.device("cpu"))
    losses = cellpose_loss({"flows": maps[:, :2], "logits": maps[:, 2]}, targets)
    torch.testing.assert_close(losses["loss"], expected)
    torch.testing.assert_close(losses["loss"], losses["flow"] + losses["foreground"])
    (wanted,) = torch.autograd.grad(expected, maps)
    torch.testing.assert_close(torch.autograd.grad(losses["loss"], maps)[0], wanted)


def test_perfect_outputs_give_the_cells_back():
    label_map = disc_map()
    label_maps = torch.stack([label_map, torch.zeros_like(label_map)])  # the second image has no cell
    targets = [cellpose_targets(one) for one in label_maps]
    flows = 5 * torch.stack([target["flows"] for target in targets])
    logits = torch.stack([target["foreground"] for target in targets]).float() * 8 - 4
    found = postprocess({"flows": flows, "logits": logits})
    assert [one.dtype for one in found] == [torch.int32] * 2
    assert torch.equal(found[0], label_map) and not found[1].any()
    assert not postprocess({"flows": flows, "logits": logits}, logit_threshold=5.0)[0].any()


@pytest.mark.learns
def test_learns_one_batch():
    torch.manual_seed(0)
    label_map = disc_map()
    model = Cellpose(1, (8, 12, 16))
    batch = (label_map > 0).float()[None, None] + 0.1 * images(1, 48, 64, channels=1)
    targets = {key: value[None] for key, value in cellpose_targets(label_map).items()}
    first, last = fit(model, lambda: cellpose_loss(model(batch), targets)["loss"], steps=60, lr=1e-2)
    assert last < 0.15 * first
    assert matched_share(postprocess(model.train()(batch))[0], label_map) > 0.7  # with the batch's statistics


def test_bad_input():
    model, label_map = Cellpose(2, (4, 6)), disc_map()
    targets = {key: value[None] for key, value in cellpose_targets(label_map).items()}
    outputs = {"flows": torch.zeros(1, 2, 48, 64), "logits": torch.zeros(1, 48, 64)}
    for error, words, call in (
        (ValueError, r"images has shape \(1, 3, 8, 8\), expected \(B, 2", lambda: model(torch.rand(1, 3, 8, 8))),
        (TypeError, "images has dtype torch.int64", lambda: model(torch.zeros(1, 2, 8, 8).long())),
        (ValueError, "widths is", lambda: Cellpose(2, (4,))),
        (ValueError, "out_channels is 2", lambda: Cellpose(out_channels=2)),
        (ValueError, "outputs has the keys", lambda: cellpose_loss({}, targets)),
        (ValueError, "targets has the keys", lambda: cellpose_loss(outputs, {"flows": 0})),
        (
            ValueError,
            r"targets\['flows'\] has shape",
            lambda: cellpose_loss(outputs, {**targets, "flows": torch.zeros(2)}),
        ),
        (ValueError, "outputs has the keys", lambda: postprocess({"flows": 0})),
        (ValueError, "logit_threshold is nan, expected", lambda: postprocess(outputs, float("nan"))),
        (
            ValueError,
            r"outputs\['logits'\] has shape \(48, 64\), expected",
            lambda: postprocess({**outputs, "logits": torch.zeros(48, 64)}),
        ),
        (
            ValueError,
            r"outputs\['flows'\] contains NaN",
            lambda: postprocess({"flows": outputs["flows"] / 0, "logits": outputs["logits"] + 1}),
        ),
    ):
        with pytest.raises(error, match=words):
            call()
