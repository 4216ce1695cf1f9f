"""Encoder and decoder of attention: places of an image look at each other, then queries look at the places.

As in DETR (Carion et al. 2020, arXiv 2005.12872, figure 10): the layers of "Attention Is All You Need" (Vaswani et al.
2017, arXiv 1706.03762), normalised behind each sum, with two differences. Positions are added to queries and keys
of every attention, never to values; and all queries are decoded at once. Keys of the state dict are DETR's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EncoderLayer(nn.Module):
    """All tokens gather from all, then each thinks alone.

    Args:
        embed_dim: D of the tokens, a multiple of num_heads.
        num_heads: of the attention.
        hidden: numbers between the two linear maps.
        dropout: share of the numbers of each correction that is left out in training.
    """

    def __init__(self, embed_dim: int, num_heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(embed_dim, num_heads, dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(embed_dim, hidden), nn.Linear(hidden, embed_dim)
        self.norm1, self.norm2 = nn.LayerNorm(embed_dim), nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, padding: Tensor, positions: Tensor) -> Tensor:
        placed = tokens + positions  # (B, S, D)
        gathered, _ = self.self_attn(placed, placed, tokens, key_padding_mask=padding, need_weights=False)
        tokens = self.norm1(tokens + self.dropout(gathered))
        thought = self.linear2(self.dropout(self.linear1(tokens).relu()))
        return self.norm2(tokens + self.dropout(thought))


class DecoderLayer(nn.Module):
    """Queries look at each other, so that no two say the same, then at the tokens, then each thinks alone.

    Args:
        embed_dim: D, a multiple of num_heads.
        num_heads: of both attentions.
        hidden: numbers between the two linear maps.
        dropout: share of the numbers of each correction that is left out in training.
    """

    def __init__(self, embed_dim: int, num_heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(embed_dim, num_heads, dropout, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(embed_dim, num_heads, dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(embed_dim, hidden), nn.Linear(hidden, embed_dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(embed_dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, queries: Tensor, memory: Tensor, padding: Tensor, positions: Tensor) -> Tensor:
        asking = states + queries  # (B, Q, D)
        gathered, _ = self.self_attn(asking, asking, states, need_weights=False)
        states = self.norm1(states + self.dropout(gathered))
        gathered, _ = self.multihead_attn(
            states + queries, memory + positions, memory, key_padding_mask=padding, need_weights=False
        )
        states = self.norm2(states + self.dropout(gathered))
        thought = self.linear2(self.dropout(self.linear1(states).relu()))
        return self.norm3(states + self.dropout(thought))


class Transformer(nn.Module):
    """Encoder and decoder; the states behind every layer of the decoder are kept, each under the same normalisation.

    Args:
        embed_dim: D, a multiple of num_heads.
        num_heads: of each attention.
        encoder_layers: how many; may be 0.
        decoder_layers: L, how many.
        hidden: numbers between the two linear maps of a layer.
        dropout: share of the numbers of each correction that is left out in training.
    """

    def __init__(
        self,
        embed_dim: int = 256,
        num_heads: int = 8,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        hidden: int = 2048,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim < 1 or embed_dim % num_heads:
            raise ValueError(f"embed_dim is {embed_dim}, expected a multiple of num_heads, which is {num_heads}")
        if encoder_layers < 0 or decoder_layers < 1:
            given = f"{encoder_layers} and {decoder_layers}"
            raise ValueError(f"encoder_layers and decoder_layers are {given}, expected at least 0 and 1")
        self.embed_dim, size = embed_dim, (embed_dim, num_heads, hidden, dropout)
        self.encoder, self.decoder = nn.Module(), nn.Module()
        self.encoder.layers = nn.ModuleList(EncoderLayer(*size) for _ in range(encoder_layers))
        self.decoder.layers = nn.ModuleList(DecoderLayer(*size) for _ in range(decoder_layers))
        self.decoder.norm = nn.LayerNorm(embed_dim)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, features: Tensor, padding: Tensor, positions: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D, h, w), padding (B, h, w) bool, positions (B, D, h, w), queries (Q, D).

        Returns:
            The states of the queries behind each decoder layer, (L, B, Q, D), and the encoded places, (B, D, h, w).
        """
        memory, positions = (maps.flatten(2).transpose(1, 2) for maps in (features, positions))  # (B, h w, D)
        padding = padding.flatten(1)  # (B, h w)
        for layer in self.encoder.layers:
            memory = layer(memory, padding, positions)
        queries = queries.expand(len(memory), -1, -1)  # (B, Q, D)
        states, behind = torch.zeros_like(queries), []
        for layer in self.decoder.layers:
            states = layer(states, queries, memory, padding, positions)
            behind.append(self.decoder.norm(states))
        return torch.stack(behind), memory.transpose(1, 2).unflatten(2, features.shape[2:])
