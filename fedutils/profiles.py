"""Profiles: the scale of a run, as papermill parameters in ``profiles/<name>.yaml``.

A profile has ``defaults``, given to every notebook that knows the parameter, and ``notebooks``, with what one
notebook alone gets. A name that no notebook knows and a value of the wrong type are refused before anything
runs.
"""

import ast
from pathlib import Path

import nbformat
import yaml

from fedutils import paths
from fedutils.errors import InputError


def list_notebooks() -> list[Path]:
    """Return the notebooks of the course, in order of their numbers."""
    return sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def read_parameters(notebook: Path) -> dict[str, str]:
    """Return the names and types that the cell tagged ``parameters`` declares.

    Raises
    ------
    InputError
        If the notebook has no such cell, or a line of it is not ``name: type = literal``.
    """
    for cell in nbformat.read(notebook, as_version=4).cells:
        if "parameters" in cell.metadata.get("tags", []):
            break
    else:
        raise InputError(f"{notebook}: expected a cell tagged 'parameters', found none; tag it")
    declared = {}
    for node in ast.parse(cell.source).body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            raise InputError(
                f"{notebook}: parameters: expected lines 'name: type = literal', found "
                f"{ast.unparse(node)!r}; annotate it"
            )
        declared[node.target.id] = ast.unparse(node.annotation)
    return declared


def matches_type(value, annotation: str) -> bool:
    """Say whether a YAML value may be given to a parameter of the annotated type."""
    if annotation.startswith("list["):
        return isinstance(value, list) and all(matches_type(v, annotation[5:-1]) for v in value)
    if annotation == "float":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value).__name__ == annotation


def load_profile(name: str) -> dict[str, dict]:
    """Read a profile and check it against the notebooks.

    Parameters
    ----------
    name : str
        Of a file in ``profiles``, without the suffix.

    Returns
    -------
    dict
        The parameters of every notebook, by notebook name in order; ``profile`` is always among them.

    Raises
    ------
    InputError
        If the profile, a notebook or a parameter is unknown, or a value has the wrong type.
    """
    path = paths.PROFILES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in paths.PROFILES.glob("*.yaml")))
        raise InputError(f"profile: expected one of {known}, found {name!r}; say PROFILE=laptop")
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{path}: expected YAML, found: {' '.join(str(error).split())}; mend it") from error
    sections = {"description": str, "defaults": dict, "notebooks": dict}
    for key, value in content.items():
        if key not in sections or not isinstance(value, sections[key]):
            raise InputError(
                f"{path}: expected the sections {', '.join(sections)}, found {key}: {value!r}; mend it"
            )
    defaults = {**content.get("defaults", {}), "profile": name}
    special = content.get("notebooks", {})
    declared = {p.stem: read_parameters(p) for p in list_notebooks()}
    for key in special:
        if key not in declared:
            raise InputError(f"{path}: expected a notebook of {', '.join(declared)}, found {key!r}; mend it")
    for key in defaults:
        if not any(key in names for names in declared.values()):
            raise InputError(f"{path}: defaults: no notebook has a parameter {key!r}; remove or rename it")
    parameters = {}
    for notebook, names in declared.items():
        chosen = {k: v for k, v in defaults.items() if k in names} | (special.get(notebook) or {})
        for key, value in chosen.items():
            if key not in names:
                raise InputError(
                    f"{path}: {notebook}: expected one of {', '.join(names)}, found the parameter {key!r}; "
                    "remove or rename it"
                )
            if not matches_type(value, names[key]):
                raise InputError(
                    f"{path}: {notebook}: {key}: expected {names[key]}, found {value!r} "
                    f"({type(value).__name__}); mend it"
                )
        parameters[notebook] = chosen
    return parameters
