"""Errors of the `segedu` command: one sentence on stderr and a non-zero exit status; `--debug` shows the traceback."""

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

WRONG_INPUT, FAILED, STOPPED = 2, 1, 128  # exit statuses; the signal's number is added to STOPPED
_PACKAGE = str(Path(__file__).parent) + os.sep


class SentenceGroup(TyperGroup):
    """A group of commands whose errors end in one sentence. `--debug` may stand before a command or after it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move `--debug` to the front, where the group expects it, and parse the arguments."""
        end = args.index("--") if "--" in args else len(args)
        if "--debug" in args[:end]:
            args = ["--debug", *(word for word in args[:end] if word != "--debug"), *args[end:]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; turn an exception into a sentence on stderr and an exit status."""
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
        if int(os.environ.get("LOCAL_RANK", 0)) == 0:  # of several training processes only the first prints
            typer.echo(text, err=True)
        raise typer.Exit(status)


def sentence(error: Exception) -> str:
    """Describe an error in one line for the terminal.

    An error that segedu raised itself, or one about a file, is described by its message. Any other error is described
    by the first line of its message and how to see the traceback.
    """
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror}" if error.strerror else str(error)
    if isinstance(error, ImportError) and error.name:
        return f"{error}: install what this command needs, such as pip install 'segedu[lab,grading,author]'"
    if isinstance(error, ValueError | TypeError | ImportError) and _raised_by_segedu(error.__traceback__):
        return str(error)
    first_line = (str(error).splitlines() or [""])[0].strip()
    return f"{type(error).__name__}{': ' * bool(first_line)}{first_line} (segedu --debug ... shows where this arose)"


def _raised_by_segedu(traceback: TracebackType | None) -> bool:
    """Whether the origin is a `raise` statement in segedu, rather than another package or a bug."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    file = traceback.tb_frame.f_code.co_filename
    return file.startswith(_PACKAGE) and linecache.getline(file, traceback.tb_lineno).lstrip().startswith("raise ")
