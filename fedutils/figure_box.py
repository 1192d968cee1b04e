"""A box of controls over a matplotlib figure: what the viewers of `fedutils.viewers` are made of.

The figure is drawn by matplotlib and shown as PNG, so that no backend and no extension is needed, and a test
needs no browser.
"""

import html
import io

import ipywidgets
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fedutils.errors import InputError

_COLUMN = "250px"  # the least width in which a slider has room between its name and its value


class FigureBox(ipywidgets.VBox):
    """Controls above a figure that is drawn again whenever one of them changes.

    Attributes
    ----------
    controls : dict of str to Widget
    figure : Figure
    picture : ipywidgets.Image
        The figure as PNG.
    message : ipywidgets.HTML
        What could not be done, in words; empty otherwise.
    """

    moving: tuple[Artist, ...] = ()  # what changes; the rest is drawn once. Without any, all is drawn anew.

    def __init__(self, figure: Figure, controls: dict[str, ipywidgets.Widget]) -> None:
        self.figure, self.controls = figure, controls
        # Of its own size, smaller on a narrow page: stretched to a wide one it blurs and leaves the window.
        self.picture = ipywidgets.Image(
            format="png", layout={"align_self": "flex-start", "max_width": "100%"}
        )
        self.message = ipywidgets.HTML()
        self._still = None
        FigureCanvasAgg(figure)
        for control in controls.values():
            control.layout.width = "auto"  # of its cell: a fixed width is cut off where the page is narrow
        # As many columns as there is room for: three on a page, two beside a side bar, one on a telephone.
        grid = ipywidgets.GridBox(
            list(controls.values()),
            layout=ipywidgets.Layout(grid_template_columns=f"repeat(auto-fill, minmax({_COLUMN}, 1fr))"),
        )
        super().__init__([grid, self.picture, self.message])
        for control in controls.values():
            control.observe(self._changed, names="value")
        self._changed()

    def _changed(self, _=None) -> None:
        try:
            self.draw()
            self.message.value = ""
        except InputError as error:
            self.message.value = html.escape(str(error))
            return
        self._paint()
        buffer = io.BytesIO()
        # More compression saves little between a kernel and its browser, and takes longer than drawing.
        pixels = np.asarray(self.figure.canvas.buffer_rgba())
        Image.fromarray(pixels).convert("RGB").save(buffer, "png", compress_level=1)
        self.picture.value = buffer.getvalue()

    def _paint(self) -> None:
        """Bring the figure onto its canvas; ticks and labels, the slowest part, only when they may differ."""
        canvas = self.figure.canvas
        if not self.moving:
            canvas.draw()
            return
        if self._still is None:
            for artist in self.moving:
                artist.set_animated(True)  # left out of this drawing
            canvas.draw()
            self._still = canvas.copy_from_bbox(self.figure.bbox)
            for artist in self.moving:
                artist.set_animated(False)
            self.figure.set_layout_engine("none")  # axes stay where the first drawing put them
        canvas.restore_region(self._still)
        for artist in self.moving:
            artist.draw(canvas.get_renderer())

    def forget(self) -> None:
        """Draw all anew, ticks too, next time."""
        self._still = None

    def draw(self) -> None:
        """Draw what the controls say."""
        raise NotImplementedError
