"""The parts of pages in which a person acts: says who decides, merges and splits features, makes one, takes decisions
over, reads a second time. Built of the pieces of `screen`.
"""
