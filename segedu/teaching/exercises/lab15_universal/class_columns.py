"""Wrong answers about the K + 1 columns of a query, which `query_masks` and `semantic_inference` share."""

from __future__ import annotations

from collections.abc import Callable

from segedu.teaching.checks.exercise import Wrong

SOFTMAX = "Apply the softmax to all K + 1 columns of each query, then remove the last column."


def class_wrong_answers(steps: Callable[..., Callable]) -> list[Wrong]:
    """Wrong class probabilities.

    Args:
        steps: makes a wrong answer by other probabilities `classes(class_logits)`.
    """
    return [
        Wrong(
            "first left out",
            steps(classes=lambda x: x.softmax(dim=1)[:, 1:]),
            'You remove the first column. "No object" is the last column.',
            SOFTMAX,
        ),
        Wrong(
            "left out before",
            steps(classes=lambda x: x[:, :-1].softmax(dim=1)),
            'You remove the column of "no object" before the softmax, so every query seems to predict an object. '
            "Remove it afterwards.",
            SOFTMAX,
        ),
        Wrong(
            "sigmoid of classes",
            steps(classes=lambda x: x.sigmoid()[:, :-1]),
            "You apply a sigmoid to the class logits. Apply a softmax over the columns of each query.",
            SOFTMAX,
        ),
        Wrong(
            "softmax over queries",
            steps(classes=lambda x: x.softmax(dim=0)[:, :-1]),
            "Your softmax of the class logits is over the queries. It should be over the columns of each query.",
            SOFTMAX,
        ),
        Wrong(
            "logits of classes",
            steps(classes=lambda x: x[:, :-1]),
            "You use the class logits as they are. Apply a softmax over the columns of each query.",
            SOFTMAX,
        ),
    ]
