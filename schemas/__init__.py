"""JSON Schemas (2020-12), one file each: what a model fills, what its answer is validated with, and the documentation."""
