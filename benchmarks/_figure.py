"""Draw ``figures/benchmarks.svg`` and ``.png`` from ``benchmarks/results.json``.

Left: CPU seconds of a round relative to the bare loop. Middle: a client's time against the number of
clients. Right: memory relative to the bare loop. What was not measured is left out.
"""

import argparse
import json
import os
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patheffects import withStroke

from fedutils import paths, plots

RUNTIMES = {"in_process": "TFF in process", "worker": "TFF's worker", "flower": "Flower's simulation engine"}
# Short enough for the width of a panel.
NETWORKS = {
    "separable": "separable\nCNN",
    "cnn": "two-conv.\nCNN",
    "mobilenet": "MobileNet\nV3 small",
    "unet3d": "3-D\nU-Net",
}


def plot_ratios(measured, key, ax):
    """Draw a group of bars for each network, one a runtime, and the bare loop as a line at 1."""
    suffixes = ["" if network == "separable" else f"_{network}" for network in NETWORKS]
    table = np.array([[measured.get(f"{key}_{r}{s}", np.nan) for r in RUNTIMES] for s in suffixes])
    present = ~np.isnan(table)
    width = 0.84 / max(present.sum(axis=1).max(), 1)
    # Each group is centred on its network, whichever of its bars are missing.
    places = np.cumsum(present, axis=1) - (present.sum(axis=1, keepdims=True) + 1) / 2
    left = np.arange(len(NETWORKS))[:, None] + width * places
    halo = [withStroke(linewidth=2, foreground="w")]
    for i, label in enumerate(RUNTIMES.values()):
        here = present[:, i]
        bars = ax.bar(left[here, i], table[here, i], 0.92 * width, color=plots.COLOURS[i], label=label)
        ax.bar_label(bars, fmt="%.2f", fontsize=6.5, padding=1.5, path_effects=halo, zorder=4)
    ax.axhline(1, color="k", lw=1, ls=(0, (4, 2)), label="bare TensorFlow loop")
    ax.set_xticks(range(len(NETWORKS)), NETWORKS.values())
    ax.tick_params(axis="x", length=0)
    ax.grid(axis="x", visible=False)
    ax.margins(y=0.1)
    ax.set_ylabel("relative to the bare loop")
    return ax


def plot_clients(measured, ax):
    """Draw a client's time, over that among five clients in the same minutes, in a band of ten per cent."""
    relative = measured.get("clients_scaling_time_over_five", {})
    numbers = sorted(map(int, relative))
    if numbers:
        values = np.array([relative[str(n)] for n in numbers])
        middle = (values.min() + values.max()) / 2
        ax.axhspan(middle / 1.05, middle * 1.05, color="0.88", lw=0)
        ax.annotate("10 %", (numbers[0], middle / 1.07), ha="left", va="top", fontsize=7, color="0.35")
        ax.plot(numbers, values, color=plots.COLOURS[0], marker="o", markersize=4)
        ax.set_xscale("log")
        ax.set_xticks(numbers, [f"{n:,}" for n in numbers])
        ax.minorticks_off()
        ax.set_ylim(0, 1.35 * values.max())
    ax.set_xlabel("clients in a round")
    ax.set_ylabel("relative to five clients")
    return ax


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results.json")
    parser.add_argument("--out", type=Path, default=paths.ROOT, help="holds the folder figures")
    options = parser.parse_args()
    measured = json.loads(options.results.read_text())
    plots.use_style()
    fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.2), width_ratios=(4, 2.4, 4))
    plot_ratios(measured, "round_ratio", axes[0]).set_title("CPU seconds of a round", loc="left")
    plot_clients(measured, axes[1]).set_title("Time of a small client", loc="left")
    plot_ratios(measured, "memory_ratio", axes[2]).set_title("Peak memory of a round", loc="left")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    os.environ["FEDUTILS_OUTPUT"] = str(options.out)  # beside the published figures, not those of a run
    plots.save_figure(fig, "benchmarks")


if __name__ == "__main__":
    main()
