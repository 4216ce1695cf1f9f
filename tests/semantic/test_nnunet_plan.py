"""The planner's rules against nnunetv2: its recorded answers everywhere, itself where it is installed."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest

from segedu.semantic.nnunet import plan as nnunet_plan
from segedu.semantic.nnunet.plan import (
    Fingerprint,
    Intensities,
    count_features,
    fingerprint,
    largest_patch,
    make_plan,
    target_spacing,
    topology,
    widths_of,
)

RECORD = json.loads(Path(__file__).with_name("nnunet_record.json").read_text())
HAS_NNUNETV2 = importlib.util.find_spec("nnunetv2") is not None


def lists(value):
    return [lists(item) for item in value] if isinstance(value, tuple | list) else value


def our_topology(case: dict) -> dict:
    net = topology(case["spacing"], case["patch"])
    found = {"pools": net.pools, "strides": net.strides, "kernels": net.kernels, "patch": net.patch_size}
    return {name: lists(value) for name, value in found.items()}


def our_plan(case: dict) -> dict:
    """Through `make_plan`, for volumes that have the target spacing already."""
    inside = case["spacing"]
    coarsest = [4 * max(inside)] * (3 - len(inside))  # a plan on slices leaves out the coarsest axis
    shape = [300] * len(coarsest) + [math.floor(n) for n in case["median_shape"]]
    other = [300] * len(coarsest) + [math.ceil(n) for n in case["median_shape"]]
    found = Fingerprint(np.array([coarsest + inside] * 2), np.array([shape, other]), (), 1.0)
    axes = len(inside)
    net, batch = largest_patch(inside, case["median_shape"], case["num_classes"], case["memory_gb"], 32)
    plan = make_plan(found, case["num_classes"], (), axes, case["memory_gb"])
    assert plan.topology == net and plan.median_shape == tuple(case["median_shape"])
    voxels = math.prod(case["median_shape"]) * case["volumes"]
    batch = max(min(batch, round(voxels * 0.05 / math.prod(net.patch_size))), 2)
    found = {"patch": net.patch_size, "batch": batch, "strides": net.strides, "kernels": net.kernels}
    return {name: lists(value) for name, value in (found | {"widths": widths_of(net)}).items()}


@pytest.mark.parametrize("case", RECORD["topologies"])
def test_topology_is_that_of_nnunetv2(case: dict) -> None:
    assert our_topology(case) == case["answer"]


@pytest.mark.parametrize("case", RECORD["plans"])
def test_plan_is_that_of_nnunetv2(case: dict) -> None:
    assert our_plan(case) == case["answer"]


@pytest.mark.parametrize("case", RECORD["targets"])
def test_target_spacing_is_that_of_nnunetv2(case: dict) -> None:
    ours = target_spacing(np.array(case["spacings"]), np.array(case["shapes"]))
    np.testing.assert_allclose(ours, case["answer"]["spacing"], rtol=1e-12)


def test_the_record_has_thick_axes_of_all_kinds() -> None:
    """The 10th percentile was taken at least three times, and the median at least three times."""
    medians = [np.median(case["spacings"], axis=0) for case in RECORD["targets"]]
    moved = [not np.allclose(m, c["answer"]["spacing"]) for m, c in zip(medians, RECORD["targets"], strict=True)]
    assert 3 <= sum(moved) <= len(moved) - 3
    assert len(RECORD["topologies"]) >= 64


@pytest.mark.skipif(not HAS_NNUNETV2, reason="nnunetv2 is not installed: its recorded answers are compared")
def test_topology_equals_that_of_an_installed_nnunetv2() -> None:
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    rng = np.random.default_rng(7)
    for _ in range(300):
        axes = int(rng.integers(2, 4))
        spacing, patch = rng.uniform(0.2, 9, axes).tolist(), rng.integers(1, 400, axes).tolist()
        pools, strides, kernels, size, _ = get_pool_and_conv_props(spacing, patch, 4, 999999)
        ours = topology(spacing, patch)
        assert ours.strides == tuple(strides) and ours.kernels == tuple(map(tuple, kernels))
        assert list(ours.pools) == pools and ours.patch_size == tuple(size)


@pytest.mark.parametrize(
    ("name", "value"), [("SMALLEST_FEATURES", 5), ("BASE_WIDTH", 30), ("REFERENCE_GB", 9), ("ANISOTROPIC", 5)]
)
def test_the_comparison_notices_another_constant(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    monkeypatch.setattr(nnunet_plan, name, value)
    if name == "BASE_WIDTH":
        assert any(list(widths_of(topology(c["spacing"], c["answer"]["patch"]), value)) != c["answer"]["widths"]
                   for c in RECORD["plans"])  # fmt: skip
    elif name == "ANISOTROPIC":
        pairs = [(target_spacing(np.array(c["spacings"]), np.array(c["shapes"])), c) for c in RECORD["targets"]]
        assert any(not np.allclose(ours, c["answer"]["spacing"]) for ours, c in pairs)
    elif name == "REFERENCE_GB":
        cases = RECORD["plans"]
        found = [largest_patch(c["spacing"], c["median_shape"], c["num_classes"], c["memory_gb"], 32) for c in cases]
        answers = [(lists(net.patch_size), c["answer"]["patch"]) for (net, _), c in zip(found, cases, strict=True)]
        assert any(ours != theirs for ours, theirs in answers)
    else:
        assert any(our_topology(case) != case["answer"] for case in RECORD["topologies"])


def test_count_features_counts_outputs_of_the_net() -> None:
    import torch
    from torch import nn

    from segedu.semantic.nnunet.nnunet import VOLUME_PARTS
    from segedu.semantic.unet3d import UNet3D

    net = topology([3.0, 1.0, 1.0], [8, 16, 24])
    widths = [4, 6, 8, 9][: len(net.strides)]
    model = UNet3D(1, 5, [(w, w) for w in widths], net.kernels, net.strides, padding=True, parts=VOLUME_PARTS)
    total = []
    for module in model.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.register_forward_hook(lambda m, i, o: total.append(o.numel()))
    model(torch.zeros(1, 1, *net.patch_size))
    assert sum(total) == count_features(net, widths, 5)


def volumes() -> list[dict]:
    rng = np.random.default_rng(0)
    found = []
    for step in (4.0, 5.0, 6.0):
        image = rng.normal(40, 30, (1, 10, 40, 40))
        semantic = np.zeros((10, 40, 40), int)
        semantic[4:8, 10:20, 10:20] = 2
        semantic[0] = 255
        image[:, :, :4] = 0  # cropped away
        found.append({"image": image, "semantic": semantic, "spacing": (step, 1.0, 1.0)})
    return found


def test_fingerprint() -> None:
    given = volumes()
    found = fingerprint(iter(given))
    np.testing.assert_array_equal(found.spacings, [[4, 1, 1], [5, 1, 1], [6, 1, 1]])
    np.testing.assert_array_equal(found.shapes, [[10, 36, 40]] * 3)
    assert found.nonzero_fraction == 0.9
    voxels = np.concatenate([v["image"][0][v["semantic"] == 2] for v in given])
    expected = (voxels.mean(), voxels.std(), *np.percentile(voxels, (0.5, 99.5)))
    (numbers,) = found.intensities
    np.testing.assert_allclose((numbers.mean, numbers.std, numbers.low, numbers.high), expected)


def test_plan_of_thick_slices() -> None:
    plan = make_plan(fingerprint(volumes()), num_classes=3, ct=(True,))
    assert plan.spacing == (pytest.approx(4.2), 1.0, 1.0)  # the 10th percentile of 4, 5 and 6
    assert plan.topology.strides[1] == (1, 2, 2) and plan.topology.kernels[0] == (1, 3, 3)
    assert plan.batch_size == 2 and plan.ct == (True,) and not plan.masked and plan.slice_axis is None
    flat = make_plan(fingerprint(volumes()), num_classes=3, ct=(True,), axes=2)
    assert flat.slice_axis == 0 and len(flat.patch_size) == 2 and flat.spacing == (1.0, 1.0)


def test_less_memory_gives_smaller_patches_and_wishes_for_a_cascade() -> None:
    found = Fingerprint(np.ones((50, 3)), np.full((50, 3), 200), (Intensities(0, 1, -2, 2),), 0.5)
    sizes = [math.prod(make_plan(found, 2, memory_gb=memory).patch_size) for memory in (8, 2, 0.5)]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3
    small = make_plan(found, 2, memory_gb=0.5)
    assert small.needs_cascade and small.masked
    with pytest.raises(ValueError, match="memory_gb is 1e-07, expected"):
        make_plan(found, 2, memory_gb=1e-7)


def test_a_coarser_spacing_lets_the_patch_see_more() -> None:
    found = Fingerprint(np.ones((5, 3)), np.full((5, 3), 200), (Intensities(0, 1, -2, 2),), 1.0)
    coarse = make_plan(found, 2, memory_gb=0.5, spacing=(4, 4, 4))
    assert coarse.spacing == (4.0, 4.0, 4.0) and coarse.median_shape == (50.0, 50.0, 50.0) and not coarse.needs_cascade


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="volumes has 0 volumes"):
        fingerprint([])
    with pytest.raises(ValueError, match="axes is 4"):
        make_plan(fingerprint(volumes()), 2, axes=4)
    with pytest.raises(ValueError, match="ct "):
        make_plan(fingerprint(volumes()), 2, ct=(True, False))
    for name, options in (("base_width is 0", {"base_width": 0}), ("spacing is", {"spacing": (0, 1, 1)})):
        with pytest.raises(ValueError, match=f"^{name}.* expected"):
            make_plan(fingerprint(volumes()), 2, **options)
    with pytest.raises(ValueError, match="^num_classes is 1, expected an integer of at least 2"):
        make_plan(fingerprint(volumes()), 1)
    for spacing, patch in (
        ([1, 1], [8, 8, 8]),
        ([], []),
        ([math.nan, 1, 1], [8, 8, 8]),
        ([0, 1, 1], [8, 8, 8]),
        ([1, 1, 1], [0, 8, 8]),
    ):
        with pytest.raises(ValueError, match="spacing is .* expected"):
            topology(spacing, patch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacing": (1, 0, 1)}, r"spacing is \[1.0, 0.0, 1.0\], expected"),
        ({"spacing": (1, 1)}, r"spacing is \[1.0, 1.0\], expected 3 numbers"),
        ({"semantic": np.ones((2, 2, 2), int)}, r"semantic has shape \(2, 2, 2\), expected"),
        ({"image": np.full((1, 4, 5, 6), math.nan)}, "image has NaN or infinite foreground"),
        ({"image": np.ones((2, 4, 5, 6))}, "image has 2 channels, expected 1 as in the first volume"),
    ],
)
def test_a_volume_that_does_not_fit(change: dict, message: str) -> None:
    good = {"image": np.ones((1, 4, 5, 6)), "semantic": np.ones((4, 5, 6), int), "spacing": (1, 1, 1)}
    with pytest.raises(ValueError, match=message):
        fingerprint([good, good | change])
