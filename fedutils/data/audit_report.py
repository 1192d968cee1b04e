"""The report of an audit: one HTML file with its pictures inside, the same as JSON, and an honest split."""

import base64
import functools
import html
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from fedutils.data.audit import LEFT_OUT, Audit, Finding
from fedutils.data.brain_mri import read_image
from fedutils.data.case import Case
from fedutils.data.shortcuts import Shortcut
from fedutils.errors import InputError
from fedutils.preprocess import to_grey
from fedutils.results import to_json, write_atomic

FILES = ("report.html", "report.json", "split.csv")
_HEIGHT = 150  # pixels of a picture
_SHOWN = 12  # entries with pictures, a finding
_TOGETHER = 4  # pictures of one entry
_LISTED = 200  # further entries in the table

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 1100px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
table { border-collapse: collapse; margin: .6rem 0; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #ddd;
  vertical-align: top; }
td.n, th.n { text-align: right; }
.badge { color: #fff; border-radius: 3px; padding: .05rem .45rem; font-size: .75rem;
  text-transform: uppercase; margin-right: .5rem; }
.leak { background: #b3261e; }
.warning { background: #9a5b00; }
.note { background: #4a6572; }
.clean { background: #1f6f43; }
.gallery { display: flex; flex-wrap: wrap; gap: 14px; }
figure { margin: 0; padding: 8px; border: 1px solid #ddd; border-radius: 4px; }
figure .row { display: flex; gap: 8px; }
figure .one { font-size: .72rem; max-width: 220px; overflow-wrap: anywhere; }
figcaption { font-size: .78rem; color: #444; margin-top: 4px; max-width: 450px; }
img { display: block; background: #000; height: 150px; }
.none { height: 150px; width: 120px; background: #eee; display: flex; align-items: center;
  justify-content: center; color: #777; }
.bar { position: relative; width: 260px; height: 14px; background: #eee; }
.bar i { position: absolute; top: 0; bottom: 0; left: 0; background: #0072b2; }
.bar b { position: absolute; top: -2px; bottom: -2px; width: 2px; background: #d55e00; }
.bar u { position: absolute; top: 5px; height: 4px; background: #1b1b1b; }
code { font-size: .85em; }
summary { cursor: pointer; color: #333; }
"""


def write_report(audit: Audit, folder: Path, show: Callable[[str], Image.Image | None]) -> Path:
    """Write ``report.html``, ``report.json`` and ``split.csv``.

    Parameters
    ----------
    audit : Audit
    folder : Path
        Made if it is not there; earlier reports in it are replaced.
    show : callable
        From a file of the evidence to its picture, or None if there is none: `show_image` or `show_case`.

    Returns
    -------
    Path
        The HTML file: whole in itself, it can be mailed.
    """
    contents = (build_html(audit, show), to_json(audit.to_plain()), audit.to_csv())
    for name, text in zip(FILES, contents, strict=True):
        write_atomic(Path(folder) / name, text.encode())
    return Path(folder) / FILES[0]


def find_pictures(root: Path, layout: str) -> Callable[[str], Image.Image | None]:
    """Return what `write_report` needs to show files of a folder in the given layout."""
    from fedutils.data.layouts import find_layouts, list_cases

    if layout == "brain_mri":
        return functools.partial(show_image, find_layouts(root)[layout])
    return functools.partial(show_case, {case.name: case for case in list_cases(root, skip_bad=True)})


def show_image(root: Path, name: str) -> Image.Image | None:
    """Return the picture in ``root/name``, or None if it cannot be read."""
    try:
        image = read_image(Path(root) / name)
    except InputError:
        return None
    if image.mode in ("L", "RGB"):
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray((to_grey(image) * 255).astype(np.uint8))
    return image.convert("RGB")


def show_case(cases: dict[str, Case], name: str) -> Image.Image | None:
    """Return the axial slice of a case that holds most tumour, of its last modality, or None.

    The patient's left is on the left of the picture, the front is up.
    """
    case = cases.get(name)
    try:
        volume = case.load(case.modalities[-1:]) if case else None
    except InputError:
        volume = None
    if volume is None:
        return None
    (image,) = volume.images.values()
    has_tumour = volume.mask is not None and volume.mask.any()
    z = int((volume.mask > 0).sum(axis=(0, 1)).argmax()) if has_tumour else image.shape[2] // 2
    picture = image[:, :, z].T[::-1].astype(np.float32)
    top = max(float(np.percentile(picture, 99.5)), 1e-6)
    return Image.fromarray((np.clip(picture / top, 0, 1) * 255).astype(np.uint8))


def build_html(audit: Audit, show: Callable[[str], Image.Image | None]) -> str:
    """Return the report as one HTML page that loads nothing."""
    name = html.escape(audit.name)
    status = (
        '<span class="badge leak">leak</span>' if audit.leaks else '<span class="badge clean">no leak</span>'
    )
    parts = [
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Audit of {name}</title>'
        f"<style>{_STYLE}</style></head><body><h1>Audit of {name} {status}</h1>",
        f"<p>Layout <code>{audit.layout}</code>. A <b>leak</b> is on both sides of a split: what is measured "
        "there is memory. A <b>warning</b> wants a decision, a <b>note</b> wants a look.</p>",
        _summary_table(audit),
        _split_table(audit),
    ]
    if audit.shortcuts:
        parts.append(_shortcut_table(audit.shortcuts))
    parts += [_finding_section(finding, show) for finding in audit.findings if finding.files]
    return "\n".join([*parts, "</body></html>\n"])


def _summary_table(audit: Audit) -> str:
    if not audit.findings:
        return "<p>Nothing was found.</p>"
    rows = "".join(
        f'<tr><td><span class="badge {f.severity}">{f.severity}</span></td><td>{html.escape(f.kind)}</td>'
        f"<td>{html.escape(f.message)}</td></tr>"
        for f in audit.findings
    )
    return f"<h2>What was found</h2><table>{rows}</table>"


def _split_table(audit: Audit) -> str:
    labels = sorted({label for classes in audit.counts.values() for label in classes})
    kept = {(row.part, row.label): 0 for row in audit.rows}
    for row in audit.rows:
        kept[row.part, row.label] += 1
    head = "".join(f'<th class="n">{html.escape(label)}</th>' for label in labels)
    lines = []
    for split, classes in audit.counts.items():
        for title, number in (
            (f"{split}, as it is", lambda label, own=classes: own.get(label, 0)),
            (f"{split}, de-duplicated", lambda label, part=split: kept.get((part, _blank(label)), 0)),
        ):
            cells = "".join(f'<td class="n">{number(label):,}</td>' for label in labels)
            total = sum(number(label) for label in labels)
            lines.append(f'<tr><td>{html.escape(title)}</td>{cells}<td class="n">{total:,}</td></tr>')
    out = sum(row.part == LEFT_OUT for row in audit.rows)
    return (
        f'<h2>Counts</h2><table><tr><th>{audit.unit}</th>{head}<th class="n">all</th></tr>'
        f"{''.join(lines)}</table>"
        f"<p><code>split.csv</code> names the part of each of them, and why {out:,} are left out.</p>"
    )


def _blank(label: str) -> str:
    return "" if label == "unknown" else label


def _shortcut_table(shortcuts: tuple[Shortcut, ...]) -> str:
    rows = []
    for s in shortcuts:
        bar = (
            f'<div class="bar"><i style="width:{s.score:.1%}"></i>'
            f'<u style="left:{s.low:.1%};width:{s.high - s.low:.1%}"></u>'
            f'<b style="left:{s.chance:.1%}"></b></div>'
        )
        found = '<span class="badge warning">shortcut</span>' if s.is_found else ""
        rows.append(
            f"<tr><td>{s.target}</td><td>{s.feature}</td><td>{bar}</td>"
            f'<td class="n">{s.score:.1%}</td><td class="n">{s.low:.1%} to {s.high:.1%}</td>'
            f'<td class="n">{s.chance:.1%}</td><td class="n">{s.accuracy:.1%}</td>'
            f'<td class="n">{s.majority:.1%}</td><td>{found}</td></tr>'
        )
    return (
        "<h2>What can be told without looking at the picture</h2><p>Balanced accuracy of a small decision "
        "tree, cross-validated, near copies kept together. The line is chance, the black bar the 95 % "
        "interval.</p>"
        "<table><tr><th>target</th><th>seen</th><th></th><th class='n'>balanced accuracy</th>"
        "<th class='n'>95 % interval</th><th class='n'>chance</th><th class='n'>accuracy</th>"
        f"<th class='n'>most frequent</th><th></th></tr>{''.join(rows)}</table>"
    )


def _finding_section(finding: Finding, show) -> str:
    entries = list(zip(finding.files, finding.details, strict=True))
    if finding.kind.startswith("near copies"):  # from the nearest to the farthest: where is the border?
        shown = np.unique(np.linspace(0, len(entries) - 1, _SHOWN).round().astype(int)).tolist()
    else:
        shown = list(range(min(_SHOWN, len(entries))))
    figures = "".join(_figure(*entries[k], show) for k in shown)
    rest = [entry for k, entry in enumerate(entries) if k not in set(shown)]
    rows = "".join(
        f"<tr><td>{'<br>'.join(map(html.escape, files))}</td><td>{html.escape(words)}</td></tr>"
        for files, words in rest[:_LISTED]
    )
    more = ""
    if rows:
        beyond = f" ({len(rest) - _LISTED:,} more in report.json)" if len(rest) > _LISTED else ""
        more = (
            f"<details><summary>{min(len(rest), _LISTED):,} more{beyond}</summary>"
            f"<table>{rows}</table></details>"
        )
    return (
        f'<h2><span class="badge {finding.severity}">{finding.severity}</span>'
        f"{html.escape(finding.kind)}</h2>"
        f'<p>{html.escape(finding.message)}</p><div class="gallery">{figures}</div>{more}'
    )


def _figure(files: tuple[str, ...], words: str, show) -> str:
    shown = "".join(
        f'<div class="one">{_embed(show(name), name)}{html.escape(name)}</div>' for name in files[:_TOGETHER]
    )
    more = f"; {len(files) - _TOGETHER} more not shown" if len(files) > _TOGETHER else ""
    return (
        f'<figure><div class="row">{shown}</div><figcaption>{html.escape(words + more)}</figcaption></figure>'
    )


def _embed(image: Image.Image | None, name: str) -> str:
    """Return an image element that carries its own bytes."""
    if image is None:
        return '<div class="none">no picture</div>'
    width = max(1, min(4 * _HEIGHT, round(image.width * _HEIGHT / image.height)))
    buffer = io.BytesIO()
    image.resize((width, _HEIGHT), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(name, quote=True)}" src="data:image/jpeg;base64,{data}">'
