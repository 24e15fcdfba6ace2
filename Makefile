# Developing the template. `make help` lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test live nightly report lint format docs bench raise release clean
PYTHON ?= python3
export UV_COMPILE_BYTECODE := 1

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# uv comes from the package index: nothing but Python is needed.
.venv/.synced: pyproject.toml
	@test -x .venv/bin/uv || { \
	  echo "Installing uv into .venv/ ..."; \
	  $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || { echo "Python 3.11 or newer is needed, but below 3.15: make PYTHON=/path/to/python3.11 ..."; exit 1; }; \
	  $(PYTHON) -m venv --clear .venv || { echo "Python cannot make a virtual environment: install the package python3-venv"; exit 1; }; \
	  .venv/bin/python -m pip install --quiet --disable-pip-version-check uv || { echo "uv was not installed: is there a way to the package index?"; exit 1; }; }
	@echo "Installing what the tests need ..."
	@.venv/bin/uv sync --quiet --no-progress
	@touch $@

demo: .venv/.synced ## From nothing to a completed run and a delivered alert, in ./demo
	@.venv/bin/python demo.py

test: .venv/.synced ## Tests of the template: renders, refusals, static checks
	@.venv/bin/pytest -q -n 2 -m "not live" --junitxml=build/reports/test.xml

live: .venv/.synced ## Tests on real servers: an hour; ONLY="live and not slow" leaves the slow ones out
	@.venv/bin/pytest -v -m "$(or $(ONLY),live)" --junitxml=build/reports/live.xml

# UV_EXCLUDE_NEWER stands above the dates in pyproject.toml, here and in the projects that are generated.
nightly: export UV_EXCLUDE_NEWER = $(shell date --utc +%FT%TZ)
nightly: .venv/.synced ## Thousands of random answers, the newest dependencies: an hour; SEED=... repeats one
	@.venv/bin/uv sync --quiet --no-progress --upgrade --group nightly
	@seed=$${SEED:-$$(date +%s)}; echo "SEED=$$seed"; MATRIX_SIZE=3000 MATRIX_SEED=$$seed FUZZ_EXAMPLES=1000 \
	  .venv/bin/pytest -q -n 2 -m "not live" --hypothesis-seed=$$seed --junitxml=build/reports/test.xml
	@$(MAKE) --no-print-directory live

report: .venv/.synced ## What the last `make test` and `make live` have covered, in build/reports/report.md
	@.venv/bin/python scripts/report.py

lint: .venv/.synced ## Format, lint and types of the template and of its static files
	@.venv/bin/ruff format --check . && .venv/bin/ruff check . && .venv/bin/yamllint --strict .

format: .venv/.synced ## Format the template and its static files
	@.venv/bin/ruff format --quiet . && .venv/bin/ruff check --quiet --fix .

docs: .venv/.synced ## The site with its configurator, in build/site; a broken link is an error
	@.venv/bin/python scripts/docs.py

bench: .venv/.synced ## Benchmarks: ratios measured on this machine
	@for each in copier_copy project_check first_run ops_apply task_runners server_load first_preview; do \
	  .venv/bin/python benchmarks/$$each.py || exit 1; done

raise: ## Raise the day as of which packages are resolved: make raise DATE=2027-01-31
	@[[ "$(DATE)" =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}$$ ]] || { echo "Say which day: make raise DATE=2027-01-31"; exit 1; }
	@sed -i.old -E 's/^(tested_on: ")[^"]*/\1$(DATE)/' data/versions.yml
	@sed -i.old -E 's/^(exclude-newer = ")[^T]*/\1$(DATE)/' pyproject.toml
	@rm data/versions.yml.old pyproject.toml.old

release: .venv/.synced ## Check, bump, date the changelog, commit and tag: make release VERSION=0.2.0
	@.venv/bin/python scripts/release.py --check "$(VERSION)"
	@$(MAKE) --no-print-directory lint test
	@.venv/bin/python scripts/release.py "$(VERSION)"

clean: ## Remove what these commands made
	rm -rf demo .demo.new build configurator/node_modules .venv .pytest_cache .ruff_cache
