# Two commands matter: `make demo` and `make test`. Both start from nothing but Python 3.11+.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# What the installation compiles: when one of these changes, it is compiled again.
COMPILED := $(shell sed -n 's/^  "\(\(clients\|loadgen\)\/.*\.py\)",$$/\1/p' pyproject.toml)

.PHONY: demo test lint types unit interpreted accept clean

$(VENV)/.installed: pyproject.toml hatch_build.py $(COMPILED)
	$(PYTHON) -c 'import sys; sys.exit("loadgen needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	@echo "demo: the embedded simulator, five times as fast as its estimate, with short answers (64 tokens)"
	$(BIN)/loadgen grid --model olmocr --simulate --sim-time-scale 0.2 --max-tokens 64 --batch-sizes 2,4 --num-requests 24 --label demo

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

unit: $(VENV)/.installed
	$(BIN)/pytest -m 'not accept'

# What tests the compiled modules runs on their sources, too: in a copy, since an import prefers what is compiled.
INTERPRETED := build/interpreted
interpreted: $(VENV)/.installed
	rm -rf $(INTERPRETED) && mkdir -p $(INTERPRETED)
	cp -R clients loadgen tests scripts pyproject.toml $(INTERPRETED)
	rm -f $(INTERPRETED)/*/*.so
	cd $(INTERPRETED) && PYTHONPATH=$$PWD $(CURDIR)/$(BIN)/pytest -q -m 'not accept' tests/clients $(foreach m,$(filter loadgen/%,$(COMPILED)),tests/loadgen/test_$(notdir $(m)))
	rm -rf $(INTERPRETED)

test: lint types unit interpreted

accept: $(VENV)/.installed
	$(BIN)/pytest -m accept -s

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache dist build
