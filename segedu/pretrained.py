"""Official weights: where they are, what they must hash to, under which licence, and how their keys become ours.

`load("resnet50")` builds the model, fetches the file once into the cache folder, checks it, and loads it strictly.
The folder is `$SEGEDU_CACHE`, or the one that the operating system keeps for caches. Files are read with
`torch.load(weights_only=True)` or safetensors: none of them can run code.

Our own small weights lie in segedu/weights, beside the scripts that made them; `load("street_vgg")` reads them there.

The hashes: torchvision publishes the first 8 of the 64 hexadecimal digits of the sha256, at the end of the file's
name, and we check these 8. That finds damage; it is no proof against someone who builds a file on purpose.
Facebook publishes none for DINO and DINOv2. Of six of these files we check the digest on which several independent
projects agree (those of DINOv2 are also in finegrain-ai/refiners); of `dino_vits16` and `dino_vits8` we found no two
that agree, so their size in bytes is all that is checked, and a warning says so when they are fetched.
"""

from __future__ import annotations

import os
import pickle
import pkgutil
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pooch
import requests
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from segedu.backbones.stardist_unet import from_keras, read_keras
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize

TORCHVISION, FACEBOOK = "https://download.pytorch.org/models/", "https://dl.fbaipublicfiles.com/"
# Files made before 2018 name the layers of a dense block norm.1, conv.2; a module's name may hold no dot now.
DENSE_LAYERS = (r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2")
OUR_OWN = Path(__file__).parent / "weights"
STREET_VGG_STAGES = ((16,), (16, 16), (32, 32), (64, 64), (128, 128))  # thin where a laptop spends its time
SCENES_VIT = {"patch_size": 4, "embed_dim": 64, "depth": 2, "num_heads": 4, "image_size": 32}  # of crops
PART, DAY = ".part-", 24 * 3600


class WeightsError(RuntimeError):
    """A file of weights could not be had or does not fit; the message says what to do."""


@dataclass(frozen=True)
class Weights:
    """One file of official weights.

    `build` is "module:function", `options` what the function is given besides a normalisation. `sha256` is the
    digest or its published beginning; where it is empty, none is known, and `mebibytes` is exact. `rename` holds
    pairs of pattern and replacement for the file's keys; keys that begin with one of `leave_out` are of parts that
    the model does not have. `notice` is said to whoever loads the file.
    """

    build: str
    url: str
    sha256: str
    mebibytes: float
    licence: str
    trained_on: str
    options: Mapping[str, Any] = field(default_factory=dict)
    rename: tuple[tuple[str, str], ...] = ()
    leave_out: tuple[str, ...] = ()
    notice: str = ""

    @property
    def file_name(self) -> str:
        """The last part of the url."""
        return urlsplit(self.url).path.rsplit("/", 1)[-1]


def _torchvision(file: str, mebibytes: float, build: str, trained_on: str = "ImageNet-1k", **more: Any) -> Weights:
    sha256 = file.removesuffix(".pth").rsplit("-", 1)[-1]
    return Weights(f"segedu.{build}", TORCHVISION + file, sha256, mebibytes, "BSD-3-Clause", trained_on, **more)


def _classifier(file: str, mebibytes: float, build: str, head: str, **more: Any) -> Weights:
    return _torchvision(file, mebibytes, f"backbones.{build}", leave_out=(head,), **more)


def _segmenter(file: str, mebibytes: float, build: str) -> Weights:
    trained_on = "images of COCO 2017 with the 20 classes of Pascal VOC"
    options = {"num_classes": 21, "aux": True}
    return _torchvision(file, mebibytes, f"semantic.{build}", trained_on, options=options)


def _dino(file: str, size: int, build: str, sha256: str = "") -> Weights:
    url = f"{FACEBOOK}dino/{file}/{file}.pth"
    build = f"segedu.backbones.vit:{build}"
    return Weights(build, url, sha256, size / 2**20, "Apache-2.0", "ImageNet-1k without labels")


def _dinov2(file: str, size: int, build: str, sha256: str, **options: Any) -> Weights:
    url = f"{FACEBOOK}dinov2/{file.removesuffix('_reg4')}/{file}_pretrain.pth"
    build, images = f"segedu.backbones.vit:{build}", "142 million images without labels (LVD-142M)"
    # what stood in for hidden patches while it learnt
    return Weights(build, url, sha256, size / 2**20, "Apache-2.0", images, options, leave_out=("mask_token",))


def _cellpose(file: str, size: int, sha256: str, **options: Any) -> Weights:
    url, build = f"https://www.cellpose.org/models/{file}", "segedu.instance.cellpose:official_cellpose"
    images = "images of cells, under CC BY-NC"
    notice = "trained on images under CC BY-NC, so not for commercial use; the code is BSD"
    options = {"normalize": None, **options}  # None: the percentiles of the authors
    return Weights(build, url, sha256, size / 2**20, "BSD-3-Clause", images, options, notice=notice)


def _stardist(file: str, sha256: str, trained_on: str, **options: Any) -> Weights:
    url = f"https://github.com/stardist/stardist-models/releases/download/v0.1/python_{file}.zip"
    build, options = "segedu.instance.stardist:official_stardist", {"normalize": None, **options}
    return Weights(build, url, sha256, 5.4, "BSD-3-Clause", trained_on, options)


def _our_own(name: str, sha256: str, mebibytes: float, build: str = "", **options: Any) -> Weights:
    build = f"segedu.{build or f'weights.{name}:{name}'}"  # some are built by the script that trained them
    options["normalize"] = None  # trained on images in [0, 1]; those of cells bring them to percentiles then
    return Weights(build, f"{name}.safetensors", sha256, mebibytes, "MIT", "scenes drawn by segedu.datasets", options)


WEIGHTS: dict[str, Weights] = {
    "vgg16": _classifier("vgg16-397923af.pth", 527.796, "vgg:vgg16", "classifier."),
    "vgg16_bn": _classifier("vgg16_bn-6c64b313.pth", 527.866, "vgg:vgg16_bn", "classifier."),
    "resnet18": _classifier("resnet18-f37072fd.pth", 44.661, "resnet:resnet18", "fc."),
    "resnet34": _classifier("resnet34-b627a593.pth", 83.275, "resnet:resnet34", "fc."),
    "resnet50": _classifier("resnet50-0676ba61.pth", 97.781, "resnet:resnet50", "fc."),
    "resnet101": _classifier("resnet101-63fe2227.pth", 170.511, "resnet:resnet101", "fc."),
    "densenet121": _classifier(
        "densenet121-a639ec97.pth", 30.845, "densenet:densenet121", "classifier.", rename=(DENSE_LAYERS,)
    ),
    "fcn_resnet50": _segmenter("fcn_resnet50_coco-1167a1af.pth", 135.009, "fcn:fcn_resnet50"),
    "fcn_resnet101": _segmenter("fcn_resnet101_coco-7ecb50ca.pth", 207.711, "fcn:fcn_resnet101"),
    "deeplabv3_resnet50": _segmenter("deeplabv3_resnet50_coco-cd0a2569.pth", 160.515, "deeplabv3:deeplabv3_resnet50"),
    "deeplabv3_resnet101": _segmenter(
        "deeplabv3_resnet101_coco-586e9e4e.pth", 233.217, "deeplabv3:deeplabv3_resnet101"
    ),
    "dino_vits16": _dino("dino_deitsmall16_pretrain", 86_710_517, "vit_small_patch16"),
    "dino_vits8": _dino("dino_deitsmall8_pretrain", 86_728_949, "vit_small_patch8"),
    "dino_vitb16": _dino(
        "dino_vitbase16_pretrain",
        343_242_485,
        "vit_base_patch16",
        "bf34ad0f424b9029b593e8dc3ed553bf26e88bcba0d32bf3e62a6209cb64c85e",
    ),
    "dino_vitb8": _dino(
        "dino_vitbase8_pretrain",
        343_279_349,
        "vit_base_patch8",
        "575f0efc4838938314afa09897a62ed2b87919928b5edcd133abb907328995eb",
    ),
    "dinov2_vits14": _dinov2(
        "dinov2_vits14",
        88_283_115,
        "dinov2_small_patch14",
        "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    ),
    "dinov2_vits14_reg4": _dinov2(
        "dinov2_vits14_reg4",
        88_291_785,
        "dinov2_small_patch14",
        "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
        registers=4,
    ),
    "dinov2_vitb14": _dinov2(
        "dinov2_vitb14",
        346_378_731,
        "dinov2_base_patch14",
        "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    ),
    "dinov2_vitb14_reg4": _dinov2(
        "dinov2_vitb14_reg4",
        346_393_545,
        "dinov2_base_patch14",
        "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71",
        registers=4,
    ),
    "cellpose_cyto3": _cellpose(
        "cyto3", 26_566_255, "2dc3087a8abd7da46d1ab0ddd5824639933cc3ff63b382af3fa1939a392db93c"
    ),
    "cellpose_nuclei": _cellpose(
        "nucleitorch_0", 26_563_614, "89ca45e4a45048d5010d29621466b1274b91b3dcb9714dce9f9e90a9a8671303", diam_mean=17.0
    ),
    "stardist_2d_versatile_fluo": _stardist(
        "2D_versatile_fluo",
        "4ad678d0758eed6e55625f1b5ae30771e59adb79f1239e09b9772eac8846c3dd",
        "nuclei in fluorescence of DSB 2018",
    ),
    "stardist_2d_paper_dsb2018": _stardist(
        "2D_paper_dsb2018",
        "4c11cf68512341d9e8ce3d1278c64ceb8ac400582739f85fcab079a2e82840d2",
        "nuclei in fluorescence of DSB 2018",
    ),
    "stardist_2d_versatile_he": _stardist(
        "2D_versatile_he",
        "f1696ef0631bd7e1c0e5c0d3017e2b4c6a95e284c6aab9c22fc2f08317817b28",
        "nuclei in stained tissue",
        in_channels=3,
    ),
    "street_vgg": _our_own(
        "street_vgg",
        "49b297d447b19099a10463b2d543af1e4bc5b0c14cda513906e3abe026c7e097",
        1.14,
        "backbones.vgg:VGG",
        stages=STREET_VGG_STAGES,
        batch_norm=True,
    ),
    "scenes_vit": _our_own(
        "scenes_vit",
        "2a5b173e3ea4a8b13eb4460536db16b2b09be920d4bf2b782fe636b2b9132857",
        0.41,
        "backbones.vit:ViT",
        **SCENES_VIT,
    ),
    "cells_stardist": _our_own(
        "cells_stardist", "e8ceaf57bb805101030eeca14aa74bd438576ba9d9ac96ddf5887af24c68aa16", 0.36
    ),
    "cells_cellpose": _our_own(
        "cells_cellpose", "1062d3495e21acaca418e36b71609b011a2740f32caff4c80831d8ca810eb5a9", 0.42
    ),
}


def load(name: str, *, progress: bool = True, **options: Any) -> nn.Module:
    """The model with its weights, in evaluation mode; it takes images in [0, 1], and normalises inside where they ask.

    Args:
        name: a key of `WEIGHTS`.
        progress: whether a bar shows how far a download is.
        **options: for the builder, such as `output_stride=8` for a ResNet; they may not change a weight's shape.

    Returns:
        The model on the CPU. Every tensor of it came from the file.

    Raises:
        ValueError: there is no such name.
        WeightsError: the file could not be fetched or stored, is not what was published, or does not fit.
    """
    weights = _find(name)
    path = fetch(name, progress=progress)
    given = {"normalize": Normalize(IMAGENET_MEAN, IMAGENET_STD), **weights.options, **options}
    model = pkgutil.resolve_name(weights.build)(**given)
    try:
        model.load_state_dict(_our_keys(_read(path), weights), strict=True)
    except RuntimeError as error:  # torch's own words on what does not fit
        raise WeightsError(
            f"weights {name!r}: {path} does not fit {weights.build} with {options or 'its defaults'}: {error}"
        ) from None
    if weights.notice:
        warnings.warn(f"weights {name!r}: {weights.notice}", stacklevel=2)
    return model.eval()


def fetch(name: str, *, progress: bool = True) -> Path:
    """The file of weights: of our own the one that was installed, of official ones that in the cache folder.

    An official one is fetched if it is not there or is not what was published.

    Args:
        name: a key of `WEIGHTS`.
        progress: whether a bar shows how far a download is.

    Returns:
        The path of a file whose hash was checked just now, or its size where no hash is known.

    Raises:
        ValueError: there is no such name.
        WeightsError: the file could not be fetched or stored; the cache is left without it.
    """
    weights, folder = _find(name), cache_folder()
    if weights.url == weights.file_name:
        return _installed(name)
    path = folder / weights.file_name
    try:
        if path.is_file():
            if _is_published(path, weights):
                return path
            warnings.warn(f"{path} is not the published file: it is fetched again", stacklevel=2)
            path.unlink(missing_ok=True)  # another process may have been faster
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        room = shutil.disk_usage(folder).free / 2**20
        if room < weights.mebibytes:
            raise OSError(f"{room:.0f} MiB are free there")
        with tempfile.TemporaryDirectory(dir=folder, prefix=PART) as part:
            whole = Path(part) / weights.file_name
            _download(weights, whole, progress)
            if not _is_published(whole, weights):
                reason = f"{_difference(whole, weights)}, from {weights.url}"
                raise WeightsError(_message(name, f"what came is not the published file ({reason})"))
            os.replace(whole, path)  # in one step: nobody ever sees half a file under the right name
        if not weights.sha256:
            warnings.warn(f"no sha256 of {weights.url} is known: only its size was checked", stacklevel=2)
    except requests.RequestException as error:
        cause = f"HTTP {error.response.status_code}" if error.response is not None else type(error).__name__
        raise WeightsError(_message(name, f"could not be fetched from {weights.url} ({cause})")) from None
    except OSError as error:
        raise WeightsError(
            _message(name, f"could not be stored in {folder} ({error.strerror or error}), which needs room")
        ) from None
    return path


def cache_folder() -> Path:
    """Where files of weights are kept.

    Returns:
        `$SEGEDU_CACHE` if that is set, else the operating system's cache folder for `segedu`.
    """
    return Path(os.environ.get("SEGEDU_CACHE") or pooch.os_cache("segedu")).expanduser().absolute()


def _find(name: str) -> Weights:
    if name not in WEIGHTS:
        raise ValueError(f"name is {name!r}, expected one of {', '.join(WEIGHTS)}")
    return WEIGHTS[name]


def _message(name: str, what: str) -> str:
    weights = WEIGHTS[name]
    return (
        f"weights {name!r}: {what}; nothing of it was kept. What to do: try again; or fetch {weights.url} "
        f"({weights.mebibytes:.0f} MiB) by other means, on another computer if need be, and put it at "
        f"{cache_folder() / weights.file_name}; or let SEGEDU_CACHE name a folder with more room or with that file."
    )


def _is_published(path: Path, weights: Weights) -> bool:
    if not weights.sha256:
        return path.stat().st_size == _size(weights)
    return pooch.file_hash(path).startswith(weights.sha256)


def _difference(path: Path, weights: Weights) -> str:
    if not weights.sha256:
        return f"{path.stat().st_size} bytes, expected {_size(weights)}"
    return f"sha256 {pooch.file_hash(path)}, expected {weights.sha256}..."


def _size(weights: Weights) -> int:
    return round(weights.mebibytes * 2**20)


def _installed(name: str) -> Path:
    path = OUR_OWN / WEIGHTS[name].file_name
    if path.is_file() and _is_published(path, WEIGHTS[name]):
        return path
    raise WeightsError(
        f"weights {name!r}: {path} is missing or damaged, expected the file that segedu was installed with. "
        f"What to do: install segedu again"
    )


def _sweep(folder: Path) -> None:
    """Remove what a download left that was killed; younger ones may be running in another process."""
    for part in folder.glob(PART + "*"):
        if part.is_dir() and time.time() - part.stat().st_mtime > DAY:
            shutil.rmtree(part, ignore_errors=True)


def _download(weights: Weights, path: Path, progress: bool) -> None:
    size = _size(weights)  # until the server says how many bytes they are
    with tqdm(total=size, unit="B", unit_scale=True, desc=weights.file_name, disable=not progress) as bar:
        pooch.HTTPDownloader(progressbar=bar if progress else False)(weights.url, str(path), None)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        if path.suffix == ".zip":
            return from_keras(read_keras(path))
        return torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from None
    except (ValueError, pickle.UnpicklingError, safetensors.SafetensorError, EOFError) as error:
        # torch's message says how to run the code in such a file; nobody should
        raise WeightsError(
            f"{path} holds something else than tensors, and is not read ({type(error).__name__})"
        ) from None


def _our_keys(tensors: Mapping[str, Tensor], weights: Weights) -> dict[str, Tensor]:
    ours = {}
    for key, tensor in tensors.items():
        if key.startswith(weights.leave_out):
            continue
        for pattern, replacement in weights.rename:
            key = re.sub(pattern, replacement, key)
        ours[key] = tensor
    return ours
