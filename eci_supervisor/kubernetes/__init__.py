"""What a cluster needs: manifests, and the installer that the DaemonSet runs on each node."""
