"""The parts of benchmarks/speed.py; the other libraries that it measures against run here only."""
