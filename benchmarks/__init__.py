"""Side-by-side measurements against the tools people use today. See BENCHMARKS.md."""
