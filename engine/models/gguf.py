"""GGUF files as models.

A GGUF file is converted once into a folder in transformers' format, which is cached under a digest of the file. The
conversion of 0.5B parameters takes most of a minute of one core, most of it for the vocabulary; the folder loads in
seconds, and can be used like any model's folder: as the base, as a policy, as the base of a reward model. Quantised
blocks unpack to numbers that only float32 can represent exactly, so there is a folder for each requested dtype, with
the unpacked weights cast to it.

    python -m engine.models.gguf FILE DTYPE FOLDER

converts one file. The engine runs it in a separate process, because it needs several times the file's size in memory,
prints progress bars, and would block the interpreter.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from engine.errors import InputError, one_line
from engine.model_cache import digest

if TYPE_CHECKING:
    import torch

log = logging.getLogger("mixdesk")

AUTO = "auto"  # as stored, or bfloat16 if it is quantised
STORED = {0: "float32", 1: "float16", 32: "bfloat16"}  # general.file_type of files that are not quantised
STALE = 6 * 3600.0  # seconds after which a conversion that is not finished never will be
_lock = threading.Lock()


def is_gguf(source: str) -> bool:
    """Return whether a path or hub id names a GGUF file."""
    return source.lower().endswith(".gguf")


def hub_file(source: str) -> tuple[str, str]:
    """Split 'org/repository/path/file.gguf' into the repository and the file in it."""
    parts = source.split("/")
    return "/".join(parts[:2]), "/".join(parts[2:])


def local_file(source: str) -> Path:
    """Return the path of a GGUF file, downloaded if `source` is on the hub. Raises InputError."""
    if Path(source).is_file():
        return Path(source)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    repository, name = hub_file(source)
    try:
        return Path(hf_hub_download(repository, name))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = one_line(error)
        raise InputError(f"'{source}': neither a file nor available on the hub ({reason})") from None


def cache_folder() -> Path:
    """Return the folder of converted files in the user's cache."""
    return platformdirs.user_cache_path("mixdesk") / "gguf"


def folder_of(source: str, dtype: torch.dtype | str | None = None) -> str:
    """Return the argument for `from_pretrained`: the converted folder of a GGUF file, any other source unchanged.

    Args:
        source: A path or a hub id.
        dtype: The dtype that the weights will be loaded in, or "auto". None if only the tokenizer is read.

    Raises:
        InputError: The file is missing, damaged or of an unsupported kind, or the disk is full.
    """
    if not is_gguf(source):
        return source
    file = local_file(source)
    wanted = AUTO if dtype is None else str(dtype).removeprefix("torch.")
    with _lock:
        folder = _converted(file, wanted)
        if dtype is None:
            kept = (_converted(file, kind) for kind in (AUTO, "bfloat16", "float16", "float32"))
            folder = next((one for one in kept if one.is_dir()), folder)
        if not folder.is_dir():
            check_magic(file)
            log.info("converting '%s' to %s: once, it takes about a minute", source, wanted)
            _convert_apart(file, wanted, folder)
    return str(folder)


def needs_conversion(source: str, dtype: torch.dtype | str) -> bool:
    """Return whether `folder_of` would have to download or convert a GGUF file."""
    from huggingface_hub import try_to_load_from_cache

    if not is_gguf(source):
        return False
    local = source if Path(source).is_file() else try_to_load_from_cache(*hub_file(source))
    if not isinstance(local, str):
        return True
    return not _converted(Path(local), str(dtype).removeprefix("torch.")).is_dir()


def _converted(file: Path, dtype: str) -> Path:
    """Return the folder of a file's conversion."""
    return cache_folder() / f"{file.stem}-{digest(file)[:16]}-{dtype}"


def check_magic(file: Path) -> None:
    """Raise InputError unless a file begins with the magic number of GGUF."""
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise InputError(f"'{file}' is not a GGUF file; give one, or a folder as transformers saves it")


def _convert_apart(file: Path, dtype: str, folder: Path) -> None:
    """Convert a file in a separate process, into a folder that appears when it is complete."""
    partial = folder.with_name(f".{folder.name}-{os.getpid()}")
    environment = {**os.environ, "TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for stale in folder.parent.glob(".*"):  # of processes that were killed
            if time.time() - stale.stat().st_mtime > STALE:
                shutil.rmtree(stale, ignore_errors=True)
        command = [sys.executable, "-m", "engine.models.gguf", str(file), dtype, str(partial)]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            reason = lines[-1] if lines else f"the conversion ended with {done.returncode}, perhaps out of memory"
            raise InputError(
                f"cannot read the GGUF file '{file}': {reason}; where it is damaged or incomplete, get it again"
            )
        try:
            os.rename(partial, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    except OSError as error:
        raise InputError(
            f"cannot keep the converted '{file.name}' in {folder.parent}: {error.strerror or error}; make room, or set "
            "XDG_CACHE_HOME to a folder with some"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def convert(file: Path, dtype: str, folder: Path) -> None:
    """Convert a GGUF file into a folder with an unquantised model, its tokenizer and chat template.

    Args:
        file: The GGUF file.
        dtype: A name in torch such as "float32", or "auto".
        folder: The folder to write.
    """
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # transformers reads the file again for the configuration, the weights and twice for the tokenizer.
    gguf.GGUFReader = functools.cache(gguf.GGUFReader)
    if dtype == AUTO:
        kind = gguf.GGUFReader(str(file)).get_field("general.file_type")
        dtype = STORED.get(kind.contents() if kind else -1, "bfloat16")
    settings = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(**settings, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(**settings, **_dequantized(), dtype=getattr(torch, dtype))
    # What is left of the quantisation would make transformers refuse to save, copy or train the model.
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    for name in ("hf_quantizer", "quantization_method"):
        if hasattr(model, name):
            delattr(model, name)
    model.is_quantized = False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _dequantized() -> dict[str, object]:
    """Return the settings that unpack the weights, which older versions of transformers always do."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def convert_command() -> None:
    """Convert the file that the command line names; on an error print one line and exit with status 1."""
    file, dtype, folder = sys.argv[1:]
    try:
        convert(Path(file), dtype, Path(folder))
    except Exception as error:
        reason = one_line(error)
        print(reason, file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    convert_command()
