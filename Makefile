# make help says what there is.

PRESET ?= release
PREFIX ?= /usr/local
JOBS   ?= $(shell nproc)
BUILD  := $(if $(filter release ci,$(PRESET)),build,build/$(PRESET))

BUILD_PACKAGES := g++ cmake pkg-config ninja-build ccache libfmt-dev libxxhash-dev libhwy-dev nlohmann-json3-dev \
                  libsimdjson-dev libcli11-dev libxbyak-dev zlib1g-dev libzstd-dev libsnappy-dev libpcre2-dev \
                  libutf8proc-dev libedit-dev libcurl4-openssl-dev doctest-dev
DEMO_PACKAGES  := fortunes
BENCH_PACKAGES := libbenchmark-dev
PEER_PACKAGES  := python3-protobuf
FUZZ_PACKAGES  := clang libclang-rt-dev

# Ninja where there is one; a build directory that is already configured keeps what it has.
CMAKE := $(if $(shell command -v ninja),CMAKE_GENERATOR=Ninja )cmake

# $(call install,PACKAGES,WHY): installs those of Debian's packages that are missing, and says so in one line.
define install
	@missing=$$(for package in $(1); do \
	    dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || echo $$package; done); \
	if [ -n "$$missing" ] && command -v apt-get >/dev/null; then \
	  echo "installing, $(2):" $$missing; \
	  sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -qq && \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	elif [ -n "$$missing" ]; then \
	  echo "no apt-get here: if the build fails, install what these Debian packages hold:" $$missing; \
	fi
endef

.DEFAULT_GOAL := build
.PHONY: help packages peers configure build test demo bench gpu-bundle gpu-check fuzz format format-check install clean

help:            ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22
	@echo 'Variables: PRESET=release|ci|debug|asan (now $(PRESET)), PREFIX=$(PREFIX), JOBS=$(JOBS)'

packages:        ## install the Debian packages that a build needs and that are missing
	$(call install,$(BUILD_PACKAGES),to build)

peers:           ## install other people's programs that the tests ask for a second opinion
	$(call install,$(PEER_PACKAGES),for the tests that ask it)
	@mkdir -p $(BUILD)/peers && cp tests/peers/package.json $(BUILD)/peers/
	@npm install --prefix $(BUILD)/peers --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error || \
	  echo "no peers: the tests that ask them are skipped"

configure: packages
	@$(CMAKE) --preset $(PRESET) >/dev/null

build: configure ## build everything (the default); programs appear here as ./nf-*
	@cmake --build $(BUILD) -j $(JOBS)

test: build      ## build and run all tests
	@ctest --test-dir $(BUILD) -j $(JOBS) --output-on-failure --no-tests=error

PROGRAMS = $(patsubst tools/%.cpp,%,$(wildcard tools/nf-*.cpp))
DEMO_DATA  ?= /usr/share/games/fortunes
DEMO_STEPS ?= 320
DEMO_FLAGS ?= --batch-size 8 --seq-len 256 --eval-every 100 --eval-batches 10
demo: configure  ## train an nGPT on Debian's fortunes (minutes), then let it write
	$(call install,$(DEMO_PACKAGES),for a text to train on)
	@cmake --build $(BUILD) -j $(JOBS) --target $(PROGRAMS)
	@[ ! -d build/demo/checkpoint-$(DEMO_STEPS) ] || rm -rf build/demo  # it is done: once more from the start
	@if ls -d build/demo/checkpoint-* >/dev/null 2>&1; then \
	  resume=--resume; echo "going on with the demo that was interrupted (make clean begins afresh)"; \
	else rm -rf build/demo; fi; \
	./nf-train -m ngpt.json --data $(DEMO_DATA) --out build/demo --steps $(DEMO_STEPS) $(DEMO_FLAGS) $$resume
	@echo
	@./nf-generate -m build/demo --prompt "The trouble with" --max-tokens 300 --temperature 0.6 --top-k 40

bench: packages  ## build and run the benchmarks
	$(call install,$(BENCH_PACKAGES),for the benchmarks)
	@$(CMAKE) --preset $(PRESET) >/dev/null
	@cmake --build $(BUILD) -j $(JOBS) --target bench
	@for program in $(BUILD)/bench/*_bench; do echo "== $$(basename $$program)"; $$program || exit 1; done

# A machine with a GPU may have no package access: there, what `make gpu-bundle` packed elsewhere is run as it is.
GPU_BUNDLE ?= build/gpu
gpu-bundle: build ## pack the GPU's checks, with libraries, into build/gpu for a machine without package access
	@bash tests/cuda/bundle.sh $(BUILD) $(GPU_BUNDLE)

gpu-check:       ## run the CUDA backend's tests and benchmarks on this machine's GPU (PARTS=…: some, see gpu_check.sh)
	@[ -x $(GPU_BUNDLE)/nf-tests ] || $(MAKE) --no-print-directory build
	@bash tests/cuda/gpu_check.sh $$([ -x $(GPU_BUNDLE)/nf-tests ] && echo $(GPU_BUNDLE) || echo $(BUILD)) $(PARTS)

FUZZ_SECONDS ?= 60
fuzz: packages   ## build the fuzzers with clang and run each for FUZZ_SECONDS (60)
	$(call install,$(FUZZ_PACKAGES),for the fuzzers)
	@$(CMAKE) --preset fuzz >/dev/null
	@cmake --build build/libfuzzer -j $(JOBS) --target fuzzers
	@for program in build/libfuzzer/fuzz/*_fuzz; do \
	  name=$$(basename $$program); echo "== $$name"; mkdir -p build/libfuzzer/found/$$name; \
	  $$program -max_total_time=$(FUZZ_SECONDS) build/libfuzzer/found/$$name $$(ls -d tests/fuzz/corpus/$$name) || exit 1; \
	done

SOURCES = $(wildcard $(shell git ls-files -co --exclude-standard '*.h' '*.cpp' '*.cuh'))
format:          ## format every source with clang-format
	@clang-format -i $(SOURCES)

format-check:    ## fail when a source is not formatted
	@clang-format --dry-run -Werror $(SOURCES)

install: build   ## install headers, library, programs and configs under PREFIX
	@cmake --install $(BUILD) --prefix $(PREFIX)

clean:           ## remove what was built
	@find . -maxdepth 1 -type l -name "nf-*" -delete; rm -rf build
