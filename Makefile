# Each verb sets up what it needs in .venv by itself, and calls `segedu`, pytest or ruff.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do command -v $$p >/dev/null && \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8888
LAB ?= 06_unet
OUT ?= graded
JOBS ?= 1
WORKERS ?= 2

# Compared with in tests. It asks for an OpenCV that would overwrite the tests' own: so without what it asks for.
CELLPOSE := cellpose==3.1.1.3 fastremap fill-voids natsort roifile

.PHONY: help lab test test-cpus prove grade book epub pdf labs fix bench clean
help:
	@echo "make lab     JupyterLab on the labs (PORT=8888)"
	@echo "make test    all quick tests, in WORKERS=2 processes; each needs a processor and 3 GB"
	@echo "make test-cpus  the tests as other CPUs would run them, with one and two threads, and under load; hours, resumes"
	@echo "make prove   what takes hours: rows of tests/proofs.csv; resumes"
	@echo "make grade   grade SUBMISSIONS=folder LAB=06_unet OUT=graded JOBS=1; the examples where none is given"
	@echo "make book    the site, in _build/html"
	@echo "make epub    the whole book as an EPUB, in _build/epub"
	@echo "make pdf     the whole book as _build/book.pdf, printed with Chromium"
	@echo "make labs    derive labs/ and solutions/*.ipynb from solutions/*.py"
	@echo "make fix     format, lint, derive"
	@echo "make bench   ours beside the peers"
	@echo "make clean   remove what the other verbs built, .venv excepted"

# One stamp a set of extras: a verb installs only what it needs, once, and again when pyproject changes.
$(VENV)/.%: pyproject.toml
	@test -n "$(PYTHON)" || { echo "segedu needs Python 3.11, 3.12 or 3.13; set PYTHON=/path/to/python"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing segedu[$*] into $(VENV); the first time takes minutes and several GB (torch)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@test "$*" != test || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(CELLPOSE)
	@touch $@

lab: $(VENV)/.lab
	$(BIN)/segedu lab --port $(PORT)

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS) -m "not prove" $(TESTS)

test-cpus: $(VENV)/.test
	$(BIN)/python tests/other_cpus.py --seeds
	$(BIN)/python tests/other_cpus.py $(ROWS)

prove: $(VENV)/.test
	$(BIN)/segedu prove $(CLAIMS)

grade: $(VENV)/.grading
ifdef SUBMISSIONS
	$(BIN)/segedu grade $(SUBMISSIONS) --lab $(LAB) --out $(OUT) --jobs $(JOBS)
else
	for lab in 04_metrics 06_unet; do \
	  $(BIN)/segedu grade tests/submissions/$$lab --lab $$lab --out $(OUT) --jobs $(JOBS) \
	    --cell-seconds 20 --expect tests/submissions/$$lab/expected.csv || exit 1; done
endif

book: $(VENV)/.docs
	$(BIN)/segedu book

epub pdf: $(VENV)/.docs
	$(BIN)/segedu $@

labs: $(VENV)/.author
	$(BIN)/segedu labs
	$(BIN)/python tests/submissions/make.py

fix: $(VENV)/.author
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/segedu labs --no-execute

bench: $(VENV)/.test
	$(BIN)/segedu bench

clean:
	rm -rf _build jupyter_execute graded runs dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
