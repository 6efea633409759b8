"""Hands ``quantpress`` or a child of the press to a warm server (:mod:`tests.support.warm.server`), if there is one.

Python imports this module at its start, because the tests put its folder on PYTHONPATH. A process of another program,
or one whose environment is not the server's, goes on as if this module did not exist.
"""

import os
import sys

_MODULES = (
    "quantizers.job",
    "quantizers.wave",
    "quantizers.gguf.ollama.files",
    "quantpress.evaluation.job",
    "quantpress.evaluation.tensors",
    "quantpress.evaluation.generate",
    "quantpress.source.weights",
)


def _is_warm(command: list[str]) -> bool:
    """Returns whether the process is a child whose libraries take longer to import than its work takes."""
    if command[1:2] == ["-m"]:
        return command[2] in _MODULES
    return command[1:2] != [] and command[1].endswith("/convert_hf_to_gguf.py")


def _handed_over(address: str) -> None:
    """Lets the server run this process's program, then ends as the program ended. Returns if there is no answer."""
    import json
    import signal
    import socket
    from pathlib import Path

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        try:
            server.connect(address)
            job = {"command": sys.orig_argv, "folder": str(Path.cwd()), "environment": dict(os.environ)}
            socket.send_fds(server, [json.dumps(job).encode()], [0, 1, 2])
            answer = server.recv(64)
        except OSError:
            return
    if not answer:
        return
    code = int(answer)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if (_address := os.environ.get("QUANTPRESS_WARM_CHILDREN")) and _is_warm(sys.orig_argv):
    _handed_over(_address)
if (_address := os.environ.get("WARM_PRESSES")) and sys.orig_argv[1:3] == ["-m", "quantpress"]:
    _handed_over(_address)
