"""Quizzes that can be answered on the page, and are marked (`quizzes.js`).

A quiz is written as `segedu.teaching.quizzes` describes. Here its key, a comment in the folded answer, becomes a hidden
element, because the script has to know it. Without JavaScript, a quiz is what it is in the source: questions with
folded answers.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx

from segedu.teaching.quizzes import TOLERANCE, read_key


def show_keys(app: Sphinx, doctree: nodes.document) -> None:
    """Replace each comment "key: ..." by a hidden element with the numbers.

    Raises:
        ValueError: if a key holds something other than numbers.
    """
    for comment in list(doctree.findall(nodes.comment)):
        start, _, numbers = comment.astext().strip().partition(":")
        if start == "key":
            key = " ".join(f"{number:.10g}" for number in read_key(numbers))
            text = f'<span class="quiz-key" data-key="{key}" data-tolerance="{TOLERANCE}" hidden></span>'
            comment.replace_self(nodes.raw("", text, format="html"))


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", show_keys)
    app.add_css_file("quizzes.css")
    app.add_js_file("quizzes.js")
