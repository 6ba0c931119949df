# `make` alone lists what can be made.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help tutorial deeper test check weekly committed series unit slow lab demo notebooks lint format browser mutants site slides handout bench weights resolve clean

# JupyterLab asks nobody for news or updates.
QUIET := --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate
NOTEBOOKS := $(sort $(wildcard notebooks/[0-9]*.ipynb))
BIN := .venv/bin
# pip's bars are for a terminal.
PIP = test -t 1 || quiet=--quiet; $(BIN)/python -m pip install $$quiet --disable-pip-version-check -c constraints.txt
RUN ?= runs/default
SUPPORTED := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

tutorial: .venv/runtime  ## execute notebooks 00 to 04, the core of the course, and show the results (ten minutes)
	$(BIN)/python -m covid_utils tutorial

deeper: .venv/runtime  ## execute notebooks 05 to 09, which go deeper (ten minutes)
	$(BIN)/python -m covid_utils deeper

lab: .venv/runtime  ## open JupyterLab in notebooks/, on this machine only
	$(BIN)/jupyter lab --ip=127.0.0.1 --LabApp.default_url=/lab/tree/notebooks $(QUIET)

demo: .venv/demo  ## ask the network of RUN=runs/default on a page in the browser, on this machine only
	$(BIN)/python -m covid_utils demo $(RUN)

# `make check` runs FAST: the taught code, the readers and the rules of the house. SLOW start processes.
FAST := $(addprefix tests/test_,$(addsuffix .py,data evaluation explain folders house models pictures plotting runs training))
SLOW := $(addprefix tests/test_,$(addsuffix .py,demo exercises export kills models notebooks reliability site slides sweep training))

test: series unit slow  ## every notebook in small, and all tests but the weekly ones; `make -j2 test` keeps two cores busy

check: lint  ## lint, and the fast tests: a minute or so
	$(BIN)/python -m pytest -q -x $(FAST)

# The notebooks through nbval, each alone, without a network and with the profile smoke; `make committed`: as they are.
series: .venv/test
	$(BIN)/python -m pytest tests/test_notebooks.py

unit: .venv/test
	$(BIN)/python -m pytest $(addprefix --ignore=,$(SLOW))

slow: .venv/test
	$(BIN)/python -m pytest $(filter-out %notebooks.py,$(SLOW))

committed: .venv/test
	home=$$(mktemp -d) && COVID_UTILS_HOME=$$home $(BIN)/python -m pytest -p no:cacheprovider --nbval-lax \
		--nbval-current-env --nbval-cell-timeout=600 $(NOTEBOOKS) && rm -r $$home

mutants: .venv/test  ## change the taught files in a thousand places, one at a time: do the tests notice?
	$(PIP) -e ".[mutants]"
	OMP_NUM_THREADS=1 $(BIN)/mutmut run
	$(BIN)/mutmut export-cicd-stats && cat mutants/mutmut-cicd-stats.json

weekly: .venv/test resolve committed mutants  ## what is slow and rarely breaks: kill -9, fuzzing, versions, notebooks and pages in a browser
	$(BIN)/python -m pytest -m weekly
	FUZZ=2000 $(BIN)/python -m pytest tests/test_fuzz.py
	$(MAKE) browser

browser: site slides  ## run every notebook in JupyterLab, and look at demo, site and slides, in a headless Chromium
	$(BIN)/python tests/browser.py
	$(BIN)/python tests/browser_pages.py

notebooks: .venv/test  ## execute the committed notebooks anew: all of them, or none is touched
	$(BIN)/python -m covid_utils notebooks

handout: .venv/runtime  ## copies of the notebooks for learners (no solutions, no outputs) and teachers, in build/handout/
	$(BIN)/python -m covid_utils handout

lint: .venv/test  ## look for mistakes, wrong formatting and misspelt words
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell

format: .venv/test  ## put code and notebooks into the common format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

site: .venv/test  ## the course as a site in build/site/: notebooks, results, glossary, API, search; needs no network
	$(BIN)/python -m sphinx -q -W -c docs -d build/doctrees . build/site
	@echo "Open build/site/index.html"

slides: .venv/test  ## a deck of slides with speaker notes for each notebook, in build/slides/; needs no network
	$(BIN)/python docs/slides.py

bench: .venv/test  ## time the course against a plain loop (20 minutes)
	$(BIN)/python benchmarks/speed.py --rounds 3

weights: .venv/runtime  ## make the bundled weights anew (an hour on two cores)
	$(BIN)/python benchmarks/pretrain.py --backbone resnet18
	$(BIN)/python benchmarks/pretrain.py --backbone efficientnet_lite0
	$(BIN)/python benchmarks/pretrain.py --backbone efficientnet_lite0 --weights imagenet

resolve: .venv/test  ## do the tested versions fit on all systems and Pythons? Before a release; asks the index
	$(PIP) -e ".[release]"
	$(BIN)/python tests/resolve.py

clean:  ## delete the virtual environment and all caches; runs/ and data/ stay
	rm -rf .venv .pytest_cache .ruff_cache covid_utils.egg-info
	find covid_utils tests notebooks benchmarks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

# Each stamp file is as new as the last successful installation.
.venv/runtime: pyproject.toml constraints.txt
	@$(if $(PYTHON),$(PYTHON),false) -c '$(SUPPORTED)' || { \
		echo 'This needs Python 3.11 or newer: install one, or name it as in "make PYTHON=/path/to/python3.12".'; exit 1; }
	@echo 'Fetching PyTorch and what else the course needs, 3 GB: minutes on a fast line, half an hour on a slow one.'
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

.venv/demo: .venv/runtime
	$(PIP) -e ".[demo]"
	@touch $@

.venv/test: .venv/runtime
	@echo 'Fetching what the tests need, 0.2 GB.'
	$(PIP) -e ".[test]"
	@touch $@
