"""Segmentation as the task of experiments: whose patients, what is trained on, and what is measured."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from fedutils import cli_experiment, experiment_prepare, experiment_runs, segmentation_pools
from fedutils.data.brats import list_brats
from fedutils.data.federated_cases import (
    deal_by_size,
    read_site_sizes,
    scale_sizes,
    split_by_institution,
)
from fedutils.data.phantom import write_brats
from fedutils.data.phantom_memory import list_phantom_cases
from fedutils.errors import InputError
from fedutils.experiment_file import EXPERIMENTS, load_experiment
from fedutils.experiment_networks import load_trained
from fedutils.experiment_segmentation import PoolClients
from fedutils.experiment_segmentation_scores import ScoredSegmentation
from fedutils.experiment_task import load_task
from fedutils.experiments import run_experiment
from fedutils.plots_federated_segmentation import (
    plot_hospitals,
    plot_institutions,
    plot_predictions,
)
from fedutils.readme_segmentation import build_federated_segmentation
from fedutils.results import to_json
from fedutils.segmentation_pools import SlicePool, VolumePool
from fedutils.segmentation_study import list_own, summarise_segmentations
from fedutils.segmentation_table import (
    build_institutions_table,
    build_regions_table,
    build_segmentation_table,
    build_tables,
)

BRATS_2020 = (129, 6, 15, 9, 22, 34, 12, 8, 4, 8, 14, 11, 35, 6, 13, 34, 9)
# Slices of one phantom scanner over two hospitals, so small that a run takes seconds.
TINY = {
    "name": "tiny",
    "title": "Tiny",
    "data": {
        "source": "phantom_cases",
        "image_size": 16,
        "num_cases": 8,
        "voxel_mm": 6,
        "scanner": "hospital_2",
    },
    "partition": {"kind": "equal", "num_clients": 2},
    "model": {"name": "unet", "depth": 2, "width": 2},
    "training": {"num_rounds": 2, "batch_size": 32, "client_learning_rate": 0.01, "cosine": True},
    "algorithms": {"local": {}, "fedavg": {}, "central": {}},
    "report_rounds": [1],
    "seeds": [0],
}


def change(**sections):
    """Return the tiny experiment with some keys changed, or removed if None."""
    content = copy.deepcopy(TINY)
    for section, keys in sections.items():
        content[section].update(keys)
        content[section] = {key: value for key, value in content[section].items() if value is not None}
    return content


# ---- patients and sites


HOMES = ["CS"] * 5 + ["DU"] * 6 + ["EZ"] + ["FG"] * 4 + ["HT"] * 6
PATIENTS = ["CS0", "CS0", *(f"CS{i}" for i in range(1, 4)), *(f"{h}{i}" for i, h in enumerate(HOMES[5:]))]


@pytest.mark.parametrize("held_out", [None, "DU", "EZ"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_patient_is_in_two_parts_and_an_institution_of_one_patient_only_trains(held_out, seed):
    split = split_by_institution(
        HOMES, PATIENTS, validation_fraction=0.2, test_fraction=0.25, held_out=held_out, seed=seed
    )
    parts = vars(split)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(HOMES)))
    patients = {name: {PATIENTS[i] for i in part} for name, part in parts.items()}
    assert sum(map(len, patients.values())) == len(set(PATIENTS))
    counts = {
        name: {home: len({PATIENTS[i] for i in part if HOMES[i] == home}) for home in set(HOMES)}
        for name, part in parts.items()
    }
    if held_out is None:
        assert counts["training"]["EZ"] == 1 and counts["test"]["EZ"] == counts["validation"]["EZ"] == 0
        # Of 4, 6, 4 and 6 patients a quarter and a fifth, rounded.
        assert [counts["test"][home] for home in ("CS", "DU", "FG", "HT")] == [1, 2, 1, 2]
        assert [counts["validation"][home] for home in ("CS", "DU", "FG", "HT")] == [1, 1, 1, 1]
    else:
        assert {HOMES[i] for i in split.test} == {held_out}
        assert not {HOMES[i] for i in (*split.training, *split.validation)} & {held_out}
        assert len(split.test) == HOMES.count(held_out)


def test_seeds_hold_out_other_patients_and_one_seed_the_same():
    def hold_out(seed):
        options = {"validation_fraction": 0.2, "test_fraction": 0.25}
        return split_by_institution(HOMES, PATIENTS, seed=seed, **options).test.tolist()

    assert hold_out(0) == hold_out(0)
    assert len({tuple(hold_out(seed)) for seed in range(5)}) > 1


def test_a_split_without_enough_patients_is_refused():
    options = {"validation_fraction": 0.2, "test_fraction": 0.25, "seed": 0}
    with pytest.raises(InputError, match="validation: expected a patient, found none among 4 of 2"):
        split_by_institution(["A", "A", "B", "B"], list("abcd"), **options)
    with pytest.raises(InputError, match="held_out: expected one of A, B, found 'C'"):
        split_by_institution(["A", "A", "B", "B"], list("abcd"), held_out="C", **options)


def test_sizes_are_scaled_in_proportion_with_a_case_for_everyone():
    assert scale_sizes([6, 3, 1], 5).tolist() == [3, 1, 1]  # 3, 1.5 and .5
    assert scale_sizes([97, 1, 1, 1], 10).tolist() == [7, 1, 1, 1]  # 9.7 and .1 each
    assert scale_sizes(BRATS_2020, 369).tolist() == list(BRATS_2020)
    scaled = scale_sizes(BRATS_2020, 60)
    exact = np.asarray(BRATS_2020) * 60 / 369
    assert scaled.sum() == 60 and scaled.min() == 1
    assert np.abs(scaled - exact).max() < 1
    assert (np.diff(scaled[np.argsort(BRATS_2020, kind="stable")]) >= 0).all()
    with pytest.raises(InputError, match="at least 17 training cases, one a site, found 16"):
        scale_sizes(BRATS_2020, 16)


def test_cases_are_dealt_out_to_the_sizes_whole_and_once():
    cases = np.arange(10, 20)
    parts = deal_by_size(cases, [7, 1, 2], seed=0)
    assert [len(part) for part in parts] == [7, 1, 2]
    assert sorted(np.concatenate(parts)) == cases.tolist()
    assert [p.tolist() for p in parts] != [p.tolist() for p in deal_by_size(cases, [7, 1, 2], seed=1)]


def test_the_sizes_of_sites_are_counted_for_one_year(tmp_path):
    table = tmp_path / "sites.csv"
    table.write_text(
        "BraTS2021,BraTS2020,Site No (represents the originating institution)\n"
        "BraTS2021_1,BraTS20_Training_001,2\nBraTS2021_2,BraTS20_Training_002,10\n"
        "BraTS2021_3,BraTS20_Training_003,2\nBraTS2021_4,N/A,5\n"
    )
    assert read_site_sizes(table).tolist() == [2, 1]
    table.write_text("BraTS2021,Site No\nBraTS2021_1,2\n")
    with pytest.raises(InputError, match="expected names such as BraTS20_Training_001"):
        read_site_sizes(table)


def test_the_real_sites_are_those_that_are_published(real_data):
    table = real_data / "partitions" / "BraTS21-17_Mapping.csv"
    if not table.is_file():
        pytest.skip("no table of sites in FEDUTILS_DATA")
    assert tuple(read_site_sizes(table)) == BRATS_2020


def test_the_phantom_in_memory_is_that_of_the_files(tmp_path):
    write_brats(tmp_path / "phantom", 2, voxel_mm=6.0, progress=False, num_workers=1)
    for file, made in zip(list_brats(tmp_path / "phantom"), list_phantom_cases(2, voxel_mm=6.0), strict=True):
        expected, found = file.load(), made.load()
        assert made.modalities == file.modalities and found.spacing == (6, 6, 6)
        np.testing.assert_allclose(found.affine, expected.affine)
        assert np.array_equal(found.mask, expected.mask)
        for modality in made.modalities:
            assert np.array_equal(found.images[modality], expected.images[modality])
    assert made.institution == "hospital_2"


def test_one_scanner_for_all_leaves_the_anatomy_as_it_is():
    own = list_phantom_cases(3, voxel_mm=6.0)[2].load(("flair",))
    other = list_phantom_cases(3, voxel_mm=6.0, scanner="hospital_1")[2]
    assert other.institution == "hospital_1" and list(other.load(("flair",)).images) == ["flair"]
    assert np.array_equal(own.mask, other.load(()).mask)
    assert not np.array_equal(own.images["flair"], other.load(("flair",)).images["flair"])


# ---- slices and volumes


@pytest.fixture(scope="module")
def volumes():
    options = {"voxel_mm": 6.0, "patch_size": 16, "patches_per_case": 3}
    return VolumePool(list_phantom_cases(3, voxel_mm=6.0), **options)


@pytest.fixture(scope="module")
def slices():
    return SlicePool(list_phantom_cases(3, voxel_mm=6.0), size=40)


def test_what_is_found_of_a_volume_is_measured_on_the_voxels_of_the_case(volumes, monkeypatch):
    truth = {
        id(v.images): segmentation_pools.compute_regions(v.mask, volumes.regions) for v in volumes.volumes
    }
    perfect = lambda model, x, **options: truth[id(x)].astype(np.float32)  # noqa: E731
    monkeypatch.setattr(segmentation_pools, "predict_volume", perfect)
    for one in volumes.measure(None, [0, 2]):
        assert set(one["dice"].values()) == {1.0} and set(one["hd95_mm"].values()) == {0.0}
    assert volumes.validate(None, [1]) == {"dice": 1.0, "dice_wt": 1.0, "dice_tc": 1.0, "dice_et": 1.0}
    monkeypatch.setattr(segmentation_pools, "predict_volume", lambda m, x, **o: 0 * truth[id(x)])
    (one,) = volumes.measure(None, [0])
    grid = np.asarray(volumes.cases[0].load(()).shape) * 6
    assert one["dice"]["WT"] == 0 and one["hd95_mm"]["WT"] == pytest.approx(np.linalg.norm(grid))


def test_what_is_found_in_slices_is_measured_on_the_voxels_of_the_case(slices, monkeypatch):
    data = slices.slices
    truth = {data.x[data.find(c)].tobytes(): data.y[data.find(c)].astype(np.float32) for c in range(3)}
    perfect = lambda model, x, **options: truth[x.tobytes()]  # noqa: E731
    monkeypatch.setattr(segmentation_pools, "predict_slices", perfect)
    for one in slices.measure(None, [0, 2]):
        assert set(one["dice"].values()) == {1.0} and set(one["hd95_mm"].values()) == {0.0}


def list_pictures(batches):
    return [image.tobytes() for images, _ in batches for image in images.numpy()]


def test_hospitals_see_their_own_slices_each_once_in_a_pass(slices):
    parts = [np.array([0]), np.array([1, 2])]
    clients = PoolClients(slices, parts, batch_size=8, local_epochs=2, augment=False, seed=0)
    for k, part in enumerate(parts):
        own = [x.tobytes() for x in slices.slices.x[slices.slices.find(part)]]
        seen = list_pictures(clients.batches(k, 3))
        assert len(own) == slices.count_examples(part)
        half = len(seen) // 2
        assert sorted(seen[:half]) == sorted(seen[half:]) == sorted(own)
        assert seen == list_pictures(clients.batches(k, 3))
        assert seen != list_pictures(clients.batches(k, 4)) and seen[:half] != seen[half:]


def test_patches_of_a_round_are_as_many_as_of_a_central_pass_and_differ_between_rounds(volumes):
    parts = [np.array([0, 1]), np.array([2])]
    clients = PoolClients(volumes, parts, batch_size=2, local_epochs=1, augment=True, seed=0)
    seen = [list_pictures(clients.batches(k, 0)) for k in range(2)]
    central = list_pictures(volumes.make_batches([0, 1, 2], batch_size=2, seed=0, augment=True)(0))
    assert [len(part) for part in seen] == [6, 3] and len(central) == 9
    assert seen[0] == list_pictures(clients.batches(0, 0)) != list_pictures(clients.batches(0, 1))


# ---- kaggle_3m


@pytest.fixture
def kaggle_3m(tmp_path, monkeypatch):
    """Make a small kaggle_3m: three patients of CS and of DU, one of EZ, six slices each."""
    rng = np.random.default_rng(0)
    for home, count in (("CS", 3), ("DU", 3), ("EZ", 1)):
        for patient in range(count):
            name = f"TCGA_{home}_{4940 + patient}_19960909"
            folder = tmp_path / "kaggle_3m" / name
            folder.mkdir(parents=True)
            for number in range(1, 7):
                pixels = rng.integers(20, 256, (20, 20, 3), np.uint8)
                mask = np.zeros((20, 20), np.uint8)
                mask[5 : 9 + patient, 4:11] = 255
                Image.fromarray(pixels).save(folder / f"{name}_{number}.tif")
                Image.fromarray(mask).save(folder / f"{name}_{number}_mask.tif")
    monkeypatch.setenv("FEDUTILS_DATA", str(tmp_path))


def load_kaggle(**data):
    content = change(
        data={"source": "kaggle_3m", "num_cases": None, "voxel_mm": None, "scanner": None} | data
    )
    content["partition"] = {"kind": "institutions"}
    return load_task(load_experiment(content))


def test_institutions_of_kaggle_3m_are_hospitals_and_that_of_one_patient_has_no_test(kaggle_3m):
    task = load_kaggle()
    told = task.describe_partition(0)
    assert told["hospitals"] == ["CS", "DU", "EZ"] and told["cases"] == [1, 1, 1]
    assert told["examples"] == [6, 6, 6] and len(told["test"]) == len(told["validation"]) == 2
    assert task.provenance["source"] == "kaggle_3m" and task.pool.regions == ("WT",)
    assert task.pool.get_spacing(0) is None


@pytest.mark.parametrize("held_out", ["DU", "EZ"])
def test_nothing_of_the_institution_that_is_held_out_is_ever_trained_on(kaggle_3m, held_out):
    task = load_kaggle(held_out=held_out)
    homes = np.asarray([case.institution for case in task.pool.cases])
    own = {x.tobytes() for x in task.pool.slices.x[task.pool.slices.find(np.flatnonzero(homes == held_out))]}
    training = load_experiment(change()).algorithms["fedavg"] | {"augment": False}
    clients = task.make_clients(0, training)
    assert clients.num_clients == 2 and held_out not in task.name_hospitals(0)
    seen = {one for k in range(2) for one in list_pictures(clients.batches(k, 0))}
    central = np.concatenate(task.deal(0))
    seen |= set(list_pictures(task.pool.make_batches(central, batch_size=8, seed=0, augment=False)(0)))
    assert seen and own and not seen & own
    assert not set(homes[task.split(0).validation]) & {held_out}
    assert {homes[case] for case in task.split(0).test} == {held_out}


# ---- scores, by hand


def make_measured(*dices):
    return [
        {
            "dice": {"WT": wt, "TC": tc},
            "hd95_mm": {"WT": 10 * (1 - wt), "TC": 10 * (1 - tc)},
            "sensitivity": {"WT": wt, "TC": None},
        }
        for wt, tc in dices
    ]


def make_test(a, b):
    """Return what a model does on one patient of hospital A and two of B; C has none."""
    return {
        "all": {"names": ["a", "b", "c"], "measured": make_measured(a, *b)},
        "A": {"names": ["a"], "measured": make_measured(a)},
        "B": {"names": ["b", "c"], "measured": make_measured(*b)},
    }


@pytest.fixture
def scored():
    task = object.__new__(ScoredSegmentation)
    task._experiment = SimpleNamespace(partition={"kind": "institutions"})
    task.name_hospitals = lambda seed: ["A", "B", "C"]
    return task


def test_a_shared_model_is_scored_by_institution(scored):
    told = scored.describe_shared(make_test((0.8, 0.6), [(0.5, 0.3), (0.9, 0.7)]), 0)
    everyone = told["test"]["all"]
    assert everyone["dice"] == pytest.approx((0.7 + 0.4 + 0.8) / 3)
    assert everyone["dice_wt"] == pytest.approx((0.8 + 0.5 + 0.9) / 3)
    assert everyone["hd95_mm_tc"] == pytest.approx((4 + 7 + 3) / 3)
    assert everyone["hd95_mm_median"] == pytest.approx((3 + 4) / 2)  # of 1, 2, 3, 4, 5, 7
    assert everyone["n"] == 3 and [case["case"] for case in everyone["cases"]] == ["a", "b", "c"]
    own = told["hospitals"]["own"]
    assert own[0]["dice"] == pytest.approx(0.7) and own[1]["dice"] == pytest.approx(0.6) and own[2] is None
    assert told["worst"]["all"] == pytest.approx({"dice": 0.6, "own": 0.65})


def test_models_of_their_own_are_averaged_on_all_and_scored_each_on_its_own_patients(scored):
    first = make_test((0.8, 0.6), [(0.1, 0.1), (0.1, 0.1)])  # trained by A
    second = make_test((0.2, 0.2), [(0.9, 0.9), (0.9, 0.7)])
    third = make_test((0.0, 0.0), [(0.0, 0.0), (0.0, 0.0)])
    told = scored.describe_own([first, second, third], 0)
    assert told["test"]["B"]["dice"] == pytest.approx((0.1 + 0.85 + 0) / 3) and told["test"]["B"]["n"] == 2
    own = told["hospitals"]["own"]
    assert own[0]["dice"] == pytest.approx(0.7) and own[1]["dice"] == pytest.approx(0.85) and own[2] is None
    assert told["worst"]["all"] == pytest.approx({"dice": 0.7, "own": 0.775})
    assert [test["A"]["dice"] for test in told["hospitals"]["tests"]] == pytest.approx([0.7, 0.2, 0])
    summary = scored.summarise([told, told])
    assert summary["all"]["own"]["mean"] == pytest.approx(0.775) and summary["all"]["own"]["std"] == 0
    assert summary["A"]["dice_wt"]["values"] == pytest.approx([1.0 / 3] * 2) and "worst" not in summary["A"]


# ---- files


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"data": {"image_size": None}}, "data: image_size: expected a value, found none; add it"),
        ({"data": {"patch_size": 16}}, "data: patch_size: expected none beside these other keys, found 16"),
        ({"data": {"dimensions": 4}}, "dimensions: expected int 2 or 3, found 4"),
        ({"data": {"dimensions": 3}}, "data: image_size: expected none"),
        (
            {"data": {"held_out": "DU"}},
            "held_out: expected the partition institutions beside it, found equal",
        ),
        ({"data": {"source": "kaggle_3m"}}, "data: num_cases: expected none"),
        ({"partition": {"num_clients": None}}, "num_clients: expected a value, found none"),
        ({"model": {"name": "cnn"}}, "expected a text one of unet, unet_plus_plus, attention_unet, found"),
        ({"training": {"choose_by": "accuracy"}}, "choose_by: expected a text one of dice, found 'accuracy'"),
        ({"data": {"split": "public"}}, "found the key 'split'"),
    ],
)
def test_keys_that_do_not_fit_a_segmentation_are_refused(sections, words):
    with pytest.raises(InputError, match=words) as caught:
        load_task(load_experiment(change(**sections)))
    assert "\n" not in str(caught.value)


def read_yaml(name):
    return yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text())


def test_the_files_of_the_thesis_differ_in_nothing_but_what_they_compare():
    without = [read_yaml(f"kaggle_3m_without_{home}") for home in ("CS", "DU", "EZ", "FG", "HT")]
    assert [content["data"].pop("held_out") for content in without] == ["CS", "DU", "EZ", "FG", "HT"]
    nets = [read_yaml(f"kaggle_3m_institutions{end}") for end in ("", "_unet", "_unet_plus_plus")]
    names = [content["model"].pop("name") for content in nets]
    assert sorted(names) == ["attention_unet", "unet", "unet_plus_plus"]
    sites = [read_yaml(name) for name in ("brats_sites", "brats_sites_equal")]
    assert [content["partition"]["kind"] for content in sites] == ["brats_sites", "equal"]
    for family in (without, nets, sites):
        for key in ("data", "model", "training", "report_rounds", "seeds"):
            assert len({json.dumps(content[key]) for content in family}) == 1


# ---- runs


@pytest.fixture(scope="module", autouse=True)
def shared_process():
    """Build the one process of this module once."""
    built, build = [], experiment_prepare.build_process
    with pytest.MonkeyPatch.context() as patch:

        def build_once(*args, **options):
            if not built:
                built.append(build(*args, **options))
            return built[0]

        patch.setattr(experiment_prepare, "build_process", build_once)
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDUTILS_OUTPUT", str(folder / "output"))
        return SimpleNamespace(records=run_experiment(TINY, folder=folder), output=folder / "output")


def test_local_federated_and_central_train_and_are_measured_on_the_same_patients(tiny):
    tested = {tuple(record["runs"]["0"]["partition"]["test"]) for record in tiny.records.values()}
    assert set(tiny.records) == {"local", "fedavg", "central"} and len(tested) == 1
    for record in tiny.records.values():
        run = record["runs"]["0"]
        assert len(run["validation"]["dice"]) == run["rounds_done"] == 2
        assert run["test"]["all"]["n"] == 2 and np.isfinite(record["summary"]["all"]["dice"]["mean"])
        parts = run["partition"]
        assert parts["cases"] == [2, 2] and not set(parts["training"]) & set(parts["test"])
    local = tiny.records["local"]["runs"]["0"]
    each = [test["all"]["dice"] for test in local["hospitals"]["tests"]]
    assert local["test"]["all"]["dice"] == pytest.approx(np.mean(each))
    assert local["worst"]["all"]["dice"] == pytest.approx(min(each))
    run = tiny.records["fedavg"]["runs"]["0"]
    assert set(run["after"]) == {"1"} and run["bytes"]["up_total"] == 4 * run["bytes"]["up_per_client"]
    assert cli_experiment._describe(tiny.records["fedavg"]).startswith("tiny-fedavg: test dice 0.")


def test_a_segmentation_that_is_stopped_and_resumed_is_the_one_that_never_was(tiny, tmp_path, monkeypatch):
    real, calls = experiment_runs.train_federated, []

    def stopped(*args, **options):
        calls.append(options["num_rounds"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(experiment_runs, "train_federated", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(TINY, algorithms=["fedavg"], folder=tmp_path)
    record = run_experiment(TINY, algorithms=["fedavg"], folder=tmp_path)["fedavg"]
    assert calls == [1, 2, 2]
    runs = [dict(one["runs"]["0"]) for one in (record, tiny.records["fedavg"])]
    for run in runs:
        del run["seconds"]
    assert runs[0] == runs[1]


@pytest.mark.parametrize(("algorithm", "hospital"), [("fedavg", None), ("central", None), ("local", 1)])
def test_a_trained_network_is_found_again_and_measures_what_was_recorded(
    tiny, algorithm, hospital, monkeypatch, tmp_path
):
    monkeypatch.setenv("FEDUTILS_OUTPUT", str(tiny.output))
    task, record = load_task(load_experiment(change())), tiny.records[algorithm]
    run = record["runs"]["0"]
    network = load_trained(task, record, 0, hospital=hospital)
    expected = run["test"] if hospital is None else run["hospitals"]["tests"][hospital]
    assert task.describe_shared(task.test(network, 0), 0)["test"]["all"] == expected["all"]
    monkeypatch.setenv("FEDUTILS_OUTPUT", str(tmp_path))
    with pytest.raises(InputError, match=f"expected the weights of a run .* remove tiny-{algorithm}.json"):
        load_trained(task, record, 0, hospital=hospital)


# ---- table and figures


@pytest.fixture
def records(scored):
    """Make two records of two seeds: a model for all, and one of each hospital's own."""
    tests = [make_test((0.8, 0.6), [(0.5, 0.3), (0.9, 0.7)]), make_test((0.4, 0.2), [(0.5, 0.3), (0.9, 0.7)])]
    told = {
        "fedavg": [scored.describe_shared(test, 0) for test in tests],
        "local": [scored.describe_own([test, *tests], 0) for test in tests],
    }
    common = {"rounds_done": 2, "rounds_planned": 3, "unit": "round", "seconds": 900.0}
    return [
        {
            "name": f"x-{algorithm}",
            "title": "X",
            "experiment": "x",
            "algorithm": algorithm,
            "seeds": [0, 1],
            "seeds_planned": [0, 1, 2],
            "data": {"source": "phantom"},
            "runs": {str(seed): {**one, **common} for seed, one in enumerate(runs)},
            "summary": scored.summarise(runs),
        }
        for algorithm, runs in told.items()
    ]


PLANNED = {**TINY, "name": "x", "title": "X", "seeds": [0, 1, 2]}


def read_table(text):
    """Return the lines of a Markdown table, each a dict by column, and what stands below."""
    table, _, below = text.partition("\n\n")
    heads, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
    return [dict(zip(heads, line, strict=True)) for line in lines], below


def test_the_table_says_what_was_measured_and_what_is_missing(records):
    (local, fedavg, central), note = read_table(
        build_segmentation_table(summarise_segmentations([PLANNED], records))
    )
    dices = [(0.7 + 0.4 + 0.8) / 3, (0.3 + 0.4 + 0.8) / 3]
    assert fedavg["Dice"] == f"{np.mean(dices):.3f} ± {np.std(dices, ddof=1):.3f} (2 of 3 seeds)"
    assert fedavg["HD95"].endswith("mm") and fedavg["rounds"] == "2 of 2 rounds"
    assert local["training"].startswith("local") and fedavg["less central"] == "–"
    assert central["Dice"] == "not run" and central["HD95"] == "–"
    assert "no clinical statement" in note
    worst = records[0]["summary"]["all"]["worst"]
    assert fedavg["lowest hospital"].startswith(f"{worst['mean']:.3f} ± ")
    for record in records:  # where no hospital has patients of its own, none is the lowest
        record["summary"] = {"all": record["summary"]["all"]}
    (_, fedavg, _), _ = read_table(build_segmentation_table(summarise_segmentations([PLANNED], records)))
    assert fedavg["lowest hospital"] == "–"


def test_local_and_central_training_of_another_file_stand_beside_the_federation_that_they_bound(records):
    rows = summarise_segmentations([PLANNED], records)
    assert "of another one" not in build_segmentation_table(rows)
    lent = dict.fromkeys(("local", "central"), "x")
    rows += [{**rows[1], "experiment": "y", "title": "Y", "bounds": lent}]
    lines, note = read_table(build_segmentation_table(rows))
    assert [line["experiment"] for line in lines] == list("XXXYYY") and "of another one" in note
    assert [line["training"] for line in lines[:3]] == [line["training"] for line in lines[3:]]
    assert lines[0]["Dice"] == lines[3]["Dice"] != lines[4]["Dice"]
    regions, _ = read_table(build_regions_table(rows))
    assert [line["training"][:2] for line in regions] == ["X:", "X:", "Y:", "Y:"]


def test_a_federation_is_compared_with_central_training_seed_by_seed(records):
    other = copy.deepcopy(records[0]) | {"algorithm": "central"}
    other["runs"]["0"]["test"]["all"]["dice"] += 0.1
    row = next(r for r in summarise_segmentations([PLANNED], [*records, other]) if r["algorithm"] == "fedavg")
    assert row["against_central"]["values"] == pytest.approx([-0.1, 0]) and row["seeds"] == [0, 1]
    assert row["network"] == "U-Net" and row["source"] == "phantom" and row["held_out"] is None


def test_institutions_and_regions_have_tables_of_their_own(records):
    rows = summarise_segmentations([PLANNED], records)
    (_, _, fedavg), _ = read_table(build_institutions_table(rows))
    assert list(fedavg) == ["training", "A", "B"] and fedavg["training"] == "U-Net, FedAvg"
    of_a = records[0]["summary"]["A"]
    assert fedavg["A"].startswith(f"{np.mean([0.7, 0.3]):.3f} ± ")
    assert f", {of_a['hd95_mm']['mean']:.1f} (2 of 3" in fedavg["A"]
    (_, of_regions), _ = read_table(build_regions_table(rows))
    of_all = records[0]["summary"]["all"]
    assert of_regions["training"] == "X: FedAvg" and set(of_regions) == {"training", "WT", "TC"}
    assert of_regions["TC"].startswith(f"{of_all['dice_tc']['mean']:.3f} ± ")
    assert f", {of_all['hd95_mm_tc']['mean']:.1f} mm" in of_regions["TC"]
    without_a = {**PLANNED, "data": {**PLANNED["data"], "held_out": "A"}}
    left_out = summarise_segmentations([without_a], records)
    assert "FedAvg, institution left out" in build_institutions_table(left_out)
    patients = records[0]["runs"]["0"]["test"]["all"]["n"]
    assert f"all its patients (A {patients}), one" in build_tables(left_out)
    assert "do not compare" not in build_tables(rows)
    told = build_tables([*rows, *[{**row, "source": "kaggle_3m"} for row in rows]])
    assert told.count("**Institution by institution, ") == 2 and "Dice, and HD95 in mm**" in told
    alone = [{**row, "summary": None, "own_by": None, "seeds": []} for row in rows]
    assert build_institutions_table(alone) is None and build_regions_table(alone) is None


def test_a_hospital_alone_is_seen_by_its_own_network_on_its_own_patients(records):
    rows = summarise_segmentations([PLANNED], records)
    (own, mean, _), _ = read_table(build_institutions_table(rows))
    assert own["training"] == "U-Net, local, own network" and own["A"].endswith("(2 of 3 seeds)")
    # The first hospital's network has the scores of the federation; over all networks they vary less.
    assert own["A"].startswith(f"0.500 ± {np.std([0.7, 0.3], ddof=1):.3f}")
    networks = [[0.7, 0.7, 0.3], [0.3, 0.7, 0.3]]
    assert mean["A"].startswith(f"0.500 ± {np.std(np.mean(networks, axis=1), ddof=1):.3f}")
    local, fedavg, _ = rows
    runs = [records[1]["runs"][seed] for seed in "01"]
    for k, name in enumerate("AB"):
        told = [run["hospitals"]["own"][k]["dice"] for run in runs]
        assert local["own_by"][name]["dice"]["values"] == told
    best = [max(one["all"]["dice"] for one in run["hospitals"]["tests"]) for run in runs]
    assert local["best_alone"]["values"] == best
    assert fedavg["own_by"] == {} and fedavg["best_alone"] is None


def test_a_longer_training_has_lines_of_its_own(records):
    training = {**PLANNED["training"], "num_rounds": 2, "local_epochs": 4}
    longer = {**PLANNED, "name": "y", "training": training}
    again = [{**record, "experiment": "y"} for record in records]
    rows = summarise_segmentations([PLANNED, longer], [*records, *again])
    lines, _ = read_table(build_institutions_table(rows))  # neither takes the other's place
    assert [line["training"] for line in lines] == [
        "U-Net, local, own network, 2 epochs",
        "U-Net, local, mean of hospitals, 2 epochs",
        "U-Net, FedAvg, 2 rounds",
        "U-Net, local, own network, 8 epochs",
        "U-Net, local, mean of hospitals, 8 epochs",
        "U-Net, FedAvg, 2 rounds of 4 epochs",
    ]
    assert all(row["length"] is None for row in summarise_segmentations([PLANNED], records))


def test_the_readme_says_what_was_not_run_and_how_long_the_rest_took(records, tmp_path):
    other = {**records[0], "name": "other-fedavg", "experiment": "other"}
    for record in (*records, other):
        (tmp_path / f"{record['name']}.json").write_text(to_json(record))
    told = build_federated_segmentation(tmp_path, {"experiments": [PLANNED]})
    assert "| X | FedAvg | " in told and "| X | central |" not in told
    # Of four runs 15 minutes each, those of the other experiment not counted.
    assert "4 of 9 planned runs done. Their rounds and epochs, with validation, took 1.0 h in all. " in told
    assert told.endswith("Not run: X (central). Not for clinical use.")
    none = build_federated_segmentation(tmp_path, {"experiments": ["phantom_segmentation_smoke"]})
    assert none.endswith("planned runs done: `fedutils experiment phantom_segmentation_smoke` runs them.")


def test_the_figure_shows_each_institution_that_has_a_test_patient_with_a_dot_a_seed(records):
    own = list_own(records[0])
    assert list(own) == ["A", "B"] and [one["dice"] for one in own["A"]] == pytest.approx([0.7, 0.3])
    fig = plot_institutions(records)
    dice, distance = fig.axes
    assert [label.get_text() for label in dice.get_xticklabels()] == ["A", "B"]
    assert len(dice.collections) == 8  # two trainings, two institutions: seeds and their mean
    heights = dice.collections[0].get_offsets()[:, 1]
    np.testing.assert_allclose(heights, [0.7, 0.3])
    assert distance.get_ylabel() == "HD95, mm"
    held_out = {**records[0]["runs"]["0"], "hospitals": {"names": ["C"], "own": [None]}}
    assert set(list_own({**records[0], "seeds": [0], "runs": {"0": held_out}})) == {"A", "B"}


def test_patients_are_drawn_with_their_sides_and_millimetres(slices):
    task = SimpleNamespace(
        pool=slices,
        name_hospitals=lambda seed: ["A", "B"],
        deal=lambda seed: [np.array([0]), np.array([1, 2])],
    )
    fig = plot_hospitals(task, 0)
    ax = fig.axes[1]
    assert ax.get_title() == "B\n2 patients to train" and ax.get_xlabel() == "mm"
    assert [text.get_text() for text in ax.texts] == ["L", "R", "P", "A"]
    assert ax.images[0].get_extent() == [0, 240, 0, 240]
    truth = slices.load_truth(2)
    fig = plot_predictions(task, 2, {"x": truth, "y": ~truth}, {"x": "X", "y": "Y"})
    assert [ax.get_title() for ax in fig.axes[:2]] == ["X", "Y"] and len(fig.axes) == 6
