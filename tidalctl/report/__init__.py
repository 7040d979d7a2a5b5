"""Pages made for looking: one HTML file that needs nothing else. Pure functions from records.

Imported only where a page is asked for.
"""
