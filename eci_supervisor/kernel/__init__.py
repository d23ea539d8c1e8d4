"""The only importer of the C module: typed wrappers over system calls and kernel files."""
