"""OneFormer's sentences: what they say, their numbers, and the loss that compares them with queries."""

from __future__ import annotations

import math
import re

import pytest
import torch

from segedu.panoptic.oneformer_text import (
    TASKS,
    TextEncoder,
    TextMapper,
    WordTokenizer,
    clip_task_tokens,
    contrastive_loss,
    segment_sentences,
    task_sentence,
)

NAMES = ["road", "bus stop", "car"]


def test_a_sentence_for_each_segment_and_the_task_for_the_rest() -> None:
    labels = torch.tensor([2, 0, 2])
    told = ["a photo with a road", "a photo with a car", "a photo with a car"]
    assert segment_sentences(labels, "panoptic", NAMES, 5) == [*told, "a panoptic photo", "a panoptic photo"]
    assert segment_sentences(labels, "semantic", NAMES, 2) == told[:2]  # more segments than sentences
    assert segment_sentences(labels[:0], "instance", NAMES, 1) == ["an instance photo"]
    with pytest.raises(ValueError, match=r"labels has the values \[3\], expected 0 to 2"):
        segment_sentences(torch.tensor([3]), "panoptic", NAMES, 4)
    for call in (lambda: task_sentence("depth"), lambda: segment_sentences(labels, "depth", NAMES, 9)):
        with pytest.raises(ValueError, match="task is 'depth', expected 'panoptic', 'instance' or 'semantic'"):
            call()


def test_words_of_all_sentences_have_a_number_and_others_are_refused() -> None:
    tokenize = WordTokenizer.of_classes(NAMES)
    sentences = [task_sentence(task) for task in TASKS]
    for task in TASKS:
        sentences += segment_sentences(torch.arange(3), task, NAMES, 4)
    tokens = torch.stack([tokenize(sentence) for sentence in sentences])
    assert tokens.shape == (15, 7) and tokens.dtype == torch.int64  # "a photo with a bus stop", and the end
    assert len(tokens.unique(dim=0)) == len(set(sentences)) == 9
    assert tokens.max() == tokenize.vocab_size - 1
    ends = tokens.argmax(dim=1)
    assert ends.tolist() == [len(sentence.split()) for sentence in sentences]
    with pytest.raises(
        ValueError, match=r"sentence contains boat, expected words of the vocabulary: a, an, bus, car, "
    ):
        tokenize("a photo with a boat")
    with pytest.raises(ValueError, match="sentence has 7 words, expected at most 6"):
        tokenize("a a a a a a a")


def test_numbers_of_clip_for_the_three_tasks() -> None:
    rows = torch.stack([clip_task_tokens(f"The task is {task}") for task in TASKS])
    assert rows.shape == (3, 77) and (rows[:, :4] == torch.tensor([49406, 518, 10549, 533])).all()
    assert (rows.max(dim=1).values == 49407).all() and rows.argmax(dim=1).tolist() == [6, 5, 6]
    with pytest.raises(
        ValueError, match=re.escape("sentence is 'a photo with a car', expected one of 'the task is pan")
    ):
        clip_task_tokens("a photo with a car")


def mapper(context: int = 2) -> TextMapper:
    torch.manual_seed(0)
    return TextMapper(TextEncoder(9, 6, 16, 2), embed_dim=8, num_context=context)


def test_equal_sentences_are_read_once_and_alone_as_together() -> None:
    model, sentences = (
        mapper(),
        torch.tensor([[[3, 1, 8, 0, 0, 0]] * 3, [[3, 1, 8, 0, 0, 0], [2] * 5 + [8], [8] + [0] * 5]]),
    )
    seen = []
    model.encoder.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    texts = model(sentences)
    assert texts.shape == (2, 5, 8) and seen == [3]
    assert torch.equal(texts[:, 3:], model.context.expand(2, -1, -1))
    torch.testing.assert_close(texts[1:], model(sentences[1:]))
    torch.testing.assert_close(texts[0, 1], texts[1, 0])
    assert mapper(0)(sentences).shape == (2, 3, 8)


def test_contrastive_loss_in_closed_form() -> None:
    same = torch.eye(3).reshape(3, 1, 3)
    for temperature in (1.0, 0.5):
        factor = 1 / temperature
        expected = 2 * math.log(1 + 2 * math.exp(-factor))
        loss = contrastive_loss(same, 7 * same, torch.tensor(factor).log())
        assert float(loss) == pytest.approx(expected, rel=1e-5)
    swapped = contrastive_loss(same, same[[1, 2, 0]], torch.tensor(0.0))
    assert float(swapped) == pytest.approx(2 * math.log(2 + math.e), rel=1e-5)
    # the factor stops at 100
    assert float(contrastive_loss(same, same[[1, 2, 0]], torch.tensor(50.0))) == pytest.approx(200, rel=1e-5)
    assert contrastive_loss(same[:1], same[:1], torch.tensor(0.0)) == 0  # nothing to compare with
    assert contrastive_loss(same.half(), same.half(), torch.tensor(0.0)).dtype == torch.float32


def test_contrastive_loss_refuses_what_does_not_fit() -> None:
    queries = torch.zeros(2, 3, 4)
    with pytest.raises(ValueError, match=r"texts has shape \(2, 2, 4\), expected"):
        contrastive_loss(queries, queries[:, :2], torch.tensor(0.0))
    with pytest.raises(TypeError, match="queries has dtype torch.int64"):
        contrastive_loss(queries.long(), queries, torch.tensor(0.0))
