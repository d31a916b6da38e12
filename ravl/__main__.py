"""`python -m ravl` is the `ravl` command."""

from ravl.cli import entry

if __name__ == "__main__":
    entry()
