"""Several serving processes behind one port, and the process that looks after them.

    parent.py    starts them, restarts those that die, adds up their metrics, passes signals on
    child.py     one serving process: the same server as ever, with a line to its parent
    policy.py    when to start a dead one again and when to give up; decides, touches nothing
    sums.py      one set of metrics from many processes and lives; adds, touches nothing
    shares.py    what each process gets of the container's CPUs and of the settings' bounds
    wire.py      messages between the two, one JSON object a line

Importing this package imports nothing else: with one process none of it is used.
"""
