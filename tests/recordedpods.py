"""Where the recorded Pods are: what controllers of several versions made of templates."""

from pathlib import Path

PODS = Path(__file__).parent / "data" / "pods"
