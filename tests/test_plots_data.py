import matplotlib.pyplot as plt
import numpy as np

from fedutils import paths, plots
from fedutils.plots_data import plot_attribute, plot_holdings, plot_summary

COUNTS = np.array([[3, 1, 0], [0, 5, 2]])


def test_bars_add_up_and_carry_the_names():
    ax = plot_holdings(COUNTS, ("a", "b", "c"), names=("CS", "EZ"), unit="cases")
    assert [bar.get_width() for bar in ax.patches] == [3, 0, 1, 5, 0, 2]  # by class, then by client
    assert [bar.get_x() for bar in ax.patches] == [0, 0, 3, 0, 4, 5]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["CS", "EZ"]
    assert ax.get_xlabel() == "cases" and ax.yaxis_inverted()


def test_clients_without_names_are_numbered_and_steps_go_from_light_to_dark():
    ax = plot_holdings(COUNTS, ("small", "medium", "large"), ordered=True)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["hospital 1", "hospital 2"]
    light = [sum(ax.patches[i].get_facecolor()[:3]) for i in (0, 2, 4)]
    assert light[0] > light[1] > light[2]


def test_more_classes_than_colours_are_drawn():
    assert len(plot_holdings(np.ones((2, 11), int), [str(c) for c in range(11)]).patches) == 22


def test_every_value_is_a_dot_in_its_row_and_again_below():
    values, clients = np.array([5.0, 1.0, 3.0, 9.0]), [np.array([0, 2]), np.array([1]), np.array([3])]
    ax = plot_attribute(values, clients, names=("A", "B", "C"), quantity="tumour, ml")
    dots = [line for line in ax.lines if line.get_marker() == "."]
    assert [sorted(d.get_xdata()) for d in dots] == [[3, 5], [1], [9], [1, 3, 5, 9]]
    for row, dot in enumerate(dots, start=1):
        assert np.abs(dot.get_ydata() - row).max() <= 0.2
    assert [t.get_text() for t in ax.get_yticklabels()] == ["A", "B", "C", "all"]
    low, high = ax.get_ylim()
    assert low > high and ax.get_xlabel() == "tumour, ml"


def test_a_summary_shows_every_number_with_its_digits():
    table = {"IID": {"distance": 0.019, "size": 1.0}, "skew": {"distance": 0.352, "size": 12.5}}
    ax = plot_summary(table, digits={"distance": 3, "size": 1})
    assert [t.get_text() for t in ax.texts] == ["0.019", "1.0", "0.352", "12.5"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["IID", "skew"]
    shades = ax.images[0].get_array()
    assert shades[0].tolist() == [0, 0] and np.allclose(shades[1], 0.7)


def test_a_column_of_one_value_is_left_white():
    assert plot_summary({"a": {"x": 2.0}, "b": {"x": 2.0}}).images[0].get_array().max() == 0


def test_they_draw_on_a_given_axis_and_the_same_bytes_each_time():
    def draw():
        plots.use_style()
        fig, axes = plt.subplots(1, 3)
        assert plot_holdings(COUNTS, ("a", "b", "c"), axes[0]) is axes[0]
        assert plot_attribute(np.arange(4.0), [np.arange(4)], axes[1]) is axes[1]
        assert plot_summary({"a": {"x": 1.0}}, axes[2]) is axes[2]
        plots.save_figure(fig, "03_x")
        return (paths.figures_dir() / "03_x.svg").read_bytes()

    assert draw() == draw()
