"""The container engines of this host: their files, containers, sockets, stores of images."""
