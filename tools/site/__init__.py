"""The documentation site: hooks of MkDocs, and what they make pages from."""
