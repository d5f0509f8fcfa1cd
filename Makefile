# make demo    one recorded run of the embedded model, as a page to open in a browser
# make lab     JupyterLab on the first notebook
# make test    lint, types and all tests
# make lint    lint, format and types only
# make clean   remove what these commands made
#
# PYTHON=python3.12 chooses the Python that the environment is made with; VENV=folder chooses where it is made.
# DEMO="--seed 3", LAB="--no-browser --allow-root" and PYTEST="-k scheduler" hand options on.
# Options for pip go into its own variables: PIP_INDEX_URL, PIP_EXTRA_INDEX_URL and so on.

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo.html
DEMO ?=
LAB ?=
PYTEST ?=

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: help demo lab test lint format notebooks constraints clean
.DEFAULT_GOAL := help
.NOTPARALLEL:

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

$(VENV)/made:
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) here. Choose a Python: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	  "ldm_viz needs Python 3.11 or newer, $(PYTHON) is %d.%d. Choose one: make PYTHON=python3.12 ..." % v[:2] or 0)'
	@echo "Making an environment in $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV) || { echo "Python could not make an environment. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/installed: $(VENV)/made pyproject.toml constraints.txt
	@echo "Installing ldm_viz and what it needs (PyTorch is large: the first time takes minutes)" >&2
	@$(INSTALL) .
	@touch $@

$(VENV)/installed-lab: $(VENV)/installed
	@echo "Installing JupyterLab" >&2
	@$(INSTALL) '.[lab]'
	@touch $@

$(VENV)/installed-test: $(VENV)/made pyproject.toml constraints.txt
	@echo "Installing ldm_viz, what it needs and what tests it" >&2
	@$(INSTALL) '.[test]'
	@touch $(VENV)/installed $(VENV)/installed-lab $@

demo: $(VENV)/installed
	@$(BIN)/python -m ldm_viz demo --out '$(OUT)' $(DEMO)

lab: $(VENV)/installed-lab
	@$(BIN)/python -m jupyterlab notebooks/01-watch-a-run.ipynb $(LAB)

lint: $(VENV)/installed-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/installed-test
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

test: lint
	@$(BIN)/python -m pytest $(PYTEST)

# Run all notebooks anew and save what they print, without widget state, which would be most of the file.
notebooks: $(VENV)/installed-test
	@cd notebooks && $(abspath $(BIN))/python -m nbconvert --to notebook --execute --inplace \
	  --ExecutePreprocessor.store_widget_state=False *.ipynb
	@rm -f notebooks/*.html notebooks/*.safetensors notebooks/*.gif notebooks/*.png notebooks/*.webp

constraints: $(VENV)/installed-test
	@{ sed -n '/^#/p' constraints.txt; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.new
	@mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f demo.html demo.safetensors
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
