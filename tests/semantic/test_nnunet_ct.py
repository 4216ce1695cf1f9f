"""nnU-Net on a real CT: its plan, and a short training on one half of a body that predicts the other half.

The labels are another program's predictions, not drawn by people, and both halves are of one person: the numbers say
that the whole way works, and nothing about medicine.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from segedu.datasets.nifti import read_case
from segedu.semantic.nnunet.nnunet import build_network, predict_volume, preprocess
from segedu.semantic.nnunet.plan import Plan, fingerprint, make_plan
from segedu.semantic.nnunet.training import Patches, augment_intensity, train_network
from segedu.viz import overlay

ORGANS = {  # of TotalSegmentator's classes, left and right
    "kidney": (2, 3),
    "femur": (75, 76),
    "hip bone": (77, 78),
    "gluteus maximus": (80, 81),
    "gluteus medius": (82, 83),
    "back muscle": (86, 87),
    "iliopsoas": (88, 89),
}
STEPS = 280


@pytest.fixture(scope="module")
def halves(shared_data: Path) -> list[dict[str, Any]]:
    """The right half of the body, mirrored to look like a left one, and the left half, in whose hip is metal."""
    pytest.importorskip("nibabel")
    case = read_case(shared_data / "ct/example_ct.nii.gz", shared_data / "ct/example_seg_fast_force_split.nii.gz")
    hu, labels = case["values"].numpy(), case["semantic"].numpy()
    semantic = np.zeros_like(labels)
    for label, pair in enumerate(ORGANS.values(), start=1):
        semantic[np.isin(labels, pair)] = label
    middle = int(np.median(np.nonzero(np.isin(labels, (25, 79)))[2]))  # sacrum and spinal cord
    right = hu[None, :, :, :middle][..., ::-1], semantic[:, :, :middle][..., ::-1]
    left = hu[None, :, :, middle:], semantic[:, :, middle:]
    return [
        {"image": image.copy(), "semantic": target.copy(), "spacing": case["spacing"]}
        for image, target in (right, left)
    ]


def small_plan(halves: list[dict[str, Any]]) -> Plan:
    """For a CPU: patches of 3 mm that fit would see too little of the body, so voxels of 6 mm."""
    found = fingerprint(halves[:1])
    return make_plan(found, len(ORGANS) + 1, ct=(True,), memory_gb=0.04, base_width=8, spacing=(6.0, 6.0, 6.0))


def test_the_plan_of_a_real_volume(halves: list[dict[str, Any]]) -> None:
    """3 mm along each axis: nothing is thick. On the GPU of the paper the patch is as large as the volume."""
    found = fingerprint(halves[:1])
    assert found.nonzero_fraction == 1 and found.spacings.tolist() == [[3.0, 3.0, 3.0]]
    (numbers,) = found.intensities
    assert -200 < numbers.low < 0 < numbers.mean < 200 < numbers.high < 2000
    plan = make_plan(found, len(ORGANS) + 1, ct=(True,))
    assert plan.spacing == (3.0, 3.0, 3.0) and set(plan.topology.kernels) == {(3, 3, 3)}
    assert all(n >= whole for n, whole in zip(plan.patch_size, plan.median_shape, strict=True))
    assert not plan.needs_cascade and plan.batch_size == 2
    assert make_plan(found, len(ORGANS) + 1, ct=(True,), memory_gb=0.04, base_width=8).needs_cascade
    assert not small_plan(halves).needs_cascade


def dice(found: np.ndarray, truth: np.ndarray, label: int) -> float:
    both = ((found == label) & (truth == label)).sum()
    return float(2 * both / max((found == label).sum() + (truth == label).sum(), 1))


def draw(volume: dict[str, Any], found: np.ndarray, path: Path) -> None:
    """Truth above, prediction below, in three slices across the body."""
    fig, axes = plt.subplots(2, 3, figsize=(8, 6.4), layout="constrained")
    for column, part in zip(axes.T, (0.2, 0.45, 0.7), strict=True):
        index = round(part * (len(found) - 1))
        grey = np.clip((volume["image"][0, index] + 160) / 400, 0, 1)
        for axis, labels, name in zip(column, (volume["semantic"], found), ("labels", "prediction"), strict=True):
            axis.imshow(overlay(grey, labels[index]), interpolation="nearest")
            axis.set_title(f"{name}, slice {index + 1} of {len(found)}", fontsize=9)
            axis.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(fig)


@pytest.mark.prove
def test_one_half_of_a_body_predicts_the_other(halves: list[dict[str, Any]]) -> None:
    threads, start = torch.get_num_threads(), time.process_time()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    plan = small_plan(halves)
    patches = Patches([preprocess(halves[0], plan)], plan, 1000, augment_intensity)
    network = build_network(plan)
    train_network(network, patches, STEPS, optimizer=partial(torch.optim.AdamW, lr=4e-3))
    trained = time.process_time() - start
    found = predict_volume(network, halves[1], plan, mirror=False)
    torch.set_num_threads(threads)
    scores = [dice(found, halves[1]["semantic"], label) for label in range(1, len(ORGANS) + 1)]
    draw(halves[1], found, Path("_build/prove/nnunet-ct.png"))
    print(f"\npatch {plan.patch_size}, {STEPS} steps, {trained:.0f} CPU-seconds")
    print(*(f"{name}: Dice {score:.3f}" for name, score in zip(ORGANS, scores, strict=True)), sep="\n")
    print(f"mean Dice {np.mean(scores):.3f}")
    assert np.mean(scores) >= 0.6
