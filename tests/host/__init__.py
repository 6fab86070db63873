"""A small host of our own: an IoT platform's tables, roles, pool, own OTA code and worker process.

``schema.sql``   the result of its migrations: tables, policies, roles, default privileges
``rows.sql``     two tenants, and campaigns in every state that its own worker leaves behind
``platform.py``  its database, made from these two files, and its logins
``rights.py``    what each of its logins may do, found by trying every statement
``process.py``   its worker process: Rollwave's two coroutines and its other workers in one bare ``asyncio.gather``
"""
