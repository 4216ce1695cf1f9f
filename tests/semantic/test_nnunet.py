"""nnU-Net's loss, windows and whole way, against nnunetv2 and MONAI where they are installed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from segedu.semantic.nnunet import nnunet
from segedu.semantic.nnunet.nnunet import (
    build_network,
    importance,
    nnunet_loss,
    patch_starts,
    predict_patches,
    predict_volume,
    preprocess,
)
from segedu.semantic.nnunet.plan import Intensities, Plan, Topology, fingerprint, make_plan
from segedu.semantic.nnunet.training import Patches, augment, crop_patch, oversamples_foreground, train_network


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small_plan(patch=(4, 8, 8), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), **options) -> Plan:
    kernels = tuple((3,) * len(patch) for _ in strides)
    values = {
        "spacing": (2.0, 1.0, 1.0)[-len(patch) :],
        "median_shape": (12.0, 24.0, 24.0)[-len(patch) :],
        "topology": Topology(patch, strides, kernels),
        "widths": (4, 6, 8)[: len(strides)],
        "batch_size": 2,
        "ct": (True,),
        "masked": False,
        "intensities": (Intensities(10.0, 20.0, -40.0, 60.0),),
        "num_classes": 3,
    }
    return Plan(**(values | options))


@pytest.mark.parametrize("batch_dice", [False, True])
def test_loss_is_that_of_nnunetv2(batch_dice: bool) -> None:
    """Theirs is minus Dice, ours one minus Dice; Dice and weights of levels are theirs. Also the gradients."""
    compound = pytest.importorskip("nnunetv2.training.loss.compound_losses")
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    options = {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False}
    single = compound.DC_and_CE_loss(options, {}, dice_class=MemoryEfficientSoftDiceLoss)
    weights = np.array([1, 1 / 2, 1 / 4]) / (7 / 4)
    target = torch.randint(0, 3, (2, 8, 8, 8), generator=torch.Generator().manual_seed(1))
    levels = [random(2, 3, n, n, n, seed=n).requires_grad_() for n in (8, 4, 2)]
    targets = [
        torch.nn.functional.interpolate(target[:, None].double(), (n, n, n), mode="nearest-exact") for n in (8, 4, 2)
    ]
    theirs = DeepSupervisionWrapper(single, weights)(levels, targets)
    ours = nnunet_loss({"out": levels[0], "aux": levels[1:]}, target, batch_dice)
    assert ours["loss"].item() == pytest.approx(theirs.item() + 1, abs=1e-6)
    assert ours["loss"].item() == pytest.approx((ours["dice"] + ours["cross_entropy"]).item())
    for one, other in zip(torch.autograd.grad(ours["loss"], levels), torch.autograd.grad(theirs, levels), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)


def test_loss_of_one_level_and_of_ignored_voxels() -> None:
    logits, target = random(1, 2, 4, 4, 4), torch.randint(0, 2, (1, 4, 4, 4))
    whole = nnunet_loss(logits, target)["loss"]
    assert torch.equal(whole, nnunet_loss({"out": logits, "aux": []}, target)["loss"])
    target[:, 0] = 255
    changed = logits.clone()
    changed[:, :, 0] += 5
    assert torch.equal(nnunet_loss(logits, target)["loss"], nnunet_loss(changed, target)["loss"])


@pytest.mark.parametrize("size", [(64, 64), (65, 64), (110, 64), (200, 64), (37, 9), (41, 8)])
def test_starts(size: tuple[int, int]) -> None:
    whole, patch = size
    starts = patch_starts(whole, patch)
    assert starts[0] == 0 and starts[-1] == whole - patch
    assert all(0 < b - a <= math.ceil(patch / 2) for a, b in zip(starts, starts[1:], strict=False))


def test_starts_are_those_of_nnunetv2() -> None:
    theirs = pytest.importorskip("nnunetv2.inference.sliding_window_prediction").compute_steps_for_sliding_window
    rng = np.random.default_rng(0)
    for patch in rng.integers(3, 200, 200).tolist():
        whole = patch + int(rng.integers(0, 300))
        assert patch_starts(whole, patch) == theirs((whole,), (patch,), 0.5)[0]


def model(patches: Tensor) -> Tensor:
    """Depends on neighbours, on the place in the patch and on direction, so that any slip shows."""
    place = torch.linspace(0, 1, patches[0, 0].numel(), dtype=patches.dtype).reshape(patches.shape[2:])
    return torch.cat([patches.roll(1, -1) * place, patches.roll(2, 2).cos() + place, patches**2], dim=1)


@pytest.mark.parametrize(
    ("size", "patch"), [((12, 24, 18), (8, 12, 12)), ((16, 16, 9), (8, 8, 6)), ((9, 7, 11), (6, 7, 11))]
)
def test_windows_are_those_of_monai(size: tuple, patch: tuple) -> None:
    """Where both lay the same grid: steps of half a patch that come out even, or one step."""
    infer = pytest.importorskip("monai.inferers").sliding_window_inference
    assert all(patch_starts(n, p)[1:2] in ([], [p // 2]) for n, p in zip(size, patch, strict=True))
    image = random(1, *size)
    theirs = infer(image[None], patch, 1, model, overlap=0.5, mode="gaussian", sigma_scale=0.125)[0]
    torch.testing.assert_close(predict_patches(model, image, patch, mirror=False), theirs, rtol=0, atol=1e-6)


def by_voxels(image: Tensor, patch: tuple[int, ...]) -> Tensor:
    """Mirrored windows again, the plain way: voxel by voxel over all patches that hold it."""
    grid = [patch_starts(n, p) for n, p in zip(image.shape[1:], patch, strict=True)]
    total, mass = (
        torch.zeros(3, *image.shape[1:], dtype=torch.float64),
        torch.zeros(image.shape[1:], dtype=torch.float64),
    )
    for z in grid[0]:
        for y in grid[1]:
            for x in grid[2]:
                crop = image[None, :, z : z + patch[0], y : y + patch[1], x : x + patch[2]]
                means = []
                for code in range(8):
                    axes = [axis + 2 for axis in range(3) if code >> axis & 1]
                    means.append(torch.flip(model(torch.flip(crop, axes)), axes))
                mean = torch.stack(means).mean(0)[0]
                for index in np.ndindex(*patch):
                    away = [(i - (p - 1) / 2) / (p / 8) for i, p in zip(index, patch, strict=True)]
                    weight = max(math.exp(-sum(a * a for a in away) / 2), 1e-3)
                    here = (index[0] + z, index[1] + y, index[2] + x)
                    total[(slice(None), *here)] += weight * mean[(slice(None), *index)]
                    mass[here] += weight
    return total / mass


def test_windows_mirrored_on_an_odd_grid() -> None:
    image = random(1, 7, 9, 5)
    found = predict_patches(model, image, (4, 5, 5))
    torch.testing.assert_close(found, by_voxels(image, (4, 5, 5)), rtol=0, atol=1e-10)


def test_windows_notice_flat_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    image = random(1, 7, 9, 5)
    monkeypatch.setattr(nnunet, "importance", lambda size: torch.ones(size, dtype=torch.float64))
    assert (predict_patches(model, image, (4, 5, 5)) - by_voxels(image, (4, 5, 5))).abs().max() > 1e-2


def test_weights_are_those_of_monai() -> None:
    theirs = pytest.importorskip("monai.data.utils").compute_importance_map
    for size in ((8, 9, 16), (5, 5, 5)):
        expected = theirs(size, mode="gaussian", sigma_scale=0.125).clamp(min=1e-3).double()
        torch.testing.assert_close(importance(size), expected, rtol=0, atol=1e-6)


def test_a_volume_smaller_than_the_patch() -> None:
    image, seen = random(1, 3, 20, 5), []

    def watch(patches: Tensor) -> Tensor:
        seen.append(patches)
        return patches.repeat(1, 2, 1, 1, 1)

    found = predict_patches(watch, image, (8, 8, 8), mirror=False)
    torch.testing.assert_close(found, image.repeat(2, 1, 1, 1), rtol=0, atol=1e-12)
    assert not seen[0][0, 0, 0].any() and not seen[0][0, 0, 7].any()  # zeros around
    with pytest.raises(ValueError, match="image has shape"):
        predict_patches(watch, image[0], (8, 8, 8))


def ball(seed: int, shape=(10, 26, 22), spacing=(2.0, 1.0, 1.0)) -> dict:
    """Two balls of different brightness in noise, in mm."""
    rng = np.random.default_rng(seed)
    semantic = np.zeros(shape, np.int64)
    axes = [np.arange(n) * step for n, step in zip(shape, spacing, strict=True)]
    for label in (1, 2):
        centre = [rng.uniform(6, n * step - 6) for n, step in zip(shape, spacing, strict=True)]
        z, y, x = np.ix_(*[a - c for a, c in zip(axes, centre, strict=True)])
        semantic[z**2 + y**2 + x**2 < 30] = label
    image = np.array([-100.0, 40.0, 90.0])[semantic] + rng.normal(0, 15, shape)
    return {"image": image[None], "semantic": semantic, "spacing": spacing}


def test_preprocess() -> None:
    volume = ball(0, (10, 26, 44), (4.0, 2.0, 0.5))
    volume["image"][:, :2] = 0
    volume["semantic"][:2] = 0
    done = preprocess(volume, small_plan(masked=True))
    assert done["image"].shape == (1, 16, 52, 22) and done["semantic"].shape == (16, 52, 22)
    assert done["image"].dtype == np.float32 and done["semantic"].dtype == np.int64 and done["thick"] == 0
    assert done["window"] == (slice(2, 10), slice(0, 26), slice(0, 44))
    assert done["image"].min() >= -2.5 - 1e-6 and done["image"].max() <= 2.5 + 1e-6  # (-40 - 10) / 20
    with pytest.raises(ValueError, match="image has shape"):
        preprocess(volume, small_plan(ct=(True, False)))


@pytest.mark.parametrize("slices", [False, True])
def test_predict_volume_puts_everything_back(slices: bool) -> None:
    """A model that reads the class off the brightness: through crop, resampling and back, classes stay in place."""
    volume = ball(1, (12, 30, 20), (3.0, 0.8, 1.2))
    volume["image"] = np.array([20.0, 150.0, -110.0])[volume["semantic"]][None]
    volume["image"][:, :, :3], volume["semantic"][:, :3] = 0, 0

    class Reader(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, images: Tensor) -> Tensor:
            steps = [torch.zeros_like(images), 9 * (images - 1.3), 9 * (-images - 1.3)]
            return self.scale * torch.cat(steps, dim=1)

    values = {"patch": (6, 8, 8)}
    if slices:
        values = {"patch": (8, 8), "strides": ((1, 1), (2, 2)), "slice_axis": 0}
    plan = small_plan(**values, intensities=(Intensities(20.0, 50.0, -110.0, 150.0),))
    found = predict_volume(Reader(), volume, plan)
    assert found.shape == volume["semantic"].shape and found.dtype == np.int64
    for label in (1, 2):
        both = ((found == label) & (volume["semantic"] == label)).sum()
        assert 2 * both / ((found == label).sum() + (volume["semantic"] == label).sum()) > 0.8
    assert not found[:, :3].any()


@pytest.mark.parametrize("axes", [2, 3])
def test_the_plans_net_has_the_plans_shapes(axes: int) -> None:
    plan = make_plan(fingerprint([ball(i) for i in range(3)]), 3, (True,), axes, memory_gb=0.02, base_width=4)
    net = build_network(plan)
    out = net.forward_with_aux(torch.zeros(1, 1, *plan.patch_size) + torch.randn(plan.patch_size))
    assert out["out"].shape == (1, 3, *plan.patch_size) and len(out["aux"]) == max(len(plan.widths) - 3, 0)


def test_patches() -> None:
    plan = small_plan(patch=(4, 8, 32))
    done = [preprocess(ball(i), plan) for i in range(2)]
    patches = Patches(done, plan, 9, augmentation=lambda image, target: (image, target))
    assert len(patches) == 9
    torch.manual_seed(0)
    for index in range(plan.batch_size - 1, 60, plan.batch_size):
        image, target = patches[index]
        assert image.shape == (1, 4, 8, 32) and target.shape == (4, 8, 32)
        assert set(target.unique().tolist()) & {1, 2}  # the last patch of a batch shows foreground
        assert (target[:, :, :5] == 255).all() and not image[
            ..., :5
        ].any()  # the volume is 22 wide: 5 missing on a side
    with pytest.raises(ValueError, match="volumes has 0"):
        Patches([], plan, 3)


@pytest.mark.parametrize("batch, forced", [(1, 1), (2, 1), (4, 1), (5, 2), (12, 4), (49, 16)])
def test_a_third_of_each_batch_shows_foreground(batch: int, forced: int) -> None:
    """Of one patch in a batch that is the one; the same in every batch."""
    for start in (0, batch, 7 * batch):
        assert sum(oversamples_foreground(i, batch) for i in range(start, start + batch)) == forced


def test_patches_of_slices() -> None:
    plan = small_plan(patch=(8, 8), strides=((1, 1), (2, 2)), slice_axis=0)
    patches = Patches([preprocess(ball(0), plan)], plan, 9)
    assert patches[0][0].shape == (1, 8, 8) and patches[0][1].shape == (8, 8)


def test_crop_patch_stays_inside() -> None:
    target = torch.arange(5 * 6 * 7).reshape(5, 6, 7)
    for centre in ([0, 0, 0], [4, 5, 6], [2, 3, 3]):
        image, crop = crop_patch(target[None].float(), target, centre, (2, 4, 4))
        assert torch.equal(image[0], crop.float()) and target[tuple(centre)] in crop and 255 not in crop


def test_augmentation_moves_image_and_target_together() -> None:
    torch.manual_seed(0)
    target = torch.randint(0, 2, (4, 5, 6))
    for _ in range(10):
        image, moved = augment(3 * target[None].float(), target)
        assert torch.equal((image[0] > 1.5).long(), moved)


@pytest.mark.learns
def test_training_learns_and_repeats() -> None:
    volumes = [ball(i) for i in range(4)]
    # a patch that a ball fills would not do: instance normalisation takes its brightness away
    plan = small_plan((8, 16, 16), intensities=fingerprint(volumes).intensities)
    patches = Patches([preprocess(v, plan) for v in volumes], plan, 100)
    losses: list[list[float]] = [[], []]
    nets = []
    for run in range(2):
        torch.manual_seed(5)
        net = build_network(plan)
        train_network(net, patches, 50, seed=1, on_step=lambda step, loss, run=run: losses[run].append(loss))
        nets.append(net)
    assert losses[0] == losses[1]
    assert np.mean(losses[0][-5:]) < 0.7 * np.mean(losses[0][:3])
    assert predict_volume(nets[0], ball(9), plan, mirror=False).shape == (10, 26, 22)


def test_training_stops_at_a_loss_that_is_no_number() -> None:
    plan = small_plan()
    done = preprocess(ball(0), plan)
    done["image"] = np.full_like(done["image"], np.inf)
    with pytest.raises(ValueError, match="the loss is nan at iteration 0"):
        train_network(build_network(plan), Patches([done], plan, 9), 1)


@pytest.mark.parametrize("shape", [(1, 4, 4, 5), (1, 2, 2, 2), (4, 4, 4), (2, 4, 4, 4)])
def test_a_target_of_another_size_is_not_stretched(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"target has shape .* expected \(1, 4, 4, 4\)"):
        nnunet_loss(random(1, 2, 4, 4, 4), torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize(
    ("outputs", "dtype", "error", "message"),
    [
        (random(1, 2, 4, 4, 4), torch.float32, TypeError, "target has dtype torch.float32"),
        ([random(1, 2, 4, 4, 4)], torch.int64, TypeError, "outputs has type list"),
        ({"out": random(1, 2, 4, 4, 4)}, torch.int64, ValueError, r"outputs has the keys \['out'\]"),
    ],
)
def test_bad_outputs(outputs, dtype: torch.dtype, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nnunet_loss(outputs, torch.zeros(1, 4, 4, 4, dtype=dtype))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacing": (1, 0, 1)}, "spacing is .* expected 3 numbers above 0"),
        ({"spacing": (1, -1, 1)}, "spacing is .* expected 3 numbers above 0"),
        ({"semantic": np.ones((3, 3, 3), int)}, r"semantic has shape \(3, 3, 3\), expected \(10, 26, 22\)"),
        ({"image": np.full((1, 10, 26, 22), np.nan)}, "image has 5720 NaN or infinite voxels"),
    ],
)
def test_preprocess_refuses(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preprocess(ball(0) | change, small_plan())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 7), (10, 3, 40)])
def test_volumes_thinner_than_the_patch(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    plan = small_plan()
    volume = {"image": random(1, *shape).numpy(), "spacing": (2.0, 1.0, 1.0)}
    found = predict_volume(build_network(plan).to(dtype), volume, plan, mirror=False)
    assert found.shape == shape and found.dtype == np.int64


def test_a_plan_that_pools_nothing_has_no_net() -> None:
    plan = make_plan(fingerprint([ball(0, (5, 6, 7), (12.0, 12.0, 12.0)) | {"semantic": np.ones((5, 6, 7), int)}]), 2)
    with pytest.raises(ValueError, match=r"^plan has patch_size \(5, 6, 7\), expected"):
        build_network(plan)


def test_windows_and_training_refuse() -> None:
    for size, patch in ((4, 0), (0, 4), (4, -1)):
        with pytest.raises(ValueError, match=r"^(size|patch) is (0|-1), expected"):
            patch_starts(size, patch)
    assert patch_starts(3, 100) == [0]
    with pytest.raises(ValueError, match=r"model returns \(1, 4, 4, 3\), expected"):
        predict_patches(lambda x: x[..., 1:], random(1, 4, 4, 4), (4, 4, 4), mirror=False)
    plan = small_plan()
    done = preprocess(ball(0), plan)
    with pytest.raises(ValueError, match="steps is 0, expected"):
        train_network(build_network(plan), Patches([done], plan, 2), 0)
    for wrong in ({"image": done["image"]}, done | {"semantic": done["semantic"][1:]}):
        with pytest.raises(ValueError, match="volumes has semantic of shape"):
            Patches([wrong], plan, 2)


def test_a_loop_over_patches_ends() -> None:
    plan = small_plan()
    assert len(list(Patches([preprocess(ball(0), plan)], plan, 5))) == 5
