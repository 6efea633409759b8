"""``python -m quantpress.localhub``: serves a Hub, or runs a command of its owner directly on the Hub's folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from quantpress.errors import QuantpressError
from quantpress.localhub import admin, auth, server
from quantpress.localhub.repos import REPO_TYPES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quantpress.localhub", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    serve = commands.add_parser("serve", help="serve until interrupted")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=7860)
    serve.add_argument("--name", action="append", default=[], help="a host name by which clients call the Hub")
    serve.add_argument("--stop-with-parent", action="store_true", help="end when standard input closes")

    token = commands.add_parser("token", help="make a token and print it; it cannot be shown again")
    token.add_argument("--user", required=True)
    token.add_argument("--role", choices=("read", "write"), default="write")

    gate = commands.add_parser("gate", help="gate a repo's files")
    gate.add_argument("--mode", choices=("auto", "manual"), default="manual")
    ungate = commands.add_parser("ungate", help="open a repo's files")
    grant = commands.add_parser("grant", help="let a user read a gated repo")
    for command in (gate, ungate, grant):
        command.add_argument("repo")
        command.add_argument("--repo-type", choices=REPO_TYPES, default="model")
    grant.add_argument("user")

    commands.add_parser("collect-garbage", help="delete objects that no commit needs")
    for command in commands.choices.values():
        command.add_argument("--root", type=Path, required=True, help="the Hub's folder")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs one command. Returns the exit status."""
    options = _parser().parse_args(arguments)
    root: Path = options.root
    try:
        match options.command:
            case "serve":
                if options.stop_with_parent:
                    server.stop_with_parent()
                server.serve(root, options.host, options.port, options.name)
            case "token":
                print(auth.create_token(root, options.user, options.role))
            case "gate":
                admin.set_gated(root, options.repo, options.mode, options.repo_type)
            case "ungate":
                admin.set_gated(root, options.repo, None, options.repo_type)
            case "grant":
                admin.grant_access(root, options.repo, options.user, options.repo_type)
            case "collect-garbage":
                print(f"{admin.collect_garbage(root)} bytes set free")
    except QuantpressError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
