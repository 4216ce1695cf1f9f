"""Self-attention over all tokens, and attention within windows."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from segedu.validation.exporting import is_exporting
from segedu.validation.numbers import check_multiple


class Attention(nn.Module):
    """Multi-head self-attention: Vaswani et al., "Attention Is All You Need", 2017, arXiv 1706.03762, section 3.2.

    Keys of the state dict are those of DINO and timm: queries, keys and values come from one linear map `qkv`.

    Args:
        embed_dim: D of the tokens, a multiple of num_heads.
        num_heads: number of heads, each with D / num_heads channels.
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        check_multiple("embed_dim", embed_dim, num_heads, of="num_heads")
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def queries_keys_values(self, tokens: Tensor) -> Tensor:
        """Queries, keys and values (3, B, heads, L, D / heads) of tokens (B, L, D)."""
        return self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)

    def attention_weights(self, tokens: Tensor) -> Tensor:
        """Attention weights softmax(q k^T / sqrt(D / heads)) of tokens (B, L, D).

        Returns:
            (B, heads, L, L). Row i holds the weights with which token i attends to all tokens; they sum to 1.
        """
        queries, keys, _ = self.queries_keys_values(tokens)
        return (queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5).softmax(dim=-1)

    def forward(self, tokens: Tensor) -> Tensor:
        queries, keys, values = self.queries_keys_values(tokens)
        # attention_weights times the values, without the (L, L) matrix in memory
        attended = F.scaled_dot_product_attention(queries, keys, values)  # (B, heads, L, D / heads)
        return self.proj(attended.transpose(1, 2).flatten(2))


def attention_in_windows(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Attention of the tokens of each window to the tokens of the same window.

    Args:
        queries: (B, windows, heads, L, D / heads), as keys and values.
        bias: added to the products of queries and keys; (heads, L, L), or (windows, heads, L, L).

    Returns:
        (B, windows, heads, L, D / heads).
    """
    if not is_exporting():
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
    # The operator of ONNX has four axes, and its translation expects values that are contiguous in memory.
    attn_mask = bias.expand(*queries.shape[:-1], keys.shape[-2]).flatten(0, 1)
    merged = (tensor.flatten(0, 1).contiguous() for tensor in (queries, keys, values))
    attended = F.scaled_dot_product_attention(*merged, attn_mask=attn_mask)
    return attended.contiguous().unflatten(0, queries.shape[:2])
