"""OneFormer: one network, trained once, for three tasks; a task token tells it which task to solve.

Paper: Jain, Li, Chiu, Hassani, Orlov, Shi, "OneFormer: One Transformer to Rule Universal Image Segmentation", CVPR
    2023, arXiv 2211.06220.
Idea: Mask2Former has one architecture for three tasks, but is trained separately for each. Here the sentence "the task
    is instance" becomes a token, and the queries are copies of this token, updated by a small transformer that attends
    to the image. So the queries depend on the task before they are decoded into segments. In training, each image gets
    a random task, and its targets for this task are derived from its panoptic targets. A contrastive loss with
    sentences about the segments (`oneformer_text`) keeps the queries of different tasks distinct.
Simplified: the model is given a function that tokenizes sentences; the authors use CLIP's, with 49,408 tokens. A
    trained network only needs the tokens of the three task sentences.
Shapes: images (B, 3, H, W), and a task for all or for each -> dict of Mask2Former's `class_logits` (B, Q, K + 1), "no
    object" last, `mask_logits` (B, Q, H / 4, W / 4), `aux_outputs`, `sizes` and `image_size`; `queries` (B, Q, D),
    conditioned on the task; and, if sentences are given, `text_queries` (B, Q, D) and `logit_scale` (). The functions
    of `inference` apply, as for Mask2Former.
Quality: every stage, the texts and the losses with their gradients equal those of Hugging Face's transformers at the
    same weights, on Swin, for images of any size. One small network, which starts from the small Mask2Former and learns
    all tasks at once for 2400 steps more, reaches on new streets, each task queried by its own word: semantic mIoU
    0.895, mask AP50 0.753, PQ 0.753; the Mask2Former 0.892, 0.727, 0.741 (python -m
    segedu.weights.own.street_oneformer).
Course: 15-panoptic
Lab: 15_universal
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segedu.backbones.swin import Swin, swin_t
from segedu.layers.instance_targets import Size
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.layers.onnx_outputs import onnx_outputs
from segedu.layers.transformer import DecoderLayer
from segedu.ops.crowds import without_crowds
from segedu.panoptic.mask2former.loss import mask2former_loss
from segedu.panoptic.mask2former.mask2former import MaskedDecoder
from segedu.panoptic.mask2former.pixel_decoder import PixelDecoder, position_of
from segedu.panoptic.oneformer_text import (
    TASKS,
    TextMapper,
    Tokenize,
    check_task,
    clip_task_tokens,
    contrastive_loss,
    task_sentence,
)
from segedu.validation.images import check_images, check_sizes
from segedu.validation.numbers import check_choice, check_length, check_number
from segedu.validation.tensors import check_keys


class TaskQueries(nn.Module):
    """Q - 1 copies of the task token, updated with attention to the image, and the token itself (section 3.2).

    Args:
        embed_dim: D of the queries and of the mask features.
        num_heads: of each attention.
        hidden: width of the hidden layer of the MLPs.
        layers: number of layers.
        dropout: dropout probability on each residual branch.
    """

    def __init__(
        self, embed_dim: int = 256, num_heads: int = 8, layers: int = 2, hidden: int = 2048, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.input_proj = nn.Conv2d(embed_dim, embed_dim, kernel_size=1)
        self.layers = nn.ModuleList(DecoderLayer(embed_dim, num_heads, hidden, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(embed_dim)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, task: Tensor, query_pos: Tensor, mask_features: Tensor) -> Tensor:
        B = len(mask_features)
        features = self.input_proj(mask_features).flatten(2).mT  # (B, h w, D)
        positions = position_of(mask_features).expand(B, -1, -1)
        query_pos = query_pos[:-1].expand(B, -1, -1)  # (B, Q - 1, D)
        queries = task[:, None].expand_as(query_pos)
        for layer in self.layers:
            # Paper: queries are updated with features. In the authors' code, and so in their weights, features and
            # positions are exchanged: features are only added to the keys, and the values are the positions.
            queries = layer(queries, query_pos, positions, None, features)
        return torch.cat([self.norm(queries), task[:, None]], dim=1)  # (B, Q, D)


class OneFormer(nn.Module):
    """Mask2Former with queries that are conditioned on a sentence about the task (figure 2).

    Args:
        backbone: images -> features fine to coarse, the last four of strides 4, 8, 16, 32; has their `channels`.
        pixel_decoder: applied to the last four features.
        decoder: of the same embed_dim D; its learned query content is removed, because the task queries replace it.
        task_queries: of the same embed_dim D.
        tokenize: sentence -> L token ids, for the task and for the sentences about segments.
        task_length: L.
        text: encodes sentences about segments, in training only; None: without sentences.
    """

    def __init__(
        self,
        backbone: nn.Module,
        pixel_decoder: PixelDecoder,
        decoder: MaskedDecoder,
        task_queries: TaskQueries,
        tokenize: Tokenize,
        task_length: int = 77,
        text: TextMapper | None = None,
    ) -> None:
        super().__init__()
        D = decoder.embed_dim
        check_choice("pixel_decoder.embed_dim", pixel_decoder.embed_dim, [D])
        check_choice("task_queries.embed_dim", task_queries.embed_dim, [D])
        self.backbone, self.pixel_decoder, self.decoder = backbone, pixel_decoder, decoder
        self.decoder.query_feat = None
        self.task_queries, self.tokenize, self.text = task_queries, tokenize, text
        self.task_mlp = nn.Sequential(nn.Linear(task_length, D), nn.ReLU(), nn.Linear(D, D))

    def forward(
        self,
        images: Tensor,
        sizes: Sequence[Size] | None = None,
        tasks: str | Sequence[str] = "panoptic",
        sentences: Sequence[Sequence[str]] | None = None,
    ) -> dict[str, Any]:
        check_images(images, self.backbone.in_channels)
        sizes = check_sizes(sizes, images)
        mask_features, levels = self.pixel_decoder(self.backbone(images)[-4:])
        # token ids are used as features, although their order means nothing: they only have to separate three tasks
        task = self.task_mlp(self._tokens(tasks, images).to(mask_features))  # (B, D)
        task = self.decoder.decoder_norm(task)
        queries = self.task_queries(task, self.decoder.query_embed.weight, mask_features)  # (B, Q, D)
        *aux, last = self.decoder(mask_features, levels, queries)
        outputs = {**last, "aux_outputs": aux, "sizes": sizes, "image_size": tuple(images.shape[-2:])}
        return onnx_outputs({**outputs, "queries": queries, **self._encode(sentences, queries)})

    def _tokens(self, tasks: str | Sequence[str], images: Tensor) -> Tensor:
        """Token ids (B, L) of the task sentences."""
        tasks = [tasks] * len(images) if isinstance(tasks, str) else tasks
        check_length("tasks", tasks, len(images), of="image")
        return torch.stack([self.tokenize(task_sentence(task)) for task in tasks]).to(images.device)

    def _encode(self, sentences: Sequence[Sequence[str]] | None, queries: Tensor) -> dict[str, Tensor]:
        """Encode the sentences of B images, as many for each as there are queries without learned context."""
        if sentences is None:
            return {}
        if self.text is None:
            raise ValueError("sentences was given, expected None, because the model has no `text` encoder")
        B, Q, _ = queries.shape
        check_length("sentences", sentences, B, of="image")
        for b, lines in enumerate(sentences):
            check_length(f"sentences[{b}]", lines, Q - len(self.text.context))
        token_ids = {line: self.tokenize(line) for line in {line for lines in sentences for line in lines}}
        tokens = torch.stack([torch.stack([token_ids[line] for line in lines]) for lines in sentences])  # (B, N, L)
        return {"text_queries": self.text(tokens.to(queries.device)), "logit_scale": self.text.logit_scale}


def oneformer_swin_tiny(num_classes: int = 150, num_queries: int = 150, text: TextMapper | None = None) -> OneFormer:
    """The paper's network on Swin-T, 51 million parameters, with CLIP's tokens of the three task sentences.

    Args:
        num_classes: K; 150 for ADE20K.
        num_queries: Q.
        text: encodes sentences, for training.
    """
    return _with_backbone(swin_t(normalize=_normalize(), dense=True), num_classes, num_queries, text)


def oneformer_swin_large(num_classes: int = 133, num_queries: int = 150, text: TextMapper | None = None) -> OneFormer:
    """The paper's network on Swin-L with windows of 12 x 12 tokens, 219 million parameters.

    Args:
        num_classes: K; 133 for COCO's things and stuff.
        num_queries: Q; 150 for COCO, 250 for ADE20K and Cityscapes.
        text: encodes sentences, for training.
    """
    sizes: Any = (192, (2, 2, 18, 2), (6, 12, 24, 48))
    return _with_backbone(
        Swin(*sizes, window_size=12, normalize=_normalize(), dense=True), num_classes, num_queries, text
    )


def _normalize() -> Normalize:
    return Normalize(IMAGENET_MEAN, IMAGENET_STD)


def _with_backbone(backbone: Swin, num_classes: int, num_queries: int, text: TextMapper | None) -> OneFormer:
    pixels, decoder = PixelDecoder(backbone.channels), MaskedDecoder(num_classes, num_queries)
    return OneFormer(backbone, pixels, decoder, TaskQueries(), clip_task_tokens, text=text)


def sample_tasks(count: int, generator: torch.Generator | None = None) -> list[str]:
    """Sample a task for each of `count` images of a training batch, uniformly (section 3.1)."""
    return [TASKS[i] for i in torch.randint(len(TASKS), (count,), generator=generator).tolist()]


def task_targets(target: Mapping[str, Tensor], task: str, things: Collection[int]) -> dict[str, Tensor]:
    """Derive the targets of a task from panoptic segments (section 3.1).

    Panoptic: all segments. Instance: segments of things. Semantic: the segments of each class merged into one.

    Args:
        target: `labels` (N,) int64 and `masks` (N, H, W) bool: one segment per thing, one per class of stuff; N may be
            0. If it has `iscrowd` (N,), crowds are left out.
        task: "panoptic", "instance" or "semantic".
        things: categories that have instances.

    Returns:
        A dict of new `labels` and `masks`.

    >>> masks = torch.tensor([[[1, 0, 0]], [[0, 1, 0]], [[0, 0, 1]]]).bool()
    >>> cars_on_road = {"labels": torch.tensor([1, 0, 1]), "masks": masks}
    >>> {task: task_targets(cars_on_road, task, things={1})["labels"].tolist() for task in TASKS}
    {'panoptic': [1, 0, 1], 'instance': [1, 1], 'semantic': [0, 1]}
    """
    check_keys("target", target, ("labels", "masks"))
    target = without_crowds(target)
    labels, masks = target["labels"], target["masks"]
    if check_task(task) == "semantic":
        classes = labels.unique()
        merged = [masks[labels == k].any(dim=0) for k in classes]
        return {"labels": classes, "masks": torch.stack(merged) if merged else masks[:0]}
    is_thing = torch.isin(labels, torch.tensor(sorted(things), dtype=labels.dtype, device=labels.device))
    keep = is_thing if task == "instance" else slice(None)
    return {"labels": labels[keep], "masks": masks[keep]}


def oneformer_loss(
    outputs: Mapping[str, Any],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    contrastive_weight: float = 0.5,
    **options: Any,
) -> dict[str, Tensor]:
    """Mask2Former's loss on the targets of each image's task, and the contrastive loss.

    Args:
        outputs: of `OneFormer`.
        targets: B dicts of `labels` and `masks`, of `task_targets`.
        contrastive_weight: of the contrastive loss of queries and texts, which is 0 without texts.
        **options: arguments of `mask2former_loss`.

    Returns:
        The scalars of `mask2former_loss`, `contrastive`, weighted, and `loss`, their sum.
    """
    check_number("contrastive_weight", contrastive_weight)
    check_keys("outputs", outputs, ("queries",))
    losses = mask2former_loss(outputs, targets, **options)
    total = losses.pop("loss")
    contrastive = total.new_zeros(())
    if "text_queries" in outputs:
        check_keys("outputs", outputs, ("logit_scale",))
        contrastive = contrastive_loss(outputs["queries"], outputs["text_queries"], outputs["logit_scale"])
    contrastive = contrastive_weight * contrastive
    return {**losses, "contrastive": contrastive, "loss": total + contrastive}
