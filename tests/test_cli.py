"""A person who asks `segedu` for what it has not is told what it has."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from segedu.cli import app
from segedu.published import WEIGHTS


def said(*words: str) -> str:
    outcome = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert outcome.exit_code == 2, outcome.output
    return " ".join(outcome.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("mask2former", 'small weights that we trained: segedu.pretrained.load("street_mask2former")'),
        ("oneformer", "python -m segedu.weights.street_oneformer trains them anew"),
        ("sam", "Official weights are in segedu.pretrained.load('sam_vit_b' or 'sam_vit_l' or 'sam_vit_h')"),
        ("detr", 'segedu.pretrained.load("shapes_detr")'),
        ("maskformer", "Official weights are in segedu.pretrained.load('maskformer_resnet50_ade20k' or"),
        ("mobile_sam", "segedu.pretrained.load('mobile_sam')"),
        ("pspnet", "There is one for street: segedu train pspnet --data street."),
        ("stardist", "There is one for cells and nuclei: segedu train stardist --data cells."),
        ("omnipose", "segedu/instance/omnipose.py is there, but no recipe trains it."),
        ("u-net", "Did you mean unet?"),
        ("../secret", "no recipe trains '../secret' on 'shapes'. Expected one of: unet on shapes"),
        ("*", "no recipe trains '*' on 'shapes'. Expected one of: unet on shapes"),
    ],
)
def test_a_method_without_that_recipe(method: str, words: str) -> None:
    assert words in said("train", method)


@pytest.mark.parametrize("name", [name for name, weights in WEIGHTS.items() if weights.url == weights.file_name])
def test_every_method_with_small_weights_of_ours_is_led_somewhere(name: str) -> None:
    """To the weights, or to a recipe where the method has one."""
    text = said("train", name.partition("_")[2], "--data", "nothing")
    assert f'load("{name}")' in text or "There is one for" in text or name in ("street_vgg", "scenes_vit")


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    train = ("train", "unet", "--steps", "1", "--accelerator", "cpu", "--out", str(tmp_path / "file" / "run"))
    outcome = CliRunner().invoke(app, train)
    assert outcome.exit_code == 1 and "Traceback" not in outcome.output and str(tmp_path) in outcome.output


def test_a_capstone_is_not_graded_as_a_lab(tmp_path: Path) -> None:
    assert "`segedu capstone FOLDER`" in said("grade", str(tmp_path), "--lab", "capstone")
