"""`python -m ravl` is the `ravl` command."""

import sys

from ravl.cli import main

if __name__ == "__main__":
    sys.exit(main())
