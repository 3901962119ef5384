"""What a client does at a time, each in a thread: until it is told to stop, and no failure goes unseen."""

import os
import sys
import threading


def until_told(works, stop):
    """Runs them, and sets the event `stop` when a line comes, or the process that reads us ends."""
    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    sys.stdin.readline()
    stop.set()
    for thread in threads:
        thread.join()


def guarded(work):
    try:
        work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
