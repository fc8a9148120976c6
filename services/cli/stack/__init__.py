"""The stack on one machine: real Kafka, Redis and Triton with all services, kept running by one supervisor.

core/blueprint.py   which processes, from `deploy/local/components.toml`; their ports, commands, environments
core/restarts.py    when what died starts again
core/report.py      what a stack says about itself (`status.json`)
supervisor.py       starts, watches, restarts, stops
runner.py           becomes the supervisor of a folder
handle.py           `Stack`: start, find, signal and stop one from outside; test fixtures use it too
home.py             the folder: lock, status, secrets
commands.py         the commands, with table.py, follow.py and slowing.py
software.py         where Kafka, Triton and Redis are; what is missing and how to get it
kafka_broker.py     Kafka from its published jars
processes.py, probes.py, port_search.py    of the operating system
"""
