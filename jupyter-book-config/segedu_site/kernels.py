"""How the code of the pages runs: the environment of its kernels, and a cache that knows the library."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = Path(__file__).resolve().parents[2]
# Not used by any solution or page: a change there must not run them again.
NOT_ON_SITE = (
    "grading",
    "cli.py",
    "command_errors.py",
    "teaching/authoring",
    "teaching/explorers",
    "teaching/mutants",
    "teaching/quizzes.py",
)
ONLY_IN_LABS = ("teaching/checks", "teaching/exercises")


def hash_of_sources(package: Path = ROOT / "segedu", unused: tuple[str, ...] = NOT_ON_SITE + ONLY_IN_LABS) -> str:
    """Names and contents of the library's files that a page can use, as 16 hex digits.

    Args:
        package: the folder of the library.
        unused: how the names of the files begin that make no difference.
    """
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package).as_posix()
        if path.is_file() and "__pycache__" not in path.parts and not name.startswith(unused):
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def hash_for_lab(name: str, package: Path = ROOT / "segedu") -> str:
    """The same for the solution of a lab, which also runs the checks of its exercises, and of no lab that they omit."""
    exercises = package / "teaching" / "exercises"
    text = "".join(path.read_text() for path in sorted((exercises / f"lab{name}").glob("*.py")))
    others = [f"teaching/exercises/{path.name}" for path in exercises.glob("lab*") if path.name not in text]
    return hash_of_sources(package, (*NOT_ON_SITE, *others))


def prepare_environment(build: Path) -> None:
    """Sets what kernels inherit. `segedu` is this checkout's, whatever is installed."""
    os.environ["SEGEDU_WIDGETS"] = "static"  # a live Output widget makes nbclient wait for its timeout
    path = os.environ.get("PYTHONPATH", "")
    if str(ROOT) not in path.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), path]))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # An IPython folder of our own: no start-up file of the user's runs, and ipykernel's notice that it
    # talks over TCP (to this machine only) stays out of the log.
    profile = build / "ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text('get_config().IPKernelApp.log_level = "ERROR"\n')
    os.environ["IPYTHONDIR"] = str(build / "ipython")


def configure(app: Sphinx, config: Config) -> None:
    """jupyter-cache keys a page by its own cells only: so each state of the library has its own cache folder."""
    build = Path(app.outdir).parent
    prepare_environment(build)
    config.segedu_sources = hash_of_sources()
    cache = build / ".jupyter_cache" / config.segedu_sources
    for old in cache.parent.glob("*") if cache.parent.is_dir() else ():
        if old != cache:
            shutil.rmtree(old, ignore_errors=True)
    config.nb_execution_cache_path = str(cache)


def setup(app: Sphinx) -> None:
    # "env": when the library changes, every page is read (and so run) again.
    app.add_config_value("segedu_sources", "", "env", types=[str])
    app.add_config_value("segedu_solutions", True, "env", types=[bool])
    app.connect("config-inited", configure, priority=100)
