"""The cache: is the answer known already, or is someone generating it now?

Owns stored answers and the table of flights (who generates what right now), both in Redis. Never answers across a scope,
never stores an answer that is not complete, and never blocks a request: callers give a lookup a small budget and take
anything else as a miss.

    core/scope.py      what two requests must share; the key
    core/flight.py     who joins whom
    core/lookup.py     one batch: identical requests in it are one question
    ports.py           AnswerCache
    adapters/          Redis (one small script per question), memory
    servicer.py        millrace.cache.v1.Cache
"""
