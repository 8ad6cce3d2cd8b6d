# Two commands are all a newcomer needs:  make chat  and  make test
# Both make their own environment in .venv from exact, recorded versions (requirements/*.lock).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests start hundreds of interpreters, each of which would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

# The locks name every package, so pip must not look for more: older versions of pip (23.2 comes with
# Python 3.11.7) answer a requirement with an extra, such as `google-auth[requests]`, with the newest
# release there is, for which the lock holds no hash. tests/outside/locks proves it.
INSTALL := $(BIN)/pip install -q --no-deps --require-hashes

.PHONY: help chat test near check tests newest tests-newer outside lock bench soak docs release relock clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

chat: $(VENV)/.chat ## talk to a real model on this machine: no key, no account
	@$(BIN)/rejoinder chat $(ARGS)

test: check tests newest ## everything that has to pass: lint, format, types, floors, tests, coverage

check: $(VENV)/.dev ## lint, format, types and import floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

tests: $(VENV)/.dev ## the tests; or some of them:  make tests ARGS="tests/wire -x"
	$(BIN)/python -m pytest $(or $(ARGS),$(SIDE_BY_SIDE))

# One process more than there are cores, as some tests wait for others (terminals, servers, processes).
# A process that runs out of tests takes some from another one.
CORES := $(shell getconf _NPROCESSORS_ONLN)
SIDE_BY_SIDE := -q -n $(shell expr $(CORES) + 1) --maxprocesses=8 --dist=worksteal

# The newest Python of this machine on which the tests are known to pass, where it is newer than $(PYTHON).
NEWEST = $(shell ours=$$($(PYTHON) -c 'import sys; print(sys.version_info[1])'); for minor in 13 12; do \
  [ $$ours -lt $$minor ] || continue; \
  for python in python3.$$minor $(HOME)/.pyenv/versions/3.$$minor.*/bin/python3; do \
    "$$python" -c "import ensurepip, venv" 2>/dev/null && echo "$$python" && exit; \
  done; done)
# What the newest Python need not repeat, as another interpreter shows nothing else there: what is about files,
# and most parameters of tests that have many (tests/few.py). It takes minutes.
ONCE := --few --ignore=tests/house
# Branch coverage is measured there: the interpreter tells slipcover of each branch only once. On 3.11 each
# line would be looked at each time, and the tests would take twice as long.
COVERED := $(VENV)-newest/coverage.json
FLOOR := 94# per cent; only ever rises

near: $(VENV)/.dev ## the quick tests near to what changed, in half a minute; options of pytest:  make near ARGS=-x
	@$(BIN)/ruff check -q .
	@$(BIN)/python tests/near.py $(SIDE_BY_SIDE) $(ARGS)

# There, bodies of answers are read the other of two ways (tests/transport/test_aiohttp_push.py).
newest: export REJOINDER_TESTS_PULL := 1
newest: ## many of the tests, with branch coverage, on the newest Python of this machine, where it is newer than the one above
	@newest="$(NEWEST)"; if [ -z "$$newest" ]; then \
	  echo "no newer Python on this machine: the tests ran on one only, and coverage was not measured"; \
	else $(MAKE) --no-print-directory tests-newer PYTHON="$$newest" VENV=$(VENV)-newest ARGS="$(ONCE)" \
	    RUN="-m slipcover --json --out $(COVERED)" && \
	  $(VENV)-newest/bin/python -m slipcover --merge $(COVERED) --out $(COVERED) --fail-under $(FLOOR); fi

tests-newer: ## the tests on another interpreter:  make tests-newer PYTHON=python3.13 VENV=.venv-3.13
	@$(MAKE) --no-print-directory $(VENV)/.dev
	$(BIN)/python $(RUN) -m pytest $(SIDE_BY_SIDE) $(ARGS)

outside: $(VENV)/.dev ## tests with real servers and frameworks, in environments of their own: none may skip
	$(BIN)/python -m pytest -q --nothing-skips -n auto --maxprocesses=4 --dist=loadfile $(or $(ARGS),tests/outside)

lock: $(VENV)/.dev ## record the newest versions of everything foreign, and print what became newer
	$(BIN)/python requirements/lock.py --newest

bench: $(VENV)/.dev ## all benchmarks beside their peers, an hour or more:  make bench ARGS="--only providers"
	$(BIN)/python bench/all.py $(ARGS)

soak: $(VENV)/.dev ## tens of thousands of turns with random faults and consumers:  make soak ARGS="--turns 500 --kind plain"
	@eager=$$($(BIN)/python -c 'import sys; print("--eager" if sys.version_info >= (3, 12) else "")'); \
	for how in "--loop asyncio" "--loop uvloop" "$${eager:+--loop asyncio --eager}"; do \
	  [ -z "$$how" ] || { echo "== $$how"; $(BIN)/python -m rejoinder.testing.soak $$how $(or $(ARGS),--full) || exit 1; }; \
	done

docs: $(VENV)/.dev ## the documentation site, in site/ (open site/index.html); a broken link is an error
	@$(BIN)/python scripts/docs.py

release: $(VENV)/.dev ## the files of a release in dist/: wheel, sdist, bill of materials, checksums
	@$(BIN)/python scripts/release.py $(ARGS)

relock: $(VENV)/.dev ## record what pyproject.toml or a requirements/*/*.in added; all other versions stay
	$(BIN)/python requirements/lock.py

clean: ## remove the environments
	rm -rf $(VENV) $(VENV)-*

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "rejoinder needs Python 3.11 or newer, %s is %d.%d: make PYTHON=/path/to/python3.11" % (sys.executable, v[0], v[1]))'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.chat: requirements/chat.lock pyproject.toml | $(BIN)/python
	$(INSTALL) -r requirements/chat.lock
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.lock pyproject.toml | $(BIN)/python
	$(INSTALL) -r requirements/dev.lock
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@
