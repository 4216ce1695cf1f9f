"""SAM: promptable segmentation; the image is encoded once, and each click, box or mask is decoded in milliseconds.

Paper: Kirillov, Mintun, Ravi, Mao, Rolland, Gustafson, Xiao, Whitehead, Berg, Lo, Dollár, Girshick, "Segment
    Anything", ICCV 2023, arXiv 2304.02643.
Idea: Three parts. A large encoder computes an embedding of the image, once. Prompts become a few vectors. A light
    decoder combines both within milliseconds. A click on a shirt may mean the shirt or the person, so the decoder
    predicts three masks, each with an estimate of its own IoU, and in training only the best of the three learns.
Simplified: no text prompts.
Shapes: images (B, 3, H, W) in [0, 1], of any size; prompts in pixels of these images; for each image one object, or N:
    `point_coords` (B, P, 2) or (B, N, P, 2), `point_labels` (B, P) or (B, N, P), `boxes` (B, 4) or (B, N, 4),
    `mask_inputs` (B, h, w) or (B, N, h, w) -> dict of `mask_logits` (B, M, h, w) or (B, N, M, h, w), h = w = 256,
    `iou_scores` (B, M) or (B, N, M), `size` (H, W) and `image_size`. `postprocess`: the dict -> masks (..., M, H, W).
Quality: embeddings, masks and scores equal those of Meta's segment-anything at the same weights (tests/promptable).
    `segedu/weights/own/shapes_sam.json` has the results of the small SAM on synthetic scenes.
Course: 16-promptable
Lab: 16_promptable
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from segedu.layers.instance_targets import Size
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.promptable.sam.image_encoder import ImageEncoder
from segedu.promptable.sam.mask_decoder import MaskDecoder, TwoWayTransformer
from segedu.promptable.sam.prompt_encoder import PromptEncoder, check_prompts
from segedu.validation.exporting import is_exporting
from segedu.validation.images import check_images, check_unit_range
from segedu.validation.numbers import check_choice
from segedu.validation.tensors import check_floats, check_keys, check_no_nan, check_tensor_dict

KEYS = ("mask_logits", "iou_scores", "size", "image_size")


class SAM(nn.Module):
    """Image encoder, prompt encoder and mask decoder (figure 4); state dict keys as in the authors' files.

    Args:
        image_encoder: normalised images (B, 3, S, S) -> embeddings (B, D, h, h); S and h are the prompt encoder's.
        prompt_encoder: points, boxes and masks to vectors.
        mask_decoder: embeddings and prompts to masks.
        normalize: applied to images in [0, 1]; None for ImageNet's mean and standard deviation.
        mask_threshold: logits above it belong to the mask. Not used in training.
    """

    def __init__(
        self,
        image_encoder: nn.Module,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        normalize: nn.Module | None = None,
        mask_threshold: float = 0.0,
    ) -> None:
        super().__init__()
        self.mask_threshold = mask_threshold
        check_choice("prompt_encoder.embed_dim", prompt_encoder.embed_dim, [mask_decoder.transformer.embed_dim])
        self.image_encoder, self.prompt_encoder, self.mask_decoder = image_encoder, prompt_encoder, mask_decoder
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD) if normalize is None else normalize

    @property
    def image_size(self) -> int:
        """S: images are resized and padded to S x S pixels."""
        return self.prompt_encoder.image_size

    def forward(self, images: Tensor, **prompts: Any) -> dict[str, Any]:
        return self.decode(self.encode(images), images.shape[-2:], **prompts)

    def encode(self, images: Tensor) -> Tensor:
        """Compute the image embeddings (B, D, h, h). This is the slow part, which is needed once per image.

        Args:
            images: (B, 3, H, W) in [0, 1]. They are resized so that the longer side is S, and padded at the right and
                the bottom with the mean colour. No gradient passes the resizing.
        """
        check_images(images, 3)
        check_unit_range(images)  # before `fit_images`, which converts them to bytes
        images = self.normalize(fit_images(images, self.image_size))
        height, width = images.shape[-2:]
        return self.image_encoder(F.pad(images, (0, self.image_size - width, 0, self.image_size - height)))

    def decode(
        self,
        image_embeddings: Tensor,
        size: Size,
        *,
        point_coords: Tensor | None = None,
        point_labels: Tensor | None = None,
        boxes: Tensor | None = None,
        mask_inputs: Tensor | None = None,
        multimask_output: bool | None = True,
    ) -> dict[str, Any]:
        """Decode prompts: for each image one object, or N objects with a prompt each. This is the fast part.

        Args:
            image_embeddings: result of `encode`.
            size: (H, W) of the images that were encoded: prompts are in their pixels.
            point_coords: (B, P, 2) or (B, N, P, 2), (x, y); (0, 0) is the centre of the upper left pixel.
            point_labels: (B, P) or (B, N, P): 1 for foreground, 0 for background, -1 for padding.
            boxes: (B, 4) or (B, N, 4), xyxy.
            mask_inputs: (B, h, w) or (B, N, h, w), one of the `mask_logits` of an earlier call.
            multimask_output: True for three masks, if a prompt is ambiguous, such as one click. False for one mask, if
                it is not: a box, or several points. None for the one and the three, in this order.

        Returns:
            `mask_logits` (B, M, h, w) or (B, N, M, h, w); `iou_scores` (B, M) or (B, N, M), the predicted IoU of each
            mask; `size`, `image_size` and `mask_threshold`.
        """
        B = check_floats("image_embeddings", image_embeddings, "B D h w")["B"]
        prompts = {
            "point_coords": point_coords,
            "point_labels": point_labels,
            "boxes": boxes,
            "mask_inputs": mask_inputs,
        }
        prompts = {name: prompt for name, prompt in prompts.items() if prompt is not None}
        has_object_axis, N = check_prompts(prompts, B, self.prompt_encoder.mask_size, size)
        if not has_object_axis:
            prompts = {name: prompt[:, None] for name, prompt in prompts.items()}  # (B, N, ...)
        scale = image_embeddings.new_tensor(scale_to(size, self.image_size), dtype=torch.float64)  # factors of x and y
        sparse, dense = self.prompt_encoder(**_in_encoder_pixels(prompts, scale))
        dense = dense.unflatten(0, (B, N)) if mask_inputs is not None else dense[None]
        sparse = sparse.unflatten(0, (B, N))
        mask_logits, scores = self.mask_decoder(image_embeddings, self.prompt_encoder.dense_positions(), sparse, dense)
        masks = slice(None) if multimask_output is None else slice(1, None) if multimask_output else slice(0, 1)
        mask_logits, scores = mask_logits[:, :, masks], scores[:, :, masks]
        if not has_object_axis:
            mask_logits, scores = mask_logits[:, 0], scores[:, 0]
        outputs = {
            "mask_logits": mask_logits,
            "iou_scores": scores,
            "size": (int(size[0]), int(size[1])),
            "image_size": self.image_size,
            "mask_threshold": self.mask_threshold,
        }
        return onnx_outputs(outputs)


def sam_vit_b() -> SAM:
    """The smallest network of the paper: 93.7 million parameters, of which the decoder has 4."""
    return _sam(768, 12, 12, (2, 5, 8, 11))


def sam_vit_l() -> SAM:
    """The paper's network on ViT-L, with 312 million parameters."""
    return _sam(1024, 24, 16, (5, 11, 17, 23))


def sam_vit_h() -> SAM:
    """The paper's default network on ViT-H, with 641 million parameters."""
    return _sam(1280, 32, 16, (7, 15, 23, 31))


def _sam(embed_dim: int, depth: int, num_heads: int, global_blocks: tuple[int, ...]) -> SAM:
    encoder = ImageEncoder(embed_dim=embed_dim, depth=depth, num_heads=num_heads, global_blocks=global_blocks)
    return SAM(encoder, PromptEncoder(), MaskDecoder(TwoWayTransformer()))


def fitted_size(size: Size, image_size: int) -> Size:
    """Height and width, at least 1, of an image (H, W) that is resized so that its longer side is `image_size`.

    >>> fitted_size((480, 640), 1024)
    (768, 1024)
    """
    scale = image_size / max(size)
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def scale_to(size: Size, image_size: int) -> tuple[float, float]:
    """Factors of x and y when an image (H, W) is resized; they differ slightly, because sides are integers.

    >>> scale_to((3, 4), 8)
    (2.0, 2.0)
    """
    h, w = fitted_size(size, image_size)
    return w / size[1], h / size[0]


def fit_images(images: Tensor, image_size: int) -> Tensor:
    """Resize images (B, 3, H, W) in [0, 1] so that their longer side is `image_size`.

    Raises:
        ValueError: the images must be resized while a network is exported.
    """
    size = fitted_size(images.shape[-2:], image_size)
    if size == tuple(images.shape[-2:]):
        return images
    if is_exporting():
        raise ValueError(
            f"images has size {tuple(images.shape[-2:])}, expected {size} in an export, because the "
            "resizing by Pillow cannot be exported. Call fit_images before the export."
        )
    # Paper: the authors' code resizes byte images with Pillow, so their weights were trained with its rounding.
    h, w = size
    arrays = (255 * images.detach().float()).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    resized = [np.asarray(Image.fromarray(array).resize((w, h), Image.Resampling.BILINEAR)) for array in arrays]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).to(images) / 255


def full_size(mask_logits: Tensor, image_size: int, size: Size) -> Tensor:
    """Upsample mask logits (..., M, h, w) to S x S, remove the padding, and resize them to the image (H, W)."""
    h, w = fitted_size(size, image_size)
    logits = mask_logits.flatten(0, -4) if mask_logits.ndim > 4 else mask_logits
    logits = F.interpolate(logits, size=(image_size, image_size), mode="bilinear", align_corners=False)[..., :h, :w]
    if (h, w) != tuple(size):
        logits = F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)
    return logits.reshape(*mask_logits.shape[:-2], *size)


@torch.no_grad()
def postprocess(outputs: Mapping[str, Any], *, mask_threshold: float | None = None) -> Tensor:
    """Masks at the size of the images.

    Args:
        outputs: outputs of `SAM`.
        mask_threshold: logits above it belong to the mask; None for the threshold of the model.

    Returns:
        (B, M, H, W) or (B, N, M, H, W) bool. `iou_scores.argmax(-1)` is the mask with the highest predicted IoU.
    """
    check_outputs(outputs)
    check_no_nan("outputs", outputs, KEYS[:2])
    if mask_threshold is None:
        mask_threshold = outputs.get("mask_threshold", 0.0)
    return full_size(outputs["mask_logits"], outputs["image_size"], outputs["size"]) > mask_threshold


def _in_encoder_pixels(prompts: Mapping[str, Tensor], scale: Tensor) -> dict[str, Tensor]:
    """Prompts (B, N, ...) in the format of the prompt encoder: one axis for all objects, points and boxes scaled."""
    flat = {name: prompt.flatten(0, 1) for name, prompt in prompts.items()}
    names = {"point_coords": "points", "point_labels": "labels", "boxes": "boxes", "mask_inputs": "masks"}
    scales = {"point_coords": scale, "boxes": scale.repeat(2)}
    return {names[name]: prompt * scales[name] if name in scales else prompt for name, prompt in flat.items()}


def check_outputs(outputs: Mapping[str, Any]) -> None:
    """Check the outputs of `SAM`."""
    check_keys("outputs", outputs, KEYS)
    logits = outputs["mask_logits"]
    object_axis = "N " if isinstance(logits, Tensor) and logits.ndim == 5 else ""
    axes = {"mask_logits": f"B {object_axis}M h w", "iou_scores": f"B {object_axis}M"}
    check_tensor_dict("outputs", outputs, **axes)
