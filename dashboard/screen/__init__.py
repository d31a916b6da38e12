"""Streamlit that all pages share: the session and the address, cached reading, and pieces of pages. The first room that
may use streamlit; knows every room without it, and no page.
"""
