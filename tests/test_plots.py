import matplotlib.pyplot as plt
import numpy as np

from fedutils import paths, plots, plots_data


def test_the_same_figure_gives_the_same_bytes():
    def draw():
        plots.use_style()
        ax = plots.plot_curves({"a": np.array([[0.1, 0.4], [0.3, 0.5]])}, quantity="accuracy")
        plots.save_figure(ax.figure, "03_x")
        return [(paths.figures_dir() / f"03_x.{s}").read_bytes() for s in ("svg", "png")]

    assert draw() == draw()


def test_partition_bars_add_up():
    counts = np.array([[3, 1], [0, 5]])
    ax = plots_data.plot_holdings(counts, ("a", "b"))
    assert sum(bar.get_width() for bar in ax.patches) == counts.sum()
    assert ax.get_xlabel() == "images" and ax.yaxis_inverted()


def test_confusion_shows_every_count():
    ax = plots.plot_confusion([[2, 1], [0, 7]], ("a", "b"))
    assert sorted(t.get_text() for t in ax.texts) == ["0", "1", "2", "7"]
    assert ax.get_ylabel() == "true" and ax.get_xlabel() == "predicted"


def test_curves_show_mean_and_range():
    ax = plots.plot_curves({"a": np.array([[0.0, 0.2], [1.0, 0.4]])}, quantity="loss")
    assert np.allclose(ax.lines[0].get_ydata(), [0.5, 0.3]) and len(ax.collections) == 1


def test_planes_are_labelled_and_the_right_slices():
    volume = np.zeros((7, 8, 9), np.float32)
    labels = np.zeros((7, 8, 9), np.uint8)
    labels[2, 3, 4], volume[2, 3, 4] = 4, 1.0
    fig = plots.plot_planes(volume, labels, (1.0, 2.0, 3.0))
    axial, coronal, sagittal = fig.axes
    assert [ax.get_title() for ax in fig.axes] == ["axial, 12 mm", "coronal, 6 mm", "sagittal, 2 mm"]
    assert np.unravel_index(axial.images[0].get_array().argmax(), (8, 7)) == (3, 2)  # (anterior, left)
    assert {t.get_text() for t in axial.texts} == {"L", "R", "A", "P"}
    assert {t.get_text() for t in sagittal.texts} == {"A", "P", "I", "S"}
    assert coronal.get_xlabel() == "mm"


def test_plots_draw_on_a_given_axis_and_never_show():
    fig, ax = plt.subplots()
    truth, logits = np.array([0, 1, 0, 1]), np.array([[2.0, 0], [0, 2], [1, 0], [1, 0]])
    assert plots.plot_roc(truth, logits, ("a", "b"), ax) is ax
    assert len(fig.axes) == 1
