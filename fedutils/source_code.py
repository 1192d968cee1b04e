"""Which files of fedutils a training executes, and a hash of what they do."""

import ast
import functools
import hashlib
from collections.abc import Sequence

from fedutils import paths


@functools.cache
def list_imported(roots: Sequence[str]) -> tuple[str, ...]:
    """Return the modules that some modules of fedutils import, in however many steps, and themselves.

    Parameters
    ----------
    roots : tuple of str
        Patterns of files inside `fedutils`, without the suffix, e.g. ``("federated", "models/*")``.

    Returns
    -------
    tuple of str
        Sorted, in the same form. Imports inside functions count too.

    Raises
    ------
    ValueError
        If a pattern matches no file: a name that was changed elsewhere would leave code out without a word.
    """
    waiting = []
    for root in roots:
        matched = list(paths.PACKAGE.glob(f"{root}.py"))
        if not matched:
            raise ValueError(f"{root}: expected a module of fedutils, found none; mend who names it")
        waiting += matched
    found = set()
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for package, *rest in (name.split(".") for name in names):
                if package == paths.PACKAGE.name and rest:
                    file = paths.PACKAGE.joinpath(*rest).with_suffix(".py")
                    waiting += [file] if file.is_file() else []
    return tuple(sorted(path.relative_to(paths.PACKAGE).with_suffix("").as_posix() for path in found))


@functools.cache
def fingerprint_code(modules: tuple[str, ...]) -> str:
    """Return a hash of what the given modules do: their syntax without comments and docstrings.

    A finished training run is used again only while this hash stands, so that mending a comment costs nothing
    and changing the code never shows an old number.

    Parameters
    ----------
    modules : tuple of str
        From `list_imported`.

    Raises
    ------
    ValueError
        If there are none, or one is not there.
    """
    if not modules:
        raise ValueError("modules: expected at least one, found none; the hash of nothing never changes")
    digest = hashlib.sha256()
    for name in modules:
        file = paths.PACKAGE / f"{name}.py"
        if not file.is_file():
            raise ValueError(f"{name}: expected a module of fedutils, found none; mend who names it")
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and _is_docstring(body[0]):
                body.pop(0)
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:16]


def _is_docstring(node) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
