"""What the client contracts share.

A contract is what the unmodified huggingface_hub client must be able to do with the embedded Hub. contracts.py runs it
with an interpreter whose huggingface_hub can be another version than the project's own. So this module and the
contracts import nothing but huggingface_hub and the standard library.

Arguments: the endpoint, a write token of user ``press``, a read token of user ``reader``, an empty folder. Environment:
HF_HUB_DISABLE_XET, as for all writers to the embedded Hub.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

ENDPOINT, WRITE_TOKEN, READ_TOKEN = sys.argv[1:4]
WORK = Path(sys.argv[4])

press = HfApi(endpoint=ENDPOINT, token=WRITE_TOKEN)
reader = HfApi(endpoint=ENDPOINT, token=READ_TOKEN)
nobody = HfApi(endpoint=ENDPOINT, token=False)
wrong = HfApi(endpoint=ENDPOINT, token="hf_" + "x" * 40)

CARD = b"""---
license: apache-2.0
base_model: maker/Tiny
base_model_relation: quantized
library_name: gguf
pipeline_tag: text-generation
tags:
- press
language:
- en
---
# Tiny
"""
WEIGHTS = random.Random(1).randbytes(21_000_001)  # three parts of 8 MiB, the last one short
SMALL_WEIGHTS = random.Random(2).randbytes(5_000)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def refusal(action: Callable[[], object]) -> HfHubHTTPError:
    """Returns the error with which the Hub refuses an action."""
    try:
        action()
    except HfHubHTTPError as error:
        return error
    raise AssertionError("the Hub did not refuse")


def refused_with(action: Callable[[], object]) -> int:
    """Returns the HTTP status with which the Hub refuses an action."""
    return refusal(action).response.status_code


def fresh_cache(name: str) -> Path:
    path = WORK / name
    assert not path.exists()
    return path


def hf_download(*arguments: str | Path, home: str) -> None:
    """Runs ``hf download`` without a token and with a new HF_HOME."""
    environment = {key: value for key, value in os.environ.items() if "TOKEN" not in key}
    environment |= {"HF_ENDPOINT": ENDPOINT, "HF_HOME": str(fresh_cache(home))}
    hf = Path(sysconfig.get_path("scripts")) / "hf"
    subprocess.run([hf, "download", *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)


def run_checks(names: Mapping[str, object]) -> None:
    """Runs the functions called ``check_…`` in their order. Prints the name of each that passed, one per line."""
    for name, check in list(names.items()):
        if name.startswith("check_") and callable(check):
            check()
            print(name.removeprefix("check_"), flush=True)
