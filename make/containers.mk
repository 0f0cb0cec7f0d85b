# Image, Compose and manifests.

IMAGE ?= pycrudapi
VERSION ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
REVISION ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
DIGEST ?=
# The time of the commit, used for all timestamps in the image.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)

TEST_TARGETS += test-manifests

.PHONY: image
image: ## build the container image (IMAGE, VERSION)
	docker build --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) \
		$(if $(SOURCE_DATE_EPOCH),--build-arg SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH)) --tag $(IMAGE):$(VERSION) .

# A separate name, so that the image in use is not replaced.
.PHONY: test-image
test-image: ## build the image that test-containers runs
	@$(MAKE) --silent image IMAGE=pycrudapi-test VERSION=test

.PHONY: reproducible
reproducible: cargo ## build the release binary twice from scratch and compare the two
	@scripts/reproducible

.PHONY: publish
publish: ## build the image and push it to the registry its name begins with (IMAGE, VERSION)
	@case '$(IMAGE)' in */*) ;; *) echo 'IMAGE=$(IMAGE) has no registry; example: make publish IMAGE=registry.example.com/team/pycrudapi' >&2; exit 2;; esac
	@$(MAKE) --no-print-directory image
	docker push $(IMAGE):$(VERSION)

# ENV_FILE holds the settings of Compose. COMPOSE_FILES lists the files: `COMPOSE_FILES="docker-compose.yml docker-compose.scale.yml"`
# runs three servers.
ENV_FILE ?= .env
COMPOSE_FILES ?= docker-compose.yml
COMPOSE = $(if $(shell command -v docker-compose),docker-compose,docker compose) \
	$(if $(wildcard $(ENV_FILE)),--env-file $(ENV_FILE)) $(addprefix --file ,$(COMPOSE_FILES))

.PHONY: compose-build
compose-build: ## build the image of Compose (ENV_FILE, COMPOSE_FILES)
	@$(COMPOSE) build

# --remove-orphans stops containers of a previously started variant that this one does not define.
.PHONY: compose-up
compose-up: ## build and start everything with Compose on http://localhost, and remove containers of another variant
	@$(COMPOSE) up --detach --build --remove-orphans

.PHONY: compose-stop
compose-stop: ## stop the containers of Compose and keep them
	@$(COMPOSE) stop

.PHONY: compose-start
compose-start: ## start stopped containers of Compose
	@$(COMPOSE) start

.PHONY: compose-down
compose-down: ## remove the containers of Compose and keep the data
	@$(COMPOSE) down --remove-orphans

.PHONY: compose-logs
compose-logs: ## follow the logs of Compose
	@$(COMPOSE) logs --follow --tail=100

# Deploys the Compose file to a Swarm. Each node pulls the image, so build and push it first.
STACK ?= pycrudapi
REPLICAS ?= 2

.PHONY: stack-deploy
stack-deploy: ## deploy the Compose file to this engine's Swarm (STACK, REPLICAS, IMAGE, VERSION, ENV_FILE)
	@scripts/install-packages python3-yaml
	@$(COMPOSE) config | scripts/stack '$(STACK)' --replicas '$(REPLICAS)'

.PHONY: manifest
manifest: ## set the image of every overlay (IMAGE, VERSION, DIGEST) and render install/pycrudapi.yaml
	@kustomize/manifest '$(IMAGE)' '$(VERSION)' '$(DIGEST)'

.PHONY: engine
engine: ## start a Docker engine if none answers, and install Debian's if necessary
	@tests/containers/engine

.PHONY: test-manifests
test-manifests: .venv/manifests/installed ## validate every overlay, the install manifest and the workflows
	@.venv/manifests/bin/python -m pytest tests/manifests

.PHONY: test-containers
test-containers: .venv/manifests/installed ## test image, Compose and pods, with faults, on a real Docker engine
	@if tests/containers/engine; then .venv/manifests/bin/python -m pytest tests/containers; \
	elif [ "$$CI" = true ]; then exit 1; else echo 'test-containers: nothing was tested'; fi

# A separate environment, because checkov pins older versions of packages than the other tests require.
.venv/manifests/installed: tests/manifests/requirements.txt
	@scripts/install-packages python3-venv
	@/usr/bin/python3 -m venv --clear $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
