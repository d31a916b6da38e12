"""`python -m dashboard run ...` is `streamlit run ...`, with what the pages need imported before the server answers.

Streamlit imports an application when the first browser asks for it, and whoever that is waits for pandas and plotly.
"""

from __future__ import annotations

from importlib import import_module

BEFOREHAND = (
    *("pandas", "pyarrow.parquet", "scipy.special", "sqlalchemy.dialects.sqlite", "plotly.graph_objects"),
    *("PIL.ImageDraw", "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "ravl.data", "ravl.ledger", "ravl.store"),
    *("dashboard.serving.readiness", "dashboard.reading.repaired", "dashboard.choosing.making"),
    *("dashboard.pictures.charts", "dashboard.reporting"),
    "jinja2",
)
"""Modules that draw nothing: what registers a component or a cache must be imported by a page."""


def main() -> None:
    """Import, then do what streamlit's own command does."""
    from streamlit.web import cli

    for name in BEFOREHAND:
        import_module(name)
    cli.main(prog_name="streamlit")


if __name__ == "__main__":
    main()
