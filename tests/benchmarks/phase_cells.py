"""What three representations lose on real cells in phase contrast: targets of the ground truth, decoded again.

`python tests/benchmarks/phase_cells.py FOLDER`, with the folder of `phase_cells`, prints the instance accuracy on the
test images, a mean over images, at IoU 0.5 and 0.8.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from segedu.datasets.folder import SegmentationFolder
from segedu.instance import omnipose, stardist
from segedu.instance.cellpose import cellpose
from segedu.metrics.instance import instance_accuracy
from segedu.recipes.own_images import read_pair
from segedu.recipes.recipe import load_recipe


def by_stardist(label_map: Tensor) -> Tensor:
    """The label map from perfect object probabilities and distances."""
    targets = stardist.stardist_targets(label_map)
    logits = targets["probability"].clamp(1e-6, 1 - 1e-6).logit()
    outputs = {"logits": logits[None], "distances": targets["distances"][None]}
    return stardist.postprocess(outputs, tuple(label_map.shape))[0]


def by_cellpose(label_map: Tensor) -> Tensor:
    """The label map from perfect flows towards the middle."""
    targets = cellpose.cellpose_targets(label_map)
    logits = 20.0 * targets["foreground"] - 10
    return cellpose.postprocess({"flows": 5 * targets["flows"][None], "logits": logits[None]})[0]


def by_omnipose(label_map: Tensor, decode: Callable) -> Tensor:
    """The label map from perfect flows towards the skeleton."""
    targets = omnipose.omnipose_targets(label_map)
    outputs = {"flows": 5 * targets["flows"][None], "distance": targets["distance"][None]}
    return decode(outputs, tuple(label_map.shape))[0]


def main(root: Path) -> None:
    """Print one line."""
    folder = SegmentationFolder(root, split="test")
    label_maps = [read_pair(folder, name)[1] for name in folder.names]
    tuned = load_recipe("omnipose", "phase_cells").postprocess
    decodings = {
        "stardist": by_stardist,
        "cellpose": by_cellpose,
        "omnipose": lambda label_map: by_omnipose(label_map, lambda outputs, size: omnipose.postprocess(outputs)),
        "omnipose_tuned": lambda label_map: by_omnipose(label_map, tuned),
    }
    texts = []
    for name, decode in decodings.items():
        decoded = [(decode(label_map), label_map) for label_map in label_maps]
        means = [
            sum(instance_accuracy(*pair, threshold) for pair in decoded) / len(decoded) for threshold in (0.5, 0.8)
        ]
        texts.append(f"{name} " + " ".join(f"{mean:.3f}" for mean in means))
    print("perfect targets at IoU 0.5 and 0.8: " + "; ".join(texts))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
