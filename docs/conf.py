"""Sphinx's settings. `make docs` gathers the sources (tools/docs/sources.py) in site/sources and builds them there.

Nothing is fetched, in building or in reading: fonts are the reader's own, mathematics is MathML.
"""

from importlib.metadata import version as version_of

project = "adjax"
copyright = "the adjax authors"
version = release = version_of("adjax")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "tools.docs.docstrings",
    "tools.docs.mathematics",
]
root_doc = "index"
smartquotes_action = "D"  # dashes alone: quotation marks and dots are often code
exclude_patterns = ["README.md", "CHANGELOG.md", "generated"]  # other pages include them, or parts of them

html_theme = "furo"
html_title = "adjax"
html_static_path = ["_static"]
html_css_files = ["adjax.css"]
html_favicon = html_logo = "_static/mark.svg"
html_copy_source = False
html_math_renderer = "mathml"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0072b2", "color-brand-content": "#0072b2"},
    "dark_css_variables": {"color-brand-primary": "#56b4e9", "color-brand-content": "#56b4e9"},
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"

myst_enable_extensions = ["amsmath", "attrs_inline", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # `make notebooks` executes them
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
toc_object_entries_show_parents = "hide"
