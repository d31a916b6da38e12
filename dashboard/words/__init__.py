"""Sentences that interpret what was read; counts come first. Knows the records of `reading`, never the screen."""
