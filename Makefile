# Cartwheel. `make demo` and `make test` do all the set-up themselves, once.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
IO_VENV := .venv-tensorflow-io
IO_READY := $(IO_VENV)/.ready
DEMO ?= demo

.PHONY: help setup demo test test-tensorflow-io check docs bench data image constraints clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/:\t/' | expand -t 22

setup: $(READY)  ## make .venv with everything pinned in constraints.txt

# Byte-compiling halves the start of every command: the imports alone otherwise take ten seconds.
# The pins are complete, so nothing is resolved: with hashes, pip would refuse a pinned package that another wants
# with an extra (google-auth[pyopenssl]) from the day on which a newer release of it appears.
# $(call install,VENV,PINS)
define install
	@echo "making $(1): the pinned packages, 4 GB, once; some minutes" >&2
	@if command -v uv >/dev/null; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) $(1) && \
	  uv pip install --quiet --python $(1)/bin/python --compile-bytecode --no-deps --require-hashes -r $(2) && \
	  uv pip install --quiet --python $(1)/bin/python --no-deps --no-build-isolation --editable . ; \
	else \
	  $(PYTHON) -m venv $(1) && \
	  env -u PYTHONDONTWRITEBYTECODE $(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(2) && \
	  $(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . ; \
	fi
	@touch $@
endef

# The peers that benchmarks and their tests compare with are pinned apart: no extra of ours needs them.
$(READY): constraints.txt benchmarks/requirements.txt setup.py
	$(call install,$(VENV),constraints.txt -r benchmarks/requirements.txt)

$(IO_READY): constraints-tensorflow-io.txt setup.py
	$(call install,$(IO_VENV),constraints-tensorflow-io.txt)

demo: $(READY)   ## the main job on a synthetic shop, or EVENTS=… [ITEM_PROPERTIES=… CATEGORY_TREE=…]
	@$(BIN)/python -m cartwheel.demo --output "$(DEMO)" $(if $(EVENTS),--events "$(EVENTS)") \
		$(if $(ITEM_PROPERTIES),--item-properties "$(ITEM_PROPERTIES)") $(if $(CATEGORY_TREE),--category-tree "$(CATEGORY_TREE)")

# Two at a time, for most of them wait or use one core; before, what must not share the cores. A file stays with one
# process, which shares what its tests share; whole jobs, which take longest, come first.
test: $(READY)   ## all tests
	$(BIN)/python -m pytest -m alone
	$(BIN)/python -m pytest -m "not alone" --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-tensorflow-io: $(IO_READY)  ## the trainer on s3:// through tensorflow-io, in an environment of its own
	$(IO_VENV)/bin/python -m pytest -m tensorflow_io tests/integration/test_tensorflow_io.py

check: $(READY)  ## format, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)   ## the documentation site, in site/; broken links fail
	$(BIN)/python -m tools.site

bench: $(READY)  ## the benchmarks but quality and the soak; results in benchmarks/results
	$(BIN)/python -m benchmarks

data: $(READY)   ## the real Retailrocket files, with your own Kaggle account
	$(BIN)/python -m preprocessing download --output data/retailrocket

image:           ## build the three images and print what they are made of (needs Docker, or see k8s/images.sh)
	k8s/images.sh preprocessing trainer trainer-gpu

PIN := uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header setup.py
IMAGE_PIN := $(PIN) --no-annotate --constraint constraints.txt --extra storage
REQUIREMENTS := k8s/requirements
UPGRADE ?= --upgrade

# An image installs a part of what was tested; trainer-gpu adds the CUDA wheels.
constraints:     ## pin the newest versions that setup.py allows, or UPGRADE= to keep those there (needs uv)
	$(PIN) --extra dev $(UPGRADE) -o constraints.txt
	$(PIN) --extra trainer --extra tensorflow-io --extra test $(UPGRADE) -o constraints-tensorflow-io.txt
	$(IMAGE_PIN) --extra preprocessing -o $(REQUIREMENTS)/preprocessing.txt
	$(IMAGE_PIN) --extra trainer -o $(REQUIREMENTS)/trainer.txt
	$(IMAGE_PIN) --extra gpu | awk '/^[a-z]/ {is_cuda = /^nvidia-/} is_cuda' > $(REQUIREMENTS)/gpu.txt

clean:           ## remove what the demo made
	rm -rf "$(DEMO)"
