# Both targets do all their own set-up: they need Python >= 3.11 and nothing else.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2
# XLA allocates the buffers of a program anew at every call; with huge pages the kernel hands them out in fewer,
# larger pieces, which takes a third off a training step on a CPU. Other C libraries than glibc ignore it.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: quickstart test lint lock clean arm-setup arm-check

quickstart: .venv/installed
	$(BIN)/python -m experiments.quickstart

test: .venv/installed lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The exact versions of requirements.lock, then this checkout, so that edits take effect at once.
.venv/installed: requirements.lock setup.cfg
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

# Takes the newest versions that setup.cfg allows; run the tests before committing the result.
lock:
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]' 'torch==2.13.0'
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//' > requirements.lock
	touch .venv/installed

# ARM without a phone: an emulator that counts instructions and the runner for phones and boards, in build/arm (0.7 GB).
# Needs Debian 12 on x86-64 with gcc; nothing is installed into the system.
arm-setup: .venv/installed
	$(BIN)/python -m convert.latency.devices.toolchain

# Counts LiteRT, ExecuTorch and ncnn and compares with convert/arm/baselines.json; takes another 3 GB for the exporters.
arm-check: arm-setup build/arm/venv/installed
	build/arm/venv/bin/python -m convert.arm.counts

build/arm/venv/installed: requirements.lock setup.cfg
	$(PYTHON) -m venv build/arm/venv
	build/arm/venv/bin/python -m pip install --quiet --requirement requirements.lock
	build/arm/venv/bin/python -m pip install --quiet --editable '.[onnx,litert,executorch,ncnn]'
	touch $@

clean:
	rm -rf .venv runs build/arm
