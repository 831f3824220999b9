"""Check the rules of docs/architecture.md on the source text: `python -m tests.architecture`.

One line is printed for each violation; exit code 1 if there is any.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
# The rooms of each package, from the bottom up: a room imports from itself and from those before it. The empty name is
# the package's own modules, except for those that are the entry points above all rooms.
ROOMS = {
    "engine": [
        "",
        "fetching",
        "rules",
        "models",
        "rewards",
        "inference",
        "bank",
        "solvers",
        "votes",
        "evaluation",
        "api",
        "remote",
        "scale",
        "cli",
    ],
    "app": ["", "schemas", "storage", "services", "charts", "ui", "server"],
}
ABOVE = {"engine", "engine.__main__", "app.__main__"}
BELOW = {"engine": ["app"], "app": []}  # packages that a package may not import
LONGEST = 400  # lines
REGISTRIES = {"rules": "RULE", "solvers": "SOLVER"}
# Words that are also names: the rows of a paper's table, the target that is set on the radar, and a link's.
LABELS = {
    ("engine.evaluation.paper", "mpo"),
    ("engine.evaluation.paper", "maxmin"),
    ("engine.cli.solve", "target"),
    ("app.services.bank_service", "target"),
    ("app.services.guidelines", "target"),
    ("app.ui.explore_tab", "target"),
}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
MIGRATION = re.compile(r"m\d{3}_")  # the database knows migrations by these names, which are its schema's own


def module_of(path: Path) -> str:
    """Return the dotted name of a file's module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> int | None:
    """Return how high a module's room is in its package; None if it is above all rooms."""
    package, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    return None if module in ABOVE else ROOMS[package].index(room if room in ROOMS[package] else "")


def imports_of(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Yield (line, module, name) of every import of this project's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ROOMS:
            for alias in node.names:
                yield node.lineno, node.module or "", alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in ROOMS:
                    yield node.lineno, alias.name, ""


def upward(modules: dict[str, ast.Module]) -> Iterator[str]:
    """Imports of a higher room, or of a package that may not be imported."""
    for module, tree in modules.items():
        package, room = module.partition(".")[0], room_of(module)
        for line, source, name in imports_of(tree):
            whole = f"{source}.{name}" if f"{source}.{name}" in modules else source
            other = whole.partition(".")[0]
            if other in BELOW[package]:
                yield f"{module}:{line} imports {whole}: {package} does not know {other}"
            elif other == package and room is not None and whole != package:
                height = room_of(whole)
                if height is None or height > room:
                    yield f"{module}:{line} imports {whole}, which is above it"


def private(modules: dict[str, ast.Module]) -> Iterator[str]:
    """Underscored names of other modules of this project."""
    for module, tree in modules.items():
        for line, source, name in imports_of(tree):
            if name.startswith("_") and not name.startswith("__"):
                yield f"{module}:{line} imports {source}.{name}"
    theirs: dict[str, set[str]] = {module: set(defined_privates(tree)) for module, tree in modules.items()}
    for module, tree in modules.items():
        others = set().union(*(names for other, names in theirs.items() if other != module)) - theirs[module]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in others:
                yield f"{module}:{node.lineno} touches {ast.unparse(node)}"


def defined_privates(tree: ast.Module) -> Iterator[str]:
    """Yield the underscored names that a module defines: functions, methods and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, DEFINITIONS):
            name = node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            name = node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        else:
            continue
        if name.startswith("_") and not name.startswith("__"):
            yield name


def duplicates(modules: dict[str, ast.Module]) -> Iterator[str]:
    """Functions and classes of one name in two modules."""
    places: dict[str, list[str]] = defaultdict(list)
    for module, tree in modules.items():
        for node in tree.body:
            if isinstance(node, DEFINITIONS) and not MIGRATION.match(node.name):
                places[node.name].append(module)
    for name, found in places.items():
        if len(found) > 1:
            yield f"{name} is defined in {', '.join(found)}"


def spelled_names(modules: dict[str, ast.Module]) -> Iterator[str]:
    """Names of rules and solvers as strings outside their own files."""
    homes: dict[str, str] = {}
    for module, tree in modules.items():
        for room, attribute in REGISTRIES.items():
            if module.startswith(f"engine.{room}."):
                homes |= dict.fromkeys(registered(tree, attribute), module)
    for module, tree in modules.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            home = homes.get(node.value, module)
            if home != module and (module, node.value) not in LABELS:
                yield f"{module}:{node.lineno} spells '{node.value}', which {home} names"


def registered(tree: ast.Module, attribute: str) -> Iterator[str]:
    """Yield the name of a module's registry entry."""
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
            continue
        if any(isinstance(target, ast.Name) and target.id == attribute for target in node.targets):
            name = next(keyword.value for keyword in node.value.keywords if keyword.arg == "name")
            yield str(name.value if isinstance(name, ast.Constant) else constants[ast.unparse(name)])


def undocumented(modules: dict[str, ast.Module]) -> Iterator[str]:
    """Public functions and classes without a docstring."""
    for module, tree in modules.items():
        for node in tree.body:
            if isinstance(node, DEFINITIONS) and not node.name.startswith("_") and not ast.get_docstring(node):
                yield f"{module}:{node.lineno} {node.name} has no docstring"


def too_long(_: dict[str, ast.Module]) -> Iterator[str]:
    """Files over LONGEST lines."""
    for path in sources():
        length = len(path.read_text(encoding="utf-8").splitlines())
        if length > LONGEST:
            yield f"{module_of(path)} has {length} lines; {LONGEST} are the most"


CHECKS = (upward, private, duplicates, spelled_names, undocumented, too_long)


def sources() -> list[Path]:
    """Return the files of both packages."""
    return [path for package in ROOMS for path in sorted((ROOT / package).rglob("*.py"))]


def parsed() -> dict[str, ast.Module]:
    """Return {module: its syntax tree} of both packages."""
    return {module_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sources()}


def main() -> int:
    """Print all violations; return 1 if there is any."""
    modules = parsed()
    lines = [line for check in CHECKS for line in check(modules)]
    print("\n".join(lines) or "no violations")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
