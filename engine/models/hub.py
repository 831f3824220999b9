"""Check that the models of a configuration are available on the Hugging Face hub, before any is loaded."""

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
    """Send one request to the hub for every model that is neither a local path nor cached.

    Loading would fail too, but retries each file, which takes most of a minute without a network.

    Raises:
        InputError: a model does not exist, or the hub cannot be reached.
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
