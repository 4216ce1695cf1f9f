"""Self-attention: every token gathers from all tokens."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from segedu.validation.exporting import is_exporting


class Attention(nn.Module):
    """Multi-head self-attention: Vaswani et al., "Attention Is All You Need", 2017, arXiv 1706.03762, section 3.2.

    Keys of the state dict are those of DINO and timm: queries, keys and values from one linear map `qkv`.

    Args:
        embed_dim: D of the tokens, a multiple of num_heads.
        num_heads: how many sets of shares there are, each for D / num_heads of the numbers.
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim < 1 or embed_dim % num_heads:
            raise ValueError(f"embed_dim is {embed_dim}, expected a multiple of num_heads, which is {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def queries_keys_values(self, tokens: Tensor) -> Tensor:
        """What each token asks, offers and hands out.

        Args:
            tokens: (B, L, D).

        Returns:
            (3, B, heads, L, D / heads).
        """
        return self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)

    def shares(self, tokens: Tensor) -> Tensor:
        """How much each token takes from each: softmax of q k^T / sqrt(D / heads).

        Args:
            tokens: (B, L, D).

        Returns:
            (B, heads, L, L); each row, what one token takes, sums to 1.
        """
        queries, keys, _ = self.queries_keys_values(tokens)
        return (queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5).softmax(dim=-1)

    def forward(self, tokens: Tensor) -> Tensor:
        queries, keys, values = self.queries_keys_values(tokens)
        # the shares times the values, without the (L, L) table in memory
        gathered = F.scaled_dot_product_attention(queries, keys, values)  # (B, heads, L, D / heads)
        return self.proj(gathered.transpose(1, 2).flatten(2))


def attention_in_windows(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Attention of the tokens of each window to the tokens of the same window.

    Args:
        queries: (B, windows, heads, L, D / heads).
        keys: as the queries.
        values: as the queries.
        bias: added to the products of queries and keys; (heads, L, L), or (windows, heads, L, L).

    Returns:
        (B, windows, heads, L, D / heads).
    """
    if not is_exporting():
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
    # The operator of ONNX has four axes, and its translation expects values that are contiguous in memory.
    mask = bias.expand(*queries.shape[:-1], keys.shape[-2]).flatten(0, 1)
    merged = (tensor.flatten(0, 1).contiguous() for tensor in (queries, keys, values))
    gathered = F.scaled_dot_product_attention(*merged, attn_mask=mask)
    return gathered.contiguous().unflatten(0, queries.shape[:2])
