# Muster. 'make' lists the targets. Anything longer than a few lines is a Go program.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
export CGO_ENABLED ?= 0

DAEMONS := ./bbs/cmd/bbs ./auctioneer/cmd/auctioneer ./rep/cmd/rep ./route-emitter/cmd/route-emitter ./gorouter/cmd/gorouter ./cells/guest/cmd/muster-init ./cells/proxy/cmd/cell-proxy
APPS := ./integration/apps/hello
# Packages whose tests change the host's network and mounts, and compare them before and after, or replace processes
# under load: one at a time.
ALONE := ./cells/containerd/... ./cells/proxy/... ./integration/...
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z/-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: build
build: need-go ## build the daemons and muster into bin/
	@echo 'building into bin/ (a minute or two the first time)' >&2
	@go build -trimpath -ldflags '-X muster/internal/daemon.Version=$(VERSION)' -o bin/ $(DAEMONS) $(APPS) ./cli/cmd/muster

.PHONY: up
up: build ## run everything on this machine, with a sample app behind the router (as root; repeatable; LEASE=consul: with a private Consul)
	@bin/muster up $(if $(HTTP_PORT),--http-port $(HTTP_PORT)) $(if $(LEASE),--lease $(LEASE))

.PHONY: down
down: build ## stop everything and leave nothing behind
	@bin/muster down

.PHONY: test
test: deps consul vet verify ## run every test, on real parts; installs what is missing
	go test $$(go list ./... | grep -vE '^muster/(cells/containerd|cells/proxy|integration)(/|$$)')
	go test -p 1 -timeout 20m $(ALONE)

.PHONY: test/race
test/race: deps consul ## run the tests that need no host changes with the race detector
	CGO_ENABLED=1 go test -race $$(go list ./... | grep -vE '^muster/(cells/containerd|cells/proxy|integration)(/|$$)')

.PHONY: test/world
test/world: deps ## run only the whole-system tests
	go test -p 1 -timeout 20m -v ./integration/world/...

.PHONY: vet
vet: need-go ## format check and go vet
	@bad=$$(git ls-files '*.go' | grep -v '\.pb\.go$$' | xargs gofmt -l); [ -z "$$bad" ] || { echo "not formatted: $$bad"; exit 1; }
	go vet ./...

.PHONY: generate
generate: need-go ## generate Go from the .proto files
	go tool buf generate

# What API clients may rely on: proto/README.md says when to move it.
.PHONY: generate/baseline
generate/baseline: need-go ## promise the API of the .proto files as it is now
	go tool buf build --exclude-source-info -o proto/baseline.binpb

.PHONY: verify
verify: generate ## lint the .proto files, compare them with what was promised, and fail when generated code or go.mod is not what is committed
	go tool buf lint
	go tool buf breaking --against proto/baseline.binpb
	go mod tidy -diff
	git diff --exit-code -- proto

.PHONY: bench/main
bench/main: deps build ## time from desire to the first HTTP answer, beside raw containerd; one JSON object
	@go run ./integration/bench/main

.PHONY: bench/bbs
bench/bbs: deps build ## desires, claims and starts a second, beside a row per transaction; one JSON object for 32 and for 256 callers
	@go run ./integration/bench/bbs

.PHONY: bench/watch
bench/watch: deps build ## what 1,000 watchers cost that reconnect to two replicas, and whether they miss anything; one JSON object
	@go run ./integration/bench/watch

.PHONY: bench/door
bench/door: deps build ## starts a second through Diego's routes, beside gRPC in the same run; one JSON object for 32 and for 256 callers
	@go run ./integration/bench/door

.PHONY: bench/grow
bench/grow: deps build ## bench/bbs and bench/converge at 10k to 1M instances (20 minutes, goes on if interrupted); writes docs/benchmarks.md
	@go run ./integration/bench/grow

.PHONY: bench/converge
bench/converge: deps build ## time convergence: quiet ticks and passes, a lost cell, suspects that return; one JSON object
	@go run ./integration/bench/converge

.PHONY: bench/auction
bench/auction: deps build ## placements a second on 100 to 10,000 cells, compared with the plain rule, and then through the daemon; one JSON object each
	@go run ./integration/bench/auction
	@go run ./integration/bench/auctiondaemon

.PHONY: bench/cell
bench/cell: deps build ## starts on a cell beside raw containerd, one and many at once; adoption, memory and idle cost of 100 containers; one JSON object
	@go run ./integration/bench/cell

.PHONY: sim/auction
sim/auction: need-go ## play the scenarios of the auction; a report and a picture of each (or of SCENARIO, with ARGS='-starting 0.5 -bin-pack 0.5')
	@go run ./integration/sim/auction $(if $(SCENARIO),-scenario $(SCENARIO)) $(ARGS)

.PHONY: deps
deps: build ## install the Debian packages that are missing (as root)
	@bin/muster up --install-only >&2

.PHONY: consul
consul: build ## build the Consul agent that tests and LEASE=consul run, once, into the user's cache (about 4 minutes)
	@bin/muster up --install-only --lease consul >&2

.PHONY: clean
clean: ## remove what was built
	rm -rf bin

.PHONY: need-go
need-go:
	@command -v go >/dev/null || { echo "Go is missing: install Go 1.26 or later and put it into PATH"; exit 1; }
