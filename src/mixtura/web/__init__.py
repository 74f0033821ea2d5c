"""The service: one catalog behind a page and a REST interface.

From outside in: a connection has deadlines (``connection``), a request passes the guards (``guards``, ``body``,
``limits``), a route reads it (``routes``), photos of many requests share batches (``photos``, ``batching``), and the
answer is a record of ``schemas``. What the catalog and the journal do is done in threads (``service``), so that the
event loop only ever passes things on.
"""
