"""An open benchmark: ways of pretraining at equal cost, judged alike. Nothing here sees Ray.

config.py    arms, seeds, what "equal" means
matching.py  how many steps every arm gets
held_out.py  patients whom nothing learns from, such as children
runs.py      what runs have cost, and how they went
order.py     did all arms see the same clips?
measures.py  what an evaluation says of every encoder, with its draws of patients
board.py     arms over seeds: means, intervals, differences
curves.py    label curves and severity curves of arms
tables.py    tables, as Markdown and HTML
plots.py     bars and curves
outcome.py   all that was found, and its files
page.py      the page
noise.py     a benchmark per level of noise: what came of it
noise_page.py  and its page
"""
