"""Every command of the design exists, answers at once, and says in one line what is wrong with its input."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from quantpress.cli.app import main
from quantpress.localhub.server import RunningHub, running_hub

COMMANDS = [
    "check", "plan", "run", "verify", "retract", "rebuild",
    "quantize", "evaluate", "report", "hub", "deploy", "toolchain", "doctor",
]  # fmt: skip
#: Modules whose import takes longer than a command's answer may take.
HEAVY = {"torch", "transformers", "prefect", "huggingface_hub", "gptqmodel", "matplotlib", "jinja2", "numpy", "yaml"}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("cli") / "hub") as hub:
        yield hub


@dataclass(frozen=True)
class Caller:
    """Calls the command line in this process, from an empty folder."""

    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Returns exit code, standard output and standard error."""
        self.patch.setattr(sys, "argv", ["quantpress", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        captured = self.capture.readouterr()
        return int(left.value.code or 0), captured.out, captured.err


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Caller:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("QUANTPRESS_HOME", str(tmp_path / "home"))
    return Caller(monkeypatch, capsys)


def test_help_names_every_command(call: Caller) -> None:
    code, out, _ = call("--help")
    assert code == 0
    listed = {line.strip("│ ").split(" ")[0] for line in out.splitlines() if line.startswith("│")}
    assert set(COMMANDS) <= listed


def test_nothing_heavy_is_imported_to_answer(tmp_path: Path) -> None:
    program = "import sys, quantpress.cli.app; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "--catalog", "absent.yaml"], "absent.yaml: cannot be read (No such file or directory); give the"),
        (["retract", "nonsense", "Q8_0", "--reason", "x"], "'nonsense' is not a repo id: write namespace/name"),
        (["verify", "a/--b"], "'a/--b' is not a repo id: write namespace/name, as in the model's address on the Hub"),
        (["evaluate", "a--b/c"], "'a--b/c' is not a repo id: write namespace/name"),
        (["report", "--model", "x y"], "'press/x y' is not a repo id: write namespace/name"),
        (["report", "--model", "x y/z"], "'x y/z' is not a repo id: write namespace/name"),
        (["report", "--model", "up/M", "--format", "md,pdf"], "unknown report format 'pdf': use md, html, json, csv"),
        (
            ["report", "--model", "up/M", "--out", "/proc/x"],
            "/proc/x: cannot be written to (No such file or directory)",
        ),
        (["schema", "--out", "/proc/nope/x"], "/proc/nope/x: cannot be written (No such file or directory); give"),
        (["hub", "--root", "/proc/x"], "/proc/x: cannot hold a Hub's data ([Errno 2] No such file or directory: '/pr"),
        (["quantize", "up/Model", "--out", "/proc/x"], "/proc/x: cannot be written to (No such file or directory)"),
        (["quantize", "up/Model", "--out", "full/file/x"], "full/file/x: cannot be written to (Not a directory)"),
        (["rebuild", "nonsense", "Q8_0"], "'nonsense' is not a repo id: write namespace/name"),
        (["rebuild", "press/None", "Q8_0"], "HUB has no repository press/None (or it is private and needs a token)"),
        (
            ["rebuild", "press/Empty", "Q8_0"],
            "press/Empty@main has no quantpress.json: only what quantpress made can be",
        ),
        (["rebuild", "press/Empty", "Q8_0", "--revision", "v9"], "press/Empty has no revision 'v9'"),
        (["rebuild", "press/Empty", "Q8_0", "--out", "full"], "full is not empty: give an empty folder"),
        (["quantize", "up/Model", "--out", "out", "--variants", "Q8_9"], "unknown GGUF variant 'Q8_9': did you mean"),
        (["quantize", "up/Model", "--out", "out", "--format", "ggfu"], "unknown format 'ggfu': did you mean 'gguf'?"),
        (["quantize", "up/Model", "--out", "full"], "full is not an empty folder: give one that is, or that is not"),
        (["quantize", "no such model", "--out", "out"], "no such model: no such folder, and not a repository's name"),
        (["quantize", "full/file", "--out", "out"], "full/file is a file: give the folder of an unquantized model"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    call: Caller, hub: RunningHub, tmp_path: Path, arguments: list[str], said: str
) -> None:
    token = hub.create_token("press", "write")
    HfApi(endpoint=hub.endpoint, token=token).create_repo("press/Empty", exist_ok=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for name, value in {"SOURCE_ENDPOINT": hub.endpoint, "TARGET_ENDPOINT": hub.endpoint}.items():
        call.patch.setenv(f"QUANTPRESS_{name}", value)
    call.patch.setenv("QUANTPRESS_NAMESPACE", "press")
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"quantpress: {said.replace('HUB', hub.endpoint)}")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("namespace", ["bad ns", "a--b", "a/b", "-a"])
def test_a_namespace_that_is_none_is_a_mistake(call: Caller, tmp_path: Path, namespace: str) -> None:
    said = f"{namespace!r} is no user's or organization's name: it has letters, digits, -, _ and ."
    (tmp_path / "catalog.yaml").write_text(f"settings: {{namespace: '{namespace}'}}\nmodels: []\n")
    code, out, err = call("check")
    assert (code, out, err) == (2, "", f"quantpress: setting namespace: Value error, {said}\n")
    call.patch.setenv("QUANTPRESS_NAMESPACE", namespace)
    _, _, err = call("check")
    assert err == f"quantpress: environment variable QUANTPRESS_NAMESPACE: Value error, {said}\n"


def test_a_port_that_is_none_is_bad_input(call: Caller) -> None:
    code, out, err = call("hub", "--port", "99999")
    assert (code, out) == (2, "")
    assert "Invalid value for '--port'" in err


def test_a_report_in_an_unknown_format_asks_no_hub(call: Caller) -> None:
    call.patch.setenv("QUANTPRESS_TARGET_ENDPOINT", "http://127.0.0.1:9")
    code, out, err = call("report", "--model", "up/Model", "--format", "pdf")
    assert (code, out) == (2, "")
    assert err == "quantpress: unknown report format 'pdf': use md, html, json, csv\n"


def test_an_endpoint_with_a_password_is_refused_and_not_repeated(call: Caller) -> None:
    call.patch.setenv("QUANTPRESS_TARGET_ENDPOINT", "https://user:secret@hub.example")
    code, out, err = call("verify", "press/Model-GGUF")
    assert (code, out) == (2, "")
    assert err == (
        "quantpress: environment variable QUANTPRESS_TARGET_ENDPOINT: Value error, must not hold a user or password; "
        "log in with hf auth login, or set HF_TOKEN\n"
    )


def test_a_folder_that_holds_no_model_is_refused(call: Caller, tmp_path: Path) -> None:
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text("{}")
    (tmp_path / "pickled" / "pytorch_model.bin").touch()
    code, _, err = call("quantize", "pickled", "--out", "out")
    assert code == 1
    assert err == (
        "quantpress: pickled: no safetensors: pickle checkpoints are refused; "
        "save it as safetensors, or ask upstream to\n"
    )
    (tmp_path / "pickled" / "config.json").write_text('{"auto_map": {"AutoModel": "x.Y"}}')
    code, _, err = call("quantize", "pickled", "--out", "out")
    assert err == "quantpress: its config.json has an auto_map: code from model repositories is never run\n"
