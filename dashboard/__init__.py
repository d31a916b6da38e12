"""The screen of RAVL: it reads run folders and the ledger, and starts `python -m ravl ...` for what computes.

`server`, `jobs`, `opened`, `summaries`, `evidence`, `audits`, `comparison`, `selection`, `colouring`, `palette`,
`charts`, `gallery`, `markup`, `wording` and `claims` are pure: no streamlit, no torch. `app`, `state`, `readers`,
`components`, `forms`, `panels` and the `views` draw what they return.
"""
