# The whole interface: run test check bench soak kernels clean. PYTHON=… chooses the interpreter the first time.
BIN := .venv/bin
SOURCES := src tests bench examples
SOAKED := tests/unit/machine/test_replicas_random.py tests/machine tests/conformance/test_nodes.py tests/e2e/test_introspect.py tests/unit/introspect/test_windows.py \
	tests/e2e/test_engine_power.py tests/e2e/test_engine_cluster.py tests/e2e/test_engine_cluster_platform.py tests/e2e/test_engine_foreign.py \
	tests/e2e/test_tasks.py tests/e2e/test_tasks_faults.py tests/e2e/test_tasks_fastlane.py tests/e2e/test_api_events.py tests/e2e/test_api_description.py

.PHONY: run test check bench soak kernels clean

run: .venv/installed-run
	@tools/run-example

# Tests that ask what is right run side by side; tests of whole platforms, which also ask how soon, by themselves.
test: .venv/installed-dev check
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal tests/unit tests/machine tests/conformance $(PYTEST_ARGS)
	$(BIN)/python -m pytest tests/e2e $(PYTEST_ARGS)

check: .venv/installed-dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-cache

bench: .venv/installed-dev
	$(BIN)/python -m bench $(BENCH_ARGS)

soak: .venv/installed-dev
	$(BIN)/python -m bench.soak $(SOAK_ARGS)
	ENISLE_SOAK=1 $(BIN)/python -m pytest $(SOAKED)
	$(BIN)/python -m bench.kernels $(MATRIX_ARGS)
	$(BIN)/python -m bench.quiet
	$(BIN)/python -m bench.soak_islands
	$(BIN)/python -m bench.tasks --only hosts --minutes 10 --check

# Kernels for test guests, from the mirrors this machine uses; without KERNELS all of tools/kernels.toml.
kernels: .venv/installed-run
	@tools/kernels fetch $(or $(KERNELS),--all)

clean:
	rm -rf .venv build dist .pytest_cache .hypothesis .ruff_cache .import_linter_cache bench/results
	find src tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed-run: pyproject.toml tools/venv
	@tools/venv .

.venv/installed-dev: pyproject.toml tools/venv tools/system-packages
	@tools/system-packages
	@tools/venv '.[dev]'
	@touch $@
