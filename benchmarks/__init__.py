"""What speed is measured by: `python -m benchmarks.NAME`, one JSON line each (docs/performance.md)."""
