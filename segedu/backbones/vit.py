"""ViT: every patch of the image becomes a token, and all tokens attend to each other in every block.

Paper: Dosovitskiy, Beyer, Kolesnikov et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at
    Scale", ICLR 2021, arXiv 2010.11929. Weights learned without labels: Caron, Touvron, Misra et al., "Emerging
    Properties in Self-Supervised Vision Transformers" (DINO), ICCV 2021, arXiv 2104.14294; Oquab, Darcet, Moutakanni et
    al., "DINOv2: Learning Robust Visual Features without Supervision", 2023, arXiv 2304.07193. Registers: Darcet,
    Oquab, Mairal, Bojanowski, "Vision Transformers Need Registers", ICLR 2024, arXiv 2309.16588.
Idea: A linear map turns each patch of 16 x 16 pixels into a vector of D channels, to which a learned position embedding
    is added. A block consists of self-attention over all tokens, followed by an MLP applied to each token; both have
    residual connections. One more token, `cls`, belongs to no patch and summarises the image; registers are further
    such tokens, which keep large values off the patches.
Simplified: no dropout and no stochastic depth; the MLP is four times as wide as the tokens.
Shapes: images (B, 3, H, W), H and W multiples of the patch P -> a dict `cls` (B, D), `registers` (B, R, D) and
    `patches` (B, D, H / P, W / P). Inside, the L = 1 + R + H W / P^2 tokens are in this order, the patches row by row.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.layers.attention import Attention
from segedu.validation.images import check_images
from segedu.validation.numbers import check_integer, check_multiple


class MLP(nn.Module):
    """Two linear layers with a GELU between, applied to each token.

    Args:
        embed_dim: D of the tokens.
        hidden: channels between the two layers.
    """

    def __init__(self, embed_dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden)
        self.fc2 = nn.Linear(hidden, embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class LayerScale(nn.Module):
    """A learned factor for each of the D channels of a residual branch.

    Args:
        embed_dim: D of the tokens.
        start: initial value of the factors.
    """

    def __init__(self, embed_dim: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((embed_dim,), float(start)))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gamma


class Block(nn.Module):
    """Attention, then the MLP, each after a normalisation and with a residual connection: figure 1 of the paper, right.

    Args:
        embed_dim: D of the tokens.
        num_heads: number of heads of the attention.
        layer_scale: initial value of the factors of both residual branches, or None for no factors.
    """

    def __init__(self, embed_dim: int, num_heads: int, layer_scale: float | None = None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = Attention(embed_dim, num_heads)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(embed_dim, layer_scale)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = MLP(embed_dim, 4 * embed_dim)
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(embed_dim, layer_scale)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))


class PatchEmbed(nn.Module):
    """One linear map for all patches, written as a convolution whose stride is its kernel size.

    Args:
        patch_size: P in pixels.
        embed_dim: D of the tokens.
    """

    def __init__(self, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images)  # (B, D, H / P, W / P)


class ViT(nn.Module):
    """Patch embedding, position embedding, blocks, and a final normalisation.

    State dict keys are those of DINO's and DINOv2's files. The position embedding belongs to images of image_size; for
    other sizes it is resampled, see `positions`.

    Args:
        patch_size: P in pixels.
        embed_dim: D of the tokens.
        depth: number of blocks.
        num_heads: number of heads of the attention of each block.
        image_size: height and width, in pixels, of the learned position embedding; a multiple of patch_size.
        registers: R, number of tokens besides `cls` that belong to no patch.
        layer_scale: initial value of the factors of the residual branches, or None for no factors, as in DINO.
        normalize: applied to the images first, such as `layers.normalize.Normalize`.
    """

    def __init__(
        self,
        patch_size: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        *,
        image_size: int = 224,
        registers: int = 0,
        layer_scale: float | None = None,
        normalize: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_integer("depth", depth)
        check_integer("registers", registers, minimum=0)
        check_multiple("image_size", image_size, patch_size, of="patch_size")
        self.patch_size, self.embed_dim, self.num_heads = patch_size, embed_dim, num_heads
        self.grid_size = image_size // patch_size
        self.normalize = nn.Identity() if normalize is None else normalize
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.grid_size**2, embed_dim))  # the first is that of cls
        self.register_tokens = nn.Parameter(torch.empty(1, registers, embed_dim)) if registers else None
        self.patch_embed = PatchEmbed(patch_size, embed_dim)
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, layer_scale) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self._init()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.features(images, -1)

    def features(self, images: Tensor, block: int) -> dict[str, Tensor]:
        """The tokens after one block, under the final normalisation.

        Args:
            images: (B, 3, H, W) in [0, 1], H and W multiples of patch_size.
            block: index of the block from 0, or from the end: -1 is the result of `forward`.

        Returns:
            `cls` (B, D), `registers` (B, R, D) and `patches` (B, D, H / P, W / P).
        """
        tokens = self.norm(self._run(images, self._index(block) + 1))  # (B, L, D)
        cls, registers, patches = tokens.tensor_split((1, self._first_patch()), dim=1)
        return {"cls": cls[:, 0], "registers": registers, "patches": self._as_map(patches, images)}

    def attention(self, images: Tensor, block: int = -1) -> Tensor:
        """Attention weights of one block. Row i contains those with which token i attends to all tokens, with sum 1.

        Args:
            images: (B, 3, H, W) in [0, 1], H and W multiples of patch_size.
            block: index of the block from 0, or from the end.

        Returns:
            (B, heads, L, L), tokens in the order cls, registers, patches row by row. The attention of cls to the
            patches is `[:, :, 0, 1 + R:]`.
        """
        block = self._index(block)
        tokens = self._run(images, block)
        return self.blocks[block].attn.attention_weights(self.blocks[block].norm1(tokens))

    def keys(self, images: Tensor, block: int = -1) -> Tensor:
        """Keys of each patch in one block, all heads concatenated: the features of TokenCut.

        Args:
            images: (B, 3, H, W) in [0, 1], H and W multiples of patch_size.
            block: index of the block from 0, or from the end.

        Returns:
            (B, D, H / P, W / P).
        """
        return self._project(images, block, 1)

    def queries(self, images: Tensor, block: int = -1) -> Tensor:
        """Queries of each patch in one block, all heads concatenated. Similar patches have similar queries.

        Args:
            images: (B, 3, H, W) in [0, 1], H and W multiples of patch_size.
            block: index of the block from 0, or from the end.

        Returns:
            (B, D, H / P, W / P).
        """
        return self._project(images, block, 0)

    def _project(self, images: Tensor, block: int, which: int) -> Tensor:
        """Queries (which=0) or keys (which=1) of the patches in one block, (B, D, H / P, W / P)."""
        block = self._index(block)
        tokens = self.blocks[block].norm1(self._run(images, block))
        projected = self.blocks[block].attn.queries_keys_values(tokens)[which].transpose(1, 2).flatten(2)  # (B, L, D)
        return self._as_map(projected[:, self._first_patch() :], images)

    def positions(self, height: int, width: int) -> Tensor:
        """The position embedding of each token, resampled if the grid differs from the one at image_size.

        The resampling is bicubic to exactly (height, width), without antialiasing. Facebook's code differs in two ways.
        DINO, and DINOv2 without registers, give the same interpolation a factor of (height + 0.1) / grid in place of
        the size, which moves the samples up and to the left, by a tenth of a patch at most. DINOv2 with registers uses
        the size, antialiasing, and another cubic kernel. So apart from that tenth, our code does what Facebook's does
        for six of our eight files. DINO was also trained with this interpolation, because its small crops of 96 pixels
        have 6 x 6 patches. tests/backbones/test_vit.py measures both differences.

        Args:
            height: height of the grid in patches.
            width: width of the grid in patches.

        Returns:
            (1, 1 + height * width, D); the first is that of `cls`, which is never resampled.
        """
        if (height, width) == (self.grid_size, self.grid_size):
            return self.pos_embed
        cls, patches = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        grid = patches.unflatten(1, (self.grid_size, self.grid_size)).permute(0, 3, 1, 2)  # (1, D, grid, grid)
        grid = F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False, antialias=False)
        return torch.cat([cls, grid.flatten(2).transpose(1, 2)], dim=1)

    def _run(self, images: Tensor, count: int) -> Tensor:
        """The tokens (B, L, D) after the first `count` blocks."""
        check_images(images, 3)
        self._check_size(*images.shape[2:])
        patches = self.patch_embed(self.normalize(images))
        height, width = patches.shape[2:]
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        tokens = tokens + self.positions(height, width)
        if self.register_tokens is not None:  # they have no position embedding
            registers = self.register_tokens.expand(len(images), -1, -1)
            tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)
        for block in self.blocks[:count]:
            tokens = block(tokens)
        return tokens

    def _first_patch(self) -> int:
        return 1 if self.register_tokens is None else 1 + self.register_tokens.shape[1]

    def _as_map(self, patches: Tensor, images: Tensor) -> Tensor:
        """(B, h w, D) -> (B, D, h, w)."""
        return patches.transpose(1, 2).unflatten(2, (images.shape[2] // self.patch_size, -1))

    def _index(self, block: int) -> int:
        depth = len(self.blocks)
        if not -depth <= block < depth:
            raise ValueError(f"block is {block}, expected {-depth} to {depth - 1}")
        return block % depth

    def _check_size(self, height: int, width: int) -> None:
        patch = self.patch_size
        if height % patch or width % patch:
            nearest = tuple(max(round(size / patch), 1) * patch for size in (height, width))
            raise ValueError(
                f"images has H, W = {height}, {width}, expected multiples of patch_size {patch}, such as {nearest}"
            )

    def _init(self) -> None:
        """Initialise embeddings and linear weights with small random values, as DINO does, and biases with 0."""
        tokens = [self.cls_token, self.pos_embed] + ([] if self.register_tokens is None else [self.register_tokens])
        for token in tokens:
            nn.init.trunc_normal_(token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)


def vit_small_patch16(**options: Any) -> ViT:
    """DINO's ViT-S/16 with 21.7 million parameters and random weights; `options` are those of `ViT`."""
    return ViT(16, 384, 12, 6, **options)


def vit_small_patch8(**options: Any) -> ViT:
    """DINO's ViT-S/8 with random weights: four times as many patches as ViT-S/16, at about five times the cost."""
    return ViT(8, 384, 12, 6, **options)


def vit_base_patch16(**options: Any) -> ViT:
    """DINO's ViT-B/16 ("Base" of the paper's table 1) with 85.8 million parameters and random weights.

    `options` are those of `ViT`.
    """
    return ViT(16, 768, 12, 12, **options)


def vit_base_patch8(**options: Any) -> ViT:
    """DINO's ViT-B/8 with random weights; `options` are those of `ViT`."""
    return ViT(8, 768, 12, 12, **options)


def dinov2_small_patch14(**options: Any) -> ViT:
    """DINOv2's ViT-S/14 for images of 518 pixels, with random weights.

    `options` are those of `ViT`, such as `registers=4`.
    """
    return ViT(14, 384, 12, 6, **{"image_size": 518, "layer_scale": 1.0, **options})


def dinov2_base_patch14(**options: Any) -> ViT:
    """DINOv2's ViT-B/14 for images of 518 pixels, with random weights.

    `options` are those of `ViT`, such as `registers=4`.
    """
    return ViT(14, 768, 12, 12, **{"image_size": 518, "layer_scale": 1.0, **options})
