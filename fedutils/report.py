"""Write a report from facts as Markdown, HTML and PDF.

Tables, bars, pictures, sources and the disclaimer are made here from the facts, whoever wrote the prose: the
rules (`compose`) or a language model (`fedutils.report_llm`). The same facts and prose give the same bytes.
"""

import base64
import html
import json
import re
import tempfile
import urllib.parse
from collections.abc import Iterable
from pathlib import Path

from fedutils.errors import InputError
from fedutils.report_facts import Facts, Measure
from fedutils.report_prose import SECTIONS, Prose, compose
from fedutils.report_template import PAGE, TYPST

__all__ = ["SECTIONS", "Prose", "compose", "name_author", "render_html", "render_markdown", "render_pdf"]

_HEADINGS = {
    "finding": "Finding",
    "confidence": "Confidence",
    "measurements": "Measurements",
    "quality": "Quality of what went in",
    "next_steps": "Next steps",
    "limits": "Model and limits",
}
_TITLES = {
    "image": "Report on an image",
    "case": "Report on a case",
    "test run": "Report on a test run",
    "training": "Report on a training",
    "hospital": "Report on a hospital",
}
_PNG = b"\x89PNG\r\n\x1a\n"


def name_author(prose: Prose) -> str:
    """Return who wrote the words of a report, as its last line says it."""
    if prose.author != "rules":
        return (
            f"Words by {_flatten(prose.author)}, checked against the facts; numbers, tables, pictures and "
            "sources by code."
        )
    if prose.reason:
        return f"Words by rules, not by the language model: {_flatten(prose.reason)}."
    return "Words by rules from the facts; no language model took part."


def render_markdown(facts: Facts, prose: Prose) -> str:
    """Return the report in Markdown; pictures are named by their paths, which a name cannot break out of."""
    page = _lay_out(facts, prose)
    lines = [f"# {page['title']}", "", f"**{_escape(facts.not_clinical)}**", "", _escape(page["subject"]), ""]
    for picture in facts.pictures:
        lines += [f"![{_escape(picture.caption)}]({urllib.parse.quote(picture.path)})", ""]
    for section in page["sections"]:
        lines += [f"## {section['heading']}", ""]
        for paragraph in section["paragraphs"]:
            lines += [_escape(paragraph), ""]
        if section["name"] == "measurements" and page["measures"]:
            lines += ["| measure | value |", "|---|---|"]
            lines += [f"| {_escape(row['label'])} | {_escape(row['text'])} |" for row in page["measures"]]
            lines.append("")
        if section["name"] == "next_steps" and page["sources"]:
            lines += ["Sources:", "", *(f"* {_escape(source)}" for source in page["sources"]), ""]
        if section["name"] == "limits":
            lines += [f"* {_escape(name)}: {_escape(value)}" for name, value in page["model"]] + [""]
    return "\n".join([*lines, "---", "", _escape(page["author"]), ""])


def render_html(facts: Facts, prose: Prose, folder: Path = Path()) -> str:
    """Return the report as one HTML page that holds its pictures and loads nothing.

    Parameters
    ----------
    facts : Facts
    prose : Prose
    folder : Path
        Where the pictures' paths start.

    Raises
    ------
    InputError
        If a picture cannot be read.
    """
    page, e = _lay_out(facts, prose), html.escape
    figures = "".join(
        f'<figure><img src="data:image/png;base64,{base64.b64encode(data).decode()}" alt="{e(caption)}">'
        f"<figcaption>{e(caption)}</figcaption></figure>"
        for data, caption in ((_read_picture(folder, p.path), p.caption) for p in facts.pictures)
    )
    parts = []
    for section in page["sections"]:
        body = "".join(f"<p>{e(paragraph)}</p>" for paragraph in section["paragraphs"])
        if section["name"] == "finding":
            body += _draw_bars(page["bars"])
        if section["name"] == "measurements" and page["measures"]:
            rows = (f"<th scope=row>{e(r['label'])}</th><td>{e(r['text'])}</td>" for r in page["measures"])
            body = f"<table>{_join_rows(rows)}</table>"  # once: the prose would say the same again
            body = body if prose.author == "rules" else f"<p>{e(section['paragraphs'][0])}</p>{body}"
        if section["name"] == "next_steps" and page["sources"]:
            body += "<h3>Sources</h3><ul>" + "".join(f"<li>{e(s)}</li>" for s in page["sources"]) + "</ul>"
        if section["name"] == "limits":
            rows = (f"<th scope=row>{e(name)}</th><td>{e(value)}</td>" for name, value in page["model"])
            body += f"<table>{_join_rows(rows)}</table>"
        parts.append(f'<section id="{section["name"]}"><h2>{section["heading"]}</h2>{body}</section>')
    values = {
        "title": e(page["title"]),
        "subject": e(page["subject"]),
        "disclaimer": e(facts.not_clinical),
        "level": facts.confidence,
        "figures": figures,
        "sections": "\n".join(parts),
        "author": e(page["author"]),
    }
    # In one pass, so that nothing that is put in is looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], PAGE)


def render_pdf(facts: Facts, prose: Prose, folder: Path = Path(), *, png: bool = False) -> bytes:
    """Return the report as PDF, set by Typst; every text goes in as data, never as markup.

    Parameters
    ----------
    facts, prose, folder
        As of `render_html`.
    png : bool
        Return a picture of its first page instead, of 110 pixels an inch.

    Raises
    ------
    InputError
        If a picture cannot be read, or set.
    """
    import typst

    page = _lay_out(facts, prose)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        page["pictures"] = []
        for i, picture in enumerate(facts.pictures):
            (root / f"{i}.png").write_bytes(_read_picture(folder, picture.path))
            page["pictures"].append({"path": f"{i}.png", "caption": picture.caption})
        (root / "page.json").write_text(json.dumps(page))
        (root / "page.typ").write_text(TYPST)
        options = {"root": str(root), "ignore_system_fonts": True, "timestamp": 0}
        try:
            if not png:
                return typst.compile(str(root / "page.typ"), **options)
            pages = typst.compile(str(root / "page.typ"), format="png", ppi=110.0, **options)
        except typst.TypstError as error:
            raise InputError(
                f"{facts.subject}: expected a page that Typst can set, found: {error}"
            ) from error
    return pages[0] if isinstance(pages, list) else pages


def _lay_out(facts: Facts, prose: Prose) -> dict:
    """Return what every form of a report shows, as plain values of single lines."""
    return {
        "title": _TITLES[facts.kind],
        "subject": _flatten(facts.subject),
        "disclaimer": _flatten(facts.not_clinical),
        "confidence": facts.confidence,
        "sections": [
            {
                "name": name,
                "heading": _HEADINGS[name],
                "paragraphs": [_flatten(line) for line in prose.sections[name].splitlines() if line.strip()],
            }
            for name in SECTIONS
        ],
        "measures": [
            {"label": _flatten(m.label), "text": _flatten(m.text)} for m in facts.measures if not _is_bar(m)
        ],
        "bars": [_make_bar(m, facts.prediction) for m in facts.measures if _is_bar(m)],
        "sources": [_flatten(step.source) for step in facts.next_steps],
        "model": [(name.replace("_", " "), _show(value)) for name, value in facts.model.items()],
        "author": name_author(prose),
        "words": prose.author,
    }


def _is_bar(measure: Measure) -> bool:
    """Return whether a measure is the probability of a class, which is drawn."""
    return measure.name.startswith("p_")


def _make_bar(measure: Measure, prediction: str | None) -> dict:
    name = measure.name.removeprefix("p_")
    share = min(max(measure.value, 0.0), 1.0)
    return {"name": name, "share": share, "text": _flatten(measure.text), "predicted": name == prediction}


def _draw_bars(bars: list[dict]) -> str:
    if not bars:
        return ""
    e = html.escape
    rows = (
        f"<th scope=row{' class=predicted' if bar['predicted'] else ''}>{e(bar['name'])}</th>"
        f'<td class=bar aria-hidden=true><i style="width:{100 * bar["share"]:.2f}%"></i></td>'
        f"<td class=n>{e(bar['text'])}</td>"
        for bar in bars
    )
    return f"<table class=bars><caption>Probability of each class</caption>{_join_rows(rows)}</table>"


def _join_rows(cells: Iterable[str]) -> str:
    return "".join(f"<tr>{row}</tr>" for row in cells)


def _show(value) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{_flatten(name).replace('_', ' ')}: {_show(v)}" for name, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(_show, value))
    return f"{value:.4g}" if isinstance(value, float) else _flatten(value)


def _flatten(text) -> str:
    return " ".join(str(text).split())


def _escape(text: str) -> str:
    """Return a line in which nothing is Markdown, HTML or a link to a page, wherever it stands."""
    escaped = re.sub(r"([\\`*_{}\[\]<>|~&])", r"\\\1", _flatten(text))
    escaped = re.sub(r"(?i)(:)(?=//)|(?<=www)(\.)", r"\\\g<0>", escaped)
    return re.sub(r"^(\d*)([#+=-]|(?<=\d)[.)](?=\s|$))", r"\1\\\2", escaped)


def _read_picture(folder: Path, name: str) -> bytes:
    path = Path(folder) / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected the report's picture, found: {error.strerror}") from error
    if not data.startswith(_PNG):
        raise InputError(f"{path}: expected a PNG picture, found another kind of file; save it as PNG")
    return data
