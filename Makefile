# What a developer does with this tree; `make` alone lists it. GNU make 4.3 or newer.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo/fashion_cnn.int8

.DEFAULT_GOAL := help
.PHONY: help venv check test bench bench-setup demo samples docs clean
.DELETE_ON_ERROR:

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) ## Make .venv and install modelkit into it, at the versions of constraints.txt

# The stamp is written last: an install that was interrupted is done again.
# torchdistill's losses need torch only; its dependencies would bring torchvision.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("modelkit needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e ".[dev,rules,samples]"
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps torchdistill==1.1.5
	@touch $@

check: $(STAMP) ## Lint, formatting, types, and the rule that imports go one way
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Two processes: latencies are compared interleaved, so that a busy neighbour changes ratios little.
test: $(STAMP) ## Run the tests (some minutes)
	$(BIN)/python -m pytest -n 2

bench-setup: ## Install the tools that benchmarks compare with into .venv-peers
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --disable-pip-version-check --quiet onnxruntime==1.32.0 onnx==1.23.2 onnx_ir sympy nncf

bench: $(STAMP) sample_models/made/resnet18.onnx sample_models/made/article_cnn.onnx ## Measure what docs/benchmarks.md reports (an hour)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/quantize.py
	$(BIN)/python benchmarks/static.py
	$(BIN)/python benchmarks/quantize_bars.py
	$(BIN)/python benchmarks/prune.py
	$(BIN)/python benchmarks/batch.py
	$(BIN)/python benchmarks/packing.py
	$(BIN)/python benchmarks/html.py
	$(BIN)/python benchmarks/rules_agreement.py

# Too large for git; needs Debian's dataset-fashion-mnist.
sample_models/made/%.onnx: | $(STAMP)
	$(BIN)/python sample_models/make.py $*

demo: $(STAMP) ## Quantize a sample model and show what came of it
	$(BIN)/modelkit quantize sample_models/fashion_cnn.onnx --bits 8 \
	  --data sample_models/fashion_cnn.calib.npz --test sample_models/fashion_cnn.eval.npz \
	  --output $(DEMO).onnx --force
	@echo "artifact: $(DEMO).onnx"
	@echo "report:   $(DEMO).report.md and $(DEMO).report.json"

samples: $(STAMP) ## Train the sample models anew (half an hour; needs Debian's dataset-fashion-mnist)
	$(BIN)/python sample_models/make.py

docs: $(STAMP) ## Write docs/cli.md and all outputs shown in the docs anew
	$(BIN)/python docs/generate.py

clean: ## Remove caches, builds and the demo's files (not .venv)
	rm -rf build dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
