"""A widget that deals a data set out by any kind of partition, as its sliders say."""

from collections.abc import Sequence

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from fedutils.errors import InputError
from fedutils.figure_box import FigureBox
from fedutils.heterogeneity import count_labels, measure_divergence, measure_heterogeneity
from fedutils.partition import (
    partition_classes,
    partition_combined,
    partition_dirichlet,
    partition_iid,
    partition_quantity,
    partition_shards,
)
from fedutils.partition_attributes import partition_institution, partition_tumour_size
from fedutils.partition_units import check_positive
from fedutils.plots_data import plot_holdings

# By kind: the function, and which sliders it listens to, by the name of its argument.
_KINDS = {
    "IID": (partition_iid, {}),
    "Dirichlet": (partition_dirichlet, {"alpha": "alpha"}),
    "classes per client": (partition_classes, {"classes": "classes_per_client"}),
    "shards": (partition_shards, {"classes": "shards_per_client"}),
    "quantity": (partition_quantity, {"exponent": "exponent"}),
    "label and quantity": (partition_combined, {"alpha": "alpha", "exponent": "exponent"}),
}
_ALPHAS = (0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0, 300.0)


class PartitionExplorer(FigureBox):
    """Who holds what for the partition that the controls name; made by `explore_partition`.

    Attributes
    ----------
    controls : dict
        ``kind``, ``clients``, ``alpha``, ``classes``, ``exponent``, ``seed``.
    clients : list of int64 (n,)
        The partition that is shown.
    names : list of str
        Of its clients.
    measured : dict of str to float
        Its heterogeneity.
    """

    def __init__(
        self, labels, class_names, groups, institutions, tumour_sizes, minimum, num_clients, alpha, seed
    ) -> None:
        self._labels, self._class_names = np.asarray(labels), tuple(class_names)
        self._groups, self._minimum = groups, minimum
        self._institutions, self._tumour_sizes = institutions, tumour_sizes
        self.clients, self.names, self.measured = [], [], {}
        kinds = list(_KINDS)
        kinds += ["institution"] if institutions is not None else []
        kinds += ["tumour size"] if tumour_sizes is not None else []
        most = len(labels) if groups is None else len(set(groups))
        style = {"description_width": "70px"}
        controls = {
            "kind": ipywidgets.Dropdown(options=kinds, value="Dirichlet", description="kind", style=style),
            "clients": ipywidgets.IntSlider(
                min(num_clients, most),
                1,
                min(max(20, num_clients), most),
                description="hospitals",
                style=style,
            ),
            "seed": ipywidgets.IntSlider(seed, 0, max(50, seed), description="seed", style=style),
            # Chosen values: a sliding scale shows the nearest of its steps, 0.316, where 0.3 was asked for.
            "alpha": ipywidgets.SelectionSlider(
                options=[(f"{value:g}", value) for value in sorted({*_ALPHAS, alpha})],
                value=alpha,
                description="alpha",
                style=style,
            ),
            "exponent": ipywidgets.FloatSlider(
                1.0, min=0.0, max=3.0, step=0.1, description="exponent", style=style
            ),
            "classes": ipywidgets.IntSlider(
                min(2, len(self._class_names)), 1, len(self._class_names), description="classes", style=style
            ),
        }
        super().__init__(Figure(figsize=(7.2, 3.6), dpi=100, layout="constrained"), controls)

    def draw(self) -> None:
        """Draw the partition that the controls name."""
        kind = self.controls["kind"].value
        listening = _KINDS.get(kind, (None, {"alpha": "alpha"} if kind == "tumour size" else {}))[1]
        for name in ("alpha", "exponent", "classes"):
            self.controls[name].disabled = name not in listening
        self.clients, self.names = self._deal(kind, listening)
        counts = count_labels(self._labels, self.clients, len(self._class_names))
        self.measured = {
            **measure_heterogeneity(counts),
            "divergence": measure_divergence(counts),
            "smallest": int(counts.sum(axis=1).min()),
        }
        self.figure.clear()
        ax = plot_holdings(counts, self._class_names, self.figure.subplots(), names=self.names)
        ax.set_title(
            f"{kind}: label distance {self.measured['label_distance']:.2f}, "
            f"divergence {self.measured['divergence']:.2f} bit, "
            f"size imbalance {self.measured['size_imbalance']:.2f}"
        )
        self.figure.legend(
            *ax.get_legend_handles_labels(), loc="outside lower center", ncols=len(self._class_names)
        )

    def _deal(self, kind, listening):
        if kind == "institution":
            return partition_institution(self._institutions, minimum=self._minimum, groups=self._groups)
        num_clients = self.controls["clients"].value
        options = {argument: self.controls[name].value for name, argument in listening.items()}
        options |= {"seed": self.controls["seed"].value, "minimum": self._minimum, "groups": self._groups}
        if kind == "tumour size":
            clients = partition_tumour_size(self._tumour_sizes, num_clients, **options)
        else:
            clients = _KINDS[kind][0](self._labels, num_clients, **options)
        return clients, [f"hospital {k + 1}" for k in range(num_clients)]


def explore_partition(
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    groups: Sequence | None = None,
    institutions: Sequence[str] | None = None,
    tumour_sizes: np.ndarray | None = None,
    minimum: int = 8,
    num_clients: int = 5,
    alpha: float = 0.3,
    seed: int = 0,
) -> PartitionExplorer:
    """Choose a kind of partition and turn its sliders; see who holds what, and how heterogeneous that is.

    Parameters
    ----------
    labels : int (N,)
    class_names : sequence of str
    groups : sequence of N, optional
        The patient of each image: never parted.
    institutions : sequence of N str, optional
        Adds the partition by institution.
    tumour_sizes : float (N,), optional
        Adds the partition by size of the tumour.
    minimum : int
        Images that each client gets at least.
    num_clients, alpha, seed
        Where the sliders stand at first.

    Returns
    -------
    PartitionExplorer
        What cannot be done (more clients than patients, say) is told below the figure, which then stays as it
        was.

    Raises
    ------
    InputError
        If there is no image, a label has no name, or `alpha` is not positive.
    """
    if len(labels) == 0 or int(np.max(labels)) >= len(class_names):
        raise InputError(
            f"labels: expected some, from 0 to {len(class_names) - 1}, found "
            f"{f'up to {int(np.max(labels))}' if len(labels) else 'none'}; name every class"
        )
    check_positive("alpha", alpha)
    return PartitionExplorer(
        labels, class_names, groups, institutions, tumour_sizes, minimum, num_clients, alpha, seed
    )
