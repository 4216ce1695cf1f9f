"""SAM: what is meant by a click, a box or a mask; the image is looked at once, and asked as often as one likes.

Paper: Kirillov, Mintun, Ravi, Mao, Rolland, Gustafson, Xiao, Whitehead, Berg, Lo, Dollár, Girshick, "Segment
    Anything", ICCV 2023, arXiv 2304.02643.
Idea: Three parts. A large encoder makes an embedding of the image, once. Prompts become a few vectors. A light decoder
    brings both together within milliseconds. A click on a shirt may mean the shirt or the person: so it answers with
    three masks, each with a guess of its own IoU, and in training only the best of the three learns.
Simplified: no text prompts.
Shapes: images (B, 3, H, W) in [0, 1], of any size; prompts in pixels of these images; for each image one object, or N:
    `point_coords` (B, P, 2) or (B, N, P, 2), `point_labels` (B, P) or (B, N, P), `boxes` (B, 4) or (B, N, 4),
    `mask_inputs` (B, h, w) or (B, N, h, w) -> dict of `mask_logits` (B, M, h, w) or (B, N, M, h, w), h = w = 256,
    `iou_scores` (B, M) or (B, N, M), `size` (H, W) and `image_size`. `postprocess`: the dict -> masks (..., M, H, W).
Quality: embeddings, masks and scores equal those of Meta's segment-anything at the same weights (tests/promptable).
    The small one, `segedu/weights/own/shapes_sam.json`, says what it reaches on drawn scenes.
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
from segedu.validation.tensors import check_floats, check_keys, check_maps, check_no_nan

KEYS = ("mask_logits", "iou_scores", "size", "image_size")


class SAM(nn.Module):
    """Image encoder, prompt encoder, mask decoder: figure 4; keys as in the authors' files.

    Args:
        image_encoder: normalised images (B, 3, S, S) -> embeddings (B, D, h, h); S and h are the prompt encoder's.
        prompt_encoder: points, boxes and masks to vectors.
        mask_decoder: embeddings and prompts to masks.
        normalize: what images in [0, 1] go through first; by default ImageNet's mean and deviation.
        mask_threshold: logits above it are mask. Nothing learns by it.
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
        if prompt_encoder.embed_dim != mask_decoder.transformer.embed_dim:
            raise ValueError(
                f"prompt_encoder has embed_dim {prompt_encoder.embed_dim}, expected the mask decoder's, "
                f"{mask_decoder.transformer.embed_dim}"
            )
        self.image_encoder, self.prompt_encoder, self.mask_decoder = image_encoder, prompt_encoder, mask_decoder
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD) if normalize is None else normalize

    @property
    def image_size(self) -> int:
        """S: images are brought to S x S pixels."""
        return self.prompt_encoder.image_size

    def forward(self, images: Tensor, **prompts: Any) -> dict[str, Any]:
        return self.decode(self.encode(images), images.shape[-2:], **prompts)

    def encode(self, images: Tensor) -> Tensor:
        """The slow part, once for each image.

        Args:
            images: (B, 3, H, W) in [0, 1]. Their longer side is brought to S, and they are filled up at the right and
                the bottom with the mean colour. Resizing passes no gradient on.

        Returns:
            (B, D, h, h).

        Raises:
            TypeError: images is no tensor of floating-point numbers.
            ValueError: images has another shape, or its values are clearly not in [0, 1].
        """
        check_images(images, 3)
        check_unit_range(images)  # before `fit_images`, which makes bytes of them
        images = self.normalize(fit_images(images, self.image_size))
        height, width = images.shape[-2:]
        return self.image_encoder(F.pad(images, (0, self.image_size - width, 0, self.image_size - height)))

    def decode(
        self,
        embeddings: Tensor,
        size: Size,
        *,
        point_coords: Tensor | None = None,
        point_labels: Tensor | None = None,
        boxes: Tensor | None = None,
        mask_inputs: Tensor | None = None,
        multimask_output: bool | None = True,
    ) -> dict[str, Any]:
        """The fast part: for each image one object, or N, each with a prompt of its own.

        Args:
            embeddings: of `encode`.
            size: (H, W) of the images that were encoded: prompts are in their pixels.
            point_coords: (B, P, 2) or (B, N, P, 2), (x, y); (0, 0) is the middle of the upper left pixel.
            point_labels: as many: 1 for "this", 0 for "not this", -1 for no point at all, to fill rows up.
            boxes: (B, 4) or (B, N, 4), xyxy.
            mask_inputs: (B, h, w) or (B, N, h, w), one of the `mask_logits` of an earlier answer.
            multimask_output: True for three masks, for a prompt that can mean several things, such as one click.
                False for one, where it cannot: a box, or several points. None for the one and the three, in this order.

        Returns:
            `mask_logits` (B, M, h, w) or (B, N, M, h, w); `iou_scores` (B, M) or (B, N, M), what IoU each thinks that
            it has; `size`, `image_size` and `mask_threshold`.

        Raises:
            TypeError: a prompt is no tensor of numbers.
            ValueError: there is no prompt, only one of points and labels, a shape or a label does not fit, a point or
                a box lies outside the image, or the corners of a box are in the wrong order or normalised.
        """
        check_floats("embeddings", embeddings, "B D h w")
        given = {"point_coords": point_coords, "point_labels": point_labels, "boxes": boxes, "mask_inputs": mask_inputs}
        given = {name: prompt for name, prompt in given.items() if prompt is not None}
        B, (many, N) = len(embeddings), check_prompts(given, len(embeddings), self.prompt_encoder.mask_size, size)
        given = {name: prompt if many else prompt[:, None] for name, prompt in given.items()}  # (B, N, ...)
        scale = embeddings.new_tensor(scale_to(size, self.image_size), dtype=torch.float64)  # of x, y
        sparse, dense = self.prompt_encoder(**_in_pixels_of_the_encoder(given, scale))
        dense = dense.unflatten(0, (B, N)) if mask_inputs is not None else dense[None]
        sparse = sparse.unflatten(0, (B, N))
        mask_logits, scores = self.mask_decoder(embeddings, self.prompt_encoder.dense_positions(), sparse, dense)
        wanted = slice(None) if multimask_output is None else slice(1, None) if multimask_output else slice(0, 1)
        mask_logits, scores = mask_logits[:, :, wanted], scores[:, :, wanted]
        if not many:
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
    """93.7 million weights, of which the decoder has 4: the smallest of the paper's.

    Returns:
        The network with random weights.
    """
    return _sam(768, 12, 12, (2, 5, 8, 11))


def sam_vit_l() -> SAM:
    """312 million weights.

    Returns:
        The network with random weights.
    """
    return _sam(1024, 24, 16, (5, 11, 17, 23))


def sam_vit_h() -> SAM:
    """641 million weights: the paper's default.

    Returns:
        The network with random weights.
    """
    return _sam(1280, 32, 16, (7, 15, 23, 31))


def _sam(embed_dim: int, depth: int, num_heads: int, global_blocks: tuple[int, ...]) -> SAM:
    encoder = ImageEncoder(embed_dim=embed_dim, depth=depth, num_heads=num_heads, global_blocks=global_blocks)
    return SAM(encoder, PromptEncoder(), MaskDecoder(TwoWayTransformer()))


def fitted_size(size: Size, image_size: int) -> Size:
    """Height and width of an image whose longer side is brought to image_size.

    Args:
        size: H and W.
        image_size: S.

    Returns:
        At least 1 each.

    >>> fitted_size((480, 640), 1024)
    (768, 1024)
    """
    scale = image_size / max(size)
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def scale_to(size: Size, image_size: int) -> tuple[float, float]:
    """What x and y of a pixel are multiplied by when an image is fitted.

    Args:
        size: H and W of the image.
        image_size: S.

    Returns:
        Of x and of y: not quite the same, as sides are whole numbers.

    >>> scale_to((3, 4), 8)
    (2.0, 2.0)
    """
    h, w = fitted_size(size, image_size)
    return w / size[1], h / size[0]


def fit_images(images: Tensor, image_size: int) -> Tensor:
    """Bring the longer side of images to image_size.

    Args:
        images: (B, 3, H, W) in [0, 1].
        image_size: S.

    Returns:
        (B, 3, h, w), the longer of h and w is S.

    Raises:
        ValueError: the images must be resized while a network is exported.
    """
    size = fitted_size(images.shape[-2:], image_size)
    if size == tuple(images.shape[-2:]):
        return images
    if is_exporting():
        raise ValueError(
            f"images has size {tuple(images.shape[-2:])}, expected {size} in an export: images are resized by Pillow,"
            " which cannot be exported. Call fit_images first."
        )
    # Paper: the authors' code resizes pictures of bytes by Pillow: its rounding is part of what their weights know.
    h, w = size
    pictures = (255 * images.detach().float()).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    resized = [np.asarray(Image.fromarray(picture).resize((w, h), Image.Resampling.BILINEAR)) for picture in pictures]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).to(images) / 255


def full_size(mask_logits: Tensor, image_size: int, size: Size) -> Tensor:
    """Logits of masks at the size of the image: enlarged to S x S, the filling cut off, and resized.

    Args:
        mask_logits: (..., M, h, w).
        image_size: S.
        size: (H, W) of the image.

    Returns:
        (..., M, H, W).
    """
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
        outputs: of `SAM`.
        mask_threshold: logits above it are mask; by default the model's.

    Returns:
        (B, M, H, W) or (B, N, M, H, W) bool. The best of the M, by its own word, is `iou_scores.argmax(-1)`.

    Raises:
        TypeError: outputs are of the wrong kind.
        ValueError: a key is missing, shapes do not fit, or a number is NaN.
    """
    check_outputs(outputs)
    check_no_nan("outputs", outputs, KEYS[:2])
    if mask_threshold is None:
        mask_threshold = outputs.get("mask_threshold", 0.0)
    return full_size(outputs["mask_logits"], outputs["image_size"], outputs["size"]) > mask_threshold


def _in_pixels_of_the_encoder(given: Mapping[str, Tensor], scale: Tensor) -> dict[str, Tensor]:
    """Prompts (B, N, ...) as the prompt encoder takes them: one axis for all objects, points and boxes scaled."""
    flat = {name: prompt.flatten(0, 1) for name, prompt in given.items()}
    names = {"point_coords": "points", "point_labels": "labels", "boxes": "boxes", "mask_inputs": "masks"}
    scales = {"point_coords": scale, "boxes": scale.repeat(2)}
    return {names[name]: prompt * scales[name] if name in scales else prompt for name, prompt in flat.items()}


def check_outputs(outputs: Mapping[str, Any]) -> None:
    """Refuse what is not the outputs of `SAM`.

    Args:
        outputs: what was given.

    Raises:
        TypeError: not a dict of tensors of floating-point numbers.
        ValueError: a key is missing, or shapes do not fit.
    """
    check_keys("outputs", outputs, KEYS)
    logits = outputs["mask_logits"]
    many = "N " if isinstance(logits, Tensor) and logits.ndim == 5 else ""
    axes = {"mask_logits": f"B {many}M h w", "iou_scores": f"B {many}M"}
    check_maps("outputs", outputs, **axes)
