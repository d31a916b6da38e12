"""`python -m ravl.bench [stages|steps|audits]`."""

from __future__ import annotations

import argparse

from ravl.bench import audits, stages, steps
from ravl.errors import RavlError


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(prog="python -m ravl.bench", description="What things cost on this machine.")
    what = parser.add_subparsers(dest="what")
    what.add_parser("stages", help="embedding, clustering and a training step on the demo (default)")
    steps.add_options(what.add_parser("steps", help="a training step of large models, with and without the regions"))
    audits.add_options(what.add_parser("audits", help="whole audits of large models, or of large image sets"))
    options = parser.parse_args()
    try:
        if options.what == "steps":
            steps.run(options)
        elif options.what == "audits":
            audits.run(options)
        else:
            stages.main()
    except RavlError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
