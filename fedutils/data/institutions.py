"""Which institution a BraTS case came from: the organisers' table of sites, names, or a FeTS partition.

Three kinds of table, told apart by their header:

- sites: ``BraTS21-17_Mapping.csv``, a column of names for each year and the number of the originating site;
- names: ``name_mapping.csv`` of 2019 and 2020; names until 2019 carry the source, ``Brats18_CBICA_AAB_1``;
- FeTS partitions, ``Subject_ID,Partition_ID`` (2021, IDs zero-padded) or ``Partition_ID,Subject_ID`` (2022).

Numbers of sites become two digits, so that they sort as numbers and both years of FeTS agree.

References
----------
S. Pati et al., "The Federated Tumor Segmentation (FeTS) Challenge", 2021.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from fedutils.data.case import Case
from fedutils.data.folders import find_columns, known, read_table
from fedutils.errors import InputError

VALIDATION = "validation"  # what a partition ID of -1 becomes
_NAME = re.compile(r"BraTS1[789]_([A-Z0-9]+)_.+_\d+", re.IGNORECASE)
_YEAR = r"BraTS_?(20)?\d\d(_subject_ID)?"


def institution_from_name(name: str) -> str | None:
    """Return the source in a case's name of 2017 to 2019 (CBICA, TCIA01, 2013, TMC ...), else None."""
    match = _NAME.fullmatch(name)
    return match[1].upper() if match else None


def read_institutions(path: Path) -> dict[str, str]:
    """Read any of the three tables, recognised by its header.

    Returns
    -------
    dict of str to str
        Institution by case name.

    Raises
    ------
    InputError
        If it is none of them, or one case has two institutions.
    """
    columns = {name.lower() for name in read_table(path)[0]}
    if {"subject_id", "partition_id"} <= columns:
        return read_partition(path)
    if any(name.startswith("site no") for name in columns):
        return read_site_mapping(path)
    if any(re.fullmatch(r"brats_?\d+_subject_id", name) for name in columns):
        return read_name_mapping(path)
    raise InputError(
        f"{path}: expected a table of sites (column Site No), names (BraTS_2019_subject_ID) or a FeTS "
        f"partition (Subject_ID, Partition_ID), found columns {', '.join(sorted(columns))}; give one of these"
    )


def read_site_mapping(path: Path) -> dict[str, str]:
    """Read the organisers' table of sites (``BraTS21-17_Mapping.csv``).

    Returns
    -------
    dict of str to str
        Site, ``01`` to ``23``, by case name of every year.
    """
    rows = read_table(path)
    (site,) = find_columns(path, rows, r"Site No.*")[:1]
    years = find_columns(path, rows, _YEAR)
    pairs = ((row[year], _two_digits(path, row[site])) for row in rows for year in years if known(row[year]))
    return _collect(path, pairs)


def read_name_mapping(path: Path) -> dict[str, str]:
    """Read the source of each case from a name mapping.

    Returns
    -------
    dict of str to str
        CBICA, TCIA01, 2013 and so on, by case name of every year in the table. Cases without a name of 2017
        to 2019 are not in it.
    """
    rows = read_table(path)
    # Latest first: names of 2017 do not tell the institutions of TCIA apart, those of 2018 and 2019 do.
    years = sorted(find_columns(path, rows, _YEAR), reverse=True)
    pairs = []
    for row in rows:
        names = [row[year] for year in years if known(row[year])]
        source = next(filter(None, map(institution_from_name, names)), None)
        pairs += [(name, source) for name in names if source]
    return _collect(path, pairs)


def read_partition(path: Path) -> dict[str, str]:
    """Read a partition of the FeTS challenge, of 2021 or 2022.

    Returns
    -------
    dict of str to str
        Partition (``01``, ``02`` ...) by case name; `VALIDATION` for cases of the validation set (-1).
    """
    rows = read_table(path)
    (subject,) = find_columns(path, rows, "Subject_ID")[:1]
    (partition,) = find_columns(path, rows, "Partition_ID")[:1]
    return _collect(path, ((row[subject], _two_digits(path, row[partition])) for row in rows))


def assign_institutions(cases: Iterable[Case], mapping: Mapping[str, str]) -> list[Case]:
    """Return the cases with the institution that `mapping` gives to their names.

    Raises
    ------
    InputError
        If a case is not in `mapping`.
    """
    cases = list(cases)
    unknown = [case.name for case in cases if case.name not in mapping]
    if unknown:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        raise InputError(
            f"institutions: expected all {len(cases)} cases in the table of {len(mapping)} names, found "
            f"{len(unknown)} that it lacks ({shown}); give the table of the same year, or leave them out"
        )
    return [dataclasses.replace(case, institution=mapping[case.name]) for case in cases]


def _two_digits(path: Path, text: str) -> str:
    try:
        number = int(text)
    except ValueError:
        raise InputError(f"{path}: expected the number of a site, found {text!r}; mend the table") from None
    return VALIDATION if number == -1 else f"{number:02d}"


def _collect(path: Path, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the pairs as a dict; a name may come twice, but not with two institutions."""
    mapping: dict[str, str] = {}
    for name, institution in pairs:
        if mapping.setdefault(name, institution) != institution:
            raise InputError(
                f"{path}: expected one institution for {name}, found {mapping[name]} and {institution}; "
                "mend the table"
            )
    return mapping
