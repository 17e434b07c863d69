# SPDX-License-Identifier: BSD-2-Clause
# KubeLB. `make help` lists the targets. V=1 shows the commands.

VERSION := 0.1.0
HOST_ARCH := $(shell uname -m)
# Another than this machine's, such as aarch64 (or arm64, as Debian and clang say), is built with
# gcc-aarch64-linux-gnu and the libraries that scripts/sysroot.sh puts into SYSROOT.
ARCH := $(HOST_ARCH)
override ARCH := $(ARCH:arm64=aarch64)
# Its name in bpf_tracing.h and clang's -D__TARGET_ARCH_.
BPF_ARCH := $(ARCH:x86_64=x86)
BPF_ARCH := $(BPF_ARCH:aarch64=arm64)
DEB_ARCH := $(patsubst x86_64,amd64,$(ARCH:aarch64=arm64))

PREFIX ?= /usr/local
sbindir ?= $(PREFIX)/sbin
mandir ?= $(PREFIX)/share/man
docdir ?= $(PREFIX)/share/doc/kubelb
# The dashboard and the alerts.
pkgdatadir ?= $(PREFIX)/share/kubelb
sysconfdir ?= /etc
unitdir ?= $(PREFIX)/lib/systemd/system
bashcompdir ?= $(PREFIX)/share/bash-completion/completions
zshcompdir ?= $(PREFIX)/share/zsh/site-functions
libexecdir ?= $(PREFIX)/libexec
fishcompdir ?= $(PREFIX)/share/fish/vendor_completions.d

ifneq ($(ARCH),$(HOST_ARCH))
CROSS := $(ARCH)-linux-gnu-
SYSROOT ?= build/sysroot/$(DEB_ARCH)
override SYSROOT := $(abspath $(SYSROOT))
$(if $(wildcard $(SYSROOT)/usr/include),,$(error $(SYSROOT) is not there: run scripts/sysroot.sh $(DEB_ARCH)))
# Paths in debug and type information are those of a build on such a machine.
SYSFLAGS := --sysroot=$(SYSROOT) -ffile-prefix-map=$(SYSROOT)=
SYSFLAGS_BPF := -isystem $(SYSROOT)/usr/include -ffile-prefix-map=$(SYSROOT)=
# Debhelper would name a program that Debian has for few architectures.
override PKG_CONFIG := PKG_CONFIG_SYSROOT_DIR=$(SYSROOT) \
	PKG_CONFIG_LIBDIR=$(SYSROOT)/usr/lib/$(ARCH)-linux-gnu/pkgconfig:$(SYSROOT)/usr/share/pkgconfig pkg-config
else
override SYSROOT :=
PKG_CONFIG ?= pkg-config
endif

# Replaces only make's defaults, cc and ar.
ifeq ($(origin CC),default)
CC := $(CROSS)gcc
endif
ifeq ($(origin AR),default)
AR := $(CROSS)ar
endif
STRIP ?= $(CROSS)strip
CLANG ?= clang
BPFTOOL ?= $(firstword $(shell PATH="$$PATH:/usr/sbin:/sbin" command -v bpftool) bpftool)
# gcc's sanitizers for user space, such as SANITIZE=address,undefined. Their objects have a folder of
# their own. What a sanitizer finds ends the program.
SANITIZE ?=
comma := ,
B ?= build$(if $(CROSS),/$(ARCH))$(if $(SANITIZE),/sanitize-$(subst $(comma),-,$(SANITIZE)))
# One name for one folder: dependencies are kept by name, and a header that changes would not have
# the objects made again that were made under the other one.
override B := $(patsubst $(CURDIR)/%,%,$(B))
SANFLAGS := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer)

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
PKGS := libbpf libelf zlib libevent libevent_openssl libnghttp2 openssl yaml-0.1 jansson

KCPPFLAGS := -D_GNU_SOURCE -DKLB_VERSION='"$(VERSION)"' -Iinclude -Iuser -Ibpf -isystem $(B)/bpf -isystem $(B)/page $(USEREXTRA)
CFLAGS ?= -O2 -g
# What of $(1) this compiler has.
supported = $(foreach f,$(1),$(shell $(CC) $(SYSFLAGS) -Werror $(f) -x c -S -o - /dev/null >/dev/null 2>&1 && echo $(f)))
# FORTIFY's level is the highest that compiler and C library have. It takes optimization, and hides
# from sanitizers what they look for. A level in CPPFLAGS or CFLAGS stays.
fortify = $(shell for l in 3 2; do $(CC) $(SYSFLAGS) -Werror -O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=$$l \
	-include string.h -x c -S -o - /dev/null >/dev/null 2>&1 && break; done; \
	echo -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=$$l)
ifeq ($(SANITIZE)$(findstring _FORTIFY_SOURCE,$(CPPFLAGS) $(CFLAGS))$(findstring -fsanitize,$(CFLAGS)),)
FORTIFY := $(if $(filter-out -O0,$(filter -O%,$(CFLAGS))),$(if $(filter -O0,$(CFLAGS)),,$(fortify)))
endif
# Marks of indirect calls and shadow stacks. The linker would leave out what a start file of the C
# library is not marked with (Debian 12): the programs' own code is.
BRANCH_x86_64 := -fcf-protection=full
BRANCH_aarch64 := -mbranch-protection=standard
BRANCH_LD_x86_64 := -Wl,-z,ibt,-z,shstk
# Before CFLAGS and LDFLAGS, which add to this and may take it back.
HARDEN := -fPIE -fstack-protector-strong $(call supported,-fstack-clash-protection $(BRANCH_$(ARCH))) $(FORTIFY)
KCFLAGS := $(SYSFLAGS) -std=gnu11 $(WARN) $(HARDEN) $(SANFLAGS) -MMD -MP
KLDFLAGS := $(SYSFLAGS) -pie -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed $(BRANCH_LD_$(ARCH)) $(SANFLAGS)
# -MD: with the system's headers, because scripts/sbom.py looks for libbpf's.
BPFFLAGS := -O2 -g -target bpf -mcpu=v3 -D__TARGET_ARCH_$(BPF_ARCH) -std=gnu11 \
	$(WARN) -Wno-missing-declarations -ffile-prefix-map=$(CURDIR)=. -Ivmlinux/$(ARCH) -Iinclude -Ibpf $(SYSFLAGS_BPF) -MD -MP $(BPFEXTRA)

# The folders of user/, each before those that it may use (scripts/check-layers.py).
FOLDERS := agent relay load ctl import discovery datapath balance config host net base
folder_objects = $(patsubst %.c,$(B)/%.o,$(filter-out %/main.c,$(wildcard user/$(1)/*.c)))
ARCHIVES := $(FOLDERS:%=$(B)/user/%.a)

PROGRAMS := $(B)/kubelb-load $(B)/kubelb-agent $(B)/kubelbctl
# tests/unit has the folders of user/, and bpf; a program's name is its file's.
UNIT_SOURCES := $(sort $(wildcard tests/unit/*/test_*.c))
UNITS := $(patsubst test_%.c,%,$(notdir $(UNIT_SOURCES)))
$(if $(filter-out $(words $(sort $(UNITS))),$(words $(UNITS))),$(error two unit tests of one name))
UNIT_TESTS := $(UNITS:%=$(B)/test/test_%)
TOOLS := $(B)/test/relaytest $(B)/test/pingpong $(B)/test/nbconnect $(B)/test/bench_client $(B)/test/uringconnect $(B)/test/httpflood $(B)/test/simulate

# Each program links only the libraries that it uses, so that it maps no more than it needs.
LIBS_BPF := $(shell $(PKG_CONFIG) --libs libbpf libelf zlib 2>/dev/null)
LIBS_YAML := $(shell $(PKG_CONFIG) --libs yaml-0.1 2>/dev/null)
# By name: libevent_openssl.pc would also link the rest of libevent, and core is enough.
LIBS_EVENT := -levent_openssl -levent_core $(shell $(PKG_CONFIG) --libs libnghttp2 openssl 2>/dev/null)
LIBS_JSON := $(shell $(PKG_CONFIG) --libs jansson 2>/dev/null)

.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: all help test-tools fuzz units check lint analyze valgrind coverage format install uninstall deb rpm dist clean abi-next image image-root sbom

all: $(PROGRAMS) ## Build the three programs (default)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Variables: V=1 ARCH=$(ARCH) DESTDIR= PREFIX=$(PREFIX) CC=$(CC) CLANG=$(CLANG) B=$(B) SANITIZE=$(SANITIZE)"

# --- kernel side -----------------------------------------------------------------

# The same programs for kernels of three ages (bpf/kernel.bpf.h).
BUILDS := casts plain old
BUILD_FLAGS_casts := -DKLB_BUILD_CASTS
BUILD_FLAGS_old := -DKLB_BUILD_OLD

$(B)/bpf/kubelb_%.bpf.o: bpf/kubelb.bpf.c vmlinux/$(ARCH)/vmlinux.h Makefile | $(B)/bpf
	$(call say,BPF,$@)
	$(Q)$(CLANG) $(BPFFLAGS) $(BUILD_FLAGS_$*) -c $< -o $@

$(B)/bpf/kubelb_%.skel.h: $(B)/bpf/kubelb_%.bpf.o
	$(call say,SKEL,$@)
	$(Q){ echo '/* NOLINTBEGIN: generated by bpftool */'; $(BPFTOOL) gen skeleton $< name kubelb_$* && \
		echo '/* NOLINTEND */'; } > $@

SKELETONS := $(BUILDS:%=$(B)/bpf/kubelb_%.skel.h)

# --- user side -------------------------------------------------------------------

# The only file that includes the skeletons.
$(B)/user/datapath/object.o: $(SKELETONS)

# The only file that includes the status page.
$(B)/user/agent/page.o: $(B)/page/status_page.h

$(B)/page/status_page.h: $(wildcard user/agent/page/*) scripts/embed-page.sh | $(B)/page
	$(call say,PAGE,$@)
	$(Q)scripts/embed-page.sh user/agent/page >$@

.SECONDARY: $(BUILDS:%=$(B)/bpf/kubelb_%.bpf.o)

$(B)/user/%.o: user/%.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(KCPPFLAGS) $(CPPFLAGS) $(KCFLAGS) $(CFLAGS) -c $< -o $@

# The commit for --version. Written anew only when it is another one.
$(B)/commit: FORCE | $(B)
	$(Q)bash -c '. scripts/source.sh && source_commit' >$@.new; \
		if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
FORCE:

$(B)/user/base/cli.o: $(B)/commit
$(B)/user/base/cli.o: KCPPFLAGS += -DKLB_COMMIT="\"$$(cat $(B)/commit)\""

# Made from scratch, so that it contains no object of a file that was removed.
define archive_rule
$(B)/user/$(1).a: $(call folder_objects,$(1))
	$$(call say,AR,$$@)
	$$(Q)rm -f $$@ && $(AR) rcs $$@ $$^
endef
$(foreach f,$(FOLDERS),$(eval $(call archive_rule,$(f))))

# The map says what the linker took from elsewhere: scripts/sbom.py reads it.
$(B)/kubelb-load: $(B)/user/load/main.o $(ARCHIVES)
	$(call say,LD,$@)
	$(Q)$(CC) $(KLDFLAGS) -Wl,-Map=$@.map $(LDFLAGS) $< $(ARCHIVES) -o $@ $(LIBS_BPF) $(LIBS_YAML) $(LIBS_EVENT) $(LIBS_JSON)

$(B)/kubelb-agent: $(B)/user/agent/main.o $(ARCHIVES)
	$(call say,LD,$@)
	$(Q)$(CC) $(KLDFLAGS) -Wl,-Map=$@.map $(LDFLAGS) $< $(ARCHIVES) -o $@ $(LIBS_BPF) $(LIBS_YAML) $(LIBS_EVENT) $(LIBS_JSON)

$(B)/kubelbctl: $(B)/user/ctl/main.o $(ARCHIVES)
	$(call say,LD,$@)
	$(Q)$(CC) $(KLDFLAGS) -Wl,-Map=$@.map $(LDFLAGS) $< $(ARCHIVES) -o $@ $(LIBS_BPF) $(LIBS_YAML) $(LIBS_EVENT) $(LIBS_JSON)

# --- tests -----------------------------------------------------------------------

$(B)/test/unit/%.o: tests/unit/%.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(KCPPFLAGS) $(CPPFLAGS) -Itests/unit -Ibpf $(KCFLAGS) $(CFLAGS) -c $< -o $@

# What tests share among themselves.
UNIT_SHARED := $(B)/test/unit/shared.a
$(UNIT_SHARED): $(patsubst tests/%.c,$(B)/test/%.o,$(wildcard tests/unit/*.c))
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# The test replaces the kernel's answers.
UNITFLAGS_sock_diag := -Wl,--wrap=recv
define unit_rule
$(B)/test/$(2): $(patsubst tests/%.c,$(B)/test/%.o,$(1)) $(UNIT_SHARED) $(ARCHIVES) | $(B)/test
	$$(call say,LD,$$@)
	$$(Q)$$(CC) $$(KLDFLAGS) $$(LDFLAGS) -Wl,-u,unit_filter $(UNITFLAGS_$(2:test_%=%)) $$^ -o $$@ -lcmocka $$(LIBS_BPF) $$(LIBS_YAML) $$(LIBS_JSON) $$(LIBS_EVENT)
endef
$(foreach s,$(UNIT_SOURCES),$(eval $(call unit_rule,$(s),$(basename $(notdir $(s))))))

$(B)/test/nbconnect $(B)/test/pingpong $(B)/test/uringconnect $(B)/test/httpflood: $(B)/test/%: tests/clients/%.c Makefile | $(B)/test
	$(call say,CC,$<)
	$(Q)$(CC) -D_GNU_SOURCE $(KCFLAGS) $(CFLAGS) $< -o $@

$(B)/test/relaytest: tests/clients/relaytest.c $(ARCHIVES) Makefile | $(B)/test
	$(call say,LD,$@)
	$(Q)$(CC) $(KCPPFLAGS) $(CPPFLAGS) $(KCFLAGS) $(CFLAGS) $(KLDFLAGS) $(LDFLAGS) $< $(ARCHIVES) -o $@ \
		-levent_core

$(B)/test/guest: tests/vm/guest.c Makefile | $(B)/test
	$(call say,CC,$<)
	$(Q)$(CC) $(KCFLAGS) $(CFLAGS) $< -o $@

$(B)/test/bench_client: tests/clients/bench_client.c Makefile | $(B)/test
	$(call say,CC,$<)
	$(Q)$(CC) -D_GNU_SOURCE $(KCFLAGS) $(CFLAGS) $< -o $@ $(shell $(PKG_CONFIG) --libs openssl)

# The simulation. Of agent/ it has the files that decide, without what only they call for other jobs;
# what is not in SIM_AGENT and yet called has a counterpart in tests/sim.
SIM_AGENT := backend backend_renew backends ejections end_connections evict in_force kernel_events \
	list_changes liveness make_backend metrics rebalance removed resting sync
SIM_OBJECTS := $(patsubst tests/sim/%.c,$(B)/sim/%.o,$(wildcard tests/sim/*.c)) \
	$(SIM_AGENT:%=$(B)/sim/agent/%.o)
SIMFLAGS := -ffunction-sections -fdata-sections
SIM_ARCHIVES := $(patsubst %,$(B)/user/%.a,balance config net base)

$(B)/sim/%.o: tests/sim/%.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(KCPPFLAGS) $(CPPFLAGS) -Itests/sim $(KCFLAGS) $(SIMFLAGS) $(CFLAGS) -c $< -o $@

$(B)/sim/agent/%.o: user/agent/%.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(KCPPFLAGS) $(CPPFLAGS) $(KCFLAGS) $(SIMFLAGS) $(CFLAGS) -c $< -o $@

$(B)/test/simulate: $(SIM_OBJECTS) $(SIM_ARCHIVES) Makefile | $(B)/test
	$(call say,LD,$@)
	$(Q)$(CC) $(KLDFLAGS) $(LDFLAGS) -Wl,--gc-sections -Wl,--wrap=agent_apply $(SIM_OBJECTS) \
		$(SIM_ARCHIVES) -o $@ $(LIBS_YAML) -lm

# Without those whose source is gone: scripts/test.sh runs what is there.
test-tools: $(UNIT_TESTS) $(TOOLS) abi-next ## Build the tests and their clients
	$(Q)rm -f $(filter-out $(UNIT_TESTS),$(wildcard $(B)/test/test_*))

# The same programs with the next ABI version and larger values, to test upgrades. Also a
# kubelb-load whose values of `backends` have the old size.
abi-next:
	$(Q)$(MAKE) --no-print-directory B=$(B)/abi-next BPFEXTRA="-DKLB_ABI_NEXT" \
		USEREXTRA="-DKLB_ABI_NEXT" all
	$(Q)$(MAKE) --no-print-directory B=$(B)/abi-lookup BPFEXTRA="-DKLB_ABI_NEXT=2" \
		USEREXTRA="-DKLB_ABI_NEXT=2" $(B)/abi-lookup/kubelb-load

# --- fuzzing ---------------------------------------------------------------------

FUZZ_SECONDS ?= 60
FUZZ_FLAGS := -std=gnu11 -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all \
	$(WARN) -Wno-missing-prototypes
FUZZERS := config select discovery import answer request probe watch
# The folders that parse foreign data, in an order that works for the linker.
FUZZ_FOLDERS := import discovery balance config host net base
FUZZ_ARCHIVES := $(FUZZ_FOLDERS:%=$(B)/fuzz/%.a)

$(B)/fuzz/user/%.o: user/%.c Makefile
	$(call say,FUZZ,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(KCPPFLAGS) $(CPPFLAGS) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -MMD -MP -c $< -o $@

define fuzz_archive_rule
$(B)/fuzz/$(1).a: $(patsubst %.c,$(B)/fuzz/%.o,$(filter-out %/main.c,$(wildcard user/$(1)/*.c)))
	$$(Q)rm -f $$@ && $(AR) rcs $$@ $$^
endef
$(foreach f,$(FUZZ_FOLDERS),$(eval $(call fuzz_archive_rule,$(f))))

# What the archives do not have: the other side of a connection, and of agent/ what probes.
FUZZ_MORE_probe := tests/fuzz/peer.c $(B)/fuzz/user/agent/probe.o $(B)/fuzz/user/agent/probe_request.o
FUZZ_MORE_watch := tests/fuzz/peer.c
$(foreach f,probe watch,$(eval $(B)/test/fuzz_$(f): $(FUZZ_MORE_$(f)) tests/fuzz/peer.h))

$(B)/test/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/fuzz.h $(FUZZ_ARCHIVES) $(wildcard bpf/select.bpf.h) | $(B)/test
	$(call say,FUZZ,$@)
	$(Q)$(CLANG) $(KCPPFLAGS) $(CPPFLAGS) -Ibpf $(FUZZ_FLAGS) -fsanitize=fuzzer $< $(FUZZ_MORE_$*) $(FUZZ_ARCHIVES) -o $@ \
		$(LIBS_YAML) $(LIBS_EVENT) $(LIBS_JSON)

fuzz: $(FUZZERS:%=run-fuzz-%) ## Fuzz each input for FUZZ_SECONDS (60)

# There are no files of these names. With -j the fuzzers run at the same time.
run-fuzz-%: $(B)/test/fuzz_%
	$(Q)mkdir -p $(B)/fuzz/corpus/$*
	$(Q)$< -max_total_time=$(FUZZ_SECONDS) -verbosity=0 -artifact_prefix=$(B)/fuzz/ \
		$(B)/fuzz/corpus/$* $(wildcard tests/fuzz/corpus/$*)

units: $(UNITS:%=run-unit-%) ## Run the unit tests; with SANITIZE=address,undefined under sanitizers

# There are no files of these names. Everything is built before the first one runs.
run-unit-%: $(B)/test/test_% | $(UNIT_TESTS)
	$(Q)$<

check: ## Run every test (scripts/test.sh)
	$(Q)scripts/test.sh

# --- lint ------------------------------------------------------------------------

OWN_C := $(wildcard bpf/*.[ch] user/*/*.[ch] include/kubelb/*.h tests/unit/*.[ch] tests/unit/*/*.[ch] \
	tests/clients/*.c tests/vm/*.c tests/fuzz/*.[ch] tests/sim/*.[ch])
USER_C := $(wildcard user/*/*.c)

# How far clang's analyzer goes in a function: its default. With 75000, its value for quick runs
# (mode=shallow), clang-tidy takes less than half of the time.
TIDY_NODES ?= 225000
TIDY_ANALYZER := -Xclang -analyzer-config -Xclang

lint: all $(SKELETONS) compile_commands.json ## clang-format, clang-tidy, cppcheck, shellcheck, mandoc, pages, both compilers
	$(Q)clang-format --dry-run -Werror $(OWN_C)
	$(Q)clang-tidy --quiet -p . $(TIDY_ANALYZER:%=--extra-arg=%) --extra-arg=max-nodes=$(TIDY_NODES) $(USER_C)
	$(Q)cppcheck --quiet --error-exitcode=1 --std=c11 --inline-suppr --library=posix \
		--enable=warning,performance,portability --suppress=missingIncludeSystem \
		--suppress=readdirCalled -D__$(ARCH)__ '-DLIBBPF_OPTS(t,n,...)=struct t n = {0}' \
		-Iinclude -Iuser $(USER_C)
	$(Q)shellcheck -x scripts/*.sh tests/vm/init .ci/run deploy/completion/*.bash deploy/debian/p* deploy/libexec/*
	$(Q)$(if $(wildcard docs/man/*),mandoc -T lint -W warning docs/man/*)
	$(Q)$(if $(shell command -v node),node --check user/agent/page/page.js)
	$(Q)scripts/check-docs.py
	$(Q)scripts/check-layers.py $(B)
	$(Q)scripts/check-functions.py
	$(Q)$(MAKE) --no-print-directory CC=$(CLANG) B=$(B)/clang

# Beside the checkers that clang-tidy has, too: what reads, writes or allocates past an end. A report
# is a failure.
ANALYZE_CHECKERS := security.FloatLoopCounter optin.portability.UnixAPI alpha.core.SizeofPtr \
	alpha.security.ReturnPtrRange alpha.security.MallocOverflow alpha.unix.SimpleStream \
	alpha.unix.cstring.BufferOverlap alpha.unix.cstring.OutOfBounds

analyze: $(SKELETONS) ## Clang's static analyzer (scan-build) over the programs
	$(Q)rm -rf $(B)/analyze
	$(Q)scan-build --status-bugs -o $(B)/analyze/report --use-cc=gcc --use-analyzer=$(shell command -v $(CLANG)) \
		$(ANALYZE_CHECKERS:%=-enable-checker %) \
		$(MAKE) --no-print-directory B=$(B)/analyze all

valgrind: ## The programs under memcheck (scripts/valgrind.sh)
	$(Q)scripts/valgrind.sh

coverage: ## Which lines of user/ the tests run (scripts/coverage.sh); slow
	$(Q)scripts/coverage.sh

format: ## Reformat the sources in place
	$(Q)clang-format -i $(OWN_C)

compile_commands.json: Makefile | $(B)
	$(Q){ echo '['; sep=; for c in $(USER_C); do \
		printf '%s{"directory":"%s","file":"%s","arguments":["clang","-std=gnu11",' "$$sep" "$(CURDIR)" "$$c"; \
		printf '"-D_GNU_SOURCE","-DKLB_VERSION=\\"$(VERSION)\\"","-Iinclude","-Iuser","-Ibpf","-isystem","$(B)/bpf","-isystem","$(B)/page","-c","%s"]}\n' "$$c"; \
		sep=,; done; echo ']'; } > $@

# --- install ---------------------------------------------------------------------

SYSTEMD_UNITS := $(notdir $(wildcard deploy/systemd/*.service))

ANSIBLE_FILES = $(shell cd deploy && find ansible -type f ! -name '.*' | sort)
KUBEADM_FILES = $(shell cd deploy && find kubeadm -type f | sort)

install: all ## Install below $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(sbindir) $(DESTDIR)$(mandir)/man8 $(DESTDIR)$(mandir)/man7 $(DESTDIR)$(mandir)/man5 \
		$(DESTDIR)$(docdir)/examples $(DESTDIR)$(pkgdatadir)/grafana $(DESTDIR)$(pkgdatadir)/prometheus \
		$(DESTDIR)$(sysconfdir)/kubelb $(DESTDIR)$(unitdir) $(DESTDIR)$(bashcompdir) \
		$(DESTDIR)$(zshcompdir) $(DESTDIR)$(fishcompdir) $(DESTDIR)$(libexecdir)/kubelb
	install -m 755 $(PROGRAMS) $(DESTDIR)$(sbindir)
	install -m 755 deploy/libexec/next-step $(DESTDIR)$(libexecdir)/kubelb
	install -m 644 docs/man/*.8 $(DESTDIR)$(mandir)/man8
	install -m 644 docs/man/*.7 $(DESTDIR)$(mandir)/man7
	install -m 644 docs/man/*.5 $(DESTDIR)$(mandir)/man5
	install -m 644 README.md CHANGELOG.md docs/*.md $(DESTDIR)$(docdir)
	install -m 644 deploy/kubelb.yaml $(DESTDIR)$(docdir)/examples
	install -m 644 deploy/grafana/kubelb.json $(DESTDIR)$(pkgdatadir)/grafana
	install -m 644 deploy/prometheus/kubelb-alerts.yaml $(DESTDIR)$(pkgdatadir)/prometheus
	for f in $(ANSIBLE_FILES) $(KUBEADM_FILES); do \
		install -D -m 644 deploy/$$f $(DESTDIR)$(pkgdatadir)/$$f || exit 1; done
	# The first one starts the second one. So nothing of the package asks for a python3.
	install -m 755 scripts/k8s-check.sh $(DESTDIR)$(libexecdir)/kubelb
	sed '1{/^#!/d}' scripts/k8s-check.py > $(DESTDIR)$(libexecdir)/kubelb/k8s-check.py
	chmod 644 $(DESTDIR)$(libexecdir)/kubelb/k8s-check.py
	install -m 644 deploy/kubelb.yaml $(DESTDIR)$(sysconfdir)/kubelb/kubelb.yaml.example
	for u in $(SYSTEMD_UNITS); do sed 's,/usr/sbin/,$(sbindir)/,' deploy/systemd/$$u \
		> $(DESTDIR)$(unitdir)/$$u && chmod 644 $(DESTDIR)$(unitdir)/$$u || exit 1; done
	install -m 644 deploy/completion/kubelb.bash $(DESTDIR)$(bashcompdir)/kubelbctl
	for p in kubelb-load kubelb-agent; do ln -sf kubelbctl $(DESTDIR)$(bashcompdir)/$$p; done
	install -m 644 deploy/completion/_kubelb $(DESTDIR)$(zshcompdir)
	install -m 644 deploy/completion/kubelb.fish $(DESTDIR)$(fishcompdir)/kubelbctl.fish
	for p in kubelb-load kubelb-agent; do ln -sf kubelbctl.fish $(DESTDIR)$(fishcompdir)/$$p.fish; done

image-root: all ## Assemble the container image's files in build/image
	$(Q)SYSROOT="$(SYSROOT)" STRIP="$(STRIP)" scripts/image-root.sh $(B) $(B)/image $(VERSION)

sbom: image-root ## Write the bill of materials of the image, SPDX 2.3 in JSON
	$(Q)cp $(B)/image/usr/share/doc/kubelb/kubelb.spdx.json $(B)/kubelb-$(VERSION).spdx.json
	$(Q)echo $(B)/kubelb-$(VERSION).spdx.json

image: image-root ## Build the container image, an OCI archive (buildah, podman, or neither)
	$(Q)scripts/image.sh $(B)/image $(B)/kubelb-$(VERSION).oci.tar $(VERSION)

uninstall: ## Remove what install put there (the configuration stays)
	rm -f $(PROGRAMS:$(B)/%=$(DESTDIR)$(sbindir)/%)
	rm -f $(addprefix $(DESTDIR)$(mandir)/man8/,$(notdir $(wildcard docs/man/*.8)))
	rm -f $(DESTDIR)$(sysconfdir)/kubelb/kubelb.yaml.example
	rm -f $(addprefix $(DESTDIR)$(libexecdir)/kubelb/,next-step k8s-check.sh k8s-check.py)
	rm -rf $(DESTDIR)$(pkgdatadir)/ansible $(DESTDIR)$(pkgdatadir)/kubeadm
	rm -f $(SYSTEMD_UNITS:%=$(DESTDIR)$(unitdir)/%) $(DESTDIR)$(zshcompdir)/_kubelb
	rm -f $(PROGRAMS:$(B)/%=$(DESTDIR)$(bashcompdir)/%) $(PROGRAMS:$(B)/%=$(DESTDIR)$(fishcompdir)/%.fish)
	rm -f $(addprefix $(DESTDIR)$(mandir)/man7/,$(notdir $(wildcard docs/man/*.7)))
	rm -f $(addprefix $(DESTDIR)$(mandir)/man5/,$(notdir $(wildcard docs/man/*.5)))
	rm -f $(addprefix $(DESTDIR)$(docdir)/,$(notdir $(wildcard README.md CHANGELOG.md docs/*.md)) examples/kubelb.yaml)
	rm -f $(DESTDIR)$(pkgdatadir)/grafana/kubelb.json $(DESTDIR)$(pkgdatadir)/prometheus/kubelb-alerts.yaml

deb: ## Build the Debian package, build/deb/kubelb_VERSION_ARCH.deb
	$(Q)SYSROOT="$(SYSROOT)" scripts/deb.sh $(VERSION) $(B)/deb $(DEB_ARCH)

rpm: ## Build the RPM package, build/rpm/kubelb-VERSION-1.ARCH.rpm
	$(Q)SYSROOT="$(SYSROOT)" scripts/rpm.sh $(VERSION) $(B)/rpm $(ARCH)

dist: ## Make a release of both architectures in build/dist: source, packages, image, chart, SHA256SUMS
	$(Q)scripts/dist.sh

clean: ## Remove what was built
	$(Q)rm -rf $(B) compile_commands.json

$(B) $(B)/bpf $(B)/page $(B)/test:
	$(Q)mkdir -p $@

# Not of other builds below $(B), nor what a sysroot calls so.
-include $(wildcard $(foreach d,bpf user test sim fuzz,$(B)/$(d)/*.d $(B)/$(d)/*/*.d $(B)/$(d)/*/*/*.d))
