"""The service: one catalog behind a page and a REST interface.

From outside in: a connection has deadlines (``connection``); a request passes the guards (``guards``, on
``request_info``, ``rate_limit`` and ``body``); a route reads it (``routes``); its photos wait for slots (``admission``)
and share batches with others (``photos``, ``batching``); the answer is a record of ``schemas``. The catalog and the
journal work in threads (``service``), so that the event loop only passes things on.
"""
