# make demo   set everything up, audit a built-in demo (ARGS="--world radiograph": the medical one), open the dashboard
# make test   set everything up, run the whole gate: format, lint, types, tests
# Each needs Python >= 3.11 and make, nothing else.

# The first interpreter that really starts and is of a supported version: a name on the path proves neither (pyenv shims).
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(firstword $(foreach python,python3.13 python3.12 python3.11 python3,\
            $(shell $(python) -c '$(SUPPORTED)' >/dev/null 2>&1 && command -v $(python))))
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: demo test check format pictures bench bench-screen benchmark venv demo-model clean

demo: $(VENV)/.runtime
	$(BIN)/ravl demo $(ARGS)

test: check

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not browser" $(ARGS)
	$(BIN)/python -m pytest -m browser $(ARGS)

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The pictures of the README, taken by a browser from the real demo, light and dark.
pictures: $(VENV)/.dev
	$(BIN)/python -m tests.browser.pictures assets/pictures

benchmark: $(VENV)/.runtime
	$(BIN)/ravl benchmark demo $(ARGS)

bench: $(VENV)/.runtime
	$(BIN)/python -m ravl.bench $(ARGS)

# How long one waits for the screen, and the server's memory: a real browser, on a machine with nothing else to do.
bench-screen: $(VENV)/.dev
	$(BIN)/python -m tests.browser.measure $(ARGS)

demo-model: $(VENV)/.runtime
	$(BIN)/python -m ravl.planted.tiny_clip assets/demo-model
	$(BIN)/python -m ravl.planted.tiny_clip --world radiograph assets/radiograph-model

venv: $(VENV)/.dev

$(VENV)/.created:
	@"$(PYTHON)" -c '$(SUPPORTED)' 2>/dev/null || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed, found $(or $(PYTHON),none). Run: make PYTHON=/path/to/python3.11"; exit 2; }
	@"$(PYTHON)" -m venv $(VENV) || \
	  { echo "The venv module is missing. On Debian and Ubuntu: apt-get install python3-venv"; exit 2; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

# With the extra dicom, which is small: the medical demo needs it (make demo ARGS="--world radiograph").
$(VENV)/.runtime: $(VENV)/.created requirements.txt requirements-dicom.txt pyproject.toml
	$(BIN)/python -m pip install --quiet -r requirements.txt -r requirements-dicom.txt
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

# Of the extra open-clip the libraries alone: they would pull a torchvision, whose builds on PyPI need a GPU's libraries.
# The tests need its Python part only, kept where nothing else finds it (tests/torchvision_apart.py).
$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt requirements-open-clip.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-open-clip.txt
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/torchvision-apart 'torchvision==0.28.*'
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
