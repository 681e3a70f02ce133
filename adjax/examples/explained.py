"""`python -m adjax explain`: what a function's backward pass keeps and costs, at arguments of given types."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

from ..certify.errors import BadInput
from ..certify.options import writable
from ..certify.specs import GRAMMAR

DESCRIPTION = """\
Tabulate what goes into a function and comes out, what its backward pass keeps,
and what both passes cost, beside plain autodiff of the same function.
"""
EPILOG = f"""\
argument specs, one per argument (quote them: the shell has plans for < and [):
{"".join(f"  {line}" for line in GRAMMAR.splitlines(keepends=True))}
examples:
  adjax explain adjax:affine '(f32[16,8],f32[8])' 'f32[32,16]'
  adjax explain adjax:attention 'f32[1,512,8,64]' 'f32[1,512,8,64]' 'f32[1,512,8,64]' causal=True
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments and options with their meanings."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("function", metavar="FUNCTION", help="MODULE:FUNCTION or FILE.py:FUNCTION")
    parser.add_argument("specs", metavar="SPEC", nargs="*", default=[], help="the arguments, one by one, see below")
    parser.add_argument("--x64", action="store_true", help="enable JAX's 64-bit types")
    parser.add_argument("--html", metavar="FILE", type=writable, help="write the tables as a web page too")


def main(options: argparse.Namespace) -> int:
    """Print the tables, write the page.

    Raises:
        BadInput: there is no such function, or it cannot be traced or differentiated at these arguments.
    """
    import jax
    import numpy as np

    from ..certify.importing import load, raised
    from ..certify.report_text import spelled
    from ..certify.specs import keyword, make
    from ..explain import explain

    if options.x64:
        jax.config.update("jax_enable_x64", True)
    function = load(options.function)
    keywords = dict(filter(None, map(keyword, options.specs)))
    rng = np.random.default_rng(0)
    args = [make(spec, rng) for spec in options.specs if keyword(spec) is None]
    bound = functools.wraps(function)(functools.partial(function, **keywords)) if keywords else function
    try:
        explanation = explain(bound, *args)
    except Exception as error:
        raise BadInput(f"{raised(error)}; does the function run at these arguments?") from error
    if options.html:
        write(explanation._repr_html_(), f"explanation of {explanation.name}", options.html)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(spelled(str(explanation), encoding), flush=True)
    return 0


def write(body: str, title: str, path: Path) -> None:
    """A web page of its own, light or dark as the reader's system is."""
    from html import escape

    style = ":root{color-scheme:light dark}body{font-family:system-ui,sans-serif;margin:1.5em}"
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{style}</style>'
    page = f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'
    path.write_text(page, encoding="utf-8")
