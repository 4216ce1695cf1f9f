"""SAM's image encoder: a plain ViT with window attention, and global attention in four blocks.

Paper: Kirillov, Mintun, Ravi, Mao, Rolland, Gustafson, Xiao, Whitehead, Berg, Lo, Dollár, Girshick, "Segment
    Anything", ICCV 2023, arXiv 2304.02643, section 3 and appendix A. The encoder is that of Li, Mao, Girshick, He,
    "Exploring Plain Vision Transformer Backbones for Object Detection" (ViTDet), ECCV 2022, arXiv 2203.16527.
Idea: Almost all of SAM's computation, done once per image, independent of the prompts. Patches of 16 x 16 pixels become
    tokens. In most blocks a token attends only to the 14 x 14 tokens of its window; in four blocks, evenly spaced, to
    all. Learned relative positions, in rows and in columns, are added to the similarities. Two convolutions, the neck,
    reduce the last tokens to 256 channels.
Simplified: one image size, given by the table of positions: SAM pads every image to 1024 x 1024.
Shapes: images (B, 3, S, S), normalised -> embeddings (B, C, S / P, S / P) for patches of P pixels; in the paper
    (B, 256, 64, 64).
Quality: equal to Meta's segment-anything at the same weights (tests/promptable).
Course: 16-promptable
Lab: 16_promptable
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.backbones.vit import PatchEmbed
from segedu.layers.layer_norm import LayerNorm2d
from segedu.validation.numbers import check_integer, check_integers, check_multiple
from segedu.validation.tensors import check_floats

MAX_BIAS_VALUES = 2**23  # values of the attention bias in memory at a time: 32 MiB


class ImageEncoder(nn.Module):
    """Patch embedding, position embedding, blocks and neck; state dict keys as in the authors' files.

    Args:
        image_size: S, height and width in pixels, a multiple of patch_size.
        patch_size: P.
        embed_dim: D of the tokens.
        depth: number of blocks.
        num_heads: number of heads of the attention in each block.
        out_channels: C of the embeddings.
        window_size: side of a window in tokens, in the blocks with window attention.
        global_blocks: indices of the blocks with global attention.
    """

    def __init__(
        self,
        image_size: int = 1024,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        out_channels: int = 256,
        window_size: int = 14,
        global_blocks: Collection[int] = (2, 5, 8, 11),
    ) -> None:
        super().__init__()
        check_integers(patch_size=patch_size, depth=depth, window_size=window_size)
        check_multiple("image_size", image_size, patch_size, of="patch_size")
        for index in global_blocks:
            check_integer("global_blocks has an index that", index, 0, depth - 1)
        self.image_size, grid = image_size, image_size // patch_size
        self.patch_embed = PatchEmbed(patch_size, embed_dim)
        self.pos_embed = nn.Parameter(torch.empty(1, grid, grid, embed_dim))
        sizes = [grid if i in global_blocks else window_size for i in range(depth)]
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, size, windowed=i not in global_blocks) for i, size in enumerate(sizes)
        )
        self.neck = neck(embed_dim, out_channels)
        self._initialise()

    def forward(self, images: Tensor) -> Tensor:
        check_floats("images", images, f"B 3 {self.image_size} {self.image_size}")
        tokens = self.patch_embed(images).permute(0, 2, 3, 1) + self.pos_embed  # (B, h, w, D)
        for block in self.blocks:
            tokens = block(tokens)
        return self.neck(tokens.permute(0, 3, 1, 2))  # (B, C, h, w)

    def _initialise(self) -> None:
        """Initialise as ViTDet does: small random weights; relative positions stay 0."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)


def neck(embed_dim: int, out_channels: int) -> nn.Sequential:
    """From the last tokens (B, D, h, w) to the embedding (B, C, h, w): a 1x1 and a 3x3 convolution, each normalised."""
    return nn.Sequential(
        nn.Conv2d(embed_dim, out_channels, kernel_size=1, bias=False),
        LayerNorm2d(out_channels),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(out_channels),
    )


class Block(nn.Module):
    """Window or global attention, then an MLP, each with a residual connection.

    Args:
        embed_dim: D of the tokens.
        num_heads: number of heads of the attention.
        size: height and width, in tokens, of a window, or of the image for global attention.
        windowed: whether a token attends only to its window.
    """

    def __init__(self, embed_dim: int, num_heads: int, size: int, windowed: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = RelativePositionAttention(embed_dim, num_heads, size)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = MLP(embed_dim, 4 * embed_dim)
        self.window_size = size if windowed else None

    def forward(self, tokens: Tensor) -> Tensor:
        h, w = tokens.shape[1:3]
        attended = self.norm1(tokens)
        if self.window_size is None:
            attended = self.attn(attended)
        else:
            attended = join_windows(self.attn(split_windows(attended, self.window_size)), (h, w))
        tokens = tokens + attended
        return tokens + self.mlp(self.norm2(tokens))


class RelativePositionAttention(nn.Module):
    """Self-attention on a grid with learned relative positions.

    The bias q . (r[row distance] + c[column distance]) depends on the query and has one value per pair of tokens: 16.8
    million per head for 64 x 64 tokens. So queries are processed in groups of rows.

    Args:
        embed_dim: D of the tokens, a multiple of num_heads.
        num_heads: number of heads of the attention.
        size: height and width of the grid.
    """

    def __init__(self, embed_dim: int, num_heads: int, size: int) -> None:
        super().__init__()
        check_multiple("embed_dim", embed_dim, num_heads, of="num_heads")
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)
        # one vector for each distance from -(size - 1) to size - 1
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size - 1, embed_dim // num_heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size - 1, embed_dim // num_heads))

    def forward(self, tokens: Tensor) -> Tensor:
        B, h, w, _ = tokens.shape
        qkv = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 4, 1, 2, 5)
        queries, keys, values = qkv  # (B, heads, h, w, d)
        keys, values = keys.flatten(2, 3), values.flatten(2, 3)  # (B, heads, L, d)
        rows, columns = get_rel_pos(self.rel_pos_h, h), get_rel_pos(self.rel_pos_w, w)  # (h, h, d), (w, w, d)
        step = max(1, MAX_BIAS_VALUES // (B * self.num_heads * h * w * w))
        attended = []
        for top in range(0, h, step):
            q = queries[:, :, top : top + step]  # (B, heads, s, w, d)
            row_bias = torch.einsum("bnyxd,ykd->bnyxk", q, rows[top : top + step])  # (B, heads, s, w, h)
            column_bias = torch.einsum("bnyxd,xkd->bnyxk", q, columns)  # (B, heads, s, w, w)
            bias = (row_bias[..., :, None] + column_bias[..., None, :]).flatten(4).flatten(2, 3)  # (B, heads, s w, L)
            attended.append(F.scaled_dot_product_attention(q.flatten(2, 3), keys, values, attn_mask=bias))
        attended = torch.cat(attended, dim=2)  # (B, heads, L, d)
        return self.proj(attended.transpose(1, 2).flatten(2)).unflatten(1, (h, w))


class MLP(nn.Module):
    """Two linear layers with an activation in between, called lin1 and lin2 in the authors' files.

    Args:
        embed_dim: D of the tokens.
        hidden: width of the hidden layer.
        activation: class of the activation.
    """

    def __init__(self, embed_dim: int, hidden: int, activation: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.lin1 = nn.Linear(embed_dim, hidden)
        self.act = activation()
        self.lin2 = nn.Linear(hidden, embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lin2(self.act(self.lin1(tokens)))


def get_rel_pos(table: Tensor, size: int) -> Tensor:
    """Look up the vector of the distance between each pair of positions on a line.

    Args:
        table: (2 size - 1, d), for distances from -(size - 1) to size - 1.
        size: number of positions.

    Returns:
        (size, size, d): the vector of i - j at [i, j].

    >>> get_rel_pos(torch.tensor([[-1], [0], [1]]), 2)[..., 0]
    tensor([[ 0, -1],
            [ 1,  0]])
    """
    positions = torch.arange(size, device=table.device)
    return table[positions[:, None] - positions + size - 1]


def split_windows(tokens: Tensor, size: int) -> Tensor:
    """Split a grid into windows, zero-padded at the right and the bottom; padding takes part in the attention.

    Args:
        tokens: (B, h, w, D).
        size: side of a window in tokens.

    Returns:
        (B * windows, size, size, D), windows row by row.

    >>> split_windows(torch.arange(6).reshape(1, 2, 3, 1), 2)[..., 0]
    tensor([[[0, 1],
             [3, 4]],
    <BLANKLINE>
            [[2, 0],
             [5, 0]]])
    """
    h, w = tokens.shape[1:3]
    tokens = F.pad(tokens, (0, 0, 0, -w % size, 0, -h % size))
    windows = tokens.unflatten(2, (-1, size)).unflatten(1, (-1, size))  # (B, rows, size, columns, size, D)
    return windows.transpose(2, 3).flatten(0, 2)


def join_windows(windows: Tensor, size: tuple[int, int]) -> Tensor:
    """Join windows (B * windows, s, s, D) to a grid (B, h, w, D) without padding.

    >>> grid = torch.rand(2, 3, 5, 4)
    >>> torch.equal(join_windows(split_windows(grid, 2), (3, 5)), grid)
    True
    """
    h, w = size
    s = windows.shape[1]
    tokens = windows.unflatten(0, (-1, -(-h // s), -(-w // s))).transpose(2, 3)
    return tokens.flatten(3, 4).flatten(1, 2)[:, :h, :w]
