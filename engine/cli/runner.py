"""What the command lines share: exit codes, one line an error, JSON on stdout and everything else on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from typing import Any

import typer

from engine.errors import InputError


def run(app: typer.Typer, name: str, arguments: list[str] | None = None) -> int:
    """Run a command line. Returns its exit status: 0 done, 2 the caller's mistake (one line on stderr), 1 all else."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    log = logging.getLogger("mixdesk")
    log.setLevel(logging.INFO)
    # Bars and reports of models that load in a second are noise; read when the libraries are imported.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries', for whoever calls them; -W brings them back
    try:
        status = app(arguments, prog_name=name, standalone_mode=False)
        return status if isinstance(status, int) else 0
    except InputError as error:
        return mistake(str(error))
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        # typer's usage errors: their class lives in click, or in typer, by its version.
        if hasattr(error, "format_message"):
            return mistake(f"{error.format_message()} (see {name} --help)")
        log.exception("unexpected")
        return 1


def mistake(message: str) -> int:
    """Print a caller's mistake as one line on stderr; return exit code 2."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return 2


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    print(json.dumps(value, ensure_ascii=False), flush=True)
