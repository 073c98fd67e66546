"""How a machine turns echoes into pictures.

vendors.py   five synthetic machines
speckle.py   echoes of scatterers, and their interference
scan.py      echoes to grey frames of a fan
doppler.py   a colour box
overlay.py   what machines burn into their pictures
"""
