"""The environment and the layout: locks, lazy imports, file sizes, and nothing of one machine in any file."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = sorted((ROOT / "fedutils").rglob("*.py"))
# Who may import whom: a file imports only from its own layer or from those after it.
LAYERS = (
    (
        "cli",
        "cli_experiment",
        "cli_flower",
        "cli_models",
        "cli_report",
        "explorer",
        "figure_box",
        "notebook",
        "plots",
        "plots_costs",
        "plots_data",
        "plots_federated_segmentation",
        "plots_hospital",
        "plots_models",
        "plots_personal",
        "plots_scores",
        "plots_study",
        "profiles",
        "published",
        "readme",
        "readme_network",
        "readme_segmentation",
        "readme_study",
        "replay",
        "report_pages",
        "reproduce",
        "segmentation_table",
        "study_tables",
        "viewers",
    ),
    (
        "evaluate",
        "experiment_bounds",
        "experiment_checks",
        "experiment_classification",
        "experiment_file",
        "experiment_interface",
        "experiment_keys",
        "experiment_networks",
        "experiment_personal",
        "experiment_personal_runs",
        "experiment_personal_scores",
        "experiment_personal_tables",
        "experiment_prepare",
        "experiment_rounds",
        "experiment_runs",
        "experiment_scores",
        "experiment_segmentation",
        "experiment_segmentation_data",
        "experiment_segmentation_scores",
        "experiment_task",
        "experiment_told",
        "experiments",
        "flower_app",
        "flower_client",
        "flower_local",
        "flower_messages",
        "flower_project",
        "flower_server",
        "flower_settings",
        "hospital",
        "llm_endpoint",
        "predict",
        "prose_check",
        "prose_inserts",
        "prose_words",
        "report",
        "report_build",
        "report_facts",
        "report_llm",
        "report_prose",
        "report_rules",
        "report_runs",
        "report_stub",
        "report_template",
        "study",
        "study_costs",
        "study_rates",
        "study_skew",
        "segmentation_study",
    ),
    (
        "aggregators",
        "algorithms",
        "at_home",
        "client_models",
        "communication",
        "federated",
        "fedlc",
        "fednova",
        "fedprox",
        "local_training",
        "optimizers",
        "participation",
        "personalise",
        "round_store",
        "scaffold",
        "stateful",
    ),
    (
        "keras_tff",
        "runtime",
        "program",
        "interpreter",
        "stages",
        "values",
        "fingerprint",
        "graphs",
        "loops",
        "worker",
        "tff",
    ),
    (
        "calibration",
        "centralized",
        "epochs",
        "gradcam",
        "inference",
        "lesion",
        "losses",
        "metrics",
        "model_file",
        "model_info",
        "models",
        "runs",
        "segmentation_metrics",
        "segmentation_pools",
        "slice_metrics",
        "windows",
    ),
    (
        "data",
        "heterogeneity",
        "partition",
        "partition_attributes",
        "partition_quantity",
        "partition_units",
        "preprocess",
        "sources",
    ),
    ("paths", "results", "errors", "quiet", "source_code", "keys", "locks"),
)


def pins(name):
    text = (ROOT / name).read_text()
    assert "://" not in text and "index" not in text.replace("jupyter-builder", "")
    entries = re.split(r"\n(?=\S)", text.strip())
    found = {}
    for entry in entries:
        match = re.match(r"([\w.-]+)==(\S+)", entry)
        assert match and "--hash=sha256:" in entry, entry[:80]
        found[match[1]] = match[2]
    return found


def test_the_lock_pins_and_hashes_every_package():
    found = pins("requirements.lock")
    assert found["tensorflow-federated"] == "0.87.0" and found["tensorflow"].startswith("2.21")
    assert int(found["protobuf"].split(".")[0]) < 7  # so that Flower can join
    for name in ("jupyterlab", "nibabel", "matplotlib", "papermill", "ipywidgets", "keras"):
        assert name in found


def test_the_gpu_lock_is_the_same_lock_and_cuda():
    cpu, gpu = pins("requirements.lock"), pins("requirements-gpu.lock")
    assert {name: gpu[name] for name in cpu} == cpu
    added = set(gpu) - set(cpu)
    assert {"nvidia-cudnn-cu12", "nvidia-cublas-cu12"} <= added and all(
        n.startswith("nvidia-") for n in added
    )


def test_importing_fedutils_loads_nothing_heavy():
    code = (
        "import sys, fedutils.cli, fedutils.partition, fedutils.data.brain_mri;"
        "print([m for m in ('tensorflow', 'keras', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_is_one_idea_of_about_300_lines(path):
    assert len(path.read_text().splitlines()) <= 350
    assert ast.get_docstring(ast.parse(path.read_text())), "say what the file is for"


def layer_of(name):
    return next(i for i, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_point_down(path):
    parts = path.relative_to(ROOT / "fedutils").with_suffix("").parts
    if parts == ("__init__",):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fedutils"):
            below = node.module.split(".")[1:2] or [alias.name for alias in node.names]
            for name in below:
                assert layer_of(name) >= layer_of(parts[0]), f"{parts[0]} imports {name}, which is above it"


def test_no_path_of_a_machine_and_no_index_in_any_file():
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    suffixes = {".py", ".ipynb", ".md", ".toml", ".lock", ".yaml", ".yml", ".typ", ".json", ".cff", ".bib"}
    words = (
        "/" + "root/",
        "/home/" + "[a-z]",
        "/tmp/" + "[a-z]",
        "index" + r"-url[= ]\S*://",
        "/simple/" + "[a-z]",
    )
    for name in files:
        if Path(name).suffix in suffixes:
            text = (ROOT / name).read_text(errors="replace")
            for word in words:
                assert not re.search(word, text), f"{name}: {word}"


def test_nothing_large_is_committed():
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert all((ROOT / name).stat().st_size < 10 * 2**20 for name in files if (ROOT / name).exists())


def test_the_flower_lock_adds_to_the_main_lock_and_changes_nothing():
    main, flower = pins("requirements.lock"), pins("requirements-flower.lock")  # pinned, hashed, no index
    assert flower["flwr"] == "1.41.0" and "ray" in flower
    assert not set(main) & set(flower)
    makefile = (ROOT / "Makefile").read_text()
    assert "\nsetup: .venv/ready .venv/flower\n" in makefile
