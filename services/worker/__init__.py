"""The worker: one engine's slots, prompt rendering, the token log of the tasks it runs.

It takes tasks from the owner of its pool against credits, makes text of them with its engine, logs the text and only then tells
the gateways that read it, and brings each task to its end. It never chooses what to run, joins no consumer group, and keeps
nothing that it could not lose: the log fences it when it is replaced, and the next attempt goes on from the log.

Read in this order:

* `core/attempt_plan.py`: what an attempt does; `core/answer.py`: the text of a task; `core/held_texts.py`: what may be
  logged again when Redis forgot; `core/credits.py`, `core/tick.py`: how much work it asks for, how long text gathers
* `worker.py`: the worker as the dispatcher sees it; `carrier.py`: the way of one attempt, step by step
* `reports.py`: what the dispatcher must hear; `watch.py`: what only time shows
* `flusher.py`: the hot path, log before notify; `task_run.py`: one task while it is here
* `attach.py`: the line to the dispatcher
* `core/chat_prompt.py`, `core/stable_text.py`: how a model is spoken to, how its text is made final
* `ports.py` and `adapters/`: the engines (Triton, simulator), prompts, live frames
* `settings.py`, `main.py`: what can be turned, how it is wired
"""
