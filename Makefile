# `quickstart` and `test` set up everything themselves. They need only Python >= 3.11.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2
# XLA allocates the buffers of a program again at every call. With huge pages the kernel hands them out in fewer,
# larger pieces, which makes a training step on a CPU one third shorter. C libraries other than glibc ignore this.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: quickstart test test-all lint lock gpu clean aot arm-setup arm-check

quickstart: .venv/installed
	$(BIN)/python -m experiments.quickstart

# The proof of a change, in minutes.
test: .venv/installed lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow"

# The same and the runs of published sizes, several processes, worker processes and programs for TPUs; CI runs this.
test-all: .venv/installed build/aot/tpu/installed lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Installs the exact versions of requirements.lock, then this checkout as editable: edits take effect at once.
.venv/installed: requirements.lock setup.cfg
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

# Updates requirements.lock to the newest versions that setup.cfg allows. Run the tests before committing the result.
lock:
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]' 'torch==2.13.0'
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//' > requirements.lock
	touch .venv/installed

# JAX for NVIDIA GPUs. The PyTorch of the lock needs no other packages: on Linux its wheels have CUDA.
gpu: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[cuda13]'

# Compilers for TPUs and GPUs that are not there, for experiments.tpu_program and gpu_program (0.6 GB).
aot: build/aot/tpu/installed build/aot/cuda/installed

build/aot/%/installed: setup.cfg .venv/installed
	rm -rf build/aot/$*
	$(BIN)/python -m experiments.programs.install $*
	touch $@

# ARM without a phone: makes an emulator that counts instructions, and the runners for phones and boards, in build/arm
# (0.7 GB). Needs Debian 12 on x86-64 with gcc, and installs nothing into the system.
arm-setup: .venv/installed
	$(BIN)/python -m convert.latency.devices.arm_setup

# Counts the instructions of all models in ONNX Runtime, LiteRT, ExecuTorch and ncnn, and compares them with
# convert/arm/baselines.json. The exporters and their models take another 3.8 GB.
arm-check: arm-setup build/arm/venv/installed
	build/arm/venv/bin/python -m convert.arm.counts

build/arm/venv/installed: requirements.lock setup.cfg
	$(PYTHON) -m venv build/arm/venv
	build/arm/venv/bin/python -m pip install --quiet --requirement requirements.lock
	build/arm/venv/bin/python -m pip install --quiet --editable '.[onnx,litert,executorch,ncnn]'
	touch $@

clean:
	rm -rf .venv runs build/arm build/aot build/programs
