"""Pictures and pages.

masks.py    a clip and what is hidden of it
report.py   the page of an evaluation
"""
