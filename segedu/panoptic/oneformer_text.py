"""OneFormer's text: a sentence for each segment of a picture, encoded, for its queries to be compared with.

Paper: Jain, Li, Chiu, Hassani, Orlov, Shi, "OneFormer: One Transformer to Rule Universal Image Segmentation", CVPR
    2023, arXiv 2211.06220, sections 3.1 to 3.3.
Idea: In training, a picture's segments are also written down, "a photo with a car" for each, filled up with "a
    semantic photo". A small transformer reads each sentence, and the queries of a picture shall be nearer to its own
    sentences than to those of the batch's other pictures: so they learn which task is asked, and which classes differ.
    Nothing of this is needed afterwards.
Simplified: how words become numbers is left to a function. `WordTokenizer` knows a few words; `clip_task_tokens` only
    the three sentences that a trained file of the authors is asked with. To train on their numbers, give CLIP's own.
Shapes: sentences (B, N, L) int64 -> (B, N + C, D), the C last learnt and the same for all pictures.
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
from segedu.validation.tensors import check_floats

Tokenize = Callable[[str], Tensor]  # sentence -> (L,) int64, 0 behind its end, the end's number the largest

TASKS = ("panoptic", "instance", "semantic")
TEMPERATURE = 0.07  # where it starts
SHARPEST = 100.0  # largest factor of the similarities, as in CLIP

# What CLIP's vocabulary of byte pairs makes of "the task is ...": start, the, task, is, one or two pieces, end.
_CLIP_TASKS = {
    "panoptic": (49406, 518, 10549, 533, 1072, 24755, 49407),
    "instance": (49406, 518, 10549, 533, 34572, 49407),
    "semantic": (49406, 518, 10549, 533, 29119, 1550, 49407),
}


def task_sentence(task: str) -> str:
    """What the model is told of its task.

    Args:
        task: "panoptic", "instance" or "semantic".

    Returns:
        A sentence.

    Raises:
        ValueError: another task.

    >>> task_sentence("instance")
    'the task is instance'
    """
    return f"the task is {check_task(task)}"


def segment_sentences(labels: Tensor, task: str, class_names: Sequence[str], count: int) -> list[str]:
    """A sentence for each segment, by class; the rest says the task only.

    Args:
        labels: (N,) int64, the classes of the segments that the task asks for; N may be 0.
        task: "panoptic", "instance" or "semantic".
        class_names: K names.
        count: of sentences; segments beyond it have none.

    Returns:
        `count` sentences.

    Raises:
        ValueError: another task, or a label without a name.

    >>> segment_sentences(torch.tensor([1, 0, 1]), "instance", ["bus", "car"], 4)
    ['a photo with a bus', 'a photo with a car', 'a photo with a car', 'an instance photo']
    """
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(class_names):
        raise ValueError(f"labels has the values {labels.tolist()}, expected 0 to {len(class_names) - 1}")
    told = [f"a photo with a {class_names[k]}" for k in labels.sort().values.tolist()]
    return (told + [_photo(task)] * count)[:count]


def _photo(task: str) -> str:
    return f"{'an' if check_task(task) == 'instance' else 'a'} {task} photo"


def check_task(task: str) -> str:
    """Refuse what is none of the three tasks.

    Args:
        task: "panoptic", "instance" or "semantic".

    Returns:
        The task.

    Raises:
        ValueError: another task.
    """
    if task not in TASKS:
        raise ValueError(f"task is {task!r}, expected one of {', '.join(TASKS)}")
    return task


class WordTokenizer:
    """A number for each word of a few: 0 is for nothing, then the words in the order of the alphabet, then the end.

    Args:
        words: that may occur, or sentences of them.
        length: L, numbers of a sentence, its end counted.
    """

    def __init__(self, words: Iterable[str], length: int) -> None:
        self.ids = {word: i for i, word in enumerate(sorted({w for line in words for w in line.split()}), start=1)}
        self.length = length

    @classmethod
    def of_classes(cls, class_names: Sequence[str]) -> WordTokenizer:
        """All sentences of OneFormer over these classes, as short as they can be.

        Args:
            class_names: K names.

        Returns:
            The tokenizer.
        """
        asked, photos = [task_sentence(task) for task in TASKS], [_photo(task) for task in TASKS]
        lines = [*asked, *photos, *(f"a photo with a {name}" for name in class_names)]
        return cls(lines, 1 + max(len(line.split()) for line in lines))

    @property
    def vocabulary(self) -> int:
        """How many numbers there are."""
        return len(self.ids) + 2

    def __call__(self, sentence: str) -> Tensor:
        """Numbers of a sentence.

        Args:
            sentence: words with spaces in between; upper case counts as lower case.

        Returns:
            (L,) int64.

        Raises:
            ValueError: a word is not known, or there are too many.

        >>> WordTokenizer(["the task is", "panoptic"], 6)("The task is panoptic")
        tensor([4, 3, 1, 2, 5, 0])
        """
        words = sentence.lower().split()
        unknown = [word for word in words if word not in self.ids]
        if unknown:
            raise ValueError(f"sentence has the words {', '.join(unknown)}, expected of {', '.join(self.ids)}")
        if len(words) >= self.length:
            raise ValueError(f"sentence has {len(words)} words, expected at most {self.length - 1}")
        ids = [*(self.ids[word] for word in words), len(self.ids) + 1]
        return torch.tensor(ids + [0] * (self.length - len(ids)))


def clip_task_tokens(sentence: str) -> Tensor:
    """What CLIP's tokenizer makes of "the task is panoptic", "... instance" and "... semantic".

    Args:
        sentence: one of these three.

    Returns:
        (77,) int64.

    Raises:
        ValueError: another sentence: that needs CLIP's tokenizer, with its file of 49,408 pieces of words.

    >>> clip_task_tokens("the task is instance")[:7]
    tensor([49406,   518, 10549,   533, 34572, 49407,     0])
    """
    for task, ids in _CLIP_TASKS.items():
        if sentence.lower() == task_sentence(task):
            return torch.tensor(ids + (0,) * (77 - len(ids)))
    known = ", ".join(repr(task_sentence(task)) for task in TASKS)
    raise ValueError(f"sentence is {sentence!r}, expected one of {known}; for others give CLIP's own tokenizer")


class TextLayer(nn.Module):
    """All words look at all, then each thinks alone; normalised before each: CLIP's block.

    Args:
        width: of a word's state, a multiple of num_heads.
        num_heads: of the attention.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attn = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, words: Tensor) -> Tensor:
        normed = self.layer_norm1(words)
        # CLIP's words look back only; these look at all, those behind the end too, as the trained weights want it
        words = words + self.self_attn(normed, normed, normed, need_weights=False)[0]
        hidden = self.fc1(self.layer_norm2(words))
        return words + self.fc2(hidden * (1.702 * hidden).sigmoid())  # CLIP's quick GELU


class TextEncoder(nn.Module):
    """Sentences to one vector each: the state of the word at the end.

    Args:
        vocabulary: how many numbers a word may have.
        length: L, numbers of a sentence.
        width: of a word's state.
        depth: number of layers.
        num_heads: of each attention; None: one for 64 of the width.
    """

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, num_heads: int | None = None) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(length, width))
        self.layers = nn.Sequential(*(TextLayer(width, num_heads or max(1, width // 64)) for _ in range(depth)))
        self.ln_final = nn.LayerNorm(width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, sentences: Tensor) -> Tensor:
        words = self.layers(self.token_embedding(sentences) + self.positional_embedding)  # (S, L, width)
        ends = sentences.argmax(dim=-1)  # the end has the largest number
        return self.ln_final(words)[torch.arange(len(words), device=words.device), ends]  # (S, width)


class TextMapper(nn.Module):
    """Sentences of pictures to vectors like queries, and the temperature at which they are compared.

    Args:
        encoder: of sentences.
        embed_dim: D of the queries.
        num_context: C, learnt vectors that stand behind those of the sentences in every picture; may be 0.
    """

    def __init__(self, encoder: TextEncoder, embed_dim: int = 256, num_context: int = 16) -> None:
        super().__init__()
        width = encoder.token_embedding.embedding_dim
        self.encoder = encoder
        self.projector = nn.Sequential(nn.Linear(width, embed_dim), nn.ReLU(), nn.Linear(embed_dim, embed_dim))
        self.context = nn.Parameter(torch.randn(num_context, embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / TEMPERATURE)))

    def forward(self, sentences: Tensor) -> Tensor:
        # most sentences of a batch say the same, and are read once
        different, which = sentences.flatten(0, 1).unique(dim=0, return_inverse=True)
        texts = self.projector(self.encoder(different))[which].unflatten(0, sentences.shape[:2])  # (B, N, D)
        return torch.cat([texts, self.context.expand(len(texts), -1, -1)], dim=1)


def contrastive_loss(queries: Tensor, texts: Tensor, logit_scale: Tensor) -> Tensor:
    """Each picture's queries shall be nearest to its own text among those of the batch, and the other way round.

    All queries of a picture, one behind the other, are one long vector of length 1, and so are its texts: section
    3.3, the products divided by a learnt temperature.

    Args:
        queries: (B, Q, D), made for the task, before they look for segments.
        texts: (B, Q, D).
        logit_scale: scalar, the logarithm of 1 / temperature; the factor stops at 100.

    Returns:
        A scalar: the mean over the pictures of both cross-entropies, added. With one picture it is 0.

    Raises:
        TypeError: an argument is no tensor of floating-point numbers.
        ValueError: the shapes do not fit.

    >>> queries = torch.eye(2)[:, None]  # two pictures, one query each
    >>> contrastive_loss(queries, queries, torch.tensor(0.0))  # 2 log(1 + 1 / e)
    tensor(0.6265)
    """
    check_floats("texts", texts, "B Q D", check_floats("queries", queries, "B Q D"))
    pictures, read = (nn.functional.normalize(full_precision(x).flatten(1), dim=-1) for x in (queries, texts))
    products = pictures @ read.mT * logit_scale.exp().clamp(max=SHARPEST)  # (B, B)
    same = torch.arange(len(products), device=products.device)
    return nn.functional.cross_entropy(products, same) + nn.functional.cross_entropy(products.mT, same)
