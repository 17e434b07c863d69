# SPDX-License-Identifier: BSD-2-Clause
# KubeLB. `make help` lists the targets. V=1 shows the commands.

VERSION := 0.1.0
ARCH := $(shell uname -m)
# The name that bpf_tracing.h and clang's -D__TARGET_ARCH_ know it by.
BPF_ARCH := $(ARCH:x86_64=x86)
BPF_ARCH := $(BPF_ARCH:aarch64=arm64)

PREFIX ?= /usr/local
sbindir ?= $(PREFIX)/sbin
mandir ?= $(PREFIX)/share/man
sysconfdir ?= /etc

CC ?= gcc
CLANG ?= clang
BPFTOOL ?= $(firstword $(shell PATH="$$PATH:/usr/sbin:/sbin" command -v bpftool) bpftool)
B ?= build

ifeq ($(V),1)
Q :=
say = @:
else ifneq ($(findstring s,$(firstword -$(MAKEFLAGS))),)
Q := @
say = @:
else
Q := @
say = @printf '  %-7s %s\n' '$(1)' '$(2)'
endif

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wno-format-zero-length -Werror
PKGS := libbpf libelf zlib libevent libevent_openssl openssl yaml-0.1 jansson

CPPFLAGS += -D_GNU_SOURCE -DKLB_VERSION='"$(VERSION)"' -Iinclude -Iuser -I$(B)/bpf $(USEREXTRA)
CFLAGS ?= -O2 -g
KCFLAGS := -std=gnu11 $(WARN) -fstack-protector-strong -MMD -MP
LDFLAGS ?= -Wl,-z,relro,-z,now -Wl,--as-needed
BPFFLAGS := -O2 -g -target bpf -mcpu=v3 -D__TARGET_ARCH_$(BPF_ARCH) -std=gnu11 \
	$(WARN) -Wno-missing-declarations -Ivmlinux/$(ARCH) -Iinclude -Ibpf -MMD -MP $(BPFEXTRA)

BPF_UNITS := maps connect lifecycle
COMMON := err log endpoint config config_build config_duration config_suggest config_value \
	config_yaml cli
DATAPATH := datapath datapath_apply datapath_load datapath_links datapath_selftest \
	datapath_features mounts plan health
LOAD := kubelb_load attach $(COMMON) $(DATAPATH) node
AGENT := kubelb_agent agent agent_backend attach http metrics verdict probe probe_http probe_tls $(COMMON) $(DATAPATH) node
CTL := kubelbctl status verdict $(COMMON) $(DATAPATH) node

PROGRAMS := $(B)/kubelb-load $(B)/kubelb-agent $(B)/kubelbctl
UNITS := config endpoint health plan select probe mounts
UNIT_TESTS := $(UNITS:%=$(B)/test/test_%)
TOOLS := $(B)/test/nbconnect $(B)/test/bench_client

# Each package's libraries only where they are used: a program maps what it needs.
LIBS_BPF := $(shell pkg-config --libs libbpf libelf zlib 2>/dev/null)
LIBS_YAML := $(shell pkg-config --libs yaml-0.1 2>/dev/null)
# Named one by one: libevent_openssl.pc asks for libevent, which is core and extra again.
LIBS_EVENT := -levent_openssl -levent_extra -levent_core $(shell pkg-config --libs openssl 2>/dev/null)
LIBS_JSON := $(shell pkg-config --libs jansson 2>/dev/null)

.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: all help test-tools units check lint format install uninstall clean abi-next

all: $(PROGRAMS) ## Build the three programs (default)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Variables: V=1 DESTDIR= PREFIX=$(PREFIX) CC=$(CC) CLANG=$(CLANG) B=$(B)"

# --- kernel side -----------------------------------------------------------------

$(B)/bpf/%.bpf.o: bpf/%.bpf.c vmlinux/$(ARCH)/vmlinux.h Makefile | $(B)/bpf
	$(call say,BPF,$<)
	$(Q)$(CLANG) $(BPFFLAGS) -c $< -o $@

$(B)/bpf/kubelb.bpf.o: $(BPF_UNITS:%=$(B)/bpf/%.bpf.o)
	$(call say,BPFLD,$@)
	$(Q)$(BPFTOOL) gen object $@ $^

$(B)/bpf/kubelb.skel.h: $(B)/bpf/kubelb.bpf.o
	$(call say,SKEL,$@)
	$(Q)$(BPFTOOL) gen skeleton $< name kubelb_bpf > $@

# --- user side -------------------------------------------------------------------

# Only this one includes the skeleton.
$(B)/user/datapath_load.o: $(B)/bpf/kubelb.skel.h

$(B)/user/%.o: user/%.c Makefile | $(B)/user
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) $(KCFLAGS) $(CFLAGS) -c $< -o $@

$(B)/kubelb-load: $(LOAD:%=$(B)/user/%.o)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ $(LIBS_BPF) $(LIBS_YAML) $(LIBS_JSON)

$(B)/kubelb-agent: $(AGENT:%=$(B)/user/%.o)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ $(LIBS_BPF) $(LIBS_YAML) $(LIBS_EVENT)

$(B)/kubelbctl: $(CTL:%=$(B)/user/%.o)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ $(LIBS_BPF) $(LIBS_YAML) $(LIBS_JSON)

# --- tests -----------------------------------------------------------------------

$(B)/test/%.o: tests/unit/%.c Makefile | $(B)/test
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) -Ibpf $(KCFLAGS) $(CFLAGS) -c $< -o $@

UNIT_config := $(COMMON)
UNIT_endpoint := err endpoint
UNIT_health := health
UNIT_plan := plan err endpoint health
UNIT_select :=
UNIT_probe := probe probe_http probe_tls err endpoint
UNIT_mounts := mounts err
define unit_rule
$(B)/test/test_$(1): $(B)/test/test_$(1).o $(UNIT_$(1):%=$(B)/user/%.o)
	$$(call say,LD,$$@)
	$$(Q)$$(CC) $$(LDFLAGS) $$^ -o $$@ -lcmocka $$(LIBS_YAML) $$(LIBS_JSON) $$(LIBS_EVENT)
endef
$(foreach u,$(UNITS),$(eval $(call unit_rule,$(u))))

$(B)/test/nbconnect: tests/clients/nbconnect.c Makefile | $(B)/test
	$(call say,CC,$<)
	$(Q)$(CC) -D_GNU_SOURCE $(KCFLAGS) $(CFLAGS) $< -o $@

$(B)/test/bench_client: tests/clients/bench_client.c Makefile | $(B)/test
	$(call say,CC,$<)
	$(Q)$(CC) -D_GNU_SOURCE $(KCFLAGS) $(CFLAGS) $< -o $@ $(shell pkg-config --libs openssl)

test-tools: $(UNIT_TESTS) $(TOOLS) abi-next ## Build the tests and their clients

# The same programs with the next ABI version and larger values, to test upgrades.
abi-next:
	$(Q)$(MAKE) --no-print-directory B=$(B)/abi-next BPFEXTRA="-DKLB_ABI_NEXT" \
		USEREXTRA="-DKLB_ABI_NEXT" all

units: $(UNIT_TESTS) ## Run the unit tests
	$(Q)set -e; for t in $(UNIT_TESTS); do $$t; done

check: ## Run every test (scripts/test.sh)
	$(Q)scripts/test.sh

# --- lint ------------------------------------------------------------------------

OWN_C := $(wildcard bpf/*.[ch] user/*.[ch] include/kubelb/*.h tests/unit/*.[ch] \
	tests/clients/*.c tests/fuzz/*.c)
USER_C := $(wildcard user/*.c)

lint: $(B)/bpf/kubelb.skel.h compile_commands.json ## clang-format, clang-tidy, cppcheck, shellcheck, mandoc, both compilers
	$(Q)clang-format --dry-run -Werror $(OWN_C)
	$(Q)clang-tidy --quiet -p . $(USER_C) 2>/dev/null
	$(Q)cppcheck --quiet --error-exitcode=1 --std=c11 --inline-suppr --library=posix \
		--enable=warning,performance,portability --suppress=missingIncludeSystem \
		-Iinclude -Iuser $(USER_C)
	$(Q)shellcheck scripts/*.sh .ci/run
	$(Q)$(if $(wildcard docs/man/*),mandoc -T lint -W warning docs/man/*)
	$(Q)for c in $(USER_C); do \
		$(CLANG) $(CPPFLAGS) -std=gnu11 $(WARN) -fsyntax-only $$c || exit 1; done

format: ## Reformat the sources in place
	$(Q)clang-format -i $(OWN_C)

compile_commands.json: Makefile | $(B)
	$(Q){ echo '['; sep=; for c in $(USER_C); do \
		printf '%s{"directory":"%s","file":"%s","arguments":["clang","-std=gnu11",' "$$sep" "$(CURDIR)" "$$c"; \
		printf '"-D_GNU_SOURCE","-DKLB_VERSION=\\"$(VERSION)\\"","-Iinclude","-Iuser","-I$(B)/bpf","-c","%s"]}\n' "$$c"; \
		sep=,; done; echo ']'; } > $@

# --- install ---------------------------------------------------------------------

install: all ## Install below $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(sbindir) $(DESTDIR)$(mandir)/man8 $(DESTDIR)$(mandir)/man5 \
		$(DESTDIR)$(sysconfdir)/kubelb
	install -m 755 $(PROGRAMS) $(DESTDIR)$(sbindir)
	install -m 644 docs/man/*.8 $(DESTDIR)$(mandir)/man8
	install -m 644 docs/man/*.5 $(DESTDIR)$(mandir)/man5
	install -m 644 deploy/kubelb.yaml $(DESTDIR)$(sysconfdir)/kubelb/kubelb.yaml.example

uninstall: ## Remove what install put there (the configuration stays)
	rm -f $(PROGRAMS:$(B)/%=$(DESTDIR)$(sbindir)/%)
	rm -f $(addprefix $(DESTDIR)$(mandir)/man8/,$(notdir $(wildcard docs/man/*.8)))
	rm -f $(addprefix $(DESTDIR)$(mandir)/man5/,$(notdir $(wildcard docs/man/*.5)))

clean: ## Remove what was built
	$(Q)rm -rf $(B) compile_commands.json

$(B) $(B)/bpf $(B)/user $(B)/test:
	$(Q)mkdir -p $@

-include $(wildcard $(B)/*/*.d)
