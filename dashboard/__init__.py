"""The screen of RAVL: it reads run folders and the ledger, and starts `python -m ravl ...` for what computes.

`server`, `jobs`, `summaries`, `audits`, `comparison`, `selection`, `colouring`, `palette`, `charts`, `gallery`,
`markup` and `wording` are pure: no streamlit, no torch. `app`, `state`, `readers`, `components`, `forms`, `panels` and
the `views` draw what they return.
"""
