"""Reduce a kernel's messages to a few short texts, however large or malformed a message is.

A student's code can send anything. The type of a message is therefore read first, the content of an unused type is
never decoded, and of the other types only the used fields are kept, after a check of their type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

MAX_HEADER = 1 << 16  # bytes of each part except the content
MAX_TEXT = 1 << 16  # characters kept of each text
MAX_LINES = 1_000  # lines of a traceback
_FRAMES = 5  # signature, header, parent header, metadata, content


def read_message(session: Any, frames: Sequence[bytes], channel: str) -> dict | None:
    """Decode one message and keep only what the grader uses.

    Args:
        session: the client's, which checks the signature and decodes.
        frames: as they were received.
        channel: `shell` or `iopub`.

    Returns:
        `{"msg_type", "parent_header": {"msg_id"}, "content"}`; None for a malformed, forged or unused message.
    """
    try:
        _, frames = session.feed_identities(list(frames))
        if any(len(frame) > MAX_HEADER for frame in frames[: _FRAMES - 1]):
            return None
        message = session.deserialize(frames, content=False)
        message_type, parent = message["msg_type"], message["parent_header"]
        reduce = _reply if channel == "shell" else _OUTPUT.get(message_type)
        content = session.unpack(message["content"]) if reduce else None
    except Exception:  # forged or malformed: ignored
        return None
    if not (isinstance(content, dict) and isinstance(parent, dict)):
        return None
    return {"msg_type": message_type, "parent_header": {"msg_id": parent.get("msg_id")}, "content": reduce(content)}


def _reply(content: dict) -> dict:
    return {"status": _text(content.get("status")), **_error(content)}


def _error(content: dict) -> dict:
    lines = content.get("traceback")
    lines = [_text(line) for line in lines[:MAX_LINES]] if isinstance(lines, list) else []
    while sum(map(len, lines)) > MAX_TEXT:
        del lines[len(lines) // 2]
    return {"ename": _text(content.get("ename")), "evalue": _text(content.get("evalue")), "traceback": lines}


def _status(content: dict) -> dict:
    return {"execution_state": _text(content.get("execution_state"))}


def _stream(content: dict) -> dict:
    return {"text": content["text"] if isinstance(content.get("text"), str) else ""}


def _result(content: dict) -> dict:
    data = content.get("data")
    return _stream({"text": data.get("text/plain") if isinstance(data, dict) else ""})


def _text(value: object) -> str:
    """The text, without its middle if it is long; empty for any other type."""
    if not isinstance(value, str):
        return ""
    return value if len(value) <= MAX_TEXT else f"{value[: MAX_TEXT // 2]}\n[...]\n{value[-(MAX_TEXT // 2) :]}"


_OUTPUT: dict[str, Callable[[dict], dict]] = {
    "status": _status, "error": _error, "stream": _stream, "execute_result": _result,
}  # fmt: skip
