"""Transformer encoder and decoder of DETR: self-attention over the image, then cross-attention of queries to it.

As in DETR (Carion et al. 2020, arXiv 2005.12872, figure 10): the layers of "Attention Is All You Need" (Vaswani et al.
2017, arXiv 1706.03762), normalised after each sum, with two differences. Position encodings are added to the queries
and keys of every attention, never to the values; and all queries are decoded in parallel. Keys of the state dict are
DETR's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segedu.validation.numbers import check_integer, check_multiple


class EncoderLayer(nn.Module):
    """Self-attention over all tokens, followed by an MLP applied to each token.

    Args:
        embed_dim: D of the tokens, a multiple of num_heads.
        hidden: channels between the two linear layers.
        dropout: dropout probability on each residual branch.
    """

    def __init__(self, embed_dim: int, num_heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(embed_dim, num_heads, dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(embed_dim, hidden), nn.Linear(hidden, embed_dim)
        self.norm1, self.norm2 = nn.LayerNorm(embed_dim), nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, padding: Tensor, positions: Tensor) -> Tensor:
        queries = keys = tokens + positions  # (B, S, D)
        attended, _ = self.self_attn(queries, keys, tokens, key_padding_mask=padding, need_weights=False)
        tokens = self.norm1(tokens + self.dropout(attended))
        mlp = self.linear2(self.dropout(self.linear1(tokens).relu()))
        return self.norm2(tokens + self.dropout(mlp))


class DecoderLayer(nn.Module):
    """Self-attention among queries, which prevents duplicates, then cross-attention to the image, then an MLP.

    Args:
        embed_dim: D, a multiple of num_heads.
        num_heads: of both attentions.
        hidden: channels between the two linear layers.
        dropout: dropout probability on each residual branch.
    """

    def __init__(self, embed_dim: int, num_heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(embed_dim, num_heads, dropout, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(embed_dim, num_heads, dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(embed_dim, hidden), nn.Linear(hidden, embed_dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(embed_dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tgt: Tensor, query_pos: Tensor, memory: Tensor, padding: Tensor, positions: Tensor) -> Tensor:
        queries = keys = tgt + query_pos  # (B, Q, D)
        attended, _ = self.self_attn(queries, keys, tgt, need_weights=False)
        tgt = self.norm1(tgt + self.dropout(attended))
        queries, keys = tgt + query_pos, memory + positions  # (B, Q, D), (B, S, D)
        attended, _ = self.multihead_attn(queries, keys, memory, key_padding_mask=padding, need_weights=False)
        tgt = self.norm2(tgt + self.dropout(attended))
        mlp = self.linear2(self.dropout(self.linear1(tgt).relu()))
        return self.norm3(tgt + self.dropout(mlp))


class Transformer(nn.Module):
    """Encoder and decoder, with the output of every decoder layer under one shared normalisation.

    Args:
        embed_dim: D, a multiple of num_heads.
        num_heads: of each attention.
        encoder_layers: number of encoder layers; may be 0.
        decoder_layers: L, number of decoder layers.
        hidden: channels between the two linear layers.
        dropout: dropout probability on each residual branch.
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
        check_multiple("embed_dim", embed_dim, num_heads, of="num_heads")
        check_integer("encoder_layers", encoder_layers, minimum=0)
        check_integer("decoder_layers", decoder_layers)
        self.embed_dim, size = embed_dim, (embed_dim, num_heads, hidden, dropout)
        self.encoder, self.decoder = nn.Module(), nn.Module()
        self.encoder.layers = nn.ModuleList(EncoderLayer(*size) for _ in range(encoder_layers))
        self.decoder.layers = nn.ModuleList(DecoderLayer(*size) for _ in range(decoder_layers))
        self.decoder.norm = nn.LayerNorm(embed_dim)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, features: Tensor, padding: Tensor, positions: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Encode an image and decode all queries.

        Args:
            features: (B, D, h, w).
            padding: (B, h, w) bool, True for padding.
            positions: (B, D, h, w).
            queries: (Q, D), the learnt query embeddings.

        Returns:
            The output of each decoder layer (L, B, Q, D), and the encoded image (B, D, h, w).
        """
        memory, positions = (maps.flatten(2).transpose(1, 2) for maps in (features, positions))  # (B, h w, D)
        padding = padding.flatten(1)  # (B, h w)
        for layer in self.encoder.layers:
            memory = layer(memory, padding, positions)
        query_pos = queries.expand(len(memory), -1, -1)  # (B, Q, D)
        tgt, outputs = torch.zeros_like(query_pos), []
        for layer in self.decoder.layers:
            tgt = layer(tgt, query_pos, memory, padding, positions)
            outputs.append(self.decoder.norm(tgt))
        return torch.stack(outputs), memory.transpose(1, 2).unflatten(2, features.shape[2:])
