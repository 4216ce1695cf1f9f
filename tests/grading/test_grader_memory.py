"""What a notebook shows does not stay in the examining process, and that process has a limit."""

from __future__ import annotations

import time

import psutil
import pytest

from segedu.grading.sandbox.kernel_messages import MAX_HEADER, MAX_TEXT, read_message
from segedu.grading.sandbox.kernel_pool import KernelPool, Limits, Step
from segedu.grading.sandbox.nbval_items import SegKernel
from segedu.grading.sandbox.staged_library import build_stage

pytestmark = pytest.mark.usefixtures("server")

PUBLISH = "get_ipython().display_pub.publish(data={'x': [{}] * 240_000})"
RESULT = """
class Shown:
    def _repr_mimebundle_(self, **_):
        return {"text/plain": "x", "application/json": [{}] * 240_000}
Shown()"""
ERROR = """
kernel = get_ipython().kernel
content = {"ename": "E", "evalue": "x" * 300_000, "traceback": ["line"] * 40_000, "more": [{}] * 20_000}
kernel.session.send(kernel.iopub_socket, "error", content, parent=kernel.get_parent("shell"))"""
# what is shown -> how often, the status of each cell, and MB that nbval would keep of it
SHOWN = {
    "nested data": (PUBLISH, 12, "ok", 1_200),
    "results": (RESULT, 12, "ok", 1_200),
    "text": ("print('x' * 1_000_000)", 300, "ok", 300),
    "many small outputs": ("for i in range(1_000):\n    display({'text/plain': 'x'}, raw=True)", 40, "ok", 60),
    "errors": (ERROR, 40, "error", 120),
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    stage = build_stage(["segedu.ops.boxes"], tmp_path_factory.mktemp("stage") / "stage")
    with KernelPool(stage) as pool:
        pool.run([Step("helper", "warm", PUBLISH)])
        yield pool


@pytest.mark.parametrize("what", SHOWN)
def test_what_is_shown_does_not_stay(pool, what):
    source, count, status, megabytes = SHOWN[what]
    steps = [Step("helper", f"h{i}", source) for i in range(count)]
    grown = []
    while len(grown) < 3 and not any(each < megabytes / 3 * 1e6 for each in grown):  # what stays, stays each time
        before = psutil.Process().memory_info().rss
        result = pool.run(steps, limits=Limits(cell_seconds=30, total_seconds=280))
        assert {step.status for step in result.steps} == {status}
        grown.append(psutil.Process().memory_info().rss - before)
    assert min(grown) < megabytes / 3 * 1e6


def test_a_slow_reader_loses_no_message(pool, monkeypatch):
    """The message that ends a cell comes last; ZeroMQ would drop it if more than 1,000 messages were waiting."""
    poll = SegKernel._poll

    def slow_at_first(kernel, seconds):
        if not kernel.messages:
            time.sleep(3)  # the cell has shown everything by then
        return poll(kernel, seconds)

    monkeypatch.setattr(SegKernel, "_poll", slow_at_first)
    step = Step("helper", "many", "for i in range(6_000):\n    display({'text/plain': 'x'}, raw=True)")
    result = pool.run([step], limits=Limits(cell_seconds=60, total_seconds=120, output_bytes=1 << 25))
    assert [each.status for each in result.steps] == ["ok"]


class Session:
    """A client's session that neither signs nor splits, for messages made here."""

    def feed_identities(self, frames):
        return [], frames

    def deserialize(self, frames, content):
        assert not content
        kind, parent, metadata, body = frames[1:]
        return {"msg_type": kind, "parent_header": parent, "metadata": metadata, "content": body}

    def unpack(self, content):
        if content == "not read":
            raise AssertionError("the content of a message that is not used was decoded")
        return content


def read(kind, content, channel="iopub", parent=None):
    class Frame(dict):
        def __len__(self):
            return 10

    return read_message(Session(), [b"", kind, Frame(parent or {"msg_id": "1"}), b"", content], channel)


@pytest.mark.parametrize("kind", ["display_data", "clear_output", "comm_msg", "update_display_data", "x", ""])
def test_what_is_not_used_is_not_decoded(kind):
    assert read(kind, "not read") is None


def test_of_the_rest_only_short_texts_stay():
    long = "x" * 10 * MAX_TEXT
    error = read("error", {"ename": long, "evalue": 5, "traceback": [long] * 50 + [{}], "more": [{}]})["content"]
    assert set(error) == {"ename", "evalue", "traceback"} and error["evalue"] == ""
    assert len(error["ename"]) < MAX_TEXT + 50 and sum(map(len, error["traceback"])) <= MAX_TEXT + 50
    assert read("status", {"execution_state": "idle", "x": 1})["content"] == {"execution_state": "idle"}
    assert read("status", {"execution_state": ["idle"]})["content"] == {"execution_state": ""}
    assert read("stream", {"text": 7})["content"] == {"text": ""}
    assert read("execute_result", {"data": {"text/plain": "7", "text/html": long}})["content"] == {"text": "7"}
    assert read("execute_result", {"data": []})["content"] == {"text": ""}
    reply = read("execute_reply", {"status": ["ok"], "payload": [{}]}, "shell")["content"]
    assert reply == {"status": "", "ename": "", "evalue": "", "traceback": []}
    whole = read("status", {}, parent={"msg_id": "7", "msg_type": "x", "more": [1]})
    assert whole["parent_header"] == {"msg_id": "7"} and set(whole) == {"msg_type", "parent_header", "content"}


def test_large_or_odd_frames_are_no_message():
    frames = [b"", b"h", b"p", b"m", b"c"]
    for number in range(4):
        odd = list(frames)
        odd[number] = b"x" * (MAX_HEADER + 1)
        assert read_message(Session(), odd, "iopub") is None
    for few in range(5):
        assert read_message(Session(), frames[:few], "iopub") is None
    assert read("status", ["no dict"]) is None and read(["unhashable"], {}) is None and read(None, {}) is None
