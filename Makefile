# Every target sets itself up first: on a fresh machine 'make reproduce' and 'make test' need nothing before them
# but Python 3.11, git and make. Everything that is made stays inside this folder.
#
#   make reproduce [PROFILE=smoke|laptop|thesis] [DATA=DIR] [JOBS=N]   every notebook, figure, number and the paper
#   make test                                                 every check that CI runs
#   make setup | lab | kernel | figures | book | paper | bench | lock | llama

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := reproduce

PROFILE ?= laptop
DATA ?=
JOBS ?=
GPU ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo 1)
LOCK := $(if $(GPU),requirements-gpu.lock,requirements.lock)
PYTHON ?= $(firstword $(foreach name,python3.11 python3 python,$(if $(shell command -v $(name) 2>/dev/null),$(if \
  $(filter 3.11,$(shell $(name) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)),$(name)))))
BIN := .venv/bin
RUN = $(BIN)/fedutils reproduce --profile '$(PROFILE)' $(if $(DATA),--data '$(DATA)') $(if $(JOBS),--jobs '$(JOBS)')
HOME_DIR := $(CURDIR)/build/home

# What packages would write into the home folder stays in build/home.
export IPYTHONDIR := $(HOME_DIR)/ipython
export JUPYTER_CONFIG_DIR := $(HOME_DIR)/jupyter/config
export JUPYTER_DATA_DIR := $(HOME_DIR)/jupyter/data
export JUPYTER_RUNTIME_DIR := $(HOME_DIR)/jupyter/runtime
export JUPYTERLAB_SETTINGS_DIR := $(HOME_DIR)/jupyter/settings
export JUPYTERLAB_WORKSPACES_DIR := $(HOME_DIR)/jupyter/workspaces
export MPLCONFIGDIR := $(HOME_DIR)/matplotlib
export KERAS_HOME := $(HOME_DIR)/keras
# pip asks rustc for its version; where that is rustup's, it would write settings.
export RUSTUP_HOME := $(HOME_DIR)/rustup
export PYTHONUNBUFFERED := 1

.PHONY: reproduce test setup lab kernel bench figures book paper lock llama clean

reproduce: setup
	$(RUN)

setup: .venv/ready .venv/flower

# A stamp that names the lock and the interpreter: a changed lock installs anew, an unchanged one costs nothing.
.venv/ready: $(LOCK) pyproject.toml
	@if [ -z '$(PYTHON)' ]; then echo 'error: Python 3.11 expected, found none; on Debian 12: apt-get install python3.11 python3.11-venv; elsewhere: conda env create -f environment.yml' >&2; exit 2; fi
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then echo 'error: $(PYTHON) has no venv module; on Debian 12: apt-get install python3.11-venv' >&2; exit 2; fi
	@echo "setup: $$($(PYTHON) --version), $(LOCK) ($$(grep -c == $(LOCK)) packages, a few minutes the first time)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

test: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@mkdir -p build
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lab: kernel
	$(if $(DATA),FEDUTILS_DATA='$(DATA)') $(BIN)/jupyter lab notebooks

# A kernel inside .venv, named for the device that TensorFlow will use.
kernel: setup
	@$(BIN)/fedutils kernel

# Flower beside the main environment, by a lock of its own: it changes no package of the main lock.
.venv/flower: .venv/ready requirements-flower.lock
	@echo "setup: requirements-flower.lock ($$(grep -c == requirements-flower.lock) packages, under a minute)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-flower.lock
	@touch $@

bench: setup
	$(BIN)/python -m benchmarks

figures: setup
	$(RUN) --only figures

paper: setup
	$(RUN) --only publish

book: setup
	$(RUN) --only book

# Resolve the locks again (network); the rules are in pyproject.toml. Flower's holds what it adds to the main
# lock, whose versions it must accept as they are.
lock: setup
	$(BIN)/uv pip compile pyproject.toml --group dev --group book --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 --quiet --output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml --group dev --group book --group gpu --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 --quiet --output-file requirements-gpu.lock
	$(BIN)/uv pip compile pyproject.toml --group dev --group book --group flower --constraint requirements.lock $$(sed -n 's/^\([^ =]*\)==.*/--no-emit-package \1/p' requirements.lock) --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 --quiet --output-file requirements-flower.lock

# A real server of llama.cpp with a tiny random model, for the tests that are skipped without one (seconds). Compiling takes
# about eight minutes of processor time. In an environment of its own: it changes no package of the locks.
build/llama/ready:
	$(PYTHON) -m venv build/llama
	build/llama/bin/python -m pip install --quiet --disable-pip-version-check 'llama-cpp-python[server]' gguf
	@touch $@

llama: setup build/llama/ready
	FEDUTILS_LLAMA=build/llama/bin/python $(BIN)/python -m pytest tests/test_llama_server.py

clean:
	rm -rf .venv build
