"""The repository's address: pyproject.toml holds it, and the README and the notebooks repeat it.

The address is a placeholder until the owner of a copy sets it, because Colab installs the course from it: an address
that belongs to somebody else would run their code on the students' machines.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

PLACEHOLDER = "https://github.com/OWNER/segedu"
_GITHUB = "https://github.com/"
_REPEATED_IN = (
    "README.md",
    "labs/*.ipynb",
    "solutions/*.ipynb",
    "tests/submissions/*/*.ipynb",
    "pyproject.toml",  # the last one, so that a stopped command can be repeated
)


def repository(course: Path) -> str:
    """The address under [project.urls] in pyproject.toml of the checkout, without a slash at its end."""
    project = tomllib.loads((course / "pyproject.toml").read_text())["project"]
    return project["urls"]["Repository"].rstrip("/")


def colab_address(course: Path, lab: str) -> str:
    """The link that opens a lab, such as `04_metrics`, in Colab."""
    path = repository(course).removeprefix(_GITHUB)
    return f"https://colab.research.google.com/github/{path}/blob/main/labs/{lab}.ipynb"


def install_line(address: str) -> str:
    """The line of a notebook that installs the course in Colab, or that stops it while there is no address."""
    if address == PLACEHOLDER:
        return (
            'raise RuntimeError("This copy of the course has no address yet, so Colab cannot install it. '
            'Whoever publishes the copy sets the address with: segedu address URL")'
        )
    return f'%pip install -q "segedu[train] @ git+{address}"'


def colab_setup(course: Path) -> str:
    """The beginning of a notebook's first code cell: a quiet installation on Colab, and nothing elsewhere."""
    return f"""# @title Setup: run this cell first {{ display-mode: "form" }}
import sys

if "google.colab" in sys.modules:
    {install_line(repository(course))}"""


def without_address(text: str) -> str:
    """The text of a notebook or of pyproject.toml without what `set_address` changes in it.

    Digests of sources are computed from this text, so that setting the address makes no measurement stale.
    """
    text = re.sub(r'%pip install -q \\?"segedu\[train\] @ git\+[^"\\]*\\?"', "", text)
    text = re.sub(r'raise RuntimeError\(\\?"This copy of the course has [^)]*\)', "", text)
    text = re.sub(r"(colab\.research\.google\.com/github/)[\w-]+/[\w.-]+", r"\1", text)
    return re.sub(r"(?m)^Repository = .*$", "", text)


def print_address(course: Path, url: str) -> None:
    """Set the address, and print how many files changed and how to set the address that they had before.

    Raises:
        ValueError: see `set_address`.
    """
    before = repository(course)
    changed = set_address(course, url)
    if changed:
        print(f"{len(changed)} files now have the address {repository(course)}. To undo: segedu address {before}")
    else:
        print(f"Nothing changed: the address was {before} already.")


def set_address(course: Path, url: str) -> list[str]:
    """Write another address into pyproject.toml, the README and the notebooks.

    Args:
        course: the checkout.
        url: address of a GitHub repository, such as `https://github.com/someone/course`.

    Returns:
        The files that changed.

    Raises:
        ValueError: if `url` is not the address of a GitHub repository.
    """
    new = re.sub(r"(\.git)?/?$", "", url.strip())
    if not re.fullmatch(rf"{_GITHUB}[\w-]+/[\w.-]+", new):
        raise ValueError(f"url is {url!r}, expected the address of a repository on GitHub, such as {PLACEHOLDER}")
    old = repository(course)
    old_line, new_line = (json.dumps(install_line(address))[1:-1] for address in (old, new))  # as in a notebook's file
    old_path, new_path = (address.removeprefix(_GITHUB) for address in (old, new))
    changed = []
    for pattern in _REPEATED_IN:
        for path in sorted(course.glob(pattern)):
            before = path.read_text()
            after = before.replace(old_line, new_line)
            after = re.sub(rf"(github(?:\.com)?/){re.escape(old_path)}(?![\w.-])", rf"\g<1>{new_path}", after)
            after = re.sub(rf"(git clone {re.escape(new)} && cd )\S+", rf"\g<1>{new_path.split('/')[1]}", after)
            if after != before:
                path.write_text(after)
                changed.append(str(path.relative_to(course)))
    return changed
