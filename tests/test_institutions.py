from collections import Counter

import pytest

from fedutils.data.case import Case
from fedutils.data.institutions import (
    VALIDATION,
    assign_institutions,
    institution_from_name,
    read_institutions,
    read_name_mapping,
    read_partition,
    read_site_mapping,
)
from fedutils.errors import InputError

SITES = (
    "BraTS2021,BraTS2020,BraTS2018,Cohort Name (if publicly available),"
    '"Site No\n(represents the originating institution)",Local ID\u00a0 \n'
)


def write(path, text):
    path.write_text(text, newline="")
    return path


def case(name):
    return Case(name, name, ("t1",), {}, reader=lambda *_: None)


@pytest.mark.parametrize(
    ("name", "institution"),
    [
        ("Brats18_CBICA_AAB_1", "CBICA"),
        ("BraTS19_TCIA13_642_1", "TCIA13"),
        ("Brats18_2013_10_1", "2013"),
        ("BraTS19_TMC_06290_1", "TMC"),
        ("Brats17_TCIA_642_1", "TCIA"),
        ("BraTS20_Training_001", None),
        ("BraTS2021_00000", None),
        ("FeTS2022_01341", None),
    ],
)
def test_names_until_2019_tell_the_source(name, institution):
    assert institution_from_name(name) == institution


def test_sites_by_name_of_every_year(tmp_path):
    path = write(
        tmp_path / "m.csv",
        SITES + "BraTS2021_1,BraTS20_Training_001,N/A,TCGA,7,x\n"
        "N/A,BraTS20_Training_002,Brats18_2013_1_1,N/A, 12 ,y\n",
    )
    expected = {
        "BraTS2021_1": "07",
        "BraTS20_Training_001": "07",
        "BraTS20_Training_002": "12",
        "Brats18_2013_1_1": "12",
    }
    assert read_site_mapping(path) == read_institutions(path) == expected


def test_a_case_of_two_sites_is_refused(tmp_path):
    path = write(tmp_path / "m.csv", SITES + "BraTS2021_1,N/A,N/A,x,7,x\nBraTS2021_1,N/A,N/A,x,8,x\n")
    with pytest.raises(InputError, match=r"one institution for BraTS2021_1, found 07 and 08"):
        read_site_mapping(path)


def test_a_site_that_is_no_number_is_refused(tmp_path):
    path = write(tmp_path / "m.csv", SITES + "BraTS2021_1,N/A,N/A,x,Basel,x\n")
    with pytest.raises(InputError, match="number of a site, found 'Basel'"):
        read_site_mapping(path)


def test_names_of_2018_win_over_the_coarser_ones_of_2017(tmp_path):
    path = write(
        tmp_path / "name_mapping.csv",
        "\ufeffGrade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,"
        "TCGA_TCIA_subject_ID,BraTS_2020_subject_ID\r\n"
        "LGG,Brats17_TCIA_642_1,Brats18_TCIA13_642_1,TCGA-HT-8114,BraTS20_Training_300\r\n"
        "HGG,NA,NA,NA,BraTS20_Training_355\r\n",
    )
    expected = dict.fromkeys(["BraTS20_Training_300", "Brats18_TCIA13_642_1", "Brats17_TCIA_642_1"], "TCIA13")
    assert read_name_mapping(path) == read_institutions(path) == expected


def test_partitions_of_both_years_agree(tmp_path):
    first, second = "FeTS21_Training_001", "FeTS21_Training_002"
    old = write(tmp_path / "2021.csv", f"Subject_ID,Partition_ID\r\n{first},01\r\n{second},17")
    new = write(tmp_path / "2022.csv", f"Partition_ID,Subject_ID\r\n1,{first}\r\n17,{second}")
    expected = {first: "01", second: "17"}
    assert read_partition(old) == read_partition(new) == read_institutions(new) == expected
    held = write(tmp_path / "v.csv", "Partition_ID,Subject_ID\n-1,FeTS2022_01718\n")
    assert read_partition(held) == {"FeTS2022_01718": VALIDATION}


def test_a_foreign_table_is_refused(tmp_path):
    path = write(tmp_path / "x.csv", "a,b\n1,2\n")
    with pytest.raises(InputError, match=r"x\.csv: expected a table of sites .* found columns a, b"):
        read_institutions(path)
    with pytest.raises(InputError, match="readable CSV"):
        read_institutions(tmp_path / "none.csv")
    with pytest.raises(InputError, match="a header and rows, found 1 lines"):
        read_institutions(write(tmp_path / "y.csv", "Subject_ID,Partition_ID\n\n"))


def test_cases_get_their_institution_and_unknown_ones_are_named():
    cases = [case("a"), case("b")]
    assigned = assign_institutions(cases, {"b": "02", "a": "01", "c": "03"})
    assert [c.institution for c in assigned] == ["01", "02"] and cases[0].institution is None
    with pytest.raises(InputError, match=r"all 2 cases .* found 1 that it lacks \(b\)"):
        assign_institutions(cases, {"a": "01"})


def test_real_tables(real_data):
    folder = real_data / "partitions"
    sites = read_institutions(folder / "BraTS21-17_Mapping.csv")
    sizes = Counter(site for name, site in sites.items() if name.startswith("BraTS20_Training"))
    expected = [129, 6, 15, 9, 22, 34, 12, 8, 4, 8, 14, 11, 35, 6, 13, 34, 9]
    assert [sizes[site] for site in sorted(sizes)] == expected and sum(expected) == 369
    names = read_institutions(folder / "brats2019_name_mapping.csv")
    sources = Counter(source for name, source in names.items() if name.startswith("BraTS19"))
    assert sum(sources.values()) == 335 and sources["CBICA"] == 129 and sources["2013"] == 30
    # Both tables cut the same cases in the same way, except that sites part what names call 2013.
    pairs = {(sites[name], names[name]) for name in names if name in sites and names[name] != "2013"}
    assert len({site for site, _ in pairs}) == len(pairs)


def test_real_partitions(real_data):
    folder = real_data / "partitions"
    old = read_institutions(folder / "fets2021" / "partitioning_1.csv")
    new = read_institutions(folder / "fets2022" / "partitioning_1.csv")
    assert len(old) == 341 and len(set(old.values())) == 17
    assert len(new) == 1251 and len(set(new.values())) == 23
    assert set(read_institutions(folder / "fets2022" / "validation.csv").values()) == {VALIDATION}
