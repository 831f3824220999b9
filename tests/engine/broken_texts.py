"""Broken configurations as text, with what their one line of error says."""

from __future__ import annotations

POLICY = "{name: plain, objective: plain, adapter: plain}"
GOOD = f"name: tiny\nbase: base\npolicies:\n  - {POLICY}\n"
REWARD = "rewards: [{objective: plain, kind: implicit, "


def changed(old: str, new: str) -> str:
    """The good configuration with one thing changed."""
    assert old in GOOD
    return GOOD.replace(old, new)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)

# {what is wrong: (the file, what the line says)}
TEXTS: dict[str, tuple[str | bytes, str]] = {
    "unclosed list": ("name: [1,\n", "malformed YAML while parsing a flow"),
    "tab": ("name: tiny\nbase: base\npolicies:\n\t- a\n", "line 4, column 1: malformed YAML"),
    "colon in a text": (changed("tiny", "my desk: the second"), "belongs in quotes"),
    "unclosed quote": (changed("tiny", '"tiny'), "malformed YAML while scanning a quoted scalar"),
    "indentation": ("name: tiny\n  base: base\n", "line 2, column 7: malformed YAML"),
    "at sign": (changed("base: base", "base: @base"), "cannot start any token"),
    "second document": (GOOD + "---\n" + GOOD, "one configuration a file"),
    "unknown alias": (changed("base: base", "base: *base"), "found undefined alias"),
    "code in a tag": (changed("tiny", '!!python/object/apply:os.system ["exit 3"]'), "leave the tag out"),
    "key given twice": (GOOD + "name: other\n", "line 5, column 1: the key 'name' is given twice, first in line 1"),
    "policy's key given twice": (
        changed(POLICY, POLICY[:-1] + ", adapter: other}"),
        "the key 'adapter' is given twice",
    ),
    "list as a key": (GOOD + "? [a, b]\n: c\n", "found unhashable key"),
    "no date": (changed("tiny", "2026-13-45"), "line 1, column 7: month must be in 1..12; put it in quotes"),
    "number of 5,000 digits": (changed("tiny", "9" * 5000), "line 1, column 7"),
    "alias bomb": (BOMB + "policies: *i\nname: x\nbase: base\n", "unknown key"),
    "alias bomb as policies": (
        f"name: x\nbase: base\npolicies:\n- {{{BOMB.replace(chr(10), ', ')}name: *i}}\n",
        "unknown",
    ),
    "list inside itself": (changed(f"\n  - {POLICY}", " &a [*a]"), "policies[0]: found '[[[...]]]', expected"),
    "mapping inside itself": ("&a\nname: x\nbase: *a\npolicies: []\n", "base: found"),
    "mapping merged into itself": ("&a\n<<: *a\nname: x\npolicies: []\n", "base: found nothing, expected this key"),
    "nested too deeply": ("name: " + "[" * 3000 + "]" * 3000 + "\n", "nested too deeply"),
    "zero byte": (GOOD.encode() + b"\0", "special characters are not allowed"),
    "Latin-1": (changed("tiny", "grün").encode("latin-1"), "line 1: not a text file in UTF-8 (found the byte 0xfc)"),
    "UTF-16": (GOOD.encode("utf-16"), "not a text file in UTF-8 (found the byte 0xff)"),
    "weights": (b"GGUF\x03\0\0\0\xff\xfe", "not a text file in UTF-8"),
    "nothing": (b"", "found NoneType, expected a mapping"),
    "comments": ("# name: tiny\n", "found NoneType, expected a mapping"),
    "list": (f"- {POLICY}\n", "found list, expected a mapping"),
    "text": ("tiny\n", "found str, expected a mapping"),
    "large file": ("# " + "x" * 1_000_000 + "\n" + GOOD, "up to 1,000,000"),
    "yes for a name": (changed("tiny", "yes"), "name: found 'True', expected a valid string; put it in quotes"),
    "number for a base": (changed("base: base", "base: 12"), "base: found '12', expected a valid string"),
    "list for a base": (changed("base: base", "base: [a, b]"), "base: found \"['a', 'b']\", expected a valid string"),
    "no value for a base": (changed("base: base", "base:"), "base: found 'None', expected a valid string"),
    "text for policies": (changed(f"\n  - {POLICY}", " plain"), "policies: found 'plain', expected a valid list"),
    "mapping for policies": (changed(f"\n  - {POLICY}", f" {POLICY}"), "expected a valid list"),
    "no policies": (changed(f"\n  - {POLICY}", " []"), "policies: found '[]', expected"),
    "policy of nothing": (changed(POLICY, ""), "policies[0]: found 'None', expected"),
    "policy's name alone": (changed(POLICY, "plain"), "policies[0]: found 'plain', expected"),
    "name with a space": (changed("{name: plain", "{name: plain one"), "policies[0].name: found 'plain one', expected"),
    "reserved name": (
        changed("{name: plain", "{name: reference"),
        "policies[0].name: found 'reference', expected another",
    ),
    "name given twice": (GOOD + f"  - {POLICY}\n", "each with its own name; found twice: plain"),
    "policy without a source": (changed(", adapter: plain", ""), "policies[0]: found"),
    "policy of two sources": (changed("adapter: plain", "adapter: plain, model: base"), "either 'adapter' or 'model'"),
    "mapping for an adapter": (changed("adapter: plain", "adapter: {path: plain}"), "policies[0].adapter: found"),
    "no adapters": (changed("adapter: plain", "adapter: []"), "policies[0].adapter: found '[]', expected"),
    "adapter given twice": (changed("adapter: plain", "adapter: [plain, ./plain]"), "expected each once"),
    "missing key": (changed("base: base\n", ""), "base: found nothing, expected this key"),
    "missing objective": (changed(" objective: plain,", ""), "policies[0].objective: found nothing, expected this key"),
    "empty objective": (changed("objective: plain", 'objective: ""'), "policies[0].objective: found '', expected"),
    "misspelt key": (changed("adapter:", "adaptor:"), "policies[0].adaptor: found an unknown key"),
    "misspelt list": (
        changed("policies", "polices"),
        "polices: found an unknown key, expected none by that name; did you mean 'policies'?",
    ),
    "key of another kind": (GOOD + REWARD + "scale: 2}]\n", "rewards[0].scale: found an unknown key"),
    "dtype": (GOOD + "dtype: float8\n", "dtype: found 'float8', expected 'auto'"),
    "device": (GOOD + "device: tpu\n", "device: found 'tpu', expected"),
    "negative beta": (GOOD + REWARD + "beta: -0.1}]\n", "rewards[0].beta: found '-0.1', expected greater than 0"),
    "infinite beta": (GOOD + REWARD + "beta: .inf}]\n", "rewards[0].beta: found 'inf', expected a finite number"),
    "text for beta": (GOOD + REWARD + "beta: little}]\n", "rewards[0].beta: found 'little', expected a valid number"),
    "no spread": (GOOD + REWARD + "mean: 1, std: 0}]\n", "rewards[0].std: found '0', expected greater than 0"),
    "infinite mean": (GOOD + REWARD + "mean: -.inf, std: 1}]\n", "rewards[0].mean: found '-inf', expected a finite"),
    "mean that is no number": (
        GOOD + REWARD + "mean: .nan, std: 1}]\n",
        "rewards[0].mean: found 'nan', expected a finite",
    ),
    "mean without std": (GOOD + REWARD + "mean: 1}]\n", "'std' is missing"),
    "unknown kind": (GOOD + "rewards: [{objective: a, kind: oracle}]\n", "rewards[0].kind: found 'oracle', expected"),
    "model without a kind": (
        GOOD + "rewards: [{objective: a, model: m}]\n",
        "rewards[0].kind: found nothing, expected this key",
    ),
    "classifier without a model": (
        GOOD + "rewards: [{objective: a, kind: classifier}]\n",
        "rewards[0].model: found nothing, expected this key",
    ),
    "function without a module": (
        GOOD + "rewards: [{objective: a, kind: function, function: brevity}]\n",
        "rewards[0].function",
    ),
    "implicit without a policy": (
        GOOD + "rewards: [{objective: a, kind: implicit}]\n",
        "expected a policy with objective 'a'",
    ),
    "label for no classifier": (
        GOOD + REWARD + "label: good}]\n",
        "rewards[0].label: found an unknown key, expected none by that name; there are objective, kind, mean, std",
    ),
    "key of a kind, mistyped": (GOOD + REWARD + "betta: 1}]\n", "did you mean 'beta'?"),
    "objective given twice": (GOOD + REWARD + "beta: 1}, {objective: plain, kind: implicit}]\n", "found twice: plain"),
    "reference of nothing": (GOOD + "reference: {}\n", "reference.adapter: found nothing, expected this key"),
    "missing folder": (changed("base: base", "base: ./gone"), "base: found './gone', expected a path that exists"),
    "file for a folder": (changed("base: base", "base: notes.txt"), "a file; expected the folder that it is in"),
    "empty path": (changed("base: base", 'base: ""'), "base: found an empty text, expected a path or a hub id"),
    "zero byte in a path": (
        changed("base: base", 'base: "a\\0b"'),
        "base: found 'a\\x00b', expected a path or a hub id",
    ),
    "long path": (changed("base: base", "base: " + "x" * 5000), "expected a path or a hub id (["),
    "no such user's home": (
        changed("base: base", "base: ~nobody-at-all/base"),
        "base: found '~nobody-at-all/base', expected",
    ),
    "link to itself": (changed("base: base", "base: loop"), "base: found 'loop', expected a path or a hub id"),
    "no hub id": (changed("adapter: plain", "adapter: a b/c"), "policies[0].adapter: found 'a b/c', expected a path"),
    "missing prompts": (GOOD + "prompts: gone.jsonl\n", "prompts: found 'gone.jsonl', expected a file"),
    "folder for prompts": (GOOD + "prompts: base\n", "base is a folder)"),
}
