"""The results table of the README, made from the committed results and from nothing else."""

import json
from pathlib import Path

from fedutils import paths
from fedutils.results import write_atomic

START, END = "<!-- results: start -->", "<!-- results: end -->"


def _load(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def _cell(value: dict) -> str:
    return f"{100 * value['mean']:.1f} ± {100 * value['std']:.1f}"


def build_table(folder: Path) -> str:
    """Return the table as Markdown.

    Parameters
    ----------
    folder : Path
        Holds the results of notebooks 04 and 05.
    """
    central = _load(folder, "04_centralized_classification")
    federated = _load(folder, "05_federated_classification")
    lines = [
        "| training | test accuracy, public, % | test accuracy, unseen, % | macro F1, unseen, % "
        "| macro AUC, unseen, % |",
        "|---|---|---|---|---|",
    ]
    rows = {"central": central["metrics"]["summary"]}
    for name, summary in federated["metrics"]["summary"].items():
        words = "IID" if name == "iid" else f"label skew, Dirichlet {name.split('_')[1]}"
        rows[f"FedAvg, {federated['parameters']['num_clients']} hospitals, {words}"] = summary
    for name, summary in rows.items():
        unseen = summary["unseen"]
        cells = [summary["public"]["accuracy"], unseen["accuracy"], unseen["f1"], unseen["auc"]]
        lines.append(f"| {name} | {' | '.join(map(_cell, cells))} |")
    data, settings = federated["data"], federated["parameters"]
    source = {"brain_mri": "the real Brain Tumor MRI images"}.get(
        data["source"], "a phantom: no patient is in it"
    )
    tests = central["metrics"]["tests"][str(central["seeds"][0])]
    done = federated["metrics"]["rounds_done"].values()
    lines += [
        "",
        f"Profile `{federated['profile']}`, {source}, {settings['image_size']} px; mean ± standard deviation over "
        f"{len(federated['seeds'])} seeds; {central['metrics']['epochs_planned']} epochs centrally, "
        f"{min(done)} of {federated['metrics']['rounds_planned']} planned rounds of "
        f"{settings['local_epochs']} local epoch(s); {tests['public']['n']} public test images, "
        f"{tests['unseen']['n']} of them without an exact copy in Training. Epoch and round were chosen on "
        "validation images. Not for clinical use.",
    ]
    return "\n".join(lines)


def update_readme(folder: Path) -> None:
    """Put the table of `folder` between the README's marks."""
    readme = paths.ROOT / "README.md"
    text = readme.read_text()
    before, rest = text.split(START)
    after = rest.split(END)[1]
    write_atomic(readme, f"{before}{START}\n{build_table(folder)}\n{END}{after}".encode())
