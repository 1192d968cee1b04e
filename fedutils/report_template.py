"""The pages of a report: HTML that loads nothing and runs nothing, and Typst that reads its text as data."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{title}}</title>
<style>
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 46rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 1.6rem 0 .3rem; border-bottom: 1px solid #ccc; }
h3 { font-size: .95rem; margin: .8rem 0 .2rem; }
p { margin: .4rem 0; }
ul { margin: .3rem 0; padding-left: 1.2rem; }
.subject { color: #333; overflow-wrap: anywhere; margin: .2rem 0 .8rem; }
.disclaimer { border: 2px solid #8c1d18; color: #8c1d18; padding: .4rem .7rem; font-weight: 600; }
figure { margin: 1rem 0; break-inside: avoid; }
figure img { max-width: 100%; }
figcaption, footer, li { font-size: .85rem; color: #333; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; margin: .5rem 0; }
caption { text-align: left; font-size: .85rem; color: #333; }
th, td { text-align: left; vertical-align: top; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid #ddd;
  overflow-wrap: anywhere; }
th { font-weight: 400; width: 45%; }
.bars th { width: 22%; overflow-wrap: normal; }
.bars .predicted { font-weight: 700; }
.bars td.bar { width: 55%; padding-right: 1rem; }
.bars td.bar i { display: block; height: .8rem; min-width: 1px; margin-top: .3rem; background: #0072b2;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.bars td.n { white-space: nowrap; text-align: right; }
.level { display: inline-block; border: 1px solid #333; border-radius: 3px; padding: 0 .5rem;
  font-size: .85rem; }
footer { margin-top: 2rem; border-top: 1px solid #ccc; padding-top: .5rem; }
@media print { body { margin: 0; max-width: none; font-size: 11pt; } section { break-inside: avoid; } }
</style>
</head>
<body>
<header>
<h1>{{title}}</h1>
<p class="subject">{{subject}}</p>
<p class="disclaimer" role="note">{{disclaimer}}</p>
<p><span class="level">confidence: {{level}}</span></p>
</header>
<main>
{{figures}}
{{sections}}
</main>
<footer>{{author}}</footer>
</body>
</html>
"""

TYPST = """
#let page-data = json("page.json")
#set document(title: page-data.title)
#set page(paper: "a4", margin: (x: 2.2cm, y: 2cm), numbering: "1 / 1",
  footer: context [#set text(8pt); #page-data.disclaimer #h(1fr) #counter(page).display("1 / 1", both: true)])
#set text(10pt, lang: "en")
#set par(justify: false)
#show heading.where(level: 2): it => block(above: 1.2em, below: 0.6em, text(11.5pt, it.body))
#let muted = rgb("#333333")
#let warning = rgb("#8c1d18")
#text(17pt, weight: "bold", page-data.title)

#text(fill: muted, page-data.subject)

#block(stroke: 1pt + warning, inset: 6pt, width: 100%,
  text(fill: warning, weight: "bold", page-data.disclaimer))
#box(stroke: 0.5pt, inset: 3pt, radius: 2pt, text(9pt, "confidence: " + page-data.confidence))
#for picture in page-data.pictures [
  #figure(image(picture.path, width: 100%, alt: picture.caption), caption: picture.caption, numbering: none,
    outlined: false)
]
#let under = (x: none, top: none, bottom: 0.4pt + luma(80%))
#let rows(pairs) = table(columns: (45%, 1fr), stroke: under, inset: (x: 0pt, y: 4pt),
  ..pairs.flatten().map(cell => text(9pt, cell)))
#for section in page-data.sections [
  #heading(level: 2, section.heading)
  #for paragraph in section.paragraphs [
    #if section.name != "measurements" or page-data.measures.len() == 0 or page-data.words != "rules" {
      par(paragraph)
    }
  ]
  #if section.name == "finding" and page-data.bars.len() > 0 {
    grid(columns: (22%, 1fr, auto), row-gutter: 5pt, column-gutter: 8pt,
      ..for bar in page-data.bars {
        (text(9pt, weight: if bar.predicted { "bold" } else { "regular" }, bar.name),
          rect(width: calc.max(bar.share * 100%, 0.3%), height: 8pt, fill: rgb("#0072b2")),
          text(9pt, bar.text))
      })
  }
  #if section.name == "measurements" and page-data.measures.len() > 0 {
    rows(page-data.measures.map(row => (row.label, row.text)))
  }
  #if section.name == "next_steps" and page-data.sources.len() > 0 {
    block(below: 0.5em, text(9pt, weight: "bold", "Sources"))
    text(9pt, fill: muted, list(..page-data.sources))
  }
  #if section.name == "limits" { rows(page-data.model) }
]
#line(length: 100%, stroke: 0.4pt)
#text(8.5pt, fill: muted, page-data.author)
"""
