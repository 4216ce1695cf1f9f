"""What the demonstrations of networks share: their description, their versions, and how their files are made."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from segedu_site.onnxruntime_web import packed

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

FIGURE_WIDTH = 902  # CSS pixels


class Demonstration(NamedTuple):
    """What a demonstration needs: its scripts and texts, and functions that make its files when the book is built."""

    scripts: tuple[str, ...]
    summary: str  # the sentence above the figure
    version: Callable[[], str]
    network_version: Callable[[], str]
    weights: str
    draw_figure: Callable[[Path], str]
    contents_of_pictures: Callable[[], dict[str, Any]]
    contents_of_network: Callable[[Path], dict[str, Any]]


def network_version(weights: str, sources: Sequence[str]) -> str:
    """12 hex digits of everything that decides the ONNX files: the weights, and files of segedu.

    Args:
        weights: a key of `segedu.weights.WEIGHTS`.
        sources: patterns of paths in the folder of segedu.
    """
    import segedu
    from segedu.weights import WEIGHTS as catalogue

    digest = hashlib.sha256(f"{weights} {catalogue[weights].sha256}".encode())
    for pattern in (*sources, "recipes/export*.py"):
        for path in sorted(Path(segedu.__file__).parent.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def version(network: str, module: str) -> str:
    """12 hex digits of everything that decides the files of a demonstration: its network, its module, and this file."""
    sources = b"".join(Path(path).read_bytes() for path in (module, __file__))
    return hashlib.sha256(network.encode() + sources).hexdigest()[:12]


def contents_of_network(
    weights: str, folder: Path, size: tuple[int, int], parts: Sequence[str] = ("network",)
) -> dict[str, Any]:
    """What the page receives: the metadata and the ONNX files, written into `folder` and packed.

    Args:
        weights: a key of `segedu.weights.WEIGHTS`.
        folder: for the ONNX files.
        size: (height, width) of the images.
        parts: names for the files in the page.

    Raises:
        ImportError: onnx or onnxscript is not installed.
    """
    import onnx

    from segedu.recipes.export_weights import export_weights

    files = dict(zip(parts, export_weights(weights, folder / f"{weights}.onnx", size), strict=True))
    properties = {prop.key: prop.value for prop in onnx.load(next(iter(files.values()))).metadata_props}
    packages = {part: packed(path.read_bytes()) for part, path in files.items()}
    return {"about": json.loads(properties["segedu"]), **packages}


def data_address(pixels: np.ndarray, photograph: bool = False) -> str:
    """An image as a data address: a page that lies in a folder may not read the pixels of another file.

    Args:
        pixels: (H, W, 3) bytes.
        photograph: whether it may lose some quality.
    """
    from PIL import Image

    file, kind = io.BytesIO(), "jpeg" if photograph else "png"
    Image.fromarray(pixels).save(file, kind.upper(), **({"quality": 88} if photograph else {}))
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def save_figure(fig: Figure, out: Path) -> None:
    """Write the figure that readers without JavaScript see, as a JPEG file with two pixels per CSS pixel."""
    from PIL import Image

    with io.BytesIO() as file:
        fig.savefig(file, dpi=192)
        Image.open(file).convert("RGB").save(out, quality=85)
