"""Typed artifacts: families, schemas, documents, specs, and the packing of content."""
