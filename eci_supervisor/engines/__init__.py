"""The container engines of this host: their sockets, their stores of images."""
