"""What is asked of an encoder beyond its test scores.

findings.py           all that an evaluation has found, and its files
label_efficiency.py   how many labels does it take?
robustness.py         what do acoustic corruptions cost?
transfer.py           does a probe hold on other people's patients?
benchmark_files.py    from fitted probes to those files
cardiobench.py        predictions in the columns that the public benchmark scores
"""
