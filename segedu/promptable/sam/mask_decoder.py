"""SAM's mask decoder: two-way attention between prompts and image, then four mask tokens become four masks.

Paper: Kirillov, Mintun, Ravi et al., "Segment Anything", ICCV 2023, arXiv 2304.02643, appendix A and figure 14.
Idea: Five learned tokens are added to the prompt's vectors: one for each of four masks, and one that predicts their
    quality. In each of two layers the tokens attend to each other, then to the image, and then the image attends to the
    tokens, so the image embedding also depends on the prompt. It is upsampled four times, and a small network turns
    each mask token into the weights of a linear classifier, which is applied at every location.
Simplified: nothing. The image's part of the first layer, which is the same for all prompts, is computed once.
Shapes: embeddings (B, D, h, w), their positions (D, h, w), sparse prompts (B, N, T, D), dense prompts
    (B, N, D, h, w) or (1, 1, D, 1, 1) -> mask logits (B, N, M + 1, 4 h, 4 w) and their scores (B, N, M + 1): the one
    mask, then the M = 3.
Quality: equal to Meta's segment-anything at the same weights (tests/promptable).
Course: 16-promptable
Lab: 16_promptable
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.layers.layer_norm import LayerNorm2d
from segedu.layers.relu_layers import ReLULayers
from segedu.promptable.sam.image_encoder import MLP
from segedu.validation.numbers import check_integer, check_multiple


class MaskDecoder(nn.Module):
    """Tokens, two-way transformer, upsampling, and the heads; state dict keys as in the authors' files.

    Args:
        transformer: a `TwoWayTransformer` whose embed_dim is D, a multiple of 8.
        num_masks: M, masks for an ambiguous prompt; one more mask is for prompts that are not ambiguous.
        iou_hidden: width of the hidden layers of the head that predicts the IoU of each mask.
    """

    def __init__(self, transformer: TwoWayTransformer, num_masks: int = 3, iou_hidden: int = 256) -> None:
        super().__init__()
        embed_dim, count = transformer.embed_dim, num_masks + 1
        check_multiple("transformer.embed_dim", embed_dim, 8)
        check_integer("num_masks", num_masks)
        self.transformer = transformer
        self.iou_token = nn.Embedding(1, embed_dim)
        self.mask_tokens = nn.Embedding(count, embed_dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(embed_dim, embed_dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(embed_dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(embed_dim // 4, embed_dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        widths = (embed_dim, embed_dim, embed_dim, embed_dim // 8)
        self.output_hypernetworks_mlps = nn.ModuleList(ReLULayers(*widths) for _ in range(count))
        self.iou_prediction_head = ReLULayers(embed_dim, iou_hidden, iou_hidden, count)

    def forward(
        self, image_embeddings: Tensor, positions: Tensor, sparse_embeddings: Tensor, dense_embeddings: Tensor
    ) -> tuple[Tensor, Tensor]:
        B, N = sparse_embeddings.shape[:2]
        h, w = image_embeddings.shape[-2:]
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(B, N, -1, -1)
        tokens = torch.cat([output_tokens, sparse_embeddings], dim=2)
        image = (image_embeddings[:, None] + dense_embeddings).flatten(3).mT  # (B, 1 or N, L, D)
        tokens, image = self.transformer(tokens, image, positions.flatten(1).mT)
        iou_token, mask_tokens = tokens[:, :, 0], tokens[:, :, 1 : output_tokens.shape[2]].unbind(2)
        fine = self.output_upscaling(image.mT.unflatten(3, (h, w)).flatten(0, 1)).unflatten(0, (B, N))
        pairs = zip(self.output_hypernetworks_mlps, mask_tokens, strict=True)
        classifiers = torch.stack([network(token) for network, token in pairs], dim=2)  # (B, N, M + 1, D / 8)
        mask_logits = (classifiers @ fine.flatten(3)).unflatten(3, fine.shape[-2:])  # (B, N, M + 1, 4 h, 4 w)
        return mask_logits, self.iou_prediction_head(iou_token)


class TwoWayTransformer(nn.Module):
    """Layers with attention in both directions, and a final attention from the tokens to the image.

    Args:
        embed_dim: D.
        depth: number of layers.
        num_heads: number of heads of every attention.
        hidden: width of the hidden layer of the MLP on the tokens.
    """

    def __init__(self, embed_dim: int = 256, depth: int = 2, num_heads: int = 8, hidden: int = 2048) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.layers = nn.ModuleList(TwoWayLayer(embed_dim, num_heads, hidden, first=i == 0) for i in range(depth))
        self.final_attn_token_to_image = CrossAttention(embed_dim, num_heads, embed_dim // 2)
        self.norm_final_attn = nn.LayerNorm(embed_dim)

    def forward(self, tokens: Tensor, image: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        prompt = tokens  # the initial tokens are added in every attention, like positions
        for layer in self.layers:
            tokens, image = layer(tokens, image, prompt, positions)
        tokens = tokens + self.final_attn_token_to_image(tokens + prompt, image + positions, image)
        return self.norm_final_attn(tokens), image


class TwoWayLayer(nn.Module):
    """Self-attention of the tokens, tokens to image, an MLP on the tokens, image to tokens (figure 14).

    Args:
        embed_dim: D.
        num_heads: number of heads of every attention.
        hidden: width of the hidden layer of the MLP.
        first: whether this is the first layer. Its tokens still are the prompt, so the prompt is not added to them.
    """

    def __init__(self, embed_dim: int, num_heads: int, hidden: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = CrossAttention(embed_dim, num_heads, embed_dim)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.cross_attn_token_to_image = CrossAttention(embed_dim, num_heads, embed_dim // 2)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.mlp = MLP(embed_dim, hidden, nn.ReLU)
        self.norm3 = nn.LayerNorm(embed_dim)
        self.cross_attn_image_to_token = CrossAttention(embed_dim, num_heads, embed_dim // 2)
        self.norm4 = nn.LayerNorm(embed_dim)

    def forward(self, tokens: Tensor, image: Tensor, prompt: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        if self.first:  # Paper: does not mention that there is no residual connection here; the authors' code has none
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            tokens = tokens + self.self_attn(tokens + prompt, tokens + prompt, tokens)
        tokens = self.norm1(tokens)
        positioned = image + positions
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + prompt, positioned, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(positioned, tokens + prompt, tokens))
        return tokens, image


class CrossAttention(nn.Module):
    """Attention with a smaller inner width, which halves the computation if it is half of `embed_dim`.

    Queries, or keys and values, may have a length of 1 on the axis of the N prompts.

    Args:
        embed_dim: D of inputs and outputs.
        num_heads: number of heads of the attention.
        inner_dim: width of queries, keys and values, a multiple of num_heads.
    """

    def __init__(self, embed_dim: int, num_heads: int, inner_dim: int) -> None:
        super().__init__()
        check_multiple("inner_dim", inner_dim, num_heads, of="num_heads")
        self.num_heads = num_heads
        self.q_proj = nn.Linear(embed_dim, inner_dim)
        self.k_proj = nn.Linear(embed_dim, inner_dim)
        self.v_proj = nn.Linear(embed_dim, inner_dim)
        self.out_proj = nn.Linear(inner_dim, embed_dim)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        B, N = queries.shape[0], max(queries.shape[1], keys.shape[1])
        pairs = ((self.q_proj, queries), (self.k_proj, keys), (self.v_proj, values))  # (B, 1 or N, L, D)
        q, k, v = (self._heads(linear(x)).expand(B, N, -1, -1, -1).flatten(0, 1) for linear, x in pairs)
        attended = F.scaled_dot_product_attention(q, k, v)  # (B N, heads, L, d)
        return self.out_proj(attended.transpose(1, 2).flatten(2)).unflatten(0, (B, N))

    def _heads(self, vectors: Tensor) -> Tensor:
        return vectors.unflatten(-1, (self.num_heads, -1)).transpose(2, 3)  # (B, 1 or N, heads, L, d)
