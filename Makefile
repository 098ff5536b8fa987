# Cartwheel. `make demo` and `make test` do all the set-up themselves, once.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO ?= demo

.PHONY: help setup demo test check bench data constraints clean

help:            ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/:\t/' | expand -t 14

setup: $(READY)  ## make .venv with everything pinned in constraints.txt

# Byte-compiling halves the start of every command: the imports alone otherwise take ten seconds.
# constraints.txt is complete, so nothing is resolved: with hashes, pip would refuse a pinned package that another wants
# with an extra (google-auth[pyopenssl]) from the day on which a newer release of it appears.
$(READY): constraints.txt setup.py
	@if command -v uv >/dev/null; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
	  uv pip install --quiet --python $(BIN)/python --compile-bytecode --no-deps --require-hashes -r constraints.txt && \
	  uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . ; \
	else \
	  $(PYTHON) -m venv $(VENV) && \
	  env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r constraints.txt && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . ; \
	fi
	@touch $(READY)

demo: $(READY)   ## the main job on a synthetic shop, or EVENTS=… [ITEM_PROPERTIES=… CATEGORY_TREE=…]
	@$(BIN)/python -m benchmarks.demo --output "$(DEMO)" $(if $(EVENTS),--events "$(EVENTS)") \
		$(if $(ITEM_PROPERTIES),--item-properties "$(ITEM_PROPERTIES)") $(if $(CATEGORY_TREE),--category-tree "$(CATEGORY_TREE)")

test: $(READY)   ## all tests
	$(BIN)/python -m pytest

check: $(READY)  ## format, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## every benchmark; results in benchmarks/results
	$(BIN)/python -m benchmarks

data: $(READY)   ## the real Retailrocket files, with your own Kaggle account
	$(BIN)/python -m preprocessing download --output data/retailrocket

PIN := uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header setup.py
IMAGE_PIN := $(PIN) --no-annotate --constraint constraints.txt --extra storage
REQUIREMENTS := k8s/requirements
UPGRADE ?= --upgrade

# An image installs a part of what was tested; trainer-gpu adds the CUDA wheels.
constraints:     ## pin the newest versions that setup.py allows, or UPGRADE= to keep those there (needs uv)
	$(PIN) --extra dev $(UPGRADE) -o constraints.txt
	$(IMAGE_PIN) --extra preprocessing -o $(REQUIREMENTS)/preprocessing.txt
	$(IMAGE_PIN) --extra trainer -o $(REQUIREMENTS)/trainer.txt
	$(IMAGE_PIN) --extra gpu | awk '/^[a-z]/ {is_cuda = /^nvidia-/} is_cuda' > $(REQUIREMENTS)/gpu.txt

clean:           ## remove what the demo made
	rm -rf "$(DEMO)"
