"""Reads `_config.yml`, written in Jupyter Book 1's format, for Sphinx; what to change is there, not here.

    python -m sphinx -W --keep-going -c jupyter-book-config -d _build/doctrees . _build/html

Jupyter Book 1 stops at Sphinx 7, so `make book` uses the engine under it, in its maintained releases.
"""

import os
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parent
book = yaml.safe_load((HERE / "_config.yml").read_text(encoding="utf-8"))
_sphinx, _html, _execute = book["sphinx"], book["html"], book["execute"]

for folder in _sphinx["local_extensions"].values():
    sys.path.insert(0, str((HERE / folder).resolve()))

project = book["title"]
author = book["author"]
copyright = f"{book['copyright']}, {author}"  # Sphinx's name

extensions = [
    "sphinx_external_toc",
    "myst_nb",
    "sphinx_book_theme",
    "sphinxcontrib.bibtex",
    *_sphinx["extra_extensions"],
    *_sphinx["local_extensions"],
]
external_toc_path = str(HERE / "_toc.yml")
html_theme = "sphinx_book_theme"
html_title = book["title"]
html_baseurl = _html["baseurl"]

nb_execution_mode = _execute["execute_notebooks"]
nb_execution_excludepatterns = _execute["exclude_patterns"]
nb_execution_timeout = _execute["timeout"]
nb_execution_raise_on_error = _execute["raise_on_error"]
nb_execution_show_tb = _execute["show_tb"]
nb_output_stderr = _execute["stderr_output"]

globals().update(book["parse"])
globals().update(_sphinx["config"])

# The source folder is the repository: only then do lab pages get right links, and only these are pages.
include_patterns = ["course/**", "labs/**"]
exclude_patterns = book["exclude_patterns"]
_switch = os.environ.get("SEGEDU_SOLUTIONS", "")
segedu_solutions = bool(int(_switch)) if _switch else segedu_solutions  # noqa: F821  (set by _config.yml)
if segedu_solutions:
    include_patterns.append("solutions/**")

bibtex_bibfiles = [str(ROOT / path) for path in book["bibtex_bibfiles"]]
html_favicon = str(ROOT / html_favicon)  # noqa: F821
html_static_path = [str(ROOT / path) for path in html_static_path]  # noqa: F821

html_theme_options = {
    "home_page_in_toc": _html["home_page_in_navbar"],
    "extra_footer": _html["extra_footer"],
    "repository_branch": book["repository"]["branch"],
    "path_to_docs": book["repository"]["path_to_book"],
    "launch_buttons": book["launch_buttons"],
    **_sphinx["config"]["html_theme_options"],
}
