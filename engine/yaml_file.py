"""Read hand-written YAML: every error is one line with the file, the line and a remedy."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import yaml

from engine.errors import InputError, one_line

MAX_BYTES = 1_000_000  # a larger file is something else
MAX_PAIRS = 20_000  # after << has copied mappings into others: fewer bytes than that can ask for any amount of memory
MAX_BITS = 10_000  # of an integer: Python refuses to write a longer one as text
MERGE = "tag:yaml.org,2002:merge"
# What the conversions of PyYAML raise for a scalar that is not what its tag says: the 31st of February, !!bool perhaps.
NOT_ITS_TYPE = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError)


def read_yaml(file: Path) -> Any:
    """Return the only document of a YAML file.

    Raises:
        InputError: If the file cannot be read, is not YAML in UTF-8, or gives a key twice.
    """
    return _parse(_read_text(file, MAX_BYTES), file, strict=True)


def peek_yaml(file: Path, longest: int = MAX_BYTES) -> Any:
    """Return the only document of a YAML file that may be anything; None if it cannot be read.

    A key that is given twice is no obstacle: the last one counts.

    Args:
        file: a path, which need not exist, nor be a file.
        longest: bytes; a larger file is not read.
    """
    try:
        return _parse(_read_text(file, longest), file, strict=False)
    except InputError:
        return None


def _parse(text: str, file: Path, strict: bool) -> Any:
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_nodes(loader, node, file, strict)
        _check_merges(node, file)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise InputError(f"{file}: {_describe(error)}") from None
    except NOT_ITS_TYPE as error:  # a mapping or list with a scalar's tag
        raise InputError(f"{file}: malformed YAML: {one_line(error)}; leave the tag out") from None
    except RecursionError:
        raise InputError(
            f"{file}: malformed YAML: nested too deeply; give a mapping with name, base, policies"
        ) from None


def _read_text(file: Path, longest: int) -> str:
    try:
        about = file.stat()
        if not stat.S_ISREG(about.st_mode):  # to read a pipe would wait for ever
            raise InputError(f"{file}: not a regular file; give a YAML configuration")
        size = about.st_size
        if size > longest:
            raise InputError(f"{file}: {size:,} bytes large; give a YAML configuration of up to {longest:,}")
        with file.open("rb") as opened:
            data = opened.read(longest)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}; give a YAML configuration") from None
    except ValueError as error:  # a zero byte in the path
        raise InputError(f"{file}: cannot be read: {one_line(error)}; give a YAML configuration") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = error.object[: error.start].count(b"\n") + 1, error.object[error.start]
        raise InputError(
            f"{file}: line {line}: not a text file in UTF-8 (found the byte {byte:#04x}); save it as UTF-8"
        ) from None


def _check_nodes(loader: yaml.SafeLoader, root: yaml.Node, file: Path, strict: bool) -> None:
    """Raise InputError for values that PyYAML cannot convert, and if `strict` for duplicate keys.

    PyYAML silently takes the last of duplicate keys.
    """
    stack, seen = [root], {id(root)}
    while stack:
        node = stack.pop()
        children: list[yaml.Node] = []
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(loader, node, file)
        elif isinstance(node, yaml.MappingNode):
            if strict:
                _check_keys(node, file)
            children = [child for pair in node.value for child in pair if child.tag != MERGE]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        for child in children:
            if id(child) not in seen:  # an alias is the node itself, and may be inside of itself
                seen.add(id(child))
                stack.append(child)


def _check_scalar(loader: yaml.SafeLoader, node: yaml.ScalarNode, file: Path) -> None:
    place = f"{file}: {_place(node.start_mark)}"
    try:
        value = loader.construct_object(node)
    except NOT_ITS_TYPE as error:
        raise InputError(f"{place}: {one_line(error)}; put it in quotes") from None
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise InputError(f"{place}: a number of thousands of digits; put it in quotes")
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise InputError(f"{place}: half a character (a lone surrogate); write the whole character")


def _check_keys(node: yaml.MappingNode, file: Path) -> None:
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


def _check_merges(root: yaml.Node, file: Path) -> None:
    """Raise InputError if << would copy more than MAX_PAIRS pairs of keys and values, over the whole document."""
    sizes: dict[int, int] = {}  # {id of a node: the pairs that it has after merging}
    copied = 0

    def measure(node: yaml.Node) -> None:
        nonlocal copied
        if id(node) in sizes or isinstance(node, yaml.ScalarNode):
            return
        sizes[id(node)] = 0  # merged into itself, it adds nothing
        if isinstance(node, yaml.SequenceNode):
            for child in node.value:
                measure(child)
            return
        for key, value in node.value:
            measure(key)
            measure(value)
            if key.tag == MERGE:
                merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
                size = sum(sizes.get(id(one), 0) for one in merged)
                copied += size
            else:
                size = 1
            sizes[id(node)] += size

    measure(root)
    if copied > MAX_PAIRS:
        raise InputError(f"{file}: malformed YAML: << copies {copied:,} keys; write out the few that are needed")


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
