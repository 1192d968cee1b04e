"""The measured parts of the README, made from the committed results and benchmarks and from nothing else."""

import json
from pathlib import Path

from fedutils import paths
from fedutils.results import write_atomic

README = paths.ROOT / "README.md"


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
    partitions = federated["metrics"]["summary"]
    for name, summary in sorted(partitions.items(), key=lambda item: item[0] != "iid"):
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
        f"Profile `{federated['profile']}`, {source}, {settings['image_size']} px; mean ± standard deviation "
        f"over {len(federated['seeds'])} seeds; {central['metrics']['epochs_planned']} epochs centrally, "
        f"{min(done)} of {federated['metrics']['rounds_planned']} planned rounds of "
        f"{settings['local_epochs']} local epoch(s); {tests['public']['n']} public test images, "
        f"{tests['unseen']['n']} of them without an exact copy in Training. Epoch and round were chosen on "
        "validation images. Not for clinical use.",
    ]
    return "\n".join(lines)


def build_costs(file: Path) -> str:
    """Return what a round costs as Markdown.

    Parameters
    ----------
    file : Path
        ``benchmarks/results.json``.
    """
    measured = json.loads(file.read_text())
    scale = (
        f"{measured['round_num_clients']} clients, {measured['round_steps']} steps, "
        f"{measured['round_num_parameters']:,} parameters, {measured['round_image_size']} px"
    )
    return (
        f"A round of FedAvg ({scale}; median of {measured['round_num_measured']}) took "
        f"{measured['round_ratio_in_process']:.2f} times the CPU seconds of a bare TensorFlow loop over the "
        f"same steps in process, and {measured['round_ratio_worker']:.2f} times in TFF's worker "
        f"(`make bench`, {measured['machine']['cores']} cores, {measured['machine']['device']})."
    )


def replace_block(text: str, name: str, content: str) -> str:
    """Return `text` with `content` between the marks ``<!-- name: start -->`` and ``<!-- name: end -->``."""
    start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
    before, rest = text.split(start)
    return f"{before}{start}\n{content}\n{end}{rest.split(end)[1]}"


def update_readme() -> None:
    """Write the results' table and the benchmarks' line into the README."""
    text = replace_block(README.read_text(), "results", build_table(paths.ROOT / "results"))
    costs = paths.ROOT / "benchmarks" / "results.json"
    if costs.exists():
        text = replace_block(text, "benchmarks", build_costs(costs))
    write_atomic(README, text.encode())
