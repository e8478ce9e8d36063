"""One set-up for every test: CPU, eight devices, strict types, highest precision."""

import contextlib
import gc
import importlib
import importlib.metadata
import logging
import os
import pathlib

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import children

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {children.XLA_FLAGS}"

import jax
import pytest
import torch
from jax.experimental.compilation_cache import compilation_cache

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

# PyPI's torchvision is built for a torch with CUDA: beside one without it, its import
# fails for operators that nobody declared. They are of detection; nothing calls them.
if torch.version.cuda is None and "+" not in importlib.metadata.version("torchvision"):
    OPERATORS = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        OPERATORS.define(f"{name}(Tensor boxes, Tensor scores, float most) -> Tensor")

MOST_RESIDENT = 5 * 2**29  # Bytes of a test process: 2.5 GiB.
GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def _eight_devices():
    assert jax.device_count() == 8, "the sharding tests need 8 virtual devices"


@pytest.fixture(scope="session", autouse=True)
def _orphans_are_ours():
    children.adopt()


@pytest.fixture(scope="module", autouse=True)
def _no_process_outlives_a_module():
    with children.ended():
        yield


@pytest.fixture(scope="module", autouse=True)
def _programs_of_a_module_are_dropped_if_memory_is_short():
    """Compiled programs stay as long as the process: some GB in all."""
    yield
    status = pathlib.Path("/proc/self/statm")
    pages = int(status.read_text().split()[1]) if status.exists() else 0
    if pages * os.sysconf("SC_PAGE_SIZE") > MOST_RESIDENT:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def _no_process_outlives_a_test():
    with children.ended():
        yield


@pytest.fixture(autouse=True)
def _no_test_logs_at_the_level_of_another():
    """A run sets the level of its log lines for the whole process."""
    levels = {
        logging.getLogger(name): logging.getLogger(name).level
        for name in (None, "absl")
    }
    yield
    for logger, level in levels.items():
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def _no_test_reads_programs_of_another():
    """A run keeps compiled programs in the user's folder, for the whole process."""
    yield
    if jax.config.jax_compilation_cache_dir is not None:
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """The numbers of the paper's release (see tests/golden/README.md)."""
    return GOLDEN


@contextlib.contextmanager
def _no_figures():
    """Figures take most of the time of a small run; `report_test` looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vidsme_jax.report.figures.draw", lambda *args: [])
        yield


@pytest.fixture(scope="module")
def without_figures():
    """Draws no figure in a whole module, its fixtures included."""
    with _no_figures():
        yield


@pytest.fixture
def figureless():
    """Draws no figure in one test, where others of the module look at them."""
    with _no_figures():
        yield


@pytest.fixture
def decoded(monkeypatch) -> list[pathlib.Path | bytes]:
    """The videos that are decoded, in order."""
    from vidsme_jax.data import decoders  # After the hook that checks types is there.

    found, ask = [], decoders.ask

    def watched(request, content, *args, **arguments):
        if request == "frames":
            found.append(content)
        return ask(request, content, *args, **arguments)

    monkeypatch.setattr(decoders, "ask", watched)
    return found


@pytest.fixture
def script(monkeypatch):
    """Imports a benchmark by name; the rate of a product is taken of a small one."""
    from vidsme_jax.run import rates  # After the hook that checks types is there.

    benchmarks = pathlib.Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(str(benchmarks))
    whole = rates.matrix_rate
    monkeypatch.setattr(
        rates, "matrix_rate", lambda dtype, **more: whole(dtype, size=256)
    )
    return importlib.import_module
