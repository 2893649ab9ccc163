# Petiole: a Celery worker in C that runs tasks as Kubernetes Jobs. `make help` lists what there is.
#
# Respected: CC CFLAGS CPPFLAGS LDFLAGS PREFIX DESTDIR V=1 (show commands) DEVELOPER=1 (warnings are errors)
# BUILD (output folder) VARIANT (release clang asan tsan coverage fuzz). Each variant has its own objects
# under $(BUILD)/<variant>/; the programs of `release` are $(BUILD)/petiole and $(BUILD)/*.so, those of the
# others are beside their objects.

PETIOLE_VERSION := 0.1.0
PREFIX  ?= /usr/local
BUILD   ?= build
PYTHON  ?= python3

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory
Q := $(if $(filter 1,$(V)),,@)

ifeq ($(origin CC),default)
CC := gcc
endif
COMPILER := $(if $(findstring clang,$(CC)),clang,gcc)
VARIANT  ?= $(if $(filter clang,$(COMPILER)),clang,release)
OBJECTS  := $(BUILD)/$(VARIANT)
OUT      := $(if $(filter release,$(VARIANT)),$(BUILD),$(OBJECTS))

# --- sources: a file dropped into its folder is all there is to do -------------------------------------------
MAIN      := $(wildcard src/worker/main.c)
SOURCES   := $(filter-out $(MAIN),$(wildcard src/*/*.c))
LIBRARY   := $(OBJECTS)/libpetiole.a
PROGRAM   := $(if $(MAIN),$(OUT)/petiole)
PLUGINS   := $(patsubst include/samples/%.c,$(OUT)/%.so,$(wildcard include/samples/*.c))
SUPPORT   := $(patsubst %.c,$(OBJECTS)/%.o,$(wildcard tests/support/*.c))
UNIT      := $(patsubst tests/unit/%.c,$(OBJECTS)/tests/%,$(wildcard tests/unit/test_*.c))
REPLAY    := $(if $(wildcard tests/replay/*.c),$(OBJECTS)/tests/player)
FUZZ      := $(patsubst tests/fuzz/%.c,$(OBJECTS)/tests/%,$(wildcard tests/fuzz/fuzz_*.c))
FORMATTED  = $(wildcard src/*/*.[ch] include/*.h include/samples/*.[ch] tests/*/*.[ch])
CHECKS    := $(patsubst check_%,check-%,$(basename $(notdir $(wildcard tests/checks/check_*.sh tests/checks/check_*.py))))

# --- libraries: pkg-config name:Debian package. Asked when first needed, so `make test` can install them -----
LIBRARIES := hiredis:libhiredis-dev jansson:libjansson-dev libcurl:libcurl4-openssl-dev uuid:uuid-dev \
             libuv:libuv1-dev yaml-0.1:libyaml-dev openssl:libssl-dev zlib:zlib1g-dev
MODULES   := $(foreach pair,$(LIBRARIES),$(firstword $(subst :, ,$(pair))))
LIBRARY_CFLAGS = $(eval LIBRARY_CFLAGS := $$(shell pkg-config --cflags $(MODULES) 2>/dev/null))$(LIBRARY_CFLAGS)
LIBRARY_LIBS   = $(eval LIBRARY_LIBS := $$(shell pkg-config --libs $(MODULES) 2>/dev/null) -lm)$(LIBRARY_LIBS)
CMOCKA_LIBS    = $(eval CMOCKA_LIBS := $$(shell pkg-config --libs cmocka))$(CMOCKA_LIBS)

# --- flags ---------------------------------------------------------------------------------------------------
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wformat=2 -Wundef -Wvla \
    -Walloca -Wcast-qual -Wcast-align -Wwrite-strings -Wpointer-arith -Wstrict-prototypes \
    -Wmissing-prototypes -Wold-style-definition -Wswitch-enum -Wimplicit-fallthrough -Wnull-dereference \
    -Wdouble-promotion -Wdate-time -Wredundant-decls -Wnested-externs
WARNINGS_gcc := -Wduplicated-cond -Wduplicated-branches -Wlogical-op -Wjump-misses-init -Wtrampolines \
    -Wformat-signedness -Warith-conversion -Wstringop-overflow=4
WARNINGS_clang := -Wcomma -Wassign-enum -Wmissing-variable-declarations -Wloop-analysis \
    -Wconditional-uninitialized -Wunreachable-code-aggressive

HARDENING := -O2 -g -D_FORTIFY_SOURCE=3 -fstack-protector-strong -fstack-clash-protection -fno-common \
    -fvisibility=hidden -fno-delete-null-pointer-checks -fno-strict-overflow \
    $(if $(filter x86_64 i%86,$(shell uname -m)),-fcf-protection=full)
HARDENING_gcc   := -ftrivial-auto-var-init=zero -fzero-call-used-regs=used-gpr
HARDENING_clang := -ftrivial-auto-var-init=pattern
HARDENING_LINK  := -Wl,-z,relro,-z,now -Wl,-z,noexecstack

SANITIZED := -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all
VARIANT_release  := $(HARDENING) $(HARDENING_$(COMPILER))
VARIANT_clang    := $(VARIANT_release)
VARIANT_asan     := $(SANITIZED) -fsanitize=address,undefined
VARIANT_tsan     := $(SANITIZED) -fsanitize=thread
VARIANT_coverage := -O0 -g --coverage
VARIANT_fuzz     := $(SANITIZED) -fsanitize=address,undefined,fuzzer-no-link
LINK_release     := $(HARDENING_LINK)
LINK_clang       := $(HARDENING_LINK)
LINK_asan        := $(if $(filter gcc,$(COMPILER)),-static-libubsan) # gcc's shared one writes no log_path
ifeq ($(VARIANT_$(VARIANT)),)
$(error VARIANT is one of release clang asan tsan coverage fuzz, not "$(VARIANT)")
endif

# The sanitizers make gcc's flow warnings guess wrong, so there they stay warnings.
WERROR  := $(if $(filter 1,$(DEVELOPER)),$(if $(filter asan tsan fuzz,$(VARIANT)),,-Werror))
DEFINES := -D_GNU_SOURCE -DPETIOLE_VERSION=\"$(PETIOLE_VERSION)\"
COMPILE  = $(CC) -std=c11 -pthread $(DEFINES) -Isrc -Iinclude -Itests $(LIBRARY_CFLAGS) $(WARNINGS) \
    $(WARNINGS_$(COMPILER)) $(VARIANT_$(VARIANT)) $(CPPFLAGS) $(CFLAGS)
LINK     = $(CC) -pthread $(VARIANT_$(VARIANT)) $(CFLAGS) $(LINK_$(VARIANT)) -Wl,--as-needed $(LDFLAGS)

# --- building ------------------------------------------------------------------------------------------------
.PHONY: all help unit replay FORCE
all: $(LIBRARY) $(PROGRAM) $(PLUGINS) ## Build build/petiole and the sample plugin (hardened; DEVELOPER=1: warnings are errors)

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' Makefile

unit: $(UNIT)
replay: $(REPLAY)

# Rewritten only when the command changed, which rebuilds everything. Says which library is missing.
$(OBJECTS)/flags: FORCE
	@command -v pkg-config >/dev/null || { echo "pkg-config is missing: apt-get install pkg-config" >&2; exit 1; }
	@pkg-config --exists $(MODULES) || for pair in $(LIBRARIES); do pkg-config --exists "$${pair%%:*}" || { \
	    echo "library $${pair%%:*} is missing: apt-get install $${pair##*:}" >&2; exit 1; }; done
	@command -v $(firstword $(CC)) >/dev/null || { echo "$(firstword $(CC)) is missing: apt-get install $(firstword $(CC))" >&2; exit 1; }
	@mkdir -p $(@D)
	@echo '$(COMPILE) $(LINK)' | cmp -s - $@ || echo '$(COMPILE) $(LINK)' >$@

$(OBJECTS)/cmocka: | $(OBJECTS)/flags
	@pkg-config --exists cmocka || { echo "library cmocka is missing: apt-get install libcmocka-dev" >&2; exit 1; }
	@touch $@

$(OBJECTS)/%.o: %.c $(OBJECTS)/flags
	@mkdir -p $(@D)
	@$(if $(Q),echo "  CC    $<")
	$(Q)$(COMPILE) $(WERROR) -fPIE -MMD -MP -c -o $@ $<

$(LIBRARY): $(SOURCES:%.c=$(OBJECTS)/%.o) | $(OBJECTS)/flags
	@$(if $(Q),echo "  AR    $@")
	@rm -f $@
	$(Q)ar rcs $@ $^

# See _gnutls_global_init_skip in src/base/http_client.c.
$(OUT)/petiole: $(MAIN:%.c=$(OBJECTS)/%.o) $(LIBRARY)
	@$(if $(Q),echo "  LINK  $@")
	$(Q)$(LINK) -pie -Wl,--export-dynamic-symbol=_gnutls_global_init_skip -o $@ $^ $(LIBRARY_LIBS)

$(OUT)/%.so: include/samples/%.c $(OBJECTS)/flags
	@$(if $(Q),echo "  LINK  $@")
	$(Q)$(COMPILE) $(WERROR) -fPIC -shared $(filter -Wl%,$(LINK_$(VARIANT))) $(LDFLAGS) -MMD -MP -MF $(OBJECTS)/$*.d -o $@ $<

$(OBJECTS)/tests/test_%: $(OBJECTS)/tests/unit/test_%.o $(SUPPORT) $(LIBRARY) | $(OBJECTS)/cmocka
	@$(if $(Q),echo "  LINK  $@")
	$(Q)$(LINK) -pie -o $@ $^ $(CMOCKA_LIBS) $(LIBRARY_LIBS)

$(OBJECTS)/tests/player: $(patsubst %.c,$(OBJECTS)/%.o,$(wildcard tests/replay/*.c)) $(SUPPORT) $(LIBRARY) | $(OBJECTS)/cmocka
	@$(if $(Q),echo "  LINK  $@")
	$(Q)$(LINK) -pie -o $@ $^ $(CMOCKA_LIBS) $(LIBRARY_LIBS)

$(OBJECTS)/tests/fuzz_%: $(OBJECTS)/tests/fuzz/fuzz_%.o $(LIBRARY)
	@$(if $(Q),echo "  LINK  $@")
	$(Q)$(LINK) -fsanitize=fuzzer -pie -o $@ $^ $(LIBRARY_LIBS)

-include $(shell find $(OBJECTS) -name '*.d' 2>/dev/null)

# --- testing -------------------------------------------------------------------------------------------------
RUN_TESTS = $(PYTHON) tests/support/run_tests.py --variant $(VARIANT)
STAGES    = $(RUN_TESTS) --stage
.PHONY: test check check-unit check-replay check-integration check-kubernetes $(CHECKS)
.PHONY: asan tsan breaks coverage crashes fuzz soak format lint demo bench deps install clean

deps: ## Install the Debian packages that building and testing need
	@tests/support/install_packages.sh test

test: ## Install what is needed, then run everything; the last line is "N passed, N failed, N skipped"
	@tests/support/install_packages.sh test
	+@$(RUN_TESTS)

check: ## Run the checks of tests/checks: layers, sizes, globals, settings, names, text, format
	+@$(STAGES) build checks

$(CHECKS): check-%:
	@$(firstword $(wildcard tests/checks/check_$*.sh tests/checks/check_$*.py))

check-globals check-names: $(LIBRARY)

check-unit: ## Run the unit tests
	+@$(STAGES) build unit

check-replay: ## Run the replay scenarios under a virtual clock
	+@$(STAGES) build replay

check-integration: ## Run the tests of the Python package and against real Redis and Celery
	+@$(STAGES) build shim integration

check-kubernetes: ## Run the tests against a real Kubernetes API server
	+@$(STAGES) build kubernetes

asan: ## Run unit, replay, integration and Kubernetes tests under AddressSanitizer and UBSan
	@tests/support/install_packages.sh test
	+@$(RUN_TESTS) --variant asan --stage build unit replay integration kubernetes

tsan: ## Run the unit tests and the native executor's integration tests under ThreadSanitizer
	@tests/support/install_packages.sh test
	+@$(RUN_TESTS) --variant tsan --stage build unit native

INSTANTS ?= 500
crashes: all ## Kill workers at every step and at INSTANTS (500) random ones (SEED=… again), and servers; prints the counts
	@$$($(PYTHON) tests/support/python_env.py newest) -m pytest -p no:cacheprovider -s --all-steps \
	    --instants $(INSTANTS) $(if $(SEED),--seed $(SEED)) tests/kubernetes/test_crash_harness.py

breaks: ## Break one step of the worker at a time, and see that the crash harness notices
	@$(PYTHON) tests/support/break_steps.py

coverage: ## Show for each source file how many of its lines the unit tests and scenarios run
	@find $(BUILD)/coverage -name '*.gcda' -delete 2>/dev/null || true
	+@$(RUN_TESTS) --variant coverage --stage build unit replay
	@find $(BUILD)/coverage/src -name '*.gcda' -exec gcov --no-output {} + 2>/dev/null | \
	    awk -F "'" '/^File .src/ { file = $$2 } /^Lines/ && file { print $$0 "  " file; file = "" }' | sort -t: -k2 -n

FUZZ_SECONDS ?= 60
fuzz: ## Run every libFuzzer target for FUZZ_SECONDS (60)
	+@$(MAKE) CC=clang-14 VARIANT=fuzz fuzz-run

.PHONY: fuzz-run
fuzz-run: $(FUZZ)
	@for target in $(FUZZ); do name=$${target##*/fuzz_}; mkdir -p "$(OBJECTS)/corpus/$$name"; \
	    seeds=tests/fuzz/corpus/$$name; [ -d "$$seeds" ] || seeds=; \
	    "$$target" -max_total_time=$(FUZZ_SECONDS) -timeout=10 -print_final_stats=1 \
	        -artifact_prefix="$(OBJECTS)/" "$(OBJECTS)/corpus/$$name" $$seeds || exit 1; done

SOAK_SECONDS ?= 600
soak: all ## Let a worker live a day in minutes with the API server for SOAK_SECONDS (600), and show what it holds
	@tests/support/install_packages.sh test
	@PETIOLE_SOAK_SECONDS=$(SOAK_SECONDS) PETIOLE_BINARY=$(abspath $(OUT)/petiole) \
	    "$$($(PYTHON) tests/support/python_env.py newest)" -m pytest -q tests/kubernetes/test_soak.py

format: ## Rewrite the C sources with clang-format-14 and the Python sources with ruff
	clang-format-14 -i $(FORMATTED)
	@tests/checks/check_python.sh --fix

lint: | $(OBJECTS)/flags ## Run clang-tidy-14 over the C sources
	@printf '%s\n' $(SOURCES) $(MAIN) $(wildcard include/samples/*.c) | xargs -P 2 -n 1 sh -c \
	    'clang-tidy-14 --quiet "$$@" -- -std=c11 $(DEFINES) -Isrc -Iinclude $(LIBRARY_CFLAGS)' lint

# --- trying and installing -----------------------------------------------------------------------------------
demo: ## Train for two tenants on this machine and show a table (CLUSTER=1: on a real Kubernetes API server)
	@tests/support/install_packages.sh demo
	+@$(MAKE) all
	@$(PYTHON) python-shim/demo/run_demo.py --petiole $(OUT)/petiole $(if $(filter 1,$(CLUSTER)),--cluster)

bench: ## Measure Petiole and Celery side by side; writes benchmarks/results/latest.json
	@tests/support/install_packages.sh demo
	+@$(MAKE) all
	@$(PYTHON) benchmarks/run.py --petiole $(OUT)/petiole

install: all ## Install under DESTDIR and PREFIX (/usr/local)
	install -D -m 755 $(OUT)/petiole $(DESTDIR)$(PREFIX)/bin/petiole
	install -D -m 644 include/petiole.h $(DESTDIR)$(PREFIX)/include/petiole.h
	install -d $(DESTDIR)$(PREFIX)/lib/petiole
	install -m 644 $(PLUGINS) $(DESTDIR)$(PREFIX)/lib/petiole
	find k8s -type f -exec install -D -m 644 {} $(DESTDIR)$(PREFIX)/share/petiole/{} \;

clean: ## Remove everything that was built
	rm -rf $(BUILD)
