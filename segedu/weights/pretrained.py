"""Official weights: where they are, what they must hash to, under which licence, and how their keys become ours.

`load("resnet50")` builds the model, fetches the file once into the cache folder, checks it, and loads it strictly.
The folder is `$SEGEDU_CACHE`, or the one that the operating system keeps for caches. Files are read with
`torch.load(weights_only=True)` or safetensors: none of them can run code.

Our own small weights lie in segedu/weights, beside the scripts that made them; `load("street_vgg")` reads them there.
The table of all files is `segedu.weights.catalogue.WEIGHTS`.
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
from pathlib import Path
from typing import Any

import pooch
import requests
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from segedu.backbones.stardist_unet import from_keras, read_keras
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.weights.catalogue import WEIGHTS, Weights

OUR_OWN = Path(__file__).parent / "own"
PART, DAY = ".part-", 24 * 3600


class WeightsError(RuntimeError):
    """A file of weights could not be had or does not fit; the message says what to do."""


def load(name: str, *, progress: bool = True, accept_license: bool = False, **options: Any) -> nn.Module:
    """The model with its weights, in evaluation mode; it takes images in [0, 1], and normalises inside where they ask.

    Args:
        name: a key of `WEIGHTS`.
        progress: whether a bar shows how far a download is.
        accept_license: that you read and accept the licence; some forbid commercial use, and ask for this.
        **options: for the builder, such as `output_stride=8` for a ResNet; they may not change a weight's shape.

    Returns:
        The model on the CPU. Every tensor of it came from the file.

    Raises:
        ValueError: there is no such name.
        WeightsError: the licence was not accepted, or the file could not be fetched or stored, is not what was
            published, or does not fit.
    """
    weights = _find(name)
    path = fetch(name, progress=progress, accept_license=accept_license)
    normalize = {} if weights.normalizes else {"normalize": Normalize(IMAGENET_MEAN, IMAGENET_STD)}
    given = normalize | dict(weights.options) | options
    model = pkgutil.resolve_name(weights.build)(**given)
    try:
        model.load_state_dict(_our_keys(_read(path, weights.inside), weights), strict=True)
    except RuntimeError as error:  # torch's own words on what does not fit
        raise WeightsError(
            f"weights {name!r}: {path} does not fit {weights.build} with {options or 'its defaults'}: {error}"
        ) from None
    if weights.notice:
        warnings.warn(f"weights {name!r}: {weights.notice}", stacklevel=2)
    return model.eval()


def fetch(name: str, *, progress: bool = True, accept_license: bool = False) -> Path:
    """The file of weights: of our own the one that was installed, of official ones that in the cache folder.

    An official one is fetched if it is not there or is not what was published.

    Args:
        name: a key of `WEIGHTS`.
        progress: whether a bar shows how far a download is.
        accept_license: that you read and accept the licence; some forbid commercial use, and ask for this.

    Returns:
        The path of a file whose hash was checked just now, or its size where no hash is known.

    Raises:
        ValueError: there is no such name.
        WeightsError: the licence was not accepted, or the file could not be fetched or stored; the cache is left
            without it.
    """
    weights, folder = _find(name), cache_folder()
    if weights.non_commercial and not accept_license:
        raise WeightsError(
            f"weights {name!r}: their licence is {weights.licence}, which forbids commercial use. What to do: read "
            f"it, and if you accept it say so: load({name!r}, accept_license=True)"
        )
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


def _read(path: Path, inside: str = "") -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        if path.suffix == ".zip":
            return from_keras(read_keras(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not inside:
            return state
        if not isinstance(state, Mapping) or inside not in state:
            raise ValueError(f"no {inside!r}")
        return state[inside]
    except ImportError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from None
    except (ValueError, pickle.UnpicklingError, safetensors.SafetensorError, EOFError) as error:
        # torch's message says how to run the code in such a file; nobody should
        raise WeightsError(
            f"{path} holds something else than tensors, and is not read ({type(error).__name__})"
        ) from None


def _our_keys(tensors: Mapping[str, Tensor], weights: Weights) -> dict[str, Tensor]:
    ours, pieces = {}, {}
    for key, tensor in tensors.items():
        if key.startswith(weights.leave_out):
            continue
        for pattern, replacement in weights.rename:
            key = re.sub(pattern, replacement, key)
        whole, _, place = key.partition("#")
        (pieces.setdefault(whole, {}) if place else ours)[place or whole] = tensor
    return ours | {whole: torch.cat([found[place] for place in sorted(found)]) for whole, found in pieces.items()}
