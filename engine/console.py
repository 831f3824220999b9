"""What the command lines share: exit codes, one line an error, JSON on stdout and everything else on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any, NoReturn

import typer

from engine.errors import InputError


def run(app: typer.Typer, name: str) -> NoReturn:
    """Run a command line: exit 0 done, 2 the caller's mistake (one line on stderr), 1 anything else (a traceback)."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    logging.getLogger("mixdesk").setLevel(logging.INFO)
    # Loading bars of models that take a second are noise.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        code = app(prog_name=name, standalone_mode=False)
    except InputError as error:
        mistake(str(error))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        # Usage errors, whichever click typer brings.
        if not hasattr(error, "format_message"):
            raise
        mistake(f"{error.format_message()} (see {name} --help)")
    sys.exit(code if isinstance(code, int) else 0)


def mistake(message: str) -> NoReturn:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    print(json.dumps(value, ensure_ascii=False))
