"""A person who asks `segedu` for what it has not is told what it has, in one sentence and with a status that is not 0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import segedu
from segedu import cli
from segedu.cli import app
from segedu.recipes import run as experiment
from segedu.weights.catalogue import WEIGHTS
from segedu.weights.own.microscopes import NETWORKS

ROOT = Path(__file__).resolve().parents[1]


def said(*words: str) -> str:
    outcome = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert outcome.exit_code == 2, outcome.output
    return " ".join(outcome.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("mask2former", 'small weights of its own for it: segedu.weights.load("street_mask2former")'),
        ("oneformer", "python -m segedu.weights.own.street_oneformer trains them again"),
        ("sam", "Official weights are in segedu.weights.load('sam_vit_b' or 'sam_vit_l' or 'sam_vit_h')"),
        ("detr", 'segedu.weights.load("shapes_detr")'),
        ("maskformer", "Official weights are in segedu.weights.load('maskformer_resnet50_ade20k' or"),
        ("mobile_sam", "segedu.weights.load('mobile_sam')"),
        ("pspnet", "There is a recipe for street and aerial and camvid: segedu train pspnet --data street."),
        (
            "stardist",
            "There is a recipe for cells and nuclei_grouped and phase_cells: segedu train stardist --data cells.",
        ),
        ("yolo11_seg", "segedu/instance/yolo11_seg.py exists, but no recipe trains it."),
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
    method = NETWORKS[name][0] if name in NETWORKS else name.partition("_")[2]
    text = said("train", method, "--data", "nothing")
    of_this_method = [other for other in WEIGHTS if other.endswith(f"_{method}")]  # shapes_sam and photo_sam
    assert (
        any(f'load("{other}")' in text for other in of_this_method)
        or "There is a recipe for" in text
        or name in ("street_vgg", "scenes_vit")
    )


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    train = ("train", "unet", "--steps", "1", "--accelerator", "cpu", "--out", str(tmp_path / "file" / "run"))
    outcome = CliRunner().invoke(app, train)
    assert outcome.exit_code == 1 and "Traceback" not in outcome.output and str(tmp_path) in outcome.output


def test_a_capstone_is_not_graded_as_a_lab(tmp_path: Path) -> None:
    assert "`segedu capstone FOLDER`" in said("grade", str(tmp_path), "--lab", "capstone")


# --- one sentence -------------------------------------------------------------------------------------------------


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, words, env={"COLUMNS": "400"})


def one_sentence(*words: str) -> str:
    """What stderr holds: one line, nothing of it on stdout, a status above 0, and no traceback."""
    outcome = invoke(*words)
    assert outcome.exit_code in (1, 2) and not outcome.stdout, outcome.output
    (line,) = outcome.stderr.splitlines()
    assert "Traceback" not in line
    return line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of 130 x 100 pixels, each with one nucleus, one in each split."""
    root = tmp_path / "nuclei_grouped"
    for place in ("images", "labels"):
        (root / place).mkdir(parents=True)
    (root / "splits").mkdir()
    for split in ("train", "val", "test"):
        (root / "splits" / f"{split}.txt").write_text(f"{split}\n")
        pixels = np.zeros((130, 100), np.uint8)
        pixels[30:60, 30:60] = 1
        Image.fromarray(200 * pixels).save(root / "images" / f"{split}.png")
        Image.fromarray(pixels).save(root / "labels" / f"{split}.png")
    return root


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--minutes", "0"), "minutes is 0, expected a number above 0"),
        (("--minutes", "-1"), "minutes is -1"),
        (("--minutes", "nan"), "minutes is nan"),
        (("--minutes", "2", "--steps", "5"), "expected only one of the two"),
        (("--accelerator", "cdua"), "accelerator is 'cdua', expected one of cpu, cuda, mps and auto"),
        (("--accelerator", "cpu", "--devices", "99999"), "devices is 99999, expected 1 to "),
        (("--seed", str(2**40)), "seed is 1099511627776"),
        (("--data", "no/such/folder"), "data is 'no/such/folder', which does not exist, expected a folder"),
        (("--data", "tests"), "root is 'tests', which has no images"),
        (("--data", str(ROOT / "pyproject.toml")), "which is not a folder"),
    ],
)  # fmt: skip
def test_wrong_options_of_train(words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert said in one_sentence("train", "unet", *words)


def test_cuda_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    line = one_sentence("train", "unet", "--accelerator", "cuda")
    assert line == "accelerator is 'cuda', but PyTorch finds none on this machine: expected cpu or auto"


@pytest.mark.parametrize("method", ["unet", "stardist"])
def test_wrong_files_of_train(folder: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a real data set, found in SEGEDU_DATA."""
    monkeypatch.setenv("SEGEDU_DATA", str(tmp_path))

    def train() -> str:
        outcome = invoke("train", method, "--data", "nuclei_grouped", "--out", str(tmp_path / "out"))
        assert outcome.exit_code in (1, 2) and "Traceback" not in outcome.stderr
        return outcome.stderr.splitlines()[-1]  # after the progress bar

    (folder / "splits" / "val.txt").write_text("vla\n")
    assert "vla" in train()
    (folder / "splits" / "val.txt").write_text("val\n")
    (folder / "labels" / "val.png").unlink()
    assert "images/val.png has no ground truth, expected" in train()
    (folder / "labels" / "val.png").write_bytes(b"")
    assert "labels/val.png is not a readable image" in train()
    assert not (tmp_path / "out").exists()
    monkeypatch.delenv("SEGEDU_DATA")
    assert "data set 'nuclei_grouped' is not in" in train()


def test_a_damaged_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"PK cut")
    line = one_sentence("train", "unet", "--steps", "2", "--accelerator", "cpu", "--out", str(tmp_path))
    assert "checkpoint.pt is not a readable checkpoint" in line and "delete it to start again" in line


def failing(error: BaseException):
    def run_recipe(*args: object, **options: object) -> dict:
        raise error

    return run_recipe


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OSError(28, "No space left on device", "/runs/a"), 1, "/runs/a: No space left on device"),
        (FileNotFoundError("root is 'x', expected a folder"), 1, "root is 'x', expected a folder"),
        (
            RuntimeError("CUDA out of memory\nlong\nlist"),
            1,
            "RuntimeError: CUDA out of memory (segedu --debug ... shows",
        ),
        (KeyError("id"), 1, "KeyError: 'id' (segedu --debug"),
        (ValueError("not of segedu"), 2, "ValueError: not of segedu (segedu --debug"),
        (MemoryError(), 1, "MemoryError (segedu --debug"),
        (KeyboardInterrupt(), 130, "Stopped."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_error_is_one_line_and_debug_shows_where(
    error: BaseException, status: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "run_recipe", failing(error))
    outcome = invoke("train", "unet")
    assert outcome.exit_code == status and outcome.stderr.startswith(said), outcome.output
    assert len(outcome.stderr.splitlines()) == 1
    for words in (("--debug", "train", "unet"), ("train", "unet", "--debug")):
        if isinstance(error, Exception):
            assert invoke(*words).exception is error


def test_a_process_that_trains_beside_the_first_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    outcome = invoke("train", "unet", "--minutes", "0")
    assert outcome.exit_code == 2 and not outcome.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("budget", "99_x"), "lab is '99_x'"),
        (("mutants", "99_x"), "lab is '99_x'"),
        (("prove", "nosuch"), "claim 'nosuch' is not in tests/claims.toml"),
        (("capstone", "nowhere"), "nowhere does not exist"),
        (("gradebook", "nowhere"), "OUT is nowhere, which has no records"),
        (("nbgrader", "99_x", "--out", "nowhere"), "lab is '99_x'"),
        (("gradescope", "99_x", "--out", "nowhere.zip"), "lab is '99_x'"),
    ],
)  # fmt: skip
def test_wrong_words_of_other_commands(words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert said in one_sentence(*words)


def test_grade_says_what_is_wrong_on_stderr(tmp_path: Path) -> None:
    outcome = invoke(
        "grade", str(tmp_path / "nowhere"), "--lab", "06_unet", "--course", str(ROOT), "--out", str(tmp_path)
    )
    assert outcome.exit_code == 2 and "does not exist" in outcome.stderr and "does not exist" not in outcome.stdout


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (("lab",), "labs"),
        (("labs",), "solutions"),
        (("prove",), "tests/claims.toml"),
        (("book",), "jupyter-book-config/conf.py"),
        (("bench",), "tests/benchmarks/run.py"),
        (("attacks",), "tests/attacks/run.py"),
    ],
)
def test_a_folder_that_is_only_half_a_checkout(tmp_path: Path, words: tuple[str, ...], missing: str) -> None:
    (tmp_path / ("solutions" if missing == "labs" else "labs")).mkdir()
    assert f"has no {missing}, which this command reads" in said(*words, "--course", str(tmp_path))


def test_ports_that_do_not_exist() -> None:
    assert "--port" in said("lab", "--port", "99999")


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    assert one_sentence("lab", "--course", str(ROOT)) == "jupyterlab is not installed: pip install 'segedu[lab]'"
    assert "pip install 'segedu[docs]'" in one_sentence("book", "--course", str(ROOT))


def test_a_reader_that_closes_the_pipe_is_no_error() -> None:
    """`segedu --help | head -1`"""
    command = f"{sys.executable} -m segedu.cli --help | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr


def test_version() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0 and done.output.strip() == f"segedu {segedu.__version__}"
