# Everything that a fresh Debian 12 needs, as root and with nothing done by hand:
#
#   make run     a protected container without any engine, and what it may and may not mount
#   make test    the whole test suite, a real dockerd included
#   make soak    mixed load for MINUTES=10, with a chart; fails where anything grows
#   make lint    every linter that CI runs
#   make sanitize   the kernel and attack tests, all that is compiled with ASan and UBSan
#   make threads    the worker's threads under TSan
#   make valgrind   the Python module and the short-lived programs under memcheck
#   make coverage   every branch that decides is taken by a test; coverage-all tells the rest
#   make build   only the Python environment and the C half
#   make bench   first measurements against the bare kernel and rivals
#   make kills   every moment at which a worker can be killed, for some minutes
#   make fuzz    a few seconds of search for each fuzz target, after its corpus
#   make faults  system calls of the worker made to fail, each in turn, and many of the other programs
#   make instructions   what the worker executes for a call, compared with the recorded counts
#   make clean   removes what was built (the .venv stays)
#
# Each target installs only what is missing and builds only what changed, so a second run is
# quick.  Each step says in one line what it does.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-print-directory

# The interpreter that the environment is made from; anything from 3.11 on.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What each target needs from the distribution.
BUILD_PACKAGES := gcc libc6-dev libfuse3-dev pkg-config python3 python3-dev python3-venv
RUN_PACKAGES := busybox-static fuse3 runc
TEST_PACKAGES := buildah containerd containernetworking-plugins crun debian-archive-keyring docker.io \
	gcc-multilib gpg iproute2 iptables man-db mmdebstrap netavark podman procps strace tini uidmap util-linux
FUZZ_PACKAGES := clang libclang-rt-14-dev
LINT_PACKAGES := clang clang-format clang-tidy cppcheck gcc git libc6-dev libfuse3-dev shellcheck
PROOF_PACKAGES := binutils clang libclang-rt-dev llvm valgrind

# Arguments for pytest: `make test ARGS="-k launcher -x"`.
ARGS ?=
# For `make fuzz`: seconds of search for each target, which targets, with commas between, and a
# seed for the same search as before.
SECONDS_EACH ?= 6
ONLY ?=
SEED ?= 0
# Each process does some of the files, with a place and engines of its own: `WORKERS=` for one.  One
# more than there are processors, as they wait for programs to end and for things to come to rest.
WORKERS ?= --numprocesses $(shell expr $$(nproc) + 1) --maxprocesses 4 --dist loadfile

C_FILES := $(wildcard csrc/*.c csrc/*.h)
# What runs as root outside of tests and measurements.
PYTHON_SOURCES := eci_supervisor setup.py csrc/build_ffi.py tools
SCRIPTS := .ci/run $(wildcard tools/*.sh eci_supervisor/kubernetes/*.sh)

.PHONY: help
help: ## Says what the targets are
	@sed -n 's/^#   \(make .*\)/\1/p' Makefile

# ---------------------------------------------------------------------------- environment

.PHONY: packages-build packages-run packages-test packages-fuzz packages-lint packages-proof
packages-build:
	@tools/packages.sh $(BUILD_PACKAGES)
packages-run: packages-build
	@tools/packages.sh $(RUN_PACKAGES)
packages-test: packages-run
	@tools/packages.sh $(TEST_PACKAGES)
packages-fuzz: packages-run
	@tools/packages.sh $(FUZZ_PACKAGES)
packages-lint: packages-build
	@tools/packages.sh $(LINT_PACKAGES)
packages-proof: packages-test
	@tools/packages.sh $(PROOF_PACKAGES)

# The tools and libraries: again only when the project file names others.
$(VENV)/.installed: pyproject.toml tools/venv.sh | packages-build
	@tools/venv.sh "$(PYTHON)" $(VENV)
	@touch $@

# The C half and the `eci` command, in place: again only when a source changed.
build/.compiled: $(VENV)/.installed setup.py eci_supervisor/__init__.py csrc/build_ffi.py $(C_FILES) | packages-build
	@echo "==> compiling the C half into eci_supervisor/"
	@log=$$($(BIN)/pip install --quiet --no-build-isolation --no-deps --editable . 2>&1) || \
		{ printf '%s\n' "$$log" >&2; exit 1; }
	@mkdir -p $(@D)
	@touch $@

.PHONY: build
build: build/.compiled
	@echo "==> built: $(BIN)/eci and $$(ls eci_supervisor/bin | tr '\n' ' ')"

# ---------------------------------------------------------------------------- main targets

.PHONY: run
run: packages-run build
	@tools/demo.sh $(BIN)/eci

.PHONY: test
test: packages-test build
	@echo "==> running the tests"
	@$(BIN)/pytest $(WORKERS) $(ARGS)

.PHONY: kills
kills: packages-test build
	@echo "==> killing the worker at each moment"
	@ECI_KILL_STEP=1 $(BIN)/pytest $(WORKERS) --dist load tests/engine/test_crash.py -k test_worker_killed_at_each_moment

MINUTES ?= 10

.PHONY: soak
soak: packages-test build
	@echo "==> soaking for $(MINUTES) minutes"
	@$(BIN)/python -m tests.soak --minutes $(MINUTES) --out build/soak $(ARGS)

.PHONY: faults
faults: packages-test build
	@echo "==> making system calls fail"
	@ECI_FAULTS=all $(BIN)/pytest $(WORKERS) tests/faults $(ARGS)

.PHONY: bench
bench: packages-test build
	@echo "==> measuring"
	@$(BIN)/python -m benchmarks --quick

.PHONY: fuzz
fuzz: packages-fuzz build
	@echo "==> fuzzing"
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS_EACH) --seed $(SEED) --only "$(ONLY)"

.PHONY: instructions
instructions: packages-run build
	@echo "==> counting instructions"
	@$(BIN)/python -m benchmarks.instructions --check

# Builds of their own below build/: tools/proof.
.PHONY: sanitize threads valgrind coverage coverage-all
sanitize threads valgrind coverage coverage-all: packages-proof build
	@$(BIN)/python -m tools.proof $@ $(ARGS)

.PHONY: lint
lint: packages-lint build lint-python lint-c lint-text
	@echo "==> every linter is content"

.PHONY: lint-python
lint-python: build
	@echo "==> ruff"
	@$(BIN)/ruff check
	@echo "==> ruff format"
	@$(BIN)/ruff format --check
	@echo "==> bandit"
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml $(PYTHON_SOURCES)
	@echo "==> mypy"
	@$(BIN)/mypy
	@echo "==> import-linter"
	@$(BIN)/lint-imports

.PHONY: lint-c
lint-c: build
	@echo "==> clang-format"
	@git ls-files --cached --others --exclude-standard '*.c' '*.h' | xargs -r clang-format --dry-run --Werror
	@echo "==> cppcheck"
	@tools/lint-c.sh cppcheck
	@echo "==> gcc -fanalyzer"
	@tools/lint-c.sh analyzer
	@echo "==> clang-tidy"
	@tools/lint-c.sh tidy

.PHONY: lint-text
lint-text: build
	@echo "==> codespell"
	@git ls-files --cached --others --exclude-standard | xargs -r $(BIN)/codespell
	@echo "==> shellcheck"
	@shellcheck $(SCRIPTS)

.PHONY: clean
clean:
	@echo "==> removing what was built"
	@rm -rf build dist ./*.egg-info eci_supervisor/bin eci_supervisor/_eci.c eci_supervisor/_eci.*.so \
		.pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0r rm -rf
