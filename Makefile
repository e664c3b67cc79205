# `make help` lists the commands. All work in .venv/, which they make themselves.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := operator,runtime,onnx,grpc,cache,security,kafka,jobs,parquet,tracing,cli,dashboard,devcluster,demo
STAMP := $(VENV)/.installed
PACKAGES := api/canarium_api operator/canarium_operator runtime/canarium_runtime cli/canarium_cli \
  dashboard/canarium_dashboard devcluster/canarium_devcluster demo/canarium_demo
QUICK := tests/unit tests/property tests/docs tests/devcluster tests/integration tests/contract
CLUSTER ?= canarium-test
SEEDS ?= 300
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The flags of the cluster's own build, so that Go's build cache serves both.
GO := CGO_ENABLED=0 GOFLAGS=-trimpath go
say = @printf '\033[1m==> %s\033[0m\n'

.PHONY: help
help: ## list the commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  \033[36m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- set-up

$(STAMP): pyproject.toml constraints.txt tests/torch_cpu.py
	$(say) '.venv: installing Python packages (once, and again when pyproject.toml or constraints.txt change; a minute or two)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade 'pip>=25.1'
	@$(PIP) --constraint constraints.txt --editable '.[$(EXTRAS)]' --group lint --group test --group torch-cpu
	@$(BIN)/python tests/torch_cpu.py
	@touch $@

.PHONY: setup system
setup: $(STAMP) ## make .venv/ with everything in it
system: $(STAMP) # Debian packages that the embedded cluster, the tests and the benchmarks need
	@$(BIN)/python -m canarium_devcluster system-packages

# --- quick checks, in seconds

.PHONY: fmt lint types arch unit sim sim-report generate verify
fmt: $(STAMP) ## format the code and mend what mends itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
lint: $(STAMP) ## ruff; gofmt and go vet for devcluster/
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@test -z "$$(gofmt -l devcluster/cmd devcluster/internal)" || { gofmt -l devcluster/cmd devcluster/internal; exit 1; }
	cd devcluster && $(GO) vet ./internal/...
types: $(STAMP) ## mypy, strict
	$(BIN)/mypy $(PACKAGES)
arch: $(STAMP) ## import-linter: who may import whom
	$(BIN)/lint-imports
unit: $(STAMP) ## unit, property and integration tests; no cluster
	$(BIN)/pytest -q -m 'not cluster' $(QUICK)
	cd devcluster && $(GO) test ./internal/...
sim: $(STAMP) ## whole rollouts in virtual time; SEEDS=10000 for more
	SEEDS=$(SEEDS) $(BIN)/pytest -q tests/simulation
sim-report: $(STAMP) ## how often the gates are right: docs/reference/gates.md; ARGS="--runs 50 --looks 100" for a quick look
	$(BIN)/python -m benchmarks.gates.report $(ARGS)
generate: $(STAMP) ## write the CRD and the reference pages anew
	$(BIN)/python -m canarium_api.crdgen
	$(BIN)/python docs/generate.py
	$(BIN)/python manifests/argocd/generate.py
	$(BIN)/python -m canarium_runtime.rpc.protogen
verify: $(STAMP) ## fail when generated files are stale
	$(BIN)/python -m canarium_api.crdgen --check
	$(BIN)/python docs/generate.py --check
	$(BIN)/python manifests/argocd/generate.py --check
	$(BIN)/python -m canarium_runtime.rpc.protogen --check

# --- the real things

.PHONY: isolate cluster cluster-down flux argocd e2e kills git-kills lifecycle test ci demo dashboard-images bench bench-soak bench-scale
isolate: $(STAMP) ## install operator and runtime alone: neither may bring the other's libraries
	$(BIN)/python tests/isolation.py
cluster: system ## bring the test cluster up and load both images; CLUSTER=name
	$(say) 'test cluster $(CLUSTER): up (the first build takes long and says so)'
	@$(BIN)/python -m canarium_devcluster up --name $(CLUSTER) --fresh --also envoy
	@$(BIN)/python -m canarium_devcluster load-dev --name $(CLUSTER)
cluster-down: $(STAMP) ## take the test cluster down
	@$(BIN)/python -m canarium_devcluster down --name $(CLUSTER)
flux: system
	$(say) "Flux's kustomize-controller (the first build takes minutes)"
	@$(BIN)/python -m canarium_devcluster.gitops.flux
argocd: system
	$(say) "Argo CD (the first build takes long)"
	@$(BIN)/python -m canarium_devcluster.gitops.argocd
e2e: $(or $(filter argocd,$(LANE)),flux) cluster ## contract and end-to-end tests on the test cluster; LANE=flux or LANE=argocd for those alone; ARGS='-k promoted'
	$(say) 'contract and end-to-end tests on $(CLUSTER)$(if $(LANE),: $(LANE) alone,; not those with Argo CD: make e2e LANE=argocd)'
	@CANARIUM_TEST_CLUSTER=$(CLUSTER) \
	CANARIUM_TEST_KUBECONFIG=$$($(BIN)/python -m canarium_devcluster kubeconfig --name $(CLUSTER)) \
	$(BIN)/pytest -v -m 'cluster and $(or $(LANE),not argocd)' tests/contract tests/e2e --junitxml=build/e2e/results.xml $(ARGS); \
	status=$$?; $(BIN)/python -m canarium_devcluster down --name $(CLUSTER); exit $$status
kills: ## end the operator 200 times at random moments of real rollouts; log and figures in build/kills
	@KILLS=$${KILLS:-200} $(MAKE) e2e ARGS='-k survive_kills'
git-kills: $(STAMP) ## end the operator 200 times around the write into git: one commit for each outcome
	@GIT_KILLS=$${KILLS:-200} $(BIN)/pytest -q -s tests/integration/git/test_kills.py
lifecycle: system ## tests of the embedded cluster itself: two at once, kill -9, nothing left behind
	$(BIN)/pytest -v -m cluster tests/devcluster
test: system unit sim e2e lifecycle ## everything: quick tests, simulation, real cluster
ci: lint types arch verify isolate test ## what .ci/run runs
demo: system ## watch a good version promoted and a bad one taken back
	@$(BIN)/python -m canarium_demo $(ARGS)
dashboard-images: system ## write the pictures of docs/howto/dashboard.md anew (needs the font: apt-get install fonts-inter)
	CANARIUM_WRITE_IMAGES=1 $(BIN)/pytest -q tests/integration/dashboard/test_images.py -k made
bench-scale: system ## one operator, 1000 ModelDeployments, pods by kwok; ARGS="--objects 100 --rollouts 20"
	$(BIN)/python -m benchmarks.scale.run $(ARGS)
bench: $(STAMP) ## compare the runtime with its peers; ARGS=--quick for three of them; see benchmarks/runtime/README.md
	@$(BIN)/python -m benchmarks.runtime $(ARGS)
bench-soak: $(STAMP) ## the runtime under load with faults for ten minutes; ARGS='--minutes 1'
	@$(BIN)/python -m benchmarks.runtime.soak $(ARGS)
