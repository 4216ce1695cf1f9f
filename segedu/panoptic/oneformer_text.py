"""OneFormer's text encoder: one sentence per segment of an image, encoded for the contrastive loss with the queries.

Paper: Jain, Li, Chiu, Hassani, Orlov, Shi, "OneFormer: One Transformer to Rule Universal Image Segmentation", CVPR
    2023, arXiv 2211.06220, sections 3.1 to 3.3.
Idea: In training, the segments of an image are also described in words, "a photo with a car" for each, padded with "a
    semantic photo". A small transformer encodes each sentence. The contrastive loss makes the queries of an image more
    similar to its own sentences than to those of the other images of the batch, so they learn which task is requested,
    and which classes differ. None of this is needed at inference.
Simplified: tokenization is left to a function. `WordTokenizer` has a vocabulary of a few words; `clip_task_tokens` only
    has the three sentences that the authors' trained weights need. To train with their tokens, pass CLIP's tokenizer.
Shapes: sentences (B, N, L) int64 -> (B, N + C, D), the last C learned and the same for all images.
Quality: equal to Hugging Face's transformers at the same weights, and so is the loss with its gradients (its tests).
Course: 15-panoptic
Lab: 15_universal
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from segedu.losses.reduction import full_precision
from segedu.validation.numbers import check_choice
from segedu.validation.tensors import check_floats

Tokenize = Callable[[str], Tensor]  # sentence -> (L,) int64, 0 after its end, whose id is the largest

TASKS = ("panoptic", "instance", "semantic")
TEMPERATURE = 0.07  # initial value
MAX_LOGIT_SCALE = 100.0  # largest factor of the similarities, as in CLIP

# CLIP's byte-pair tokens of "the task is ...": start, the, task, is, one or two tokens, end.
_CLIP_TASKS = {
    "panoptic": (49406, 518, 10549, 533, 1072, 24755, 49407),
    "instance": (49406, 518, 10549, 533, 34572, 49407),
    "semantic": (49406, 518, 10549, 533, 29119, 1550, 49407),
}


def task_sentence(task: str) -> str:
    """The sentence that describes a task.

    >>> task_sentence("instance")
    'the task is instance'
    """
    return f"the task is {check_task(task)}"


def segment_sentences(labels: Tensor, task: str, class_names: Sequence[str], count: int) -> list[str]:
    """Describe each segment by its class in a sentence, sorted by class; pad with sentences that only name the task.

    Args:
        labels: (N,) int64, the classes of the segments of the task; N may be 0.
        task: "panoptic", "instance" or "semantic".
        class_names: K names.
        count: number of sentences; further segments are left out.

    >>> segment_sentences(torch.tensor([1, 0, 1]), "instance", ["bus", "car"], 4)
    ['a photo with a bus', 'a photo with a car', 'a photo with a car', 'an instance photo']
    """
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(class_names):
        raise ValueError(f"labels has the values {labels.tolist()}, expected 0 to {len(class_names) - 1}")
    sentences = [f"a photo with a {class_names[k]}" for k in labels.sort().values.tolist()]
    return (sentences + [_padding_sentence(task)] * count)[:count]


def _padding_sentence(task: str) -> str:
    return f"{'an' if check_task(task) == 'instance' else 'a'} {task} photo"


def check_task(task: str) -> str:
    """Check that a task is one of the three."""
    check_choice("task", task, TASKS)
    return task


class WordTokenizer:
    """Tokenizer with one id per word of a small vocabulary: 0 for padding, the words in alphabetical order, the end.

    Args:
        words: words of the vocabulary, or sentences of them.
        length: L, token ids per sentence, with the end.
    """

    def __init__(self, words: Iterable[str], length: int) -> None:
        self.ids = {word: i for i, word in enumerate(sorted({w for line in words for w in line.split()}), start=1)}
        self.length = length

    @classmethod
    def of_classes(cls, class_names: Sequence[str]) -> WordTokenizer:
        """The tokenizer of all sentences of OneFormer over these classes, with the smallest possible length."""
        lines = [sentence(task) for sentence in (task_sentence, _padding_sentence) for task in TASKS]
        lines += [f"a photo with a {name}" for name in class_names]
        return cls(lines, 1 + max(len(line.split()) for line in lines))

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return len(self.ids) + 2

    def __call__(self, sentence: str) -> Tensor:
        """Token ids (L,) int64 of a sentence.

        Args:
            sentence: words separated by spaces; upper case is ignored.

        >>> WordTokenizer(["the task is", "panoptic"], 6)("The task is panoptic")
        tensor([4, 3, 1, 2, 5, 0])
        """
        words = sentence.lower().split()
        unknown = [word for word in words if word not in self.ids]
        if unknown:
            raise ValueError(
                f"sentence contains {', '.join(unknown)}, expected words of the vocabulary: {', '.join(self.ids)}"
            )
        if len(words) >= self.length:
            raise ValueError(f"sentence has {len(words)} words, expected at most {self.length - 1}")
        ids = [*(self.ids[word] for word in words), len(self.ids) + 1]
        return torch.tensor(ids + [0] * (self.length - len(ids)))


def clip_task_tokens(sentence: str) -> Tensor:
    """CLIP's token ids (77,) of "the task is panoptic", "... instance" and "... semantic".

    Other sentences raise `ValueError`: they need CLIP's tokenizer, with its vocabulary file of 49,408 tokens.

    >>> clip_task_tokens("the task is instance")[:7]
    tensor([49406,   518, 10549,   533, 34572, 49407,     0])
    """
    for task, ids in _CLIP_TASKS.items():
        if sentence.lower() == task_sentence(task):
            return torch.tensor(ids + (0,) * (77 - len(ids)))
    expected = ", ".join(repr(task_sentence(task)) for task in TASKS)
    raise ValueError(
        f"sentence is {sentence!r}, expected one of {expected}. Use CLIP's own tokenizer for other sentences"
    )


class TextLayer(nn.Module):
    """Self-attention over all tokens and an MLP, each after a layer normalisation: CLIP's block.

    Args:
        width: of a token, a multiple of num_heads.
        num_heads: of the attention.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attn = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.layer_norm1(tokens)
        # CLIP's attention is causal; here tokens attend to all tokens, even padding, as in the trained weights
        tokens = tokens + self.self_attn(normed, normed, normed, need_weights=False)[0]
        hidden = self.fc1(self.layer_norm2(tokens))
        return tokens + self.fc2(hidden * (1.702 * hidden).sigmoid())  # CLIP's quick GELU


class TextEncoder(nn.Module):
    """Encode sentences into one vector each: the last-layer state of the end token.

    Args:
        vocab_size: number of token ids.
        length: L, tokens per sentence.
        width: of a token.
        depth: number of layers.
        num_heads: of each attention; None: one per 64 of the width.
    """

    def __init__(self, vocab_size: int, length: int, width: int, depth: int, num_heads: int | None = None) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(length, width))
        self.layers = nn.Sequential(*(TextLayer(width, num_heads or max(1, width // 64)) for _ in range(depth)))
        self.ln_final = nn.LayerNorm(width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, sentences: Tensor) -> Tensor:
        tokens = self.layers(self.token_embedding(sentences) + self.positional_embedding)  # (S, L, width)
        ends = sentences.argmax(dim=-1)  # the end has the largest id
        return self.ln_final(tokens)[torch.arange(len(tokens), device=tokens.device), ends]  # (S, width)


class TextMapper(nn.Module):
    """Map the sentences of images to vectors like queries, with the learned temperature of the contrastive loss.

    Args:
        encoder: of sentences.
        embed_dim: D of the queries.
        num_context: C, learned vectors that follow those of the sentences in every image; may be 0.
    """

    def __init__(self, encoder: TextEncoder, embed_dim: int = 256, num_context: int = 16) -> None:
        super().__init__()
        width = encoder.token_embedding.embedding_dim
        self.encoder = encoder
        self.projector = nn.Sequential(nn.Linear(width, embed_dim), nn.ReLU(), nn.Linear(embed_dim, embed_dim))
        self.context = nn.Parameter(torch.randn(num_context, embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / TEMPERATURE)))

    def forward(self, sentences: Tensor) -> Tensor:
        # most sentences of a batch are equal, so each is encoded once
        unique, indices = sentences.flatten(0, 1).unique(dim=0, return_inverse=True)
        texts = self.projector(self.encoder(unique))[indices].unflatten(0, sentences.shape[:2])  # (B, N, D)
        return torch.cat([texts, self.context.expand(len(texts), -1, -1)], dim=1)


def contrastive_loss(queries: Tensor, texts: Tensor, logit_scale: Tensor) -> Tensor:
    """Contrastive loss between the queries and the texts of the images of a batch (section 3.3), in both directions.

    All queries of an image are concatenated to one vector of length 1, and so are its texts. Similarities are divided
    by a learned temperature.

    Args:
        queries: (B, Q, D), conditioned on the task, before they are decoded into segments.
        texts: (B, Q, D).
        logit_scale: scalar, the logarithm of 1 / temperature; the factor is at most 100.

    Returns:
        A scalar: the sum of both cross-entropies, each a mean over the images. With one image it is 0.

    >>> queries = torch.eye(2)[:, None]  # two images, one query each
    >>> contrastive_loss(queries, queries, torch.tensor(0.0))  # 2 log(1 + 1 / e)
    tensor(0.6265)
    """
    check_floats("texts", texts, "B Q D", check_floats("queries", queries, "B Q D"))
    queries, texts = (nn.functional.normalize(full_precision(x).flatten(1), dim=-1) for x in (queries, texts))
    logits = queries @ texts.mT * logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)  # (B, B)
    target = torch.arange(len(logits), device=logits.device)
    return nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.mT, target)
