"""A small OneFormer for synthetic streets: one network for three tasks, and a text input that names the task.

`python -m segedu.weights.own.street_oneformer` makes street_oneformer.safetensors and its log, street_oneformer.json,
again. Streets, backbone, pixel decoder, width and number of queries are those of `street_mask2former`, and training
starts from its weights. Two things are new: the queries depend on the task, and training is joint, so each street of a
batch is assigned one of the three tasks at random. The text encoder, used only in training, is left out of the file.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from segedu.datasets.street import CLASSES, STREET_VERSION, THINGS
from segedu.panoptic.mask2former.mask2former import MaskedDecoder
from segedu.panoptic.oneformer import OneFormer, TaskQueries, oneformer_loss, sample_tasks, task_targets
from segedu.panoptic.oneformer_text import TASKS, TextEncoder, TextMapper, WordTokenizer, segment_sentences
from segedu.weights import load
from segedu.weights.own import making
from segedu.weights.own.street_mask2former import (
    BATCH,
    HELD_OUT,
    POINTS,
    QUERIES,
    SCENES,
    SCENES_SEED,
    WIDTH,
    Scene,
    Streets,
    backbone,
    draw,
    evaluate,
    pixel_decoder,
)

FILE = Path(__file__).with_suffix(".safetensors")
STEPS, RATE = 2400, 7e-4
CONTEXT = 2  # learned text embeddings in addition to those of sentences
TOKENIZE = WordTokenizer.of_classes(CLASSES)


def street_oneformer(text: TextMapper | None = None) -> OneFormer:
    """Build the network whose weights `segedu.weights.load("street_oneformer")` loads; only training needs `text`."""
    decoder = MaskedDecoder(len(CLASSES), QUERIES, WIDTH, num_heads=4, layers=3, hidden=2 * WIDTH)
    queries = TaskQueries(WIDTH, num_heads=4, hidden=2 * WIDTH, dropout=0.0)
    return OneFormer(backbone(), pixel_decoder(), decoder, queries, TOKENIZE, TOKENIZE.length, text)


def reader() -> TextMapper:
    """A text encoder of two layers for the small vocabulary."""
    return TextMapper(TextEncoder(TOKENIZE.vocab_size, TOKENIZE.length, WIDTH, depth=2), WIDTH, CONTEXT)


def start_from_street_mask2former(model: OneFormer) -> None:
    """Copy backbone, pixel decoder and decoder; the task queries and the text encoder keep their random weights."""
    state = load("street_mask2former").state_dict()
    del state["decoder.query_feat.weight"]
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert all(key.startswith(("task_", "text.")) for key in missing), missing


class StreetsWithTasks(Dataset):
    """Streets, each with a random task, the segments that are its targets, and sentences that describe them."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.streets = Streets(scenes)

    def __len__(self) -> int:
        return len(self.streets)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        image, segments = self.streets[index]
        (task,) = sample_tasks(1)
        target = task_targets(segments, task, THINGS)
        sentences = segment_sentences(target["labels"], task, CLASSES, QUERIES - CONTEXT)
        return {"images": image, "tasks": task, "sentences": sentences}, target


def stack(samples: Sequence[tuple[dict[str, Any], dict[str, Tensor]]]) -> tuple[dict[str, Any], list[dict]]:
    """A batch of images with their tasks and sentences, and the list of their segments."""
    inputs, targets = zip(*samples, strict=True)
    batch = {key: [one[key] for one in inputs] for key in inputs[0]}
    return batch | {"images": torch.stack(batch["images"])}, list(targets)


class WithTasks(nn.Module):
    """The model in training: its input has the tasks and sentences as well as the images."""

    def __init__(self, model: OneFormer) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return self.model(batch["images"], tasks=batch["tasks"], sentences=batch["sentences"])


def train(model: OneFormer, samples: Dataset, steps: int = STEPS, every: int = 100, **options: Any) -> list[float]:
    """`making.train` with the settings of this network."""
    options |= {"batch": BATCH, "rate": RATE, "steps": steps, "every": every, "collate": stack}
    return making.train(WithTasks(model), partial(oneformer_loss, num_points=POINTS), samples, **options)


@torch.no_grad()
def measure(model: OneFormer, scenes: Sequence[Scene]) -> dict[str, float]:
    """`evaluate` the outputs for each task, which the network gets as text."""
    model.eval()
    images = [scene["image"][None].float() / 255 for scene in scenes]
    return evaluate({task: [model(image, tasks=task) for image in images] for task in TASKS}, scenes)


def main() -> None:
    """Draw the scenes, train, and write the file and its log."""
    torch.set_num_threads(1)
    samples = StreetsWithTasks(draw(SCENES_SEED, SCENES))
    torch.manual_seed(making.SEED)
    model, start = street_oneformer(reader()), time.process_time()
    start_from_street_mask2former(model)
    losses = train(model, samples)
    model.text = None
    model.half().float()  # the precision of the file
    log = {
        "street_version": STREET_VERSION,
        "scenes": SCENES,
        "steps": STEPS,
        "seed": making.SEED,
        "losses_of_100_steps": losses,
        "cpu_seconds_of_training": round(time.process_time() - start),
        "on_new_scenes": measure(model, draw(*HELD_OUT)),
    }
    making.write(model.half(), FILE, log)


if __name__ == "__main__":
    main()
