"""The manifest: one Parquet row per clip. Millions of rows are streamed, never held.

schema.py       what a manifest is
file.py         read, filter and write one
check.py        what must hold between and within rows
splits.py       train, val and test by patient
stats.py        what a manifest holds, in numbers
import_csv.py   from the reference's CSV files
text_table.py   text and CSV files of others
patients.py     whom an encoder has seen, as keyed digests
verify.py       does every video hold what the manifest says?
sieve.py        good rows on, bad ones listed with their reasons
"""
