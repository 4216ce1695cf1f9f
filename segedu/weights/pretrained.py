"""Load models with trained weights: download a file, check its hash, rename its keys, and load it.

`load("resnet50")` builds the model, downloads the file once into the cache folder, checks it, and loads it strictly.
The folder is `$SEGEDU_CACHE`, or the operating system's cache folder. Files are read with
`torch.load(weights_only=True)` or safetensors, so none of them can run code.

Our own small weights are installed in segedu/weights/own, next to the scripts that made them. All files are listed in
`segedu.weights.catalogue.WEIGHTS`.
"""

from __future__ import annotations

import os
import pickle
import pkgutil
import re
import tempfile
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

from segedu.backbones.stardist_unet import from_keras, read_keras
from segedu.datasets.download import PART, cache_folder, check_space, delete_old_parts, download
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.weights.catalogue import WEIGHTS, Weights

OUR_OWN = Path(__file__).parent / "own"


class WeightsError(RuntimeError):
    """A weights file is not available or does not fit the model; the message explains what to do."""


def load(name: str, *, progress: bool = True, accept_license: bool = False, **options: Any) -> nn.Module:
    """Build a model, load its trained weights, and put it into evaluation mode.

    It takes images in [0, 1] and normalises them itself if the weights require it.

    Args:
        name: a key of `WEIGHTS`.
        progress: show a progress bar while downloading.
        accept_license: you have read the licence and accept it. Licences that forbid commercial use require this.
        **options: passed to the builder, such as `output_stride=8` for a ResNet; they may not change a weight's shape.

    Returns:
        The model on the CPU. All its tensors come from the file.

    Raises:
        ValueError: `name` is not a key of `WEIGHTS`.
        WeightsError: the licence was not accepted, or the file could not be fetched or stored, is not the published
            one, or does not fit the model.
    """
    weights = _find(name)
    path = fetch(name, progress=progress, accept_license=accept_license)
    normalize = {} if weights.normalizes else {"normalize": Normalize(IMAGENET_MEAN, IMAGENET_STD)}
    arguments = normalize | dict(weights.options) | options
    model = pkgutil.resolve_name(weights.builder)(**arguments)
    try:
        model.load_state_dict(_our_keys(_read(path, weights.checkpoint_key), weights), strict=True)
    except RuntimeError as error:  # torch lists the keys and shapes that do not fit
        raise WeightsError(
            f"weights {name!r}: {path} does not fit {weights.builder} with {options or 'its defaults'}: {error}"
        ) from None
    if weights.notice:
        warnings.warn(f"weights {name!r}: {weights.notice}", stacklevel=2)
    return model.eval()


def fetch(name: str, *, progress: bool = True, accept_license: bool = False) -> Path:
    """Return the path of a weights file after its hash (or its size, if no hash is known) has been checked.

    Our own files are installed with segedu. Official files are in the cache folder; one that is missing there or is not
    the published file is downloaded. If that fails, the cache is left without the file.

    Args:
        name: a key of `WEIGHTS`.
        progress: show a progress bar while downloading.
        accept_license: you have read the licence and accept it. Licences that forbid commercial use require this.

    Raises:
        ValueError: `name` is not a key of `WEIGHTS`.
        WeightsError: the licence was not accepted, or the file could not be fetched or stored.
    """
    weights, folder = _find(name), cache_folder()
    if weights.non_commercial and not accept_license:
        raise WeightsError(
            f"weights {name!r}: their licence is {weights.licence}, which forbids commercial use. What to do: read "
            f"it, and if you accept it, call load({name!r}, accept_license=True)"
        )
    if weights.url == weights.file_name:
        return _installed(name)
    path = folder / weights.file_name
    try:
        if path.is_file():
            if _is_published(path, weights):
                return path
            warnings.warn(f"{path} is not the published file: it is downloaded again", stacklevel=2)
            path.unlink(missing_ok=True)  # another process may have deleted it
        folder.mkdir(parents=True, exist_ok=True)
        delete_old_parts(folder)
        check_space(folder, _size(weights))
        with tempfile.TemporaryDirectory(dir=folder, prefix=PART) as part:
            received = Path(part) / weights.file_name
            download(weights.url, received, _size(weights), progress=progress)
            if not _is_published(received, weights):
                reason = f"{_difference(received, weights)}, from {weights.url}"
                raise WeightsError(_message(name, f"the downloaded file is not the published file ({reason})"))
            os.replace(received, path)  # atomic: an incomplete file never has the final name
        if not weights.sha256:
            warnings.warn(f"no sha256 of {weights.url} is known: only its size was checked", stacklevel=2)
    except requests.RequestException as error:
        cause = f"HTTP {error.response.status_code}" if error.response is not None else type(error).__name__
        raise WeightsError(_message(name, f"could not be fetched from {weights.url} ({cause})")) from None
    except OSError as error:
        raise WeightsError(_message(name, f"could not be stored in {folder} ({error.strerror or error})")) from None
    return path


def _find(name: str) -> Weights:
    if name not in WEIGHTS:
        raise ValueError(f"name is {name!r}, expected one of {', '.join(WEIGHTS)}")
    return WEIGHTS[name]


def _message(name: str, problem: str) -> str:
    weights = WEIGHTS[name]
    return (
        f"weights {name!r}: {problem}; no file was kept. What to do: try again; or download {weights.url} "
        f"({weights.mebibytes:.0f} MiB) by other means, on another computer if necessary, and put it at "
        f"{cache_folder() / weights.file_name}; or set SEGEDU_CACHE to a folder with more space or with that file."
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
        f"weights {name!r}: {path} is missing or damaged, expected the file that is part of segedu. "
        f"What to do: install segedu again"
    )


def _read(path: Path, checkpoint_key: str = "") -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        if path.suffix == ".zip":
            return from_keras(read_keras(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not checkpoint_key:
            return state
        if not isinstance(state, Mapping) or checkpoint_key not in state:
            raise ValueError(f"no {checkpoint_key!r}")
        return state[checkpoint_key]
    except ImportError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from None
    except (ValueError, pickle.UnpicklingError, safetensors.SafetensorError, EOFError) as error:
        # torch's message explains how to run the code in such a file, which nobody should do
        raise WeightsError(
            f"{path} contains objects other than tensors, and was not loaded ({type(error).__name__})"
        ) from None


def _our_keys(tensors: Mapping[str, Tensor], weights: Weights) -> dict[str, Tensor]:
    """Rename the tensors of a file, and concatenate those that are pieces of one of our tensors."""
    ours, pieces = {}, {}
    for key, tensor in tensors.items():
        if key.startswith(weights.ignored_keys):
            continue
        for pattern, replacement in weights.rename:
            key = re.sub(pattern, replacement, key)
        name, _, index = key.partition("#")
        (pieces.setdefault(name, {}) if index else ours)[index or name] = tensor
    return ours | {name: torch.cat([parts[index] for index in sorted(parts)]) for name, parts in pieces.items()}
