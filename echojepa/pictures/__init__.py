"""Pictures and pages.

masks.py            a clip and what is hidden of it
report.py           the page of an evaluation
evaluation.py       what plays and is mapped on it
comparison.py       its first table: all encoders, all tasks
tables.py           tables of scores
plots.py            plots of scores
looks.py            colours and markers of encoders
severity.py         what corrupted clips cost
umap.py             a map of features
films.py            clips that play; best and worst predictions
attention.py        where an encoder looks
attention_films.py  the same over the clip, playing
"""
