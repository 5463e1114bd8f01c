# Needs Python 3.11 or newer and git, nothing else; everything goes into .venv.
# Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
PORT ?= 5000
SEED ?= 1
FUZZ ?= 5
PYTEST_ARGS ?= -n 2 --dist loadfile
RUN = .venv/bin/python

# A Python that was asked for replaces the one that .venv has; the default does not.
ifneq ($(origin PYTHON),file)
VENV = .ci/venv --replace "$(PYTHON)"
else
VENV = .ci/venv "$(PYTHON)"
endif

help:
	@echo 'make demo      put this repository on an example forge, clone it back, compare'
	@echo 'make forge     start the forge that the demo left behind (PORT=5000)'
	@echo 'make test      run all tests, on real PostgreSQL, Redis and S3 servers that they start themselves'
	@echo 'make fuzz      try the properties with fresh examples, and five times as many (FUZZ=5)'
	@echo 'make lint      ruff, mypy, import-linter'
	@echo 'make docs      build the documentation into site/'
	@echo 'make package   build wheel and sdist into dist/, try each in a fresh environment'
	@echo 'make soak      ten minutes of load while everything around a hub fails (SEED=1)'
	@echo 'make bench     race the plugin against git: BENCH_ARGS="--sizes 1000,10000 --git PATH"'
	@echo 'make clean     remove what the above made'

demo:
	@$(VENV) forge
	@$(RUN) examples/demo.py

forge:
	@$(VENV) forge
	@FORGE_DATA=.demo/forge $(RUN) -m flask --app examples/forge run --port $(PORT)

test:
	@$(VENV) dev
	$(RUN) -m pytest $(PYTEST_ARGS)

# The tests try the same examples in every run.
fuzz:
	@$(VENV) dev
	MUSEHUB_FUZZ=$(FUZZ) $(RUN) -m pytest $(PYTEST_ARGS) --timeout 3600 -m hypothesis

lint:
	@$(VENV) dev
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	.venv/bin/lint-imports

docs:
	@$(VENV) dev
	$(RUN) -m mkdocs build --strict --quiet

package:
	@$(VENV) dev
	rm -rf dist
	$(RUN) -m build --quiet --outdir dist
	MUSEHUB_DIST=dist $(RUN) -m pytest tests/packaging

soak:
	@$(VENV) dev
	$(RUN) benchmarks/soak.py --minutes 10 --seed $(SEED)

soak-short:
	@$(VENV) dev
	$(RUN) benchmarks/soak.py --minutes 0.5 --seed $(SEED)

bench:
	@$(VENV) dev
	$(RUN) benchmarks/bench.py $(BENCH_ARGS)

bench-smoke:
	@$(VENV) dev
	$(RUN) benchmarks/bench.py --sizes 60 --quick

clean:
	rm -rf .venv .demo build dist site *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis

.PHONY: help demo forge test fuzz lint docs package soak soak-short bench bench-smoke clean
