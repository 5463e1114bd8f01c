"""Background work on RQ, or in the process where no Redis is configured.

PostgreSQL is the truth: what waits to be indexed is in rows. A job in Redis only makes it happen sooner.
"""
