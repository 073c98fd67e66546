"""Where the tests' own data is: golden values and the Kubernetes schemas."""

from pathlib import Path

DATA = Path(__file__).parent / "data"
