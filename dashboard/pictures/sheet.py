"""The style sheet of every page: its colours and width, tables, legends and galleries."""

from __future__ import annotations

from dashboard.pictures import gallery, markup, palette

# both themes at once, so that the colours change with the theme and not with the next click
_COLOURS = (
    ".stApp { "
    + "".join(
        f"--ravl-{name}: light-dark({getattr(palette.LIGHT, name)}, {getattr(palette.DARK, name)}); "
        for name in ("quiet", "text")
    )
    + "}"
)
_PAGE = """
.st-key-ahead { display: none; }
.stMainBlockContainer h1 { font-size: 1.9rem; padding: 0; line-height: 1.2; }
.stMainBlockContainer h3 { font-size: 1.3rem; padding-top: .6rem; }
.stMainBlockContainer { max-width: 1240px; padding: 3.1rem 2.5rem 3rem; }
.stApp [data-testid="stHeader"] { height: 2.75rem; min-height: 2.75rem; }
/* a name or a note without a space must not widen its column */
.stMain [data-testid="stMarkdownContainer"], .stMain h3 { overflow-wrap: anywhere; min-width: 0; }
.stMainBlockContainer [data-testid="stHorizontalBlock"] h3 { padding: .25rem 0; }
.stMain [data-testid="stPageLink-NavLink"] { padding: .3rem .75rem; border-radius: 6px; border: 1px solid;
  border-color: color-mix(in srgb, var(--ravl-text) 22%, transparent); }
.stMain [data-testid="stPageLink-NavLink"]:hover {
  border-color: color-mix(in srgb, var(--ravl-text) 55%, transparent); }
@media (min-width: 641px) {
  [class*="st-key-row-"] [data-testid="stColumn"]:first-child { flex: 1 1 0; min-width: 0; }
  [class*="st-key-row-"] [data-testid="stColumn"]:last-child { flex: none; width: 13rem; }
}
/* the whole title of the job that runs */
.stSidebar [data-testid="stPageLink-NavLink"] * { white-space: normal; overflow-wrap: anywhere; }
/* the name of a group at the end of a label is what tells it from others */
.stMain [data-testid="stMetricLabel"], .stMain [data-testid="stMetricLabel"] * {
  white-space: normal; overflow: visible; }
[data-testid="stCaptionContainer"], [data-testid="stCaptionContainer"] * { color: var(--ravl-quiet); opacity: 1; }
.stApp button[data-selected="true"] p { color: var(--ravl-text); }
/* as high as the field that it replaces: what is below must not move under a pressed mouse */
.st-key-reviewer { min-height: 68px; }
@media (min-width: 851px) and (max-width: 1050px) {
  .st-key-review-body > [data-testid="stLayoutWrapper"] > [data-testid="stHorizontalBlock"]
    > [data-testid="stColumn"]:first-child { flex: 1 1 0; min-width: 0; }
  .st-key-review-body > [data-testid="stLayoutWrapper"] > [data-testid="stHorizontalBlock"]
    > [data-testid="stColumn"]:last-child { flex: none; width: 250px; }
}
@media (max-width: 850px) {
  .st-key-review-body > [data-testid="stLayoutWrapper"] > [data-testid="stHorizontalBlock"] { flex-wrap: wrap; }
  .st-key-review-body > [data-testid="stLayoutWrapper"] > [data-testid="stHorizontalBlock"]
    > [data-testid="stColumn"] { min-width: 100%; }
}
@media (max-width: 900px) { .stMainBlockContainer { padding-left: 1.25rem; padding-right: 1.25rem; } }
"""

CSS = _COLOURS + markup.CSS + gallery.CSS + _PAGE
