"""The measured parts of the README, made from the committed results and benchmarks and from nothing else."""

import json
from pathlib import Path

from fedutils import paths
from fedutils.profiles import load_profile
from fedutils.readme_network import tell_network
from fedutils.readme_segmentation import build_federated_segmentation, build_outlines
from fedutils.readme_study import build_personal, build_study
from fedutils.results import write_atomic

README = paths.ROOT / "README.md"
FIGURE = paths.ROOT / "figures" / "benchmarks.png"
# The networks of benchmarks/ by their names in its keys.
BENCHMARKED = {
    "separable": "separable CNN",
    "cnn": "two-convolution CNN",
    "mobilenet": "MobileNetV3 small",
    "unet3d": "3-D U-Net",
}
TRAINED = BENCHMARKED | {
    "unet2d": "U-Net",
    "unet_plus_plus2d": "U-Net++",
    "attention_unet2d": "Attention U-Net",
}


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
        "| training | test accuracy, de-duplicated, % | macro F1, % | macro AUC, % "
        "| test accuracy, public, % |",
        "|---|---|---|---|---|",
    ]
    rows = {"central": central["metrics"]["summary"]}
    partitions = federated["metrics"]["summary"]
    for name, summary in sorted(partitions.items(), key=lambda item: item[0] != "iid"):
        words = "IID" if name == "iid" else f"label skew, Dirichlet {name.split('_')[1]}"
        rows[f"FedAvg, {federated['parameters']['num_clients']} hospitals, {words}"] = summary
    if leaky := central["metrics"]["leaky_split"]:
        rows["central, as many images of the leaky public split"] = leaky
    for name, summary in rows.items():
        kept = summary["deduplicated"]
        cells = [kept["accuracy"], kept["f1"], kept["auc"], summary["public"]["accuracy"]]
        lines.append(f"| {name} | {' | '.join(map(_cell, cells))} |")
    data, settings = federated["data"], federated["parameters"]
    source = {"brain_mri": "the real Brain Tumor MRI images"}.get(
        data["source"], "a phantom: no patient is in it"
    )
    tests = central["metrics"]["tests"][str(central["seeds"][0])]
    done = federated["metrics"]["rounds_done"].values()
    kept_of = (
        f"trained on the {data['num_training']:,} images of Training that are no copy, exact or near, of a "
        "test image"
        if data["split"] == "deduplicated"
        else "trained on the public split, leaks included"
    )
    lines += [
        "",
        f"Profile `{federated['profile']}`, {source}, {settings['image_size']} px; mean ± standard deviation "
        f"over {len(federated['seeds'])} seeds; {central['metrics']['epochs_planned']} epochs centrally, "
        f"{min(done)} of {federated['metrics']['rounds_planned']} planned rounds of "
        f"{settings['local_epochs']} local epoch(s); {tests['public']['n']} public test images, "
        f"{tests['deduplicated']['n']} of them once each and under one label; {kept_of}. "
        "Epoch and round were chosen on validation images. Not for clinical use.",
    ]
    return "\n".join(lines)


def build_choices(folder: Path) -> str:
    """Return what each change of the central training brings, as Markdown.

    Parameters
    ----------
    folder : Path
        Holds the result of notebook 04.
    """
    record = _load(folder, "04_centralized_classification")
    measured = record["metrics"]
    lines = [
        "| central training | parameters | validation accuracy, % | test accuracy, % | change, points |",
        "|---|---|---|---|---|",
    ]
    ablation = measured["ablation"].items()
    for name, told in sorted(
        ablation, key=lambda row: -(row[1]["change"] or {"difference": 1})["difference"]
    ):
        change = "–"
        if told["change"]:
            points = [100 * v for v in (told["change"]["difference"], *told["change"]["interval"])]
            change = "{:+.1f} ({:+.1f} to {:+.1f})".format(*points)
        lines.append(
            f"| {name} | {told['num_parameters']:,} | {_cell(told['validation_accuracy'])} | "
            f"{_cell(told['test_accuracy'])} | {change} |"
        )
    file, told = measured["model_file"], measured["calibration"].values()
    before, after = (sum(t["ece"][key] for t in told) / len(told) for key in ("before", "after"))
    lines += [
        "",
        f"One thing changed at a time, {len(record['seeds'])} seeds, {record['parameters']['image_size']} px "
        f"and {measured['epochs_planned']} epochs but where it says so; de-duplicated test images; the "
        "change is image by image, with its 95 % interval over test images. A temperature that was fitted on "
        f"validation images takes the yardstick's calibration error from {before:.3f} to {after:.3f}. "
        f"`pretrained/{file['name']}` ({file['bytes'] / 1e6:.1f} MB) is the variant that was best on "
        f"validation images, {file['variant']}: accuracy {100 * file['accuracy'][0]:.1f} % on {file['n']} "
        "test images. What this does not show: what "
        "each network could reach with settings of its own. Not for clinical use.",
    ]
    return "\n".join(lines)


def build_costs(file: Path) -> str:
    """Return as Markdown what a round costs beside a bare loop, how it scales, and the figure if it is there.

    Parameters
    ----------
    file : Path
        ``benchmarks/results.json``. What it does not hold is shown as a dash, or left out.
    """
    measured = json.loads(file.read_text())
    lines = [
        "| network | parameters | CPU, in process | CPU, TFF's worker | CPU, Flower | wall clock, in process "
        "| memory, in process | memory, TFF's worker |",
        "|---|---|---|---|---|---|---|---|",
    ]
    columns = (
        "round_ratio_in_process",
        "round_ratio_worker",
        "round_ratio_flower",
        "round_wall_ratio_in_process",
        "memory_ratio_in_process",
        "memory_ratio_worker",
    )
    for name, words in BENCHMARKED.items():
        suffix = "" if name == "separable" else f"_{name}"
        cells = [measured.get(f"{column}{suffix}") for column in columns]
        cells = ["–" if cell is None else f"{cell:.2f}" for cell in cells]
        if parameters := measured.get(f"round_num_parameters{suffix}"):
            lines.append(f"| {words} | {parameters:,} | {' | '.join(cells)} |")
    machine = measured["machine"]
    remarks = [
        "A round of FedAvg relative to a bare TensorFlow loop over the same steps (medians; CPU: seconds of "
        f"all processes; memory: their peaks, above the imports; {measured['round_num_clients']} clients; "
        f"`make bench`, {machine['cores']} cores, {machine['device']})."
    ]
    if refusal := measured.get("worker_as_shipped"):
        remarks.append(f"TFF's worker runs without its limit on a client's data; as shipped: `{refusal}`.")
    if per_client := measured.get("clients_scaling_seconds_per_client"):
        counts, memory = sorted(per_client, key=int), measured["clients_scaling_memory_mb"]
        remarks.append(
            f"With {counts[0]} to {int(counts[-1]):,} small clients in a round, a client took "
            f"{1e3 * min(per_client.values()):.1f} to {1e3 * max(per_client.values()):.1f} ms, and the whole "
            f"process {min(memory.values()):,} to {max(memory.values()):,} MB."
        )
        if cpu := measured.get("clients_scaling_cpu_over_five"):
            wall = measured["clients_scaling_time_over_five"]
            remarks.append(
                "Over what a client took in rounds of five run in the midst of the same round, that is "
                f"{min(wall.values()):.2f} to {max(wall.values()):.2f}, and in CPU seconds "
                f"{min(cpu.values()):.2f} to {max(cpu.values()):.2f}."
            )
    for network, seconds in measured.get("concurrency_wall_seconds", {}).items():
        if words := BENCHMARKED.get(network):
            memory = measured["concurrency_memory_mb"][network]
            one, two = (f"{seconds[n]:.1f} s and {memory[n]:,} MB" for n in ("1", "2"))
            remarks.append(f"One client of the {words} at a time took {one} a round, two took {two}.")
    if seconds := measured.get("aggregation_scaling_seconds"):
        sizes = sorted(seconds, key=float)
        remarks.append(
            f"Models of {', '.join(sizes)} million parameters took "
            f"{', '.join(f'{seconds[size]:.2g}' for size in sizes)} s a round of one step a client."
        )
    lines += ["", " ".join(remarks)]
    if ratio := measured.get("load_case_ratio"):
        lines += [
            "",
            f"Reading a case ({measured['load_case_source']}) and preparing it took {ratio:.2f} times the "
            "seconds of decompressing its files, and the plain nibabel route "
            f"{measured['load_case_nibabel_ratio']:.1f} times ours; an epoch from the cache took "
            f"{measured['cached_epoch_ratio']:.2f} times reading the same bytes by `numpy.fromfile`; "
            f"{measured['prepare_num_cases']} cases took "
            f"{measured['prepare_memory_ratio']:.2f} times the memory of two.",
        ]
    if fastest := measured.get("throughput_fastest_ratio"):
        cpu, speeds = (measured[f"throughput_{key}"] for key in ("cpu_ratio", "examples_per_second"))
        each = [f"{TRAINED[n]} {r:.2f}, {cpu[n]:.2f}, {speeds[n]:.3g}/s" for n, r in fastest.items()]
        lines += [
            "",
            "Central training, an epoch of `fedutils.epochs.train_epochs` over plain `tf.function` steps of "
            "the same network: wall clock of the fastest epochs, CPU seconds (median), examples a second: "
            f"{'; '.join(each)}.",
        ]
    if seconds := measured.get("inference_case_s"):
        lines += [
            "",
            f"A whole case of 240 x 240 x 155 voxels took {seconds:.1f} s through a "
            f"{measured['inference_network']} ({measured['inference_num_windows']} windows that overlap by "
            f"half), {measured['inference_ratio']:.2f} times the CPU seconds of calling the bare network as "
            f"often; mirrored too, {measured['inference_mirrored_s']:.1f} s.",
        ]
    if check := measured.get("report_check_ms"):
        lines += [
            "",
            f"From facts to a page as PDF a report took {measured['report_pdf_ms']:.1f} ms; checking what a "
            f"language model wrote took {check:.1f} ms. Of {measured['report_replies_tried']} adversarial "
            f"replies {measured['report_replies_passed']} passed the check.",
        ]
    lines += tell_network(measured)
    if FIGURE.exists():
        words = "CPU seconds of a round, time of a small client and peak memory, by network and runtime"
        lines += ["", f"![{words}]({FIGURE.relative_to(paths.ROOT)})"]
    return "\n".join(lines)


def build_matrix(file: Path) -> str:
    """Return what runs in process and in TFF's worker as a Markdown table.

    Parameters
    ----------
    file : Path
        ``tests/what_runs.json``: of each group the outcome of each case, by name.
    """
    lines = ["| | in process | TFF's worker | |", "|---|---|---|---|"]
    for group, outcomes in json.loads(file.read_text()).items():
        cells, refused = [], 0
        for name, outcome in outcomes.items():
            checked, _, reason = outcome.partition("; the worker refuses: ")
            refused += bool(reason)
            remark = f" (**not in the worker**: {reason})" if reason else " °" * (checked == "closed form")
            cells.append(f"{name}{remark}")
        count = len(outcomes)
        lines.append(
            f"| **{group}** | {count} of {count} | {count - refused} of {count} | {' · '.join(cells)} |"
        )
    lines += [
        "",
        "Two rounds of each on both runtimes: weights, metrics and results agree to 1e-5 (°: random, held "
        "to a mean, a deviation or a bound derived by hand).",
    ]
    return "\n".join(lines)


def replace_block(text: str, name: str, content: str) -> str:
    """Return `text` with `content` between the marks ``<!-- name: start -->`` and ``<!-- name: end -->``."""
    start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
    before, rest = text.split(start)
    return f"{before}{start}\n{content}\n{end}{rest.split(end)[1]}"


def build_blocks() -> dict[str, str]:
    """Return the content of every measured block of the README, by name."""
    results, settings = paths.ROOT / "results", load_profile("thesis")
    studied = results / "experiments"
    return {
        "results": build_table(results),
        "choices": build_choices(results),
        "study": build_study(studied, settings["08_heterogeneity"]),
        "personal": build_personal(studied, settings["09_personalisation_and_fairness"]),
        "segmentation": build_outlines(results),
        "federated segmentation": build_federated_segmentation(
            studied, settings["07_federated_segmentation"]
        ),
        "what runs": build_matrix(paths.ROOT / "tests" / "what_runs.json"),
        "benchmarks": build_costs(paths.ROOT / "benchmarks" / "results.json"),
    }


def update_readme() -> None:
    """Write every measured block into the README."""
    text = README.read_text()
    for name, content in build_blocks().items():
        text = replace_block(text, name, content)
    write_atomic(README, text.encode())
