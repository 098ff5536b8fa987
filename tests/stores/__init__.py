"""Local object stores, and a proxy that disturbs requests to them."""
