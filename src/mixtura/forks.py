"""Forked children compute on one thread.

OpenMP's threads do not survive a fork: a child whose parent has computed on several waits for them forever, as under
``gunicorn --preload``, celery or ``multiprocessing`` with "fork". Spawned children are not affected.
"""

import os
import sys


def compute_on_one_thread() -> None:
    """Limit every numeric library that this process has loaded to one thread; call it in a forked child.

    ``torch.set_num_threads`` still raises the limit, where the parent has not computed before the fork.
    """
    torch, threadpoolctl = sys.modules.get("torch"), sys.modules.get("threadpoolctl")
    if torch is not None:
        torch.set_num_threads(1)
    if threadpoolctl is not None:  # scikit-learn brings an OpenMP of its own
        threadpoolctl.threadpool_limits(1, user_api="openmp")


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=compute_on_one_thread)
