# Hearth. `make help` lists the targets. They call scripts/, as CI does.

.DEFAULT_GOAL := all
.PHONY: all help setup fmt lint test short build release run bench attack recovery benchmarks cross check ci clean

all: fmt lint test build ## fmt, lint, test, build

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install missing programs that the tests need (Debian)
	@scripts/setup

fmt: ## format all Go files
	@find . -name node_modules -prune -o -name '*.go' -print0 | xargs -0 gofmt -l -w

lint: ## go vet, staticcheck, tidy modules, imports, wording
	@scripts/check vet lint tidy deps prose

test: setup ## all tests, with the race detector
	@scripts/check test

short: ## the fast tests, without the race detector
	go test -short ./...

build: ## build the server as bin/hearth
	CGO_ENABLED=0 go build -trimpath -o bin/hearth ./cmd/hearth

release: ## build the release in dist/: archives for all systems, with checksums
	@scripts/release

run: ## run the server on http://localhost:8080
	go run ./cmd/hearth serve

bench: ## measure Hearth against the reference and a C server (docs/benchmarks.md); ARGS="-rounds 3"
	cd bench && go run . $(ARGS)

attack: ## attack the server and measure the effect (docs/benchmarks.md); ARGS="-run flood"
	cd bench && go run ./attack $(ARGS)

recovery: ## measure what clients miss when connections and servers fail (docs/benchmarks.md); ARGS="-measures jitter"
	cd bench && go run ./recovery $(ARGS)

benchmarks: ## run the benchmarks of all packages; PKG=./internal/hub for one package
	go test -run '^$$' -bench . -benchmem $(or $(PKG),./...)

cross: ## compile for other systems
	@scripts/check cross

check: ## run all checks of CI
	@scripts/check

ci: ## run CI itself, including the installation
	@.ci/run

clean: ## remove built files
	rm -rf bin dist bench/bin bench/out coverage.out
