"""Errors of the `segedu` command: one sentence on stderr and a status that is not 0; `--debug` shows the traceback."""

from __future__ import annotations

import errno
import linecache
import os
import signal
from pathlib import Path
from types import TracebackType
from typing import Any

import typer
from typer.core import TyperGroup

WRONG_INPUT, FAILED, STOPPED = 2, 1, 128  # statuses; to STOPPED the number of the signal is added
_PACKAGE = str(Path(__file__).parent) + os.sep


class SentenceGroup(TyperGroup):
    """A group of commands whose errors end in one sentence. `--debug` may stand before a command or after it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Bring `--debug` to the front, where the group looks for it.

        Args:
            ctx: of the group.
            args: words of the command line.

        Returns:
            What is left of them.
        """
        end = args.index("--") if "--" in args else len(args)
        if "--debug" in args[:end]:
            args = ["--debug", *(word for word in args[:end] if word != "--debug"), *args[end:]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and turn what goes wrong in it into a sentence and a status.

        Args:
            ctx: of the group.

        Returns:
            What the command gives.

        Raises:
            Exit: the command failed, and the reason was printed.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            number, text = getattr(error, "signal", signal.SIGINT), str(error) or "Stopped."
            status = STOPPED + number
            if ctx.params.get("debug"):
                raise
        except Exception as error:
            raised_on_purpose = isinstance(error, typer.Exit | typer.Abort) or hasattr(error, "exit_code")
            if raised_on_purpose or ctx.params.get("debug") or getattr(error, "errno", None) == errno.EPIPE:
                raise
            text, status = sentence(error), WRONG_INPUT if isinstance(error, ValueError | TypeError) else FAILED
        if int(os.environ.get("LOCAL_RANK", 0)) == 0:  # of several processes that train, the first one speaks
            typer.echo(text, err=True)
        raise typer.Exit(status)


def sentence(error: Exception) -> str:
    """What the terminal shows of an error.

    Args:
        error: that ended a command.

    Returns:
        Its message where segedu itself raised it or a file is the reason; else its first line, and how to see more.
    """
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror}" if error.strerror else str(error)
    if isinstance(error, ImportError) and error.name:
        return f"{error}: install what this command needs, such as pip install 'segedu[lab,grading,author]'"
    if isinstance(error, ValueError | TypeError | ImportError) and _ours(error.__traceback__):
        return str(error)
    first = (str(error).splitlines() or [""])[0].strip()
    return f"{type(error).__name__}{': ' * bool(first)}{first} (segedu --debug ... shows where this arose)"


def _ours(traceback: TracebackType | None) -> bool:
    """Whether a `raise` statement in segedu is the origin, rather than another package or a bug."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    file = traceback.tb_frame.f_code.co_filename
    return file.startswith(_PACKAGE) and linecache.getline(file, traceback.tb_lineno).lstrip().startswith("raise ")
