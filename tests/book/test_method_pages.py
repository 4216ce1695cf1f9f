"""Every page of a method that is a network has its architecture diagram and the output of a trained network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

COURSE = Path(__file__).resolve().parents[2] / "course"
PAGES = {
    "05-fcn": ("fcn", "segnet", "deconvnet"),
    "06-unet": ("architecture", "variants"),
    "08-context": ("pyramid", "deeplab"),
    "09-distances": ("signed-distance", "stardist", "cellpose", "omnipose", "denoiseg"),
    "10-embeddings": ("offsets", "discriminative", "affinities"),
    "11-detection": ("family",),
    "12-one-stage": ("yolo", "ssd", "retinanet", "fcos", "detr"),
    "14-top-down": ("mask-rcnn", "yolact", "condinst", "solov2"),
    "15-panoptic": ("panoptic-fpn", "meta-architecture", "mask2former", "oneformer"),
    "16-promptable": ("sam", "unet3d", "nnunet"),
}
each = pytest.mark.parametrize("page", [f"{folder}/{name}" for folder, names in PAGES.items() for name in names])
TRAINED = re.compile(r"\brank_predictions\(|\bpretrained\.load\(|\bload\(\"|from segedu\.weights\.own import")


@each
def test_a_diagram_of_the_architecture(page):
    text = (COURSE / f"{page}.md").read_text(encoding="utf-8")
    assert re.search(r"^    name: fig-\S+-architecture$", text, re.M), "no figure is named fig-...-architecture"
    assert "from segedu.teaching.diagrams import" in text


@each
def test_the_output_of_a_trained_network(page):
    text = (COURSE / f"{page}.md").read_text(encoding="utf-8")
    assert TRAINED.search(text)
