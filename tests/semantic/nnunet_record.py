"""Write nnunet_record.json: what nnunetv2's planner answers, so that tests compare where it is not installed.

    python tests/semantic/nnunet_record.py

Recorded with nnunetv2 2.8.1. Random spacings, shapes and memories; thin axes, two axes and halves among them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

RECORD = Path(__file__).with_name("nnunet_record.json")


def inputs() -> dict[str, list[dict[str, Any]]]:
    """Questions to the planner; the same every time."""
    rng = np.random.default_rng(16)

    def spacing(axes: int, thick: bool) -> list[float]:
        found = rng.uniform(0.3, 3, axes)
        if thick:
            found[int(rng.integers(axes))] *= rng.uniform(2, 8)
        return [float(round(x, 3)) for x in found]

    topologies = [
        {"spacing": spacing(axes, i % 2 == 0), "patch": [int(n) for n in rng.integers(5, 260, axes)]}
        for axes in (3, 2)
        for i in range(50 if axes == 3 else 14)
    ]
    topologies += [  # ties: a ratio of exactly 2, equal spacings, sizes at the limits of 8 and 12
        {"spacing": [2.0, 1.0, 1.0], "patch": [32, 32, 32]},
        {"spacing": [1.0, 1.0, 1.0], "patch": [7, 8, 12]},
        {"spacing": [1.0, 1.0, 1.0], "patch": [7, 7, 11]},
        {"spacing": [1.0, 1.0, 1.0], "patch": [7, 7, 12]},
        {"spacing": [8.0, 1.0, 4.0], "patch": [64, 64, 64]},
        {"spacing": [1.0, 1.0, 1.0], "patch": [96.5, 97.5, 7.5]},
    ]
    plans = [
        {
            "spacing": spacing(axes, i % 2 == 0),
            "median_shape": [int(n) / 2 for n in rng.integers(60, 1000 if axes == 3 else 2400, axes)],
            "num_classes": int(rng.integers(2, 20)),
            "memory_gb": [8, 8, 4, 24][i % 4],
            "volumes": int(rng.integers(3, 200)),
        }
        for axes in (3, 2)
        for i in range(10 if axes == 3 else 5)
    ]
    targets = []
    for i in range(20):
        spacings = rng.uniform(0.5, 2, (7, 3))
        shapes = rng.integers(100, 400, (7, 3))
        spacings[:, i % 3] *= [1, 4, 8, 4][i % 4] * rng.uniform(0.3, 2, 7)
        shapes[:, i % 3] //= [1, 10, 10, 2][i % 4]
        targets.append({"spacings": spacings.round(3).tolist(), "shapes": shapes.tolist()})
    return {"topologies": topologies, "plans": plans, "targets": targets}


def ask_topology(case: dict[str, Any]) -> dict[str, Any]:
    """nnunetv2's strides, kernels, patch and number of poolings."""
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    pools, strides, kernels, patch, _ = get_pool_and_conv_props(case["spacing"], case["patch"], 4, 999999)
    return _plain({"pools": pools, "strides": strides, "kernels": kernels, "patch": patch})


def _planner(num_classes: int = 2, memory_gb: float = 8, fingerprint: dict | None = None) -> Any:
    from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner as module

    planner = object.__new__(module.ExperimentPlanner)  # its constructor wants folders of a data set
    names = {str(i): i for i in range(num_classes)}
    found = {"median_relative_size_after_cropping": 1.0} | (fingerprint or {})
    values = {
        "dataset_json": {"channel_names": {"0": "CT"}, "labels": names},
        "UNet_class": module.PlainConvUNet,
        "UNet_reference_val_3d": 560000000,
        "UNet_reference_val_2d": 85000000,
        "UNet_vram_target_GB": memory_gb,
        "UNet_reference_val_corresp_GB": 8,
        "UNet_reference_val_corresp_bs_2d": 12,
        "UNet_reference_val_corresp_bs_3d": 2,
        "UNet_base_num_features": 32,
        "UNet_max_features_2d": 512,
        "UNet_max_features_3d": 320,
        "UNet_featuremap_min_edge_length": 4,
        "UNet_blocks_per_stage_encoder": (2,) * 14,
        "UNet_blocks_per_stage_decoder": (2,) * 13,
        "UNet_min_batch_size": 2,
        "max_dataset_covered": 0.05,
        "preprocessor_name": "DefaultPreprocessor",
        "overwrite_target_spacing": None,
        "anisotropy_threshold": module.ANISO_THRESHOLD,
        "dataset_fingerprint": found,
    }
    for name, value in values.items():
        setattr(planner, name, value)
    return planner


def ask_plan(case: dict[str, Any]) -> dict[str, Any]:
    """nnunetv2's patch, batch size and net for a target spacing and a median shape."""
    planner = _planner(case["num_classes"], case["memory_gb"])
    voxels = float(np.prod(case["median_shape"])) * case["volumes"]
    plan = planner.get_plans_for_configuration(
        np.array(case["spacing"]), np.array(case["median_shape"]), "case", voxels, {}
    )
    net = plan["architecture"]["arch_kwargs"]
    return _plain(
        {
            "patch": plan["patch_size"],
            "batch": plan["batch_size"],
            "strides": net["strides"],
            "kernels": net["kernel_sizes"],
            "widths": net["features_per_stage"],
        }
    )


def ask_target(case: dict[str, Any]) -> dict[str, Any]:
    """nnunetv2's target spacing for spacings and shapes of a training set."""
    fingerprint = {"spacings": case["spacings"], "shapes_after_crop": case["shapes"]}
    return {"spacing": _planner(fingerprint=fingerprint).determine_fullres_target_spacing().tolist()}


ASK = {"topologies": ask_topology, "plans": ask_plan, "targets": ask_target}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    return int(value)


if __name__ == "__main__":
    answers = {name: [case | {"answer": ASK[name](case)} for case in cases] for name, cases in inputs().items()}
    lines = (f'"{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]" for name, rows in answers.items())
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")
