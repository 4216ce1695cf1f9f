"""Write a network of the catalogue of weights as ONNX: one file, or two for SAM, which encodes an image only once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segedu.panoptic.mask2former.mask2former import Mask2Former
from segedu.promptable.sam.prompt_encoder import PADDING
from segedu.promptable.sam.sam import SAM
from segedu.recipes.export import check_exporter, write_program
from segedu.recipes.export_mask2former import export_mask2former
from segedu.weights import WEIGHTS, load

# Labels of points in the exported decoder, beside foreground, background and padding. As in the ONNX files of the
# authors' code, a box is two points, so that one input holds all prompts.
UPPER_LEFT, LOWER_RIGHT = 2, 3


class ExportedEncoder(nn.Module):
    """SAM's image encoder with the normalisation of its images, which `load` does not separate.

    Args:
        model: SAM, whose `encode` it calls.
    """

    def __init__(self, model: SAM) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.encode(images)


class ExportedDecoder(nn.Module):
    """SAM's prompt encoder and mask decoder for one object, with all prompts in tensors that always exist.

    An ONNX program cannot omit an input. A box is therefore two more points, with the labels `UPPER_LEFT` and
    `LOWER_RIGHT`; a prompt without a box needs a point with the label `PADDING` at its end, which `SAM.decode` adds by
    itself; and `has_mask_input` says whether `mask_input` is used.

    Args:
        model: SAM, whose prompt encoder and mask decoder it calls.
    """

    def __init__(self, model: SAM) -> None:
        super().__init__()
        self.prompt_encoder, self.mask_decoder = model.prompt_encoder, model.mask_decoder

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Decode the prompts of one object.

        Args:
            image_embeddings: (1, D, h, w).
            point_coords: (1, P, 2), (x, y) in pixels of the encoder's image, S x S.
            point_labels: (1, P) float: 1 foreground, 0 background, 2 and 3 corners of a box, -1 padding.
            mask_input: (1, 4 h, 4 w), logits of an earlier mask, or zeros.
            has_mask_input: (1,) float: 1 if mask_input is used, else 0.

        Returns:
            Logits (1, 4, 4 h, 4 w) and predicted IoUs (1, 4): first the mask for unambiguous prompts, then the three
            masks for ambiguous ones.
        """
        encoder = self.prompt_encoder
        tables = torch.cat([encoder.not_a_point_embed.weight, *(table.weight for table in encoder.point_embeddings)])
        positions = encoder.pe_layer((point_coords + 0.5) / encoder.image_size)  # (1, P, D)
        sparse = tables[point_labels.long() + 1] + positions * (point_labels != PADDING)[..., None]
        dense = torch.where(has_mask_input[:, None, None, None] > 0, encoder.embed_masks(mask_input), self._no_mask())
        logits, scores = self.mask_decoder(image_embeddings, encoder.dense_positions(), sparse[None], dense[None])
        return logits[:, 0], scores[:, 0]

    def _no_mask(self) -> Tensor:
        return self.prompt_encoder.embed_masks(None)


def export_weights(name: str, out: Path, size: tuple[int, int]) -> dict[Path, str]:
    """Write a network of `segedu.weights.WEIGHTS` as ONNX.

    SAM becomes two files, whose names end in `-encoder` and `-decoder`: an application encodes an image once, and
    decodes every prompt. Other networks become one file with the input `images` (1, 3, height, width) in [0, 1]. That
    of Mask2Former has the predictions and the attention of every layer. Each file has a JSON text in its metadata
    `segedu`.

    Args:
        name: a key of `WEIGHTS`.
        out: path of the file, which ends in .onnx; existing files are replaced.
        size: (height, width) of the images; not used for SAM, whose image size is part of the network.

    Returns:
        For each written file, a sentence about its inputs.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        ValueError: `name` is not a key of `WEIGHTS`, or the size is below 32 pixels.
    """
    check_exporter(size)
    model = load(name)
    about: dict[str, Any] = {"weights": name, "licence": WEIGHTS[name].licence, "trained_on": WEIGHTS[name].trained_on}
    if isinstance(model, SAM):
        return _export_sam(model, out, about)
    about["preprocessing"] = "RGB in [0, 1]"
    if isinstance(model, Mask2Former):
        return export_mask2former(model, out, size, about)
    write_program(model, {"images": torch.zeros(1, 3, *size)}, out, about)
    return {out: f"Its input `images` has the shape (1, 3, {size[0]}, {size[1]}), with values in [0, 1]."}


def _export_sam(model: SAM, out: Path, about: Mapping[str, Any]) -> dict[Path, str]:
    S, h = model.image_size, model.prompt_encoder.embedding_size
    about = {
        **about,
        "image_size": S,
        "mask_threshold": model.mask_threshold,
        "padding": model.normalize.mean.flatten().tolist(),
        "preprocessing": f"RGB in [0, 1]; the longer side is resized to {S} pixels with Pillow's bilinear filter; then "
        f"padded at the right and the bottom with the colour `padding` to {S} x {S} pixels",
    }
    encoder, decoder = (out.with_name(f"{out.stem}-{part}{out.suffix}") for part in ("encoder", "decoder"))
    write_program(ExportedEncoder(model), {"images": torch.zeros(1, 3, S, S)}, encoder, about, ["image_embeddings"])
    prompts = {
        "image_embeddings": torch.zeros(1, model.prompt_encoder.embed_dim, h, h),
        "point_coords": torch.zeros(1, 3, 2),
        "point_labels": torch.ones(1, 3),
        "mask_input": torch.zeros(1, 4 * h, 4 * h),
        "has_mask_input": torch.zeros(1),
    }
    points = torch.export.Dim("points", min=2)
    shapes = {name: {1: points} if name.startswith("point") else None for name in prompts}
    write_program(ExportedDecoder(model), prompts, decoder, about, ["mask_logits", "iou_scores"], shapes)
    return {
        encoder: f"Its input `images` has the shape (1, 3, {S}, {S}), with values in [0, 1].",
        decoder: "Its inputs are `image_embeddings`, and the prompts of one object; points are in pixels of the "
        f"{S} x {S} image.",
    }
