"""Configurations that are meant to do harm, with what their one line of error says."""

from __future__ import annotations

from tests.engine.broken_texts import BOMB, GOOD, REWARD, changed

POLICIES = "policies:\n  - {name: plain, objective: plain, adapter: plain}\n"
# Each mapping is merged into the next: as many copies of the first as there are lines.
MERGES = (
    "m0: &m0 {" + ", ".join(f"k{i}: 0" for i in range(500)) + "}\n"
    + "".join(f"m{i + 1}: &m{i + 1} {{<<: *m{i}}}\n" for i in range(500))
)  # fmt: skip


def named(name: str) -> str:
    """The good configuration under another name, which is in YAML's double quotes."""
    return changed("name: tiny", f'name: "{name}"')


def of_policy(key: str, value: str) -> str:
    """The good configuration with one of the policy's values changed; it is in YAML's double quotes."""
    return changed(f"{key}: plain", f'{key}: "{value}"')


def with_settings(value: str) -> str:
    """The good configuration with arguments of the chat template."""
    return f"{GOOD}chat_template_kwargs: {value}\n"


PART, LINE = "name: found {!r}, expected a name that can be part of a file name", "expected a name in one line"

# {what is wrong: (the file, what the line says)}
HOSTILE: dict[str, tuple[str | bytes, str]] = {
    # names that become parts of paths
    "name that leaves the folder": (named("../x"), PART.format("../x")),
    "name that is absolute": (named("/etc/x"), PART.format("/etc/x")),
    "name in a folder": (named("a/b"), PART.format("a/b")),
    "name with a backslash": (named("a\\\\b"), PART.format("a\\b")),
    "name of the folder above": (named(".."), PART.format("..")),
    "name of the folder": (named("."), PART.format(".")),
    "empty name": (named(""), "name: found '', expected a name that is not empty"),
    "blank name": (named("   "), "name: found ' ', expected a name that is not empty"),
    "name of two lines": (named("a\\nb"), f"name: found 'a\\nb', {LINE}"),
    "name with a tab": (named("a\\tb"), f"name: found 'a\\tb', {LINE}"),
    "name that clears the terminal": (named("\\e[2J"), f"name: found '\\x1b[2J', {LINE}"),
    "name with a zero byte": (named("a\\0b"), f"name: found 'a\\x00b', {LINE}"),
    "name that is deleted": (named("a\\x7f"), LINE),
    "name with a line separator": (named("a\\u2028b"), LINE),
    "name that is read backwards": (named("a\\u202egnp.exe"), LINE),
    "long name": (named("x" * 101), "expected a name of up to 100 characters"),
    "name of many bytes": (named("你" * 70), "and 200 bytes"),
    "half a character in a name": (named("\\ud800"), "line 1, column 7: half a character"),
    "half a character in a key": ('"\\udfff": 1\n' + GOOD, "line 1, column 1: half a character"),
    "policy that leaves the folder": (of_policy("name", "../x"), "policies[0].name: found '../x', expected"),
    "policy in a folder": (of_policy("name", "a/b"), "policies[0].name: found 'a/b', expected"),
    "policy with a line break": (of_policy("name", "a\\n"), "policies[0].name: found 'a\\n', expected"),
    "policy without a name": (of_policy("name", ""), "policies[0].name: found '', expected"),
    "policy of a long name": (of_policy("name", "x" * 101), "policies[0].name: found 'xxx"),
    "policy that a bank has": (of_policy("name", "even"), "policies[0].name: found 'even', expected another name"),
    "blank objective": (of_policy("objective", " "), "policies[0].objective: found ' ', expected"),
    "objective of two lines": (of_policy("objective", "a\\nb"), f"policies[0].objective: found 'a\\nb', {LINE}"),
    "long objective": (of_policy("objective", "x" * 101), "policies[0].objective: found 'xxx"),
    "reward without an objective": (GOOD + 'rewards: [{objective: "", kind: implicit}]\n', "rewards[0].objective"),
    "reward of two lines": (GOOD + 'rewards: [{objective: "a\\rb", kind: implicit}]\n', LINE),
    # numbers
    "beta that is no number": (GOOD + REWARD + "beta: .nan}]\n", "rewards[0].beta: found 'nan', expected"),
    "no beta": (GOOD + REWARD + "beta: 0}]\n", "rewards[0].beta: found '0', expected greater than 0"),
    "yes for beta": (GOOD + REWARD + "beta: yes}]\n", "rewards[0].beta: found 'True', expected a valid number"),
    "beta of 400 digits": (GOOD + REWARD + f"beta: 1{'0' * 400}}}]\n", "rewards[0].beta: found"),
    "beta that overflows": (GOOD + REWARD + "beta: 1.0e+400}]\n", "rewards[0].beta: found 'inf', expected a finite"),
    "std that is no number": (GOOD + REWARD + "mean: 0, std: .nan}]\n", "rewards[0].std: found 'nan', expected"),
    "infinite std": (GOOD + REWARD + "mean: 0, std: .inf}]\n", "rewards[0].std: found 'inf', expected a finite"),
    "negative std": (GOOD + REWARD + "mean: 0, std: -1}]\n", "rewards[0].std: found '-1', expected greater than 0"),
    "no for a mean": (
        GOOD + REWARD + "mean: no, std: 1}]\n",
        "rewards[0].mean: found 'False', expected a valid number",
    ),
    "std without a mean": (GOOD + REWARD + "std: 1}]\n", "'mean' is missing"),
    "hexadecimal number of 5,000 digits": (named("x").replace('"x"', "0x" + "f" * 5000), "thousands of digits"),
    "time of 3,000 parts": (named("x").replace('"x"', "1" + ":59" * 3000), "thousands of digits"),
    "time of 300 parts with a fraction": (named("x").replace('"x"', "1" + ":59" * 300 + ".5"), "put it in quotes"),
    # tags that do not fit
    "truth that is none": (
        changed("tiny", "!!bool perhaps"),
        "line 1, column 7: KeyError: 'perhaps'; put it in quotes",
    ),
    "integer of nothing": (changed("tiny", '!!int ""'), "line 1, column 7"),
    "date that is none": (changed("tiny", "!!timestamp soon"), "line 1, column 7"),
    "number that is none": (changed("tiny", "!!float x"), "line 1, column 7"),
    "integer that is a mapping": (changed("tiny", "!!int {=: x}"), "leave the tag out"),
    "bytes that are none": (changed("tiny", "!!binary é"), "line 1"),
    "object of Python": (changed("tiny", "!!python/name:os.system"), "leave the tag out"),
    # keys that are given twice, deeper
    "reward's key given twice": (GOOD + REWARD + "beta: 1, beta: 2}]\n", "the key 'beta' is given twice"),
    "reference's key given twice": (
        GOOD + "reference: {adapter: plain, adapter: other}\n",
        "the key 'adapter' is given twice",
    ),
    "key given twice, once in quotes": (GOOD + '"base": other\n', "the key 'base' is given twice, first in line 2"),
    "list of policies given twice": (GOOD + POLICIES, "the key 'policies' is given twice, first in line 3"),
    # bombs
    "bomb of merges": (MERGES + GOOD, "malformed YAML: << copies 250,"),
    "merge of a text": (GOOD + "<<: tiny\n", "expected a mapping or list of mappings for merging"),
    "bomb as a setting": (BOMB + with_settings("{a: *i}"), "unknown key"),
    "bomb in a setting": (
        with_settings(f"{{{BOMB.replace(chr(10), ', ')}}}"),
        "chat_template_kwargs: found",
    ),
    "setting inside itself": (with_settings("&a {b: [*a]}"), "expected up to 1,000 values"),
    "infinite setting": (with_settings("{a: .inf}"), "expected finite numbers"),
    "setting that is no number": (with_settings("{a: [.nan]}"), "expected finite numbers"),
    "date as a setting": (with_settings("{a: 2026-01-31}"), "lists and mappings of them, without date"),
    "number as a setting's key": (with_settings("{a: {1: 2}}"), "expected texts as keys; put them in quotes"),
    "setting of the template itself": (with_settings("{tokenize: false}"), "without tokenize, which Mixdesk gives"),
    # paths
    "prompts that are a device": (GOOD + "prompts: /dev/zero\n", "prompts: found '/dev/zero', expected a file"),
    "zero byte in prompts": (GOOD + 'prompts: "a\\0b"\n', "prompts: found 'a\\x00b', expected a file"),
    "base above the root": (changed("base: base", "base: ../../../../../../../../gone/x/y"), "base: found '../../"),
    "adapter above a hub id": (changed("adapter: plain", "adapter: org/../x"), "policies[0].adapter: found 'org/../x'"),
    "adapter with a line break": (of_policy("adapter", "org/x\\n"), "policies[0].adapter: found"),
    "model that is a number": (changed("adapter: plain", "model: 7"), "policies[0].model: found '7', expected"),
}
