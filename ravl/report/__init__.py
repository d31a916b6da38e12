"""A report on one page of HTML that needs nothing beside it: text, tables and pictures, and how they are drawn.

Nothing here takes HTML: every text is escaped where it is drawn, so what people write stays text.
"""

from ravl.report.page import draw
from ravl.report.pieces import Cell, Document, Figure, Gallery, Picture, Piece, Points, Prose, Section, Table

__all__ = ["Cell", "Document", "Figure", "Gallery", "Picture", "Piece", "Points", "Prose", "Section", "Table", "draw"]
