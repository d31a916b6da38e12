"""What stands around the pages: the web server, who sits before it, the jobs it starts, what this machine can do, and
the log of faults. Knows the ledger's jobs, and no result of an audit.
"""
