"""Weights of other people's software, in and out.

files.py            files of weights, read without running anything in them
published.py        files of published V-JEPA weights, sorted into branches
names.py            their names of weights, and ours
shapes.py           what tensors tell of an architecture
dense.py            what V-JEPA 2.1 holds beyond V-JEPA 2
videomae.py         VideoMAE weights, in our names
import_weights.py   published weights to an encoder folder
export_weights.py   an encoder folder to Hugging Face or V-JEPA 2
"""
