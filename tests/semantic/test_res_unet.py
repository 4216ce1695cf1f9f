"""Res U-Net: the whole net against MONAI and dynamic_network_architectures, the paper's net against its table."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from learning import fit
from randomise import randomise
from torch import Tensor, nn

from segedu.losses.cross_entropy import cross_entropy
from segedu.semantic.res_unet import (
    ConvolutionalUnit,
    PostActivationUnit,
    ResidualUnit,
    ResUNet,
    postprocess,
    res_unet,
    residual_encoder_unet,
    strided_res_unet,
)

SIZES = [(24, 40), (8, 56)]  # multiples of 8, odd ones among them: MONAI takes no other


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state without counters."""
    return {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """Fill the target's tensors with the source's, both in the order of their definition."""
    names, values = list(tensors(target)), list(tensors(source).values())
    assert [v.shape for v in tensors(target).values()] == [v.shape for v in values]
    target.load_state_dict(dict(zip(names, values, strict=True)), strict=False)


# --- the whole net of MONAI -------------------------------------------------------------------------------------


def monai_net(norm: tuple | str, act: str, widths: tuple[int, ...]) -> nn.Module:
    from monai.networks.nets import UNet

    return randomise(UNet(2, 3, 4, widths, (2,) * (len(widths) - 1), num_res_units=2, norm=norm, act=act))


def in_our_order(net: nn.Module) -> nn.ModuleList:
    """MONAI nests each resolution in the one above: level = (down, skip(level below), up), and our shortcut is first."""
    down, up, level = [], [], net.model
    while True:
        down.append(level[0])
        up.append(level[2])
        level = level[1].submodule
        if not hasattr(level, "__getitem__"):
            break
    return nn.ModuleList([*down, level, *up[::-1]])


def copy_from_monai(theirs: nn.Module, ours: ResUNet) -> None:
    """In both a unit holds its residual branch and its shortcut, under other names."""
    ordered = in_our_order(theirs)
    mine = [*ours.stages, *ours.merges]
    assert len(ordered) == len(mine)
    for their_block, our_block in zip(ordered, mine, strict=True):
        copy_in_order(their_block, our_block)


@pytest.mark.parametrize(
    ("norms", "acts"),
    [(("INSTANCE", nn.InstanceNorm2d), ("PRELU", nn.PReLU)), (("BATCH", nn.BatchNorm2d), ("RELU", nn.ReLU))],
    ids=["instance, PReLU", "batch, ReLU"],
)
@pytest.mark.parametrize("widths", [(4, 6, 8, 10), (5, 5)])
@torch.no_grad()
def test_parity_with_monai(norms: tuple, acts: tuple, widths: tuple[int, ...]) -> None:
    theirs = monai_net(norms[0], acts[0], widths)
    ours = strided_res_unet(3, 4, widths, norms[1], acts[1]).double().eval()
    copy_from_monai(theirs, ours)
    for size in SIZES:
        images = random(2, 3, *size)
        right = theirs(images)
        assert right.std() > 0.01
        torch.testing.assert_close(ours(images), right, rtol=0, atol=1e-9)


def test_gradients_agree_with_monai() -> None:
    theirs = monai_net("BATCH", "RELU", (4, 6, 8)).train()
    ours = strided_res_unet(3, 4, (4, 6, 8), nn.BatchNorm2d, nn.ReLU).double()
    copy_from_monai(theirs, ours)
    images = random(2, 3, 16, 24)
    ours(images).square().mean().backward()
    theirs(images).square().mean().backward()
    right = [p.grad for block in in_our_order(theirs) for p in block.parameters()]
    for gradient, parameter in zip(right, [p for p in ours.parameters()], strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-10)


@torch.no_grad()
def test_parity_with_monai_notices_a_mistake() -> None:
    theirs, images = monai_net("BATCH", "RELU", (4, 6, 8)), random(2, 3, 16, 24)
    ours = strided_res_unet(3, 4, (4, 6, 8), nn.BatchNorm2d, nn.ReLU).double().eval()
    copy_from_monai(theirs, ours)
    right = theirs(images)
    for mistake in ("weight", "order"):
        if mistake == "weight":
            ours.stages[1].shortcut.weight[0, 0, 0, 0] += 0.1
            difference = ours(images) - right
            ours.stages[1].shortcut.weight[0, 0, 0, 0] -= 0.1
        else:  # from below first, then the skip
            up = ours.merges[1][0]
            up.weight.copy_(up.weight.roll(4, dims=0))
            difference = ours(images) - right
        assert difference.abs().max() > 1e-4, mistake


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("channels", "last"), [((3, 5), False), ((4, 4), False), ((4, 4), True)])
@torch.no_grad()
def test_unit_of_monai(stride: int, channels: tuple[int, int], last: bool) -> None:
    from monai.networks.blocks import ResidualUnit as MonaiUnit

    theirs = randomise(MonaiUnit(2, *channels, stride, norm="BATCH", act="RELU", last_conv_only=last))
    ours = ConvolutionalUnit(*channels, stride, 2, nn.BatchNorm2d, nn.ReLU, last).double().eval()
    copy_in_order(theirs, ours)
    for size in ((8, 12), (9, 7)):
        features = random(2, channels[0], *size)
        torch.testing.assert_close(ours(features), theirs(features), rtol=0, atol=1e-10)


# --- the whole net of dynamic_network_architectures -------------------------------------------------------------


def dynamic_net(widths: tuple[int, ...], blocks: tuple[int, ...], norm: type, act: type) -> nn.Module:
    unet = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    strides = (1, *(2 for _ in widths[1:]))
    net = unet.ResidualEncoderUNet(
        3, len(widths), widths, nn.Conv2d, 3, strides, blocks, 4, 1, norm_op=norm, norm_op_kwargs={"affine": True},
        nonlin=act, nonlin_kwargs={},
    )  # fmt: skip
    return randomise(net)


def copy_from_dynamic(theirs: nn.Module, ours: ResUNet) -> None:
    def fill(source: nn.Module, target: nn.Module) -> None:
        """Their blocks list each layer twice (`all_modules`), and the stem and the skip beside the branch."""
        state = [v for k, v in tensors(source).items() if ".all_modules." not in f".{k}"]
        names = list(tensors(target))
        assert [v.shape for v in state] == [tensors(target)[name].shape for name in names]
        target.load_state_dict(dict(zip(names, state, strict=True)), strict=False)

    stem = ours.stages[0][0]
    fill(theirs.encoder.stem, stem)
    for i, stage in enumerate(theirs.encoder.stages):
        fill(stage, ours.stages[i][1:] if i == 0 else ours.stages[i])
    for i, (up, stage) in enumerate(zip(theirs.decoder.transpconvs, theirs.decoder.stages, strict=True)):
        fill(up, ours.ups[i])
        fill(stage, ours.merges[i])
        weight = ours.merges[i][0].weight  # they concatenate from below first, we the skip first
        weight.copy_(weight.roll(weight.shape[1] // 2, dims=1))
    fill(theirs.decoder.seg_layers[-1], ours.head)


@pytest.mark.parametrize(("norm", "act"), [(nn.InstanceNorm2d, nn.LeakyReLU), (nn.BatchNorm2d, nn.ReLU)])
@pytest.mark.parametrize(("widths", "blocks"), [((4, 6, 8, 8), (1, 2, 1, 3)), ((5, 7), (2, 1))])
@torch.no_grad()
def test_parity_with_dynamic_network_architectures(widths: tuple, blocks: tuple, norm: type, act: type) -> None:
    theirs = dynamic_net(widths, blocks, norm, act)
    ours = residual_encoder_unet(3, 4, widths, blocks, partial(norm, affine=True), act).double().eval()
    copy_from_dynamic(theirs, ours)
    for size in SIZES:
        images = random(2, 3, *size)
        right = theirs(images)
        assert right.std() > 0.01
        torch.testing.assert_close(ours(images), right, rtol=0, atol=1e-9)
    ours.merges[0][0].weight.add_(0.01)
    assert (ours(images) - right).abs().max() > 1e-4


# --- the paper's net --------------------------------------------------------------------------------------------


def by_functional_calls(net: ResUNet, images: Tensor) -> Tensor:
    """The paper's figure 2 on copied weights, written for this test."""
    w = {name: value.clone() for name, value in net.state_dict().items()}

    def norm(x: Tensor, name: str) -> Tensor:
        statistics = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return F.relu(F.batch_norm(x, *statistics, w[f"{name}.weight"], w[f"{name}.bias"]))

    def unit(x: Tensor, name: str, stride: int = 1, first: bool = False) -> Tensor:
        at = 0 if first else 2
        y = x if first else norm(x, f"{name}.residual.0")
        y = F.conv2d(y, w[f"{name}.residual.{at}.weight"], None, stride, 1)
        y = norm(y, f"{name}.residual.{at + 1}")
        y = F.conv2d(y, w[f"{name}.residual.{at + 3}.weight"], w[f"{name}.residual.{at + 3}.bias"], 1, 1)
        return y + F.conv2d(x, w[f"{name}.shortcut.weight"], w[f"{name}.shortcut.bias"], stride)

    height, width = images.shape[-2:]
    rows = torch.arange(-(-height // 4) * 4).clamp(max=height - 1)
    columns = torch.arange(-(-width // 4) * 4).clamp(max=width - 1)
    first = unit(images[:, :, rows][..., columns], "stages.0", first=True)
    second = unit(first, "stages.1", 2)
    x = unit(second, "stages.2", 2)
    for name, skip in (("merges.0", second), ("merges.1", first)):
        up = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = unit(torch.cat([skip, up], 1), name)
    return F.conv2d(x, w["head.weight"], w["head.bias"])[..., :height, :width]


@pytest.mark.parametrize("size", [(16, 24), (13, 19), (1, 6)])
@torch.no_grad()
def test_the_papers_net_by_functional_calls(size: tuple[int, int]) -> None:
    net, images = randomise(res_unet(3, 4, (4, 6, 8))), random(2, 3, *size)
    torch.testing.assert_close(net(images), by_functional_calls(net, images), rtol=0, atol=1e-10)


def test_table_1_of_the_paper() -> None:
    """Level by level: 224, 112, 56, 28 and back; 15 convolutions besides the shortcuts."""
    with torch.device("meta"):  # shapes without numbers
        net = res_unet(3, 2)
        sizes = []
        for module in [*net.stages, *net.merges, net.head]:
            module.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
        assert net(torch.empty(1, 3, 224, 224)).shape == (1, 2, 224, 224)
    down = [(64, 224, 224), (128, 112, 112), (256, 56, 56), (512, 28, 28)]
    assert sizes == [*down, *down[2::-1], (2, 224, 224)]
    names = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in name]
    assert len(names) == 15


@torch.no_grad()
def test_half_the_resolution() -> None:
    """With a stem of stride 2 all features halve, and the logits are enlarged bilinearly."""
    net, images = randomise(res_unet(3, 4, (4, 6), stem_stride=2)), random(1, 3, 12, 20)
    seen = []
    net.merges[0].register_forward_hook(lambda _, __, out: seen.append(out))
    logits = net(images)
    assert seen[0].shape == (1, 4, 6, 10) and net.step == 4
    coarse = F.conv2d(seen[0], net.head[0].weight, net.head[0].bias)
    torch.testing.assert_close(logits, F.interpolate(coarse, size=(12, 20), mode="bilinear"))
    assert net(images[..., :11, :19]).shape == (1, 4, 11, 19)


@torch.no_grad()
def test_unit_is_the_identity_without_its_branch() -> None:
    unit, features = ResidualUnit(4, 4), random(2, 4, 5, 7, dtype=torch.float32)
    unit.residual[-1].weight.zero_()
    unit.residual[-1].bias.zero_()
    assert torch.equal(unit(features), features)


@torch.no_grad()
def test_post_activation_unit_has_no_projection_where_channels_stay() -> None:
    unit, features = PostActivationUnit(3, 3, stride=2), random(1, 3, 4, 6, dtype=torch.float32)
    unit.residual[-1].weight.zero_()
    unit.residual[-1].bias.zero_()
    torch.testing.assert_close(unit(features), F.avg_pool2d(features, 2))


@pytest.mark.parametrize(
    "build",
    [
        lambda: res_unet(3, 2, (6, 8, 12)),
        lambda: strided_res_unet(3, 2, (8, 12, 16), nn.BatchNorm2d, nn.ReLU),
        lambda: residual_encoder_unet(3, 2, (6, 8, 12), (1, 1, 1)),
    ],
    ids=["paper", "strided", "encoder"],
)
@pytest.mark.learns
def test_fits_one_batch(build) -> None:
    torch.manual_seed(0)
    net = build()
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    centres = torch.tensor([[10, 12], [20, 18]])
    target = torch.stack([(rows - r).square() + (columns - c).square() < 40 for r, c in centres]).long()
    images = 0.6 * target[:, None] + 0.4 * random(2, 3, 32, 32, dtype=torch.float32)
    _, loss = fit(net, lambda: cross_entropy(net(images), target), steps=140, lr=1e-2)
    net.train()  # with the batch's statistics
    assert loss < 0.1 and (postprocess(net(images)) == target).float().mean() > 0.97


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: res_unet(0), ValueError, "in_channels is 0"),
        (lambda: res_unet(3, 2.0), TypeError, "num_classes is 2.0"),
        (lambda: res_unet(3, 2, (4,)), ValueError, r"widths is \(4,\)"),
        (lambda: strided_res_unet(3, 2, (4, 0)), ValueError, r"widths\[1\] is 0"),
        (lambda: residual_encoder_unet(3, 2, (4, 4), (1,)), ValueError, "blocks has 1 entries"),
        (lambda: residual_encoder_unet(3, 2, (4, 4), (1, 0)), ValueError, r"blocks\[1\] is 0"),
        (lambda: ResUNet(3, 2, [nn.Identity()], [nn.Identity()], [], nn.Identity()), ValueError, "stages, ups and"),
        (lambda: res_unet(3, 2, (4, 4))(torch.rand(1, 1, 8, 8)), ValueError, "images has shape"),
        (lambda: strided_res_unet(3, 2, (4, 4))(torch.rand(1, 3, 2, 2)), ValueError, "expected H or W above 2"),
        (lambda: postprocess(torch.rand(2, 4, 4)), ValueError, "logits has shape"),
    ],
)
def test_bad_input(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("size", [(2, 3), (1, 5), (3, 2)])
def test_instance_norm_just_above_one_cell(size: tuple[int, int]) -> None:
    assert strided_res_unet(3, 2, (4, 4))(torch.rand(1, 3, *size)).shape == (1, 2, *size)
    assert strided_res_unet(3, 2, (4, 4), nn.BatchNorm2d).eval()(torch.rand(1, 3, 1, 1)).shape == (1, 2, 1, 1)
