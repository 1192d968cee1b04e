"""Reports as Markdown, HTML and PDF: every form shows every fact, and nothing else."""

import base64
import dataclasses
import html.parser
import io
import os
import re
import shutil
import subprocess
from itertools import pairwise

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from fedutils.errors import InputError
from fedutils.model_info import NOT_CLINICAL
from fedutils.report import SECTIONS, Prose, compose, render_html, render_markdown, render_pdf
from fedutils.report_facts import Facts, Measure, NextStep, Picture

HOSTILE = "<script>alert(1)</script>&\"'`|*_[x](http://evil.example) www.evil.example a@evil.example.jpg"
MODEL = {"title": "Classes of slices", "architecture": "CNN", "round": 19, "trained_on": {"images": 6481}}


def make_facts(kind="image", **changes):
    values = {
        "kind": kind,
        "subject": "scan.png",
        "model": MODEL,
        "confidence": "moderate",
        "confidence_meaning": "By the probability.",
        "next_steps": (
            NextStep("A radiologist reads it.", "A guideline, 2020"),
            NextStep("Wait.", "Another"),
        ),
        "limits": ("Few images.",),
    }
    if kind == "image":
        values |= {
            "prediction": "glioma",
            "classes": ("glioma", "notumor"),
            "measures": (
                Measure("p_glioma", 0.875, "", "87.5 %", "probability of glioma"),
                Measure("p_notumor", 0.125, "", "12.5 %", "probability of notumor"),
            ),
        }
    return Facts(**(values | changes))


def write_picture(folder, name="scan.png"):
    Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7) * 7).save(folder / name)
    return Picture(name, f"The scan {name}")


class Page(html.parser.HTMLParser):
    """The visible text of a page by section, its elements and its attributes."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.tags, self.attributes, self.section, self.rows = {}, [], [], "page", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "section":
            self.section = dict(attrs)["id"]
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        self.section = "page" if tag == "section" else self.section

    def handle_data(self, data):
        if self.tags[-1:] in (["th"], ["td"]) and data.strip():
            self.rows[-1].append(data)
        self.texts[self.section] = self.texts.get(self.section, "") + data


def measure(*entries):
    return tuple(Measure(name, value, "", text, label) for name, value, text, label in entries)


CASE = measure(
    ("volume_wt", 34.2, "34.2 ml", "volume of the whole tumour"),
    ("share_beyond", 0.04, "4.0 %", "share of the volume on the other side"),
)


def test_the_page_holds_every_fact_and_loads_nothing(tmp_path):
    facts = make_facts(pictures=(write_picture(tmp_path),), warnings=("Small.",))
    prose = compose(facts)
    page = Page(text := render_html(facts, prose, tmp_path))
    for name in SECTIONS:
        for line in prose.sections[name].splitlines():
            assert line in page.texts[name]
    assert ["glioma", "87.5 %"] in page.rows and ["round", "19"] in page.rows
    assert ["trained on", "images: 6481"] in page.rows
    assert "A guideline, 2020" in page.texts["next_steps"] and NOT_CLINICAL in page.texts["page"]
    widths = [value for name, value in page.attributes if name == "style"]
    assert widths == ["width:87.50%", "width:12.50%"]  # the bars
    (source,) = [value for name, value in page.attributes if name == "src"]
    kind, data = source.split(",")
    assert kind == "data:image/png;base64" and base64.b64decode(data) == (tmp_path / "scan.png").read_bytes()
    assert ("alt", "The scan scan.png") in page.attributes and ("lang", "en") in page.attributes
    assert not {"script", "link", "iframe", "a"} & set(page.tags)
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes
    assert "href" not in dict(page.attributes) and "url(" not in text


def test_numbers_are_shown_in_a_table_once(tmp_path):
    facts = make_facts("case", measures=CASE)
    page = Page(render_html(facts, compose(facts)))
    assert ["volume of the whole tumour", "34.2 ml"] in page.rows
    assert page.texts["measurements"].count("34.2 ml") == 1
    own = dataclasses.replace(compose(facts), author="language model x")
    assert "Volume of the whole tumour: 34.2 ml" in Page(render_html(facts, own)).texts["measurements"]


def test_a_hostile_name_is_text_in_every_form(tmp_path):
    facts = make_facts(
        subject=HOSTILE,
        warnings=(HOSTILE,),
        model={"title": HOSTILE, "architecture": HOSTILE, HOSTILE: HOSTILE},
        pictures=(dataclasses.replace(write_picture(tmp_path), caption=HOSTILE),),
        measures=(Measure("p_glioma", 1, "", HOSTILE, HOSTILE), Measure("dice", 1, "", HOSTILE, HOSTILE)),
    )
    sections = dict.fromkeys(SECTIONS, HOSTILE)
    prose = Prose(sections, f"language model {HOSTILE}", HOSTILE)
    plain = Page(render_html(make_facts(pictures=facts.pictures), compose(make_facts()), tmp_path))
    page = Page(text := render_html(facts, prose, tmp_path))
    assert set(page.tags) <= set(plain.tags) | {"tr"} and "{{" not in text
    assert HOSTILE in page.texts["finding"] and ("alt", HOSTILE) in page.attributes
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(render_markdown(facts, prose))
    flat = [child for token in tokens for child in (token.children or [token])]
    assert not {"html_inline", "html_block", "link_open", "em_open", "code_inline"} & {t.type for t in flat}
    assert "".join(t.content for t in flat if t.type == "text").count("<script>alert(1)</script>") >= 10
    assert [t.attrs["src"] for t in flat if t.type == "image"] == ["scan.png"]
    cells = [inline for cell, inline in pairwise(tokens) if cell.type == "td_open"]
    assert ["".join(t.content for t in cell.children) for cell in cells] == [HOSTILE, HOSTILE]
    text = render_markdown(facts, prose)
    assert not re.search(r"(?<!\\)://|www\.", text)  # which GitHub would make links
    assert render_pdf(facts, prose, tmp_path).startswith(b"%PDF")


@pytest.mark.parametrize(
    "line", ["# a", "1. a", "1) a", "- a", "+ a", "= a", "> a", "~~~", "a | b", "![x](y)", "<b>", "    a"]
)
def test_a_line_cannot_become_markup_in_markdown(line):
    prose = Prose(dict.fromkeys(SECTIONS, line))
    text = render_markdown(make_facts(), prose)
    plain = render_markdown(make_facts(), Prose(dict.fromkeys(SECTIONS, "a")))
    parser = MarkdownIt("commonmark").enable("table")
    assert [t.type for t in parser.parse(text)] == [t.type for t in parser.parse(plain)]


def test_a_placeholder_in_a_fact_is_not_filled_in():
    facts = make_facts(subject="{{author}}", warnings=("{{title}} {title} #title",))
    text = render_html(facts, compose(facts))
    assert '<p class="subject">{{author}}</p>' in text and "{{title}} {title} #title" in text


def test_markdown_names_its_pictures_and_sources(tmp_path):
    picture = dataclasses.replace(write_picture(tmp_path, "a b.png"), caption="A scan")
    text = render_markdown(facts := make_facts(pictures=(picture,)), compose(facts))
    assert "![A scan](a%20b.png)" in text and f"**{NOT_CLINICAL}**" in text
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        "Finding",
        "Confidence",
        "Measurements",
        "Quality of what went in",
        "Next steps",
        "Model and limits",
    ]
    assert "* A guideline, 2020" in text and "* round: 19" in text
    case = make_facts("case", measures=CASE)
    assert "| volume of the whole tumour | 34.2 ml |" in render_markdown(case, compose(case))
    assert render_markdown(case, compose(case)).isascii()  # nothing invisible stands in a number


def test_the_same_facts_give_the_same_bytes(tmp_path):
    facts = make_facts(pictures=(write_picture(tmp_path),))
    prose = compose(facts)
    for render in (render_html, render_pdf):
        assert render(facts, prose, tmp_path) == render(facts, prose, tmp_path)
    assert render_markdown(facts, prose) == render_markdown(facts, prose)


def test_the_printed_page(tmp_path):
    facts = make_facts(pictures=(write_picture(tmp_path),))
    assert render_pdf(facts, compose(facts), tmp_path).startswith(b"%PDF-")
    with Image.open(io.BytesIO(render_pdf(facts, compose(facts), tmp_path, png=True))) as image:
        assert image.size == (909, 1286)  # A4, 210 x 297 mm, at 110 pixels an inch
        pixels = np.asarray(image.convert("RGB")).astype(int)
    bars = (np.abs(pixels - (0, 114, 178)).sum(axis=-1) < 12).sum(axis=1)  # the colour #0072b2
    bars = bars[bars > 0]
    assert bars[0] == pytest.approx(7 * bars[-1], rel=0.03)  # 87.5 % above 12.5 %


@pytest.mark.parametrize(
    ("author", "reason", "words"),
    [
        ("rules", None, "Words by rules from the facts; no language model took part."),
        ("rules", "it did not answer", "Words by rules, not by the language model: it did not answer."),
        ("language model llama", None, "Words by language model llama, checked against the facts;"),
    ],
)
def test_who_wrote_it_is_said(author, reason, words):
    prose = dataclasses.replace(compose(make_facts()), author=author, reason=reason)
    assert words in render_markdown(make_facts(), prose)
    assert words in Page(render_html(make_facts(), prose)).texts["page"]


@pytest.mark.parametrize("render", [render_html, render_pdf])
def test_pictures_that_cannot_be_shown(tmp_path, render):
    facts = make_facts(pictures=(Picture("gone.png", "Gone"),))
    with pytest.raises(InputError, match=r"gone.png: expected the report's picture, found: No such file"):
        render(facts, compose(facts), tmp_path)
    (tmp_path / "gone.png").write_bytes(b"GIF89a")
    with pytest.raises(InputError, match="expected a PNG picture, found another kind of file"):
        render(facts, compose(facts), tmp_path)
    (tmp_path / "gone.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    if render is render_pdf:
        with pytest.raises(InputError, match="expected a page that Typst can set"):
            render(facts, compose(facts), tmp_path)


@pytest.mark.skipif(not shutil.which("chromium"), reason="no Chromium on this machine")
def test_a_browser_shows_the_page_and_runs_nothing(tmp_path):
    facts = make_facts(subject=HOSTILE, pictures=(write_picture(tmp_path),))
    path = tmp_path / "page.html"
    path.write_text(render_html(facts, compose(facts), tmp_path))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}"]
    places = {name: str(tmp_path / "home") for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    done = subprocess.run(
        ["chromium", *flags, "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | places,  # it would write into the reader's own
    )
    page = Page(done.stdout)
    assert "script" not in page.tags and HOSTILE in page.texts["page"]
    assert "probability of 87.5 %" in page.texts["finding"]
