"""The YAML configuration as typed, validated settings."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializeAsAny,
    field_validator,
    model_validator,
)

from engine.config_errors import read_model
from engine.errors import InputError, one_line
from engine.model_cache import fetched
from engine.names import LONGEST, FileName, Label
from engine.reward_kind import REWARD_KINDS, RewardSettings

DEMO = Path(__file__).parent.parent / "data" / "configs" / "demo.yaml"
REFERENCE = "reference"
# Names that no policy has, since others have them where policies are named.
RESERVED = {
    REFERENCE: "the policy that the others were tuned from",
    "even": "the mixture of all policies alike, where responses are sampled once (engine/bank)",
}
MAX_SETTINGS = 1000  # values of chat_template_kwargs, all lists and mappings in it written out
# Arguments of `apply_chat_template` that no configuration sets.
OURS = {
    *("add_generation_prompt", "chat_template", "continue_final_message", "conversation", "max_length", "messages"),
    *("padding", "return_assistant_tokens_mask", "return_dict", "return_tensors", "sanitize_control_tokens"),
    *("strftime_now", "tokenize", "tokenizer_kwargs", "truncation"),
}


class Settings(BaseModel):
    """A mapping in a YAML file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


def check_adapter(adapter: Any) -> Any:
    """Return a policy's adapter or list of adapters, once checked.

    Raises:
        ValueError: an entry is not a non-empty text, the list is empty, or an adapter is in it twice.
    """
    several = adapter if isinstance(adapter, list) else [adapter]
    if not several or not all(isinstance(name, str) and name for name in several) or len(set(several)) < len(several):
        raise ValueError("an adapter's path or hub id, or a list of them, each once")
    return adapter


def check_plain(value: Any) -> None:
    """Check that a value from YAML can be written as JSON: texts, finite numbers, and few of them.

    Raises:
        ValueError: it cannot. An alias counts as often as it is used: aliases of aliases would fill the memory.
    """
    stack, count = [value], 0
    while stack:
        one = stack.pop()
        count += 1
        if count > MAX_SETTINGS:
            raise ValueError(f"up to {MAX_SETTINGS:,} values")
        if isinstance(one, dict):
            if not all(isinstance(key, str) for key in one):
                raise ValueError("texts as keys; put them in quotes")
            stack += one.values()
        elif isinstance(one, list):
            stack += one
        elif isinstance(one, float) and not math.isfinite(one):
            raise ValueError("finite numbers")
        elif not isinstance(one, str | int | float | bool | None):
            raise ValueError(
                f"texts, numbers, true and false, lists and mappings of them, without {type(one).__name__}"
            )


# One adapter, or several stacked ones, which add up on the base.
Adapter = Annotated[str | list[str], BeforeValidator(check_adapter)]


class Adapted(Settings):
    """Settings of a policy that may have adapters.

    Attributes:
        adapter: one adapter, or several stacked ones.
        chat_template: "own" is the template saved with the adapter or model, if there is one; "base" is the base's.
    """

    adapter: Adapter | None = None
    chat_template: Literal["own", "base"] = "own"

    @property
    def adapters(self) -> list[str]:
        """All adapters, in the order in which they are stacked."""
        return [self.adapter] if isinstance(self.adapter, str) else list(self.adapter or [])


class ReferenceSettings(Adapted):
    """The policy that the others were tuned from, if that is not the base itself: adapters on the base."""

    adapter: Adapter


class PolicySettings(Adapted):
    """A component policy: adapters on the base, a full model, or the reference under another prompt."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=LONGEST)
    objective: Label
    model: str | None = None
    system_prompt: str | None = None
    prefix: str | None = None

    @field_validator("name")
    @classmethod
    def not_reserved(cls, name: str) -> str:
        """Reject names that mean something else."""
        if name in RESERVED:
            raise ValueError(f"another name: '{name}' is {RESERVED[name]}")
        return name

    @model_validator(mode="after")
    def one_source(self) -> PolicySettings:
        """Reject a policy with both an adapter and a model, or with nothing that differs from the reference."""
        if self.adapter and self.model:
            raise ValueError("either 'adapter' or 'model', not both")
        if not (self.adapter or self.model or self.system_prompt or self.prefix):
            raise ValueError("one of 'adapter', 'model', 'system_prompt', 'prefix'")
        return self


class Config(Settings):
    """A configuration file. Paths are absolute; other models and adapters are Hugging Face ids."""

    name: FileName
    about: str = ""  # what the policies are and know, in a sentence, where better ones can be fetched
    base: str
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    reference: ReferenceSettings | None = None
    chat_template_kwargs: dict[str, Any] = {}  # further arguments of the chat template, such as enable_thinking: false
    policies: list[PolicySettings] = Field(min_length=1)
    rewards: list[SerializeAsAny[RewardSettings]] = []  # each with the keys of its kind
    prompts: str | None = None
    _file: Path = PrivateAttr(default=Path())
    _fingerprint: list[Any] | None = PrivateAttr(default=None)

    @field_validator("chat_template_kwargs")
    @classmethod
    def not_ours(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Reject arguments of the chat template that Mixdesk sets itself."""
        if taken := sorted(OURS & set(settings)):
            raise ValueError(f"arguments of the template itself, without {taken[0]}, which Mixdesk gives")
        check_plain(settings)
        return settings

    @model_validator(mode="after")
    def names_once(self) -> Config:
        """Reject duplicate policies and rewards, and policies' own rewards without a policy."""
        for what, names in (
            ("policies, each with its own name", [policy.name for policy in self.policies]),
            ("rewards, one an objective", [reward.objective for reward in self.rewards]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what}; found twice: {', '.join(twice)}")
        objectives = {policy.objective for policy in self.policies}
        for reward in self.rewards:
            if REWARD_KINDS[reward.kind].of_policy and reward.objective not in objectives:
                raise ValueError(f"a policy with objective '{reward.objective}' for its {reward.kind} reward")
        return self

    @property
    def file(self) -> Path:
        """The path of the configuration file; `Path()` if the configuration was not loaded from one."""
        return self._file

    @property
    def fingerprint(self) -> list[Any] | None:
        """The fingerprint of policies whose files are on another machine; None if they are on this one."""
        return self._fingerprint

    def place(self, file: Path, fingerprint: list[Any] | None = None) -> None:
        """Set the path of the configuration file, and the fingerprint of policies that are on another machine."""
        self._file, self._fingerprint = file, fingerprint


def locate(value: str, file: Path, key: str, expected: str) -> Path:
    """Return `value` as an absolute path, relative to the folder of `file`; it need not exist.

    Args:
        value: the value in the configuration.
        file: the configuration file.
        key: the key of the value, for the error message.
        expected: the kind of value, for the error message.

    Raises:
        InputError: the value is empty, or not a path.
    """
    if not value.strip():
        raise InputError(f"{file}: {key}: found an empty text, expected {expected}")
    try:
        path = (file.parent / Path(value).expanduser()).resolve()
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a zero byte, a link to itself, no such user's home
        raise InputError(f"{file}: {key}: found {value[:80]!r}, expected {expected} ({one_line(error, 80)})") from None
    return path


def resolve(value: str, file: Path, key: str) -> str:
    """Return the absolute path of a model or adapter, or the value itself if it is the id of one on the hub.

    A path is relative to the folder of `file`. A model that was fetched into the cache is returned as a path.

    Args:
        value: a path, a hub id, or a GGUF file on the hub as organisation/repository/file.gguf.
        file: the configuration file.
        key: the key of the value, for the error message.

    Raises:
        InputError: the value is none of these.
    """
    path = locate(value, file, key, "a path or a hub id")
    if path.is_file() and path.suffix.lower() != ".gguf":
        raise InputError(f"{file}: {key}: found '{value}', a file; expected the folder that it is in, or a GGUF file")
    if path.exists():
        return str(path)
    if kept := fetched(value):
        return str(kept)
    part = r"[A-Za-z0-9][\w.-]*"
    if value.endswith(".gguf"):  # org/repository/file.gguf
        if re.fullmatch(rf"{part}/{part}(/{part})+", value):
            return value
    # A folder inside a repository, org/repository/checkpoint-500, can be an adapter's.
    elif re.fullmatch(rf"{part}(/{part}){{,{9 if 'adapter' in key else 1}}}", value) and not value.endswith(
        (".jsonl", ".json", ".txt")
    ):
        return value
    raise InputError(f"{file}: {key}: found '{value[:200]}', expected a path that exists ({path} does not) or a hub id")


def resolve_all(values: str | list[str], file: Path, key: str) -> str | list[str]:
    """Resolve one value or each of a list. Raises InputError, also if two of them are the same adapter."""
    if isinstance(values, str):
        return resolve(values, file, key)
    found = [resolve(value, file, f"{key}[{i}]") for i, value in enumerate(values)]
    if len(set(found)) < len(found):
        raise InputError(f"{file}: {key}: found one adapter twice, expected each once")
    return found


def load_config(file: str | Path = DEMO) -> Config:
    """Read and check a configuration file. Raises InputError naming the file, the key, the value found and expected."""
    try:
        file = Path(file).expanduser().resolve()
        is_folder, exists = file.is_dir(), file.exists()
    except OSError as error:
        raise InputError(f"--config: {file}: {error.strerror}; give the path of a YAML configuration") from None
    except (RuntimeError, ValueError) as error:
        raise InputError(f"--config: {one_line(error)}; give the path of a YAML configuration") from None
    if is_folder:
        raise InputError(f"{file}: a folder; give --config the path of a YAML configuration in it")
    if not exists:
        raise InputError(f"{file}: no such file; give --config the path of a YAML configuration")
    config = read_model(file, Config, "name, base, policies")
    config.place(file)
    config.base = resolve(config.base, file, "base")
    if config.reference:
        config.reference.adapter = resolve_all(config.reference.adapter, file, "reference.adapter")
    for i, policy in enumerate(config.policies):
        if policy.adapter:
            policy.adapter = resolve_all(policy.adapter, file, f"policies[{i}].adapter")
        if policy.model:
            policy.model = resolve(policy.model, file, f"policies[{i}].model")
    for i, reward in enumerate(config.rewards):
        for key in reward.sources:
            setattr(reward, key, resolve(getattr(reward, key), file, f"rewards[{i}].{key}"))
    if config.prompts is not None:
        prompts = locate(config.prompts, file, "prompts", "a file")
        if not prompts.is_file():
            why = "is a folder" if prompts.is_dir() else "does not exist"
            raise InputError(f"{file}: prompts: found '{config.prompts}', expected a file ({prompts} {why})")
        config.prompts = str(prompts)
    return config
