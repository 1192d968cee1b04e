"""Sphinx settings of the web book: the executed notebooks, as they are."""

project = "Federated brain-tumour imaging"
author = "The fedutils maintainers"
extensions = ["myst_nb"]
nb_execution_mode = "off"
html_theme = "sphinx_book_theme"
html_title = project
myst_enable_extensions = ["dollarmath"]
suppress_warnings = ["mystnb.unknown_mime_type"]
