# Muster. 'make' lists the targets. Anything longer than a few lines is a Go program.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
export CGO_ENABLED ?= 0

DAEMONS := ./bbs/cmd/bbs ./auctioneer/cmd/auctioneer ./rep/cmd/rep ./route-emitter/cmd/route-emitter ./gorouter/cmd/gorouter
APPS := ./integration/apps/hello
# Packages whose tests change the host's network and mounts, and compare them before and after: one at a time.
ALONE := ./cells/containerd/... ./integration/...
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
up: build ## run everything on this machine, with a sample app behind the router (as root; repeatable)
	@bin/muster up $(if $(HTTP_PORT),--http-port $(HTTP_PORT))

.PHONY: down
down: build ## stop everything and leave nothing behind
	@bin/muster down

.PHONY: test
test: deps vet verify ## run every test, on real parts; installs what is missing
	go test $$(go list ./... | grep -vE '^muster/(cells/containerd|integration)(/|$$)')
	go test -p 1 -timeout 20m $(ALONE)

.PHONY: test/race
test/race: deps ## run the tests that need no host changes with the race detector
	CGO_ENABLED=1 go test -race $$(go list ./... | grep -vE '^muster/(cells/containerd|integration)(/|$$)')

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

.PHONY: verify
verify: generate ## lint the .proto files, and fail when generated code or go.mod is not what is committed
	go tool buf lint
	go mod tidy -diff
	git diff --exit-code -- proto

.PHONY: bench/main
bench/main: deps build ## time from desire to the first HTTP answer, beside raw containerd; one JSON object
	@go run ./integration/bench/main

.PHONY: deps
deps: build ## install the Debian packages that are missing (as root)
	@bin/muster up --install-only >&2

.PHONY: clean
clean: ## remove what was built
	rm -rf bin

.PHONY: need-go
need-go:
	@command -v go >/dev/null || { echo "Go is missing: install Go 1.26 or later and put it into PATH"; exit 1; }
