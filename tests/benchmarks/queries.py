"""Query models beside transformers', SAM beside segment-anything, with the same random weights and the same outputs.

`run.py` times the pairs, on two threads; `python tests/benchmarks/queries.py` prints the largest resident memory of
each, measured in its own process. The limits: 1.10 for each query network, 1.0 for their geometric mean; 0.9 for
SAM's encoder and for segmenting everything.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).resolve().parent))  # files here have names of folders of tests
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.detection import Pair, images
from randomise import randomise

STAGES = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
SWIN_TINY = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7, **STAGES}


def filled(theirs: nn.Module, ours: nn.Module, renamed: Callable[[str], tuple[str, int | None]]) -> nn.Module:
    """Load our weights into a network of transformers; `renamed` maps its names to ours."""
    state, ready = ours.state_dict(), theirs.state_dict()
    used = set()
    for key in ready:
        name, third = renamed(key)
        if name in state:
            used.add(name)
            ready[key] = state[name] if third is None else state[name].chunk(3)[third]
    unused = [key for key in set(state) - used if not key.endswith(("num_batches_tracked", "relative_position_index"))]
    assert not unused, unused[:5]
    theirs.load_state_dict(ready)
    return theirs.eval()


def same(ours: Tensor, theirs: Tensor) -> None:
    """Raise if two networks do not predict the same."""
    far = (ours - theirs).abs().max() / theirs.std()
    assert theirs.std() > 1e-4 and far < 1e-2, (theirs.std(), far)


@torch.no_grad()
def detr() -> Pair:
    """DETR on ResNet-50: classes and boxes."""
    import transformers
    from detection.test_detr_transformers import renamed

    from segedu.detection.detr import detr_resnet50

    ours = randomise(detr_resnet50()).float().eval()
    body = transformers.ResNetConfig(out_features=["stage4"])
    theirs = filled(
        transformers.DetrForObjectDetection(transformers.DetrConfig(backbone_config=body, num_labels=91)), ours, renamed
    )
    batch = images()
    pixels = ours.backbone[0]["body"].normalize(batch)
    same(ours(batch)["boxes"], theirs(pixels).pred_boxes)
    return Pair("DETR R50 / transformers", quietly(ours, batch), quietly(theirs, pixels), 1.10)


@torch.no_grad()
def mask2former() -> Pair:
    """Mask2Former on ResNet-50, as for COCO's panoptic task: classes and masks."""
    import transformers
    from panoptic.test_mask2former_transformers import renamed

    from segedu.panoptic.mask2former.mask2former import mask2former_resnet50

    ours = randomise(mask2former_resnet50()).float().eval()
    config = transformers.Mask2FormerConfig(backbone_config=transformers.ResNetConfig(**STAGES), num_labels=133)
    theirs = filled(transformers.Mask2FormerForUniversalSegmentation(config), ours, renamed)
    batch = images()
    pixels = ours.backbone.normalize(batch)
    same(ours(batch)["mask_logits"], theirs(pixels).masks_queries_logits)
    return Pair("Mask2Former R50 / transformers", quietly(ours, batch), quietly(theirs, pixels), 1.10)


@torch.no_grad()
def oneformer() -> Pair:
    """OneFormer on Swin-T, as for ADE20K, without the text that only training reads."""
    import transformers
    from panoptic.test_oneformer_transformers import renamed

    from segedu.panoptic.oneformer import oneformer_swin_tiny

    ours = randomise(oneformer_swin_tiny()).float().eval()
    config = transformers.OneFormerConfig(
        backbone_config=transformers.SwinConfig(**SWIN_TINY), num_labels=150, is_training=False
    )
    theirs = filled(transformers.OneFormerForUniversalSegmentation(config), ours, renamed)
    batch = images()
    pixels = ours.backbone.normalize(batch)
    tokens = ours.tokenize("the task is panoptic")[None]
    mine = lambda: quietly(ours, batch, tasks=["panoptic"])()  # noqa: E731
    same(mine()["mask_logits"], theirs(pixels, tokens).masks_queries_logits)
    return Pair("OneFormer Swin-T / transformers", mine, quietly(theirs, pixels, tokens), 1.10)


def quietly(net: nn.Module, *given: Any, **named: Any) -> Callable[[], Any]:
    """Call a function without gradients."""

    def run() -> Any:
        with torch.no_grad():
            return net(*given, **named)

    return run


def sam_twins() -> tuple[nn.Module, nn.Module]:
    """SAM on ViT-B, ours and segment-anything's, the same random weights."""
    from promptable.small_sam import shake
    from segment_anything import sam_model_registry

    from segedu.promptable.sam.sam import sam_vit_b

    ours, theirs = shake(sam_vit_b()).eval(), sam_model_registry["vit_b"]().eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


@torch.no_grad()
def sam_encoder() -> Pair:
    """SAM's image encoder, ViT-B, on 1024 x 1024 pixels."""
    ours, theirs = sam_twins()
    image = torch.nn.functional.interpolate(images(), (1024, 1024), mode="bilinear")
    pixels = (image - image.mean()) / image.std()
    same(ours.image_encoder(pixels), theirs.image_encoder(pixels))
    both = (quietly(net.image_encoder, pixels) for net in (ours, theirs))
    return Pair("SAM ViT-B encoder / segment-anything", *both, 0.9)


@torch.no_grad()
def everything() -> Pair:
    """All masks of an image from 16 x 16 points, encoder included; the filters are loose, so that some masks remain."""
    from promptable.test_everything import theirs_on

    from segedu.promptable.everything import Settings, segment_everything

    ours, theirs = sam_twins()
    image = (255 * images()[0]).byte()
    for net in (ours, theirs):
        net.mask_threshold = 1.5  # above 0 random weights have masks of the whole image, of which one stays
    settings = Settings(points_per_side=16, iou_threshold=-100.0, stability_threshold=0.3, stability_offset=0.05)
    mine = lambda: segment_everything(ours, image.float() / 255, settings)  # noqa: E731
    peer = lambda: theirs_on(theirs, image, settings)  # noqa: E731
    assert len(mine()["masks"]) == len(peer()) > 3
    return Pair("SAM ViT-B everything, 16 x 16 points / segment-anything", mine, peer, 0.9)


QUERY_NETS = {"detr": detr, "mask2former": mask2former, "oneformer": oneformer}
SAM = {"sam_encoder": sam_encoder, "everything": everything}


def query_pairs() -> Iterator[tuple[str, Callable, Callable]]:
    """Yield pairs for `run.py`, with one network at a time in memory."""
    for make in QUERY_NETS.values():
        pair = make()
        yield pair.name, pair.ours, pair.peer


def sam_pairs() -> Iterator[tuple[str, Callable, Callable]]:
    """Yield pairs for `run.py`."""
    for make in SAM.values():
        pair = make()
        yield pair.name, pair.ours, pair.peer


def main(names: list[str]) -> None:
    """Print the MiB at the peak of one call after both are built: `NAME ours` in its own process, or all one by one."""
    if len(names) == 2:
        pair = {**QUERY_NETS, **SAM}[names[0]]()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
        getattr(pair, names[1])()
        peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
        print(int(peak[1]) >> 10)
        return
    for name in names or {**QUERY_NETS, **SAM}:
        peaks = []
        for side in ("ours", "peer"):
            command = [sys.executable, __file__, name, side]
            peaks.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
        print(f"{name}: at the peak {peaks[0]} MiB, the peer {peaks[1]} MiB, both networks in memory")


if __name__ == "__main__":
    main(sys.argv[1:])
