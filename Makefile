# make demo | make test | make test-slow | make test-gpu | make fuzz | make test-browser | make lint | make bench | make settings | make docs |
# make audit: each sets up .venv by itself.
# make test-versions: the tests under other versions of Python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RECIPE := recipes/prompts-2mix
# Where there is no apt-get, the demo uses synthetic voices.
CORPUS := $(if $(shell command -v apt-get),prompts,synthetic)

.PHONY: demo test test-slow test-gpu fuzz test-browser test-versions lint bench settings docs audit venv clean
.DELETE_ON_ERROR:

venv: $(STAMP)

$(STAMP): setup.cfg pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON); install Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $$($(PYTHON) --version) is too old, Python 3.11 or newer is needed; name one: make PYTHON=python3.11" >&2; exit 1; }
	@tools/system_packages.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

demo: venv
	$(RECIPE)/run.sh --config conf/demo.yaml --tag demo --corpus $(CORPUS) --shipped yes

test: venv
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The pages about the settings of experiments and about the commands.
settings: venv
	$(BIN)/python tools/docs/commands.py docs/commands.md
	$(BIN)/python -c 'import pathlib, sepml.commands.tasks as tasks; tasks.write_settings_page(pathlib.Path("docs/settings.md"))'

# The documentation in site/, which needs no network; open site/index.html. Runs the notebooks, and fails on a broken link.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

test-slow: venv
	$(BIN)/python -m pytest -m slow

# What computes on a CUDA GPU; skipped without one.
test-gpu: venv
	$(BIN)/python -m pytest -m gpu -rs tests/gpu tests/training/test_fit.py

# The tests that need a browser, which the others skip without one; build/screenshots has what they saw.
test-browser: venv
	command -v chromium >/dev/null || apt-get install -y --no-install-recommends chromium fonts-dejavu-core
	SEPML_SCREENSHOTS=build/screenshots $(BIN)/python -m pytest tests/speech/report/test_accessibility.py \
		tests/speech/report/test_report_browser.py tests/speech/demo/test_serve_browser.py

# Passes over versions of which there is no interpreter. Each has a .venv-VERSION of its own.
# make test-versions VERSIONS=3.12 TESTS=tests/training/test_fit.py
VERSIONS := 3.12 3.13 3.14
TESTS :=
test-versions:
	tools/test_versions.sh $(VERSIONS) -- $(TESTS)

# 20,000 seeded damages to files of every kind; `make test` runs 400.
fuzz: venv
	$(BIN)/python tests/helpers/fuzz.py --count 20000

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: venv
	$(BIN)/python tools/bench/train_step.py

# The licences of all packages, and known weaknesses of their versions where that service can be reached.
audit: venv
	tools/audit.sh $(PYTHON) $(VENV)

clean:
	rm -rf $(VENV) $(VENV)-* build site *.egg-info
