"""What one view shows: the plane, and everything in it that scatters.

plane.py          where the probe stands
views.py          the standard views
tissue.py         clouds of scatterers, and how tissue carries them
inserts.py        valves and papillary muscles
surroundings.py   what lies around and inside the heart
scene.py          all scatterers of one view
"""
