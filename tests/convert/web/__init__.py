"""The page of web bundles."""
