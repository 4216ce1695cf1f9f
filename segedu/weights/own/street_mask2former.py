"""A small Mask2Former for synthetic streets: semantic, instance and panoptic segmentation by one network.

`python -m segedu.weights.own.street_mask2former` makes street_mask2former.safetensors and its log,
street_mask2former.json, again. Images have 64 x 96 pixels, and people are only 6 pixels wide, so all strides are half
of the paper's: 2, 4, 8 and 16. The backbone is pretrained on other streets (four stages of `street_vgg`), where the
paper's is pretrained on ImageNet.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from segedu.backbones.vgg import VGG
from segedu.datasets.street import CLASSES, STREET_VERSION, THINGS, draw_street
from segedu.layers.segments import instance_segments, panoptic_segments, semantic_segments
from segedu.metrics.coco import CocoEvaluation
from segedu.metrics.confusion import ConfusionMatrix
from segedu.metrics.panoptic import PanopticQuality
from segedu.metrics.semantic import mean_iou_from_confusion
from segedu.panoptic.inference import instance_inference, panoptic_inference, semantic_inference
from segedu.panoptic.mask2former.loss import mask2former_loss
from segedu.panoptic.mask2former.mask2former import Mask2Former, MaskedDecoder
from segedu.panoptic.mask2former.pixel_decoder import PixelDecoder
from segedu.weights import load
from segedu.weights.catalogue import STREET_VGG_STAGES
from segedu.weights.own import making

FILE = Path(__file__).with_suffix(".safetensors")
SIZE, WIDTH, QUERIES = (64, 96), 64, 20  # pixels; embedding dimension; a street has at most 16 segments
SCENES_SEED, SCENES, STEPS, BATCH, RATE = 8_000_000, 4096, 4000, 8, 1e-3
HELD_OUT = (9_000_000, 64)  # seed and number of scenes for the figures in the log
WATCHED = (10_000_000, 32)  # the same for the curve
POINTS = 1024  # number of points at which the mask loss is computed, a sixth of the pixels
SURE = 0.5  # lowest score of a panoptic segment

Scene = dict[str, Any]


def street_mask2former() -> Mask2Former:
    """Build the network whose weights `segedu.weights.load("street_mask2former")` loads."""
    decoder = MaskedDecoder(len(CLASSES), QUERIES, WIDTH, num_heads=4, layers=3, hidden=2 * WIDTH)
    return Mask2Former(backbone(), pixel_decoder(), decoder)


def backbone() -> VGG:
    """Four stages of `street_vgg`: strides 2, 4, 8 and 16."""
    return VGG(STREET_VGG_STAGES[:4], batch_norm=True)


def pixel_decoder() -> PixelDecoder:
    """Two layers of deformable attention over strides 4, 8 and 16."""
    return PixelDecoder([stage[-1] for stage in STREET_VGG_STAGES[:4]], WIDTH, 4, layers=2, hidden=2 * WIDTH)


def start_from_street_vgg(body: VGG) -> None:
    """Copy the weights of `street_vgg` to the stages of a backbone."""
    state = load("street_vgg").state_dict()
    body.load_state_dict({key: state[key] for key in body.state_dict()})


def draw(seed: int, number: int) -> list[Scene]:
    """Scenes: `image` uint8 (3, H, W), `panoptic_seg` uint8 (H, W) and `segments_info`."""
    scenes = []
    for i in tqdm(range(number), desc="draw streets", unit="scene"):
        scene = draw_street((seed, i), SIZE)
        image = (scene["image"] * 255).round().to(torch.uint8)
        scenes.append({"image": image.as_subclass(Tensor), "segments_info": scene["segments_info"]})
        scenes[-1]["panoptic_seg"] = scene["panoptic_seg"].as_subclass(Tensor).to(torch.uint8)
    return scenes


def segments(scene: Scene, task: str = "panoptic") -> dict[str, Tensor]:
    """Targets of a task ("panoptic", "instance" or "semantic"): `labels` (N,) and `masks` (N, H, W)."""
    seg, info = scene["panoptic_seg"].int(), scene["segments_info"]
    if task == "semantic":
        return semantic_segments(semantic(scene))
    return (instance_segments if task == "instance" else panoptic_segments)(seg, info)


def semantic(scene: Scene) -> Tensor:
    """The class of each pixel, int64 (H, W); 255 for pixels without a segment."""
    seg, info = scene["panoptic_seg"].long(), scene["segments_info"]
    classes = torch.full((max((one["id"] for one in info), default=0) + 1,), 255)
    for one in info:
        classes[one["id"]] = one["category_id"]
    return classes[seg]


class Streets(Dataset):
    """Images and their segments from scenes in memory, mirrored at random."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.scenes = list(scenes)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        scene = mirrored(self.scenes[index])
        return scene["image"].float() / 255, segments(scene)


def mirrored(scene: Scene) -> Scene:
    """Mirror a scene left to right with probability 1/2."""
    if torch.rand(()) < 0.5:
        return scene
    return scene | {key: scene[key].flip(-1) for key in ("image", "panoptic_seg")}


def stack(samples: Sequence[tuple[Tensor, Mapping[str, Tensor]]]) -> tuple[Tensor, list[Mapping[str, Tensor]]]:
    """A batch of images, and the list of their segments."""
    images, targets = zip(*samples, strict=True)
    return torch.stack(images), list(targets)


def train(model: nn.Module, samples: Dataset, steps: int = STEPS, every: int = 100, **watch: Any) -> list[float]:
    """`making.train` with the settings of this network."""
    options = {"batch": BATCH, "rate": RATE, "steps": steps, "every": every, "collate": stack, **watch}
    return making.train(model, partial(mask2former_loss, num_points=POINTS), samples, **options)


@torch.no_grad()
def evaluate(outputs: Mapping[str, Sequence[Mapping[str, Any]]], scenes: Sequence[Scene]) -> dict[str, float]:
    """Evaluate the three tasks, each from its own outputs.

    Args:
        outputs: for each of "semantic", "instance" and "panoptic", the outputs of a network for each scene.
        scenes: scenes from `draw`.

    Returns:
        `semantic_miou`, `instance_mask_ap50` and `panoptic_quality`, rounded to four digits.
    """
    confusion, precision = ConfusionMatrix(len(CLASSES), ignore_index=255), CocoEvaluation("segm")
    quality = PanopticQuality(len(CLASSES))
    for i, scene in enumerate(scenes):
        confusion.update(semantic_inference(outputs["semantic"][i]).argmax(dim=1), semantic(scene)[None])
        (detections,) = instance_inference(outputs["instance"][i], THINGS)
        precision.update(detections, segments(scene, "instance"))
        ((seg, info),) = panoptic_inference(outputs["panoptic"][i], THINGS, score_threshold=SURE)
        target = {"panoptic_seg": scene["panoptic_seg"].int(), "segments_info": scene["segments_info"]}
        quality.update({"panoptic_seg": seg, "segments_info": info}, target)
    figures = {
        "semantic_miou": mean_iou_from_confusion(confusion.compute()),
        "instance_mask_ap50": precision.compute()["AP50"],
        "panoptic_quality": quality.compute()["pq"],
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


@torch.no_grad()
def measure(model: nn.Module, scenes: Sequence[Scene]) -> dict[str, float]:
    """`evaluate` a network whose outputs serve all three tasks."""
    model.eval()
    outputs = [model(scene["image"][None].float() / 255) for scene in scenes]
    return evaluate(dict.fromkeys(("semantic", "instance", "panoptic"), outputs), scenes)


def main() -> None:
    """Draw the scenes, train, and write the file and its log."""
    torch.set_num_threads(1)
    samples = Streets(draw(SCENES_SEED, SCENES))
    torch.manual_seed(making.SEED)
    model, start = street_mask2former(), time.process_time()
    start_from_street_vgg(model.backbone)
    new, curve = draw(*WATCHED), {}

    def watch(step: int) -> None:
        if step % 500 == 0:
            curve[step] = measure(model, new)["panoptic_quality"]
            save_file(model.state_dict(), FILE.with_suffix(".part"))  # to have weights if training is stopped early

    losses = train(model, samples, watch=watch)
    model.half().float()  # the precision of the file
    log = {
        "street_version": STREET_VERSION,
        "scenes": SCENES,
        "steps": STEPS,
        "seed": making.SEED,
        "losses_of_100_steps": losses,
        "panoptic_quality_after_steps": curve,
        "cpu_seconds_of_training": round(time.process_time() - start),
        "on_new_scenes": measure(model, draw(*HELD_OUT)),
    }
    making.write(model.half(), FILE, log)
    FILE.with_suffix(".part").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
