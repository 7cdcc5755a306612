"""What can go wrong between processes."""


class ProcessLostError(RuntimeError):
    """A process of the group has ended or does not answer. The run cannot go on; its last checkpoint can."""


class PeerError(RuntimeError):
    """Another process of the group has refused its input or failed to write; its message says why."""
