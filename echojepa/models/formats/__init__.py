"""Weights of other people's software, in and out.

published.py        files of published weights, read without running anything
names.py            their names of weights, and ours
dense.py            what V-JEPA 2.1 holds beyond V-JEPA 2
import_weights.py   published weights to an encoder folder
export_weights.py   an encoder folder to Hugging Face or V-JEPA 2
"""
