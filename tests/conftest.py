"""What several test modules share: real tools and a real model, made once per user outside the checkout."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from quantpress.cli.demo_model import demo_model as make_demo_model
from quantpress.cli.demo_model import tiny_model as make_tiny_model
from quantpress.toolchain.llama_cpp import LlamaCpp, install
from quantpress.toolchain.progress import plain_lines
from tests.support.disks import disk_of

if TYPE_CHECKING:
    from tests.support.operating import PrefectServer

# Writers to the embedded Hub need this variable, and huggingface_hub reads it when it is first imported.
os.environ["HF_HUB_DISABLE_XET"] = "1"

# A property test draws the same examples in every `make test`; `make draws` and `make fuzz` draw new ones. There is no
# deadline for an example, because a busy machine would miss it.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.register_profile("new", derandomize=False, deadline=None)
settings.register_profile("fuzz", derandomize=False, deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


#: Words in a test module that starts a Hub, a tool, a process or a model. `make test-fast` leaves such modules out.
_STARTS = re.compile(
    r"\b(torch|transformers|gguf import|safetensors|llama_cpp|tiny_model|demo_model|subprocess|run_child|running_hub"
    r"|running_press|passed_checks|prefect_server|bad_line|dataset_hub|bare_hub"
    r"|Line|LiveHub|Operator|Press|HandPress|ServedRepo)\b"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="only modules that start no Hub, tool, process or model")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``--fast``, modules that would start something are not even imported."""
    if config.getoption("--fast") and collection_path.name.startswith("test_"):
        return bool(_STARTS.search(collection_path.read_text())) or None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts modules with long tests first, because the longest test must not begin last."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True)
def patience_of_its_own() -> Iterator[None]:
    """Takes away the patience that a test gave huggingface_hub's client. All tests of this process share the client.

    Otherwise a later test waits 300 s for each Hub that does not answer.
    """
    yield
    http = sys.modules.get("huggingface_hub.utils._http")
    if http is not None and getattr(http.get_session(), "patience", None) is not None:
        http.set_client_factory(http.default_client_factory)


@pytest.fixture(scope="session")
def warm_children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """From here on, the press's children are forked from a process that has imported their libraries.

    Coverage measures only processes that start by themselves, so this fixture does nothing when coverage runs.
    """
    from tests.support import warm_children

    if _measures_coverage():
        os.environ["QUANTPRESS_KEEP_VARIABLES"] = "COVERAGE_*"
        os.environ["QUANTPRESS_SANDBOX"] = "off"  # coverage writes its data into the checkout
        yield
    else:
        with warm_children.warm_children(tmp_path_factory.mktemp("warm") / "server"):
            yield


def _measures_coverage() -> bool:
    return any(name.startswith("COVERAGE_PROCESS") for name in os.environ)


@pytest.fixture(scope="session")
def llama_cpp(warm_children: None) -> LlamaCpp:
    """The llama.cpp tools; the first run on a machine builds them."""
    return install(plain_lines(print))


@pytest.fixture(scope="session")
def demo_model(warm_children: None) -> Path:
    """The demo's source model, SmolLM2-135M-Instruct: a folder as on the Hub."""
    return make_demo_model(plain_lines(print))


@pytest.fixture(scope="session")
def tiny_model(warm_children: None) -> Path:
    """The demo's source model cut to its first two layers."""
    return make_tiny_model(plain_lines(print))


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A Prefect server for all runs of this worker's tests, and a warm server for the presses that use it."""
    from tests.support.operating import prefect_server
    from tests.support.warm_children import warm_presses

    with prefect_server(tmp_path_factory.mktemp("prefect-server")) as server:
        if _measures_coverage():
            yield server
        else:
            with warm_presses(tmp_path_factory.mktemp("warm-presses") / "server", server.environment):
                yield server


@pytest.fixture(scope="session")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 700 kB of English: the standard library's own documentation."""
    from pydoc_data.topics import topics

    file = tmp_path_factory.mktemp("text") / "english.txt"
    file.write_text("\n\n".join(topics[name] for name in sorted(topics)), encoding="utf-8")
    return file


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MB."""
    with disk_of(tmp_path / "small", 20) as mount:
        yield mount
