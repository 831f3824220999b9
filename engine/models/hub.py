"""Whether what a configuration names on the Hugging Face hub is to be had, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import RepositoryNotFoundError

from engine.config import Config
from engine.config_errors import source_lines
from engine.errors import InputError, one_line
from engine.models.gguf import hub_file, is_gguf

TIMEOUT = 10.0  # seconds for the hub's answer


def check_hub(config: Config) -> None:
    """Ask the hub once for every model that is neither a folder nor in the cache. Raises InputError.

    Loading would find out too, but asks for each file again and again: most of a minute without a network.
    """
    for key, source in source_lines(config):
        if Path(source).exists():
            continue
        repository, files = source, ["config.json", "adapter_config.json", "head.json"]
        if is_gguf(source):
            repository, *files = hub_file(source)
        elif source.count("/") > 1:  # an adapter in a folder of its repository
            repository, folder = "/".join(source.split("/")[:2]), "/".join(source.split("/")[2:])
            files = [f"{folder}/adapter_config.json"]
        try:
            if any(isinstance(try_to_load_from_cache(repository, file), str) for file in files):
                continue
            HfApi().model_info(repository, timeout=TIMEOUT)
        except RepositoryNotFoundError:
            raise InputError(
                f"{config.file}: {key}: the Hugging Face hub has no model '{source}' for you; "
                "mend its name, or set HF_TOKEN to a token that may read it"
            ) from None
        except Exception as error:  # whatever the HTTP library of the day raises
            raise InputError(
                f"{config.file}: {key}: '{source}' is neither a folder nor downloaded, and the Hugging Face hub cannot "
                f"be asked for it: {one_line(error)}; see to the network, or download it first"
            ) from None
