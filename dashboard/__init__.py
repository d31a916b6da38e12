"""The screen of RAVL: it reads run folders and the ledger, and starts `python -m ravl ...` for what computes.

The rooms, in the order in which they may import one another: `serving`, `reading`, `words`, `choosing`, `pictures`,
`reporting`, `screen`, `acting`, `views`; each sees itself and those before it. Up to `reporting` they are pure: no
streamlit. None of them loads torch. `app` draws the frame around a page of `views`, once `entrance` lets somebody in;
`static` is what the map runs in the browser.
"""
