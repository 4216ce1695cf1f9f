"""What the notebook widgets that prompt SAM share: their modules for the browser, and pictures of masks."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from segedu.viz import outline

FOLDER = Path(__file__).parent
STYLE = FOLDER / "sam_picture.css"
REFUSED = "Not done:"  # begins a sentence that says why a step was not done
MASK_COLOUR = np.array([0.94, 0.89, 0.26])


def browser_module(name: str) -> str:
    """Join `sam_picture.js` and NAME.js: a widget is one module, and cannot import another file."""
    return "\n".join((FOLDER / f"{part}.js").read_text(encoding="utf-8") for part in ("sam_picture", name))


def tint(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Copy a picture (H, W, 3) in [0, 1] with a mask (H, W) bool in yellow, and its outline in white."""
    tinted = np.array(picture, np.float64)
    tinted[mask] = 0.45 * tinted[mask] + 0.55 * MASK_COLOUR
    tinted[outline(mask.astype(np.int32))] = 1.0
    return tinted


def png_url(picture: np.ndarray) -> str:
    """Encode a picture (H, W, 3) in [0, 1] as the data URL of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
