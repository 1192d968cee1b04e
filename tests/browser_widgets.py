"""Turn the notebooks' widgets in a real browser as a reader does: what changes, how fast, what is cut off.

Not run by pytest, since a browser is no part of the environment. By hand, where Chromium is installed:

    python3 -m venv build/browser && build/browser/bin/pip install playwright
    build/browser/bin/python tests/browser_widgets.py build/shots --width 1000 --only 03_partitioning

Starts JupyterLab on loopback with a home of its own, runs copies of the notebooks on the phantom, and leaves
a picture of each widget at first and after every control. Ends with status 1 if a control changes nothing, a
figure does not follow it to the end, no static figure stands above, or anything is cut off.
"""

import argparse
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ("01_data_exploration", "03_partitioning", "08_heterogeneity")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
HOMES = ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
HOMES += ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "MPLCONFIGDIR", "FEDUTILS_OUTPUT")
IDLE = "document.querySelector('.jp-Notebook-ExecutionIndicator')?.getAttribute('data-status') === 'idle'"
# Its last cell has a number, or one ended in an error.
RAN = """/[0-9]/.test([...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].at(-1)?.textContent)
  || document.querySelector('[data-mime-type="application/vnd.jupyter.error"]')"""
# When each new picture stood in the page.
WATCH = "img => { window.shown = []; img.addEventListener('load', () => shown.push(performance.now())) }"
DIGEST = """async img => {
  const bytes = await (await fetch(img.src)).arrayBuffer();
  return [...new Uint8Array(await crypto.subtle.digest('SHA-1', bytes))].join() }"""
CUT_OFF = """box => {
  const edge = box.closest('.jp-OutputArea').getBoundingClientRect().right + 1;
  return [...box.querySelectorAll('.widget-readout, .widget-label, select, img')].filter(e =>
    e.getBoundingClientRect().right > edge || (e.tagName === 'DIV' && e.scrollWidth > e.clientWidth + 1)
  ).map(e => e.textContent || e.tagName) }"""
STATIC = """box => {
  const cell = box.closest('.jp-Cell'), figures = document.querySelectorAll('.jp-RenderedImage img');
  return [...figures].some(e => cell.compareDocumentPosition(e) & Node.DOCUMENT_POSITION_PRECEDING) }"""


@contextmanager
def run_lab(folder):
    """Start JupyterLab on copies of the notebooks; yield the address of a notebook, its name left open."""
    port, token = 8000 + secrets.randbelow(2000), secrets.token_hex(8)
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    environment = os.environ | {name: str(folder / name.lower()) for name in HOMES}
    command = [ROOT / ".venv/bin/jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    command += [f"--port={port}", f"--IdentityProvider.token={token}", folder / "notebooks"]
    with (folder / "lab.log").open("w") as log:
        lab = subprocess.Popen(command, env=environment | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log)
    try:
        while "is running at" not in (text := (folder / "lab.log").read_text()):
            if lab.poll() is not None:
                sys.exit(text)
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/lab/tree/{{}}.ipynb?token={token}&reset"
    finally:
        lab.terminate()
        lab.wait()


class Widget:
    """The last widget of a notebook, turned by mouse and keys."""

    def __init__(self, page, shots):
        self.page, self.shots, self.faults = page, shots, []
        self.picture = page.locator("img.widget-image").last
        self.picture.scroll_into_view_if_needed()
        self.box = page.locator(".jp-OutputArea-output:has(img.widget-image)").last
        self.rows = self.box.locator(".widget-gridbox > *")
        self.picture.evaluate(WATCH)
        cut_off = self.box.evaluate(CUT_OFF)
        print("  cut off:", ", ".join(cut_off) or "nothing")
        self.faults += ["cut off"] * bool(cut_off)
        self.faults += ["no static figure above"] * (not self.box.evaluate(STATIC))
        self.shoot("0")

    def shoot(self, name):
        words = re.sub(r"\W+", "-", name)
        self.page.screenshot(path=f"{self.shots}-{words}.png")

    def act(self, name, action, *, changes=True):
        """Do what a reader does, wait until nothing moves, and say count its new pictures."""
        before = self.picture.evaluate(DIGEST)
        start = self.page.evaluate("shown.length = 0, window.acted = performance.now()")
        action()
        end = self.page.evaluate("window.acted = performance.now()")
        self.page.wait_for_function(
            f"performance.now() - Math.max(acted, ...shown) > 600 && {IDLE}", polling=100
        )
        shown = self.page.evaluate("shown")
        changed = self.picture.evaluate(DIGEST) != before
        told = self.box.locator(".widget-html-content").last.inner_text()
        first, last = (shown[0] - start, shown[-1] - end) if shown else (0, 0)
        print(
            f"  {name:36}{'changed' if changed else 'the same':10}{len(shown):2} pictures, first after "
            f"{first:5.0f} ms, last {last:5.0f} ms after the action's end ({end - start:.0f} ms)  {told}"
        )
        self.faults += [f"{name}: changed {changed}"] * (changed != changes and not told)
        return len(shown)

    def turn_all(self):
        """Turn every slider, and under every choice of a menu those that it switches on."""
        rows = {row.locator(".widget-label").first.inner_text(): row for row in self.rows.all()}
        menus = {name: row.locator("select") for name, row in rows.items() if row.locator("select").count()}
        waiting = {name: row for name, row in rows.items() if name not in menus}
        self.turn_sliders(waiting)
        for name, menu in menus.items():
            first = menu.locator("option:checked").inner_text()
            others = [option for option in menu.locator("option").all_inner_texts() if option != first]
            for option in (*others, first):
                self.act(
                    f"{name} = {option}", lambda menu=menu, option=option: menu.select_option(label=option)
                )
                self.shoot(f"{name} {option}")
                self.turn_sliders(waiting)
        self.faults += [f"{name}: never on" for name in waiting]
        for button in self.box.locator(".widget-play button").all()[:1]:
            # It stands at the last round, and ends there; on the way every round is shown.
            shown = self.act("play", button.click, changes=False)
            self.faults += ["play: shows no round"] * (shown < 2)

    def turn_sliders(self, waiting):
        for name, row in list(waiting.items()):
            if not row.locator("[disabled]").count():
                self.turn_slider(name, row)
                del waiting[name]

    def turn_slider(self, name, row):
        handle, track = row.locator(".noUi-handle").last, row.locator(".noUi-base").bounding_box()
        x, _ = self.find(handle)
        far = track["x"] + track["width"] * (0.2 if x > track["x"] + track["width"] / 2 else 0.8)
        there, back = ("ArrowLeft", "ArrowRight") if far < x else ("ArrowRight", "ArrowLeft")
        self.act(f"{name}, a key", lambda: handle.press(there))
        self.act(f"{name}, back", lambda: handle.press(back))
        self.act(f"{name}, dragged", lambda: self.drag(handle, far))
        self.shoot(name)
        # The figure has followed to the end if coming back to this value gives this figure again.
        self.act(f"{name}, two keys", lambda: (handle.press(back), handle.press(there)), changes=False)
        self.act(f"{name}, dragged back", lambda: self.drag(handle, x))

    def find(self, handle):
        place = handle.bounding_box()
        return place["x"] + place["width"] / 2, place["y"] + place["height"] / 2

    def drag(self, handle, end):
        start, y = self.find(handle)
        self.page.mouse.move(start, y)
        self.page.mouse.down()
        for step in range(1, 41):
            self.page.mouse.move(start + (end - start) * step / 40, y)
        self.page.mouse.up()


def run_notebook(page, address, shots):
    """Run a notebook, turn everything in its last widget, and return what is wrong."""
    page.goto(address)
    page.wait_for_selector(".jp-Notebook .jp-CodeCell >> nth=0")
    page.wait_for_function(IDLE, polling=500)
    # A click while JupyterLab still settles can be lost, so until a cell waits ([*]) or has run.
    while not re.search(r"[\d*]", "".join(page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts())):
        page.click(".jp-Notebook .jp-CodeCell .cm-content >> nth=0")  # "run all" is of the notebook in focus
        page.click('li.lm-MenuBar-item:has-text("Run")')
        page.click('li.lm-Menu-item[data-command="runmenu:run-all"]')
        page.wait_for_timeout(3000)
    page.wait_for_function(f"{IDLE} && ({RAN})", timeout=900_000, polling=500)
    if errors := page.locator("[data-mime-type='application/vnd.jupyter.error']").all_inner_texts():
        return [f"a cell ended in an error: {errors[0][-200:]}"]
    widget = Widget(page, shots)
    widget.turn_all()
    return widget.faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shots", type=Path, help="folder for the pictures")
    parser.add_argument("--width", type=int, default=1280, help="of the window, in pixels")
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--only", nargs="*", default=NOTEBOOKS, help="names of notebooks")
    options = parser.parse_args()
    options.shots.mkdir(parents=True, exist_ok=True)
    faults = []
    with tempfile.TemporaryDirectory() as folder, run_lab(Path(folder)) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name in options.only:
            print(name, flush=True)
            page = browser.new_page(viewport={"width": options.width, "height": options.height})
            page.set_default_timeout(60_000)
            found = run_notebook(page, address.format(name), options.shots / f"{name}-{options.width}")
            faults += [f"{name}: {fault}" for fault in found]
            page.close()
        browser.close()
    print("\n".join(faults) or "all as it should be")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
