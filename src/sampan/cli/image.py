"""`sampan image`: the images of the nodes' shared store."""

from __future__ import annotations

import typer

app = typer.Typer(help="Images of the nodes' shared store.", no_args_is_help=True)
