"""The version of Lantern, as /metadata and /docs give it."""

VERSION = "0.1.0"
