"""Runs a submission's steps in sandboxed kernels: in they go, out comes what became of each.

A step is one cell. When a kernel is lost (dead, stuck, flooding, out of memory), the next step gets a new one in which
setup, helper and solution steps that had ended are run again, without the fatal one.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from nbval.plugin import NbCellError

from segedu.grading.sandbox.isolation_levels import (
    HostResources,
    IsolationLevel,
    Limits,
    allocate_resources,
    best_level,
    describe,
    probe_levels,
)
from segedu.grading.sandbox.nbval_items import Fatal, NotOk, SegCell, SegKernel, items, session
from segedu.grading.sandbox.provisioner import ForkServer, RunningSandbox
from segedu.grading.sandbox.remove_folder import remove_folder
from segedu.grading.sandbox.restrictions import LINUX, SandboxError
from segedu.grading.sandbox.sandbox_files import SandboxFileError, SandboxFiles
from segedu.grading.sandbox.steps import WORK, Step
from segedu.grading.sandbox.time_budget import Budget, worth_repeating

__all__ = ["KernelPool", "Limits", "RunResult", "Step", "StepResult", "probe_levels"]

KINDS = ("setup", "helper", "solution", "canary", "probe")
REPLAYED = ("setup", "helper", "solution")
KERNEL_LIVES = ("ok", "error", "skipped")  # after steps that ended so
MAX_TEXT = 4_000
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_NO_MEMORY = re.compile(r"DefaultCPUAllocator|[Cc]annot allocate memory|Unable to allocate|std::bad_alloc")


@dataclass(frozen=True)
class StepResult:
    """What became of a step: ok, error, timeout, died, flood, memory or skipped."""

    name: str
    kind: str
    status: str
    ename: str = ""
    evalue: str = ""
    traceback: str = ""
    output: str = ""
    wall: float = 0.0
    restarted: bool = False
    hurried: bool = False  # its limit was shorter than a cell's, because the submission's time was nearly used up
    left_out: tuple[str, ...] = ()  # earlier steps that took too long to run again after a restart

    @property
    def cut_short(self) -> bool:
        """Whether it ran out of time, or the machine killed it: other work may be to blame."""
        return self.status in ("timeout", "skipped") or (self.status == "died" and self.evalue.endswith("signal 9"))


@dataclass
class RunResult:
    """What became of a run; `files` holds what was fetched, `refused` why a file was not."""

    steps: list[StepResult]
    level: int
    level_reason: str
    cpu_seconds: float = 0.0
    max_rss: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    restarts: int = 0


class KernelPool:
    """Runs lists of steps, each list in a sandbox of its own; the warm fork server starts once.

    One pool serves one thread at a time; make one for each worker. Pools of one process share the fork server.

    Args:
        stage: A folder made by `build_stage`.
        level: The level of isolation, as a number or one of `possible_levels`; the best that works where None.
        cold: Start each kernel without the warm fork server.
    """

    def __init__(self, stage: Path, level: int | IsolationLevel | None = None, cold: bool = False) -> None:
        self.stage = Path(stage).resolve()
        self.isolation: IsolationLevel = level if isinstance(level, IsolationLevel) else best_level(level)
        self.folder = Path(tempfile.mkdtemp(prefix="segedu-pool-"))
        if self.isolation.level < 3 and self.isolation.own_user:  # without mounts that user needs a path it may walk
            self.folder.chmod(0o711)
            self.stage = Path(shutil.copytree(self.stage, self.folder / "stage"))
        self.server = ForkServer(cold=True) if cold or not LINUX else ForkServer.share()  # macOS cannot fork safely
        session()  # made here, because threads may share this process

    def __enter__(self) -> KernelPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the fork server."""
        self.server.close()
        remove_folder(self.folder)

    def run(
        self,
        steps: list[Step],
        files_in: dict[str, bytes] | None = None,
        wanted: list[str] | tuple[str, ...] = (),
        limits: Limits | None = None,
    ) -> RunResult:
        """Runs the steps in order in one kernel, a new one after each death.

        Args:
            steps: What to run.
            files_in: Files put into the work folder of every kernel, by relative path.
            wanted: Patterns of files to fetch, such as `job/*/out/*`; a star stays within a folder.
            limits: Bounds on time, memory, output and disk.

        Raises:
            SandboxError: A kernel could not be started: the machine's fault, so there is no result.
        """
        for step in steps:
            if step.kind not in KINDS:
                raise ValueError(f"steps holds the kind {step.kind!r}, expected one of {', '.join(KINDS)}")
        run = _Run(self, dict(files_in or {}), list(wanted), limits or Limits())
        try:
            return run.all(steps)
        finally:
            run.end_kernel()


class _Run:
    """One submission on its way through its kernels."""

    def __init__(self, pool: KernelPool, files_in: dict[str, bytes], wanted: list[str], limits: Limits) -> None:
        self.pool, self.files_in, self.wanted, self.limits = pool, files_in, wanted, limits
        self.result = RunResult([], pool.isolation.level, pool.isolation.reason)
        self.until = 0.0  # of the step that runs
        self.granted = 0.0  # seconds of that step in which other work on the machine had the processor
        self.kernel: SegKernel | None = None
        self.sandbox: RunningSandbox | None = None
        self.resources: HostResources | None = None
        self.replay: list[tuple[Step, SegCell, float]] = []  # with the seconds that each took
        self.left_out: tuple[str, ...] = ()
        self.starts = 0

    def all(self, steps: list[Step]) -> RunResult:
        """Every step, through nbval's items."""
        cells = items([(step.name, step.source) for step in steps], self.pool.folder / "submission.ipynb")
        budget = Budget([(step.kind, step.name) for step in steps], self.limits.total_seconds)
        for number, (step, cell) in enumerate(zip(steps, cells, strict=True)):
            if not self.is_due(step):
                continue
            began = time.monotonic()
            whole, own = budget.seconds(number)
            self.until, self.granted = began + whole, 0.0
            ended = self.step(step, cell, own)
            self.result.steps.append(ended)
            lost = ended.status not in KERNEL_LIVES
            budget.spend(number, time.monotonic() - began, self.granted, lost)
        self.end_kernel()
        return self.result

    def is_due(self, step: Step) -> bool:
        """Whether a step runs; one that makes up for the step before it runs only where that is needed."""
        before = self.result.steps[-1].status if self.result.steps else "ok"
        if step.only_after == "loss":
            return before not in KERNEL_LIVES
        return not step.only_after or before == step.only_after

    def step(self, step: Step, cell: SegCell, seconds: float) -> StepResult:
        """One step of at most so many seconds, with a kernel in which all earlier ones have run."""
        restarted = self.kernel is None and self.starts > 0
        try:
            self.ready(cell)
        except Fatal as error:
            return StepResult(step.name, step.kind, "skipped", evalue=str(error), restarted=restarted)
        self.fill(step, cell)
        began = time.monotonic()
        allowed = min(step.timeout, self.limits.cell_seconds)
        hurried = min(seconds, self.until - began) < allowed
        status, message = self.attempt(cell, min(allowed, seconds))
        kernel = self.kernel
        ended = StepResult(
            step.name, step.kind, status, wall=time.monotonic() - began, restarted=restarted, hurried=hurried,
            left_out=self.left_out, output=_cut("".join(kernel.text)), **_failure(status, message, kernel),
        )  # fmt: skip
        if status not in ("ok", "error"):
            self.end_kernel()
        elif step.kind in REPLAYED:
            self.replay.append((step, cell, ended.wall))
        return ended

    def ready(self, cell: SegCell) -> None:
        """A living kernel in `cell.parent.kernel`, after a restart with the replayed steps in it."""
        if self.kernel is not None and not self.kernel.is_alive():  # died between two steps
            self.end_kernel()
        while True:
            if time.monotonic() >= self.until:
                raise Fatal("skipped", "the time for it was used up")
            if self.kernel is not None:
                break
            try:
                self.start()
            except SandboxError:  # a loaded machine: once more, then it is the machine's fault, never the student's
                self.start()
            cell.parent.kernel = self.kernel
            self.run_again()
        cell.parent.kernel = self.kernel

    def run_again(self) -> None:
        """The earlier steps in a new kernel, or as much of them as there is time for."""
        again = worth_repeating([seconds for _, _, seconds in self.replay], self.until - time.monotonic())
        self.left_out = tuple(step.name for (step, _, _), runs in zip(self.replay, again, strict=True) if not runs)
        for earlier in [one for one, runs in zip(list(self.replay), again, strict=True) if runs]:
            step, cell, _ = earlier
            self.fill(step, cell)
            if self.attempt(cell, self.limits.cell_seconds)[0] not in ("ok", "error"):
                if time.monotonic() < self.until:  # it fails by itself, not because the time is up
                    self.replay.remove(earlier)
                self.end_kernel()
                return

    def fill(self, step: Step, cell: SegCell) -> None:
        """Puts this kernel's work folder into a step of ours."""
        if step.kind not in ("helper", "solution"):
            cell.cell.source = step.source.replace(WORK, self.kernel.sandbox.work)

    def attempt(self, cell: SegCell, seconds: float) -> tuple[str, str]:
        """Runs an nbval item and names what happened; what the machine took for other work is added to the time."""
        kernel = self.kernel
        kernel.begin(max(0.1, min(seconds, self.until - time.monotonic())))
        try:
            return self.outcome(cell)
        finally:
            self.until += kernel.clock.granted
            self.granted += kernel.clock.granted

    def outcome(self, cell: SegCell) -> tuple[str, str]:
        """Runs an nbval item: its status, and what there is to say about it."""
        try:
            cell.runtest()
        except Fatal as error:
            return self.cause(error)
        except MemoryError:  # our own: the kernel's is in its reply
            raise
        except Exception as error:
            message = str(error) if isinstance(error, (NbCellError, NotOk)) else f"{type(error).__name__}: {error}"
            known = isinstance(error, (NbCellError, NotOk)) and self.kernel.is_alive()
            if not known:  # a kernel that is gone, or that closed its connections
                return self.cause(Fatal("died", self.kernel.how_it_died() or f"the kernel was lost: {message}"))
        else:
            return "ok", ""
        content = {**self.kernel.reply, **self.kernel.error}
        if content.get("ename") == "MemoryError" or _NO_MEMORY.search(str(content.get("evalue", ""))):
            return "memory", "the memory limit was reached"
        return "error", message

    def cause(self, error: Fatal) -> tuple[str, str]:
        """Why the kernel was lost: a control group or the watch may have killed it."""
        if error.status == "died" and self.kernel.sandbox.limit_exceeded:
            kind, message = self.kernel.sandbox.limit_exceeded
            return ("memory" if kind == "memory" else "died"), f"the kernel was ended: {message}"
        if error.status == "died" and self.resources.out_of_memory():
            return "memory", "the memory limit was reached"
        return error.status, str(error)

    def start(self) -> None:
        """A new sandbox with the files in it."""
        self.starts += 1
        self.result.restarts = self.starts - 1
        self.resources = allocate_resources(self.pool.isolation, self.pool.stage, self.limits)
        self.result.level_reason = describe(self.pool.isolation, self.resources)

        def launch(key: str) -> RunningSandbox:
            self.sandbox = RunningSandbox(self.pool.server.connect(), {**self.resources.job, "key": key})
            try:
                for path, data in self.files_in.items():
                    self.sandbox.files.put(path, data)
            except OSError as error:
                raise SandboxError(f"the files of the run could not be put into the sandbox: {error}") from None
            return self.sandbox

        try:
            self.kernel = SegKernel(launch, self.limits, self.pool.folder)
        except (Fatal, RuntimeError) as error:
            self.end_kernel()
            raise error if isinstance(error, SandboxError) else SandboxError(f"no kernel: {error}") from error
        except BaseException:
            self.end_kernel()
            raise

    def end_kernel(self) -> None:
        """Kills the kernel if it lives, fetches its files, counts its use and removes its traces."""
        if self.kernel is not None:
            self.kernel.stop()
            self.kernel = None
        sandbox, self.sandbox = self.sandbox, None
        if sandbox is not None:
            sandbox.kill()
            self.fetch(sandbox.files)
            self.result.cpu_seconds += sandbox.report["cpu"]
            self.result.max_rss = max(self.result.max_rss, sandbox.report["max_rss"])
            sandbox.close()
        if self.resources is not None:
            self.resources.clear()
            self.resources = None

    def fetch(self, files: SandboxFiles) -> None:
        """Reads the wanted files; what an earlier kernel left stays."""
        left = self.limits.disk_bytes - sum(map(len, self.result.files.values()))  # of all kernels together
        for pattern in self.wanted:
            try:
                paths = files.find(pattern)
            except (SandboxFileError, OSError) as error:
                self.result.refused[pattern] = str(error)
                continue
            for path in paths:
                if path in self.result.files:
                    continue
                try:
                    data = files.get(path, min(left, 16 << 20))
                except (SandboxFileError, OSError, ValueError) as error:
                    self.result.refused[path] = str(error)
                    continue
                left -= len(data)
                self.result.files[path] = data


def _failure(status: str, message: str, kernel: SegKernel) -> dict[str, str]:
    if status == "ok":
        return {}
    content = {**kernel.reply, **kernel.error}
    traceback = content.get("traceback") if isinstance(content.get("traceback"), list) else []
    if status != "error" and status != "memory":
        return {"ename": "", "evalue": message, "traceback": _cut("\n".join(map(str, traceback)))}
    return {
        "ename": _cut(str(content.get("ename", "")), 200),
        "evalue": _cut(str(content.get("evalue", message))),
        "traceback": _cut("\n".join(map(str, traceback))),
    }


def _cut(text: str, size: int = MAX_TEXT) -> str:
    """Plain text without colours, its middle left out where it is long."""
    if len(text) > 4 * size:
        text = text[: 2 * size] + text[-2 * size :]
    text = _ANSI.sub("", text)
    return text if len(text) <= size else f"{text[: size // 2]}\n[...]\n{text[-size // 2 :]}"
