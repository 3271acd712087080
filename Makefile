# Egret. `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:

# .cache/bin holds a go wrapper where lab/deps.sh had to make one.
export PATH := $(CURDIR)/.cache/bin:$(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin
export CGO_ENABLED ?= 0

VERSION = $(shell git -c safe.directory='*' describe --tags --always --dirty 2>/dev/null || echo unknown)
GOBUILD = go build -trimpath -buildvcs=false
PREFIX  ?= /usr/local
PKG     ?=
RUN     ?=
FUZZTIME ?= 10s
BENCH   ?=

##@ Use

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: deps-build ## build bin/egret, a static binary
	$(GOBUILD) -ldflags "-s -w -X main.version=$(VERSION)" -o bin/egret ./cmd/egret

.PHONY: install
install: ## install bin/egret (make build), the systemd unit and a first configuration
	install -D -m 755 bin/egret $(DESTDIR)$(PREFIX)/sbin/egret
	install -d $(DESTDIR)/etc/systemd/system $(DESTDIR)/etc/egret
	sed 's|/usr/local/sbin|$(PREFIX)/sbin|' docs/egret.service >$(DESTDIR)/etc/systemd/system/egret.service
	[[ -e $(DESTDIR)/etc/egret/egret.yaml ]] || install -m 640 egress/config/reference.yaml $(DESTDIR)/etc/egret/egret.yaml

.PHONY: clean
clean: ## remove what was built
	rm -rf bin .cache

##@ Test

.PHONY: test
test: ## what has to pass, about 25 minutes: lint, unit tests, kernel tests
	@lab/deps.sh test
	@$(MAKE) lint
	@.ci/once-more test-unit
	@EGRET_VM_LEAVE_OUT=.cache/passed .ci/once-more test-vm

.PHONY: lint
lint: deps-build ## gofmt, go vet, staticcheck, bash -n
	.ci/lint

.PHONY: test-unit
test-unit: deps-build ## all packages on this kernel (PKG=./vrf RUN=TestDiff)
	@mkdir -p .cache
	go test -v -count=1 -timeout 10m $(if $(RUN),-run '$(RUN)') $(or $(PKG),./...) 2>&1 | .ci/report $(if $(PKG)$(RUN),,-v passed=.cache/passed)

.PHONY: test-vm
test-vm: deps-test build bin/egret-next bin/vmrun ## kernel tests, in a VM if this kernel lacks VRFs (PKG= RUN=)
	.ci/test-vm '$(RUN)' $(PKG)

.PHONY: test-kubernetes
test-kubernetes: deps-build bin/kube ## tests with a real Kubernetes API server; the first time builds one, 5 minutes (RUN=)
	export EGRET_LAB_REQUIRE=1; { go test -v -count=1 -p 1 -timeout 10m $(if $(RUN),-run '$(RUN)') $(or $(PKG),./lab/kube ./egress/crd/...) \
	  && $(if $(PKG)$(RUN),true,go test -v -count=1 -run "ControllerCommand|ManifestsMatch" ./cmd/egret); } 2>&1 | .ci/report -v strict=1 -v live=1

.PHONY: test-cluster
test-cluster: deps-test build bin/vmrun bin/kube ## agents, gateways and controller on the nodes of a cluster, with a real API server and FRR, in a VM (RUN=)
	EGRET_VM_SMP=2 EGRET_VM_MEM=4G .ci/test-vm '$(RUN)' ./lab/clustertest

.PHONY: fuzz
fuzz: deps-build ## a short run of every fuzz target (FUZZTIME=10s PKG=)
	.ci/fuzz $(FUZZTIME) $(PKG)

.PHONY: bench
bench: deps-bench build bin/vmrun bin/bench ## the Go benchmarks, and the data plane in a VM (BENCH=-quick; PKG= RUN= select Go benchmarks only)
	go test -run '^$$' -bench '$(or $(RUN),.)' -benchmem $(or $(PKG),./...)
	$(if $(PKG)$(RUN),,bin/bench $(BENCH))
	$(if $(PKG)$(RUN),,$(MAKE) bench-failover)

.PHONY: bench-failover
bench-failover: deps-bench build bin/vmrun ## how long traffic stops when something fails, and how long 100,000 routes take, beside BIRD and FRR (FIGURES=TestTwin)
	CGO_ENABLED=0 EGRET_VM_TIMEOUT=40m go test -tags bench -count=1 -timeout 40m -v -run '$(or $(FIGURES),Figures$$)' \
	  -exec "$(CURDIR)/bin/vmrun" ./acceptance | grep -E 'FIGURE|^(---|FAIL|ok)'

.PHONY: bench-cluster
bench-cluster: deps-bench build bin/vmrun bin/kube ## how long pods' traffic stops when a gateway's node dies
	CGO_ENABLED=0 EGRET_VM_SMP=2 EGRET_VM_MEM=4G EGRET_VM_TIMEOUT=30m go test -tags bench -count=1 -timeout 30m -v -run 'Figures$$' \
	  -exec "$(CURDIR)/bin/vmrun" ./lab/clustertest | grep -E 'FIGURE|gap|^(---|FAIL|ok)'

.PHONY: bench-kubernetes
bench-kubernetes: deps-bench build bin/kube bin/vmrun ## latency and memory with 500 policies, 5,000 pods and 50 gateways in a real API server (FIGURES=TestCluster)
	EGRET_LAB_REQUIRE=1 go test -tags bench -count=1 -timeout 40m -v -run '$(or $(FIGURES),Figures$$)' ./lab/clusterbench | grep -E 'FIGURE|^(---|FAIL|ok)'

.PHONY: soak
soak: deps-build ## long tests under load, outside CI (SOAK=10m PKG=)
	EGRET_SOAK=$(or $(SOAK),10m) go test -v -count=1 -timeout 2h -tags soak -run Soak $(or $(PKG),./...)

.PHONY: cover
cover: deps-build ## statement coverage of the unit tests on this kernel
	@mkdir -p .cache
	go test -count=1 -timeout 15m -coverprofile=.cache/cover.out $(or $(PKG),./...)
	go tool cover -func=.cache/cover.out | tail -n 1

.PHONY: vulncheck
vulncheck: deps-build ## known vulnerabilities (needs access to vuln.go.dev)
	go run golang.org/x/vuln/cmd/govulncheck@v1.1.4 ./...

##@ See

.PHONY: demo
demo: bin/demo ## two networks with the same addresses, real routers: what Egret does, in a minute or two
	@bin/demo

.PHONY: demo-shell
demo-shell: bin/demo bin/egretlab ## the same lab, left up to play in
	@bin/demo -shell

.PHONY: containerlab
containerlab: ## run the containerlab topology inside a VM and check the outcome
	containerlab/run.sh

# The rest is not listed by help.

.PHONY: deps-build deps-test deps-demo deps-bench
deps-build deps-test deps-demo deps-bench: deps-%:
	@lab/deps.sh $*

.PHONY: bin/vmrun bin/bench bin/egret-next
bin/vmrun: deps-build
	CGO_ENABLED=0 $(GOBUILD) -o $@ ./lab/vmrun
# The version that tests upgrade to.
bin/egret-next: deps-build
	$(GOBUILD) -ldflags "-s -w -X main.version=$(VERSION)-next" -o $@ ./cmd/egret
bin/bench: deps-build
	CGO_ENABLED=0 $(GOBUILD) -o $@ ./lab/bench

# The programs go to the user's cache: they are large, and the same for every clone.
.PHONY: bin/kube
bin/kube: deps-build
	go run ./lab/kube/build

# Static, as the VM's guest runs them, too.
.PHONY: bin/demo bin/egretlab
bin/demo: deps-demo build bin/vmrun
	CGO_ENABLED=0 $(GOBUILD) -o $@ ./lab/demo
bin/egretlab: deps-build
	CGO_ENABLED=0 $(GOBUILD) -o $@ ./lab/egretlab
