"""Read hand-written YAML: every error is one line with the file, the line and a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from engine.errors import InputError, one_line

MAX_BYTES = 1_000_000  # a larger file is something else
MERGE = "tag:yaml.org,2002:merge"


def read_yaml(file: Path) -> Any:
    """Return the only document of a YAML file.

    Raises:
        InputError: If the file cannot be read, is not YAML in UTF-8, or gives a key twice.
    """
    text = _read_text(file)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_nodes(loader, node, file)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise InputError(f"{file}: {_describe(error)}") from None
    except RecursionError:
        raise InputError(
            f"{file}: malformed YAML: nested too deeply; give a mapping with name, base, policies"
        ) from None


def _read_text(file: Path) -> str:
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{file}: {size:,} bytes large; give a YAML configuration of up to {MAX_BYTES:,}")
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}; give a YAML configuration") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = error.object[: error.start].count(b"\n") + 1, error.object[error.start]
        raise InputError(
            f"{file}: line {line}: not a text file in UTF-8 (found the byte {byte:#04x}); save it as UTF-8"
        ) from None


def _check_nodes(loader: yaml.SafeLoader, root: yaml.Node, file: Path) -> None:
    """Raise InputError for duplicate keys, of which PyYAML silently takes the last, and values it cannot convert."""
    stack, seen = [root], {id(root)}
    while stack:
        node = stack.pop()
        children: list[yaml.Node] = []
        if isinstance(node, yaml.ScalarNode):
            try:
                loader.construct_object(node)
            except ValueError as error:  # the 31st of February; an integer of 5,000 digits
                raise InputError(f"{file}: {_place(node.start_mark)}: {one_line(error)}; put it in quotes") from None
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                    continue
                line = key.start_mark.line + 1
                if key.value in lines:
                    raise InputError(
                        f"{file}: {_place(key.start_mark)}: the key '{key.value}' is given twice, first in line "
                        f"{lines[key.value]}; leave one out"
                    )
                lines[key.value] = line
            children = [child for pair in node.value for child in pair if child.tag != MERGE]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        for child in children:
            if id(child) not in seen:  # an alias is the node itself, and may be inside of itself
                seen.add(id(child))
                stack.append(child)


def _place(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _describe(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem, context = getattr(error, "problem", None), getattr(error, "context", None)
    if mark is None or problem is None:
        return f"malformed YAML: {one_line(error)}; save it as plain text in UTF-8"
    mend = "mend that line; a text with a colon or a # in it belongs in quotes"
    if "\\t" in problem:
        mend = "indent with spaces instead of tabs"
    elif "another document" in problem:
        mend = "give one configuration a file, without a second ---"
    elif "constructor for the tag" in problem:
        mend = "leave the tag out"
    elif "alias" in problem:
        mend = "define it with & before that line, or put the text in quotes"
    heading = f"malformed YAML {context}" if context else "malformed YAML"
    return f"{_place(mark)}: {heading}: {problem.rstrip(' .')}; {mend}"
