"""The clickable gallery: the HTML of `gallery` inside a small component that says which card was chosen."""

from __future__ import annotations

import streamlit as st

from dashboard.pictures import gallery

# The HTML comes from `gallery`, which escapes everything a user can write.
_SCRIPT = """
export default function (component) {
  const { parentElement, data, setTriggerValue } = component;
  const host = parentElement.querySelector(".host");
  if (host.dataset.version !== data.version) {
    host.innerHTML = data.html;
    host.dataset.version = data.version;
  }
  host.onclick = (event) => {
    const button = event.target.closest("button[data-key]");
    if (button) setTriggerValue("chosen", Number(button.dataset.key));
  };
}
"""

_GALLERY = st.components.v2.component(
    "ravl_gallery",
    html='<div class="host"></div>',
    css=gallery.CSS + ".host { color: var(--st-text-color); font-family: var(--st-font); }",
    js=_SCRIPT,
)


def clickable(html: str, key: str) -> int | None:
    """Draw a gallery; the number of the card or pair that was clicked just now, else None."""
    result = _GALLERY(key=key, data={"html": html, "version": str(hash(html))}, on_chosen_change=_nothing)
    return None if result.chosen is None else int(result.chosen)


def _nothing() -> None:
    """A callback is what makes Streamlit return the value; reading it is all that happens."""
