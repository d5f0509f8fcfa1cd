"""Widgets that show recorded runs in the browser, with no kernel needed once they are drawn.

A class a module; none is imported before it is used, so that the first look comes sooner.
"""
