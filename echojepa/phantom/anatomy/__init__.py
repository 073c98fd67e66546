"""Who is examined: patients and their beating hearts.

populations.py   adults, children, poor windows
patient.py       drawing patients, from study to study
cycle.py         when the heart does what
chamber.py       a chamber as a solid that beats
heart.py         one patient's heart
"""
