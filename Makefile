# Everything happens in .venv; nothing outside the clone is touched and no root is needed.
#   make demo    the real calibration problem, end to end
#   make test    builds and runs the tests; where nvcc is, the CUDA sources are compiled and looked at too
# TORCH=... picks another torch (default: the version this was developed with; CPU builds do).
TORCH ?= torch==2.13.0
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What `make test` runs of the CUDA kernels, on the CPU; `make cuda-emulate` runs all, in twenty minutes.
EMULATED := $(patsubst %,tests/cuda/test_cuda_%.py,hard_concrete penalties gated_weight gated_totals)
STAMP := $(VENV)/.installed
SOURCES := $(shell find csrc -type f) setup.py cuda_toolkit.py pyproject.toml

.PHONY: demo test cuda-check bench lint sanitize cuda-emulate peer-tests clean

demo: $(STAMP)
	$(BIN)/l0fast demo --out l0fast-demo

test: $(STAMP)
	$(BIN)/python tests/cuda/check.py --optional
	tests/cuda/run_emulated.sh $(BIN)/python $(EMULATED)
	$(BIN)/python -m pytest

# Compiles and links the CUDA sources for the default architectures; needs nvcc, no GPU and no CUDA build of torch.
cuda-check: $(STAMP)
	$(BIN)/python tests/cuda/check.py

bench: $(STAMP)
	$(BIN)/python benchmarks/bench_calibration.py
	$(BIN)/python benchmarks/bench_layers.py

# With the python that has a CUDA torch, which no network may be needed for; it builds in place by itself.
.PHONY: bench-cuda
bench-cuda:
	$(PYTHON) benchmarks/bench_cuda.py $(BENCH_CUDA)

lint: $(STAMP)
	$(BIN)/python -m pip install -q -e .[lint] --no-build-isolation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(shell find csrc tests/cuda -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

# The op and packer tests under AddressSanitizer and UndefinedBehaviorSanitizer, in a copy of its own.
sanitize: $(STAMP)
	tests/run_sanitized.sh $(BIN)/python

# The op tests on the CUDA kernels, run on the CPU (tests/cuda/emulator).
cuda-emulate: $(STAMP)
	tests/cuda/run_emulated.sh $(BIN)/python

# One stamp for the environment, remade when a source changes: the editable install compiles what is new.
$(STAMP): $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q "$(TORCH)" "setuptools>=77" wheel ninja
	$(BIN)/python -m pip install -q --no-build-isolation -e ".[test,report,data]"
	touch $(STAMP)

# l0-python's own tests on l0fast under the name l0 (fetched from PyPI).
peer-tests: $(STAMP)
	tests/run_peer_tests.sh $(BIN)/python

clean:
	rm -rf $(VENV) build dist *.egg-info l0fast/*.so l0fast-demo .pytest_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
