"""Networks of the catalogue as ONNX files: SAM's two files give the masks of `SAM` for every kind of prompt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from segedu.datasets.cells import draw_cells
from segedu.datasets.photos import Photos
from segedu.datasets.shapes import draw_shapes
from segedu.datasets.street import draw_street
from segedu.promptable.sam.sam import SAM, fit_images, full_size, scale_to
from segedu.recipes.export_weights import LOWER_RIGHT, UPPER_LEFT, export_weights
from segedu.weights import load

NAME = "shapes_sam"
PER_IMAGE = 40  # prompts: with five images, 200
SCENES: dict[str, Callable[[], Tensor]] = {
    "shapes": lambda: draw_shapes((16, 4), size=(96, 96))["image"],
    "cells": lambda: draw_cells((16, 11), size=(64, 64))["image"],
    "street": lambda: draw_street((16, 8), size=(64, 96))["image"],
    "chelsea": lambda: Photos(["chelsea"])[0]["image"],
    "coffee, upright": lambda: Photos(["coffee"])[0]["image"].mT.contiguous(),
}


class Sessions:
    """The two files in onnxruntime, used as an application uses them: from their inputs and metadata alone."""

    def __init__(self, folder: Path) -> None:
        onnxruntime = pytest.importorskip("onnxruntime")
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(folder / f"sam-{part}.onnx", providers=["CPUExecutionProvider"])
            for part in ("encoder", "decoder")
        )
        self.about = json.loads(self.decoder.get_modelmeta().custom_metadata_map["segedu"])

    def encode(self, image: Tensor) -> np.ndarray:
        S = self.about["image_size"]
        fitted = fit_images(image[None], S)
        padded = torch.tensor(self.about["padding"]).reshape(1, 3, 1, 1).repeat(1, 1, S, S)
        padded[..., : fitted.shape[2], : fitted.shape[3]] = fitted
        return self.encoder.run(None, {"images": padded.numpy()})[0]

    def decode(
        self, embeddings: np.ndarray, size: tuple[int, int], prompts: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        scale = torch.tensor(scale_to(size, self.about["image_size"]))
        points = [prompts["point_coords"][0] * scale] if "point_coords" in prompts else []
        labels = [prompts["point_labels"][0].float()] if "point_coords" in prompts else []
        if "boxes" in prompts:
            points.append(prompts["boxes"].reshape(2, 2) * scale)
            labels.append(torch.tensor([UPPER_LEFT, LOWER_RIGHT]).float())
        else:
            points.append(torch.zeros(1, 2))
            labels.append(-torch.ones(1))
        side = 4 * embeddings.shape[-1]
        mask = prompts.get("mask_inputs", torch.zeros(1, side, side))
        inputs = {
            "image_embeddings": embeddings,
            "point_coords": torch.cat(points)[None].float().numpy(),
            "point_labels": torch.cat(labels)[None].numpy(),
            "mask_input": mask.numpy(),
            "has_mask_input": np.array([float("mask_inputs" in prompts)], dtype=np.float32),
        }
        logits, scores = self.decoder.run(["mask_logits", "iou_scores"], inputs)
        return torch.from_numpy(logits), torch.from_numpy(scores)


def prompt(number: int, size: tuple[int, int], mask: Tensor | None, drawn: torch.Generator) -> dict[str, Tensor]:
    """In turn: one click, a box, clicks and background clicks, both, and both with the previous mask."""
    H, W = size
    given: dict[str, Tensor] = {}
    kind = number % 5
    if kind != 1:
        count = 1 if kind == 0 else int(torch.randint(2, 7, (), generator=drawn))
        given["point_coords"] = torch.rand(1, count, 2, generator=drawn) * torch.tensor([W - 1, H - 1])
        given["point_labels"] = torch.randint(0, 2, (1, count), generator=drawn) if kind else torch.ones(1, 1)
    if kind in (1, 3, 4):
        corners = torch.rand(2, 2, generator=drawn).sort(dim=0).values * torch.tensor([W, H])
        given["boxes"] = corners.reshape(1, 4)
    if kind == 4 and mask is not None:
        given["mask_inputs"] = mask
    return given


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Sessions:
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("onnx")
    written = export_weights(NAME, folder / "sam.onnx", (256, 256))
    assert sorted(written) == sorted(folder.iterdir())
    return Sessions(folder)


@pytest.fixture(scope="module")
def model() -> SAM:
    return load(NAME)


def overlap(ours: Tensor, theirs: Tensor, threshold: float) -> float:
    """IoU of two masks given as logits, without the pixels at which the rounding of float32 decides."""
    decided = (ours - threshold).abs() > 1e-4
    ours, theirs = (ours > threshold) & decided, (theirs > threshold) & decided
    union = (ours | theirs).sum()
    return float((ours & theirs).sum() / union) if union else 1.0


@pytest.mark.parametrize("name", SCENES)
def test_masks_and_scores_are_those_of_sam(name: str, sessions: Sessions, model: SAM) -> None:
    image = SCENES[name]().as_subclass(Tensor)
    size, drawn = tuple(image.shape[-2:]), torch.Generator().manual_seed(len(name))
    theirs_embeddings, mask, confident = sessions.encode(image), None, 0
    with torch.no_grad():
        embeddings = model.encode(image[None])
        torch.testing.assert_close(torch.from_numpy(theirs_embeddings), embeddings, rtol=0, atol=1e-3)
        for number in range(PER_IMAGE):
            given = prompt(number, size, mask, drawn)
            outputs = model.decode(embeddings, size, **given, multimask_output=None)
            logits, scores = sessions.decode(theirs_embeddings, size, given)
            torch.testing.assert_close(scores, outputs["iou_scores"], rtol=0, atol=1e-3)
            torch.testing.assert_close(logits, outputs["mask_logits"], rtol=1e-3, atol=1e-2)
            large = [full_size(some, model.image_size, size)[0] for some in (outputs["mask_logits"], logits)]
            for ours, theirs in zip(*large, strict=True):
                assert overlap(ours, theirs, model.mask_threshold) >= 0.999, f"prompt {number}: {given}"
                confident += bool((ours > model.mask_threshold).any())
            mask = outputs["mask_logits"][:, 1]
    assert confident > PER_IMAGE  # most masks are not empty, so that the comparison is about something


def test_metadata_describes_the_preprocessing(sessions: Sessions, model: SAM) -> None:
    about: dict[str, Any] = sessions.about
    assert about["weights"] == NAME and about["licence"] == "MIT"
    assert about["image_size"] == model.image_size and about["mask_threshold"] == model.mask_threshold
    assert json.loads(sessions.encoder.get_modelmeta().custom_metadata_map["segedu"]) == about


def test_the_command_writes_a_network_of_one_file(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    from segedu.cli import app

    out = tmp_path / "cells.onnx"
    done = CliRunner().invoke(app, ["export", "cells_unet", "--out", str(out), "--height", "64", "--width", "96"])
    assert done.exit_code == 0, done.output
    image = draw_cells((16, 3), size=(64, 96))["image"].as_subclass(Tensor)[None]
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = load("cells_unet")(image)
    torch.testing.assert_close(
        torch.from_numpy(session.run(None, {"images": image.numpy()})[0]), expected, rtol=0, atol=1e-3
    )


def test_a_name_that_is_neither_a_run_nor_in_the_catalogue_is_refused(tmp_path: Path) -> None:
    from segedu.cli import app

    done = CliRunner().invoke(app, ["export", "shapes_sams", "--out", str(tmp_path / "x.onnx")])
    assert done.exit_code != 0
    assert "shapes_sams" in done.output and "shapes_sam," in " ".join(done.output.split())
