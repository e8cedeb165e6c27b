# make demo: everything from nothing to a teacher's logits on the screen.   make test: every gate and test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_TEACHER := demo-teacher
DEMO_LOGITS := demo-logits

.PHONY: install demo test style check clean help

help:
	@echo "make install   the environment in $(VENV)"
	@echo "make demo      train a tiny teacher, extract its logits into ./$(DEMO_LOGITS), show a conversation"
	@echo "make test      style, types and all tests"
	@echo "make style     mend what the formatter can"
	@echo "make clean     remove what demo and tests leave"

install: $(VENV)/installed

# torch first and by pip alone, so that the machine's own build of it is taken; then the rest within tested versions.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is needed; found $$($(PYTHON) --version). Name one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,browser]'
	@touch $@

demo: install
	$(BIN)/python demo/train_teacher.py $(DEMO_TEACHER)
	$(BIN)/python extract_logits.py --model ./$(DEMO_TEACHER) --dataset demo/conversations.jsonl \
		--output ./$(DEMO_LOGITS) --cache-dir .demo-cache --resume
	$(BIN)/python explore_logits.py ./$(DEMO_LOGITS)
	$(BIN)/python explore_logits.py ./$(DEMO_LOGITS) show --index 40

test: install check
	$(BIN)/python -m pytest -q

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

style: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(DEMO_TEACHER) $(DEMO_LOGITS) .demo-cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
