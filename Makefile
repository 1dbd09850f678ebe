# Everything a newcomer types. Needs Python 3.11 or newer, make and g++; the rest goes into .venv.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
ARGS ?=
KILLS ?= 300
SANITIZER ?= address,undefined thread
export VENV PYTHON

# What is written in C++.
NATIVE := $(shell find service -path '*/native/*' -type f)

# What an installed environment depends on: editing Python alone needs no new install.
BUILD := pyproject.toml setup.py deploy/venv.sh $(NATIVE)

BENCHMARKS := search mapped memorize

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# One stamp for each extra. They share the environment, and each of them brings what `cpu` does.
$(BIN)/.installed-%: $(BUILD)
	@deploy/venv.sh $*
	@touch $@ $(BIN)/.installed-cpu

.PHONY: serve
serve: $(BIN)/.installed-cpu ## Serve the models in model_store on 127.0.0.1:8080 (RESMEM_PORT=... and the other settings apply)
	@exec $(BIN)/resmem serve $(ARGS)

.PHONY: test
test: $(BIN)/.installed-dev ## Run the tests (ARGS="-k journal" for some of them)
	@$(BIN)/pytest $(ARGS)

.PHONY: kills
kills: $(BIN)/.installed-dev ## Kill processes 300 times in each of the tests that do (KILLS=..., half an hour and more)
	@RESMEM_KILLS=$(KILLS) $(BIN)/pytest --log-cli-level=INFO tests/faults/test_kill.py \
		tests/faults/test_kill_servers.py tests/faults/test_reload_under_kill.py $(ARGS)

.PHONY: soak
soak: $(BIN)/.installed-bench ## Ten minutes of a hostile client beside a polite one (ARGS="--minutes 60")
	@$(BIN)/python -m benchmarks.speed.hostile $(ARGS)

.PHONY: sanitize
sanitize: $(BIN)/.installed-dev ## Run the tests of native code with sanitizers (SANITIZER=thread for one of the two)
	@set -e; for name in $(SANITIZER); do .ci/sanitize $$name $(ARGS); done

.PHONY: lint
lint: $(BIN)/.installed-dev ## Check style, format and types
	@status=0; for check in "ruff check ." "ruff format --check ." mypy \
		"clang-format --dry-run --Werror $(NATIVE)"; do \
		$(BIN)/$$check || status=1; done; exit $$status

.PHONY: fmt
fmt: $(BIN)/.installed-dev ## Mend style and format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(NATIVE)

.PHONY: bench
bench: $(BIN)/.installed-bench ## Run the speed benchmarks; benchmarks/quality has the long ones
	@set -e; for name in $(BENCHMARKS); do \
		echo "== $$name"; $(BIN)/python -m benchmarks.speed.$$name $(ARGS); done

.PHONY: bench-servers
bench-servers: $(BIN)/.installed-bench ## Install the servers that benchmarks.speed.compare compares with
	@$(BIN)/python -m benchmarks.speed.environments

.PHONY: clean
clean: ## Remove what was built; state and model_store stay
	@rm -rf $(VENV) $(VENV)-newest build dist service/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis benchmarks/out
	@find service -name '*.so' -delete
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
