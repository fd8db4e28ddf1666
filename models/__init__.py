"""The contract between training and serving: what a bundle is, and where bundles live."""
