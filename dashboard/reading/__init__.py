"""Runs, inputs and the ledger read into what a page shows: one documented dataclass a view. Interprets no number: that
is for `words`, which it does not know.
"""
