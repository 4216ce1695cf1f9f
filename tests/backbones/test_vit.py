"""ViT: our backbone and timm's with the same random weights, positions at other sizes, and what it promises."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from randomise import randomise
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of torch, about torch
    import timm
    from timm.layers import resample_abs_pos_embed
    from timm.models.vision_transformer import VisionTransformer

from segedu.backbones import vit
from segedu.backbones.vit import ViT
from segedu.layers.attention import Attention
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize

TOLERANCE = 1e-10


def images(batch: int, height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(
        dtype
    )


def tiny(**options: object) -> ViT:
    torch.manual_seed(0)
    return ViT(4, 12, 3, 2, **{"image_size": 20, **options})


# --- parity with timm -------------------------------------------------------------------------------------------

# Image size, and depth: all twelve blocks once a family, fewer where there are many patches.
NETS = {
    "dino s/16": ("vit_small_patch16_224.dino", vit.vit_small_patch16, 224, 12),
    "dino s/8": ("vit_small_patch8_224.dino", vit.vit_small_patch8, 224, 1),
    "dino b/16": ("vit_base_patch16_224.dino", vit.vit_base_patch16, 224, 1),
    "dino b/8": ("vit_base_patch8_224.dino", vit.vit_base_patch8, 72, 1),
    "dinov2 s/14": ("vit_small_patch14_dinov2.lvd142m", vit.dinov2_small_patch14, 518, 1),
    "dinov2 s/14, reg4": ("vit_small_patch14_reg4_dinov2.lvd142m", vit.dinov2_small_patch14, 518, 1),
    "dinov2 s/14, reg4, deep": ("vit_small_patch14_reg4_dinov2.lvd142m", vit.dinov2_small_patch14, 98, 12),
    "dinov2 b/14": ("vit_base_patch14_dinov2.lvd142m", vit.dinov2_base_patch14, 70, 1),
}


def timm_net(name: str, size: int | tuple[int, int], depth: int) -> nn.Module:
    with torch.device("meta"):  # the random start would be thrown away
        net = timm.create_model(name, pretrained=False, num_classes=0, img_size=size, depth=depth)
    return randomise(net.to_empty(device="cpu"))


def in_official_layout(theirs: nn.Module) -> dict[str, Tensor]:
    """timm's weights under the keys of Facebook's files.

    With registers, timm has added the position of cls to cls itself: here cls keeps a third of the sum.
    """
    state = dict(theirs.state_dict())
    if "reg_token" in state:
        both = state["cls_token"]
        state["register_tokens"] = state.pop("reg_token")
        state["pos_embed"] = torch.cat([both * 2 / 3, state["pos_embed"]], dim=1)
        state["cls_token"] = both / 3
    return state


def our_net(builder: Callable[..., ViT], theirs: nn.Module, size: int, depth: int) -> ViT:
    registers = theirs.num_reg_tokens
    with torch.device("meta"):
        ours = builder(image_size=size, **({"registers": registers} if registers else {}))
    ours.blocks = ours.blocks[:depth]
    ours = ours.to_empty(device="cpu").double().eval()
    ours.load_state_dict(in_official_layout(theirs), strict=True)
    return ours


def as_timm(features: dict[str, Tensor]) -> Tensor:
    """All tokens in a row, (B, L, D)."""
    return torch.cat(
        [features["cls"][:, None], features["registers"], features["patches"].flatten(2).transpose(1, 2)], dim=1
    )


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_parity(name: str) -> None:
    timm_name, builder, size, depth = NETS[name]
    theirs = timm_net(timm_name, size, depth)
    ours, batch = our_net(builder, theirs, size, depth), images(1, size, size)
    got, expected = ours(batch), theirs.forward_features(batch)
    side = size // ours.patch_size
    assert got["patches"].shape == (1, ours.embed_dim, side, side)
    assert got["registers"].shape == (1, theirs.num_reg_tokens, ours.embed_dim)
    assert expected.std() > 0.1 and expected.std(dim=1).min() > 0.001  # the weights are such that an error would show
    torch.testing.assert_close(as_timm(got), expected, rtol=TOLERANCE, atol=TOLERANCE)
    got, expected = ours.float()(batch.float()), theirs.float().forward_features(batch.float())
    torch.testing.assert_close(as_timm(got), expected, rtol=1e-5, atol=1e-5)


def small_pair(registers: int = 0, size: tuple[int, int] = (28, 28)) -> tuple[ViT, nn.Module]:
    """Three narrow blocks; ours has positions for 28 pixels, timm's for `size`, resampled by our definition."""
    options = {"num_classes": 0, "init_values": 1.0, "reg_tokens": registers, "no_embed_class": registers > 0}
    shape = {"patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3}
    source, theirs = (randomise(VisionTransformer(side, **shape, **options)) for side in (28, size))
    ours = ViT(*shape.values(), image_size=28, registers=registers, layer_scale=1.0).double().eval()
    ours.load_state_dict(in_official_layout(source), strict=True)
    state = source.state_dict()
    state["pos_embed"] = float64_positions(state["pos_embed"], [side // 4 for side in size], 0 if registers else 1)
    theirs.load_state_dict(state)
    return ours, theirs


def float64_positions(table: Tensor, grid: list[int], first: int) -> Tensor:
    """timm's function with float32 taken out: `first` entries of the table are of no patch."""
    rounded = resample_abs_pos_embed(table, grid, num_prefix_tokens=first, antialias=False)
    side = math.isqrt(table.shape[1] - first)
    square = table[:, first:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    exact = F.interpolate(square, size=grid, mode="bicubic").permute(0, 2, 3, 1).flatten(1, 2)
    exact = torch.cat([table[:, :first], exact], dim=1)
    torch.testing.assert_close(exact, rounded, rtol=1e-5, atol=1e-6)
    return exact


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("size", [(28, 28), (12, 44), (40, 20), (36, 36)])
@torch.no_grad()
def test_parity_at_other_sizes(registers: int, size: tuple[int, int]) -> None:
    ours, theirs = small_pair(registers, size)
    batch = images(3, *size)
    torch.testing.assert_close(as_timm(ours(batch)), theirs.forward_features(batch), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("registers", [0, 4])
@torch.no_grad()
def test_blocks_attention_and_keys_are_those_of_timm(registers: int) -> None:
    ours, theirs = small_pair(registers, (20, 32))
    batch, seen = images(2, 20, 32), {}
    for i, block in enumerate(theirs.blocks):
        block.attn.fused_attn = False  # else nobody sees the shares
        block.attn.attn_drop.register_forward_hook(lambda m, given, out, i=i: seen.update({("shares", i): out}))
        block.attn.qkv.register_forward_hook(lambda m, given, out, i=i: seen.update({("qkv", i): out}))
    levels = theirs.forward_intermediates(
        batch, indices=[0, 1, 2], return_prefix_tokens=True, norm=True, intermediates_only=True
    )
    for i, (patches, prefix) in enumerate(levels):
        for block in (i, i - 3):
            got = ours.features(batch, block)
            torch.testing.assert_close(got["patches"], patches, rtol=TOLERANCE, atol=TOLERANCE)
            others = torch.cat([got["cls"][:, None], got["registers"]], dim=1)
            torch.testing.assert_close(others, prefix, rtol=TOLERANCE, atol=TOLERANCE)
            shares = ours.attention(batch, block)
            assert shares.shape == (2, 3, 1 + registers + 40, 1 + registers + 40)
            torch.testing.assert_close(shares, seen["shares", i], rtol=TOLERANCE, atol=TOLERANCE)
            parts = seen["qkv", i][:, 1 + registers :].transpose(1, 2).unflatten(2, (5, 8)).split(24, dim=1)
            for ours_of, theirs_of in zip((ours.queries, ours.keys), parts[:2], strict=True):
                torch.testing.assert_close(ours_of(batch, block), theirs_of, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(ours(batch)["patches"], levels[-1][0], rtol=TOLERANCE, atol=TOLERANCE)


def other_epsilon(model: ViT) -> None:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-12  # of the transformers package


def flipped_positions(model: ViT) -> None:
    cls, patches = model.pos_embed.data.split([1, 49], dim=1)
    patches = patches.unflatten(1, (7, 7)).transpose(1, 2).flatten(1, 2)
    model.pos_embed.data = torch.cat([cls, patches], dim=1)


def keys_for_queries(model: ViT) -> None:
    for block in model.blocks:
        q, k, v = block.attn.qkv.weight.data.chunk(3)
        block.attn.qkv.weight.data = torch.cat([q, v, k])


def tanh_gelu(model: ViT) -> None:
    for block in model.blocks:
        mlp = block.mlp
        mlp.forward = lambda tokens, mlp=mlp: mlp.fc2(F.gelu(mlp.fc1(tokens), approximate="tanh"))


PERTURBED: list[Callable[[ViT], object]] = [
    other_epsilon,
    flipped_positions,
    keys_for_queries,
    tanh_gelu,
    lambda model: [setattr(block.attn, "num_heads", 6) for block in model.blocks],
    lambda model: [setattr(block, "ls2", nn.Identity()) for block in model.blocks],
    lambda model: setattr(model, "norm", nn.Identity()),
    lambda model: setattr(model, "register_tokens", nn.Parameter(model.register_tokens + model.pos_embed[:, 1:5])),
    lambda model: setattr(model.patch_embed.proj.weight, "data", model.patch_embed.proj.weight.data.mT),
    lambda model: setattr(model, "normalize", Normalize(IMAGENET_MEAN, IMAGENET_STD).double()),
]


@pytest.mark.parametrize("change", PERTURBED, ids=range(len(PERTURBED)))
@torch.no_grad()
def test_parity_fails_when_the_forward_pass_is_changed(change: Callable[[ViT], object]) -> None:
    ours, theirs = small_pair(4)
    expected = theirs.forward_features(images(1, 28, 28))
    assert (as_timm(ours(images(1, 28, 28))) - expected).abs().max() < TOLERANCE
    change(ours)
    assert (as_timm(ours(images(1, 28, 28))) - expected).abs().max() > 100 * TOLERANCE


# --- positions --------------------------------------------------------------------------------------------------


def with_positions(grid: int, smooth: bool) -> ViT:
    """A table of independent numbers of deviation 1, or of waves with at most two periods over the image."""
    model = ViT(4, 64, 1, 1, image_size=4 * grid).double()
    generator = torch.Generator().manual_seed(0)
    if smooth:
        y, x = torch.meshgrid(*[torch.arange(grid, dtype=torch.float64) / grid] * 2, indexing="ij")
        periods = 4 * torch.rand(64, 2, generator=generator, dtype=torch.float64) - 2
        phase = torch.rand(64, generator=generator, dtype=torch.float64)
        turns = y.flatten()[:, None] * periods[:, 0] + x.flatten()[:, None] * periods[:, 1] + phase
        table = math.sqrt(2) * torch.cos(2 * math.pi * turns)
    else:
        table = torch.randn(grid**2, 64, generator=generator, dtype=torch.float64)
    model.pos_embed.data = torch.cat([torch.ones(1, 1, 64, dtype=torch.float64), table[None]], dim=1)
    return model


def facebook_positions(model: ViT, height: int, width: int, offset: float = 0.1, antialias: bool = False) -> Tensor:
    """Of DINO and DINOv2 (offset 0.1), and of DINOv2 with registers (offset 0, antialias)."""
    cls, patches = model.pos_embed[:, :1], model.pos_embed[:, 1:]
    count, dim = patches.shape[1:]
    if count == height * width and height == width:
        return model.pos_embed
    side = int(math.sqrt(count))
    if offset:
        size = {"scale_factor": ((height + offset) / math.sqrt(count), (width + offset) / math.sqrt(count))}
    else:
        size = {"size": (height, width)}
    square = patches.reshape(1, side, side, dim).permute(0, 3, 1, 2)
    square = F.interpolate(square, mode="bicubic", antialias=antialias, **size)
    assert square.shape[2:] == (height, width)
    return torch.cat([cls, square.permute(0, 2, 3, 1).reshape(1, -1, dim)], dim=1)


# grid of the table, grid asked for, and the relative difference (root mean square) to what Facebook's code gives
# without and with registers: of independent numbers, of smooth waves. What files hold is smooth.
DIFFERENCES = [
    (14, (6, 6), (0.285, 0.805), (0.092, 0.120)),  # DINO's small crops
    (14, (20, 9), (0.164, 0.386), (0.048, 0.040)),
    (14, (30, 30), (0.060, 0.078), (0.017, 0.027)),
    (28, (60, 80), (0.054, 0.080), (0.007, 0.012)),
    (37, (16, 16), (0.300, 0.807), (0.034, 0.017)),  # DINOv2 on 224 pixels
    (37, (32, 45), (0.137, 0.163), (0.013, 0.010)),
]


@pytest.mark.parametrize(("grid", "size", "independent", "waves"), DIFFERENCES)
@torch.no_grad()
def test_difference_to_the_formulas_of_facebook(
    grid: int, size: tuple[int, int], independent: tuple[float, float], waves: tuple[float, float]
) -> None:
    for smooth, (plain, registers) in ((False, independent), (True, waves)):
        model = with_positions(grid, smooth)
        ours = model.positions(*size)
        assert torch.equal(ours[:, 0], model.pos_embed[:, 0])
        for expected, options in ((plain, {}), (registers, {"offset": 0.0, "antialias": True})):
            theirs = facebook_positions(model, *size, **options)
            found = ((ours - theirs)[:, 1:].square().mean() / ours[:, 1:].square().mean()).sqrt()
            assert found == pytest.approx(expected, abs=6e-4)
        # the tenth is the whole difference to DINO
        exact = facebook_positions(model, *size, offset=0.0)
        torch.testing.assert_close(ours, exact, rtol=1e-12, atol=1e-12)


def test_positions_at_native_size_are_the_table() -> None:
    model = tiny()
    assert model.positions(5, 5) is model.pos_embed
    assert torch.equal(facebook_positions(model, 5, 5), model.pos_embed)
    assert model.positions(1, 25).shape == (1, 26, 12)  # as many, but elsewhere
    assert not torch.equal(model.positions(1, 25), model.pos_embed)


# --- what the backbone promises ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"registers": 3}, {"layer_scale": 0.1, "registers": 1}])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [(20, 20), (4, 4), (12, 28), (28, 36)])
def test_shapes_and_gradients(options: dict[str, object], batch: int, size: tuple[int, int]) -> None:
    model, registers = tiny(**options), options.get("registers", 0)
    out = model(images(batch, *size, dtype=torch.float32))
    height, width = size[0] // 4, size[1] // 4
    assert list(out) == ["cls", "registers", "patches"]
    assert out["cls"].shape == (batch, 12)
    assert out["registers"].shape == (batch, registers, 12)
    assert out["patches"].shape == (batch, 12, height, width)
    weights = torch.linspace(-1, 1, 12)  # a normalised token sums to a constant, which has no gradient
    sum((tokens.movedim(1 if tokens.ndim == 4 else -1, -1) * weights).sum() for tokens in out.values()).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key


def test_a_patch_becomes_the_token_at_its_place() -> None:
    model = tiny()
    model.blocks = model.blocks[:0]  # no mixing
    batch = images(1, 12, 20, torch.float32).requires_grad_()
    model.norm = nn.Identity()
    model.blocks.append(nn.Identity())
    gradient = torch.autograd.grad(model(batch)["patches"][0, :, 1, 3].sum(), batch)[0]
    touched = gradient.abs().sum(dim=(0, 1)) > 0
    assert touched[4:8, 12:16].all() and touched.sum() == 16


def test_images_of_a_batch_do_not_meet_and_nothing_is_random() -> None:
    model, batch = tiny(registers=2).train(), images(3, 12, 28, torch.float32)
    together = as_timm(model(batch))
    assert torch.equal(together, as_timm(model.eval()(batch)))
    for i in range(3):
        torch.testing.assert_close(as_timm(model(batch[i : i + 1]))[0], together[i])


def test_normalisation_is_inside_and_not_in_the_file() -> None:
    plain, inside = tiny(), tiny(normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD))
    inside.load_state_dict(plain.state_dict(), strict=True)
    batch = images(1, 12, 20, torch.float32)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(as_timm(inside(batch)), as_timm(plain((batch - mean) / std)))
    assert torch.equal(batch, images(1, 12, 20, torch.float32))
    for tokens in inside.double()(batch.double()).values():
        assert tokens.dtype == torch.float64


def test_attention_sums_to_one_and_says_what_forward_does() -> None:
    model, batch = tiny(registers=1).double(), images(2, 12, 20)
    shares = model.attention(batch)
    assert shares.shape == (2, 2, 17, 17) and shares.min() > 0
    torch.testing.assert_close(shares.sum(dim=-1), torch.ones(2, 2, 17, dtype=torch.float64))
    attention, tokens = Attention(12, 3).double(), torch.rand(2, 5, 12, dtype=torch.float64)
    values = attention.queries_keys_values(tokens)[2]
    by_hand = attention.proj((attention.attention_weights(tokens) @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(tokens), by_hand)


BAD_IMAGES = [
    (
        lambda batch: batch[..., :-1],
        ValueError,
        r"H, W = 20, 27, expected multiples of patch_size 4, such as \(20, 28\)",
    ),
    (lambda batch: batch[..., :2, :], ValueError, r"H, W = 2, 28, expected .*, such as \(4, 28\)"),
    (lambda batch: batch[0], ValueError, "shape"),
    (lambda batch: batch[:, :1], ValueError, "shape"),
    (lambda batch: batch[:0], ValueError, "shape"),
    (lambda batch: batch[..., :0], ValueError, "shape"),
    (lambda batch: (255 * batch).to(torch.uint8), TypeError, "dtype"),
    (lambda batch: batch.numpy(), TypeError, "type"),
]


@pytest.mark.parametrize(("change", "error", "words"), BAD_IMAGES)
def test_bad_images(change: Callable[[Tensor], Tensor], error: type[Exception], words: str) -> None:
    bad = change(images(2, 20, 28, torch.float32))
    model = tiny()
    for call in (model, model.attention, model.keys, model.queries):
        with pytest.raises(error, match=f"^images has {words}.*"):
            call(bad)


BAD = [
    (lambda: ViT(0, 12, 1, 2), "patch_size is 0"),
    (lambda: ViT(4, 12, 0, 2), "depth is 0"),
    (lambda: ViT(4, 12, 1, 2, image_size=22), "image_size is 22"),
    (lambda: ViT(4, 12, 1, 2, image_size=0), "image_size is 0"),
    (lambda: ViT(4, 12, 1, 2, registers=-1), "registers is -1"),
    (lambda: ViT(4, 12, 1, 5), "embed_dim is 12"),
    (lambda: ViT(4, 12, 1, 0), "num_heads is 0"),
    (lambda: Attention(0, 1), "embed_dim is 0"),
    (lambda: tiny().features(images(1, 20, 20, torch.float32), 3), "block is 3"),
    (lambda: tiny().attention(images(1, 20, 20, torch.float32), -4), "block is -4"),
    (lambda: tiny().keys(images(1, 20, 20, torch.float32), 3), "block is 3"),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_bad_arguments(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}.*, expected "):
        make()
