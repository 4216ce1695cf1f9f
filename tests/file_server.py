"""A server of files on this machine, for tests of downloads."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Server(BaseHTTPRequestHandler):
    """Serves `files`, and continues a download if `continues`.

    `cut` sends the first half of what is requested, under the length of the whole, and hangs up. `asked` has the paths
    of all requests, `starts` the first byte of each.
    """

    url = ""
    files: dict[str, bytes] = {}
    asked: list[str] = []
    starts: list[int] = []
    cut = False
    continues = True

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if (body := self.files.get(self.path)) is None:
            return self.send_error(404)
        requested = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if self.continues else None
        start = int(requested[1]) if requested else 0
        self.starts.append(start)
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if requested else 200)
        if requested:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        rest = body[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client may hang up
            self.wfile.write(rest[: len(rest) // 2] if self.cut else rest)

    def log_message(self, *words: object) -> None:
        """Print nothing."""


@contextlib.contextmanager
def file_server() -> Iterator[type[Server]]:
    """A running server; its `url` has no slash at the end."""
    handler = type("Handler", (Server,), {"files": {}, "asked": [], "starts": []})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=http.serve_forever, daemon=True).start()
    handler.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield handler
    finally:
        http.shutdown()
        http.server_close()
