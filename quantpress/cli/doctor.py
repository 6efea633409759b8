"""Examines this machine: what quantpress needs, what is missing, and how to get the missing things.

Changes and downloads nothing. Each finding is about one thing, and says whether the catalog's formats need that thing.
The finding about the Hub token never shows the token.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quantizers import formats, quantizer
from quantizers.traits import traits_of
from quantpress import __version__
from quantpress.catalog.schema import Catalog
from quantpress.errors import QuantpressError
from quantpress.evaluation.text import PYDOC
from quantpress.evaluation.wikitext import DATASET, archive_in
from quantpress.settings import Settings

#: Seconds to wait for a Hub's answer.
_TIMEOUT = 15


@dataclass(frozen=True)
class Finding:
    """One thing that :func:`examine` looked for.

    ``detail`` says what was found or what is wrong. ``remedy`` says how to get the thing.
    """

    area: Literal["machine", "toolchain", "library", "hub", "setup"]
    name: str
    there: bool
    needed: bool
    detail: str
    remedy: str = ""

    @property
    def lacking(self) -> bool:
        """Whether the thing is missing although the catalog needs it."""
        return self.needed and not self.there


@dataclass(frozen=True)
class Wanted:
    """The formats that the catalog asks for.

    ``backends`` maps each format to the libraries that make the format. None is the format's default library.
    """

    backends: dict[str, list[str | None]]

    @classmethod
    def of(cls, catalog: Catalog | None) -> Wanted:
        found: dict[str, list[str | None]] = {}
        for line in catalog.models if catalog else []:
            for name in [] if catalog is None or line.skip else catalog.formats_of(line):
                chosen = found.setdefault(name, [])
                backend = catalog.backend_of(line, name) if catalog else None
                if backend not in chosen:
                    chosen.append(backend)
        return cls(found)

    @property
    def toolchains(self) -> set[str | None]:
        """The names of the toolchains that the formats need. None stands for a format that needs no toolchain."""
        pairs = [(name, backend) for name, chosen in self.backends.items() for backend in chosen]
        return {traits_of(quantizer(*pair)).toolchain for pair in pairs}


def examine(catalog: Catalog | None, settings: Settings) -> list[Finding]:
    """Returns all findings, grouped by area. Never raises an error for a missing thing."""
    wanted = Wanted.of(catalog)
    return [
        *_machine(settings),
        *_toolchains(wanted),
        *_libraries(wanted),
        *_hubs(settings, needed=bool(wanted.backends)),
        *_setup(catalog, settings),
    ]


def _machine(settings: Settings) -> Iterator[Finding]:
    from quantpress.machine import sandbox
    from quantpress.machine.memory import available_memory
    from quantpress.plan.devices import largest_gpu
    from quantpress.toolchain.machine import processor

    yield Finding("machine", "python", True, True, f"{platform.python_version()} ({sys.executable})")
    yield Finding("machine", "processor", True, True, f"{processor().model}, {settings.thread_count()} threads")
    try:
        yield Finding("machine", "memory", True, True, f"{available_memory() / 1e9:.1f} GB available")
    except (QuantpressError, OSError) as error:
        yield Finding("machine", "memory", False, False, f"not known: {error}")
    why = sandbox.obstacle()
    said = "children write in their own folders alone, and have no network" if why is None else f"none: {why}"
    yield Finding("machine", "sandbox", why is None, False, said)
    home = next(folder for folder in [settings.home.absolute(), *settings.home.absolute().parents] if folder.exists())
    free = shutil.disk_usage(home).free
    yield Finding("machine", "disk", True, True, f"{free / 1e9:.1f} GB free for {settings.home.absolute()}")
    gpu = largest_gpu()
    asked = settings.device == "cuda"
    if gpu is not None:
        yield Finding("machine", "gpu", True, asked, f"{gpu / 1e9:.1f} GB on the largest")
    else:
        remedy = "install NVIDIA's driver, or set QUANTPRESS_DEVICE=cpu" if asked else ""
        yield Finding("machine", "gpu", False, asked, "no NVIDIA GPU that nvidia-smi sees", remedy)


def _toolchains(wanted: Wanted) -> Iterator[Finding]:
    from quantpress.toolchain.build import require_programs
    from quantpress.toolchain.registry import TOOLCHAINS

    for each in TOOLCHAINS:
        needed = each.name in wanted.toolchains
        name = f"{each.name} (for {each.purpose})"
        try:
            there = each.find()
        except QuantpressError as error:
            yield Finding("toolchain", name, False, needed, str(error))
            continue
        if there is None:
            remedy = f"quantpress toolchain install {each.name}"
            yield Finding("toolchain", name, False, needed, "not installed", remedy)
        else:
            built = f", built from {there.built_from}" if there.built_from else ""
            yield Finding("toolchain", name, True, needed, f"{there.version} in {there.folder}{built}")
    try:
        yield Finding("toolchain", "compilers", True, False, f"a C++ compiler, {' and '.join(require_programs())}")
    except QuantpressError as error:
        yield Finding("toolchain", "compilers", False, False, str(error))


def _libraries(wanted: Wanted) -> Iterator[Finding]:
    for name in formats():
        for backend in wanted.backends.get(name, [None]):
            needed = name in wanted.backends
            label = f"{name} by {backend}" if backend else name
            try:
                tools = quantizer(name, backend).tools()
            except QuantpressError as error:
                yield Finding("library", label, False, needed, str(error))
                continue
            said = [version if version.startswith(tool) else f"{tool} {version}" for tool, version in tools.items()]
            yield Finding("library", label, True, needed, ", ".join(said))


def _hubs(settings: Settings, needed: bool) -> Iterator[Finding]:
    for role, endpoint in (("source", settings.source_endpoint), ("target", settings.target_endpoint)):
        problem = _unreachable(endpoint)
        remedy = f"check the network, or set QUANTPRESS_{role.upper()}_ENDPOINT" if problem else ""
        yield Finding(
            "hub", f"{role} Hub", not problem, needed, f"{endpoint}{f': {problem}' if problem else ''}", remedy
        )
    from huggingface_hub import HfApi, get_token

    from quantpress.hub.token import held_token

    token = held_token() or get_token()
    if token is None:
        yield Finding(
            "hub", "token", False, needed, "none", "hf auth login, or set HF_TOKEN; it needs the right to write"
        )
        return
    try:
        user = str(HfApi(endpoint=settings.target_endpoint, token=token).whoami()["name"])
    except Exception as error:  # the client can raise any error; each means that the token cannot be used
        answer = (str(error).splitlines() or [type(error).__name__])[0]
        yield Finding("hub", "token", False, needed, f"{settings.target_endpoint} does not take it: {answer}")
        return
    yield Finding("hub", "token", True, needed, f"of {user}")


def _unreachable(endpoint: str) -> str:
    """Says in a few words why a Hub cannot be used. Returns an empty text if the Hub answers with status 200."""
    from quantpress.hub.patience import http_library

    library = http_library()
    try:
        answer = library.get(f"{endpoint}/api/models", params={"limit": "1"}, timeout=_TIMEOUT, follow_redirects=True)
    except (library.HTTPError, OSError) as error:
        return f"no answer ({str(error) or type(error).__name__})"
    return "" if answer.status_code == 200 else f"answers {answer.status_code}"


def _setup(catalog: Catalog | None, settings: Settings) -> Iterator[Finding]:
    yield Finding("setup", "quantpress", True, True, __version__)
    if catalog is None:
        yield Finding("setup", "catalog", False, False, "no catalog.yaml here", "write one, or name it with --catalog")
    else:
        yield Finding("setup", "catalog", True, True, f"models: {len(catalog.models)}")
        remedy = "" if settings.namespace else "set QUANTPRESS_NAMESPACE, or 'namespace' in the catalog's settings"
        yield Finding("setup", "namespace", bool(settings.namespace), True, settings.namespace or "none", remedy)
    yield _evaluation_text(settings)
    server = "a server (PREFECT_API_URL)" if os.environ.get("PREFECT_API_URL") else "embedded, for `quantpress run`"
    yield Finding("setup", "prefect", True, True, server)


def _evaluation_text(settings: Settings) -> Finding:
    name, text = "evaluation text", settings.evaluation_text
    if text == Path(PYDOC):
        return Finding("setup", name, True, True, "the offline text; its figures are not WikiText's")
    if text is not None:
        there = text.is_file()
        return Finding("setup", name, there, True, str(text), "" if there else "correct QUANTPRESS_EVALUATION_TEXT")
    if (archive := archive_in(settings.home / "texts")) is not None:
        return Finding("setup", name, True, True, f"WikiText-2, {archive}")
    detail = f"WikiText-2, if {settings.source_endpoint} has the dataset {DATASET}; else the offline text"
    return Finding("setup", name, True, True, detail)
