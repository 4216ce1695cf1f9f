"""SAM's image encoder: a plain ViT that looks through windows, and four times at all of the image.

Paper: Kirillov, Mintun, Ravi, Mao, Rolland, Gustafson, Xiao, Whitehead, Berg, Lo, Dollár, Girshick, "Segment
    Anything", ICCV 2023, arXiv 2304.02643, section 3 and appendix A. The encoder is that of Li, Mao, Girshick, He,
    "Exploring Plain Vision Transformer Backbones for Object Detection" (ViTDet), ECCV 2022, arXiv 2203.16527.
Idea: Almost all of SAM's work, done once for an image, whatever is asked about it afterwards. Patches of 16 x 16
    pixels become tokens. In most blocks a token sees the 14 x 14 tokens of its window only; four blocks, evenly
    spaced, see all. A learnt number for each distance in rows, and one for each in columns, is added to the
    similarities. Two convolutions, the neck, make 256 channels of the last tokens.
Simplified: one size of images, that of the table of positions: SAM fills every image up to 1024 x 1024.
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

NUMBERS = 2**23  # of the table of positions that exist at a time in an attention: 32 MiB


class ImageEncoder(nn.Module):
    """Patches, positions, blocks, neck; keys as in the authors' files.

    Args:
        image_size: S, height and width in pixels, a multiple of patch_size.
        patch_size: P.
        embed_dim: D of the tokens.
        depth: number of blocks.
        num_heads: of each block's attention.
        out_channels: C of the embeddings.
        window_size: of the blocks with windows, in tokens.
        global_blocks: indexes of the blocks in which every token sees every token.
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
        _check_numbers(image_size, patch_size, depth, window_size, global_blocks)
        self.image_size, grid = image_size, image_size // patch_size
        self.patch_embed = PatchEmbed(patch_size, embed_dim)
        self.pos_embed = nn.Parameter(torch.empty(1, grid, grid, embed_dim))
        sizes = [grid if i in global_blocks else window_size for i in range(depth)]
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, size, windows=i not in global_blocks) for i, size in enumerate(sizes)
        )
        self.neck = neck(embed_dim, out_channels)
        self._start()

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1:] != (3, self.image_size, self.image_size):
            expected = f"(B, 3, {self.image_size}, {self.image_size})"
            raise ValueError(f"images has shape {tuple(images.shape)}, expected {expected}")
        tokens = self.patch_embed(images).permute(0, 2, 3, 1) + self.pos_embed  # (B, h, w, D)
        for block in self.blocks:
            tokens = block(tokens)
        return self.neck(tokens.permute(0, 3, 1, 2))  # (B, C, h, w)

    def _start(self) -> None:
        """Small random numbers, as ViTDet starts; distances say nothing at first."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)


def neck(embed_dim: int, out_channels: int) -> nn.Sequential:
    """From the last tokens to the embedding: a convolution on each place, one of 3 x 3, each with a normalisation.

    Args:
        embed_dim: D of the tokens.
        out_channels: C of the embeddings.

    Returns:
        A module (B, D, h, w) -> (B, C, h, w).
    """
    return nn.Sequential(
        nn.Conv2d(embed_dim, out_channels, kernel_size=1, bias=False),
        LayerNorm2d(out_channels),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(out_channels),
    )


class Block(nn.Module):
    """Attention, among the tokens of a window or among all, then the MLP, each added to its input.

    Args:
        embed_dim: D of the tokens.
        num_heads: of the attention.
        size: height and width, in tokens, of a window, or of the image where there are none.
        windows: whether a token sees its window only.
    """

    def __init__(self, embed_dim: int, num_heads: int, size: int, windows: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = PlacedAttention(embed_dim, num_heads, size)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = MLP(embed_dim, 4 * embed_dim)
        self.window_size = size if windows else None

    def forward(self, tokens: Tensor) -> Tensor:
        h, w = tokens.shape[1:3]
        seen = self.norm1(tokens)
        if self.window_size is None:
            seen = self.attn(seen)
        else:
            seen = join_windows(self.attn(split_windows(seen, self.window_size)), (h, w))
        tokens = tokens + seen
        return tokens + self.mlp(self.norm2(tokens))


class PlacedAttention(nn.Module):
    """Self-attention on a grid: similarity and a learnt number for how far apart two tokens lie.

    What is added is q . (r[rows apart] + c[columns apart]): it depends on the query, and is so many numbers as there
    are pairs of tokens, 16.8 million a head for 64 x 64. So queries are taken some rows at a time.

    Args:
        embed_dim: D of the tokens, a multiple of num_heads.
        num_heads: of the attention.
        size: height and width of the grid.
    """

    def __init__(self, embed_dim: int, num_heads: int, size: int) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"embed_dim is {embed_dim}, expected a multiple of num_heads, which is {num_heads}")
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
        rows, columns = by_distance(self.rel_pos_h, h), by_distance(self.rel_pos_w, w)  # (h, h, d), (w, w, d)
        step = max(1, NUMBERS // (B * self.num_heads * h * w * w))
        gathered = []
        for top in range(0, h, step):
            some = queries[:, :, top : top + step]  # (B, heads, s, w, d)
            from_rows = torch.einsum("bnyxd,ykd->bnyxk", some, rows[top : top + step])  # (B, heads, s, w, h)
            from_columns = torch.einsum("bnyxd,xkd->bnyxk", some, columns)  # (B, heads, s, w, w)
            bias = (from_rows[..., :, None] + from_columns[..., None, :]).flatten(4).flatten(2, 3)  # (B, heads, s w, L)
            gathered.append(F.scaled_dot_product_attention(some.flatten(2, 3), keys, values, attn_mask=bias))
        gathered = torch.cat(gathered, dim=2)  # (B, heads, L, d)
        return self.proj(gathered.transpose(1, 2).flatten(2)).unflatten(1, (h, w))


class MLP(nn.Module):
    """Two linear maps with a GELU between; the authors' files call them lin1 and lin2.

    Args:
        embed_dim: D of the tokens.
        hidden: numbers between the two maps.
        activation: between the two maps.
    """

    def __init__(self, embed_dim: int, hidden: int, activation: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.lin1 = nn.Linear(embed_dim, hidden)
        self.act = activation()
        self.lin2 = nn.Linear(hidden, embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lin2(self.act(self.lin1(tokens)))


def by_distance(table: Tensor, size: int) -> Tensor:
    """For two places on a line, the vector that belongs to their distance.

    Args:
        table: (2 size - 1, d), from the distance -(size - 1) to size - 1.
        size: number of places.

    Returns:
        (size, size, d): at [i, j] that of i - j.

    >>> by_distance(torch.tensor([[-1], [0], [1]]), 2)[..., 0]
    tensor([[ 0, -1],
            [ 1,  0]])
    """
    places = torch.arange(size, device=table.device)
    return table[places[:, None] - places + size - 1]


def split_windows(tokens: Tensor, size: int) -> Tensor:
    """Cut a grid into windows; at the right and the bottom it is filled up with zeros, which take part.

    Args:
        tokens: (B, h, w, D).
        size: of a window.

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
    """Lay windows out again, and cut off what was filled up.

    Args:
        windows: (B * windows, s, s, D).
        size: h and w of the grid.

    Returns:
        (B, h, w, D).

    >>> grid = torch.rand(2, 3, 5, 4)
    >>> torch.equal(join_windows(split_windows(grid, 2), (3, 5)), grid)
    True
    """
    h, w = size
    s = windows.shape[1]
    tokens = windows.unflatten(0, (-1, -(-h // s), -(-w // s))).transpose(2, 3)
    return tokens.flatten(3, 4).flatten(1, 2)[:, :h, :w]


def _check_numbers(
    image_size: int, patch_size: int, depth: int, window_size: int, global_blocks: Collection[int]
) -> None:
    for name, number in (("patch_size", patch_size), ("depth", depth), ("window_size", window_size)):
        if number < 1:
            raise ValueError(f"{name} is {number}, expected at least 1")
    if image_size < patch_size or image_size % patch_size:
        raise ValueError(f"image_size is {image_size}, expected a multiple of patch_size, which is {patch_size}")
    if not set(global_blocks) <= set(range(depth)):
        raise ValueError(f"global_blocks are {tuple(global_blocks)}, expected indexes from 0 to {depth - 1}")
