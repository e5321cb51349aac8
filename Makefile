# Hearth. `make help` lists what there is; the work itself is in scripts/, the same for CI and for you.

.DEFAULT_GOAL := all
.PHONY: all help setup fmt lint test short build run bench attack benchmarks cross check ci clean

all: fmt lint test build ## fmt, lint, test, build

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what the tests need and the machine lacks (Debian)
	@scripts/setup

fmt: ## format all Go files
	@find . -name node_modules -prune -o -name '*.go' -print0 | xargs -0 gofmt -l -w

lint: ## go vet, staticcheck, tidy modules, imports, wording
	@scripts/check vet lint tidy deps prose

test: setup ## all tests, with the race detector
	@scripts/check test

short: ## the tests without the race detector, and without those that take long
	go test -short ./...

build: ## the server, as bin/hearth
	CGO_ENABLED=0 go build -trimpath -o bin/hearth ./cmd/hearth

run: ## the server, on http://localhost:8080
	go run ./cmd/hearth serve

bench: ## Hearth beside the reference and a bare C limit (docs/benchmarks.md); ARGS="-rounds 3" and so on
	cd bench && go run . $(ARGS)

attack: ## attack the server from outside and measure it (docs/benchmarks.md); ARGS="-run flood" and so on
	cd bench && go run ./attack $(ARGS)

benchmarks: ## the small benchmarks beside the code; PKG=./internal/hub for one package
	go test -run '^$$' -bench . -benchmem $(or $(PKG),./...)

cross: ## compile for the other systems
	@scripts/check cross

check: ## everything that CI checks
	@scripts/check

ci: ## exactly what CI runs
	@.ci/run

clean: ## remove what was built
	rm -rf bin bench/bin bench/out coverage.out
