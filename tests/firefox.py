"""Firefox without a driver: the few WebDriver BiDi commands that tests of pages need, over Firefox's own web socket."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("firefox-esr") or shutil.which("firefox")
SECONDS = 120  # for the start on a busy machine, and for each answer
KEYS = {"ArrowLeft": "\ue012", "ArrowUp": "\ue013", "ArrowRight": "\ue014", "ArrowDown": "\ue015", "Enter": "\ue007"}


class FirefoxError(RuntimeError):
    """Firefox refused a command, or did not answer."""


class Firefox:
    """One tab of a running Firefox."""

    def __init__(self, address: str) -> None:
        import websocket  # comes with jupyter-server

        # without an Origin header: Firefox refuses connections of pages
        self.socket = websocket.create_connection(f"{address}/session", timeout=SECONDS, suppress_origin=True)
        self.count = 0
        self.problems: list[str] = []
        self.command("session.new", {"capabilities": {}})
        self.command("session.subscribe", {"events": ["log.entryAdded"]})
        self.tab = self.command("browsingContext.getTree", {})["contexts"][0]["context"]

    def command(self, method: str, parameters: dict) -> dict:
        """Send a command and wait for its result; errors that pages log meanwhile are kept in `problems`."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("method") == "log.entryAdded" and message["params"]["level"] == "error":
                self.problems.append(message["params"]["text"])
            if message.get("id") == self.count:
                if message["type"] == "error":
                    raise FirefoxError(f"{method}: {message['error']}: {message['message']}")
                return message["result"]

    def open(self, address: str) -> None:
        self.command("browsingContext.navigate", {"context": self.tab, "url": address, "wait": "complete"})

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, which must be JSON; a promise is awaited."""
        wrapped = f"(async () => JSON.stringify(await ({expression})))()"
        result = self.command(
            "script.evaluate", {"expression": wrapped, "target": {"context": self.tab}, "awaitPromise": True}
        )
        if result["type"] == "exception":
            raise FirefoxError(result["exceptionDetails"]["text"])
        return json.loads(result["result"].get("value", "null"))

    def wait_for(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        limit = time.monotonic() + SECONDS
        while not self.evaluate(f"Boolean({expression})"):
            if time.monotonic() > limit:
                raise FirefoxError(f"{expression} did not become true in {SECONDS} s")
            time.sleep(0.1)

    def press(self, key: str, times: int = 1) -> None:
        """Press and release a key of `KEYS` on the element that has the focus."""
        actions = [{"type": kind, "value": KEYS[key]} for kind in ("keyDown", "keyUp")] * times
        source = {"type": "key", "id": "keyboard", "actions": actions}
        self.command("input.performActions", {"context": self.tab, "actions": [source]})


@contextmanager
def firefox() -> Iterator[Firefox]:
    """A headless Firefox with a profile of its own, which ends with the block.

    Raises:
        FirefoxError: if there is no Firefox, or it does not start.
    """
    if PROGRAM is None:
        raise FirefoxError("no Firefox is installed")
    with tempfile.TemporaryDirectory() as profile:
        (Path(profile) / "user.js").write_text('user_pref("network.proxy.type", 0);\n')
        command = [PROGRAM, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"]
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=_environment(profile)
        )
        try:
            yield Firefox(_address(process))
        finally:
            process.kill()
            process.wait()
            process.stderr.close()


def _environment(home: str) -> dict[str, str]:
    return {**os.environ, "HOME": home, "MOZ_DISABLE_CONTENT_SANDBOX": "1"}


def _address(process: subprocess.Popen) -> str:
    """What Firefox prints where it listens."""
    for line in process.stderr:
        if "WebDriver BiDi listening on " in line:
            return line.split("listening on ")[1].strip()
    raise FirefoxError(f"Firefox ended with status {process.wait()} before it listened")
