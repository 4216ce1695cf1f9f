"""Run a submission's steps in sandboxed kernels and return the result of each.

A step is one cell. When a kernel is lost (dead, stuck, flooding, out of memory), the next step gets a new one, in which
the completed setup, helper and solution steps are run again, without the fatal one.
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
from segedu.grading.sandbox.nbval_items import CellFailed, KernelLost, SegCell, SegKernel, items, session
from segedu.grading.sandbox.provisioner import ForkServer, RunningSandbox
from segedu.grading.sandbox.remove_folder import remove_folder
from segedu.grading.sandbox.restrictions import LINUX, SandboxError
from segedu.grading.sandbox.sandbox_files import SandboxFileError, SandboxFiles
from segedu.grading.sandbox.steps import WORK, Step
from segedu.grading.sandbox.time_budget import Budget, worth_repeating

__all__ = ["KernelPool", "Limits", "RunResult", "Step", "StepResult", "probe_levels"]

KINDS = ("setup", "helper", "solution", "canary", "probe")
REPLAYED = ("setup", "helper", "solution")
KERNEL_LIVES = ("ok", "error", "skipped")  # statuses after which the kernel lives
MAX_TEXT = 4_000
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_NO_MEMORY = re.compile(r"DefaultCPUAllocator|[Cc]annot allocate memory|Unable to allocate|std::bad_alloc")


@dataclass(frozen=True)
class StepResult:
    """Result of a step; `status` is ok, error, timeout, died, flood, memory or skipped."""

    name: str
    kind: str
    status: str
    ename: str = ""
    evalue: str = ""
    traceback: str = ""
    output: str = ""
    wall: float = 0.0
    restarted: bool = False
    hurried: bool = False  # its limit was shorter than a cell's, because the submission's time was almost used up
    not_repeated: tuple[str, ...] = ()  # earlier steps that were too slow to be repeated after a restart

    @property
    def cut_short(self) -> bool:
        """Whether the step ran out of time or was killed by the host, which other work may have caused."""
        return self.status in ("timeout", "skipped") or (self.status == "died" and self.evalue.endswith("signal 9"))


@dataclass
class RunResult:
    """Result of a run; `files` holds the fetched files, `refused` the reasons for those that were not fetched."""

    steps: list[StepResult]
    level: int
    level_reason: str
    cpu_seconds: float = 0.0
    max_rss: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    restarts: int = 0


class KernelPool:
    """Runs lists of steps, each list in a sandbox of its own; the warm fork server starts only once.

    A pool serves one thread at a time; create one per worker. The pools of a process share the fork server.

    Args:
        stage: a folder made by `build_stage`.
        level: the level of isolation, as a number or one of `possible_levels`; by default the best that works.
        cold: start each kernel without the warm fork server.
    """

    def __init__(self, stage: Path, level: int | IsolationLevel | None = None, cold: bool = False) -> None:
        self.stage = Path(stage).resolve()
        self.isolation: IsolationLevel = level if isinstance(level, IsolationLevel) else best_level(level)
        self.folder = Path(tempfile.mkdtemp(prefix="segedu-pool-"))
        if self.isolation.level < 3 and self.isolation.own_user:  # that user must be able to traverse the path
            self.folder.chmod(0o711)
            self.stage = Path(shutil.copytree(self.stage, self.folder / "stage"))
        self.server = ForkServer(cold=True) if cold or not LINUX else ForkServer.share()  # macOS cannot fork safely
        session()  # created here, because threads may share this process

    def __enter__(self) -> KernelPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the fork server and remove the pool's folder."""
        self.server.close()
        remove_folder(self.folder)

    def run(
        self,
        steps: list[Step],
        files_in: dict[str, bytes] | None = None,
        output_patterns: list[str] | tuple[str, ...] = (),
        limits: Limits | None = None,
    ) -> RunResult:
        """Run the steps in order in one kernel, with a new kernel after each loss.

        Args:
            steps: what to run.
            files_in: files for the work folder of every kernel, by relative path.
            output_patterns: patterns of files to fetch, such as `job/*/out/*`; a star stays within a folder.
            limits: on time, memory, output and disk.

        Raises:
            SandboxError: if a kernel could not be started, which is the machine's fault; there is no result then.
        """
        for step in steps:
            if step.kind not in KINDS:
                raise ValueError(f"steps holds the kind {step.kind!r}, expected one of {', '.join(KINDS)}")
        run = _Run(self, dict(files_in or {}), list(output_patterns), limits or Limits())
        try:
            return run.run_steps(steps)
        finally:
            run.end_kernel()


class _Run:
    """One run of a submission's steps, through one or more kernels."""

    def __init__(
        self, pool: KernelPool, files_in: dict[str, bytes], output_patterns: list[str], limits: Limits
    ) -> None:
        self.pool, self.files_in, self.output_patterns, self.limits = pool, files_in, output_patterns, limits
        self.result = RunResult([], pool.isolation.level, pool.isolation.reason)
        self.deadline = 0.0  # deadline of the current step
        self.extension = 0.0  # seconds of that step in which other work had the processor
        self.kernel: SegKernel | None = None
        self.sandbox: RunningSandbox | None = None
        self.resources: HostResources | None = None
        self.replay: list[tuple[Step, SegCell, float]] = []  # (step, item, seconds that it took)
        self.not_repeated: tuple[str, ...] = ()
        self.starts = 0

    def run_steps(self, steps: list[Step]) -> RunResult:
        """Run every step through nbval's items."""
        cells = items([(step.name, step.source) for step in steps], self.pool.folder / "submission.ipynb")
        budget = Budget([(step.kind, step.name) for step in steps], self.limits.total_seconds)
        for number, (step, cell) in enumerate(zip(steps, cells, strict=True)):
            if not self.is_due(step):
                continue
            start = time.monotonic()
            seconds, cell_seconds = budget.seconds(number)
            self.deadline, self.extension = start + seconds, 0.0
            result = self.run_step(step, cell, cell_seconds)
            self.result.steps.append(result)
            lost = result.status not in KERNEL_LIVES
            budget.spend(number, time.monotonic() - start, self.extension, lost)
        self.end_kernel()
        return self.result

    def is_due(self, step: Step) -> bool:
        """Whether a step runs; a recovery step runs only if the previous step ended as `only_after` says."""
        previous = self.result.steps[-1].status if self.result.steps else "ok"
        if step.only_after == "loss":
            return previous not in KERNEL_LIVES
        return not step.only_after or previous == step.only_after

    def run_step(self, step: Step, cell: SegCell, seconds: float) -> StepResult:
        """Run one step of at most so many seconds, in a kernel in which all earlier ones have run."""
        restarted = self.kernel is None and self.starts > 0
        try:
            self.ensure_kernel(cell)
        except KernelLost as error:
            return StepResult(step.name, step.kind, "skipped", evalue=str(error), restarted=restarted)
        self.insert_work_folder(step, cell)
        start = time.monotonic()
        limit = min(step.timeout, self.limits.cell_seconds)
        hurried = min(seconds, self.deadline - start) < limit
        status, message = self.run_cell(cell, min(limit, seconds))
        kernel = self.kernel
        result = StepResult(
            step.name, step.kind, status, wall=time.monotonic() - start, restarted=restarted, hurried=hurried,
            not_repeated=self.not_repeated, output=_cut("".join(kernel.text)), **_failure(status, message, kernel),
        )  # fmt: skip
        if status not in ("ok", "error"):
            self.end_kernel()
        elif step.kind in REPLAYED:
            self.replay.append((step, cell, result.wall))
        return result

    def ensure_kernel(self, cell: SegCell) -> None:
        """Provide a live kernel in `cell.parent.kernel`; after a restart, replay the earlier steps in it."""
        if self.kernel is not None and not self.kernel.is_alive():  # died between two steps
            self.end_kernel()
        while True:
            if time.monotonic() >= self.deadline:
                raise KernelLost("skipped", "the time for it was used up")
            if self.kernel is not None:
                break
            try:
                self.start_kernel()
            except SandboxError:  # a loaded machine: try once more; a second failure is not the student's fault
                self.start_kernel()
            cell.parent.kernel = self.kernel
            self.replay_steps()
        cell.parent.kernel = self.kernel

    def replay_steps(self) -> None:
        """Run the earlier steps in a new kernel, as many of them as there is time for."""
        repeated = worth_repeating([seconds for _, _, seconds in self.replay], self.deadline - time.monotonic())
        self.not_repeated = tuple(
            step.name for (step, _, _), repeat in zip(self.replay, repeated, strict=True) if not repeat
        )
        for earlier in [one for one, repeat in zip(list(self.replay), repeated, strict=True) if repeat]:
            step, cell, _ = earlier
            self.insert_work_folder(step, cell)
            if self.run_cell(cell, self.limits.cell_seconds)[0] not in ("ok", "error"):
                if time.monotonic() < self.deadline:  # it failed by itself, not because the time was up
                    self.replay.remove(earlier)
                self.end_kernel()
                return

    def insert_work_folder(self, step: Step, cell: SegCell) -> None:
        """Replace the placeholder in one of the grader's steps by this kernel's work folder."""
        if step.kind not in ("helper", "solution"):
            cell.cell.source = step.source.replace(WORK, self.kernel.sandbox.work)

    def run_cell(self, cell: SegCell, seconds: float) -> tuple[str, str]:
        """Run an nbval item and return its status; time in which other work had the processor extends the deadline."""
        kernel = self.kernel
        kernel.begin(max(0.1, min(seconds, self.deadline - time.monotonic())))
        try:
            return self.run_item(cell)
        finally:
            self.deadline += kernel.clock.extension
            self.extension += kernel.clock.extension

    def run_item(self, cell: SegCell) -> tuple[str, str]:
        """Run an nbval item and return its status and a message."""
        try:
            cell.runtest()
        except KernelLost as error:
            return self.loss_cause(error)
        except MemoryError:  # of the grader itself: a kernel's MemoryError is in its reply
            raise
        except Exception as error:
            message = str(error) if isinstance(error, (NbCellError, CellFailed)) else f"{type(error).__name__}: {error}"
            in_reply = isinstance(error, (NbCellError, CellFailed)) and self.kernel.is_alive()
            if not in_reply:  # the kernel has ended or closed its connections
                return self.loss_cause(
                    KernelLost("died", self.kernel.death_message() or f"the kernel was lost: {message}")
                )
        else:
            return "ok", ""
        content = {**self.kernel.reply, **self.kernel.error}
        if content.get("ename") == "MemoryError" or _NO_MEMORY.search(str(content.get("evalue", ""))):
            return "memory", "the memory limit was reached"
        return "error", message

    def loss_cause(self, error: KernelLost) -> tuple[str, str]:
        """Say why the kernel was lost: a control group or the watch may have killed it."""
        if error.status == "died" and self.kernel.sandbox.limit_exceeded:
            resource, message = self.kernel.sandbox.limit_exceeded
            return ("memory" if resource == "memory" else "died"), f"the kernel was ended: {message}"
        if error.status == "died" and self.resources.out_of_memory():
            return "memory", "the memory limit was reached"
        return error.status, str(error)

    def start_kernel(self) -> None:
        """Start a new sandbox with the files in it."""
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
        except (KernelLost, RuntimeError) as error:
            self.end_kernel()
            raise error if isinstance(error, SandboxError) else SandboxError(f"no kernel: {error}") from error
        except BaseException:
            self.end_kernel()
            raise

    def end_kernel(self) -> None:
        """Kill the kernel if it lives, fetch its files, record its usage, and clean up."""
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
        """Read the output_patterns files; files that an earlier kernel left are kept."""
        bytes_left = self.limits.disk_bytes - sum(map(len, self.result.files.values()))  # for all kernels together
        for pattern in self.output_patterns:
            try:
                paths = files.find(pattern)
            except (SandboxFileError, OSError) as error:
                self.result.refused[pattern] = str(error)
                continue
            for path in paths:
                if path in self.result.files:
                    continue
                try:
                    data = files.get(path, min(bytes_left, 16 << 20))
                except (SandboxFileError, OSError, ValueError) as error:
                    self.result.refused[path] = str(error)
                    continue
                bytes_left -= len(data)
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
    """Plain text without colours, and without its middle if it is long."""
    if len(text) > 4 * size:
        text = text[: 2 * size] + text[-2 * size :]
    text = _ANSI.sub("", text)
    return text if len(text) <= size else f"{text[: size // 2]}\n[...]\n{text[-size // 2 :]}"
