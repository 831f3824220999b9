"""Run a command line: exit statuses, errors as one line on stderr, JSON on stdout."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import warnings
from typing import Any

import typer

from engine.errors import InputError

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # the user's to mend, whatever was being written


def run(app: typer.Typer, name: str, arguments: list[str] | None = None) -> int:
    """Run a command line, and return its exit status.

    Args:
        app: The commands.
        name: The name of the program, for help and error messages.
        arguments: The arguments; those of the process if None.

    Returns:
        0 if successful or the command's own status, 2 for invalid input or a full disk (one line on stderr), 130 after
        Ctrl+C, 1 for any other error.
    """
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    log = logging.getLogger("mixdesk")
    log.setLevel(logging.INFO)
    # Bars and reports of models that load in a second are noise; read when the libraries are imported.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # those of libraries; -W brings them back
    try:
        status = app(arguments, prog_name=name, standalone_mode=False)
        return status if isinstance(status, int) else 0
    except InputError as error:
        return mistake(str(error))
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            log.exception("unexpected")
            return 1
        return mistake(
            f"{error.filename or 'the output'}: cannot write: {error.strerror}; make room, or write elsewhere"
        )
    except Exception as error:
        if isinstance(error, RuntimeError) and "home directory" in str(error):  # of pathlib, for ~somebody/file
            return mistake("a path begins with ~ and the name of a user who has no home here; give the whole path")
        # typer's usage errors: their class lives in click, or in typer, by its version.
        if hasattr(error, "format_message"):
            return mistake(f"{error.format_message()} (see {name} --help)")
        log.exception("unexpected")
        return 1


def mistake(message: str) -> int:
    """Print an error as one line on stderr, and return exit status 2."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return 2


def print_json(value: Any) -> None:
    """Print a value as one line of JSON on stdout."""
    print(json.dumps(value, ensure_ascii=False), flush=True)
