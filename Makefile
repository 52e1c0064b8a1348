# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
# Named, because plain `torch` brings several GB of CUDA to machines without a GPU. Override to match yours.
TORCH ?= torch==2.13.0
# More packages for the environment, for example a torchvision that fits your torch.
EXTRA_PACKAGES ?=

BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed

# What other hosts lack (docs/platforms.md), but for the walls of the sandbox: without those there is little to test.
WITHOUT = $(shell $(BIN)/python -c "from aistore.fallbacks import FEATURES; print(*[f.word for f in FEATURES if not f.wall])")
FALLBACKS_ETL = tests/etl/test_workers.py tests/etl/test_load.py tests/etl/test_launcher.py tests/etl/test_scripts.py tests/etl/test_dispatch.py
FALLBACKS_STORE = tests/server/test_etl.py tests/server/test_etl_life.py tests/server/test_objects.py \
	tests/server/test_supervision.py tests/storage/test_conformance.py

# What starts several nodes, or an object store.
NODES = tests/jobs tests/laptop tests/storage/objectstore tests/server/test_cluster_transforms.py \
	tests/server/test_forwarding.py tests/server/test_peers.py tests/server/test_reads.py tests/etl/test_everywhere.py \
	tests/docs/test_cluster_document.py tests/pytorch/test_torch_cluster.py

# What installs clients of others, and what they run, from the package index.
CLIENTS = tests/acceptance tests/docs/test_write_a_transform.py tests/etl/test_nvidia_servers.py

# What is about transforms without a store around them, and needs no package index.
TRANSFORMS = $(filter-out $(NODES) $(ATTACKS) $(CLIENTS),$(wildcard tests/etl/test_*.py))

# One store, over HTTP.
SERVER = $(filter-out $(NODES),$(wildcard tests/server/test_*.py))

# Attacks of transforms, on hosts of each kind that this one can be: make attacks-<kind> for one of them.
ATTACKS = tests/etl/test_attacks.py
HOSTS = root user confined none root-confined root-stuck

GROUPS = test-clients test-nodes test-server test-machine test-cluster test-transforms fallbacks-etl fallbacks-store test-attacks

.PHONY: demo test $(GROUPS) $(HOSTS:%=attacks-%) test-fallbacks lint bench clean

demo: $(INSTALLED)
	$(BIN)/python examples/demo/run.py

# Several groups at a time: they wait for processes more than they compute. Beside others a test may run out of time, so
# what fails is run once more with nothing beside it, and has to pass then.
test: $(INSTALLED)
	rm -rf $(PASSED)
	$(MAKE) -j4 --output-sync=target --keep-going $(GROUPS) || \
		{ echo "== Once more, by itself: what failed beside others"; $(MAKE) --keep-going AGAIN=yes $(GROUPS); }

# The groups that passed, by name. Each remembers in a directory of its own what failed.
PASSED = .pytest_cache/passed
# $(call pytest,arguments): the tests of a group. The second time, none of a group that has passed; and it is an error
# if one that has not has nothing to try again, because it ended without saying what failed.
pytest = mkdir -p $(PASSED) && { $(if $(AGAIN),test -e $(PASSED)/$@ ||) $(BIN)/python -m pytest --durations=15 \
	-o cache_dir=.pytest_cache/$@ $(if $(AGAIN),--last-failed --last-failed-no-failures=none) $(1); } && touch $(PASSED)/$@

test-machine:
	$(call pytest,$(addprefix --ignore=,tests/cluster tests/server $(NODES) $(CLIENTS) $(TRANSFORMS) $(ATTACKS)))

test-server:
	$(call pytest,$(SERVER))

test-clients:
	$(call pytest,$(CLIENTS))

test-cluster:
	$(call pytest,tests/cluster)

test-nodes:
	$(call pytest,$(NODES))

test-transforms:
	$(call pytest,$(TRANSFORMS))

test-attacks:
	$(call pytest,$(ATTACKS))

$(HOSTS:%=attacks-%): attacks-%:
	AIS_ATTACK_HOSTS=all $(BIN)/python -m pytest -p no:cacheprovider $(ATTACKS) -k "[$*-warm or [$*-fork or [$*]"

test-fallbacks: $(INSTALLED)
	$(MAKE) -j2 fallbacks-etl fallbacks-store

fallbacks-etl fallbacks-store: export AIS_WITHOUT = $(WITHOUT)
fallbacks-etl:
	$(call pytest,$(FALLBACKS_ETL))

fallbacks-store:
	$(call pytest,$(FALLBACKS_STORE))

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/get.py
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/put.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/transform.py
	$(BIN)/python benchmarks/transform_start.py
	$(BIN)/python benchmarks/epoch.py

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -e '.[all]' --group test --group lint --group demo
	$(if $(EXTRA_PACKAGES),$(BIN)/python -m pip install --quiet $(EXTRA_PACKAGES))
	touch $@

clean:
	rm -rf $(VENV) demo-output .pytest_cache .ruff_cache .mypy_cache .hypothesis
